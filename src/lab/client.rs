//! A small client: one message, or one after another in a session; lock-step, every wait bounded.
//!
//! It says exactly how far it got, because the difference between "never greeted" and "cut in the
//! middle" is the whole point of a balancer in front.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::types::in_words;

/// The longest reply it reads.
const REPLY_MAX: usize = 65_536;

/// One message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The argument of EHLO.
    pub helo: String,
    /// The reverse path, without angle brackets.
    pub from: String,
    /// The forward paths, without angle brackets, at least one.
    pub to: Vec<String>,
    /// The content with CRLF line ends, not dot-stuffed.
    pub content: Vec<u8>,
    /// A wait before each command: a client that thinks.
    pub think: Duration,
    /// How long the whole session may take.
    pub limit: Duration,
}

/// How far a session got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the steps of a session")]
pub enum SendStage {
    Connect,
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Dot,
}

/// What went wrong at that step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// A reply with another code than is needed; its first line.
    #[error("{0}")]
    Reply(String),
    /// The connection was closed.
    #[error("connection closed")]
    Closed,
    /// Not in time.
    #[error("timed out")]
    TimedOut,
    /// The system's word.
    #[error("{0}")]
    Io(String),
}

/// A session that did not deliver its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {stage}: {fault}")]
pub struct SendError {
    /// How far it got.
    pub stage: SendStage,
    /// What went wrong.
    pub fault: SendFault,
}

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// From the begin of the connect to the first octet of the greeting.
    pub greeted_after: Duration,
    /// From the begin of the connect to the reply to the final dot.
    pub taken_after: Duration,
    /// The first word of the greeting behind the code: who greeted.
    pub greeted_by: String,
    /// The reply to the final dot, its first line.
    pub reply: String,
}

impl fmt::Display for SendStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Dot => "the final dot",
        })
    }
}

impl Letter {
    /// A small message; `number` makes it differ from others.
    pub fn numbered(number: u64) -> Self {
        let content = format!(
            "From: <sender@client.test>\r\nTo: <reader@example.test>\r\n\
             Message-ID: <{number}@client.test>\r\nSubject: letter {number}\r\n\r\nThis is letter {number}.\r\n.It has a dot.\r\n"
        );
        Self {
            helo: "client.test".into(),
            from: "sender@client.test".into(),
            to: vec!["reader@example.test".into()],
            content: content.into_bytes(),
            think: Duration::ZERO,
            limit: Duration::from_secs(30),
        }
    }

    /// Sends it in a session of its own.
    ///
    /// # Errors
    /// It was not taken: [`SendError`]. After the final dot was sent and no reply came, it may have
    /// been taken all the same.
    pub async fn send(&self, to: SocketAddr) -> Result<Sent, SendError> {
        let began = Instant::now();
        let deadline = tokio::time::Instant::from_std(began + self.limit);
        within(deadline, async |stage| {
            let mut session = ClientSession::begin(self, to, began, stage).await?;
            let reply = session.transaction(self, stage).await?;
            let taken_after = began.elapsed();
            // The message is taken: how the goodbye goes changes nothing.
            let _ = session.goodbye().await;
            Ok(Sent {
                greeted_after: session.greeted_after,
                taken_after,
                greeted_by: session.greeted_by,
                reply,
            })
        })
        .await
    }

    async fn pause(&self) {
        if !self.think.is_zero() {
            tokio::time::sleep(self.think).await;
        }
    }

    async fn say(&self, peer: &mut Peer, line: &str) -> Result<(), SendFault> {
        self.pause().await;
        peer.write(format!("{line}\r\n").as_bytes()).await
    }
}

/// A session that sends one letter after another.
#[derive(Debug)]
pub struct ClientSession {
    peer: Peer,
    greeted_after: Duration,
    greeted_by: String,
}

impl ClientSession {
    /// Connects, waits for the greeting and says EHLO, as the writer of `letter`.
    ///
    /// # Errors
    /// It was not greeted, or EHLO was refused.
    pub async fn open(letter: &Letter, to: SocketAddr) -> Result<Self, SendError> {
        let began = Instant::now();
        let deadline = tokio::time::Instant::from_std(began + letter.limit);
        within(deadline, async |stage| {
            Self::begin(letter, to, began, stage).await
        })
        .await
    }

    /// Sends one message; the first line of the reply to its end. A wait of the letter's `think`
    /// comes in the middle of the content too.
    ///
    /// # Errors
    /// It was not taken. After [`SendFault::Reply`] with another code than 421 the session goes on,
    /// with RSET; after anything else it is over.
    pub async fn deliver(&mut self, letter: &Letter) -> Result<String, SendError> {
        let deadline = tokio::time::Instant::now() + letter.limit;
        within(deadline, async |stage| {
            let sent = self.transaction(letter, stage).await;
            let refused = match &sent {
                Err(SendFault::Reply(reply)) => !reply.starts_with("421"),
                _ => false,
            };
            if refused && *stage < SendStage::Dot {
                self.peer.write(b"RSET\r\n").await?;
                self.peer.expect(250).await?;
            }
            sent
        })
        .await
    }

