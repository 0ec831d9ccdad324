//! The hedge budget of one pool: a token bucket that sessions fill and hedges empty.
//!
//! Counted in hundredths of a hedge. While it is full, which is always where nothing is slow, a
//! session only reads it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Hedge;

/// One hedge, in the bucket's unit.
const HEDGE: u32 = 100;

/// Why a hedge is not dialled, or that it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeVerdict {
    /// Budget and settings allow it; as an error: but no other backend can take it now.
    Allowed,
    /// Too many hedges for the sessions there were.
    OverBudget,
    /// The pool does not hedge.
    Off,
}

/// Shared by all workers; survives generations.
#[derive(Debug)]
pub(super) struct HedgeBudget {
    /// What was taken and not yet earned back: 0 is a full bucket, whatever the burst is.
    spent: AtomicU32,
}

impl HedgeBudget {
    pub(super) fn new() -> Self {
        Self {
            spent: AtomicU32::new(0),
        }
    }

    /// A session began.
    pub(super) fn earn(&self, hedge: &Hedge) {
        if self.spent.load(Ordering::Relaxed) == 0 {
            return;
        }
        let earned = u32::from(hedge.budget.value());
        // A lost race only means that another thread changed it: once more, then give up; a
        // hundredth more or less is nobody's harm, and the bound below is kept by `take`.
        for _ in 0..2 {
            let spent = self.spent.load(Ordering::Relaxed);
            let left = spent.saturating_sub(earned);
            if self
                .spent
                .compare_exchange_weak(spent, left, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    /// Whether a hedge could be taken now.
    pub(super) fn verdict(&self, hedge: &Hedge) -> HedgeVerdict {
        if !hedge.enabled {
            HedgeVerdict::Off
        } else if self.spent.load(Ordering::Relaxed) + HEDGE > Self::cap(hedge) {
            HedgeVerdict::OverBudget
        } else {
            HedgeVerdict::Allowed
        }
    }

    /// The bucket's size: the burst, or one hedge where a budget without a burst could never be used.
    fn cap(hedge: &Hedge) -> u32 {
        u32::from(hedge.burst.max(u16::from(hedge.budget.value() > 0))) * HEDGE
    }

    /// Takes one hedge.
    pub(super) fn take(&self, hedge: &Hedge) -> HedgeVerdict {
        if !hedge.enabled {
            return HedgeVerdict::Off;
        }
        let cap = Self::cap(hedge);
        let taken = self
            .spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
                (spent + HEDGE <= cap).then_some(spent + HEDGE)
            });
        match taken {
            Ok(_) => HedgeVerdict::Allowed,
            Err(_) => HedgeVerdict::OverBudget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Percent;

    fn hedge(budget: u8, burst: u16) -> Hedge {
        Hedge {
            budget: Percent::new(budget).expect("a percentage"),
            burst,
            ..Hedge::default()
        }
    }

    #[test]
    fn hedges_are_a_tenth_of_sessions_and_a_burst() {
        let budget = HedgeBudget::new();
        let rules = hedge(10, 16);
        for _ in 0..16 {
            assert_eq!(budget.take(&rules), HedgeVerdict::Allowed);
        }
        assert_eq!(budget.take(&rules), HedgeVerdict::OverBudget);
        let mut taken = 0;
        for _ in 0..1000 {
            budget.earn(&rules);
            taken += u32::from(budget.take(&rules) == HedgeVerdict::Allowed);
        }
        assert_eq!(taken, 100);
    }

    #[test]
    fn the_bucket_does_not_grow_beyond_the_burst() {
        let budget = HedgeBudget::new();
        let rules = hedge(100, 2);
        (0..50).for_each(|_| budget.earn(&rules));
        assert_eq!(budget.take(&rules), HedgeVerdict::Allowed);
        assert_eq!(budget.take(&rules), HedgeVerdict::Allowed);
        assert_eq!(budget.verdict(&rules), HedgeVerdict::OverBudget);
    }

    #[test]
    fn a_pool_without_hedging_says_off() {
        let budget = HedgeBudget::new();
        let off = Hedge {
            enabled: false,
            ..Hedge::default()
        };
        assert_eq!(budget.verdict(&off), HedgeVerdict::Off);
        assert_eq!(budget.take(&off), HedgeVerdict::Off);
    }

    #[test]
    fn a_smaller_burst_after_a_reload_holds_at_once() {
        let budget = HedgeBudget::new();
        (0..4).for_each(|_| assert_eq!(budget.take(&hedge(10, 8)), HedgeVerdict::Allowed));
        assert_eq!(budget.take(&hedge(10, 4)), HedgeVerdict::OverBudget);
        assert_eq!(budget.take(&hedge(10, 5)), HedgeVerdict::Allowed);
    }
}
