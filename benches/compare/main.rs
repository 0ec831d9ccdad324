//! The comparison: Posthouse, HAProxy, nginx and no balancer at all, by the same rulers.
//!
//! `cargo bench --bench compare -- [--quick] [--json FILE] [--peers A,B] [ROW…]`. Without rows: all
//! of them. Every process runs on loopback with one worker; the balancer under test has CPU 1, the
//! generator and the sink CPU 0. Missing tools are installed with apt-get. The configurations that
//! were compared stay in the folder it names at the end. It judges the budgets and exits 1 if one
//! was missed.
#![allow(clippy::print_stdout, reason = "the table is the output")]

mod backend;
mod counts;
mod cpu;
mod failover;
mod latency;
mod mail_failover;
mod mail_postfix;
mod pick;
mod reload;
mod roles;
mod scan;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use support::measure::Bench;
use support::peer::Kind;
use support::report::Report;
use support::{process, tools};

/// A row of the comparison.
struct Row {
    name: &'static str,
    about: &'static str,
    run: fn(&Plan, &mut Report) -> Result<()>,
}

const ROWS: [Row; 21] = [
    Row {
        name: "counts",
        about: "10 KB session: system calls, instructions, allocations",
        run: counts::session,
    },
    Row {
        name: "bulk-counts",
        about: "10 MB message: system calls; allocations per chunk",
        run: counts::bulk,
    },
    Row {
        name: "idle",
        about: "memory per session that idles after EHLO",
        run: counts::idle,
    },
    Row {
        name: "pick",
        about: "instructions per pick at 10 to 10,000 backends",
        run: pick::row,
    },
    Row {
        name: "scan",
        about: "message content in memory: time per KB",
        run: scan::row,
    },
    Row {
        name: "short",
        about: "10 KB sessions: CPU per session",
        run: cpu::short,
    },
    Row {
        name: "short-logs",
        about: "the same with a log line per session",
        run: cpu::short_logs,
    },
    Row {
        name: "medium",
        about: "100 KB sessions: CPU per session",
        run: cpu::medium,
    },
    Row {
        name: "large",
        about: "10 MB messages: CPU per MB",
        run: cpu::large,
    },
    Row {
        name: "kept",
        about: "100 messages per connection: CPU per message",
        run: cpu::kept,
    },
    Row {
        name: "storm",
        about: "500 clients at once: CPU per connection, old sessions' wait",
        run: latency::storm,
    },
    Row {
        name: "latency",
        about: "added latency at a fixed rate",
        run: latency::added,
    },
    Row {
        name: "failover",
        about: "a backend is killed, stopped, or greets 421",
        run: failover::row,
    },
    Row {
        name: "reloads",
        about: "30 reloads under load",
        run: reload::many,
    },
    Row {
        name: "reload-10k",
        about: "reload with 10,000 backends under load",
        run: reload::large,
    },
    Row {
        name: "mail-short",
        about: "smtp mode: a session with one message: CPU",
        run: cpu::mail_short,
    },
    Row {
        name: "mail-kept",
        about: "smtp mode: a message on a kept session: calls, instructions, CPU",
        run: mail_kept,
    },
    Row {
        name: "mail-counts",
        about: "smtp mode: a session with one message: calls, instructions",
        run: counts::mail_session,
    },
    Row {
        name: "mail-idle",
        about: "smtp mode: memory per idle session",
        run: counts::mail_idle,
    },
    Row {
        name: "mail-postfix",
        about: "smtp mode: a message per session into three Postfix",
        run: mail_postfix::row,
    },
    Row {
        name: "mail-failover",
        about: "smtp mode: a backend fails in the middle of messages",
        run: mail_failover::row,
    },
];

fn mail_kept(plan: &Plan, report: &mut Report) -> Result<()> {
    counts::mail_kept(plan, report)?;
    cpu::mail_kept_lock_step(plan, report)?;
    cpu::mail_kept_pipelined(plan, report)
}

/// What to measure and how long.
struct Plan {
    bench: Bench,
    kinds: Vec<Kind>,
    /// Those of the rows about mode "smtp".
    mail_kinds: Vec<Kind>,
    quick: bool,
}

