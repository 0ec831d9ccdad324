//! HAProxy in front of us, as a TCP proxy that tells the client's address with PROXY v2.

use std::net::SocketAddr;
use std::process::Command;

use super::process::Process;
use super::{Client, Port, wait_for};

/// A running HAProxy.
#[derive(Debug)]
pub(crate) struct Haproxy {
    _process: Process,
    port: Port,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    /// Starts it in front of `server`, with `send-proxy-v2`.
    pub(crate) fn in_front_of(server: SocketAddr) -> Self {
        let folder = super::folder("haproxy");
        let port = Port::take();
        let config = folder.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n\
             \x20 mode tcp\n\
             \x20 timeout connect 5s\n\
             \x20 timeout client 60s\n\
             \x20 timeout server 60s\n\
             listen smtp\n\
             \x20 bind {}\n\
             \x20 server posthouse {server} send-proxy-v2\n",
            port.address()
        );
        std::fs::write(&config, text).expect("our folder can be written");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&config);
        let mut process = Process::start("haproxy", command, &folder.path().join("output"));
        wait_for("HAProxy to listen", || {
            process.assert_running();
            Client::dial(port.address()).ok()
        });
        Self {
            _process: process,
            port,
            _folder: folder,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }
}
