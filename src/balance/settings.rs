//! What an operator sets of a pool, as the balancing core needs it.
//!
//! The configuration model re-exports these words; the core never sees a file.

use std::time::Duration;

use crate::types::Percent;

/// The policy that chooses among the eligible backends of the open tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The smallest (in flight + 1) / weight.
    LeastConnections,
    /// Smooth weighted round robin.
    RoundRobin,
    /// The better of two random ones.
    RandomTwo,
    /// By the client's address (Maglev over the configured backends).
    SourceHash,
    /// The first by name that is not full.
    First,
}

/// Hedging: a second dial when the first is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// Whether at all.
    pub enabled: bool,
    /// A connect slower than this.
    pub connect_after: Duration,
    /// A greeting slower than this; `None` is max(1 s, 3 × the backend's usual).
    pub greeting_after: Option<Duration>,
    /// Hedges per hundred sessions.
    pub budget: Percent,
    /// Hedges on top of the budget.
    pub burst: u16,
}

/// What to do when no backend is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllDown {
    /// Ignore health (never drain) and try.
    Try,
    /// Answer 421 at once.
    Refuse,
}

/// How an opened standby tier closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// By itself after `failback_after`.
    Auto,
    /// When the operator says so.
    Manual,
}

/// Passive ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// Strikes in a row that eject; 0 turns this rule off.
    pub strikes: u16,
    /// Share of failed attempts that ejects.
    pub ratio: Percent,
    /// Attempts within the window before the share counts.
    pub min_attempts: u16,
    /// The window.
    pub window: Duration,
    /// The first ejection; the n-th lasts n times as long.
    pub time: Duration,
    /// The longest ejection.
    pub max_time: Duration,
}

/// What the operator wants of a backend (HAProxy: server state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// Serves.
    Ready,
    /// Keeps its sessions, gets no new ones.
    Drain,
    /// The same, and is not probed.
    Maint,
}

impl Default for Hedge {
    fn default() -> Self {
        Self {
            enabled: true,
            connect_after: Duration::from_millis(250),
            greeting_after: None,
            budget: Percent::new(10).expect("10 is a percentage"),
            burst: 16,
        }
    }
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            strikes: 5,
            ratio: Percent::new(50).expect("50 is a percentage"),
            min_attempts: 10,
            window: Duration::from_secs(10),
            time: Duration::from_secs(30),
            max_time: Duration::from_mins(5),
        }
    }
}

/// Everything the core needs to know of one pool, in one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The policy.
    pub balance: Balance,
    /// What to do when no backend is healthy.
    pub when_all_down: WhenAllDown,
    /// The next tier opens when less than this share of the configured weight is usable.
    pub open_standby_below: Percent,
    /// How an opened tier closes again.
    pub failback: Failback,
    /// How long the tiers before must have been well before a tier closes.
    pub failback_after: Duration,
    /// Whether full tiers open the next one.
    pub spill_when_full: bool,
    /// How long a returning backend's share grows to its weight.
    pub slow_start: Duration,
    /// Clients that may wait; 0 is no queue.
    pub queue_max: u32,
    /// Good probes until a backend is up.
    pub rise: u8,
    /// Bad probes until a backend is down.
    pub fall: u8,
    /// Whether backends are probed: ejection may then end by probes.
    pub probed: bool,
    /// Passive ejection.
    pub eject: Eject,
    /// Hedging.
    pub hedge: Hedge,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            balance: Balance::LeastConnections,
            when_all_down: WhenAllDown::Try,
            open_standby_below: Percent::new(1).expect("1 is a percentage"),
            failback: Failback::Auto,
            failback_after: Duration::from_secs(30),
            spill_when_full: false,
            slow_start: Duration::from_secs(30),
            queue_max: 1024,
            rise: 2,
            fall: 3,
            probed: true,
            eject: Eject::default(),
            hedge: Hedge::default(),
        }
    }
}
