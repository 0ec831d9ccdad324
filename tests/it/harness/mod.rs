//! A real balancer in process: its workers on kernel-given ports, without the control thread.
//!
//! Tests drive time-dependent state by `tick`; everything else is the code that serves in
//! production. Nothing sleeps: a wait is for an event, with a patience after which the test fails.

pub(crate) mod client;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use posthouse::balance::BackendState;
use posthouse::config::Config;
use posthouse::config::model::{self, BackendAddress};
use posthouse::lab::{Script, Sink, SinkHandle, SinkPlan};
use posthouse::metrics::{ListenerCounters, SessionOutcome, TransactionOutcome, WorkerCounters};
use posthouse::snapshot::{Registry, Resolved, Shared, build};
use posthouse::telemetry::{self, Telemetry};
use posthouse::types::{Generation, WorkerId};
use posthouse::worker::{Command, Worker};
use socket2::{Domain, Socket, Type};

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

/// An address where nothing listens, and that the kernel gives to nobody else while the test runs.
///
/// It is held by a socket that never listens. Who sets `SO_REUSEADDR`, as all our listeners do, may
/// listen there all the same.
pub(crate) fn dead() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
    socket.set_reuse_address(true).expect("it is a TCP socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("loopback has a port");
    let address = socket.local_addr().expect("it is bound").as_socket();
    // Until the process ends.
    std::mem::forget(socket);
    address.expect("IPv4")
}

/// A backend on this test's runtime.
pub(crate) fn sink(name: &str, script: Script) -> SinkHandle {
    Sink::start(SinkPlan::with(script).named(name).keeping(1 << 20)).expect("loopback has a port")
}

/// One that does as it should.
pub(crate) fn good(name: &str) -> SinkHandle {
    sink(name, Script::good())
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    until(|| {
        holds()
            .then_some(())
            .ok_or_else(|| format!("never: {what}"))
    })
    .await;
}

/// Waits until nothing is missing any more.
async fn until(missing: impl Fn() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(missing) = missing() {
        assert!(Instant::now() < deadline, "{missing}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The sum over all listeners and threads.
pub(crate) fn listeners_sum(shared: &Shared, of: impl Fn(&ListenerCounters) -> u64) -> u64 {
    let states = shared.registry.listeners();
    states.iter().map(|state| state.counters.sum(&of)).sum()
}

/// The sum over all workers.
pub(crate) fn workers_sum(shared: &Shared, of: impl Fn(&WorkerCounters) -> u64) -> u64 {
    shared.workers.iter().map(|worker| of(worker)).sum()
}

/// Transactions that ended so, by now.
pub(crate) fn transactions(shared: &Shared, outcome: TransactionOutcome) -> u64 {
    listeners_sum(shared, |c| c.mail.outcomes[outcome.index()].value())
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
        Self::with(config, count, telemetry::silent())
    }

    pub(crate) fn with(config: Config, count: u8, telemetry: Telemetry) -> Self {
        let now = Instant::now();
        let registry = Registry::new(usize::from(count));
        let config = Arc::new(config);
        let first = build(config, &Resolved::default(), &registry, Generation(1), now);
        let started = (now, SystemTime::now());
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
        let snapshot = shared.current.load_full();
        let view = snapshot.listeners().next().expect("one listener");
        for worker in &workers {
            let socket = socket.try_clone().expect("a descriptor is free");
            worker.send(Command::Bind {
                view: Arc::clone(view),
                hostname: HOSTNAME.into(),
                socket,
            });
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
        let count = |outcome: &SessionOutcome| {
            listeners_sum(&self.shared, |c| c.outcomes[outcome.index()].value())
        };
        let outcomes = SessionOutcome::ALL.iter();
        outcomes
            .map(|outcome| (outcome.name(), count(outcome)))
            .collect()
    }

    /// Waits until exactly so many sessions ended so.
    pub(crate) async fn wait_for(&self, outcome: SessionOutcome, count: u64) {
        until(|| {
            if self.ended(outcome) == count {
                return Ok(());
            }
            Err(format!("{outcome:?}: {:?}", self.outcomes()))
        })
        .await;
    }

    /// Waits until no session and no place at a backend is left: nothing leaks.
    pub(crate) async fn wait_until_empty(&self) {
        until(|| self.nothing_is_left(|| self.backends_sum(BackendState::open))).await;
    }

    /// Waits until no session is left and no transaction counts at a backend.
    pub(crate) async fn wait_until_no_session(&self) {
        let leased = || workers_sum(&self.shared, |worker| worker.leased.value());
        until(|| self.nothing_is_left(leased)).await;
    }

    /// Whether neither a session nor a use of a backend is left, nor any of these connections.
    fn nothing_is_left(&self, connections: impl Fn() -> u64) -> Result<(), String> {
        let sessions = workers_sum(&self.shared, |worker| worker.sessions.value());
        let in_flight = self.backends_sum(BackendState::in_flight);
        let connections = connections();
        if (sessions, connections, in_flight) == (0, 0, 0) {
            return Ok(());
        }
        Err(format!(
            "{sessions} sessions, {connections} connections, {in_flight} in flight are left"
        ))
    }

    fn backends_sum(&self, of: impl Fn(&BackendState) -> u32) -> u64 {
        let backends = self.shared.registry.backends();
        backends.iter().map(|state| u64::from(of(state))).sum()
    }

    /// Waits until so many connections are kept and idle.
    pub(crate) async fn wait_until_idle(&self, count: u64) {
        until(
            || match workers_sum(&self.shared, |worker| worker.kept_idle.value()) {
                idle if idle == count => Ok(()),
                idle => Err(format!("{idle} connections are idle")),
            },
        )
        .await;
    }

    /// The state of the backend of this name.
    pub(crate) fn backend(&self, name: &str) -> Arc<BackendState> {
        let states = self.shared.registry.backends();
        let mut states = states.into_iter();
        states
            .find(|state| &**state.name() == name)
            .expect("the backend")
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
