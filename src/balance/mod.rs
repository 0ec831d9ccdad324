//! The balancing core: pools, choosing, health, ejection, tiers, slow start, the queue, hedge
//! budgets and client limits. Deterministic: `now` and chance are arguments.
//!
//! It knows no clock, no socket, no runtime and no log. It is shared by threads: what every pick
//! reads are atomics; a change of state takes a short lock; no lock is held while anything waits.

mod admit;
mod backend;
mod cause;
mod choose;
mod handing;
mod health;
mod heap;
mod hedge;
mod member;
mod observation;
mod opening;
mod pick;
mod policy;
mod pool;
mod queue;
mod quota;
mod roll;
mod settings;
mod shared;
mod slot;
mod slow_start;
#[cfg(test)]
mod testing;
mod tiers;
mod view;
mod weights;

pub use admit::{AcceptRate, ClientLimits, ClientPermit, ClientRefusal, ClientRules};
pub use backend::BackendState;
pub use choose::{NoBackend, PickMode};
pub use handing::{Carried, Handed, Heir, Kind, Wish};
pub use health::{Cause, HealthState};
pub use hedge::HedgeVerdict;
pub use member::{Member, MemberSettings, Tried};
pub use observation::{FailureKind, Observation, ProbeReport, Stage};
pub use opening::{OPENING_TIME, OpeningPlace};
pub use pool::{Pool, PoolEvent, PoolView};
pub use queue::{Queued, Waiter};
pub use quota::{
    Epoch, Limited, QUOTA_FREE_PERCENT, QUOTA_NEAR_PERCENT, QUOTA_PERIOD_MAX, QUOTA_PERIOD_MIN,
    QUOTA_TOLD_PERIOD_MIN, Quota, QuotaLevel, QuotaRecord, QuotaUnit, QuotaUse, Quotas, Spent,
    UsedUp,
};
pub use roll::Absent;
pub use settings::{AdminState, Balance, Eject, Failback, Hedge, PoolSettings, WhenAllDown};
pub use shared::PoolShared;
pub use slot::{Parked, Slot};
pub use view::{
    BackendTotals, BackendView, KeptClosed, MailTotals, MoveCause, OperatorMark, StateChange,
    Totals,
};
