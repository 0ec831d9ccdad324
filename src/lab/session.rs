//! One connection of a sink: a small MTA that follows its script.
//!
//! Replies to pipelined commands are batched and written when the input is used up (RFC 2920 §3.2).
//! Whatever waits (a delay, a hold, silence) still notices that the peer has left.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Buf;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use super::command::{Command, read_command};
use super::counts::{MessageRecord, ProxyRecord, SinkCounts, Tally};
use super::data::{DataReader, Progress};
use super::envelope::{Envelope, field};
use super::reply::{last_code, write_lines};
use super::script::{Act, At, Pipelining, ProxyRule, Script};
use super::wire::{Gate, INPUT_MAX, Over, READ_COMMANDS, READ_CONTENT, Wire};
use crate::identity::{HeaderRead, read_header};

/// What all sessions of a sink share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) name: Arc<str>,
    pub(super) script: Arc<Script>,
    /// A script for everybody, when a new one is sent.
    pub(super) news: watch::Receiver<Arc<Script>>,
    /// Told when the whole sink is to die.
    pub(super) doom: Arc<Notify>,
    pub(super) tally: Arc<Tally>,
    pub(super) gate: watch::Receiver<Gate>,
    pub(super) keep_octets: usize,
}

/// How a step ended that may have replaced the usual reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Played {
    /// The usual reply is due.
    Usual,
    /// A reply with this code was given.
    Replied(u16),
}

/// What the greeting allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Open,
    /// A 5yz greeting: 503 to everything until QUIT (RFC 5321 §3.1).
    Refused,
}

#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    peer: SocketAddr,
    client: Option<SocketAddr>,
    common: Common,
    helo: Option<String>,
    envelope: Envelope,
    mails: u32,
}

