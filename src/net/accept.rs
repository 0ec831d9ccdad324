//! Accepting from one listening socket on this thread's event loop.
//!
//! The accepted socket is non-blocking from the start and not yet registered; what the listener was
//! given (NODELAY, keepalive, user timeout) is inherited. One connection is accepted per turn of
//! the loop: none of them costs a call that finds the queue empty, and in a storm the sessions that
//! are served already come first. Where bulk makes the turns long, more are taken at once, or new
//! clients would wait for seconds.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, acceptfrom_with};

use super::clock;
use super::event_loop::{Interest, Ready, Registration};

/// A turn as long as this is long.
const LONG_TURN: Duration = Duration::from_millis(2);
/// Connections that are taken behind each other after a long turn.
const BATCH: u8 = 16;

/// A listening socket on this thread's event loop.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    io: Registration,
    local: SocketAddr,
    /// The turn in which a connection was last waited for, and when that was.
    last: Cell<(u32, Instant)>,
    /// How many may still be taken without waiting.
    batch: Cell<u8>,
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
    /// The loop cannot take it.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let io = Registration::new(listener.as_fd(), Interest::Accept, Ready::NONE)?;
        Ok(Self {
            listener,
            io,
            local,
            last: Cell::new((0, clock::now())),
            batch: Cell::new(0),
        })
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
        while let Some(left) = self.batch.get().checked_sub(1) {
            self.batch.set(left);
            match accept(&self.listener) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.batch.set(0),
                Err(error) if is_of_the_connection(&error) => {}
                result => return Poll::Ready(result),
            }
        }
        loop {
            ready!(self.io.poll_read(cx));
            self.judge_turn();
            // The loop reports it again as long as the queue is not empty.
            self.io.clear(Ready::FOR_ACCEPT);
            match accept(&self.listener) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_of_the_connection(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Connections were there in two turns behind each other: had the last one been short, taking
    /// one of them would do.
    fn judge_turn(&self) {
        let (turn, now) = (self.io.turn(), clock::now());
        let (last_turn, last) = self.last.replace((turn, now));
        let long = now.saturating_duration_since(last) >= LONG_TURN;
        if turn == last_turn.wrapping_add(1) && long {
            self.batch.set(BATCH - 1);
        }
    }

    /// Stops or goes on reporting connections: while none can be accepted, the loop would be woken
    /// for nothing.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn pause(&self, pause: bool) -> io::Result<()> {
        let interest = if pause {
            Interest::Paused
        } else {
            Interest::Accept
        };
        self.io.change(self.listener.as_fd(), interest)
    }

    /// A connection that is in the queue already.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is empty.
    pub fn accept_queued(&self) -> io::Result<Accepted> {
        loop {
            match accept(&self.listener) {
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
