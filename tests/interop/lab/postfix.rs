//! Postfix: an instance of its own per test, mail discarded after it was queued.
//!
//! Needs root (master binds and changes user) and the account `postfix`. The default instance of the
//! machine is never touched: `postfix -c FOLDER` keeps configuration, queue, data and log apart.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use super::process::Process;
use super::tls::Certificate;
use super::{Client, Port, wait_for};

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

/// Services that every instance needs to take and discard mail.
const STOCK_SERVICES: &str = "\
smtpd      pass         -  -  n  -      -  smtpd
pickup     unix         n  -  n  60     1  pickup
cleanup    unix         n  -  n  -      0  cleanup
qmgr       unix         n  -  n  300    1  qmgr
tlsmgr     unix         -  -  n  1000?  1  tlsmgr
rewrite    unix         -  -  n  -      -  trivial-rewrite
bounce     unix         -  -  n  -      0  bounce
defer      unix         -  -  n  -      0  bounce
trace      unix         -  -  n  -      0  bounce
verify     unix         -  -  n  -      1  verify
flush      unix         n  -  n  1000?  0  flush
proxymap   unix         -  -  n  -      -  proxymap
discard    unix         -  -  n  -      -  discard
error      unix         -  -  n  -      -  error
retry      unix         -  -  n  -      -  error
anvil      unix         -  -  n  -      1  anvil
scache     unix         -  -  n  -      1  scache
postlog    unix-dgram   n  -  n  -      1  postlogd
tlsproxy   unix         -  -  n  -      0  tlsproxy
dnsblog    unix         -  -  n  -      0  dnsblog
";

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
        let folder = super::folder("postfix");
        let ports: Vec<Port> = services.iter().map(|_| Port::take()).collect();
        let config = folder.path().join("config");
        for name in ["config", "queue", "data"] {
            std::fs::create_dir(folder.path().join(name)).expect("our folder can be written");
        }
        let data = folder.path().join("data");
        let user = nix::unistd::User::from_name("postfix").ok().flatten();
        let user = user.expect("the account postfix exists: run tests/install.sh");
        std::os::unix::fs::chown(&data, Some(user.uid.as_raw()), None)
            .expect("tests of real servers run as root");
        let certificate = Certificate::self_signed("postfix.test", folder.path());
        std::fs::write(
            config.join("main.cf"),
            main_cf(&folder, networks, &certificate),
        )
        .expect("our folder can be written");
        std::fs::write(config.join("master.cf"), master_cf(services, &ports))
            .expect("our folder can be written");
        let mut command = Command::new("postfix");
        command.arg("-c").arg(&config).arg("start-fg");
        let mut process = Process::start("postfix", command, &folder.path().join("output"));
        let pid_file = folder.path().join("queue/pid/master.pid");
        wait_for("Postfix's master", || {
            process.assert_running();
            std::fs::read_to_string(&pid_file)
                .ok()
                .filter(|pid| !pid.trim().is_empty())
        });
        // The file is written before the last socket is bound. A connect to see would be a session
        // in the log, so the kernel is asked.
        wait_for("Postfix's listeners", || {
            ports
                .iter()
                .all(|port| is_listening(port.address()))
                .then_some(())
        });
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

    /// Waits until the first service greets a client.
    pub(crate) fn wait_until_it_greets(&self) {
        Client::greeted(self.address(0)).quit();
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
        wait_for(
            &format!("Postfix to log {text:?}; it logged:\n{}", self.log()),
            || {
                self.log()
                    .lines()
                    .find(|line| line.contains(text))
                    .map(str::to_owned)
            },
        )
    }

    /// Messages that were queued and discarded.
    pub(crate) fn messages(&self) -> usize {
        self.log().matches("status=sent (").count()
    }

    /// `kill -9` of master and all its processes.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}

fn main_cf(folder: &tempfile::TempDir, networks: &str, certificate: &Certificate) -> String {
    let folder = folder.path().display();
    let mut text = format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         maillog_file = {folder}/maillog\n\
         maillog_file_prefixes = /tmp\n\
         mynetworks = {networks}\n"
    );
    let _ = write!(
        text,
        "smtpd_tls_cert_file = {}\n\
         smtpd_tls_key_file = {}\n",
        certificate.certificate.display(),
        certificate.key.display(),
    );
    text.push_str(
        "myhostname = postfix.test\n\
         mydestination =\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         alias_maps =\n\
         alias_database =\n\
         default_transport = discard:\n\
         relay_transport = discard:\n\
         local_transport = discard:\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n\
         smtpd_peername_lookup = no\n\
         smtpd_client_event_limit_exceptions =\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_upstream_proxy_timeout = 5s\n\
         smtpd_forbid_bare_newline_exclusions =\n\
         smtpd_forbid_unauth_pipelining = yes\n\
         smtpd_tls_security_level = may\n\
         smtpd_tls_loglevel = 1\n",
    );
    text
}

fn master_cf(services: &[Service], ports: &[Port]) -> String {
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
    text.push_str(STOCK_SERVICES);
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
