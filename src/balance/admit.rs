//! Client limits and accept rates: exact, shared by all workers, bounded.
//!
//! Rates are a generic cell rate algorithm (ITU-T I.371): one time stamp says when the next event is
//! due if none came early, so that `count` events may come at once and the long run is exact.
//!
//! The table is bounded by shard. Where a shard is full, the client without open sessions whose rate
//! would be forgotten soonest makes room; where all have open sessions, newcomers share one entry per
//! network. No admission looks at more than a few entries, however full the table is.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::shared::lock;
use crate::types::{ClientKey, Rate};

/// Locks of the client table: workers meet at one of these only for clients of one shard.
const SHARDS: usize = 64;

/// Clients in one table at most.
const CLIENTS_MAX: usize = 1_048_576;

/// Networks whose clients share an entry, in one table at most.
const NETWORKS_MAX: usize = 65_536;

/// Entries that count nothing any more and that one newcomer clears away.
const CLEARED_AT_ONCE: usize = 2;

/// The limits one listener sets for each client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// Sessions at once; 0 is no limit.
    pub max_sessions: u32,
    /// New sessions.
    pub rate: Option<Rate>,
}

/// Exact client limits of one listener in one sharded, bounded table; survives generations.
#[derive(Debug)]
pub struct ClientLimits {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    bounds: Bounds,
    base: OnceLock<Instant>,
}

/// What one shard holds at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    clients: usize,
    networks: usize,
}

#[derive(Debug, Default)]
struct Shard {
    clients: Table,
    networks: Table,
}

#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<ClientKey, Entry>,
    /// Those without open sessions whose rate still counts: by when it is forgotten.
    resting: BTreeSet<(u64, ClientKey)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    sessions: u32,
    /// When the next session is due, in nanoseconds since the base.
    due: u64,
}

/// Whose entry a session is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// The client's own,
    Client(ClientKey),
    /// or that of its network.
    Network(ClientKey),
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientRefusal {
    /// It has as many sessions as it may have.
    TooManySessions,
    /// It comes more often than it may.
    TooFast,
    /// The table is full of clients and of networks with open sessions.
    TableFull,
}

/// Gives the place back when dropped.
#[derive(Debug)]
pub struct ClientPermit {
    limits: Arc<ClientLimits>,
    counted: Counted,
}

impl ClientLimits {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Self::bounded(Bounds {
            clients: CLIENTS_MAX / SHARDS,
            networks: NETWORKS_MAX / SHARDS,
        })
    }

    fn bounded(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            bounds,
            base: OnceLock::new(),
        })
    }

    /// `Ok(None)` when the rules set no limit (no table access).
    ///
    /// # Errors
    /// The client is over a limit, or the table is full; nothing is counted then.
    pub fn admit(
        self: &Arc<Self>,
        client: ClientKey,
        rules: ClientRules,
        now: Instant,
    ) -> Result<Option<ClientPermit>, ClientRefusal> {
        if rules.max_sessions == 0 && rules.rate.is_none() {
            return Ok(None);
        }
        let nanos = nanos_since(*self.base.get_or_init(|| now), now);
        let own = Counted::Client(client);
        let counted = match self.table(own, |table, most| table.admit(client, rules, nanos, most)) {
            Ok(()) => own,
            Err(ClientRefusal::TableFull) => {
                let network = client.network();
                let shared = Counted::Network(network);
                self.table(shared, |table, most| {
                    table.admit(network, rules, nanos, most)
                })?;
                shared
            }
            Err(refusal) => return Err(refusal),
        };
        Ok(Some(ClientPermit {
            limits: Arc::clone(self),
            counted,
        }))
    }

    /// Works on the table, and with the bound, of an entry.
    fn table<T>(&self, of: Counted, work: impl FnOnce(&mut Table, usize) -> T) -> T {
        let shard = |key| lock(&self.shards[self.hasher.hash_one(key) as usize % SHARDS]);
        match of {
            Counted::Client(key) => work(&mut shard(key).clients, self.bounds.clients),
            Counted::Network(key) => work(&mut shard(key).networks, self.bounds.networks),
        }
    }
}

impl Counted {
    fn key(self) -> ClientKey {
        match self {
            Self::Client(key) | Self::Network(key) => key,
        }
    }
}

