//! Reloads under load: no session may fail, none may stall.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use super::Plan;
use super::backend::Backend;
use super::failover::under_load;
use super::support::client::{Client, PATIENCE, Stage, Work};
use super::support::loopback;
use super::support::measure::start_sink;
use super::support::peer::{Health, Kind, Peer, Run};
use super::support::report::Report;
use super::support::sink::Behaviour;

/// Backends of the large row.
const MANY: u16 = 10_000;
/// How long the generation may take to change.
const RELOAD_MAX: Duration = Duration::from_secs(30);

/// 30 reloads, each with another weight, while 8 clients loop.
pub(super) fn many(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "30 reloads under load";
    let pace = plan.pick(Duration::from_millis(300), Duration::from_millis(150));
    for &kind in &plan.kinds {
        if kind == Kind::HaproxySplice {
            continue;
        }
        let backends = Backend::start_three()?;
        let mut setup = plan.bench.setup(1, Run::Reloadable);
        setup.backends = Backend::alike(&backends);
        setup.health = Health::On;
        let peer = Peer::start(kind, &setup)?;
        let visits = under_load(&peer, &Work::short(), || {
            let mut changed = setup.backends.clone();
            for reload in 0..30 {
                changed[0].1 = reload % 2 + 1;
                peer.write_configuration(&changed)?;
                peer.reload()?;
                thread::sleep(pace);
            }
            Ok(())
        })?;
        let failed = visits.iter().filter(|visit| visit.failed.is_some()).count();
        let worst = visits
            .iter()
            .map(|v| v.greeting.as_secs_f64() * 1e3)
            .fold(0.0, f64::max);
        report.add(row, "sessions", kind, visits.len() as f64);
        report.judge(row, "failed sessions", kind, failed as f64, 0.0);
        report.add(row, "worst greeting wait, ms", kind, worst);
        for visit in visits
            .iter()
            .filter_map(|visit| visit.failed.as_ref())
            .take(3)
        {
            report.note(row, format!("{kind}: {visit}"));
        }
        if kind == Kind::Posthouse {
            let reloads = generation(&peer)?;
            report.add(row, "generation afterwards", kind, reloads as f64);
            if reloads < 2 {
                bail!("no reload took place");
            }
        }
    }
    Ok(())
}

/// 10,000 backends, some of which change with every reload, while sessions go on.
pub(super) fn large(plan: &Plan, report: &mut Report) -> Result<()> {
    if !plan.has(Kind::Posthouse) {
        return Ok(());
    }
    let row = "reload with 10,000 backends under load";
    let (_sink, port) = start_sink(&Behaviour::good())?;
    let mut setup = plan.bench.setup(port, Run::Plain);
    setup.backends = (0..MANY)
        .map(|number| (loopback(0x1000 + number, port), 1))
        .collect();
    setup.health = Health::Off;
    let peer = Peer::start(Kind::Posthouse, &setup)?;
    let reloads = plan.pick(10, 3);
    let calm = stalls(&peer, || {
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    let stalled_before = loop_stalls(&peer)?;
    let mut took = Vec::new();
    let mut failed = 0;
    let busy = stalls(&peer, || {
        let visits = under_load(&peer, &Work::new(1, 1024), || {
            for reload in 0..reloads {
                let mut changed = setup.backends.clone();
                // One in ten gets another weight, one in a hundred goes away.
                for backend in changed.iter_mut().step_by(10) {
                    backend.1 = reload % 5 + 2;
                }
                let gone = usize::from(MANY / 100) * (reload as usize % 3 + 1);
                changed.truncate(usize::from(MANY) - gone);
                peer.write_configuration(&changed)?;
                let generation_before = generation(&peer)?;
                let began = Instant::now();
                peer.reload()?;
                while generation(&peer)? == generation_before {
                    if began.elapsed() > RELOAD_MAX {
                        bail!("no new generation after {RELOAD_MAX:?}");
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                took.push(began.elapsed().as_secs_f64() * 1e3);
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        })?;
        failed = visits.iter().filter(|visit| visit.failed.is_some()).count();
        for visit in visits
            .iter()
            .filter_map(|visit| visit.failed.as_ref())
            .take(3)
        {
            eprintln!("  failed: {:?} {}", visit.stage == Stage::Later, visit.text);
        }
        Ok(())
    })?;
    let stalled = loop_stalls(&peer)? - stalled_before;
    let kind = Kind::Posthouse;
    report.add(
        row,
        "worst wait of an old session without reload or load, ms",
        kind,
        calm,
    );
    report.add(row, "worst wait of an old session, ms", kind, busy);
    report.judge(
        row,
        "stalls of the worker's loop above 20 ms",
        kind,
        stalled,
        0.0,
    );
    report.judge(row, "failed sessions", kind, failed as f64, 0.0);
    report.add(
        row,
        "slowest reload, ms",
        kind,
        took.into_iter().fold(0.0, f64::max),
    );
    Ok(())
}

/// The longest wait, in ms, of a kept session that asks every millisecond while `event` goes on.
fn stalls(peer: &Peer, event: impl FnOnce() -> Result<()>) -> Result<f64> {
    let mut client = Client::connect(peer.address(20), PATIENCE)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let asker = scope.spawn(|| -> Result<f64> {
            let mut worst = 0.0_f64;
            while !stop.load(Ordering::Acquire) {
                let began = Instant::now();
                client.command(b"NOOP\r\n", *b"250")?;
                worst = worst.max(began.elapsed().as_secs_f64() * 1e3);
                thread::sleep(Duration::from_millis(1));
            }
            Ok(worst)
        });
        let done = event();
        stop.store(true, Ordering::Release);
        let worst = asker
            .join()
            .map_err(|_| anyhow!("the asking client panicked"))?;
        done?;
        worst
    })
}

fn generation(peer: &Peer) -> Result<u64> {
    let status: serde_json::Value = serde_json::from_str(&peer.admin_get("/status")?)?;
    status
        .get("generation")
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| anyhow!("/status names no generation"))
}

/// The sum of the loop stall counters in `/metrics`.
fn loop_stalls(peer: &Peer) -> Result<f64> {
    let text = peer.admin_get("/metrics")?;
    let values: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("posthouse_worker_loop_stalls_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    if values.is_empty() {
        bail!("/metrics has no posthouse_worker_loop_stalls_total");
    }
    Ok(values.iter().sum())
}