impl Session {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, common: Common) -> Self {
        Self {
            wire: Wire::new(stream, Arc::clone(&common.name)),
            peer,
            client: None,
            common,
            helo: None,
            envelope: Envelope::default(),
            mails: 0,
        }
    }

    /// Serves the connection until it is over.
    pub(super) async fn run(mut self) {
        let over = match self.converse().await {
            Err(over) => over,
            Ok(never) => match never {},
        };
        let wordless = self.wire.is_wordless();
        self.common.tally.count(|counts| {
            counts.wordless += u64::from(wordless);
            counts.lost += u64::from(matches!(over, Over::Left | Over::Lost));
            counts.resets += u64::from(over == Over::Lost);
        });
        self.wire.finish(over).await;
    }

    async fn converse(&mut self) -> Result<Infallible, Over> {
        self.play(At::Connect).await?;
        if self.common.script.proxy == ProxyRule::Required {
            self.proxy_header().await?;
        }
        let mut service = self.greet().await?;
        loop {
            while let Some(line) = self.wire.next_line().await? {
                let command = read_command(&line);
                service = self.obey(service, command).await?;
            }
            self.wire.flush().await?;
            self.wire.fill(READ_COMMANDS).await?;
        }
    }

    async fn proxy_header(&mut self) -> Result<(), Over> {
        loop {
            match read_header(&self.wire.input) {
                HeaderRead::Incomplete if self.wire.input.len() < INPUT_MAX => {
                    self.wire.fill(READ_COMMANDS).await?;
                }
                HeaderRead::Complete(header) => {
                    let version = if self.wire.input[0] == b'P' { 1 } else { 2 };
                    self.wire.input.advance(header.length);
                    self.client = header.addresses.map(|(source, _)| source);
                    self.common.tally.proxy_header(ProxyRecord {
                        version,
                        length: header.length,
                        source: self.client,
                        destination: header.addresses.map(|(_, destination)| destination),
                        unique_id: header.tlvs.and_then(|tlvs| tlvs.unique_id),
                    });
                    return Ok(());
                }
                HeaderRead::Incomplete | HeaderRead::Invalid(_) => {
                    self.common.tally.count(|counts| counts.proxy_refused += 1);
                    return Err(Over::Close);
                }
            }
        }
    }

    async fn greet(&mut self) -> Result<Service, Over> {
        let played = self.play(At::Greeting).await?;
        let early = !self.wire.input.is_empty() || self.wire.has_input_waiting();
        let code = match played {
            Played::Usual => {
                let line = format!("220 {} ESMTP Posthouse sink", self.common.name);
                self.wire.say(&line);
                220
            }
            Played::Replied(code) => code,
        };
        self.wire.flush().await?;
        self.common.tally.count(|counts| {
            counts.greetings += u64::from(code == 220);
            counts.early_talkers += u64::from(early);
        });
        match code {
            400..500 => Err(Over::Close),
            500..600 => Ok(Service::Refused),
            _ => Ok(Service::Open),
        }
    }

    async fn obey(&mut self, service: Service, command: Command) -> Result<Service, Over> {
        if self.common.script.pipelining == Pipelining::Refused && !self.wire.input.is_empty() {
            self.common
                .tally
                .count(|counts| counts.pipelining_refused += 1);
            return self
                .wire
                .last_words("500 5.5.1 Invalid command: Pipelining not supported")
                .await;
        }
        match (service, command) {
            (_, Command::Quit) => {
                self.common.tally.count(|counts| counts.quits += 1);
                let name = Arc::clone(&self.common.name);
                self.answer(At::Quit, &format!("221 2.0.0 {name} bye"))
                    .await?;
                return self.wire.end().await;
            }
            (Service::Refused, _) => self.wire.say("503 5.5.1 no service here"),
            (Service::Open, command) => self.serve(command).await?,
        }
        Ok(service)
    }

    async fn serve(&mut self, command: Command) -> Result<(), Over> {
        match command {
            Command::Ehlo(name) => return self.hello(name, Greeted::Ehlo).await,
            Command::Helo(name) => return self.hello(name, Greeted::Helo).await,
            Command::Mail { path, size } => return self.mail(path, size).await,
            Command::Rcpt(path) => return self.rcpt(path).await,
            Command::Data => return self.data().await,
            Command::Bdat { length, last } => return self.bdat(length, last).await,
            Command::Rset => {
                self.envelope = Envelope::default();
                self.common.tally.count(|counts| counts.rsets += 1);
                self.answer(At::Rset, "250 2.0.0 Ok").await?;
            }
            Command::Noop => self.wire.say("250 2.0.0 Ok"),
            Command::Vrfy => self.wire.say("252 2.5.2 send some mail, it will be taken"),
            Command::BadArgument => self.wire.say("501 5.5.4 syntax error in the argument"),
            // Without a length the framing is lost (rule C3).
            Command::BadChunk => return self.wire.last_words("501 5.5.4 bad chunk size").await,
            Command::Unknown => self.wire.say("500 5.5.2 command not recognized"),
            Command::Quit => unreachable!("obey ends the session at QUIT"),
        }
        Ok(())
    }

    async fn hello(&mut self, name: String, greeted: Greeted) -> Result<(), Over> {
        let mut lines = vec![self.common.name.to_string()];
        if greeted == Greeted::Ehlo {
            lines.extend(self.common.script.capabilities.iter().cloned());
        }
        let last = lines.len() - 1;
        let reply: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }))
            .collect();
        let code = self.answer_lines(At::Ehlo, &reply).await?;
        if is_good(code) {
            self.helo = Some(name);
            self.envelope = Envelope::default();
            self.common.tally.count(|counts| counts.ehlos += 1);
        }
        Ok(())
    }

    async fn mail(&mut self, path: String, size: Option<u64>) -> Result<(), Over> {
        let limit = self.common.script.size_limit().unwrap_or(u64::MAX);
        if self.helo.is_none() {
            self.wire.say("503 5.5.1 send EHLO first");
        } else if self.envelope.from.is_some() {
            self.wire.say("503 5.5.1 nested MAIL command");
        } else if size.is_some_and(|size| size > limit) {
            self.wire.say("552 5.3.4 message size exceeds the limit");
        } else if is_good(self.answer(At::Mail, "250 2.1.0 Ok").await?) {
            self.envelope.from = Some(path);
            self.mails += 1;
            self.common.tally.count(|counts| counts.mails += 1);
        }
        Ok(())
    }

    async fn rcpt(&mut self, path: String) -> Result<(), Over> {
        if self.envelope.from.is_none() || self.envelope.chunked {
            self.wire.say("503 5.5.1 need MAIL before RCPT");
        } else if is_good(self.answer(At::Rcpt, "250 2.1.5 Ok").await?) {
            self.envelope.to.push(path);
            self.common.tally.count(|counts| counts.recipients += 1);
        }
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Over> {
        if self.envelope.chunked {
            self.wire.say("503 5.5.1 DATA after BDAT");
            return Ok(());
        }
        if self.envelope.to.is_empty() {
            self.wire.say("554 5.5.1 no valid recipients");
            return Ok(());
        }
        if self.answer(At::Data, "354 go ahead").await? != 354 {
            return Ok(());
        }
        self.wire.flush().await?;
        let mut reader = DataReader::default();
        let mut begun = false;
        loop {
            if self.wire.input.is_empty() {
                self.wire.fill(READ_CONTENT).await?;
            }
            if !begun {
                begun = true;
                self.play(At::MidData).await?;
            }
            let content = &mut self.envelope.content;
            let keep = self.common.keep_octets;
            match reader.push(&self.wire.input, |part| content.add(part, keep)) {
                Progress::More => self.wire.input.clear(),
                Progress::Ended(at) => {
                    self.wire.input.advance(at);
                    return self.finish_message().await;
                }
            }
        }
    }

    async fn bdat(&mut self, length: u64, last: bool) -> Result<(), Over> {
        let wanted = self.common.script.announces("CHUNKING") && !self.envelope.to.is_empty();
        self.envelope.chunked |= wanted;
        // The octets belong to the command whatever becomes of it (rule C2).
        let mut left = length;
        while left > 0 {
            if self.wire.input.is_empty() {
                self.wire.flush().await?;
                self.wire.fill(READ_CONTENT).await?;
            }
            let take = self
                .wire
                .input
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let part = self.wire.input.split_to(take);
            left -= take as u64;
            if wanted && self.envelope.content.size == 0 {
                self.play(At::MidData).await?;
            }
            if wanted {
                self.envelope.content.add(&part, self.common.keep_octets);
            }
        }
        if !self.common.script.announces("CHUNKING") {
            self.wire.say("502 5.5.1 BDAT not implemented");
        } else if !wanted {
            self.wire.say("503 5.5.1 need RCPT before BDAT");
        } else if last {
            return self.finish_message().await;
        } else {
            self.wire.say("250 2.0.0 chunk taken");
        }
        Ok(())
    }

    async fn finish_message(&mut self) -> Result<(), Over> {
        let envelope = std::mem::take(&mut self.envelope);
        let limit = self.common.script.size_limit().unwrap_or(u64::MAX);
        let size = envelope.content.size;
        if size > limit {
            self.wire.say("552 5.3.4 message size exceeds the limit");
            self.count_refused();
            return Ok(());
        }
        let played = self.play(At::Dot).await?;
        if let Played::Replied(code) = played
            && !is_good(code)
        {
            self.count_refused();
            return if code == 421 {
                self.wire.end().await
            } else {
                Ok(())
            };
        }
        // Counted before the reply leaves: who has read the reply finds the message counted.
        let queue_id = self.common.tally.queue_id();
        let reply = format!("250 2.0.0 Ok: queued as {queue_id}, {size} octets taken");
        self.count_message(envelope, queue_id);
        if self.play(At::Taken).await? == Played::Usual && played == Played::Usual {
            self.wire.say(&reply);
        }
        Ok(())
    }

    fn count_refused(&self) {
        let refused = |counts: &mut SinkCounts| counts.messages_refused += 1;
        self.common.tally.count(refused);
    }

    fn count_message(&self, envelope: Envelope, queue_id: String) {
        let content = envelope.content;
        self.common.tally.message(MessageRecord {
            peer: self.peer,
            client: self.client,
            helo: self.helo.clone().unwrap_or_default(),
            from: envelope.from.unwrap_or_default(),
            to: envelope.to,
            size: content.size,
            hash: content.hash.0,
            queue_id,
            message_id: field(&content.head, "message-id"),
            subject: field(&content.head, "subject"),
            received: field(&content.head, "received"),
            content: content.kept,
        });
    }

    /// The usual reply at a point, or what the script says instead; gives the code.
    async fn answer(&mut self, at: At, usual: &str) -> Result<u16, Over> {
        self.answer_lines(at, &[usual.to_owned()]).await
    }

    async fn answer_lines(&mut self, at: At, usual: &[String]) -> Result<u16, Over> {
        match self.play(at).await? {
            Played::Usual => {
                let start = self.wire.output.len();
                write_lines(&mut self.wire.output, usual);
                Ok(last_code(&self.wire.output[start..]))
            }
            Played::Replied(421) => self.wire.end().await,
            Played::Replied(code) => Ok(code),
        }
    }

    /// Does what the script says at this point.
    async fn play(&mut self, at: At) -> Result<Played, Over> {
        if self.common.news.has_changed().unwrap_or(false) {
            self.common.script = Arc::clone(&self.common.news.borrow_and_update());
        }
        let script = Arc::clone(&self.common.script);
        let replies = !matches!(at, At::Connect | At::MidData | At::Taken);
        if replies && !script.reply_delay.is_zero() {
            self.wire.pause(script.reply_delay).await?;
        }
        // The transaction that is open counts as well.
        let past = self.mails - u32::from(self.envelope.from.is_some());
        let Some(step) = script.step(at).filter(|_| past >= script.after_mails) else {
            return Ok(Played::Usual);
        };
        self.common.tally.count(|counts| counts.faults += 1);
        if !step.delay.is_zero() {
            self.wire.pause(step.delay).await?;
        }
        match &step.act {
            Act::Usual => Ok(Played::Usual),
            Act::Reply(lines) => {
                let start = self.wire.output.len();
                write_lines(&mut self.wire.output, lines);
                Ok(Played::Replied(last_code(&self.wire.output[start..])))
            }
            Act::Pieces(pieces) => {
                self.wire.flush().await?;
                for piece in pieces {
                    self.wire.pause(piece.after).await?;
                    self.wire.output.extend_from_slice(&piece.octets);
                    self.wire.flush().await?;
                }
                let last = pieces.last().map_or(0, |piece| last_code(&piece.octets));
                Ok(Played::Replied(last))
            }
            Act::Torn(octets) => {
                self.wire.output.extend_from_slice(octets);
                self.wire.end().await
            }
            Act::Die => {
                self.common.doom.notify_one();
                Err(Over::Reset)
            }
            Act::Close => {
                self.wire.flush().await?;
                Err(Over::Close)
            }
            Act::Reset => {
                self.wire.flush().await?;
                Err(Over::Reset)
            }
            Act::Silent => self.wire.be_silent().await,
            Act::Hold => {
                self.wire.hold(&self.common.gate).await?;
                Ok(Played::Usual)
            }
        }
    }
}

/// Which of the two hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeted {
    Ehlo,
    Helo,
}

fn is_good(code: u16) -> bool {
    (200..300).contains(&code)
}
