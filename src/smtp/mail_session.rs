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

mod backend;
mod chunks;
mod commands;
mod content;
mod facts;
mod held_back;
mod terms;
mod times;
mod transaction;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use facts::TransactionFacts;
pub use terms::{EarlyTalker, Effect, Kept, LeaseTerms, MailPolicy, Outgoing};

use super::budget::{Budget, Cost};
use super::closing::Next;
use super::exchange::Exchange;
use super::extensions::Extensions;
use super::line::{CommandLine, LineKind, LineReader};
use super::refusal::{CommandName, OwnRefusal};
use super::replay_memory::ReplayMemory;
use super::replies::OwnReply;
use chunks::Chunks;
use held_back::HeldBack;
use times::Pace;
use transaction::Transaction;

/// From the accept to the first MAIL (rule B6).
const FIRST_MAIL_TIME: Duration = Duration::from_mins(10);
/// Octets for the client beyond which nothing of its input is looked at (rule P3).
const BACKLOG_MAX: usize = 65_536;

#[derive(Debug)]
enum Hello {
    None,
    /// The client's name,
    Helo(Arc<str>),
    /// and what it was announced.
    Ehlo(Arc<str>, Box<Extensions>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    /// Not before what came before it has been answered.
    Later,
}

/// What a session keeps of its buffer of replies while a transaction is open, in octets.
const REPLIES_KEPT: usize = 1_024;

/// A client's session.
#[derive(Debug)]
pub struct MailSession {
    policy: Arc<MailPolicy>,
    memory: Arc<ReplayMemory>,
    lines: LineReader,
    hello: Hello,
    open: Option<Box<Transaction>>,
    /// A message that comes by BDAT, until its last chunk or RSET; or one chunk of none.
    chunks: Option<Box<Chunks>>,
    /// What the rest of a transaction is answered that lost its backends.
    failure: Option<OwnReply>,
    replies: Vec<u8>,
    /// The beginning of a backend's reply.
    heard: Vec<u8>,
    effects: VecDeque<Effect>,
    /// Transactions whose end has not been told,
    ended: VecDeque<TransactionFacts>,
    /// and the one whose end was told last.
    facts: Option<TransactionFacts>,
    budget: Budget,
    next: Next,
    closes_with: Option<OwnReply>,
    /// The last command that the client gave.
    said: CommandName,
    stage: Stage,
    /// The greeting that is held back.
    greeting: Option<HeldGreeting>,
    /// Replies that are held back (rule B5).
    held_back: Option<Box<HeldBack>>,
    /// The latest time that was told.
    clock: Instant,
    /// When the client's turn began, or it last did something with it.
    active: Instant,
    /// Since when it has not been its turn.
    held_up: Option<Instant>,
    /// How its message comes in.
    pace: Option<Pace>,
    /// Until then it must have said MAIL (rule B6).
    until_mail: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct HeldGreeting {
    until: Instant,
    /// The client has talked, which is known.
    is_early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// 421 at the next boundary.
    Draining,
    /// The client says nothing more,
    Ended,
    /// nor does it hear anything.
    Gone,
}

impl MailSession {
    /// A session that has just been accepted; the greeting is to be written, at once or when its
    /// time has come.
    pub fn new(policy: Arc<MailPolicy>, memory: Arc<ReplayMemory>, now: Instant) -> Self {
        let lines = LineReader::new(policy.quirks);
        let mut session = Self {
            policy,
            memory,
            lines,
            hello: Hello::None,
            open: None,
            chunks: None,
            failure: None,
            replies: Vec::new(),
            heard: Vec::new(),
            effects: VecDeque::new(),
            ended: VecDeque::new(),
            facts: None,
            budget: Budget::default(),
            next: Next::Continue,
            closes_with: None,
            said: CommandName::Connect,
            stage: Stage::Open,
            greeting: None,
            held_back: None,
            clock: now,
            active: now,
            held_up: None,
            pace: None,
            until_mail: Some(now + FIRST_MAIL_TIME),
        };
        let delay = session.policy.greet_delay;
        if delay.is_zero() {
            session.own(OwnReply::GREETING);
        } else {
            session.greeting = Some(HeldGreeting {
                until: now + delay,
                is_early: false,
            });
        }
        session
    }

