//! One connection of a sink: a small MTA that follows its script.
//!
//! Replies to pipelined commands are batched and written when the input is used up (RFC 2920 §3.2).
//! Whatever waits (a delay, a hold, silence) still notices that the peer has left.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::command::{Command, read_command};
use super::counts::{BodyHash, MessageRecord, ProxyRecord, Tally};
use super::data::{DataReader, Progress};
use super::reply::{last_code, write_lines};
use super::script::{Act, At, Pipelining, ProxyRule, Script};
use crate::identity::{HeaderRead, read_header};

/// A command line may be this long (rule G2).
const LINE_MAX: usize = 2048;
/// While a step waits, so much input is taken in; then the kernel's buffer fills.
const INPUT_MAX: usize = 65_536;
/// How much of a message is searched for Subject and Received.
const HEAD_MAX: usize = 8192;
/// Read ahead in the command phase and within a message.
const READ_COMMANDS: usize = 4096;
const READ_CONTENT: usize = 65_536;
/// How long an idle peer is waited for (RFC 5321 §4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long an ordered close waits for the peer's end (rule K5).
const LINGER_MAX: Duration = Duration::from_secs(2);

/// What all sessions of a sink share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) name: Arc<str>,
    pub(super) script: Arc<Script>,
    pub(super) tally: Arc<Tally>,
    pub(super) gate: watch::Receiver<Gate>,
    pub(super) keep_octets: usize,
}

/// Whether sessions held by [`Act::Hold`] may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Shut,
    Open,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Close in order.
    Close,
    /// Reset.
    Reset,
    /// The peer closed.
    Left,
    /// The peer reset.
    Lost,
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

#[derive(Debug, Default)]
struct Envelope {
    from: Option<String>,
    to: Vec<String>,
    content: Content,
    chunked: bool,
}

#[derive(Debug, Default)]
struct Content {
    size: u64,
    hash: BodyHash,
    head: Vec<u8>,
    kept: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
    peer: SocketAddr,
    client: Option<SocketAddr>,
    common: Common,
    input: BytesMut,
    output: Vec<u8>,
    helo: Option<String>,
    envelope: Envelope,
    octets_in: u64,
}

