//! CPU time of the balancer for fixed work, by smtp-source (or a client that says EHLO) and
//! smtp-sink.
//!
//! The ruler is the scheduler's own clock of every thread (ns, net of stolen time). All peers run
//! side by side and take turns forwards and backwards (A B C C B A), so that whatever drifts hits all
//! alike; a second copy of nginx takes part, and if it differs from the first by more than 3 %, the
//! whole row is void.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::Plan;
use super::support::client::Style;
use super::support::loopback;
use super::support::peer::{Kind, Logs, Peer, Run, start_smtp_sink};
use super::support::process::{Process, pinned, stolen_jiffies};
use super::support::report::Report;
use super::support::statistics::{median, paired_ratio};
use super::support::tools;

const GENERATOR_CPU: usize = 0;
const BALANCER_CPU: usize = 1;
/// A block in which the hypervisor took more than this is not used.
const STEAL_MAX: f64 = 0.02;
/// Backend addresses, so that TIME_WAIT never runs out of ports.
const BACKENDS: u16 = 8;

struct Load {
    row: &'static str,
    metric: &'static str,
    kinds: Vec<Kind>,
    logs: Logs,
    sessions_at_once: u32,
    messages: u32,
    octets: u32,
    generator: Generator,
    /// What the CPU time of one run is divided by.
    units: f64,
    blocks: usize,
    /// Whom ours is compared with, and the most of their CPU that it may use. The first has a twin.
    against: Vec<(Kind, Option<f64>)>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generator {
    /// smtp-source, a message per connection.
    Source,
    /// smtp-source that keeps its connections.
    SourceKeeping,
    /// Our client, so many messages per connection.
    Client(Style, u32),
}

pub(super) fn short(plan: &Plan, report: &mut Report) -> Result<()> {
    run(
        plan,
        report,
        &short_load(plan, "short: 1 message of 10 KB", Logs::Off),
    )
}

pub(super) fn short_logs(plan: &Plan, report: &mut Report) -> Result<()> {
    run(
        plan,
        report,
        &short_load(plan, "short, a log line per session", Logs::On),
    )
}

fn short_load(plan: &Plan, row: &'static str, logs: Logs) -> Load {
    let messages = plan.pick(1_500, 300);
    Load {
        row,
        metric: "CPU µs / session",
        kinds: plan.kinds.clone(),
        logs,
        sessions_at_once: 32,
        messages,
        octets: 10_240,
        generator: Generator::Source,
        units: f64::from(messages),
        blocks: plan.pick(20, 3),
        against: vec![(Kind::Nginx, Some(1.0)), (Kind::Haproxy, Some(0.85))],
    }
}

pub(super) fn medium(plan: &Plan, report: &mut Report) -> Result<()> {
    let messages = plan.pick(800, 150);
    let load = Load {
        row: "medium: 1 message of 100 KB",
        messages,
        octets: 102_400,
        units: f64::from(messages),
        blocks: plan.pick(15, 2),
        against: vec![(Kind::Nginx, None), (Kind::Haproxy, None)],
        ..short_load(plan, "", Logs::Off)
    };
    run(plan, report, &load)
}

pub(super) fn large(plan: &Plan, report: &mut Report) -> Result<()> {
    let messages = plan.pick(24, 6);
    let load = Load {
        row: "large: messages of 10 MB",
        metric: "CPU µs / MB",
        sessions_at_once: 4,
        messages,
        octets: 10 << 20,
        units: f64::from(messages) * 10.0,
        blocks: plan.pick(15, 2),
        against: vec![(Kind::Nginx, Some(0.5)), (Kind::Haproxy, Some(0.5))],
        ..short_load(plan, "", Logs::Off)
    };
    run(plan, report, &load)
}

pub(super) fn kept(plan: &Plan, report: &mut Report) -> Result<()> {
    // smtp-source -d keeps its connections to the end: 16 of them, 100 messages each.
    let messages = plan.pick(1_600, 320);
    let load = Load {
        row: "kept: 100 messages per connection",
        metric: "CPU µs / message",
        sessions_at_once: messages / 100,
        messages,
        generator: Generator::SourceKeeping,
        units: f64::from(messages),
        blocks: plan.pick(15, 2),
        against: vec![(Kind::Nginx, Some(1.0)), (Kind::Haproxy, None)],
        ..short_load(plan, "", Logs::Off)
    };
    run(plan, report, &load)
}

/// A session and a message of 4 KB through mode "smtp".
pub(super) fn mail_short(plan: &Plan, report: &mut Report) -> Result<()> {
    let messages = plan.pick(1_500, 300);
    let load = Load {
        row: "smtp mode: a session with 1 message of 4 KB",
        messages,
        octets: 4_096,
        units: f64::from(messages),
        generator: Generator::Client(Style::Ehlo, 1),
        sessions_at_once: 32,
        against: vec![(Kind::NginxMail, Some(0.7)), (Kind::Haproxy, None)],
        ..mail_load(plan)
    };
    run(plan, report, &load)
}

/// The same on client connections that are kept.
pub(super) fn mail_kept_lock_step(plan: &Plan, report: &mut Report) -> Result<()> {
    let load = Load {
        row: "smtp mode: 100 messages of 4 KB per connection",
        generator: Generator::Client(Style::Ehlo, 100),
        ..mail_load(plan)
    };
    run(plan, report, &load)
}

/// The same in groups.
pub(super) fn mail_kept_pipelined(plan: &Plan, report: &mut Report) -> Result<()> {
    let load = Load {
        row: "smtp mode: 100 messages of 4 KB per connection, pipelined",
        generator: Generator::Client(Style::Pipelined, 100),
        ..mail_load(plan)
    };
    run(plan, report, &load)
}

fn mail_load(plan: &Plan) -> Load {
    let messages = plan.pick(3_200, 640);
    Load {
        metric: "CPU µs / message",
        kinds: plan.mail_kinds.clone(),
        messages,
        octets: 4_096,
        units: f64::from(messages),
        sessions_at_once: 16,
        // On a kept session both others are a tunnel to one backend: no more than a hint.
        against: vec![(Kind::NginxMail, None), (Kind::Haproxy, None)],
        ..short_load(plan, "", Logs::Off)
    }
}

fn run(plan: &Plan, report: &mut Report, load: &Load) -> Result<()> {
    let (_sink, sink_port) = start_smtp_sink(Some(GENERATOR_CPU))?;
    let mut setup = plan.bench.setup(sink_port, Run::Plain);
    setup.backends = (0..BACKENDS)
        .map(|n| (loopback(0x0b00 + n, sink_port), 1))
        .collect();
    setup.logs = load.logs;
    setup.cpu = Some(BALANCER_CPU);
    let mut peers = load
        .kinds
        .iter()
        .map(|kind| Peer::start(*kind, &setup))
        .collect::<Result<Vec<_>>>()?;
    // The twin for the A/A row.
    let twin_of = load.against.iter().map(|(kind, _)| *kind);
    let twin_of = twin_of
        .chain(load.kinds.iter().copied())
        .find(|kind| load.kinds.contains(kind))
        .context("no peers")?;
    peers.push(Peer::start(twin_of, &setup)?);
    let mut spent: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
    let mut address = 0;
    // Once unmeasured: caches, pools and lazily bound symbols.
    for peer in &peers {
        generate(load, peer, 1)?;
    }
    let (mut blocks, mut dropped) = (0, 0);
    while blocks < load.blocks {
        let before = stolen_jiffies();
        let mut block = vec![0.0; peers.len()];
        let forwards = 0..peers.len();
        for place in forwards.clone().chain(forwards.rev()) {
            address = address % 200 + 1;
            let peer = &peers[place];
            let began = peer.cpu_ns();
            generate(load, peer, address)?;
            block[place] += (peer.cpu_ns() - began) as f64 / 2.0;
        }
        let after = stolen_jiffies();
        let steal = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
        if steal > STEAL_MAX && dropped < load.blocks {
            dropped += 1;
            continue;
        }
        for (series, cost) in spent.iter_mut().zip(block) {
            series.push(cost);
        }
        blocks += 1;
        if blocks % 5 == 0 {
            eprintln!("  {}: block {blocks} of {}", load.row, load.blocks);
        }
    }
    say(report, load, &peers, &spent);
    if dropped > 0 {
        report.note(
            load.row,
            format!("{dropped} blocks with more than 2 % steal were not used"),
        );
    }
    Ok(())
}

fn say(report: &mut Report, load: &Load, peers: &[Peer], spent: &[Vec<f64>]) {
    for (peer, series) in peers.iter().zip(spent).take(load.kinds.len()) {
        report.add(
            load.row,
            load.metric,
            peer.kind,
            median(series) / load.units / 1_000.0,
        );
    }
    let series_of = |kind| {
        load.kinds
            .iter()
            .position(|k| *k == kind)
            .map(|place| &spent[place])
    };
    for &(against, budget) in &load.against {
        let Some(theirs) = series_of(against) else {
            continue;
        };
        for (kind, ours) in load
            .kinds
            .iter()
            .zip(spent)
            .filter(|(kind, _)| **kind != against)
        {
            let budget = budget.filter(|_| kind.is_ours());
            report.ratio(
                load.row,
                &format!("× {against}"),
                &kind.to_string(),
                paired_ratio(ours, theirs),
                budget,
            );
        }
    }
    if let (Some(twin), Some(first)) = (spent.last(), peers.last().and_then(|p| series_of(p.kind)))
    {
        let same = paired_ratio(twin, first);
        let name = peers
            .last()
            .map(|peer| peer.kind.to_string())
            .unwrap_or_default();
        report.ratio(load.row, "A/A: the same against itself", &name, same, None);
        if same.low < 0.97 || same.high > 1.03 {
            report.note(
                load.row,
                "A/A differs by more than 3 %: times of this row are only a hint",
            );
        }
    }
}

/// One run of the load through a peer.
fn generate(load: &Load, peer: &Peer, address: u16) -> Result<()> {
    let to = peer.address(address).to_string();
    let (octets, at_once) = (load.octets.to_string(), load.sessions_at_once.to_string());
    let mut command = match load.generator {
        Generator::Source | Generator::SourceKeeping => {
            let mut command = pinned(Some(GENERATOR_CPU), &tools::SMTP_SOURCE.ensure()?);
            if load.generator == Generator::SourceKeeping {
                command.arg("-d");
            }
            command
                .args(["-s", &at_once, "-m", &load.messages.to_string()])
                .args(["-l", &octets, "-M", "client.example", &to]);
            command
        }
        Generator::Client(style, messages) => {
            let sessions = (load.messages / messages).to_string();
            let mut command = pinned(Some(GENERATOR_CPU), &std::env::current_exe()?);
            command
                .args(["role", "client", &to, &sessions, &at_once])
                .args([&messages.to_string(), &octets, style.name()]);
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = Process::spawn(&mut command)?.wait()?;
    if !status.success() {
        bail!("the generator through {} ended with {status}", peer.kind);
    }
    Ok(())
}
