//! What the log is told of a transaction that has ended (rules F7, M6).
//!
//! It is the transaction itself, taken out of the session: nothing is copied for it, and what is
//! asked for is computed then. While it lives it holds the memory of its message.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};

use super::super::body::BodyDigest;
use super::super::command::HelloName;
use super::super::exchange::{Exchange, Verb};
use super::super::path::Path;
use super::super::quirks::ClientQuirks;
use super::super::reply::ReplyCode;
use super::transaction::Transaction;

/// As much of the last reply as is kept, in octets.
const REPLY_KEPT_MAX: usize = 1_024;

/// When the steps of a transaction were done, and what was said last.
#[derive(Debug)]
pub(super) struct Trace {
    /// MAIL was said.
    began: Instant,
    /// The client was asked for its message, or began to send it by BDAT.
    content: Option<Instant>,
    /// It has ended its message.
    complete: Option<Instant>,
    /// The reply to that was made.
    replied: Option<Instant>,
    reply: Vec<u8>,
    /// The first reply was a refusal: that is what the transaction has come to, whatever follows.
    is_refused: bool,
    /// RCPT that we refused ourselves.
    pub(super) refused_here: u32,
    /// Connections it had.
    leases: u32,
}

impl Trace {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            content: None,
            complete: None,
            replied: None,
            reply: Vec::new(),
            is_refused: false,
            refused_here: 0,
            leases: 0,
        }
    }

    pub(super) fn leased(&mut self) {
        self.leases += 1;
    }

    /// How far it has come, seen now.
    pub(super) fn look(&mut self, exchange: &Exchange, now: Instant) {
        if self.content.is_none() && exchange.has_content() {
            self.content = Some(now);
        }
        if self.complete.is_none() && exchange.is_complete() {
            self.complete = Some(now);
        }
    }

    /// The client was told this.
    pub(super) fn answered(&mut self, code: ReplyCode, octets: &[u8], now: Instant) {
        if self.is_refused {
            return;
        }
        if self.complete.is_some() {
            self.replied = Some(now);
        }
        self.is_refused = self.reply.is_empty() && code.class() >= 4;
        self.reply.clear();
        let kept = octets.len().min(REPLY_KEPT_MAX);
        self.reply.extend_from_slice(&octets[..kept]);
    }
}

/// A transaction that has ended.
#[derive(Debug)]
pub struct TransactionFacts(pub(super) Box<Transaction>);

impl TransactionFacts {
    /// The name the client gave in EHLO or HELO.
    pub fn hello(&self) -> HelloName<'_> {
        HelloName::of(&self.0.hello)
    }

    /// Octets of the message that have come, as SIZE counts them.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Recipients that were accepted.
    pub fn recipients_accepted(&self) -> u32 {
        self.0.exchange.recipients_accepted().count() as u32
    }

    /// Recipients that were refused, by a backend or by us.
    pub fn recipients_refused(&self) -> u32 {
        self.0.exchange.recipients_refused() + self.0.trace.refused_here
    }

    /// Connections it had, kept ones that were dead included.
    pub fn leases(&self) -> u32 {
        self.0.trace.leases
    }

    /// How often it has moved to another backend.
    pub fn moves(&self) -> u8 {
        self.0.exchange.moves()
    }

    /// Whether it was said again while it was in doubt (rule F7).
    pub fn is_doubted(&self) -> bool {
        self.0.exchange.is_doubted()
    }

    /// From MAIL to the 354, or to the first BDAT.
    pub fn mail_time(&self) -> Option<Duration> {
        let trace = &self.0.trace;
        let content = trace.content?;
        Some(content.saturating_duration_since(trace.began))
    }

    /// From there to the end of the message.
    pub fn body_time(&self) -> Option<Duration> {
        let (content, complete) = (self.0.trace.content?, self.0.trace.complete?);
        Some(complete.saturating_duration_since(content))
    }

    /// From there to the reply.
    pub fn reply_time(&self) -> Option<Duration> {
        let (complete, replied) = (self.0.trace.complete?, self.0.trace.replied?);
        Some(replied.saturating_duration_since(complete))
    }

    /// Whether the client had left before it was over.
    pub fn is_deserted(&self) -> bool {
        self.0.exchange.is_deserted()
    }

    /// Whether the backend's acceptance of the message broke off before its end.
    pub fn is_truncated(&self) -> bool {
        self.0.exchange.is_truncated()
    }

    /// What the client was told: the refusal of MAIL, or else the last reply; as it was sent, at
    /// most 1,024 octets of it (rule M6).
    pub fn reply(&self) -> Option<&[u8]> {
        let reply = &self.0.trace.reply[..];
        (!reply.is_empty()).then_some(reply)
    }

    /// Whether the message was refused by us: its size, its line ends.
    pub fn is_refused_here(&self) -> bool {
        self.0.exchange.is_refused_here()
    }

    /// The reverse-path without its brackets; empty for a bounce. For logs that may hold addresses.
    pub fn sender(&self) -> &[u8] {
        address(self.0.exchange.mail_line())
    }

    /// The forward-paths that were accepted, likewise.
    pub fn recipients(&self) -> impl Iterator<Item = &[u8]> {
        self.0.exchange.recipients_accepted().map(address)
    }

    /// The first 128 bits of the SHA-256 of sender and accepted recipients, each with its CRLF as
    /// it was said to the backend.
    pub fn envelope(&self) -> [u8; 16] {
        let mut context = Context::new(&SHA256);
        let exchange = &self.0.exchange;
        context.update(exchange.mail_line());
        exchange
            .recipients_accepted()
            .for_each(|line| context.update(line));
        let digest = context.finish();
        let first = digest.as_ref().first_chunk();
        *first.expect("SHA-256 has 32 octets")
    }

    /// Digests at most `octets_max` more octets of the message as it was passed on; the digest once
    /// that is done, `None` if it is to be asked again.
    pub fn digest(&mut self, octets_max: usize) -> Option<BodyDigest> {
        self.0.body.digest(octets_max)
    }
}

/// What stands between the brackets of MAIL or RCPT, in a line of ours.
fn address(line: &[u8]) -> &[u8] {
    let start = if line.starts_with(Verb::MAIL_FROM) {
        Verb::MAIL_FROM.len()
    } else {
        Verb::RCPT_TO.len()
    };
    let path = line.get(start..).unwrap_or_default();
    Path::read(path, ClientQuirks::Reject).map_or(&[], |(path, _)| path.address())
}
