//! A sink's connection as octets: batched output, bounded input, waits that notice who leaves.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// A command line may be this long (rule G2).
const LINE_MAX: usize = 2048;
/// While a step waits, so much input is taken in; then the kernel's buffer fills.
pub(super) const INPUT_MAX: usize = 65_536;
/// Read ahead in the command phase.
pub(super) const READ_COMMANDS: usize = 4096;
/// Read ahead within a message.
pub(super) const READ_CONTENT: usize = 65_536;
/// How long an idle peer is waited for (RFC 5321 §4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_mins(5);
/// How long an ordered close waits for the peer's end (rule K5).
const LINGER_MAX: Duration = Duration::from_secs(2);

/// Whether sessions held by [`super::Act::Hold`] may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Shut,
    Open,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Close in order.
    Close,
    /// Reset.
    Reset,
    /// The peer closed.
    Left,
    /// The peer reset.
    Lost,
}

/// The connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    name: Arc<str>,
    pub(super) input: BytesMut,
    pub(super) output: Vec<u8>,
    octets_in: u64,
}

impl Wire {
    /// `name` is ours in the words of a timeout.
    pub(super) fn new(stream: TcpStream, name: Arc<str>) -> Self {
        Self {
            stream,
            name,
            input: BytesMut::new(),
            output: Vec::new(),
            octets_in: 0,
        }
    }

    /// Whether the peer has sent nothing at all.
    pub(super) fn is_wordless(&self) -> bool {
        self.octets_in == 0
    }

    /// Ends the connection as the session ended.
    pub(super) async fn finish(mut self, over: Over) {
        if over != Over::Reset {
            set_reset_on_drop(&self.stream, false);
        }
        if over == Over::Close {
            self.close().await;
        }
    }

    pub(super) async fn be_silent<T>(&mut self) -> Result<T, Over> {
        self.flush().await?;
        loop {
            self.input.clear();
            self.receive(READ_COMMANDS).await?;
        }
    }

    pub(super) async fn pause(&mut self, wait: Duration) -> Result<(), Over> {
        if wait.is_zero() {
            return Ok(());
        }
        self.flush().await?;
        let end = Instant::now() + wait;
        loop {
            let full = self.input.len() >= INPUT_MAX;
            // Both branches are cancel-safe: a deadline, and a read into our own buffer.
            tokio::select! {
                () = sleep_until(end) => return Ok(()),
                read = self.receive(READ_COMMANDS), if !full => read?,
            }
        }
    }

    pub(super) async fn hold(&mut self, gate: &watch::Receiver<Gate>) -> Result<(), Over> {
        self.flush().await?;
        let mut gate = gate.clone();
        loop {
            let full = self.input.len() >= INPUT_MAX;
            // Both branches are cancel-safe: a watch, and a read into our own buffer.
            tokio::select! {
                opened = gate.wait_for(|gate| *gate == Gate::Open) => {
                    return opened.map(|_| ()).map_err(|_| Over::Reset);
                }
                read = self.receive(READ_COMMANDS), if !full => read?,
            }
        }
    }

    pub(super) fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    pub(super) async fn last_words<T>(&mut self, line: &str) -> Result<T, Over> {
        self.say(line);
        self.end().await
    }

    pub(super) async fn end<T>(&mut self) -> Result<T, Over> {
        self.flush().await?;
        Err(Over::Close)
    }

    pub(super) async fn flush(&mut self) -> Result<(), Over> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = timeout(IDLE_MAX, self.stream.write_all(&self.output)).await;
        self.output.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over::Lost),
            Err(_) => Err(Over::Reset),
        }
    }

    /// Reads more input within the idle limit.
    pub(super) async fn fill(&mut self, ahead: usize) -> Result<(), Over> {
        if let Ok(result) = timeout(IDLE_MAX, self.receive(ahead)).await {
            return result;
        }
        let words = format!("421 4.4.2 {} timeout exceeded", self.name);
        self.last_words(&words).await
    }

    async fn receive(&mut self, ahead: usize) -> Result<(), Over> {
        self.input.reserve(ahead);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(Over::Left),
            Ok(count) => {
                self.octets_in += count as u64;
                Ok(())
            }
            Err(_) => Err(Over::Lost),
        }
    }

    /// Asks the kernel itself: the runtime may not have noticed yet what lies there.
    pub(super) fn has_input_waiting(&self) -> bool {
        let mut octet = [MaybeUninit::uninit(); 1];
        let peeked = SockRef::from(&self.stream).peek(&mut octet);
        peeked.is_ok_and(|count| count > 0)
    }

    /// The next complete line, without its line end. A bare LF ends a line here, as in Postfix.
    pub(super) async fn next_line(&mut self) -> Result<Option<Vec<u8>>, Over> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.input) else {
                if self.input.len() <= LINE_MAX {
                    return Ok(None);
                }
                return self.last_words("500 5.5.2 line too long").await;
            };
            let mut line = self.input.split_to(end + 1).to_vec();
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.len() <= LINE_MAX {
                return Ok(Some(line));
            }
            self.say("500 5.5.2 line too long");
        }
    }

    /// An ordered close that lets the peer read our last words (rule K5).
    async fn close(&mut self) {
        let drained = async {
            self.stream.shutdown().await?;
            let mut dropped = 0;
            while dropped < INPUT_MAX {
                self.input.clear();
                match self.stream.read_buf(&mut self.input).await? {
                    0 => break,
                    count => dropped += count,
                }
            }
            Ok::<(), std::io::Error>(())
        };
        // Nothing is left to be said to a peer that does not close: the socket closes either way.
        let _ = timeout(LINGER_MAX, drained).await;
    }
}

/// Whether closing the socket resets the connection.
pub(super) fn set_reset_on_drop(stream: &TcpStream, reset: bool) {
    let linger = reset.then_some(Duration::ZERO);
    // A socket that is already gone needs no option.
    let _ = SockRef::from(stream).set_linger(linger);
}
