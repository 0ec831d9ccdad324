//! One mail transaction, from MAIL to the final reply, over one backend connection after another
//! (rules F1–F10, S13, N2–N4, P5–P9).
//!
//! Contract: the owner says what happened (`say`, `leased`, `reply`, `lost`, …) and does what the
//! outputs ask for, in order. Commands for the backend are in [`Exchange::flight`]; the message
//! itself is not here: the owner holds its copy, sends it while [`Exchange::wants_content`], and
//! tells when its last octet has left ([`Exchange::committed`]). No clock but the instants given.
//!
//! The client is answered in the order of its commands, each once, because a backend answers in
//! order and answers of ours are made only when none of the backend's is outstanding. What the
//! client has been told is never taken back: on the next backend it must come true again, or the
//! transaction fails with 451.

mod terms;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use terms::{Answer, Fate, Leased, Output, TransactionEnd, Trouble, Verb, Want};

use super::replies::OwnReply;
use super::reply::{Reply, ReplyCode};

/// How often a transaction may move to another backend (rule F10).
pub const MOVES_MAX: u8 = 2;
/// A backend may take so long for its reply to MAIL, RCPT and RSET (RFC 5321 §4.5.3.2, less 5 s).
const REPLY_TIME: Duration = Duration::from_secs(295);
/// For 354.
const DATA_TIME: Duration = Duration::from_secs(115);
/// To take a block of the message.
const BLOCK_TIME: Duration = Duration::from_mins(3);
/// For the reply to the end of the message.
const FINAL_TIME: Duration = Duration::from_secs(595);
/// A message is moved to another backend so long after its end at most: clients lose patience.
const REPLAY_TIME: Duration = Duration::from_mins(1);

/// What the client was told about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Accepted,
    Refused,
}

#[derive(Debug)]
struct Said {
    verb: Verb,
    /// With its line end.
    line: Vec<u8>,
    /// The same for a backend that did not announce SIZE, where that makes a difference.
    without_size: Option<Vec<u8>>,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The client has not been asked for it.
    No,
    /// It is coming.
    Open,
    /// The client has ended it and waits for the final reply.
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Commands,
    /// 354 has come.
    Content,
    /// The commit octet has left (rule F5).
    Committed,
    /// A lone dot has: nobody was accepted, yet the backend said 354 (rule P9).
    LoneDot,
    /// RSET has.
    Reset,
}

#[derive(Debug)]
struct Held {
    pipelining: bool,
    size: bool,
    reused: bool,
    /// Some of it was answered to the client before: every answer must come true again.
    replay: bool,
    /// Nothing was heard yet.
    unheard: bool,
    /// The next command to be said.
    next: usize,
    /// Said and unanswered.
    outstanding: VecDeque<usize>,
    sending: Sending,
    since: Instant,
}

#[derive(Debug)]
enum Line {
    /// Before the first command.
    Idle,
    Wanted,
    Held(Held),
    /// Over.
    Gone,
}

/// A transaction.
#[derive(Debug)]
pub struct Exchange {
    said: Vec<Said>,
    line: Line,
    moves: u8,
    content: Content,
    /// The owner holds every octet of the message so far.
    has_copy: bool,
    completed: Option<Instant>,
    /// Nobody waits for answers any more.
    is_deserted: bool,
    /// What is to be answered when the client has ended its message (rule D7),
    verdict: Option<Answer>,
    /// and how the transaction will have ended then.
    ending: Option<TransactionEnd>,
    /// What the last backend said that was unwell: the client's answer if there is no other.
    unwell: Option<Answer>,
    flight: Vec<u8>,
    outputs: VecDeque<Output>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            said: Vec::new(),
            line: Line::Idle,
            moves: 0,
            content: Content::No,
            has_copy: true,
            completed: None,
            is_deserted: false,
            verdict: None,
            ending: None,
            unwell: None,
            flight: Vec::new(),
            outputs: VecDeque::new(),
        }
    }
}

impl Exchange {
    /// What is to be done next.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Commands to be sent, before any content.
    pub fn flight(&self) -> &[u8] {
        &self.flight
    }

