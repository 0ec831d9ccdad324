//! The dialogues we lead ourselves: with clients we deny, and with other balancers' checks.
//!
//! A denied client is greeted with 554 and answered 503 until it quits (RFC 5321 §3.1, rule S6);
//! a monitor is answered as a server would, without any backend being dialled. Neither gets
//! further than QUIT. Octets in are never kept, octets out are at most
//! [`CLOSING_COMMANDS_MAX`] short replies, whatever is pipelined. The driver ends the dialogue after
//! [`CLOSING_TIME_MAX`], for the core has no clock.

use std::time::Duration;

use super::extensions::write_helo;
use super::refusal::{CommandName, OwnRefusal};
use super::replies::OwnReply;

/// Commands answered to one client; the last of them is answered `421`, and the connection closed.
pub const CLOSING_COMMANDS_MAX: u8 = 5;
/// How long such a dialogue may take in all.
pub const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest command line that is looked at (RFC 5321 §4.5.3.1.4), line end included.
const LINE_MAX: usize = 512;
/// As much of a line as tells commands apart: the longest verb, and what ends it.
const VERB_MAX: usize = 9;

/// What the driver does once everything written is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read on.
    Continue,
    /// Close, lingering (rule K5).
    Close,
}

/// A dialogue that ends without a backend.
#[derive(Clone, Debug)]
pub struct ClosingDialogue {
    host: Box<str>,
    greeting: Box<[u8]>,
    role: Role,
    next: Next,
    commands: u8,
    /// The beginning of the line that is coming in.
    verb: [u8; VERB_MAX],
    /// Octets of that line so far.
    line_length: usize,
    /// What was refused and not told of; as many as there are replies at most.
    refused: Vec<OwnRefusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Denied,
    Monitor,
}

/// Whether a monitor is told that we can take mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// 220.
    Ready,
    /// 421, and close.
    NotReady,
}

impl ClosingDialogue {
    /// With a client whose network is not allowed; `host` is the listener's name.
    pub fn denied(host: &str) -> Self {
        Self::new(
            host,
            format!("554 5.7.1 {host} access denied\r\n"),
            Role::Denied,
            OwnReply::DENIED,
        )
    }

    /// With another balancer's check from one of `monitor_networks`.
    pub fn monitor(host: &str, readiness: Readiness) -> Self {
        let reply = match readiness {
            Readiness::Ready => OwnReply::GREETING,
            Readiness::NotReady => OwnReply::NOT_AVAILABLE,
        };
        let mut greeting = Vec::new();
        reply.write(host, &mut greeting);
        Self::new(host, greeting, Role::Monitor, reply)
    }

    /// `greeting` is how `reply` is said.
    fn new(host: &str, greeting: impl Into<Vec<u8>>, role: Role, reply: OwnReply) -> Self {
        let mut dialogue = Self {
            host: host.into(),
            greeting: greeting.into().into(),
            role,
            next: reply.next(),
            commands: 0,
            verb: [0; VERB_MAX],
            line_length: 0,
            refused: Vec::new(),
        };
        dialogue.note_refusal(CommandName::Connect, reply);
        dialogue
    }

    /// With another first line, given without its CRLF, for the operator who words it himself.
    #[must_use]
    pub fn with_greeting(mut self, line: &str) -> Self {
        self.greeting = format!("{line}\r\n").into_bytes().into();
        self
    }

    /// What is sent first.
    pub fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// What was refused since this was asked last, the greeting included.
    pub fn refused(&mut self) -> Vec<OwnRefusal> {
        std::mem::take(&mut self.refused)
    }

    fn note_refusal(&mut self, command: CommandName, reply: OwnReply) {
        if reply.refuses() {
            self.refused.push(OwnRefusal { command, reply });
        }
    }

    /// What to do now: after the greeting, or after the last [`handle`](Self::handle).
    pub fn next(&self) -> Next {
        self.next
    }

