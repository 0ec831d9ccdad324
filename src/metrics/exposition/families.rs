//! Metrics of the process, listeners and pools; what a family is.
//!
//! Base units only (`_seconds`, `_bytes`), counters end in `_total`. Labels are configured names
//! and words of our own enums.

use super::Samples;
use crate::metrics::SessionOutcome;
use crate::metrics::sample::{Directions, ListenerSample, PoolSample, Scrape};

/// One metric family.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) scope: Scope,
    pub(super) write: fn(&Scrape, usize, &mut Samples<'_>),
}

/// The type of a metric.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// What there is one item of samples for.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Process,
    Listener,
    Pool,
    Backend,
    Worker,
}

impl Scope {
    pub(super) fn items(self, scrape: &Scrape) -> usize {
        match self {
            Self::Process => 1,
            Self::Listener => scrape.listeners.len(),
            Self::Pool => scrape.pools.len(),
            Self::Backend => scrape.backends.len(),
            Self::Worker => scrape.workers.len(),
        }
    }
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

impl Family {
    pub(super) fn head(&self, out: &mut Vec<u8>) {
        for part in [
            "# HELP ",
            self.name,
            " ",
            self.help,
            "\n# TYPE ",
            self.name,
            " ",
            self.kind.name(),
            "\n",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// A family whose items are of one slice of the scrape.
macro_rules! family {
    ($name:literal, $kind:ident, Process, $help:literal, |$s:ident, $o:ident| $write:expr) => {
        Family {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            scope: Scope::Process,
            write: |$s, _, $o| $write,
        }
    };
    ($name:literal, $kind:ident, Listener, $help:literal, |$s:ident, $o:ident| $write:expr) => {
        family!(
            $name,
            $kind,
            Listener,
            listeners,
            ListenerSample,
            $help,
            |$s, $o| $write
        )
    };
    ($name:literal, $kind:ident, Pool, $help:literal, |$s:ident, $o:ident| $write:expr) => {
        family!($name, $kind, Pool, pools, PoolSample, $help, |$s, $o| {
            $write
        })
    };
    ($name:literal, $kind:ident, Backend, $help:literal, |$s:ident, $o:ident| $write:expr) => {
        family!(
            $name,
            $kind,
            Backend,
            backends,
            BackendSample,
            $help,
            |$s, $o| $write
        )
    };
    ($name:literal, $kind:ident, Worker, $help:literal, |$s:ident, $o:ident| $write:expr) => {
        family!(
            $name,
            $kind,
            Worker,
            workers,
            WorkerSample,
            $help,
            |$s, $o| $write
        )
    };
    ($name:literal, $kind:ident, $scope:ident, $list:ident, $item:ty, $help:literal,
     |$s:ident, $o:ident| $write:expr) => {
        Family {
            name: $name,
            kind: Kind::$kind,
            help: $help,
            scope: Scope::$scope,
            write: |scrape, index, $o| {
                let $s: &$item = &scrape.$list[index];
                $write
            },
        }
    };
}

pub(super) use family;

pub(super) fn with<'a, const N: usize, const M: usize>(
    labels: [(&'static str, &'a str); N],
    more: [(&'static str, &'a str); M],
) -> Vec<(&'static str, &'a str)> {
    labels.into_iter().chain(more).collect()
}

pub(super) fn directions<const N: usize>(
    out: &mut Samples<'_>,
    labels: [(&'static str, &str); N],
    octets: Directions,
) {
    out.value(
        &with(labels, [("direction", "to_backend")]),
        octets.to_backend,
    );
    out.value(
        &with(labels, [("direction", "to_client")]),
        octets.to_client,
    );
}

/// The first part of the page; backends and workers follow it.
pub(super) const FAMILIES: &[Family] = &[
    family!(
        "posthouse_build_info",
        Gauge,
        Process,
        "Always 1; the version is a label.",
        |_s, o| o.value(&[("version", env!("CARGO_PKG_VERSION"))], 1)
    ),
    family!(
        "posthouse_ready",
        Gauge,
        Process,
        "1 if this process should be sent mail (as /readyz).",
        |s, o| o.flag(&[], s.process.ready)
    ),
    family!(
        "posthouse_draining",
        Gauge,
        Process,
        "1 while shutting down.",
        |s, o| o.flag(&[], s.process.draining)
    ),
    family!(
        "posthouse_sessions",
        Gauge,
        Process,
        "Sessions now, of the whole process.",
        |s, o| o.value(&[], s.process.sessions)
    ),
    family!(
        "posthouse_sessions_limit",
        Gauge,
        Process,
        "The most sessions there may be at once.",
        |s, o| o.value(&[], s.process.session_limit)
    ),
    family!(
        "posthouse_config_generation",
        Gauge,
        Process,
        "The generation of the configuration in force.",
        |s, o| o.value(&[], s.process.generation)
    ),
    family!(
        "posthouse_reloads_total",
        Counter,
        Process,
        "Reloads by result.",
        |s, o| {
            o.value(&[("result", "ok")], s.process.reloads.0);
            o.value(&[("result", "failed")], s.process.reloads.1);
        }
    ),
    family!(
        "posthouse_config_last_reload_timestamp_seconds",
        Gauge,
        Process,
        "When a reload was last tried; the start if never.",
        |s, o| match s.process.last_reload {
            Some((at, _)) => o.value(&[], at),
            None => o.value(&[], s.process.started_at),
        }
    ),
    family!(
        "posthouse_config_last_reload_successful",
        Gauge,
        Process,
        "1 if the last reload took effect, or there was none.",
        |s, o| o.flag(&[], s.process.last_reload.is_none_or(|(_, ok)| ok))
    ),
    family!(
        "posthouse_probes_total",
        Counter,
        Process,
        "Probes by result.",
        |s, o| {
            o.value(&[("result", "good")], s.process.probes.0);
            o.value(&[("result", "bad")], s.process.probes.1);
        }
    ),
    family!(
        "posthouse_backend_state_changes_total",
        Counter,
        Process,
        "State changes of backends.",
        |s, o| o.value(&[], s.process.state_changes)
    ),
    family!(
        "posthouse_log_dropped_lines_total",
        Counter,
        Process,
        "Log lines dropped because the writer was behind, of all threads.",
        |s, o| o.value(&[], s.process.log_drops)
    ),
    family!(
        "posthouse_log_suppressed_events_total",
        Counter,
        Process,
        "Log events (not lines of sessions and transactions) left out by the storm limit.",
        |s, o| o.value(&[], s.process.log_suppressed)
    ),
    family!(
        "process_open_fds",
        Gauge,
        Process,
        "Open descriptors.",
        |s, o| if let Some(count) = s.process.descriptors {
            o.value(&[], count);
        }
    ),
    family!(
        "process_max_fds",
        Gauge,
        Process,
        "The descriptor limit.",
        |s, o| o.value(&[], s.process.descriptor_limit)
    ),
    family!(
        "process_resident_memory_bytes",
        Gauge,
        Process,
        "Resident memory.",
        |s, o| if let Some(octets) = s.process.resident_octets {
            o.value(&[], octets);
        }
    ),
    family!(
        "process_start_time_seconds",
        Gauge,
        Process,
        "When the process started, in seconds since 1970.",
        |s, o| o.value(&[], s.process.started_at)
    ),
    family!(
        "posthouse_listener_accepted_total",
        Counter,
        Listener,
        "Accepted connections.",
        |s, o| o.value(&[("listener", &s.name)], s.accepted)
    ),
    family!(
        "posthouse_listener_sessions",
        Gauge,
        Listener,
        "Sessions now.",
        |s, o| o.value(&[("listener", &s.name)], s.active)
    ),
    family!(
        "posthouse_sessions_total",
        Counter,
        Listener,
        "Ended connections by outcome: sessions, and those that were turned away.",
        |s, o| for outcome in SessionOutcome::ALL {
            o.value(
                &[("listener", &s.name), ("outcome", outcome.name())],
                s.outcomes[outcome.index()],
            );
        }
    ),
    family!(
        "posthouse_refusals_total",
        Counter,
        Listener,
        "Replies of our own that refused something (4yz and 5yz), by name; only those that happened.",
        |s, o| for (reply, count) in &s.refusals {
            o.value(&[("listener", &s.name), ("reply", reply)], count);
        }
    ),
    family!(
        "posthouse_listener_bytes_total",
        Counter,
        Listener,
        "Bytes relayed by direction.",
        |s, o| directions(o, [("listener", &s.name)], s.octets)
    ),
    family!(
        "posthouse_listener_early_talkers_total",
        Counter,
        Listener,
        "Clients that sent before the greeting.",
        |s, o| o.value(&[("listener", &s.name)], s.early_talkers)
    ),
    family!(
        "posthouse_listener_tarpitted_total",
        Counter,
        Listener,
        "Replies to mistakes that were held back.",
        |s, o| o.value(&[("listener", &s.name)], s.tarpitted)
    ),
    family!(
        "posthouse_greeting_seconds",
        Histogram,
        Listener,
        "From accept to the first octet to the client.",
        |s, o| o.histogram(&[("listener", &s.name)], &s.greeting)
    ),
    family!(
        "posthouse_connect_seconds",
        Histogram,
        Listener,
        "From dialling a backend to connected.",
        |s, o| o.histogram(&[("listener", &s.name)], &s.connect)
    ),
    family!(
        "posthouse_session_seconds",
        Histogram,
        Listener,
        "From accept to the end of the session.",
        |s, o| o.histogram(&[("listener", &s.name)], &s.session)
    ),
    family!(
        "posthouse_queue_seconds",
        Histogram,
        Listener,
        "Time in the queue, of sessions that waited.",
        |s, o| o.histogram(&[("listener", &s.name)], &s.queue)
    ),
    family!(
        "posthouse_pool_queue_waiting",
        Gauge,
        Pool,
        "Clients that wait for a backend.",
        |s, o| o.value(&[("pool", &s.name)], s.waiting)
    ),
    family!(
        "posthouse_pool_queue_limit",
        Gauge,
        Pool,
        "Clients that may wait for a backend.",
        |s, o| o.value(&[("pool", &s.name)], s.queue_max)
    ),
    family!(
        "posthouse_pool_backends",
        Gauge,
        Pool,
        "Backends of the pool, by address.",
        |s, o| o.value(&[("pool", &s.name)], s.backends)
    ),
    family!(
        "posthouse_pool_usable_backends",
        Gauge,
        Pool,
        "Backends that can take a session now.",
        |s, o| o.value(&[("pool", &s.name)], s.usable)
    ),
    family!(
        "posthouse_pool_unresolved_backends",
        Gauge,
        Pool,
        "Backends whose host name has no address yet.",
        |s, o| o.value(&[("pool", &s.name)], s.unresolved)
    ),
    family!(
        "posthouse_pool_all_down",
        Gauge,
        Pool,
        "1 if no backend is healthy.",
        |s, o| o.flag(&[("pool", &s.name)], s.all_down)
    ),
    family!(
        "posthouse_pool_open_tier",
        Gauge,
        Pool,
        "The last tier that is open; above 1 standby backends serve.",
        |s, o| o.value(&[("pool", &s.name)], s.open_tier)
    ),
    family!(
        "posthouse_pool_failback_pending",
        Gauge,
        Pool,
        "1 if the operator's failback is awaited.",
        |s, o| o.flag(&[("pool", &s.name)], s.failback_pending)
    ),
];
