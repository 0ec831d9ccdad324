//! What outlives snapshots: backend, pool and listener state by name.
//!
//! An entry of a backend goes only when no snapshot names it and its counts are zero; re-adding it
//! finds it again. Indices of pools and listeners are stable for the life of the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::balance::{
    AcceptRate, AdminState, BackendState, ClientLimits, Epoch, PoolShared, Quotas,
};
use crate::metrics::ListenerCounters;
use crate::types::{Places, Shards};

/// Backends' names that are not configured whose quotas are remembered, because something was used of
/// them that still counts.
pub const UNCONFIGURED_MAX: usize = 1_000;

/// What outlives generations of a listener.
#[derive(Debug)]
pub struct ListenerState {
    /// The stable index.
    pub index: usize,
    /// The name.
    pub name: Arc<str>,
    /// Counts by worker.
    pub counters: Shards<ListenerCounters>,
    /// Sessions now: its `max_sessions` is the bound.
    pub sessions: Places,
    /// Limits by client.
    pub clients: Arc<ClientLimits>,
    /// The accept rate of all workers.
    pub accept_rate: AcceptRate,
}

/// A pool's stable index and what outlives its generations.
#[derive(Clone, Debug)]
pub(super) struct PoolEntry {
    pub(super) index: usize,
    pub(super) shared: Arc<PoolShared>,
}

/// The key of a backend's state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BackendKey {
    pool: Arc<str>,
    name: Arc<str>,
    address: SocketAddr,
}

#[derive(Debug, Default)]
struct Entries {
    backends: BTreeMap<BackendKey, Arc<BackendState>>,
    /// By pool and backend: a provider counts what all its addresses take.
    quotas: BTreeMap<(Arc<str>, Arc<str>), Arc<Quotas>>,
    pools: BTreeMap<Arc<str>, PoolEntry>,
    listeners: BTreeMap<Arc<str>, Arc<ListenerState>>,
}

impl Entries {
    /// The names that were used last stay.
    fn forget_quotas(&mut self, now: Instant) -> usize {
        let unconfigured = |quotas: &Arc<Quotas>| Arc::strong_count(quotas) == 1;
        let count = self.quotas.values().filter(|of| unconfigured(of)).count();
        let excess = count.saturating_sub(UNCONFIGURED_MAX);
        if excess == 0 {
            return 0;
        }
        let all = self.quotas.iter().filter(|(_, of)| unconfigured(of));
        let mut all: Vec<_> = all
            .map(|(key, of)| (of.last_used(now), key.clone()))
            .collect();
        all.sort_unstable();
        for (_, key) in all.into_iter().take(excess) {
            self.quotas.remove(&key);
        }
        excess
    }
}

/// All that outlives snapshots.
#[derive(Debug)]
pub struct Registry {
    shards: usize,
    epoch: OnceLock<Epoch>,
    entries: Mutex<Entries>,
}

impl Registry {
    /// An empty registry for so many workers; the control thread has a shard behind theirs.
    pub fn new(workers: usize) -> Self {
        Self {
            shards: workers + 1,
            epoch: OnceLock::new(),
            entries: Mutex::new(Entries::default()),
        }
    }

    /// When the process began, for quotas that outlive it. Said before the first backend.
    pub fn begin(&self, epoch: Epoch) {
        let _ = self.epoch.set(epoch);
    }

    /// When the process began; now, if nobody has said.
    pub fn epoch(&self, now: Instant) -> Epoch {
        *self.epoch.get_or_init(|| Epoch {
            instant: now,
            unix: Duration::ZERO,
        })
    }

    /// The quotas of this backend's name: what was used stays.
    pub fn quotas(&self, pool: &Arc<str>, name: &Arc<str>, now: Instant) -> Arc<Quotas> {
        let epoch = self.epoch(now);
        let key = (Arc::clone(pool), Arc::clone(name));
        let mut entries = self.lock();
        let quotas = entries.quotas.entry(key);
        Arc::clone(quotas.or_insert_with(|| Quotas::new(epoch)))
    }

    /// The quotas of every backend's name that is in use, or whose counts are remembered, by pool and
    /// backend.
    pub fn all_quotas(&self) -> Vec<(Arc<str>, Arc<str>, Arc<Quotas>)> {
        let entries = self.lock();
        let all = entries.quotas.iter();
        all.map(|((pool, name), quotas)| (Arc::clone(pool), Arc::clone(name), Arc::clone(quotas)))
            .collect()
    }

    /// The state of this backend: the one there was, or a new one that starts as `admin`.
    pub fn backend(
        &self,
        pool: &Arc<str>,
        name: &Arc<str>,
        address: SocketAddr,
        admin: AdminState,
        now: Instant,
    ) -> Arc<BackendState> {
        let key = BackendKey {
            pool: Arc::clone(pool),
            name: Arc::clone(name),
            address,
        };
        let shards = self.shards;
        Arc::clone(self.lock().backends.entry(key).or_insert_with(|| {
            BackendState::new(
                Arc::clone(pool),
                Arc::clone(name),
                address,
                admin,
                shards,
                now,
            )
        }))
    }

    /// What outlives generations of this pool.
    pub(super) fn pool(&self, name: &Arc<str>) -> PoolEntry {
        let mut entries = self.lock();
        let index = entries.pools.len();
        entries
            .pools
            .entry(Arc::clone(name))
            .or_insert_with(|| PoolEntry {
                index,
                shared: PoolShared::new(Arc::clone(name)),
            })
            .clone()
    }

    /// What outlives generations of this listener.
    pub fn listener(&self, name: &Arc<str>) -> Arc<ListenerState> {
        let shards = self.shards;
        let mut entries = self.lock();
        let index = entries.listeners.len();
        Arc::clone(
            entries
                .listeners
                .entry(Arc::clone(name))
                .or_insert_with(|| {
                    Arc::new(ListenerState {
                        index,
                        name: Arc::clone(name),
                        counters: Shards::new(shards),
                        sessions: Places::default(),
                        clients: ClientLimits::new(),
                        accept_rate: AcceptRate::default(),
                    })
                }),
        )
    }

    /// Every listener that ever was, with its counts.
    pub fn listeners(&self) -> Vec<Arc<ListenerState>> {
        self.lock().listeners.values().cloned().collect()
    }

    /// Every backend state there is, those of removed backends with open sessions included.
    pub fn backends(&self) -> Vec<Arc<BackendState>> {
        self.lock().backends.values().cloned().collect()
    }

    /// Forgets backends that nothing but the registry holds any more and whose counts are zero; and
    /// of the quotas of backends that are not configured those that count nothing any more, and what
    /// is over [`UNCONFIGURED_MAX`]. How many backends' names that were that did count.
    pub fn sweep(&self, now: Instant) -> usize {
        let mut entries = self.lock();
        entries
            .backends
            .retain(|_, state| Arc::strong_count(state) > 1 || state.open() > 0);
        // What was used counts again if the backend returns.
        entries
            .quotas
            .retain(|_, quotas| Arc::strong_count(quotas) > 1 || quotas.has_counts(now));
        entries.forget_quotas(now)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries
            .lock()
            .expect("no code panics while it holds the registry")
    }
}
