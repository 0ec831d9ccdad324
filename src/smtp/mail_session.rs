//! The client's half of an SMTP session, and what passes between it and the backend of its open
//! transaction (rules G, S, P, B, D; K for the times).
//!
//! Contract: the driver feeds what it reads ([`MailSession::client`], [`MailSession::backend`]),
//! writes what is to be written ([`MailSession::to_client`], [`MailSession::to_backend`]), and does
//! what [`MailSession::effect`] asks for. Octets that are not consumed are given again with more;
//! they are not read on while [`MailSession::reads_client`] says no. No clock but the instants
//! given, no socket.
//!
//! Commands are answered in order and once. MAIL, RCPT and DATA of one group go to the backend
//! together; any other command, and any reply of ours, waits until the group has been answered. So
//! there is no queue of replies, and replies of two transactions cannot cross.

mod terms;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use terms::{Effect, Kept, MailPolicy, Outgoing};

use super::body::MessageBody;
use super::budget::{Budget, Cost};
use super::closing::Next;
use super::command::{Command, Mail, Rcpt, parse_command};
use super::data::{DataProgress, DataScanner, Offence};
use super::exchange::{Answer, Exchange, Fate, Leased, Output, Trouble, Verb};
use super::extensions::{Extensions, Keyword, write_helo};
use super::line::{BareLf, CommandLine, LineKind, LineReader};
use super::parameters::{MailTerms, Needed, Smtputf8, judge_mail, judge_rcpt};
use super::replay_memory::ReplayMemory;
use super::replies::{OwnReply, ReplyText, write_reply};
use super::reply::{ReplyRead, read_reply};

/// Octets for the client beyond which nothing of its input is looked at (rule P3).
const BACKLOG_MAX: usize = 65_536;
/// The end of a message.
const END_OF_DATA: &[u8] = b".\r\n";

#[derive(Debug)]
enum Hello {
    None,
    Helo,
    Ehlo(Box<Extensions>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    /// Not before what came before it has been answered.
    Later,
}

/// A client's session.
#[derive(Debug)]
pub struct MailSession {
    policy: Arc<MailPolicy>,
    memory: Arc<ReplayMemory>,
    lines: LineReader,
    hello: Hello,
    exchange: Option<Exchange>,
    smtputf8: Smtputf8,
    needed: Needed,
    scanner: Option<DataScanner>,
    body: MessageBody,
    /// Octets of the end of the message that have been written.
    end_sent: usize,
    replies: Vec<u8>,
    /// The beginning of a backend's reply.
    heard: Vec<u8>,
    effects: VecDeque<Effect>,
    budget: Budget,
    next: Next,
    stage: Stage,
    active: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// 421 at the next boundary.
    Draining,
    /// The client says nothing more.
    Ended,
}

impl MailSession {
    /// A session that has just been accepted; the greeting is to be written.
    pub fn new(policy: Arc<MailPolicy>, memory: Arc<ReplayMemory>, now: Instant) -> Self {
        let body = MessageBody::new(&memory, 0);
        let mut session = Self {
            policy,
            memory,
            lines: LineReader::new(BareLf::Refuse),
            hello: Hello::None,
            exchange: None,
            smtputf8: Smtputf8::Unused,
            needed: Needed::default(),
            scanner: None,
            body,
            end_sent: 0,
            replies: Vec::new(),
            heard: Vec::new(),
            effects: VecDeque::new(),
            budget: Budget::default(),
            next: Next::Continue,
            stage: Stage::Open,
            active: now,
        };
        session.own(OwnReply::GREETING);
        session
    }

    /// What is to be done next.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What is to be written to the client.
    pub fn to_client(&self) -> &[u8] {
        &self.replies
    }

    /// So many octets of it have left.
    pub fn sent_to_client(&mut self, octets: usize) {
        self.replies.drain(..octets);
    }

    /// Whether the session ends when everything has been written to the client (rule R1).
    pub fn is_closing(&self) -> bool {
        self.next == Next::Close
    }

    /// Whether a transaction is open: a drain waits for its end (rule K7).
    pub fn is_in_transaction(&self) -> bool {
        self.exchange.is_some()
    }

    /// Whether more of the client's octets may be read now (rule P3).
    pub fn reads_client(&self) -> bool {
        let open = self.stage != Stage::Ended && !self.is_closing();
        open && !self.is_full() && self.replies.len() < BACKLOG_MAX
    }

