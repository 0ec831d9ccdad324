//! A backend of the simulated world: an SMTP server that keeps what it accepts, and fails as told.

use posthouse::types::Rng;

/// A message as a server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) mail: String,
    pub(crate) recipients: Vec<String>,
    /// The wire form, without the end.
    pub(crate) content: Vec<u8>,
}

/// When a connection goes wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all.
    None,
    /// It ends when this command arrives, before a reply.
    EndAt(Moment),
    /// It says nothing more from this command on.
    SilentAt(Moment),
    /// It answers late from MAIL on.
    Slow,
    /// 421 to this command.
    ClosingAt(Moment),
    /// It ends in the middle of the content.
    EndInContent(usize),
    /// It refuses in the middle of the content.
    EarlyRefusal(usize),
    /// It accepts in the middle of the content: out of step.
    EarlyAcceptance(usize),
    /// It keeps the message, says so many octets of the reply, and ends.
    CutReply(usize),
    /// It ends after the end of the message and keeps nothing.
    ForgetAndEnd,
    /// DATA or BDAT is refused.
    DataRefused,
    /// The message is refused for want of room: 452 4.3.1.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Mail,
    Rcpt,
    Data,
}

/// What became of a message.
enum Content {
    Coming,
    /// It has ended, and is kept or not.
    Over(Option<Kept>),
}

/// A message that comes by BDAT.
#[derive(Debug, Default)]
struct Chunks {
    content: Vec<u8>,
    /// Octets of the open chunk still to come, and whether it is the last.
    open: Option<(usize, bool)>,
    /// One was refused.
    is_failed: bool,
}

/// How its connections are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) pipelining: bool,
    pub(crate) chunking: bool,
    /// Recipients beginning so are refused here.
    pub(crate) refuses: char,
}

const REPLY_TO_MESSAGE: &[u8] = b"250 2.0.0 queued\r\n";

/// One connection of a server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    fault: Fault,
    /// Transactions until 421 or 452 at MAIL (rule N4).
    share: u32,
    input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    /// Said, and on its way for long.
    late: Option<Vec<u8>>,
    /// Closed by the server; what is in `output` is still delivered.
    pub(crate) is_ended: bool,
    is_silent: bool,
    mail: Option<String>,
    recipients: Vec<String>,
    content: Option<usize>,
    chunks: Option<Chunks>,
    said_early: bool,
}

impl Server {
    pub(crate) fn new(kind: Kind, fault: Fault, rng: &mut Rng) -> Self {
        Self {
            kind,
            fault,
            share: 1 + rng.below(6),
            input: Vec::new(),
            output: Vec::new(),
            late: None,
            is_ended: false,
            is_silent: false,
            mail: None,
            recipients: Vec::new(),
            content: None,
            chunks: None,
            said_early: false,
        }
    }

    /// Whether it closes a connection that idles, without a word or with 421.
    pub(crate) fn leave(&mut self, rng: &mut Rng) {
        if rng.below(2) == 0 {
            self.say("421 4.4.2 idle for too long");
        }
        self.is_ended = true;
    }

