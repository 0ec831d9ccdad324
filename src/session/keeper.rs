//! The connections to backends that this thread keeps alive between transactions (rules N1 to N5).
//!
//! The one that was used last is used first, so that those that are not needed grow old. A
//! connection on which anything has come, or that has ended, is thrown away; one that has had its
//! time, or its share of messages, is ended with QUIT. A connection counts in its backend's
//! `max_connections` all the while. Nobody keeps one alive by talking (rule N4). While clients queue
//! none is idle: it goes with its place to the first in line.

mod passing;

pub(super) use passing::{kind, receive};

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::context::Context;
use super::record::Session;
use crate::balance::{BackendState, KeptClosed, Member, Parked, Slot, Tried};
use crate::config::model::{self, Identity};
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::{Due, Timer};
use crate::smtp::{Extensions, Needed};
use crate::snapshot::PoolView;

/// Connections that all threads together keep, or end with QUIT; more are closed without a word.
pub const KEPT_MAX: u32 = 1024;
/// How long the reply to QUIT is awaited (rule H5).
const PARTING_TIME: Duration = Duration::from_secs(2);
/// How long a backend's own limit of messages is remembered.
const LEARNED_TIME: Duration = Duration::from_hours(1);

/// A connection that is ready for MAIL.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) stream: Stream,
    /// What the backend has announced on it.
    pub(super) extensions: Rc<Extensions>,
    pub(super) born: Instant,
    /// Our name that the backend was told.
    name: Arc<str>,
    /// Transactions that it has carried.
    pub(super) messages: u32,
}

impl Kept {
    pub(super) fn new(
        stream: Stream,
        extensions: Extensions,
        name: Arc<str>,
        now: Instant,
    ) -> Self {
        Self {
            name,
            stream,
            extensions: Rc::new(extensions),
            born: now,
            messages: 0,
        }
    }
}

/// The kept connections of one thread.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    backends: RefCell<BTreeMap<usize, Backend>>,
    idle: Cell<u32>,
    parting: Cell<u32>,
}

/// Those of one backend.
#[derive(Debug, Default)]
struct Backend {
    entries: Vec<Entry>,
    /// A connection was refused after so many messages.
    learned: Option<Learned>,
    /// Held while something was learned, so that its address belongs to nobody else.
    state: Option<Arc<BackendState>>,
}

#[derive(Clone, Copy, Debug)]
struct Learned {
    messages: u32,
    /// It counts when it was seen twice: once may have been anything.
    seen: u8,
    until: Instant,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    parked: Parked,
    /// The listener whose source address it has; `None` if that is the pool's.
    origin: Option<usize>,
    until: Instant,
    /// Whether it is its age that ends it then.
    is_old: bool,
}

impl Entry {
    /// Why it is of no use any more, if it is not.
    fn closed(&self, now: Instant) -> Option<KeptClosed> {
        if !self.kept.stream.is_quiet() {
            Some(KeptClosed::Backend)
        } else if now < self.until {
            None
        } else if self.is_old {
            Some(KeptClosed::Age)
        } else {
            Some(KeptClosed::Idle)
        }
    }

    /// Why it is ended although it is in order, if it is.
    fn unwanted(&self, shed: &mut BTreeMap<Arc<str>, u32>) -> Option<KeptClosed> {
        let member = self.parked.member();
        if !member.settings.state.is_in_service() {
            return Some(KeptClosed::Drained);
        }
        let waiting = self.parked.waiting();
        // A place at a backend that takes nobody now helps none of them.
        if waiting == 0 || !self.parked.may_serve(&Tried::default()) {
            return None;
        }
        let so_far = shed.entry(Arc::clone(&member.pool)).or_default();
        *so_far += 1;
        (*so_far <= waiting).then_some(KeptClosed::Shed)
    }

    /// It leaves the keeper.
    fn leave(&self, cx: &Context, closed: Option<KeptClosed>) {
        cx.keeper.count(cx, -1);
        let member = self.parked.member();
        let mail = &member.settings.state.totals.of(cx.worker.index()).mail;
        mail.idle.sub(1);
        if let Some(cause) = closed {
            mail.closed[cause.index()].inc();
        }
    }
}

