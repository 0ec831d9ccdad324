//! The parts this binary plays as a child process: a sink that can be killed or stopped, clients
//! that have a CPU of their own, and the small loop of picks that callgrind counts.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::pick;
use super::support::client::{Style, Work};
use super::support::measure;
use super::support::sink::{Behaviour, Fault, Pipelining, Sink};

/// `sink ADDRESS [FAULT JOURNAL]` serves until it is ended; SIGUSR1 makes it fail (greet 421).
/// `client …` sends messages. `pick …`: see [`pick`].
pub(super) fn play(arguments: &[String]) -> Result<()> {
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["sink", address] => serve(address.parse()?, Behaviour::good()),
        ["sink", address, fault, journal] => {
            let fault = Fault::ALL.into_iter().find(|known| known.name() == *fault);
            let behaviour = Behaviour {
                fault: fault.context("a fault")?,
                pipelining: Pipelining::Announced,
                journal: Some(journal.into()),
                ..Behaviour::good()
            };
            serve(address.parse()?, behaviour)
        }
        ["client", to, sessions, at_once, messages, octets, style] => {
            let style = Style::ALL.into_iter().find(|known| known.name() == *style);
            let work =
                Work::new(messages.parse()?, octets.parse()?).spoken(style.context("a style")?);
            let to: SocketAddr = to.parse()?;
            measure::sessions_at_once(|_| to, &work, sessions.parse()?, at_once.parse()?)
        }
        ["pick", policy, backends, picks] => pick::play(policy, backends.parse()?, picks.parse()?),
        other => bail!("no such role: {other:?}"),
    }
}

fn serve(address: SocketAddr, behaviour: Behaviour) -> Result<()> {
    super::process::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut turn = signal(SignalKind::user_defined1())?;
        let sink = Sink::start(&[address], behaviour)?;
        while turn.recv().await.is_some() {
            sink.counts.fails.store(true, Ordering::Relaxed);
        }
        Ok(())
    })
}
