//! What survives generations of one pool: roster, tiers, heap, queue, hedge budget.
//!
//! The roster is the one place where changes of state become changes of what may be picked: in the
//! same call an ejection opens the standby tier and moves the heap. Picks read atomics only (and
//! the heap, in large pools).
//!
//! Lock order: roster → backend record → queue → ticket; the heap is the innermost and the queue is
//! never taken under the roster. Nothing is waited for, and no waker is called, under a lock.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use super::backend::{BackendState, Place, Record, Refreshed};
use super::health::{Rules, Spare};
use super::heap::{Heap, Order, Presence};
use super::hedge::HedgeBudget;
use super::member::Member;
use super::policy::round_robin;
use super::queue::Queue;
use super::roll::Roll;
use super::tiers::{Occasion, Tiers, Turn};
use super::{Balance, Cause, PoolEvent, PoolSettings, PoolView, StateChange};

/// Events kept for the next `tick`; the oldest go first.
const EVENTS_MAX: usize = 256;

/// Locks, whoever panicked before: our own code does not panic half way through a change, and a
/// place must be given back even while a session unwinds.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What survives generations: the heap, the queue, tier state, hedge budget. One per pool name.
pub struct PoolShared {
    name: Arc<str>,
    serials: AtomicU32,
    /// The last open tier; 0 before the first install.
    open_tier: AtomicU8,
    usable: AtomicU32,
    pub(super) usable_open: AtomicU32,
    order: AtomicU8,
    /// Round robin: the virtual time.
    pub(super) now: CachePadded<AtomicU64>,
    pub(super) waiters: CachePadded<AtomicU32>,
    pub(super) hedges: HedgeBudget,
    /// Changes of what the backends announce.
    pub(super) announcements: AtomicU32,
    roster: Mutex<Roster>,
    pub(super) queue: Mutex<Queue>,
    pub(super) heap: Mutex<Heap>,
}

/// What a member adds to the sums of its tier.
#[derive(Clone, Copy, Debug)]
struct Part {
    tier: u8,
    weight: u16,
    usable: bool,
    is_capacity: bool,
    /// The parts that are addresses of the same backend: from, and up to.
    backend: (u32, u32),
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

    /// The weight of a backend when all its addresses are well. An address that never answered does
    /// not count while another of the same name has answered: a name may have more addresses than
    /// this host can reach. If none has ever answered, all count.
    fn capacity(&self, (from, to): (u32, u32)) -> u64 {
        let parts = &self.parts[from as usize..to as usize];
        let any = parts.iter().any(|part| part.is_capacity);
        let counts = |part: &&Part| part.is_capacity || !any;
        let weights = parts.iter().filter(counts);
        weights.map(|part| u64::from(part.weight)).sum()
    }

    fn note(&mut self, index: usize, refreshed: &Refreshed) {
        let part = self.parts[index];
        let before = self.capacity(part.backend);
        let rank = self.tiers.rank_mut(part.tier);
        rank.configured -= before;
        if part.usable {
            rank.usable -= u64::from(part.weight);
            rank.backends -= 1;
        }
        let part = Part {
            weight: refreshed.weight.value(),
            usable: refreshed.usable,
            is_capacity: refreshed.is_capacity,
            ..part
        };
        if part.usable {
            rank.usable += u64::from(part.weight);
            rank.backends += 1;
        }
        self.parts[index] = part;
        let after = self.capacity(part.backend);
        self.tiers.rank_mut(part.tier).configured += after;
        if refreshed.timed {
            self.timed.insert(index as u32);
        } else {
            self.timed.remove(&(index as u32));
        }
    }
}