impl Plan {
    /// The number for a full run or for a quick one.
    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("role") => roles::play(&arguments[1..]).map(|()| true),
        // Test runners list and run benches too; a comparison is made only when asked for.
        None | Some("--list" | "--test" | "--format") => {
            eprintln!("run me with: cargo bench --bench compare -- [--quick] [ROW…]");
            Ok(true)
        }
        Some(_) => compare(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when no budget was missed.
fn compare(arguments: &[String]) -> Result<bool> {
    let mut quick = false;
    let mut json = None;
    let mut kinds = Kind::PROXIES.to_vec();
    let mut mail_kinds = Kind::MAIL.to_vec();
    let mut rows: Vec<&Row> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => quick = true,
            "--help" | "-h" => {
                help();
                return Ok(true);
            }
            "--json" => json = Some(rest.next().context("--json needs a file")?),
            "--peers" => {
                let names = rest
                    .next()
                    .context("--peers needs names, as haproxy,posthouse")?;
                kinds = names
                    .split(',')
                    .map(|name| Kind::named(name).with_context(|| format!("no peer {name}")))
                    .collect::<Result<_>>()?;
                mail_kinds.retain(|kind| kinds.contains(kind));
                kinds.retain(|kind| *kind == Kind::Haproxy || !Kind::MAIL.contains(kind));
            }
            name => {
                let Some(row) = ROWS.iter().find(|row| row.name == name) else {
                    help();
                    bail!("no row is named {name}");
                };
                rows.push(row);
            }
        }
    }
    if rows.is_empty() {
        rows.extend(&ROWS);
    }
    let plan = Plan {
        bench: Bench {
            folder: folder()?,
            posthouse: posthouse(),
        },
        kinds,
        mail_kinds,
        quick,
    };
    let report = measure(&plan, &rows)?;
    println!("\n{}", report.markdown());
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    println!(
        "Configurations and outputs of all peers: {}",
        plan.bench.folder.display()
    );
    let missed = report.missed();
    for figure in &missed {
        let budget = figure.budget.unwrap_or_default();
        println!(
            "missed: {}: {}: {} > {budget}",
            figure.row, figure.metric, figure.value
        );
    }
    Ok(missed.is_empty())
}

fn measure(plan: &Plan, rows: &[&Row]) -> Result<Report> {
    process::raise_descriptor_limit()?;
    let mut report = Report::default();
    for tool in [
        tools::HAPROXY,
        tools::NGINX,
        tools::NGINX_MAIL,
        tools::SMTP_SOURCE,
        tools::STRACE,
        tools::VALGRIND,
    ] {
        tool.ensure()?;
    }
    report.facts = facts(plan);
    let mut failed = Vec::new();
    for row in rows {
        eprintln!("{}: {}", row.name, row.about);
        // One row that cannot be measured must not cost the others; it is said at the end.
        if let Err(error) = (row.run)(plan, &mut report) {
            eprintln!("  {} could not be measured: {error:#}", row.name);
            failed.push(row.name);
        }
    }
    if !failed.is_empty() {
        println!("{}", report.markdown());
        bail!("rows that could not be measured: {}", failed.join(", "));
    }
    Ok(report)
}

fn help() {
    eprintln!("cargo bench --bench compare -- [--quick] [--json FILE] [--peers A,B] [ROW…]");
    for row in &ROWS {
        eprintln!("  {:13} {}", row.name, row.about);
    }
}

/// The machine and the versions.
fn facts(plan: &Plan) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, name)| name);
    let cpus = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let (stolen, all) = process::stolen_jiffies();
    let steal = stolen as f64 / all.max(1) as f64 * 100.0;
    let kernel = read("/proc/sys/kernel/osrelease");
    let machine = format!(
        "machine: {cpu}, {cpus} CPUs, kernel {}, {steal:.1} % steal since boot",
        kernel.trim()
    );
    let mut facts = vec![machine];
    facts.push(format!(
        "versions: posthouse {} · {} · {} · Postfix {} (smtp-source, smtp-sink) · {}",
        env!("CARGO_PKG_VERSION"),
        tools::HAPROXY.version(),
        tools::NGINX.version(),
        tools::postfix_version(),
        tools::VALGRIND.version(),
    ));
    facts.push("one worker each; logs off unless the row says otherwise; loopback".to_owned());
    if plan.quick {
        facts.push("quick run: too short for conclusions about CPU time or latency".to_owned());
    }
    facts
}

/// The release binary: given by `POSTHOUSE_BIN`, or the one cargo built with this bench.
fn posthouse() -> PathBuf {
    std::env::var_os("POSTHOUSE_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_posthouse")),
        PathBuf::from,
    )
}

fn folder() -> Result<PathBuf> {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("compare-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
