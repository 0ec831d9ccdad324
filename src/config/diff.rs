//! What a reload changes: from two configurations to a [`Plan`], pure.
//!
//! Addresses are compared apart from listeners, because a bound socket outlives the listener it
//! leads to. A change is said in one sentence with the key, the old value and the new one; what
//! needs a restart is said apart.

mod fields;
mod show;
mod smtp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use self::fields::{Keys, diff_admin, diff_backend, diff_listener, diff_log, diff_pool};
use self::show::{duration, or_default, path, quoted, size};
use super::model::{Backend, Config, Listener, Pool};

/// An address and the listener it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The address.
    pub address: SocketAddr,
}

/// What a reload from one configuration to another does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Addresses that nothing was bound to before.
    pub bind: Vec<Binding>,
    /// Addresses that no listener has any more.
    pub unbind: Vec<Binding>,
    /// Addresses that stay bound and lead to this listener now.
    pub moved: Vec<Binding>,
    /// Listeners by name.
    pub listeners_added: Vec<Arc<str>>,
    /// Listeners that are gone.
    pub listeners_removed: Vec<Arc<str>>,
    /// Listeners with another setting or other addresses.
    pub listeners_changed: Vec<Arc<str>>,
    /// Pools by name.
    pub pools_added: Vec<Arc<str>>,
    /// Pools that are gone.
    pub pools_removed: Vec<Arc<str>>,
    /// Pools with another setting or other backends.
    pub pools_changed: Vec<Arc<str>>,
    /// New backends, as (pool, backend); those of a new pool are not listed.
    pub backends_added: Vec<(Arc<str>, Arc<str>)>,
    /// Backends that are gone; those of a pool that is gone are not listed.
    pub backends_removed: Vec<(Arc<str>, Arc<str>)>,
    /// Backends with another address, weight, tier, limit or state.
    pub backends_changed: Vec<(Arc<str>, Arc<str>)>,
    /// Keys that changed but take effect only after a restart.
    pub restart: Vec<String>,
    /// Each change in one sentence, those that need a restart last.
    pub sentences: Vec<String>,
}

impl Plan {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }
}

/// What a reload from `old` to `new` does.
pub fn diff(old: &Config, new: &Config) -> Plan {
    let mut plan = Plan::default();
    let Config {
        workers,
        hostname,
        max_sessions,
        shutdown_timeout,
        drain_timeout,
        watch,
        splice,
        replay_memory,
        state_file,
        log,
        admin,
        listeners,
        pools,
        files: _,
    } = old;
    let mut keys = Keys::of("");
    keys.restart("workers", workers, &new.workers, |n| {
        or_default(n.as_ref(), "one per core")
    });
    keys.live("hostname", hostname, &new.hostname, quoted);
    keys.live("max_sessions", max_sessions, &new.max_sessions, |n| {
        or_default(n.as_ref(), "by the descriptor limit")
    });
    keys.live(
        "shutdown_timeout",
        shutdown_timeout,
        &new.shutdown_timeout,
        duration,
    );
    keys.live("drain_timeout", drain_timeout, &new.drain_timeout, duration);
    keys.live("watch", watch, &new.watch, ToString::to_string);
    keys.restart("splice", splice, &new.splice, ToString::to_string);
    keys.live("replay_memory", replay_memory, &new.replay_memory, size);
    keys.restart("state_file", state_file, &new.state_file, path);
    keys.finish(&mut plan);
    diff_log(*log, new.log, &mut plan);
    diff_admin(admin.as_ref(), new.admin.as_ref(), &mut plan);
    diff_addresses(old, new, &mut plan);
    diff_listeners(listeners, &new.listeners, &mut plan);
    diff_pools(pools, &new.pools, &mut plan);
    let restarts = plan
        .restart
        .iter()
        .map(|key| format!("{key}: needs a restart"));
    plan.sentences.extend(restarts);
    plan
}

