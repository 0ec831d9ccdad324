//! Where the demo listens: the usual ports, or free ones with a word about it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::anyhow;

use crate::cli::address::bind_remedy;
use crate::types::in_words;

/// The usual ports.
const LISTEN: u16 = 2525;
const ADMIN: u16 = 8025;

/// The addresses of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Of the balancer.
    pub(super) listen: SocketAddr,
    /// Of the status endpoint.
    pub(super) admin: SocketAddr,
    /// A sentence for each usual port that was taken.
    pub(super) notes: Vec<String>,
}

impl Places {
    /// A port that was asked for is used or refused; a usual one gives way to a free one.
    pub(super) fn choose(port: Option<u16>, admin: Option<u16>) -> anyhow::Result<Self> {
        let mut notes = Vec::new();
        let listen = place(port, LISTEN, "the balancer", &mut notes)?;
        let admin = place(admin, ADMIN, "the status page", &mut notes)?;
        Ok(Self {
            listen,
            admin,
            notes,
        })
    }
}

fn place(
    asked: Option<u16>,
    usual: u16,
    what: &str,
    notes: &mut Vec<String>,
) -> anyhow::Result<SocketAddr> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let wanted = loopback(asked.unwrap_or(usual));
    // A bind without SO_REUSEPORT: another process on the port is always found.
    let free = |address: SocketAddr| TcpListener::bind(address)?.local_addr();
    match free(wanted) {
        Ok(address) => Ok(address),
        Err(error) if asked.is_some() => Err(refused(wanted, &error)),
        Err(_) => {
            let address = free(loopback(0)).map_err(|error| refused(loopback(0), &error))?;
            notes.push(format!(
                "port {usual} is taken by another program: {what} is on {address}"
            ));
            Ok(address)
        }
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let words = in_words(error);
    match bind_remedy(error) {
        Some(remedy) => anyhow!("cannot listen on {address}: {words} ({remedy})"),
        None => anyhow!("cannot listen on {address}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_usual_port_gives_way_and_an_asked_one_does_not() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut notes = Vec::new();
        let address = place(None, port, "the balancer", &mut notes).unwrap();
        assert_ne!(address.port(), port);
        assert!(notes[0].contains("is taken"), "{notes:?}");
        let error = place(Some(port), LISTEN, "the balancer", &mut notes).unwrap_err();
        assert!(error.to_string().contains("ss -ltnp"), "{error}");
    }
}
