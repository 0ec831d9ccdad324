//! What survives generations of one pool: roster, tiers, heap, queue, hedge budget.
//!
//! The roster is the one place where changes of state become changes of what may be picked: in the
//! same call an ejection opens the standby tier and moves the heap. Picks read atomics only (and
//! the heap, in large pools).
//!
//! Lock order: roster → backend record → queue → ticket; the heap is the innermost and the queue is
//! never taken under the roster. Nothing is waited for, and no waker is called, under a lock.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::backend::{BackendState, Place, Record, Refreshed};
use super::choose::{Ask, Choice, NoBackend, PickMode, Purpose, choose, without_policy};
use super::health::{Rules, Spare};
use super::heap::{Heap, Order, Presence};
use super::hedge::HedgeBudget;
use super::member::{Member, Tried};
use super::policy::round_robin;
use super::queue::Queue;
use super::roll::Roll;
use super::slot::Slot;
use super::tiers::{Occasion, Tiers, Turn};
use super::{Balance, Cause, PoolEvent, PoolSettings, PoolView, StateChange};
use crate::types::{ClientKey, Rng};

/// Picks that lose the race for a last place before the pool counts as full.
const RACES_MAX: usize = 8;

/// Events kept for the next `tick`; the oldest go first.
const EVENTS_MAX: usize = 256;

/// Locks, whoever panicked before: our own code does not panic half way through a change, and a
/// place must be given back even while a session unwinds.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What survives generations: the heap, the queue, tier state, hedge budget. One per pool name.
#[derive(Debug)]
pub struct PoolShared {
    name: Arc<str>,
    serials: AtomicU32,
    /// The last open tier; 0 before the first install.
    open_tier: AtomicU8,
    usable: AtomicU32,
    usable_open: AtomicU32,
    order: AtomicU8,
    /// Round robin: the latest turn that was taken, its virtual time.
    now: CachePadded<AtomicU64>,
    pub(super) waiters: CachePadded<AtomicU32>,
    pub(super) hedges: HedgeBudget,
    roster: Mutex<Roster>,
    pub(super) queue: Mutex<Queue>,
    heap: Mutex<Heap>,
}

/// What a member adds to the sums of its tier.
#[derive(Clone, Copy, Debug)]
struct Part {
    tier: u8,
    weight: u16,
    usable: bool,
}

#[derive(Debug)]
struct Roster {
    roll: Weak<Roll>,
    serial: u32,
    settings: PoolSettings,
    /// By member index.
    parts: Vec<Part>,
    tiers: Tiers,
    /// Members with an ejection or a ramp.
    timed: BTreeSet<u32>,
    events: VecDeque<PoolEvent>,
}

