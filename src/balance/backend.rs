//! STUB: the state of one backend that outlives snapshots.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{AdminState, FailureKind, Observation, ProbeReport, Stage};
use crate::types::{Counter, Histogram, Shards, Weight};

/// State of a backend, keyed by (pool, name, address) in the registry; shared by all threads.
#[derive(Debug)]
pub struct BackendState {
    /// Counts by thread; index `workers` is the control thread's.
    pub totals: Shards<BackendTotals>,
}

/// Counts of one backend on one thread. All are monotonic.
#[derive(Debug, Default)]
pub struct BackendTotals {
    pub attempts: Counter,
    pub sessions: Counter,
    pub hedges: Counter,
    pub octets_to_backend: Counter,
    pub octets_to_client: Counter,
    pub strikes: [[Counter; 12]; 7],
    pub greeting: Histogram,
}

/// The sums of [`BackendTotals`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub attempts: u64,
    pub sessions: u64,
    pub hedges: u64,
    pub octets_to_backend: u64,
    pub octets_to_client: u64,
}

/// What we found of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// Not known yet: treated as up until the first probe says otherwise.
    Unknown,
    Up,
    /// Up, but says it is full or partly broken.
    Degraded,
    Down,
    Ejected,
}

/// Why a state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// probe | session | operator | timer | reload
    pub origin: &'static str,
    pub stage: Option<Stage>,
    pub kind: Option<FailureKind>,
    pub code: Option<u16>,
    pub text: Option<Arc<str>>,
    pub duration: Option<Duration>,
    /// Who, for the operator's changes.
    pub who: Option<Arc<str>>,
}

/// A change of state, to be logged and counted by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub pool: Arc<str>,
    pub backend: Arc<str>,
    pub address: std::net::SocketAddr,
    pub from: (AdminState, HealthState),
    pub to: (AdminState, HealthState),
    pub cause: Cause,
}

/// A copy of the state for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    pub admin: AdminState,
    pub health: HealthState,
    pub cause: Cause,
    /// When this state began.
    pub since: Instant,
    pub ejected_until: Option<Instant>,
    pub ejections: u32,
    pub consecutive_strikes: u32,
    pub open: u32,
    pub in_flight: u32,
    /// Weight as balancing sees it now, in 1/256 of a unit (slow start).
    pub effective_weight_256: u32,
    /// The operator's weight, if set at run time.
    pub weight_override: Option<Weight>,
    pub last_probe: Option<(Instant, ProbeReport)>,
    pub usual_greeting: Option<Duration>,
}

impl BackendState {
    /// `shards` is workers + 1.
    pub fn new(
        pool: Arc<str>,
        name: Arc<str>,
        address: std::net::SocketAddr,
        admin: AdminState,
        shards: usize,
        now: Instant,
    ) -> Arc<Self> {
        todo!()
    }
    pub fn open(&self) -> u32 {
        todo!()
    }
    pub fn in_flight(&self) -> u32 {
        todo!()
    }
    /// A session's observation. Cheap for `Greeted` on a healthy backend (no lock).
    pub fn observe(&self, observation: Observation, now: Instant) -> Option<StateChange> {
        todo!()
    }
    pub fn probed(&self, report: ProbeReport, now: Instant) -> Option<StateChange> {
        todo!()
    }
    pub fn set_admin(&self, state: AdminState, who: Arc<str>, now: Instant) -> Option<StateChange> {
        todo!()
    }
    /// `None` returns to the configured weight.
    pub fn set_weight(&self, weight: Option<Weight>, who: Arc<str>, now: Instant) {
        todo!()
    }
    /// The usual time to greet (an average that decays), for the hedge rule; `None` before the
    /// first greeting.
    pub fn usual_greeting(&self) -> Option<Duration> {
        todo!()
    }
    /// Whether any session was greeted at or after `since` (coarse: 10 ms).
    pub fn greeted_since(&self, since: Instant) -> bool {
        todo!()
    }
    /// Whether the next probe should come after the fast interval.
    pub fn is_changing(&self) -> bool {
        todo!()
    }
    /// When a clean live session was last greeted: it postpones the next probe.
    pub fn last_greeted(&self) -> Option<Instant> {
        todo!()
    }
    pub fn view(&self, now: Instant) -> BackendView {
        todo!()
    }
}
