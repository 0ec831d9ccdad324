//! Postfix: an instance of its own per test, mail discarded after it was queued.
//!
//! Needs root, and touches no other instance of the machine: see [`postfix_folder`].

#[path = "../../shared/postfix_folder.rs"]
mod postfix_folder;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::backend::{Backend, whole_files};
use super::process::Process;
use super::tls::Certificate;
use super::{Client, Port, wait_for, wait_for_line};

/// One line of `master.cf` that listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Service {
    program: Program,
    processes: Option<u8>,
    options: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Program {
    #[default]
    Smtpd,
    Postscreen,
}

impl Service {
    /// smtpd as it comes.
    pub(crate) fn plain() -> Self {
        Self::default()
    }

    /// smtpd that wants a PROXY header, v1 or v2.
    pub(crate) fn proxy() -> Self {
        Self::plain().with("smtpd_upstream_proxy_protocol=haproxy")
    }

    /// postscreen that wants a PROXY header and makes every client wait two seconds between `220-`
    /// and `220 `.
    pub(crate) fn postscreen() -> Self {
        Self {
            program: Program::Postscreen,
            processes: Some(1),
            options: Vec::new(),
        }
        .with("postscreen_upstream_proxy_protocol=haproxy")
        .with("postscreen_access_list=")
        .with("postscreen_greet_action=enforce")
        .with("postscreen_greet_wait=2s")
        .with("postscreen_cache_map=")
    }

    /// smtpd that refuses `refused@example.test` and puts every message on hold: a file of the queue
    /// that is complete before the reply to the final dot.
    pub(crate) fn keeping() -> Self {
        Self::plain()
            .with("{ smtpd_client_restrictions = check_client_access static:HOLD }")
            .with("smtpd_recipient_restrictions=check_recipient_access,inline:{refused@example.test=REJECT}")
    }

    /// smtpd with TLS from the first octet (port 465).
    pub(crate) fn wrapped_in_tls() -> Self {
        Self::plain().with("smtpd_tls_wrappermode=yes")
    }

    /// smtpd whose relay policy permits everything, which makes it refuse to start (rule S7).
    pub(crate) fn that_cannot_start() -> Self {
        Self::plain().with("smtpd_relay_restrictions=permit")
    }

    /// At most this many smtpd processes: further connections are accepted and never greeted.
    pub(crate) fn with_processes(mut self, processes: u8) -> Self {
        self.processes = Some(processes);
        self
    }

    /// A parameter of this service alone.
    pub(crate) fn with(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }
}

/// A running instance.
#[derive(Debug)]
pub(crate) struct Postfix {
    process: Process,
    ports: Vec<Port>,
    folder: tempfile::TempDir,
}

impl Postfix {
    /// Starts an instance in which loopback is trusted, as on many a real host (rule D11).
    pub(crate) fn start(services: &[Service]) -> Self {
        Self::start_trusting("127.0.0.0/8 203.0.113.0/24 198.51.100.0/24", services)
    }

    /// Starts an instance with these `mynetworks`, and waits until master listens.
    pub(crate) fn start_trusting(networks: &str, services: &[Service]) -> Self {
        Self::start_with(&format!("mynetworks = {networks}\n"), services)
    }

    /// Starts an instance that keeps what it takes, with options of its smtpd; it has greeted.
    pub(crate) fn keeping(options: &[&str]) -> Self {
        let service = Service::keeping();
        let service = options
            .iter()
            .fold(service, |service, option| service.with(option));
        let postfix = Self::start(&[service]);
        postfix.wait_until_it_greets();
        postfix
    }

    /// As [`keeping`](Self::keeping), with at most so many smtpd processes.
    pub(crate) fn keeping_with_processes(processes: u8) -> Self {
        let postfix = Self::start(&[Service::keeping().with_processes(processes)]);
        postfix.wait_until_it_greets();
        postfix
    }

    /// Starts an instance that relays what it takes to this server; it has greeted.
    pub(crate) fn relaying_to(server: SocketAddr) -> Self {
        let settings = format!(
            "mynetworks = 127.0.0.0/8\n\
             default_transport = smtp:[{}]:{}\n\
             smtp_connection_cache_on_demand = yes\n",
            server.ip(),
            server.port()
        );
        let postfix = Self::start_with(&settings, &[Service::plain()]);
        postfix.wait_until_it_greets();
        postfix
    }

    /// Starts an instance with further lines of `main.cf`, and waits until master listens.
    fn start_with(settings: &str, services: &[Service]) -> Self {
        let folder = super::folder("postfix");
        let ports: Vec<Port> = services.iter().map(|_| Port::take()).collect();
        let certificate = Certificate::self_signed("postfix.test", folder.path());
        let settings = own_settings(&certificate) + settings;
        postfix_folder::fill(folder.path(), &settings, &listeners(services, &ports))
            .expect("tests of real servers run as root, after tests/install.sh");
        let process = launch(folder.path(), &ports);
        Self {
            process,
            ports,
            folder,
        }
    }

    /// One smtpd without options, which has greeted.
    pub(crate) fn plain() -> Self {
        let postfix = Self::start(&[Service::plain()]);
        postfix.wait_until_it_greets();
        postfix
    }

    /// Waits until the first service greets a client, and has logged all about it.
    pub(crate) fn wait_until_it_greets(&self) {
        let sessions = self.log().matches(": disconnect from ").count();
        Client::greeted(self.address(0)).quit();
        wait_for("Postfix to log the session", || {
            let now = self.log().matches(": disconnect from ").count();
            (now > sessions).then_some(())
        });
    }

