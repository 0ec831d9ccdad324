//! Addresses as they are typed, and what to do when one cannot be bound.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where to listen: `ADDRESS:PORT`, or a port of 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenAddress(pub(super) SocketAddr);

/// A mail server: host name or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    /// A name or an address without brackets.
    pub(super) host: String,
    /// The port; 25 if none was typed.
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("write ADDRESS:PORT, for example 127.0.0.1:2526 or [::1]:2526, or a port alone")]
    Listen,
    #[error("write HOST:PORT, for example mx1.example:25 or [2001:db8::1]:25")]
    Host,
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if let Ok(port) = port.parse::<u16>() {
            return Ok(Self(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
        text.parse().map(Self).map_err(|_| AddressError::Listen)
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::of(&address.ip().to_string(), address.port()));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(Self::of(bare, 25));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| AddressError::Host)?),
            None => (text, 25),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(is_name) || port == 0 {
            return Err(AddressError::Host);
        }
        Ok(Self::of(host, port))
    }
}

impl HostPort {
    fn of(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

/// What to do when binding failed.
pub(super) fn bind_remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::AddrInUse => Some(
            "another program listens there: find it with `ss -ltnp`, stop it, or take another port",
        ),
        io::ErrorKind::PermissionDenied => Some(
            "ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=); \
             or take a higher port",
        ),
        io::ErrorKind::AddrNotAvailable => {
            Some("this machine does not have that address: see `ip address`")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        let read = |text: &str| text.parse::<ListenAddress>().map(|a| a.0.to_string());
        assert_eq!(read("2526").unwrap(), "127.0.0.1:2526");
        assert_eq!(read(":2526").unwrap(), "127.0.0.1:2526");
        assert_eq!(read("[::1]:25").unwrap(), "[::1]:25");
        assert_eq!(read("localhost:25"), Err(AddressError::Listen));
    }

    #[test]
    fn hosts_have_port_25_unless_another_is_typed() {
        let table = [
            ("mx.example", Some(("mx.example", 25))),
            ("mx.example:2525", Some(("mx.example", 2525))),
            ("10.0.0.1", Some(("10.0.0.1", 25))),
            ("10.0.0.1:26", Some(("10.0.0.1", 26))),
            ("[::1]:26", Some(("::1", 26))),
            ("::1", Some(("::1", 25))),
            ("mx.example:smtp", None),
            ("mx example", None),
            ("", None),
            (":25", None),
            ("mx.example:0", None),
        ];
        for (text, meant) in table {
            let read = text.parse::<HostPort>().ok();
            let read = read.as_ref().map(|at| (at.host.as_str(), at.port));
            assert_eq!(read, meant, "{text:?}");
        }
    }
}
