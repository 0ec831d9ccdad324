//! From the running process to a scrape.
//!
//! Gathered once per scrape, off the control thread's loop; the text is then written in chunks.

use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use super::gather::{heartbeat_age, open_descriptors, refusals, resident_octets, strikes, weight};
use super::mail::{self, MailUse};
use super::readiness;
use crate::balance::{BackendState, Member};
use crate::control::Handle;
use crate::metrics::SessionOutcome;
use crate::metrics::sample::{
    BackendSample, Directions, FULL, ListenerSample, PoolSample, ProbeSample, ProcessSample,
    Scrape, WorkerSample,
};
use crate::snapshot::{ListenerState, PoolView, RunPhase, Shared};
use crate::telemetry::state_name;
use crate::types::{Histogram, HistogramTotals};

/// Everything a scrape shows.
pub(super) fn scrape(handle: &Handle) -> Scrape {
    let shared = handle.shared();
    let snapshot = shared.current.load_full();
    let now = Instant::now();
    let members = snapshot.pools().flat_map(|view| {
        let mail_use = MailUse::of_pool(&snapshot, view);
        let members = view.pool.members().iter();
        members.map(move |member| (member, mail_use))
    });
    Scrape {
        process: process(handle, snapshot.generation.0),
        listeners: shared
            .registry
            .listeners()
            .iter()
            .map(|state| listener(state, MailUse::of_listener(&snapshot, state.index)))
            .collect(),
        pools: snapshot.pools().map(|view| pool(view, now)).collect(),
        backends: members
            .map(|(member, mail_use)| backend(member, mail_use, now))
            .collect(),
        workers: workers(shared, now),
    }
}

fn process(handle: &Handle, generation: u64) -> ProcessSample {
    let shared = handle.shared();
    let control = &shared.control;
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    ProcessSample {
        ready: readiness::of_process(shared).ready,
        draining: shared.phase() == RunPhase::Draining,
        sessions: u64::from(shared.sessions()),
        session_limit: u64::from(shared.session_limit.load(relaxed)),
        descriptors: open_descriptors(),
        descriptor_limit: shared.descriptor_limit,
        resident_octets: resident_octets(),
        started_at: shared
            .started_at
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_millis() as f64 / 1e3),
        generation,
        last_reload: handle.last_reload().map(|report| (report.at, report.ok)),
        reloads: (control.reloads.value(), control.reload_failures.value()),
        probes: (control.probes_good.value(), control.probes_bad.value()),
        state_changes: control.state_changes.value(),
        log_drops: shared.telemetry.drops(),
        log_suppressed: shared.telemetry.suppressed(),
        replay_memory: Some((shared.replay_memory.used(), shared.replay_memory.max())),
    }
}

fn listener(state: &Arc<ListenerState>, mail_use: MailUse) -> ListenerSample {
    let counters = &state.counters;
    let mut sample = ListenerSample {
        name: state.name.to_string(),
        accepted: counters.sum(|of| of.accepted.value()),
        active: u64::from(state.sessions.taken()),
        octets: Directions {
            to_backend: counters.sum(|of| of.octets_to_backend.value()),
            to_client: counters.sum(|of| of.octets_to_client.value()),
        },
        refusals: refusals(counters),
        early_talkers: counters.sum(|of| of.early_talkers.value()),
        tarpitted: counters.sum(|of| of.tarpitted.value()),
        mail: mail::of_listener(counters, mail_use),
        ..ListenerSample::default()
    };
    for outcome in SessionOutcome::ALL {
        sample.outcomes[outcome.index()] = counters.sum(|of| of.outcomes[outcome.index()].value());
    }
    for of in counters.iter() {
        of.greeting.add_to(&mut sample.greeting);
        of.connect.add_to(&mut sample.connect);
        of.session.add_to(&mut sample.session);
        of.queue.add_to(&mut sample.queue);
    }
    sample
}

fn pool(view: &PoolView, now: Instant) -> PoolSample {
    let core = view.pool.view();
    PoolSample {
        name: view.name.to_string(),
        quotas: mail::quota_samples(view, now),
        waiting: u64::from(core.waiting),
        queue_max: u64::from(view.settings.queue_max),
        usable: u64::from(core.usable),
        backends: view.pool.members().len() as u64,
        unresolved: view.unresolved.len() as u64,
        all_down: core.all_down,
        failback_pending: core.failback_pending,
        open_tier: core.open_tiers.iter().copied().max().map_or(0, u64::from),
    }
}

fn backend(member: &Member, mail_use: MailUse, now: Instant) -> BackendSample {
    let state: &BackendState = &member.settings.state;
    let view = state.view(now);
    let sums = state.sums();
    BackendSample {
        pool: member.pool.to_string(),
        backend: state.name().to_string(),
        address: state.address().to_string(),
        state: if mail::used_up(member, &view, now).is_some() {
            FULL
        } else {
            state_name(view.admin, view.health)
        },
        weight: weight(&view),
        attempts: sums.attempts,
        sessions: sums.sessions,
        hedges: sums.hedges,
        drifts: u64::from(state.drifts()),
        strikes: strikes(state),
        open: u64::from(view.open),
        in_flight: u64::from(view.in_flight),
        octets: Directions {
            to_backend: sums.octets_to_backend,
            to_client: sums.octets_to_client,
        },
        greetings: greetings(state.totals.iter().map(|of| &of.greeting)),
        probe: view.last_probe.map(|(_, report)| ProbeSample {
            good: report.failure.is_none(),
            seconds: report.duration.as_micros() as f64 / 1e6,
            certificate_days: report.certificate_days,
        }),
        mail: mail::of_backend(state, mail_use),
    }
}

/// How many greetings there were, and their time in seconds.
fn greetings<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> (u64, f64) {
    let mut totals = HistogramTotals::default();
    for histogram in histograms {
        histogram.add_to(&mut totals);
    }
    (totals.buckets.iter().sum(), totals.sum_micros as f64 / 1e6)
}

fn workers(shared: &Shared, now: Instant) -> Vec<WorkerSample> {
    (0..)
        .zip(&shared.workers)
        .map(|(index, of): (u32, _)| WorkerSample {
            name: index.to_string(),
            sessions: of.sessions.value(),
            heartbeat_age: heartbeat_age(shared, of.heartbeat_micros.value(), now),
            loop_stalls: of.loop_stalls.value(),
            log_drops: of.log_drops.value(),
            log_suppressed: of.log_suppressed.value(),
            accept_failures: of.accept_failures.value(),
            panics: of.panics.value(),
            spliced: of.spliced.value(),
            pipes_exhausted: of.pipes_exhausted.value(),
            closing: of.closing.value(),
            closed_at_once: of.closed_at_once.value(),
            spilled_octets: of.spilled_octets.value(),
            queued: of.queued.value(),
            failovers: of.failovers.value(),
            kept_idle: of.kept_idle.value(),
            leased: of.leased.value(),
            mail_hedges: of.mail_hedges.value(),
            not_replayable: (
                of.not_replayable_limit.value(),
                of.not_replayable_memory.value(),
            ),
            early_replies: of.early_replies.value(),
        })
        .collect()
}
