//! Weighted turns, evenly interleaved: every member has the virtual time from which its next turn is
//! due to it, and the turn lasts 1 / weight.
//!
//! Of the members whose turn has begun, the one whose turn ends first goes next; each choice moves
//! the pool's time on by 1 / (sum of the weights). So nobody is more than one session ahead of its
//! share or behind it (this is earliest eligible virtual deadline first). In large pools the heap
//! orders by the middle of the turn instead, which needs no second look at who has begun.
//!
//! A member that was out does not catch up: its next turn begins with the pool's time. One that was
//! passed over (full, or tried by the session) is owed one session at most.

use std::sync::Arc;

use super::super::member::{Heed, Member, Tried};

/// Virtual time of one turn at weight 1/256.
const SCALE: u64 = 1 << 32;

/// The turn of the member that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::balance) struct RoundTurn {
    /// When it began, as the choice saw it.
    pub(in crate::balance) start: u64,
    /// How far the choice moves the pool's time on.
    pub(in crate::balance) tick: u64,
}

/// The virtual time a turn takes at this weight (in 1/256 of a unit, at least 1).
pub(in crate::balance) fn step(weight_256: u64) -> u64 {
    SCALE / weight_256.max(1)
}

/// The middle of a turn: the heap's order.
pub(in crate::balance) fn middle(start: u64, weight_256: u32) -> u64 {
    start + step(u64::from(weight_256)) / 2
}

/// Where the next turn begins after the weight changed: what is owed to the member, or what it is
/// ahead, is the same part of a session as before.
pub(in crate::balance) fn rescaled(start: u64, now: u64, before_256: u32, after_256: u32) -> u64 {
    if before_256 == 0 || before_256 == after_256 {
        return start;
    }
    let scaled = |apart: u64| {
        let apart = u128::from(apart) * u128::from(before_256) / u128::from(after_256.max(1));
        u64::try_from(apart).unwrap_or(u64::MAX >> 1)
    };
    if start > now {
        now + scaled(start - now)
    } else {
        now.saturating_sub(scaled(now - start))
    }
}

/// Of those whose turn has begun by `now`, the one whose turn ends first; else the one whose turn
/// begins first.
pub(in crate::balance) fn choose(
    members: &[Arc<Member>],
    tried: &Tried,
    now: u64,
) -> Option<(usize, RoundTurn)> {
    let mut weights = 0;
    let mut best: Option<(usize, u64, Precedence)> = None;
    for (index, member) in members.iter().enumerate() {
        let Some(load) = member.takes(tried, Heed::Health) else {
            continue;
        };
        let weight = u64::from(load.weight_256);
        weights += weight;
        let start = member.state().turn();
        let rank = Precedence::of(start, now, step(weight));
        if best.is_none_or(|(_, _, first)| rank < first) {
            best = Some((index, start, rank));
        }
    }
    let tick = step(weights);
    best.map(|(index, start, _)| (index, RoundTurn { start, tick }))
}

/// Which member goes first: the smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precedence {
    /// By the end of the turn, which has begun.
    Begun(u64),
    /// By the beginning of a later turn.
    Later(u64),
}

