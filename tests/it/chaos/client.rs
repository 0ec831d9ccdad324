//! Clients that send messages in every way there is, break off at any octet, and believe only what
//! they were told.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use posthouse::config::model::Mode;
use posthouse::types::Rng;
use tokio::net::TcpStream;

use super::ledger::{Fate, Ledger, Message};
use super::wire::{Doom, Gone, How, Style, Wire};

/// After so long without an octet the balancer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) address: SocketAddr,
    pub(crate) mode: Mode,
    pub(crate) messages: u64,
    pub(crate) next_message: AtomicU64,
    pub(crate) ledger: Arc<Ledger>,
}

impl Clients {
    fn next_message(&self) -> Option<Message> {
        let number = self.next_message.fetch_add(1, Ordering::Relaxed);
        (number < self.messages).then(|| self.ledger.message(number))
    }

    /// Whether there is nothing left to send.
    pub(crate) fn is_done(&self) -> bool {
        self.next_message.load(Ordering::Relaxed) >= self.messages
    }
}

/// A reply: its code and its last text.
#[derive(Clone, Debug)]
struct Reply {
    code: u16,
    text: String,
}

impl Reply {
    fn is_good(&self) -> bool {
        self.code / 100 == 2
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    chunks: bool,
    pipelined: bool,
}

pub(crate) struct Session {
    clients: Arc<Clients>,
    wire: Wire,
    rng: Rng,
    chunking: bool,
    pipelining: bool,
    /// What is sent now.
    message: Option<Message>,
    complete: bool,
}

impl Session {
    /// Sends a few messages over one connection.
    pub(crate) async fn run(clients: Arc<Clients>, mut rng: Rng) {
        let connected = if rng.below(2) == 0 {
            connect(clients.address)
        } else {
            TcpStream::connect(clients.address).await
        };
        // A reset that came with the greeting hides it from who asks for the socket's error first.
        let Ok(stream) = connected else {
            return clients.ledger.left_without_greeting();
        };
        let doom = (rng.below(100) < 15).then(|| Doom::any(&mut rng));
        let style = Style::any(&mut rng);
        let wire = Wire::new(stream, doom, style, PATIENCE, Rng::seeded(rng.next()));
        let mut session = Self {
            clients,
            wire,
            rng,
            chunking: false,
            pipelining: false,
            message: None,
            complete: false,
        };
        if let Err(gone) = session.talk().await {
            session.note(gone);
        }
        if let Some(message) = session.message.take() {
            let complete = session.complete;
            let fate = Fate::Unknown { complete };
            session.clients.ledger.ended(message.number, fate);
        }
    }

    /// A balancer that speaks SMTP itself leaves nobody without a word, and none hangs.
    fn note(&self, gone: Gone) {
        let is_wrong = match gone {
            Gone::Us { .. } => false,
            Gone::Ended | Gone::Reset => self.clients.mode == Mode::Smtp,
            Gone::Late => true,
        };
        if is_wrong {
            let message = self.message.map(|message| message.number);
            let wrong = format!("a client was left ({gone:?}) with message {message:?}");
            self.clients.ledger.wrong(wrong);
        }
    }

    async fn talk(&mut self) -> Result<(), Gone> {
        let greeting = match self.reply().await {
            Ok(greeting) => greeting,
            Err(gone) => {
                if matches!(gone, Gone::Ended | Gone::Reset) {
                    self.clients.ledger.left_without_greeting();
                }
                return Err(gone);
            }
        };
        if !greeting.is_good() {
            self.wire.leave(How::End).await;
            return Ok(());
        }
        if !self.introduce().await? {
            return Ok(());
        }
        for _ in 0..=self.rng.below(4) {
            let Some(message) = self.clients.next_message() else {
                break;
            };
            self.message = Some(message);
            self.complete = false;
            let fate = self.send(message).await?;
            self.message = None;
            let is_over = fate.is_none();
            let fate = fate.unwrap_or(Fate::Refused);
            self.clients.ledger.ended(message.number, fate);
            if is_over {
                return Ok(());
            }
        }
        if self.rng.below(5) > 0 {
            self.wire.say(b"QUIT\r\n").await?;
            self.reply().await?;
        }
        let how = How::any(&mut self.rng);
        self.wire.leave(how).await;
        Ok(())
    }

