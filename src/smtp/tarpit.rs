//! How many sessions may be kept waiting for what they did wrong (rule B5).
//!
//! A session that waits costs its client a connection, and us one too: beyond [`TARPITTED_MAX`]
//! nobody else is held back, so that those who guess cannot fill the house. A place is taken while
//! a reply is held back and given back by `Drop`, whatever ends the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sessions of the whole process that are held back at a time.
pub const TARPITTED_MAX: u32 = 1_024;

/// The places. All threads share them.
#[derive(Debug, Default)]
pub struct Tarpit {
    taken: AtomicU32,
}

impl Tarpit {
    /// Places that are taken now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place, if one is free. Exact under concurrency.
    pub fn enter(self: &Arc<Self>) -> Option<TarpitPlace> {
        let more = |taken: u32| (taken < TARPITTED_MAX).then_some(taken + 1);
        // Relaxed: the count guards no other memory.
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()
            .map(|_| TarpitPlace(Arc::clone(self)))
    }
}

/// A place. Dropping it gives it back.
#[derive(Debug)]
pub struct TarpitPlace(Arc<Tarpit>);

impl Drop for TarpitPlace {
    fn drop(&mut self) {
        let before = self.0.taken.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more places were given back than taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_b5_there_are_so_many_places_and_each_is_given_back() {
        let tarpit = Arc::new(Tarpit::default());
        let places: Vec<_> = (0..TARPITTED_MAX).map(|_| tarpit.enter()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(tarpit.enter().is_none());
        drop(places);
        assert_eq!(tarpit.taken(), 0);
        assert!(tarpit.enter().is_some());
    }
}
