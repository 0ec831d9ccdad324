//! Client limits and accept rates: exact, shared by all workers, bounded.
//!
//! Rates are a generic cell rate algorithm (ITU-T I.371): one time stamp says when the next event is
//! due if none came early, so that `count` events may come at once and the long run is exact.

use std::collections::HashMap;
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
    clients: HashMap<ClientKey, Client>,
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
