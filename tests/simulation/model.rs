//! What must be true, computed from scratch: the model keeps its own counts, its own picture of
//! every backend's state (from the changes that were reported), and its own clock of the tiers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthouse::balance::{
    AdminState, Balance, Failback, HealthState, Member, NoBackend, PickMode, Pool, PoolSettings,
    Slot, StateChange, Tried, WhenAllDown,
};

/// How late a timer may be: ticks come every 100 ms.
const TICK: Duration = Duration::from_millis(100);

/// What the model believes of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Belief {
    pub(crate) admin: AdminState,
    pub(crate) health: HealthState,
    /// Places held by sessions.
    pub(crate) held: u32,
    /// Places that were handed to waiters who were not polled since: nobody else can have them.
    /// Read from the counts at each pick; after every event there are none.
    handed: u32,
    /// What the operator has said, while it is not what the configuration says.
    weight: Option<u16>,
    /// What the last configuration said that named it.
    configured: u16,
}

/// The picture of one pool.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) beliefs: BTreeMap<Arc<str>, Belief>,
    /// By tier: since when the tiers before it are well, while it is open.
    well_since: BTreeMap<u8, Instant>,
    open: Vec<u8>,
}

/// What the session that asked had.
pub(crate) struct Asked<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) tried: &'a Tried,
    pub(crate) via: Via,
}