    /// Takes what the client sent and appends the replies to `out`.
    ///
    /// Lines end with LF. Octets behind the command that closes are dropped unread.
    pub fn handle(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Next {
        for &octet in octets {
            if self.next == Next::Close {
                break;
            }
            if let Some(place) = self.verb.get_mut(self.line_length) {
                *place = octet;
            }
            self.line_length = self.line_length.saturating_add(1);
            if octet == b'\n' {
                self.answer(out);
                self.verb = [0; VERB_MAX];
                self.line_length = 0;
            }
        }
        self.next
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        self.commands += 1;
        let is_last = self.commands >= CLOSING_COMMANDS_MAX;
        let reply = match (self.role, Command::of(self.verb, self.line_length)) {
            (_, Command::Quit) => OwnReply::GOODBYE,
            _ if is_last => OwnReply::TOO_MANY_ERRORS,
            (_, Command::TooLong) => OwnReply::LINE_TOO_LONG,
            (Role::Denied, _) => OwnReply::ACCESS_DENIED,
            (Role::Monitor, Command::Hello) => return write_helo(&self.host, out),
            (Role::Monitor, Command::Idle) => OwnReply::OK,
            (Role::Monitor, Command::Other) => OwnReply::MONITOR_ONLY,
        };
        reply.write(&self.host, out);
        self.next = reply.next();
        self.note_refusal(CommandName::of_line(&self.verb), reply);
    }
}

/// What is told apart of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// EHLO and HELO.
    Hello,
    /// NOOP and RSET.
    Idle,
    Quit,
    TooLong,
    Other,
}