impl Keeper {
    /// A connection to `member`, if one is kept.
    pub(super) fn take(
        &self,
        session: &Session,
        member: &Member,
        needed: Needed,
        now: Instant,
    ) -> Option<Kept> {
        let mut backends = self.backends.borrow_mut();
        let backend = backends.get_mut(&key(&member.settings.state))?;
        let entry = pop(backend, session, needed, now)?;
        // The place in hand serves as well; this one's is given back.
        drop(backends);
        let Entry { kept, parked, .. } = entry;
        drop(parked);
        Some(kept)
    }

    /// A connection to whichever backend of the pool may serve: when all are full, that of an idle
    /// connection is not.
    pub(super) fn any(
        &self,
        session: &Session,
        view: &PoolView,
        tried: &Tried,
        needed: Needed,
        now: Instant,
    ) -> Option<(Slot, Kept)> {
        let mut backends = self.backends.borrow_mut();
        // There are at most `KEPT_MAX`.
        for (_, backend) in backends.iter_mut() {
            let serves = |entry: &Entry| {
                let state = &entry.parked.member().settings.state;
                view.pool.has(state) && entry.parked.may_serve(tried)
            };
            if !backend.entries.last().is_some_and(serves) {
                continue;
            }
            if let Some(entry) = pop(backend, session, needed, now) {
                drop(backends);
                let Entry { kept, parked, .. } = entry;
                return Some((parked.resume(), kept));
            }
        }
        None
    }

    /// Keeps a connection for the next transaction, or ends it.
    pub(super) fn put(&self, session: &Session, slot: Slot, kept: Kept, now: Instant) {
        self.keep(&session.cx, origin(session), slot, kept, now);
    }

    fn keep(&self, cx: &Rc<Context>, origin: Option<usize>, slot: Slot, kept: Kept, now: Instant) {
        let snapshot = cx.shared.current.load();
        let pool = snapshot.pool_named(&slot.member().pool);
        let Some(pool) = pool.filter(|pool| pool.settings.identity == Identity::None) else {
            return self.part(cx, kept.stream, slot);
        };
        let (mut slot, mut kept) = (slot, kept);
        let mut kept_until = self.is_of_use(&kept, pool, &slot, now);
        if kept_until.is_ok() && pool.pool.waiting() > 0 {
            (slot, kept) = match passing::pass_on(origin, slot, kept) {
                Ok(()) => return,
                Err(back) => *back,
            };
            // Who is first in line needs the place alone.
            if pool.pool.waiting() > 0 {
                kept_until = Err(KeptClosed::Shed);
            }
        }
        let kept_until = kept_until.and_then(|()| self.keeps(&kept, pool, &slot, cx, now));
        let state = Arc::clone(&slot.member().settings.state);
        let mail = &state.totals.of(cx.worker.index()).mail;
        match kept_until {
            Ok(until) => {
                mail.idle.inc();
                self.count(cx, 1);
                let entry = Entry {
                    is_old: until == kept.born + pool.settings.smtp.max_age,
                    kept,
                    parked: slot.park(),
                    origin,
                    until,
                };
                let mut backends = self.backends.borrow_mut();
                backends.entry(key(&state)).or_default().entries.push(entry);
            }
            Err(cause) => {
                mail.closed[cause.index()].inc();
                if cause == KeptClosed::Backend {
                    drop(kept);
                    drop(slot);
                } else {
                    self.part(cx, kept.stream, slot);
                }
            }
        }
    }

    /// Whether the connection may carry another transaction, whoever's.
    fn is_of_use(
        &self,
        kept: &Kept,
        pool: &PoolView,
        slot: &Slot,
        now: Instant,
    ) -> Result<(), KeptClosed> {
        let settings = &pool.settings.smtp;
        let state = &slot.member().settings.state;
        if !kept.stream.is_quiet() {
            return Err(KeptClosed::Backend);
        }
        if now >= kept.born + settings.max_age {
            return Err(KeptClosed::Age);
        }
        let learned = self.learned(state).unwrap_or(u32::MAX);
        if kept.messages >= settings.max_messages.min(learned) {
            return Err(KeptClosed::Messages);
        }
        if !state.is_in_service() {
            return Err(KeptClosed::Drained);
        }
        Ok(())
    }

