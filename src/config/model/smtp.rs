//! What mode "smtp" adds to a listener, a pool and a backend.
//!
//! Times are bounds on one wait each, never on a session (rule K2).

use std::time::Duration;

use crate::smtp::{ClientQuirks, Keywords, LineEndings, Words};

/// A mebibyte, in octets.
const MIB: u64 = 1 << 20;

/// Clients count on so many recipients of one transaction (RFC 5321 §4.5.3.1.8): where fewer are
/// taken, EHLO says so (RFC 9422).
pub const RECIPIENTS_EXPECTED: u32 = 100;

/// What a listener in mode "smtp" does towards its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSmtp {
    /// Whether habits of clients are taken that RFC 5321 does not allow (rules G12, G13).
    pub client_quirks: ClientQuirks,
    /// What is done about bare CR and LF in messages (rules D4, D5).
    pub line_endings: LineEndings,
    /// The largest message, in octets; 0 is no limit of our own (rule D10).
    pub max_message_size: u64,
    /// Recipients of one transaction; one more is answered 452 (rule S5). Fewer than
    /// [`RECIPIENTS_EXPECTED`] are announced whatever `announce` says.
    pub max_recipients: u32,
    /// How long the next command may take (RFC 5321 §4.5.3.2.7: 5 minutes at least).
    pub command_timeout: Duration,
    /// How long the next octets of a message may take.
    pub data_timeout: Duration,
    /// How long the greeting is held back; octets that come meanwhile are what `early_talker` is
    /// about (rule S14). Zero greets at once.
    pub greet_delay: Duration,
    /// How long each further mistake is held back once half of the error points are spent (rule
    /// B5). Zero holds nothing back.
    pub tarpit: Duration,
    /// The extensions that are announced; `None` is what all backends have (rule E3).
    pub announce: Option<Keywords>,
    /// Octets of one message that are kept for a replay (rule F1); 0 keeps none.
    pub replay_max: u64,
    /// Whether a message in doubt is sent again (rule F7).
    pub replay_in_doubt: bool,
    /// Whether we answer DATA ourselves, before a backend has (rule F9).
    pub buffer_first: bool,
    /// Our replies in the operator's words (rule R2); `{hostname}` is already put in.
    pub replies: Words,
}

impl Default for ListenerSmtp {
    fn default() -> Self {
        Self {
            client_quirks: ClientQuirks::Accept,
            line_endings: LineEndings::Normalize,
            max_message_size: 0,
            max_recipients: 1_000,
            command_timeout: Duration::from_mins(5),
            data_timeout: Duration::from_mins(3),
            greet_delay: Duration::ZERO,
            tarpit: Duration::ZERO,
            announce: None,
            replay_max: 32 * MIB,
            replay_in_doubt: false,
            buffer_first: false,
            replies: Words::default(),
        }
    }
}

/// Which transactions go to the same backend while it can take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// Each is balanced by itself.
    None,
    /// Those of one session.
    Session,
    /// Those of one client (IPv4 /32, IPv6 /64).
    Source,
}

/// How a pool keeps connections to its backends, and how long it waits for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSmtp {
    /// Which transactions go to the same backend.
    pub sticky: Sticky,
    /// A kept-alive connection unused for so long is closed (rule N4).
    pub idle_timeout: Duration,
    /// A connection so old carries no further transaction (rule N4).
    pub max_age: Duration,
    /// Messages of one connection (rule N4); 1 is no reuse.
    pub max_messages: u32,
    /// Idle connections kept per backend, by all workers together (rule N5); 0 is none.
    pub max_idle: u32,
    /// Connections to one backend that are opened at a time (rule N6).
    pub max_opening: u32,
    /// Idle connections kept ready per backend, by all workers together; at most `max_idle`.
    pub min_idle: u32,
    /// How long the reply to EHLO, MAIL, RCPT or RSET may take (rule K1).
    pub reply_timeout: Duration,
    /// How long the reply to DATA may take (rule K1).
    pub data_timeout: Duration,
    /// How long a backend may take to accept the next octets of a message (rule K1).
    pub block_timeout: Duration,
    /// How long the reply to the end of a message may take (rule K1).
    pub final_timeout: Duration,
}

impl Default for PoolSmtp {
    fn default() -> Self {
        Self {
            sticky: Sticky::None,
            idle_timeout: Duration::from_secs(10),
            max_age: Duration::from_mins(5),
            max_messages: 100,
            max_idle: 12,
            max_opening: 4,
            min_idle: 0,
            reply_timeout: Duration::from_secs(295),
            data_timeout: Duration::from_secs(115),
            block_timeout: Duration::from_mins(3),
            final_timeout: Duration::from_secs(595),
        }
    }
}