    /// So many octets of them have left.
    pub fn flown(&mut self, octets: usize) {
        self.flight.drain(..octets);
    }

    /// Whether the client waits for an answer.
    pub fn is_awaited(&self) -> bool {
        self.content == Content::Complete || self.said.iter().any(|said| said.told.is_none())
    }

    /// Whether the client's next octets are the message.
    pub fn is_content(&self) -> bool {
        self.content == Content::Open
    }

    /// Whether the message may be sent to the backend, from where it was left or, after a move,
    /// from its beginning.
    pub fn wants_content(&self) -> bool {
        matches!(&self.line, Line::Held(held) if held.sending == Sending::Content)
    }

    /// Whether no backend is needed any more. What the client says next needs a new one, but for
    /// the rest of a message that was judged before its end.
    pub fn is_over(&self) -> bool {
        matches!(self.line, Line::Gone)
    }

    /// Whether it has a connection.
    pub fn has_connection(&self) -> bool {
        matches!(self.line, Line::Held(_))
    }

    /// Whether the client has done with it, and only its connection is not free yet.
    pub fn is_put_away(&self) -> bool {
        let waits = |held: &Held| matches!(held.sending, Sending::Reset | Sending::LoneDot);
        self.is_deserted || matches!(&self.line, Line::Held(held) if waits(held))
    }

    /// Whether the client may say RCPT or DATA.
    pub fn takes_commands(&self) -> bool {
        let open = match &self.line {
            Line::Wanted => true,
            Line::Held(held) => held.sending == Sending::Commands,
            Line::Idle | Line::Gone => false,
        };
        open && self.content == Content::No
    }

    /// Whether a recipient has been accepted or may still be.
    fn has_recipient(&self) -> bool {
        let may_be = |said: &Said| said.verb == Verb::Rcpt && said.told != Some(Told::Refused);
        self.said.iter().any(may_be)
    }

    /// The client says MAIL, which begins the transaction. `without_size` is the line for a backend
    /// that did not announce SIZE, if it differs.
    pub fn begin(&mut self, line: &[u8], without_size: Option<&[u8]>, now: Instant) {
        debug_assert!(self.said.is_empty(), "MAIL first and once");
        self.said.push(Said {
            verb: Verb::Mail,
            line: line.to_vec(),
            without_size: without_size.map(<[u8]>::to_vec),
            told: None,
        });
        self.line = Line::Wanted;
        self.outputs.push_back(Output::Lease(Want::Any));
        self.advance(now);
        self.check();
    }

    /// The client says RCPT or DATA, while the exchange [takes commands](Self::takes_commands).
    pub fn say(&mut self, verb: Verb, line: &[u8], now: Instant) {
        debug_assert!(verb != Verb::Mail && self.takes_commands());
        self.said.push(Said {
            verb,
            line: line.to_vec(),
            without_size: None,
            told: None,
        });
        self.advance(now);
        self.check();
    }

    /// The client has ended its message.
    pub fn complete(&mut self, now: Instant) {
        debug_assert_eq!(self.content, Content::Open);
        self.content = Content::Complete;
        self.completed = Some(now);
        if let Some(verdict) = self.verdict.take() {
            self.tell(verdict);
        }
        self.outputs.extend(self.ending.take().map(Output::End));
        self.check();
    }

    /// The message is refused by the owner, who says so at its end.
    pub fn refuse(&mut self, reply: OwnReply) {
        debug_assert!(self.content != Content::No);
        if !self.is_over() {
            self.tell(reply);
            let held = matches!(self.line, Line::Held(_));
            self.end(held.then_some(Fate::Abort), TransactionEnd::Refused);
        }
        self.check();
    }

    /// Whether DATA was said and is not answered: what follows is the message or a command, and
    /// nobody knows which.
    pub fn awaits_data(&self) -> bool {
        let last = self.said.last();
        last.is_some_and(|said| said.verb == Verb::Data && said.told.is_none())
    }

    /// How many RCPT have been said.
    pub fn recipients(&self) -> usize {
        let rcpt = |said: &&Said| said.verb == Verb::Rcpt;
        self.said.iter().filter(rcpt).count()
    }

    /// The owner could not keep the whole message: it cannot be replayed.
    pub fn copy_lost(&mut self) {
        self.has_copy = false;
    }