    /// Takes what has arrived; returns a message that is kept now.
    ///
    /// # Panics
    /// When the client of the server breaks the protocol.
    pub(crate) fn take(&mut self, octets: &[u8]) -> Option<Kept> {
        self.input.extend_from_slice(octets);
        let mut kept = None;
        while !self.is_ended && !self.is_silent {
            if let Some(seen) = self.content {
                match self.take_content(seen) {
                    Content::Coming => break,
                    Content::Over(message) => kept = message.or(kept),
                }
                continue;
            }
            if self
                .chunks
                .as_ref()
                .is_some_and(|chunks| chunks.open.is_some())
            {
                match self.take_chunk() {
                    Content::Coming => break,
                    Content::Over(message) => kept = message.or(kept),
                }
                continue;
            }
            let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") else {
                break;
            };
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            let line = String::from_utf8(line).expect("ASCII only");
            let more = !self.input.is_empty();
            assert!(
                self.kind.pipelining || !more || line.starts_with("BDAT"),
                "rule P5: {line:?} and {:?} in one flight",
                self.input.escape_ascii().to_string()
            );
            self.command(line.trim_end());
            if line.starts_with("DATA") && self.content.is_some() {
                assert!(!more, "rule P6: content before the 354");
            }
        }
        kept
    }

    fn command(&mut self, line: &str) {
        let moment = match line.get(..4) {
            Some("MAIL") => Some(Moment::Mail),
            Some("RCPT") => Some(Moment::Rcpt),
            Some("DATA" | "BDAT") => Some(Moment::Data),
            _ => None,
        };
        if let Some(moment) = moment {
            match self.fault {
                Fault::EndAt(at) if at == moment => return self.is_ended = true,
                Fault::SilentAt(at) if at == moment => return self.is_silent = true,
                Fault::Slow if moment == Moment::Mail => self.late = Some(Vec::new()),
                Fault::ClosingAt(at) if at == moment => {
                    self.say("421 4.3.2 going down");
                    return self.is_ended = true;
                }
                _ => {}
            }
        }
        match (moment, line) {
            (Some(Moment::Mail), _) => {
                assert!(self.mail.is_none(), "rule N2: nested MAIL on a connection");
                if self.share == 0 {
                    self.say("421 4.7.0 too many messages in this connection");
                    self.is_ended = true;
                } else if line.contains("<refused@") {
                    self.say("550 5.7.1 sender refused");
                } else {
                    self.share -= 1;
                    self.mail = Some(line.to_owned());
                    self.recipients.clear();
                    self.chunks = None;
                    self.say("250 2.1.0 ok");
                }
            }
            (Some(Moment::Rcpt), _) if self.mail.is_none() => self.say("503 5.5.1 need MAIL"),
            (Some(Moment::Rcpt), _) => {
                if line.contains("<no") || line.contains(&format!("<{}", self.kind.refuses)) {
                    self.say("550 5.1.1 unknown");
                } else {
                    self.recipients.push(line.to_owned());
                    self.say("250 2.1.5 ok");
                }
            }
            (Some(Moment::Data), _) if line.starts_with("BDAT") => self.begin_chunk(line),
            (Some(Moment::Data), _) if self.recipients.is_empty() => {
                // Some servers say 354 all the same.
                if self.kind.refuses == 'q' && self.mail.is_some() {
                    self.content = Some(0);
                    self.say("354 go on");
                } else {
                    self.say("554 5.5.1 no valid recipients");
                }
            }
            (Some(Moment::Data), _) if self.fault == Fault::DataRefused => {
                self.say("451 4.7.1 not now");
            }
            (Some(Moment::Data), _) => {
                self.content = Some(0);
                self.say("354 go on");
            }
            (None, "RSET") => {
                self.mail = None;
                self.recipients.clear();
                self.chunks = None;
                self.say("250 2.0.0 ok");
            }
            (None, "QUIT") => {
                self.say("221 2.0.0 bye");
                self.is_ended = true;
            }
            (None, other) => unreachable!("a backend is never said {other:?}"),
        }
    }

    /// BDAT, whose octets follow.
    fn begin_chunk(&mut self, line: &str) {
        assert!(
            self.kind.chunking,
            "rule E3: {line:?} to a server without CHUNKING"
        );
        assert!(
            self.output.is_empty(),
            "rule P8: {line:?} before all else was answered"
        );
        assert!(!self.recipients.is_empty(), "a message for nobody");
        let mut words = line.split(' ').skip(1);
        let octets = words.next().and_then(|word| word.parse().ok());
        let is_last = words.next() == Some("LAST");
        let chunks = self.chunks.get_or_insert_default();
        assert!(
            !chunks.is_failed,
            "rule C4: a chunk behind one that was refused"
        );
        chunks.open = Some((octets.expect("a length"), is_last));
    }

    /// Takes octets of a chunk.
    fn take_chunk(&mut self) -> Content {
        let chunks = self.chunks.as_mut().expect("BDAT was said");
        let (left, is_last) = chunks.open.expect("a chunk is open");
        let length = left.min(self.input.len());
        chunks.content.extend(self.input.drain(..length));
        chunks.open = (length < left).then_some((left - length, is_last));
        let seen = chunks.content.len();
        if chunks.open.is_some() {
            self.fail_early(seen);
            return Content::Coming;
        }
        if std::mem::take(&mut self.said_early) {
            // The rest had left before our word was read: it is the reply then.
            let accepts = matches!(self.fault, Fault::EarlyAcceptance(_));
            chunks.is_failed |= !accepts;
            return Content::Over((accepts && is_last).then(|| self.message_of_chunks()));
        }
        if matches!(self.fault, Fault::Full | Fault::DataRefused) {
            chunks.is_failed = true;
            self.say("452 4.3.1 no room");
            return Content::Over(None);
        }
        if !is_last {
            match self.fault {
                Fault::CutReply(octets) if octets < 10 => {
                    self.output
                        .extend_from_slice(&b"250-2.0.0 octets"[..octets]);
                    self.is_ended = true;
                }
                _ => self.say("250 2.0.0 octets received"),
            }
            return Content::Over(None);
        }
        let message = self.message_of_chunks();
        self.judge(message)
    }

    fn message_of_chunks(&mut self) -> Kept {
        let chunks = self.chunks.take().unwrap_or_default();
        Kept {
            mail: self.mail.take().unwrap_or_default(),
            recipients: std::mem::take(&mut self.recipients),
            content: chunks.content,
        }
    }

    /// Looks for the end of the message.
    fn take_content(&mut self, seen: usize) -> Content {
        let whole = if self.input.starts_with(b".\r\n") {
            Some(0)
        } else {
            let from = seen.saturating_sub(4);
            let found = self.input[from..]
                .windows(5)
                .position(|five| five == b"\r\n.\r\n");
            found.map(|at| from + at + 2)
        };
        let Some(end) = whole else {
            self.fail_early(self.input.len());
            self.content = Some(self.input.len());
            return Content::Coming;
        };
        let content: Vec<u8> = self.input.drain(..end).collect();
        self.input.drain(..3);
        self.content = None;
        let message = Kept {
            mail: self.mail.take().unwrap_or_default(),
            recipients: std::mem::take(&mut self.recipients),
            content,
        };
        if message.recipients.is_empty() {
            self.say("554 5.5.1 no valid recipients");
            return Content::Over(None);
        }
        if std::mem::take(&mut self.said_early) {
            // The end had left before our word was read: an acceptance is one then.
            let accepts = matches!(self.fault, Fault::EarlyAcceptance(_));
            return Content::Over(accepts.then_some(message));
        }
        self.judge(message)
    }

    /// What a whole message is told.
    fn judge(&mut self, message: Kept) -> Content {
        match self.fault {
            Fault::CutReply(octets) => {
                self.output.extend_from_slice(&REPLY_TO_MESSAGE[..octets]);
                self.is_ended = true;
            }
            Fault::ForgetAndEnd => {
                self.is_ended = true;
                return Content::Over(None);
            }
            Fault::Full => {
                self.say("452 4.3.1 no room");
                return Content::Over(None);
            }
            _ => self.output.extend_from_slice(REPLY_TO_MESSAGE),
        }
        Content::Over(Some(message))
    }

    /// Faults before the end of a message of which so much has come.
    fn fail_early(&mut self, seen: usize) {
        match self.fault {
            Fault::EndInContent(at) if seen > at => self.is_ended = true,
            Fault::EarlyRefusal(at) if seen > at && !self.said_early => {
                self.said_early = true;
                self.say("552 5.3.4 too big");
            }
            Fault::EarlyAcceptance(at) if seen > at && !self.said_early => {
                self.said_early = true;
                self.say("250 2.0.0 queued what?");
            }
            _ => {}
        }
    }

    fn say(&mut self, line: &str) {
        let output = self.late.as_mut().unwrap_or(&mut self.output);
        output.extend_from_slice(line.as_bytes());
        output.extend_from_slice(b"\r\n");
    }

    /// What was late arrives.
    pub(crate) fn arrive(&mut self) {
        if let Some(late) = self.late.take() {
            self.output.extend(late);
        }
    }
}
