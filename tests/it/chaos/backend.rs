//! Backends that break off at any octet, refuse now and then, and close between transactions.
//!
//! A message counts as taken when the backend has decided so, whether or not its reply gets out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use posthouse::types::Rng;
use tokio::net::{TcpListener, TcpStream};

use super::ledger::{Ledger, rng_of};
use super::wire::{Doom, Gone, How, Style, Wire};

/// Longer than the balancer keeps any connection.
const PATIENCE: Duration = Duration::from_mins(5);

/// A backend.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) pipelining: bool,
    pub(crate) seed: u64,
    pub(crate) ledger: Arc<Ledger>,
}

impl Backend {
    /// Serves on a port of the kernel's choice until the runtime ends.
    pub(crate) async fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            for connection in 0_u64.. {
                if let Ok((stream, _)) = listener.accept().await {
                    let rng = rng_of(self.seed, 100 + self.number, connection);
                    tokio::spawn(self.clone().serve(stream, rng));
                }
            }
        });
        address
    }

    async fn serve(self, stream: TcpStream, mut rng: Rng) {
        let doom = (rng.below(100) < 35).then(|| Doom::any(&mut rng));
        let style = Style::any(&mut rng);
        let luck = rng.below(100);
        let how = How::any(&mut rng);
        let wire = Wire::new(stream, doom, style, PATIENCE, Rng::seeded(rng.next()));
        let mut session = Session {
            backend: self,
            wire,
            rng,
            sender: None,
            recipients: Vec::new(),
            chunks: Vec::new(),
        };
        match luck {
            0..4 => session.wire.leave(how).await,
            4..7 => session.refuse("421 4.3.2 too busy").await,
            7 => session.refuse("554 5.3.2 no service").await,
            // Right behind the octets that commit a client to it.
            8..11 => session.greet_and_reset().await,
            // The ledger knows what the session took before it left.
            _ => drop(session.run().await),
        }
    }
}

struct Session {
    backend: Backend,
    wire: Wire,
    rng: Rng,
    sender: Option<String>,
    recipients: Vec<String>,
    chunks: Vec<u8>,
}

impl Session {
    async fn refuse(mut self, greeting: &str) {
        let _ = self.reply(greeting).await;
        self.wire.leave(How::End).await;
    }

    async fn greet_and_reset(mut self) {
        let _ = self.greet().await;
        self.wire.leave(How::Reset).await;
    }

    async fn greet(&mut self) -> Result<(), Gone> {
        let greeting = format!("220 {} ESMTP", self.backend.name);
        self.reply(greeting).await
    }

    async fn reply(&mut self, text: impl AsRef<str>) -> Result<(), Gone> {
        let octets = format!("{}\r\n", text.as_ref());
        self.wire.say(octets.as_bytes()).await
    }

    /// Whether something happens that happens in so many of a hundred cases.
    fn happens(&mut self, percent: u32) -> bool {
        self.rng.below(100) < percent
    }