    /// Says QUIT and waits for the answer.
    ///
    /// # Errors
    /// There was none within `limit`.
    pub async fn quit(mut self, limit: Duration) -> Result<(), SendFault> {
        let said = tokio::time::timeout(limit, self.goodbye()).await;
        said.unwrap_or(Err(SendFault::TimedOut))
    }

    /// From the begin of the connect to the first octet of the greeting.
    pub fn greeted_after(&self) -> Duration {
        self.greeted_after
    }

    async fn begin(
        letter: &Letter,
        to: SocketAddr,
        began: Instant,
        stage: &mut SendStage,
    ) -> Result<Self, SendFault> {
        let stream = TcpStream::connect(to).await.map_err(io_fault)?;
        // A lock-step client sends whole commands.
        let _ = stream.set_nodelay(true);
        let mut peer = Peer {
            stream,
            input: Vec::new(),
        };
        *stage = SendStage::Greeting;
        peer.stream.readable().await.map_err(io_fault)?;
        let greeted_after = began.elapsed();
        let greeting = peer.expect(220).await?;
        let greeted_by = greeting.split([' ', '-']).nth(1).unwrap_or("").to_owned();
        *stage = SendStage::Ehlo;
        letter
            .say(&mut peer, &format!("EHLO {}", letter.helo))
            .await?;
        peer.expect(250).await?;
        Ok(Self {
            peer,
            greeted_after,
            greeted_by,
        })
    }

    async fn transaction(
        &mut self,
        letter: &Letter,
        stage: &mut SendStage,
    ) -> Result<String, SendFault> {
        let peer = &mut self.peer;
        *stage = SendStage::Mail;
        letter
            .say(peer, &format!("MAIL FROM:<{}>", letter.from))
            .await?;
        peer.expect(250).await?;
        *stage = SendStage::Rcpt;
        for to in &letter.to {
            letter.say(peer, &format!("RCPT TO:<{to}>")).await?;
            peer.expect(250).await?;
        }
        *stage = SendStage::Data;
        letter.say(peer, "DATA").await?;
        peer.expect(354).await?;
        *stage = SendStage::Dot;
        let content = stuffed(&letter.content);
        let (one_half, other_half) = content.split_at(content.len() / 2);
        for half in [one_half, other_half] {
            letter.pause().await;
            peer.write(half).await?;
        }
        peer.expect(250).await
    }

    async fn goodbye(&mut self) -> Result<(), SendFault> {
        self.peer.write(b"QUIT\r\n").await?;
        self.peer.expect(221).await.map(|_| ())
    }
}

/// Does it until `deadline`, and says at which stage it failed.
async fn within<T>(
    deadline: tokio::time::Instant,
    what: impl AsyncFnOnce(&mut SendStage) -> Result<T, SendFault>,
) -> Result<T, SendError> {
    let mut stage = SendStage::Connect;
    let done = timeout_at(deadline, what(&mut stage)).await;
    done.unwrap_or(Err(SendFault::TimedOut))
        .map_err(|fault| SendError { stage, fault })
}

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    async fn write(&mut self, octets: &[u8]) -> Result<(), SendFault> {
        self.stream.write_all(octets).await.map_err(io_fault)
    }

    /// Reads one reply and gives its first line if the code is this one.
    async fn expect(&mut self, code: u16) -> Result<String, SendFault> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let line = self.line().await?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if last {
                break;
            }
        }
        let first = lines.swap_remove(0);
        if first.starts_with(&code.to_string()) {
            Ok(first)
        } else {
            Err(SendFault::Reply(first))
        }
    }

    async fn line(&mut self) -> Result<String, SendFault> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.input.len() > REPLY_MAX {
                return Err(SendFault::Reply("a reply without end".into()));
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(SendFault::Closed),
                Ok(_) => {}
                Err(error) => return Err(io_fault(error)),
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn io_fault(error: std::io::Error) -> SendFault {
    SendFault::Io(in_words(&error).into_owned())
}

/// The content as it goes over the wire: dots stuffed, the final dot behind it (RFC 5321 §4.5.2).
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_begin_with_a_dot_get_another() {
        assert_eq!(stuffed(b""), b".\r\n");
        assert_eq!(stuffed(b".a\r\nb.\r\n.\r\n"), b"..a\r\nb.\r\n..\r\n.\r\n");
        assert_eq!(stuffed(b"no end"), b"no end\r\n.\r\n");
    }
}
