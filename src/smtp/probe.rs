//! STUB: the probe's conversation (rules H1–H7), without I/O.
//!
//! Contract: the driver calls [`Conversation::handle`] with what happened and does what the output
//! says, until `Done`. The driver owns the clock: each `Send`/`Expect` output names its time limit.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::time::Duration;

/// How far and in whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// 0 connect, 1 banner, 2 ehlo, 3 starttls, 4 mail (the order of `config::model::Depth`).
    pub depth: u8,
    pub ehlo_name: String,
    pub recipient: Option<String>,
    pub greeting_timeout: Duration,
    pub timeout: Duration,
    /// We send a PROXY header in front of this conversation (X13 detection).
    pub proxied: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ProbeInput<'a> {
    Connected,
    Octets(&'a [u8]),
    TlsDone,
    TlsFailed,
    Closed,
    Reset,
    TimedOut,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ProbeOutput {
    /// Send these octets in one write (may be empty), then wait for a reply at most this long.
    Exchange { send: Vec<u8>, wait: Duration },
    /// Wait for more octets; the limit of the last `Exchange` goes on.
    More,
    /// Do a TLS handshake now, within `wait`.
    StartTls { wait: Duration },
    /// Close; the result is final.
    Done(ProbeEnd),
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEnd {
    pub stage: ProbeStage,
    pub failure: Option<ProbeFailure>,
    pub code: Option<u16>,
    pub text: Option<String>,
    pub full: bool,
    pub greeting_text: Option<String>,
    pub keywords: Vec<String>,
}

/// The same steps as `balance::Stage` (the cores do not know each other).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStage {
    Connect,
    Identity,
    Greeting,
    Ehlo,
    Starttls,
    Mail,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    Timeout,
    Closed,
    Reset,
    Garbage,
    Temporary,
    Permanent,
    Tls,
    ProxyMismatch,
}

#[derive(Debug)]
pub struct Conversation {}

impl Conversation {
    pub fn new(plan: ProbePlan) -> Self {
        todo!()
    }
    pub fn handle(&mut self, input: ProbeInput<'_>) -> ProbeOutput {
        todo!()
    }
}
