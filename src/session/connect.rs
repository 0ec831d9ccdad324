//! From an admitted client to a backend that has greeted: pick, dial, hear, and again.
//!
//! Nothing has been sent to the client while this runs, so any number of backends may be tried
//! within `max_attempts` and `failover_timeout` (rules S8, S12). The client's socket is watched, not
//! read: the kernel's buffer is the bound for what it says early.
//!
//! At most two attempts run at once: the second is a hedge.

use std::cell::RefMut;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use super::attempt::{self, Attempt, Failure, Octets, Progress, note_failure};
use super::closing::Refusal;
use super::context::since;
use super::record::{Lap, Session};
use crate::balance::{
    FailureKind, NoBackend, Observation, PickMode, Queued, Slot, Stage, Tried, Waiter,
};
use crate::config::model::{EarlyTalker, GreetingMode};
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::net::clock;
use crate::net::relay::Relay;
use crate::net::stream::{Stream, Watched};
use crate::net::timer::{Due, Timer};
use crate::snapshot::{PoolView, Snapshot};

/// How many backends a session tries at most when none is healthy.
const LAST_RESORT_ATTEMPTS: u32 = 8;
/// A stale queue place is resolved anew so many times in one poll.
const RESOLVES_MAX: u8 = 8;

/// A session that was committed to a backend.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) backend: Stream,
    pub(super) slot: Slot,
    pub(super) relay: Relay,
    /// The greeting was bad and is relayed as the verdict about this client.
    pub(super) refused: bool,
}

/// How connecting ended, if not by a refusal.
#[derive(Debug)]
pub(super) enum ConnectEnd {
    Live(Live),
    /// The client left.
    Abandoned,
}

/// Finds a backend that takes the session.
pub(super) async fn any(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
) -> Result<ConnectEnd, Refusal> {
    // On the heap: it is needed for milliseconds, and the session for minutes.
    let mut connecting = Box::new(Connecting::new(clock::now()));
    poll_fn(|cx| {
        let now = clock::now();
        let context = std::rc::Rc::clone(&session.cx);
        let mut scratch = context.scratch.borrow_mut();
        connecting.poll(cx, session, client, timer, &mut scratch, now)
    })
    .await
}

#[derive(Debug)]
struct Connecting {
    attempts: [Option<Attempt>; 2],
    tried: Tried,
    began: Instant,
    /// All attempts and the queue end here.
    total: Option<Instant>,
    attempts_max: u32,
    waiting: Option<Waiting>,
    /// When a wait ends that a reload has interrupted.
    wait_until: Option<Instant>,
    watch: Watch,
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    since: Instant,
    until: Instant,
}

/// How far the client has been watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Silent,
    Talked,
}

