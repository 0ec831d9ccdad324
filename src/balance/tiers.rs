//! Which tiers are open: a pure machine over the weights of each tier.
//!
//! Tiers open in order, so what is open is always a prefix. Tier n + 1 opens in the very call that
//! takes the usable weight of tiers ≤ n below the share, or to nothing; it closes after that weight
//! was back for `failback_after`, or when the operator says so (DESIGN §6).

use std::time::Instant;

use super::{Failback, PoolSettings};

/// The weights of one tier.
#[derive(Clone, Debug)]
pub(super) struct Rank {
    pub(super) tier: u8,
    pub(super) configured: u64,
    pub(super) usable: u64,
    /// Backends that are usable.
    pub(super) backends: u32,
    /// Since when the tiers before are well; only kept while this tier is open.
    well_since: Option<Instant>,
}

/// A tier that opened or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Opened {
        tier: u8,
        usable: u64,
        configured: u64,
    },
    Closed {
        tier: u8,
    },
}

/// Why tiers are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A weight changed, or time passed.
    Change,
    /// The operator says: fail back.
    Operator,
}

/// All tiers of a pool that have members, and how many of them are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Tiers {
    ranks: Vec<Rank>,
    open: usize,
}

impl Tiers {
    /// The tiers of a new generation, empty. `tiers` is sorted and without repetition; those that
    /// were open before stay open, with the time since when they could close.
    pub(super) fn renewed(&self, tiers: &[u8]) -> Self {
        let last_open = self.open_upto();
        let ranks: Vec<Rank> = tiers
            .iter()
            .map(|tier| Rank {
                tier: *tier,
                configured: 0,
                usable: 0,
                backends: 0,
                well_since: self
                    .ranks
                    .iter()
                    .find(|rank| rank.tier == *tier)
                    .and_then(|rank| rank.well_since),
            })
            .collect();
        let open = ranks.iter().filter(|rank| rank.tier <= last_open).count();
        Self {
            open: open.max(usize::from(!ranks.is_empty())),
            ranks,
        }
    }

    /// The number of the last open tier; 0 if there are no tiers.
    pub(super) fn open_upto(&self) -> u8 {
        self.open
            .checked_sub(1)
            .map_or(0, |last| self.ranks[last].tier)
    }

    /// The numbers of the open tiers.
    pub(super) fn open(&self) -> impl Iterator<Item = u8> {
        self.ranks[..self.open].iter().map(|rank| rank.tier)
    }

    #[cfg(debug_assertions)]
    pub(super) fn ranks(&self) -> &[Rank] {
        &self.ranks
    }

    /// Usable backends in open tiers.
    pub(super) fn usable_open(&self) -> u32 {
        self.ranks[..self.open]
            .iter()
            .map(|rank| rank.backends)
            .sum()
    }

    /// Usable backends in all tiers.
    pub(super) fn usable(&self) -> u32 {
        self.ranks.iter().map(|rank| rank.backends).sum()
    }

    /// The rank of a tier that has members.
    pub(super) fn rank_mut(&mut self, tier: u8) -> &mut Rank {
        self.ranks
            .iter_mut()
            .find(|rank| rank.tier == tier)
            .expect("every member's tier has a rank")
    }

    /// Whether a standby tier is open although the tiers before it are well.
    pub(super) fn failback_pending(&self, settings: &PoolSettings) -> bool {
        (1..self.open).any(|at| !self.is_short(at, settings))
    }

