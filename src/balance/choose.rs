//! The choice: which member takes a session, or why none does.
//!
//! Pure: it reads the members' atomics and what it is given, and reserves nothing. The order is
//! always the same: the policy over the open tiers; then, where these have nothing left for this
//! session, the later tiers; then, where nothing is healthy, the last resort.

use std::sync::Arc;

use super::member::{Fit, Heed, Member, Tried};
use super::policy::round_robin::{self, RoundTurn};
use super::policy::{SCAN_MAX, first, least_connections, random_two};
use super::roll::Roll;
use super::{Balance, WhenAllDown};
use crate::types::{ClientKey, Rng};

/// Random looks at a large tier before it is read in order.
const LOOKS_MAX: u32 = 32;

/// How a pick should be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickMode {
    /// The backend is believed to serve.
    Normal,
    /// No backend is healthy (`when_all_down = "try"`), or this session tried all that are and this
    /// one is only ejected: connect 1 s, greeting 3 s, one attempt per backend.
    LastResort,
}

/// Why there is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoBackend {
    /// The pool has no backends (or no name of it could be looked up).
    Empty,
    /// None is healthy.
    AllDown,
    /// The operator keeps all of them out.
    AllDrained,
    /// All that this session could use are at `max_connections`.
    AllFull,
    /// Every eligible one was tried by this session.
    AllTried,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Session,
    /// A hedge stays in the open tiers and never goes to what is not healthy.
    Hedge,
}

/// What a choice depends on, besides the members.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) client: ClientKey,
    pub(super) tried: &'a Tried,
    pub(super) purpose: Purpose,
    /// How many members (a prefix) are in open tiers.
    pub(super) open: usize,
    /// Where scans begin, so that equals take turns.
    pub(super) rotation: usize,
    /// Round robin: the pool's virtual time.
    pub(super) turns_now: u64,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) index: usize,
    pub(super) mode: PickMode,
    /// Round robin: the turn it was chosen for.
    pub(super) turn: Option<RoundTurn>,
}

impl Choice {
    fn normal(index: usize) -> Self {
        Self {
            index,
            mode: PickMode::Normal,
            turn: None,
        }
    }
}

/// The choice among all members.
pub(super) fn choose(roll: &Roll, ask: &Ask<'_>, rng: &mut Rng) -> Result<Choice, NoBackend> {
    match by_policy(roll, ask, rng) {
        Some(choice) => Ok(choice),
        None => without_policy(roll, ask, rng),
    }
}

/// The policy's choice in the open tiers.
fn by_policy(roll: &Roll, ask: &Ask<'_>, rng: &mut Rng) -> Option<Choice> {
    let members = &roll.members[..ask.open];
    match roll.settings.balance {
        Balance::LeastConnections => {
            least_connections::choose(members, ask.tried, Heed::Health, ask.rotation)
                .map(Choice::normal)
        }
        Balance::RoundRobin => {
            round_robin::choose(members, ask.tried, ask.turns_now).map(|(index, turn)| Choice {
                turn: Some(turn),
                ..Choice::normal(index)
            })
        }
        Balance::RandomTwo => roll
            .weights
            .as_ref()
            .and_then(|weights| random_two::choose(members, weights, ask.tried, rng))
            .or_else(|| any(members, ask.tried, Heed::Health, rng))
            .map(Choice::normal),
        Balance::SourceHash => roll
            .table(ask.open)
            .and_then(|table| table.choose(members, ask.client, ask.tried))
            .or_else(|| any(members, ask.tried, Heed::Health, rng))
            .map(Choice::normal),
        Balance::First => first::choose(members, ask.tried).map(Choice::normal),
    }
}

