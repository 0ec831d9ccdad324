//! A pool, as one generation sees it: the door to choosing, the queue and the timers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::choose::{NoBackend, Purpose};
use super::handing::Wish;
use super::hedge::HedgeVerdict;
use super::member::{Heed, Member, MemberSettings, Tried};
use super::queue::Queued;
use super::roll::{Absent, Roll};
use super::shared::PoolShared;
use super::slot::Slot;
use super::tiers::Occasion;
use super::{BackendState, PoolSettings, QuotaLevel, QuotaUse, Spent, StateChange, UsedUp};
use crate::types::{ClientKey, Rng};

/// A pool in one generation. Immutable; `Sync`.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    roll: Arc<Roll>,
    shared: Arc<PoolShared>,
}

/// Something to log or count that [`Pool::tick`] or a change found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolEvent {
    /// A backend's state changed by time or by a reload.
    Changed(StateChange),
    /// A standby tier opened.
    TierOpened {
        /// The pool.
        pool: Arc<str>,
        /// The tier.
        tier: u8,
        /// What is left of the tiers before it.
        usable_weight: u32,
        /// What they have when all are well.
        configured_weight: u32,
    },
    /// A standby tier closed.
    TierClosed {
        /// The pool.
        pool: Arc<str>,
        /// The tier.
        tier: u8,
    },
    /// So much of a backend's quota is used, or it has room again.
    Quota {
        /// The pool.
        pool: Arc<str>,
        /// The backend's name, whose addresses share the quota.
        backend: Arc<str>,
        /// The quota and its use.
        quota: QuotaUse,
        /// What there is to tell.
        level: QuotaLevel,
    },
}

/// A copy of the pool's state for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// The tiers that share the sessions now.
    pub open_tiers: Vec<u8>,
    /// Clients in the queue.
    pub waiting: u32,
    /// No backend is usable: last resort or refusals.
    pub all_down: bool,
    /// Backends that are ready and neither down nor ejected, of all tiers.
    pub usable: u32,
    /// A standby tier is open although the tiers before it are well again.
    pub failback_pending: bool,
}

impl Pool {
    /// Pure build: nothing shared changes before [`Pool::install`]. Members are sorted by tier; one
    /// that is listed twice counts once.
    pub fn new(
        name: Arc<str>,
        settings: PoolSettings,
        members: Vec<MemberSettings>,
        shared: Arc<PoolShared>,
    ) -> Self {
        let roll = Arc::new(Roll::new(&name, settings, members, &shared));
        Self { name, roll, shared }
    }

    /// The same with backends that have no address, which count as lost when tiers open.
    #[must_use]
    pub fn lacking(mut self, absent: Vec<Absent>) -> Self {
        let roll = Arc::get_mut(&mut self.roll);
        roll.expect("a pool that is not installed is held by nobody else")
            .absent = absent;
        self
    }

    /// Makes this generation the current one of its `PoolShared`: rebuilds the heap, recomputes
    /// tiers, wakes waiters as stale. Called once, right after the snapshot pointer was swapped.
    pub fn install(&self, now: Instant) {
        self.shared.install(&self.roll, now);
    }

    /// The snapshot that is current names this pool no more: wakes waiters as stale. Called once,
    /// after the pointer was swapped; a later generation may be installed again.
    pub fn retire(&self) {
        self.shared.close_queue(&self.roll);
        self.shared.check_invariants();
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the operator set.
    pub fn settings(&self) -> &PoolSettings {
        &self.roll.settings
    }

    /// The backends, in the order of their tiers.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.roll.members
    }

    /// choose + reserve. Counts one session towards the hedge budget when `tried` is empty.
    /// Nothing in a choice depends on `_now` (timers are [`Pool::tick`]'s), but a policy may.
    ///
    /// # Errors
    /// Why there is no backend for this session.
    pub fn pick(
        &self,
        client: ClientKey,
        tried: &Tried,
        _now: Instant,
        rng: &mut Rng,
    ) -> Result<Slot, NoBackend> {
        if tried.is_empty() {
            self.shared.hedges.earn(&self.roll.settings.hedge);
        }
        self.shared
            .pick(&self.roll, client, tried, Purpose::Session, rng)
    }

    /// Reserves a place at this very backend, if it may serve and has room: no policy is asked.
    pub fn pick_at(&self, state: &BackendState, tried: &Tried) -> Option<Slot> {
        let slot = self.shared.pick_at(&self.roll, state, tried)?;
        if tried.is_empty() {
            self.shared.hedges.earn(&self.roll.settings.hedge);
        }
        Some(slot)
    }

    /// Reserves one message with so many recipients of what the backend's provider allows, as this
    /// generation says it; `None` where that is not limited. The place of a connection that was kept
    /// may be of another generation.
    ///
    /// # Errors
    /// There is no room.
    pub fn spend(
        &self,
        member: &Member,
        recipients: u32,
        now: Instant,
    ) -> Result<Option<Spent>, UsedUp> {
        let member = self.named(member.state()).map_or(member, |named| named);
        let limited = member.settings.quota.as_ref();
        limited
            .map(|limited| limited.take(recipients, now))
            .transpose()
    }

    /// Whether a backend but `state`, and none of `tried`, could take a message with so many
    /// recipients now.
    pub fn has_room_elsewhere(
        &self,
        state: &BackendState,
        tried: &Tried,
        recipients: u32,
        now: Instant,
    ) -> bool {
        let mut others = self.members().iter().filter(|member| {
            !std::ptr::eq(member.state(), state) && member.takes(tried, Heed::Health).is_some()
        });
        others.any(|member| {
            let limited = member.settings.quota.as_ref();
            limited.is_none_or(|limited| limited.has_room(recipients, now))
        })
    }