impl fmt::Debug for PoolShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolShared")
            .field("name", &self.name)
            .finish_non_exhaustive()
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
            announcements: AtomicU32::new(0),
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

    /// Whether the installed generation is served by the heap. Read after a count was changed: if
    /// it is off, an install that turns it on will read the new count.
    pub(super) fn has_heap(&self) -> bool {
        self.order() != Order::Off as u8
    }

    pub(super) fn order(&self) -> u8 {
        self.order.load(Ordering::SeqCst)
    }

    /// Puts right the key of a member whose counts, state or weight changed.
    pub(super) fn rekey(&self, member: &Member) {
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
            let before = std::mem::replace(&mut roster.serial, roll.serial);
            roster.settings = roll.settings;
            roster.timed.clear();
            roster.tiers = roster.tiers.renewed(&roll.tiers());
            for absent in &roll.absent {
                let rank = roster.tiers.rank_mut(absent.tier.value());
                rank.configured += u64::from(absent.weight.value());
            }
            roster.parts = parts(roll);
            {
                let mut heap = lock(&self.heap);
                let order = Order::of(roll.settings.balance, roll.members.len());
                // Before the counts are read: a release that misses the heap was counted.
                self.order.store(order as u8, Ordering::SeqCst);
                heap.renew(roll, order);
            }
            for member in &roll.members {
                if let Some(limited) = &member.settings.quota {
                    limited.install(now);
                }
                self.install_member(roster, roll, member, before, now);
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
        before: u32,
        now: Instant,
    ) {
        let state = member.state();
        let is_new = state.place().serial != before;
        let place = Place {
            serial: roll.serial,
            index: member.index,
        };
        state.settle_at(self, place);
        let rules = Rules::of(&roll.settings);
        let (change, refreshed) = state.change_record(&rules, Spare::Other, now, |record, _, _| {
            record.configure(member.settings.weight, roll.settings.slow_start);
            // Nobody ticks for who is not listed: lest it open a standby tier, it comes back first.
            let expired = record.machine.expire(now);
            if roll.settings.probed {
                expired
            } else {
                record.machine.forget_probes().or(expired)
            }
        });
        if let Some(change) = change {
            roster.keep(PoolEvent::Changed(change));
        }
        if is_new || refreshed.returns {
            self.begin_turns(state);
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
                self.refresh_quotas(roster, &roll, now);
                self.settle(roster, &roll, occasion, now);
            }
            roster.events.drain(..).collect()
        };
        self.after_change();
        events
    }

    /// Members whose quotas have room again may be picked again.
    fn refresh_quotas(&self, roster: &mut Roster, roll: &Roll, now: Instant) {
        for &index in &roll.limited {
            let member = &roll.members[index as usize];
            if let Some(limited) = &member.settings.quota {
                limited.watch(now, |quota, level| {
                    roster.keep(PoolEvent::Quota {
                        pool: Arc::clone(&member.pool),
                        backend: Arc::clone(&member.settings.name),
                        quota,
                        level,
                    });
                });
            }
            // Whoever found that there is room again.
            if self.has_heap() && !member.is_used_up() {
                self.rekey(member);
            }
        }
    }

    /// Makes what was published of one member count: sums, turn, heap, weights.
    fn refresh(&self, roster: &mut Roster, roll: &Roll, member: &Member, refreshed: &Refreshed) {
        roster.note(member.index as usize, refreshed);
        let state = member.state();
        if roll.settings.balance == Balance::RoundRobin {
            let now = self.now.load(Ordering::Relaxed);
            let turn = state.turn();
            let mut next =
                round_robin::rescaled(turn, now, refreshed.before, refreshed.effective_256);
            if refreshed.returns {
                next = next.max(now);
            }
            if next != turn {
                state.set_turn(next);
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
            let moved = |member: &&Arc<Member>| moved.contains(&member.tier());
            for member in roll.members.iter().filter(moved) {
                if before < after {
                    self.begin_turns(member.state());
                }
                self.show(roll, member);
            }
        }
    }

    /// Round robin: a backend that comes in has no turns of the past.
    fn begin_turns(&self, state: &BackendState) {
        let now = self.now.load(Ordering::Relaxed);
        state.set_turn(state.turn().max(now));
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
            let absent = roll.absent.iter();
            let absent = absent.filter(|absent| absent.tier.value() == rank.tier);
            let lost: u64 = absent.map(|absent| u64::from(absent.weight.value())).sum();
            let parts = roster.parts.iter().enumerate();
            let first_of_backends =
                parts.filter(|(at, part)| part.tier == rank.tier && part.backend.0 as usize == *at);
            let configured: u64 = first_of_backends
                .map(|(_, part)| roster.capacity(part.backend))
                .sum();
            assert_eq!(configured + lost, rank.configured, "weights are summed");
        }
        for (part, member) in roster.parts.iter().zip(&roll.members) {
            assert_eq!(part.weight, member.nominal_weight().value());
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

/// The members, before anything is known of them.
fn parts(roll: &Roll) -> Vec<Part> {
    let mut parts = Vec::with_capacity(roll.members.len());
    while parts.len() < roll.members.len() {
        let backend = roll.addresses_from(parts.len());
        let part = Part {
            tier: roll.members[backend.start].tier(),
            weight: 0,
            usable: false,
            is_capacity: false,
            backend: (backend.start as u32, backend.end as u32),
        };
        parts.resize(backend.end, part);
    }
    parts
}

fn spare(other: bool) -> Spare {
    if other { Spare::Other } else { Spare::None }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    use super::super::choose::{NoBackend, Purpose};
    use super::super::testing::{Fleet, Spec, bad_probe, good_probe, strike};
    use super::super::{Absent, AdminState, Kind, Observation, Queued, Slot, Tried, Wish};
    use super::*;
    use crate::types::{ClientKey, Percent, Rng, Weight};

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    struct StopOnDrop<'a>(&'a AtomicBool);

    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_backend_whose_ejection_ended_while_it_was_not_listed_opens_no_standby_tier() {
        let settings = PoolSettings {
            open_standby_below: Percent::new(60).expect("a percentage"),
            ..PoolSettings::default()
        };
        let specs = [Spec::tier(1), Spec::tier(2), Spec::tier(1)];
        let mut fleet = Fleet::new(settings, &specs);
        fleet.eject(2).expect("another is usable");
        assert_eq!(fleet.pool.view().open_tiers, [1, 2]);
        fleet.reload(settings, &specs[..2]);
        fleet.pass(Duration::from_mins(2));
        fleet.pool.tick(fleet.now);
        assert_eq!(fleet.pool.view().open_tiers, [1]);
        fleet.reload(settings, &specs);
        assert_eq!(fleet.pool.view().open_tiers, [1]);
        let events = fleet.pool.tick(fleet.now);
        let [PoolEvent::Changed(change)] = &events[..] else {
            panic!("its return is told: {events:?}");
        };
        assert_eq!(change.cause.origin, "timer");
    }

    /// The standby tier opens when less than `percent` is usable. Backends of tier 1 are named by
    /// `names`; the last one stands by.
    fn standby_below(percent: u8, names: &[&str]) -> Fleet {
        let settings = PoolSettings {
            open_standby_below: Percent::new(percent).expect("a percentage"),
            ..PoolSettings::default()
        };
        let mut specs = vec![Spec::tier(1); names.len()];
        specs.push(Spec::tier(2));
        let mut fleet = Fleet::new(settings, &specs);
        let mut members: Vec<_> = fleet
            .pool
            .members()
            .iter()
            .map(|member| member.settings.clone())
            .collect();
        for (member, name) in members.iter_mut().zip(names) {
            member.name = Arc::from(*name);
        }
        let shared = Arc::clone(&fleet.shared);
        fleet.pool = super::super::Pool::new(Arc::from("mx"), settings, members, shared);
        fleet.pool.install(fleet.now);
        fleet
    }

    #[test]
    fn addresses_of_a_name_that_never_answered_are_no_lost_capacity() {
        let mut fleet = standby_below(60, &["a", "a", "a"]);
        fleet.probe(0, good_probe());
        fleet.take_down(1);
        fleet.take_down(2);
        assert_eq!(fleet.pool.view().open_tiers, [1], "one of one");
        fleet.bring_up(1);
        fleet.take_down(1);
        assert_eq!(fleet.pool.view().open_tiers, [1, 2], "one of two");
        fleet.bring_up(1);
        fleet.pass(Duration::from_secs(30));
        fleet.pool.tick(fleet.now);
        assert_eq!(fleet.pool.view().open_tiers, [1], "two of two");
    }

    #[test]
    fn a_backend_that_never_answered_at_all_is_lost() {
        let fleet = standby_below(60, &["a", "b", "b"]);
        fleet.probe(0, good_probe());
        fleet.take_down(1);
        assert_eq!(fleet.pool.view().open_tiers, [1], "b's other may answer");
        fleet.take_down(2);
        assert_eq!(fleet.pool.view().open_tiers, [1, 2], "one of three");
    }

    #[test]
    fn an_ejection_that_ends_is_no_answer() {
        let mut fleet = standby_below(100, &["a", "a"]);
        fleet.probe(0, good_probe());
        fleet.eject(1).expect("others are usable");
        assert_eq!(fleet.pool.view().open_tiers, [1]);
        fleet.pass(Duration::from_secs(30));
        fleet.pool.tick(fleet.now);
        fleet.take_down(1);
        assert_eq!(fleet.pool.view().open_tiers, [1]);
        fleet.bring_up(1);
        fleet.take_down(1);
        assert_eq!(fleet.pool.view().open_tiers, [1, 2]);
    }

    #[test]
    fn a_backend_without_an_address_is_lost() {
        for (percent, open) in [(50, &[1][..]), (51, &[1, 2])] {
            let fleet = standby_below(percent, &["a"]);
            let members = fleet.pool.members().iter();
            let members = members.map(|member| member.settings.clone()).collect();
            let (settings, shared) = (*fleet.pool.settings(), Arc::clone(&fleet.shared));
            let absent = Absent {
                tier: crate::types::Tier::FIRST,
                weight: Weight::ONE,
            };
            let pool = super::super::Pool::new(Arc::from("mx"), settings, members, shared);
            let pool = pool.lacking(vec![absent]);
            pool.install(fleet.now);
            assert_eq!(pool.view().open_tiers, open, "one of two, {percent} %");
        }
    }

    /// Picks, waits, holds and gives back until told to stop; counts the places it had.
    fn work(
        fleet: &Fleet,
        pools: &Mutex<Arc<Roll>>,
        seed: u64,
        stop: &AtomicBool,
        places: &AtomicUsize,
    ) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut rng = Rng::seeded(seed);
        let mut held: Vec<Slot> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let roll = Arc::clone(&lock(pools));
            let shared = &fleet.shared;
            let client = ClientKey(u128::from(rng.next()));
            let tried = Tried::default();
            let picked = match shared.pick(&roll, client, &tried, Purpose::Session, &mut rng) {
                Ok(slot) => Some(slot),
                Err(NoBackend::AllFull) => {
                    match shared.enqueue(&roll, client, &tried, Wish::Connection(Kind(0)), &mut rng)
                    {
                        Queued::Handed(handed) => Some(handed.into_parts().0),
                        Queued::Full => None,
                        Queued::Waiting(mut waiter) => loop {
                            // Somebody else may hold all places for ever: give some back meanwhile.
                            drop(held.pop());
                            match waiter.poll_handed(&mut Context::from_waker(&waker)) {
                                Poll::Ready(given) => {
                                    break given.ok().map(|given| given.into_parts().0);
                                }
                                Poll::Pending if stop.load(Ordering::Relaxed) => break None,
                                Poll::Pending => {
                                    std::thread::park_timeout(Duration::from_micros(200));
                                }
                            }
                        },
                    }
                }
                Err(_) => None,
            };
            if let Some(slot) = picked {
                let max = slot.member().settings.max_connections;
                let open = slot.member().state().open();
                assert!(max == 0 || open <= max, "{open} places of {max} are taken");
                places.fetch_add(1, Ordering::Relaxed);
                held.push(slot);
            }
            if held.len() > 20 || rng.below(3) == 0 {
                let at = rng.below(held.len() as u32) as usize;
                if at < held.len() {
                    drop(held.swap_remove(at));
                }
            }
        }
    }

    /// Flips states and weights, installs generations, ticks: at least 120 rounds, and until the
    /// workers have had their share of places meanwhile, however late they are scheduled.
    fn disturb(
        fleet: &Fleet,
        specs: &[Spec],
        settings: PoolSettings,
        pools: &Mutex<Arc<Roll>>,
        places: &AtomicUsize,
    ) {
        let mut rng = Rng::seeded(99);
        let mut now = fleet.now;
        for round in 0u16.. {
            if round >= 120 && places.load(Ordering::Relaxed) >= 400 {
                break;
            }
            now += Duration::from_millis(100);
            let state = &fleet.states[rng.below(specs.len() as u32) as usize];
            match rng.below(8) {
                0 => drop(state.set_admin(AdminState::Drain, Arc::from("t"), now)),
                1 | 2 => drop(state.set_admin(AdminState::Ready, Arc::from("t"), now)),
                3 => (0..3).for_each(|_| drop(state.probed(bad_probe(), now))),
                4 => (0..2).for_each(|_| drop(state.probed(good_probe(), now))),
                5 => (0..5).for_each(|_| drop(state.observe(strike(), now))),
                6 => state.set_weight(Weight::new(1 + round % 9), Arc::from("t"), now),
                _ => {
                    let after = Duration::from_millis(1);
                    drop(state.observe(Observation::Greeted { after }, now));
                }
            }
            drop(fleet.shared.tick(lock(pools).serial, Occasion::Change, now));
            if round % 20 == 0 {
                let members = fleet
                    .pool
                    .members()
                    .iter()
                    .map(|member| member.settings.clone())
                    .collect();
                let roll = Arc::new(Roll::new(
                    &Arc::from("mx"),
                    settings,
                    members,
                    &fleet.shared,
                ));
                *lock(pools) = Arc::clone(&roll);
                fleet.shared.install(&roll, now);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn threads_never_pass_a_limit_and_leave_nothing_behind() {
        for (balance, count) in [
            (Balance::LeastConnections, 6),
            (Balance::LeastConnections, 80),
            (Balance::RoundRobin, 6),
            (Balance::RoundRobin, 80),
            (Balance::RandomTwo, 80),
        ] {
            let settings = PoolSettings {
                balance,
                ..PoolSettings::default()
            };
            let specs: Vec<Spec> = (0u16..count)
                .map(|at| Spec {
                    weight: 1 + at % 3,
                    tier: 1 + u8::from(at % 5 == 4),
                    max: 1 + u32::from(at) % 3,
                    hourly: 0,
                })
                .collect();
            let fleet = Fleet::new(settings, &specs);
            let pools = Mutex::new(Arc::new(Roll::new(
                &Arc::from("mx"),
                settings,
                Vec::new(),
                &fleet.shared,
            )));
            let stop = AtomicBool::new(false);
            let places = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for seed in 0..4 {
                    let (fleet, pools, stop, places) = (&fleet, &pools, &stop, &places);
                    scope.spawn(move || work(fleet, pools, seed, stop, places));
                }
                // The workers end also when this thread panics, lest the scope wait for ever.
                let told = StopOnDrop(&stop);
                disturb(&fleet, &specs, settings, &pools, &places);
                drop(told);
            });
            fleet.assert_idle();
            assert_eq!(fleet.shared.waiting(), 0);
            lock(&fleet.shared.heap).assert_keys(&lock(&pools).members);
        }
    }

    #[test]
    fn a_session_that_panics_gives_its_place_back() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let slot = fleet.pick().expect("a place");
        let session = std::thread::spawn(move || {
            let _slot = slot;
            std::panic::resume_unwind(Box::new("a session's own mistake"));
        });
        assert!(session.join().is_err());
        fleet.assert_idle();
    }

    #[test]
    fn slots_of_old_generations_count_in_the_heap_of_the_new_one() {
        let specs = vec![Spec::weight(1); 70];
        let mut fleet = Fleet::new(PoolSettings::default(), &specs);
        let old: Vec<_> = (0..70).map(|_| fleet.pick().expect("a place")).collect();
        fleet.reload(PoolSettings::default(), &specs);
        let mut old = old.into_iter();
        drop(old.by_ref().take(35).collect::<Vec<_>>());
        for _ in 0..35 {
            let slot = fleet.pick().expect("a place");
            assert_eq!(
                slot.member().state().in_flight(),
                1,
                "the idle ones come first"
            );
            std::mem::forget(slot);
        }
        lock(&fleet.shared.heap).assert_keys(fleet.pool.members());
    }

    #[test]
    fn a_pool_works_before_and_after_it_is_installed() {
        for count in [3, 70] {
            let specs = vec![Spec::tier(2); count];
            let mut fleet = Fleet::new(PoolSettings::default(), &specs);
            let members = |fleet: &Fleet| -> Vec<_> {
                let each = fleet.pool.members().iter();
                each.map(|member| member.settings.clone()).collect()
            };
            let next = super::super::Pool::new(
                Arc::from("mx"),
                PoolSettings::default(),
                members(&fleet),
                Arc::clone(&fleet.shared),
            );
            let tried = Tried::default();
            let early = next.pick(ClientKey(1), &tried, fleet.now, &mut fleet.rng);
            next.install(fleet.now);
            let late = fleet.pick();
            assert!(early.is_ok() && late.is_ok());
            drop((early, late));
            fleet.assert_idle();
            lock(&fleet.shared.heap).assert_keys(next.members());
        }
    }

    /// Looks at a member and comparisons of keys, for one pick and its release.
    fn cost(balance: Balance, count: usize) -> u64 {
        let settings = PoolSettings {
            balance,
            ..PoolSettings::default()
        };
        let mut fleet = Fleet::equal(settings, count);
        let warm: Vec<_> = (0..count as u128 / 2)
            .map(|client| fleet.pick_for(client, &Tried::default()).expect("a place"))
            .collect();
        let before = super::super::member::looks();
        for client in 0..1000 {
            drop(fleet.pick_for(client, &Tried::default()).expect("a place"));
        }
        drop(warm);
        (super::super::member::looks() - before) / 1000
    }

    #[test]
    fn a_pick_among_ten_thousand_costs_at_most_four_among_ten() {
        for balance in [
            Balance::LeastConnections,
            Balance::RoundRobin,
            Balance::RandomTwo,
            Balance::SourceHash,
        ] {
            let (small, large) = (cost(balance, 10), cost(balance, 10_000));
            assert!(
                large <= 4 * small.max(1),
                "{balance:?}: {small} and {large}"
            );
        }
    }
}
