//! A server process with its children: started with its output in a file, stopped with its guard.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Client, Port};

/// How long a server may take to end after SIGTERM before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A running server; dropping it ends the server and everything it started.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` with its output at the end of `output`.
    pub(crate) fn start(name: &'static str, mut command: Command, output: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(output)
            .expect("the server's folder can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor can be doubled"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| {
                super::fail(&format!(
                    "{name} does not start: {error}; run tests/install.sh"
                ))
            });
        Self {
            name,
            child,
            output: output.to_owned(),
        }
    }

    /// The same, and waits until it greets on this port.
    pub(crate) fn start_greeting(
        name: &'static str,
        command: Command,
        output: &Path,
        port: &Port,
    ) -> Self {
        let greets = || Client::greeted_if_up(port.address()).map(Client::quit);
        Self::start_until(name, command, output, greets)
    }

    /// The same, and waits until it is ready.
    pub(crate) fn start_until(
        name: &'static str,
        command: Command,
        output: &Path,
        ready: impl Fn() -> Option<()>,
    ) -> Self {
        let mut process = Self::start(name, command, output);
        super::wait_for(&format!("{name} to be ready"), || {
            process.assert_running();
            ready()
        });
        process
    }

    /// What it wrote so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// Fails with its output if it has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            super::fail(&format!(
                "{} ended with {status}:\n{}",
                self.name,
                self.output()
            ));
        }
    }

    /// `kill -9` of the process and everything it started; returns when they are gone.
    pub(crate) fn kill(&mut self) {
        let family = self.stop();
        for process in &family {
            send(*process, Signal::KILL);
        }
        let _ = self.child.wait();
        super::wait_for("killed processes to be gone", || {
            family.iter().all(|process| is_gone(*process)).then_some(())
        });
    }

    /// `kill -STOP` of the process and everything it started, and who that is.
    pub(crate) fn stop(&self) -> Vec<u32> {
        // Until nobody is left who could have started another one meanwhile.
        let mut family = vec![self.child.id()];
        loop {
            for process in &family {
                send(*process, Signal::STOP);
            }
            let now: Vec<u32> = [self.child.id()]
                .into_iter()
                .chain(descendants(self.child.id()))
                .collect();
            if now.len() == family.len() {
                return family;
            }
            family = now;
        }
    }

    /// `kill -CONT` of the process and everything it started.
    pub(crate) fn resume(&self) {
        for process in descendants(self.child.id()) {
            send(process, Signal::CONT);
        }
        send(self.child.id(), Signal::CONT);
    }

    /// `kill -9` of those that it started whose program has this name; how many there were.
    pub(crate) fn kill_descendants(&self, name: &str) -> usize {
        let of_that_name = |process: &u32| {
            std::fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|comm| comm.trim_end() == name)
        };
        let family = descendants(self.child.id()).into_iter();
        let chosen: Vec<u32> = family.filter(of_that_name).collect();
        for process in &chosen {
            send(*process, Signal::KILL);
        }
        chosen.len()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Daemons that supervise (Postfix's master) end their children on SIGTERM; a shell in
        // between does not pass it on, so the whole family is told, oldest first.
        let family = descendants(self.child.id());
        send(self.child.id(), Signal::TERM);
        for process in &family {
            send(*process, Signal::TERM);
        }
        let start = Instant::now();
        while !matches!(self.child.try_wait(), Ok(Some(_))) {
            if start.elapsed() > STOP_PATIENCE {
                self.kill();
                break;
            }
            std::thread::sleep(super::LOOK_AGAIN);
        }
        for process in family {
            send(process, Signal::KILL);
        }
    }
}

fn send(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        // It may have ended by itself meanwhile, which is what we want.
        let _ = kill_process(pid, signal);
    }
}

/// Everything that `ancestor` started, directly or not, oldest generation first.
pub(crate) fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parent_of(pid)?)))
        .collect();
    let mut family = vec![ancestor];
    let mut looked_at = 0;
    while looked_at < family.len() {
        let parent = family[looked_at];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        looked_at += 1;
    }
    family.split_off(1)
}

/// Whether it holds nothing open any more; it may still wait to be reaped.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_none_or(|(_, rest)| rest.starts_with(" Z"))
}

/// The fourth field of `/proc/PID/stat`, behind the name in parentheses.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
