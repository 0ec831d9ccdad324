//! A whole balancer in process, control thread included, and plain blocking peers.
//!
//! Backends are lab sinks on threads of their own. A wait is for a condition, with a patience
//! after which the test fails; nothing is measured.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthouse::config::Config;
use posthouse::config::model::{self, BackendAddress};
use posthouse::control::{Handle, ReloadReport, Running, StartOptions, start};
use posthouse::lab::{Script, Sink, SinkHandle, SinkPlan};
use posthouse::telemetry;

pub(crate) use crate::harness::dead;

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const HOST: &str = "lb.test";

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A sink on a thread of its own.
pub(crate) fn sink(name: &str, script: Script) -> SinkHandle {
    Sink::spawn_thread(SinkPlan::with(script).named(name)).expect("loopback has a port")
}

/// One listener `mx` on a port of the kernel's choice, for one pool `mx` of these backends, without
/// probes.
pub(crate) fn config(backends: &[(&str, SocketAddr)]) -> Config {
    let mut config = Config::for_host(HOST);
    config.workers = Some(2);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = model::Listener::new(vec![any], "mx", HOST);
    config.listeners.insert(Arc::from("mx"), listener);
    let mut pool = model::Pool::for_host(HOST);
    pool.health.probe = false;
    pool.balance = model::Balance::First;
    for (name, address) in backends {
        let backend = model::Backend::at(BackendAddress::Literal(*address));
        pool.backends.insert(Arc::from(*name), backend);
    }
    config.pools.insert(Arc::from("mx"), pool);
    config
}

/// The listener `mx` of [`config`].
pub(crate) fn listener(config: &mut Config) -> &mut model::Listener {
    config.listeners.get_mut("mx").expect("it is there")
}

/// The pool `mx` of [`config`].
pub(crate) fn pool(config: &mut Config) -> &mut model::Pool {
    config.pools.get_mut("mx").expect("it is there")
}

/// Starts, or fails the test.
pub(crate) fn run(config: Config) -> Running {
    run_with(StartOptions::default(), config)
}

/// The same with options.
pub(crate) fn run_with(options: StartOptions, config: Config) -> Running {
    start(options, config, telemetry::silent()).unwrap_or_else(|error| panic!("{error}"))
}

/// Where a listener listens.
pub(crate) fn address(handle: &Handle, listener: &str) -> SocketAddr {
    let listening = handle.listening();
    let found = listening.iter().find(|(name, _)| &**name == listener);
    found.unwrap_or_else(|| panic!("{listening:?}")).1
}

/// Waits for what a handle promises, outside of any runtime.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(future)
}

/// Replaces the configuration; the report.
pub(crate) fn replace(handle: &Handle, config: Config) -> ReloadReport {
    wait(handle.replace(config, "http")).expect("the control thread is there")
}

/// A blocking SMTP client.
pub(crate) struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    /// Connects and reads the greeting.
    pub(crate) fn greeted(address: SocketAddr) -> (Self, String) {
        let mut peer = Self::connect(address);
        let greeting = peer.line();
        (peer, greeting)
    }

    /// The same, where the greeting must contain this name.
    pub(crate) fn greeted_by(address: SocketAddr, name: &str) -> Self {
        let (peer, greeting) = Self::greeted(address);
        assert!(greeting.contains(name), "{greeting:?} is not of {name}");
        peer
    }

    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("the time is not zero");
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// A line without its end; empty at the end of the stream, and when it is reset.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a line and reads one of the answer.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let octets = format!("{line}\r\n");
        let sent = self.stream.get_mut().write_all(octets.as_bytes());
        sent.expect("the connection is open");
        self.line()
    }

    /// Waits for the end of the connection.
    pub(crate) fn wait_for_end(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
    }
}
