//! The program under a service manager: what it says, what it does on signals, how it exits.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use posthouse::lab::{Script, SinkHandle};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::whole::{PATIENCE, Peer, dead, eventually, sink};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("posthouse.toml")
    }

    fn run(&self, config: &str) -> Service {
        fs::write(self.file(), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
            .args(["run", "-c"])
            .arg(self.file())
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", "200000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Service(child)
    }

    /// Reads messages until one has this line; the whole message.
    fn hear(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut octets = [0; 4096];
        loop {
            let length = self
                .socket
                .recv(&mut octets)
                .unwrap_or_else(|error| panic!("no {line:?}: {error}"));
            let message = String::from_utf8_lossy(&octets[..length]).into_owned();
            if message.lines().any(|one| one == line) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {line:?}");
        }
    }
}

/// The program; killed with the test.
struct Service(Child);

impl Service {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).unwrap();
    }

    fn wait(mut self) -> (ExitStatus, String) {
        let mut errors = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut errors).unwrap();
        }
        (self.0.wait().unwrap(), errors)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(at: SocketAddr, backend: &SinkHandle, more: &str) -> String {
    format!(
        "workers = 1\n{more}\n[listeners.mx]\nbind = [\"{at}\"]\npool = \"mx\"\n\
         [pools.mx.health]\nprobe = false\n[pools.mx.backends]\n\
         one = {{ address = \"{}\" }}\n",
        backend.address()
    )
}

#[test]
fn a_life_from_ready_over_reloads_to_a_clean_end() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let (manager, at) = (Manager::new(), dead());
    let service = manager.run(&config(at, &one, ""));
    let ready = manager.hear("READY=1");
    assert!(ready.contains("STATUS=serving, generation 1"), "{ready}");
    Peer::greeted_by(at, "one.test").ask("QUIT");
    manager.hear("WATCHDOG=1");

    fs::write(manager.file(), config(at, &two, "")).unwrap();
    service.signal(Signal::HUP);
    assert!(manager.hear("RELOADING=1").contains("MONOTONIC_USEC="));
    assert!(manager.hear("READY=1").contains("generation 2"));
    Peer::greeted_by(at, "two.test").ask("QUIT");

    // A file with a mistake changes nothing, and the service is still ready.
    let mut file = fs::File::options()
        .append(true)
        .open(manager.file())
        .unwrap();
    file.write_all(b"nonsense = 1\n").unwrap();
    service.signal(Signal::HUP);
    manager.hear("RELOADING=1");
    assert!(manager.hear("READY=1").contains("refused for 1 mistake"));
    Peer::greeted_by(at, "two.test").ask("QUIT");

    service.signal(Signal::TERM);
    assert!(manager.hear("STOPPING=1").contains("EXTEND_TIMEOUT_USEC="));
    let (status, _) = service.wait();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn sigterm_waits_for_a_session_and_a_second_one_does_not() {
    let one = sink("one.test", Script::good());
    let (manager, at) = (Manager::new(), dead());
    let service = manager.run(&config(at, &one, ""));
    manager.hear("READY=1");
    let mut session = Peer::greeted_by(at, "one.test");
    service.signal(Signal::TERM);
    manager.hear("STATUS=draining, 1 sessions left");
    eventually("nobody listens", || {
        std::net::TcpStream::connect(at).is_err()
    });
    assert!(session.ask("NOOP").starts_with("250"));
    service.signal(Signal::INT);
    let (status, _) = service.wait();
    assert_eq!(status.code(), Some(3), "a session was cut");
    session.wait_for_end();
}

/// The log of a service, up to the first line that has all these words.
fn read_until(log: &mut impl Iterator<Item = String>, words: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for line in log {
        let found = words.iter().all(|word| line.contains(word));
        lines.push(line);
        if found {
            return lines;
        }
    }
    panic!("no {words:?} in {lines:#?}");
}

#[test]
fn no_signal_but_a_second_sigterm_cuts_a_session() {
    let one = sink("one.test", Script::good());
    let (manager, at) = (Manager::new(), dead());
    let log = "\n[log]\noutput = \"stderr\"\n";
    let mut service = manager.run(&(config(at, &one, "") + log));
    let said = BufReader::new(service.0.stderr.take().unwrap());
    let mut log = said.lines().map(Result::unwrap);
    manager.hear("READY=1");
    let mut session = Peer::greeted_by(at, "one.test");
    let pid = service.0.id().to_string();
    let send = |signal: &str| {
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success(), "{signal}");
    };
    for (signal, why) in [
        ("USR1", "log file to reopen"),
        ("USR2", "send SIGHUP"),
        ("ALRM", "timer"),
        ("VTALRM", "timer"),
        ("PROF", "timer"),
        ("IO", "no meaning"),
        ("PWR", "no meaning"),
        ("STKFLT", "no meaning"),
        ("XCPU", "LimitCPU"),
        ("XFSZ", "LimitFSIZE"),
        ("RTMIN+3", "no meaning"),
    ] {
        send(signal);
        let name = format!("signal=SIG{signal} ");
        read_until(&mut log, &["signal.ignored", &name, why]);
        assert!(session.ask("NOOP").starts_with("250"), "{signal}");
    }
    send("QUIT");
    read_until(&mut log, &["drain.begin", "by=SIGQUIT"]);
    for (signal, why) in [
        ("QUIT", "drains already"),
        ("HUP", "nothing is reloaded"),
        ("TERM", "another one ends"),
    ] {
        send(signal);
        let name = format!("signal=SIG{signal} ");
        read_until(&mut log, &["signal.ignored", &name, why]);
        assert!(session.ask("NOOP").starts_with("250"), "{signal}");
    }
    send("INT");
    read_until(&mut log, &["stopped", "sessions_cut=1"]);
    let (status, _) = service.wait();
    assert_eq!(status.code(), Some(3), "a session was cut");
}

