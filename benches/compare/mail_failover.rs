//! What clients notice when one of three backends fails in the middle of messages: 8 clients in a
//! loop, five messages per session, every greeting and every reply to MAIL timed, and every message
//! looked for afterwards.
//!
//! Each sink is a process of its own and writes a message's sender into a journal before it
//! acknowledges it, so that what it took is known although it was killed. A client notes what it was
//! told: acknowledged, in doubt (`451 4.4.2`), or anything else, which is a failed session.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;

use super::Plan;
use super::backend::Backend;
use super::failover::CLIENTS;
use super::support::client::{Client, Failure, Stage, Style, Work};
use super::support::peer::{Health, Kind, Logs, Peer, Run};
use super::support::report::Report;
use super::support::sink::Fault;
use super::support::{free_port, loopback};

const MESSAGES_PER_SESSION: u32 = 5;
const OCTETS: usize = 4_096;
/// Between the two writes of a body, so that a backend can fail in the middle of it.
const BODY_PAUSE: Duration = Duration::from_millis(2);
/// How long a client waits for a greeting.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long it waits for any other reply: longer than a stopped backend stays.
const REPLY_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    Stop,
    /// The sink does what it was started for.
    Fault(Fault),
}

const BLOWS: [(Blow, &str); 6] = [
    (Blow::Kill, "one of three is killed (SIGKILL)"),
    (Blow::Stop, "one of three is stopped (SIGSTOP)"),
    (Blow::Fault(Fault::Greeting421), "one of three greets 421"),
    (
        Blow::Fault(Fault::Mail421),
        "one of three answers MAIL with 421",
    ),
    (
        Blow::Fault(Fault::CloseMidData),
        "one of three closes in the middle of messages",
    ),
    (
        Blow::Fault(Fault::Dot431),
        "one of three answers messages with 451 4.3.1",
    ),
];

/// A backend with a journal.
struct Journalling {
    backend: Backend,
    journal: PathBuf,
}

impl Journalling {
    fn start(plan: &Plan, number: u16, fault: Fault) -> Result<Self> {
        let address = loopback(0x0e00 + number, free_port()?);
        let journal = plan
            .bench
            .folder
            .join(format!("journal-{}", address.port()));
        // The port may be one that another sink of this run had.
        let _ = fs::remove_file(&journal);
        let backend = Backend::start(address, &[fault.name().as_ref(), journal.as_ref()])?;
        Ok(Self { backend, journal })
    }

