//! Active health checks: every backend, again and again (rules H1–H6).
//!
//! One prober per distinct conversation (address, TLS, identity, depth, EHLO name …), its result
//! given to every pool that would have asked the same. Probes are not counted in `max_connections`.
//! Only the control thread is touched: a slow backend delays nobody but its own next probe.

mod schedule;
mod targets;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{self, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use self::schedule::{Due, Schedule};
use super::handle::Handle;
use super::probe::{ProbeResult, ProbeTls, probe_once};
use crate::balance::FailureKind;
use crate::types::in_words;

/// Probes at once; more wait.
pub(super) const PROBES_MAX: usize = 256;
/// Between looks for backends that sessions found to be changing.
const LOOK: Duration = Duration::from_secs(1);
/// While there is nothing to probe.
const IDLE: Duration = Duration::from_hours(1);

/// Probes until the process ends; `retarget` says that there is a new snapshot.
pub(super) async fn run(handle: Handle, retarget: Rc<Notify>) {
    let tls = match ProbeTls::new() {
        Ok(tls) => Rc::new(tls),
        Err(error) => {
            tracing::error!(error = &*in_words(&error), "probe.no_tls");
            return;
        }
    };
    let mut prober = Prober {
        schedule: Schedule::new(seed(&handle)),
        handle,
        tls,
        running: JoinSet::new(),
        ids: HashMap::new(),
    };
    prober.retarget();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = prober.next_due();
        tokio::select! {
            () = sleep_until(next.into()) => prober.begin_due(),
            Some(ended) = prober.running.join_next_with_id() => prober.ended(ended),
            () = retarget.notified() => prober.retarget(),
            _ = looks.tick() => prober.schedule.look(Instant::now()),
        }
    }
}

fn seed(handle: &Handle) -> u64 {
    let since = handle
        .shared()
        .started_at
        .duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64) ^ u64::from(std::process::id())
}

struct Prober {
    handle: Handle,
    schedule: Schedule,
    tls: Rc<ProbeTls>,
    running: JoinSet<ProbeResult>,
    /// Which entry of the schedule a task probes.
    ids: HashMap<task::Id, u64>,
}

impl Prober {
    fn retarget(&mut self) {
        let snapshot = self.handle.shared().current.load_full();
        let targets = targets::of(&snapshot);
        self.schedule.retarget(targets, Instant::now());
    }

    /// When something is to be done; far away while as many probes run as may.
    fn next_due(&self) -> Instant {
        let idle = Instant::now() + IDLE;
        if self.running.len() >= PROBES_MAX {
            return idle;
        }
        self.schedule.next().unwrap_or(idle)
    }

    fn begin_due(&mut self) {
        let now = Instant::now();
        while self.running.len() < PROBES_MAX
            && let Some(due) = self.schedule.take_due(now)
        {
            let Due { id, target, plan } = due;
            let tls = Rc::clone(&self.tls);
            let task = self
                .running
                .spawn_local(async move { Box::pin(probe_once(&target, &plan, &tls)).await });
            self.ids.insert(task.id(), id);
        }
    }

    fn ended(&mut self, ended: Result<(task::Id, ProbeResult), task::JoinError>) {
        let now = Instant::now();
        match ended {
            Ok((task, result)) => {
                if let Some(id) = self.ids.remove(&task) {
                    self.tell(id, &result, now);
                    self.schedule.done(id, now);
                }
            }
            Err(error) => {
                tracing::error!(%error, "probe.panic");
                if let Some(id) = self.ids.remove(&error.id()) {
                    self.schedule.done(id, now);
                }
            }
        }
    }

    /// Gives the result to every pool that is concerned.
    fn tell(&mut self, id: u64, result: &ProbeResult, now: Instant) {
        let Some((target, members)) = self.schedule.concerned(id) else {
            return; // A reload took it away meanwhile.
        };
        let control = &self.handle.shared().control;
        if result.is_good() {
            control.probes_good.inc();
        } else {
            control.probes_bad.inc();
        }
        tracing::debug!(
            backend.addr = %target.address,
            stage = result.stage.name(),
            failure = result.failure.map(FailureKind::name),
            code = result.code,
            text = result.text.as_deref(),
            ms = result.duration.as_secs_f64() * 1e3,
            "probe.done"
        );
        if result.failure == Some(FailureKind::Local) {
            // We could not even ask: the balancing core knows that this says nothing of the backend.
            let error = result.text.as_deref();
            tracing::warn!(backend.addr = %target.address, error, "probe.not_possible");
        }
        let report = result.report();
        for state in members {
            if let Some(change) = state.probed(report.clone(), now) {
                self.handle.tell(&change);
            }
        }
    }
}

/// The states of backends that one probe speaks for.
type Members = Vec<Arc<crate::balance::BackendState>>;
