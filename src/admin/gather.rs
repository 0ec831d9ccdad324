//! From the running process to the plain values of a status page or a scrape.
//!
//! Reads counters and takes each backend's short lock once. Runs off the control thread's loop:
//! with ten thousand backends it takes milliseconds. Nothing here waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::mail::{self, MailUse};
use super::page::period;
use super::readiness;
use super::views::{self, QUOTA_CAUSE};
use crate::balance::{
    AdminState, BackendState, BackendView, Balance, Cause, FailureKind, Member, OperatorMark,
    ProbeReport, QuotaUse, Stage,
};
use crate::config::model;
use crate::control::{Handle, ReloadReport};
use crate::metrics::sample::FULL;
use crate::metrics::{ListenerCounters, SessionOutcome};
use crate::smtp::OwnReply;
use crate::snapshot::{ListenerView, PoolView, RunPhase, Shared, Snapshot, Unresolved};
use crate::telemetry::state_name;
use crate::types::Shards;

/// The whole status.
pub(super) fn status(handle: &Handle) -> views::Status {
    let shared = handle.shared();
    let snapshot = shared.current.load_full();
    let clock = Clock::now();
    let readiness = readiness::of_process(shared);
    let listening = handle.listening();
    let suppressed = shared
        .workers
        .iter()
        .map(|worker| worker.log_suppressed.value())
        .sum::<u64>();
    views::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: snapshot.config.hostname.to_string(),
        pid: std::process::id(),
        phase: match shared.phase() {
            RunPhase::Serving => "serving",
            RunPhase::Draining => "draining",
        }
        .to_owned(),
        ready: readiness.ready,
        reasons: readiness.reasons,
        started_at: unix_seconds(shared.started_at),
        uptime_seconds: seconds(clock.now.saturating_duration_since(shared.started)),
        generation: snapshot.generation.0,
        last_reload: handle.last_reload().map(reload),
        restart_needed: handle.restart_needed(),
        limits: limits(shared),
        listeners: snapshot
            .listeners()
            .map(|view| listener(view, &snapshot, &listening))
            .collect(),
        pools: snapshot
            .pools()
            .map(|view| pool(view, &snapshot, clock))
            .collect(),
        leaving: leaving(shared, &snapshot),
        workers: workers(shared, clock.now),
        log: views::Log {
            dropped: shared.telemetry.drops(),
            suppressed: suppressed + shared.telemetry.suppressed(),
        },
    }
}

/// The addresses of one backend, as they are now.
pub(super) fn backends_named(shared: &Shared, pool: &str, name: &str) -> Vec<views::Backend> {
    let snapshot = shared.current.load();
    let clock = Clock::now();
    let Some(view) = snapshot.pool_named(pool) else {
        return Vec::new();
    };
    let mail_use = MailUse::of_pool(&snapshot, view);
    let members = view.pool.members().iter();
    members
        .filter(|member| &*member.settings.name == name)
        .map(|member| backend(member, mail_use, clock))
        .collect()
}

/// What a reload did, as the page says it.
pub(super) fn reload(report: ReloadReport) -> views::Reload {
    views::Reload {
        ok: report.ok,
        generation: report.generation,
        at: report.at,
        trigger: report.trigger.to_owned(),
        mistakes: report.mistakes,
        changes: report.changes,
    }
}

/// Both clocks, read once per page.
#[derive(Clone, Copy)]
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self {
            now: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// So long ago, in seconds since 1970.
    fn unix_before(self, ago: Duration) -> u64 {
        unix_seconds(self.wall.checked_sub(ago).unwrap_or(UNIX_EPOCH))
    }
}

fn limits(shared: &Shared) -> views::Limits {
    views::Limits {
        sessions: u64::from(shared.sessions()),
        sessions_max: u64::from(shared.session_limit.load(Ordering::Relaxed)),
        descriptors: open_descriptors(),
        descriptors_max: shared.descriptor_limit,
        resident_bytes: resident_octets(),
        replay_bytes: Some(shared.replay_memory.used()),
        replay_bytes_max: Some(shared.replay_memory.max()),
    }
}

/// A listener; its addresses are those it listens on now, with the port that the kernel chose.
fn listener(
    view: &ListenerView,
    snapshot: &Snapshot,
    listening: &[(Arc<str>, SocketAddr)],
) -> views::Listener {
    let (settings, state) = (&view.settings, &view.state);
    let counters = &state.counters;
    let mail_use = MailUse::of_listener(snapshot, state.index);
    let bound: Vec<_> = listening
        .iter()
        .filter(|(name, _)| *name == state.name)
        .map(|(_, address)| address.to_string())
        .collect();
    let outcomes = SessionOutcome::ALL.into_iter().filter_map(|outcome| {
        let count = counters.sum(|of| of.outcomes[outcome.index()].value());
        (count > 0).then(|| (outcome.name().to_owned(), count))
    });
    views::Listener {
        name: state.name.to_string(),
        bind: if bound.is_empty() {
            settings.bind.iter().map(ToString::to_string).collect()
        } else {
            bound
        },
        mode: match settings.mode {
            model::Mode::Passthrough => "passthrough",
            model::Mode::Smtp => "smtp",
        }
        .to_owned(),
        pool: settings.pool.to_string(),
        sessions: u64::from(state.sessions.taken()),
        sessions_max: u64::from(settings.max_sessions),
        accepted: counters.sum(|of| of.accepted.value()),
        outcomes: outcomes.collect(),
        refusals: refusals(counters)
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
        bytes_to_backend: counters.sum(|of| of.octets_to_backend.value()),
        bytes_to_client: counters.sum(|of| of.octets_to_client.value()),
        mail: mail::of_listener(counters, mail_use)
            .as_deref()
            .map(mail::listener_view),
    }
}

