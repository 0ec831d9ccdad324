//! The state of one backend that outlives snapshots.
//!
//! What every pick reads are atomics: `open` and `in_flight` (one padded line, the only one the hot
//! path writes), and the standing (eligible or not, and the weight as balancing sees it now).
//! Everything else is behind a short lock that only changes of state take. Lock order: the pool's
//! roster, then the record here; see `shared.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::health::{Machine, Rules, Spare, Strike};
use super::shared::{PoolShared, lock};
use super::slow_start::{Fullness, Ramp, UNIT, effective};
use super::{
    AdminState, BackendTotals, BackendView, Cause, FailureKind, HealthState, Observation,
    OperatorMark, PoolSettings, ProbeReport, Stage, StateChange, Totals,
};
use crate::types::{Shards, Weight};

/// How far `last_greeted` must move before it is stored again.
const STAMP_STEP_MICROS: u64 = 10_000;

/// The greeting average takes in one part in so many of each new value.
const USUAL_PART: u64 = 8;

const READY: u64 = 1 << 32;
const HEALTHY: u64 = 1 << 33;
const WANTS_SUCCESSES: u64 = 1 << 34;
const WEIGHT: u64 = (1 << 32) - 1;

/// State of a backend, keyed by (pool, name, address) in the registry; shared by all threads.
pub struct BackendState {
    /// Counts by thread; index `workers` is the control thread's.
    pub totals: Shards<BackendTotals>,
    pool: Arc<str>,
    name: Arc<str>,
    address: SocketAddr,
    born: Instant,
    hot: CachePadded<Hot>,
    /// [`Standing`] in one word, written under the record's lock.
    standing: AtomicU64,
    /// [`Place`] in one word, written under the roster's lock.
    place: AtomicU64,
    /// Microseconds after `born`, plus 1; 0 is never.
    last_greeted: AtomicU64,
    /// Microseconds; 0 is unknown.
    usual_micros: AtomicU64,
    record: Mutex<Record>,
    /// The lines of its last reply to EHLO, without the first.
    announced: Mutex<Option<Arc<[Arc<str>]>>>,
    /// How often that was another list than before.
    drifts: AtomicU32,
    home: Mutex<Weak<PoolShared>>,
}

/// What picks and releases write.
#[derive(Debug, Default)]
struct Hot {
    open: AtomicU32,
    in_flight: AtomicU32,
    /// Connections that are being opened (rule N6).
    opening: AtomicU32,
    /// Round robin's virtual time at which this backend's next turn begins.
    turn: AtomicU64,
}

/// What a choice reads of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing(u64);

impl Standing {
    /// The operator lets it serve.
    pub(super) fn is_ready(self) -> bool {
        self.0 & READY != 0
    }

    /// Ready, and neither down nor ejected.
    pub(super) fn is_usable(self) -> bool {
        self.0 & (READY | HEALTHY) == READY | HEALTHY
    }

    /// In 1/256 of a unit; 0 before the first install.
    pub(super) fn weight_256(self) -> u32 {
        (self.0 & WEIGHT) as u32
    }
}

/// Where a backend is in the installed generation of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The generation's serial; 0 is none.
    pub(super) serial: u32,
    pub(super) index: u32,
}

/// What changes seldom.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) admin: AdminState,
    /// What the configuration says.
    configured_admin: AdminState,
    /// The operator who has set `admin` at run time; only while it differs from the configuration.
    admin_mark: Option<OperatorMark>,
    /// Why it is in drain or in maintenance.
    admin_cause: Cause,
    pub(super) machine: Machine,
    /// Why its health is as it is.
    cause: Cause,
    /// When the one word for its state last changed.
    since: Instant,
    configured: Weight,
    weight_override: Option<Weight>,
    /// The operator who has set it; only while it differs from the configuration.
    weight_mark: Option<OperatorMark>,
    ramp_from: Option<Instant>,
    slow_start: Duration,
    last_probe: Option<(Instant, ProbeReport)>,
}

/// What the pool must know after a record changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refreshed {
    pub(super) usable: bool,
    /// It was found well once, or nobody has judged it yet.
    pub(super) is_capacity: bool,
    /// The configured weight, or the operator's.
    pub(super) weight: Weight,
    pub(super) before: u32,
    pub(super) effective_256: u32,
    /// It was not usable, and is.
    pub(super) returns: bool,
    /// An ejection or a ramp is going on: `tick` must look at it.
    pub(super) timed: bool,
}

