//! What a reload changes: from two configurations to a [`Plan`], pure.
//!
//! Addresses are compared apart from listeners, because a bound socket outlives the listener it
//! leads to. Every field of the model is taken apart by name, so that a new key cannot be forgotten
//! here: it would not compile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::model::{
    Admin, AdminBind, Backend, BackendAddress, Config, Eject, Health, Hedge, Listener, Log, Pool,
    Replies,
};
use super::value::duration_text;
use super::words::{self, word};
use crate::types::{Networks, Percent, Rate};

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
    keys.live("splice", splice, &new.splice, ToString::to_string);
    keys.finish(&mut plan);
    diff_log(log, &new.log, &mut plan);
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

/// The changed keys of one table.
struct Keys {
    prefix: String,
    live: Vec<String>,
    restart: Vec<String>,
}

impl Keys {
    fn of(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            live: Vec::new(),
            restart: Vec::new(),
        }
    }

    /// A key that takes effect at once.
    fn live<T: PartialEq + ?Sized>(
        &mut self,
        name: &str,
        old: &T,
        new: &T,
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            self.live.push(format!(
                "{}{name}: {} → {}",
                self.prefix,
                show(old),
                show(new)
            ));
        }
    }

    /// A key that takes effect after a restart.
    fn restart<T: PartialEq + ?Sized>(
        &mut self,
        name: &str,
        old: &T,
        new: &T,
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            let change = format!("{}{name}: {} → {}", self.prefix, show(old), show(new));
            self.restart.push(change);
        }
    }

    /// Hands the changes over; whether there were any.
    fn finish(self, plan: &mut Plan) -> bool {
        let changed = !self.live.is_empty() || !self.restart.is_empty();
        plan.sentences.extend(self.live);
        plan.restart.extend(self.restart);
        changed
    }
}

fn diff_log(old: &Log, new: &Log, plan: &mut Plan) {
    let Log {
        level,
        format,
        output,
        sessions,
    } = old;
    let mut keys = Keys::of("log.");
    keys.live("level", level, &new.level, |v| {
        word(words::LEVELS, v).to_owned()
    });
    keys.live("format", format, &new.format, |v| {
        word(words::FORMATS, v).to_owned()
    });
    keys.restart("output", output, &new.output, |v| {
        word(words::OUTPUTS, v).to_owned()
    });
    keys.live("sessions", sessions, &new.sessions, ToString::to_string);
    keys.finish(plan);
}

