//! Ports for servers that must be told theirs in a configuration file.
//!
//! They lie below the kernel's ephemeral range, so no outgoing connection can take one between our
//! look and the server's bind; a lock file per port keeps parallel test processes apart.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::fcntl::{Flock, FlockArg};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
static TAKEN_SO_FAR: AtomicU16 = AtomicU16::new(0);

/// A loopback port that is ours until dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: Flock<File>,
}

impl Port {
    /// Takes a port that nobody listens on.
    pub(crate) fn take() -> Self {
        let folder = std::env::temp_dir().join("posthouse-ports");
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let start = (std::process::id() % u32::from(COUNT)) as u16;
        for _ in 0..COUNT {
            let step = TAKEN_SO_FAR.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_mul(37).wrapping_add(step) % COUNT;
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(number.to_string()))
                .expect("a lock file can be made");
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self {
                    number,
                    _lock: lock,
                };
            }
        }
        unreachable!("{COUNT} ports from {FIRST} are all taken");
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:port`.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// What one end of a loopback connection has not read; `None` if there is no such connection.
///
/// The kernel picks it out for `ss`: `/proc/net/tcp` has a line for each connection of the host that
/// ended in the last minute too, which are many behind a load.
pub(crate) fn unread_octets(local: u16, remote: u16) -> Option<u32> {
    let ends = format!("( sport = :{local} and dport = :{remote} )");
    let output = Command::new("ss")
        .args(["--tcp", "--numeric", "--no-header", "state", "established"])
        .arg(ends)
        .output()
        .expect("ss is installed: run tests/install.sh");
    let row = String::from_utf8_lossy(&output.stdout).into_owned();
    row.split_whitespace().next()?.parse().ok()
}