    /// Whether one more is kept while nobody waits for it, and until when.
    fn keeps(
        &self,
        kept: &Kept,
        pool: &PoolView,
        slot: &Slot,
        cx: &Context,
        now: Instant,
    ) -> Result<Instant, KeptClosed> {
        if cx.is_draining() {
            return Err(KeptClosed::Drained);
        }
        let settings = &pool.settings.smtp;
        let idle = self.idle_of(slot.member());
        if idle >= idle_max(settings, slot.member(), cx) || !self.has_room(cx) {
            return Err(KeptClosed::Shed);
        }
        let old = kept.born + settings.max_age;
        // The first few are kept whether they are used or not.
        if idle < share(settings.min_idle, cx) as usize {
            return Ok(old);
        }
        Ok(old.min(now + settings.idle_timeout))
    }

    /// After how many messages the backend is known to end a connection.
    fn learned(&self, state: &Arc<BackendState>) -> Option<u32> {
        let backends = self.backends.borrow();
        let learned = backends.get(&key(state))?.learned?;
        (learned.seen > 1).then_some(learned.messages)
    }

    /// Keeps a connection that nobody has used yet.
    pub(super) fn put_new(&self, cx: &Rc<Context>, slot: Slot, kept: Kept, now: Instant) {
        self.keep(cx, None, slot, kept, now);
    }

    /// How many are kept of this backend.
    pub(super) fn idle_of(&self, member: &Member) -> usize {
        let backends = self.backends.borrow();
        let backend = backends.get(&key(&member.settings.state));
        backend.map_or(0, |backend| backend.entries.len())
    }

    /// A kept connection was refused when it had carried so many messages (rule N4).
    pub(super) fn learn(&self, member: &Member, messages: u32, now: Instant) {
        let mut backends = self.backends.borrow_mut();
        let backend = backends.entry(key(&member.settings.state)).or_default();
        let before = backend
            .learned
            .filter(|learned| learned.messages == messages);
        backend.learned = Some(Learned {
            messages: messages.max(1),
            seen: before.map_or(1, |learned| learned.seen.saturating_add(1)),
            until: now + LEARNED_TIME,
        });
        backend.state = Some(Arc::clone(&member.settings.state));
        if backend.learned.is_some_and(|learned| learned.seen == 2) {
            tracing::info!(pool = &*member.pool,
                backend = &*member.settings.name,
                backend.addr = %member.settings.address,
                messages,
                "backend.limit-learned");
        }
    }

    /// Ends what has had its time, and what is needed elsewhere.
    pub(super) fn sweep(&self, cx: &Rc<Context>, now: Instant) {
        let mut gone = Vec::new();
        // One for each who waits.
        let mut shed: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        self.backends.borrow_mut().retain(|_, backend| {
            let mut causes = Vec::new();
            let unwanted = |entry: &mut Entry| {
                let closed = entry.closed(now).or_else(|| entry.unwanted(&mut shed));
                causes.extend(closed);
                closed.is_some()
            };
            let entries: Vec<_> = backend.entries.extract_if(.., unwanted).collect();
            gone.extend(entries.into_iter().zip(causes));
            backend.learned = backend.learned.filter(|learned| now < learned.until);
            if backend.learned.is_none() {
                backend.state = None;
            }
            !backend.entries.is_empty() || backend.learned.is_some()
        });
        for (entry, cause) in gone {
            self.end(cx, entry, cause);
        }
    }

    /// Ends a connection; one that is only shed goes to who waits.
    fn end(&self, cx: &Rc<Context>, entry: Entry, cause: KeptClosed) {
        if cause == KeptClosed::Backend {
            entry.leave(cx, Some(cause));
            return;
        }
        if cause != KeptClosed::Shed {
            entry.leave(cx, Some(cause));
            return self.part(cx, entry.kept.stream, entry.parked);
        }
        entry.leave(cx, None);
        let (member, slot) = (Arc::clone(entry.parked.member()), entry.parked.resume());
        if let Err(back) = passing::pass_on(entry.origin, slot, entry.kept) {
            let (slot, kept) = *back;
            let mail = &member.settings.state.totals.of(cx.worker.index()).mail;
            mail.closed[cause.index()].inc();
            self.part(cx, kept.stream, slot);
        }
    }

