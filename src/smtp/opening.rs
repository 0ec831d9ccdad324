//! The beginning of a connection to a backend: its greeting, our EHLO, what it announces (rules S6,
//! E5, E6, P6, G5–G8).
//!
//! Contract: the driver feeds what it reads and does what each step says, until `Ready` or
//! `Failed`. One command per flight, and none before the last line of the greeting (H6). At most
//! one reply is held, within the bounds of replies. No clock: the driver keeps the greeting's time
//! until the first step that says something, and the reply's time from there.

use std::mem;

use super::extensions::Extensions;
use super::reply::{Reply, ReplyCode, ReplyError, ReplyRead, read_reply};

/// How far an opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Ehlo,
    Over,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum OpeningStep {
    /// More must come.
    Wait,
    /// Send these octets, then go on.
    Say(Vec<u8>),
    /// It is ready for MAIL.
    Ready(Extensions),
    /// It is of no use; close it.
    Failed(OpeningFailure),
}

/// Why a connection is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningFailure {
    /// The greeting is not 220 (rule S6).
    #[error("greeted {code}: {text}")]
    Greeting {
        /// The code.
        code: u16,
        /// The first line's text, printable.
        text: String,
    },
    /// EHLO was refused (rule E6: nothing else is tried).
    #[error("EHLO refused {code}: {text}")]
    Ehlo {
        /// The code.
        code: u16,
        /// The first line's text, printable.
        text: String,
    },
    /// What was said is no reply.
    #[error("{0}")]
    Garbage(ReplyError),
    /// More was said than was asked: the next reply would answer nothing (rule G8).
    #[error("octets behind the reply")]
    Desync,
}

/// One connection that is being opened.
#[derive(Debug)]
pub struct Opening {
    state: State,
    ehlo: Vec<u8>,
    heard: Vec<u8>,
}

impl Opening {
    /// For a connection that has just been made. `name` is said in EHLO: our own (rule E5).
    pub fn new(name: &str) -> Self {
        Self {
            state: State::Greeting,
            ehlo: format!("EHLO {name}\r\n").into_bytes(),
            heard: Vec::new(),
        }
    }

    /// Whether the greeting has been heard.
    pub fn is_greeted(&self) -> bool {
        self.state != State::Greeting
    }

    /// Takes what the backend has said.
    pub fn handle(&mut self, octets: &[u8]) -> OpeningStep {
        self.heard.extend_from_slice(octets);
        let heard = mem::take(&mut self.heard);
        match read_reply(&heard) {
            ReplyRead::Incomplete => {
                self.heard = heard;
                OpeningStep::Wait
            }
            ReplyRead::Invalid(error) => self.fail(OpeningFailure::Garbage(error)),
            ReplyRead::Complete(reply) if reply.octets.len() < heard.len() => {
                // A refusal is one whatever follows it.
                match self.refusal(&reply) {
                    Some(refusal) => self.fail(refusal),
                    None => self.fail(OpeningFailure::Desync),
                }
            }
            ReplyRead::Complete(reply) => self.replied(&reply),
        }
    }

    fn replied(&mut self, reply: &Reply<'_>) -> OpeningStep {
        if let Some(refusal) = self.refusal(reply) {
            return self.fail(refusal);
        }
        match self.state {
            State::Greeting => {
                self.state = State::Ehlo;
                OpeningStep::Say(mem::take(&mut self.ehlo))
            }
            State::Ehlo => {
                self.state = State::Over;
                OpeningStep::Ready(Extensions::read(reply))
            }
            State::Over => self.fail(OpeningFailure::Desync),
        }
    }

    /// Why the reply ends the opening, if it does.
    fn refusal(&self, reply: &Reply<'_>) -> Option<OpeningFailure> {
        let (code, text) = (reply.code.value(), reply.short_text());
        match self.state {
            State::Greeting if reply.code != ReplyCode::READY => {
                Some(OpeningFailure::Greeting { code, text })
            }
            State::Ehlo if reply.code.class() != 2 => Some(OpeningFailure::Ehlo { code, text }),
            State::Greeting | State::Ehlo | State::Over => None,
        }
    }