impl Command {
    /// Every verb we know has four letters; what follows must not be a fifth.
    fn of(verb: [u8; VERB_MAX], line_length: usize) -> Self {
        if line_length > LINE_MAX {
            return Self::TooLong;
        }
        let [letters @ .., end, _, _, _, _] = verb;
        match (&letters.to_ascii_uppercase()[..], end) {
            (b"QUIT", b' ' | b'\r' | b'\n') => Self::Quit,
            (b"EHLO" | b"HELO", b' ' | b'\r' | b'\n') => Self::Hello,
            (b"NOOP" | b"RSET", b' ' | b'\r' | b'\n') => Self::Idle,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything said to a client that sends `octets` at once.
    fn said(mut dialogue: ClosingDialogue, octets: &[u8]) -> (String, Next) {
        let mut out = dialogue.greeting().to_vec();
        let next = dialogue.handle(octets, &mut out);
        assert_eq!(next, dialogue.next());
        (String::from_utf8(out).expect("we speak ASCII"), next)
    }

    #[test]
    fn rule_s6_a_denied_client_hears_503_until_it_quits() {
        let (out, next) = said(ClosingDialogue::denied("mx.example"), b"EHLO x\r\nNOOP\r\n");
        let expected = "554 5.7.1 mx.example access denied\r\n\
            503 5.5.1 access denied\r\n503 5.5.1 access denied\r\n";
        assert_eq!((out.as_str(), next), (expected, Next::Continue));
        let (out, next) = said(ClosingDialogue::denied("mx.example"), b"quit\r\nNOOP\r\n");
        let expected = "554 5.7.1 mx.example access denied\r\n221 2.0.0 mx.example closing\r\n";
        assert_eq!((out.as_str(), next), (expected, Next::Close));
    }

    #[test]
    fn rule_r2_the_operator_may_word_the_denial() {
        let dialogue = ClosingDialogue::denied("mx").with_greeting("550 5.7.1 mx not you");
        let (out, _) = said(dialogue, b"QUIT\r\n");
        assert_eq!(out, "550 5.7.1 mx not you\r\n221 2.0.0 mx closing\r\n");
    }

    #[test]
    fn a_ready_monitor_is_answered_as_by_a_server() {
        let dialogue = ClosingDialogue::monitor("mx.example", Readiness::Ready);
        let (out, next) = said(dialogue, b"helo x\r\nRSET\r\nMAIL FROM:<>\r\nQUIT\r\n");
        let expected = "220 mx.example ESMTP\r\n250 mx.example\r\n250 2.0.0 ok\r\n\
            502 5.5.1 not available to monitors\r\n221 2.0.0 mx.example closing\r\n";
        assert_eq!((out.as_str(), next), (expected, Next::Close));
    }

    #[test]
    fn rule_r1_a_monitor_is_told_421_and_closed_when_nothing_is_ready() {
        let dialogue = ClosingDialogue::monitor("mx.example", Readiness::NotReady);
        assert_eq!(dialogue.next(), Next::Close);
        let (out, next) = said(dialogue, b"NOOP\r\n");
        let expected = "421 4.3.2 mx.example service not available, try again later\r\n";
        assert_eq!((out.as_str(), next), (expected, Next::Close));
    }

    #[test]
    fn a_pipelined_flood_gets_five_short_replies() {
        for flood in [b"NOOP\r\n".repeat(100_000), b"\n".repeat(100_000)] {
            let (out, next) = said(ClosingDialogue::denied("mx.example"), &flood);
            assert_eq!(next, Next::Close);
            assert_eq!(out.matches("503 5.5.1").count(), 4);
            assert!(out.ends_with("421 4.7.0 mx.example too many errors\r\n"));
        }
    }

    #[test]
    fn an_endless_line_is_dropped_and_answered_once() {
        let mut dialogue = ClosingDialogue::monitor("mx", Readiness::Ready);
        let mut out = Vec::new();
        for _ in 0..1000 {
            assert_eq!(
                dialogue.handle(b"QUIT QUIT QUIT ", &mut out),
                Next::Continue
            );
        }
        assert!(out.is_empty());
        dialogue.handle(b"\r\nQUIT\r\n", &mut out);
        assert_eq!(out, b"500 5.5.2 line too long\r\n221 2.0.0 mx closing\r\n");
    }

    #[test]
    fn only_whole_verbs_count() {
        let first = |line: &str| {
            let dialogue = ClosingDialogue::monitor("mx", Readiness::Ready);
            let said = said(dialogue, format!("{line}\r\n").as_bytes()).0;
            said.lines().nth(1).expect("a reply")[..3].to_owned()
        };
        let codes = ["QUITE", "QUIT now", "NOOP x", "EHLOx", "", "Q"].map(first);
        assert_eq!(codes, ["502", "221", "250", "502", "502", "502"]);
    }

    #[test]
    fn every_refusal_is_told_once_with_the_command_it_answers() {
        let mut dialogue = ClosingDialogue::denied("mx.example").with_greeting("550 not you");
        let mut names = |octets: &[u8]| {
            dialogue.handle(octets, &mut Vec::new());
            let refused = dialogue.refused().into_iter();
            let names = refused.map(|of| (of.command.name(), of.reply.name()));
            names.collect::<Vec<_>>()
        };
        let denied = [("connect", "denied"), ("ehlo", "access_denied")];
        assert_eq!(names(b"EHLO x\r\n"), denied);
        let rest = [
            ("starttls", "access_denied"),
            ("unknown", "access_denied"),
            ("mail", "access_denied"),
            ("noop", "too_many_errors"),
        ];
        let octets = b"STARTTLS\r\nhunter2\r\nMAIL FROM:<>\r\nNOOP\r\nNOOP\r\n";
        assert_eq!(names(octets), rest);
        let mut ready = ClosingDialogue::monitor("mx", Readiness::Ready);
        ready.handle(b"EHLO x\r\nQUIT\r\n", &mut Vec::new());
        assert_eq!(ready.refused(), []);
        let mut not_ready = ClosingDialogue::monitor("mx", Readiness::NotReady);
        assert_eq!(not_ready.refused()[0].reply, OwnReply::NOT_AVAILABLE);
    }

    #[test]
    fn chunks_make_no_difference() {
        let octets = b"EHLO x\r\nno such thing\r\nNOOP\nquit\r\nNOOP\r\n";
        let whole = said(ClosingDialogue::monitor("mx", Readiness::Ready), octets);
        for size in 1..octets.len() {
            let mut dialogue = ClosingDialogue::monitor("mx", Readiness::Ready);
            let mut out = dialogue.greeting().to_vec();
            for chunk in octets.chunks(size) {
                dialogue.handle(chunk, &mut out);
            }
            assert_eq!(
                (out, dialogue.next()),
                (whole.0.clone().into_bytes(), whole.1)
            );
        }
    }
}
