//! Client limits and accept rates: exact, shared by all workers, bounded.
//!
//! Rates are a generic cell rate algorithm (ITU-T I.371): one time stamp says when the next event is
//! due if none came early, so that `count` events may come at once and the long run is exact.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::shared::lock;
use crate::types::{ClientKey, Rate};

/// Locks of the client table: workers meet at one of these only for clients of one shard.
const SHARDS: usize = 64;

/// Clients in one table at most.
const CLIENTS_MAX: usize = 1_048_576;

/// A shard is cleared of idle clients whenever it has grown to twice what was left the last time.
const SHARD_SWEEP_MIN: usize = 64;

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
    clients: AtomicUsize,
    clients_max: usize,
    base: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct Shard {
    clients: BTreeMap<ClientKey, Client>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Client {
    sessions: u32,
    /// When the next session is due, in nanoseconds since the base.
    due: u64,
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientRefusal {
    /// It has as many sessions as it may have.
    TooManySessions,
    /// It comes more often than it may.
    TooFast,
    /// The table is full of clients with open sessions (bounded at 1,048,576).
    TableFull,
}

/// Gives the place back when dropped.
#[derive(Debug)]
pub struct ClientPermit {
    limits: Arc<ClientLimits>,
    client: ClientKey,
}

impl ClientLimits {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Self::bounded(CLIENTS_MAX)
    }

    fn bounded(clients_max: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            clients: AtomicUsize::new(0),
            clients_max,
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
        let mut shard = lock(self.shard(client));
        if !shard.clients.contains_key(&client) {
            self.make_room(&mut shard, nanos)?;
        }
        let fresh = !shard.clients.contains_key(&client);
        let entry = shard.clients.entry(client).or_default();
        let verdict = if rules.max_sessions != 0 && entry.sessions >= rules.max_sessions {
            Err(ClientRefusal::TooManySessions)
        } else {
            match rules.rate {
                None => Ok(entry.due),
                Some(rate) => next_due(entry.due, rate, nanos).ok_or(ClientRefusal::TooFast),
            }
        };
        if fresh {
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        entry.due = verdict?;
        entry.sessions += 1;
        drop(shard);
        Ok(Some(ClientPermit {
            limits: Arc::clone(self),
            client,
        }))
    }

    /// Clients in the table, for the status page.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    fn shard(&self, client: ClientKey) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(client) as usize % SHARDS]
    }

    /// Makes room for one more client in `shard`. The bound is over all shards; it may be passed by
    /// as many as there are threads.
    fn make_room(&self, shard: &mut Shard, nanos: u64) -> Result<(), ClientRefusal> {
        let crowded = self.clients() >= self.clients_max;
        if crowded || shard.clients.len() >= shard.sweep_at.max(SHARD_SWEEP_MIN) {
            let before = shard.clients.len();
            shard
                .clients
                .retain(|_, client| client.sessions > 0 || client.due > nanos);
            self.clients
                .fetch_sub(before - shard.clients.len(), Ordering::Relaxed);
            shard.sweep_at = shard.clients.len() * 2;
        }
        if self.clients() >= self.clients_max {
            Err(ClientRefusal::TableFull)
        } else {
            Ok(())
        }
    }

    fn leave(&self, client: ClientKey) {
        let mut shard = lock(self.shard(client));
        let entry = shard
            .clients
            .get_mut(&client)
            .expect("a client with a permit is in the table");
        entry.sessions -= 1;
        if entry.sessions == 0 && entry.due == 0 {
            shard.clients.remove(&client);
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.limits.leave(self.client);
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
    let period = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
    let step = period / u64::from(rate.count.max(1));
    let next = due.max(now).saturating_add(step);
    (next - now <= period).then_some(next)
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
    fn the_table_is_bounded_and_forgets_who_is_idle() {
        let limits = ClientLimits::bounded(1000);
        let mut now = Instant::now();
        let both = rules(0, Some(per_minute(60)));
        for client in 0..5000 {
            drop(limits.admit(ClientKey(client), both, now));
            now += Duration::from_millis(50);
            assert!(limits.clients() <= 1000);
        }
        let held: Vec<_> = (10_000..12_000)
            .filter_map(|client| limits.admit(ClientKey(client), rules(1, None), now).ok())
            .collect();
        assert!(held.len() <= 1000);
        let refused = limits.admit(ClientKey(1), rules(1, None), now);
        assert_eq!(refused.expect_err("no room"), ClientRefusal::TableFull);
        drop(held);
        let admitted = limits.admit(ClientKey(1), rules(1, None), now);
        assert!(admitted.is_ok());
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
