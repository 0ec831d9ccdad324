//! Checks across tables: names that must exist, addresses that must differ, loops.
//!
//! They run only when every file could be read as TOML, and point to the second of two places.

mod machine;
mod smtp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::ListenChecks;
use super::model::{AdminBind, AdminState, BackendAddress, Depth, GreetingMode, Listener, Mode};
use super::near;
use super::read::Everything;
use super::read_listener::ListenerRead;
use super::read_pool::PoolRead;
use super::report::Report;
use super::value::Wrong;

pub(super) fn across_tables(all: &Everything, own: &[IpAddr], report: &Report) {
    if all.listeners.is_empty() {
        let help = "add a table [listeners.mx] with `bind` and `pool`";
        report.error(&all.top, Wrong::new("there is no listener", help));
    }
    pools_exist(all, report);
    // With errors it may be a listener that could not be read.
    if !report.has_errors() {
        pools_are_used(all, report);
    }
    let binds = binds(all, report);
    loops(all, &binds, own, report);
    for (name, pool) in &all.pools {
        backends_differ(pool, report);
        some_backend_serves(pool, report);
        probes_fit(name, pool, all, report);
    }
    endpoint_is_private(all, report);
    smtp::across_tables(all, report);
}

/// What `run` would find on this machine.
pub(super) fn on_this_machine(all: &Everything, here: &ListenChecks<'_>, report: &Report) {
    machine::would_run(all, here, report);
}

fn endpoint_is_private(all: &Everything, report: &Report) {
    let binds = all.config.admin.iter().flat_map(|admin| &admin.bind);
    for (bind, place) in binds.zip(&all.admin_binds) {
        if let AdminBind::Tcp(address) = bind
            && machine::is_public(*address)
        {
            let wrong = Wrong::new(
                format!("whoever reaches {address} can read every address and count here"),
                "listen on 127.0.0.1 or a private address, or see to a firewall; a token protects \
                 changes only, and travels in clear text",
            );
            report.warn(place, wrong);
        }
    }
}

fn pools_exist(all: &Everything, report: &Report) {
    for read in all.listeners.values() {
        let pool = &*read.listener.pool;
        if pool.is_empty() || all.pools.contains_key(pool) {
            continue;
        }
        let known: Vec<&str> = all.pools.keys().map(|name| &**name).collect();
        let help = near::nearest(pool, known.iter().copied()).map_or_else(
            || format!("add a table [pools.{pool}.backends]"),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("there is no pool {pool:?}");
        report.error(&read.pool, Wrong::new(message, help));
    }
}

fn pools_are_used(all: &Everything, report: &Report) {
    let used: BTreeSet<&str> = all
        .listeners
        .values()
        .map(|read| &*read.listener.pool)
        .collect();
    for (name, pool) in &all.pools {
        if !used.contains(&**name) {
            let wrong = Wrong::new(
                format!("no listener leads to the pool {name:?}"),
                format!("add `pool = \"{name}\"` to a listener, or remove the pool"),
            );
            report.warn(&pool.place, wrong);
        }
    }
}

/// Addresses we listen on, each with the name of its owner, by port.
type Binds<'a> = BTreeMap<u16, Vec<(SocketAddr, &'a str)>>;

/// All addresses we listen on; two that meet are a mistake.
fn binds<'a>(all: &'a Everything, report: &Report) -> Binds<'a> {
    let mut taken = Binds::new();
    let listeners = all.listeners.iter().flat_map(|(name, read)| {
        let binds = read.binds.iter();
        binds.map(move |(address, place)| (*address, &**name, place))
    });
    let admin = all.config.admin.iter().flat_map(|admin| &admin.bind);
    let admin = admin.zip(&all.admin_binds);
    let admin = admin.filter_map(|(bind, place)| match bind {
        AdminBind::Tcp(address) => Some((*address, "the status endpoint", place)),
        AdminBind::Unix { .. } => None,
    });
    for (address, owner, place) in listeners.chain(admin) {
        let same_port = taken.entry(address.port()).or_default();
        if let Some((first, first_owner)) =
            same_port.iter().find(|(first, _)| meet(*first, address))
        {
            let message = if *first == address {
                format!("{address} is already bound by {first_owner}")
            } else {
                format!("{address} and {first} of {first_owner} meet: one covers the other")
            };
            let help = "give each address and port to one listener only";
            report.error(place, Wrong::new(message, help));
        }
        same_port.push((address, owner));
    }
    taken
}

/// Whether two listening addresses would get the same connections.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let same_family = a.is_ipv4() == b.is_ipv4();
    one.port() != 0
        && one.port() == other.port()
        && same_family
        && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// Rule M5a: a backend that is one of our own listeners would go round for ever.
