//! What a probe is told, what it asks of its driver, and what it finds (rules H1–H4).
//!
//! The words only; the machine is [`Conversation`](super::Conversation).

use std::time::Duration;

/// How far and in whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// 0 connect, 1 banner, 2 ehlo, 3 starttls, 4 mail (the order of `config::model::Depth`).
    ///
    /// At 3 a backend must announce STARTTLS; at 4 it is used where it is announced.
    pub depth: u8,
    /// Our name in EHLO.
    pub ehlo_name: String,
    /// Who is asked for at depth 4; without one RCPT is left out.
    pub recipient: Option<String>,
    /// How long the whole greeting may take. postscreen waits 6 s before its last line.
    pub greeting_timeout: Duration,
    /// How long any other step may take.
    pub timeout: Duration,
    /// The driver sends a PROXY header in front of this conversation (X13 detection).
    pub proxied: bool,
}

/// What happened, told by the driver.
#[derive(Debug, PartialEq, Eq)]
pub enum ProbeInput<'a> {
    /// TCP is connected, and the PROXY header, if any, is written.
    Connected,
    /// Octets came, in clear text or out of TLS.
    Octets(&'a [u8]),
    /// The TLS handshake succeeded.
    TlsDone,
    /// The TLS handshake failed.
    TlsFailed,
    /// The backend ended the connection.
    Closed,
    /// The connection was reset, or could not be made.
    Reset,
    /// The time limit of the last output passed.
    TimedOut,
}

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum ProbeOutput {
    /// Send these octets in one write (may be empty), then wait for a reply at most this long.
    Exchange {
        /// One command, or nothing in front of the greeting.
        send: Vec<u8>,
        /// The time limit of the reply, from the write on.
        wait: Duration,
    },
    /// Wait for more octets; the limit of the last `Exchange` goes on.
    More,
    /// Do a TLS handshake now, within `wait`.
    StartTls {
        /// The time limit of the handshake.
        wait: Duration,
    },
    /// Close; the result is final.
    Done(ProbeEnd),
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEnd {
    /// The last stage reached; of a good probe the last of its depth.
    pub stage: ProbeStage,
    /// `None` is good.
    pub failure: Option<ProbeFailure>,
    /// The reply code that decided, if there was a reply.
    pub code: Option<u16>,
    /// Its text or the reason, printable, at most 200 characters.
    pub text: Option<String>,
    /// It works but says that it is full (rule H4): degraded, never down.
    pub full: bool,
    /// The first line of a 220 greeting, printable, at most 200 characters.
    pub greeting_text: Option<String>,
    /// EHLO keywords with their parameters, as last announced: at most 127 of 200 characters.
    pub keywords: Vec<String>,
    /// What became of RCPT to a foreign domain, where it was asked for and answered (rule D11).
    pub relay: Option<RelayTest>,
}

/// The answer to RCPT for a domain that is not the backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayTest {
    /// 2yz: whoever can connect from here can relay anywhere, and through us so can everybody.
    Accepted,
    /// 4yz or 5yz.
    Refused,
}

/// The same steps as `balance::Stage` (the cores do not know each other).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the steps of rule H1")]
pub enum ProbeStage {
    Connect,
    Identity,
    Greeting,
    Ehlo,
    Starttls,
    Mail,
    Quit,
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Down: no answer in time.
    Timeout,
    /// Down: the connection ended without a reply.
    Closed,
    /// Down: the connection was reset.
    Reset,
    /// Down: not SMTP, or more replies than commands.
    Garbage,
    /// Refusing: 4yz.
    Temporary,
    /// Refusing: 5yz.
    Permanent,
    /// Misconfigured: no STARTTLS, or its handshake failed.
    Tls,
    /// Misconfigured: a PROXY header is sent where none is understood, or the reverse (rule X13).
    ProxyMismatch,
}
