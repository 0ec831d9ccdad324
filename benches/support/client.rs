//! A blocking client: what smtp-source sends, one write per step, and the same in groups.
//!
//! The 10 KB session is HELO, MAIL, RCPT, DATA, a body of 10,240 octets with its dot in one write,
//! QUIT: 13 chunks through a proxy. Bodies above 128 KiB go in writes of 128 KiB, as smtp-source's.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The usual patience for one reply.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of one write of a long body.
const WRITE_MAX: usize = 128 * 1024;

/// How often a server that does not greet yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until a server greets; `alive` says so of its process.
pub(crate) fn wait_for_greeting(
    at: SocketAddr,
    patience: Duration,
    mut alive: impl FnMut() -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < patience {
        alive()?;
        match Client::connect(at, PATIENCE) {
            Ok(client) => return client.quit().context("the first session"),
            Err(failure) => last = failure.to_string(),
        }
        thread::sleep(ASK_AGAIN);
    }
    bail!("nobody greets on {at} after {patience:?}: {last}")
}

/// How far a session came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connect,
    Greeting,
    Later,
}

/// Why a session failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) text: String,
}

/// How a session is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// HELO, and every reply is awaited.
    Helo,
    /// EHLO, and every reply is awaited.
    Ehlo,
    /// EHLO; MAIL, RCPT and DATA in one write.
    Pipelined,
}

/// What one session does.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) messages: u32,
    pub(crate) style: Style,
    body: Vec<u8>,
}

/// A greeted session.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// From the start of the connect to the end of the greeting.
    pub(crate) greeted_after: Duration,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.stage, self.text)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn new(stage: Stage, text: impl fmt::Display) -> Self {
        Self {
            stage,
            text: text.to_string(),
        }
    }
}

impl Style {
    pub(crate) const ALL: [Self; 3] = [Self::Helo, Self::Ehlo, Self::Pipelined];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Helo => "helo",
            Self::Ehlo => "ehlo",
            Self::Pipelined => "pipelined",
        }
    }
}

impl Work {
    /// `messages` messages of `octets` octets each (header, body and final dot).
    pub(crate) fn new(messages: u32, octets: usize) -> Self {
        let mut body = b"From: <a@client.example>\r\nTo: <b@sink.example>\r\n\r\n".to_vec();
        let line = [b"x".repeat(78), b"\r\n".to_vec()].concat();
        let end = octets.saturating_sub(b".\r\n".len());
        while body.len() + line.len() <= end {
            body.extend_from_slice(&line);
        }
        let rest = end.saturating_sub(body.len());
        if rest > 2 {
            body.extend_from_slice(&line[line.len() - rest..]);
        }
        body.extend_from_slice(b".\r\n");
        Self {
            messages,
            style: Style::Helo,
            body,
        }
    }

