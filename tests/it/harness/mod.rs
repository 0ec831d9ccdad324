//! A real balancer in process: its workers on kernel-given ports, without the control thread.
//!
//! Tests drive time-dependent state by `tick`; everything else is the code that serves in
//! production. Nothing sleeps: a wait is for an event, with a patience after which the test fails.

pub(crate) mod client;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use posthouse::config::Config;
use posthouse::config::model::{self, BackendAddress};
use posthouse::metrics::SessionOutcome;
use posthouse::snapshot::{Registry, Resolved, Shared, build};
use posthouse::telemetry;
use posthouse::types::{Generation, WorkerId};
use posthouse::worker::{Command, Worker};

/// How long a test waits for an event before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The balancer's name in its replies.
pub(crate) const HOSTNAME: &str = "lb.test";

/// A configuration with one listener `mx` for one pool `mx` of these backends, in the order of
/// their names `b0`, `b1`, …; no probes, short times.
pub(crate) fn config(backends: &[SocketAddr]) -> Config {
    let mut config = Config::for_host(HOSTNAME);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listeners.insert(
        Arc::from("mx"),
        model::Listener::new(vec![any], "mx", HOSTNAME),
    );
    let mut pool = model::Pool::for_host(HOSTNAME);
    pool.health.probe = false;
    pool.balance = model::Balance::First;
    for (index, address) in backends.iter().enumerate() {
        let backend = model::Backend::at(BackendAddress::Literal(*address));
        pool.backends
            .insert(Arc::from(format!("b{index}")), backend);
    }
    config.pools.insert(Arc::from("mx"), pool);
    config
}

/// The listener `mx` of [`config`].
pub(crate) fn listener(config: &mut Config) -> &mut model::Listener {
    config
        .listeners
        .get_mut("mx")
        .expect("the configuration has it")
}

/// The pool `mx` of [`config`].
pub(crate) fn pool(config: &mut Config) -> &mut model::Pool {
    config
        .pools
        .get_mut("mx")
        .expect("the configuration has it")
}

/// An address where nothing listens.
pub(crate) fn dead() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
    listener.local_addr().expect("it is bound")
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A running balancer; ends with the test.
pub(crate) struct Balancer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    workers: Vec<Worker>,
}

impl Balancer {
    pub(crate) fn start(config: Config) -> Self {
        Self::with_workers(config, 1)
    }

    pub(crate) fn with_workers(config: Config, count: u8) -> Self {
        let now = Instant::now();
        let registry = Registry::new(usize::from(count));
        let config = Arc::new(config);
        let first = build(config, &Resolved::default(), &registry, Generation(1), now);
        let started = (now, SystemTime::now());
        let telemetry = telemetry::silent();
        let shared = Shared::new(
            first,
            registry,
            usize::from(count),
            telemetry,
            10_000,
            20_000,
            started,
        );
        for view in shared.current.load().pools() {
            view.pool.install(now);
        }
        let workers: Vec<_> = (0..count)
            .map(|id| Worker::start(WorkerId(id), Arc::clone(&shared)).expect("a thread starts"))
            .collect();
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        socket
            .set_nonblocking(true)
            .expect("a socket can be non-blocking");
        let address = socket.local_addr().expect("it is bound");
        let listener = shared
            .current
            .load()
            .listeners()
            .next()
            .expect("one listener")
            .state
            .index;
        for worker in &workers {
            let socket = socket.try_clone().expect("a descriptor is free");
            worker.send(Command::Bind { listener, socket });
        }
        Self {
            shared,
            address,
            workers,
        }
    }

    pub(crate) fn command(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            worker.send(command());
        }
    }

    /// Sessions that ended so, by now.
    pub(crate) fn ended(&self, outcome: SessionOutcome) -> u64 {
        self.outcomes()[&outcome.name()]
    }

    pub(crate) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let states = self.shared.registry.listeners();
        SessionOutcome::ALL
            .iter()
            .map(|outcome| {
                let count = states
                    .iter()
                    .map(|state| state.counters.sum(|c| c.outcomes[outcome.index()].value()))
                    .sum();
                (outcome.name(), count)
            })
            .collect()
    }

    /// Waits until exactly so many sessions ended so.
    pub(crate) async fn wait_for(&self, outcome: SessionOutcome, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.ended(outcome) != count {
            assert!(
                Instant::now() < deadline,
                "{outcome:?}: {:?}",
                self.outcomes()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until no session and no place at a backend is left: nothing leaks.
    pub(crate) async fn wait_until_empty(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sessions: u64 = self.shared.workers.iter().map(|w| w.sessions.value()).sum();
            let open: u32 = self
                .shared
                .registry
                .backends()
                .iter()
                .map(|b| b.open())
                .sum();
            let in_flight: u32 = self
                .shared
                .registry
                .backends()
                .iter()
                .map(|b| b.in_flight())
                .sum();
            if (sessions, open, in_flight) == (0, 0, 0) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{sessions} sessions, {open} open, {in_flight} in flight are left"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until no session is left and no transaction counts at a backend.
    pub(crate) async fn wait_until_no_session(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sessions: u64 = self.shared.workers.iter().map(|w| w.sessions.value()).sum();
            let leased: u64 = self.shared.workers.iter().map(|w| w.leased.value()).sum();
            let backends = self.shared.registry.backends();
            let in_flight: u32 = backends.iter().map(|b| b.in_flight()).sum();
            if (sessions, leased, in_flight) == (0, 0, 0) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{sessions} sessions, {leased} leased, {in_flight} in flight are left"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until so many connections are kept and idle.
    pub(crate) async fn wait_until_idle(&self, count: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let idle: u64 = self
                .shared
                .workers
                .iter()
                .map(|w| w.kept_idle.value())
                .sum();
            if idle == count {
                return;
            }
            assert!(Instant::now() < deadline, "{idle} connections are idle");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Attempts at the backend of this name so far.
    pub(crate) fn attempts(&self, backend: &str) -> u64 {
        let snapshot = self.shared.current.load();
        let view = snapshot.pool_named("mx").expect("the pool");
        let member = view
            .pool
            .members()
            .iter()
            .find(|member| &*member.settings.name == backend);
        member
            .expect("the backend")
            .settings
            .state
            .totals
            .sum(|totals| totals.attempts.value())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for worker in self.workers.drain(..) {
            worker.send(Command::Stop);
            worker.join();
        }
    }
}