    /// What is to be done next.
    pub fn effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        self.facts = match effect {
            Some(Effect::Ended(_)) => self.ended.pop_front(),
            Some(_) => None,
            None => {
                self.effects = VecDeque::new();
                self.ended = VecDeque::new();
                None
            }
        };
        effect
    }

    /// What there is to say of the transaction whose [`Effect::Ended`] was taken last, until the
    /// next effect is asked for. Of one that is open, if the session is being dropped:
    /// [`MailSession::cut`].
    pub fn facts(&mut self) -> Option<TransactionFacts> {
        self.facts.take()
    }

    /// Takes the open transaction out of a session that is dropped while it runs.
    pub fn cut(&mut self) -> Option<TransactionFacts> {
        self.open.take().map(TransactionFacts)
    }

    /// What is to be written to the client.
    pub fn to_client(&self) -> &[u8] {
        match &self.held_back {
            Some(held) => &self.replies[..held.before],
            None => &self.replies,
        }
    }

    /// So many octets of it have left.
    pub fn sent_to_client(&mut self, octets: usize) {
        self.replies.drain(..octets);
        if let Some(held) = &mut self.held_back {
            held.before -= octets;
        }
        // An idle session holds no buffer; one that has a transaction will need it again soon.
        let is_small = self.open.is_some() && self.replies.capacity() <= REPLIES_KEPT;
        if self.replies.is_empty() && !is_small {
            self.replies = Vec::new();
        }
    }

    /// Whether the session ends when everything has been written to the client (rule R1).
    pub fn is_closing(&self) -> bool {
        self.is_ending() && self.held_back.is_none()
    }

    /// Whether its last reply was made, even if that is held back.
    fn is_ending(&self) -> bool {
        self.next == Next::Close
    }

    /// The reply of ours with which the session ends; none if the client ended it.
    pub fn closes_with(&self) -> Option<OwnReply> {
        self.closes_with
    }

    /// Whether a transaction is open: a drain waits for its end (rule K7).
    pub fn is_in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Whether more of the client's octets may be read now (rule P3).
    pub fn reads_client(&self) -> bool {
        let speaks = matches!(self.stage, Stage::Open | Stage::Draining);
        let open = speaks && !self.is_ending() && !self.is_holding_back() && self.may_be_early();
        open && !self.is_full() && self.replies.len() < BACKLOG_MAX
    }

    /// Whether more of the backend's octets may be read now: not while the client leaves what it was
    /// told.
    pub fn reads_backend(&self) -> bool {
        self.replies.len() < BACKLOG_MAX
    }

    /// Whether the client's message must wait for the backend to take some of it.
    fn is_full(&self) -> bool {
        self.open.as_deref().is_some_and(Transaction::is_full)
    }

    /// Takes what the client has said, as far as it can be answered or passed on now; how many
    /// octets that was. `announced` is what may be announced in front of the pool's backends.
    pub fn client(&mut self, octets: &[u8], announced: &Extensions, now: Instant) -> usize {
        let used = self.take(octets, announced, now);
        self.keep_time(now);
        used
    }

    fn take(&mut self, octets: &[u8], announced: &Extensions, now: Instant) -> usize {
        self.clock = now;
        if self.greeting.is_some() {
            self.hear_early(octets);
            return 0;
        }
        let mut used = 0;
        while used < octets.len() && self.reads_client() {
            let rest = &octets[used..];
            let exchange = self.exchange();
            let is_chunk = self.is_in_chunk();
            if is_chunk || exchange.is_some_and(Exchange::is_content) {
                let taken = if is_chunk {
                    self.chunk(rest, now)
                } else {
                    self.content(rest, now)
                };
                used += taken;
                if taken == 0 {
                    break;
                }
                self.active = now;
                self.came(taken, now);
                continue;
            }
            if exchange.is_some_and(Exchange::awaits_data) {
                break;
            }
            // What is not taken now is read again.
            let mut lines = self.lines.clone();
            let line = lines.read(rest, LineKind::Command);
            if matches!(line, CommandLine::Defective { .. }) && self.is_awaited() {
                break;
            }
            self.lines = lines;
            match line {
                CommandLine::Incomplete { consumed } => {
                    // A command in pieces has no more time than a whole one (rule B6).
                    used += consumed;
                    break;
                }
                CommandLine::Defective { defect, consumed } => {
                    used += consumed;
                    self.said = CommandName::of_line(rest);
                    self.say(defect.reply(), defect.cost());
                }
                CommandLine::Complete { text, consumed } => {
                    if self.command(text, announced, now) == Taken::Later {
                        break;
                    }
                    used += consumed;
                }
            }
            self.active = now;
            self.collect();
        }
        used
    }

