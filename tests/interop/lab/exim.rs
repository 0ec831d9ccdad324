//! Exim (heavy, unpacked): takes mail into its spool and leaves it there.
//!
//! Nothing is delivered: a delivery re-executes the setuid binary, which then cannot see the unpacked
//! libraries. The log line `<=` is Exim's own word that it took the message.

use std::net::SocketAddr;
use std::process::Command;

use super::process::Process;
use super::{Client, Port, unpacked, unpacked_libraries, wait_for};

/// A running Exim with one plain port and one that wants a PROXY header.
#[derive(Debug)]
pub(crate) struct Exim {
    _process: Process,
    plain: Port,
    proxy: Port,
    folder: tempfile::TempDir,
}

impl Exim {
    /// Starts it and waits for its greeting.
    pub(crate) fn start() -> Self {
        let folder = super::folder("exim");
        let (plain, proxy) = (Port::take(), Port::take());
        let user = nix::unistd::User::from_name("Debian-exim").ok().flatten();
        let user = user.expect("the account Debian-exim exists: run tests/install.sh");
        for name in ["spool", "log"] {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).expect("our folder can be written");
            std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .expect("tests of real servers run as root");
        }
        let config = folder.path().join("exim.conf");
        std::fs::write(&config, configuration(&folder, &plain, &proxy))
            .expect("our folder can be written");
        let mut command = Command::new(unpacked("exim/usr/sbin/exim4"));
        command
            .arg("-C")
            .arg(&config)
            .arg("-bdf")
            .env("LD_LIBRARY_PATH", unpacked_libraries("exim"));
        let mut process = Process::start("exim", command, &folder.path().join("output"));
        wait_for("Exim to greet", || {
            process.assert_running();
            Client::greeted_if_up(plain.address()).map(Client::quit)
        });
        Self {
            _process: process,
            plain,
            proxy,
            folder,
        }
    }

    /// The port without PROXY.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.plain.address()
    }

    /// The port that wants a PROXY header.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// The main log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log/mainlog")).unwrap_or_default()
    }

    /// Waits for a line of the log with `text` in it.
    pub(crate) fn logged(&self, text: &str) -> String {
        wait_for(&format!("Exim to log {text:?}"), || {
            self.log()
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        })
    }
}

fn configuration(folder: &tempfile::TempDir, plain: &Port, proxy: &Port) -> String {
    let (folder, plain, proxy) = (folder.path().display(), plain.number(), proxy.number());
    format!(
        "primary_hostname = exim.test\n\
         spool_directory = {folder}/spool\n\
         log_file_path = {folder}/log/%slog\n\
         pid_file_path = {folder}/exim.pid\n\
         local_interfaces = <; 127.0.0.1\n\
         daemon_smtp_ports = {plain} : {proxy}\n\
         hosts_proxy = ${{if eq{{$received_port}}{{{proxy}}}{{127.0.0.0/8}}{{}}}}\n\
         tls_advertise_hosts =\n\
         smtp_accept_max = 0\n\
         host_lookup =\n\
         rfc1413_query_timeout = 0s\n\
         log_selector = +smtp_connection\n\
         queue_only = true\n\
         keep_environment =\n\
         acl_smtp_rcpt = accept_all\n\
         begin acl\n\
         accept_all:\n\
         \x20 accept\n\
         begin routers\n\
         sink:\n\
         \x20 driver = redirect\n\
         \x20 data = :blackhole:\n"
    )
}