    /// Octets of the message have left.
    pub fn moved(&mut self, now: Instant) {
        if let Line::Held(held) = &mut self.line {
            held.since = now;
        }
    }

    /// The last octet of the message and its end have been handed to the kernel.
    pub fn committed(&mut self, now: Instant) {
        debug_assert_eq!(self.content, Content::Complete);
        if let Line::Held(held) = &mut self.line {
            debug_assert_eq!(held.sending, Sending::Content);
            held.sending = Sending::Committed;
            held.since = now;
        }
        self.check();
    }

    /// A connection has been found; it is ready for MAIL.
    pub fn leased(&mut self, leased: Leased, now: Instant) {
        debug_assert!(matches!(self.line, Line::Wanted));
        self.line = Line::Held(Held {
            pipelining: leased.pipelining,
            size: leased.size,
            reused: leased.reused,
            replay: self.said.iter().any(|said| said.told.is_some()),
            unheard: true,
            next: 0,
            outstanding: VecDeque::new(),
            sending: Sending::Commands,
            since: now,
        });
        self.flight.clear();
        self.advance(now);
        self.check();
    }

    /// None could be found: `reply` says why.
    pub fn not_leased(&mut self, reply: OwnReply) {
        debug_assert!(matches!(self.line, Line::Wanted));
        let said = self.unwell.take();
        self.fail(said.unwrap_or(reply.into()));
        self.check();
    }

    /// The client takes the transaction back. Only when nothing is awaited.
    pub fn abandon(&mut self, now: Instant) {
        debug_assert!(!self.is_awaited());
        match &mut self.line {
            Line::Held(held)
                if held.sending == Sending::Commands && held.outstanding.is_empty() =>
            {
                // RSET needs a connection that is in step; it is kept when that is answered.
                held.sending = Sending::Reset;
                held.since = now;
                self.flight.extend_from_slice(b"RSET\r\n");
            }
            Line::Held(_) => self.end(Some(Fate::Abort), TransactionEnd::Abandoned),
            Line::Idle | Line::Wanted => self.end(None, TransactionEnd::Abandoned),
            Line::Gone => {}
        }
        self.check();
    }

    /// The client has left. A message that was committed waits for its reply, for the log (F11).
    pub fn client_lost(&mut self) {
        self.is_deserted = true;
        self.outputs.extend(self.ending.take().map(Output::End));
        match &self.line {
            Line::Held(held) if held.sending == Sending::Committed => {}
            Line::Held(_) => self.end(Some(Fate::Abort), TransactionEnd::Abandoned),
            Line::Idle | Line::Wanted => self.end(None, TransactionEnd::Abandoned),
            Line::Gone => {}
        }
        self.check();
    }

    /// The backend has said a whole reply.
    pub fn reply(&mut self, reply: &Reply<'_>, now: Instant) {
        let Line::Held(held) = &mut self.line else {
            return;
        };
        held.since = now;
        let unheard = std::mem::replace(&mut held.unheard, false);
        // Rule N4: a kept connection that has had its share is recycled, and nobody sees it.
        let worn = unheard && held.reused && matches!(reply.code.value(), 421 | 452);
        let answers = held.outstanding.pop_front();
        match (held.sending, answers) {
            (Sending::Commands, Some(_)) if worn => self.renew(Fate::Worn),
            (Sending::Commands, Some(index)) if reply.code != ReplyCode::CLOSING => {
                self.answered(index, reply, now);
            }
            (Sending::Committed, None) => self.finished(reply, now),
            (Sending::Content, None) if reply.code != ReplyCode::CLOSING => self.early(reply),
            (Sending::LoneDot | Sending::Reset, None) if reply.code != ReplyCode::CLOSING => {
                let end = if held.sending == Sending::Reset {
                    TransactionEnd::Abandoned
                } else {
                    TransactionEnd::Refused
                };
                self.end(Some(Fate::Keep), end);
            }
            _ if reply.code == ReplyCode::CLOSING => self.trouble(Trouble::Closing, now),
            _ => self.trouble(Trouble::Desync, now),
        }
        self.check();
    }