    /// The client has ended its direction; it may still read what it waits for (rule K3).
    pub fn client_ended(&mut self) {
        if self.stage != Stage::Gone {
            self.stage = Stage::Ended;
        }
        if !self.is_awaited() {
            self.leave();
        }
    }

    /// The client is gone; what it was to be told is dropped.
    pub fn client_lost(&mut self) {
        self.replies = Vec::new();
        self.held_back = None;
        self.stage = Stage::Gone;
        self.leave();
    }

    /// The client says nothing more and waits for nothing.
    fn leave(&mut self) {
        if let Some(open) = &mut self.open {
            open.exchange.client_lost();
        }
        self.next = Next::Close;
        self.collect();
    }

    /// No new transaction: the session ends with 421 at the next boundary (rule K7), which may be
    /// now.
    pub fn drain(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Draining;
            self.greeting = None;
        }
        self.held_back = None;
        self.collect();
    }

    /// Whether what the client says before its greeting is still to be seen.
    fn may_be_early(&self) -> bool {
        let passes = self.policy.early_talker == EarlyTalker::Pass;
        self.greeting
            .as_ref()
            .is_none_or(|held| !passes && !held.is_early)
    }

    /// The client talks before it was greeted (rule S14).
    fn hear_early(&mut self, octets: &[u8]) {
        if octets.is_empty() || !self.may_be_early() {
            return;
        }
        self.effects.push_back(Effect::EarlyTalker);
        match self.policy.early_talker {
            EarlyTalker::Pass | EarlyTalker::Log => {
                if let Some(held) = &mut self.greeting {
                    held.is_early = true;
                }
            }
            EarlyTalker::Reject => {
                self.greeting = None;
                self.own(OwnReply::SYNCHRONIZATION);
            }
        }
    }

    fn exchange(&self) -> Option<&Exchange> {
        self.open.as_deref().map(|open| &open.exchange)
    }

    /// Whether the client waits for an answer.
    pub fn is_awaited(&self) -> bool {
        self.exchange().is_some_and(Exchange::is_awaited)
    }

    /// Whether the client's next octets are a chunk's.
    fn is_in_chunk(&self) -> bool {
        self.chunks.as_deref().is_some_and(Chunks::is_open)
    }

    /// Whether the client's next octets are a message's, or would be.
    fn is_in_content(&self) -> bool {
        self.is_in_chunk() || self.exchange().is_some_and(Exchange::is_content)
    }

    fn takes_commands(&self) -> bool {
        self.exchange().is_some_and(Exchange::takes_commands)
    }

    /// A reply of ours to a command that costs so much.
    fn say(&mut self, reply: OwnReply, cost: Cost) {
        if self.pays(cost) {
            self.own(reply);
        }
    }

    /// Charges the client (rule B4); one that cannot pay is sent away.
    fn pays(&mut self, cost: Cost) -> bool {
        self.hold_back(cost);
        let pays = self.budget.charge(cost) == Next::Continue;
        if !pays {
            self.own(OwnReply::TOO_MANY_ERRORS);
        }
        pays
    }

    /// Says a reply of ours, unless the last has been said.
    fn own(&mut self, reply: OwnReply) {
        if !self.is_ending() {
            let policy = &self.policy;
            policy.words.write(reply, &policy.host, &mut self.replies);
            self.next = reply.next();
            self.closes_with = (self.next == Next::Close).then_some(reply);
            self.note_refusal(self.said, reply);
        }
    }

    /// A reply of ours was made, which may be a refusal.
    fn note_refusal(&mut self, command: CommandName, reply: OwnReply) {
        if reply.refuses() {
            let refusal = OwnRefusal { command, reply };
            self.effects.push_back(Effect::Refused(refusal));
        }
    }
}

#[cfg(test)]
mod tests;
