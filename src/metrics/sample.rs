//! What a scrape shows, as plain values: filled by whoever can see the running process.
//!
//! Everything is already summed over threads. Names are configured names; nothing here is taken
//! from what a peer said.

use super::{SessionOutcome, TransactionOutcome};
use crate::balance::{FailureKind, KeptClosed, MoveCause, Stage};
use crate::types::HistogramTotals;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    /// Of the whole process.
    pub process: ProcessSample,
    /// One per listener that ever was.
    pub listeners: Vec<ListenerSample>,
    /// One per pool of this generation.
    pub pools: Vec<PoolSample>,
    /// One per address of each backend.
    pub backends: Vec<BackendSample>,
    /// One per data thread.
    pub workers: Vec<WorkerSample>,
}

/// The process, its configuration and its log.
#[derive(Clone, Debug, Default)]
pub struct ProcessSample {
    /// Whether it may be sent mail.
    pub ready: bool,
    /// Whether it is shutting down.
    pub draining: bool,
    /// Sessions now.
    pub sessions: u64,
    /// The most there may be.
    pub session_limit: u64,
    /// Open descriptors, if they could be counted.
    pub descriptors: Option<u64>,
    /// The descriptor limit.
    pub descriptor_limit: u64,
    /// Memory in octets, if known.
    pub resident_octets: Option<u64>,
    /// When it started, in seconds since 1970.
    pub started_at: f64,
    /// The generation in force.
    pub generation: u64,
    /// When the last reload was tried, in seconds since 1970, and whether it took effect.
    pub last_reload: Option<(u64, bool)>,
    /// Reloads that took effect, and those refused.
    pub reloads: (u64, u64),
    /// Good probes and bad ones.
    pub probes: (u64, u64),
    /// State changes of backends.
    pub state_changes: u64,
    /// Log lines dropped because the writer was behind.
    pub log_drops: u64,
    /// Events left out by the storm limit.
    pub log_suppressed: u64,
    /// Octets that copies of messages for replays take, and the most they may.
    pub replay_memory: Option<(u64, u64)>,
}

/// One listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerSample {
    /// The name.
    pub name: String,
    /// Accepted connections.
    pub accepted: u64,
    /// Sessions now.
    pub active: u64,
    /// Ended sessions, by [`SessionOutcome::index`].
    pub outcomes: [u64; SessionOutcome::ALL.len()],
    /// Replies of ours that refused something, by name; only those that happened.
    pub refusals: Vec<(&'static str, u64)>,
    /// Octets from clients to backends, and back.
    pub octets: Directions,
    /// Clients that talked before the greeting.
    pub early_talkers: u64,
    /// Replies to mistakes that were held back.
    pub tarpitted: u64,
    /// From accept to the first octet to the client.
    pub greeting: HistogramTotals,
    /// From dial to connected.
    pub connect: HistogramTotals,
    /// From accept to the end.
    pub session: HistogramTotals,
    /// Time in the queue, of those that waited.
    pub queue: HistogramTotals,
    /// Mail: of listeners in smtp mode, and of those that once were.
    pub mail: Option<Box<MailSample>>,
}

/// The mail of one listener.
#[derive(Clone, Debug, Default)]
pub struct MailSample {
    /// Ended transactions, by [`TransactionOutcome::index`].
    pub outcomes: [u64; TransactionOutcome::ALL.len()],
    /// Recipients accepted, and refused.
    pub recipients: (u64, u64),
    /// Octets of the messages that backends took.
    pub octets: u64,
    /// From MAIL to the 354.
    pub mail: HistogramTotals,
    /// From the end of the message to the reply.
    pub reply: HistogramTotals,
    /// From MAIL to the last reply.
    pub transaction: HistogramTotals,
}

/// Octets each way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Directions {
    /// From clients.
    pub to_backend: u64,
    /// From backends.
    pub to_client: u64,
}

/// One quota of one backend; all addresses of its name share it.
#[derive(Clone, Debug, Default)]
pub struct QuotaSample {
    /// The name of the backend.
    pub backend: String,
    /// What is counted.
    pub unit: &'static str,
    /// The length of the span, as the configuration writes it.
    pub window: String,
    /// How much is used.
    pub used: u64,
    /// How much it may be.
    pub limit: u64,
}