    /// The connection has ended or failed; `partial` is what was read of a reply that did not end.
    pub fn lost(&mut self, trouble: Trouble, partial: &[u8], now: Instant) {
        let Line::Held(held) = &self.line else { return };
        if held.sending == Sending::Committed && is_acceptance(partial) {
            // Row 6: a server says 2yz only after it has taken the message.
            self.outputs.push_back(Output::Answer(OwnReply::OK.into()));
            self.content = Content::No;
            self.end(Some(Fate::Retire), TransactionEnd::Accepted);
        } else {
            self.trouble(trouble, now);
        }
        self.check();
    }

    /// When the backend's silence is too long.
    pub fn deadline(&self) -> Option<Instant> {
        let Line::Held(held) = &self.line else {
            return None;
        };
        let limit = match held.sending {
            Sending::Commands => {
                let first = *held.outstanding.front()?;
                match self.said[first].verb {
                    Verb::Data => DATA_TIME,
                    Verb::Mail | Verb::Rcpt => REPLY_TIME,
                }
            }
            Sending::Content => BLOCK_TIME,
            Sending::Committed | Sending::LoneDot => FINAL_TIME,
            Sending::Reset => REPLY_TIME,
        };
        Some(held.since + limit)
    }

    /// Says what may be said now.
    fn advance(&mut self, now: Instant) {
        while let Line::Held(held) = &self.line {
            if held.sending != Sending::Commands {
                return;
            }
            let next = held.next;
            let Some(said) = self.said.get(next) else {
                return;
            };
            let (verb, told) = (said.verb, said.told);
            let in_step = held.outstanding.is_empty();
            if told == Some(Told::Refused) {
                self.pass(next);
                continue;
            }
            // A replay says DATA only when all recipients have been accepted again (F8).
            let may_follow = held.pipelining && !(held.replay && verb == Verb::Data);
            if !in_step && !may_follow {
                return;
            }
            let refusal = if !in_step {
                None
            } else if self.said[0].told == Some(Told::Refused) {
                Some(OwnReply::BAD_SEQUENCE)
            } else if verb == Verb::Data && !self.has_recipient() {
                Some(OwnReply::NO_RECIPIENTS)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                self.answer(next, Told::Refused, refusal);
                self.pass(next);
                continue;
            }
            let said = &self.said[next];
            let plain = said.without_size.as_ref().filter(|_| !held.size);
            self.flight.extend_from_slice(plain.unwrap_or(&said.line));
            self.pass(next);
            if let Line::Held(held) = &mut self.line {
                held.outstanding.push_back(next);
                held.since = now;
            }
            if verb == Verb::Data {
                return;
            }
        }
    }

    fn pass(&mut self, index: usize) {
        if let Line::Held(held) = &mut self.line {
            held.next = index + 1;
        }
    }

    fn answer(&mut self, index: usize, told: Told, answer: impl Into<Answer>) {
        debug_assert!(self.said[index].told.is_none(), "one reply per command");
        debug_assert!(
            self.said[..index].iter().all(|said| said.told.is_some()),
            "replies in the order of the commands"
        );
        self.said[index].told = Some(told);
        self.outputs.push_back(Output::Answer(answer.into()));
    }

    /// A command's reply, in step.
    fn answered(&mut self, index: usize, reply: &Reply<'_>, now: Instant) {
        let accepts = match self.said[index].verb {
            Verb::Mail | Verb::Rcpt => reply.code.class() == 2,
            Verb::Data => reply.code.value() == 354,
        };
        match (self.said[index].told, accepts) {
            (None, false) if reply.code.class() < 4 => self.trouble(Trouble::Desync, now),
            (None, false) => {
                self.answer(index, Told::Refused, Answer::of(reply));
                self.settle(now);
            }
            (None, true) if self.said[index].verb == Verb::Data && !self.has_recipient() => {
                self.answer(index, Told::Refused, OwnReply::NO_RECIPIENTS);
                self.flight.extend_from_slice(b".\r\n");
                self.send(Sending::LoneDot);
            }
            (None, true) => {
                self.answer(index, Told::Accepted, Answer::of(reply));
                self.accepted(index, now);
            }
            (Some(Told::Accepted), true) => self.accepted(index, now),
            // What the client was told does not come true here (F8): nothing can be taken back.
            (Some(_), _) => self.give_up(Fate::Abort, OwnReply::BACKEND_LOST),
        }
    }

