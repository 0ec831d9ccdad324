//! The counters themselves: by listener, by worker, of the control thread.

use crate::smtp::{OwnReply, ReplayLoss};
use crate::types::{Counter, Histogram};

/// How a connection ended. Every accepted one has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionOutcome {
    /// Relayed until both sides had ended in order; in smtp mode the client said QUIT or ended, and
    /// it was not [refused by us](Self::RefusedByUs).
    Completed,
    /// Relayed, then the client reset.
    ClientReset,
    /// Relayed, then the backend reset.
    BackendReset,
    /// No octet for the idle timeout, or in smtp mode no command or message in time.
    IdleTimeout,
    /// Relayed; one direction had ended and the other did not within the half-close timeout.
    HalfCloseTimeout,
    /// The client left before a backend had greeted.
    Abandoned,
    /// A bad greeting was relayed as the verdict about this client.
    Refused,
    /// In smtp mode: the client said QUIT or ended, we had refused it something with a reply of ours
    /// (4yz or 5yz), and no message of it was accepted.
    RefusedByUs,
    /// No backend could take it: our 421.
    NoBackend,
    /// It waited too long in the queue: our 421.
    QueueTimeout,
    /// Denied by `allow` or `deny`: our 554.
    Denied,
    /// A limit on this client: our 421.
    ClientLimit,
    /// A limit of the listener or the process, or the accept rate: our 421.
    GlobalLimit,
    /// It came on a `proxy_protocol = "required"` listener without a trusted, valid header.
    ProxyHeader,
    /// It talked before the greeting: our 554.
    EarlyTalker,
    /// A monitor's check, answered locally.
    Monitor,
    /// It broke the protocol, or was refused too often: our last reply said so.
    ClientErrors,
    /// It came while we shut down, or was told to go then: our 421.
    ShuttingDown,
    /// Cut by a drain or shutdown deadline.
    Cut,
    /// A fault of ours on one session.
    Failed,
}

impl SessionOutcome {
    /// Every outcome, in the order of [`SessionOutcome::index`].
    pub const ALL: [Self; 20] = [
        Self::Completed,
        Self::ClientReset,
        Self::BackendReset,
        Self::IdleTimeout,
        Self::HalfCloseTimeout,
        Self::Abandoned,
        Self::Refused,
        Self::RefusedByUs,
        Self::NoBackend,
        Self::QueueTimeout,
        Self::Denied,
        Self::ClientLimit,
        Self::GlobalLimit,
        Self::ProxyHeader,
        Self::EarlyTalker,
        Self::Monitor,
        Self::ClientErrors,
        Self::ShuttingDown,
        Self::Cut,
        Self::Failed,
    ];

    /// Its place in tables of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether a connection that ended so was turned away before it became a session.
    pub fn is_turned_away(self) -> bool {
        match self {
            Self::Denied
            | Self::ClientLimit
            | Self::GlobalLimit
            | Self::ProxyHeader
            | Self::Monitor => true,
            Self::Completed
            | Self::RefusedByUs
            | Self::ClientReset
            | Self::BackendReset
            | Self::IdleTimeout
            | Self::HalfCloseTimeout
            | Self::Abandoned
            | Self::Refused
            | Self::NoBackend
            | Self::QueueTimeout
            | Self::EarlyTalker
            | Self::ClientErrors
            | Self::ShuttingDown
            | Self::Cut
            | Self::Failed => false,
        }
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientReset => "client-reset",
            Self::BackendReset => "backend-reset",
            Self::IdleTimeout => "idle-timeout",
            Self::HalfCloseTimeout => "half-close-timeout",
            Self::Abandoned => "abandoned",
            Self::Refused => "refused",
            Self::RefusedByUs => "refused-by-us",
            Self::NoBackend => "no-backend",
            Self::QueueTimeout => "queue-timeout",
            Self::Denied => "denied",
            Self::ClientLimit => "client-limit",
            Self::GlobalLimit => "global-limit",
            Self::ProxyHeader => "proxy-header",
            Self::EarlyTalker => "early-talker",
            Self::Monitor => "monitor",
            Self::ClientErrors => "client-errors",
            Self::ShuttingDown => "shutting-down",
            Self::Cut => "cut",
            Self::Failed => "failed",
        }
    }
}

/// How a transaction (MAIL to the answer of its end) ended. Every MAIL that we took up has exactly
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionOutcome {
    /// A backend has taken responsibility for the message.
    Accepted,
    /// A backend refused MAIL, every recipient or the message.
    Refused,
    /// We refused it: a limit of ours, line endings, an error of the client.
    RefusedByUs,
    /// The client took it back (RSET, EHLO, QUIT) or left before its end.
    Abandoned,
    /// No backend could take it: our 4yz.
    NoBackend,
    /// Backends failed it, and it could be moved to no other: our 4yz.
    Failed,
    /// The end was sent and no reply came: it may have been taken (rule F3), our 451.
    InDoubt,
    /// Cut by a drain or shutdown deadline, or by a fault of ours.
    Cut,
}

impl TransactionOutcome {
    /// Every outcome, in the order of [`TransactionOutcome::index`].
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::Refused,
        Self::RefusedByUs,
        Self::Abandoned,
        Self::NoBackend,
        Self::Failed,
        Self::InDoubt,
        Self::Cut,
    ];

    /// Its place in tables of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::RefusedByUs => "refused-by-us",
            Self::Abandoned => "abandoned",
            Self::NoBackend => "no-backend",
            Self::Failed => "failed",
            Self::InDoubt => "in-doubt",
            Self::Cut => "cut",
        }
    }
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum EndedBy {
    Client,
    Backend,
    Us,
}

