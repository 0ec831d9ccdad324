//! A small fleet for the unit tests of this folder.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    AdminState, BackendState, Epoch, FailureKind, Limited, MemberSettings, NoBackend, Observation,
    Pool, PoolSettings, PoolShared, ProbeReport, Quota, QuotaUnit, Quotas, Slot, Stage,
    StateChange, Tried,
};
use crate::types::{ClientKey, Rng, Tier, Weight};

/// One backend of a fleet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) weight: u16,
    pub(super) tier: u8,
    pub(super) max: u32,
    /// Messages an hour; 0 is no limit.
    pub(super) hourly: u64,
}

impl Spec {
    pub(super) fn weight(weight: u16) -> Self {
        Self {
            weight,
            tier: 1,
            max: 0,
            hourly: 0,
        }
    }

    pub(super) fn tier(tier: u8) -> Self {
        Self {
            weight: 1,
            tier,
            max: 0,
            hourly: 0,
        }
    }

    pub(super) fn max(max: u32) -> Self {
        Self {
            weight: 1,
            tier: 1,
            max,
            hourly: 0,
        }
    }
}

pub(super) struct Fleet {
    pub(super) shared: Arc<PoolShared>,
    pub(super) states: Vec<Arc<BackendState>>,
    pub(super) pool: Pool,
    pub(super) now: Instant,
    pub(super) rng: Rng,
}

impl Fleet {
    pub(super) fn new(settings: PoolSettings, specs: &[Spec]) -> Self {
        let now = Instant::now();
        let shared = PoolShared::new(Arc::from("mx"));
        let states: Vec<_> = (0..specs.len()).map(|at| state(at, now)).collect();
        let pool = build(settings, specs, &states, &shared);
        pool.install(now);
        Self {
            shared,
            states,
            pool,
            now,
            rng: Rng::seeded(1),
        }
    }

    /// `count` equal backends.
    pub(super) fn equal(settings: PoolSettings, count: usize) -> Self {
        Self::new(settings, &vec![Spec::weight(1); count])
    }

    /// A reload; backends keep their state by position.
    pub(super) fn reload(&mut self, settings: PoolSettings, specs: &[Spec]) {
        for at in self.states.len()..specs.len() {
            self.states.push(state(at, self.now));
        }
        self.pool = build(settings, specs, &self.states, &self.shared);
        self.pool.install(self.now);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn pick(&mut self) -> Result<Slot, NoBackend> {
        self.pick_for(1, &Tried::default())
    }

    pub(super) fn pick_for(&mut self, client: u128, tried: &Tried) -> Result<Slot, NoBackend> {
        self.pool
            .pick(ClientKey(client), tried, self.now, &mut self.rng)
    }

    /// The backend of a pick whose slot is given back at once.
    pub(super) fn glance(&mut self) -> usize {
        let slot = self.pick().expect("a backend can take a session");
        number(&slot)
    }

    pub(super) fn strike(&self, at: usize) -> Option<StateChange> {
        self.states[at].observe(strike(), self.now)
    }

    /// Strikes until it is ejected, or would be.
    pub(super) fn eject(&self, at: usize) -> Option<StateChange> {
        (0..5).find_map(|_| self.strike(at))
    }

    pub(super) fn greet(&self, at: usize) -> Option<StateChange> {
        let after = Duration::from_millis(3);
        self.states[at].observe(Observation::Greeted { after }, self.now)
    }

    pub(super) fn probe(&self, at: usize, report: ProbeReport) -> Option<StateChange> {
        self.states[at].probed(report, self.now)
    }

    pub(super) fn take_down(&self, at: usize) {
        (0..3).for_each(|_| drop(self.probe(at, bad_probe())));
    }

    pub(super) fn bring_up(&self, at: usize) {
        (0..2).for_each(|_| drop(self.probe(at, good_probe())));
    }

    pub(super) fn admin(&self, at: usize, admin: AdminState) -> Option<StateChange> {
        self.states[at].set_admin(admin, Arc::from("test"), self.now)
    }

    pub(super) fn tried(&self, which: &[usize]) -> Tried {
        let mut tried = Tried::default();
        for member in self.pool.members() {
            if which
                .iter()
                .any(|at| Arc::ptr_eq(&self.states[*at], &member.settings.state))
            {
                tried.add(member);
            }
        }
        tried
    }

    pub(super) fn assert_idle(&self) {
        for state in &self.states {
            assert_eq!(
                (state.open(), state.in_flight()),
                (0, 0),
                "{}",
                state.name()
            );
        }
        self.shared.check_invariants();
    }
}

/// The position of a slot's backend in its fleet.
pub(super) fn number(slot: &Slot) -> usize {
    slot.member().settings.name[1..]
        .parse()
        .expect("backends are named b0, b1 …")
}

fn state(at: usize, now: Instant) -> Arc<BackendState> {
    let name = Arc::from(format!("b{at}"));
    BackendState::new(
        Arc::from("mx"),
        name,
        address(at),
        AdminState::Ready,
        1,
        now,
    )
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, (at >> 16) as u8, (at >> 8) as u8, at as u8], 25))
}

fn build(
    settings: PoolSettings,
    specs: &[Spec],
    states: &[Arc<BackendState>],
    shared: &Arc<PoolShared>,
) -> Pool {
    let members = specs
        .iter()
        .zip(states)
        .map(|(spec, state)| MemberSettings {
            quota: (spec.hourly > 0).then(|| hourly(spec.hourly)),
            name: Arc::clone(state.name()),
            address: state.address(),
            weight: Weight::new(spec.weight).expect("a weight"),
            tier: Tier::new(spec.tier).expect("a tier"),
            max_connections: spec.max,
            state: Arc::clone(state),
        })
        .collect();
    Pool::new(Arc::from("mx"), settings, members, Arc::clone(shared))
}

fn hourly(count: u64) -> Limited {
    let quota = Quota {
        count,
        period: Duration::from_hours(1),
        unit: QuotaUnit::Messages,
    };
    let epoch = Epoch {
        instant: Instant::now(),
        unix: Duration::ZERO,
    };
    Quotas::new(epoch).limited(&[quota])
}

pub(super) fn strike() -> Observation {
    Observation::Strike {
        stage: Stage::Greeting,
        kind: FailureKind::Timeout,
        code: None,
        text: None,
        after: Duration::from_secs(8),
    }
}

pub(super) fn good_probe() -> ProbeReport {
    ProbeReport {
        stage: Stage::Ehlo,
        failure: None,
        code: Some(250),
        text: None,
        duration: Duration::from_millis(9),
        greeting: Some(Duration::from_millis(3)),
        full: false,
        keywords: Arc::from([]),
        certificate_days: None,
    }
}

pub(super) fn bad_probe() -> ProbeReport {
    ProbeReport {
        stage: Stage::Connect,
        failure: Some(FailureKind::Refused),
        code: None,
        greeting: None,
        ..good_probe()
    }
}

pub(super) fn full_probe() -> ProbeReport {
    ProbeReport {
        stage: Stage::Greeting,
        failure: Some(FailureKind::Temporary),
        code: Some(421),
        full: true,
        ..good_probe()
    }
}
