//! Finding a backend: pick, dial, hear, and again.
//!
//! The client sees nothing of it, so any number of backends may be tried within `max_attempts` and
//! `failover_timeout` (rules S8, S12). A connection for mail transactions may also be one that was
//! kept alive (rules N1 to N3).
//!
//! At most two attempts run at once: the second is a hedge.

mod handed;
mod pick;
mod relay;
mod turn;

use std::cell::RefMut;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

pub(super) use relay::{ConnectEnd, Live, any};

use turn::Turn;

use super::attempt::{self, Attempt, Failure, Octets, Progress, Purpose, note_failure};
use super::closing::Refusal;
use super::context::since;
use super::keeper::Kept;
use super::record::{Lap, Session};
use crate::balance::{
    BackendState, FailureKind, NoBackend, OpeningPlace, Parked, PickMode, Slot, Spent, Tried,
    UsedUp, Waiter,
};
use crate::metrics::SessionPhase;
use crate::net::stream::Stream;
use crate::smtp::{Extensions, Keywords, Needed};
use crate::snapshot::{PoolView, Snapshot};

/// How many backends a session tries at most when none is healthy.
const LAST_RESORT_ATTEMPTS: u32 = 8;
/// A stale queue place is resolved anew so many times in one poll.
const RESOLVES_MAX: u8 = 8;

/// What a connection must be like.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub(super) purpose: Purpose,
    /// What the transaction needs of its backend,
    pub(super) needed: Needed,
    /// and for how many recipients its quotas must have room: those that were accepted, one at
    /// least.
    pub(super) recipients: u32,
    /// The backend that is asked first.
    pub(super) prefer: Option<Arc<BackendState>>,
    pub(super) from: From,
}

/// Where connections for mail may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Anywhere,
    /// Only a new one will do.
    Dial,
}

