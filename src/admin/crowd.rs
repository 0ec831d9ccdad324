//! Who is connected to the status endpoint, and who gives way when it is full.
//!
//! A connection is silent until the header of its question is whole. When one connection too many
//! is there, the peer that holds the most silent ones loses the oldest of these; the same holds for
//! pages that are being sent while another is asked for. So neither many silent clients nor many
//! slow readers shut anybody out, and a peer with few connections keeps them. Whoever came a moment
//! ago stays.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

/// How long a silent connection is kept even if others wait.
pub(super) const SILENT_KEPT_MIN: Duration = Duration::from_millis(50);

/// Who has a share of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// An IPv4 address, or the /64 of an IPv6 address: a host may choose among all addresses of it.
    Network(IpAddr),
    /// A user on this host.
    User(u32),
    /// A client of a Unix socket of whom the kernel says nothing.
    Unknown,
}

impl Peer {
    /// The share that a client at `address` has.
    pub(super) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(six) if !six.is_loopback() => {
                let network = six.to_bits() >> 64 << 64;
                Self::Network(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
            other => Self::Network(other),
        }
    }
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its question is not whole.
    Silent,
    /// Its question is being answered.
    Answering,
    /// It waits for a place to gather a page.
    Waiting,
    /// A page is being sent to it.
    Page,
}

#[derive(Debug)]
struct Entry {
    peer: Peer,
    phase: Phase,
    /// When the phase began.
    since: Instant,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Entries {
    all: BTreeMap<u64, Entry>,
    entered: u64,
}

/// Everybody who is connected; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<Entries>>);

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    id: u64,
    peer: Peer,
}

impl Crowd {
    /// One more connection, silent as yet.
    pub(super) fn enter(&self, peer: Peer, now: Instant) -> Place {
        let mut entries = self.lock();
        let id = entries.entered;
        entries.entered += 1;
        let entry = Entry {
            peer,
            phase: Phase::Silent,
            since: now,
            task: None,
        };
        entries.all.insert(id, entry);
        Place {
            crowd: self.clone(),
            id,
            peer,
        }
    }

