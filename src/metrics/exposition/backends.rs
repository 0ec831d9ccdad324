//! Metrics of backends and workers: the second part of the page.
//!
//! Ten thousand backends are the case to keep in mind: no histogram for each of them, and only the
//! strikes that happened.

use super::families::{Family, Kind, Scope, directions, family, with};
use crate::metrics::sample::{BackendSample, STATES, WorkerSample};

impl BackendSample {
    pub(super) fn labels(&self) -> [(&'static str, &str); 3] {
        [
            ("pool", &self.pool),
            ("backend", &self.backend),
            ("address", &self.address),
        ]
    }
}

/// In the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    family!(
        "posthouse_backend_state",
        Gauge,
        Backend,
        "1 for the state the backend is in, 0 for the others.",
        |s, o| for state in STATES {
            o.flag(&with(s.labels(), [("state", state)]), s.state == state);
        }
    ),
    family!(
        "posthouse_backend_weight",
        Gauge,
        Backend,
        "The weight as balancing sees it now (slow start included).",
        |s, o| o.value(&s.labels(), s.weight)
    ),
    family!(
        "posthouse_backend_open_connections",
        Gauge,
        Backend,
        "Open connections.",
        |s, o| o.value(&s.labels(), s.open)
    ),
    family!(
        "posthouse_backend_in_flight",
        Gauge,
        Backend,
        "Sessions in flight.",
        |s, o| o.value(&s.labels(), s.in_flight)
    ),
    family!(
        "posthouse_backend_attempts_total",
        Counter,
        Backend,
        "Dials for sessions.",
        |s, o| o.value(&s.labels(), s.attempts)
    ),
    family!(
        "posthouse_backend_sessions_total",
        Counter,
        Backend,
        "Sessions the backend greeted; in mode smtp, connections dialled for transactions.",
        |s, o| o.value(&s.labels(), s.sessions)
    ),
    family!(
        "posthouse_backend_hedges_total",
        Counter,
        Backend,
        "Dials because another backend was slow.",
        |s, o| o.value(&s.labels(), s.hedges)
    ),
    family!(
        "posthouse_backend_extension_changes_total",
        Counter,
        Backend,
        "Times it announced other extensions than before.",
        |s, o| o.value(&s.labels(), s.drifts)
    ),
    family!(
        "posthouse_backend_strikes_total",
        Counter,
        Backend,
        "Failed attempts that were the backend's fault, by stage and kind; only those that happened.",
        |s, o| for (stage, kind, count) in &s.strikes {
            o.value(
                &with(s.labels(), [("stage", stage.name()), ("kind", kind.name())]),
                count,
            );
        }
    ),
    family!(
        "posthouse_backend_bytes_total",
        Counter,
        Backend,
        "Bytes relayed by direction.",
        |s, o| directions(o, s.labels(), s.octets)
    ),
    family!(
        "posthouse_backend_greeting_seconds",
        Summary,
        Backend,
        "From dial to the greeting.",
        |s, o| o.summary(&s.labels(), s.greetings.0, s.greetings.1)
    ),
    family!(
        "posthouse_backend_probe_successful",
        Gauge,
        Backend,
        "1 if the last probe was good.",
        |s, o| if let Some(probe) = s.probe {
            o.flag(&s.labels(), probe.good);
        }
    ),
    family!(
        "posthouse_backend_probe_seconds",
        Gauge,
        Backend,
        "How long the last probe took.",
        |s, o| if let Some(probe) = s.probe {
            o.value(&s.labels(), probe.seconds);
        }
    ),
    family!(
        "posthouse_backend_certificate_remaining_seconds",
        Gauge,
        Backend,
        "Until the backend's certificate ends, in whole days, where probes reach TLS.",
        |s, o| if let Some(days) = s.probe.and_then(|probe| probe.certificate_days) {
            o.value(&s.labels(), days.saturating_mul(86_400));
        }
    ),
    family!(
        "posthouse_worker_sessions",
        Gauge,
        Worker,
        "Sessions now.",
        |s, o| o.value(&[("worker", &s.name)], s.sessions)
    ),
    family!(
        "posthouse_worker_heartbeat_age_seconds",
        Gauge,
        Worker,
        "Since the thread last showed that it is alive.",
        |s, o| o.value(&[("worker", &s.name)], s.heartbeat_age)
    ),
    family!(
        "posthouse_worker_loop_stalls_total",
        Counter,
        Worker,
        "Turns of the loop longer than 20 ms.",
        |s, o| o.value(&[("worker", &s.name)], s.loop_stalls)
    ),
    family!(
        "posthouse_worker_log_drops_total",
        Counter,
        Worker,
        "Log lines dropped because the writer was behind.",
        |s, o| o.value(&[("worker", &s.name)], s.log_drops)
    ),
    family!(
        "posthouse_worker_log_suppressed_total",
        Counter,
        Worker,
        "Lines of sessions and transactions left out by the storm limit.",
        |s, o| o.value(&[("worker", &s.name)], s.log_suppressed)
    ),
    family!(
        "posthouse_worker_accept_failures_total",
        Counter,
        Worker,
        "accept(2) failed for want of descriptors or memory.",
        |s, o| o.value(&[("worker", &s.name)], s.accept_failures)
    ),
    family!(
        "posthouse_worker_panics_total",
        Counter,
        Worker,
        "Sessions ended by a fault of ours.",
        |s, o| o.value(&[("worker", &s.name)], s.panics)
    ),
    family!(
        "posthouse_worker_spliced_total",
        Counter,
        Worker,
        "Directions moved to zero-copy.",
        |s, o| o.value(&[("worker", &s.name)], s.spliced)
    ),
    family!(
        "posthouse_worker_pipes_exhausted_total",
        Counter,
        Worker,
        "Zero-copy was wanted and no pipe was to be had.",
        |s, o| o.value(&[("worker", &s.name)], s.pipes_exhausted)
    ),
    family!(
        "posthouse_worker_closing_connections",
        Gauge,
        Worker,
        "Connections now that are refused, answered as monitors or in lingering close; no sessions.",
        |s, o| o.value(&[("worker", &s.name)], s.closing)
    ),
    family!(
        "posthouse_worker_closed_at_once_total",
        Counter,
        Worker,
        "Connections of these kinds that found no place and were closed with their first words.",
        |s, o| o.value(&[("worker", &s.name)], s.closed_at_once)
    ),
    family!(
        "posthouse_worker_spilled_bytes",
        Gauge,
        Worker,
        "Bytes held for slow receivers now.",
        |s, o| o.value(&[("worker", &s.name)], s.spilled_octets)
    ),
    family!(
        "posthouse_worker_queued_total",
        Counter,
        Worker,
        "Sessions that waited in a queue.",
        |s, o| o.value(&[("worker", &s.name)], s.queued)
    ),
    family!(
        "posthouse_worker_failovers_total",
        Counter,
        Worker,
        "Attempts beyond the first one of a session.",
        |s, o| o.value(&[("worker", &s.name)], s.failovers)
    ),
];
