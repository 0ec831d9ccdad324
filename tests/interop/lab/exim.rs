//! Exim (heavy, unpacked): takes mail into its spool and leaves it there.
//!
//! Nothing is delivered: a delivery re-executes the setuid binary, which then cannot see the unpacked
//! libraries. The log line `<=` is Exim's own word that it took the message.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::backend::{Backend, whole_files};
use super::process::Process;
use super::{Port, unpacked, unpacked_libraries, wait_for_line};

/// A running Exim with one plain port and one that wants a PROXY header.
#[derive(Debug)]
pub(crate) struct Exim {
    process: Process,
    plain: Port,
    proxy: Port,
    folder: tempfile::TempDir,
}

impl Exim {
    /// Starts it and waits for its greeting.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with further main options.
    pub(crate) fn start_with(options: &str) -> Self {
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
        let text = configuration(folder.path(), &plain, &proxy, options);
        std::fs::write(folder.path().join("exim.conf"), text).expect("our folder can be written");
        let process = launch(folder.path(), &plain);
        Self {
            process,
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
        wait_for_line("Exim", text, || self.log())
    }
}

/// Sends what an [`Exim`] has in its queue to another server.
///
/// A delivery executes Exim anew for each further message of a connection, as its own user. The copy
/// that it finds is not setuid, so that the loader does not forget the unpacked libraries.
#[derive(Debug)]
pub(crate) struct Sender {
    program: PathBuf,
    config: PathBuf,
}

impl Sender {
    /// Prepares the way from this queue to that server.
    pub(crate) fn of(exim: &Exim, server: SocketAddr) -> Self {
        let folder = exim.folder.path();
        let program = folder.join("exim4");
        std::fs::copy(unpacked("exim/usr/sbin/exim4"), &program).expect("a program is copied");
        std::fs::set_permissions(&program, Permissions::from_mode(0o755))
            .expect("our own file can be changed");
        let config = folder.join("sender.conf");
        let text = format!(
            "primary_hostname = exim.test\n\
             exim_path = {}\n\
             spool_directory = {folder}/spool\n\
             log_file_path = {folder}/log/%slog\n\
             keep_environment = LD_LIBRARY_PATH\n\
             deliver_drop_privilege = true\n\
             begin routers\n\
             all:\n\
             \x20 driver = manualroute\n\
             \x20 transport = out\n\
             \x20 route_list = * {}::{} byname\n\
             \x20 self = send\n\
             begin transports\n\
             out:\n\
             \x20 driver = smtp\n\
             \x20 hosts_avoid_tls = *\n",
            program.display(),
            server.ip(),
            server.port(),
            folder = folder.display(),
        );
        std::fs::write(&config, text).expect("our folder can be written");
        Self { program, config }
    }

    /// One run over the queue.
    pub(crate) fn run_queue(&self) {
        let output = Command::new(&self.program)
            .arg("-C")
            .arg(&self.config)
            .arg("-qqff")
            .env("LD_LIBRARY_PATH", unpacked_libraries("exim"))
            .output()
            .expect("Exim was copied");
        assert!(output.status.success(), "{output:?}");
    }
}

impl Backend for Exim {
    fn address(&self) -> SocketAddr {
        self.plain.address()
    }

    fn connections(&self) -> usize {
        self.log().matches("(TCP/IP connection count = ").count()
    }

    fn taken(&self) -> usize {
        self.log().matches(" <= ").count()
    }

    /// A file of its spool for the body, without the first line, which is the file's name.
    fn kept(&self) -> Vec<Vec<u8>> {
        let files = whole_files(&self.folder.path().join("spool/input"));
        let bodies = files.iter().filter(|file| {
            file.file_name()
                .is_some_and(|name| name.as_encoded_bytes().ends_with(b"-D"))
        });
        let read = |body: &PathBuf| {
            let file = std::fs::read(body).expect("a file of the spool can be read");
            let name = file.iter().position(|octet| *octet == b'\n');
            // No header: those are in a file of their own.
            let mut kept = b"\n".to_vec();
            kept.extend_from_slice(&file[name.expect("the first line is the name") + 1..]);
            kept
        };
        bodies.map(read).collect()
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.folder.path(), &self.plain);
    }
}

fn launch(folder: &Path, plain: &Port) -> Process {
    let mut command = Command::new(unpacked("exim/usr/sbin/exim4"));
    command
        .arg("-C")
        .arg(folder.join("exim.conf"))
        .arg("-bdf")
        .env("LD_LIBRARY_PATH", unpacked_libraries("exim"));
    Process::start_greeting("exim", command, &folder.join("output"), plain)
}

fn configuration(folder: &Path, plain: &Port, proxy: &Port, options: &str) -> String {
    let (folder, plain, proxy) = (folder.display(), plain.number(), proxy.number());
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
         acl_smtp_rcpt = all_but_one\n\
         {options}\
         begin acl\n\
         all_but_one:\n\
         \x20 deny local_parts = refused\n\
         \x20 accept\n\
         begin routers\n\
         sink:\n\
         \x20 driver = redirect\n\
         \x20 data = :blackhole:\n"
    )
}
