//! Gates that count and never time: system calls, instructions, allocations and bytes of a session.
//!
//! They run the release binary (`POSTHOUSE_BIN`, or one that they build) against lock-step peers, so
//! a slower machine changes nothing. strace and valgrind are installed with apt-get if missing. The
//! budgets are those of the README; a failure prints which calls or functions are too many.

mod rulers;
#[path = "../../benches/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use support::client::{Style, Work};
use support::measure::{AT_ONCE, Bench, Instructions, at_most};
use support::peer::Kind;
use support::statistics::slope;
use support::{callgrind, process};

/// System calls of one 10 KB session (nginx: 53, HAProxy: 87 by the same client).
const SESSION_SYSCALLS_MAX: f64 = 54.0;
/// System calls of one 10 MB message in a session of its own.
const BULK_SYSCALLS_MAX: f64 = 420.0;
/// User instructions of one 10 KB session, 32 at once (nginx: 20,400, HAProxy: 44,400).
const INSTRUCTIONS_MAX: f64 = 22_000.0;
/// Allocations of one session: its task, the connect phase, and a share of what the process's own
/// timers allocate while the sessions run.
const ALLOCATIONS_MAX: f64 = 2.5;
/// Allocations that a megabyte more may bring: none, but for the odd growth of a shared buffer.
const CHUNK_ALLOCATIONS_MAX: f64 = 0.5;
/// Private memory of one session that idles after EHLO, in bytes (HAProxy: 3,376, nginx: 9,824).
const IDLE_BYTES_MAX: f64 = 1_200.0;
/// Mode "smtp", messages of 4 KB: system calls of a message on a kept session whose client waits for
/// every reply, and of one whose client sends MAIL, RCPT and DATA in one write.
const MESSAGE_SYSCALLS_MAX: f64 = 28.0;
const GROUPED_SYSCALLS_MAX: f64 = 14.0;
/// User instructions and allocations of the same two.
const MESSAGE_INSTRUCTIONS_MAX: f64 = 56_000.0;
const GROUPED_INSTRUCTIONS_MAX: f64 = 47_000.0;
const MESSAGE_ALLOCATIONS_MAX: f64 = 31.0;
/// A session with one message: system calls (nginx's mail module: 60), instructions, allocations.
const MAIL_SESSION_SYSCALLS_MAX: f64 = 40.0;
const MAIL_SESSION_INSTRUCTIONS_MAX: f64 = 76_000.0;
const MAIL_SESSION_ALLOCATIONS_MAX: f64 = 51.0;
/// Private memory of an idle session, in bytes, after EHLO and after a message (nginx's mail module:
/// 5,060 and 9,710).
const MAIL_IDLE_BYTES_MAX: f64 = 3_000.0;
/// A pick among 10,000 against a pick among 10.
const PICK_GROWTH_MAX: f64 = 4.0;

/// The message that mode "smtp" is counted with.
const MAIL_OCTETS: usize = 4_096;

/// One gate at a time: they would not falsify each other, but they would take longer.
static TURN: Mutex<()> = Mutex::new(());

/// The binaries under test, built once per process.
static BINARIES: LazyLock<Result<Binaries, String>> =
    LazyLock::new(|| Binaries::find().map_err(|error| format!("{error:#}")));

struct Binaries {
    posthouse: PathBuf,
    compare: PathBuf,
}

#[test]
fn a_10_kb_session_makes_at_most_54_system_calls() -> Result<()> {
    let (bench, _turn) = bench("session-syscalls")?;
    let (calls, which) = bench.session_syscalls(Kind::Posthouse, &Work::short(), (50, 150))?;
    at_most(
        "system calls per 10 KB session",
        calls,
        SESSION_SYSCALLS_MAX,
        &which,
    )
}

#[test]
fn a_10_mb_message_makes_at_most_420_system_calls() -> Result<()> {
    let (bench, _turn) = bench("bulk-syscalls")?;
    let calls = bench.bulk_syscalls(Kind::Posthouse, 10 << 20, 9)?;
    at_most(
        "system calls per 10 MB message",
        calls,
        BULK_SYSCALLS_MAX,
        "the middle of 9 messages",
    )
}

