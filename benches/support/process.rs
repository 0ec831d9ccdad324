//! A process of ours: started, watched through /proc, signalled by its id, and ended on drop.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// How long a process may take to end after a signal.
const END_MAX: Duration = Duration::from_secs(30);
/// After this long the signal is sent again.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// A child process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

/// What a process tree holds in memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Pages nobody else has.
    pub(crate) private: u64,
    /// Private pages and the share of shared ones.
    pub(crate) proportional: u64,
}

/// Wraps a command so that it runs on one CPU only.
pub(crate) fn pinned(cpu: Option<usize>, program: &Path) -> Command {
    match cpu {
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string()]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Raises the descriptor limit of this process (children inherit it) to the hard one.
pub(crate) fn raise_descriptor_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("cannot raise the descriptor limit")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `Some` if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        send(self.id(), signal)
    }

    /// Signals and waits for the end.
    pub(crate) fn end_with(&mut self, signal: Signal) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        let began = Instant::now();
        while began.elapsed() < END_MAX {
            // nginx without a master can miss a signal that comes just before it goes to sleep.
            self.signal(signal)?;
            let asked = Instant::now();
            while asked.elapsed() < ASK_AGAIN {
                if let Some(status) = self.ended() {
                    return Ok(status);
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        bail!(
            "process {} did not end within {END_MAX:?} of {signal:?}",
            self.id()
        )
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// This process and all below it.
    pub(crate) fn tree(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = process_ids()
            .filter_map(|id| Some((id, parent(id)?)))
            .collect();
        let mut found = vec![self.id()];
        let mut next = 0;
        while let Some(&above) = found.get(next) {
            found.extend(
                parents
                    .iter()
                    .filter(|(_, up)| *up == above)
                    .map(|(id, _)| *id),
            );
            next += 1;
        }
        found
    }

    /// CPU time, as [`Process::cpu_ns`], of those processes that run a program of this name.
    pub(crate) fn cpu_ns_of_program(&self, name: &str) -> u64 {
        let runs = |id: &u32| {
            fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        self.tree().into_iter().filter(runs).map(cpu_ns_of).sum()
    }

    /// CPU time of all threads of the tree, in ns, net of stolen time.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.tree().into_iter().map(cpu_ns_of).sum()
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let mut sum = Memory::default();
        for id in self.tree() {
            let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))
                .with_context(|| format!("memory of process {id}"))?;
            let field = |name: &str| -> u64 {
                text.lines()
                    .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                    .sum::<u64>()
                    * 1024
            };
            sum.private += field("Private_Clean") + field("Private_Dirty");
            sum.proportional += field("Pss");
        }
        Ok(sum)
    }
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            for id in self.tree() {
                let _ = send(id, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn send(id: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(id).context("a process id fits an i32")?;
    let pid = Pid::from_raw(raw).context("process id 0")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {id}"))
}

/// Jiffies of all CPUs since boot: (stolen by the hypervisor, in all).
pub(crate) fn stolen_jiffies() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .filter_map(|field| field.parse().ok())
                .collect()
        })
        .unwrap_or_default();
    (
        fields.get(7).copied().unwrap_or_default(),
        fields.iter().take(8).sum(),
    )
}

/// A counter of the kernel's TCP statistics (`TcpExt`), for example `ListenDrops`.
pub(crate) fn tcp_statistic(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or_default()
}

fn process_ids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields begin behind the last one.
    stat.rsplit_once(") ")?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn cpu_ns_of(id: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    threads
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}