/// What is left when the open tiers have nothing: later tiers, last resort, or the reason.
pub(super) fn without_policy(
    roll: &Roll,
    ask: &Ask<'_>,
    rng: &mut Rng,
) -> Result<Choice, NoBackend> {
    let seen = Survey::of(&roll.members, ask);
    match ask.purpose {
        Purpose::Hedge => return Err(seen.reason()),
        Purpose::Session => {}
    }
    // A session whose open tiers are tried out goes on to the next tier even though that is closed
    // to others: another backend is usable (promise 4).
    if !seen.open_full || roll.settings.spill_when_full {
        for tier in roll.tiers_after(ask.open) {
            if let Some(index) = any(&roll.members[tier.clone()], ask.tried, Heed::Health, rng) {
                return Ok(Choice::normal(tier.start + index));
            }
        }
    }
    if roll.settings.when_all_down == WhenAllDown::Try && !seen.open_full && !seen.later_full {
        let found = if seen.usable {
            ejected(roll, ask.tried)
        } else {
            last_resort(roll, ask.tried, rng)
        };
        if let Some(index) = found {
            return Ok(Choice {
                mode: PickMode::LastResort,
                ..Choice::normal(index)
            });
        }
        if !seen.usable && seen.ready {
            return Err(if resort_is_full(&roll.members, ask.tried) {
                NoBackend::AllFull
            } else {
                NoBackend::AllTried
            });
        }
    }
    Err(seen.reason())
}

/// Ignores health, never the operator: tiers in order.
fn last_resort(roll: &Roll, tried: &Tried, rng: &mut Rng) -> Option<usize> {
    roll.tiers_after(0).find_map(|tier| {
        any(&roll.members[tier.clone()], tried, Heed::Admin, rng).map(|at| tier.start + at)
    })
}

/// Every usable backend was tried by this session. One that is only ejected may have recovered, and
/// shows it before the client sees anything; one that probes found down is left alone: it may greet
/// and then refuse for good (rule H2).
fn ejected(roll: &Roll, tried: &Tried) -> Option<usize> {
    roll.members.iter().position(|member| {
        member.state().is_ejected() && member.takes(tried, Heed::Admin).is_some()
    })
}

/// Whether a place may ever come for a session that has tried `tried`, as things are.
pub(super) fn may_come(roll: &Roll, tried: &Tried) -> bool {
    let could = |heed| {
        roll.members
            .iter()
            .any(|member| matches!(member.fit(tried, heed), Fit::Takes(_) | Fit::Full))
    };
    let resort = roll.settings.when_all_down == WhenAllDown::Try;
    could(Heed::Health) || resort && could(Heed::Admin)
}

fn resort_is_full(members: &[Arc<Member>], tried: &Tried) -> bool {
    members
        .iter()
        .any(|member| member.fit(tried, Heed::Admin) == Fit::Full)
}

/// Some member that takes the session; the least loaded one of a small set.
pub(super) fn any(
    members: &[Arc<Member>],
    tried: &Tried,
    heed: Heed,
    rng: &mut Rng,
) -> Option<usize> {
    let count = u32::try_from(members.len()).expect("members are counted in 32 bits");
    let start = rng.below(count) as usize;
    if members.len() <= SCAN_MAX {
        return least_connections::choose(members, tried, heed, start);
    }
    (0..LOOKS_MAX)
        .map(|_| rng.below(count) as usize)
        .find(|index| members[*index].takes(tried, heed).is_some())
        .or_else(|| {
            (start..members.len())
                .chain(0..start)
                .find(|index| members[*index].takes(tried, heed).is_some())
        })
}

/// What a look at every member showed.
#[derive(Clone, Copy, Debug, Default)]
struct Survey {
    any: bool,
    ready: bool,
    usable: bool,
    open_full: bool,
    later_full: bool,
}

impl Survey {
    fn of(members: &[Arc<Member>], ask: &Ask<'_>) -> Self {
        let mut seen = Self::default();
        for (index, member) in members.iter().enumerate() {
            seen.any = true;
            match member.fit(ask.tried, Heed::Health) {
                Fit::Drained => {}
                Fit::Unwell => seen.ready = true,
                Fit::Tried | Fit::Takes(_) => seen.usable = true,
                Fit::Full => {
                    seen.usable = true;
                    if index < ask.open {
                        seen.open_full = true;
                    } else {
                        seen.later_full = true;
                    }
                }
            }
        }
        seen
    }

