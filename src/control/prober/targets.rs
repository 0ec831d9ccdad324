//! From a snapshot to what must be probed: pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::Members;
use crate::balance::Member;
use crate::config::model::{BackendAddress, GreetingMode, Pool};
use crate::control::probe::{Opening, Plan, Target};
use crate::snapshot::{PoolView, Snapshot};

/// Everything that makes two probes the same conversation. Its target has no source yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Conversation {
    pub(super) target: Target,
    pub(super) plan: Plan,
    /// Source addresses of the target's family, used in turn.
    pub(super) sources: Vec<IpAddr>,
}

/// For whom it is held, and how often.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    pub(super) members: Members,
    pub(super) interval: Duration,
    pub(super) fast_interval: Duration,
}

/// Every conversation of a snapshot.
pub(super) fn of(snapshot: &Snapshot) -> BTreeMap<Conversation, Interest> {
    let mut all: BTreeMap<Conversation, Interest> = BTreeMap::new();
    for pool in snapshot.pools().filter(|pool| pool.settings.health.probe) {
        let opening = opening(snapshot, pool);
        let health = &pool.settings.health;
        for member in pool.pool.members() {
            let interest = all
                .entry(conversation(&pool.settings, member, opening))
                .or_insert_with(|| Interest {
                    members: Vec::new(),
                    interval: health.interval,
                    fast_interval: health.fast_interval,
                });
            interest.interval = interest.interval.min(health.interval);
            interest.fast_interval = interest.fast_interval.min(health.fast_interval);
            interest.members.push(Arc::clone(&member.settings.state));
        }
    }
    all
}

/// A pool whose listeners all leave the first word to the client is one of TLS ports.
fn opening(snapshot: &Snapshot, pool: &PoolView) -> Opening {
    let mut listeners = snapshot
        .listeners()
        .filter(|listener| listener.pool == pool.index)
        .peekable();
    let used = listeners.peek().is_some();
    if used && listeners.all(|listener| listener.settings.greeting == GreetingMode::None) {
        Opening::Tls
    } else {
        Opening::Smtp
    }
}

fn conversation(pool: &Pool, member: &Member, opening: Opening) -> Conversation {
    let address = member.settings.address;
    let configured = pool.backends.get(&member.settings.name);
    let host = match configured.map(|backend| &backend.address) {
        Some(BackendAddress::Name { host, .. }) => Some(Arc::clone(host)),
        Some(BackendAddress::Literal(_)) | None => None,
    };
    Conversation {
        target: Target {
            address,
            host,
            opening,
            header: pool.identity.into(),
            source: None,
            interface: pool.interface.clone(),
            freebind: pool.freebind,
        },
        plan: Plan::of(pool),
        sources: of_family(&pool.source, address),
    }
}

fn of_family(sources: &[IpAddr], address: SocketAddr) -> Vec<IpAddr> {
    let fits = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
    sources.iter().filter(fits).copied().collect()
}