/// Replies of ours that refused something and were said, by name.
pub(super) fn refusals(counters: &Shards<ListenerCounters>) -> Vec<(&'static str, u64)> {
    let counted = OwnReply::ALL.iter().map(|wording| {
        let at = wording.reply.index();
        (wording.name, counters.sum(|of| of.refusals[at].value()))
    });
    counted.filter(|(_, count)| *count > 0).collect()
}

fn pool(view: &PoolView, snapshot: &Snapshot, clock: Clock) -> views::Pool {
    let core = view.pool.view();
    let mail_use = MailUse::of_pool(snapshot, view);
    let mut tiers: Vec<views::Tier> = Vec::new();
    for member in view.pool.members() {
        let tier = member.settings.tier.value();
        let at = match tiers.binary_search_by_key(&tier, |known| known.tier) {
            Ok(at) => at,
            Err(at) => {
                tiers.insert(
                    at,
                    views::Tier {
                        tier,
                        open: core.open_tiers.contains(&tier),
                        backends: Vec::new(),
                    },
                );
                at
            }
        };
        tiers[at].backends.push(backend(member, mail_use, clock));
    }
    views::Pool {
        name: view.name.to_string(),
        balance: balance_name(view.settings.balance).to_owned(),
        identity: match view.settings.identity {
            model::Identity::None => "none",
            model::Identity::ProxyV1 => "proxy-v1",
            model::Identity::ProxyV2 => "proxy-v2",
        }
        .to_owned(),
        usable: core.usable,
        all_down: core.all_down,
        waiting: core.waiting,
        waiting_max: view.settings.queue_max,
        failback_pending: core.failback_pending,
        unresolved: without_address(view, |none| &none.backend),
        unresolved_causes: without_address(view, |none| &none.cause),
        tiers,
        quotas: mail::quotas(view, clock.now),
    }
}

fn without_address(view: &PoolView, of: fn(&Unresolved) -> &Arc<str>) -> Vec<String> {
    let all = view.unresolved.iter();
    all.map(|none| of(none).to_string()).collect()
}

fn balance_name(balance: Balance) -> &'static str {
    match balance {
        Balance::LeastConnections => "least-connections",
        Balance::RoundRobin => "round-robin",
        Balance::RandomTwo => "random-two",
        Balance::SourceHash => "source-hash",
        Balance::First => "first",
    }
}

/// The word for what the operator wants.
pub(super) fn admin_name(state: AdminState) -> &'static str {
    match state {
        AdminState::Ready => "ready",
        AdminState::Drain => "drain",
        AdminState::Maint => "maint",
    }
}

fn backend(member: &Member, mail_use: MailUse, clock: Clock) -> views::Backend {
    let settings = &member.settings;
    let view = settings.state.view(clock.now);
    let weight_effective = weight(&view);
    let until = |at: Instant| seconds(at.saturating_duration_since(clock.now));
    let used_up = mail::used_up(member, &view, clock.now);
    let lasting = used_up.and_then(|of| of.used_up_for);
    let lasting = lasting.unwrap_or_else(|| clock.now.saturating_duration_since(view.since));
    let mark = |mark: Option<OperatorMark>| {
        mark.map(|mark| views::Mark {
            by: mark.who.to_string(),
            at: clock.unix_before(clock.now.saturating_duration_since(mark.at)),
            seconds: seconds(clock.now.saturating_duration_since(mark.at)),
        })
    };
    views::Backend {
        name: settings.name.to_string(),
        address: settings.address.to_string(),
        state: match used_up {
            Some(_) => FULL,
            None => state_name(view.admin, view.health),
        }
        .to_owned(),
        admin: admin_name(view.admin).to_owned(),
        admin_mark: mark(view.admin_mark),
        health: view.health.name().to_owned(),
        since: clock.unix_before(lasting),
        since_seconds: seconds(lasting),
        ejected_for_seconds: view.ejected_until.map(until),
        ejections: view.ejections,
        consecutive_strikes: view.consecutive_strikes,
        weight_configured: settings.weight.value(),
        weight_override: view.weight_override.map(crate::types::Weight::value),
        weight_effective,
        weight_mark: mark(view.weight_mark),
        open: view.open,
        open_max: settings.max_connections,
        in_flight: view.in_flight,
        totals: totals(&settings.state),
        usual_greeting_ms: view.usual_greeting.map(millis),
        probe: view
            .last_probe
            .as_ref()
            .map(|(at, report)| probe(report, clock.now.saturating_duration_since(*at))),
        cause: used_up.map_or_else(|| cause(view.cause), quota_cause),
        mail: mail::of_backend(&settings.state, mail_use)
            .as_deref()
            .map(mail::backend_view),
    }
}

