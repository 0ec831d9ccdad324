//! What nginx's mail module asks for every session where its mail goes: an `auth_http` endpoint.
//!
//! A thread of its own process, so that what it costs is not counted as nginx's; it names the
//! backends in turn.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::client::PATIENCE;

/// Answers until dropped.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Auth {
    /// Answers with these backends, on this CPU if one is given.
    pub(crate) fn start(backends: Vec<SocketAddr>, cpu: Option<usize>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, super::free_port()?))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("auth".to_owned())
            .spawn(move || {
                if let Some(cpu) = cpu {
                    let mut set = CpuSet::new();
                    set.set(cpu);
                    // Where it cannot be pinned it only disturbs a little more.
                    let _ = sched_setaffinity(None, &set);
                }
                let mut turns = backends.iter().cycle();
                while !stopped.load(Ordering::Acquire) {
                    if let (Ok((stream, _)), Some(backend)) = (listener.accept(), turns.next()) {
                        // A client that goes is no fault of ours.
                        let _ = answer(stream, *backend);
                    }
                }
            })?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Auth {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, backend: SocketAddr) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut asked = [0; 4096];
    let mut filled = 0;
    while !asked[..filled].ends_with(b"\r\n\r\n") {
        let octets = stream.read(&mut asked[filled..])?;
        if octets == 0 {
            return Ok(());
        }
        filled += octets;
    }
    let (server, port) = (backend.ip(), backend.port());
    let reply = format!(
        "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: {server}\r\nAuth-Port: {port}\r\n\r\n"
    );
    stream.write_all(reply.as_bytes())
}
