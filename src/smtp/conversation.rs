//! The probe's conversation (rules H1–H6), without I/O.
//!
//! Contract: the driver calls [`Conversation::handle`] with what happened and does what the output
//! says, until `Done`. The driver owns the clock: each output that waits names its limit.
//!
//! One command per flight, so that no backend takes a probe for an abuser (P6, P7); the greeting
//! is read to its last line, because talking before it would get our address listed (H6); every
//! probe that can still talk ends with QUIT and waits for the 221 (H5). No DATA, ever. At most one
//! reply and one chunk are held.

use std::mem;
use std::time::Duration;

use super::greeting::contains;
use super::probe::{
    ProbeEnd, ProbeFailure, ProbeInput, ProbeOutput, ProbePlan, ProbeStage, RelayTest,
};
use super::reply::{Reply, ReplyCode, ReplyRead, printable, read_reply};

/// How long a probe waits for the 221 (rule H1). Its absence fails no probe.
const QUIT_WAIT: Duration = Duration::from_secs(2);
/// Octets read while waiting for the 221.
const QUIT_OCTETS_MAX: usize = 65_536;
/// The codes by which an EHLO behind a PROXY header shows that the header was read as commands.
const MISMATCH_CODES: [u16; 5] = [500, 501, 502, 503, 554];

/// One probe of one backend.
#[derive(Debug)]
pub struct Conversation {
    plan: ProbePlan,
    /// The recipient of the relay test, while it is still to be done.
    foreign: Option<String>,
    state: State,
    /// Octets of a reply that is not whole yet.
    buffer: Vec<u8>,
    /// Octets read since QUIT.
    quit_octets: usize,
    end: ProbeEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitConnect,
    AwaitReply(Step),
    AwaitTls,
    Over,
}

/// Which reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greeting,
    Ehlo(Cover),
    Starttls,
    Mail,
    Rcpt,
    Rset,
    ForeignMail,
    ForeignRcpt,
    ForeignRset,
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    Clear,
    Tls,
}

impl Step {
    fn stage(self) -> ProbeStage {
        match self {
            Self::Greeting => ProbeStage::Greeting,
            Self::Ehlo(Cover::Clear) => ProbeStage::Ehlo,
            Self::Starttls | Self::Ehlo(Cover::Tls) => ProbeStage::Starttls,
            Self::Mail
            | Self::Rcpt
            | Self::Rset
            | Self::ForeignMail
            | Self::ForeignRcpt
            | Self::ForeignRset => ProbeStage::Mail,
            Self::Quit => ProbeStage::Quit,
        }
    }

    /// Whether the probe goes on after this reply.
    fn is_passed_by(self, reply: &Reply<'_>) -> bool {
        match self {
            Self::Greeting | Self::Starttls => reply.code == ReplyCode::READY,
            Self::Mail => reply.code.class() == 2,
            Self::Rcpt => reply.code.class() == 2 || is_greylisting(reply),
            Self::Rset => reply.code != ReplyCode::CLOSING,
            // Judged where more is known.
            Self::Ehlo(_)
            | Self::ForeignMail
            | Self::ForeignRcpt
            | Self::ForeignRset
            | Self::Quit => true,
        }
    }

    /// Steps behind the verdict: nothing that happens in them fails the probe.
    fn is_extra(self) -> bool {
        match self {
            Self::ForeignMail | Self::ForeignRcpt | Self::ForeignRset | Self::Quit => true,
            Self::Greeting
            | Self::Ehlo(_)
            | Self::Starttls
            | Self::Mail
            | Self::Rcpt
            | Self::Rset => false,
        }
    }
}

impl Conversation {
    /// A conversation that has not begun.
    pub fn new(plan: ProbePlan) -> Self {
        let end = ProbeEnd {
            stage: ProbeStage::Connect,
            failure: None,
            code: None,
            text: None,
            full: false,
            greeting_text: None,
            keywords: Vec::new(),
            relay: None,
        };
        let state = State::AwaitConnect;
        Self {
            plan,
            foreign: None,
            state,
            buffer: Vec::new(),
            quit_octets: 0,
            end,
        }
    }

    /// Also asks, at depth 2 and above, for a recipient of a domain that is not the backend's
    /// (rule D11), and takes it back with RSET. The answer is [`ProbeEnd::relay`].
    #[must_use]
    pub fn with_relay_test(mut self, recipient: String) -> Self {
        self.foreign = Some(recipient);
        self
    }

