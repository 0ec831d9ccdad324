//! The counting measurements that both the comparison and the gates make.
//!
//! All are slopes between less and more of the same work, so that start-up and whatever does not
//! grow with sessions cancels out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::callgrind::{self, Counted};
use super::client::{self, Client, PATIENCE, Style, Work};
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

    /// System calls per lock-step session, and which.
    pub(crate) fn session_syscalls(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
    ) -> Result<(f64, String)> {
        let run = |peer: &Peer, sessions| sessions_in_turn(peer, work, sessions);
        self.syscalls(kind, &Behaviour::lock_step(), counts, run)
    }

    /// System calls per message on a kept session, and which; the sink takes groups of commands.
    pub(crate) fn message_syscalls(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
    ) -> Result<(f64, String)> {
        let run = |peer: &Peer, messages| messages_in_turn(peer, work, messages);
        self.syscalls(kind, &Behaviour::pipelining(), counts, run)
    }

    /// Counted with perf, named by strace: a traced process is slow, so that its timers would weigh
    /// more than they do.
    fn syscalls(
        &self,
        kind: Kind,
        behaviour: &Behaviour,
        counts: (u32, u32),
        run: impl Fn(&Peer, u32) -> Result<()>,
    ) -> Result<(f64, String)> {
        let (_sink, port) = start_sink(behaviour)?;
        let peer = Peer::start(kind, &self.setup(port, Run::Plain))?;
        let (process, folder) = (peer.running()?, peer.folder());
        // Once uncounted: the first session finds no kept connection.
        run(&peer, 1)?;
        let traced = |units: u32| syscalls::traced(process, folder, || run(&peer, units));
        let counted = |units: u32| -> Result<f64> {
            Ok(syscalls::counted(process, folder, || run(&peer, units))? as f64)
        };
        let (few, many) = (traced(counts.0)?, traced(counts.1)?);
        let which = syscalls::describe(&few, &many, counts.1 - counts.0);
        let per_unit = slope(
            (counts.0, counted(counts.0)?),
            (counts.1, counted(counts.1)?),
        );
        Ok((per_unit, which))
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
        self.instructions_of(kind, &Behaviour::good(), counts, |peer, sessions| {
            sessions_at_once(|number| peer.address(number), work, sessions, at_once)
        })
    }

    /// The same per message on a kept session; the sink takes groups of commands.
    pub(crate) fn message_instructions(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
    ) -> Result<Instructions> {
        self.instructions_of(kind, &Behaviour::pipelining(), counts, |peer, messages| {
            messages_in_turn(peer, work, messages)
        })
    }

    /// The same per session, of a message each; the sink takes groups of commands.
    pub(crate) fn mail_session_instructions(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
    ) -> Result<Instructions> {
        self.instructions_of(kind, &Behaviour::pipelining(), counts, |peer, sessions| {
            sessions_in_turn(peer, work, sessions)
        })
    }

    fn instructions_of(
        &self,
        kind: Kind,
        behaviour: &Behaviour,
        counts: (u32, u32),
        run: impl Fn(&Peer, u32) -> Result<()>,
    ) -> Result<Instructions> {
        let counted = |units: u32| -> Result<Counted> {
            let (_sink, port) = start_sink(behaviour)?;
            let peer = Peer::start(kind, &self.setup(port, Run::Callgrind))?;
            run(&peer, units)?;
            let folder = peer.folder().to_owned();
            peer.stop()?;
            callgrind::read(&folder)
        };
        let (few, many) = (counted(counts.0)?, counted(counts.1)?);
        let per = |of: fn(&Counted) -> u64| {
            slope((counts.0, of(&few) as f64), (counts.1, of(&many) as f64))
        };
        Ok(Instructions {
            per_session: per(|counted| counted.instructions),
            allocations: per(|counted| counted.allocations),
            top: callgrind::growth(&few, &many, counts.1 - counts.0, 25),
        })
    }

    /// Memory per session that sits idle after `work` (of no message: after EHLO): the slope between
    /// two numbers of them, private and proportional.
    pub(crate) fn idle_memory(
        &self,
        kind: Kind,
        work: &Work,
        counts: (u32, u32),
    ) -> Result<(f64, f64)> {
        let (_sink, port) = start_sink(&Behaviour::good())?;
        let peer = Peer::start(kind, &self.setup(port, Run::Plain))?;
        let mut held: Vec<Client> = Vec::new();
        let mut grow_to = |sessions: u32| -> Result<Memory> {
            while held.len() < sessions as usize {
                let number = u16::try_from(held.len() % 16).context("below 16")?;
                let mut client = Client::connect(peer.address(number + 1), PATIENCE)
                    .with_context(|| format!("idle session {}", held.len()))?;
                client.hello(Style::Ehlo)?;
                for _ in 0..work.messages {
                    client.message(work)?;
                }
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

/// One session with so many messages.
fn messages_in_turn(peer: &Peer, work: &Work, messages: u32) -> Result<()> {
    let mut work = work.clone();
    work.messages = messages;
    client::run_session(peer.address(1), &work)
        .with_context(|| format!("{messages} messages through {}", peer.kind))
}

/// So many sessions in all, of which so many go on at the same time, as smtp-source does. `to` says
/// where the client with a number goes.
pub(crate) fn sessions_at_once(
    to: impl Fn(u16) -> SocketAddr + Sync,
    work: &Work,
    sessions: u32,
    at_once: u32,
) -> Result<()> {
    let left = AtomicU32::new(sessions);
    let one = |number: u16| -> Result<()> {
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        while take().is_ok() {
            let at = to(number);
            client::run_session(at, work).with_context(|| format!("a session to {at}"))?;
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