#[test]
fn the_log_begins_with_what_was_started_and_where_it_listens() {
    let one = sink("one.test", Script::good());
    let (manager, at) = (Manager::new(), dead());
    let more = "max_sessions = 100\n[admin]\nbind = \"127.0.0.1:0\"\n[log]\noutput = \"stderr\"\n";
    let mut service = manager.run(&config(at, &one, more));
    let said = BufReader::new(service.0.stderr.take().unwrap());
    let mut log = said.lines().map(Result::unwrap);
    manager.hear("READY=1");
    let lines = read_until(&mut log, &[" ready "]);
    let file = manager.file();
    for words in [
        " start version=",
        concat!("version=", env!("CARGO_PKG_VERSION"), " commit="),
        &format!("config={}", file.display()),
        &format!("mx passthrough {at} -> mx"),
        "pools=1 backends=1 admin=127.0.0.1:0 workers=1 max_sessions=100 descriptors=",
    ] {
        assert!(lines[0].contains(words), "{words:?} in {}", lines[0]);
    }
    let ready = lines.last().unwrap();
    assert!(ready.contains(&format!("mx {at}")), "{ready}");
    service.signal(Signal::TERM);
    read_until(&mut log, &["drain.begin", "by=SIGTERM"]);
    read_until(&mut log, &["stopped", "sessions_cut=0"]);
    assert_eq!(service.wait().0.code(), Some(0));
}

#[test]
fn without_descriptors_it_pauses_says_so_serves_on_and_recovers() {
    let one = sink("one.test", Script::good());
    let (manager, at) = (Manager::new(), dead());
    let log = "\n[log]\noutput = \"stderr\"\n";
    let mut service = manager.run(&(config(at, &one, "") + log));
    manager.hear("READY=1");
    let mut before = Peer::greeted_by(at, "one.test");
    // What is open stays open; the next descriptor is refused.
    let pid = Some(Pid::from_child(&service.0));
    let scarce = Rlimit {
        current: Some(3),
        ..getrlimit(Resource::Nofile)
    };
    let plenty = prlimit(pid, Resource::Nofile, scarce).unwrap();
    let mut waiting = Peer::connect(at);
    let said = BufReader::new(service.0.stderr.take().unwrap());
    let mut lines = said.lines().map(|line| line.unwrap());
    let warning = lines.find(|line| line.contains("listener.accept-failed"));
    let warning = warning.expect("it says so");
    assert!(warning.contains("LimitNOFILE"), "the remedy: {warning}");
    assert!(before.ask("NOOP").starts_with("250"));
    prlimit(pid, Resource::Nofile, plenty).unwrap();
    assert!(waiting.line().contains("one.test"));
}

#[test]
fn mistakes_exit_with_1_and_ports_in_use_with_2() {
    let one = sink("one.test", Script::good());
    let manager = Manager::new();
    let (status, errors) = manager.run("nonsense = 1\n").wait();
    assert_eq!(status.code(), Some(1), "{errors}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|at| (at, taken)).unwrap();
    let (status, errors) = manager.run(&config(taken.0, &one, "")).wait();
    assert_eq!(status.code(), Some(2), "{errors}");
    let holder = format!("pid {}", std::process::id());
    assert!(errors.contains(&holder), "{errors}");
}

/// Every key of the unit, in order.
fn unit() -> (PathBuf, String, Vec<(String, String)>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/posthouse.service");
    let text = fs::read_to_string(&path).unwrap();
    let keys = text
        .lines()
        .filter(|line| !line.starts_with(['#', '[']) && !line.is_empty())
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line:?}")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    (path, text, keys)
}

#[test]
fn the_unit_says_what_the_program_needs() {
    let (_, _, keys) = unit();
    let value = |key: &str| -> Vec<&str> {
        let all = keys.iter().filter(|(name, _)| name == key);
        all.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(value("Type"), ["notify"]);
    assert_eq!(value("AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(value("DynamicUser"), ["yes"]);
    assert_eq!(value("RuntimeDirectory"), ["posthouse"], "for the socket");
    assert!(value("ExecReload").contains(&"/bin/kill -HUP $MAINPID"));
    assert!(value("WatchdogSec")[0].parse::<u32>().unwrap() >= 10);
    let default = posthouse::config::Config::for_host("mx.test").shutdown_timeout;
    let stop: u64 = value("TimeoutStopSec")[0].parse().unwrap();
    assert!(stop > default.as_secs(), "a drain must not be killed");
}

#[test]
fn systemd_finds_no_mistake_in_the_unit() {
    let (_, text, _) = unit();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("posthouse.service");
    let program = env!("CARGO_BIN_EXE_posthouse");
    fs::write(&copy, text.replace("/usr/local/bin/posthouse", program)).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output()
        .expect("systemd-analyze is there: tests/install.sh installs systemd");
    let said = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("posthouse.service"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}
