//! What the sockets of a loop are ready for.
//!
//! epoll is edge-triggered: a readiness stays until a call that came back short clears it, and the
//! next octet raises the next edge. A closed state is cleared only where a call contradicts it.

use std::ops::{BitAnd, BitOr};
use std::task::{Context, Poll, Waker};

use rustix::event::epoll::EventFlags;
use slab::Slab;

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
        if flags.intersects(EventFlags::IN | EventFlags::PRI) {
            ready |= Self::READABLE.0;
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

/// A socket's place among the sources of its loop.
pub(super) type Key = u32;

/// The sources of a loop.
#[derive(Debug)]
pub(super) struct Sources {
    all: Slab<Source>,
    registered: u32,
}

#[derive(Debug)]
struct Source {
    /// Tells it from an earlier one at the same place.
    serial: u32,
    ready: Ready,
    waits_for: Ready,
    /// The one task that polls it.
    waker: Option<Waker>,
}

impl Sources {
    pub(super) fn new() -> Self {
        Self {
            all: Slab::new(),
            registered: 0,
        }
    }

    /// Adds one; its token is what epoll is to report.
    pub(super) fn insert(&mut self, ready: Ready) -> (Key, u64) {
        self.registered = self.registered.wrapping_add(1);
        let serial = self.registered;
        let key = self.all.insert(Source {
            serial,
            ready,
            waits_for: Ready::NONE,
            waker: None,
        }) as Key;
        (key, u64::from(serial) << 32 | u64::from(key))
    }

    /// The same token, for a change of interest.
    pub(super) fn token(&self, key: Key) -> u64 {
        u64::from(self.all[key as usize].serial) << 32 | u64::from(key)
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.all.remove(key as usize);
    }

    /// An event of epoll: wakes who waits for it. One for a source that is gone is passed over.
    pub(super) fn event(&mut self, token: u64, ready: Ready) {
        let key = (token & u64::from(u32::MAX)) as usize;
        let Some(source) = self.all.get_mut(key) else {
            return;
        };
        if u64::from(source.serial) != token >> 32 {
            return;
        }
        source.ready = source.ready | ready;
        if source.waits_for.has(ready) {
            source.waits_for = Ready::NONE;
            if let Some(waker) = &source.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// What it is ready for, if that is any of `wanted`.
    pub(super) fn poll(&mut self, key: Key, wanted: Ready, cx: &mut Context<'_>) -> Poll<Ready> {
        let source = &mut self.all[key as usize];
        if source.ready.has(wanted) {
            return Poll::Ready(source.ready);
        }
        source.waits_for = source.waits_for | wanted;
        match &mut source.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// A call came back short.
    pub(super) fn clear(&mut self, key: Key, ready: Ready) {
        let source = &mut self.all[key as usize];
        source.ready = Ready(source.ready.0 & !ready.0);
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
        let mut sources = Sources::new();
        let (key, token) = sources.insert(Ready::NONE);
        assert!(sources.poll(key, Ready::FOR_READ, &mut cx).is_pending());
        sources.event(token, Ready::WRITABLE);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        sources.event(token, Ready::READABLE);
        sources.event(token, Ready::READABLE);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let ready = sources.poll(key, Ready::FOR_READ, &mut cx);
        assert_eq!(ready, Poll::Ready(Ready::READABLE | Ready::WRITABLE));
        sources.clear(key, Ready::READABLE);
        assert!(sources.poll(key, Ready::FOR_READ, &mut cx).is_pending());
        sources.event(token, Ready::READ_CLOSED);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_event_of_a_source_that_is_gone_is_not_its_successor_s() {
        let mut sources = Sources::new();
        let (key, token) = sources.insert(Ready::NONE);
        sources.remove(key);
        let (successor, _) = sources.insert(Ready::NONE);
        assert_eq!(key, successor);
        sources.event(token, Ready::WRITABLE);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(sources.poll(successor, Ready::FOR_WRITE, &mut cx).is_pending());
    }

    #[test]
    fn a_reset_closes_both_directions_and_an_end_one() {
        let end = Ready::of(EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP);
        assert!(end.has(Ready::READ_CLOSED) && !end.has(Ready::WRITE_CLOSED));
        let reset = Ready::of(EventFlags::IN | EventFlags::ERR | EventFlags::HUP);
        assert!(reset.has(Ready::READ_CLOSED) && reset.has(Ready::WRITE_CLOSED));
    }
}
