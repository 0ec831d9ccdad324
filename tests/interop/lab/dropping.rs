//! A filter in front of a server: octets that never arrive there, as at servers and devices that
//! leave NUL or CR out of what they read.
//!
//! It has a thread for each direction of a connection; they end with the connection, and the
//! process with the test.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::backend::Backend;

/// A server behind the filter.
#[derive(Debug)]
pub(crate) struct Dropping<B> {
    server: B,
    address: SocketAddr,
}

impl<B: Backend> Dropping<B> {
    /// Drops each of these octets on its way to `server`.
    pub(crate) fn before(server: B, dropped: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let behind = server.address();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a listener accepts");
                // As the server would, while it does not listen: no connection.
                if let Ok(server) = TcpStream::connect(behind) {
                    join(client, server, dropped);
                }
            }
        });
        Self { server, address }
    }
}

fn join(client: TcpStream, server: TcpStream, dropped: &'static [u8]) {
    let ends = (client.try_clone(), server.try_clone());
    let (Ok(client_again), Ok(server_again)) = ends else {
        return;
    };
    thread::spawn(move || copy(client, server, dropped));
    thread::spawn(move || copy(server_again, client_again, &[]));
}

/// Copies to the end of one direction, and passes that on.
fn copy(mut from: TcpStream, mut to: TcpStream, dropped: &[u8]) {
    let mut octets = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut octets) {
        let mut kept = octets[..read].to_vec();
        kept.retain(|octet| !dropped.contains(octet));
        if to.write_all(&kept).is_err() {
            break;
        }
    }
    // The other end may have closed before.
    let _ = to.shutdown(Shutdown::Write);
}

impl<B: Backend> Backend for Dropping<B> {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn connections(&self) -> usize {
        self.server.connections()
    }

    fn taken(&self) -> usize {
        self.server.taken()
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        self.server.kept()
    }

    fn restart(&mut self) {
        self.server.restart();
    }
}
