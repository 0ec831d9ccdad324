//! Sessions of removed backends and listeners: they may go on for `drain_timeout`, then they are cut.
//!
//! Whatever a later reload brings back is not cut.

use std::sync::Arc;
use std::time::Instant;

use crate::balance::BackendState;
use crate::snapshot::Snapshot;
use crate::worker::{Command, Worker};

/// What is to be cut.
#[derive(Clone, Debug)]
enum Removed {
    Backend(Arc<BackendState>),
    Listener(usize),
}

/// Cuts that wait for their time.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    pending: Vec<(Instant, Removed)>,
}

impl Cuts {
    /// Notes what `new` no longer names, to be cut at `at`, and forgets what it names again.
    pub(super) fn schedule(&mut self, old: &Snapshot, new: &Snapshot, at: Instant) {
        let named = Named::of(new);
        self.pending.retain(|(_, removed)| !named.names(removed));
        let backends = old
            .pools()
            .flat_map(|pool| pool.pool.members())
            .map(|member| Removed::Backend(Arc::clone(&member.settings.state)));
        let listeners = old
            .listeners()
            .map(|listener| Removed::Listener(listener.state.index));
        let removed = backends.chain(listeners).filter(|one| !named.names(one));
        self.pending.extend(removed.map(|one| (at, one)));
    }

    /// Sends the cuts whose time has come; how many there were.
    pub(super) fn send_due(&mut self, now: Instant, workers: &[Worker]) -> usize {
        let due: Vec<Removed> = self
            .pending
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, removed)| removed)
            .collect();
        for removed in &due {
            for worker in workers {
                worker.send(match removed {
                    Removed::Backend(state) => Command::CutBackend(Arc::clone(state)),
                    Removed::Listener(index) => Command::CutListener(*index),
                });
            }
        }
        due.len()
    }
}

/// What a snapshot names.
struct Named {
    /// Addresses of backend states: they are compared by identity.
    backends: Vec<*const BackendState>,
    listeners: Vec<usize>,
}

impl Named {
    fn of(snapshot: &Snapshot) -> Self {
        let mut backends: Vec<_> = snapshot
            .pools()
            .flat_map(|pool| pool.pool.members())
            .map(|member| Arc::as_ptr(&member.settings.state))
            .collect();
        backends.sort_unstable();
        let listeners = snapshot.listeners().map(|l| l.state.index).collect();
        Self {
            backends,
            listeners,
        }
    }

    fn names(&self, removed: &Removed) -> bool {
        match removed {
            Removed::Backend(state) => self.backends.binary_search(&Arc::as_ptr(state)).is_ok(),
            Removed::Listener(index) => self.listeners.contains(index),
        }
    }
}