fn loops(all: &Everything, binds: &Binds<'_>, own: &[IpAddr], report: &Report) {
    for pool in all.pools.values() {
        for (name, place) in &pool.backends {
            let Some(backend) = pool.pool.backends.get(name) else {
                continue;
            };
            let same_port = binds
                .get(&backend.address.port())
                .map_or(&[][..], Vec::as_slice);
            let back = same_port.iter().find(|(bind, owner)| {
                let own = if hears_this_host(all, owner) {
                    own
                } else {
                    &[]
                };
                leads_to(&backend.address, *bind, own)
            });
            let Some((bind, owner)) = back else {
                continue;
            };
            let help = if bind.ip().is_unspecified() {
                "give the address and port of the mail server itself, or bind the addresses that \
                 clients use instead of all"
            } else {
                "give the address and port of the mail server itself"
            };
            let message =
                format!("this backend is {bind} of {owner}: sessions would go round for ever");
            report.error(place, Wrong::new(message, help));
        }
    }
}

/// Whether what this host dials at one of its own addresses can arrive at this owner's sockets: not
/// at those that are bound to an interface.
fn hears_this_host(all: &Everything, owner: &str) -> bool {
    let interface = all
        .listeners
        .get(owner)
        .map(|read| &read.listener.interface);
    interface.is_none_or(|interface| interface.as_deref().is_none_or(|name| name == "lo"))
}

/// Whether a dial of `address`, on a host with the addresses `own`, arrives at the socket that
/// listens on `bind`.
pub fn leads_back(address: SocketAddr, bind: SocketAddr, own: &[IpAddr]) -> bool {
    // An IPv4 address in IPv6 clothes is dialled by IPv4; nobody's address is our own.
    let ip = address.ip().to_canonical();
    let is_here = || ip.is_loopback() || ip.is_unspecified() || own.contains(&ip);
    address.port() == bind.port()
        && ip.is_ipv4() == bind.is_ipv4()
        && (ip == bind.ip()
            || (bind.ip().is_unspecified() && is_here())
            || (bind.ip().is_loopback() && ip.is_unspecified()))
}

/// Whether a dial of `address` surely arrives at our own `bind`.
fn leads_to(address: &BackendAddress, bind: SocketAddr, own: &[IpAddr]) -> bool {
    match address {
        BackendAddress::Literal(address) => leads_back(*address, bind, own),
        BackendAddress::Name { host, port } => {
            let local = bind.ip().is_unspecified() || bind.ip().is_loopback();
            *port == bind.port() && local && host.eq_ignore_ascii_case("localhost")
        }
    }
}

fn backends_differ(pool: &PoolRead, report: &Report) {
    let mut seen: BTreeMap<&BackendAddress, &Arc<str>> = BTreeMap::new();
    for (name, backend) in &pool.pool.backends {
        if let Some(first) = seen.insert(&backend.address, name) {
            let wrong = Wrong::new(
                format!("{name} has the same address as {first}"),
                "one backend with the sum of both weights does the same; `max_connections` and \
                 health count for each alone",
            );
            report.warn(&pool.backends[name], wrong);
        }
    }
}

fn some_backend_serves(pool: &PoolRead, report: &Report) {
    let mut backends = pool.pool.backends.values();
    if !pool.pool.backends.is_empty() && backends.all(|b| b.state != AdminState::Ready) {
        let wrong = Wrong::new(
            "no backend of this pool is ready",
            "set `state = \"ready\"` for one; until then its clients are told to try later",
        );
        report.warn(&pool.place, wrong);
    }
}

/// What a listener awaits of its backends: in mode "smtp" always a greeting.
fn awaited(listener: &Listener) -> GreetingMode {
    match listener.mode {
        Mode::Passthrough => listener.greeting,
        Mode::Smtp => GreetingMode::Smtp,
    }
}

/// Behind `greeting = "none"` the backend waits for TLS: a probe that awaits a greeting fails.
fn probes_fit(name: &str, pool: &PoolRead, all: &Everything, report: &Report) {
    let mode = |mode| {
        move |read: &&ListenerRead| &*read.listener.pool == name && awaited(&read.listener) == mode
    };
    let Some(silent) = all.listeners.values().find(mode(GreetingMode::None)) else {
        return;
    };
    if all
        .listeners
        .values()
        .any(|read| mode(GreetingMode::Smtp)(&read))
    {
        let wrong = Wrong::new(
            format!("the pool {name:?} is used with `greeting = \"smtp\"` by another listener"),
            "make two pools: a port of a backend either greets or waits for the client",
        );
        report.error(&silent.greeting, wrong);
    }
    if pool.pool.health.probe && pool.pool.health.depth > Depth::Connect {
        let wrong = Wrong::new(
            "probes of this pool await a greeting, but its listener says there is none",
            format!("set `depth = \"connect\"` in [pools.{name}.health]"),
        );
        report.error(&pool.depth, wrong);
    }
}