impl Aim {
    /// Of a session that is relayed.
    pub(super) fn relay() -> Self {
        Self {
            purpose: Purpose::Relay,
            needed: Needed::default(),
            recipients: 0,
            prefer: None,
            from: From::Dial,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A backend that has greeted the client.
    Greeted {
        attempt: Attempt,
        octets: Octets,
        refused: bool,
    },
    /// A new connection that is ready for MAIL,
    Ready(Attempt, Extensions),
    /// or one that was kept, with what its transaction takes of a quota.
    Kept(Slot, Kept, Option<Spent>),
}

/// The search for a backend.
#[derive(Debug)]
pub(super) struct Connecting {
    aim: Aim,
    attempts: [Option<Attempt>; 2],
    tried: Tried,
    began: Instant,
    /// All attempts and the queue end here.
    total: Option<Instant>,
    /// A place that the session has already.
    place: Option<Parked>,
    made: u32,
    attempts_max: u32,
    waiting: Option<Waiting>,
    turn: Option<Turn>,
    /// When a wait ends that a reload has interrupted.
    wait_until: Option<Instant>,
    /// What backends lack of what is needed.
    lacking: Keywords,
}

/// What a pick has come to.
#[derive(Debug)]
enum Picked {
    Slot(Slot, Option<Spent>),
    Kept(Slot, Kept, Option<Spent>),
    /// Nothing yet: a place in the queue was taken instead, or what was found was of no use.
    Waits,
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    since: Instant,
    until: Instant,
}

impl Connecting {
    /// Begins; backends in `tried` are passed over.
    pub(super) fn new(aim: Aim, tried: Tried, now: Instant) -> Self {
        Self {
            aim,
            attempts: [None, None],
            tried,
            began: now,
            total: None,
            place: None,
            made: 0,
            attempts_max: 0,
            waiting: None,
            turn: None,
            wait_until: None,
            lacking: Keywords::default(),
        }
    }

    /// The first place is there already, if its backend may still serve.
    pub(super) fn has_place(&mut self, parked: Parked) {
        self.place = Some(parked);
    }

    /// Backends that failed, and those that lack something.
    pub(super) fn tried(&self) -> &Tried {
        &self.tried
    }

    /// Goes as far as the network lets it. While it is pending it is to be polled again at
    /// [`Connecting::deadline`].
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        client: &Stream,
        scratch: &mut RefMut<'_, Box<[u8]>>,
        now: Instant,
    ) -> Poll<Result<Found, Refusal>> {
        loop {
            if let Some(found) = self.poll_attempts(cx, session, client, scratch, now) {
                return Poll::Ready(Ok(found));
            }
            if self.attempts.iter().all(Option::is_none) {
                match self.next(cx, session, now) {
                    Poll::Ready(Ok(None)) => continue,
                    Poll::Ready(Ok(Some(found))) => return Poll::Ready(Ok(found)),
                    Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
                    Poll::Pending => {}
                }
            }
            if self.deadline() > now {
                return Poll::Pending;
            }
            if let Err(refusal) = self.on_deadline(session, now) {
                return Poll::Ready(Err(refusal));
            }
        }
    }

    /// Where it is now.
    pub(super) fn phase(&self) -> SessionPhase {
        if self.waiting.is_some() || self.turn.is_some() {
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
    ) -> Option<Found> {
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
                        let attempt = self.attempts[index].take()?;
                        self.drop_losers(session, now);
                        return Some(Found::Greeted {
                            attempt,
                            octets,
                            refused,
                        });
                    }
                    Poll::Ready(Progress::Ready(extensions)) => {
                        let attempt = self.attempts[index].take()?;
                        if let Some(found) = self.opened(session, attempt, extensions, now) {
                            return Some(found);
                        }
                    }
                }
            }
        }
        None
    }

    /// A connection is ready for MAIL. One whose backend lacks what is needed is kept for others.
    fn opened(
        &mut self,
        session: &mut Session,
        attempt: Attempt,
        extensions: Extensions,
        now: Instant,
    ) -> Option<Found> {
        let snapshot = session.cx.shared.current.load();
        let member = attempt.slot.member();
        if let Some(pool) = snapshot.pool_named(&member.pool) {
            let known = &session.cx.capabilities;
            known.learn(snapshot.generation, pool, member, &extensions);
        }
        drop(snapshot);
        let lacking = extensions.lacks(self.aim.needed);
        if lacking.is_empty() {
            self.drop_losers(session, now);
            return Some(Found::Ready(attempt, extensions));
        }
        self.lacking = self.lacking.union(lacking);
        self.tried.add(attempt.slot.member());
        let name = attempt.name();
        let Attempt { stream, slot, .. } = attempt;
        let kept = Kept::new(stream, extensions, name, now);
        session.cx.keeper.put(session, slot, kept, now);
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
    ) -> Poll<Result<Option<Found>, Refusal>> {
        if self.total.is_some_and(|total| total <= now) {
            return Poll::Ready(Err(self.none(NoBackend::AllTried)));
        }
        if let Some(turn) = self.turn.take() {
            return self.look_again(session, turn, now).map(Ok);
        }
        for _ in 0..RESOLVES_MAX {
            if let Some(waiting) = &mut self.waiting {
                let Poll::Ready(given) = waiting.waiter.poll_handed(cx) else {
                    return Poll::Pending;
                };
                // A reload interrupts a wait; it does not begin another.
                self.wait_until = given.is_err().then_some(waiting.until);
                note_wait(session, waiting.since, now);
                self.waiting = None;
                let given = given
                    .ok()
                    .and_then(|handed| self.use_handed(session, handed, now));
                if let Some(picked) = given {
                    return Poll::Ready(Ok(self.take(session, picked, now)));
                }
            }
            match self.pick(session, now) {
                Ok(Picked::Waits) => {}
                Ok(picked) => return Poll::Ready(Ok(self.take(session, picked, now))),
                Err(refusal) => return Poll::Ready(Err(refusal)),
            }
        }
        Poll::Ready(Err(self.none(NoBackend::AllFull)))
    }

    /// Dials what was picked, once it is its turn, or uses the connection that was kept.
    fn take(&mut self, session: &mut Session, picked: Picked, now: Instant) -> Option<Found> {
        match picked {
            Picked::Slot(slot, spent) => {
                self.open(session, slot, spent, now);
                None
            }
            Picked::Kept(slot, kept, spent) => Some(Found::Kept(slot, kept, spent)),
            Picked::Waits => None,
        }
    }

    /// No backend, or none that has what is needed.
    fn none(&self, why: NoBackend) -> Refusal {
        if self.lacking.is_empty() {
            Refusal::NoBackend(why)
        } else {
            Refusal::Lacking(self.lacking)
        }
    }

    /// Dials the backend of `slot`; if a reload led the listener to another pool meanwhile, the slot
    /// goes back and the next pick is from there.
    fn dial(
        &mut self,
        session: &mut Session,
        slot: Slot,
        spent: Option<Spent>,
        opening: Option<OpeningPlace>,
        now: Instant,
    ) {
        let shared = Arc::clone(&session.cx.shared);
        let snapshot = shared.current.load();
        let view = pool_now(&snapshot, session);
        let Some(view) = view.filter(|view| view.name == slot.member().pool) else {
            return;
        };
        self.wait_until = None;
        if slot.mode() == PickMode::LastResort {
            self.attempts_max = LAST_RESORT_ATTEMPTS;
        }
        self.made += 1;
        session.attempts += 1;
        if self.made > 1 {
            session.cx.counters().failovers.inc();
        }
        let worker = session.cx.worker.index();
        let totals = &slot.member().settings.state.totals;
        totals.of(worker).attempts.inc();
        let purpose = self.aim.purpose;
        match attempt::begin(session, view, slot, spent, purpose, opening, now) {
            Ok(attempt) => {
                let place = usize::from(self.attempts[0].is_some());
                self.attempts[place] = Some(attempt);
            }
            Err((slot, failure)) => self.failed(session, &slot, failure, now, now),
        }
    }

    /// The earliest of all deadlines.
    pub(super) fn deadline(&self) -> Instant {
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
            if let Some(accepted) = attempt.opens_until() {
                consider(accepted);
            }
        }
        if let Some(turn) = &self.turn {
            consider(turn.next);
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
            if attempt.opens_until().is_some_and(|until| until <= now) {
                attempt.is_accepted();
            }
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
            return Err(self.none(NoBackend::AllTried));
        }
        Ok(())
    }

    /// Dials a second backend beside the slow one.
    fn hedge(&mut self, session: &mut Session, slow: usize, now: Instant) {
        if self.attempts.iter().all(Option::is_some) || self.made >= self.attempts_max {
            return;
        }
        let shared = Arc::clone(&session.cx.shared);
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
        let spent = match self.aim.purpose {
            Purpose::Relay => None,
            Purpose::Mail => match view.pool.spend(slot.member(), self.aim.recipients, now) {
                Ok(spent) => spent,
                Err(UsedUp) => return,
            },
        };
        attempt.mark_slow();
        session.hedged = true;
        let worker = session.cx.worker.index();
        slot.member().settings.state.totals.of(worker).hedges.inc();
        if slow != 0 {
            self.attempts.swap(0, 1);
        }
        // It is none of a burst: hedges have a budget.
        self.dial(session, slot, spent, None, now);
    }
}

/// The pool that the session's listener leads to now: a reload may have changed that. A listener
/// that is gone leads where it led last.
pub(super) fn pool_now<'a>(snapshot: &'a Snapshot, session: &Session) -> Option<&'a PoolView> {
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

/// Closes a loser of a race; the slow one gets its strike, the other has shown nothing.
fn lost(session: &mut Session, loser: Option<Attempt>, tried: &mut Tried, now: Instant) {
    let Some(loser) = loser else { return };
    if !loser.was_slow() {
        return;
    }
    tried.add_slow(loser.slot.member());
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