    /// Takes what happened and says what to do next. After `Done` it says `Done` again.
    pub fn handle(&mut self, input: ProbeInput<'_>) -> ProbeOutput {
        match (self.state, input) {
            (State::Over, _) => self.done(),
            (State::AwaitConnect, ProbeInput::Connected) => self.connected(),
            (State::AwaitReply(step), ProbeInput::Octets(octets)) => self.octets(step, octets),
            (State::AwaitTls, ProbeInput::TlsDone) => {
                // What was announced in clear text is forgotten (rule T3).
                self.end.keywords.clear();
                self.ehlo(Cover::Tls)
            }
            (state, input) => self.broken(state, &input),
        }
    }

    fn connected(&mut self) -> ProbeOutput {
        if self.plan.depth == 0 {
            return self.done();
        }
        self.state = State::AwaitReply(Step::Greeting);
        ProbeOutput::Exchange {
            send: Vec::new(),
            wait: self.plan.greeting_timeout,
        }
    }

    fn octets(&mut self, step: Step, octets: &[u8]) -> ProbeOutput {
        self.buffer.extend_from_slice(octets);
        if step == Step::Quit {
            return self.farewell(octets.len());
        }
        let buffer = mem::take(&mut self.buffer);
        match read_reply(&buffer) {
            ReplyRead::Incomplete => {
                self.buffer = buffer;
                ProbeOutput::More
            }
            ReplyRead::Complete(reply) => self.reply(step, &reply, &buffer[reply.octets.len()..]),
            ReplyRead::Invalid(_) if step.is_extra() => self.done(),
            ReplyRead::Invalid(error) => {
                let text = format!("{error}: {}", printable(&buffer[..buffer.len().min(80)]));
                self.fail(step.stage(), ProbeFailure::Garbage, &text)
            }
        }
    }

    /// The reply to the one command that is open, with the octets `behind` it.
    fn reply(&mut self, step: Step, reply: &Reply<'_>, behind: &[u8]) -> ProbeOutput {
        if !step.is_extra() {
            self.end.stage = step.stage();
            if step != Step::Rset {
                self.end.code = Some(reply.code.value());
                self.end.text = Some(reply.short_text());
            }
        }
        if step == Step::Starttls && reply.code == ReplyCode::READY && !behind.is_empty() {
            // Somebody may have put them there; nothing of it may be read as said in TLS (T2).
            return self.fail(
                step.stage(),
                ProbeFailure::Garbage,
                "octets behind the 220 to STARTTLS",
            );
        }
        let refused = reply.code.class() == 5;
        let mismatch_possible = self.plan.proxied
            && (step == Step::Greeting || (matches!(step, Step::Ehlo(_)) && refused));
        if !behind.is_empty() && !mismatch_possible && !step.is_extra() {
            return self.fail(
                step.stage(),
                ProbeFailure::Garbage,
                "more replies than commands",
            );
        }
        if !step.is_extra() && says_full(reply) {
            self.end.full = true;
            return self.done();
        }
        if !step.is_passed_by(reply) {
            return if step == Step::Greeting && is_protocol_error(reply) {
                // Postfix 3.9, which takes an unexpected header for a client that talks too early.
                self.mismatch_or(reply, ProbeFailure::Permanent)
            } else {
                self.refused(reply)
            };
        }
        match step {
            Step::Greeting => self.greeted(reply, behind),
            Step::Ehlo(cover) => self.introduced(cover, reply),
            Step::Starttls => {
                self.state = State::AwaitTls;
                ProbeOutput::StartTls {
                    wait: self.plan.timeout,
                }
            }
            Step::Mail => match self.plan.recipient.clone() {
                Some(recipient) => self.send(Step::Rcpt, &format!("RCPT TO:<{recipient}>")),
                None => self.send(Step::Rset, "RSET"),
            },
            Step::Rcpt => self.send(Step::Rset, "RSET"),
            Step::Rset => self.relay_test(),
            Step::ForeignMail | Step::ForeignRcpt | Step::ForeignRset => self.foreign(step, reply),
            Step::Quit => self.done(),
        }
    }

