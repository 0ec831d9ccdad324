//! The parts this binary plays as a child process: a sink that can be killed or stopped, clients
//! that have a CPU of their own, and the small loop of picks that callgrind counts.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::pick;
use super::support::client::{Style, Work};
use super::support::measure;
use super::support::sink::{Behaviour, Fault, Sink};

/// `sink ADDRESS` serves until it is ended; SIGUSR1 makes it greet 421. `client …` sends messages.
/// `pick …`: see [`pick`].
pub(super) fn play(arguments: &[String]) -> Result<()> {
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["sink", address] => serve(address.parse().context("an address")?),
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

fn serve(address: SocketAddr) -> Result<()> {
    super::process::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut turn = signal(SignalKind::user_defined1())?;
        let behaviour = Behaviour {
            fault: Fault::Greeting421,
            ..Behaviour::good()
        };
        let sink = Sink::start(&[address], behaviour)?;
        while turn.recv().await.is_some() {
            sink.counts.fails.store(true, Ordering::Relaxed);
        }
        Ok(())
    })
}
