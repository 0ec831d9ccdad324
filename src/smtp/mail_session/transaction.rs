//! What a session keeps while a transaction is open: the exchange with its backends and the copy of
//! the message. Without one, a session is small.

use std::sync::Arc;
use std::time::Instant;

use super::super::body::MessageBody;
use super::super::chunking::ChunkPlace;
use super::super::data::DataScanner;
use super::super::exchange::Exchange;
use super::super::parameters::{MailTerms, Needed, Smtputf8};
use super::super::replay_memory::{ReplayMemory, Reservation};
use super::facts::Trace;
use super::{MailPolicy, Outgoing};

/// Commands of a transaction may take so many octets of memory before they are counted against
/// `replay_memory`,
const COMMANDS_FREE: usize = 8_192;
/// and then in steps of so many.
const COMMANDS_STEP: u64 = 16_384;
/// The end of a message.
const END_OF_DATA: &[u8] = b".\r\n";

/// An open transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) exchange: Exchange,
    pub(super) trace: Trace,
    /// The client's name.
    pub(super) hello: Arc<str>,
    pub(super) smtputf8: Smtputf8,
    pub(super) needed: Needed,
    pub(super) scanner: Option<DataScanner>,
    pub(super) body: MessageBody,
    /// Octets of the message so far, as SIZE counts them.
    pub(super) size: u64,
    /// Set when it is over the limit: it is not read on for longer (rule D10).
    pub(super) drains_until: Option<Instant>,
    /// For long lists of recipients.
    commands: Option<Reservation>,
    /// Octets of the end of the message that have been written.
    end_sent: usize,
}

impl Transaction {
    /// Before MAIL is passed on.
    pub(super) fn new(
        terms: &MailTerms,
        hello: &Arc<str>,
        memory: &Arc<ReplayMemory>,
        policy: &MailPolicy,
        now: Instant,
    ) -> Self {
        Self {
            exchange: Exchange::new(policy.manners),
            trace: Trace::new(now),
            hello: Arc::clone(hello),
            smtputf8: terms.smtputf8,
            needed: terms.needed,
            scanner: None,
            body: MessageBody::new(memory, policy.replay_max),
            size: 0,
            drains_until: None,
            commands: None,
            end_sent: 0,
        }
    }

    /// What is to be written to the backend.
    pub(super) fn to_backend(&self) -> Outgoing<'_> {
        let flight = self.exchange.flight();
        if !self.exchange.wants_content() {
            return Outgoing {
                octets: flight,
                end: &[],
            };
        }
        let octets = self.body.unsent();
        if let Some(chunks) = self.exchange.chunks() {
            let is_end = self.body.sent() + octets.len() as u64 == chunks.octets;
            let commits = is_end && chunks.place == ChunkPlace::Last;
            return chunk_to_backend(flight, octets, commits);
        }
        if !flight.is_empty() {
            return Outgoing {
                octets: flight,
                end: &[],
            };
        }
        let is_last =
            self.body.is_complete() && self.body.sent() + octets.len() as u64 == self.body.length();
        let end = if is_last {
            &END_OF_DATA[self.end_sent..]
        } else {
            &[]
        };
        Outgoing { octets, end }
    }

    /// So many octets of that have left.
    pub(super) fn sent(&mut self, octets: usize, now: Instant) {
        let flown = octets.min(self.exchange.flight().len());
        self.exchange.flown(flown);
        if !self.exchange.wants_content() {
            debug_assert_eq!(flown, octets, "there was no more");
            return;
        }
        let content = (octets - flown).min(self.body.unsent().len());
        self.body.advance(content);
        self.end_sent += octets - flown - content;
        self.exchange.moved(now);
        let is_flown = self.exchange.flight().is_empty();
        let is_all = match self.exchange.chunks() {
            Some(chunks) => is_flown && self.body.sent() == chunks.octets,
            None => self.end_sent == END_OF_DATA.len(),
        };
        if is_all {
            self.end_sent = 0;
            self.exchange.committed(now);
        }
    }

    /// Whether there is memory for one more command, whose line is so long.
    pub(super) fn has_room(&mut self, line: usize, memory: &Arc<ReplayMemory>) -> bool {
        let weight = self.exchange.weight_with(line);
        let needed = weight.saturating_sub(COMMANDS_FREE) as u64;
        if needed == 0 {
            return true;
        }
        let reserved = self
            .commands
            .get_or_insert_with(|| Reservation::new(memory));
        while needed > reserved.octets() {
            if !reserved.grow(COMMANDS_STEP) {
                return false;
            }
        }
        true
    }

    /// Gives the copy of a message back that nobody wants any more, though its rest still comes.
    pub(super) fn forget_message(&mut self, memory: &Arc<ReplayMemory>) {
        if self.body.length() > 0 {
            self.body = MessageBody::new(memory, 0);
        }
    }

    /// The message is to be said from its beginning, to another backend: what that must have. One
    /// that has no copy does not move.
    pub(super) fn rewind(&mut self) -> Needed {
        self.end_sent = 0;
        let _ = self.body.rewind();
        if self.size > self.needed.size.unwrap_or(0) {
            self.needed.size = Some(self.size);
        }
        self.needed
    }

    /// Whether the backend's silence is because the client has not said what comes next.
    pub(super) fn waits_for_client(&self) -> bool {
        let has_all = self.body.is_all_sent() && self.exchange.flight().is_empty();
        self.exchange.wants_content() && has_all && !self.body.is_complete()
    }

    /// Whether the client's message must wait for the backend to take some of it.
    pub(super) fn is_full(&self) -> bool {
        let exchange = &self.exchange;
        exchange.is_content() && exchange.wants_message() && self.body.room() == 0
    }
}

/// Octets of a chunk behind the BDAT that is still to be sent. Where they end the message, the last
/// of them, or the line itself if there is none, is the commit octet (rule F5).
fn chunk_to_backend<'a>(flight: &'a [u8], octets: &'a [u8], commits: bool) -> Outgoing<'a> {
    let (octets, end) = match (flight, octets) {
        (flight, []) if commits => (&[][..], flight),
        ([], [before @ .., _]) if commits => (before, &octets[before.len()..]),
        (flight, octets) if commits => (flight, octets),
        ([], octets) => (octets, &[][..]),
        (flight, _) => (flight, &[][..]),
    };
    Outgoing { octets, end }
}