    /// Opens and closes what the rule says now.
    pub(super) fn settle(
        &mut self,
        settings: &PoolSettings,
        occasion: Occasion,
        now: Instant,
        mut turn: impl FnMut(Turn),
    ) {
        for at in 1..self.open {
            if self.is_short(at, settings) {
                self.ranks[at].well_since = None;
            } else if self.ranks[at].well_since.is_none() {
                self.ranks[at].well_since = Some(now);
            }
        }
        if let Some(at) = (1..self.open).find(|at| self.may_close(*at, settings, occasion, now)) {
            for closing in (at..self.open).rev() {
                self.ranks[closing].well_since = None;
                turn(Turn::Closed {
                    tier: self.ranks[closing].tier,
                });
            }
            self.open = at;
        }
        while self.open < self.ranks.len() && self.is_short(self.open, settings) {
            let (usable, configured) = self.before(self.open);
            self.ranks[self.open].well_since = None;
            turn(Turn::Opened {
                tier: self.ranks[self.open].tier,
                usable,
                configured,
            });
            self.open += 1;
        }
    }

    fn may_close(
        &self,
        at: usize,
        settings: &PoolSettings,
        occasion: Occasion,
        now: Instant,
    ) -> bool {
        let Some(since) = self.ranks[at].well_since else {
            return false;
        };
        match (occasion, settings.failback) {
            (Occasion::Operator, Failback::Auto | Failback::Manual) => true,
            (Occasion::Change, Failback::Manual) => false,
            (Occasion::Change, Failback::Auto) => {
                now.saturating_duration_since(since) >= settings.failback_after
            }
        }
    }

    /// Whether the tiers before rank `at` are too weak to serve without it.
    fn is_short(&self, at: usize, settings: &PoolSettings) -> bool {
        let (usable, configured) = self.before(at);
        usable == 0 || usable * 100 < configured * u64::from(settings.open_standby_below.value())
    }

    /// Usable and configured weight of the tiers before rank `at`.
    fn before(&self, at: usize) -> (u64, u64) {
        self.ranks[..at].iter().fold((0, 0), |(usable, all), rank| {
            (usable + rank.usable, all + rank.configured)
        })
    }