    fn accepted(&mut self, index: usize, now: Instant) {
        if self.said[index].verb == Verb::Data {
            if self.content == Content::No {
                self.content = Content::Open;
            }
            self.send(Sending::Content);
        } else {
            self.advance(now);
        }
    }

    fn send(&mut self, sending: Sending) {
        if let Line::Held(held) = &mut self.line {
            held.sending = sending;
        }
    }

    /// After a refusal: goes on, or ends when MAIL was refused and nobody waits.
    fn settle(&mut self, now: Instant) {
        self.advance(now);
        let Line::Held(held) = &self.line else { return };
        let mail_refused = self.said[0].told == Some(Told::Refused);
        if mail_refused && held.outstanding.is_empty() && held.sending == Sending::Commands {
            self.end(Some(Fate::Keep), TransactionEnd::Refused);
        }
    }

    /// The reply to the message (rows 6 to 10).
    fn finished(&mut self, reply: &Reply<'_>, now: Instant) {
        let fate = if reply.code == ReplyCode::CLOSING {
            Fate::Retire
        } else {
            Fate::Keep
        };
        match reply.code.class() {
            2 => {
                self.tell(Answer::of(reply));
                self.end(Some(fate), TransactionEnd::Accepted);
            }
            4 if is_unwell(reply) && self.may_move(now) => {
                self.unwell = (reply.code != ReplyCode::CLOSING).then(|| Answer::of(reply));
                self.outputs.push_back(Output::Strike(Trouble::Unwell));
                self.outputs.push_back(Output::Release(fate));
                self.move_on(Want::Other);
            }
            4 if reply.code == ReplyCode::CLOSING => {
                // A 421 would tell the client that its connection closes (S13).
                self.tell(OwnReply::NO_BACKEND);
                self.end(Some(fate), TransactionEnd::Refused);
            }
            4 | 5 => {
                self.tell(Answer::of(reply));
                self.end(Some(fate), TransactionEnd::Refused);
            }
            // 3yz to an end: it has not understood what we said. Whether it has the message?
            _ => self.trouble(Trouble::Desync, now),
        }
    }

    /// Answers the end of the message.
    fn tell(&mut self, answer: impl Into<Answer>) {
        if self.content == Content::Complete {
            self.content = Content::No;
            self.outputs.push_back(Output::Answer(answer.into()));
        } else {
            self.verdict = Some(answer.into());
        }
    }

    /// A reply before the end of the message was sent (D7).
    fn early(&mut self, reply: &Reply<'_>) {
        match reply.code.class() {
            4 | 5 => {
                self.tell(Answer::of(reply));
                self.end(Some(Fate::Abort), TransactionEnd::Refused);
            }
            // It saw an end that we did not send: no replay, or there might be two copies.
            _ => {
                self.tell(OwnReply::BACKEND_PROTOCOL);
                self.outputs.push_back(Output::Strike(Trouble::Desync));
                self.end(Some(Fate::Abort), TransactionEnd::Failed);
            }
        }
    }

    /// The connection is of no more use.
    fn trouble(&mut self, trouble: Trouble, now: Instant) {
        let Line::Held(held) = &self.line else { return };
        let sending = held.sending;
        let was_dead = held.unheard && held.reused && trouble == Trouble::Lost;
        match sending {
            Sending::Committed => {
                self.outputs.push_back(Output::Strike(trouble));
                self.tell(OwnReply::IN_DOUBT);
                self.end(Some(Fate::Retire), TransactionEnd::InDoubt);
            }
            // Nobody waits for these.
            Sending::Reset => self.end(Some(Fate::Retire), TransactionEnd::Abandoned),
            Sending::LoneDot => self.end(Some(Fate::Retire), TransactionEnd::Refused),
            Sending::Commands if was_dead => self.renew(Fate::Retire),
            // There is no transaction to go on with.
            Sending::Commands if self.said[0].told == Some(Told::Refused) => {
                self.outputs.push_back(Output::Strike(trouble));
                self.give_up(Fate::Abort, OwnReply::BAD_SEQUENCE);
            }
            Sending::Commands | Sending::Content if self.may_move(now) => {
                self.outputs.push_back(Output::Strike(trouble));
                self.outputs.push_back(Output::Release(Fate::Abort));
                self.move_on(Want::Other);
            }
            Sending::Commands | Sending::Content => {
                self.outputs.push_back(Output::Strike(trouble));
                let reply = match trouble {
                    Trouble::Silent => OwnReply::BACKEND_TIMEOUT,
                    Trouble::Desync => OwnReply::BACKEND_PROTOCOL,
                    Trouble::Lost | Trouble::Closing | Trouble::Unwell => OwnReply::BACKEND_LOST,
                };
                self.give_up(Fate::Abort, reply);
            }
        }
    }

