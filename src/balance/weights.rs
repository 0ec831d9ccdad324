//! Effective weights in a tree of sums (Fenwick): draw a member by weight in O(log n).
//!
//! Writers hold the pool's roster; readers hold nothing and may see a sum and its parts a moment
//! apart, so that a draw is a proposal that the caller checks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::Rng;

/// Weights by member index.
#[derive(Debug)]
pub(super) struct Weights {
    /// `tree[i]` is the sum of the `i & -i` weights that end with member `i - 1`.
    tree: Box<[AtomicU64]>,
    each: Box<[AtomicU64]>,
}

impl Weights {
    /// All zero.
    pub(super) fn new(members: usize) -> Self {
        let zeroes = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            tree: zeroes(members + 1),
            each: zeroes(members),
        }
    }

    /// Sets one weight; 0 is never drawn. One writer at a time.
    pub(super) fn set(&self, index: usize, weight: u64) {
        let before = self.each[index].swap(weight, Ordering::Relaxed);
        let change = weight.wrapping_sub(before);
        if change == 0 {
            return;
        }
        let mut at = index + 1;
        while at < self.tree.len() {
            self.tree[at].fetch_add(change, Ordering::Relaxed);
            at += at & at.wrapping_neg();
        }
    }

    /// A member by weight; `None` if all weights are zero.
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<usize> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let mut left = ((u128::from(rng.next()) * u128::from(total)) >> 64) as u64;
        let mut at = 0;
        let mut reach = self.tree.len().next_power_of_two() / 2;
        while reach > 0 {
            if let Some(sum) = self.tree.get(at + reach) {
                let sum = sum.load(Ordering::Relaxed);
                if sum <= left {
                    left -= sum;
                    at += reach;
                }
            }
            reach /= 2;
        }
        Some(at.min(self.each.len() - 1))
    }

    fn total(&self) -> u64 {
        let mut sum = 0u64;
        let mut at = self.each.len();
        while at > 0 {
            sum = sum.wrapping_add(self.tree[at].load(Ordering::Relaxed));
            at &= at - 1;
        }
        sum
    }

    #[cfg(debug_assertions)]
    pub(super) fn weight(&self, index: usize) -> u64 {
        self.each[index].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_drawn_by_weight_and_zero_never() {
        let weights = Weights::new(5);
        for (index, weight) in [0, 100, 0, 300, 600].into_iter().enumerate() {
            weights.set(index, weight);
        }
        let mut rng = Rng::seeded(7);
        let mut drawn = [0u32; 5];
        for _ in 0..100_000 {
            drawn[weights.draw(&mut rng).expect("weights are not all zero")] += 1;
        }
        assert_eq!((drawn[0], drawn[2]), (0, 0));
        for (index, share) in [(1, 10_000), (3, 30_000), (4, 60_000)] {
            assert!(drawn[index].abs_diff(share) < 700, "{drawn:?}");
        }
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        let weights = Weights::new(3);
        weights.set(1, 5);
        weights.set(1, 0);
        assert_eq!(weights.draw(&mut Rng::seeded(1)), None);
        assert_eq!(Weights::new(0).draw(&mut Rng::seeded(1)), None);
    }
}