    /// Whether more of the backend's octets may be read now: not while the client leaves what it was
    /// told.
    pub fn reads_backend(&self) -> bool {
        self.replies.len() < BACKLOG_MAX
    }

    /// Whether the client's message must wait for the backend to take some of it.
    fn is_full(&self) -> bool {
        let coming = |exchange: &Exchange| exchange.is_content() && !exchange.is_over();
        self.exchange.as_ref().is_some_and(coming) && self.body.room() == 0
    }

    /// Takes what the client has said, as far as it can be answered or passed on now; how many
    /// octets that was. `announced` is what may be announced in front of the pool's backends.
    pub fn client(&mut self, octets: &[u8], announced: &Extensions, now: Instant) -> usize {
        let mut used = 0;
        while used < octets.len() && self.reads_client() {
            let rest = &octets[used..];
            let exchange = self.exchange.as_ref();
            if exchange.is_some_and(Exchange::is_content) {
                let taken = self.content(rest, now);
                used += taken;
                if taken == 0 {
                    break;
                }
                continue;
            }
            if exchange.is_some_and(Exchange::awaits_data) {
                break;
            }
            match self.lines.read(rest, LineKind::Command) {
                CommandLine::Incomplete { consumed } => {
                    used += consumed;
                    break;
                }
                CommandLine::Defective { .. } if self.is_awaited() => break,
                CommandLine::Defective { defect, consumed } => {
                    used += consumed;
                    self.say(defect.reply(), defect.cost());
                }
                CommandLine::Complete { text, consumed } => {
                    if self.command(text, announced, now) == Taken::Later {
                        break;
                    }
                    used += consumed;
                }
            }
            self.collect();
        }
        if used > 0 {
            self.active = now;
        }
        used
    }

    /// The client has ended its direction; it may still read what it waits for (rule K3).
    pub fn client_ended(&mut self) {
        self.stage = Stage::Ended;
        if !self.is_awaited() {
            self.client_lost();
        }
    }

    /// The client is gone.
    pub fn client_lost(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.client_lost();
        }
        self.next = Next::Close;
        self.collect();
    }

