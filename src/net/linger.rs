//! Closing so that the peer can read our last words (rule K5).
//!
//! A close with unread input makes the kernel send RST, and the peer may lose what we wrote before.
//! So: end our direction, read and drop for a bounded time and number of octets, then close.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{SendFlags, send};

use super::stream::Stream;

/// How long a lingering close may take.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How many octets it reads and drops.
pub const LINGER_OCTETS: usize = 64 * 1024;

/// Writes `words` to a new socket, as far as there is room at once, and closes it.
///
/// For connections that may not linger: where the peer talks as well, the reset of the close may
/// overtake the words.
pub fn say_and_close(socket: TcpStream, words: &[u8]) {
    say_at_once(&socket, words);
    drop(socket);
}

/// Writes `words` before a close, as far as there is room at once.
pub(super) fn say_at_once(socket: impl AsFd, words: &[u8]) {
    if !words.is_empty() {
        // Whether they left or not, the connection is closed.
        let _ = send(socket, words, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// A lingering close: the octets it may still drop.
#[derive(Debug)]
pub struct Linger {
    left: usize,
}

impl Linger {
    /// Ends our direction and begins to drop input.
    pub fn begin(stream: &Stream) -> Self {
        stream.end();
        Self {
            left: LINGER_OCTETS,
        }
    }

    /// Ready when the peer has ended too, or enough was dropped.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &Stream, scratch: &mut [u8]) -> Poll<()> {
        while self.left > 0 {
            match stream.poll_recv(cx, scratch) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(n)) => self.left = self.left.saturating_sub(n),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}