#[test]
fn a_session_takes_22_000_instructions_and_two_allocations() -> Result<()> {
    let (bench, _turn) = bench("instructions")?;
    let cost = bench.instructions(Kind::Posthouse, &Work::short(), (100, 600), AT_ONCE)?;
    let top = describe(&cost);
    at_most(
        "user instructions per 10 KB session",
        cost.per_session,
        INSTRUCTIONS_MAX,
        &top,
    )?;
    at_most(
        "allocations per session",
        cost.allocations,
        ALLOCATIONS_MAX,
        &top,
    )
}

#[test]
fn a_relayed_chunk_allocates_nothing() -> Result<()> {
    let (bench, _turn) = bench("chunk-allocations")?;
    let short = bench.instructions(Kind::Posthouse, &Work::short(), (20, 120), 1)?;
    let long = bench.instructions(Kind::Posthouse, &Work::new(1, 1 << 20), (20, 120), 1)?;
    let more = long.allocations - short.allocations;
    at_most(
        "allocations of 1 MB more",
        more,
        CHUNK_ALLOCATIONS_MAX,
        &describe(&long),
    )
}

#[test]
fn an_idle_session_holds_at_most_1_200_bytes() -> Result<()> {
    let (bench, _turn) = bench("idle")?;
    let (private, proportional) =
        bench.idle_memory(Kind::Posthouse, &Work::new(0, 0), (1_000, 7_000))?;
    let detail = format!("proportional: {proportional:.0}");
    at_most(
        "private bytes per idle session",
        private,
        IDLE_BYTES_MAX,
        &detail,
    )
}

#[test]
fn a_message_on_a_kept_session_makes_at_most_28_system_calls() -> Result<()> {
    let (bench, _turn) = bench("message-syscalls")?;
    for (style, budget) in [
        (Style::Ehlo, MESSAGE_SYSCALLS_MAX),
        (Style::Pipelined, GROUPED_SYSCALLS_MAX),
    ] {
        let work = Work::new(1, MAIL_OCTETS).spoken(style);
        let (calls, which) = bench.message_syscalls(Kind::PosthouseSmtp, &work, (50, 150))?;
        let what = format!("system calls per message, {}", style.name());
        at_most(&what, calls, budget, &which)?;
    }
    Ok(())
}

#[test]
fn a_message_on_a_kept_session_takes_few_instructions_and_allocations() -> Result<()> {
    let (bench, _turn) = bench("message-instructions")?;
    for (style, budget) in [
        (Style::Ehlo, MESSAGE_INSTRUCTIONS_MAX),
        (Style::Pipelined, GROUPED_INSTRUCTIONS_MAX),
    ] {
        let work = Work::new(1, MAIL_OCTETS).spoken(style);
        let cost = bench.message_instructions(Kind::PosthouseSmtp, &work, (100, 600))?;
        let (name, top) = (style.name(), describe(&cost));
        let what = format!("user instructions per message, {name}");
        at_most(&what, cost.per_session, budget, &top)?;
        let what = format!("allocations per message, {name}");
        at_most(&what, cost.allocations, MESSAGE_ALLOCATIONS_MAX, &top)?;
    }
    Ok(())
}

#[test]
fn a_session_with_one_message_of_mode_smtp_stays_within_its_counts() -> Result<()> {
    let (bench, _turn) = bench("mail-session")?;
    let work = Work::new(1, MAIL_OCTETS).spoken(Style::Ehlo);
    let (calls, which) = bench.session_syscalls(Kind::PosthouseSmtp, &work, (50, 150))?;
    let what = "system calls per session with a message";
    at_most(what, calls, MAIL_SESSION_SYSCALLS_MAX, &which)?;
    let cost = bench.mail_session_instructions(Kind::PosthouseSmtp, &work, (100, 600))?;
    let top = describe(&cost);
    let what = "user instructions per session with a message";
    at_most(what, cost.per_session, MAIL_SESSION_INSTRUCTIONS_MAX, &top)?;
    let what = "allocations per session with a message";
    at_most(what, cost.allocations, MAIL_SESSION_ALLOCATIONS_MAX, &top)
}