    /// Where the service with this place in the list listens.
    pub(crate) fn address(&self, service: usize) -> SocketAddr {
        self.ports[service].address()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        let file = self.folder.path().join("maillog");
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of the log with `text` in it.
    pub(crate) fn logged(&self, text: &str) -> String {
        wait_for_line("Postfix", text, || self.log())
    }

    /// Messages that were queued and discarded.
    pub(crate) fn messages(&self) -> usize {
        self.log().matches("status=sent (").count()
    }

    /// Messages that it sent on, by the reply it got.
    pub(crate) fn messages_sent(&self) -> usize {
        self.log().matches("status=sent (250 ").count()
    }

    /// `kill -9` of master and all its processes.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// `kill -9` of the processes that talk to clients; how many there were.
    pub(crate) fn kill_smtpd(&self) -> usize {
        self.process.kill_descendants("smtpd")
    }

    /// `kill -STOP` of all its processes.
    pub(crate) fn stop(&self) {
        self.process.stop();
    }

    /// `kill -CONT` of all its processes.
    pub(crate) fn resume(&self) {
        self.process.resume();
    }

    /// Complete files of the queue, those on hold and those on their way there.
    fn on_hold(&self) -> Vec<PathBuf> {
        let is_complete = |file: &PathBuf| {
            file.metadata()
                .is_ok_and(|data| data.permissions().mode() & 0o100 != 0)
        };
        let queue = self.folder.path().join("queue");
        // One that moves meanwhile is found in both.
        let files = ["incoming", "hold"].map(|name| whole_files(&queue.join(name)));
        let files = files.into_iter().flatten().filter(is_complete);
        let by_name: BTreeMap<_, _> = files
            .filter_map(|file| Some((file.file_name()?.to_owned(), file)))
            .collect();
        by_name.into_values().collect()
    }

    /// Those files as Postfix writes them: envelope and lines in records.
    pub(crate) fn raw_queue_files(&self) -> Vec<Vec<u8>> {
        wait_for("the queue to stand still", || {
            let files = self.on_hold();
            let files: std::io::Result<Vec<_>> = files.iter().map(std::fs::read).collect();
            files.ok()
        })
    }
}

/// What no Postfix of the suite may ever have seen from us (rule P6), probes included. Its clients
/// here wait for replies where they must, so only a balancer can have moved octets together.
impl Drop for Postfix {
    fn drop(&mut self) {
        let log = self.log();
        // A PROXY header to a listener that wants none: in version 2 NUL is behind `QUIT` (rule X13).
        let is_header = |line: &&str| line.contains("\\000") || line.contains(": PROXY TCP4 ");
        let mut lines = log.lines().filter(|line| !is_header(line));
        let improper = lines.find(|line| line.contains(IMPROPER_PIPELINING));
        if !std::thread::panicking() {
            assert_eq!(improper, None, "rule P6");
        }
    }
}

/// What Postfix logs when `smtpd_forbid_unauth_pipelining` has found something.
const IMPROPER_PIPELINING: &str = "improper command pipelining";

impl Backend for Postfix {
    fn address(&self) -> SocketAddr {
        Self::address(self, 0)
    }

    fn connections(&self) -> usize {
        self.log().matches(": connect from ").count()
    }

    fn taken(&self) -> usize {
        self.on_hold().len()
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        let config = self.folder.path().join("config");
        let files = self.on_hold();
        let show = |file: &PathBuf| {
            let output = Command::new("postcat")
                .arg("-c")
                .arg(&config)
                .args(["-h", "-b"])
                .arg(file)
                .output()
                .expect("postcat comes with Postfix");
            assert!(output.status.success(), "postcat: {output:?}");
            output.stdout
        };
        files.iter().map(show).collect()
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.folder.path(), &self.ports);
        self.wait_until_it_greets();
    }
}

fn launch(folder: &Path, ports: &[Port]) -> Process {
    let mut command = Command::new("postfix");
    command.arg("-c").arg(folder.join("config")).arg("start-fg");
    let mut process = Process::start("postfix", command, &folder.join("output"));
    let pid_file = folder.join("queue/pid/master.pid");
    wait_for("Postfix's master", || {
        process.assert_running();
        std::fs::read_to_string(&pid_file)
            .ok()
            .filter(|pid| !pid.trim().is_empty())
    });
    // The file is written before the last socket is bound. A connect to see would be a session in
    // the log, so the kernel is asked.
    wait_for("Postfix's listeners", || {
        process.assert_running();
        ports
            .iter()
            .all(|port| is_listening(port.address()))
            .then_some(())
    });
    process
}

/// What this suite wants beside the settings of every instance.
fn own_settings(certificate: &Certificate) -> String {
    format!(
        "smtpd_tls_cert_file = {}\n\
         smtpd_tls_key_file = {}\n\
         myhostname = postfix.test\n\
         smtpd_client_event_limit_exceptions =\n\
         smtpd_upstream_proxy_timeout = 5s\n\
         smtpd_forbid_bare_newline_exclusions =\n\
         smtpd_forbid_unauth_pipelining = yes\n\
         smtpd_tls_security_level = may\n\
         smtpd_tls_loglevel = 1\n",
        certificate.certificate.display(),
        certificate.key.display(),
    )
}

/// Those lines of `master.cf`.
fn listeners(services: &[Service], ports: &[Port]) -> String {
    let mut text = String::new();
    for (service, port) in services.iter().zip(ports) {
        let program = match service.program {
            Program::Smtpd => "smtpd",
            Program::Postscreen => "postscreen",
        };
        let processes = service
            .processes
            .map_or("-".to_owned(), |limit| limit.to_string());
        let _ = writeln!(
            text,
            "{} inet n - n - {processes} {program}",
            port.address()
        );
        for option in &service.options {
            let _ = writeln!(text, "    -o {option}");
        }
    }
    text
}

/// Whether a socket listens on this port, without connecting to it.
fn is_listening(address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    })
}
