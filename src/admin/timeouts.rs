//! How long a client of the status endpoint may take, and a stream that gives up on a client that
//! does not read.
//!
//! The clock of a write starts when the socket takes nothing more and stops when it takes an octet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the accept to the end of the header of its question.
    pub header: Duration,
    /// For the body of its question.
    pub body: Duration,
    /// Without reading an octet of the answer.
    pub stall: Duration,
    /// For a page, while others wait for its place.
    pub page: Duration,
    /// For the whole connection: question, answer and close.
    pub connection: Duration,
}

impl Default for Timeouts {
    /// 2 s, 5 s, 5 s, 2 s and 30 s.
    fn default() -> Self {
        Self {
            header: Duration::from_secs(2),
            body: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            page: Duration::from_secs(2),
            connection: Duration::from_secs(30),
        }
    }
}

/// A stream whose writes fail with `TimedOut` when its peer takes nothing for too long.
#[derive(Debug)]
pub(super) struct StallTimeout<S> {
    stream: S,
    stall: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> StallTimeout<S> {
    pub(super) fn new(stream: S, stall: Duration) -> Self {
        Self {
            stream,
            stall,
            stalled: None,
        }
    }

    /// What a write came to, or that the time is up.
    fn timed(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn a_write_that_nobody_reads_fails_and_one_that_is_read_begins_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (near, mut far) = duplex(4);
            let mut stream = StallTimeout::new(near, Duration::from_millis(20));
            let error = stream.write_all(&[7; 5]).await.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            far.read_exact(&mut [0; 4]).await.expect("what was taken");
            stream.write_all(&[7; 4]).await.expect("there is room");
            assert!(stream.stalled.is_none());
        });
    }
}