    /// Ends all of them.
    pub(super) fn clear(&self, cx: &Rc<Context>) {
        for backend in std::mem::take(&mut *self.backends.borrow_mut()).into_values() {
            for entry in backend.entries {
                entry.leave(cx, Some(KeptClosed::Drained));
                self.part(cx, entry.kept.stream, entry.parked);
            }
        }
    }

    /// So many more are idle, or fewer.
    fn count(&self, cx: &Context, change: i32) {
        self.idle.set(self.idle.get().saturating_add_signed(change));
        cx.counters().kept_idle.set(u64::from(self.idle.get()));
    }

    /// Whether one more connection may be kept or ended.
    pub(super) fn has_room(&self, cx: &Context) -> bool {
        let workers = cx.shared.workers.len().max(1) as u32;
        self.idle.get() + self.parting.get() < KEPT_MAX / workers
    }

    /// Says QUIT and closes once that is answered: a backend that is left without a word writes a
    /// line about it. The place is held as long.
    pub(super) fn part(&self, cx: &Rc<Context>, stream: Stream, place: impl Sized + 'static) {
        // Dropped in this order: the socket is closed before another may take its place.
        struct Leaving<P>(Stream, P);
        let leaving = Leaving(stream, place);
        if !self.has_room(cx) {
            return;
        }
        self.parting.set(self.parting.get() + 1);
        let parting = Parting(Rc::clone(cx));
        cx.event_loop.spawn(async move {
            let _parting = parting;
            let leaving = leaving;
            say_quit(&leaving.0).await;
        });
    }
}

/// How many of a backend one thread may keep: its share of `max_idle`, and no more than a quarter of
/// the connections the backend may have.
pub(super) fn idle_max(settings: &model::PoolSmtp, member: &Member, cx: &Context) -> usize {
    let workers = cx.shared.workers.len().max(1) as u32;
    let quarter = match member.settings.max_connections {
        0 => u32::MAX,
        max => (max / (4 * workers)).max(1),
    };
    share(settings.max_idle, cx).min(quarter) as usize
}

/// What of `all` one of the threads may have: the shares add up to `all`.
pub(super) fn share(all: u32, cx: &Context) -> u32 {
    let workers = cx.shared.workers.len().max(1) as u32;
    let worker = cx.worker.index() as u32;
    all / workers + u32::from(worker < all % workers)
}

/// The newest that is in order; those that are not are thrown away.
fn pop(backend: &mut Backend, session: &Session, needed: Needed, now: Instant) -> Option<Entry> {
    let origin = origin(session);
    let name = &session.cx.shared.current.load().config.hostname;
    loop {
        let fits = |entry: &Entry| {
            let extensions = &entry.kept.extensions;
            entry.origin == origin
                && entry.kept.name == *name
                && extensions.lacks(needed).is_empty()
        };
        let index = backend.entries.iter().rposition(fits)?;
        let entry = backend.entries.remove(index);
        let closed = entry.closed(now);
        entry.leave(&session.cx, closed);
        if closed.is_none() {
            return Some(entry);
        }
    }
}

pub(super) fn key(state: &Arc<BackendState>) -> usize {
    Arc::as_ptr(state).addr()
}

fn origin(session: &Session) -> Option<usize> {
    let view = &session.listener.view;
    (!view.settings.source.is_empty()).then_some(view.state.index)
}

async fn say_quit(stream: &Stream) {
    const QUIT: &[u8] = b"QUIT\r\n";
    let until = clock::now() + PARTING_TIME;
    let mut timer = Timer::new();
    let mut said = false;
    let mut heard = [0; 512];
    poll_fn(|task| {
        if !said {
            match stream.poll_send(task, QUIT) {
                Poll::Ready(Ok(sent)) if sent == QUIT.len() => said = true,
                _ => return Poll::Ready(()),
            }
        }
        loop {
            match stream.poll_recv(task, &mut heard) {
                // 221, and the end.
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        match timer.arm(until, clock::now(), task) {
            Due::Now => Poll::Ready(()),
            Due::Later => Poll::Pending,
        }
    })
    .await;
}

/// Counts a connection that is saying QUIT.
#[derive(Debug)]
struct Parting(Rc<Context>);

impl Drop for Parting {
    fn drop(&mut self) {
        let parting = &self.0.keeper.parting;
        parting.set(parting.get() - 1);
    }
}