/// The weight as balancing sees it now.
pub(super) fn weight(view: &BackendView) -> f64 {
    f64::from(view.effective_weight_256) / 256.0
}

/// The quota that is used up, as the cause of that state.
fn quota_cause(of: QuotaUse) -> views::Cause {
    let window = period(of.quota.period.as_secs());
    let (used, limit, unit) = (of.used, of.quota.count, of.quota.unit.name());
    let words = format!("{used} of {limit} {unit} in {window}");
    views::Cause {
        words: words.clone(),
        origin: QUOTA_CAUSE.to_owned(),
        text: Some(words),
        ..views::Cause::default()
    }
}

fn cause(cause: Cause) -> views::Cause {
    views::Cause {
        words: cause.to_string(),
        origin: cause.origin.to_owned(),
        stage: cause.stage.map(|stage| stage.name().to_owned()),
        kind: cause.kind.map(|kind| kind.name().to_owned()),
        code: cause.code,
        text: cause.text.map(|text| text.to_string()),
        duration_ms: cause.duration.map(millis),
        who: cause.who.map(|who| who.to_string()),
    }
}

fn totals(state: &BackendState) -> views::Totals {
    let sum = |of: fn(&crate::balance::BackendTotals) -> u64| state.totals.sum(of);
    views::Totals {
        attempts: sum(|of| of.attempts.value()),
        sessions: sum(|of| of.sessions.value()),
        strikes: sum(|of| {
            let all = of.strikes.iter().flatten();
            all.map(crate::types::Counter::value).sum()
        }),
        hedges: sum(|of| of.hedges.value()),
        bytes_to_backend: sum(|of| of.octets_to_backend.value()),
        bytes_to_client: sum(|of| of.octets_to_client.value()),
    }
}

/// The strikes that happened, by stage and kind.
pub(super) fn strikes(state: &BackendState) -> Vec<(Stage, FailureKind, u64)> {
    let mut found = Vec::new();
    for stage in Stage::ALL {
        for kind in FailureKind::ALL {
            let count = state
                .totals
                .sum(|of| of.strikes[stage.index()][kind.index()].value());
            if count > 0 {
                found.push((stage, kind, count));
            }
        }
    }
    found
}

fn probe(report: &ProbeReport, age: Duration) -> views::Probe {
    views::Probe {
        ok: report.failure.is_none(),
        stage: report.stage.name().to_owned(),
        kind: report.failure.map(|kind| kind.name().to_owned()),
        code: report.code,
        text: report.text.as_ref().map(ToString::to_string),
        age_seconds: seconds(age),
        duration_ms: millis(report.duration),
        greeting_ms: report.greeting.map(millis),
        full: report.full,
        keywords: report.keywords.iter().map(ToString::to_string).collect(),
        certificate_days: report.certificate_days,
    }
}

/// Backends of the registry that this snapshot does not name and that still have connections.
fn leaving(shared: &Shared, snapshot: &Snapshot) -> Vec<views::Leaving> {
    let named: std::collections::HashSet<*const BackendState> = snapshot
        .pools()
        .flat_map(|view| view.pool.members())
        .map(|member| Arc::as_ptr(&member.settings.state))
        .collect();
    shared
        .registry
        .backends()
        .into_iter()
        .filter(|state| state.open() > 0 && !named.contains(&Arc::as_ptr(state)))
        .map(|state| views::Leaving {
            pool: state.pool().to_string(),
            name: state.name().to_string(),
            address: state.address().to_string(),
            open: state.open(),
        })
        .collect()
}

fn workers(shared: &Shared, now: Instant) -> Vec<views::Worker> {
    (0..)
        .zip(&shared.workers)
        .map(|(index, of)| views::Worker {
            worker: index,
            sessions: of.sessions.value(),
            heartbeat_age_seconds: heartbeat_age(shared, of.heartbeat_micros.value(), now),
            loop_stalls: of.loop_stalls.value(),
            panics: of.panics.value(),
            accept_failures: of.accept_failures.value(),
            kept_idle: of.kept_idle.value(),
            leased: of.leased.value(),
        })
        .collect()
}

/// Seconds since a worker's last heartbeat.
pub(super) fn heartbeat_age(shared: &Shared, heartbeat_micros: u64, now: Instant) -> f64 {
    let running = now.saturating_duration_since(shared.started);
    seconds(running.saturating_sub(Duration::from_micros(heartbeat_micros)))
}

/// Open descriptors of this process; the one that counts them is not one of them.
pub(super) fn open_descriptors() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(count.saturating_sub(1))
}

/// Resident memory of this process.
pub(super) fn resident_octets() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibi: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibi * 1024)
}

/// Whole seconds since 1970.
pub(super) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Seconds with three decimals.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Milliseconds with three decimals.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