impl EndedBy {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Us => "us",
        }
    }
}

/// In which phase a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum SessionPhase {
    Admission,
    ProxyHeader,
    Queue,
    Connect,
    Greeting,
    Relay,
    Closing,
}

impl SessionPhase {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::ProxyHeader => "proxy-header",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Relay => "relay",
            Self::Closing => "closing",
        }
    }
}

/// Counts of one listener on one worker.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Accepted connections.
    pub accepted: Counter,
    /// Ended connections by outcome, those that never were sessions included; monotonic.
    pub outcomes: [Counter; SessionOutcome::ALL.len()],
    /// Replies of ours that refused something, by [`OwnReply::index`]; monotonic.
    pub refusals: RefusalCounters,
    /// Octets from clients to backends.
    pub octets_to_backend: Counter,
    /// Octets from backends to clients.
    pub octets_to_client: Counter,
    /// Clients that talked before the greeting.
    pub early_talkers: Counter,
    /// Replies to mistakes that were held back (rule B5).
    pub tarpitted: Counter,
    /// From accept to the first octet to the client.
    pub greeting: Histogram,
    /// From dial to connected.
    pub connect: Histogram,
    /// From accept to the end, of sessions alone.
    pub session: Histogram,
    /// Time in the queue, of those that waited.
    pub queue: Histogram,
    /// Mail, in smtp mode.
    pub mail: MailCounters,
}

/// Counts of replies of ours, by [`OwnReply::index`].
#[derive(Debug)]
pub struct RefusalCounters([Counter; OwnReply::ALL.len()]);

impl Default for RefusalCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl std::ops::Index<usize> for RefusalCounters {
    type Output = Counter;

    fn index(&self, reply: usize) -> &Counter {
        &self.0[reply]
    }
}

/// Counts of the mail of one listener in smtp mode on one worker.
#[derive(Debug, Default)]
pub struct MailCounters {
    /// Ended transactions by [`TransactionOutcome::index`]; monotonic.
    pub outcomes: [Counter; TransactionOutcome::ALL.len()],
    /// Recipients that backends took.
    pub recipients_accepted: Counter,
    /// Recipients that were refused, by a backend or by us.
    pub recipients_refused: Counter,
    /// Octets of the messages that backends took.
    pub octets: Counter,
    /// From MAIL to the 354.
    pub mail: Histogram,
    /// From the end of the message to the reply.
    pub reply: Histogram,
    /// From MAIL to the last reply.
    pub transaction: Histogram,
}

/// The sums of [`ListenerCounters`] that are read often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTotals {
    /// Accepted connections.
    pub accepted: u64,
    /// Sessions now.
    pub active: u64,
}

/// Counts of one worker.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Sessions now (gauge).
    pub sessions: Counter,
    /// Microseconds on the monotonic clock, since the process began, of the last heartbeat.
    pub heartbeat_micros: Counter,
    /// Loop turns that took longer than 20 ms.
    pub loop_stalls: Counter,
    /// Log lines dropped because the writer was behind.
    pub log_drops: Counter,
    /// Log lines of sessions and transactions left out by the storm limit.
    pub log_suppressed: Counter,
    /// accept(2) failed for want of descriptors or memory.
    pub accept_failures: Counter,
    /// Sessions ended by a panic.
    pub panics: Counter,
    /// Directions that were moved to splice.
    pub spliced: Counter,
    /// Splice wanted and no pipe was to be had.
    pub pipes_exhausted: Counter,
    /// Connections that are refused, answered as monitors or in lingering close now (gauge): none
    /// of them counts as a session.
    pub closing: Counter,
    /// Connections of these kinds that found no place and were closed with their first words.
    pub closed_at_once: Counter,
    /// Spill buffers in use now (gauge), in octets.
    pub spilled_octets: Counter,
    /// Sessions that waited in a queue.
    pub queued: Counter,
    /// Attempts beyond the first one of a session.
    pub failovers: Counter,
    /// Kept connections to backends that wait for a transaction, now (gauge).
    pub kept_idle: Counter,
    /// Connections to backends that transactions hold now (gauge).
    pub leased: Counter,
    /// Transactions begun again on another backend because the first was slow to answer MAIL.
    pub mail_hedges: Counter,
    /// Messages that could not be kept for a replay: longer than `replay_max`.
    pub not_replayable_limit: Counter,
    /// Messages that could not be kept for a replay: `replay_memory` was used up.
    pub not_replayable_memory: Counter,
    /// Messages that a backend answered before their end (rule D7).
    pub early_replies: Counter,
}

impl WorkerCounters {
    /// Counts a message that streams on and cannot be replayed.
    pub fn not_replayable(&self, loss: ReplayLoss) {
        match loss {
            ReplayLoss::MessageLimit => self.not_replayable_limit.inc(),
            ReplayLoss::MemoryFull => self.not_replayable_memory.inc(),
        }
    }
}

/// Counts of the control thread.
#[derive(Debug, Default)]
pub struct ControlCounters {
    /// Reloads that took effect.
    pub reloads: Counter,
    /// Reloads refused for mistakes.
    pub reload_failures: Counter,
    /// Good probes.
    pub probes_good: Counter,
    /// Bad probes.
    pub probes_bad: Counter,
    /// State changes of backends.
    pub state_changes: Counter,
}
