//! What others read of a backend: counts by thread, a change to be logged, a copy for the status
//! page. Plain data; the rules are elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{AdminState, Cause, FailureKind, HealthState, ProbeReport, Stage};
use crate::types::{Counter, Histogram, Weight};

/// Counts of one backend on one thread. All are monotonic.
#[derive(Debug, Default)]
pub struct BackendTotals {
    /// Dials, hedges included.
    pub attempts: Counter,
    /// Sessions that were committed to it.
    pub sessions: Counter,
    /// Dials that were hedges.
    pub hedges: Counter,
    /// Octets from clients.
    pub octets_to_backend: Counter,
    /// Octets to clients.
    pub octets_to_client: Counter,
    /// Failed attempts by [`Stage::index`](super::Stage::index) and [`FailureKind::index`](super::FailureKind::index).
    pub strikes: [[Counter; FailureKind::ALL.len()]; Stage::ALL.len()],
    /// Times from dial to greeting.
    pub greeting: Histogram,
    /// Of listeners in smtp mode.
    pub mail: MailTotals,
}

/// Counts of the mail that one backend got on one thread. All but `idle` are monotonic.
#[derive(Debug, Default)]
pub struct MailTotals {
    /// Kept connections that wait for a transaction (gauge).
    pub idle: Counter,
    /// Transactions that ended here.
    pub transactions: Counter,
    /// Messages it took.
    pub accepted: Counter,
    /// Messages it was sent whole and gave no answer to (rule F3).
    pub in_doubt: Counter,
    /// Connections that were dialled for a transaction.
    pub dialled: Counter,
    /// Kept connections that were given a transaction.
    pub reused: Counter,
    /// Kept connections that were closed, by [`KeptClosed::index`].
    pub closed: [Counter; KeptClosed::ALL.len()],
    /// Transactions that were moved to another backend, by [`MoveCause::index`].
    pub moves: [Counter; MoveCause::ALL.len()],
}

/// Why a kept connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeptClosed {
    /// Unused for too long (rule N4).
    Idle,
    /// Too old (rule N4).
    Age,
    /// It carried as many messages as it may (rule N4).
    Messages,
    /// The backend ended it, or spoke unasked (rule N3).
    Backend,
    /// The backend is drained or removed, or the process shuts down.
    Drained,
    /// Its place was wanted for another connection.
    Shed,
}

/// Why a transaction was moved to another backend (rule F1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveCause {
    /// The connection ended or was reset.
    Lost,
    /// Silent for too long.
    Silent,
    /// 421 (rule S13).
    Closing,
    /// What it said is no reply, or answers nothing.
    Desync,
    /// It refused the message for a state of its own (x.3.x).
    Unwell,
    /// Its quota had no room for one more recipient: no fault of its own.
    Quota,
}

impl KeptClosed {
    /// Every cause, in the order of [`KeptClosed::index`].
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Age,
        Self::Messages,
        Self::Backend,
        Self::Drained,
        Self::Shed,
    ];

    /// Its place in tables of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Messages => "messages",
            Self::Backend => "backend",
            Self::Drained => "drained",
            Self::Shed => "shed",
        }
    }
}

impl MoveCause {
    /// Every cause, in the order of [`MoveCause::index`].
    pub const ALL: [Self; 6] = [
        Self::Lost,
        Self::Silent,
        Self::Closing,
        Self::Desync,
        Self::Unwell,
        Self::Quota,
    ];

    /// Its place in tables of counts.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Closing => "closing",
            Self::Desync => "desync",
            Self::Unwell => "unwell",
            Self::Quota => "quota",
        }
    }
}

/// The sums of [`BackendTotals`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Dials, hedges included.
    pub attempts: u64,
    /// Sessions that were committed to it.
    pub sessions: u64,
    /// Dials that were hedges.
    pub hedges: u64,
    /// Octets from clients.
    pub octets_to_backend: u64,
    /// Octets to clients.
    pub octets_to_client: u64,
}

/// A change of state, to be logged and counted by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The pool.
    pub pool: Arc<str>,
    /// The backend's name.
    pub backend: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// The state it left.
    pub from: (AdminState, HealthState),
    /// The state it is in now.
    pub to: (AdminState, HealthState),
    /// Why.
    pub cause: Cause,
}

/// The operator who has set something at run time, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorMark {
    /// Who.
    pub who: Arc<str>,
    /// When.
    pub at: Instant,
}

/// A copy of the state for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// What the operator wants.
    pub admin: AdminState,
    /// The operator who has set that at run time, while the configuration says something else.
    pub admin_mark: Option<OperatorMark>,
    /// What we found.
    pub health: HealthState,
    /// Why it is in this state: in drain or maintenance, or as we found it.
    pub cause: Cause,
    /// When this state began.
    pub since: Instant,
    /// When the ejection ends at the latest.
    pub ejected_until: Option<Instant>,
    /// Ejections that count towards the length of the next one.
    pub ejections: u32,
    /// Strikes since the last greeting.
    pub consecutive_strikes: u32,
    /// Sockets, idle ones included; bounded by `max_connections`.
    pub open: u32,
    /// Sessions: what balancing sees.
    pub in_flight: u32,
    /// Weight as balancing sees it now, in 1/256 of a unit (slow start).
    pub effective_weight_256: u32,
    /// The operator's weight, if one other than the configured one is set at run time.
    pub weight_override: Option<Weight>,
    /// The operator who has set it.
    pub weight_mark: Option<OperatorMark>,
    /// The last probe and when it ended.
    pub last_probe: Option<(Instant, ProbeReport)>,
    /// The average time from dial to greeting.
    pub usual_greeting: Option<Duration>,
}