    fn greeted(&mut self, reply: &Reply<'_>, behind: &[u8]) -> ProbeOutput {
        self.end.greeting_text = Some(reply.short_text());
        if let ReplyRead::Complete(second) = read_reply(behind) {
            // Only behind a PROXY header: an answer to the header, where none was due.
            self.end.stage = ProbeStage::Ehlo;
            self.end.code = Some(second.code.value());
            self.end.text = Some(second.short_text());
            return self.mismatch_or(&second, ProbeFailure::Garbage);
        }
        if self.plan.depth < 2 {
            return self.quit();
        }
        self.buffer = behind.to_vec();
        self.ehlo(Cover::Clear)
    }

    /// The reply to EHLO.
    fn introduced(&mut self, cover: Cover, reply: &Reply<'_>) -> ProbeOutput {
        if reply.code.value() != 250 {
            return match (cover, reply.code.class()) {
                (Cover::Clear, 5) => self.mismatch_or(reply, ProbeFailure::Permanent),
                _ => self.refused(reply),
            };
        }
        let keywords = reply
            .lines()
            .skip(1)
            .map(|line| printable(line.trim_ascii()));
        self.end.keywords = keywords.filter(|keyword| !keyword.is_empty()).collect();
        let announced = self.end.keywords.iter().any(|keyword| {
            keyword
                .split(' ')
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("STARTTLS"))
        });
        match (cover, self.plan.depth) {
            (Cover::Clear, 3..) if announced => self.send(Step::Starttls, "STARTTLS"),
            (Cover::Clear, 3) => {
                self.note(
                    ProbeStage::Starttls,
                    ProbeFailure::Tls,
                    "STARTTLS is not announced",
                );
                self.end.code = None;
                self.quit()
            }
            (_, 4..) => self.send(Step::Mail, "MAIL FROM:<>"),
            _ => self.relay_test(),
        }
    }

    /// Asks for the foreign recipient if that is wanted and still to be done.
    fn relay_test(&mut self) -> ProbeOutput {
        if self.foreign.is_some() {
            self.send(Step::ForeignMail, "MAIL FROM:<>")
        } else {
            self.quit()
        }
    }

    fn foreign(&mut self, step: Step, reply: &Reply<'_>) -> ProbeOutput {
        let accepted = reply.code.class() == 2;
        if step == Step::ForeignRcpt {
            self.end.relay = Some(if accepted {
                RelayTest::Accepted
            } else {
                RelayTest::Refused
            });
        }
        if reply.code == ReplyCode::CLOSING {
            return self.done();
        }
        match (step, self.foreign.take()) {
            (Step::ForeignMail, Some(recipient)) if accepted => {
                self.send(Step::ForeignRcpt, &format!("RCPT TO:<{recipient}>"))
            }
            (Step::ForeignRcpt, _) => self.send(Step::ForeignRset, "RSET"),
            _ => self.quit(),
        }
    }

    /// 5yz where a PROXY header may be the reason (rule X13), or else `failure`.
    fn mismatch_or(&mut self, reply: &Reply<'_>, failure: ProbeFailure) -> ProbeOutput {
        let code = reply.code.value();
        let mismatch = if self.plan.proxied {
            MISMATCH_CODES.contains(&code)
        } else {
            // Exim, when the header it requires did not come (rule H2).
            code == 503 && contains(reply.first_line(), b"proxy")
        };
        let failure = if mismatch {
            ProbeFailure::ProxyMismatch
        } else {
            failure
        };
        self.end.failure = Some(failure);
        if failure == ProbeFailure::Garbage {
            self.done()
        } else {
            self.quit()
        }
    }

    /// A reply that means no.
    fn refused(&mut self, reply: &Reply<'_>) -> ProbeOutput {
        self.end.failure = Some(match reply.code.class() {
            4 => ProbeFailure::Temporary,
            5 => ProbeFailure::Permanent,
            _ => ProbeFailure::Garbage,
        });
        let over = reply.code.class() < 4 || reply.code == ReplyCode::CLOSING;
        if over { self.done() } else { self.quit() }
    }

    fn ehlo(&mut self, cover: Cover) -> ProbeOutput {
        let command = format!("EHLO {}", self.plan.ehlo_name);
        self.send(Step::Ehlo(cover), &command)
    }

    /// One command alone in its flight (rule P6). Nothing in a name can end the line early.
    fn send(&mut self, step: Step, command: &str) -> ProbeOutput {
        self.state = State::AwaitReply(step);
        let mut send: Vec<u8> = command
            .bytes()
            .filter(|octet| !octet.is_ascii_control())
            .collect();
        send.extend_from_slice(b"\r\n");
        ProbeOutput::Exchange {
            send,
            wait: self.plan.timeout,
        }
    }

    fn quit(&mut self) -> ProbeOutput {
        self.buffer.clear();
        self.state = State::AwaitReply(Step::Quit);
        ProbeOutput::Exchange {
            send: b"QUIT\r\n".to_vec(),
            wait: QUIT_WAIT,
        }
    }

    /// Octets after QUIT: replies to earlier octets may still come before the 221.
    fn farewell(&mut self, came: usize) -> ProbeOutput {
        self.quit_octets += came;
        loop {
            match read_reply(&self.buffer) {
                ReplyRead::Incomplete if self.quit_octets < QUIT_OCTETS_MAX => {
                    return ProbeOutput::More;
                }
                ReplyRead::Complete(reply) if reply.code.value() != 221 => {
                    let length = reply.octets.len();
                    self.buffer.drain(..length);
                }
                ReplyRead::Incomplete | ReplyRead::Complete(_) | ReplyRead::Invalid(_) => {
                    return self.done();
                }
            }
        }
    }

    /// The connection ended, or the driver did what it was not asked for.
    fn broken(&mut self, state: State, input: &ProbeInput<'_>) -> ProbeOutput {
        let stage = match state {
            State::AwaitReply(step) if step.is_extra() => return self.done(),
            State::AwaitReply(step) => step.stage(),
            State::AwaitConnect | State::Over => ProbeStage::Connect,
            State::AwaitTls => ProbeStage::Starttls,
        };
        let (failure, text) = match input {
            ProbeInput::TimedOut => (ProbeFailure::Timeout, "no answer in time"),
            ProbeInput::Closed => (ProbeFailure::Closed, "connection closed without a reply"),
            ProbeInput::Reset => (ProbeFailure::Reset, "connection reset"),
            ProbeInput::TlsFailed => (ProbeFailure::Tls, "TLS handshake failed"),
            ProbeInput::Connected | ProbeInput::Octets(_) | ProbeInput::TlsDone => {
                (ProbeFailure::Garbage, "octets where none are due")
            }
        };
        // The code belongs to an earlier step.
        self.end.code = None;
        self.fail(stage, failure, text)
    }

    fn note(&mut self, stage: ProbeStage, failure: ProbeFailure, text: &str) {
        self.end.stage = stage;
        self.end.failure = Some(failure);
        self.end.text = Some(text.to_owned());
    }

    fn fail(&mut self, stage: ProbeStage, failure: ProbeFailure, text: &str) -> ProbeOutput {
        self.note(stage, failure, text);
        self.done()
    }

    fn done(&mut self) -> ProbeOutput {
        self.state = State::Over;
        self.buffer = Vec::new();
        ProbeOutput::Done(self.end.clone())
    }
}