    #[cfg(any(debug_assertions, test))]
    pub(super) fn check_invariants(&self) {
        assert!(self.open <= self.ranks.len());
        assert!(self.open > 0 || self.ranks.is_empty());
        for rank in &self.ranks {
            assert!(
                rank.usable <= rank.configured,
                "usable is part of configured"
            );
            assert_eq!(rank.usable == 0, rank.backends == 0);
        }
        assert!(
            self.ranks
                .windows(2)
                .all(|pair| pair[0].tier < pair[1].tier),
            "ranks are in order"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::Percent;

    /// Tiers whose weights are set at will.
    struct Bench {
        tiers: Tiers,
        settings: PoolSettings,
        now: Instant,
    }

    impl Bench {
        fn new(configured: &[(u8, u64)]) -> Self {
            let numbers: Vec<u8> = configured.iter().map(|(tier, _)| *tier).collect();
            let mut tiers = Tiers::default().renewed(&numbers);
            for (tier, weight) in configured {
                let rank = tiers.rank_mut(*tier);
                rank.configured = *weight;
                rank.usable = *weight;
                rank.backends = 1;
            }
            Self {
                tiers,
                settings: PoolSettings::default(),
                now: Instant::now(),
            }
        }

        fn usable(&mut self, tier: u8, weight: u64) -> Vec<Turn> {
            let rank = self.tiers.rank_mut(tier);
            rank.usable = weight;
            rank.backends = u32::from(weight > 0);
            self.settle(Occasion::Change)
        }

        fn settle(&mut self, occasion: Occasion) -> Vec<Turn> {
            let mut turns = Vec::new();
            self.tiers
                .settle(&self.settings, occasion, self.now, |turn| turns.push(turn));
            self.tiers.check_invariants();
            turns
        }

        fn open(&self) -> Vec<u8> {
            self.tiers.open().collect()
        }
    }

    fn opened(tier: u8, usable: u64, configured: u64) -> Turn {
        Turn::Opened {
            tier,
            usable,
            configured,
        }
    }

    #[test]
    fn the_standby_opens_when_nothing_is_left_and_closes_after_thirty_seconds() {
        let mut bench = Bench::new(&[(1, 4), (2, 4)]);
        assert_eq!(bench.settle(Occasion::Change), []);
        assert_eq!(bench.usable(1, 1), []);
        assert_eq!(bench.usable(1, 0), [opened(2, 0, 4)]);
        assert_eq!(bench.open(), [1, 2]);
        assert_eq!(bench.usable(1, 4), []);
        assert!(bench.tiers.failback_pending(&bench.settings));
        bench.now += Duration::from_millis(29_999);
        assert_eq!(bench.settle(Occasion::Change), []);
        bench.now += Duration::from_millis(1);
        assert_eq!(bench.settle(Occasion::Change), [Turn::Closed { tier: 2 }]);
        assert_eq!(bench.open(), [1]);
    }

    #[test]
    fn a_relapse_starts_the_thirty_seconds_anew() {
        let mut bench = Bench::new(&[(1, 1), (2, 1)]);
        bench.usable(1, 0);
        bench.usable(1, 1);
        bench.now += Duration::from_secs(20);
        bench.usable(1, 0);
        bench.usable(1, 1);
        bench.now += Duration::from_secs(20);
        assert_eq!(bench.settle(Occasion::Change), []);
        bench.now += Duration::from_secs(10);
        assert_eq!(bench.settle(Occasion::Change), [Turn::Closed { tier: 2 }]);
    }

    #[test]
    fn the_share_is_of_all_tiers_before() {
        let mut bench = Bench::new(&[(1, 100), (2, 100), (3, 1)]);
        bench.settings.open_standby_below = Percent::new(50).expect("a percentage");
        assert_eq!(bench.usable(1, 50), []);
        assert_eq!(bench.usable(1, 49), [opened(2, 49, 100)]);
        assert_eq!(bench.usable(2, 51), []);
        assert_eq!(bench.usable(2, 50), [opened(3, 99, 200)]);
    }

    #[test]
    fn tiers_open_in_order_and_all_that_are_needed_at_once() {
        let mut bench = Bench::new(&[(1, 1), (4, 1000), (9, 1)]);
        bench.usable(4, 0);
        assert_eq!(bench.open(), [1], "tier 1 serves, however weak tier 4 is");
        assert_eq!(bench.usable(1, 0), [opened(4, 0, 1), opened(9, 0, 1001)]);
        bench.usable(1, 1);
        bench.usable(4, 1000);
        bench.now += Duration::from_secs(30);
        assert_eq!(
            bench.settle(Occasion::Change),
            [Turn::Closed { tier: 9 }, Turn::Closed { tier: 4 }]
        );
    }

    #[test]
    fn manual_failback_waits_for_the_operator() {
        let mut bench = Bench::new(&[(1, 1), (2, 1)]);
        bench.settings.failback = Failback::Manual;
        bench.usable(1, 0);
        assert_eq!(bench.settle(Occasion::Operator), [], "tier 1 is not well");
        assert!(!bench.tiers.failback_pending(&bench.settings));
        bench.usable(1, 1);
        bench.now += Duration::from_hours(1);
        assert_eq!(bench.settle(Occasion::Change), []);
        assert!(bench.tiers.failback_pending(&bench.settings));
        assert_eq!(bench.settle(Occasion::Operator), [Turn::Closed { tier: 2 }]);
    }

    #[test]
    fn a_reload_keeps_open_what_was_open() {
        let mut bench = Bench::new(&[(1, 1), (2, 1), (3, 1)]);
        bench.usable(1, 0);
        assert_eq!(bench.tiers.renewed(&[1, 2, 3]).open_upto(), 2);
        assert_eq!(bench.tiers.renewed(&[1, 3]).open_upto(), 1);
        assert_eq!(bench.tiers.renewed(&[5, 6]).open_upto(), 5);
        assert_eq!(bench.tiers.renewed(&[]).open_upto(), 0);
    }
}