impl Precedence {
    fn of(start: u64, now: u64, step: u64) -> Self {
        if start <= now {
            Self::Begun(start.max(now.saturating_sub(step)) + step)
        } else {
            Self::Later(start)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::super::testing::{Fleet, Spec};
    use super::super::super::{AdminState, Balance, PoolSettings};
    use crate::types::Weight;

    /// How a backend leaves and comes back.
    #[derive(Clone, Copy, Debug)]
    enum Absence {
        Probes,
        Ejection,
        Drain,
        StandbyTier,
        NotListed,
    }

    fn fleet(weights: &[u16], slow_start: u64, absence: Absence) -> Fleet {
        let settings = PoolSettings {
            balance: Balance::RoundRobin,
            slow_start: Duration::from_secs(slow_start),
            ..PoolSettings::default()
        };
        Fleet::new(settings, &specs(weights, absence))
    }

    /// Backend 0 is the one that leaves.
    fn specs(weights: &[u16], absence: Absence) -> Vec<Spec> {
        let mut specs: Vec<_> = weights.iter().map(|weight| Spec::weight(*weight)).collect();
        if matches!(absence, Absence::StandbyTier) {
            specs[1..].iter_mut().for_each(|spec| spec.tier = 2);
            // A third tier has the one that comes in when the second fails.
            specs[0].tier = 3;
            specs.push(Spec::tier(1));
        }
        specs
    }

    fn leave(fleet: &mut Fleet, specs: &[Spec], absence: Absence) {
        let settings = *fleet.pool.settings();
        match absence {
            Absence::Probes => fleet.take_down(0),
            Absence::Ejection => drop(fleet.eject(0).expect("others are usable")),
            Absence::Drain => drop(fleet.admin(0, AdminState::Drain)),
            // Its tier is closed as long as another backend of the tiers before is usable.
            Absence::StandbyTier => fleet.take_down(specs.len() - 1),
            Absence::NotListed => {
                let state = fleet.states.remove(0);
                fleet.reload(settings, &specs[1..]);
                fleet.states.insert(0, state);
            }
        }
    }

    fn come_back(fleet: &mut Fleet, specs: &[Spec], absence: Absence) {
        let settings = *fleet.pool.settings();
        match absence {
            Absence::Probes => fleet.bring_up(0),
            Absence::Ejection => {
                fleet.pass(Duration::from_secs(30));
                fleet.pool.tick(fleet.now);
            }
            Absence::Drain => drop(fleet.admin(0, AdminState::Ready)),
            Absence::StandbyTier => {
                let opened = PoolSettings {
                    open_standby_below: crate::types::Percent::new(100).expect("a percentage"),
                    ..settings
                };
                fleet.reload(opened, specs);
            }
            Absence::NotListed => fleet.reload(settings, specs),
        }
    }

    /// How far backend 0 is ahead of its share, after each of so many sessions.
    fn ahead(fleet: &mut Fleet, sessions: u32) -> Vec<f64> {
        let mut ahead = vec![0.0];
        for session in 0..sessions {
            if session % 4 == 0 {
                fleet.pass(Duration::from_millis(100));
                fleet.pool.tick(fleet.now);
            }
            let usable = fleet.pool.members().iter();
            let usable = usable.filter(|member| member.state().standing().is_usable());
            let (mut all, mut own) = (0.0, 0.0);
            for member in usable {
                let weight = f64::from(member.weight_256());
                all += weight;
                if &*member.settings.name == "b0" {
                    own = weight;
                }
            }
            let took = f64::from(u8::from(fleet.glance() == 0));
            let last = ahead.last().copied().unwrap_or_default();
            ahead.push(last + took - own / all);
        }
        ahead
    }

    fn largest(of: impl IntoIterator<Item = f64>) -> f64 {
        of.into_iter().fold(f64::MIN, f64::max)
    }

    const ABSENCES: [Absence; 5] = [
        Absence::Probes,
        Absence::Ejection,
        Absence::Drain,
        Absence::StandbyTier,
        Absence::NotListed,
    ];
    /// What rounding adds.
    const SLACK: f64 = 1e-3;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_backend_that_returns_is_never_a_session_ahead_of_its_share(
            weights in proptest::collection::vec(1u16..=8, 2..7),
            absence in 0usize..ABSENCES.len(),
            slow_start in prop_oneof![Just(0u64), Just(3)],
            before in 0u32..60,
            meanwhile in 1u32..200,
        ) {
            let absence = ABSENCES[absence];
            let specs = specs(&weights, absence);
            let mut fleet = fleet(&weights, slow_start, absence);
            (0..before).for_each(|_| _ = fleet.glance());
            leave(&mut fleet, &specs, absence);
            (0..meanwhile).for_each(|_| assert_ne!(fleet.glance(), 0));
            come_back(&mut fleet, &specs, absence);
            let ahead = ahead(&mut fleet, 300);
            let most = largest(ahead.iter().copied());
            prop_assert!(most <= 1.0 + SLACK, "{most} ahead of its share");
        }

        #[test]
        fn among_equals_no_window_holds_a_session_more_than_the_share(
            count in 2usize..7,
            absence in 0usize..ABSENCES.len(),
            meanwhile in 1u32..200,
        ) {
            let absence = ABSENCES[absence];
            let weights = vec![1; count];
            let specs = specs(&weights, absence);
            let mut fleet = fleet(&weights, 0, absence);
            leave(&mut fleet, &specs, absence);
            (0..meanwhile).for_each(|_| assert_ne!(fleet.glance(), 0));
            come_back(&mut fleet, &specs, absence);
            let ahead = ahead(&mut fleet, 100);
            for (from, start) in ahead.iter().enumerate() {
                let most = largest(ahead[from..].iter().map(|later| later - start));
                prop_assert!(most <= 1.0 + SLACK, "{most} ahead in the window from {from}");
            }
        }

        #[test]
        fn a_change_of_weight_owes_nothing(
            weights in proptest::collection::vec(1u16..=8, 2..7),
            before in 0u32..60,
            raised in 1u16..=100,
        ) {
            let mut fleet = fleet(&weights, 0, Absence::Drain);
            (0..before).for_each(|_| _ = fleet.glance());
            fleet.states[0].set_weight(Weight::new(raised), "test".into(), fleet.now);
            let ahead = ahead(&mut fleet, 300);
            // What it was owed, or had ahead, before the change is one session at most.
            let most = largest(ahead.iter().copied());
            prop_assert!(most <= 2.0 + SLACK, "{most} ahead of its share");
        }
    }
}