    /// The same in another style.
    pub(crate) fn spoken(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// What is sent after the 354, dot included.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The 10 KB session.
    pub(crate) fn short() -> Self {
        Self::new(1, 10_240)
    }
}

impl Client {
    /// Connects and waits for a 220.
    pub(crate) fn connect(to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let began = Instant::now();
        let stream = TcpStream::connect_timeout(&to, patience)
            .map_err(|error| Failure::new(Stage::Connect, error))?;
        let set = |stream: &TcpStream| -> io::Result<()> {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))
        };
        set(&stream).map_err(|error| Failure::new(Stage::Connect, error))?;
        let mut client = Self {
            stream,
            greeted_after: Duration::ZERO,
        };
        client.expect(*b"220", Stage::Greeting)?;
        client.greeted_after = began.elapsed();
        Ok(client)
    }

    /// Other patience for the replies to come.
    pub(crate) fn set_patience(&mut self, patience: Duration) -> Result<(), Failure> {
        self.stream
            .set_read_timeout(Some(patience))
            .map_err(|error| Failure::new(Stage::Later, error))
    }

    /// One command in one write, then its reply.
    pub(crate) fn command(&mut self, line: &[u8], code: [u8; 3]) -> Result<(), Failure> {
        self.say(line)?;
        self.expect(code, Stage::Later)
    }

    /// Octets in one write, and no wait.
    pub(crate) fn say(&mut self, octets: &[u8]) -> Result<(), Failure> {
        self.stream
            .write_all(octets)
            .map_err(|error| Failure::new(Stage::Later, error))
    }

    /// HELO or EHLO, messages, QUIT and the end of the connection.
    pub(crate) fn finish(mut self, work: &Work) -> Result<(), Failure> {
        self.hello(work.style)?;
        for _ in 0..work.messages {
            self.message(work)?;
        }
        self.quit()
    }

    /// HELO or EHLO.
    pub(crate) fn hello(&mut self, style: Style) -> Result<(), Failure> {
        let hello: &[u8] = match style {
            Style::Helo => b"HELO client.example\r\n",
            Style::Ehlo | Style::Pipelined => b"EHLO client.example\r\n",
        };
        self.command(hello, *b"250")
    }

    /// One message, acknowledged.
    pub(crate) fn message(&mut self, work: &Work) -> Result<(), Failure> {
        if work.style == Style::Pipelined {
            self.say(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n")?;
            self.expect_all(&[*b"250", *b"250", *b"354"], Stage::Later)?;
        } else {
            self.command(b"MAIL FROM:<a@client.example>\r\n", *b"250")?;
            self.command(b"RCPT TO:<b@sink.example>\r\n", *b"250")?;
            self.command(b"DATA\r\n", *b"354")?;
        }
        for part in work.body.chunks(WRITE_MAX) {
            self.say(part)?;
        }
        self.expect(*b"250", Stage::Later)
    }

    /// QUIT, its reply, and the end of the connection.
    pub(crate) fn quit(mut self) -> Result<(), Failure> {
        self.command(b"QUIT\r\n", *b"221")?;
        match self.stream.read(&mut [0; 16]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::new(Stage::Later, "octets after the 221")),
            Err(error) => Err(Failure::new(Stage::Later, error)),
        }
    }

    pub(crate) fn expect(&mut self, code: [u8; 3], stage: Stage) -> Result<(), Failure> {
        self.expect_all(&[code], stage)
    }

    /// So many replies, with these codes.
    fn expect_all(&mut self, codes: &[[u8; 3]], stage: Stage) -> Result<(), Failure> {
        let mut buffer = [0; 512];
        let mut filled = 0;
        loop {
            let octets = self
                .stream
                .read(&mut buffer[filled..])
                .map_err(|error| Failure::new(stage, error))?;
            if octets == 0 {
                return Err(Failure::new(stage, "the connection ended"));
            }
            filled += octets;
            let heard = &buffer[..filled];
            let said = || {
                let text = String::from_utf8_lossy(heard).trim_end().to_owned();
                Err(Failure::new(stage, text))
            };
            let found = replies(heard);
            if found.iter().zip(codes).any(|(found, code)| found != code) {
                return said();
            }
            if found.len() == codes.len() && heard.ends_with(b"\r\n") {
                return Ok(());
            }
            if found.len() > codes.len() {
                return said();
            }
            if filled == buffer.len() {
                return Err(Failure::new(stage, "replies longer than 512 octets"));
            }
        }
    }
}

/// One whole session.
pub(crate) fn run_session(to: SocketAddr, work: &Work) -> Result<(), Failure> {
    Client::connect(to, PATIENCE)?.finish(work)
}

/// The codes of the whole replies (RFC 5321 §4.2.1: a hyphen says that another line follows).
pub(crate) fn replies(octets: &[u8]) -> Vec<[u8; 3]> {
    octets
        .split_inclusive(|octet| *octet == b'\n')
        .filter(|line| line.ends_with(b"\r\n"))
        .filter(|line| line.get(3).is_none_or(|separator| *separator != b'-'))
        .filter_map(|line| line.first_chunk().copied())
        .collect()
}