    /// The task that serves the connection of place `id`.
    pub(super) fn is_served_by(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.lock().all.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// How many are there.
    pub(super) fn len(&self) -> usize {
        self.lock().all.len()
    }

    /// How many connections of `peer`, or of everybody, are in this phase.
    pub(super) fn count(&self, phase: Phase, peer: Option<Peer>) -> usize {
        let entries = self.lock();
        let of =
            |entry: &&Entry| entry.phase == phase && peer.is_none_or(|peer| entry.peer == peer);
        entries.all.values().filter(of).count()
    }

    /// Since when the connection that gives way first has been silent.
    pub(super) fn longest_silent(&self) -> Option<Instant> {
        self.lock().gives_way(Phase::Silent).map(|(_, since)| since)
    }

    /// Ends the silent connection that gives way first, if it has been silent for
    /// [`SILENT_KEPT_MIN`].
    pub(super) fn drop_longest_silent(&self, now: Instant) {
        self.drop_longest(Phase::Silent, SILENT_KEPT_MIN, now);
    }

    /// Since when the page that gives way first has been on its way.
    pub(super) fn longest_page(&self) -> Option<Instant> {
        self.lock().gives_way(Phase::Page).map(|(_, since)| since)
    }

    /// Ends the page that gives way first, if it has been on its way for `kept_min`.
    pub(super) fn drop_longest_page(&self, kept_min: Duration, now: Instant) {
        self.drop_longest(Phase::Page, kept_min, now);
    }

    fn drop_longest(&self, phase: Phase, kept_min: Duration, now: Instant) {
        let mut entries = self.lock();
        let Some((id, since)) = entries.gives_way(phase) else {
            return;
        };
        if now.saturating_duration_since(since) < kept_min {
            return;
        }
        // Its place is free for the count at once; its descriptor when the task has ended.
        let task = entries.all.remove(&id).and_then(|entry| entry.task);
        drop(entries);
        if let Some(task) = task {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Plain values: they are whole even if a holder panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Who gives way in this phase, and since when it has been in it: the longest of the peer that
    /// has the most there.
    fn gives_way(&self, phase: Phase) -> Option<(u64, Instant)> {
        let there = || self.all.iter().filter(|(_, entry)| entry.phase == phase);
        let mut counts = BTreeMap::<Peer, usize>::new();
        for (_, entry) in there() {
            *counts.entry(entry.peer).or_default() += 1;
        }
        let most = counts.values().max()?;
        there()
            .filter(|(_, entry)| counts[&entry.peer] == *most)
            .map(|(id, entry)| (*id, entry.since))
            .min_by_key(|(_, since)| *since)
    }
}

impl Place {
    /// Its number, for [`Crowd::is_served_by`].
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whose share it is.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// The connection is at something else now.
    pub(super) fn is_now(&self, phase: Phase, now: Instant) {
        if let Some(entry) = self.crowd.lock().all.get_mut(&self.id) {
            entry.phase = phase;
            entry.since = now;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().all.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Peer = Peer::User(1);
    const MANY: Peer = Peer::User(2);

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn there(crowd: &Crowd) -> Vec<u64> {
        crowd.lock().all.keys().copied().collect()
    }

    #[test]
    fn the_longest_silent_of_the_peer_with_most_connections_gives_way() {
        let (crowd, start) = (Crowd::default(), Instant::now());
        let one = crowd.enter(ONE, start);
        let many: Vec<_> = (1..4)
            .map(|at| crowd.enter(MANY, after(start, at)))
            .collect();
        crowd.drop_longest_silent(after(start, 1000));
        assert_eq!(there(&crowd), [one.id(), many[1].id(), many[2].id()]);
        crowd.drop_longest_silent(after(start, 1000));
        assert_eq!(there(&crowd), [one.id(), many[2].id()]);
        // Equal shares: the one that has been silent for longer.
        crowd.drop_longest_silent(after(start, 1000));
        assert_eq!(there(&crowd), [many[2].id()]);
        drop((one, many));
        assert_eq!(crowd.len(), 0);
    }

    #[test]
    fn whoever_came_a_moment_ago_or_has_asked_stays() {
        let (crowd, start) = (Crowd::default(), Instant::now());
        let asked = crowd.enter(ONE, start);
        asked.is_now(Phase::Answering, start);
        crowd.drop_longest_silent(after(start, 1000));
        assert_eq!((crowd.len(), crowd.longest_silent()), (1, None));
        let young = crowd.enter(ONE, after(start, 1000));
        crowd.drop_longest_silent(after(start, 1049));
        assert_eq!(there(&crowd), [asked.id(), young.id()]);
        crowd.drop_longest_silent(after(start, 1050));
        assert_eq!(there(&crowd), [asked.id()]);
        assert_eq!(crowd.count(Phase::Answering, Some(ONE)), 1);
        assert_eq!(crowd.count(Phase::Answering, Some(MANY)), 0);
    }

    #[test]
    fn a_page_gives_way_by_the_time_since_it_was_begun() {
        let (crowd, start) = (Crowd::default(), Instant::now());
        let places = [(); 2].map(|()| crowd.enter(ONE, start));
        places[1].is_now(Phase::Page, after(start, 1));
        places[0].is_now(Phase::Page, after(start, 2));
        assert_eq!(crowd.longest_page(), Some(after(start, 1)));
        let kept_min = Duration::from_secs(2);
        crowd.drop_longest_page(kept_min, after(start, 2000));
        assert_eq!(crowd.len(), 2);
        crowd.drop_longest_page(kept_min, after(start, 2001));
        assert_eq!(there(&crowd), [places[0].id()]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_a_mapped_address_is_that_of_ipv4() {
        let at = |text: &str| Peer::at(text.parse().expect("an address"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(at("::1"), Peer::Network("::1".parse().expect("loopback")));
    }
}