    async fn run(mut self) -> Result<(), Gone> {
        self.greet().await?;
        loop {
            let line = self.wire.line().await?;
            let verb = line.split(' ').next().unwrap_or_default();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.ehlo().await?,
                "MAIL" => self.mail(&line).await?,
                "RCPT" => self.rcpt(&line).await?,
                "DATA" => self.data().await?,
                "BDAT" => self.bdat(&line).await?,
                "RSET" => {
                    self.forget();
                    self.reply("250 2.0.0 forgotten").await?;
                }
                "NOOP" => self.reply("250 2.0.0 ok").await?,
                "QUIT" => {
                    self.reply("221 2.0.0 bye").await?;
                    self.wire.leave(How::Close).await;
                    return Ok(());
                }
                _ => {
                    let wrong = format!("{} was told {line:?}", self.backend.name);
                    self.backend.ledger.wrong(wrong);
                    self.reply("500 5.5.2 what?").await?;
                }
            }
        }
    }

    fn forget(&mut self) {
        self.sender = None;
        self.recipients.clear();
        self.chunks.clear();
    }

    async fn ehlo(&mut self) -> Result<(), Gone> {
        self.forget();
        let pipelining = if self.backend.pipelining {
            "250-PIPELINING\r\n"
        } else {
            ""
        };
        let text = format!(
            "250-{}\r\n{pipelining}250-SIZE 10000000\r\n250-8BITMIME\r\n\
             250-ENHANCEDSTATUSCODES\r\n250 CHUNKING",
            self.backend.name
        );
        self.reply(text).await
    }

    /// Without PIPELINING nobody sends a command before the last one was answered.
    fn must_wait(&self, command: &str) {
        if !self.backend.pipelining && self.wire.has_more() {
            let wrong = format!("{} got more behind {command:?}", self.backend.name);
            self.backend.ledger.wrong(wrong);
        }
    }

    async fn mail(&mut self, line: &str) -> Result<(), Gone> {
        self.must_wait(line);
        if self.sender.is_some() {
            return self.reply("503 5.5.1 there is one").await;
        }
        match self.rng.below(100) {
            0 => {
                self.reply("421 4.3.2 closing").await?;
                self.wire.leave(How::End).await;
                Err(Gone::Us { all: true })
            }
            1 => self.reply("451 4.3.0 not now").await,
            2 => self.reply("550 5.7.1 not you").await,
            _ => {
                let sender = path(line);
                let text = format!("250 2.1.0 {sender} ok");
                self.sender = Some(sender);
                self.reply(text).await
            }
        }
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Gone> {
        self.must_wait(line);
        if self.sender.is_none() {
            return self.reply("503 5.5.1 MAIL first").await;
        }
        let recipient = path(line);
        match self.rng.below(100) {
            0 => self.reply(format!("450 4.2.1 {recipient} later")).await,
            1..4 => self.reply(format!("550 5.1.1 {recipient} unknown")).await,
            _ => {
                let text = format!("250 2.1.5 {recipient} ok");
                self.recipients.push(recipient);
                self.reply(text).await
            }
        }
    }

    async fn data(&mut self) -> Result<(), Gone> {
        self.must_wait("DATA");
        if self.recipients.is_empty() {
            return self.reply("503 5.5.1 RCPT first").await;
        }
        if self.happens(1) {
            return self.reply("451 4.3.0 not now").await;
        }
        self.reply("354 go on").await?;
        let mut content = Vec::new();
        loop {
            let line = self.wire.line().await?;
            if line == "." {
                break;
            }
            let unstuffed = line.strip_prefix('.').unwrap_or(&line);
            content.extend_from_slice(unstuffed.as_bytes());
            content.extend_from_slice(b"\r\n");
        }
        self.decide(&content).await
    }

    async fn bdat(&mut self, line: &str) -> Result<(), Gone> {
        let mut words = line.split(' ').skip(1);
        let octets = words.next().and_then(|size| size.parse().ok());
        let Some(octets) = octets else {
            self.backend.ledger.wrong(format!("a chunk {line:?}"));
            return self.reply("501 5.5.4 how many?").await;
        };
        let is_last = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let chunk = self.wire.exactly(octets).await?;
        if self.recipients.is_empty() {
            return self.reply("503 5.5.1 RCPT first").await;
        }
        self.chunks.extend_from_slice(&chunk);
        if is_last {
            let content = std::mem::take(&mut self.chunks);
            return self.decide(&content).await;
        }
        self.reply(format!("250 2.0.0 {octets} octets")).await
    }

    /// The message is whole.
    async fn decide(&mut self, content: &[u8]) -> Result<(), Gone> {
        let sender = self.sender.take().unwrap_or_default();
        let recipients = std::mem::take(&mut self.recipients);
        match self.rng.below(100) {
            0 => return self.reply("451 4.3.0 not now").await,
            1 => return self.reply("554 5.6.0 not this").await,
            2 => return self.reply("452 4.3.1 full").await,
            _ => {}
        }
        let Backend { name, ledger, .. } = &self.backend;
        ledger.take(name, &sender, &recipients, content);
        let text = format!("250 2.0.0 {sender} taken by {name}");
        if !self.happens(3) {
            self.reply(text).await?;
            if !self.happens(4) {
                return Ok(());
            }
            // Unasked, between transactions.
            self.reply("421 4.3.2 closing").await?;
        }
        let how = How::any(&mut self.rng);
        self.wire.leave(how).await;
        Err(Gone::Us { all: true })
    }
}

/// The path of MAIL or RCPT, with its brackets.
fn path(line: &str) -> String {
    let start = line.find('<').unwrap_or(0);
    let end = line.find('>').map_or(line.len(), |at| at + 1);
    line[start..end.max(start)].to_owned()
}
