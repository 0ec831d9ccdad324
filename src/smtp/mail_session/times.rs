//! How long a session waits, and for whom (rules B6, K1).

use std::time::Instant;

use super::super::exchange::{Exchange, Trouble};
use super::super::replies::OwnReply;
use super::MailSession;
use super::transaction::Transaction;

impl MailSession {
    /// When [`MailSession::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let backend = self.backend_deadline();
        let limit = match self.exchange() {
            _ if self.is_closing() || self.is_full() => None,
            Some(exchange) if exchange.is_content() => Some(self.policy.block_time),
            Some(_) if self.is_awaited() => None,
            Some(_) | None => Some(self.policy.command_time),
        };
        let client = limit.map(|limit| self.active + limit);
        backend.into_iter().chain(client).min()
    }

    /// When the backend has been silent for too long. Not while the next octets are the client's.
    fn backend_deadline(&self) -> Option<Instant> {
        let Transaction { exchange, body, .. } = self.open.as_deref()?;
        let waits = exchange.wants_content() && body.is_all_sent() && !body.is_complete();
        exchange.deadline().filter(|_| !waits)
    }

    /// The deadline has passed.
    pub fn timeout(&mut self, now: Instant) {
        let is_late = self.backend_deadline().is_some_and(|late| late <= now);
        if let Some(open) = &mut self.open
            && is_late
        {
            open.exchange.lost(Trouble::Silent, &[], now);
            self.collect();
        }
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let content = self.exchange().is_some_and(Exchange::is_content);
        let reply = if content {
            OwnReply::DATA_TIMEOUT
        } else {
            OwnReply::TIMEOUT
        };
        if let Some(open) = &mut self.open {
            open.exchange.client_lost();
        }
        self.collect();
        self.own(reply);
    }
}
