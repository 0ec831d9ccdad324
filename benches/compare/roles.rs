//! The parts this binary plays as a child process: a sink that can be killed or stopped, and the
//! small loop of picks that callgrind counts.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::pick;
use super::support::sink::{Behaviour, Greeting, Sink};

/// `sink ADDRESS` serves until it is ended; SIGUSR1 makes it greet 421. `pick …`: see [`pick`].
pub(super) fn play(arguments: &[String]) -> Result<()> {
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["sink", address] => serve(address.parse().context("an address")?),
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
            greeting: Greeting::Good,
            greeting_delay: Duration::ZERO,
        };
        let sink = Sink::start(&[address], behaviour)?;
        while turn.recv().await.is_some() {
            sink.counts
                .busy
                .store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    })
}
