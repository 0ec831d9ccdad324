//! The octets of a message, from the client into its copy (rule D).

use std::time::{Duration, Instant};

use super::super::data::{DataProgress, DataScanner, Offence};
use super::super::replies::OwnReply;
use super::transaction::Transaction;
use super::{Effect, MailSession};

/// A message over the limit is read on for so long (rule D10).
const DRAIN_TIME: Duration = Duration::from_mins(1);

impl MailSession {
    /// Takes octets of the message.
    pub(super) fn content(&mut self, rest: &[u8], now: Instant) -> usize {
        let Some(open) = &mut self.open else {
            return 0;
        };
        if !open.exchange.wants_message() {
            open.forget_message(&self.memory);
        }
        if open.waits_for_client() {
            open.exchange.moved(now);
        }
        let Transaction {
            exchange,
            scanner,
            body,
            size,
            drains_until,
            ..
        } = &mut **open;
        let line_endings = self.policy.line_endings;
        let scanning = scanner.get_or_insert_with(|| DataScanner::new(line_endings));
        let room = if exchange.wants_message() {
            rest.len().min(body.room())
        } else {
            scanning.mute();
            rest.len()
        };
        let input = &rest[..room];
        let mut loss = None;
        let progress = scanning.scan(input, |piece| {
            loss = loss.or(body.push(piece.octets(input)));
        });
        *size = scanning.counts().message();
        let size_max = match self.policy.size_max {
            0 => u64::MAX,
            size_max => size_max,
        };
        let refusal = match scanning.offence() {
            Some(offence) => Some(refusal_of(offence)),
            None if *size > size_max => {
                drains_until.get_or_insert(now + DRAIN_TIME);
                Some(OwnReply::TOO_BIG)
            }
            None => None,
        };
        if let Some(loss) = loss {
            exchange.copy_lost();
            self.effects.push_back(Effect::NotReplayable(loss));
        }
        if let Some(refusal) = refusal {
            exchange.refuse(refusal);
        }
        let used = match progress {
            DataProgress::More if *size > size_max.saturating_mul(2) => {
                self.own(OwnReply::FAR_TOO_BIG);
                room
            }
            DataProgress::More => room,
            DataProgress::Ended { consumed } | DataProgress::Refused { consumed, .. } => {
                *scanner = None;
                body.complete();
                exchange.complete(now);
                consumed
            }
        };
        self.collect();
        used
    }
}

/// What a message is told that has an octet which is rejected.
pub(super) fn refusal_of(offence: Offence) -> OwnReply {
    match offence {
        Offence::BareCr | Offence::BareLf => OwnReply::BARE_IN_MESSAGE,
        Offence::Nul => OwnReply::NUL_IN_MESSAGE,
    }
}
