//! What the comparison and the count gates share: the peers, the lock-step client and sink, and the
//! rulers (CPU time, system calls, instructions, allocations, memory).
//!
//! Nothing here is part of the product. Everything runs on loopback, as own processes out of one
//! folder, on ports below 32768 so that no ephemeral port can be in the way.
#![allow(dead_code, reason = "the bench and the gates each use a part of this")]

pub(crate) mod auth;
pub(crate) mod callgrind;
pub(crate) mod client;
pub(crate) mod configuration;
pub(crate) mod measure;
pub(crate) mod peer;
pub(crate) mod postfix;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod sink;
pub(crate) mod statistics;
pub(crate) mod syscalls;
pub(crate) mod tools;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// A port on which every loopback address is free now; below the ephemeral range.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let port = fastrand::u16(12_000..32_000);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 12000 and 32000 in 200 tries")
}

/// A loopback address by number: `loopback(0x0102, 25)` is 127.0.1.2:25.
pub(crate) fn loopback(number: u16, port: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 0, high, low), port))
}
