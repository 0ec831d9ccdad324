//! The clock of the pools: every 100 ms ejections end, slow starts grow, tiers open and close.
//!
//! It also does what else is due now and then: cuts of removed backends, forgetting backends nobody
//! needs, freeing old snapshots (here and not on a data thread, where the last worker to let go of
//! 10,000 backends would stall), and a look at the heartbeats.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::cuts::Cuts;
use super::handle::Handle;
use super::quotas;
use super::service;
use crate::balance::PoolEvent;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

/// Between ticks.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between sweeps of the registry: one minute.
const SWEEP_TICKS: u64 = 600;
/// Ticks between looks at the heartbeats: five seconds.
const HEARTBEAT_TICKS: u64 = 50;
/// A worker without a heartbeat for so long is worth a warning.
const HEARTBEAT_AGE: Duration = Duration::from_secs(10);

/// Things that end some time after a reload.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    pub(super) cuts: Cuts,
    /// Snapshots that were current once and may still be read.
    pub(super) retired: Vec<Arc<Snapshot>>,
}

/// Ticks until the process ends.
pub(super) async fn run(
    handle: Handle,
    workers: Rc<Vec<Worker>>,
    leftovers: Rc<RefCell<Leftovers>>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stale = None;
    for count in 1_u64.. {
        ticks.tick().await;
        tick_pools(&handle);
        clean(&handle, &workers, &mut leftovers.borrow_mut());
        if count % SWEEP_TICKS == 0 {
            quotas::sweep(handle.shared());
        }
        if count % HEARTBEAT_TICKS == 0 {
            stale = watch_heartbeats(&handle, stale);
        }
    }
}

fn tick_pools(handle: &Handle) {
    let snapshot = handle.shared().current.load_full();
    let now = Instant::now();
    for pool in snapshot.pools() {
        report(handle, &pool.pool.tick(now));
    }
}

/// Logs and counts what a pool told.
pub(super) fn report(handle: &Handle, events: &[PoolEvent]) {
    for event in events {
        if matches!(event, PoolEvent::Changed(_)) {
            handle.shared().control.state_changes.inc();
        }
        handle.shared().telemetry.pool_event(event);
    }
}

fn clean(handle: &Handle, workers: &[Worker], leftovers: &mut Leftovers) {
    let cut = leftovers.cuts.send_due(Instant::now(), workers);
    if cut > 0 {
        tracing::info!(removed = cut, "reload.cut");
        quotas::sweep(handle.shared());
    }
    for snapshot in leftovers
        .retired
        .extract_if(.., |snapshot| Arc::strong_count(snapshot) == 1)
    {
        tokio::task::spawn_blocking(move || drop(snapshot));
    }
}

/// Says once that a worker is stuck, and once that it is not any more.
fn watch_heartbeats(handle: &Handle, before: Option<usize>) -> Option<usize> {
    let stale = service::stale_worker(handle.shared(), Instant::now(), HEARTBEAT_AGE);
    match (before, stale) {
        (None, Some(worker)) => {
            tracing::error!(worker, "worker.stuck");
        }
        (Some(worker), None) => {
            tracing::warn!(worker, "worker.recovered");
        }
        _ => {}
    }
    stale
}
