//! A pick: choose, then reserve. Two atomics are written, and in large pools the heap's mutex held
//! for a moment; nothing waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backend::BackendState;
use super::choose::{Ask, Choice, NoBackend, PickMode, Purpose, choose, without_policy};
use super::heap::{Order, Presence};
use super::member::{Heed, Member, Tried};
use super::policy::round_robin::{self, RoundTurn};
use super::roll::Roll;
use super::shared::{PoolShared, lock};
use super::slot::Slot;
use crate::types::{ClientKey, Rng};

/// Picks that lose the race for a last place before the pool counts as full.
const RACES_MAX: usize = 8;

impl PoolShared {
    /// Choose and reserve.
    pub(super) fn pick(
        &self,
        roll: &Roll,
        client: ClientKey,
        tried: &Tried,
        purpose: Purpose,
        rng: &mut Rng,
    ) -> Result<Slot, NoBackend> {
        for _ in 0..RACES_MAX {
            let ask = Ask {
                client,
                tried,
                purpose,
                open: self.open_members(roll),
                rotation: roll.rotation(),
                turns_now: self.now.load(Ordering::Relaxed),
            };
            let choice = match self.pick_from_heap(roll, tried) {
                FromHeap::Slot(slot) => return Ok(slot),
                FromHeap::Nothing if self.is_plainly_full(roll, tried) => {
                    return Err(NoBackend::AllFull);
                }
                FromHeap::Nothing => without_policy(roll, &ask, rng)?,
                FromHeap::Off => choose(roll, &ask, rng)?,
            };
            if let Some(slot) = self.reserve(roll, choice) {
                return Ok(slot);
            }
        }
        Err(NoBackend::AllFull)
    }

    /// Reserve at a backend that is named.
    pub(super) fn pick_at(&self, roll: &Roll, state: &BackendState, tried: &Tried) -> Option<Slot> {
        let place = state.place();
        let member = roll.members.get(place.index as usize)?;
        let is_there =
            place.serial == roll.serial && (place.index as usize) < self.open_members(roll);
        if !is_there || self.waiting() > 0 || member.takes(tried, Heed::Health).is_none() {
            return None;
        }
        if !state.reserve(member.settings.max_connections) {
            return None;
        }
        if self.has_heap() {
            self.rekey(member);
        }
        Some(Slot::reserved(Arc::clone(member), PickMode::Normal))
    }

    /// The heap is empty and there are usable members in open tiers: they are full, and nobody needs
    /// to read ten thousand of them to know.
    fn is_plainly_full(&self, roll: &Roll, tried: &Tried) -> bool {
        tried.is_empty()
            && !roll.settings.spill_when_full
            && self.usable_open.load(Ordering::Acquire) > 0
    }

    fn reserve(&self, roll: &Roll, choice: Choice) -> Option<Slot> {
        let member = &roll.members[choice.index];
        let state = member.state();
        if !state.reserve(member.settings.max_connections) {
            return None;
        }
        if let Some(turn) = choice.turn {
            self.take_turn(member, turn);
        } else {
            roll.rotate_behind(choice.index);
        }
        if self.has_heap() {
            self.rekey(member);
        }
        Some(Slot::reserved(Arc::clone(member), choice.mode))
    }

    /// Moves a member on in round robin, and the pool's virtual time with it.
    fn take_turn(&self, member: &Member, turn: RoundTurn) {
        let step = round_robin::step(u64::from(member.weight_256()));
        let now = self.now.load(Ordering::Relaxed);
        // A member that was passed over is owed one session at most.
        let owed_from = now.saturating_sub(step);
        member.state().move_turn(turn.start, owed_from, step);
        // No member's turn had begun: the pool's time had fallen behind by rounding.
        let lost = turn.start.saturating_sub(now);
        self.now.fetch_add(turn.tick + lost, Ordering::Relaxed);
    }

    /// The same for the heap, whose order is the middle of the turn.
    fn take_middle(&self, member: &Member) {
        let start = member.state().turn();
        let weight = member.weight_256();
        let now = self.now.load(Ordering::Relaxed);
        let now = now.max(round_robin::middle(start, weight));
        let step = round_robin::step(u64::from(weight));
        member
            .state()
            .move_turn(start, now.saturating_sub(step / 2), step);
        self.now.store(now, Ordering::Relaxed);
    }

    fn pick_from_heap(&self, roll: &Roll, tried: &Tried) -> FromHeap {
        if !self.has_heap() {
            return FromHeap::Off;
        }
        let mut heap = lock(&self.heap);
        if heap.serial != roll.serial || heap.order == Order::Off {
            return FromHeap::Off;
        }
        while let Some(index) = heap.best(&roll.members, tried) {
            let member = &roll.members[index];
            if member.is_used_up() || !member.state().reserve(member.settings.max_connections) {
                heap.park(index);
                continue;
            }
            if heap.order == Order::RoundRobin {
                self.take_middle(member);
            }
            heap.stamp(index);
            heap.put(member, Presence::Serves);
            return FromHeap::Slot(Slot::reserved(Arc::clone(member), PickMode::Normal));
        }
        FromHeap::Nothing
    }

    /// A place of `member` came free.
    pub(super) fn place_came_free(&self, member: &Member) {
        if self.has_heap() && !self.turns_only(member) {
            self.rekey(member);
        }
    }

    /// Whether counts move nothing: turns order the heap, and no limit of the member parks it.
    fn turns_only(&self, member: &Member) -> bool {
        self.order() == Order::RoundRobin as u8
            && member.settings.max_connections == 0
            && member.state().place().serial == member.serial
    }
}

/// What the heap says to a pick.
#[derive(Debug)]
enum FromHeap {
    Slot(Slot),
    /// No member in it takes this session.
    Nothing,
    /// It does not serve this generation.
    Off,
}