    fn reason(self) -> NoBackend {
        if self.open_full || self.later_full {
            NoBackend::AllFull
        } else if self.usable {
            NoBackend::AllTried
        } else if self.ready {
            NoBackend::AllDown
        } else if self.any {
            NoBackend::AllDrained
        } else {
            NoBackend::Empty
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::testing::{Fleet, Spec, number};
    use super::super::{AdminState, PoolSettings, Slot, Tried};
    use super::*;
    use crate::types::{ClientKey, Rng};

    const POLICIES: [Balance; 5] = [
        Balance::LeastConnections,
        Balance::RoundRobin,
        Balance::RandomTwo,
        Balance::SourceHash,
        Balance::First,
    ];

    fn by(balance: Balance) -> PoolSettings {
        PoolSettings {
            balance,
            slow_start: Duration::ZERO,
            ..PoolSettings::default()
        }
    }

    fn weighted(weights: &[u16]) -> Vec<Spec> {
        weights.iter().map(|weight| Spec::weight(*weight)).collect()
    }

    #[test]
    fn the_reason_why_there_is_no_backend() {
        for balance in POLICIES {
            let refuse = PoolSettings {
                when_all_down: WhenAllDown::Refuse,
                ..by(balance)
            };
            let mut fleet = Fleet::equal(refuse, 0);
            assert_eq!(fleet.pick().unwrap_err(), NoBackend::Empty);
            let mut fleet = Fleet::new(refuse, &[Spec::max(1), Spec::max(1)]);
            let held = [fleet.pick(), fleet.pick()];
            assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllFull);
            drop(held);
            let both = fleet.tried(&[0, 1]);
            assert_eq!(fleet.pick_for(1, &both).unwrap_err(), NoBackend::AllTried);
            fleet.take_down(0);
            fleet.take_down(1);
            assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllDown);
            fleet.admin(0, AdminState::Maint);
            fleet.admin(1, AdminState::Drain);
            assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllDrained);
            fleet.assert_idle();
        }
    }

    #[test]
    fn a_tried_backend_is_not_picked_again() {
        for balance in POLICIES {
            let mut fleet = Fleet::equal(by(balance), 4);
            for client in 0..100 {
                let tried = fleet.tried(&[0, 2]);
                let slot = fleet.pick_for(client, &tried).expect("two are left");
                assert!([1, 3].contains(&number(&slot)));
            }
        }
    }

    #[test]
    fn who_was_merely_slow_is_picked_again_when_that_is_forgiven() {
        let mut fleet = Fleet::equal(by(Balance::First), 4);
        let mut tried = fleet.tried(&[0, 2, 3]);
        let slow = fleet.pick_for(1, &tried).expect("one is left");
        tried.add_slow(slow.member());
        drop(slow);
        assert_eq!(fleet.pick_for(1, &tried).unwrap_err(), NoBackend::AllTried);
        assert!(tried.forgive());
        let slot = fleet.pick_for(1, &tried).expect("the slow one");
        assert_eq!(number(&slot), 1);
        // Once it has failed there is nothing to forgive.
        tried.add_slow(slot.member());
        tried.add(slot.member());
        assert!(!tried.forgive());
        drop(slot);
        assert_eq!(fleet.pick_for(1, &tried).unwrap_err(), NoBackend::AllTried);
    }

    #[test]
    fn the_last_resort_ignores_health_but_not_the_operator() {
        for balance in POLICIES {
            let mut fleet = Fleet::new(by(balance), &[Spec::tier(1), Spec::tier(1), Spec::tier(2)]);
            (0..3).for_each(|at| fleet.take_down(at));
            fleet.admin(0, AdminState::Drain);
            let slot = fleet.pick().expect("try");
            assert_eq!((number(&slot), slot.mode()), (1, PickMode::LastResort));
            let tried = fleet.tried(&[1]);
            let slot = fleet.pick_for(1, &tried).expect("the next tier");
            assert_eq!((number(&slot), slot.mode()), (2, PickMode::LastResort));
            let tried = fleet.tried(&[1, 2]);
            assert_eq!(fleet.pick_for(1, &tried).unwrap_err(), NoBackend::AllTried);
            fleet.bring_up(2);
            assert_eq!(fleet.pick().expect("one is up").mode(), PickMode::Normal);
        }
    }

    #[test]
    fn a_session_that_tried_all_usable_ones_may_try_an_ejected_one_but_none_that_is_down() {
        let mut fleet = Fleet::equal(by(Balance::LeastConnections), 3);
        fleet.eject(0).expect("it is ejected");
        fleet.take_down(1);
        let tried = fleet.tried(&[2]);
        let slot = fleet.pick_for(1, &tried).expect("the ejected one");
        assert_eq!((number(&slot), slot.mode()), (0, PickMode::LastResort));
        let tried = fleet.tried(&[0, 2]);
        assert_eq!(fleet.pick_for(1, &tried).unwrap_err(), NoBackend::AllTried);
    }

    #[test]
    fn an_ejection_opens_the_standby_tier_before_the_next_pick() {
        for balance in POLICIES {
            let mut fleet = Fleet::new(by(balance), &[Spec::tier(1), Spec::tier(2)]);
            assert_eq!(fleet.glance(), 0);
            fleet.eject(0).expect("there is a spare one");
            assert_eq!(fleet.glance(), 1);
            assert_eq!(fleet.pool.view().open_tiers, [1, 2]);
            fleet.bring_up(0);
            fleet.pass(Duration::from_secs(29));
            fleet.pool.tick(fleet.now);
            assert_eq!(fleet.pool.view().open_tiers, [1, 2]);
            assert!(fleet.pool.view().failback_pending);
            fleet.pass(Duration::from_secs(1));
            fleet.pool.tick(fleet.now);
            assert_eq!(fleet.pool.view().open_tiers, [1]);
            (0..20).for_each(|_| assert_eq!(fleet.glance(), 0));
        }
    }

    #[test]
    fn a_session_that_tried_its_tier_goes_on_to_the_next_which_stays_closed() {
        for balance in POLICIES {
            let mut fleet = Fleet::new(by(balance), &[Spec::tier(1), Spec::tier(2)]);
            let tried = fleet.tried(&[0]);
            let slot = fleet.pick_for(1, &tried).expect("another is usable");
            assert_eq!((number(&slot), slot.mode()), (1, PickMode::Normal));
            assert_eq!(fleet.pool.view().open_tiers, [1]);
            let hedge = fleet
                .pool
                .pick_hedge(ClientKey(1), &tried, fleet.now, &mut fleet.rng);
            assert!(hedge.is_err(), "a hedge opens no tier");
        }
    }

    #[test]
    fn full_tiers_spill_only_when_asked() {
        for balance in POLICIES {
            let standby = Spec {
                tier: 2,
                ..Spec::max(1)
            };
            let specs = [Spec::max(1), standby];
            let mut fleet = Fleet::new(by(balance), &specs);
            let held = fleet.pick().expect("a place");
            assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllFull);
            drop(held);
            let spill = PoolSettings {
                spill_when_full: true,
                ..by(balance)
            };
            fleet.reload(spill, &specs);
            let held = fleet.pick().expect("a place");
            let spilled = fleet.pick().expect("the next tier");
            assert_eq!((number(&held), number(&spilled)), (0, 1));
            assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllFull);
        }
    }

    #[test]
    fn equal_idle_backends_take_turns() {
        for balance in [Balance::LeastConnections, Balance::RoundRobin] {
            for count in [3, 70] {
                let mut fleet = Fleet::equal(by(balance), count);
                let mut picks = vec![0; count];
                (0..count * 5).for_each(|_| picks[fleet.glance()] += 1);
                assert!(
                    picks.iter().all(|times| *times == 5),
                    "{balance:?} {picks:?}"
                );
            }
        }
    }

    #[test]
    fn round_robin_interleaves_by_weight() {
        let mut fleet = Fleet::new(by(Balance::RoundRobin), &weighted(&[5, 1, 1]));
        let picks: Vec<_> = (0..7).map(|_| fleet.glance()).collect();
        let longest = picks.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
        assert!(longest <= Some(3), "{picks:?}");
        assert_eq!(picks.iter().filter(|at| **at == 0).count(), 5, "{picks:?}");
    }

    #[test]
    fn a_backend_that_was_full_does_not_catch_up_in_round_robin() {
        for count in [3, 70] {
            let mut specs = vec![Spec::weight(1); count];
            specs[0].max = 1;
            let mut fleet = Fleet::new(by(Balance::RoundRobin), &specs);
            let held = loop {
                let slot = fleet.pick().expect("a place");
                if number(&slot) == 0 {
                    break slot;
                }
            };
            (0..count * 10).for_each(|_| assert_ne!(fleet.glance(), 0));
            drop(held);
            let times = (0..count * 3).filter(|_| fleet.glance() == 0).count();
            assert!((3..=4).contains(&times), "{times}");
        }
    }

    #[test]
    fn first_fills_one_backend_before_the_next() {
        let mut fleet = Fleet::new(
            by(Balance::First),
            &[Spec::max(2), Spec::max(2), Spec::max(2)],
        );
        let held: Vec<_> = (0..5).map(|_| fleet.pick().expect("a place")).collect();
        let picks: Vec<_> = held.iter().map(number).collect();
        assert_eq!(picks, [0, 0, 1, 1, 2]);
    }

    #[test]
    fn a_client_meets_the_same_backend_and_health_moves_only_those_of_what_failed() {
        let mut fleet = Fleet::equal(by(Balance::SourceHash), 20);
        let home = |fleet: &mut Fleet| -> BTreeMap<u128, usize> {
            (0..2000)
                .map(|client| {
                    let slot = fleet.pick_for(client, &Tried::default());
                    (client, number(&slot.expect("a backend is up")))
                })
                .collect()
        };
        let before = home(&mut fleet);
        assert_eq!(home(&mut fleet), before);
        fleet.take_down(7);
        for (client, at) in home(&mut fleet) {
            assert_ne!(at, 7);
            assert!(at == before[&client] || before[&client] == 7);
        }
        let moved = home(&mut fleet);
        let spread = moved
            .iter()
            .filter(|(client, _)| before[client] == 7)
            .map(|(_, at)| *at)
            .collect::<std::collections::BTreeSet<_>>();
        assert!(spread.len() > 10, "its clients spread over the others");
        fleet.bring_up(7);
        assert_eq!(home(&mut fleet), before);
        // Another host, or the same after a restart, agrees.
        assert_eq!(home(&mut Fleet::equal(by(Balance::SourceHash), 20)), before);
        // One backend more takes about its share and moves few others.
        fleet.reload(by(Balance::SourceHash), &[Spec::weight(1); 21]);
        let after = home(&mut fleet);
        let strays = after
            .iter()
            .filter(|(client, at)| **at != 20 && **at != before[client])
            .count();
        assert!(strays < 100, "{strays} of 2000 moved between old backends");
    }

    /// Shares of `sessions` picks, each held until `held` are open.
    fn shares(fleet: &mut Fleet, sessions: usize, held: usize) -> Vec<usize> {
        let mut picks = vec![0; fleet.states.len()];
        let mut open: Vec<Slot> = Vec::new();
        for client in 0..sessions {
            let slot = fleet
                .pick_for(client as u128, &Tried::default())
                .expect("a backend is up");
            picks[number(&slot)] += 1;
            open.push(slot);
            if open.len() > held {
                let at = fleet.rng.below(open.len() as u32) as usize;
                open.swap_remove(at);
            }
        }
        picks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn long_runs_are_shared_by_weight(
            weights in proptest::collection::vec(1u16..=8, 2..6),
            policy in 0usize..4,
            seed: u64,
        ) {
            let balance = POLICIES[policy];
            let mut fleet = Fleet::new(by(balance), &weighted(&weights));
            fleet.rng = Rng::seeded(seed);
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let sessions = 6000;
            let picks = shares(&mut fleet, sessions, total * 8);
            for (weight, times) in weights.iter().zip(picks) {
                let fair = sessions * usize::from(*weight) / total;
                let slack = match balance {
                    Balance::RoundRobin => 3,
                    _ => fair / 6 + 60,
                };
                prop_assert!(times.abs_diff(fair) <= slack, "{balance:?} {weights:?} {times} {fair}");
            }
            fleet.assert_idle();
        }

        #[test]
        fn large_pools_are_shared_by_weight_too(seed: u64, policy in 0usize..4) {
            let balance = POLICIES[policy];
            let weights: Vec<u16> = (0..100).map(|at| 1 + at % 3).collect();
            let mut fleet = Fleet::new(by(balance), &weighted(&weights));
            fleet.rng = Rng::seeded(seed);
            let picks = shares(&mut fleet, 20_000, 400);
            for weight in 1u16..=3 {
                let class = |at: &usize| weights[*at] == weight;
                let times: usize = (0..100).filter(class).map(|at| picks[at]).sum();
                let members = (0..100).filter(class).count();
                let fair = 20_000 * usize::from(weight) * members / 199;
                prop_assert!(times.abs_diff(fair) <= fair / 10, "{balance:?} {weight} {times} {fair}");
            }
        }

        /// The default policy, by brute force: scan (small) and heap (large) alike.
        #[test]
        fn no_eligible_backend_had_less_for_its_weight(
            seed: u64,
            large: bool,
            steps in proptest::collection::vec(0u8..=20, 50..300),
        ) {
            let count = if large { 65 + (seed % 30) as usize } else { 1 + (seed % 9) as usize };
            let mut rng = Rng::seeded(seed);
            let specs: Vec<_> = (0..count)
                .map(|_| Spec {
                    weight: 1 + rng.below(4) as u16,
                    tier: 1,
                    max: rng.below(4), hourly: 0,
                })
                .collect();
            let mut fleet = Fleet::new(by(Balance::LeastConnections), &specs);
            let mut open: Vec<Slot> = Vec::new();
            for step in steps {
                let at = rng.below(count as u32) as usize;
                match step {
                    0 => fleet.take_down(at),
                    1 => fleet.bring_up(at),
                    2 => drop(fleet.admin(at, AdminState::Drain)),
                    3 => drop(fleet.admin(at, AdminState::Ready)),
                    4 => fleet.states[at].set_weight(
                        crate::types::Weight::new(1 + rng.below(6) as u16),
                        Arc::from("test"),
                        fleet.now,
                    ),
                    5 => fleet.reload(by(Balance::LeastConnections), &specs),
                    6..=9 if !open.is_empty() => {
                        let slot = rng.below(open.len() as u32) as usize;
                        drop(open.swap_remove(slot));
                    }
                    _ => {
                        let which: Vec<_> = (0..rng.below(4)).map(|_| rng.below(count as u32) as usize).collect();
                        let tried = fleet.tried(&which);
                        let loads: BTreeMap<usize, _> = fleet
                            .pool
                            .members()
                            .iter()
                            .filter_map(|member| {
                                member.takes(&tried, Heed::Health).map(|load| (member.index as usize, load))
                            })
                            .collect();
                        match fleet.pick_for(1, &tried) {
                            Ok(slot) if slot.mode() == PickMode::Normal => {
                                let chosen = loads[&(slot.member().index as usize)];
                                prop_assert!(loads.values().all(|load| !load.is_below(chosen)));
                                open.push(slot);
                            }
                            Ok(slot) => {
                                prop_assert!(loads.is_empty());
                                open.push(slot);
                            }
                            Err(_) => prop_assert!(loads.is_empty()),
                        }
                    }
                }
            }
            drop(open);
            fleet.assert_idle();
        }
    }
}
