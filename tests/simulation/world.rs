//! A pool, its backends and its clients in virtual time, all from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use posthouse::balance::{
    AdminState, BackendState, Balance, Eject, Failback, FailureKind, Hedge, MemberSettings,
    NoBackend, Observation, Pool, PoolEvent, PoolSettings, PoolShared, Queued, Slot, Stage,
    StateChange, Tried, Waiter, WhenAllDown, Wish,
};
use posthouse::types::{ClientKey, Percent, Rng, Tier, Weight};

use crate::fault::{Fate, Nature};
use crate::model::{Asked, Excuse, Model, Via};

/// How long a world lasts.
const LIFE: Duration = Duration::from_mins(1);
const TICK: Duration = Duration::from_millis(100);
const ATTEMPTS_MAX: u32 = 3;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15);
const HEDGE_AFTER: Duration = Duration::from_secs(1);

/// What happened, so that a run can show that something did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    sessions: u64,
    served: u64,
    failed_over: u64,
    waited: u64,
    hedged: u64,
    hedges_won: u64,
    last_resorts: u64,
    ejected: u64,
    tiers_opened: u64,
    tiers_closed: u64,
    reloads: u64,
    refusals: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.served += other.served;
        self.failed_over += other.failed_over;
        self.waited += other.waited;
        self.hedged += other.hedged;
        self.hedges_won += other.hedges_won;
        self.last_resorts += other.last_resorts;
        self.ejected += other.ejected;
        self.tiers_opened += other.tiers_opened;
        self.tiers_closed += other.tiers_closed;
        self.reloads += other.reloads;
        for (reason, count) in &other.refusals {
            *self.refusals.entry(reason.clone()).or_default() += count;
        }
    }

    pub(crate) fn assert_eventful(&self) {
        let counts = [
            self.served,
            self.failed_over,
            self.waited,
            self.hedged,
            self.hedges_won,
            self.last_resorts,
            self.ejected,
            self.tiers_opened,
            self.tiers_closed,
            self.reloads,
        ];
        assert!(counts.iter().all(|count| *count > 20), "{self:?}");
        assert_eq!(
            self.refusals.len(),
            4,
            "every reason but an empty pool: {self:?}"
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    Arrive,
    /// A dial of a session comes to its end.
    Dial(u64, u64),
    /// A session looks whether to hedge.
    Hedge(u64),
    QueueTimeout(u64),
    Leave(u64),
    Probe(usize),
    Change(usize),
    Operator,
    Reload,
}

#[derive(Debug)]
struct Dialled {
    id: u64,
    slot: Slot,
    since: Instant,
    fate: Fate,
    hedge: bool,
}

#[derive(Debug)]
struct Session {
    client: ClientKey,
    tried: Tried,
    attempts: u32,
    dials: Vec<Dialled>,
    waiter: Option<(Waiter, Arc<Bell>)>,
    serving: Option<Slot>,
}

#[derive(Debug, Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Backend {
    state: Arc<BackendState>,
    nature: Nature,
}

struct World {
    rng: Rng,
    start: Instant,
    now: Instant,
    order: u64,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    shared: Arc<PoolShared>,
    pool: Arc<Pool>,
    settings: PoolSettings,
    backends: Vec<Backend>,
    sessions: BTreeMap<u64, Session>,
    model: Model,
    tally: Tally,
    excuse: Excuse,
}

/// Plays the world of this seed to its end.
pub(crate) fn play(seed: u64) -> Tally {
    let mut world = World::new(seed);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at > world.start + LIFE {
            break;
        }
        world.now = at;
        world.excuse = Excuse::None;
        world.happen(event);
        world.serve_called();
        world.check();
    }
    world.end();
    world.tally
}

