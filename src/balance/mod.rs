//! The balancing core: pools, choosing, health, ejection, tiers, slow start, the queue, hedge
//! budgets and client limits. Deterministic: `now` and chance are arguments.
//!
//! It knows no clock, no socket, no runtime and no log. It is shared by threads: what every pick
//! reads are atomics; a change of state takes a short lock; no lock is held while anything waits.

mod admit;
mod backend;
mod observation;
mod pool;
mod settings;

pub use admit::{AcceptRate, ClientLimits, ClientPermit, ClientRefusal, ClientRules};
pub use backend::{
    BackendState, BackendTotals, BackendView, Cause, HealthState, StateChange, Totals,
};
pub use observation::{FailureKind, Observation, ProbeReport, Stage};
pub use pool::{
    HedgeVerdict, Member, MemberSettings, NoBackend, PickMode, Pool, PoolEvent, PoolShared,
    PoolView, Queued, Slot, Tried, Waiter,
};
pub use settings::{AdminState, Balance, Eject, Failback, Hedge, PoolSettings, WhenAllDown};