impl Connecting {
    fn new(now: Instant) -> Self {
        Self {
            attempts: [None, None],
            tried: Tried::default(),
            began: now,
            total: None,
            attempts_max: 0,
            waiting: None,
            wait_until: None,
            watch: Watch::Silent,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        client: &Stream,
        timer: &mut Timer,
        scratch: &mut RefMut<'_, Box<[u8]>>,
        now: Instant,
    ) -> Poll<Result<ConnectEnd, Refusal>> {
        loop {
            match self.watch_client(cx, session, client) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Ok(ConnectEnd::Abandoned)),
                Err(refusal) => return Poll::Ready(Err(refusal)),
            }
            if let Some(live) = self.poll_attempts(cx, session, client, scratch, now) {
                return Poll::Ready(Ok(ConnectEnd::Live(live)));
            }
            if self.attempts.iter().all(Option::is_none) {
                match self.next(cx, session, now) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
                    Poll::Pending => {}
                }
            }
            match timer.arm(self.deadline(), now, cx) {
                Due::Later => return Poll::Pending,
                Due::Now => {
                    if let Err(refusal) = self.on_deadline(session, clock::now()) {
                        return Poll::Ready(Err(refusal));
                    }
                }
            }
        }
    }

    /// `Ok(false)`: the client has left.
    fn watch_client(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        client: &Stream,
    ) -> Result<bool, Refusal> {
        while let Poll::Ready(watched) = client.poll_watch(cx) {
            match watched {
                Watched::Talking => self.heard(session)?,
                Watched::Closed => {
                    let phase = self.phase();
                    session.end(SessionOutcome::Abandoned, EndedBy::Client, phase);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The client talks before it was greeted (rule S14).
    fn heard(&mut self, session: &mut Session) -> Result<(), Refusal> {
        let settings = &session.listener.view.settings;
        if settings.greeting == GreetingMode::None || self.watch == Watch::Talked {
            return Ok(());
        }
        self.watch = Watch::Talked;
        match settings.early_talker {
            EarlyTalker::Pass => return Ok(()),
            EarlyTalker::Log | EarlyTalker::Reject => {}
        }
        let worker = session.cx.worker.index();
        session
            .listener
            .view
            .state
            .counters
            .of(worker)
            .early_talkers
            .inc();
        if settings.early_talker == EarlyTalker::Reject {
            return Err(Refusal::EarlyTalker);
        }
        tracing::info!(session.id = %session.id,
            client.addr = %session.client(),
            listener = &*session.listener.view.name, "session.early-talker");
        Ok(())
    }

    fn phase(&self) -> SessionPhase {
        if self.waiting.is_some() {
            return SessionPhase::Queue;
        }
        let connected = self.attempts.iter().flatten().any(Attempt::is_connected);
        if connected {
            SessionPhase::Greeting
        } else {
            SessionPhase::Connect
        }
    }

    /// Polls the attempts until each waits; the winner, if there is one.
    fn poll_attempts(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        client: &Stream,
        scratch: &mut RefMut<'_, Box<[u8]>>,
        now: Instant,
    ) -> Option<Live> {
        for index in 0..self.attempts.len() {
            while let Some(attempt) = &mut self.attempts[index] {
                match attempt.poll(cx, session, client, scratch, now) {
                    Poll::Pending => break,
                    Poll::Ready(Progress::Connected) => self.drop_unconnected(session, now),
                    Poll::Ready(Progress::Failed(failure)) => {
                        let attempt = self.attempts[index].take()?;
                        self.failed(session, &attempt.slot, failure, attempt.dialled(), now);
                    }
                    Poll::Ready(Progress::Won { octets, refused }) => {
                        let winner = self.attempts[index].take()?;
                        self.drop_losers(session, now);
                        return Some(commit(
                            cx, session, client, winner, &octets, refused, scratch, now,
                        ));
                    }
                }
            }
        }
        None
    }

    /// Of two racing connects the first gets the identity; the other is closed without an octet.
    fn drop_unconnected(&mut self, session: &mut Session, now: Instant) {
        if !self.attempts.iter().flatten().any(Attempt::is_connected) {
            return;
        }
        for slot in &mut self.attempts {
            if slot
                .as_ref()
                .is_some_and(|attempt| !attempt.is_connected() && attempt.was_slow())
            {
                lost(session, slot.take(), &mut self.tried, now);
            }
        }
    }

    fn drop_losers(&mut self, session: &mut Session, now: Instant) {
        for slot in &mut self.attempts {
            lost(session, slot.take(), &mut self.tried, now);
        }
    }

    fn failed(
        &mut self,
        session: &mut Session,
        slot: &Slot,
        failure: Failure,
        dialled: Instant,
        now: Instant,
    ) {
        self.tried.add(slot.member());
        note_failure(session, slot, failure, since(now, dialled), now);
    }

    /// Picks and dials the next backend, or waits in the queue for one.
    fn next(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        now: Instant,
    ) -> Poll<Result<(), Refusal>> {
        if self.total.is_some_and(|total| total <= now) {
            return Poll::Ready(Err(Refusal::NoBackend(NoBackend::AllTried)));
        }
        for _ in 0..RESOLVES_MAX {
            if let Some(waiting) = &mut self.waiting {
                let Poll::Ready(given) = waiting.waiter.poll_slot(cx) else {
                    return Poll::Pending;
                };
                // A reload interrupts a wait; it does not begin another.
                self.wait_until = given.is_err().then_some(waiting.until);
                note_wait(session, waiting.since, now);
                self.waiting = None;
                if let Ok(slot) = given {
                    self.dial(session, slot, now);
                    return Poll::Ready(Ok(()));
                }
            }
            match self.pick(session, now) {
                Ok(Some(slot)) => {
                    self.dial(session, slot, now);
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(refusal)),
            }
        }
        Poll::Ready(Err(Refusal::NoBackend(NoBackend::AllFull)))
    }

    /// A slot, or `None` when a place in the queue was taken instead.
    fn pick(&mut self, session: &mut Session, now: Instant) -> Result<Option<Slot>, Refusal> {
        let snapshot = session.cx.shared.current.load();
        let Some(view) = pool_now(&snapshot, session) else {
            return Err(Refusal::NoBackend(NoBackend::Empty));
        };
        let settings = &view.settings;
        if self.total.is_none() {
            self.total = Some(self.began + settings.failover_timeout);
            self.attempts_max = u32::from(settings.max_attempts);
        }
        if session.attempts >= self.attempts_max {
            return Err(Refusal::NoBackend(NoBackend::AllTried));
        }
        let client = session.client_key();
        let mut rng = session.cx.rng.borrow_mut();
        match view.pool.pick(client, &self.tried, now, &mut rng) {
            Ok(slot) => Ok(Some(slot)),
            Err(NoBackend::AllFull) => {
                match view.pool.enqueue(client, &self.tried, now, &mut rng) {
                    Queued::Slot(slot) => Ok(Some(slot)),
                    Queued::Full => Err(Refusal::NoBackend(NoBackend::AllFull)),
                    Queued::Waiting(waiter) => {
                        let interrupted = self.wait_until.take();
                        if interrupted.is_none() {
                            session.cx.counters().queued.inc();
                        }
                        let until = interrupted.unwrap_or(now + settings.queue_timeout);
                        self.waiting = Some(Waiting {
                            waiter,
                            since: now,
                            until,
                        });
                        Ok(None)
                    }
                }
            }
            Err(none) => Err(Refusal::NoBackend(none)),
        }
    }

    /// Dials the backend of `slot`; if a reload led the listener to another pool meanwhile, the slot
    /// goes back and the next pick is from there.
    fn dial(&mut self, session: &mut Session, slot: Slot, now: Instant) {
        let shared = std::sync::Arc::clone(&session.cx.shared);
        let snapshot = shared.current.load();
        let view = pool_now(&snapshot, session);
        let Some(view) = view.filter(|view| view.name == slot.member().pool) else {
            return;
        };
        self.wait_until = None;
        if slot.mode() == PickMode::LastResort {
            self.attempts_max = LAST_RESORT_ATTEMPTS;
        }
        session.attempts += 1;
        if session.attempts > 1 {
            session.cx.counters().failovers.inc();
        }
        let worker = session.cx.worker.index();
        let totals = &slot.member().settings.state.totals;
        totals.of(worker).attempts.inc();
        match attempt::begin(session, view, slot, now) {
            Ok(attempt) => {
                let place = usize::from(self.attempts[0].is_some());
                self.attempts[place] = Some(attempt);
            }
            Err((slot, failure)) => self.failed(session, &slot, failure, now, now),
        }
    }

    /// The earliest of all deadlines.
    fn deadline(&self) -> Instant {
        let racing = self.attempts.iter().all(Option::is_some);
        let mut earliest = self.total;
        let mut consider = |deadline: Instant| {
            earliest = Some(earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        };
        for attempt in self.attempts.iter().flatten() {
            let (fails, hedges) = attempt.deadlines();
            consider(fails);
            if let Some(hedges) = hedges.filter(|_| !racing) {
                consider(hedges);
            }
        }
        if let Some(waiting) = &self.waiting {
            consider(waiting.until);
        }
        earliest.unwrap_or(self.began)
    }

    fn on_deadline(&mut self, session: &mut Session, now: Instant) -> Result<(), Refusal> {
        if self
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.until <= now)
        {
            if let Some(waiting) = self.waiting.take() {
                note_wait(session, waiting.since, now);
            }
            return Err(Refusal::QueueTimeout);
        }
        let over = self.total.is_some_and(|total| total <= now);
        for index in 0..self.attempts.len() {
            let Some(attempt) = &mut self.attempts[index] else {
                continue;
            };
            let (fails, hedges) = attempt.deadlines();
            if fails <= now || over {
                let failure = Failure {
                    stage: attempt.stage(),
                    kind: FailureKind::Timeout,
                    code: None,
                    text: None,
                };
                if let Some(attempt) = self.attempts[index].take() {
                    self.failed(session, &attempt.slot, failure, attempt.dialled(), now);
                }
            } else if hedges.is_some_and(|hedges| hedges <= now) && attempt.wants_hedge() {
                self.hedge(session, index, now);
            }
        }
        if over {
            return Err(Refusal::NoBackend(NoBackend::AllTried));
        }
        Ok(())
    }

    /// Dials a second backend beside the slow one.
    fn hedge(&mut self, session: &mut Session, slow: usize, now: Instant) {
        if self.attempts.iter().all(Option::is_some) || session.attempts >= self.attempts_max {
            return;
        }
        let shared = std::sync::Arc::clone(&session.cx.shared);
        let snapshot = shared.current.load();
        let Some(view) = pool_now(&snapshot, session) else {
            return;
        };
        let Some(attempt) = &mut self.attempts[slow] else {
            return;
        };
        let mut tried = self.tried.clone();
        tried.add(attempt.slot.member());
        let picked = {
            let mut rng = session.cx.rng.borrow_mut();
            view.pool
                .pick_hedge(session.client_key(), &tried, now, &mut rng)
        };
        let Ok(slot) = picked else { return };
        attempt.mark_slow();
        session.hedged = true;
        let worker = session.cx.worker.index();
        slot.member().settings.state.totals.of(worker).hedges.inc();
        if slow == 0 {
            self.dial(session, slot, now);
        } else {
            self.attempts.swap(0, 1);
            self.dial(session, slot, now);
        }
    }
}

/// The pool that the session's listener leads to now: a reload may have changed that. A listener
/// that is gone leads where it led last.
fn pool_now<'a>(snapshot: &'a Snapshot, session: &Session) -> Option<&'a PoolView> {
    let accepted = &session.listener.view;
    let now = snapshot.listener(accepted.state.index);
    let pool = snapshot.pool(now.map_or(accepted.pool, |view| view.pool))?;
    Some(pool)
}

/// Adds a wait in the queue that has ended.
fn note_wait(session: &mut Session, began: Instant, now: Instant) {
    let before = session.queue.taken().unwrap_or_default();
    session.queue = Lap::of(before + since(now, began));
}

/// Closes a loser of a race; the slow one gets its strike.
fn lost(session: &mut Session, loser: Option<Attempt>, tried: &mut Tried, now: Instant) {
    let Some(loser) = loser else { return };
    tried.add(loser.slot.member());
    if !loser.was_slow() {
        return;
    }
    let failure = Failure {
        stage: loser.stage(),
        kind: FailureKind::Silent,
        code: None,
        text: None,
    };
    note_failure(
        session,
        &loser.slot,
        failure,
        since(now, loser.dialled()),
        now,
    );
}

/// The first octet goes to the client: from here no retry can be written.
#[expect(
    clippy::too_many_arguments,
    reason = "one call, all of them parts of one moment"
)]
fn commit(
    cx: &mut Context<'_>,
    session: &mut Session,
    client: &Stream,
    winner: Attempt,
    octets: &Octets,
    refused: bool,
    scratch: &mut RefMut<'_, Box<[u8]>>,
    now: Instant,
) -> Live {
    let first = match octets {
        Octets::InScratch(n) => &scratch[..*n],
        Octets::Kept(octets) => octets,
    };
    let sent = if first.is_empty() {
        0
    } else {
        match client.poll_send(cx, first) {
            Poll::Ready(Ok(sent)) => sent,
            // The relay meets the same error and accounts for it.
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        }
    };
    let relay = Relay::new(sent, &first[sent..]);
    if !refused {
        let after = since(now, winner.dialled());
        winner.observe(session, Observation::Greeted { after }, now);
        let worker = session.cx.worker.index();
        winner
            .slot
            .member()
            .settings
            .state
            .totals
            .of(worker)
            .greeting
            .observe(after);
    }
    session.connect = winner.connect_time().map(Lap::of).unwrap_or_default();
    session.greeting = Lap::of(since(now, session.accepted));
    session.phase = SessionPhase::Relay;
    session.at_backend(winner.slot.member());
    debug_assert_ne!(
        winner.stage(),
        Stage::Connect,
        "only a connected backend wins"
    );
    let Attempt { stream, slot, .. } = winner;
    Live {
        backend: stream,
        slot,
        relay,
        refused,
    }
}
