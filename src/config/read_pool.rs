//! `[pools.NAME]`, the tables inside it, and backends files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::mistake::{Source, unreadable};
use super::model::{Backend, BackendAddress, Depth, Eject, Health, Hedge, Pool};
use super::read::{Files, with_table};
use super::read_smtp;
use super::report::{Place, Report};
use super::section::{Section, entries};
use super::value::{self, Wrong, duration_text};
use super::words;
use crate::types::{Tier, Weight};

/// What to write instead of something that is no backend.
const BACKEND_HELP: &str = "write a table: { address = \"10.0.0.11:25\" }";

/// A pool with the places that checks across tables point to.
pub(super) struct PoolRead {
    pub(super) pool: Pool,
    pub(super) place: Place,
    pub(super) depth: Place,
    pub(super) identity: Place,
    pub(super) verdicts: Place,
    /// The table `smtp`, if it says anything.
    pub(super) smtp: Option<Place>,
    /// The addresses of the backends.
    pub(super) backends: BTreeMap<Arc<str>, Place>,
    /// The quotas of those backends that have any.
    pub(super) quotas: BTreeMap<Arc<str>, Place>,
}

/// Where the addresses and quotas of backends stand.
#[derive(Default)]
struct BackendPlaces {
    addresses: BTreeMap<Arc<str>, Place>,
    quotas: BTreeMap<Arc<str>, Place>,
}

pub(super) fn all(
    top: &Section<'_>,
    hostname: &str,
    files: &Files<'_>,
) -> BTreeMap<Arc<str>, PoolRead> {
    top.named(
        "pools",
        "write a table: [pools.mx.backends] with the backends of pool mx",
    )
    .into_iter()
    .map(|(name, table, place)| {
        let section = Section::new(Some(table), place, "pools.NAME", top.report);
        (name, pool(&section, hostname, files))
    })
    .collect()
}

fn pool(section: &Section<'_>, hostname: &str, files: &Files<'_>) -> PoolRead {
    let mut pool = Pool::for_host(hostname);
    choices(section, &mut pool);
    section.count("proxy_header_max", &mut pool.proxy_header_max);
    section.count("max_attempts", &mut pool.max_attempts);
    section.duration("failover_timeout", &mut pool.failover_timeout);
    section.duration("connect_timeout", &mut pool.connect_timeout);
    section.duration("greeting_timeout", &mut pool.greeting_timeout);
    section.count("queue_max", &mut pool.queue_max);
    section.duration("queue_timeout", &mut pool.queue_timeout);
    section.percent("open_standby_below", &mut pool.open_standby_below);
    section.duration("failback_after", &mut pool.failback_after);
    section.flag("spill_when_full", &mut pool.spill_when_full);
    section.duration("slow_start", &mut pool.slow_start);
    let sources = section.list("source", value::source);
    pool.source = sources.into_iter().map(|(source, _)| source).collect();
    pool.interface = section.text("interface", value::interface);
    section.flag("freebind", &mut pool.freebind);
    pool.hedge = hedge(&section.child("hedge"), &pool);
    let probes = section.child("health");
    pool.health = health(&probes, hostname);
    pool.eject = eject(&section.child("eject"));
    let connections = section.child("smtp");
    pool.smtp = read_smtp::pool(&connections);
    timing(section, &pool);
    let backends = backends(section, &mut pool, files);
    read_smtp::connections_fit(&connections, &pool);
    section.finish();
    let said = !section.is_unset_or_empty("smtp");
    PoolRead {
        pool,
        place: section.place.clone(),
        depth: probes.place_of("depth"),
        identity: section.place_of("identity"),
        verdicts: section.place_of("greeting_verdicts"),
        smtp: said.then(|| connections.place.clone()),
        backends: backends.addresses,
        quotas: backends.quotas,
    }
}

fn choices(section: &Section<'_>, pool: &mut Pool) {
    section.word("balance", words::POLICIES, &mut pool.balance);
    section.word_except("identity", words::IDENTITIES, &mut pool.identity, |word| {
        matches!(word, "xclient" | "xforward").then(|| {
            Wrong::new(
                format!("identity {word:?} is not available in this version"),
                "write \"proxy-v2\": it needs no SMTP command, so it also works where octets pass \
                 unchanged",
            )
        })
    });
    section.word(
        "greeting_verdicts",
        words::VERDICTS,
        &mut pool.greeting_verdicts,
    );
    section.word("when_all_down", words::ALL_DOWN, &mut pool.when_all_down);
    section.word("failback", words::FAILBACKS, &mut pool.failback);
}

