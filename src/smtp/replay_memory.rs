//! The memory that all replay copies of the process share (rule F1, `replay_memory`).
//!
//! Reserved before it is used and given back by `Drop`, so that nothing leaks whatever ends a
//! session. What is counted is the capacity of buffers, not what is in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// The budget. All threads share one.
#[derive(Debug)]
pub struct ReplayMemory {
    used: CachePadded<AtomicU64>,
    max: AtomicU64,
}

impl ReplayMemory {
    /// A budget of `max` octets.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            used: CachePadded::new(AtomicU64::new(0)),
            max: AtomicU64::new(max),
        })
    }

    /// Octets reserved now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The budget in octets.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes the budget, at a reload. What is reserved stays so, even above the new budget.
    pub fn resize(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Exact under concurrency: the sum of what was granted never passes the budget.
    fn grant(&self, octets: u64) -> bool {
        let max = self.max();
        let more = |used: u64| used.checked_add(octets).filter(|&sum| sum <= max);
        // Relaxed: the count guards no other memory.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn take_back(&self, octets: u64) {
        let before = self.used.fetch_sub(octets, Ordering::Relaxed);
        debug_assert!(before >= octets, "more was given back than reserved");
    }
}

/// A part of the budget. Dropping it gives it back.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<ReplayMemory>,
    octets: u64,
}

impl Reservation {
    /// Nothing yet.
    pub fn new(memory: &Arc<ReplayMemory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            octets: 0,
        }
    }

    /// Reserves so many octets more, or none and is false.
    #[must_use]
    pub fn grow(&mut self, octets: u64) -> bool {
        let granted = self.memory.grant(octets);
        if granted {
            self.octets += octets;
        }
        granted
    }

    /// Gives back so many octets of those that were reserved.
    pub fn shrink(&mut self, octets: u64) {
        assert!(
            octets <= self.octets,
            "only what was reserved is given back"
        );
        self.octets -= octets;
        self.memory.take_back(octets);
    }

    /// Octets reserved by it.
    pub fn octets(&self) -> u64 {
        self.octets
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.octets > 0 {
            self.memory.take_back(self.octets);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_reservation_is_given_back_when_it_is_dropped() {
        let memory = ReplayMemory::new(100);
        let mut first = Reservation::new(&memory);
        assert!(first.grow(60));
        let mut second = Reservation::new(&memory);
        assert!(!second.grow(41));
        assert!(second.grow(40));
        assert_eq!(
            (memory.used(), first.octets(), second.octets()),
            (100, 60, 40)
        );
        first.shrink(10);
        assert_eq!((memory.used(), first.octets()), (90, 50));
        drop(first);
        assert_eq!(memory.used(), 40);
        drop(second);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_smaller_budget_takes_nothing_away_and_grants_nothing() {
        let memory = ReplayMemory::new(100);
        let mut held = Reservation::new(&memory);
        assert!(held.grow(80));
        memory.resize(50);
        assert!(!held.grow(1));
        assert_eq!((memory.used(), memory.max()), (80, 50));
        held.shrink(40);
        assert!(held.grow(10));
        assert!(!held.grow(u64::MAX));
    }

    #[test]
    fn threads_never_pass_the_budget_and_leave_nothing_behind() {
        let memory = ReplayMemory::new(1000);
        thread::scope(|scope| {
            for step in 1..=4 {
                let memory = &memory;
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let mut reservation = Reservation::new(memory);
                        while reservation.octets() < 600 && reservation.grow(step * 70) {
                            assert!(memory.used() <= 1000);
                        }
                    }
                });
            }
        });
        assert_eq!(memory.used(), 0);
    }
}
