//! A connected (or connecting) TCP socket on this thread's event loop.
//!
//! Reads and writes trust the readiness: one that comes back short clears it, so that no system
//! call is spent to learn that nothing is there (epoll is edge-triggered; the next octet raises the
//! next edge). A closed state is cleared only where a call contradicts it: better a session that
//! times out than a loop that spins.

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::{SockRef, TcpKeepalive};

use super::event_loop::{Interest, Ready, Registration};
use super::linger;

/// A TCP socket on this thread's event loop.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    io: Registration,
    /// Whether room is reported: it is not while every write found some.
    room: Cell<bool>,
    /// What [`Stream::poll_watch`] has seen.
    watched: Cell<WatchState>,
    /// The peer's FIN had come before a read that emptied the socket: the next would return 0.
    ended: Cell<bool>,
}

/// What a socket that must not be read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Octets are waiting. The peer may have ended its direction behind them.
    Talking,
    /// The peer ended its direction without a word, or reset.
    Closed,
}

/// How much of a peer has been seen without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    Silent,
    /// Octets are waiting.
    Talked,
    /// Octets are waiting, and the end of the peer's direction behind them.
    Ended,
}

/// What a socket has for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Octets,
    /// The end of the peer's direction, or a reset.
    End,
}

impl Stream {
    /// Registers a connected, non-blocking socket.
    ///
    /// # Errors
    /// The loop cannot take it (no memory, too many watches).
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        // There is room in a new connection: it is only asked for when a write has found none.
        let io = Registration::new(socket.as_fd(), Interest::Read, Ready::WRITABLE)?;
        Ok(Self::with(socket, io, false))
    }

    /// Registers a non-blocking socket that connects.
    ///
    /// # Errors
    /// As [`Stream::new`].
    pub fn connecting(socket: TcpStream) -> io::Result<Self> {
        let io = Registration::new(socket.as_fd(), Interest::Both, Ready::NONE)?;
        Ok(Self::with(socket, io, true))
    }

    /// Takes the socket off this thread's loop, for [`Stream::arrived`] on that of any other.
    ///
    /// Nothing may be read in part or waited for; what the loop has seen of it is forgotten.
    ///
    /// # Errors
    /// The loop does not know the socket.
    pub fn leave(self) -> io::Result<TcpStream> {
        self.io.end(self.socket.as_fd())?;
        Ok(self.socket)
    }

    /// Registers a socket that has left another loop, if it is quiet: nothing has come, and neither
    /// direction was closed. This loop has seen nothing of it yet, so the kernel is asked.
    ///
    /// # Errors
    /// As [`Stream::new`]; `ConnectionAborted` where it is not quiet.
    pub fn arrived(socket: TcpStream) -> io::Result<Self> {
        match rustix::net::recv(&socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::WOULDBLOCK) => Self::new(socket),
            Ok(_) | Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn with(socket: TcpStream, io: Registration, room: bool) -> Self {
        Self {
            socket,
            io,
            room: Cell::new(room),
            watched: Cell::new(WatchState::Silent),
            ended: Cell::new(false),
        }
    }

    /// Reads into `buffer`; `Ok(0)` is the end of the peer's direction.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.ended.get() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let ready = ready!(self.io.poll_read(cx));
            match self.recv(buffer) {
                Ok(n) => {
                    // A read that ends at urgent data is short as well: then only the kernel can
                    // say that nothing is left.
                    if n > 0 && n < buffer.len() && !ready.has(Ready::URGENT) {
                        self.io.clear(Ready::READABLE);
                        // Closed both ways is a reset, which the next read must report.
                        let ended =
                            ready.has(Ready::READ_CLOSED) && !ready.has(Ready::WRITE_CLOSED);
                        self.ended.set(ended);
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io
                        .clear(Ready::READABLE | Ready::READ_CLOSED | Ready::URGENT);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes from `octets`; may take fewer. Not before the connect has ended.
    pub fn poll_send(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, octets, SendFlags::NOSIGNAL)
    }

    /// Writes the last octets before [`Stream::end`] or a close, which must follow: they and the FIN
    /// leave in one segment.
    pub fn poll_send_last(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, octets, SendFlags::NOSIGNAL | SendFlags::MORE)
    }

    fn poll_send_with(
        &self,
        cx: &mut Context<'_>,
        octets: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_write(cx));
            match rustix::net::send(&self.socket, octets, flags).map_err(io::Error::from) {
                Ok(n) => {
                    if n < octets.len() {
                        self.is_full()?;
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_full()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// A straight system call, like those of sending: libc's are cancellation points, which costs
    /// more than the rest of a relayed chunk's bookkeeping.
    fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.socket, buffer, RecvFlags::empty())?.0)
    }

    /// Whether the last read met the peer's end: the next returns 0 at once.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether urgent data is about: until a read has emptied the socket, splice(2) may stop before
    /// it and say that nothing is there.
    pub(super) fn is_urgent(&self) -> bool {
        self.io.is(Ready::URGENT)
    }

    /// Whether, as far as the loop has seen, nothing has come that was not read, and neither
    /// direction was closed.
    pub fn is_quiet(&self) -> bool {
        !self.ended.get()
            && !self
                .io
                .is(Ready::FOR_READ | Ready::WRITE_CLOSED | Ready::URGENT)
    }

    /// Whether, as far as the loop has seen, the peer has reset the connection.
    pub fn is_reset(&self) -> bool {
        self.io.is(Ready::WRITE_CLOSED)
    }

    /// Ready when the peer has reset the connection, after its own end too. Not for one that we have
    /// ended: there its end looks the same.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.poll_reset(cx).map(drop)
    }

    /// Writes from both, in this order and as one piece; may take fewer octets.
    pub fn poll_send_both(
        &self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = [io::IoSlice::new(first), io::IoSlice::new(second)];
        loop {
            ready!(self.io.poll_write(cx));
            let mut none = SendAncillaryBuffer::default();
            let sent = sendmsg(&self.socket, &parts, &mut none, SendFlags::NOSIGNAL);
            match sent.map_err(io::Error::from) {
                Ok(n) => {
                    if n < first.len() + second.len() {
                        self.is_full()?;
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_full()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// A write found no more room: the next waits for some.
    fn is_full(&self) -> io::Result<()> {
        self.io.clear(Ready::WRITABLE | Ready::WRITE_CLOSED);
        if !self.room.replace(true) {
            // Room that comes before this is reported by it.
            self.io.change(self.socket.as_fd(), Interest::Both)?;
        }
        Ok(())
    }

    /// Watches the peer without reading: whether it talks or has gone. An end of its direction
    /// behind octets that wait is a half-close, for the reader of those octets (rule K3).
    ///
    /// After `Talking` the caller goes on watching: only `Closed` comes then.
    pub fn poll_watch(&self, cx: &mut Context<'_>) -> Poll<Watched> {
        loop {
            match self.watched.get() {
                WatchState::Silent => {
                    ready!(self.io.poll_read(cx));
                    match self.waiting() {
                        Waiting::Octets => {
                            self.watched.set(WatchState::Talked);
                            return Poll::Ready(Watched::Talking);
                        }
                        Waiting::End => return Poll::Ready(Watched::Closed),
                        // What was reported has been read before, as a PROXY header is.
                        Waiting::Nothing => self.io.clear(Ready::READABLE | Ready::READ_CLOSED),
                    }
                }
                WatchState::Talked => {
                    ready!(self.io.poll_closed(cx));
                    if self.waiting() != Waiting::Octets {
                        return Poll::Ready(Watched::Closed);
                    }
                    self.watched.set(WatchState::Ended);
                }
                WatchState::Ended => {
                    ready!(self.io.poll_reset(cx));
                    return Poll::Ready(Watched::Closed);
                }
            }
        }
    }

    /// Whether a watch has seen the peer's end behind octets.
    #[cfg(test)]
    pub(super) fn is_half_closed(&self) -> bool {
        self.watched.get() == WatchState::Ended
    }

    /// What waits to be read. Octets that a reset has followed do not count.
    fn waiting(&self) -> Waiting {
        if self.is_reset() {
            return Waiting::End;
        }
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.socket, &mut [0], flags) {
            Ok((1.., _)) => Waiting::Octets,
            Err(rustix::io::Errno::WOULDBLOCK) => Waiting::Nothing,
            Ok((0, _)) | Err(_) => Waiting::End,
        }
    }

    /// Waits until a connect in progress has ended.
    ///
    /// Success costs no system call; the error is asked for only where the loop shows one.
    ///
    /// # Errors
    /// Why the connect failed.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if ready!(self.io.poll_write(cx)).has(Ready::WRITE_CLOSED)
            && let Some(error) = self.socket.take_error()?
        {
            return Poll::Ready(Err(error));
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
            ready!(self.io.poll_read(cx));
            match call(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.io.clear(Ready::READABLE | Ready::READ_CLOSED);
                }
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
            ready!(self.io.poll_write(cx));
            match call(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_full()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Looks at the waiting octets without taking them.
    pub fn poll_peek(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_with(cx, |_| self.socket.peek(buffer))
    }

    /// Takes octets that a peek has shown, without waiting.
    ///
    /// # Errors
    /// As recv(2).
    pub fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(buffer)
    }

    /// Ends our direction (FIN).
    pub fn end(&self) {
        // It fails only where the connection is gone already, which the next read will say.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Writes `words` before a close that does not linger, as far as there is room at once.
    pub fn say_at_once(&self, words: &[u8]) {
        linger::say_at_once(&self.socket, words);
    }

    /// Makes the coming close a reset (RST), so that an abandoned transfer never looks complete.
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }

    /// Turns on keepalive (60 s, then 6 × 10 s) and a 120 s bound on unacknowledged data.
    ///
    /// Done only for sessions that last: five system calls that a short one need not pay.
    pub fn keep_alive(&self) {
        let socket = SockRef::from(&self.socket);
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
        self.socket.local_addr()
    }
}
