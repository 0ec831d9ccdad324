//! How many connections to one backend are being opened at a time (rule N6).
//!
//! A listening socket has a queue for what was not accepted yet: 6 connections in OpenSMTPD, 21 in
//! Exim. Beyond that the kernel drops what comes and the dialler asks again after a second, then
//! two, then four; a burst that is dialled at once meets itself again each time. So only a few are
//! opened at a time. One that has heard nothing for [`OPENING_TIME`] counts no more: by then it was
//! accepted, and its backend is slow to greet.

use std::sync::Arc;
use std::time::Duration;

use super::BackendState;

/// A connection counts as being opened until its backend has spoken, and for so long at most.
pub const OPENING_TIME: Duration = Duration::from_millis(100);

/// A connection that is being opened. It counts until dropped.
#[derive(Debug)]
pub struct OpeningPlace(Arc<BackendState>);

impl OpeningPlace {
    /// A place, if fewer than `max` connections to the backend are being opened. Exact under
    /// concurrency.
    pub fn take(backend: &Arc<BackendState>, max: u32) -> Option<Self> {
        backend
            .begin_opening(max)
            .then(|| Self(Arc::clone(backend)))
    }
}

impl Drop for OpeningPlace {
    fn drop(&mut self) {
        self.0.end_opening();
    }
}

#[cfg(test)]
mod tests {
    use super::super::PoolSettings;
    use super::super::testing::Fleet;
    use super::*;

    #[test]
    fn rule_n6_so_many_are_opened_at_a_time_and_each_place_is_given_back() {
        let fleet = Fleet::equal(PoolSettings::default(), 1);
        let backend = &fleet.states[0];
        let places: Vec<_> = (0..4).map(|_| OpeningPlace::take(backend, 4)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(OpeningPlace::take(backend, 4).is_none());
        assert!(
            OpeningPlace::take(backend, 5).is_some(),
            "a reload may allow more"
        );
        drop(places);
        assert!(OpeningPlace::take(backend, 1).is_some());
    }
}