impl ClientPermit {
    /// Gives back the place and what the session was charged of the client's rate, because it was
    /// refused for what others do.
    pub fn refund(self, rules: ClientRules) {
        if let Some(rate) = rules.rate {
            let key = self.counted.key();
            self.limits
                .table(self.counted, |table, _| table.refund(key, rate));
        }
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let key = self.counted.key();
        self.limits.table(self.counted, |table, _| table.leave(key));
    }
}

impl Table {
    fn admit(
        &mut self,
        key: ClientKey,
        rules: ClientRules,
        nanos: u64,
        most: usize,
    ) -> Result<(), ClientRefusal> {
        let known = self.entries.get(&key).copied();
        if known.is_none() {
            self.make_room(nanos, most)?;
        }
        let Entry { sessions, due } = known.unwrap_or_default();
        if rules.max_sessions != 0 && sessions >= rules.max_sessions {
            return Err(ClientRefusal::TooManySessions);
        }
        let next = match rules.rate {
            None => due,
            Some(rate) => next_due(due, rate, nanos).ok_or(ClientRefusal::TooFast)?,
        };
        if sessions == 0 && due > 0 {
            self.resting.remove(&(due, key));
        }
        let entry = Entry {
            sessions: sessions + 1,
            due: next,
        };
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Makes room for one more entry: clears a few entries that count nothing any more, and if that is
    /// not enough, the one whose rate would be forgotten soonest.
    fn make_room(&mut self, nanos: u64, most: usize) -> Result<(), ClientRefusal> {
        for _ in 0..CLEARED_AT_ONCE {
            if self.resting.first().is_none_or(|(due, _)| *due > nanos) {
                break;
            }
            self.forget_oldest();
        }
        if self.entries.len() >= most && !self.forget_oldest() {
            return Err(ClientRefusal::TableFull);
        }
        Ok(())
    }

    /// Forgets the entry without open sessions whose rate ends soonest; whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.resting.pop_first();
        oldest.is_some_and(|(_, key)| self.entries.remove(&key).is_some())
    }

    fn leave(&mut self, key: ClientKey) {
        let entry = self
            .entries
            .get_mut(&key)
            .expect("what has a permit is in the table");
        entry.sessions -= 1;
        if entry.sessions > 0 {
            return;
        }
        if entry.due == 0 {
            self.entries.remove(&key);
        } else {
            self.resting.insert((entry.due, key));
        }
    }

    /// Takes one session off the rate of `key`, which has a permit and so does not rest.
    fn refund(&mut self, key: ClientKey, rate: Rate) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.due = entry.due.saturating_sub(step(rate));
        }
    }
}

/// One listener's accept rate (GCRA in one atomic), shared by all workers.
#[derive(Debug, Default)]
pub struct AcceptRate {
    base: OnceLock<Instant>,
    due: AtomicU64,
}

impl AcceptRate {
    /// Whether one more session may come now; counts it if so.
    pub fn admit(&self, rate: Rate, now: Instant) -> bool {
        let nanos = nanos_since(*self.base.get_or_init(|| now), now);
        self.due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
                next_due(due, rate, nanos)
            })
            .is_ok()
    }
}

/// When the event after this one is due, or `None` if this one comes too early.
fn next_due(due: u64, rate: Rate, now: u64) -> Option<u64> {
    let next = due.max(now).saturating_add(step(rate));
    (next - now <= period(rate)).then_some(next)
}

/// The time between two events in the long run.
fn step(rate: Rate) -> u64 {
    period(rate) / u64::from(rate.count.max(1))
}

fn period(rate: Rate) -> u64 {
    u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX)
}

