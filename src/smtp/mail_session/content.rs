//! The octets of a message, from the client into its copy (rule D).

use std::time::Instant;

use super::super::data::{DataProgress, DataScanner, Offence};
use super::super::replies::OwnReply;
use super::{Effect, MailSession};

impl MailSession {
    /// Takes octets of the message.
    pub(super) fn content(&mut self, rest: &[u8], now: Instant) -> usize {
        let Some(exchange) = &mut self.exchange else {
            return 0;
        };
        let line_endings = self.policy.line_endings;
        let scanner = self
            .scanner
            .get_or_insert_with(|| DataScanner::new(line_endings));
        let room = if exchange.is_over() {
            scanner.mute();
            rest.len()
        } else {
            rest.len().min(self.body.room())
        };
        if self.body.is_all_sent() {
            exchange.moved(now);
        }
        let input = &rest[..room];
        let mut loss = None;
        let progress = scanner.scan(input, |piece| {
            loss = loss.or(self.body.push(piece.octets(input)));
        });
        let refusal = match scanner.offence() {
            Some(Offence::BareCr | Offence::BareLf) => Some(OwnReply::BARE_IN_MESSAGE),
            Some(Offence::Nul) => Some(OwnReply::NUL_IN_MESSAGE),
            None if self.policy.size_max > 0
                && scanner.counts().message() > self.policy.size_max =>
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
                self.scanner = None;
                self.body.complete();
                exchange.complete(now);
                consumed
            }
        };
        self.collect();
        used
    }
}
