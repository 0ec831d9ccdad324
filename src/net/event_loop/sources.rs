//! What the sockets of a loop are ready for.
//!
//! epoll is edge-triggered: a readiness stays until a call that came back short clears it, and the
//! next octet raises the next edge. A closed state is cleared only where a call contradicts it.

use std::cell::{Cell, RefCell};
use std::ops::{BitAnd, BitOr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::event::epoll::EventFlags;

/// A set of readinesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(u8);

impl Ready {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Octets, or a connection, may be waiting.
    pub const READABLE: Self = Self(1);
    /// There may be room.
    pub const WRITABLE: Self = Self(2);
    /// The peer has ended its direction, or both are closed.
    pub const READ_CLOSED: Self = Self(4);
    /// Both directions are closed, or an error waits.
    pub const WRITE_CLOSED: Self = Self(8);
    /// Urgent data was among the octets: a read ends there, whatever is behind.
    pub const URGENT: Self = Self(16);

    /// What a reader waits for.
    pub(in crate::net) const FOR_READ: Self = Self(1 | 4);
    /// What an acceptor waits for: all of it is reported again while it lasts.
    pub(in crate::net) const FOR_ACCEPT: Self = Self(1 | 4 | 8);
    /// What a writer waits for.
    pub(in crate::net) const FOR_WRITE: Self = Self(2 | 8);

    /// Whether any of `other` is in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn of(flags: EventFlags) -> Self {
        let has = |flag| flags.contains(flag);
        let mut ready = 0;
        if has(EventFlags::IN) {
            ready |= Self::READABLE.0;
        }
        if has(EventFlags::PRI) {
            ready |= Self::READABLE.0 | Self::URGENT.0;
        }
        if has(EventFlags::OUT) {
            ready |= Self::WRITABLE.0;
        }
        if has(EventFlags::HUP) || has(EventFlags::RDHUP) {
            ready |= Self::READ_CLOSED.0;
        }
        if has(EventFlags::HUP) || has(EventFlags::ERR) {
            ready |= Self::WRITE_CLOSED.0;
        }
        Self(ready)
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Ready {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The sources of a loop. A place is used again by a later socket.
#[derive(Debug, Default)]
pub(super) struct Sources {
    places: Vec<Rc<Source>>,
    free: Vec<u32>,
}

/// What one socket is ready for, and the one task that polls it.
#[derive(Debug)]
pub(super) struct Source {
    index: u32,
    /// Tells the socket from earlier ones at this place.
    serial: Cell<u32>,
    ready: Cell<Ready>,
    waits_for: Cell<Ready>,
    waker: RefCell<Option<Waker>>,
}

impl Sources {
    pub(super) fn insert(&mut self, ready: Ready) -> Rc<Source> {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.places.len() as u32;
            self.places.push(Rc::new(Source {
                index,
                serial: Cell::new(0),
                ready: Cell::new(Ready::NONE),
                waits_for: Cell::new(Ready::NONE),
                waker: RefCell::new(None),
            }));
            index
        });
        let source = &self.places[index as usize];
        source.ready.set(ready);
        Rc::clone(source)
    }

    pub(super) fn remove(&mut self, source: &Source) {
        source.serial.set(source.serial.get().wrapping_add(1));
        source.waits_for.set(Ready::NONE);
        source.waker.take();
        self.free.push(source.index);
    }

    /// An event of epoll: wakes who waits for it. One for a socket that is gone is passed over.
    pub(super) fn event(&self, token: u64, ready: Ready) {
        let Some(source) = self.places.get((token & u64::from(u32::MAX)) as usize) else {
            return;
        };
        if source.token() != token {
            return;
        }
        source.ready.set(source.ready.get() | ready);
        if source.waits_for.get().has(ready) {
            source.waits_for.set(Ready::NONE);
            if let Some(waker) = &*source.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl Source {
    /// What epoll is to report its events with.
    pub(super) fn token(&self) -> u64 {
        u64::from(self.serial.get()) << 32 | u64::from(self.index)
    }

    /// What it is ready for, if that is any of `wanted`.
    #[inline]
    pub(super) fn poll(&self, wanted: Ready, cx: &mut Context<'_>) -> Poll<Ready> {
        let ready = self.ready.get();
        if ready.has(wanted) {
            return Poll::Ready(ready);
        }
        let waits_for = self.waits_for.get();
        if (waits_for & wanted) != wanted {
            self.wait(waits_for | wanted, cx);
        }
        Poll::Pending
    }

    fn wait(&self, wanted: Ready, cx: &Context<'_>) {
        self.waits_for.set(wanted);
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Whether it is ready for any of `wanted`.
    #[inline]
    pub(super) fn is(&self, wanted: Ready) -> bool {
        self.ready.get().has(wanted)
    }

    /// A call came back short.
    #[inline]
    pub(super) fn clear(&self, ready: Ready) {
        self.ready.set(Ready(self.ready.get().0 & !ready.0));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_event_wakes_once_and_only_who_waits_for_it() {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut sources = Sources::default();
        let source = sources.insert(Ready::NONE);
        let token = source.token();
        assert!(source.poll(Ready::FOR_READ, &mut cx).is_pending());
        sources.event(token, Ready::WRITABLE);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        sources.event(token, Ready::READABLE);
        sources.event(token, Ready::READABLE);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let ready = source.poll(Ready::FOR_READ, &mut cx);
        assert_eq!(ready, Poll::Ready(Ready::READABLE | Ready::WRITABLE));
        source.clear(Ready::READABLE);
        assert!(source.poll(Ready::FOR_READ, &mut cx).is_pending());
        sources.event(token, Ready::READ_CLOSED);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_event_of_a_socket_that_is_gone_is_not_its_successor_s() {
        let mut sources = Sources::default();
        let gone = sources.insert(Ready::NONE);
        let token = gone.token();
        sources.remove(&gone);
        let successor = sources.insert(Ready::NONE);
        assert!(Rc::ptr_eq(&gone, &successor), "the place is used again");
        sources.event(token, Ready::WRITABLE);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(successor.poll(Ready::FOR_WRITE, &mut cx).is_pending());
    }

    #[test]
    fn a_reset_closes_both_directions_and_an_end_one() {
        let end = Ready::of(EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP);
        assert!(end.has(Ready::READ_CLOSED) && !end.has(Ready::WRITE_CLOSED));
        let reset = Ready::of(EventFlags::IN | EventFlags::ERR | EventFlags::HUP);
        assert!(reset.has(Ready::READ_CLOSED) && reset.has(Ready::WRITE_CLOSED));
    }
}