#[test]
fn an_idle_session_of_mode_smtp_holds_at_most_3_000_bytes() -> Result<()> {
    let (bench, _turn) = bench("mail-idle")?;
    for (messages, after) in [(0, "EHLO"), (1, "a message")] {
        let work = Work::new(messages, MAIL_OCTETS).spoken(Style::Ehlo);
        let (private, proportional) =
            bench.idle_memory(Kind::PosthouseSmtp, &work, (1_000, 7_000))?;
        let detail = format!("proportional: {proportional:.0}");
        let what = format!("private bytes per session idle after {after}");
        at_most(&what, private, MAIL_IDLE_BYTES_MAX, &detail)?;
    }
    Ok(())
}

#[test]
fn choosing_among_10_000_costs_at_most_four_times_choosing_among_10() -> Result<()> {
    let (bench, _turn) = bench("pick")?;
    let binaries = binaries()?;
    for policy in [
        "least-connections",
        "round-robin",
        "random-two",
        "source-hash",
        "first",
    ] {
        let cost = |backends: u32| -> Result<f64> {
            let counted = |picks: u32| {
                callgrind::picks(&binaries.compare, &bench.folder, policy, backends, picks)
            };
            Ok(slope((1_000, counted(1_000)?), (5_000, counted(5_000)?)))
        };
        let (ten, most) = (cost(10)?, cost(10_000)?);
        let detail = format!("{policy}: {ten:.0} and {most:.0} instructions");
        at_most(
            &format!("{policy}: 10,000 / 10"),
            most / ten,
            PICK_GROWTH_MAX,
            &detail,
        )?;
    }
    Ok(())
}

fn describe(cost: &Instructions) -> String {
    let lines: Vec<String> = cost
        .top
        .iter()
        .map(|(name, own)| format!("{own:9.0}  {name}"))
        .collect();
    format!(
        "own instructions per session, the most expensive functions:\n{}",
        lines.join("\n")
    )
}

/// A folder of its own for the gate, and its turn.
fn bench(name: &str) -> Result<(Bench, MutexGuard<'static, ()>)> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    process::raise_descriptor_limit()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gate-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok((
        Bench {
            folder,
            posthouse: binaries()?.posthouse.clone(),
        },
        turn,
    ))
}

fn binaries() -> Result<&'static Binaries> {
    BINARIES
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))
}

impl Binaries {
    /// From `POSTHOUSE_BIN` and `POSTHOUSE_COMPARE`, or built in the release profile.
    fn find() -> Result<Self> {
        let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
        if let (Some(posthouse), Some(compare)) =
            (given("POSTHOUSE_BIN"), given("POSTHOUSE_COMPARE"))
        {
            return Ok(Self { posthouse, compare });
        }
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--release",
                "--bin",
                "posthouse",
                "--bench",
                "compare",
            ])
            .args(["--message-format", "json-render-diagnostics"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run cargo")?;
        if !built.status.success() {
            bail!("the release build failed ({})", built.status);
        }
        let executables: Vec<(String, PathBuf)> = String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| {
                let name = message["target"]["name"].as_str()?.to_owned();
                Some((name, PathBuf::from(message["executable"].as_str()?)))
            })
            .collect();
        let named = |name: &str| {
            let found = executables.iter().find(|(target, _)| target == name);
            found
                .map(|(_, path)| path.clone())
                .with_context(|| format!("cargo built no {name}"))
        };
        Ok(Self {
            posthouse: given("POSTHOUSE_BIN").map_or_else(|| named("posthouse"), Ok)?,
            compare: given("POSTHOUSE_COMPARE").map_or_else(|| named("compare"), Ok)?,
        })
    }
}
