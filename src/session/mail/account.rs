//! What a transaction has come to: counted and logged once, whatever ends it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::balance::{Member, MoveCause};
use crate::metrics::TransactionOutcome;
use crate::net::event_loop::yield_now;
use crate::session::context::{Context, LocalListener, since};
use crate::session::record::Session;
use crate::smtp::{BodyDigest, HelloName, OwnReply, TransactionEnd, TransactionFacts, Trouble};
use crate::telemetry::{
    Addresses, AttemptRecord, InDoubtRecord, TransactionReason, TransactionRecord,
};
use crate::types::SessionId;

/// Octets of a message in doubt that are digested at once: some tenths of a millisecond.
const DIGEST_STEP: usize = 262_144;

/// An open transaction, as the log will tell it.
#[derive(Debug)]
pub(super) struct Account {
    /// Which of the session, from 1.
    number: u32,
    /// Connections that those before it were tried on.
    attempts_before: u32,
    began: Instant,
    /// The backend that has it.
    backend: Option<Arc<Member>>,
    kept: bool,
    /// The quota had no room for the last recipient that was asked for.
    lacks_places: bool,
    reason: Option<TransactionReason>,
    moves: u32,
    failed: Option<(Arc<Member>, Trouble)>,
    /// A backend that may have the message although it was said to another (rule F7).
    doubted: Option<Arc<Member>>,
    /// A kept connection was refused after so many messages. Whether that was its share, or the
    /// backend has no room for anybody, the new connection shows.
    worn: Option<Box<(Arc<Member>, u32)>>,
}

impl Account {
    /// MAIL was said.
    pub(super) fn begin(session: &Session, number: u32, now: Instant) -> Self {
        Self {
            number,
            attempts_before: session.attempts,
            began: now,
            backend: None,
            kept: false,
            lacks_places: false,
            reason: None,
            moves: 0,
            failed: None,
            doubted: None,
            worn: None,
        }
    }

    /// Connections that it was tried on so far.
    pub(super) fn attempts(&self, session: &Session) -> u32 {
        session.attempts.wrapping_sub(self.attempts_before)
    }

    /// A connection to `member` was found.
    pub(super) fn at(&mut self, session: &Session, member: &Arc<Member>, kept: bool) {
        let totals = member.settings.state.totals.of(session.cx.worker.index());
        if kept {
            totals.mail.reused.inc();
        } else {
            totals.mail.dialled.inc();
        }
        self.backend = Some(Arc::clone(member));
        self.kept = kept;
    }

    /// The connection failed.
    pub(super) fn failed(&mut self, member: &Arc<Member>, trouble: Trouble) {
        self.worn = None;
        self.failed = Some((Arc::clone(member), trouble));
    }

    /// A kept connection to `member` was refused after so many messages.
    pub(super) fn worn(&mut self, member: &Arc<Member>, messages: u32) {
        self.worn = Some(Box::new((Arc::clone(member), messages)));
    }

    /// `member` may have the message, and it is said to another.
    pub(super) fn doubted(&mut self, session: &Session, member: &Arc<Member>) {
        let totals = member.settings.state.totals.of(session.cx.worker.index());
        totals.mail.in_doubt.inc();
        tracing::warn!(session.id = %session.id,
            transaction = self.number,
            pool = &*member.pool,
            backend = &*member.settings.name,
            "transaction.in-doubt-sent-again");
        self.doubted = Some(Arc::clone(member));
    }

    /// Notes how many more recipients the backend's quota had room for.
    pub(super) fn note_places(&mut self, places: u32) {
        self.lacks_places = places == 0;
    }

    /// Notes that it was refused or moved because a quota had no room.
    pub(super) fn note_quota_reason(&mut self) {
        self.reason = Some(TransactionReason::Quota);
    }

    /// Notes that we refused a command of it.
    pub(super) fn note_refusal(&mut self, reply: OwnReply) {
        let for_want_of_room = [OwnReply::TOO_MANY_RECIPIENTS, OwnReply::NO_BACKEND];
        if self.lacks_places && for_want_of_room.contains(&reply) {
            self.lacks_places = false;
            self.note_quota_reason();
        }
    }

    /// Another backend is looked for.
    pub(super) fn moves(&mut self, session: &Session) {
        self.moves += 1;
        let lacked_places = std::mem::take(&mut self.lacks_places);
        let failed = self.failed.take();
        let (member, cause) = match (failed, &self.backend) {
            (Some((member, Trouble::Lost)), _) => (member, MoveCause::Lost),
            (Some((member, Trouble::Silent)), _) => (member, MoveCause::Silent),
            (Some((member, Trouble::Closing)), _) => (member, MoveCause::Closing),
            (Some((member, Trouble::Desync)), _) => (member, MoveCause::Desync),
            (Some((member, Trouble::Unwell)), _) => (member, MoveCause::Unwell),
            (None, Some(backend)) if lacked_places => {
                self.reason = Some(TransactionReason::Quota);
                (Arc::clone(backend), MoveCause::Quota)
            }
            (None, _) => return,
        };
        let totals = member.settings.state.totals.of(session.cx.worker.index());
        totals.mail.moves[cause.index()].inc();
    }

