//! STUB: a pool, as one generation sees it, and what survives generations.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{AdminState, BackendState, PoolSettings, StateChange};
use crate::types::{ClientKey, Rng, Tier, Weight};

/// What a generation's configuration says of a member.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub weight: Weight,
    pub tier: Tier,
    /// 0 is no limit.
    pub max_connections: u32,
    pub state: Arc<BackendState>,
}

/// One backend as one generation names it. Cheap to keep: holds the backend's state, no snapshot.
#[derive(Debug)]
pub struct Member {
    /// Its place in its pool's list in its generation.
    pub index: u32,
    pub pool: Arc<str>,
    pub settings: MemberSettings,
}

/// What survives generations: the heap, the queue, tier state, hedge budget. One per pool name.
#[derive(Debug)]
pub struct PoolShared {}

impl PoolShared {
    pub fn new(name: Arc<str>) -> Arc<Self> {
        todo!()
    }
}

/// A pool in one generation. Immutable; `Sync`.
#[derive(Debug)]
pub struct Pool {}

/// How a pick should be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickMode {
    Normal,
    /// No backend is healthy (`when_all_down = "try"`): connect 1 s, greeting 3 s, one attempt per
    /// backend.
    LastResort,
}

/// Why there is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoBackend {
    /// The pool has no backends (or no name of it could be looked up).
    Empty,
    AllDown,
    AllDrained,
    AllFull,
    /// Every eligible one was tried by this session.
    AllTried,
}

/// The backends a session has tried (by address), at most 8 remembered.
#[derive(Clone, Debug, Default)]
pub struct Tried {}

impl Tried {
    pub fn add(&mut self, member: &Member) {
        todo!()
    }
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A reserved place at a backend: counts in `open` and `in_flight` until dropped; a drop hands the
/// place to the first waiter instead, if there is one.
#[derive(Debug)]
pub struct Slot {}

impl Slot {
    pub fn member(&self) -> &Arc<Member> {
        todo!()
    }
    pub fn mode(&self) -> PickMode {
        todo!()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeVerdict {
    Allowed,
    OverBudget,
    Off,
}

/// The answer of [`Pool::enqueue`].
#[derive(Debug)]
pub enum Queued {
    /// A place came free meanwhile.
    Slot(Slot),
    Waiting(Waiter),
    /// The queue is full or off.
    Full,
}

/// A client in the queue; dropping it leaves the queue (and gives back a place it was handed).
#[derive(Debug)]
pub struct Waiter {}

impl Waiter {
    /// `Ok(slot)`, or `Err(())` when a reload made this pool stale: resolve the pool anew.
    pub fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Result<Slot, ()>> {
        todo!()
    }
}

/// Something to log or count that [`Pool::tick`] or a change found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    Changed(StateChange),
    TierOpened {
        pool: Arc<str>,
        tier: u8,
        usable_weight: u32,
        configured_weight: u32,
    },
    TierClosed {
        pool: Arc<str>,
        tier: u8,
    },
}

/// A copy of the pool's state for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    pub open_tiers: Vec<u8>,
    pub waiting: u32,
    pub all_down: bool,
    pub usable: u32,
    pub failback_pending: bool,
}

impl Pool {
    /// Pure build: nothing shared changes before [`Pool::install`].
    pub fn new(
        name: Arc<str>,
        settings: PoolSettings,
        members: Vec<MemberSettings>,
        shared: Arc<PoolShared>,
    ) -> Self {
        todo!()
    }
    /// Makes this generation the current one of its `PoolShared`: rebuilds the heap, recomputes
    /// tiers, wakes waiters as stale. Called once, right after the snapshot pointer was swapped.
    pub fn install(&self, now: Instant) {
        todo!()
    }
    pub fn name(&self) -> &Arc<str> {
        todo!()
    }
    pub fn settings(&self) -> &PoolSettings {
        todo!()
    }
    pub fn members(&self) -> &[Arc<Member>] {
        todo!()
    }
    /// choose + reserve. Counts one session towards the hedge budget when `tried` is empty.
    pub fn pick(
        &self,
        client: ClientKey,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Slot, NoBackend> {
        todo!()
    }
    /// The same for a hedge: never in last resort, never opens a tier, never queues; takes from the
    /// hedge budget only if a slot was got.
    pub fn pick_hedge(
        &self,
        client: ClientKey,
        tried: &Tried,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Slot, HedgeVerdict> {
        todo!()
    }
    /// After `pick` said AllFull (or while `waiting() > 0`): enqueue, then pick once more.
    pub fn enqueue(&self, client: ClientKey, tried: &Tried, now: Instant, rng: &mut Rng) -> Queued {
        todo!()
    }
    pub fn waiting(&self) -> u32 {
        todo!()
    }
    /// Timers: ends ejections, grows slow starts, opens and closes tiers. Call every 100 ms.
    pub fn tick(&self, now: Instant) -> Vec<PoolEvent> {
        todo!()
    }
    /// `failback = "manual"`: the operator says the first tier may take over again.
    pub fn fail_back(&self, now: Instant) -> Vec<PoolEvent> {
        todo!()
    }
    /// Whether some backend can take a session now (readiness; no last resort).
    pub fn is_usable(&self) -> bool {
        todo!()
    }
    pub fn view(&self) -> PoolView {
        todo!()
    }
}

#[expect(dead_code, reason = "stub")]
fn keep(_: AdminState, _: Duration) {}
