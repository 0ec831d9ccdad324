//! The keys of each table, old and new side by side.
//!
//! Every field of the model is taken apart by name, so that a new key cannot be forgotten here: it
//! would not compile.

use super::super::model::{Admin, Backend, Eject, Health, Hedge, Listener, Log, Pool, Replies};
use super::super::words::{self, word};
use super::Plan;
use super::show::{
    admin_binds, duration, interface_name, list, networks, path, percent, quotas, quoted, rate,
};
use super::smtp::{diff_listener_smtp, diff_pool_smtp};

/// The changed keys of one table.
pub(super) struct Keys {
    prefix: String,
    live: Vec<String>,
    restart: Vec<String>,
}

impl Keys {
    pub(super) fn of(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            live: Vec::new(),
            restart: Vec::new(),
        }
    }

    /// A key that takes effect at once.
    pub(super) fn live<T: PartialEq + ?Sized>(
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
    pub(super) fn restart<T: PartialEq + ?Sized>(
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
    pub(super) fn finish(self, plan: &mut Plan) -> bool {
        let changed = !self.live.is_empty() || !self.restart.is_empty();
        plan.sentences.extend(self.live);
        plan.restart.extend(self.restart);
        changed
    }
}

pub(super) fn diff_log(old: Log, new: Log, plan: &mut Plan) {
    let Log {
        level,
        format,
        output,
        sessions,
        transactions,
        addresses,
    } = old;
    let mut keys = Keys::of("log.");
    keys.live("level", &level, &new.level, |v| {
        word(words::LEVELS, v).to_owned()
    });
    keys.live("format", &format, &new.format, |v| {
        word(words::FORMATS, v).to_owned()
    });
    keys.restart("output", &output, &new.output, |v| {
        word(words::OUTPUTS, v).to_owned()
    });
    for (key, old, new) in [
        ("sessions", sessions, new.sessions),
        ("transactions", transactions, new.transactions),
        ("addresses", addresses, new.addresses),
    ] {
        keys.live(key, &old, &new, ToString::to_string);
    }
    keys.finish(plan);
}

pub(super) fn diff_admin(old: Option<&Admin>, new: Option<&Admin>, plan: &mut Plan) {
    let (Some(old), Some(new)) = (old, new) else {
        if old.is_some() != new.is_some() {
            let verb = if new.is_some() { "added" } else { "removed" };
            plan.restart.push(format!("the table [admin] was {verb}"));
        }
        return;
    };
    let Admin {
        bind,
        token_file,
        hosts,
    } = old;
    let mut keys = Keys::of("admin.");
    keys.restart("bind", &bind[..], &new.bind[..], admin_binds);
    keys.restart("token_file", token_file, &new.token_file, path);
    keys.live("hosts", hosts, &new.hosts, |hosts| list(hosts));
    keys.finish(plan);
}

pub(super) fn diff_listener(name: &str, old: &Listener, new: &Listener, plan: &mut Plan) -> bool {
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
        smtp,
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
    let replies = diff_replies(name, replies, &new.replies, plan);
    let smtp = diff_listener_smtp(name, smtp, &new.smtp, plan);
    changed || replies || smtp || *bind != new.bind
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

pub(super) fn diff_pool(name: &str, old: &Pool, new: &Pool, plan: &mut Plan) -> bool {
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
        smtp,
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
    let smtp = diff_pool_smtp(name, smtp, &new.smtp, plan);
    changed || hedge || health || eject || smtp
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

pub(super) fn diff_backend(
    pool: &str,
    name: &str,
    old: &Backend,
    new: &Backend,
    plan: &mut Plan,
) -> bool {
    let Backend {
        address: at,
        weight,
        tier,
        max_connections,
        state,
        family,
        quota,
    } = old;
    let mut keys = Keys::of(format!("pools.{pool}.backends.{name}."));
    keys.live("address", at, &new.address, ToString::to_string);
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
    keys.live("family", family, &new.family, |v| {
        word(words::FAMILIES, v).to_owned()
    });
    keys.live("quota", quota.as_slice(), new.quota.as_slice(), quotas);
    keys.finish(plan)
}
