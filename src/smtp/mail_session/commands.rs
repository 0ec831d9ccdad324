//! What a client's command does: answered here, or passed on to the open transaction (rules S, E, P).
//!
//! Commands of one group go on together; a reply of ours waits until all before it is answered.

use std::sync::Arc;
use std::time::Instant;

use super::super::budget::Cost;
use super::super::chunking::{Chunk, ChunkPlace};
use super::super::command::{Command, HelloName, Mail, Rcpt, parse_command};
use super::super::exchange::{First354, Verb};
use super::super::extensions::{Extensions, Keyword, write_helo};
use super::super::parameters::{Smtputf8, judge_mail, judge_rcpt};
use super::super::refusal::CommandName;
use super::super::replies::OwnReply;
use super::transaction::Transaction;
use super::{Hello, MailSession, Taken};

/// How a client has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ehlo,
    Helo,
}

impl MailSession {
    /// Follows one command line.
    pub(super) fn command(&mut self, line: &[u8], announced: &Extensions, now: Instant) -> Taken {
        let open = self.open.as_deref();
        let smtputf8 = open.map_or(Smtputf8::Unused, |open| open.smtputf8);
        let command = parse_command(line, self.policy.quirks, smtputf8);
        self.said = match &command {
            Ok(command) => CommandName::of_command(command),
            Err(_) => CommandName::of_line(line),
        };
        match command {
            Ok(Command::Rcpt(rcpt)) if self.takes_commands() => return self.rcpt(&rcpt, now),
            Ok(Command::Data) if self.takes_commands() => return self.data(now),
            _ if self.is_awaited() => return Taken::Later,
            Ok(command) => self.in_step(command, announced, now),
            Err(error) => self.say(error.reply(), error.cost()),
        }
        Taken::Yes
    }

    /// Commands that wait for all that came before them.
    fn in_step(&mut self, command: Command<'_>, announced: &Extensions, now: Instant) {
        let cost = command.cost();
        match command {
            Command::Ehlo(name) => self.hello(Said::Ehlo, name, announced, now),
            Command::Helo(name) => self.hello(Said::Helo, name, announced, now),
            Command::Mail(mail) => self.mail(&mail, now),
            Command::Rcpt(_) | Command::Data => self.out_of_order(),
            Command::Rset => {
                let is_open = self.open.is_some() || self.chunks.is_some();
                let cost = if is_open || self.failure.is_some() {
                    Cost::Nothing
                } else {
                    Cost::Junk
                };
                self.abandon(now);
                self.say(OwnReply::OK, cost);
            }
            Command::Noop => self.say(OwnReply::OK, cost),
            Command::Help => self.say(OwnReply::HELP, cost),
            Command::Vrfy(_) => self.say(OwnReply::CANNOT_VERIFY, cost),
            Command::Quit => {
                self.abandon(now);
                self.say(OwnReply::GOODBYE, cost);
            }
            Command::Bdat { octets, last } => {
                let place = if last {
                    ChunkPlace::Last
                } else {
                    ChunkPlace::More
                };
                self.bdat(Chunk { octets, place }, now);
            }
            Command::Starttls | Command::Auth { .. } => {
                self.say(OwnReply::NOT_OFFERED, Cost::Error);
            }
        }
    }

    /// EHLO and HELO, which take an open transaction back (rule S2).
    fn hello(&mut self, hello: Said, name: HelloName<'_>, announced: &Extensions, now: Instant) {
        let cost = match self.hello {
            Hello::None => Cost::Nothing,
            Hello::Helo(_) | Hello::Ehlo(..) => Cost::Junk,
        };
        self.abandon(now);
        if !self.pays(cost) {
            return;
        }
        let name = name.as_said().into();
        match hello {
            Said::Ehlo => {
                announced.write_ehlo(&self.policy.host, &mut self.replies);
                self.hello = Hello::Ehlo(name, Box::new(announced.clone()));
            }
            Said::Helo => {
                write_helo(&self.policy.host, &mut self.replies);
                self.hello = Hello::Helo(name);
            }
        }
    }

