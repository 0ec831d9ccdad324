//! The runtime view: one immutable [`Snapshot`] per generation, and the [`Registry`] of what
//! outlives them.
//!
//! [`build()`] is pure: no file, no socket, no clock of its own. One pointer is swapped, never two:
//! whatever must survive a swap lives in the registry and is found again by name.

mod announce;
mod build;
mod registry;
mod shared;

pub use announce::announced;
pub use build::{FoundAddresses, Resolved, build};
pub use registry::{ListenerState, Registry, UNCONFIGURED_MAX};
pub use shared::{RunPhase, Shared};

use std::sync::Arc;

use crate::balance::Pool;
use crate::config::Config;
use crate::config::model;
use crate::types::Generation;

/// Everything the data threads read, for one generation.
#[derive(Debug)]
pub struct Snapshot {
    /// Counted from 1.
    pub generation: Generation,
    /// The configuration it was built from.
    pub config: Arc<Config>,
    /// By stable index; `None` where this generation has no such listener.
    listeners: Vec<Option<Arc<ListenerView>>>,
    /// By stable index; `None` where this generation has no such pool.
    pools: Vec<Option<Arc<PoolView>>>,
}

impl Snapshot {
    /// The listener with this stable index.
    pub fn listener(&self, index: usize) -> Option<&Arc<ListenerView>> {
        self.listeners.get(index)?.as_ref()
    }

    /// The pool with this stable index.
    pub fn pool(&self, index: usize) -> Option<&Arc<PoolView>> {
        self.pools.get(index)?.as_ref()
    }

    /// This generation's listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<ListenerView>> {
        self.listeners.iter().flatten()
    }

    /// This generation's pools.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<PoolView>> {
        self.pools.iter().flatten()
    }

    /// The pool of this name.
    pub fn pool_named(&self, name: &str) -> Option<&Arc<PoolView>> {
        self.pools().find(|pool| &*pool.name == name)
    }
}

/// A listener's policy in one generation.
#[derive(Debug)]
pub struct ListenerView {
    /// The name.
    pub name: Arc<str>,
    /// The policy.
    pub settings: model::Listener,
    /// What outlives generations.
    pub state: Arc<ListenerState>,
    /// The stable index of its pool.
    pub pool: usize,
}

/// A pool in one generation.
#[derive(Debug)]
pub struct PoolView {
    /// The name.
    pub name: Arc<str>,
    /// The stable index.
    pub index: usize,
    /// The settings, backends as configured included.
    pub settings: model::Pool,
    /// The balancing core's view.
    pub pool: Pool,
    /// Configured backends whose host name has no address that can be used (yet).
    pub unresolved: Vec<Unresolved>,
}

/// A backend without an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Its name.
    pub backend: Arc<str>,
    /// Why, in words.
    pub cause: Arc<str>,
}
