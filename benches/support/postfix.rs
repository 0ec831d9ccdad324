//! Real Postfix as a backend: an instance of its own, mail discarded after it was queued.
//!
//! Needs root, and touches no other instance of the machine: see [`postfix_folder`].

#[path = "../../tests/shared/postfix_folder.rs"]
mod postfix_folder;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::client::{PATIENCE, wait_for_greeting};
use super::process::Process;
use super::{free_port, loopback, tools};

/// Beside those of every instance. Its processes do not retire, so that what they cost can be read
/// at any time.
const SETTINGS: &str = "\
mynetworks = 127.0.0.0/8
myhostname = postfix.example
max_use = 1000000
max_idle = 3600s
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
        fs::create_dir_all(&folder)?;
        let listener = format!("{address} inet n - n - - smtpd\n");
        postfix_folder::fill(&folder, SETTINGS, &listener).context("a Postfix of its own")?;
        let output = fs::File::create(folder.join("output.log"))?;
        let mut command = Command::new(tools::POSTFIX.ensure()?);
        command
            .arg("-c")
            .arg(folder.join("config"))
            .arg("start-fg")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut process = Process::spawn(&mut command)?;
        wait_for_greeting(address, PATIENCE, || match process.ended() {
            Some(status) => {
                let said = fs::read_to_string(folder.join("output.log"))?;
                bail!("Postfix ended ({status}): {said}")
            }
            None => Ok(()),
        })?;
        Ok(Self {
            address,
            folder,
            process,
        })
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
