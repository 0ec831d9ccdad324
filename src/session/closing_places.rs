//! Places for connections that are not sessions, or no longer: refused clients, checks of monitors,
//! and sessions that have ended and linger so that the client can read the last reply (rule K5).
//!
//! They are counted apart from sessions, so that a refused client takes no place from those that are
//! served; the descriptors that they may use are set aside. Each kind has its own places, and one
//! client address may have only a share of the places for refused clients and for monitors. So a
//! flood from one denied address leaves places to other clients, and monitors are answered whatever
//! else goes on. A connection that finds no place gets its first words in one write and is closed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::types::ClientKey;

/// The limit of descriptors divided by this is the number of places for refused clients, and again
/// for ended sessions,
const DESCRIPTORS_PER_PLACE: u64 = 64;
/// but the whole process has no more than this of each.
const PLACES_MAX: u64 = 2_048;
/// Places for checks of monitors in the whole process.
const MONITORS_MAX: u64 = 32;
/// The fewest places of each kind that a worker has, however many workers there are.
const WORKER_MIN: u64 = 4;
/// One client address may have one place in so many of a worker's,
const SHARE: u32 = 4;
/// and this many in any case: a balancer in front checks each of its servers, maybe two at once.
const CLIENT_MIN: u32 = 2;

/// The places of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosingBounds {
    served: u32,
    refused: u32,
    monitors: u32,
}

impl ClosingBounds {
    /// The places of each of `workers` workers under this limit of descriptors.
    pub fn of(descriptor_limit: u64, workers: usize) -> Self {
        let each = |places: u64| {
            let places = places.div_ceil(workers.max(1) as u64).max(WORKER_MIN);
            u32::try_from(places).unwrap_or(u32::MAX)
        };
        let most = (descriptor_limit / DESCRIPTORS_PER_PLACE).min(PLACES_MAX);
        Self {
            served: each(most),
            refused: each(most),
            monitors: each(MONITORS_MAX),
        }
    }

    /// All kinds together: as many descriptors are set aside.
    pub fn total(self) -> u32 {
        self.served + self.refused + self.monitors
    }
}

/// Why a connection that is no session is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClosingKind {
    /// Its session has ended, and it lingers.
    Served,
    /// The client is being refused.
    Refused,
    /// Another balancer checks us.
    Monitor,
}

/// The places of this thread, and how many are taken.
#[derive(Debug)]
pub(super) struct ClosingPlaces {
    bounds: ClosingBounds,
    served: Cell<u32>,
    refused: RefCell<PlacesByClient>,
    monitors: RefCell<PlacesByClient>,
}

/// Places by client: at most as many entries as there are places.
#[derive(Debug, Default)]
struct PlacesByClient {
    taken: u32,
    by_client: BTreeMap<ClientKey, u32>,
}

impl ClosingPlaces {
    pub(super) fn new(bounds: ClosingBounds) -> Self {
        Self {
            bounds,
            served: Cell::new(0),
            refused: RefCell::default(),
            monitors: RefCell::default(),
        }
    }

    /// Places that are taken now.
    pub(super) fn taken(&self) -> u64 {
        let by_client = self.refused.borrow().taken + self.monitors.borrow().taken;
        u64::from(self.served.get() + by_client)
    }

    /// Takes a place, if one is free for this client; whether it did. The taker gives it back.
    #[must_use]
    pub(super) fn take(&self, kind: ClosingKind, client: ClientKey) -> bool {
        match kind {
            // Each of them has been a session, so there is no flood of these.
            ClosingKind::Served => {
                let free = self.served.get() < self.bounds.served;
                self.served.set(self.served.get() + u32::from(free));
                free
            }
            ClosingKind::Refused => self.refused.borrow_mut().take(self.bounds.refused, client),
            ClosingKind::Monitor => self
                .monitors
                .borrow_mut()
                .take(self.bounds.monitors, client),
        }
    }

    pub(super) fn give_back(&self, kind: ClosingKind, client: ClientKey) {
        match kind {
            ClosingKind::Served => self.served.set(self.served.get() - 1),
            ClosingKind::Refused => self.refused.borrow_mut().give_back(client),
            ClosingKind::Monitor => self.monitors.borrow_mut().give_back(client),
        }
    }
}

impl PlacesByClient {
    fn take(&mut self, most: u32, client: ClientKey) -> bool {
        let own = self.by_client.get(&client).copied().unwrap_or(0);
        if self.taken >= most || own >= most.div_ceil(SHARE).max(CLIENT_MIN) {
            return false;
        }
        self.taken += 1;
        self.by_client.insert(client, own + 1);
        true
    }

    fn give_back(&mut self, client: ClientKey) {
        self.taken -= 1;
        if let Some(own) = self.by_client.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_a_small_part_of_the_descriptors() {
        for (limit, workers) in [(1_024, 2), (1_024, 16), (65_536, 4), (1 << 20, 64)] {
            let total = u64::from(ClosingBounds::of(limit, workers).total()) * workers as u64;
            assert!(total * 5 <= limit, "{total} of {limit}");
        }
        let bounds = ClosingBounds::of(65_536, 4);
        assert_eq!(
            (bounds.refused, bounds.served, bounds.monitors),
            (256, 256, 8)
        );
    }

    #[test]
    fn one_client_has_a_share_of_the_places_and_each_kind_has_its_own() {
        let places = ClosingPlaces::new(ClosingBounds::of(4_096, 1));
        let flood = |kind| {
            (0..1_000)
                .filter(|_| places.take(kind, ClientKey(1)))
                .count()
        };
        assert_eq!(flood(ClosingKind::Refused), 16);
        assert!(places.take(ClosingKind::Refused, ClientKey(2)));
        assert_eq!(flood(ClosingKind::Monitor), 8);
        assert!(places.take(ClosingKind::Monitor, ClientKey(2)));
        assert_eq!(flood(ClosingKind::Served), 64);
        assert_eq!(places.taken(), 16 + 1 + 8 + 1 + 64);
    }

    #[test]
    fn what_is_given_back_is_free_again_and_nothing_is_remembered() {
        let places = ClosingPlaces::new(ClosingBounds::of(1_024, 1));
        let (kind, many) = (ClosingKind::Refused, 1_000);
        let taken: Vec<_> = (0..many)
            .map(ClientKey)
            .filter(|client| places.take(kind, *client))
            .collect();
        assert_eq!(taken.len(), 16);
        assert!(!places.take(kind, ClientKey(many)), "all are taken");
        for client in taken {
            places.give_back(kind, client);
        }
        assert_eq!(places.taken(), 0);
        assert!(places.refused.borrow().by_client.is_empty());
        assert!(places.take(kind, ClientKey(many)));
    }
}