impl Roster {
    fn keep(&mut self, event: PoolEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The installed generation, if any snapshot still holds it.
    fn roll(&self) -> Option<Arc<Roll>> {
        self.roll.upgrade()
    }

    fn note(&mut self, index: usize, refreshed: &Refreshed) {
        let part = self.parts[index];
        let rank = self.tiers.rank_mut(part.tier);
        rank.configured -= u64::from(part.weight);
        if part.usable {
            rank.usable -= u64::from(part.weight);
            rank.backends -= 1;
        }
        let part = Part {
            weight: refreshed.weight.value(),
            usable: refreshed.usable,
            ..part
        };
        rank.configured += u64::from(part.weight);
        if part.usable {
            rank.usable += u64::from(part.weight);
            rank.backends += 1;
        }
        self.parts[index] = part;
        if refreshed.timed {
            self.timed.insert(index as u32);
        } else {
            self.timed.remove(&(index as u32));
        }
    }
}

impl PoolShared {
    /// The shared state of a pool no generation of which is installed yet.
    pub fn new(name: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            name,
            serials: AtomicU32::new(0),
            open_tier: AtomicU8::new(0),
            usable: AtomicU32::new(0),
            usable_open: AtomicU32::new(0),
            order: AtomicU8::new(0),
            now: CachePadded::new(AtomicU64::new(0)),
            waiters: CachePadded::new(AtomicU32::new(0)),
            hedges: HedgeBudget::new(),
            roster: Mutex::new(Roster {
                roll: Weak::new(),
                serial: 0,
                settings: PoolSettings::default(),
                parts: Vec::new(),
                tiers: Tiers::default(),
                timed: BTreeSet::new(),
                events: VecDeque::new(),
            }),
            queue: Mutex::new(Queue::new()),
            heap: Mutex::new(Heap::new()),
        })
    }

    pub(super) fn next_serial(&self) -> u32 {
        self.serials.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The settings of the installed generation.
    pub(super) fn settings(&self) -> PoolSettings {
        lock(&self.roster).settings
    }

    /// How many members of `roll` are in open tiers: a prefix.
    pub(super) fn open_members(&self, roll: &Roll) -> usize {
        roll.open(self.open_tier.load(Ordering::Acquire))
    }

    // ---- picks ----

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
    fn take_turn(&self, member: &Member, turn: u64) {
        let now = self.now.load(Ordering::Relaxed);
        let step = round_robin::step(member.weight_256());
        member.state().move_turn(turn, now, step);
        self.now.store(now.max(turn), Ordering::Relaxed);
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
            if !member.state().reserve(member.settings.max_connections) {
                heap.park(index);
                continue;
            }
            if heap.order == Order::RoundRobin {
                self.take_turn(member, member.state().turn());
            }
            heap.stamp(index);
            heap.put(member, Presence::Serves);
            return FromHeap::Slot(Slot::reserved(Arc::clone(member), PickMode::Normal));
        }
        FromHeap::Nothing
    }

    /// A place of `member` came free.
    pub(super) fn place_came_free(&self, member: &Member) {
        if self.has_heap() {
            self.rekey(member);
        }
    }

    /// Whether the installed generation is served by the heap. Read after a count was changed: if
    /// it is off, an install that turns it on will read the new count.
    fn has_heap(&self) -> bool {
        self.order.load(Ordering::SeqCst) != 0
    }

    /// Puts right the key of a member whose counts, state or weight changed.
    fn rekey(&self, member: &Member) {
        let mut heap = lock(&self.heap);
        let place = member.state().place();
        if place.serial != heap.serial || heap.order == Order::Off {
            return;
        }
        if member.serial == heap.serial {
            heap.put(member, self.presence(member));
        } else if let Some(roll) = heap.roll.upgrade() {
            // The slot was picked in an earlier generation, whose tier and limit count no more.
            let current = &roll.members[place.index as usize];
            heap.put(current, self.presence(current));
        }
    }

    fn presence(&self, member: &Member) -> Presence {
        let open = member.tier() <= self.open_tier.load(Ordering::Acquire);
        if open && member.state().standing().is_usable() {
            Presence::Serves
        } else {
            Presence::Parked
        }
    }

    // ---- changes ----

    /// Changes the record of one backend, and in the same call what may be picked.
    pub(super) fn change(
        self: &Arc<Self>,
        state: &BackendState,
        now: Instant,
        turn: impl FnOnce(&mut Record, &Rules, Spare) -> Option<Cause>,
    ) -> Option<StateChange> {
        let change;
        {
            let mut roster = lock(&self.roster);
            let place = state.place();
            let rules = Rules::of(&roster.settings);
            let member = roster
                .roll()
                .filter(|_| place.serial == roster.serial)
                .map(|roll| (Arc::clone(&roll.members[place.index as usize]), roll));
            let spare = match &member {
                Some((member, _)) => {
                    let own = u32::from(roster.parts[member.index as usize].usable);
                    spare(roster.tiers.usable() > own || own == 0)
                }
                // Not in the installed generation: it gets no sessions, let it be ejected.
                None => Spare::Other,
            };
            let (changed, refreshed) = state.change_record(&rules, spare, now, turn);
            change = changed;
            if let Some((member, roll)) = member {
                self.refresh(&mut roster, &roll, &member, &refreshed);
                self.settle(&mut roster, &roll, Occasion::Change, now);
            }
        }
        self.after_change();
        change
    }

    /// Makes `roll` the installed generation.
    pub(super) fn install(self: &Arc<Self>, roll: &Arc<Roll>, now: Instant) {
        {
            let mut guard = lock(&self.roster);
            let roster = &mut *guard;
            roster.roll = Arc::downgrade(roll);
            roster.serial = roll.serial;
            roster.settings = roll.settings;
            roster.timed.clear();
            roster.tiers = roster.tiers.renewed(&roll.tiers());
            roster.parts = roll
                .members
                .iter()
                .map(|member| Part {
                    tier: member.tier(),
                    weight: 0,
                    usable: false,
                })
                .collect();
            {
                let mut heap = lock(&self.heap);
                let order = Order::of(roll.settings.balance, roll.members.len());
                // Before the counts are read: a release that misses the heap was counted.
                self.order.store(order as u8, Ordering::SeqCst);
                heap.renew(roll, order);
            }
            for member in &roll.members {
                self.install_member(roster, roll, member, now);
            }
            let upto = roster.tiers.open_upto();
            self.open_tier.store(upto, Ordering::Release);
            self.settle(roster, roll, Occasion::Change, now);
            for member in &roll.members {
                self.show(roll, member);
            }
        }
        self.renew_queue(roll);
        self.check_invariants();
    }

    fn install_member(
        self: &Arc<Self>,
        roster: &mut Roster,
        roll: &Roll,
        member: &Arc<Member>,
        now: Instant,
    ) {
        let state = member.state();
        let place = Place {
            serial: roll.serial,
            index: member.index,
        };
        state.settle_at(self, place);
        let rules = Rules::of(&roll.settings);
        let (change, refreshed) = state.change_record(&rules, Spare::Other, now, |record, _, _| {
            record.configure(member.settings.weight, roll.settings.slow_start);
            if roll.settings.probed {
                None
            } else {
                record.machine.forget_probes()
            }
        });
        if let Some(change) = change {
            roster.keep(PoolEvent::Changed(change));
        }
        let first =
            round_robin::first_turn(self.now.load(Ordering::Relaxed), refreshed.effective_256);
        if state.turn() == 0 {
            state.set_turn(first);
        }
        roster.note(member.index as usize, &refreshed);
    }

    /// Time passed, or the operator says fail back. Only the installed generation has timers.
    pub(super) fn tick(
        self: &Arc<Self>,
        serial: u32,
        occasion: Occasion,
        now: Instant,
    ) -> Vec<PoolEvent> {
        let events = {
            let mut guard = lock(&self.roster);
            let roster = &mut *guard;
            if roster.serial == serial
                && let Some(roll) = roster.roll()
            {
                for index in std::mem::take(&mut roster.timed) {
                    let member = &roll.members[index as usize];
                    let rules = Rules::of(&roster.settings);
                    let (change, refreshed) =
                        member
                            .state()
                            .change_record(&rules, Spare::Other, now, |record, _, _| {
                                record.machine.expire(now)
                            });
                    if let Some(change) = change {
                        roster.keep(PoolEvent::Changed(change));
                    }
                    self.refresh(roster, &roll, member, &refreshed);
                }
                self.settle(roster, &roll, occasion, now);
            }
            roster.events.drain(..).collect()
        };
        self.after_change();
        events
    }

    /// Makes what was published of one member count: sums, turn, heap, weights.
    fn refresh(&self, roster: &mut Roster, roll: &Roll, member: &Member, refreshed: &Refreshed) {
        roster.note(member.index as usize, refreshed);
        let state = member.state();
        if roll.settings.balance == Balance::RoundRobin {
            let now = self.now.load(Ordering::Relaxed);
            let turn = state.turn();
            let rescaled =
                round_robin::rescaled(turn, now, refreshed.before, refreshed.effective_256);
            if rescaled != turn {
                state.set_turn(rescaled);
            }
        }
        self.show(roll, member);
    }

    /// Puts one member into, or out of, the structures picks read.
    fn show(&self, roll: &Roll, member: &Member) {
        if self.has_heap() {
            self.rekey(member);
        }
        if let Some(weights) = &roll.weights {
            let weight = match self.presence(member) {
                Presence::Serves => u64::from(member.weight_256()),
                Presence::Parked => 0,
            };
            weights.set(member.index as usize, weight);
        }
    }

    /// Opens and closes tiers, and publishes which are open.
    fn settle(&self, roster: &mut Roster, roll: &Roll, occasion: Occasion, now: Instant) {
        let settings = roster.settings;
        let before = roster.tiers.open_upto();
        let mut turns = Vec::new();
        roster
            .tiers
            .settle(&settings, occasion, now, |turn| turns.push(turn));
        let after = roster.tiers.open_upto();
        self.open_tier.store(after, Ordering::Release);
        self.usable.store(roster.tiers.usable(), Ordering::Release);
        self.usable_open
            .store(roster.tiers.usable_open(), Ordering::Release);
        for turn in turns {
            roster.keep(self.event(turn));
        }
        if before != after {
            let moved = before.min(after) + 1..=before.max(after);
            roll.members
                .iter()
                .filter(|member| moved.contains(&member.tier()))
                .for_each(|member| self.show(roll, member));
        }
    }

    fn event(&self, turn: Turn) -> PoolEvent {
        let pool = Arc::clone(&self.name);
        match turn {
            Turn::Opened {
                tier,
                usable,
                configured,
            } => PoolEvent::TierOpened {
                pool,
                tier,
                usable_weight: u32::try_from(usable).unwrap_or(u32::MAX),
                configured_weight: u32::try_from(configured).unwrap_or(u32::MAX),
            },
            Turn::Closed { tier } => PoolEvent::TierClosed { pool, tier },
        }
    }

    /// What a change may have made possible for those who wait.
    fn after_change(self: &Arc<Self>) {
        if self.waiting() > 0 {
            self.dispatch();
        }
        self.check_invariants();
    }

    // ---- looks ----

    /// Whether a backend of `roll` is believed to serve.
    pub(super) fn is_usable(&self, roll: &Roll) -> bool {
        if lock(&self.roster).serial == roll.serial {
            self.usable.load(Ordering::Acquire) > 0
        } else {
            roll.members
                .iter()
                .any(|member| member.state().standing().is_usable())
        }
    }

    pub(super) fn view(&self) -> PoolView {
        let roster = lock(&self.roster);
        PoolView {
            open_tiers: roster.tiers.open().collect(),
            waiting: self.waiting(),
            all_down: roster.tiers.usable() == 0,
            usable: roster.tiers.usable(),
            failback_pending: roster.tiers.failback_pending(&roster.settings),
        }
    }

    /// What must hold whenever no lock is held; only in debug builds, and only where reading every
    /// member is cheap.
    #[cfg(debug_assertions)]
    pub(super) fn check_invariants(&self) {
        const MEMBERS_MAX: usize = 128;
        if std::thread::panicking() {
            return;
        }
        {
            let queue = lock(&self.queue);
            assert_eq!(queue.len(), self.waiting() as usize, "waiters are counted");
        }
        let roster = lock(&self.roster);
        let Some(roll) = roster
            .roll()
            .filter(|roll| roll.members.len() <= MEMBERS_MAX)
        else {
            return;
        };
        roster.tiers.check_invariants();
        assert_eq!(
            roster.tiers.open_upto(),
            self.open_tier.load(Ordering::Acquire)
        );
        assert_eq!(roster.tiers.usable(), self.usable.load(Ordering::Acquire));
        for rank in roster.tiers.ranks() {
            let of_rank = || {
                roll.members
                    .iter()
                    .filter(|member| member.tier() == rank.tier)
            };
            let usable = of_rank().filter(|member| member.state().standing().is_usable());
            assert_eq!(
                usable.count() as u32,
                rank.backends,
                "usable backends are counted"
            );
            let configured: u64 = of_rank()
                .map(|member| u64::from(member.nominal_weight().value()))
                .sum();
            assert_eq!(configured, rank.configured, "weights are summed");
        }
        if let Some(weights) = &roll.weights {
            for member in &roll.members {
                let serves = self.presence(member) == Presence::Serves;
                assert_eq!(weights.weight(member.index as usize) > 0, serves);
            }
        }
        let heap = lock(&self.heap);
        if heap.order != Order::Off {
            heap.check_invariants();
            assert!(heap.len() as u32 <= roster.tiers.usable_open());
        }
    }

    #[cfg(not(debug_assertions))]
    #[expect(clippy::unused_self, reason = "checks only in debug builds")]
    pub(super) fn check_invariants(&self) {}
}

fn spare(other: bool) -> Spare {
    if other { Spare::Other } else { Spare::None }
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
