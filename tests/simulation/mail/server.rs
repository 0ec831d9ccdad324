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

const REPLY_TO_MESSAGE: &[u8] = b"250 2.0.0 queued\r\n";

/// One connection of a server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pipelining: bool,
    fault: Fault,
    /// Transactions until 421 or 452 at MAIL (rule N4).
    share: u32,
    /// Recipients beginning so are refused here.
    refuses: char,
    input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    /// Closed by the server; what is in `output` is still delivered.
    pub(crate) is_ended: bool,
    is_silent: bool,
    mail: Option<String>,
    recipients: Vec<String>,
    content: Option<usize>,
    said_early: bool,
}

impl Server {
    pub(crate) fn new(pipelining: bool, fault: Fault, refuses: char, rng: &mut Rng) -> Self {
        Self {
            pipelining,
            fault,
            share: 1 + rng.below(6),
            refuses,
            input: Vec::new(),
            output: Vec::new(),
            is_ended: false,
            is_silent: false,
            mail: None,
            recipients: Vec::new(),
            content: None,
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
            let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") else {
                break;
            };
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            let line = String::from_utf8(line).expect("ASCII only");
            let more = !self.input.is_empty();
            assert!(
                self.pipelining || !more,
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
            Some("DATA") => Some(Moment::Data),
            _ => None,
        };
        if let Some(moment) = moment {
            match self.fault {
                Fault::EndAt(at) if at == moment => return self.is_ended = true,
                Fault::SilentAt(at) if at == moment => return self.is_silent = true,
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
                    self.say("250 2.1.0 ok");
                }
            }
            (Some(Moment::Rcpt), _) if self.mail.is_none() => self.say("503 5.5.1 need MAIL"),
            (Some(Moment::Rcpt), _) => {
                if line.contains("<no") || line.contains(&format!("<{}", self.refuses)) {
                    self.say("550 5.1.1 unknown");
                } else {
                    self.recipients.push(line.to_owned());
                    self.say("250 2.1.5 ok");
                }
            }
            (Some(Moment::Data), _) if self.recipients.is_empty() => {
                // Some servers say 354 all the same.
                if self.refuses == 'q' && self.mail.is_some() {
                    self.content = Some(0);
                    self.say("354 go on");
                } else {
                    self.say("554 5.5.1 no valid recipients");
                }
            }
            (Some(Moment::Data), _) => {
                self.content = Some(0);
                self.say("354 go on");
            }
            (None, "RSET") => {
                self.mail = None;
                self.recipients.clear();
                self.say("250 2.0.0 ok");
            }
            (None, "QUIT") => {
                self.say("221 2.0.0 bye");
                self.is_ended = true;
            }
            (None, other) => unreachable!("a backend is never said {other:?}"),
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
            self.fail_early();
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

    /// Faults before the end of a message.
    fn fail_early(&mut self) {
        match self.fault {
            Fault::EndInContent(at) if self.input.len() > at => self.is_ended = true,
            Fault::EarlyRefusal(at) if self.input.len() > at && !self.said_early => {
                self.said_early = true;
                self.say("552 5.3.4 too big");
            }
            Fault::EarlyAcceptance(at) if self.input.len() > at && !self.said_early => {
                self.said_early = true;
                self.say("250 2.0.0 queued what?");
            }
            _ => {}
        }
    }

    fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }
}
