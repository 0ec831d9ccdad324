//! Real Postfix as a backend: an instance of its own, mail discarded after it was queued.
//!
//! Needs root (master binds and changes user). The default instance of the machine is never touched:
//! `postfix -c FOLDER` keeps configuration, queue, data and log apart. Its processes do not retire
//! (`max_use`, `max_idle`), so that what they cost can be read at any time.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::client::{Client, PATIENCE};
use super::process::Process;
use super::{free_port, loopback, tools};

/// Services that an instance needs to take and discard mail.
const SERVICES: &str = "\
pickup     unix         n  -  n  60     1  pickup
cleanup    unix         n  -  n  -      0  cleanup
qmgr       unix         n  -  n  300    1  qmgr
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
";

/// A running instance; ends when dropped.
#[derive(Debug)]
pub(crate) struct Postfix {
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    process: Process,
}

impl Postfix {
    /// Starts the instance with this number and waits until it greets.
    pub(crate) fn start(folder: &Path, number: u16) -> Result<Self> {
        tools::POSTFIX.ensure()?;
        let address = loopback(0x0d00 + number, free_port()?);
        let folder = folder.join(format!("postfix-{number}-{}", address.port()));
        let config = folder.join("config");
        for name in ["config", "queue", "data"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let user = account("postfix")?;
        chown(folder.join("data"), Some(user), None).context("a Postfix of its own needs root")?;
        fs::write(config.join("main.cf"), main_cf(&folder))?;
        let listener = format!("{address} inet n - n - - smtpd\n");
        fs::write(config.join("master.cf"), listener + SERVICES)?;
        let output = fs::File::create(folder.join("output.log"))?;
        let mut command = Command::new(tools::POSTFIX.ensure()?);
        command
            .arg("-c")
            .arg(&config)
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut process = Process::spawn(&mut command)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = process.ended() {
                let said = fs::read_to_string(folder.join("output.log"))?;
                bail!("Postfix ended ({status}): {said}");
            }
            if let Ok(client) = Client::connect(address, PATIENCE) {
                client.quit()?;
                return Ok(Self {
                    address,
                    folder,
                    process,
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("Postfix does not greet on {address}")
    }

    /// CPU time of all its smtpd processes so far, in ns.
    pub(crate) fn smtpd_cpu_ns(&self) -> u64 {
        self.process.cpu_ns_of_program("smtpd")
    }

    /// Waits until everything it took has been delivered.
    pub(crate) fn drain(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_mins(1) {
            let left: usize = ["maildrop", "incoming", "active"]
                .iter()
                .map(|queue| self.folder.join("queue").join(queue))
                .filter_map(|queue| fs::read_dir(queue).ok())
                .map(Iterator::count)
                .sum();
            if left == 0 {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("Postfix at {} does not deliver", self.address)
    }
}

fn main_cf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         maillog_file = {folder}/maillog\n\
         maillog_file_prefixes = {folder}\n\
         mynetworks = 127.0.0.0/8\n\
         myhostname = postfix.example\n\
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
         smtpd_client_connection_count_limit = 0\n\
         max_use = 1000000\n\
         max_idle = 3600s\n"
    )
}

fn account(name: &str) -> Result<u32> {
    fs::read_to_string("/etc/passwd")?
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(":x:"))
        .find_map(|rest| rest.split(':').next()?.parse().ok())
        .with_context(|| format!("no account {name}"))
}