    /// No new transaction: the session ends with 421 at the next boundary (rule K7), which may be
    /// now.
    pub fn drain(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Draining;
        }
        self.collect();
    }

    /// What is to be written to the backend.
    pub fn to_backend(&self) -> Outgoing<'_> {
        let nothing = Outgoing {
            octets: &[],
            end: &[],
        };
        let Some(exchange) = &self.exchange else {
            return nothing;
        };
        if !exchange.flight().is_empty() {
            let octets = exchange.flight();
            return Outgoing { octets, end: &[] };
        }
        if !exchange.wants_content() {
            return nothing;
        }
        let octets = self.body.unsent();
        let is_last =
            self.body.is_complete() && self.body.sent() + octets.len() as u64 == self.body.length();
        let end = if is_last {
            &END_OF_DATA[self.end_sent..]
        } else {
            &[]
        };
        Outgoing { octets, end }
    }

    /// So many octets of that have been handed to the kernel.
    pub fn sent_to_backend(&mut self, octets: usize, now: Instant) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        let flight = exchange.flight().len();
        if flight > 0 {
            exchange.flown(octets);
            return;
        }
        let content = octets.min(self.body.unsent().len());
        if self.body.room() == 0 {
            // The client could not go on: its time begins anew.
            self.active = now;
        }
        self.body.advance(content);
        self.end_sent += octets - content;
        debug_assert!(self.end_sent <= END_OF_DATA.len());
        exchange.moved(now);
        if self.end_sent == END_OF_DATA.len() {
            self.end_sent = 0;
            exchange.committed(now);
        }
    }

    /// A connection has been found. Its backend said `extensions` to EHLO.
    pub fn leased(&mut self, extensions: &Extensions, kept: Kept, now: Instant) {
        let leased = Leased {
            pipelining: extensions.keywords.has(Keyword::Pipelining),
            size: extensions.keywords.has(Keyword::Size),
            reused: kept == Kept::Yes,
        };
        if let Some(exchange) = &mut self.exchange {
            exchange.leased(leased, now);
        }
        self.collect();
    }

    /// None could be found.
    pub fn not_leased(&mut self, reply: OwnReply) {
        if let Some(exchange) = &mut self.exchange {
            exchange.not_leased(reply);
        }
        self.collect();
    }

    /// What the backend has said.
    pub fn backend(&mut self, octets: &[u8], now: Instant) {
        self.heard.extend_from_slice(octets);
        let heard = std::mem::take(&mut self.heard);
        let mut rest = &heard[..];
        // What follows a connection's last reply is not the next one's.
        while let Some(exchange) = &mut self.exchange
            && exchange.has_connection()
        {
            match read_reply(rest) {
                ReplyRead::Incomplete => {
                    self.heard = rest.to_vec();
                    break;
                }
                ReplyRead::Complete(reply) => {
                    rest = &rest[reply.octets.len()..];
                    exchange.reply(&reply, now);
                }
                ReplyRead::Invalid(_) => {
                    exchange.lost(Trouble::Desync, &[], now);
                    rest = &[];
                }
            }
            let unread = !rest.is_empty();
            self.collect_after(unread);
        }
    }

    /// The backend's connection has ended or failed.
    pub fn backend_lost(&mut self, now: Instant) {
        let partial = std::mem::take(&mut self.heard);
        if let Some(exchange) = &mut self.exchange {
            exchange.lost(Trouble::Lost, &partial, now);
        }
        self.collect();
    }

    /// When [`MailSession::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let backend = self.backend_deadline();
        let limit = match &self.exchange {
            _ if self.is_closing() || self.is_full() => None,
            Some(exchange) if exchange.is_content() => Some(self.policy.block_time),
            Some(_) if self.is_awaited() => None,
            Some(_) | None => Some(self.policy.command_time),
        };
        let client = limit.map(|limit| self.active + limit);
        backend.into_iter().chain(client).min()
    }

    /// When the backend has been silent for too long. Not while the next octets are the client's.
    fn backend_deadline(&self) -> Option<Instant> {
        let exchange = self.exchange.as_ref()?;
        let body = &self.body;
        let waits = exchange.wants_content() && body.is_all_sent() && !body.is_complete();
        exchange.deadline().filter(|_| !waits)
    }

    /// The deadline has passed.
    pub fn timeout(&mut self, now: Instant) {
        let is_late = self.backend_deadline().is_some_and(|late| late <= now);
        if let Some(exchange) = &mut self.exchange
            && is_late
        {
            exchange.lost(Trouble::Silent, &[], now);
            self.collect();
        }
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let content = self.exchange.as_ref().is_some_and(Exchange::is_content);
        let reply = if content {
            OwnReply::DATA_TIMEOUT
        } else {
            OwnReply::TIMEOUT
        };
        if let Some(exchange) = &mut self.exchange {
            exchange.client_lost();
        }
        self.collect();
        self.own(reply);
    }

    /// Whether the client waits for an answer.
    pub fn is_awaited(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::is_awaited)
    }

    fn takes_commands(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::takes_commands)
    }

    /// Follows one command line.
    fn command(&mut self, line: &[u8], announced: &Extensions, now: Instant) -> Taken {
        let command = parse_command(line, self.smtputf8);
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
            Command::Ehlo(_) | Command::Helo(_) => self.hello(&command, announced, now),
            Command::Mail(mail) => self.mail(&mail, now),
            Command::Rcpt(_) | Command::Data => self.say(OwnReply::BAD_SEQUENCE, Cost::Error),
            Command::Rset => {
                let cost = if self.exchange.is_some() {
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
            // Not announced; the octets of its chunk would be read as commands.
            Command::Bdat { .. } => {
                self.say(OwnReply::NOT_OFFERED, Cost::Error);
                self.next = Next::Close;
            }
            Command::Starttls | Command::Auth { .. } => {
                self.say(OwnReply::NOT_OFFERED, Cost::Error);
            }
        }
    }

    /// EHLO and HELO, which take an open transaction back (rule S2).
    fn hello(&mut self, command: &Command<'_>, announced: &Extensions, now: Instant) {
        let cost = match self.hello {
            Hello::None => Cost::Nothing,
            Hello::Helo | Hello::Ehlo(_) => Cost::Junk,
        };
        self.abandon(now);
        if !self.pays(cost) {
            return;
        }
        if matches!(command, Command::Ehlo(_)) {
            announced.write_ehlo(&self.policy.host, &mut self.replies);
            self.hello = Hello::Ehlo(Box::new(announced.clone()));
        } else {
            write_helo(&self.policy.host, &mut self.replies);
            self.hello = Hello::Helo;
        }
    }

    fn mail(&mut self, mail: &Mail<'_>, now: Instant) {
        let announced = match &self.hello {
            Hello::None => return self.say(OwnReply::BAD_SEQUENCE, Cost::Error),
            Hello::Helo => None,
            Hello::Ehlo(extensions) => Some(&**extensions),
        };
        if self.takes_commands() {
            return self.say(OwnReply::BAD_SEQUENCE, Cost::Error);
        }
        let terms = match judge_mail(mail.parameters, announced) {
            Ok(terms) => terms,
            Err(error) => return self.say(error.reply(), error.cost()),
        };
        let MailTerms {
            smtputf8, needed, ..
        } = terms;
        // One that is only being put away is not waited for.
        if let Some(exchange) = &mut self.exchange {
            exchange.client_lost();
            self.collect();
        }
        self.smtputf8 = smtputf8;
        self.needed = needed;
        self.body = MessageBody::new(&self.memory, self.policy.replay_max);
        self.end_sent = 0;
        let (mut line, mut plain) = (Vec::new(), Vec::new());
        let mut sized = Extensions::default();
        mail.write(&sized, &mut plain);
        sized.keywords.insert(Keyword::Size);
        mail.write(&sized, &mut line);
        let mut exchange = Exchange::default();
        exchange.begin(&line, (plain != line).then_some(&plain), now);
        self.exchange = Some(exchange);
        self.collect();
    }

    fn rcpt(&mut self, rcpt: &Rcpt<'_>, now: Instant) -> Taken {
        let announced = match &self.hello {
            Hello::Ehlo(extensions) => Some(&**extensions),
            Hello::None | Hello::Helo => None,
        };
        let judged = judge_rcpt(rcpt.parameters, announced);
        let Some(exchange) = &mut self.exchange else {
            return Taken::Later;
        };
        let full = exchange.recipients() >= self.policy.recipients_max;
        match judged {
            Ok(needed) if !full => {
                self.needed.keywords = self.needed.keywords.union(needed);
                let mut line = Vec::new();
                rcpt.write(&mut line);
                exchange.say(Verb::Rcpt, &line, now);
            }
            _ if exchange.is_awaited() => return Taken::Later,
            Ok(_) => self.say(OwnReply::TOO_MANY_RECIPIENTS, Cost::Nothing),
            Err(error) => self.say(error.reply(), error.cost()),
        }
        Taken::Yes
    }

    fn data(&mut self, now: Instant) -> Taken {
        let Some(exchange) = &mut self.exchange else {
            return Taken::Later;
        };
        if exchange.recipients() > 0 {
            exchange.say(Verb::Data, b"DATA\r\n", now);
        } else if exchange.is_awaited() {
            return Taken::Later;
        } else {
            self.say(OwnReply::BAD_SEQUENCE, Cost::Error);
        }
        Taken::Yes
    }

    /// Takes octets of the message.
    fn content(&mut self, rest: &[u8], now: Instant) -> usize {
        let Some(exchange) = &mut self.exchange else {
            return 0;
        };
        let line_endings = self.policy.line_endings;
        let scanner = self
            .scanner
            .get_or_insert_with(|| DataScanner::new(line_endings));
        let room = if exchange.is_over() {
            scanner.mute();
            rest.len()
        } else {
            rest.len().min(self.body.room())
        };
        if self.body.is_all_sent() {
            exchange.moved(now);
        }
        let input = &rest[..room];
        let mut loss = None;
        let progress = scanner.scan(input, |piece| {
            loss = loss.or(self.body.push(piece.octets(input)));
        });
        let refusal = match scanner.offence() {
            Some(Offence::BareCr | Offence::BareLf) => Some(OwnReply::BARE_IN_MESSAGE),
            Some(Offence::Nul) => Some(OwnReply::NUL_IN_MESSAGE),
            None if self.policy.size_max > 0
                && scanner.counts().message() > self.policy.size_max =>
            {
                Some(OwnReply::TOO_BIG)
            }
            None => None,
        };
        if let Some(loss) = loss {
            exchange.copy_lost();
            self.effects.push_back(Effect::NotReplayable(loss));
        }
        if let Some(refusal) = refusal {
            exchange.refuse(refusal);
        }
        let used = match progress {
            DataProgress::More => room,
            DataProgress::Ended { consumed } | DataProgress::Refused { consumed, .. } => {
                self.scanner = None;
                self.body.complete();
                exchange.complete(now);
                consumed
            }
        };
        self.collect();
        used
    }

    /// Takes the open transaction back.
    fn abandon(&mut self, now: Instant) {
        if let Some(exchange) = &mut self.exchange {
            exchange.abandon(now);
        }
        self.smtputf8 = Smtputf8::Unused;
        self.collect();
    }

    /// A reply of ours to a command that costs so much.
    fn say(&mut self, reply: OwnReply, cost: Cost) {
        if self.pays(cost) {
            self.own(reply);
        }
    }

    /// Charges the client (rule B4); one that cannot pay is sent away.
    fn pays(&mut self, cost: Cost) -> bool {
        let pays = self.budget.charge(cost) == Next::Continue;
        if !pays {
            self.own(OwnReply::TOO_MANY_ERRORS);
        }
        pays
    }

    /// Says a reply of ours, unless the last has been said.
    fn own(&mut self, reply: OwnReply) {
        if !self.is_closing() {
            reply.write(&self.policy.host, &mut self.replies);
            self.next = reply.next();
        }
    }

    fn collect(&mut self) {
        self.collect_after(false);
    }

    /// Does what the exchange asks for. `unread`: the backend has said more than it was asked.
    fn collect_after(&mut self, unread: bool) {
        while let Some(exchange) = &mut self.exchange
            && let Some(output) = exchange.output()
        {
            match output {
                Output::Lease(want) => {
                    self.heard.clear();
                    self.end_sent = 0;
                    // One that has no copy does not move.
                    let _ = self.body.rewind();
                    let needed = self.needed;
                    self.effects.push_back(Effect::Lease { want, needed });
                }
                Output::Answer(answer) => self.answer(answer),
                Output::Release(Fate::Keep) if unread => {
                    // Octets that nobody asked for: out of step (rule N2).
                    self.effects.push_back(Effect::Release(Fate::Retire));
                }
                Output::Release(fate) => self.effects.push_back(Effect::Release(fate)),
                Output::Strike(trouble) => self.effects.push_back(Effect::Strike(trouble)),
                Output::End(end) => self.effects.push_back(Effect::Ended(end)),
            }
        }
        // The rest of a message that was judged early is still to come, from who is still there.
        let closing = self.is_closing();
        let is_done =
            |exchange: &Exchange| exchange.is_over() && (closing || !exchange.is_content());
        if self.exchange.as_ref().is_some_and(is_done) {
            self.exchange = None;
            self.body = MessageBody::new(&self.memory, 0);
            self.smtputf8 = Smtputf8::Unused;
        }
        // A session that ends takes its transaction with it, once nobody waits for an answer.
        if closing
            && let Some(exchange) = &mut self.exchange
            && !exchange.is_awaited()
            && !exchange.is_put_away()
        {
            exchange.client_lost();
            return self.collect();
        }
        match self.stage {
            Stage::Draining if self.exchange.is_none() => self.own(OwnReply::SHUTTING_DOWN),
            Stage::Ended if !self.is_awaited() && !closing => self.client_lost(),
            Stage::Open | Stage::Draining | Stage::Ended => {}
        }
    }

    /// What a backend said, as the client gets it (rule G11), or what we say in its place. A
    /// refusal costs the client half a point whoever says it (rule B4), which also bounds how many
    /// refused commands a transaction can hold.
    fn answer(&mut self, answer: Answer) {
        let mut octets = Vec::new();
        match answer {
            Answer::Own(reply) => reply.write(&self.policy.host, &mut octets),
            Answer::Backend(reply) => octets = reply,
        }
        let allowed = match self.smtputf8 {
            Smtputf8::Used => ReplyText::Utf8,
            Smtputf8::Unused => ReplyText::Ascii,
        };
        if let ReplyRead::Complete(reply) = read_reply(&octets) {
            let cost = if reply.code.class() == 5 {
                Cost::RefusedRcpt
            } else {
                Cost::Nothing
            };
            if self.pays(cost) {
                write_reply(&reply, allowed, &mut self.replies);
            }
        }
    }
}

#[cfg(test)]
mod tests;
