//! Getting a connection for a transaction, and what becomes of it afterwards (rules N1 to N4).

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Mail;
use super::account::Account;
use crate::balance::{
    BackendState, FailureKind, NoBackend, Observation, Parked, Slot, Spent, Stage,
};
use crate::config::model::{Hedge, Sticky};
use crate::session::attempt::{self, Attempt, Failure, Purpose};
use crate::session::closing::Refusal;
use crate::session::connect::{self, Aim, Connecting, Found, From};
use crate::session::context::since;
use crate::session::keeper::Kept;
use crate::smtp::{
    self, BackendTimes, Elsewhere, Fate, LeaseTerms, Needed, OwnReply, Step, Trouble, Want,
};
use crate::types::WorkerId;

/// The session's connection to a backend.
#[derive(Debug)]
pub(super) enum Line {
    None,
    /// It was of no use. Its place is there for a new one, if that is wanted now: whoever has waited
    /// for the place does not wait again because a kept connection had died (rule N3).
    Left(Parked),
    Wanted(Box<Wanted>),
    Held(Held),
}

/// One that is being found.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) connecting: Connecting,
}

/// One that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) kept: Kept,
    slot: Slot,
    since: Instant,
    /// When the backend's health was looked at.
    pub(super) looked: Instant,
    /// Whether it was well when the connection was found: in last resort none is.
    was_well: bool,
    /// Octets that went to the backend and came from it.
    pub(super) said: u64,
    pub(super) heard: u64,
}

impl Held {
    /// Counts its octets at the backend.
    pub(super) fn count(&self, worker: WorkerId) {
        let totals = self.slot.member().settings.state.totals.of(worker.index());
        totals.octets_to_backend.add(self.said);
        totals.octets_to_client.add(self.heard);
    }

    /// Whether probes and sessions have found the backend unwell since. A drain is none of that.
    pub(super) fn has_fallen(&self) -> bool {
        self.was_well && !self.slot.member().settings.state.is_well()
    }
}

/// MAIL is not slow before this, whatever the backend's usual.
const SLOW_MIN: Duration = Duration::from_secs(1);
/// MAIL is slow when it takes so many times what the backend usually takes to greet.
const SLOW_FACTOR: u32 = 3;

