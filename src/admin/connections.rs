//! The open connections of the status endpoint, and which of them gives way when there are too many.
//!
//! A connection is silent until the header of its question is whole. When there is one connection too
//! many, the peer with the most silent connections loses the oldest of them. Likewise, while a
//! question waits for a page, the peer with the most pages on their way loses the oldest. So neither
//! many silent clients nor many slow readers shut anybody out, and a peer with few connections keeps
//! them. A connection that came less than [`SILENT_KEPT_MIN`] ago stays.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

/// A silent connection is kept at least so long.
pub(super) const SILENT_KEPT_MIN: Duration = Duration::from_millis(50);

/// Whose connections are counted together.
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
    /// The peer that a client at `address` counts as.
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

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its question is not whole.
    Silent,
    /// Its question is being answered.
    Answering,
    /// It waits until its page may be gathered.
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

/// All open connections; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Entries>>);

/// One connection, counted until this is dropped.
#[derive(Debug)]
pub(super) struct TrackedConnection {
    connections: Connections,
    id: u64,
    peer: Peer,
}

impl Connections {
    /// Counts one more connection, which is silent as yet.
    pub(super) fn track(&self, peer: Peer, now: Instant) -> TrackedConnection {
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
        TrackedConnection {
            connections: self.clone(),
            id,
            peer,
        }
    }

    /// Notes the task that serves connection `id`: it is aborted if the connection gives way.
    pub(super) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.lock().all.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// How many there are.
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
        // It counts no more from now on; its descriptor is free when the task has ended.
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
    /// The connection in this phase that gives way first, and when its phase began: the oldest one of
    /// the peer that has the most there.
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

impl TrackedConnection {
    /// Its number, for [`Connections::set_task`].
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whose it is.
    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// Notes that the connection is doing something else now.
    pub(super) fn set_phase(&self, phase: Phase, now: Instant) {
        if let Some(entry) = self.connections.lock().all.get_mut(&self.id) {
            entry.phase = phase;
            entry.since = now;
        }
    }
}

impl Drop for TrackedConnection {
    fn drop(&mut self) {
        self.connections.lock().all.remove(&self.id);
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

    fn there(connections: &Connections) -> Vec<u64> {
        connections.lock().all.keys().copied().collect()
    }

    #[test]
    fn the_longest_silent_of_the_peer_with_most_connections_gives_way() {
        let (connections, start) = (Connections::default(), Instant::now());
        let one = connections.track(ONE, start);
        let many: Vec<_> = (1..4)
            .map(|at| connections.track(MANY, after(start, at)))
            .collect();
        connections.drop_longest_silent(after(start, 1000));
        assert_eq!(there(&connections), [one.id(), many[1].id(), many[2].id()]);
        connections.drop_longest_silent(after(start, 1000));
        assert_eq!(there(&connections), [one.id(), many[2].id()]);
        // Equal shares: the one that has been silent for longer.
        connections.drop_longest_silent(after(start, 1000));
        assert_eq!(there(&connections), [many[2].id()]);
        drop((one, many));
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn a_young_silent_connection_and_one_that_has_asked_stay() {
        let (connections, start) = (Connections::default(), Instant::now());
        let asked = connections.track(ONE, start);
        asked.set_phase(Phase::Answering, start);
        connections.drop_longest_silent(after(start, 1000));
        assert_eq!((connections.len(), connections.longest_silent()), (1, None));
        let young = connections.track(ONE, after(start, 1000));
        connections.drop_longest_silent(after(start, 1049));
        assert_eq!(there(&connections), [asked.id(), young.id()]);
        connections.drop_longest_silent(after(start, 1050));
        assert_eq!(there(&connections), [asked.id()]);
        assert_eq!(connections.count(Phase::Answering, Some(ONE)), 1);
        assert_eq!(connections.count(Phase::Answering, Some(MANY)), 0);
    }

    #[test]
    fn a_page_gives_way_by_the_time_since_it_was_begun() {
        let (connections, start) = (Connections::default(), Instant::now());
        let places = [(); 2].map(|()| connections.track(ONE, start));
        places[1].set_phase(Phase::Page, after(start, 1));
        places[0].set_phase(Phase::Page, after(start, 2));
        assert_eq!(connections.longest_page(), Some(after(start, 1)));
        let kept_min = Duration::from_secs(2);
        connections.drop_longest_page(kept_min, after(start, 2000));
        assert_eq!(connections.len(), 2);
        connections.drop_longest_page(kept_min, after(start, 2001));
        assert_eq!(there(&connections), [places[0].id()]);
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