    /// It has ended; `None` is cut. `facts` are the core's.
    pub(super) fn end(
        mut self,
        session: &mut Session,
        end: Option<TransactionEnd>,
        facts: Option<TransactionFacts>,
        now: Instant,
    ) {
        let refused_here = facts
            .as_ref()
            .is_some_and(TransactionFacts::is_refused_here);
        let outcome = match end {
            Some(TransactionEnd::Accepted) => TransactionOutcome::Accepted,
            Some(TransactionEnd::Refused) if refused_here => TransactionOutcome::RefusedByUs,
            Some(TransactionEnd::Refused) => TransactionOutcome::Refused,
            Some(TransactionEnd::Abandoned) => TransactionOutcome::Abandoned,
            Some(TransactionEnd::Failed) if self.backend.is_none() => TransactionOutcome::NoBackend,
            Some(TransactionEnd::Failed) => TransactionOutcome::Failed,
            Some(TransactionEnd::InDoubt) => TransactionOutcome::InDoubt,
            None => TransactionOutcome::Cut,
        };
        if let Some(worn) = self.worn.take()
            && outcome == TransactionOutcome::Accepted
        {
            let (member, messages) = *worn;
            session.cx.keeper.learn(&member, messages, now);
        }
        session.hedged = false;
        let ended = Ended {
            cx: Rc::clone(&session.cx),
            listener: Rc::clone(&session.listener),
            session: session.id,
            client: session.client(),
            attempts: self.attempts(session),
            failures: std::mem::take(&mut session.failures),
            at: now,
            took: since(now, self.began),
            account: self,
            outcome,
            facts,
            body: None,
        };
        if outcome == TransactionOutcome::InDoubt || ended.account.doubted.is_some() {
            // What it is found by may take a while to compute; others go on meanwhile.
            let event_loop = Rc::clone(&ended.cx.event_loop);
            ended.cx.untold.set(ended.cx.untold.get() + 1);
            let untold = Untold(Rc::clone(&ended.cx));
            event_loop.spawn(async move {
                let _untold = untold;
                ended.digest().await;
            });
        } else {
            ended.tell();
        }
    }
}

/// A transaction that has ended, and is still to be told of.
#[derive(Debug)]
struct Ended {
    cx: Rc<Context>,
    listener: Rc<LocalListener>,
    session: SessionId,
    client: SocketAddr,
    attempts: u32,
    failures: Vec<AttemptRecord>,
    /// When it ended: a message in doubt is told of later.
    at: Instant,
    took: Duration,
    account: Account,
    outcome: TransactionOutcome,
    facts: Option<TransactionFacts>,
    body: Option<BodyDigest>,
}

/// Counts a transaction that is still to be told of: its thread does not end before.
#[derive(Debug)]
struct Untold(Rc<Context>);

impl Drop for Untold {
    fn drop(&mut self) {
        self.0.untold.set(self.0.untold.get() - 1);
    }
}

impl Ended {
    /// Digests the message, step by step, and tells of it.
    async fn digest(mut self) {
        if let Some(facts) = &mut self.facts {
            loop {
                self.body = facts.digest(DIGEST_STEP);
                if self.body.is_some() {
                    break;
                }
                yield_now().await;
            }
        }
        self.tell();
    }

    /// Counts it, and writes its line.
    fn tell(&self) {
        let worker = self.cx.worker.index();
        let log = self.cx.log.try_borrow_mut();
        // One that is dropped while the log is borrowed (a panic in the log) is not logged.
        let wanted = log
            .as_ref()
            .is_ok_and(|log| log.wants_transaction(self.outcome));
        let with_addresses = wanted && log.as_ref().is_ok_and(|log| log.wants_addresses());
        let facts = self.facts.as_ref();
        let recipients: Vec<&[u8]> = match facts.filter(|_| with_addresses) {
            Some(facts) => facts.recipients().collect(),
            None => Vec::new(),
        };
        let account = &self.account;
        let record = TransactionRecord {
            at: self.at,
            session: self.session,
            number: account.number,
            listener: &self.listener.view.name,
            client: self.client,
            helo: facts.map_or(HelloName::default(), TransactionFacts::hello),
            backend: account.backend.as_ref().map(|member| {
                (
                    &*member.pool,
                    &*member.settings.name,
                    member.settings.address,
                )
            }),
            attempts: self.attempts,
            failures: &self.failures,
            kept: account.kept,
            replayed: account.moves,
            size: facts.map_or(0, TransactionFacts::size),
            recipients_accepted: facts.map_or(0, TransactionFacts::recipients_accepted),
            recipients_refused: facts.map_or(0, TransactionFacts::recipients_refused),
            mail: facts.and_then(TransactionFacts::mail_time),
            body: facts.and_then(TransactionFacts::body_time),
            reply_after: facts.and_then(TransactionFacts::reply_time),
            transaction: self.took,
            outcome: self.outcome,
            reason: account.reason,
            reply: facts.and_then(TransactionFacts::reply),
            doubted: account
                .doubted
                .as_ref()
                .map(|member| &*member.settings.name),
            unseen: self.outcome == TransactionOutcome::Accepted
                && facts.is_some_and(TransactionFacts::is_deserted),
            reply_truncated: facts.is_some_and(TransactionFacts::is_truncated),
            in_doubt: facts.zip(self.body).map(|(facts, body)| InDoubtRecord {
                envelope: facts.envelope(),
                body,
            }),
            addresses: facts.filter(|_| with_addresses).map(|facts| Addresses {
                sender: facts.sender(),
                recipients: &recipients,
            }),
        };
        let counters = &self.listener.view.state.counters.of(worker).mail;
        let totals = account.backend.as_ref();
        let totals = totals.map(|member| &member.settings.state.totals.of(worker).mail);
        record.count(counters, totals);
        if let Ok(mut log) = log
            && wanted
        {
            log.transaction(&record);
        }
    }
}
