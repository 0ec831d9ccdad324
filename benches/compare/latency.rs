//! What a client waits for: added latency at a fixed rate, and old sessions during an accept storm.
//!
//! Times are recorded facts, not gates: this kind of machine is shared. Each balancer alternates
//! with no balancer in short blocks; a session is timed from when it was due, so a stall counts.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::Plan;
use super::support::client::{self, Client, PATIENCE, Work};
use super::support::measure::start_sink;
use super::support::peer::{Kind, Peer, Run, start_smtp_sink};
use super::support::process::{Process, pinned, tcp_statistic};
use super::support::report::Report;
use super::support::sink::Behaviour;
use super::support::statistics::percentile;
use super::support::tools;

/// Threads that start sessions in turn.
const STARTERS: u32 = 4;
/// Sessions per second of all of them.
const RATE: u32 = 200;

pub(super) fn added(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "latency added to a 10 KB session";
    let (_sink, port) = start_sink(&Behaviour::good())?;
    let mut setup = plan.bench.setup(port, Run::Plain);
    setup.cpu = Some(1);
    let direct = Peer::start(Kind::Direct, &setup)?;
    let (blocks, length) = plan.pick((8, Duration::from_secs(1)), (2, Duration::from_millis(500)));
    for &kind in &plan.kinds {
        let peer = Peer::start(kind, &setup)?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for block in 0..blocks {
            // A B B A
            let order = if block % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                let (at, times) = if which == 0 {
                    (&peer, &mut with)
                } else {
                    (&direct, &mut without)
                };
                times.extend(at_fixed_rate(at, length)?);
            }
        }
        for percent in [50.0, 99.0] {
            let plain = percentile(&without, percent);
            let extra = percentile(&with, percent) - plain;
            report.add(
                row,
                &format!("p{percent:.0}, µs more than direct"),
                kind,
                extra,
            );
            report.add(
                row,
                &format!("p{percent:.0} of direct beside it, µs"),
                kind,
                plain,
            );
        }
    }
    Ok(())
}

/// Times of whole sessions in µs, from when each was due.
fn at_fixed_rate(peer: &Peer, length: Duration) -> Result<Vec<f64>> {
    let period = Duration::from_secs(1) * STARTERS / RATE;
    let began = Instant::now() + Duration::from_millis(5);
    let work = Work::short();
    let one = |starter: u32| -> Result<Vec<f64>> {
        let mut due = began + period * starter / STARTERS;
        let mut times = Vec::new();
        let to = peer.address(u16::try_from(starter + 1)?);
        while due < began + length {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            client::run_session(to, &work)?;
            times.push(due.elapsed().as_secs_f64() * 1e6);
            due += period;
        }
        Ok(times)
    };
    thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS).map(|n| scope.spawn(move || one(n))).collect();
        let mut all = Vec::new();
        for starter in starters {
            all.extend(
                starter
                    .join()
                    .map_err(|_| anyhow!("a starter panicked"))??,
            );
        }
        Ok(all)
    })
}

/// 500 clients at once, while 50 old sessions go on.
pub(super) fn storm(plan: &Plan, report: &mut Report) -> Result<()> {
    let row = "accept storm: 500 clients at once, 1-octet messages";
    let messages: u32 = plan.pick(8_000, 1_500);
    for &kind in &plan.kinds {
        if kind == Kind::HaproxySplice {
            continue;
        }
        let (_sink, port) = start_smtp_sink(Some(0))?;
        let mut setup = plan.bench.setup(port, Run::Plain);
        setup.cpu = Some(1);
        let peer = Peer::start(kind, &setup)?;
        let mut old = (0..50)
            .map(|n| Client::connect(peer.address(n % 8 + 1), PATIENCE))
            .collect::<Result<Vec<_>, _>>()?;
        let calm = ask_in_turn(&mut old, |asked| asked >= 500)?;
        let drops = tcp_statistic("ListenDrops");
        let began = peer.cpu_ns();
        let done = AtomicBool::new(false);
        let stormy = thread::scope(|scope| -> Result<Vec<f64>> {
            let storm = scope.spawn(|| {
                let ended = smtp_source(&peer, messages);
                done.store(true, Ordering::Release);
                ended
            });
            let waits = ask_in_turn(&mut old, |_| done.load(Ordering::Acquire))?;
            storm.join().map_err(|_| anyhow!("the storm panicked"))??;
            Ok(waits)
        })?;
        let cpu = (peer.cpu_ns() - began) as f64 / f64::from(messages) / 1e3;
        report.add(row, "CPU µs / connection", kind, cpu);
        report.add(
            row,
            "dropped by the accept queue",
            kind,
            (tcp_statistic("ListenDrops") - drops) as f64,
        );
        report.add(
            row,
            "old sessions: p99 wait before, µs",
            kind,
            percentile(&calm, 99.0),
        );
        report.add(
            row,
            "old sessions: p99 wait meanwhile, µs",
            kind,
            percentile(&stormy, 99.0),
        );
    }
    Ok(())
}

/// NOOP on one session after the other; the waits in µs.
fn ask_in_turn(old: &mut [Client], enough: impl Fn(usize) -> bool) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    let sessions = old.len();
    while !enough(waits.len()) {
        let client = old
            .get_mut(waits.len() % sessions)
            .context("within the list")?;
        let began = Instant::now();
        client.command(b"NOOP\r\n", *b"250")?;
        waits.push(began.elapsed().as_secs_f64() * 1e6);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(waits)
}

fn smtp_source(peer: &Peer, messages: u32) -> Result<()> {
    let mut command = pinned(Some(0), &tools::SMTP_SOURCE.ensure()?);
    command
        .args([
            "-s",
            "500",
            "-l",
            "1",
            "-M",
            "client.example",
            "-m",
            &messages.to_string(),
        ])
        .arg(peer.address(9).to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = Process::spawn(&mut command)?.wait()?;
    if !status.success() {
        bail!("smtp-source ended with {status}");
    }
    Ok(())
}
