//! One message per client session into three real Postfix: how fast, and what their smtpd cost.
//!
//! Everything shares the machine, so what a balancer saves the backends comes back as rate. Beside
//! it the bound: three smtp-source that keep their connections, straight into the three Postfix.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use super::Plan;
use super::support::peer::{Kind, Peer, Run};
use super::support::postfix::Postfix;
use super::support::process::Process;
use super::support::report::Report;
use super::support::statistics::{median, paired_ratio};
use super::support::tools;

const ROW: &str = "smtp mode: 1 message of 4 KB per session into three Postfix";
const BACKENDS: u16 = 3;
/// Clients at once in all.
const CLIENTS: u32 = 24;
const OCTETS: &str = "4096";

/// What is measured.
enum Way {
    /// A balancer in front.
    Through(Box<Peer>),
    /// Nothing between, and connections are kept.
    Bound,
}

/// One run: seconds per message, CPU seconds of smtpd per message.
#[derive(Clone, Copy, Default)]
struct Cost {
    time: f64,
    smtpd: f64,
}

pub(super) fn row(plan: &Plan, report: &mut Report) -> Result<()> {
    let postfixes = (0..BACKENDS)
        .map(|number| Postfix::start(&plan.bench.folder, number))
        .collect::<Result<Vec<_>>>()?;
    let mut setup = plan.bench.setup(1, Run::Plain);
    setup.backends = postfixes
        .iter()
        .map(|postfix| (postfix.address, 1))
        .collect();
    let mut ways = vec![("no balancer, kept".to_owned(), Way::Bound)];
    for kind in [Kind::Haproxy, Kind::PosthouseSmtp] {
        if plan.mail_kinds.contains(&kind) {
            let peer = Peer::start(kind, &setup)?;
            ways.push((kind.to_string(), Way::Through(Box::new(peer))));
        }
    }
    let messages: u32 = plan.pick(1_200, 300);
    let mut costs: Vec<Vec<Cost>> = ways.iter().map(|_| Vec::new()).collect();
    // Once unmeasured: Postfix starts its processes when they are needed.
    for (_, way) in &ways {
        measure(way, &postfixes, messages, 1)?;
    }
    for block in 0..plan.pick(10_u16, 2) {
        let forwards = 0..ways.len();
        let mut sums = vec![Cost::default(); ways.len()];
        for place in forwards.clone().chain(forwards.rev()) {
            let cost = measure(&ways[place].1, &postfixes, messages, block % 200 + 2)?;
            sums[place].time += cost.time / 2.0;
            sums[place].smtpd += cost.smtpd / 2.0;
        }
        for (series, sum) in costs.iter_mut().zip(sums) {
            series.push(sum);
        }
    }
    say(report, &ways, &costs);
    Ok(())
}

fn say(report: &mut Report, ways: &[(String, Way)], costs: &[Vec<Cost>]) {
    let column =
        |place: usize, of: fn(&Cost) -> f64| -> Vec<f64> { costs[place].iter().map(of).collect() };
    for (place, (name, _)) in ways.iter().enumerate() {
        let rate = 1.0 / median(&column(place, |cost| cost.time));
        report.add(ROW, "messages / s", name.as_str(), rate);
        let smtpd = median(&column(place, |cost| cost.smtpd)) * 1e6;
        report.add(ROW, "CPU µs of smtpd / message", name.as_str(), smtpd);
    }
    let haproxy = Kind::Haproxy.to_string();
    let Some(theirs) = ways.iter().position(|(name, _)| *name == haproxy) else {
        return;
    };
    for (place, (name, _)) in ways.iter().enumerate().filter(|(at, _)| *at != theirs) {
        let is_ours = *name == Kind::PosthouseSmtp.to_string();
        let ratio = |of: fn(&Cost) -> f64| paired_ratio(&column(place, of), &column(theirs, of));
        let time = ratio(|cost| cost.time);
        // A rate of 1.15 ×.
        let budget = is_ours.then_some(1.0 / 1.15);
        report.ratio(ROW, "time / message, × haproxy", name, time, budget);
        let rate = 1.0 / time.value;
        report.note(ROW, format!("rate of {name}: {rate:.2} × haproxy's"));
        let smtpd = ratio(|cost| cost.smtpd);
        let budget = is_ours.then_some(0.8);
        report.ratio(ROW, "CPU of smtpd, × haproxy", name, smtpd, budget);
    }
}

fn measure(way: &Way, postfixes: &[Postfix], messages: u32, address: u16) -> Result<Cost> {
    for postfix in postfixes {
        postfix.drain()?;
    }
    let smtpd = || -> u64 { postfixes.iter().map(Postfix::smtpd_cpu_ns).sum() };
    let before = smtpd();
    let began = Instant::now();
    let mut sources = match way {
        Way::Through(peer) => {
            vec![source(
                &[],
                CLIENTS,
                messages,
                &peer.address(address).to_string(),
            )?]
        }
        Way::Bound => {
            let each = u32::from(BACKENDS);
            postfixes
                .iter()
                .map(|postfix| {
                    let to = postfix.address.to_string();
                    source(&["-d"], CLIENTS / each, messages / each, &to)
                })
                .collect::<Result<_>>()?
        }
    };
    for source in &mut sources {
        let status = source.wait()?;
        if !status.success() {
            bail!("smtp-source ended with {status}");
        }
    }
    let time = began.elapsed().as_secs_f64() / f64::from(messages);
    for postfix in postfixes {
        postfix.drain()?;
    }
    let spent = smtpd().saturating_sub(before) as f64 / 1e9;
    Ok(Cost {
        time,
        smtpd: spent / f64::from(messages),
    })
}

fn source(options: &[&str], clients: u32, messages: u32, to: &str) -> Result<Process> {
    let mut command = Command::new(tools::SMTP_SOURCE.ensure()?);
    command
        .args(options)
        .args(["-s", &clients.to_string(), "-m", &messages.to_string()])
        .args(["-l", OCTETS, "-M", "client.example"])
        .args(["-f", "a@client.example", "-t", "b@sink.example", to])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Process::spawn(&mut command)
}
