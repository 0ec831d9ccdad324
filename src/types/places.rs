//! Places that all threads share, with an exact bound.
//!
//! Every take names the bound, because a reload may change it; a lower bound takes no place away. The
//! taker of a place must give it back: [`Places`] only counts.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

/// How many places are taken.
#[derive(Debug, Default)]
pub struct Places(CachePadded<AtomicU32>);

impl Places {
    /// Places that are taken now.
    pub fn taken(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a place if fewer than `limit` are taken; whether it did. Exact under concurrency.
    #[must_use]
    pub fn take(&self, limit: u32) -> bool {
        let more = |taken: u32| (taken < limit).then_some(taken + 1);
        // Relaxed: the count guards no other memory.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Gives a place back that was taken.
    pub fn give_back(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more places were given back than taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_exactly_as_many_places_as_there_are() {
        let places = Places::default();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| places.take(1234)).count()))
                .collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().expect("no thread panics"));
            joined.sum()
        });
        assert_eq!((taken, places.taken()), (1234, 1234));
        // A lower bound turns nobody out, and takes effect as places come free.
        assert!(!places.take(1000));
        for _ in 0..235 {
            places.give_back();
        }
        assert!(places.take(1000));
        assert!(!places.take(1000));
    }
}
