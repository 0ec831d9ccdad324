//! The octets of a message, from the client into its copy (rule D).

use std::time::Instant;

use super::super::data::{DataProgress, DataScanner, Offence};
use super::super::replies::OwnReply;
use super::transaction::Transaction;
use super::{Effect, MailSession};

impl MailSession {
    /// Takes octets of the message.
    pub(super) fn content(&mut self, rest: &[u8], now: Instant) -> usize {
        let Some(open) = &mut self.open else {
            return 0;
        };
        let Transaction {
            exchange,
            scanner,
            body,
            ..
        } = &mut **open;
        let line_endings = self.policy.line_endings;
        let scanning = scanner.get_or_insert_with(|| DataScanner::new(line_endings));
        let room = if exchange.is_over() {
            scanning.mute();
            rest.len()
        } else {
            rest.len().min(body.room())
        };
        if body.is_all_sent() {
            exchange.moved(now);
        }
        let input = &rest[..room];
        let mut loss = None;
        let progress = scanning.scan(input, |piece| {
            loss = loss.or(body.push(piece.octets(input)));
        });
        let refusal = match scanning.offence() {
            Some(Offence::BareCr | Offence::BareLf) => Some(OwnReply::BARE_IN_MESSAGE),
            Some(Offence::Nul) => Some(OwnReply::NUL_IN_MESSAGE),
            None if self.policy.size_max > 0
                && scanning.counts().message() > self.policy.size_max =>
            {
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