    /// The kept connection was dead before we spoke: the same on a new one, at nobody's cost (N3).
    fn renew(&mut self, fate: Fate) {
        self.outputs.push_back(Output::Release(fate));
        self.line = Line::Wanted;
        self.flight.clear();
        self.outputs.push_back(Output::Lease(Want::New));
    }

    fn may_move(&self, now: Instant) -> bool {
        let in_time = self
            .completed
            .is_none_or(|completed| now.saturating_duration_since(completed) < REPLAY_TIME);
        let whole = self.content == Content::No || self.has_copy;
        self.moves < MOVES_MAX && whole && in_time
    }

    fn move_on(&mut self, want: Want) {
        self.moves += 1;
        self.line = Line::Wanted;
        self.flight.clear();
        self.outputs.push_back(Output::Lease(want));
    }

    fn give_up(&mut self, fate: Fate, reply: OwnReply) {
        self.outputs.push_back(Output::Release(fate));
        self.fail(reply);
    }

    /// Answers whatever the client waits for, once each, and ends.
    fn fail(&mut self, reply: impl Into<Answer>) {
        let mut reply = Some(reply.into());
        for index in 0..self.said.len() {
            if self.said[index].told.is_none() {
                let text = reply.take().unwrap_or(OwnReply::BAD_SEQUENCE.into());
                self.answer(index, Told::Refused, text);
            }
        }
        if let Some(reply) = reply
            && self.content != Content::No
        {
            self.tell(reply);
        }
        self.end(None, TransactionEnd::Failed);
    }

    fn end(&mut self, fate: Option<Fate>, end: TransactionEnd) {
        if let Some(fate) = fate {
            self.outputs.push_back(Output::Release(fate));
        }
        self.line = Line::Gone;
        self.flight.clear();
        if self.content == Content::Open && self.verdict.is_some() {
            self.ending = Some(end);
        } else {
            self.outputs.push_back(Output::End(end));
        }
    }

    /// What holds after every call.
    fn check(&self) {
        if cfg!(debug_assertions) {
            let first_open = self.said.iter().position(|said| said.told.is_none());
            let after = first_open.map_or(&[][..], |first| &self.said[first..]);
            assert!(
                after.iter().all(|said| said.told.is_none()),
                "answers are in order"
            );
            if let Line::Held(held) = &self.line {
                assert!(held.outstanding.iter().is_sorted(), "commands are in order");
                let last = held.outstanding.back();
                assert!(last.is_none_or(|&last| last < held.next));
                assert!(held.pipelining || held.outstanding.len() <= 1, "rule P5");
            }
            if self.is_over() && !self.is_deserted {
                assert!(first_open.is_none(), "nobody waits at the end");
            }
        }
    }
}

/// Row 8: the backend is unwell, not the message: 421, x.3.x, a bare 452.
fn is_unwell(reply: &Reply<'_>) -> bool {
    match reply.enhanced {
        Some(enhanced) => enhanced.subject == 3 || reply.code == ReplyCode::CLOSING,
        None => matches!(reply.code.value(), 421 | 452),
    }
}

/// `2dd` and SP or `-`: a server says so only when it has the message.
fn is_acceptance(partial: &[u8]) -> bool {
    matches!(partial, [b'2', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..])
}

#[cfg(test)]
mod tests;
