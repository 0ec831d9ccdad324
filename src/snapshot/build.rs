//! From a configuration to a snapshot: pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::{ListenerView, PoolView, Registry, Snapshot, Unresolved};
use crate::balance::{Absent, MemberSettings, Pool, PoolSettings};
use crate::config::Config;
use crate::config::model::{self, BackendAddress, Balance, Sticky};
use crate::types::Generation;

/// What was found for backends that are given by name, by pool and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved(pub BTreeMap<(Arc<str>, Arc<str>), FoundAddresses>);

/// The addresses of one backend that is given by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundAddresses {
    /// Those that are used.
    pub addresses: Vec<IpAddr>,
    /// Why others are not, in words.
    pub cause: Option<Arc<str>>,
}

impl Resolved {
    /// The addresses of a backend, or why it has none.
    fn of(
        &self,
        pool: &Arc<str>,
        backend: &Arc<str>,
        address: &BackendAddress,
    ) -> Result<Vec<SocketAddr>, Arc<str>> {
        let port = match address {
            BackendAddress::Literal(address) => return Ok(vec![*address]),
            BackendAddress::Name { port, .. } => *port,
        };
        let named = (Arc::clone(pool), Arc::clone(backend));
        match self.0.get(&named) {
            Some(found) if !found.addresses.is_empty() => {
                let ips = found.addresses.iter();
                Ok(ips.map(|ip| SocketAddr::new(*ip, port)).collect())
            }
            found => Err(found
                .and_then(|found| found.cause.clone())
                .unwrap_or_else(|| Arc::from("its host name has no address"))),
        }
    }
}

/// Builds the snapshot of `config`; nothing that runs changes before it is stored and installed.
pub fn build(
    config: Arc<Config>,
    resolved: &Resolved,
    registry: &Registry,
    generation: Generation,
    now: Instant,
) -> Snapshot {
    let mut pools = Vec::new();
    for (name, settings) in &config.pools {
        let view = build_pool(name, settings, resolved, registry, now);
        place(&mut pools, view.index, Arc::new(view));
    }
    let mut listeners = Vec::new();
    for (name, settings) in &config.listeners {
        let state = registry.listener(name);
        let index = state.index;
        let view = ListenerView {
            name: Arc::clone(name),
            settings: settings.clone(),
            pool: registry.pool(&settings.pool).index,
            state,
        };
        place(&mut listeners, index, Arc::new(view));
    }
    Snapshot {
        generation,
        config,
        listeners,
        pools,
    }
}

fn build_pool(
    name: &Arc<str>,
    settings: &model::Pool,
    resolved: &Resolved,
    registry: &Registry,
    now: Instant,
) -> PoolView {
    let entry = registry.pool(name);
    let mut members = Vec::with_capacity(settings.backends.len());
    let mut unresolved = Vec::new();
    let mut absent = Vec::new();
    for (backend, configured) in &settings.backends {
        let found = resolved.of(name, backend, &configured.address);
        let addresses = found.unwrap_or_else(|cause| {
            unresolved.push(Unresolved {
                backend: Arc::clone(backend),
                cause,
            });
            absent.push(Absent {
                tier: configured.tier,
                weight: configured.weight,
            });
            Vec::new()
        });
        let quota = (!configured.quota.is_empty()).then(|| {
            let used = registry.quotas(name, backend, now);
            used.limited(&configured.quota)
        });
        members.extend(addresses.into_iter().map(|address| MemberSettings {
            quota: quota.clone(),
            name: Arc::clone(backend),
            address,
            weight: configured.weight,
            tier: configured.tier,
            max_connections: configured.max_connections,
            state: registry.backend(name, backend, address, configured.state, now),
        }));
    }
    let pool = Pool::new(
        Arc::clone(name),
        core_settings(settings),
        members,
        entry.shared,
    )
    .lacking(absent);
    PoolView {
        name: Arc::clone(name),
        index: entry.index,
        settings: settings.clone(),
        pool,
        unresolved,
    }
}

fn core_settings(pool: &model::Pool) -> PoolSettings {
    PoolSettings {
        balance: match pool.smtp.sticky {
            Sticky::Source => Balance::SourceHash,
            Sticky::None | Sticky::Session => pool.balance,
        },
        when_all_down: pool.when_all_down,
        open_standby_below: pool.open_standby_below,
        failback: pool.failback,
        failback_after: pool.failback_after,
        spill_when_full: pool.spill_when_full,
        slow_start: pool.slow_start,
        queue_max: pool.queue_max,
        rise: pool.health.rise,
        fall: pool.health.fall,
        probed: pool.health.probe,
        eject: pool.eject,
        hedge: pool.hedge,
    }
}

fn place<T>(list: &mut Vec<Option<T>>, index: usize, value: T) {
    if list.len() <= index {
        list.resize_with(index + 1, || None);
    }
    list[index] = Some(value);
}