fn hedge(section: &Section<'_>, pool: &Pool) -> Hedge {
    let mut hedge = Hedge::default();
    section.flag("enabled", &mut hedge.enabled);
    section.duration("connect_after", &mut hedge.connect_after);
    hedge.greeting_after = section.duration_opt("greeting_after");
    section.percent("budget", &mut hedge.budget);
    section.count("burst", &mut hedge.burst);
    hedge_contradictions(section, &hedge, pool);
    section.finish();
    hedge
}

fn hedge_contradictions(section: &Section<'_>, hedge: &Hedge, pool: &Pool) {
    if !hedge.enabled {
        return;
    }
    let never = "set `enabled = false` in this table if no hedge is meant, or give it less time";
    if section.has("connect_after") && hedge.connect_after >= pool.connect_timeout {
        section.warn(
            "connect_after",
            format!(
                "this never happens: connect_timeout ({}) comes first",
                duration_text(pool.connect_timeout)
            ),
            never,
        );
    }
    if hedge
        .greeting_after
        .is_some_and(|after| after >= pool.greeting_timeout)
    {
        section.warn(
            "greeting_after",
            format!(
                "this never happens: greeting_timeout ({}) comes first",
                duration_text(pool.greeting_timeout)
            ),
            never,
        );
    }
    if hedge.budget.value() == 0 && hedge.burst == 0 {
        section.warn(
            "budget",
            "with budget 0% and burst 0 no hedge is ever made",
            "set `enabled = false` in this table, or allow some",
        );
    }
}

fn health(section: &Section<'_>, hostname: &str) -> Health {
    let mut health = Health::for_host(hostname);
    section.flag("probe", &mut health.probe);
    section.word("depth", words::DEPTHS, &mut health.depth);
    section.duration("interval", &mut health.interval);
    section.duration("fast_interval", &mut health.fast_interval);
    section.count("rise", &mut health.rise);
    section.count("fall", &mut health.fall);
    section.duration("greeting_timeout", &mut health.greeting_timeout);
    section.duration("timeout", &mut health.timeout);
    if let Some(name) = section.text("ehlo_name", value::own_name) {
        health.ehlo_name = name;
    }
    health.probe_recipient = section.text("probe_recipient", value::mailbox);
    section.flag("tls_verify", &mut health.tls_verify);
    health_contradictions(section, &health);
    section.finish();
    health
}

fn health_contradictions(section: &Section<'_>, health: &Health) {
    if health.fast_interval > health.interval {
        section.error(
            if section.has("fast_interval") {
                "fast_interval"
            } else {
                "interval"
            },
            format!(
                "fast_interval ({}) is longer than interval ({})",
                duration_text(health.fast_interval),
                duration_text(health.interval)
            ),
            "set fast_interval to the same or less",
        );
    }
    if health.depth == Depth::Mail && !section.has("probe_recipient") {
        section.error(
            "depth",
            "depth \"mail\" asks for a recipient, and there is none",
            "add `probe_recipient = \"postmaster@example.org\"`, or set depth to \"ehlo\"",
        );
    }
    if health.depth < Depth::Mail && health.probe_recipient.is_some() {
        section.warn(
            "probe_recipient",
            "no probe comes to the recipient",
            "set `depth = \"mail\"` or remove this key",
        );
    }
    if health.depth < Depth::Starttls && health.tls_verify {
        section.warn(
            "tls_verify",
            "no probe comes to TLS",
            "set `depth = \"starttls\"` or remove this key",
        );
    }
}

fn eject(section: &Section<'_>) -> Eject {
    let mut eject = Eject::default();
    section.count("strikes", &mut eject.strikes);
    section.percent("ratio", &mut eject.ratio);
    section.count("min_attempts", &mut eject.min_attempts);
    section.duration("window", &mut eject.window);
    section.duration("time", &mut eject.time);
    section.duration("max_time", &mut eject.max_time);
    if eject.time > eject.max_time {
        section.error(
            if section.has("time") {
                "time"
            } else {
                "max_time"
            },
            format!(
                "time ({}) is longer than max_time ({})",
                duration_text(eject.time),
                duration_text(eject.max_time)
            ),
            "set max_time to the same or more",
        );
    }
    section.finish();
    eject
}