    fn fail(&mut self, failure: OpeningFailure) -> OpeningStep {
        self.state = State::Over;
        OpeningStep::Failed(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::super::extensions::Keyword;
    use super::*;

    fn said(step: OpeningStep) -> String {
        match step {
            OpeningStep::Say(octets) => String::from_utf8(octets).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rule_h6_ehlo_waits_for_the_last_line_of_the_greeting() {
        let mut opening = Opening::new("lb.example");
        assert_eq!(opening.handle(b"220-mx.example\r\n"), OpeningStep::Wait);
        assert!(!opening.is_greeted());
        let step = opening.handle(b"220 mx.example ESMTP\r\n");
        assert_eq!(said(step), "EHLO lb.example\r\n");
        assert!(opening.is_greeted());
        let step = opening.handle(b"250-mx.example\r\n250-PIPELINING\r\n250 SIZE 1000\r\n");
        let OpeningStep::Ready(extensions) = step else {
            panic!("{step:?}");
        };
        assert!(extensions.keywords.has(Keyword::Pipelining));
        assert_eq!(extensions.size_max.map(u64::from), Some(1_000));
    }

    #[test]
    fn any_chunking_gives_the_same_steps() {
        let greeting = b"220-mx.example\r\n220 mx.example ESMTP\r\n";
        let reply = b"250-mx.example\r\n250 8BITMIME\r\n";
        for size in 1..greeting.len() {
            let mut opening = Opening::new("lb.example");
            let mut steps: Vec<OpeningStep> = Vec::new();
            for part in greeting.chunks(size).chain(reply.chunks(size)) {
                match opening.handle(part) {
                    OpeningStep::Wait => {}
                    step => steps.push(step),
                }
            }
            assert_eq!(steps.len(), 2, "{size}: {steps:?}");
            assert!(matches!(steps[1], OpeningStep::Ready(_)));
        }
    }

    #[test]
    fn rule_s6_every_other_greeting_fails() {
        for (greeting, code) in [
            ("421 4.3.2 busy\r\n", 421),
            ("554 5.7.1 go away\r\n", 554),
            ("250 mx.example\r\n", 250),
        ] {
            let step = Opening::new("lb.example").handle(greeting.as_bytes());
            let is_that = |failure: &OpeningFailure| matches!(failure, OpeningFailure::Greeting { code: said, .. } if *said == code);
            assert!(
                matches!(&step, OpeningStep::Failed(failure) if is_that(failure)),
                "{step:?}"
            );
        }
    }

    #[test]
    fn rule_e6_a_refused_ehlo_fails_and_helo_is_not_tried() {
        let mut opening = Opening::new("lb.example");
        said(opening.handle(b"220 mx.example\r\n"));
        let step = opening.handle(b"502 5.5.1 what?\r\n");
        let failure = OpeningFailure::Ehlo {
            code: 502,
            text: "5.5.1 what?".into(),
        };
        assert_eq!(step, OpeningStep::Failed(failure));
    }

    #[test]
    fn rule_g8_more_than_was_asked_fails() {
        let step = Opening::new("lb.example").handle(b"220 mx.example\r\n250 what?\r\n");
        assert_eq!(step, OpeningStep::Failed(OpeningFailure::Desync));
        let step = Opening::new("lb.example").handle(b"421 busy\r\n221 bye\r\n");
        assert!(
            matches!(
                &step,
                OpeningStep::Failed(OpeningFailure::Greeting { code: 421, .. })
            ),
            "{step:?}"
        );
        let step = Opening::new("lb.example").handle(b"SSH-2.0\r\n");
        let garbage = OpeningFailure::Garbage(ReplyError::NotAReply);
        assert_eq!(step, OpeningStep::Failed(garbage));
    }
}
