//! Beginning a connection to a backend; it is finished by [`super::stream::Stream`].
//!
//! A dial yields an `Unsent` stream: nothing of the client has been seen by the backend, nothing of
//! the backend by the client, so it can be thrown away and another tried.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::stream::Stream;

/// From where and through what to dial.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The source address.
    pub source: Option<IpAddr>,
    /// The network interface (SO_BINDTODEVICE).
    pub interface: Option<&'a str>,
    /// Allow a source this host does not have (IP_FREEBIND).
    pub freebind: bool,
}

/// Begins to connect to `address`.
///
/// # Errors
/// Our own failures (no descriptor, no port, no permission) and immediate ones (no route). What the
/// network says later comes from [`Stream::poll_connected`] or the first read.
pub fn dial(address: SocketAddr, origin: Origin<'_>) -> io::Result<Stream> {
    Stream::connecting(begin(address, origin)?)
}

/// The same for who drives the socket by other means; it is non-blocking and not registered.
///
/// # Errors
/// As [`dial`].
pub fn begin(address: SocketAddr, origin: Origin<'_>) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(interface) = origin.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(source) = origin.source {
        bind_source(&socket, source, origin.freebind)?;
    }
    match socket.connect(&SockAddr::from(address)) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from(socket))
}

pub(super) fn bind_source(socket: &Socket, source: IpAddr, freebind: bool) -> io::Result<()> {
    if freebind {
        match source {
            IpAddr::V4(_) => socket.set_freebind_v4(true)?,
            IpAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    // The port is chosen at connect, so that one port serves many destinations.
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))
}
