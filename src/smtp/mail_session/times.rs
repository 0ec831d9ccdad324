//! How long a session waits, and for whom (rules B6, K1).

use std::time::Instant;

use super::super::exchange::Trouble;
use super::super::replies::OwnReply;
use super::MailSession;

impl MailSession {
    /// When [`MailSession::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let backend = self.backend_deadline();
        let limit = match self.open {
            _ if self.is_closing() || self.is_full() => None,
            _ if self.is_in_content() => Some(self.policy.block_time),
            Some(_) if self.is_awaited() => None,
            Some(_) | None => Some(self.policy.command_time),
        };
        let client = limit.map(|limit| self.active + limit);
        backend.into_iter().chain(client).min()
    }

    /// When the backend has been silent for too long. Not while the next octets are the client's.
    fn backend_deadline(&self) -> Option<Instant> {
        let open = self.open.as_deref()?;
        open.exchange
            .deadline()
            .filter(|_| !open.waits_for_client())
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
        let reply = if self.is_in_content() {
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