impl Record {
    fn state(&self) -> (AdminState, HealthState) {
        (self.admin, self.machine.state())
    }

    /// Why it is in the state that is shown: what sessions and probes find of a backend that the
    /// operator keeps out of service is not why it is out.
    fn shown_cause(&self) -> &Cause {
        match self.admin {
            AdminState::Ready => &self.cause,
            AdminState::Drain | AdminState::Maint => &self.admin_cause,
        }
    }

    /// The weight without slow start.
    pub(super) fn weight(&self) -> Weight {
        self.weight_override.unwrap_or(self.configured)
    }

    pub(super) fn configure(&mut self, weight: Weight, slow_start: Duration) {
        self.configured = weight;
        self.slow_start = slow_start;
        self.forget_idle_weight();
    }

    /// Drops an operator's weight that has become the configured one.
    fn forget_idle_weight(&mut self) {
        if self
            .weight_override
            .is_none_or(|weight| weight == self.configured)
        {
            self.weight_override = None;
            self.weight_mark = None;
        }
    }
}

impl fmt::Debug for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.pool, self.name, self.address)
    }
}

impl BackendState {
    /// A backend nobody has met yet. `shards` is workers + 1.
    pub fn new(
        pool: Arc<str>,
        name: Arc<str>,
        address: SocketAddr,
        admin: AdminState,
        shards: usize,
        now: Instant,
    ) -> Arc<Self> {
        let record = Record {
            admin,
            configured_admin: admin,
            admin_mark: None,
            admin_cause: Cause::of("start"),
            machine: Machine::new(),
            cause: Cause::of("start"),
            since: now,
            configured: Weight::ONE,
            weight_override: None,
            weight_mark: None,
            ramp_from: None,
            slow_start: Duration::ZERO,
            last_probe: None,
        };
        let ready = if admin == AdminState::Ready { READY } else { 0 };
        Arc::new(Self {
            totals: Shards::new(shards),
            pool,
            name,
            address,
            born: now,
            hot: CachePadded::new(Hot::default()),
            standing: AtomicU64::new(ready | HEALTHY | WANTS_SUCCESSES),
            place: AtomicU64::new(0),
            last_greeted: AtomicU64::new(0),
            usual_micros: AtomicU64::new(0),
            record: Mutex::new(record),
            announced: Mutex::new(None),
            drifts: AtomicU32::new(0),
            home: Mutex::new(Weak::new()),
        })
    }

    /// The name of its pool.
    pub fn pool(&self) -> &Arc<str> {
        &self.pool
    }

    /// Its name within the pool.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sockets now, those being dialled included.
    pub fn open(&self) -> u32 {
        self.hot.open.load(Ordering::SeqCst)
    }

    /// Sessions now: what balancing sees.
    pub fn in_flight(&self) -> u32 {
        self.hot.in_flight.load(Ordering::SeqCst)
    }

    /// What one attempt of a session showed. Cheap for a success of a healthy backend (no lock).
    pub fn observe(&self, observation: Observation, now: Instant) -> Option<StateChange> {
        let is_success = match observation {
            Observation::Greeted { after } => {
                if self.stamp(now) {
                    self.learn_usual(after);
                }
                true
            }
            Observation::Served => {
                self.stamp(now);
                true
            }
            Observation::Strike { .. } | Observation::RefusedClient { .. } => false,
        };
        if is_success && self.standing.load(Ordering::Acquire) & WANTS_SUCCESSES == 0 {
            return None;
        }
        self.change(now, |record, rules, spare| {
            let machine = &mut record.machine;
            match observation {
                Observation::Greeted { .. } | Observation::Served => {
                    machine.greeted(rules, spare, now)
                }
                Observation::Strike {
                    stage,
                    kind,
                    code,
                    text,
                    after,
                } => {
                    let strike = Strike {
                        stage,
                        kind,
                        code,
                        text,
                        after: Some(after),
                    };
                    machine.struck(&strike, rules, spare, now)
                }
                Observation::RefusedClient { client, code, text } => {
                    let strike = Strike {
                        stage: Stage::Greeting,
                        kind: FailureKind::Permanent,
                        code: Some(code),
                        text,
                        after: None,
                    };
                    machine.refused(client, &strike, rules, spare, now)
                }
            }
        })
    }