/// Limits of one pool that cannot all take effect.
fn timing(section: &Section<'_>, pool: &Pool) {
    let within = |key: &'static str, part: Duration| {
        if part > pool.failover_timeout {
            let written = if section.has(key) {
                key
            } else {
                "failover_timeout"
            };
            let [whole, part] = [pool.failover_timeout, part].map(duration_text);
            section.warn(
                written,
                format!("failover_timeout ({whole}) ends before {key} ({part}) can"),
                "set failover_timeout to more: it holds all attempts and the queue together",
            );
        }
    };
    within("connect_timeout", pool.connect_timeout);
    within("greeting_timeout", pool.greeting_timeout);
    // The default is cut to what is left, as anyone would expect.
    if section.has("queue_timeout") && pool.queue_max > 0 {
        within("queue_timeout", pool.queue_timeout);
    }
}

/// The backends of the pool, from this file and its backends file.
fn backends(section: &Section<'_>, pool: &mut Pool, files: &Files<'_>) -> BackendPlaces {
    let report = section.report;
    let mut places = BackendPlaces::default();
    let inline = section.table_of("backends");
    if let Some((table, place)) = &inline {
        read_backends(table, place, report, pool, &mut places);
    }
    let named = section.text("backends_file", |path| files.path(path));
    if let Some(path) = named {
        let place = section.place_of("backends_file");
        read_backends_file(&path, &place, report, pool, &mut places, files);
        pool.backends_file = Some(path);
    }
    if pool.backends.is_empty()
        && !section.has("backends_file")
        && inline.is_none_or(|(table, _)| table.is_empty())
    {
        report.missing(
            &section.place,
            Wrong::new(
                "this pool has no backends",
                "add a table [pools.NAME.backends] with lines such as \
                 mx1 = { address = \"10.0.0.11:25\" }",
            ),
        );
    }
    places
}

fn read_backends(
    table: &DeTable<'_>,
    place: &Place,
    report: &Report,
    pool: &mut Pool,
    places: &mut BackendPlaces,
) {
    for (name, table, place) in entries(table, place, BACKEND_HELP, report) {
        let section = Section::new(
            Some(table),
            place.clone(),
            "pools.NAME.backends.NAME",
            report,
        );
        let backend = backend(&section);
        if let Some(first) = places.addresses.get(&name) {
            let wrong = Wrong::new(
                format!("there is already a backend {name}"),
                format!(
                    "the first is in {}; rename or remove one",
                    first.source.file.display()
                ),
            );
            report.error(&place, wrong);
            continue;
        }
        let at = section.place_of("address");
        places.addresses.insert(Arc::clone(&name), at);
        if let Some(backend) = backend {
            if !backend.quota.is_empty() {
                let at = section.place_of("quota");
                places.quotas.insert(Arc::clone(&name), at);
            }
            pool.backends.insert(name, backend);
        }
    }
}

fn backend(section: &Section<'_>) -> Option<Backend> {
    section.require("address", "add `address = \"10.0.0.11:25\"`");
    let address = section.text("address", value::backend_address);
    let mut backend = Backend::at(address.clone().unwrap_or(BackendAddress::Name {
        host: Arc::from(""),
        port: 0,
    }));
    let mut weight = backend.weight.value();
    section.count("weight", &mut weight);
    backend.weight = Weight::new(weight).unwrap_or(backend.weight);
    let mut tier = backend.tier.value();
    section.count("tier", &mut tier);
    backend.tier = Tier::new(tier).unwrap_or(backend.tier);
    section.count("max_connections", &mut backend.max_connections);
    section.word("state", words::STATES, &mut backend.state);
    section.word("family", words::FAMILIES, &mut backend.family);
    if let Some(BackendAddress::Literal(literal)) = &address
        && !backend.family.has(literal.ip())
    {
        section.error(
            "family",
            format!("{} is an address of the other family", literal.ip()),
            "remove this key: it says which addresses of a name are used",
        );
    }
    backend.quota = read_smtp::quotas(section);
    section.finish();
    address.map(|_| backend)
}

fn read_backends_file(
    path: &Path,
    place: &Place,
    report: &Report,
    pool: &mut Pool,
    places: &mut BackendPlaces,
    files: &Files<'_>,
) {
    let text = match (files.read)(path) {
        Ok(text) => text,
        Err(error) => {
            let (reason, help) = unreadable(&error);
            let message = format!("cannot read {}: {reason}", path.display());
            return report.error(place, Wrong::new(message, help));
        }
    };
    let source = Arc::new(Source::new(path, text));
    with_table(&source, report, |table| {
        let place = Place {
            source: Arc::clone(&source),
            span: 0..0,
            path: String::new(),
        };
        if table.is_empty() {
            report.missing(
                &place,
                Wrong::new(
                    "this backends file is empty",
                    "a file that another program is still writing looks like this: write it \
                     beside and rename it; to take backends out of service set state = \"drain\"",
                ),
            );
        }
        read_backends(table, &place, report, pool, places);
    });
}
