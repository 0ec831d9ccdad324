//! Backends and clients that break off at any octet, on real sockets: no message lost, doubled or
//! crossed, and nothing left behind (promises 1 to 4).
//!
//! What each side does follows from `SEED=`; in which order the kernel and the threads interleave it
//! does not. A message is lost if its client was told 2xx and no backend took it; doubled if two
//! took it, or one took it twice; crossed if it came with another's envelope, content or reply.

mod backend;
mod client;
mod ledger;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use posthouse::balance::BackendState;
use posthouse::config::Config;
use posthouse::config::model::{Balance, Mode};
use posthouse::snapshot::Shared;

use self::backend::Backend;
use self::client::{Clients, Session};
use self::ledger::{Ledger, Settled, rng_of};
use crate::harness::{PATIENCE, eventually, workers_sum};
use crate::whole;

/// Messages in each mode.
const MESSAGES: u64 = 5000;
/// Clients at once.
const CLIENTS: u64 = 24;
const BACKENDS: u64 = 4;
/// Of each backend: fewer than the clients need, so that some wait.
const CONNECTIONS: u32 = 5;

fn seed() -> u64 {
    std::env::var("SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

fn config(mode: Mode, backends: &[SocketAddr]) -> Config {
    let names: Vec<_> = (0..backends.len()).map(|at| format!("b{at}")).collect();
    let named: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(backends.iter().copied())
        .collect();
    let mut config = whole::config(&named);
    whole::listener(&mut config).mode = mode;
    let pool = whole::pool(&mut config);
    pool.balance = Balance::RoundRobin;
    pool.eject.time = Duration::from_millis(100);
    pool.eject.max_time = Duration::from_millis(200);
    pool.slow_start = Duration::from_millis(200);
    pool.smtp.idle_timeout = Duration::from_millis(300);
    for backend in pool.backends.values_mut() {
        backend.max_connections = CONNECTIONS;
    }
    config
}

/// Pipes that this process has.
fn pipes() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let links = descriptors
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("pipe:"))
        .count()
}

fn backends_sum(shared: &Shared, of: fn(&BackendState) -> u32) -> u64 {
    let backends = shared.registry.backends();
    backends.iter().map(|state| u64::from(of(state))).sum()
}

/// Every gauge that is not zero.
fn left(shared: &Shared) -> Vec<(&'static str, u64)> {
    let snapshot = shared.current.load();
    let waiting = snapshot.pools().map(|view| view.pool.waiting());
    let gauges = [
        (
            "sessions",
            workers_sum(shared, |worker| worker.sessions.value()),
        ),
        (
            "lingering",
            workers_sum(shared, |worker| worker.closing.value()),
        ),
        (
            "spilled",
            workers_sum(shared, |worker| worker.spilled_octets.value()),
        ),
        (
            "leased",
            workers_sum(shared, |worker| worker.leased.value()),
        ),
        (
            "kept idle",
            workers_sum(shared, |worker| worker.kept_idle.value()),
        ),
        ("open", backends_sum(shared, BackendState::open)),
        ("in flight", backends_sum(shared, BackendState::in_flight)),
        ("waiting", waiting.map(u64::from).sum()),
        ("replay memory", shared.replay_memory.used()),
        (
            "panics",
            workers_sum(shared, |worker| worker.panics.value()),
        ),
    ];
    gauges.into_iter().filter(|(_, value)| *value > 0).collect()
}

/// The same, when nothing moves any more.
async fn left_at_last(shared: &Shared) -> Vec<(&'static str, u64)> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = left(shared);
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn chaos(mode: Mode) -> Settled {
    let seed = seed();
    let ledger = Arc::new(Ledger::new(seed));
    let mut addresses = Vec::new();
    for number in 0..BACKENDS {
        let backend = Backend {
            name: format!("b{number}.test"),
            number,
            pipelining: number > 0,
            seed,
            ledger: Arc::clone(&ledger),
        };
        addresses.push(backend.start().await);
    }
    let pipes_before = pipes();
    let running = whole::run(config(mode, &addresses));
    let clients = Arc::new(Clients {
        address: whole::address(running.handle(), "mx"),
        mode,
        messages: MESSAGES,
        next_message: AtomicU64::new(0),
        ledger: Arc::clone(&ledger),
    });
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let clients = Arc::clone(&clients);
            tokio::spawn(async move {
                for session in 0_u64.. {
                    if clients.is_done() {
                        break;
                    }
                    let number = client + session * CLIENTS;
                    Session::run(Arc::clone(&clients), rng_of(seed, 3, number)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no client fails");
    }
    for (gauge, value) in left_at_last(running.handle().shared()).await {
        ledger.wrong(format!("{value} {gauge} are left"));
    }
    drop(running);
    // Under cargo's own runner other tests share the process, and have pipes as well.
    if std::env::var_os("NEXTEST").is_some() {
        eventually("the pipes are gone", || pipes() <= pipes_before).await;
    }
    ledger.settle()
}

fn assert_right(settled: &Settled) {
    eprintln!("SEED={}: {settled:?}", seed());
    assert_eq!(
        settled.wrong,
        0,
        "SEED={}: {}",
        seed(),
        settled.wrongs.join("\n")
    );
    assert_eq!(settled.messages() as u64, MESSAGES);
    assert_eq!(settled.ungreeted, 0, "clients met a bare end: {settled:?}");
    // Otherwise it tests nothing.
    assert!(settled.taken * 2 > settled.messages(), "{settled:?}");
    assert!(settled.refused > 0 && settled.broken_off > 0, "{settled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_in_mode_smtp_loses_doubles_and_crosses_nothing() {
    let settled = chaos(Mode::Smtp).await;
    assert_right(&settled);
    assert!(settled.in_doubt > 0, "{settled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_in_mode_passthrough_loses_doubles_and_crosses_nothing() {
    let settled = chaos(Mode::Passthrough).await;
    assert_right(&settled);
    assert!(settled.unanswered > 0, "{settled:?}");
}
