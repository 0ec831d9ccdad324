//! What a session keeps while a transaction is open: the exchange with its backends and the copy of
//! the message. Without one, a session is small.

use std::sync::Arc;
use std::time::Instant;

use super::super::body::MessageBody;
use super::super::data::DataScanner;
use super::super::exchange::Exchange;
use super::super::parameters::{MailTerms, Needed, Smtputf8};
use super::super::replay_memory::ReplayMemory;
use super::Outgoing;

/// The end of a message.
const END_OF_DATA: &[u8] = b".\r\n";

/// An open transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) exchange: Exchange,
    pub(super) smtputf8: Smtputf8,
    pub(super) needed: Needed,
    pub(super) scanner: Option<DataScanner>,
    pub(super) body: MessageBody,
    /// Octets of the end of the message that have been written.
    end_sent: usize,
}

impl Transaction {
    /// Before MAIL is passed on; of at most `replay_max` octets of its message a copy is kept.
    pub(super) fn new(terms: &MailTerms, memory: &Arc<ReplayMemory>, replay_max: u64) -> Self {
        Self {
            exchange: Exchange::default(),
            smtputf8: terms.smtputf8,
            needed: terms.needed,
            scanner: None,
            body: MessageBody::new(memory, replay_max),
            end_sent: 0,
        }
    }

    /// What is to be written to the backend.
    pub(super) fn to_backend(&self) -> Outgoing<'_> {
        let flight = self.exchange.flight();
        if !flight.is_empty() || !self.exchange.wants_content() {
            return Outgoing {
                octets: flight,
                end: &[],
            };
        }
        let octets = self.body.unsent();
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
        if !self.exchange.flight().is_empty() {
            self.exchange.flown(octets);
            return;
        }
        let content = octets.min(self.body.unsent().len());
        self.body.advance(content);
        self.end_sent += octets - content;
        debug_assert!(self.end_sent <= END_OF_DATA.len());
        self.exchange.moved(now);
        if self.end_sent == END_OF_DATA.len() {
            self.end_sent = 0;
            self.exchange.committed(now);
        }
    }

    /// The message is said from its beginning, to another backend. One that has no copy does not
    /// move.
    pub(super) fn rewind(&mut self) {
        self.end_sent = 0;
        let _ = self.body.rewind();
    }

    /// Whether the client's message must wait for the backend to take some of it.
    pub(super) fn is_full(&self) -> bool {
        let exchange = &self.exchange;
        exchange.is_content() && !exchange.is_over() && self.body.room() == 0
    }
}
