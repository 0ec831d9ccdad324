//! Accepting from one listening socket of this thread's reactor.
//!
//! The accepted socket is non-blocking from the start and not yet registered; what the listener was
//! given (NODELAY, keepalive, user timeout) is inherited.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::task::{Context, Poll, ready};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A listening socket on this thread's reactor.
#[derive(Debug)]
pub struct Acceptor {
    io: AsyncFd<TcpListener>,
    local: SocketAddr,
}

/// A connection as accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking, not registered.
    pub socket: TcpStream,
    /// The TCP peer.
    pub peer: SocketAddr,
}

impl Acceptor {
    /// Registers a listening, non-blocking socket.
    ///
    /// # Errors
    /// The reactor cannot take it.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        let local = listener.local_addr()?;
        #[expect(
            deprecated,
            reason = "its successor is `unsafe`, for types that may lie about their descriptor; \
                      std's socket owns one and keeps it, which is all that is asked"
        )]
        let io = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Self { io, local })
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection.
    ///
    /// # Errors
    /// No descriptor or no memory: the caller backs off. Connections that were reset in the queue
    /// are passed over.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            match accept(guard.get_inner()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if is_of_the_connection(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// A connection that is in the queue already.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is empty.
    pub fn accept_queued(&self) -> io::Result<Accepted> {
        loop {
            match accept(self.io.get_ref()) {
                Err(error) if is_of_the_connection(&error) => {}
                result => return result,
            }
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Accepted> {
    let (socket, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer
        .and_then(|peer| SocketAddr::try_from(peer).ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
    Ok(Accepted {
        socket: TcpStream::from(socket),
        peer,
    })
}

/// accept(2) also reports errors of the connection it would have returned.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    ) || error.raw_os_error() == Some(nix::libc::EPROTO)
}
