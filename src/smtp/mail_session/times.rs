//! How long a session waits, and for whom (rules B6, D10, K1, K2).
//!
//! Each wait has its own bound. A client's time begins anew when we have answered, and does not run
//! while it waits for us; only the first MAIL and the average of a message have a bound over all.

use std::time::Instant;

use super::super::exchange::Exchange;
use super::super::pace::DataPace;
use super::super::replies::OwnReply;
use super::super::reply::REPLY_MAX;
use super::{Effect, MailSession, Stage};

/// How a message comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Its first octet came then; later by the time in which we did not want to read.
    since: Instant,
    octets: u64,
}

impl MailSession {
    /// When [`MailSession::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let backend = self.backend_deadline();
        let client = self.client_deadline();
        let held_back = self.held_back.as_ref().map(|held| held.until);
        [backend, client, held_back].into_iter().flatten().min()
    }

    /// When the backend has been silent for too long. Not while the next octets are the client's, nor
    /// while the client keeps us from listening.
    fn backend_deadline(&self) -> Option<Instant> {
        let open = self.open.as_deref()?;
        open.exchange
            .deadline()
            .filter(|_| !open.waits_for_client() && self.reads_backend())
    }

    /// When the client is given up.
    fn client_deadline(&self) -> Option<Instant> {
        if self.is_closing() {
            let unread = !self.replies.is_empty();
            return unread.then(|| self.active + self.policy.command_time);
        }
        // One that leaves what it was told keeps the backend from being heard.
        if self.is_held_up() && self.reads_backend() {
            return None;
        }
        if let Some(held) = &self.greeting {
            return Some(held.until);
        }
        let silence = if self.is_in_content() {
            self.policy.block_time
        } else {
            self.policy.command_time
        };
        let slow = self.pace.map(|pace| {
            let last = self.active.saturating_duration_since(pace.since);
            let octets = pace.octets;
            pace.since + DataPace { octets, last }.gives_up_at().0
        });
        let others = [slow, self.until_mail, self.drains_until()];
        others
            .into_iter()
            .flatten()
            .chain([self.active + silence])
            .min()
    }

    /// Until when a message over the limit is read on (rule D10).
    fn drains_until(&self) -> Option<Instant> {
        self.open.as_deref()?.drains_until
    }

    /// The deadline has passed.
    pub fn timeout(&mut self, now: Instant) {
        self.clock = now;
        self.let_go(now);
        // What was held back is not the client's delay: it has all its time to read the reply.
        self.keep_time(now);
        let is_late = self.backend_deadline().is_some_and(|late| late <= now);
        if let Some(open) = &mut self.open
            && is_late
        {
            open.exchange.timeout(now);
            self.collect();
            self.keep_time(now);
        }
        if self.client_deadline().is_some_and(|late| late <= now) {
            self.client_is_due(now);
        }
        self.keep_time(now);
    }

    fn client_is_due(&mut self, now: Instant) {
        if self.greeting.take().is_some() {
            self.own(OwnReply::GREETING);
            self.active = now;
            return;
        }
        if self.is_closing() {
            // It does not even read its last reply.
            return self.client_lost();
        }
        let is_drained = self.drains_until().is_some_and(|until| until <= now);
        self.own(match (is_drained, self.pace) {
            (true, _) => OwnReply::FAR_TOO_BIG,
            (false, Some(_)) => OwnReply::DATA_TIMEOUT,
            (false, None) if self.is_in_content() => OwnReply::DATA_TIMEOUT,
            (false, None) => OwnReply::TIMEOUT,
        });
        self.active = now;
        self.collect();
    }

    /// Whether it is not the client's turn.
    fn is_held_up(&self) -> bool {
        self.is_full() || self.is_awaited() || self.is_holding_back()
    }

    /// So many octets of its message have come.
    pub(super) fn came(&mut self, octets: usize, now: Instant) {
        let start = Pace {
            since: now,
            octets: 0,
        };
        self.pace.get_or_insert(start).octets += octets as u64;
    }

    /// Takes note of whose turn it is, at the end of each call that knows the time.
    pub(super) fn keep_time(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.trace.look(&open.exchange, now);
        }
        match (self.is_held_up(), self.held_up) {
            (true, None) => self.held_up = Some(now),
            (false, Some(since)) => {
                self.held_up = None;
                self.active = now;
                if let Some(pace) = &mut self.pace {
                    pace.since += now.saturating_duration_since(since);
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
        let by_chunks = |exchange: &Exchange| exchange.chunks().is_some();
        if !self.is_in_content() && !self.exchange().is_some_and(by_chunks) {
            self.pace = None;
        }
        self.check_invariants();
    }

    /// What holds after every call.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let is_end = |effect: &&Effect| matches!(effect, Effect::Ended(_));
        let ends = self.effects.iter().filter(is_end).count();
        assert_eq!(ends, self.ended.len(), "each transaction ends once");
        assert!(self.heard.len() < REPLY_MAX, "half a reply at most");
        if let Some(open) = &self.open {
            let exchange = &open.exchange;
            assert!(!exchange.is_over() || exchange.is_content() && !self.is_ending());
            let commits = !open.to_backend().end.is_empty();
            assert!(!commits || exchange.is_complete(), "rule F6");
        }
        assert!(self.failure.is_none() || self.open.is_none());
        assert!(!self.is_ending() || !self.reads_client());
        if let Some(held) = &self.held_back {
            assert!(held.before < self.replies.len(), "something is held back");
            assert!(self.stage != Stage::Draining, "a drain does not wait");
        }
        assert!(self.stage != Stage::Gone || self.replies.is_empty());
    }
}