fn diff_admin(old: Option<&Admin>, new: Option<&Admin>, plan: &mut Plan) {
    let (Some(old), Some(new)) = (old, new) else {
        if old.is_some() != new.is_some() {
            let verb = if new.is_some() { "added" } else { "removed" };
            plan.restart.push(format!("the table [admin] was {verb}"));
        }
        return;
    };
    let Admin { bind, token_file } = old;
    let mut keys = Keys::of("admin.");
    keys.restart("bind", bind, &new.bind, admin_bind);
    keys.restart("token_file", token_file, &new.token_file, path);
    keys.finish(plan);
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

fn diff_listener(name: &str, old: &Listener, new: &Listener, plan: &mut Plan) -> bool {
    let Listener {
        bind,
        mode,
        pool,
        greeting,
        proxy_protocol,
        trusted_proxies,
        allow,
        deny,
        monitor_networks,
        early_talker,
        max_sessions,
        max_sessions_per_client,
        rate_per_client,
        accept_rate,
        backlog,
        freebind,
        interface,
        source,
        proxy_header_timeout,
        idle_timeout,
        half_close_timeout,
        replies,
    } = old;
    let mut keys = Keys::of(format!("listeners.{name}."));
    keys.live("mode", mode, &new.mode, |v| {
        word(words::MODES, v).to_owned()
    });
    keys.live("pool", pool, &new.pool, quoted);
    keys.live("greeting", greeting, &new.greeting, |v| {
        word(words::GREETINGS, v).to_owned()
    });
    keys.live("proxy_protocol", proxy_protocol, &new.proxy_protocol, |v| {
        word(words::PROXIES, v).to_owned()
    });
    keys.live(
        "trusted_proxies",
        trusted_proxies,
        &new.trusted_proxies,
        networks,
    );
    keys.live("allow", allow, &new.allow, networks);
    keys.live("deny", deny, &new.deny, networks);
    keys.live(
        "monitor_networks",
        monitor_networks,
        &new.monitor_networks,
        networks,
    );
    keys.live("early_talker", early_talker, &new.early_talker, |v| {
        word(words::EARLY_TALKERS, v).to_owned()
    });
    keys.live(
        "max_sessions",
        max_sessions,
        &new.max_sessions,
        ToString::to_string,
    );
    let per_client = (max_sessions_per_client, &new.max_sessions_per_client);
    keys.live(
        "max_sessions_per_client",
        per_client.0,
        per_client.1,
        ToString::to_string,
    );
    keys.live(
        "rate_per_client",
        rate_per_client,
        &new.rate_per_client,
        rate,
    );
    keys.live("accept_rate", accept_rate, &new.accept_rate, rate);
    let same_sockets = new.bind.iter().any(|address| bind.contains(address));
    if same_sockets {
        keys.restart("backlog", backlog, &new.backlog, ToString::to_string);
        keys.restart("freebind", freebind, &new.freebind, ToString::to_string);
        keys.restart("interface", interface, &new.interface, interface_name);
    }
    keys.live("source", source.as_slice(), new.source.as_slice(), list);
    keys.live(
        "proxy_header_timeout",
        proxy_header_timeout,
        &new.proxy_header_timeout,
        duration,
    );
    keys.live("idle_timeout", idle_timeout, &new.idle_timeout, duration);
    keys.live(
        "half_close_timeout",
        half_close_timeout,
        &new.half_close_timeout,
        duration,
    );
    let changed = keys.finish(plan);
    diff_replies(name, replies, &new.replies, plan) || changed || *bind != new.bind
}

fn diff_replies(name: &str, old: &Replies, new: &Replies, plan: &mut Plan) -> bool {
    let Replies {
        unavailable,
        denied,
        client_limit,
        global_limit,
        early_talker,
        shutting_down,
    } = old;
    let mut keys = Keys::of(format!("listeners.{name}.replies."));
    keys.live("unavailable", unavailable, &new.unavailable, quoted);
    keys.live("denied", denied, &new.denied, quoted);
    keys.live("client_limit", client_limit, &new.client_limit, quoted);
    keys.live("global_limit", global_limit, &new.global_limit, quoted);
    keys.live("early_talker", early_talker, &new.early_talker, quoted);
    keys.live("shutting_down", shutting_down, &new.shutting_down, quoted);
    keys.finish(plan)
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

fn diff_pool(name: &str, old: &Pool, new: &Pool, plan: &mut Plan) -> bool {
    let Pool {
        balance,
        identity,
        proxy_header_max,
        greeting_verdicts,
        max_attempts,
        failover_timeout,
        connect_timeout,
        greeting_timeout,
        hedge,
        queue_max,
        queue_timeout,
        when_all_down,
        open_standby_below,
        failback,
        failback_after,
        spill_when_full,
        slow_start,
        source,
        interface,
        freebind,
        health,
        eject,
        backends_file,
        backends: _,
    } = old;
    let mut keys = Keys::of(format!("pools.{name}."));
    keys.live("balance", balance, &new.balance, |v| {
        word(words::POLICIES, v).to_owned()
    });
    keys.live("identity", identity, &new.identity, |v| {
        word(words::IDENTITIES, v).to_owned()
    });
    keys.live(
        "proxy_header_max",
        proxy_header_max,
        &new.proxy_header_max,
        ToString::to_string,
    );
    keys.live(
        "greeting_verdicts",
        greeting_verdicts,
        &new.greeting_verdicts,
        |v| word(words::VERDICTS, v).to_owned(),
    );
    keys.live(
        "max_attempts",
        max_attempts,
        &new.max_attempts,
        ToString::to_string,
    );
    keys.live(
        "failover_timeout",
        failover_timeout,
        &new.failover_timeout,
        duration,
    );
    keys.live(
        "connect_timeout",
        connect_timeout,
        &new.connect_timeout,
        duration,
    );
    keys.live(
        "greeting_timeout",
        greeting_timeout,
        &new.greeting_timeout,
        duration,
    );
    keys.live("queue_max", queue_max, &new.queue_max, ToString::to_string);
    keys.live("queue_timeout", queue_timeout, &new.queue_timeout, duration);
    keys.live("when_all_down", when_all_down, &new.when_all_down, |v| {
        word(words::ALL_DOWN, v).to_owned()
    });
    keys.live(
        "open_standby_below",
        open_standby_below,
        &new.open_standby_below,
        percent,
    );
    keys.live("failback", failback, &new.failback, |v| {
        word(words::FAILBACKS, v).to_owned()
    });
    keys.live(
        "failback_after",
        failback_after,
        &new.failback_after,
        duration,
    );
    keys.live(
        "spill_when_full",
        spill_when_full,
        &new.spill_when_full,
        ToString::to_string,
    );
    keys.live("slow_start", slow_start, &new.slow_start, duration);
    keys.live("source", source.as_slice(), new.source.as_slice(), list);
    keys.live("interface", interface, &new.interface, interface_name);
    keys.live("freebind", freebind, &new.freebind, ToString::to_string);
    keys.live("backends_file", backends_file, &new.backends_file, path);
    let changed = keys.finish(plan);
    let hedge = diff_hedge(name, hedge, &new.hedge, plan);
    let health = diff_health(name, health, &new.health, plan);
    let eject = diff_eject(name, eject, &new.eject, plan);
    changed || hedge || health || eject
}

fn diff_hedge(name: &str, old: &Hedge, new: &Hedge, plan: &mut Plan) -> bool {
    let Hedge {
        enabled,
        connect_after,
        greeting_after,
        budget,
        burst,
    } = old;
    let mut keys = Keys::of(format!("pools.{name}.hedge."));
    keys.live("enabled", enabled, &new.enabled, ToString::to_string);
    keys.live("connect_after", connect_after, &new.connect_after, duration);
    keys.live("greeting_after", greeting_after, &new.greeting_after, |v| {
        v.as_ref()
            .map_or_else(|| "three times the usual".to_owned(), duration)
    });
    keys.live("budget", budget, &new.budget, percent);
    keys.live("burst", burst, &new.burst, ToString::to_string);
    keys.finish(plan)
}

fn diff_health(name: &str, old: &Health, new: &Health, plan: &mut Plan) -> bool {
    let Health {
        probe,
        depth,
        interval,
        fast_interval,
        rise,
        fall,
        greeting_timeout,
        timeout,
        ehlo_name,
        probe_recipient,
        tls_verify,
    } = old;
    let mut keys = Keys::of(format!("pools.{name}.health."));
    keys.live("probe", probe, &new.probe, ToString::to_string);
    keys.live("depth", depth, &new.depth, |v| {
        word(words::DEPTHS, v).to_owned()
    });
    keys.live("interval", interval, &new.interval, duration);
    keys.live("fast_interval", fast_interval, &new.fast_interval, duration);
    keys.live("rise", rise, &new.rise, ToString::to_string);
    keys.live("fall", fall, &new.fall, ToString::to_string);
    keys.live(
        "greeting_timeout",
        greeting_timeout,
        &new.greeting_timeout,
        duration,
    );
    keys.live("timeout", timeout, &new.timeout, duration);
    keys.live("ehlo_name", ehlo_name, &new.ehlo_name, quoted);
    keys.live(
        "probe_recipient",
        probe_recipient,
        &new.probe_recipient,
        |v| v.as_ref().map_or_else(|| "none".to_owned(), quoted),
    );
    keys.live(
        "tls_verify",
        tls_verify,
        &new.tls_verify,
        ToString::to_string,
    );
    keys.finish(plan)
}

fn diff_eject(name: &str, old: &Eject, new: &Eject, plan: &mut Plan) -> bool {
    let Eject {
        strikes,
        ratio,
        min_attempts,
        window,
        time,
        max_time,
    } = old;
    let mut keys = Keys::of(format!("pools.{name}.eject."));
    keys.live("strikes", strikes, &new.strikes, ToString::to_string);
    keys.live("ratio", ratio, &new.ratio, percent);
    keys.live(
        "min_attempts",
        min_attempts,
        &new.min_attempts,
        ToString::to_string,
    );
    keys.live("window", window, &new.window, duration);
    keys.live("time", time, &new.time, duration);
    keys.live("max_time", max_time, &new.max_time, duration);
    keys.finish(plan)
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
        let at = address(&new[name].address);
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

fn diff_backend(pool: &str, name: &str, old: &Backend, new: &Backend, plan: &mut Plan) -> bool {
    let Backend {
        address: at,
        weight,
        tier,
        max_connections,
        state,
    } = old;
    let mut keys = Keys::of(format!("pools.{pool}.backends.{name}."));
    keys.live("address", at, &new.address, address);
    keys.live("weight", weight, &new.weight, |v| v.value().to_string());
    keys.live("tier", tier, &new.tier, |v| v.value().to_string());
    keys.live(
        "max_connections",
        max_connections,
        &new.max_connections,
        ToString::to_string,
    );
    keys.live("state", state, &new.state, |v| {
        word(words::STATES, v).to_owned()
    });
    keys.finish(plan)
}

fn or_default(value: Option<&impl ToString>, absent: &str) -> String {
    value.map_or_else(|| absent.to_owned(), ToString::to_string)
}

fn quoted(text: &Arc<str>) -> String {
    format!("{text:?}")
}

fn duration(duration: &Duration) -> String {
    duration_text(*duration)
}

fn percent(percent: &Percent) -> String {
    format!("{}%", percent.value())
}

fn rate(rate: &Option<Rate>) -> String {
    match rate {
        None => "no limit".to_owned(),
        Some(Rate { count, period }) => format!("{count}/{}", duration_text(*period)),
    }
}

fn path(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

fn interface_name(name: &Option<Arc<str>>) -> String {
    name.as_ref().map_or_else(|| "any".to_owned(), quoted)
}

fn admin_bind(bind: &AdminBind) -> String {
    match bind {
        AdminBind::Tcp(address) => address.to_string(),
        AdminBind::Unix { path, mode } => format!("unix:{} ({mode:04o})", path.display()),
    }
}

fn address(address: &BackendAddress) -> String {
    match address {
        BackendAddress::Literal(address) => address.to_string(),
        BackendAddress::Name { host, port } => format!("{host}:{port}"),
    }
}

/// Entries of a list that a sentence names.
const SHOWN_MAX: usize = 8;

fn list<T: ToString>(entries: &[T]) -> String {
    let mut text = String::from("[");
    let shown: Vec<String> = entries
        .iter()
        .take(SHOWN_MAX)
        .map(ToString::to_string)
        .collect();
    text.push_str(&shown.join(", "));
    if entries.len() > SHOWN_MAX {
        let _ = write!(text, ", and {} more", entries.len() - SHOWN_MAX);
    }
    text.push(']');
    text
}

fn networks(networks: &Networks) -> String {
    let entries: Vec<String> = networks.iter().map(ToString::to_string).collect();
    list(&entries)
}