fn settings(rng: &mut Rng) -> PoolSettings {
    let seconds = |count: u32| Duration::from_secs(u64::from(count));
    let balance = match rng.below(8) {
        0 => Balance::RoundRobin,
        1 => Balance::RandomTwo,
        2 => Balance::SourceHash,
        3 => Balance::First,
        _ => Balance::LeastConnections,
    };
    PoolSettings {
        balance,
        when_all_down: if rng.below(2) == 0 {
            WhenAllDown::Try
        } else {
            WhenAllDown::Refuse
        },
        open_standby_below: Percent::new([1, 1, 30, 60][rng.below(4) as usize])
            .expect("a percentage"),
        failback: if rng.below(4) == 0 {
            Failback::Manual
        } else {
            Failback::Auto
        },
        failback_after: seconds(rng.below(15)),
        spill_when_full: rng.below(3) == 0,
        slow_start: seconds([0, 5, 30][rng.below(3) as usize]),
        queue_max: [0, 2, 1024][rng.below(3) as usize],
        rise: 1 + rng.below(3) as u8,
        fall: 1 + rng.below(3) as u8,
        probed: rng.below(4) > 0,
        eject: Eject {
            time: seconds(3 + rng.below(10)),
            max_time: seconds(30),
            ..Eject::default()
        },
        hedge: Hedge {
            enabled: rng.below(4) > 0,
            ..Hedge::default()
        },
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let start = Instant::now();
        let shared = PoolShared::new(Arc::from("mx"));
        let settings = settings(&mut rng);
        let count = match rng.below(12) {
            0 => 66 + rng.below(10),
            1 => 1,
            _ => 2 + rng.below(7),
        };
        let pool = Pool::new(Arc::from("mx"), settings, Vec::new(), Arc::clone(&shared));
        let mut world = Self {
            rng,
            start,
            now: start,
            order: 0,
            events: BinaryHeap::new(),
            shared,
            pool: Arc::new(pool),
            settings,
            backends: Vec::new(),
            sessions: BTreeMap::new(),
            model: Model::new(),
            tally: Tally::default(),
            excuse: Excuse::Reload,
        };
        (0..count).for_each(|_| world.add_backend());
        world.reload();
        world.check();
        world.plan(TICK, Event::Tick);
        for event in [Event::Arrive, Event::Operator, Event::Reload] {
            let after = world.between(0, 4000);
            world.plan(after, event);
        }
        world
    }

    fn between(&mut self, from_millis: u32, to_millis: u32) -> Duration {
        Duration::from_millis(u64::from(
            from_millis + self.rng.below(to_millis - from_millis + 1),
        ))
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.order += 1;
        self.events
            .push(Reverse((self.now + after, self.order, event)));
    }

    fn add_backend(&mut self) {
        let at = self.backends.len();
        let name: Arc<str> = Arc::from(format!("b{at}"));
        let address = SocketAddr::from(([10, 0, 0, at as u8], 25));
        let pool = Arc::from("mx");
        let admin = AdminState::Ready;
        let state = BackendState::new(pool, Arc::clone(&name), address, admin, 1, self.now);
        self.model.meet(&name);
        let nature = Nature::random(&mut self.rng);
        self.backends.push(Backend { state, nature });
        let (probe, change) = (self.between(0, 3000), self.between(1000, 30_000));
        self.plan(probe, Event::Probe(at));
        self.plan(change, Event::Change(at));
    }

    /// A generation with other limits, tiers and weights, without some, and once with a new one.
    fn reload(&mut self) {
        self.excuse = Excuse::Reload;
        self.tally.reloads += 1;
        if self.rng.below(4) == 0 && self.backends.len() < 100 {
            self.add_backend();
        }
        if self.rng.below(3) == 0 {
            self.settings = settings(&mut self.rng);
        }
        let limit = [0, 0, 3, 8][self.rng.below(4) as usize];
        let tiers = 1 + self.rng.below(3);
        let mut members = Vec::new();
        for backend in &self.backends {
            if self.rng.below(10) == 0 && !members.is_empty() {
                continue;
            }
            members.push(MemberSettings {
                quota: None,
                name: Arc::clone(backend.state.name()),
                address: backend.state.address(),
                weight: Weight::new(1 + self.rng.below(4) as u16).expect("a weight"),
                tier: Tier::new(1 + self.rng.below(tiers) as u8).expect("a tier"),
                max_connections: if limit == 0 {
                    0
                } else {
                    1 + self.rng.below(limit)
                },
                state: Arc::clone(&backend.state),
            });
        }
        let shared = Arc::clone(&self.shared);
        let pool = Pool::new(Arc::from("mx"), self.settings, members, shared);
        self.pool = Arc::new(pool);
        self.pool.install(self.now);
        self.model.installed(&self.pool);
        let events = self.pool.tick(self.now);
        self.note_all(&events);
    }

    fn note_all(&mut self, events: &[PoolEvent]) {
        for event in events {
            match event {
                PoolEvent::Changed(change) => self.note(Some(change.clone())),
                PoolEvent::TierOpened { .. } => self.tally.tiers_opened += 1,
                PoolEvent::TierClosed { .. } => self.tally.tiers_closed += 1,
                PoolEvent::Quota { .. } => {}
            }
        }
    }

    fn note(&mut self, change: Option<StateChange>) {
        if let Some(change) = change {
            let ejected = posthouse::balance::HealthState::Ejected;
            self.tally.ejected += u64::from(change.to.1 == ejected);
            self.model.changed(&self.pool, &change);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => {
                let events = self.pool.tick(self.now);
                self.note_all(&events);
                self.plan(TICK, Event::Tick);
            }
            Event::Arrive => self.arrive(),
            Event::Dial(session, dial) => self.dial_ended(session, dial),
            Event::Hedge(session) => self.hedge(session),
            Event::QueueTimeout(session) => {
                let waits = |session: &Session| session.waiter.is_some();
                if self.sessions.get(&session).is_some_and(waits) {
                    self.sessions.remove(&session);
                }
            }
            Event::Leave(session) => {
                let left = self.sessions.remove(&session);
                if let Some(slot) = left.and_then(|mut session| session.serving.take()) {
                    self.release(slot);
                }
            }
            Event::Probe(at) => self.probe(at),
            Event::Change(at) => {
                self.backends[at].nature = Nature::random(&mut self.rng);
                let after = self.between(2000, 40_000);
                self.plan(after, Event::Change(at));
            }
            Event::Operator => self.operate(),
            Event::Reload => {
                self.reload();
                let after = self.between(5000, 40_000);
                self.plan(after, Event::Reload);
            }
        }
    }

    fn arrive(&mut self) {
        self.tally.sessions += 1;
        let id = self.tally.sessions;
        let session = Session {
            client: ClientKey(u128::from(self.rng.below(40))),
            tried: Tried::default(),
            attempts: 0,
            dials: Vec::new(),
            waiter: None,
            serving: None,
        };
        self.sessions.insert(id, session);
        self.look_for_place(id);
        let after = self.between(0, 250);
        self.plan(after, Event::Arrive);
    }

    /// Pick, or wait, or give up.
    fn look_for_place(&mut self, id: u64) {
        let session = &self.sessions[&id];
        let (client, tried) = (session.client, session.tried.clone());
        let pool = Arc::clone(&self.pool);
        let asked = Asked {
            pool: &pool,
            tried: &tried,
            via: Via::Pick,
        };
        if pool.waiting() == 0 {
            match pool.pick(client, &tried, self.now, &mut self.rng) {
                Ok(slot) => {
                    self.model.assert_least(&asked, &slot, self.now);
                    self.model.picked(&asked, &slot);
                    return self.dial(id, slot, false);
                }
                Err(reason) => {
                    self.model.refused(&asked, reason);
                    if reason != NoBackend::AllFull {
                        let reason = format!("{reason:?}");
                        *self.tally.refusals.entry(reason).or_default() += 1;
                        self.sessions.remove(&id);
                        return;
                    }
                }
            }
        }
        match pool.enqueue(client, &tried, Wish::Place, &mut self.rng) {
            Queued::Handed(handed) => {
                let (slot, _) = handed.into_parts();
                self.model.picked(&asked, &slot);
                self.dial(id, slot, false);
            }
            Queued::Waiting(waiter) => {
                self.tally.waited += 1;
                let bell = Arc::new(Bell(AtomicBool::new(true)));
                let session = self.sessions.get_mut(&id).expect("it came just now");
                session.waiter = Some((waiter, bell));
                self.plan(QUEUE_TIMEOUT, Event::QueueTimeout(id));
            }
            Queued::Full => {
                let reason = format!("{:?}", NoBackend::AllFull);
                *self.tally.refusals.entry(reason).or_default() += 1;
                self.sessions.remove(&id);
            }
        }
    }

    /// Polls those whose bell rang, until none rings any more.
    fn serve_called(&mut self) {
        loop {
            let called = self.sessions.iter().find_map(|(id, session)| {
                let (_, bell) = session.waiter.as_ref()?;
                bell.0.swap(false, Ordering::Relaxed).then_some(*id)
            });
            let Some(id) = called else { return };
            let session = self.sessions.get_mut(&id).expect("it was found");
            let (mut waiter, bell) = session.waiter.take().expect("it waits");
            let waker = Waker::from(Arc::clone(&bell));
            match waiter.poll_handed(&mut Context::from_waker(&waker)) {
                Poll::Pending => session.waiter = Some((waiter, bell)),
                Poll::Ready(Ok(handed)) => {
                    let (slot, _) = handed.into_parts();
                    let tried = session.tried.clone();
                    let pool = Arc::clone(&self.pool);
                    let asked = Asked {
                        pool: &pool,
                        tried: &tried,
                        via: Via::Queue,
                    };
                    self.model.picked(&asked, &slot);
                    self.dial(id, slot, false);
                }
                Poll::Ready(Err(())) => {
                    drop(waiter);
                    self.look_for_place(id);
                }
            }
        }
    }

    fn dial(&mut self, id: u64, slot: Slot, hedge: bool) {
        let mode = slot.mode();
        if mode == posthouse::balance::PickMode::LastResort {
            self.tally.last_resorts += 1;
        }
        let name = &slot.member().settings.name;
        let at: usize = name[1..].parse().expect("backends are b0, b1 …");
        let session = self.sessions.get_mut(&id).expect("it dials");
        session.attempts += u32::from(!hedge);
        assert!(session.attempts <= ATTEMPTS_MAX);
        session.tried.add(slot.member());
        let fate = self.backends[at]
            .nature
            .fate(mode, session.client, &mut self.rng);
        self.order += 1;
        let (dial, after) = (self.order, fate.after);
        session.dials.push(Dialled {
            id: dial,
            slot,
            since: self.now,
            fate,
            hedge,
        });
        self.plan(after, Event::Dial(id, dial));
        if !hedge {
            self.plan(HEDGE_AFTER, Event::Hedge(id));
        }
    }

    fn dial_ended(&mut self, id: u64, dial: u64) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(at) = session.dials.iter().position(|dialled| dialled.id == dial) else {
            return;
        };
        let ended = session.dials.swap_remove(at);
        let seen = ended.fate.seen.clone();
        let change = ended.slot.member().settings.state.observe(seen, self.now);
        self.note(change);
        match ended.fate.seen {
            Observation::Greeted { .. } | Observation::Served => self.commit(id, ended),
            Observation::RefusedClient { .. } => {
                // Relayed: the session ends here, and so do its other dials.
                let session = self.sessions.remove(&id).expect("it was found above");
                self.release(ended.slot);
                for other in session.dials {
                    self.release(other.slot);
                }
            }
            Observation::Strike { .. } => {
                self.release(ended.slot);
                let session = &self.sessions[&id];
                if !session.dials.is_empty() {
                    return;
                }
                if session.attempts < ATTEMPTS_MAX {
                    self.look_for_place(id);
                } else {
                    self.sessions.remove(&id);
                }
            }
        }
    }

    fn commit(&mut self, id: u64, won: Dialled) {
        self.tally.served += 1;
        self.tally.hedges_won += u64::from(won.hedge);
        let session = self.sessions.get_mut(&id).expect("it was greeted");
        self.tally.failed_over += u64::from(session.attempts > 1);
        session.serving = Some(won.slot);
        let losers = std::mem::take(&mut session.dials);
        for loser in losers {
            let silent = Observation::Strike {
                stage: Stage::Greeting,
                kind: FailureKind::Silent,
                code: None,
                text: None,
                after: self.now - loser.since,
            };
            let change = loser.slot.member().settings.state.observe(silent, self.now);
            self.note(change);
            self.release(loser.slot);
        }
        let after = self.between(5, 4000);
        self.plan(after, Event::Leave(id));
    }

    fn hedge(&mut self, id: u64) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let [dialled] = &session.dials[..] else {
            return;
        };
        let state = &dialled.slot.member().settings.state;
        let early = self.now < dialled.since + HEDGE_AFTER;
        if early || dialled.hedge || state.greeted_since(dialled.since) {
            return;
        }
        let (client, tried) = (session.client, session.tried.clone());
        let pool = Arc::clone(&self.pool);
        let picked = pool.pick_hedge(client, &tried, self.now, &mut self.rng);
        if let Ok(slot) = picked {
            let asked = Asked {
                pool: &pool,
                tried: &tried,
                via: Via::Hedge,
            };
            self.model.picked(&asked, &slot);
            self.tally.hedged += 1;
            assert!(self.settings.hedge.enabled);
            self.dial(id, slot, true);
        }
    }

    fn release(&mut self, slot: Slot) {
        let name = Arc::clone(&slot.member().settings.name);
        self.model.released(&name);
        drop(slot);
    }

    fn probe(&mut self, at: usize) {
        let backend = &self.backends[at];
        let name = backend.state.name();
        let known = self.model.beliefs[name].admin != AdminState::Maint;
        let listed = self.pool.members().iter();
        let listed = listed
            .map(|member| &member.settings.name)
            .any(|other| other == name);
        let fast = backend.state.is_changing();
        if self.settings.probed && known && listed {
            let report = backend.nature.probe(&mut self.rng);
            let change = backend.state.probed(report, self.now);
            self.note(change);
        }
        let after = if fast {
            self.between(800, 1200)
        } else {
            self.between(4000, 6000)
        };
        self.plan(after, Event::Probe(at));
    }

    fn operate(&mut self) {
        let at = self.rng.below(self.backends.len() as u32) as usize;
        let state = Arc::clone(&self.backends[at].state);
        let who = Arc::from("jo");
        match self.rng.below(8) {
            0 => self.note(state.set_admin(AdminState::Drain, who, self.now)),
            1 => self.note(state.set_admin(AdminState::Maint, who, self.now)),
            2 => {
                let weight = (self.rng.below(3) > 0).then(|| 1 + self.rng.below(9) as u16);
                state.set_weight(weight.and_then(Weight::new), who, self.now);
                self.model.weighs(state.name(), weight);
            }
            3 => {
                self.excuse = Excuse::FailBack;
                let events = self.pool.fail_back(self.now);
                self.note_all(&events);
            }
            _ => {
                for backend in 0..self.backends.len() {
                    let state = Arc::clone(&self.backends[backend].state);
                    self.note(state.set_admin(AdminState::Ready, Arc::from("jo"), self.now));
                    // Each is a change of its own: who waits is called before the next one.
                    self.serve_called();
                }
            }
        }
        let after = self.between(500, 8000);
        self.plan(after, Event::Operator);
    }

    fn check(&mut self) {
        self.model.check_tiers(&self.pool, self.now, self.excuse);
        // A large pool is read as a whole now and then; what a pick did is checked at the pick.
        if self.backends.len() > 20 && self.rng.below(8) > 0 && self.excuse == Excuse::None {
            return;
        }
        self.model.check(&self.pool, self.now);
        let mut waiting = 0;
        for session in self.sessions.values() {
            if session.waiter.is_some() {
                waiting += 1;
                self.model.assert_waits_for_good(&Asked {
                    pool: &self.pool,
                    tried: &session.tried,
                    via: Via::Pick,
                });
            }
        }
        assert_eq!(self.pool.waiting(), waiting);
        let budget = self.tally.sessions / 10 + u64::from(self.settings.hedge.burst) + 1;
        assert!(self.tally.hedged <= budget, "hedges are over their budget");
    }

    /// Everybody leaves: nothing may stay behind.
    fn end(&mut self) {
        for (_, session) in std::mem::take(&mut self.sessions) {
            drop(session);
        }
        assert_eq!(self.pool.waiting(), 0);
        for backend in &self.backends {
            let state = &backend.state;
            assert_eq!(
                (state.open(), state.in_flight()),
                (0, 0),
                "{}",
                state.name()
            );
        }
        for belief in self.model.beliefs.values_mut() {
            belief.held = 0;
        }
        self.model.check(&self.pool, self.now);
        self.model.check_tiers(&self.pool, self.now, Excuse::NoTick);
    }
}