/// How a session came by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Pick,
    Hedge,
    /// Handed over a moment ago: what came free since then is the next waiter's.
    Queue,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            beliefs: BTreeMap::new(),
            well_since: BTreeMap::new(),
            open: Vec::new(),
        }
    }

    pub(crate) fn meet(&mut self, name: &Arc<str>) {
        self.beliefs.entry(Arc::clone(name)).or_insert(Belief {
            admin: AdminState::Ready,
            health: HealthState::Unknown,
            held: 0,
            handed: 0,
            weight: None,
            configured: 1,
        });
    }

    /// The operator sets a weight, or takes it back.
    pub(crate) fn weighs(&mut self, name: &Arc<str>, weight: Option<u16>) {
        let belief = self.beliefs.get_mut(name).expect("it is of this world");
        belief.weight = weight.filter(|weight| *weight != belief.configured);
    }

    /// A generation is installed: a weight of the operator's that is the configured one now is
    /// nobody's word any more.
    pub(crate) fn installed(&mut self, pool: &Pool) {
        for member in pool.members() {
            let belief = self.beliefs.get_mut(&member.settings.name);
            let belief = belief.expect("it is of this world");
            belief.configured = member.settings.weight.value();
            belief.weight = belief.weight.filter(|weight| *weight != belief.configured);
        }
    }

    fn belief(&self, member: &Member) -> &Belief {
        &self.beliefs[&member.settings.name]
    }

    fn is_usable(&self, member: &Member) -> bool {
        let belief = self.belief(member);
        belief.admin == AdminState::Ready && belief.health.is_usable()
    }

    fn is_full(&self, member: &Member) -> bool {
        let max = member.settings.max_connections;
        let belief = self.belief(member);
        max > 0 && belief.held + belief.handed >= max
    }

    /// Finds the places of waiters that were called and not polled, before a pick is judged that
    /// got `slot`: between the call and the poll others may pick.
    fn count_handed(&mut self, pool: &Pool, slot: Option<&Slot>) {
        for member in pool.members() {
            let own = slot.is_some_and(|slot| slot.member().settings.name == member.settings.name);
            let belief = self.beliefs.get_mut(&member.settings.name);
            let belief = belief.expect("every backend was met");
            let known = belief.held + u32::from(own);
            let there = member.settings.state.open();
            assert!(there >= known, "{} lost a place", member.settings.name);
            belief.handed = there - known;
        }
    }

    fn weight(&self, member: &Member) -> u64 {
        let configured = member.settings.weight.value();
        u64::from(self.belief(member).weight.unwrap_or(configured))
    }

    /// A reported change must begin where the last one ended.
    pub(crate) fn changed(&mut self, pool: &Pool, change: &StateChange) {
        let others = pool
            .members()
            .iter()
            .filter(|member| member.settings.name != change.backend && self.is_usable(member))
            .count();
        let listed = pool
            .members()
            .iter()
            .any(|member| member.settings.name == change.backend);
        let belief = self
            .beliefs
            .get_mut(&change.backend)
            .expect("only backends of this world change");
        assert_eq!((belief.admin, belief.health), change.from, "{change:?}");
        assert_ne!(change.from, change.to, "{change:?}");
        let ejected = change.to.1 == HealthState::Ejected && change.from.1 != HealthState::Ejected;
        if ejected && listed && belief.admin == AdminState::Ready {
            assert!(
                others > 0,
                "the last usable backend was ejected: {change:?}"
            );
        }
        (belief.admin, belief.health) = change.to;
    }

    /// The open tiers now; the first closed one must not be needed.
    fn open_now(&self, pool: &Pool) -> Vec<u8> {
        let open = pool.view().open_tiers;
        let closed = pool
            .members()
            .iter()
            .map(|member| member.settings.tier.value())
            .find(|tier| !open.contains(tier));
        if let Some(tier) = closed {
            let short = self.is_short(pool, pool.settings(), tier);
            assert!(!short, "tier {tier} had to open at once");
        }
        open
    }

    /// A session got a place.
    pub(crate) fn picked(&mut self, asked: &Asked<'_>, slot: &Slot) {
        self.count_handed(asked.pool, Some(slot));
        let member = slot.member();
        let belief = self.belief(member);
        assert_eq!(
            belief.admin,
            AdminState::Ready,
            "a drained backend was picked"
        );
        assert!(!asked.tried.has(member), "a tried backend was picked");
        assert!(!self.is_full(member), "a full backend was picked");
        let members = asked.pool.members();
        let tiers = self.open_now(asked.pool);
        let open: Vec<_> = members
            .iter()
            .filter(|member| tiers.contains(&member.settings.tier.value()))
            .collect();
        let takes = |member: &Member| {
            self.is_usable(member) && !self.is_full(member) && !asked.tried.has(member)
        };
        match slot.mode() {
            PickMode::LastResort => {
                assert!(asked.via != Via::Hedge, "a hedge went to the last resort");
                assert_eq!(asked.pool.settings().when_all_down, WhenAllDown::Try);
                let left = members.iter().any(|member| takes(member));
                assert!(
                    asked.via == Via::Queue || !left,
                    "a last resort before the last"
                );
                let usable = members.iter().any(|member| self.is_usable(member));
                assert!(!usable || belief.health == HealthState::Ejected);
            }
            PickMode::Normal => {
                assert!(
                    belief.health.is_usable(),
                    "a {:?} backend was picked",
                    belief.health
                );
                if !tiers.contains(&member.settings.tier.value()) {
                    assert!(asked.via != Via::Hedge, "a hedge opened a tier");
                    let before = open.iter().any(|member| takes(member));
                    assert!(asked.via == Via::Queue || !before, "tiers are in order");
                    let full = |member: &Arc<Member>| {
                        self.is_usable(member) && !asked.tried.has(member) && self.is_full(member)
                    };
                    let spill = asked.pool.settings().spill_when_full;
                    assert!(
                        spill || asked.via == Via::Queue || !open.iter().any(|member| full(member)),
                        "no spilling"
                    );
                }
            }
        }
        self.beliefs
            .get_mut(&member.settings.name)
            .expect("it was read above")
            .held += 1;
    }

    /// The default policy's promise, against every other backend. Called before the pick counts.
    pub(crate) fn assert_least(&mut self, asked: &Asked<'_>, slot: &Slot, now: Instant) {
        let is_least = asked.pool.settings().balance == Balance::LeastConnections;
        let tier = slot.member().settings.tier.value();
        let tiers = self.open_now(asked.pool);
        if !is_least || slot.mode() == PickMode::LastResort || !tiers.contains(&tier) {
            return;
        }
        self.count_handed(asked.pool, Some(slot));
        let score = |member: &Member| {
            let weight = member.settings.state.view(now).effective_weight_256;
            let belief = self.belief(member);
            (
                u64::from(belief.held + belief.handed) + 1,
                u64::from(weight),
            )
        };
        let (held, weight) = score(slot.member());
        for other in asked.pool.members() {
            let open = tiers.contains(&other.settings.tier.value());
            if !open || !self.is_usable(other) || self.is_full(other) || asked.tried.has(other) {
                continue;
            }
            let (there, other_weight) = score(other);
            assert!(
                held * other_weight <= there * weight,
                "{} had less for its weight",
                other.settings.name
            );
        }
    }

    /// A session got none.
    pub(crate) fn refused(&mut self, asked: &Asked<'_>, reason: NoBackend) {
        self.count_handed(asked.pool, None);
        let members = asked.pool.members();
        let usable = |member: &&Arc<Member>| self.is_usable(member);
        let ready = |member: &&Arc<Member>| self.belief(member).admin == AdminState::Ready;
        match reason {
            NoBackend::Empty => assert!(members.is_empty()),
            NoBackend::AllDrained => assert!(!members.iter().any(|member| ready(&member))),
            NoBackend::AllDown => {
                assert!(!members.iter().any(|member| usable(&member)));
                assert_eq!(asked.pool.settings().when_all_down, WhenAllDown::Refuse);
            }
            NoBackend::AllTried => {
                let mut left = members.iter().filter(usable);
                assert!(
                    left.all(|member| asked.tried.has(member)),
                    "one was not tried"
                );
            }
            NoBackend::AllFull => {
                let any_usable = members.iter().any(|member| usable(&member));
                let full = |member: &&Arc<Member>| {
                    (usable(member) || !any_usable && ready(member))
                        && self.is_full(member)
                        && !asked.tried.has(member)
                };
                assert!(members.iter().any(|member| full(&member)), "none is full");
                self.assert_waits_for_good(asked);
            }
        }
    }

    /// Nobody waits while a backend of the open tiers could take it.
    pub(crate) fn assert_waits_for_good(&self, asked: &Asked<'_>) {
        let tiers = self.open_now(asked.pool);
        let members = asked.pool.members();
        let resort = asked.pool.settings().when_all_down == WhenAllDown::Try
            && !members.iter().any(|member| self.is_usable(member));
        for member in members {
            let serves = tiers.contains(&member.settings.tier.value()) && self.is_usable(member);
            let resorts = resort && self.belief(member).admin == AdminState::Ready;
            let could = (serves || resorts) && !self.is_full(member) && !asked.tried.has(member);
            assert!(
                !could,
                "{} is free and somebody waits",
                member.settings.name
            );
        }
    }

    /// A place was given back.
    pub(crate) fn released(&mut self, name: &Arc<str>) {
        let belief = self.beliefs.get_mut(name).expect("it was picked");
        belief.held -= 1;
    }

    /// After an event: every backend's counts and state.
    pub(crate) fn check(&mut self, pool: &Pool, now: Instant) {
        self.count_handed(pool, None);
        for member in pool.members() {
            let state = &member.settings.state;
            let held = self.belief(member).held;
            assert_eq!(
                (state.open(), state.in_flight()),
                (held, held),
                "{}",
                state.name()
            );
            let view = state.view(now);
            let belief = self.belief(member);
            assert_eq!((view.admin, view.health), (belief.admin, belief.health));
        }
    }

    /// After every event, none left out: a relapse between two looks would go unseen.
    pub(crate) fn check_tiers(&mut self, pool: &Pool, now: Instant, excuse: Excuse) {
        let settings = pool.settings();
        let mut tiers: Vec<u8> = pool
            .members()
            .iter()
            .map(|member| member.settings.tier.value())
            .collect();
        tiers.dedup();
        // A tier that a reload took away is a new one when a later reload brings it back.
        self.well_since.retain(|tier, _| tiers.contains(tier));
        let before = std::mem::take(&mut self.open);
        self.open = pool.view().open_tiers;
        assert_eq!(
            self.open,
            tiers[..self.open.len()],
            "open tiers are the first ones"
        );
        assert!(!self.open.is_empty() || tiers.is_empty());
        for (at, tier) in tiers.iter().enumerate().skip(1) {
            let short = self.is_short(pool, settings, *tier);
            let open = at < self.open.len();
            if at == self.open.len() {
                assert!(!short, "tier {tier} had to open at once");
            }
            if open && !short {
                let since = *self.well_since.entry(*tier).or_insert(now);
                if settings.failback == Failback::Auto && excuse != Excuse::NoTick {
                    let late = now.saturating_duration_since(since);
                    assert!(
                        late < settings.failback_after + TICK * 2,
                        "tier {tier} stays open"
                    );
                }
                continue;
            }
            let since = self.well_since.remove(tier);
            if before.contains(tier) && !open && excuse != Excuse::Reload {
                let parent_closed = at > self.open.len();
                let well = since.map(|since| now.saturating_duration_since(since));
                let waited = settings.failback_after.is_zero()
                    || well.is_some_and(|well| well >= settings.failback_after);
                let by_time = waited && settings.failback == Failback::Auto;
                // What made the tiers before well may be a timer that ran in this very call.
                let by_hand = !short && excuse == Excuse::FailBack;
                assert!(
                    parent_closed || by_time || by_hand,
                    "tier {tier} closed too soon: well since {since:?}, {excuse:?}"
                );
            }
        }
    }

    fn is_short(&self, pool: &Pool, settings: &PoolSettings, tier: u8) -> bool {
        let ahead = || {
            let each = pool.members().iter();
            each.filter(move |member| member.settings.tier.value() < tier)
        };
        let all: u64 = ahead().map(|member| self.weight(member)).sum();
        let usable: u64 = ahead()
            .filter(|member| self.is_usable(member))
            .map(|member| self.weight(member))
            .sum();
        usable == 0 || usable * 100 < all * u64::from(settings.open_standby_below.value())
    }
}

/// What kind of event was just played, where a rule allows more after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    None,
    Reload,
    FailBack,
    /// The end of the world: no timers run any more.
    NoTick,
}
