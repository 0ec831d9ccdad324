//! STUB: log lines and events.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{FailureKind, PoolEvent, Stage, StateChange};
use crate::config::model::Log;
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::types::SessionId;

/// One failed attempt of a session.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    pub backend: Arc<str>,
    pub stage: Stage,
    pub kind: FailureKind,
    pub code: Option<u16>,
    pub after: Duration,
}

/// Everything the one line of a session says.
#[derive(Debug)]
pub struct SessionRecord<'a> {
    pub id: SessionId,
    pub listener: &'a str,
    /// The true client: from the PROXY header where there is one.
    pub client: SocketAddr,
    /// The TCP peer, where it is not the client.
    pub via: Option<SocketAddr>,
    /// Pool, name and address of the backend that served (or refused) it.
    pub backend: Option<(&'a str, &'a str, SocketAddr)>,
    /// Dials, the good one included.
    pub attempts: u32,
    /// The failed ones.
    pub failures: &'a [AttemptRecord],
    pub hedged: bool,
    /// Time in the queue, if it waited.
    pub queue: Option<Duration>,
    pub connect: Option<Duration>,
    /// From accept to the first octet to the client.
    pub greeting: Option<Duration>,
    pub session: Duration,
    pub octets_to_backend: u64,
    pub octets_to_client: u64,
    pub ended_by: EndedBy,
    pub phase: SessionPhase,
    pub outcome: SessionOutcome,
    /// The reply we made ourselves, or the bad greeting we relayed.
    pub reply: Option<&'a str>,
}

/// Starts the writer thread and the `tracing` subscriber of this process. Once.
pub fn start(log: Log) -> Telemetry {
    todo!()
}

/// A telemetry that drops everything: tests, fuzzers.
pub fn silent() -> Telemetry {
    todo!()
}

/// The door to the log; cheap to clone, any thread.
#[derive(Clone, Debug)]
pub struct Telemetry {}

impl Telemetry {
    /// A worker's own bounded buffer. Not `Sync`; one per data thread.
    pub fn worker_log(&self) -> WorkerLog {
        todo!()
    }
    /// Applies a reloaded level, format and session switch (output needs a restart).
    pub fn apply(&self, log: Log) {
        todo!()
    }
    /// One `backend.state` event.
    pub fn state_change(&self, change: &StateChange) {
        todo!()
    }
    /// One event of a pool.
    pub fn pool_event(&self, event: &PoolEvent) {
        todo!()
    }
    /// Waits (at most `limit`) until everything handed in so far is written.
    pub fn flush(&self, limit: Duration) {
        todo!()
    }
    /// Lines dropped so far.
    pub fn drops(&self) -> u64 {
        todo!()
    }
}

/// A data thread's log: formats into its own buffer and hands over whole batches.
#[derive(Debug)]
pub struct WorkerLog {}

impl WorkerLog {
    /// Whether session lines are wanted: skip the work if not.
    pub fn wants_sessions(&self) -> bool {
        todo!()
    }
    /// One session's line. Never blocks; drops and counts when the writer is behind.
    pub fn session(&mut self, record: &SessionRecord<'_>) {
        todo!()
    }
    /// Hands over what is buffered; called when the loop goes idle and every 100 ms.
    pub fn flush(&mut self) {
        todo!()
    }
}

#[expect(dead_code, reason = "stub")]
fn keep(_: IpAddr) {}
