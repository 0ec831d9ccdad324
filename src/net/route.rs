//! Asks the kernel whether this host has a route to an address, without sending anything.
//!
//! Connecting a UDP socket needs a route and a source address, as a dial does, and sends nothing. If
//! the kernel cannot be asked (no descriptor, no permission to bind to the interface), the answer is
//! that there is a route: the dial will show whether there is.

use std::io;
use std::net::SocketAddr;

use nix::libc;
use socket2::{Domain, SockAddr, Socket, Type};

use super::dial::{Origin, bind_source};

/// What the kernel knows of the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// There may be one.
    Found,
    /// None, or no address of our own of that family.
    None,
    /// It is the broadcast address of a network of ours.
    Broadcast,
}

/// Whether a dial of `to` would leave this host.
pub fn route(to: SocketAddr, origin: Origin<'_>) -> Route {
    match connect(to, origin, Broadcast::Refused) {
        Ok(()) => Route::Found,
        Err(error) => match error.raw_os_error() {
            Some(
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT,
            ) => Route::None,
            // A route may be prohibited as well.
            Some(libc::EACCES) if connect(to, origin, Broadcast::Allowed).is_ok() => {
                Route::Broadcast
            }
            _ => Route::Found,
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broadcast {
    Allowed,
    Refused,
}

fn connect(to: SocketAddr, origin: Origin<'_>, broadcast: Broadcast) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    socket.set_broadcast(broadcast == Broadcast::Allowed)?;
    if let Some(interface) = origin.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(source) = origin.source {
        bind_source(&socket, source, origin.freebind)?;
    }
    socket.connect(&SockAddr::from(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_reached_and_a_broadcast_address_is_known() {
        let route = |to: &str| route(to.parse().unwrap(), Origin::default());
        assert_eq!(route("127.0.0.1:25"), Route::Found);
        assert_eq!(route("127.255.255.255:25"), Route::Broadcast);
    }
}