fn diff_addresses(old: &Config, new: &Config, plan: &mut Plan) {
    let by_address = |config: &Config| -> BTreeMap<SocketAddr, Arc<str>> {
        let listeners = config.listeners.iter();
        let pairs = listeners.flat_map(|(name, listener)| {
            listener
                .bind
                .iter()
                .map(move |address| (*address, Arc::clone(name)))
        });
        pairs.collect()
    };
    let (before, after) = (by_address(old), by_address(new));
    for (address, listener) in &after {
        let binding = Binding {
            listener: Arc::clone(listener),
            address: *address,
        };
        match before.get(address) {
            None => {
                plan.sentences
                    .push(format!("listener {listener}: {address} is bound"));
                plan.bind.push(binding);
            }
            Some(first) if first != listener => {
                let sentence =
                    format!("{address} stays bound and moves from listener {first} to {listener}");
                plan.sentences.push(sentence);
                plan.moved.push(binding);
            }
            Some(_) => {}
        }
    }
    for (address, listener) in before {
        if !after.contains_key(&address) {
            plan.sentences.push(format!(
                "listener {listener}: {address} is closed, its sessions may end by themselves"
            ));
            plan.unbind.push(Binding { listener, address });
        }
    }
}

type ByName<T> = BTreeMap<Arc<str>, T>;

/// Names that are new, gone, and in both.
fn names<'n, T>(old: &'n ByName<T>, new: &'n ByName<T>) -> [Vec<&'n Arc<str>>; 3] {
    let added = new.keys().filter(|name| !old.contains_key(*name)).collect();
    let removed = old.keys().filter(|name| !new.contains_key(*name)).collect();
    let kept = old.keys().filter(|name| new.contains_key(*name)).collect();
    [added, removed, kept]
}

fn diff_listeners(old: &ByName<Listener>, new: &ByName<Listener>, plan: &mut Plan) {
    let [added, removed, kept] = names(old, new);
    for name in added {
        plan.sentences.push(format!(
            "listener {name} is new, for pool {}",
            new[name].pool
        ));
        plan.listeners_added.push(Arc::clone(name));
    }
    for name in removed {
        plan.sentences.push(format!("listener {name} is gone"));
        plan.listeners_removed.push(Arc::clone(name));
    }
    for name in kept {
        if diff_listener(name, &old[name], &new[name], plan) {
            plan.listeners_changed.push(Arc::clone(name));
        }
    }
}

fn diff_pools(old: &ByName<Pool>, new: &ByName<Pool>, plan: &mut Plan) {
    let [added, removed, kept] = names(old, new);
    for name in added {
        let backends = new[name].backends.len();
        plan.sentences
            .push(format!("pool {name} is new, with {backends} backends"));
        plan.pools_added.push(Arc::clone(name));
    }
    for name in removed {
        plan.sentences.push(format!("pool {name} is gone"));
        plan.pools_removed.push(Arc::clone(name));
    }
    for name in kept {
        let (old, new) = (&old[name], &new[name]);
        let settings = diff_pool(name, old, new, plan);
        let backends = diff_backends(name, &old.backends, &new.backends, plan);
        if settings || backends {
            plan.pools_changed.push(Arc::clone(name));
        }
    }
}

fn diff_backends(
    pool: &Arc<str>,
    old: &ByName<Backend>,
    new: &ByName<Backend>,
    plan: &mut Plan,
) -> bool {
    let [added, removed, kept] = names(old, new);
    let before = plan.sentences.len();
    for name in added {
        let at = &new[name].address;
        plan.sentences
            .push(format!("pool {pool}: backend {name} at {at} is new"));
        plan.backends_added
            .push((Arc::clone(pool), Arc::clone(name)));
    }
    for name in removed {
        plan.sentences.push(format!(
            "pool {pool}: backend {name} is gone, its sessions may end by themselves"
        ));
        plan.backends_removed
            .push((Arc::clone(pool), Arc::clone(name)));
    }
    for name in kept {
        if diff_backend(pool, name, &old[name], &new[name], plan) {
            plan.backends_changed
                .push((Arc::clone(pool), Arc::clone(name)));
        }
    }
    plan.sentences.len() > before
}

#[cfg(test)]
mod tests;