    /// Whether a backend that is in service has no room in a quota for a message with so many
    /// recipients.
    pub fn is_short_of_quota(&self, recipients: u32, now: Instant) -> bool {
        let mut members = self.members().iter();
        members.any(|member| {
            let standing = member.state().standing();
            let limited = member.settings.quota.as_ref();
            standing.is_ready()
                && standing.is_usable()
                && limited.is_some_and(|limited| !limited.has_room(recipients, now))
        })
    }

    /// Whether this generation names the backend.
    pub fn has(&self, state: &BackendState) -> bool {
        self.named(state).is_some()
    }

    /// The backend as this generation names it. Each pool counts its own generations, so that the
    /// place alone may be another pool's.
    fn named(&self, state: &BackendState) -> Option<&Arc<Member>> {
        let place = state.place();
        let named = self.roll.members.get(place.index as usize)?;
        let same = place.serial == self.roll.serial && std::ptr::eq(named.state(), state);
        same.then_some(named)
    }

    /// The same for a hedge: never in last resort, never opens a tier, never queues nor overtakes
    /// those who do; takes from the hedge budget only if a slot was got.
    ///
    /// # Errors
    /// Why not; [`HedgeVerdict::Allowed`] is: it was allowed, but no backend can take it.
    pub fn pick_hedge(
        &self,
        client: ClientKey,
        tried: &Tried,
        _now: Instant,
        rng: &mut Rng,
    ) -> Result<Slot, HedgeVerdict> {
        let hedge = &self.roll.settings.hedge;
        match self.shared.hedges.verdict(hedge) {
            HedgeVerdict::Allowed => {}
            refusal @ (HedgeVerdict::OverBudget | HedgeVerdict::Off) => return Err(refusal),
        }
        if self.shared.waiting() > 0 {
            return Err(HedgeVerdict::Allowed);
        }
        let slot = self
            .shared
            .pick(&self.roll, client, tried, Purpose::Hedge, rng)
            .map_err(|_| HedgeVerdict::Allowed)?;
        match self.shared.hedges.take(hedge) {
            HedgeVerdict::Allowed => Ok(slot),
            refusal @ (HedgeVerdict::OverBudget | HedgeVerdict::Off) => Err(refusal),
        }
    }

    /// After `pick` said AllFull (or while `waiting() > 0`): enqueue, then pick once more, for all
    /// who wait in their order.
    pub fn enqueue(&self, client: ClientKey, tried: &Tried, wish: Wish, rng: &mut Rng) -> Queued {
        let queued = self.shared.enqueue(&self.roll, client, tried, wish, rng);
        self.shared.check_invariants();
        queued
    }

    /// Counted up whenever what one of its backends announces has changed.
    pub fn announcements(&self) -> u32 {
        self.shared.announcements.load(Ordering::Acquire)
    }

    /// Clients in the queue.
    pub fn waiting(&self) -> u32 {
        self.shared.waiting()
    }

    /// Timers: ends ejections, grows slow starts, opens and closes tiers. Call every 100 ms.
    /// Returns at most 256 events, those of changes since the last call included.
    pub fn tick(&self, now: Instant) -> Vec<PoolEvent> {
        self.shared.tick(self.roll.serial, Occasion::Change, now)
    }

    /// `failback = "manual"`: the operator says the first tier may take over again. Does nothing
    /// while the tiers before are still too weak.
    pub fn fail_back(&self, now: Instant) -> Vec<PoolEvent> {
        self.shared.tick(self.roll.serial, Occasion::Operator, now)
    }

    /// Whether some backend is believed to serve (readiness; no last resort). Full ones count: their
    /// clients wait.
    pub fn is_usable(&self) -> bool {
        self.shared.is_usable(&self.roll)
    }

    /// A copy of the state of the installed generation.
    pub fn view(&self) -> PoolView {
        self.shared.view()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fleet;
    use super::super::{Epoch, Quota, QuotaUnit, Quotas};
    use super::*;

    /// A kept connection of the one would carry mail of the other.
    #[test]
    fn a_backend_of_another_pool_is_not_one_of_this() {
        let settings = PoolSettings::default();
        let (one, other) = (Fleet::equal(settings, 2), Fleet::equal(settings, 2));
        for (at, member) in other.pool.members().iter().enumerate() {
            assert!(other.pool.has(&member.settings.state));
            assert!(!one.pool.has(&member.settings.state), "at place {at}");
        }
    }

    /// The place of a kept connection is of the generation in which it was dialled.
    #[test]
    fn a_quota_that_came_by_a_reload_counts_on_connections_that_were_there_before() {
        let now = Instant::now();
        let fleet = Fleet::equal(PoolSettings::default(), 1);
        let before = Arc::clone(&fleet.pool.members()[0]);
        let quotas = Quotas::new(Epoch {
            instant: now,
            unix: std::time::Duration::ZERO,
        });
        let quota = Quota {
            count: 1,
            period: std::time::Duration::from_mins(1),
            unit: QuotaUnit::Messages,
        };
        let settings = MemberSettings {
            quota: Some(quotas.limited(&[quota])),
            ..before.settings.clone()
        };
        let name = Arc::clone(fleet.pool.name());
        let shared = Arc::clone(&fleet.shared);
        let after = Pool::new(name, PoolSettings::default(), vec![settings], shared);
        after.install(now);
        let spent = after.spend(&before, 1, now).expect("there is room");
        assert!(spent.is_some());
        assert!(after.spend(&before, 1, now).is_err());
    }
}