    fn receives(&self, blow: Blow) -> Result<()> {
        self.backend.process.signal(match blow {
            Blow::Kill => Signal::KILL,
            Blow::Stop => Signal::STOP,
            Blow::Fault(_) => Signal::USR1,
        })
    }
}

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    sessions: u64,
    /// When, and how long it took.
    greetings: Vec<(Instant, Duration)>,
    mails: Vec<(Instant, Duration)>,
    /// To the end of a message.
    ends: Vec<(Instant, Duration)>,
    acknowledged: BTreeSet<String>,
    in_doubt: BTreeSet<String>,
    failures: Vec<(Instant, Failure)>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.greetings.extend(other.greetings);
        self.mails.extend(other.mails);
        self.ends.extend(other.ends);
        self.acknowledged.extend(other.acknowledged);
        self.in_doubt.extend(other.in_doubt);
        self.failures.extend(other.failures);
    }

    /// Sessions until told to stop; `name` is in every sender.
    fn loops(&mut self, to: SocketAddr, name: u16, stop: &AtomicBool) {
        let work = Work::new(1, OCTETS).spoken(Style::Ehlo);
        let mut number = 0;
        while !stop.load(Ordering::Acquire) {
            let began = Instant::now();
            self.sessions += 1;
            if let Err(failure) = self.session(to, name, &mut number, &work) {
                self.failures.push((began, failure));
            }
        }
    }

    fn session(
        &mut self,
        to: SocketAddr,
        name: u16,
        number: &mut u64,
        work: &Work,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let connected = Client::connect(to, GREETING_MAX);
        self.greetings.push((began, began.elapsed()));
        let mut client = connected?;
        client.set_patience(REPLY_MAX)?;
        client.hello(Style::Ehlo)?;
        for _ in 0..MESSAGES_PER_SESSION {
            *number += 1;
            self.message(&mut client, format!("c{name}n{number}"), work)?;
        }
        client.quit()
    }

    fn message(&mut self, client: &mut Client, id: String, work: &Work) -> Result<(), Failure> {
        let mail = format!("MAIL FROM:<{id}@client.example>\r\n");
        let began = Instant::now();
        let answered = client.command(mail.as_bytes(), *b"250");
        self.mails.push((began, began.elapsed()));
        answered?;
        client.command(b"RCPT TO:<b@sink.example>\r\n", *b"250")?;
        client.command(b"DATA\r\n", *b"354")?;
        let (first, second) = work.body().split_at(work.body().len() / 2);
        client.say(first)?;
        thread::sleep(BODY_PAUSE);
        client.say(second)?;
        let began = Instant::now();
        let answered = client.expect(*b"250", Stage::Later);
        self.ends.push((began, began.elapsed()));
        match answered {
            Ok(()) => {
                self.acknowledged.insert(id);
                Ok(())
            }
            Err(failure) if failure.text.starts_with("451 4.4.2") => {
                self.in_doubt.insert(id);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// The longest wait of those that began within.
    fn longest(waits: &[(Instant, Duration)], from: Instant, to: Instant) -> f64 {
        waits
            .iter()
            .filter(|(began, _)| *began >= from && *began < to)
            .map(|(_, wait)| wait.as_secs_f64() * 1e3)
            .fold(0.0, f64::max)
    }
}

pub(super) fn row(plan: &Plan, report: &mut Report) -> Result<()> {
    for (blow, what) in BLOWS {
        for kind in [Kind::Haproxy, Kind::Nginx, Kind::PosthouseSmtp] {
            if plan.kinds.contains(&kind) || plan.mail_kinds.contains(&kind) {
                one(plan, report, (blow, what), kind)?;
            }
        }
    }
    Ok(())
}

fn one(plan: &Plan, report: &mut Report, (blow, what): (Blow, &str), kind: Kind) -> Result<()> {
    let row = format!("smtp mode, failover: {what}");
    let fault = match blow {
        Blow::Fault(fault) => fault,
        Blow::Kill | Blow::Stop => Fault::Greeting421,
    };
    let backends = (0..3)
        .map(|number| Journalling::start(plan, number, fault))
        .collect::<Result<Vec<_>>>()?;
    let mut setup = plan.bench.setup(1, Run::Plain);
    setup.backends = Backend::alike(backends.iter().map(|journalling| &journalling.backend));
    setup.health = Health::On;
    if kind.is_ours() {
        setup.logs = Logs::On;
    }
    let peer = Peer::start(kind, &setup)?;
    let before = plan.pick(Duration::from_secs(3), Duration::from_secs(1));
    let after = match blow {
        Blow::Stop => plan.pick(Duration::from_secs(12), Duration::from_secs(6)),
        Blow::Kill | Blow::Fault(_) => plan.pick(Duration::from_secs(8), Duration::from_secs(3)),
    };
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Seen::default());
    let broken = thread::scope(|scope| -> Result<Instant> {
        for number in 0..CLIENTS {
            let (stop, all, to) = (&stop, &all, peer.address(number + 1));
            scope.spawn(move || {
                let mut seen = Seen::default();
                seen.loops(to, number, stop);
                if let Ok(mut all) = all.lock() {
                    all.add(seen);
                }
            });
        }
        thread::sleep(before);
        let broken = Instant::now();
        let struck = backends[1].receives(blow);
        thread::sleep(after);
        stop.store(true, Ordering::Release);
        if blow == Blow::Stop {
            // Whoever waits there for a reply hears of its end.
            backends[1].backend.process.signal(Signal::KILL)?;
        }
        struck.map(|()| broken)
    })?;
    let seen = all.into_inner().map_err(|_| anyhow!("a client panicked"))?;
    let taken = journals(&backends)?;
    let output = peer.folder().join("output.log");
    peer.stop()?;
    let logged = fs::read_to_string(output)?
        .matches("outcome=in-doubt")
        .count();
    if kind.is_ours() {
        let silent = seen.in_doubt.len().abs_diff(logged) as f64;
        report.judge(&row, "in doubt, yet not logged", kind, silent, 0.0);
    }
    say(
        report,
        &row,
        (kind, blow),
        &seen,
        &taken,
        (broken, broken + after),
    );
    Ok(())
}

/// How often each message was taken by a backend.
fn journals(backends: &[Journalling]) -> Result<BTreeMap<String, u32>> {
    let mut taken = BTreeMap::new();
    for backend in backends {
        let text = fs::read_to_string(&backend.journal).context("the journal of a sink")?;
        for line in text.lines() {
            let (size, sender) = line.split_once(' ').context("a line of a journal")?;
            let id = sender.split(['<', '@']).nth(1).context("a sender")?;
            // One that was cut short is not the message that was sent.
            let id = match size.parse::<usize>() {
                Ok(size) if size == Work::new(1, OCTETS).body().len() => id.to_owned(),
                _ => format!("damaged {id}"),
            };
            *taken.entry(id).or_default() += 1;
        }
    }
    Ok(taken)
}

fn say(
    report: &mut Report,
    row: &str,
    (kind, blow): (Kind, Blow),
    seen: &Seen,
    taken: &BTreeMap<String, u32>,
    (broken, ended): (Instant, Instant),
) {
    report.add(row, "sessions", kind, seen.sessions as f64);
    report.add(
        row,
        "acknowledged messages",
        kind,
        seen.acknowledged.len() as f64,
    );
    report.judge(
        row,
        "failed sessions",
        kind,
        seen.failures.len() as f64,
        0.0,
    );
    report.add(row, "messages in doubt", kind, seen.in_doubt.len() as f64);
    let missing = seen
        .acknowledged
        .iter()
        .filter(|id| !taken.contains_key(*id));
    report.judge(
        row,
        "acknowledged, yet missing",
        kind,
        missing.count() as f64,
        0.0,
    );
    let undoubted = || taken.iter().filter(|(id, _)| !seen.in_doubt.contains(*id));
    let twice = undoubted().filter(|(_, times)| **times > 1).count();
    report.judge(row, "taken twice, not in doubt", kind, twice as f64, 0.0);
    let unsaid = undoubted().filter(|(id, _)| !seen.acknowledged.contains(*id));
    report.judge(
        row,
        "taken, yet the client was told otherwise",
        kind,
        unsaid.count() as f64,
        0.0,
    );
    // A wait that was going on when the blow came.
    let slack = Duration::from_millis(100);
    let from = broken.checked_sub(slack).unwrap_or(broken);
    let longest_max = if blow == Blow::Stop { 1_500.0 } else { 100.0 };
    for (waits, what) in [
        (&seen.greetings, "greeting"),
        (&seen.mails, "reply to MAIL"),
    ] {
        let start = broken.checked_sub(Duration::from_secs(1)).unwrap_or(broken);
        let calm = Seen::longest(waits, start, from);
        report.add(
            row,
            &format!("longest wait for a {what} before, ms"),
            kind,
            calm,
        );
        let longest = Seen::longest(waits, from, ended);
        let metric = format!("longest wait for a {what}, ms");
        report.judge(row, &metric, kind, longest, longest_max);
    }
    // A backend that has the message may take its time (rule K1): no budget.
    let longest = Seen::longest(&seen.ends, from, ended);
    let metric = "longest wait for a reply to a message, ms";
    report.add(row, metric, kind, longest);
    let mut causes = String::new();
    for (began, failure) in seen.failures.iter().take(3) {
        let after = began.saturating_duration_since(broken).as_millis();
        let _ = write!(causes, " [+{after} ms: {failure}]");
    }
    if !causes.is_empty() {
        report.note(row, format!("{kind} failed first with:{causes}"));
    }
}