fn nanos_since(base: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(base).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rules(max_sessions: u32, rate: Option<Rate>) -> ClientRules {
        ClientRules { max_sessions, rate }
    }

    fn per_minute(count: u32) -> Rate {
        Rate {
            count,
            period: Duration::from_mins(1),
        }
    }

    impl ClientLimits {
        fn sum(&self, of: impl Fn(&Shard) -> &Table) -> usize {
            let shards = self.shards.iter();
            shards
                .map(|shard| {
                    let shard = lock(shard);
                    let table = of(&shard);
                    let rests = |(key, entry): (&ClientKey, &Entry)| {
                        entry.sessions == 0 && table.resting.contains(&(entry.due, *key))
                    };
                    let at_rest = table.entries.iter().filter(|entry| rests(*entry)).count();
                    assert_eq!(
                        at_rest,
                        table.resting.len(),
                        "a resting entry has no session"
                    );
                    table.entries.len()
                })
                .sum()
        }

        fn clients(&self) -> usize {
            self.sum(|shard| &shard.clients)
        }

        fn networks(&self) -> usize {
            self.sum(|shard| &shard.networks)
        }
    }

    /// So many clients and networks in each shard.
    fn small(clients: usize, networks: usize) -> Arc<ClientLimits> {
        ClientLimits::bounded(Bounds { clients, networks })
    }

    /// The `client`-th /64 of the `network`-th /48.
    fn key(network: u128, client: u128) -> ClientKey {
        ClientKey((0x2001_0db8 << 96) + (network << 80) + (client << 64))
    }

    #[test]
    fn no_rules_do_not_touch_the_table() {
        let limits = ClientLimits::new();
        let admitted = limits.admit(ClientKey(1), rules(0, None), Instant::now());
        assert!(matches!(admitted, Ok(None)));
        assert_eq!(limits.clients(), 0);
    }

    #[test]
    fn sessions_of_one_client_are_counted_exactly() {
        let limits = ClientLimits::new();
        let now = Instant::now();
        let admit = |client| limits.admit(ClientKey(client), rules(2, None), now);
        let first = admit(1).expect("the first");
        let second = admit(1).expect("the second");
        assert_eq!(
            admit(1).expect_err("a third"),
            ClientRefusal::TooManySessions
        );
        let other = admit(2).expect("another client");
        assert_eq!(limits.clients(), 2);
        drop(first);
        let again = admit(1).expect("a place came free");
        drop((second, other, again));
        assert_eq!(limits.clients(), 0);
    }

    #[test]
    fn a_rate_allows_its_count_at_once_and_no_more_in_the_long_run() {
        let limits = ClientLimits::new();
        let mut now = Instant::now();
        let admit = |now| limits.admit(ClientKey(1), rules(0, Some(per_minute(6))), now);
        for _ in 0..6 {
            admit(now).expect("six at once");
        }
        assert_eq!(admit(now).expect_err("a seventh"), ClientRefusal::TooFast);
        let mut admitted = 0;
        for _ in 0..600 {
            now += Duration::from_secs(1);
            admitted += u32::from(admit(now).is_ok());
        }
        assert_eq!(admitted, 60);
    }

    #[test]
    fn a_refused_session_costs_no_allowance() {
        let limits = ClientLimits::new();
        let now = Instant::now();
        let both = rules(1, Some(per_minute(2)));
        let first = limits.admit(ClientKey(1), both, now).expect("the first");
        for _ in 0..10 {
            let refused = limits.admit(ClientKey(1), both, now);
            assert_eq!(
                refused.expect_err("one at once"),
                ClientRefusal::TooManySessions
            );
        }
        drop(first);
        drop(limits.admit(ClientKey(1), both, now).expect("the second"));
        let refused = limits.admit(ClientKey(1), both, now);
        assert_eq!(refused.expect_err("two a minute"), ClientRefusal::TooFast);
    }

    #[test]
    fn a_session_that_was_never_used_costs_no_allowance() {
        let limits = ClientLimits::new();
        let now = Instant::now();
        let both = rules(2, Some(per_minute(2)));
        let admit = || limits.admit(ClientKey(1), both, now);
        for _ in 0..10 {
            let permit = admit().expect("the first, again");
            permit.expect("there are rules").refund(both);
        }
        drop((admit().expect("the first"), admit().expect("the second")));
        assert_eq!(admit().expect_err("two a minute"), ClientRefusal::TooFast);
    }

    #[test]
    fn the_table_is_bounded_and_clears_what_counts_nothing_a_few_at_a_time() {
        let limits = small(15, 1);
        let mut now = Instant::now();
        let rate = rules(0, Some(per_minute(60)));
        for client in 0..5000 {
            drop(limits.admit(ClientKey(client), rate, now));
            now += Duration::from_millis(1);
            assert!(client % 100 > 0 || limits.clients() <= 15 * SHARDS);
        }
        // All rates are over. The next client clears away some of them, not the whole table.
        now += Duration::from_mins(1);
        let before = limits.clients();
        drop(limits.admit(ClientKey(10_000), rate, now));
        assert!(limits.clients() >= before + 1 - CLEARED_AT_ONCE);
        for client in 10_001..20_000 {
            drop(limits.admit(ClientKey(client), rules(1, None), now));
        }
        assert_eq!(limits.clients(), 1, "all but the last rate are cleared");
    }

    #[test]
    fn a_full_table_forgets_the_oldest_rate_first_and_nobody_with_a_session() {
        let mut table = Table::default();
        let rate = |count| rules(0, Some(per_minute(count)));
        // Client 1 has a session. The rate of 3 is forgotten soonest, then those of 2 and 4.
        for (client, count) in [(1, 60), (2, 2), (3, 60), (4, 1)] {
            table.admit(ClientKey(client), rate(count), 1, 4).unwrap();
        }
        for client in 2..=4 {
            table.leave(ClientKey(client));
        }
        let left = |table: &Table| -> Vec<_> { table.entries.keys().map(|key| key.0).collect() };
        assert_eq!(left(&table), [1, 2, 3, 4]);
        for (newcomer, stay) in [(5, [1, 2, 4, 5]), (6, [1, 4, 5, 6]), (7, [1, 5, 6, 7])] {
            table.admit(ClientKey(newcomer), rate(1), 2, 4).unwrap();
            assert_eq!(left(&table), stay);
        }
        let full = table.admit(ClientKey(8), rate(1), 3, 4);
        assert_eq!(full, Err(ClientRefusal::TableFull));
    }

    #[test]
    fn newcomers_share_the_entry_of_their_network_while_all_in_the_table_have_sessions() {
        let limits = small(2, 2);
        let now = Instant::now();
        let many = |client| limits.admit(key(1, client), rules(60_000, None), now);
        let held: Vec<_> = (0..10_000).map(|client| many(client).unwrap()).collect();
        assert_eq!((limits.clients(), limits.networks()), (2 * SHARDS, 1));
        // An own limit of one session is now one of the network.
        let one = |network, client| limits.admit(key(network, client), rules(1, None), now);
        let first = one(2, 1).expect("the first of its network");
        assert_eq!(one(2, 2).unwrap_err(), ClientRefusal::TooManySessions);
        let other = one(3, 1).expect("another network");
        assert_eq!((limits.clients(), limits.networks()), (2 * SHARDS, 3));
        drop(first);
        drop(one(2, 2).expect("the first has left"));
        // Once the table has room each is on its own again.
        drop(held);
        let own = (one(2, 1).expect("its own"), one(2, 2).expect("its own"));
        assert_eq!((limits.clients(), limits.networks()), (2, 1));
        drop((other, own));
        assert_eq!((limits.clients(), limits.networks()), (0, 0));
    }

    #[test]
    fn the_shared_entries_are_bounded_as_well() {
        let limits = small(1, 1);
        let now = Instant::now();
        let admit = |network| limits.admit(key(network, 1), rules(1, None), now);
        let held: Vec<_> = (0..10_000)
            .filter_map(|network| admit(network).ok())
            .collect();
        assert_eq!((limits.clients(), limits.networks()), (SHARDS, SHARDS));
        assert_eq!(held.len(), 2 * SHARDS);
        assert_eq!(admit(10_001).unwrap_err(), ClientRefusal::TableFull);
        drop(held);
        assert!(admit(10_001).is_ok());
    }

    #[test]
    fn an_accept_rate_is_shared_by_threads_and_exact() {
        let accept = AcceptRate::default();
        let rate = Rate {
            count: 100,
            period: Duration::from_secs(1),
        };
        let now = Instant::now();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter(|_| accept.admit(rate, now)).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no thread panics"))
                .sum()
        });
        assert_eq!(admitted, 100);
        assert!(!accept.admit(rate, now));
        assert!(accept.admit(rate, now + Duration::from_millis(10)));
        assert!(!accept.admit(rate, now + Duration::from_millis(10)));
    }
}
