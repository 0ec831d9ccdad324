//! The counting measurements that both the comparison and the gates make.
//!
//! All are slopes between less and more of the same work, so that start-up and whatever does not
//! grow with sessions cancels out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::callgrind::{self, Counted};
use super::client::{self, Client, PATIENCE, Work};
use super::peer::{Health, Kind, Logs, Peer, Run, Setup};
use super::process::Memory;
use super::sink::{Behaviour, Sink};
use super::statistics::{median, slope};
use super::syscalls;
use super::{free_port, loopback};

/// Backends in front of which every peer stands; all are the one sink.
const BACKENDS: u16 = 4;

/// Sessions that go on at the same time where instructions are counted.
pub(crate) const AT_ONCE: u32 = 32;

/// What every measurement needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) folder: PathBuf,
    pub(crate) posthouse: PathBuf,
}

/// What one session costs by count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Instructions {
    pub(crate) per_session: f64,
    pub(crate) allocations: f64,
    /// The functions that cost most, per session.
    pub(crate) top: Vec<(String, f64)>,
}

impl Bench {
    pub(crate) fn setup(&self, port: u16, run: Run) -> Setup {
        Setup {
            folder: self.folder.clone(),
            posthouse: self.posthouse.clone(),
            backends: (0..BACKENDS)
                .map(|number| (loopback(0x0a00 + number, port), 1))
                .collect(),
            logs: Logs::Off,
            health: Health::Off,
            run,
            cpu: None,
        }
    }

    /// System calls per lock-step session, and which: counted with perf, named by strace. A traced
    /// process is slow, so that its timers would weigh more than they do.
    pub(crate) fn session_syscalls(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
    ) -> Result<(f64, String)> {
        let (_sink, port) = start_sink(&Behaviour::lock_step())?;
        let peer = Peer::start(kind, &self.setup(port, Run::Plain))?;
        let (process, folder) = (peer.running()?, peer.folder());
        let traced = |sessions: u32| {
            syscalls::traced(process, folder, || sessions_in_turn(&peer, work, sessions))
        };
        let counted = |sessions: u32| -> Result<f64> {
            let work = || sessions_in_turn(&peer, work, sessions);
            Ok(syscalls::counted(process, folder, work)? as f64)
        };
        let (few, many) = (traced(counts.0)?, traced(counts.1)?);
        let which = syscalls::describe(&few, &many, counts.1 - counts.0);
        let per_session = slope(
            (counts.0, counted(counts.0)?),
            (counts.1, counted(counts.1)?),
        );
        Ok((per_session, which))
    }

    /// System calls of a session with one long message: the middle of several, with perf, because a
    /// traced proxy is slow and finds larger chunks.
    pub(crate) fn bulk_syscalls(&self, kind: Kind, octets: usize, times: usize) -> Result<f64> {
        let (_sink, port) = start_sink(&Behaviour::lock_step())?;
        let peer = Peer::start(kind, &self.setup(port, Run::Plain))?;
        let work = Work::new(1, octets);
        let mut counts = Vec::new();
        for _ in 0..times {
            let count = syscalls::counted(peer.running()?, peer.folder(), || {
                sessions_in_turn(&peer, &work, 1)
            })?;
            counts.push(count as f64);
        }
        Ok(median(&counts))
    }

    /// User instructions and allocations per session: the slope between two runs under callgrind.
    pub(crate) fn instructions(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
        at_once: u32,
    ) -> Result<Instructions> {
        let few = self.counted(kind, work, counts.0, at_once)?;
        let many = self.counted(kind, work, counts.1, at_once)?;
        let per = |of: fn(&Counted) -> u64| {
            slope((counts.0, of(&few) as f64), (counts.1, of(&many) as f64))
        };
        Ok(Instructions {
            per_session: per(|counted| counted.instructions),
            allocations: per(|counted| counted.allocations),
            top: callgrind::growth(&few, &many, counts.1 - counts.0, 25),
        })
    }

    fn counted(&self, kind: Kind, work: &Work, sessions: u32, at_once: u32) -> Result<Counted> {
        let (_sink, port) = start_sink(&Behaviour::good())?;
        let peer = Peer::start(kind, &self.setup(port, Run::Callgrind))?;
        sessions_at_once(&peer, work, sessions, at_once)?;
        let folder = peer.folder().to_owned();
        peer.stop()?;
        callgrind::read(&folder)
    }

    /// Memory per session that sits idle after EHLO: the slope between two numbers of them.
    pub(crate) fn idle_memory(&self, kind: Kind, counts: (u32, u32)) -> Result<(f64, f64)> {
        let (_sink, port) = start_sink(&Behaviour::good())?;
        let peer = Peer::start(kind, &self.setup(port, Run::Plain))?;
        let mut held: Vec<Client> = Vec::new();
        let mut grow_to = |sessions: u32| -> Result<Memory> {
            while held.len() < sessions as usize {
                let number = u16::try_from(held.len() % 16).context("below 16")?;
                let mut client = Client::connect(peer.address(number + 1), PATIENCE)
                    .with_context(|| format!("idle session {}", held.len()))?;
                client.command(b"EHLO client.example\r\n", *b"250")?;
                held.push(client);
            }
            peer.running()?.memory()
        };
        let (few, many) = (grow_to(counts.0)?, grow_to(counts.1)?);
        let per = |of: fn(&Memory) -> u64| {
            slope((counts.0, of(&few) as f64), (counts.1, of(&many) as f64))
        };
        Ok((
            per(|memory| memory.private),
            per(|memory| memory.proportional),
        ))
    }
}

/// A sink on every loopback address of a free port.
pub(crate) fn start_sink(behaviour: &Behaviour) -> Result<(Sink, u16)> {
    let mut tries = 0;
    loop {
        let port = free_port()?;
        match Sink::start(&[([0, 0, 0, 0], port).into()], behaviour.clone()) {
            Ok(sink) => return Ok((sink, port)),
            Err(_) if tries < 3 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Sessions one after the other.
pub(crate) fn sessions_in_turn(peer: &Peer, work: &Work, sessions: u32) -> Result<()> {
    for session in 0..sessions {
        let number = u16::try_from(session % 16).context("below 16")? + 1;
        client::run_session(peer.address(number), work)
            .with_context(|| format!("session {session} through {}", peer.kind))?;
    }
    Ok(())
}

/// So many sessions in all, of which so many go on at the same time, as smtp-source does.
fn sessions_at_once(peer: &Peer, work: &Work, sessions: u32, at_once: u32) -> Result<()> {
    let left = AtomicU32::new(sessions);
    let one = |number: u16| -> Result<()> {
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        while take().is_ok() {
            client::run_session(peer.address(number), work)
                .with_context(|| format!("a session through {}", peer.kind))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..at_once)
            .map(|number| u16::try_from(number % 16).map(|number| number + 1))
            .map(|number| number.map(|number| scope.spawn(move || one(number))))
            .collect::<Result<_, _>>()?;
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}

/// Fails with the whole text of what was found, so that a gate's message needs no rerun.
pub(crate) fn at_most(what: &str, found: f64, budget: f64, detail: &str) -> Result<()> {
    ensure!(
        found <= budget,
        "{what}: {found:.1}, budget {budget}\n{detail}"
    );
    eprintln!("{what}: {found:.1} (budget {budget})");
    Ok(())
}
