//! When an operator is told how much of a quota is used.
//!
//! Once when most of it is used, once when all of it is, and once when it has room again. Each of
//! these is told again only after the use has fallen clearly below, so that a quota that is always
//! nearly used up is told of once. What is reserved counts as used and may come back at once, so the
//! use has to stay below for [`BELOW_MIN`]: clients that open transactions and leave do not fill the
//! log. Only quotas of long spans are told of: a quota of a second fills and empties as mail comes.

use std::time::{Duration, Instant};

use super::window::Look;
use super::{Limited, QuotaUse};

/// Quotas of shorter spans are not told of.
pub const QUOTA_TOLD_PERIOD_MIN: Duration = Duration::from_hours(1);
/// From this use on, in percent, a quota is told to be nearly used up;
pub const QUOTA_NEAR_PERCENT: u64 = 80;
/// that is told again only after the use has fallen below this.
const NEAR_AGAIN_PERCENT: u64 = 70;
/// Below this use, in percent, a quota that was used up is told to have room again.
pub const QUOTA_FREE_PERCENT: u64 = 90;

/// So long a use has to stay below what it was said to be before it counts as fallen.
const BELOW_MIN: Duration = Duration::from_mins(1);

/// How much of a quota is used, in the words of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaLevel {
    /// It has room again.
    #[default]
    Free,
    /// Most of it is used: [`QUOTA_NEAR_PERCENT`].
    Near,
    /// All of it is: the backend gets no more for now.
    UsedUp,
}

impl QuotaLevel {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Near => "near",
            Self::UsedUp => "used-up",
        }
    }

    pub(super) fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn of_number(number: u8) -> Self {
        let levels = [Self::Free, Self::Near, Self::UsedUp];
        let mut levels = levels.into_iter();
        let of = levels.find(|level| level.number() == number);
        of.unwrap_or_default()
    }

    /// The level after a look that has found `used` of `count`, and the level that is told, if any.
    fn seen(self, used: u64, count: u64) -> (Self, Option<Self>) {
        let reaches = |percent: u64| used.saturating_mul(100) >= count.saturating_mul(percent);
        match self {
            Self::Free | Self::Near if used >= count => (Self::UsedUp, Some(Self::UsedUp)),
            Self::Free if reaches(QUOTA_NEAR_PERCENT) => (Self::Near, Some(Self::Near)),
            Self::Near if !reaches(NEAR_AGAIN_PERCENT) => (Self::Free, None),
            Self::UsedUp if !reaches(QUOTA_FREE_PERCENT) => {
                let near = reaches(NEAR_AGAIN_PERCENT);
                let level = if near { Self::Near } else { Self::Free };
                (level, Some(Self::Free))
            }
            same => (same, None),
        }
    }
}

impl Limited {
    /// Looks at the quotas, and tells of those that have come to another level since the last look.
    /// Called by one thread.
    pub(in crate::balance) fn watch(
        &self,
        now: Instant,
        mut tell: impl FnMut(QuotaUse, QuotaLevel),
    ) {
        for limit in &*self.limits {
            let used = limit.look(now);
            if limit.quota.period < QUOTA_TOLD_PERIOD_MIN {
                continue;
            }
            let before = limit.window.told();
            let (level, told) = before.seen(used.used, limit.quota.count);
            let falls = level.number() < before.number();
            let now = limit.window.epoch.at(now);
            let below_since = limit.window.below_told.note(Look::of(falls), now);
            if below_since.is_some_and(|since| now.saturating_sub(since) < BELOW_MIN) {
                continue;
            }
            if level != before {
                limit.window.tell(level);
            }
            if let Some(told) = told {
                tell(used, told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Messages, install, none, seconds, spend};
    use super::*;

    /// What is told while so much of 100 is used, one look after the other.
    fn told(used: &[u64]) -> Vec<&'static str> {
        let mut level = QuotaLevel::Free;
        let looks = used.iter().map(|&used| {
            let (next, told) = level.seen(used, 100);
            level = next;
            told.map_or("", QuotaLevel::name)
        });
        looks.collect()
    }

    #[test]
    fn each_level_is_told_once_until_the_use_has_fallen_clearly_below() {
        assert_eq!(told(&[0, 79, 80, 81, 99]), ["", "", "near", "", ""]);
        assert_eq!(told(&[80, 75, 80, 69, 80]), ["near", "", "", "", "near"]);
        assert_eq!(told(&[100, 100, 98, 100]), ["used-up", "", "", ""]);
        assert_eq!(
            told(&[85, 100, 89, 95, 100]),
            ["near", "used-up", "free", "", "used-up"]
        );
        assert_eq!(told(&[100, 10, 80]), ["used-up", "free", "near"]);
        assert_eq!(told(&[120]), ["used-up"], "the quota was made smaller");
    }

    #[test]
    fn a_quota_of_one_is_used_up_and_free() {
        let (level, told) = QuotaLevel::Free.seen(1, 1);
        assert_eq!(told, Some(QuotaLevel::UsedUp));
        assert_eq!(level.seen(0, 1), (QuotaLevel::Free, Some(QuotaLevel::Free)));
    }

    #[test]
    fn only_quotas_of_an_hour_or_longer_are_told_of_and_survive_a_reload() {
        let quotas = none();
        let list = [(1, 1, Messages), (2, 3_600, Messages), (9, 60, Messages)];
        let limited = install(&quotas, &list, seconds(0));
        let looked = |limited: &Limited, now| {
            let mut told = Vec::new();
            limited.watch(now, |of, level| {
                told.push((of.quota.period.as_secs(), of.used, level));
            });
            told
        };
        assert_eq!(looked(&limited, seconds(0)), []);
        assert!(spend(&limited, 1, seconds(1)));
        assert_eq!(looked(&limited, seconds(1)), [], "half of it");
        assert!(spend(&limited, 1, seconds(3)));
        let used_up = [(3_600, 2, QuotaLevel::UsedUp)];
        assert_eq!(looked(&limited, seconds(3)), used_up);
        let again = install(&quotas, &list, seconds(4));
        assert_eq!(looked(&again, seconds(4)), [], "that is known");
        let free = [(3_600, 0, QuotaLevel::Free)];
        assert_eq!(looked(&again, seconds(7_300)), [], "who knows for how long");
        assert_eq!(looked(&again, seconds(7_360)), free);
    }

    #[test]
    fn places_that_come_and_go_are_told_of_once() {
        let limited = install(&none(), &[(2, 3_600, Messages)], seconds(0));
        let mut told = Vec::new();
        for second in 0..300 {
            let now = seconds(second);
            let mut look = || limited.watch(now, |_, level| told.push((second, level)));
            let held = (limited.take(1, now), limited.take(1, now));
            if second < 200 {
                look();
            }
            drop(held);
            look();
        }
        assert_eq!(told, [(0, QuotaLevel::UsedUp), (259, QuotaLevel::Free)]);
    }

    #[test]
    fn since_when_a_quota_is_used_up_is_known() {
        let limited = install(&none(), &[(1, 60, Messages)], seconds(0));
        let lasting = |now| limited.usage(now)[0].used_up_for;
        assert_eq!(lasting(seconds(0)), None);
        assert!(spend(&limited, 1, seconds(5)));
        assert_eq!(lasting(seconds(5)), Some(Duration::ZERO));
        assert_eq!(lasting(seconds(25)), Some(Duration::from_secs(20)));
        assert_eq!(lasting(seconds(90)), None);
    }
}
