//! What a transaction has come to: counted and logged once, whatever ends it.

use std::sync::Arc;
use std::time::Instant;

use crate::balance::{Member, MoveCause};
use crate::metrics::TransactionOutcome;
use crate::session::context::since;
use crate::session::record::Session;
use crate::smtp::{TransactionEnd, Trouble};
use crate::telemetry::{AttemptRecord, TransactionRecord};

/// An open transaction, as the log will tell it.
#[derive(Debug)]
pub(super) struct Account {
    /// Which of the session, from 1.
    number: u64,
    began: Instant,
    /// The backend that has it.
    backend: Option<Arc<Member>>,
    kept: bool,
    moves: u32,
    failed: Option<(Arc<Member>, Trouble)>,
}

impl Account {
    /// MAIL was said.
    pub(super) fn begin(number: u64, now: Instant) -> Self {
        Self {
            number,
            began: now,
            backend: None,
            kept: false,
            moves: 0,
            failed: None,
        }
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
        self.failed = Some((Arc::clone(member), trouble));
    }

    /// Another backend is looked for.
    pub(super) fn moves(&mut self, session: &Session) {
        self.moves += 1;
        let Some((member, trouble)) = self.failed.take() else {
            return;
        };
        let cause = match trouble {
            Trouble::Lost => MoveCause::Lost,
            Trouble::Silent => MoveCause::Silent,
            Trouble::Closing => MoveCause::Closing,
            Trouble::Desync => MoveCause::Desync,
            Trouble::Unwell => MoveCause::Unwell,
        };
        let totals = member.settings.state.totals.of(session.cx.worker.index());
        totals.mail.moves[cause.index()].inc();
    }

    /// It has ended; `None` is cut.
    pub(super) fn end(self, session: &mut Session, end: Option<TransactionEnd>, now: Instant) {
        let outcome = match end {
            Some(TransactionEnd::Accepted) => TransactionOutcome::Accepted,
            Some(TransactionEnd::Refused) => TransactionOutcome::Refused,
            Some(TransactionEnd::Abandoned) => TransactionOutcome::Abandoned,
            Some(TransactionEnd::Failed) if self.backend.is_none() => TransactionOutcome::NoBackend,
            Some(TransactionEnd::Failed) => TransactionOutcome::Failed,
            Some(TransactionEnd::InDoubt) => TransactionOutcome::InDoubt,
            None => TransactionOutcome::Cut,
        };
        let attempts = std::mem::take(&mut session.attempts);
        let failures = std::mem::take(&mut session.failures);
        session.hedged = false;
        self.count(session, outcome, now);
        self.log(session, outcome, (attempts, &failures), now);
    }

    fn count(&self, session: &Session, outcome: TransactionOutcome, now: Instant) {
        let worker = session.cx.worker.index();
        let counters = &session.listener.view.state.counters.of(worker).mail;
        counters.outcomes[outcome.index()].inc();
        counters.transaction.observe(since(now, self.began));
        let Some(member) = &self.backend else { return };
        let mail = &member.settings.state.totals.of(worker).mail;
        mail.transactions.inc();
        match outcome {
            TransactionOutcome::Accepted => mail.accepted.inc(),
            TransactionOutcome::InDoubt => mail.in_doubt.inc(),
            TransactionOutcome::Refused
            | TransactionOutcome::RefusedByUs
            | TransactionOutcome::Abandoned
            | TransactionOutcome::NoBackend
            | TransactionOutcome::Failed
            | TransactionOutcome::Cut => {}
        }
    }

    fn log(
        &self,
        session: &Session,
        outcome: TransactionOutcome,
        (attempts, failures): (u32, &[AttemptRecord]),
        now: Instant,
    ) {
        // One that is dropped while the log is borrowed (a panic in the log) is not logged.
        let Ok(mut log) = session.cx.log.try_borrow_mut() else {
            return;
        };
        if !log.wants_transaction(outcome) {
            return;
        }
        log.transaction(&TransactionRecord {
            session: session.id,
            number: self.number,
            listener: &session.listener.view.name,
            client: session.client(),
            helo: "",
            backend: self.backend.as_ref().map(|member| {
                (
                    &*member.pool,
                    &*member.settings.name,
                    member.settings.address,
                )
            }),
            attempts,
            failures,
            kept: self.kept,
            replayed: self.moves,
            size: 0,
            recipients_accepted: 0,
            recipients_refused: 0,
            mail: None,
            body: None,
            reply_after: None,
            transaction: since(now, self.began),
            outcome,
            reply: None,
            in_doubt: None,
            addresses: None,
        });
    }
}