    /// EHLO; whether the session goes on.
    async fn introduce(&mut self) -> Result<bool, Gone> {
        self.wire.say(b"EHLO client.test\r\n").await?;
        loop {
            let line = self.wire.line().await?;
            let keyword = line.get(4..).unwrap_or_default();
            self.chunking |= keyword == "CHUNKING";
            self.pipelining |= keyword == "PIPELINING";
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.starts_with("250"));
            }
        }
    }

    async fn reply(&mut self) -> Result<Reply, Gone> {
        loop {
            let line = self.wire.line().await?;
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let separator = line.as_bytes().get(3).copied();
            let Some(code) = code.filter(|_| matches!(separator, Some(b' ' | b'-'))) else {
                self.clients.ledger.wrong(format!("a reply {line:?}"));
                return Err(Gone::Us { all: false });
            };
            if separator == Some(b' ') {
                return Ok(Reply { code, text: line });
            }
        }
    }

    /// The next reply; `None` if it ends the session.
    async fn heard(&mut self, path: &str) -> Result<Option<Reply>, Gone> {
        let reply = self.reply().await?;
        if reply.is_good() && !is_about(&reply.text, path) {
            let wrong = format!("{path} was answered {:?}", reply.text);
            self.clients.ledger.wrong(wrong);
        }
        Ok((reply.code != 421).then_some(reply))
    }

    /// Sends one message; `None` if the session is over without it being taken.
    async fn send(&mut self, message: Message) -> Result<Option<Fate>, Gone> {
        let way = Way {
            chunks: self.chunking && self.rng.below(2) == 0,
            pipelined: self.pipelining && self.rng.below(2) == 0,
        };
        let sender = message.sender();
        let recipients = message.recipients();
        let mut commands = vec![(format!("MAIL FROM:{sender}\r\n"), sender)];
        for recipient in recipients {
            commands.push((format!("RCPT TO:{recipient}\r\n"), recipient));
        }
        match way {
            Way {
                pipelined: true, ..
            } => self.send_group(message, commands, way).await,
            Way {
                pipelined: false, ..
            } => self.send_in_turn(message, commands, way).await,
        }
    }

    async fn send_in_turn(
        &mut self,
        message: Message,
        commands: Vec<(String, String)>,
        way: Way,
    ) -> Result<Option<Fate>, Gone> {
        let mut taken = Vec::new();
        for (at, (command, path)) in commands.into_iter().enumerate() {
            self.wire.say(command.as_bytes()).await?;
            let Some(reply) = self.heard(&path).await? else {
                return Ok(None);
            };
            match (at, reply.is_good()) {
                (0, false) => return Ok(Some(Fate::Refused)),
                (0, true) | (_, false) => {}
                (_, true) => taken.push(path),
            }
        }
        if taken.is_empty() {
            return self.give_up().await;
        }
        if way.chunks {
            let (first, last) = self.chunks(message);
            for chunk in first {
                self.wire.say(&chunk).await?;
                match self.heard("").await? {
                    None => return Ok(None),
                    Some(reply) if reply.is_good() => {}
                    Some(_) => return self.give_up().await,
                }
            }
            self.finish(&last).await?;
        } else {
            self.wire.say(b"DATA\r\n").await?;
            match self.heard("").await? {
                None => return Ok(None),
                Some(reply) if reply.code == 354 => {}
                Some(_) => return self.give_up().await,
            }
            self.finish(&stuffed(message)).await?;
        }
        self.verdict(message, taken).await
    }

    async fn send_group(
        &mut self,
        message: Message,
        commands: Vec<(String, String)>,
        way: Way,
    ) -> Result<Option<Fate>, Gone> {
        let mut group: Vec<u8> = Vec::new();
        for (command, _) in &commands {
            group.extend_from_slice(command.as_bytes());
        }
        let mut chunk_replies = 0;
        if way.chunks {
            let (first, last) = self.chunks(message);
            chunk_replies = first.len();
            group.extend(first.concat());
            group.extend(last);
            self.finish(&group).await?;
        } else {
            group.extend_from_slice(b"DATA\r\n");
            self.wire.say(&group).await?;
        }
        let mut taken = Vec::new();
        for (at, (_, path)) in commands.into_iter().enumerate() {
            match self.heard(&path).await? {
                None => return Ok(None),
                Some(reply) if reply.is_good() && at > 0 => taken.push(path),
                Some(_) => {}
            }
        }
        for _ in 0..chunk_replies {
            if self.heard("").await?.is_none() {
                return Ok(None);
            }
        }
        if !way.chunks {
            match self.heard("").await? {
                None => return Ok(None),
                Some(reply) if reply.code == 354 => {}
                Some(_) => return self.give_up().await,
            }
            if taken.is_empty() {
                self.finish(b".\r\n").await?;
            } else {
                self.finish(&stuffed(message)).await?;
            }
        }
        self.verdict(message, taken).await
    }

    /// Says what ends the message.
    async fn finish(&mut self, octets: &[u8]) -> Result<(), Gone> {
        let said = self.wire.say(octets).await;
        self.complete = matches!(said, Ok(()) | Err(Gone::Us { all: true }));
        said
    }

    /// The message in chunks, the last one apart.
    fn chunks(&mut self, message: Message) -> (Vec<Vec<u8>>, Vec<u8>) {
        let content = message.content();
        let cut = self.rng.below(content.len() as u32 + 1) as usize;
        let (first, last) = content.split_at(cut);
        let chunk = |octets: &[u8], last: &str| {
            let mut chunk = format!("BDAT {}{last}\r\n", octets.len()).into_bytes();
            chunk.extend_from_slice(octets);
            chunk
        };
        let first = if cut == 0 {
            Vec::new()
        } else {
            vec![chunk(first, "")]
        };
        (first, chunk(last, " LAST"))
    }

    /// The reply to the end of the message.
    async fn verdict(
        &mut self,
        message: Message,
        recipients: Vec<String>,
    ) -> Result<Option<Fate>, Gone> {
        let Some(reply) = self.heard(&message.sender()).await? else {
            return Ok(None);
        };
        if reply.is_good() {
            if recipients.is_empty() {
                let wrong = format!("{} ended with {:?}", message.number, reply.text);
                self.clients.ledger.wrong(wrong);
            }
            return Ok(Some(Fate::Taken(recipients)));
        }
        let is_doubt = reply.text.starts_with("451 4.4.2") && reply.text.contains("no answer");
        if is_doubt {
            return Ok(Some(Fate::InDoubt));
        }
        if recipients.is_empty() {
            // Not every server ends the transaction with the end of a message for nobody.
            return self.give_up().await;
        }
        Ok(Some(Fate::Refused))
    }

    /// Takes the transaction back.
    async fn give_up(&mut self) -> Result<Option<Fate>, Gone> {
        self.wire.say(b"RSET\r\n").await?;
        let reply = self.heard("").await?;
        Ok(reply.map(|_| Fate::Refused))
    }
}

/// Connects as a blocking client does: what came before a reset is read before it. The runtime's own
/// connect asks for the socket's error first.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Whether the path that a reply names, if it does, is this one. An acceptance that broke off may end
/// within it (row 6 of rule F1).
fn is_about(text: &str, path: &str) -> bool {
    let named = text.find('<').map(|at| &text[at..]);
    named.is_none_or(|named| named.starts_with(path) || path.starts_with(named))
}

/// The content as DATA carries it, with its end.
fn stuffed(message: Message) -> Vec<u8> {
    let mut octets = Vec::new();
    for line in message.content().split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets.extend_from_slice(b".\r\n");
    octets
}
