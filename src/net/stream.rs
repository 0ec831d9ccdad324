//! A connected (or connecting) TCP socket registered with this thread's reactor.
//!
//! Reads and writes wait for readiness and trust it: a read shorter than the buffer clears the
//! readiness, so that no system call is spent to learn that nothing is there (epoll is
//! edge-triggered; the next octet raises the next edge). Closed states are never cleared.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Ready;
use tokio::io::unix::AsyncFd;

/// A TCP socket on this thread's reactor.
#[derive(Debug)]
pub struct Stream {
    io: AsyncFd<TcpStream>,
    /// Octets may be waiting although the readiness was cleared by [`Stream::poll_watch`].
    unread: Cell<bool>,
    /// The peer's FIN had come before a read that emptied the socket: the next would return 0.
    ended: Cell<bool>,
}

/// What a socket that must not be read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Octets are waiting.
    Talking,
    /// The peer ended its direction, or reset.
    Closed,
}

impl Stream {
    /// Registers a non-blocking socket.
    ///
    /// # Errors
    /// The reactor cannot take it (no memory, too many watches).
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its successor is `unsafe`, for types that may lie about their descriptor; \
                      std's socket owns one and keeps it, which is all that is asked"
        )]
        let io = AsyncFd::new(socket)?;
        Ok(Self {
            io,
            unread: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    /// Reads into `buffer`; `Ok(0)` is the end of the peer's direction.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.ended.get() {
            return Poll::Ready(Ok(0));
        }
        if self.unread.replace(false) {
            match self.io.get_ref().read(buffer) {
                Err(error) if is_transient(&error) => {}
                result => {
                    self.unread
                        .set(matches!(&result, Ok(n) if *n == buffer.len()));
                    return Poll::Ready(result);
                }
            }
        }
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            match guard.get_inner().read(buffer) {
                Ok(n) => {
                    if n > 0 && n < buffer.len() {
                        let closed = guard.ready().is_read_closed();
                        guard.clear_ready_matching(Ready::READABLE);
                        self.ended.set(closed && !self.is_reset(cx));
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes from `octets`; may take fewer. Not before the connect has ended.
    ///
    /// It writes first and asks for readiness only where that was in vain: almost always there is
    /// room.
    pub fn poll_send(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.io.get_ref().write(octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.io.poll_write_ready(cx))?.clear_ready();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Watches the peer without reading: whether it talks or has gone.
    ///
    /// After `Talking` the caller goes on watching: only `Closed` comes then.
    pub fn poll_watch(&self, cx: &mut Context<'_>) -> Poll<io::Result<Watched>> {
        let mut guard = ready!(self.io.poll_read_ready(cx))?;
        if guard.ready().is_read_closed() {
            return Poll::Ready(Ok(Watched::Closed));
        }
        // Without this the readiness would be reported for ever; the note makes the first read
        // look at the socket without waiting for another edge.
        self.unread.set(true);
        guard.clear_ready_matching(Ready::READABLE);
        Poll::Ready(Ok(Watched::Talking))
    }

    /// Waits until a connect in progress has ended.
    ///
    /// Success costs no system call; the error is asked for only where the reactor shows one.
    ///
    /// # Errors
    /// Why the connect failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = ready!(self.io.poll_write_ready(cx))?;
        if guard.ready().is_write_closed() {
            let error = guard.get_inner().take_error()?;
            if let Some(error) = error {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Runs a read-side system call when the socket is readable; `WouldBlock` must mean that the
    /// socket itself has nothing.
    pub(super) fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            match call(guard.get_inner().as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// The same for the write side; `WouldBlock` must mean that the socket's buffer is full.
    pub(super) fn poll_write_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let mut guard = ready!(self.io.poll_write_ready(cx))?;
            match call(guard.get_inner().as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Looks at the waiting octets without taking them.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |_| self.io.get_ref().peek(buffer))
    }

    /// Takes octets that a peek has shown, without waiting.
    ///
    /// # Errors
    /// As recv(2).
    pub fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.io.get_ref().read(buffer)
    }

    /// Ends our direction (FIN).
    pub fn end(&self) {
        // It fails only where the connection is gone already, which the next read will say.
        let _ = self.io.get_ref().shutdown(Shutdown::Write);
    }

    /// Makes the coming close a reset (RST), so that an abandoned transfer never looks complete.
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(self.io.get_ref()).set_linger(Some(Duration::ZERO));
    }

    /// Turns on keepalive (60 s, then 6 × 10 s) and a 120 s bound on unacknowledged data.
    ///
    /// Done only for sessions that last: five system calls that a short one need not pay.
    pub fn keep_alive(&self) {
        let socket = SockRef::from(self.io.get_ref());
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_mins(1))
            .with_interval(Duration::from_secs(10))
            .with_retries(6);
        let _ = socket.set_tcp_keepalive(&keepalive);
        let _ = socket.set_tcp_user_timeout(Some(Duration::from_mins(2)));
    }

    /// Our end's address.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }
}

impl Stream {
    /// Whether the connection is closed both ways: a reset, which the next read must report.
    fn is_reset(&self, cx: &mut Context<'_>) -> bool {
        match self.io.poll_write_ready(cx) {
            Poll::Ready(Ok(guard)) => guard.ready().is_write_closed(),
            Poll::Ready(Err(_)) | Poll::Pending => true,
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