    /// What it announced last: the lines of its reply to EHLO, without the first. `None` before it
    /// was heard.
    pub fn announced(&self) -> Option<Arc<[Arc<str>]>> {
        lock(&self.announced).clone()
    }

    /// It has announced this. Returns whether it announced something else before.
    pub fn announces(&self, lines: &Arc<[Arc<str>]>) -> bool {
        let mut announced = lock(&self.announced);
        if announced.as_ref() == Some(lines) {
            return false;
        }
        let before = announced.replace(Arc::clone(lines));
        drop(announced);
        self.note_announcement();
        if before.is_some() {
            self.drifts.fetch_add(1, Ordering::Relaxed);
        }
        before.is_some()
    }

    /// How often it has announced other extensions than before.
    pub fn drifts(&self) -> u32 {
        self.drifts.load(Ordering::Relaxed)
    }

    fn note_announcement(&self) {
        if let Some(shared) = self.shared() {
            shared.announcements.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether it is neither down nor ejected.
    pub fn is_well(&self) -> bool {
        self.standing.load(Ordering::Acquire) & HEALTHY != 0
    }

    /// Whether the operator lets it serve: neither in drain nor in maintenance.
    pub fn is_in_service(&self) -> bool {
        self.standing().is_ready()
    }

    /// What one probe showed.
    pub fn probed(&self, report: ProbeReport, now: Instant) -> Option<StateChange> {
        // A probe that goes on to STARTTLS has heard what is announced within TLS.
        if report.failure.is_none() && report.stage == Stage::Ehlo {
            self.announces(&report.keywords);
        }
        self.change(now, |record, rules, _| {
            let cause = record.machine.probed(&report, rules, now);
            record.last_probe = Some((now, report));
            cause
        })
    }

    /// Sets the state at run time, for the operator. It holds until it equals the configured state or
    /// a reload changes the configured state. `None` if the backend is in that state already.
    pub fn set_admin(&self, state: AdminState, who: Arc<str>, now: Instant) -> Option<StateChange> {
        let change = self.change(now, |record, _, _| {
            if record.admin == state {
                return None;
            }
            record.admin = state;
            record.admin_mark = (state != record.configured_admin).then(|| OperatorMark {
                who: Arc::clone(&who),
                at: now,
            });
            record.admin_cause = Cause {
                who: Some(who),
                ..Cause::of("operator")
            };
            Some(record.admin_cause.clone())
        });
        // What a backend out of service announces does not count.
        self.note_announcement();
        change
    }

    /// Sets the state of a new configuration. A configured state that has not changed leaves the one
    /// that an operator has set at run time; a changed one replaces it.
    pub fn configure_admin(&self, state: AdminState, now: Instant) -> Option<StateChange> {
        let change = self.change(now, |record, _, _| {
            if record.configured_admin == state {
                return None;
            }
            record.configured_admin = state;
            record.admin_mark = None;
            record.admin_cause = Cause::of("reload");
            record.admin = state;
            Some(record.admin_cause.clone())
        });
        self.note_announcement();
        change
    }

    /// Sets the weight at run time; `None` returns to the configured one. Survives reloads, until it
    /// is the configured one. `source-hash` follows a weight above the configured one at the next
    /// reload.
    pub fn set_weight(&self, weight: Option<Weight>, who: Arc<str>, now: Instant) {
        self.change(now, |record, _, _| {
            record.weight_override = weight;
            record.weight_mark = Some(OperatorMark { who, at: now });
            record.forget_idle_weight();
            None
        });
    }

    /// What the operator wants, and what we found.
    pub fn state(&self) -> (AdminState, HealthState) {
        lock(&self.record).state()
    }

    /// The operator's weight, if set at run time.
    pub fn weight_override(&self) -> Option<Weight> {
        lock(&self.record).weight_override
    }

    /// Whether sessions' failures keep it out for now, and probes did not find it down.
    pub(super) fn is_ejected(&self) -> bool {
        lock(&self.record).machine.state() == HealthState::Ejected
    }

    /// The usual time to greet (an average that decays), for the hedge rule; `None` before the
    /// first greeting.
    pub fn usual_greeting(&self) -> Option<Duration> {
        match self.usual_micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Whether any session was greeted, or a transaction ended in order, at or after `since`
    /// (coarse: 10 ms).
    pub fn greeted_since(&self, since: Instant) -> bool {
        self.last_greeted.load(Ordering::Relaxed) > self.micros(since)
    }

    /// Whether the next probe should come after the fast interval.
    pub fn is_changing(&self) -> bool {
        lock(&self.record).machine.is_changing()
    }

    /// When it last served a live session well: that postpones the next probe.
    pub fn last_greeted(&self) -> Option<Instant> {
        let stamp = self.last_greeted.load(Ordering::Relaxed);
        Some(self.born + Duration::from_micros(stamp.checked_sub(1)?))
    }

    /// The sums over all threads.
    pub fn sums(&self) -> Totals {
        Totals {
            attempts: self.totals.sum(|shard| shard.attempts.value()),
            sessions: self.totals.sum(|shard| shard.sessions.value()),
            hedges: self.totals.sum(|shard| shard.hedges.value()),
            octets_to_backend: self.totals.sum(|shard| shard.octets_to_backend.value()),
            octets_to_client: self.totals.sum(|shard| shard.octets_to_client.value()),
        }
    }

    /// A copy of the state.
    pub fn view(&self, now: Instant) -> BackendView {
        let eject = self
            .shared()
            .map_or_else(PoolSettings::default, |shared| shared.settings())
            .eject;
        let record = lock(&self.record);
        BackendView {
            admin: record.admin,
            health: record.machine.state(),
            admin_mark: record.admin_mark.clone(),
            cause: record.shown_cause().clone(),
            since: record.since,
            ejected_until: record.machine.ejected_until(),
            ejections: record.machine.ejections(&eject, now),
            consecutive_strikes: record.machine.consecutive_strikes(),
            open: self.open(),
            in_flight: self.in_flight(),
            effective_weight_256: match self.standing().weight_256() {
                0 => u32::from(record.weight().value()) * UNIT,
                weight => weight,
            },
            weight_override: record.weight_override,
            weight_mark: record.weight_mark.clone(),
            last_probe: record.last_probe.clone(),
            usual_greeting: self.usual_greeting(),
        }
    }

    /// Notes a success, unless another was noted just before.
    fn stamp(&self, now: Instant) -> bool {
        let stamp = self.micros(now) + 1;
        let last = self.last_greeted.load(Ordering::Relaxed);
        let is_due = last == 0 || stamp >= last + STAMP_STEP_MICROS;
        if is_due {
            self.last_greeted.store(stamp, Ordering::Relaxed);
        }
        is_due
    }

    fn learn_usual(&self, after: Duration) {
        let after = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1);
        let usual = match self.usual_micros.load(Ordering::Relaxed) {
            0 => after,
            usual => usual - usual / USUAL_PART + after / USUAL_PART,
        };
        self.usual_micros.store(usual.max(1), Ordering::Relaxed);
    }

    fn micros(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_micros())
            .expect("584,000 years fit")
    }

    fn shared(&self) -> Option<Arc<PoolShared>> {
        lock(&self.home).upgrade()
    }

    /// Changes the record, under the locks of the pool it lives in, if it lives in one.
    fn change(
        &self,
        now: Instant,
        turn: impl FnOnce(&mut Record, &Rules, Spare) -> Option<Cause>,
    ) -> Option<StateChange> {
        if let Some(shared) = self.shared() {
            return shared.change(self, now, turn);
        }
        // No generation was installed yet: nothing is known of other backends, so none is spare.
        let rules = Rules::of(&PoolSettings::default());
        self.change_record(&rules, Spare::None, now, turn).0
    }

    /// Changes the record and publishes the standing. The caller holds the roster, if there is one.
    pub(super) fn change_record(
        &self,
        rules: &Rules,
        spare: Spare,
        now: Instant,
        turn: impl FnOnce(&mut Record, &Rules, Spare) -> Option<Cause>,
    ) -> (Option<StateChange>, Refreshed) {
        let mut record = lock(&self.record);
        let from = record.state();
        let cause = turn(&mut record, rules, spare);
        let to = record.state();
        let change = cause.filter(|_| from != to).map(|cause| {
            if from.1 != to.1 {
                record.cause = cause.clone();
            }
            // Health that changes while the operator keeps it out of service does not change that.
            if from.0 != to.0 || to.0 == AdminState::Ready {
                record.since = now;
            }
            StateChange {
                pool: Arc::clone(&self.pool),
                backend: Arc::clone(&self.name),
                address: self.address,
                from,
                to,
                cause,
            }
        });
        if is_return(from, to) {
            record.ramp_from = Some(now);
        }
        #[cfg(debug_assertions)]
        record.machine.check_invariants();
        let refreshed = self.publish(&mut record, now);
        (change, refreshed)
    }

    fn publish(&self, record: &mut Record, now: Instant) -> Refreshed {
        let health = record.machine.state();
        let fullness = match health {
            HealthState::Degraded => Fullness::Degraded,
            HealthState::Unknown | HealthState::Up | HealthState::Down | HealthState::Ejected => {
                Fullness::Well
            }
        };
        let (weight, ramp) = effective(
            record.weight(),
            fullness,
            record.ramp_from,
            record.slow_start,
            now,
        );
        if ramp == Ramp::Done {
            record.ramp_from = None;
        }
        let ready = record.admin == AdminState::Ready;
        let mut word = u64::from(weight);
        if ready {
            word |= READY;
        }
        if health.is_usable() {
            word |= HEALTHY;
        }
        if record.machine.wants_successes() {
            word |= WANTS_SUCCESSES;
        }
        let before = Standing(self.standing.swap(word, Ordering::SeqCst));
        let usable = Standing(word).is_usable();
        Refreshed {
            usable,
            is_capacity: usable || record.machine.has_answered(),
            weight: record.weight(),
            before: before.weight_256(),
            effective_256: weight,
            returns: usable && !before.is_usable(),
            timed: ramp == Ramp::Going || health == HealthState::Ejected,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        Standing(self.standing.load(Ordering::Acquire))
    }

    pub(super) fn place(&self) -> Place {
        let word = self.place.load(Ordering::Acquire);
        Place {
            serial: (word >> 32) as u32,
            index: word as u32,
        }
    }

    pub(super) fn settle_at(&self, home: &Arc<PoolShared>, place: Place) {
        *lock(&self.home) = Arc::downgrade(home);
        let word = u64::from(place.serial) << 32 | u64::from(place.index);
        self.place.store(word, Ordering::Release);
    }

    /// Takes a place if fewer than `max` are taken; 0 is no limit.
    pub(super) fn reserve(&self, max: u32) -> bool {
        if max == 0 {
            self.hot.open.fetch_add(1, Ordering::SeqCst);
        } else {
            let taken = self
                .hot
                .open
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| {
                    (open < max).then_some(open + 1)
                });
            if taken.is_err() {
                return false;
            }
        }
        self.hot.in_flight.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Gives a place back.
    pub(super) fn release(&self) {
        let in_flight = self.hot.in_flight.fetch_sub(1, Ordering::SeqCst);
        let open = self.hot.open.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(in_flight > 0 && open > 0, "a place is given back once");
    }

    /// A connection is kept and its session's place given back.
    pub(super) fn land(&self) {
        let in_flight = self.hot.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(in_flight > 0, "a place is given back once");
    }

    /// A kept connection serves again.
    pub(super) fn take_off(&self) {
        self.hot.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// One more connection is being opened, unless `max` are.
    pub(super) fn begin_opening(&self, max: u32) -> bool {
        let more = |opening: u32| (opening < max).then_some(opening + 1);
        // Relaxed: the count guards no other memory.
        let opening = &self.hot.opening;
        opening
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// It has been accepted, or given up.
    pub(super) fn end_opening(&self) {
        let before = self.hot.opening.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a place is given back once");
    }

    /// Round robin's virtual time at which the next turn begins.
    pub(super) fn turn(&self) -> u64 {
        self.hot.turn.load(Ordering::Relaxed)
    }

    pub(super) fn set_turn(&self, turn: u64) {
        self.hot.turn.store(turn, Ordering::Relaxed);
    }

    /// Moves the turn on from where a choice saw it; another thread may have moved it meanwhile.
    pub(super) fn move_turn(&self, seen: u64, start: u64, step: u64) {
        let next = seen.max(start) + step;
        let moved =
            self.hot
                .turn
                .compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_err() {
            self.hot.turn.fetch_add(step, Ordering::Relaxed);
        }
    }
}

/// Whether a change is a return to service, which starts slowly. The first verdict is none.
fn is_return(from: (AdminState, HealthState), to: (AdminState, HealthState)) -> bool {
    let serves = |(admin, health): (AdminState, HealthState)| {
        admin == AdminState::Ready && health.is_usable()
    };
    !serves(from) && serves(to)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fleet, Spec, bad_probe, good_probe};
    use super::*;

    fn slow(seconds: u64) -> PoolSettings {
        PoolSettings {
            slow_start: Duration::from_secs(seconds),
            ..PoolSettings::default()
        }
    }

    #[test]
    fn a_change_of_what_is_announced_is_counted_and_the_first_list_is_none() {
        let fleet = Fleet::equal(PoolSettings::default(), 1);
        let state = &fleet.pool.members()[0].settings.state;
        for (lines, changes) in [("SIZE", 0), ("SIZE", 0), ("DSN", 1), ("SIZE", 2)] {
            state.announces(&Arc::from([Arc::from(lines)]));
            assert_eq!(state.drifts(), changes, "{lines}");
        }
    }

    fn weights(fleet: &Fleet) -> Vec<u32> {
        let weight = |state: &Arc<BackendState>| state.view(fleet.now).effective_weight_256;
        fleet.states.iter().map(weight).collect()
    }

    #[test]
    fn nothing_starts_slowly_at_the_start_of_the_process() {
        let fleet = Fleet::equal(slow(100), 2);
        assert_eq!(weights(&fleet), [256, 256]);
        fleet.probe(0, good_probe());
        fleet.greet(1);
        assert_eq!(weights(&fleet), [256, 256]);
    }

    #[test]
    fn every_return_starts_slowly_and_ticks_let_it_grow() {
        type Step = fn(&mut Fleet);
        let returns: [(Step, Step); 4] = [
            (|fleet| fleet.take_down(0), |fleet| fleet.bring_up(0)),
            (
                |fleet| drop(fleet.eject(0)),
                |fleet| {
                    fleet.pass(Duration::from_secs(30));
                    assert_eq!(fleet.pool.tick(fleet.now).len(), 1);
                },
            ),
            (|fleet| drop(fleet.eject(0)), |fleet| fleet.bring_up(0)),
            (
                |fleet| drop(fleet.admin(0, AdminState::Drain)),
                |fleet| drop(fleet.admin(0, AdminState::Ready)),
            ),
        ];
        for (leave, come_back) in returns {
            let mut fleet = Fleet::equal(slow(100), 2);
            leave(&mut fleet);
            come_back(&mut fleet);
            assert_eq!(weights(&fleet), [16, 256]);
            for (seconds, weight) in [(50, 128), (25, 192), (25, 256)] {
                fleet.pass(Duration::from_secs(seconds));
                assert_eq!(fleet.pool.tick(fleet.now), []);
                assert_eq!(weights(&fleet), [weight, 256]);
            }
        }
    }

    #[test]
    fn the_operators_weight_and_state_survive_a_reload() {
        let mut fleet = Fleet::equal(PoolSettings::default(), 2);
        fleet.states[0].set_weight(Weight::new(7), Arc::from("jo"), fleet.now);
        let change = fleet.admin(1, AdminState::Drain).expect("it was ready");
        assert_eq!(change.from, (AdminState::Ready, HealthState::Unknown));
        assert_eq!(change.to, (AdminState::Drain, HealthState::Unknown));
        assert_eq!(change.cause.who.as_deref(), Some("test"));
        assert!(
            fleet.admin(1, AdminState::Drain).is_none(),
            "it is so already"
        );
        fleet.reload(PoolSettings::default(), &[Spec::weight(3), Spec::weight(3)]);
        assert_eq!(weights(&fleet), [7 * 256, 3 * 256]);
        assert_eq!(fleet.states[1].view(fleet.now).admin, AdminState::Drain);
        fleet.states[0].set_weight(None, Arc::from("jo"), fleet.now);
        assert_eq!(weights(&fleet)[0], 3 * 256);
    }

    /// Who set its state and its weight, as far as that holds.
    fn marks(fleet: &Fleet) -> [Option<Arc<str>>; 2] {
        let view = fleet.states[0].view(fleet.now);
        [view.admin_mark, view.weight_mark].map(|mark| mark.map(|mark| mark.who))
    }

    #[test]
    fn the_operators_mark_goes_when_it_no_longer_holds() {
        let mut fleet = Fleet::equal(slow(0), 2);
        let state = Arc::clone(&fleet.states[0]);
        let by = |who: &str| Some(Arc::from(who));
        fleet.probe(0, good_probe());
        assert_eq!(marks(&fleet), [None, None]);
        // A state that is set and taken back.
        fleet.pass(Duration::from_secs(1));
        state.set_admin(AdminState::Drain, Arc::from("jo"), fleet.now);
        let drained = fleet.now;
        fleet.pass(Duration::from_secs(1));
        state.set_admin(AdminState::Drain, Arc::from("again"), fleet.now);
        let view = state.view(fleet.now);
        assert_eq!((view.cause.origin, view.cause.who), ("operator", by("jo")));
        let mark = view.admin_mark.expect("the file says ready");
        assert_eq!(
            (mark.who, mark.at, view.since),
            (Arc::from("jo"), drained, drained)
        );
        state.set_admin(AdminState::Ready, Arc::from("al"), fleet.now);
        let view = state.view(fleet.now);
        assert_eq!((view.cause.origin, view.cause.who), ("probe", None));
        assert_eq!((marks(&fleet), view.since), ([None, None], fleet.now));
        // A new file says otherwise: it is the newer word, and the file's from then on.
        state.set_admin(AdminState::Maint, Arc::from("jo"), fleet.now);
        assert_eq!(state.configure_admin(AdminState::Ready, fleet.now), None);
        assert_eq!(marks(&fleet), [by("jo"), None], "a file that says the same");
        let change = state.configure_admin(AdminState::Drain, fleet.now);
        assert_eq!(change.expect("a change").to.0, AdminState::Drain);
        assert_eq!(marks(&fleet), [None, None]);
        assert_eq!(state.view(fleet.now).cause.origin, "reload");
        state.set_admin(AdminState::Ready, Arc::from("jo"), fleet.now);
        assert_eq!(marks(&fleet), [by("jo"), None], "the file says drain");
        assert!(
            state
                .configure_admin(AdminState::Ready, fleet.now)
                .is_none()
        );
        assert_eq!(marks(&fleet), [None, None], "the file says it too");
        // A weight that is taken back, set to the file's, or reached by the file.
        let weight = |value| state.set_weight(Weight::new(value), Arc::from("jo"), fleet.now);
        weight(7);
        assert_eq!(marks(&fleet), [None, by("jo")]);
        state.set_weight(None, Arc::from("jo"), fleet.now);
        assert_eq!(marks(&fleet), [None, None]);
        weight(1);
        assert_eq!(
            (marks(&fleet), state.weight_override()),
            ([None, None], None)
        );
        weight(7);
        fleet.reload(slow(0), &[Spec::weight(3), Spec::weight(1)]);
        assert_eq!(marks(&fleet), [None, by("jo")]);
        fleet.reload(slow(0), &[Spec::weight(7), Spec::weight(1)]);
        assert_eq!(marks(&fleet), [None, None]);
        fleet.reload(slow(0), &[Spec::weight(2), Spec::weight(1)]);
        assert_eq!(weights(&fleet)[0], 2 * 256, "the file's again");
    }

    #[test]
    fn a_drained_backend_says_who_drained_it_whatever_is_found_meanwhile() {
        let mut fleet = Fleet::equal(PoolSettings::default(), 2);
        fleet.admin(0, AdminState::Drain);
        let since = fleet.states[0].view(fleet.now).since;
        fleet.pass(Duration::from_secs(1));
        fleet.take_down(0);
        let view = fleet.states[0].view(fleet.now);
        assert_eq!((view.health, view.since), (HealthState::Down, since));
        assert_eq!(
            (view.cause.origin, view.cause.who.as_deref()),
            ("operator", Some("test"))
        );
        fleet.admin(0, AdminState::Ready);
        let view = fleet.states[0].view(fleet.now);
        assert_eq!((view.cause.origin, view.since), ("probe", fleet.now));
    }

    #[test]
    fn a_change_tells_what_happened() {
        let fleet = Fleet::equal(PoolSettings::default(), 2);
        fleet.probe(0, good_probe());
        let change = fleet.eject(0).expect("five strikes");
        assert_eq!((&*change.pool, &*change.backend), ("mx", "b0"));
        assert_eq!(change.from.1, HealthState::Up);
        assert_eq!(change.to.1, HealthState::Ejected);
        assert_eq!(change.cause.stage, Some(Stage::Greeting));
        assert_eq!(change.cause.kind, Some(FailureKind::Timeout));
        assert_eq!(change.cause.duration, Some(Duration::from_secs(8)));
        let view = fleet.states[0].view(fleet.now);
        assert_eq!(view.cause, change.cause);
        assert_eq!(
            view.ejected_until,
            Some(fleet.now + Duration::from_secs(30))
        );
        assert_eq!(view.ejections, 1);
    }

    #[test]
    fn the_last_usable_backend_over_all_tiers_is_not_ejected() {
        let fleet = Fleet::new(
            PoolSettings::default(),
            &[Spec::tier(1), Spec::tier(1), Spec::tier(2)],
        );
        assert!(fleet.eject(0).is_some());
        fleet.take_down(2);
        assert!(fleet.eject(1).is_none(), "nothing else is left");
        fleet.admin(1, AdminState::Drain);
        fleet.bring_up(2);
        assert!(fleet.eject(2).is_none(), "a drained one is no spare");
    }

    #[test]
    fn a_healthy_backend_remembers_its_greetings_without_a_lock() {
        let mut fleet = Fleet::equal(PoolSettings::default(), 1);
        let state = Arc::clone(&fleet.states[0]);
        assert_eq!((state.usual_greeting(), state.last_greeted()), (None, None));
        assert!(!state.greeted_since(fleet.now));
        fleet.greet(0);
        assert!(state.greeted_since(fleet.now));
        assert_eq!(state.last_greeted(), Some(fleet.now));
        assert_eq!(state.usual_greeting(), Some(Duration::from_millis(3)));
        let held = lock(&state.record);
        let first = fleet.now;
        fleet.pass(Duration::from_millis(9));
        fleet.greet(0);
        assert_eq!(state.last_greeted(), Some(first), "less than 10 ms later");
        fleet.pass(Duration::from_millis(1));
        fleet.greet(0);
        assert_eq!(state.last_greeted(), Some(fleet.now));
        drop(held);
    }

    #[test]
    fn the_usual_greeting_follows_slowly() {
        let mut fleet = Fleet::equal(PoolSettings::default(), 1);
        fleet.greet(0);
        for _ in 0..100 {
            fleet.pass(Duration::from_millis(20));
            let after = Duration::from_millis(500);
            fleet.states[0].observe(Observation::Greeted { after }, fleet.now);
        }
        let usual = fleet.states[0].usual_greeting().expect("it greeted");
        assert!(usual > Duration::from_millis(490) && usual <= Duration::from_millis(500));
    }

    #[test]
    fn switching_probes_off_brings_back_what_they_found_down() {
        let mut fleet = Fleet::equal(PoolSettings::default(), 2);
        fleet.take_down(0);
        let unprobed = PoolSettings {
            probed: false,
            ..PoolSettings::default()
        };
        fleet.reload(unprobed, &[Spec::weight(1), Spec::weight(1)]);
        let events = fleet.pool.tick(fleet.now);
        assert_eq!(events.len(), 1, "{events:?}");
        let view = fleet.states[0].view(fleet.now);
        assert_eq!(
            (view.health, view.cause.origin),
            (HealthState::Unknown, "reload")
        );
    }

    #[test]
    fn a_backend_that_no_pool_knows_is_not_ejected() {
        let now = Instant::now();
        let address = SocketAddr::from(([10, 0, 0, 1], 25));
        let (pool, name) = (Arc::from("mx"), Arc::from("a"));
        let state = BackendState::new(pool, name, address, AdminState::Ready, 1, now);
        for _ in 0..20 {
            assert!(
                state
                    .observe(super::super::testing::strike(), now)
                    .is_none()
            );
        }
        assert_eq!(state.view(now).health, HealthState::Unknown);
        assert!(state.probed(bad_probe(), now).is_some());
    }
}