impl Mail<'_> {
    /// Begins to look for a connection.
    pub(super) fn lease(&mut self, want: Want, needed: Needed, now: Instant) {
        match &mut self.account {
            Some(account) if want == Want::Other => account.moves(self.session),
            Some(_) => {}
            none => {
                self.transactions = self.transactions.wrapping_add(1);
                *none = Some(Account::begin(self.session, self.transactions, now));
            }
        }
        let (prefer, from) = match want {
            Want::Any => (self.stays_at(), From::Anywhere),
            Want::New => (self.last_backend(), From::Dial),
            Want::Other => (None, From::Anywhere),
        };
        // What another backend was to take is given back first.
        self.spent = None;
        // Its old backend, which is not blamed, would have room for no more than before.
        let more = u32::from(std::mem::take(&mut self.seeks_room));
        let aim = Aim {
            purpose: Purpose::Mail,
            needed,
            recipients: (self.core.recipients_accepted() + more).max(1),
            prefer,
            from,
        };
        let mut connecting = Connecting::new(aim, self.tried.clone(), now);
        if let Line::Left(parked) = std::mem::replace(&mut self.line, Line::None)
            && want == Want::New
        {
            connecting.has_place(parked);
        }
        self.line = Line::Wanted(Box::new(Wanted { connecting }));
    }

    fn last_backend(&self) -> Option<Arc<BackendState>> {
        let last = self.session.backend.as_ref()?;
        Some(Arc::clone(&last.settings.state))
    }

    /// The backend of the transaction before, if sessions stay where they are.
    fn stays_at(&self) -> Option<Arc<BackendState>> {
        let snapshot = self.session.cx.shared.current.load();
        let pool = connect::pool_now(&snapshot, self.session)?;
        match pool.settings.smtp.sticky {
            Sticky::Session => self.last_backend(),
            Sticky::None | Sticky::Source => None,
        }
    }

    /// Goes on looking.
    pub(super) fn find(&mut self, task: &mut Context<'_>, now: Instant) -> bool {
        let Line::Wanted(wanted) = &mut self.line else {
            return false;
        };
        let cx = Rc::clone(&self.session.cx);
        let found = {
            let mut scratch = cx.scratch.borrow_mut();
            let connecting = &mut wanted.connecting;
            connecting.poll(task, self.session, self.client, &mut scratch, now)
        };
        match found {
            Poll::Pending => return false,
            Poll::Ready(Ok(Found::Ready(attempt, extensions))) => {
                let name = attempt.name();
                let Attempt {
                    stream,
                    slot,
                    spent,
                    ..
                } = attempt;
                stream.keep_alive();
                self.note_tried();
                self.spent = spent;
                let kept = Kept::new(stream, extensions, name, now);
                self.hold(slot, kept, smtp::Kept::No, now);
            }
            Poll::Ready(Ok(Found::Kept(slot, kept, spent))) => {
                self.session.attempts += 1;
                self.note_tried();
                self.spent = spent;
                self.hold(slot, kept, smtp::Kept::Yes, now);
            }
            Poll::Ready(Ok(Found::Greeted { .. })) => {
                debug_assert!(false, "connections for mail open themselves");
                self.not_found(OwnReply::INTERNAL);
            }
            Poll::Ready(Err(refusal)) => {
                let account = self.account.as_ref();
                let attempts = account.map_or(0, |account| account.attempts(self.session));
                let reply = reply_to(refusal, attempts);
                if !matches!(refusal, Refusal::Lacking(_))
                    && self.is_short_of_quota(now)
                    && let Some(account) = &mut self.account
                {
                    account.note_quota_reason();
                }
                self.not_found(reply);
            }
        }
        true
    }

    /// Backends that failed in this search are passed over in the next of this transaction.
    fn note_tried(&mut self) {
        if let Line::Wanted(wanted) = &self.line {
            self.tried = wanted.connecting.tried().clone();
        }
    }

    fn hold(&mut self, slot: Slot, kept: Kept, is_kept: smtp::Kept, now: Instant) {
        self.session.at_backend(slot.member());
        self.session.cx.counters().leased.inc();
        if let Some(account) = &mut self.account {
            account.at(self.session, slot.member(), is_kept == smtp::Kept::Yes);
        }
        let extensions = Rc::clone(&kept.extensions);
        let member = Arc::clone(slot.member());
        if is_kept == smtp::Kept::No {
            let totals = member
                .settings
                .state
                .totals
                .of(self.session.cx.worker.index());
            totals.sessions.inc();
        }
        self.line = Line::Held(Held {
            was_well: slot.member().settings.state.is_well(),
            kept,
            slot,
            since: now,
            looked: now,
            said: 0,
            heard: 0,
        });
        let terms = self.terms(is_kept);
        self.core.leased_on(&extensions, &terms, now);
    }

    /// How long the backend is waited for: what its pool says now.
    fn terms(&self, kept: smtp::Kept) -> LeaseTerms {
        let snapshot = self.session.cx.shared.current.load();
        let mut terms = LeaseTerms::of(kept);
        let counted = self
            .spent
            .as_ref()
            .filter(|spent| spent.counts_recipients());
        terms.places = counted.map(Spent::recipients);
        if let Some(pool) = connect::pool_now(&snapshot, self.session) {
            let settings = &pool.settings.smtp;
            terms.times = BackendTimes {
                reply: settings.reply_timeout,
                data: settings.data_timeout,
                block: settings.block_timeout,
                last: settings.final_timeout,
            };
            terms.slow_after = self.slow_after(&pool.settings.hedge);
        }
        terms
    }

    /// After how long MAIL is slow; `None` where the pool does not hedge.
    fn slow_after(&self, hedge: &Hedge) -> Option<Duration> {
        if !hedge.enabled {
            return None;
        }
        let Line::Held(held) = &self.line else {
            return None;
        };
        let usual = held.slot.member().settings.state.usual_greeting();
        let by_usual = SLOW_MIN.max(usual.unwrap_or_default() * SLOW_FACTOR);
        Some(hedge.greeting_after.unwrap_or(by_usual))
    }

    /// Whether another backend has room for the recipients so far and one more.
    pub(super) fn elsewhere(&mut self, now: Instant) -> Elsewhere {
        let Line::Held(held) = &self.line else {
            return Elsewhere::None;
        };
        let state = &held.slot.member().settings.state;
        let recipients = self.core.recipients_accepted().saturating_add(1);
        let snapshot = self.session.cx.shared.current.load();
        let has_room = connect::pool_now(&snapshot, self.session).is_some_and(|view| {
            let pool = &view.pool;
            pool.has_room_elsewhere(state, &self.tried, recipients, now)
        });
        self.seeks_room = has_room;
        if has_room {
            Elsewhere::Room
        } else {
            Elsewhere::None
        }
    }

    /// Whether a backend could not be chosen because its quota has no room for the transaction.
    fn is_short_of_quota(&self, now: Instant) -> bool {
        let recipients = self.core.recipients_accepted().max(1);
        let snapshot = self.session.cx.shared.current.load();
        connect::pool_now(&snapshot, self.session)
            .is_some_and(|view| view.pool.is_short_of_quota(recipients, now))
    }

    /// MAIL is slow: another backend is asked, if one has a place and the pool's budget of hedges
    /// allows it.
    pub(super) fn hedge(&mut self, now: Instant) {
        let Line::Held(held) = &self.line else { return };
        let mut tried = self.tried.clone();
        tried.add(held.slot.member());
        let picked = {
            let snapshot = self.session.cx.shared.current.load();
            let Some(pool) = connect::pool_now(&snapshot, self.session) else {
                return;
            };
            let client = self.session.client_key();
            let mut rng = self.session.cx.rng.borrow_mut();
            pool.pool.pick_hedge(client, &tried, now, &mut rng)
        };
        // The place is looked for again when the core asks for it.
        if picked.is_ok() && self.core.hedge(now) {
            self.gives_up_slow = true;
            self.session.hedged = true;
            self.session.cx.counters().mail_hedges.inc();
        }
    }

    fn not_found(&mut self, reply: OwnReply) {
        self.line = Line::None;
        self.core.not_leased(reply);
    }

    /// The message is said again although the backend may have it (rule F7).
    pub(super) fn doubted(&mut self, now: Instant) {
        // The first copy may have been taken.
        let recipients = self.core.recipients_accepted();
        if let Some(spent) = self.spent.take() {
            spent.keep(recipients, now);
        }
        let Line::Held(held) = &self.line else { return };
        if let Some(account) = &mut self.account {
            account.doubted(self.session, held.slot.member());
        }
    }

    /// Keeps the connection, or closes it.
    pub(super) fn release(&mut self, fate: Fate, now: Instant) {
        let Line::Held(held) = std::mem::replace(&mut self.line, Line::None) else {
            return;
        };
        self.session.leaves_backend();
        self.session.cx.counters().leased.sub(1);
        held.count(self.session.cx.worker);
        let Held { mut kept, slot, .. } = held;
        match fate {
            // A kept connection that is refused before it has carried anything more has had its
            // share (rule N4).
            Fate::Worn => {
                if let Some(account) = &mut self.account {
                    account.worn(slot.member(), kept.messages);
                }
                let keeper = &self.session.cx.keeper;
                let parked = slot.park();
                if parked.waiting() > 0 {
                    // Its place is needed at once. The backend has said its last.
                    drop(kept);
                    self.line = Line::Left(parked);
                } else {
                    keeper.part(&self.session.cx, kept.stream, parked);
                }
            }
            Fate::Keep => {
                kept.messages += 1;
                attempt::observe(self.session, &slot, Observation::Served, now);
                self.session.cx.keeper.put(self.session, slot, kept, now);
            }
            // The socket is closed before another may take its place.
            Fate::Retire => {
                drop(kept);
                self.line = Line::Left(slot.park());
            }
            Fate::Abort => {
                kept.stream.reset_on_close();
                drop((kept, slot));
            }
        }
    }

    /// The connection failed through its backend's fault.
    pub(super) fn strike(&mut self, trouble: Trouble, step: Step, now: Instant) {
        let Line::Held(held) = &self.line else { return };
        let kind = match trouble {
            // Cut by a reload or an operator: nobody's fault.
            Trouble::Lost if self.session.orders().leaves => FailureKind::Local,
            Trouble::Lost => FailureKind::Closed,
            Trouble::Silent => FailureKind::Silent,
            Trouble::Closing | Trouble::Unwell => FailureKind::Temporary,
            Trouble::Desync => FailureKind::Garbage,
        };
        // Who was given up for a hedge is no more than slow.
        if trouble == Trouble::Silent && std::mem::take(&mut self.gives_up_slow) {
            self.tried.add_slow(held.slot.member());
        } else {
            self.tried.add(held.slot.member());
        }
        if let Some(account) = &mut self.account {
            account.failed(held.slot.member(), trouble);
        }
        let stage = match step {
            Step::Mail => Stage::Mail,
            Step::Rcpt => Stage::Rcpt,
            Step::Data => Stage::Data,
            Step::Content => Stage::Content,
            Step::End => Stage::EndOfData,
        };
        let failure = Failure::new(stage, kind);
        let after = since(now, held.since);
        attempt::note_failure(self.session, &held.slot, failure, after, now);
    }
}

/// What the client is told when there is no connection (rules R, E3).
fn reply_to(refusal: Refusal, attempts: u32) -> OwnReply {
    match refusal {
        Refusal::Lacking(_) => OwnReply::PARAMETER_NOT_NOW,
        Refusal::NoBackend(NoBackend::AllTried) if attempts > 0 => OwnReply::NO_BACKEND_ANSWERED,
        _ => OwnReply::NO_BACKEND,
    }
}
