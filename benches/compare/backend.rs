//! Backends that can fail: sinks in processes of their own, so that they can be killed, stopped or
//! told to do what they were started for.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::support::client::{PATIENCE, wait_for_greeting};
use super::support::process::Process;
use super::support::{free_port, loopback};

/// A sink process at a loopback address.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) process: Process,
}

impl Backend {
    /// Three that begin to greet 421 when they are told to.
    pub(super) fn start_three() -> Result<Vec<Self>> {
        let start = |number: u16| Self::start(loopback(0x0c00 + number, free_port()?), &[]);
        (0..3).map(start).collect()
    }

    /// Starts one with these arguments behind its address, and waits until it greets.
    pub(super) fn start(address: SocketAddr, arguments: &[&OsStr]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["role", "sink", &address.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = Process::spawn(&mut command)?;
        wait_for_greeting(address, PATIENCE, || Ok(()))?;
        Ok(Self { address, process })
    }

    /// All with the same weight, as a setup wants them.
    pub(super) fn alike<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<(SocketAddr, u32)> {
        all.into_iter()
            .map(|backend| (backend.address, 1))
            .collect()
    }
}