/// One pool.
#[derive(Clone, Debug, Default)]
pub struct PoolSample {
    /// The name.
    pub name: String,
    /// The quotas of its backends, and how much of them is used.
    pub quotas: Vec<QuotaSample>,
    /// Clients in the queue.
    pub waiting: u64,
    /// Clients the queue holds.
    pub queue_max: u64,
    /// Backends that can take a session now.
    pub usable: u64,
    /// Backends in this generation, by address.
    pub backends: u64,
    /// Configured names without an address.
    pub unresolved: u64,
    /// Whether no backend is healthy.
    pub all_down: bool,
    /// Whether a tier waits for the operator to let it close.
    pub failback_pending: bool,
    /// The last tier that is open.
    pub open_tier: u64,
}

/// One address of a backend.
#[derive(Clone, Debug, Default)]
pub struct BackendSample {
    /// The pool's name.
    pub pool: String,
    /// The backend's name.
    pub backend: String,
    /// The address.
    pub address: String,
    /// The one word for its state, one of [`STATES`].
    pub state: &'static str,
    /// The weight as balancing sees it now.
    pub weight: f64,
    /// Dials.
    pub attempts: u64,
    /// Sessions it greeted.
    pub sessions: u64,
    /// Hedges dialled here.
    pub hedges: u64,
    /// Changes of what it announces.
    pub drifts: u64,
    /// Failed attempts that were its fault; only those that happened.
    pub strikes: Vec<(Stage, FailureKind, u64)>,
    /// Open connections.
    pub open: u64,
    /// Sessions in flight.
    pub in_flight: u64,
    /// Octets each way.
    pub octets: Directions,
    /// Greetings: how many, and their time in seconds.
    pub greetings: (u64, f64),
    /// The last probe.
    pub probe: Option<ProbeSample>,
    /// Mail: where a listener in smtp mode leads here, or once did.
    pub mail: Option<Box<BackendMailSample>>,
}

/// The mail of one address of a backend.
#[derive(Clone, Debug, Default)]
pub struct BackendMailSample {
    /// Kept connections that wait for a transaction.
    pub idle: u64,
    /// Transactions that ended here.
    pub transactions: u64,
    /// Messages it took.
    pub accepted: u64,
    /// Messages in doubt.
    pub in_doubt: u64,
    /// Connections dialled for a transaction, and kept ones given to one.
    pub connections: (u64, u64),
    /// Kept connections that were closed; only the causes that happened.
    pub closed: Vec<(KeptClosed, u64)>,
    /// Transactions moved away; only the causes that happened.
    pub moves: Vec<(MoveCause, u64)>,
}

/// The last probe of a backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbeSample {
    /// Whether it was good.
    pub good: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Days until the certificate ends, where TLS was reached.
    pub certificate_days: Option<i64>,
}

/// One data thread.
#[derive(Clone, Debug, Default)]
pub struct WorkerSample {
    /// The index, as text.
    pub name: String,
    /// Sessions now.
    pub sessions: u64,
    /// Seconds since it last said that it is alive.
    pub heartbeat_age: f64,
    /// Loop turns over 20 ms.
    pub loop_stalls: u64,
    /// Log lines dropped because the writer was behind.
    pub log_drops: u64,
    /// Lines of sessions and transactions left out by the storm limit.
    pub log_suppressed: u64,
    /// accept(2) failures for want of descriptors or memory.
    pub accept_failures: u64,
    /// Sessions ended by a panic.
    pub panics: u64,
    /// Directions moved to splice.
    pub spliced: u64,
    /// Splice wanted and no pipe to be had.
    pub pipes_exhausted: u64,
    /// Connections that are refused, answered as monitors or in lingering close now.
    pub closing: u64,
    /// Connections of these kinds that were closed with their first words.
    pub closed_at_once: u64,
    /// Octets in spill buffers now.
    pub spilled_octets: u64,
    /// Sessions that waited in a queue.
    pub queued: u64,
    /// Attempts beyond the first one of a session.
    pub failovers: u64,
    /// Kept connections that wait for a transaction.
    pub kept_idle: u64,
    /// Connections that transactions hold.
    pub leased: u64,
    /// Transactions begun again because a backend was slow to answer MAIL.
    pub mail_hedges: u64,
    /// Messages not kept for a replay: longer than `replay_max`, `replay_memory` used up.
    pub not_replayable: (u64, u64),
    /// Messages that a backend answered before their end.
    pub early_replies: u64,
}

/// Every word for a backend's state: [`FULL`], and what `telemetry::state_name` gives.
pub const STATES: [&str; 8] = [
    "unknown", "up", "degraded", FULL, "down", "ejected", "drain", "maint",
];

/// The word for one that is in service and whose quota is used up.
pub const FULL: &str = "full";
