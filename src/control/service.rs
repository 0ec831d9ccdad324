//! What the service manager is told: ready, reloading, stopping, alive.
//!
//! Without `NOTIFY_SOCKET` in the environment all of it does nothing. The watchdog is fed only while
//! the heartbeat of every worker is fresh, so a stuck data thread gets the process restarted. A
//! message that cannot be sent is no reason to stop serving: errors are ignored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::snapshot::Shared;

/// What systemd is given on top of `shutdown_timeout` before it kills.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// Everything listens.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Status(status), NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it, whatever came of it.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// The process ends within `limit`.
pub(super) fn stopping(limit: Duration) {
    let micros = (limit + STOP_MARGIN).as_micros();
    send(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(u32::try_from(micros).unwrap_or(u32::MAX)),
    ]);
}

/// One line for `systemctl status`.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Feeds the watchdog four times within its period, while every worker is alive.
pub(super) async fn watchdog(shared: Arc<Shared>) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(period / 4);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if stale_worker(&shared, Instant::now(), period / 2).is_none() {
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// The first worker without a heartbeat within `age`.
pub(super) fn stale_worker(shared: &Shared, now: Instant, age: Duration) -> Option<usize> {
    let running = now.saturating_duration_since(shared.started);
    shared.workers.iter().position(|worker| {
        let beat = Duration::from_micros(worker.heartbeat_micros.value());
        running.saturating_sub(beat) >= age
    })
}

fn send(states: &[NotifyState<'_>]) {
    // Losing a message must not end a balancer that serves.
    let _ = sd_notify::notify(states);
}