    fn mail(&mut self, mail: &Mail<'_>, now: Instant) {
        let (name, announced) = match &self.hello {
            Hello::None => return self.say(OwnReply::BAD_SEQUENCE, Cost::Error),
            Hello::Helo(name) => (name, None),
            Hello::Ehlo(name, extensions) => (name, Some(&**extensions)),
        };
        let name = Arc::clone(name);
        if self.takes_commands() || self.chunks.is_some() {
            return self.say(OwnReply::BAD_SEQUENCE, Cost::Error);
        }
        let terms = match judge_mail(mail.parameters, announced) {
            Ok(terms) => terms,
            Err(error) => return self.say(error.reply(), error.cost()),
        };
        // One that is only being put away is not waited for.
        if let Some(open) = &mut self.open {
            open.exchange.client_lost();
            self.collect();
        }
        self.failure = None;
        self.until_mail = None;
        let mut open = Transaction::new(&terms, &name, &self.memory, &self.policy, now);
        let (mut line, mut plain) = (Vec::new(), Vec::new());
        let mut sized = Extensions::default();
        mail.write(&sized, &mut plain);
        sized.keywords.insert(Keyword::Size);
        mail.write(&sized, &mut line);
        let plain = (plain != line).then_some(&plain[..]);
        open.exchange.begin(&line, plain, now);
        self.open = Some(Box::new(open));
        self.collect();
    }

    fn rcpt(&mut self, rcpt: &Rcpt<'_>, now: Instant) -> Taken {
        let announced = match &self.hello {
            Hello::Ehlo(_, extensions) => Some(&**extensions),
            Hello::None | Hello::Helo(_) => None,
        };
        let judged = judge_rcpt(rcpt.parameters, announced);
        let Some(open) = &mut self.open else {
            return Taken::Later;
        };
        let full = open.exchange.recipients() >= self.policy.recipients_max;
        let mut line = Vec::new();
        rcpt.write(&mut line);
        match judged {
            Ok(needed) if !full && open.has_room(line.len(), &self.memory) => {
                open.needed.keywords = open.needed.keywords.union(needed);
                open.exchange.say(Verb::Rcpt, &line, now);
            }
            _ if open.exchange.is_awaited() => return Taken::Later,
            judged => {
                open.trace.refused_here += 1;
                match judged {
                    Ok(_) if full => self.say(OwnReply::TOO_MANY_RECIPIENTS, Cost::Nothing),
                    Ok(_) => self.say(OwnReply::NO_MEMORY, Cost::Nothing),
                    Err(error) => self.say(error.reply(), error.cost()),
                }
            }
        }
        Taken::Yes
    }

    fn data(&mut self, now: Instant) -> Taken {
        let Some(open) = &mut self.open else {
            return Taken::Later;
        };
        let exchange = &mut open.exchange;
        if self.policy.manners.first_354 == First354::Ours && exchange.is_awaited() {
            return Taken::Later;
        }
        if exchange.recipients() > 0 {
            exchange.say(Verb::Data, b"DATA\r\n", now);
        } else if exchange.is_awaited() {
            return Taken::Later;
        } else {
            self.say(OwnReply::BAD_SEQUENCE, Cost::Error);
        }
        Taken::Yes
    }

    /// RCPT or DATA that belongs to no transaction (rule S1), or to one that has failed: then it
    /// is told why, for 5yz to RCPT would make a client bounce.
    fn out_of_order(&mut self) {
        match self.failure {
            Some(failure) => self.say(failure, Cost::Junk),
            None => self.say(OwnReply::BAD_SEQUENCE, Cost::Error),
        }
    }

    /// Takes the open transaction back.
    pub(super) fn abandon(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.exchange.abandon(now);
        }
        self.chunks = None;
        self.failure = None;
        self.collect();
    }
}