impl Session {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, common: Common) -> Self {
        Self {
            stream,
            peer,
            client: None,
            common,
            input: BytesMut::new(),
            output: Vec::new(),
            helo: None,
            envelope: Envelope::default(),
            octets_in: 0,
        }
    }

    /// Serves the connection until it is over. Dropped early, the connection is reset.
    pub(super) async fn run(mut self) {
        // Whoever drops this session unfinished (a stop) leaves a reset behind, as a crash does.
        set_reset_on_drop(&self.stream, true);
        let over = match self.converse().await {
            Err(over) => over,
            Ok(never) => match never {},
        };
        let wordless = self.octets_in == 0;
        self.common.tally.count(|counts| {
            counts.wordless += u64::from(wordless);
            counts.lost += u64::from(matches!(over, Over::Left | Over::Lost));
            counts.resets += u64::from(over == Over::Lost);
        });
        if over != Over::Reset {
            set_reset_on_drop(&self.stream, false);
        }
        if over == Over::Close {
            self.close().await;
        }
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, Over> {
        self.play(At::Connect).await?;
        if self.common.script.proxy == ProxyRule::Required {
            self.proxy_header().await?;
        }
        let mut service = self.greet().await?;
        loop {
            while let Some(line) = self.next_line().await? {
                let command = read_command(&line);
                service = self.obey(service, command).await?;
            }
            self.flush().await?;
            self.fill(READ_COMMANDS).await?;
        }
    }

    async fn proxy_header(&mut self) -> Result<(), Over> {
        loop {
            match read_header(&self.input) {
                HeaderRead::Incomplete if self.input.len() < INPUT_MAX => {
                    self.fill(READ_COMMANDS).await?;
                }
                HeaderRead::Complete(header) => {
                    let version = if self.input[0] == b'P' { 1 } else { 2 };
                    self.input.advance(header.length);
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
        let early = !self.input.is_empty() || self.has_input_waiting()?;
        let code = match played {
            Played::Usual => {
                let line = format!("220 {} ESMTP Posthouse sink", self.common.name);
                self.say(&line);
                220
            }
            Played::Replied(code) => code,
        };
        self.flush().await?;
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
        if self.common.script.pipelining == Pipelining::Refused && !self.input.is_empty() {
            self.common
                .tally
                .count(|counts| counts.pipelining_refused += 1);
            return self
                .last_words("500 5.5.1 Invalid command: Pipelining not supported")
                .await;
        }
        match (service, command) {
            (_, Command::Quit) => {
                self.common.tally.count(|counts| counts.quits += 1);
                let name = Arc::clone(&self.common.name);
                self.answer(At::Quit, &format!("221 2.0.0 {name} bye"))
                    .await?;
                return self.end().await;
            }
            (Service::Refused, _) => self.say("503 5.5.1 no service here"),
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
            Command::Noop => self.say("250 2.0.0 Ok"),
            Command::Vrfy => self.say("252 2.5.2 send some mail, it will be taken"),
            Command::BadArgument => self.say("501 5.5.4 syntax error in the argument"),
            // Without a length the framing is lost (rule C3).
            Command::BadChunk => return self.last_words("501 5.5.4 bad chunk size").await,
            Command::Unknown => self.say("500 5.5.2 command not recognized"),
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
            self.say("503 5.5.1 send EHLO first");
        } else if self.envelope.from.is_some() {
            self.say("503 5.5.1 nested MAIL command");
        } else if size.is_some_and(|size| size > limit) {
            self.say("552 5.3.4 message size exceeds the limit");
        } else if is_good(self.answer(At::Mail, "250 2.1.0 Ok").await?) {
            self.envelope.from = Some(path);
            self.common.tally.count(|counts| counts.mails += 1);
        }
        Ok(())
    }

    async fn rcpt(&mut self, path: String) -> Result<(), Over> {
        if self.envelope.from.is_none() || self.envelope.chunked {
            self.say("503 5.5.1 need MAIL before RCPT");
        } else if is_good(self.answer(At::Rcpt, "250 2.1.5 Ok").await?) {
            self.envelope.to.push(path);
            self.common.tally.count(|counts| counts.recipients += 1);
        }
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Over> {
        if self.envelope.chunked {
            self.say("503 5.5.1 DATA after BDAT");
            return Ok(());
        }
        if self.envelope.to.is_empty() {
            self.say("554 5.5.1 no valid recipients");
            return Ok(());
        }
        if self.answer(At::Data, "354 go ahead").await? != 354 {
            return Ok(());
        }
        self.flush().await?;
        let mut reader = DataReader::default();
        let mut begun = false;
        loop {
            if self.input.is_empty() {
                self.fill(READ_CONTENT).await?;
            }
            if !begun {
                begun = true;
                self.play(At::MidData).await?;
            }
            let content = &mut self.envelope.content;
            let keep = self.common.keep_octets;
            match reader.push(&self.input, |part| content.add(part, keep)) {
                Progress::More => self.input.clear(),
                Progress::Ended(at) => {
                    self.input.advance(at);
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
            if self.input.is_empty() {
                self.flush().await?;
                self.fill(READ_CONTENT).await?;
            }
            let take = self
                .input
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let part = self.input.split_to(take);
            left -= take as u64;
            if wanted {
                self.envelope.content.add(&part, self.common.keep_octets);
            }
        }
        if !self.common.script.announces("CHUNKING") {
            self.say("502 5.5.1 BDAT not implemented");
        } else if !wanted {
            self.say("503 5.5.1 need RCPT before BDAT");
        } else if last {
            return self.finish_message().await;
        } else {
            self.say("250 2.0.0 chunk taken");
        }
        Ok(())
    }

    async fn finish_message(&mut self) -> Result<(), Over> {
        let envelope = std::mem::take(&mut self.envelope);
        let limit = self.common.script.size_limit().unwrap_or(u64::MAX);
        let size = envelope.content.size;
        let code = if size > limit {
            self.say("552 5.3.4 message size exceeds the limit");
            552
        } else {
            let reply = format!("250 2.0.0 Ok: {size} octets taken");
            self.answer(At::Dot, &reply).await?
        };
        if !is_good(code) {
            self.common
                .tally
                .count(|counts| counts.messages_refused += 1);
            return Ok(());
        }
        // Counted before the reply leaves: who has read the reply finds the message counted.
        self.common.tally.message(MessageRecord {
            peer: self.peer,
            client: self.client,
            helo: self.helo.clone().unwrap_or_default(),
            from: envelope.from.unwrap_or_default(),
            to: envelope.to,
            size,
            hash: envelope.content.hash.0,
            subject: field(&envelope.content.head, "subject"),
            received: field(&envelope.content.head, "received"),
            content: envelope.content.kept,
        });
        Ok(())
    }

    /// The usual reply at a point, or what the script says instead; gives the code.
    async fn answer(&mut self, at: At, usual: &str) -> Result<u16, Over> {
        self.answer_lines(at, &[usual.to_owned()]).await
    }

    async fn answer_lines(&mut self, at: At, usual: &[String]) -> Result<u16, Over> {
        match self.play(at).await? {
            Played::Usual => {
                let start = self.output.len();
                write_lines(&mut self.output, usual);
                Ok(last_code(&self.output[start..]))
            }
            Played::Replied(421) => self.end().await,
            Played::Replied(code) => Ok(code),
        }
    }

    /// Does what the script says at this point.
    async fn play(&mut self, at: At) -> Result<Played, Over> {
        let script = Arc::clone(&self.common.script);
        if at != At::Connect && at != At::MidData && !script.reply_delay.is_zero() {
            self.pause(script.reply_delay).await?;
        }
        let Some(step) = script.step(at) else {
            return Ok(Played::Usual);
        };
        self.common.tally.count(|counts| counts.faults += 1);
        if !step.delay.is_zero() {
            self.pause(step.delay).await?;
        }
        match &step.act {
            Act::Usual => Ok(Played::Usual),
            Act::Reply(lines) => {
                let start = self.output.len();
                write_lines(&mut self.output, lines);
                Ok(Played::Replied(last_code(&self.output[start..])))
            }
            Act::Pieces(pieces) => {
                self.flush().await?;
                for piece in pieces {
                    self.pause(piece.after).await?;
                    self.output.extend_from_slice(&piece.octets);
                    self.flush().await?;
                }
                let last = pieces.last().map_or(0, |piece| last_code(&piece.octets));
                Ok(Played::Replied(last))
            }
            Act::Close => {
                self.flush().await?;
                Err(Over::Close)
            }
            Act::Reset => {
                self.flush().await?;
                Err(Over::Reset)
            }
            Act::Silent => self.be_silent().await,
            Act::Hold => {
                self.hold().await?;
                Ok(Played::Usual)
            }
        }
    }

    async fn be_silent<T>(&mut self) -> Result<T, Over> {
        self.flush().await?;
        loop {
            self.input.clear();
            self.receive(READ_COMMANDS).await?;
        }
    }

    async fn pause(&mut self, wait: Duration) -> Result<(), Over> {
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

    async fn hold(&mut self) -> Result<(), Over> {
        self.flush().await?;
        let mut gate = self.common.gate.clone();
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

    fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    async fn last_words<T>(&mut self, line: &str) -> Result<T, Over> {
        self.say(line);
        self.end().await
    }

    async fn end<T>(&mut self) -> Result<T, Over> {
        self.flush().await?;
        Err(Over::Close)
    }

    async fn flush(&mut self) -> Result<(), Over> {
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
    async fn fill(&mut self, ahead: usize) -> Result<(), Over> {
        match timeout(IDLE_MAX, self.receive(ahead)).await {
            Ok(result) => result,
            Err(_) => {
                let name = Arc::clone(&self.common.name);
                self.last_words(&format!("421 4.4.2 {name} timeout exceeded"))
                    .await
            }
        }
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

    fn has_input_waiting(&mut self) -> Result<bool, Over> {
        self.input.reserve(READ_COMMANDS);
        match self.stream.try_read_buf(&mut self.input) {
            // The end of the stream is met again by the next read.
            Ok(0) => Ok(false),
            Ok(count) => {
                self.octets_in += count as u64;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(_) => Err(Over::Lost),
        }
    }

    /// The next complete line, without its line end. A bare LF ends a line here, as in Postfix.
    async fn next_line(&mut self) -> Result<Option<Vec<u8>>, Over> {
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

/// Which of the two hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeted {
    Ehlo,
    Helo,
}

impl Content {
    fn add(&mut self, part: &[u8], keep: usize) {
        self.size += part.len() as u64;
        self.hash.add(part);
        let head = HEAD_MAX.saturating_sub(self.head.len()).min(part.len());
        self.head.extend_from_slice(&part[..head]);
        let kept = keep.saturating_sub(self.kept.len()).min(part.len());
        self.kept.extend_from_slice(&part[..kept]);
    }
}

fn is_good(code: u16) -> bool {
    (200..300).contains(&code)
}

/// The first header field of this name, unfolded, at most 500 characters (RFC 5322 §2.2.3).
fn field(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text
        .split('\n')
        .map(|line| line.trim_end_matches('\r'))
        .take_while(|line| !line.is_empty())
        .peekable();
    while let Some(line) = lines.next() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if !field.eq_ignore_ascii_case(name) {
            continue;
        }
        let mut value = value.trim().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
            value.push(' ');
            value.push_str(more.trim());
        }
        return Some(value.chars().take(500).collect());
    }
    None
}

/// Whether closing the socket resets the connection.
pub(super) fn set_reset_on_drop(stream: &TcpStream, reset: bool) {
    let linger = reset.then_some(Duration::ZERO);
    // A socket that is already gone needs no option.
    let _ = SockRef::from(stream).set_linger(linger);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_of_a_name_is_found_and_unfolded() {
        let head =
            b"Received: from a\r\n\tby b; now\r\nreceived: x\r\nSubject: hi\r\n\r\nSubject: no";
        assert_eq!(field(head, "received").unwrap(), "from a by b; now");
        assert_eq!(field(head, "subject").unwrap(), "hi");
        assert_eq!(field(head, "to"), None);
        assert_eq!(field(b"\r\nSubject: body", "subject"), None);
    }
}
