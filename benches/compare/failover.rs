//! What clients notice when one of three backends fails: 8 clients in a loop, and every greeting
//! timed.
//!
//! The backends are sinks in processes of their own, so that they can be killed (SIGKILL), stopped
//! (SIGSTOP: the kernel still accepts, nobody greets) or told to greet 421. A session that had been
//! greeted by the backend that fails is lost whatever a layer-4 balancer does: it is counted apart.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Plan;
use super::backend::Backend;
use super::support::client::{Client, Failure, Stage, Work};
use super::support::peer::{Health, Kind, Peer, Run};
use super::support::report::Report;

/// Clients that run sessions one after the other.
pub(super) const CLIENTS: u16 = 8;
/// How long a client waits for a greeting: what hangs longer counts as failed with this wait.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// How long a greeted client waits for any other reply.
const REPLY_MAX: Duration = Duration::from_secs(2);
/// Sessions that begin this long after the fault are "later" ones.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped,
    Greets421,
}

/// One session as its client saw it.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) began: Instant,
    /// From the connect to the greeting, or to giving up.
    pub(super) greeting: Duration,
    pub(super) failed: Option<Failure>,
}

pub(super) fn row(plan: &Plan, report: &mut Report) -> Result<()> {
    for fault in [Fault::Killed, Fault::Stopped, Fault::Greets421] {
        for &kind in &plan.kinds {
            if kind != Kind::HaproxySplice {
                one(plan, report, fault, kind)?;
            }
        }
    }
    Ok(())
}

fn one(plan: &Plan, report: &mut Report, fault: Fault, kind: Kind) -> Result<()> {
    let row = match fault {
        Fault::Killed => "failover: one of three backends is killed (SIGKILL)",
        Fault::Stopped => "failover: one of three backends is stopped (accepts, never greets)",
        Fault::Greets421 => "failover: one of three backends begins to greet 421",
    };
    let backends = Backend::start_three()?;
    let mut setup = plan.bench.setup(1, Run::Plain);
    setup.backends = Backend::alike(&backends);
    setup.health = Health::On;
    let peer = Peer::start(kind, &setup)?;
    let before = plan.pick(Duration::from_secs(2), Duration::from_millis(500));
    let after = match fault {
        Fault::Stopped => plan.pick(Duration::from_secs(12), Duration::from_secs(7)),
        Fault::Killed | Fault::Greets421 => {
            plan.pick(Duration::from_secs(8), Duration::from_secs(2))
        }
    };
    let mut broken = Instant::now();
    let visits = under_load(&peer, &Work::new(1, 1024), || {
        thread::sleep(before);
        broken = Instant::now();
        backends[1].process.signal(match fault {
            Fault::Killed => Signal::KILL,
            Fault::Stopped => Signal::STOP,
            Fault::Greets421 => Signal::USR1,
        })?;
        thread::sleep(after);
        if fault == Fault::Stopped {
            // Whoever still hangs there may end now.
            backends[1].process.signal(Signal::KILL)?;
        }
        Ok(())
    })?;
    say(report, row, kind, fault, &visits, broken, broken + after);
    Ok(())
}

fn say(
    report: &mut Report,
    row: &str,
    kind: Kind,
    fault: Fault,
    visits: &[Visit],
    broken: Instant,
    ended: Instant,
) {
    // Sessions still open when the stopped backend was killed are judged by how long they waited.
    let visits: Vec<&Visit> = visits.iter().filter(|visit| visit.began < ended).collect();
    let failed = |at: fn(Stage) -> bool| {
        visits
            .iter()
            .filter(|v| v.failed.as_ref().is_some_and(|f| at(f.stage)))
            .count() as f64
    };
    let worst = |from: Instant, to: Instant| {
        visits
            .iter()
            .filter(|visit| visit.began >= from && visit.began < to)
            .map(|visit| visit.greeting.as_secs_f64() * 1e3)
            .fold(0.0, f64::max)
    };
    report.add(row, "sessions", kind, visits.len() as f64);
    let early = failed(|stage| stage != Stage::Later);
    report.judge(row, "failed before or at the greeting", kind, early, 0.0);
    let late = failed(|stage| stage == Stage::Later);
    match fault {
        Fault::Greets421 => report.judge(row, "failed later", kind, late, 0.0),
        Fault::Killed | Fault::Stopped => {
            report.add(row, "failed later (were at that backend)", kind, late);
        }
    }
    let calm = broken.checked_sub(Duration::from_secs(2)).unwrap_or(broken);
    report.add(
        row,
        "worst greeting wait before, ms",
        kind,
        worst(calm, broken),
    );
    let settled = broken + SETTLED_AFTER;
    if fault == Fault::Stopped {
        // A session that began just before may have dialled the stopped backend.
        let first = worst(
            broken
                .checked_sub(Duration::from_millis(100))
                .unwrap_or(broken),
            settled,
        );
        report.judge(
            row,
            "worst greeting wait, first 5 s, ms",
            kind,
            first,
            1_500.0,
        );
        report.judge(
            row,
            "worst greeting wait, later, ms",
            kind,
            worst(settled, ended),
            50.0,
        );
    } else {
        report.add(
            row,
            "worst greeting wait after, ms",
            kind,
            worst(broken, ended),
        );
    }
    let mut causes = String::new();
    for visit in visits.iter().filter(|visit| visit.failed.is_some()).take(3) {
        if let Some(failure) = &visit.failed {
            let after = visit.began.saturating_duration_since(broken).as_millis();
            let _ = write!(causes, " [+{after} ms: {failure}]");
        }
    }
    if !causes.is_empty() {
        report.note(row, format!("{kind} failed first with:{causes}"));
    }
}

/// Runs `event` while 8 clients loop; what they saw.
pub(super) fn under_load(
    peer: &Peer,
    work: &Work,
    event: impl FnOnce() -> Result<()>,
) -> Result<Vec<Visit>> {
    let stop = AtomicBool::new(false);
    let visits = Mutex::new(Vec::new());
    let done = thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (stop, visits) = (&stop, &visits);
            scope.spawn(move || {
                let mut own = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    own.push(visit(peer.address(number + 1), work));
                }
                if let Ok(mut all) = visits.lock() {
                    all.extend(own);
                }
            });
        }
        let done = event();
        stop.store(true, Ordering::Release);
        done
    });
    done?;
    visits.into_inner().ok().context("a client panicked")
}

fn visit(to: SocketAddr, work: &Work) -> Visit {
    let began = Instant::now();
    let connected = Client::connect(to, GREETING_MAX);
    let greeting = began.elapsed();
    let failed = connected
        .and_then(|mut client| {
            client.set_patience(REPLY_MAX)?;
            client.finish(work)
        })
        .err();
    Visit {
        began,
        greeting,
        failed,
    }
}
