//! What the session and the prober tell the core about a backend.

use std::sync::Arc;
use std::time::Duration;

use crate::types::ClientKey;

/// How far an attempt or a probe had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the steps of SMTP-RULES H1")]
pub enum Stage {
    Connect,
    Identity,
    Greeting,
    Ehlo,
    Starttls,
    Mail,
    Rcpt,
    Data,
    /// Octets of a message, or a chunk that is not the last.
    Content,
    /// The end of a message: behind it is doubt.
    EndOfData,
    Quit,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// RST in answer to the SYN.
    Refused,
    /// No route, or the network is down.
    Unreachable,
    /// Not within the time allowed.
    Timeout,
    /// The connection ended without a word.
    Closed,
    /// The connection was reset.
    Reset,
    /// Not SMTP, or over a limit of the reply grammar.
    Garbage,
    /// A reply that means "not now": 4yz.
    Temporary,
    /// A reply that means "no": 5yz.
    Permanent,
    /// A hedge was faster.
    Silent,
    /// TLS could not be set up.
    Tls,
    /// The PROXY header is not understood there (SMTP-RULES X13).
    ProxyMismatch,
    /// We could not: no descriptor, no port, no permission.
    Local,
}

impl FailureKind {
    /// Every kind, in the order of [`FailureKind::index`].
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Closed,
        Self::Reset,
        Self::Garbage,
        Self::Temporary,
        Self::Permanent,
        Self::Silent,
        Self::Tls,
        Self::ProxyMismatch,
        Self::Local,
    ];

    /// Its place in tables of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Garbage => "garbage",
            Self::Temporary => "temporary",
            Self::Permanent => "permanent",
            Self::Silent => "silent",
            Self::Tls => "tls",
            Self::ProxyMismatch => "proxy-mismatch",
            Self::Local => "local",
        }
    }
}

impl Stage {
    /// Every stage, in the order of [`Stage::index`].
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Identity,
        Self::Greeting,
        Self::Ehlo,
        Self::Starttls,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Content,
        Self::EndOfData,
        Self::Quit,
    ];

    /// Its place in tables of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Identity => "identity",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Starttls => "starttls",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Content => "content",
            Self::EndOfData => "end-of-data",
            Self::Quit => "quit",
        }
    }
}

/// What one attempt of a session showed of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It connected and (where greetings are read) greeted with 220, `after` the dial.
    Greeted {
        /// From dial to the first valid line.
        after: Duration,
    },
    /// A connection to it has carried a transaction to its end, however the message was judged.
    Served,
    /// It failed by its own fault.
    Strike {
        /// How far the attempt had got.
        stage: Stage,
        /// Why.
        kind: FailureKind,
        /// The reply code, if there was a reply.
        code: Option<u16>,
        /// The reply's text or the error, shortened.
        text: Option<Arc<str>>,
        /// How long the attempt took.
        after: Duration,
    },
    /// It refused this client with 5yz and without policy words: a strike only once three distinct
    /// clients met it with no 220 in between (DESIGN §5).
    RefusedClient {
        /// The client.
        client: ClientKey,
        /// The code.
        code: u16,
        /// The text, shortened.
        text: Option<Arc<str>>,
    },
}

/// What one probe showed of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The last stage reached; for a good probe the last of its depth.
    pub stage: Stage,
    /// `None` is good.
    pub failure: Option<FailureKind>,
    /// The reply code that decided, if any.
    pub code: Option<u16>,
    /// The reply's text or the error, shortened.
    pub text: Option<Arc<str>>,
    /// How long the whole probe took.
    pub duration: Duration,
    /// From connect to the greeting, if there was one.
    pub greeting: Option<Duration>,
    /// The backend takes mail but says it is full (SMTP-RULES H4): degraded, never down.
    pub full: bool,
    /// EHLO keywords with their parameters, as announced.
    pub keywords: Arc<[Arc<str>]>,
    /// Days until its certificate ends, where TLS was reached.
    pub certificate_days: Option<i64>,
}