/// Whether a reply says "works, but full" (rule H4).
///
/// 5.5.x: not us, but what we sent, is wrong (RFC 3463 §3.6).
fn is_protocol_error(reply: &Reply<'_>) -> bool {
    reply.code.class() == 5 && reply.enhanced.is_some_and(|enhanced| enhanced.subject == 5)
}

/// 421 with 4.3.x or 4.7.0, or a server without enhanced codes that speaks of "too many". Not
/// 4.3.0: Postfix says that when the PROXY header is missing or wrong, and works for nobody then.
fn says_full(reply: &Reply<'_>) -> bool {
    let text = || contains(reply.first_line(), b"too many");
    reply.code == ReplyCode::CLOSING
        && reply
            .enhanced
            .map_or_else(text, |code| match (code.subject, code.detail) {
                (3, detail) => detail != 0,
                (7, detail) => detail == 0,
                _ => false,
            })
}

/// Whether a refused RCPT only means "come back later" (rule H4): the backend works.
fn is_greylisting(reply: &Reply<'_>) -> bool {
    let text = || {
        [b"greylist", b"graylist"]
            .iter()
            .any(|word| contains(reply.first_line(), *word))
    };
    reply.code.class() == 4
        && reply.code != ReplyCode::CLOSING
        && reply
            .enhanced
            .map_or_else(text, |code| matches!(code.subject, 2 | 7))
}

#[cfg(test)]
mod tests;
