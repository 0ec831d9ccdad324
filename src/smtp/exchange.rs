//! One mail transaction, from MAIL to the final reply, over one backend connection after another
//! (rules F1–F10, S13, N2–N4, P5–P9, C1, C4).
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

mod hearing;
mod moving;
mod places;
mod terms;
mod waiting;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use places::Elsewhere;
pub use terms::{
    Answer, BackendTimes, Fate, First354, InDoubt, Leased, Manners, Output, Step, TransactionEnd,
    Trouble, Verb, Want,
};

use super::chunking::{Chunk, ChunkPlace};
use super::replies::OwnReply;
use places::{Place, Places};

/// How often a transaction may move to another backend (rule F10).
pub const MOVES_MAX: u8 = 2;
/// A message is moved to another backend so long after its end at most: clients lose patience.
const REPLAY_TIME: Duration = Duration::from_mins(1);
/// A hedge that was not granted, for want of a place or a budget, is asked for again so much later.
const HEDGE_AGAIN: Duration = Duration::from_millis(250);

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
    /// The client has ended it, or a chunk of it, and waits for the reply.
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Commands,
    /// 354 has come, or BDAT was said.
    Content,
    /// All of a chunk that is not the last has left.
    Chunk,
    /// The commit octet has left (rule F5).
    Committed,
    /// A lone dot has: nobody was accepted, yet the backend said 354 (rule P9).
    LoneDot,
    /// RSET has; so the transaction will have ended.
    Reset(TransactionEnd),
}

/// A message that comes by BDAT.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    /// Octets announced so far.
    end: u64,
    /// Whether the last of them end the message.
    place: ChunkPlace,
}

#[derive(Debug)]
struct Held {
    pipelining: bool,
    size: bool,
    chunking: bool,
    reused: bool,
    times: BackendTimes,
    hedge: Hedge,
    /// Where a quota counts recipients.
    places: Option<Places>,
    /// Some of it was answered to the client before: every answer must come true again.
    replay: bool,
    /// Nothing was heard yet.
    unheard: bool,
    /// The next command to be said.
    next: usize,
    /// Said and unanswered.
    outstanding: VecDeque<usize>,
    sending: Sending,
    /// Octets of the message in chunks that it has accepted.
    taken: u64,
    since: Instant,
}

/// Whether another backend is thought of when MAIL is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hedge {
    Off,
    /// It is slow from then on.
    At(Instant),
    /// The owner has been told so, and is told again then.
    Again(Instant),
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
    manners: Manners,
    said: Vec<Said>,
    /// Octets of memory that these take.
    weight: usize,
    line: Line,
    moves: u8,
    content: Content,
    /// Set by the first BDAT.
    chunks: Option<Chunks>,
    /// The owner holds every octet of the message so far.
    has_copy: bool,
    completed: Option<Instant>,
    /// A message in doubt is being said again: whatever comes of it, the first copy may exist.
    is_doubted: bool,
    /// Nobody waits for answers any more.
    is_deserted: bool,
    is_refused_here: bool,
    /// What is to be answered when the client has ended its message (rule D7),
    verdict: Option<Answer>,
    /// and how the transaction will have ended then.
    ending: Option<TransactionEnd>,
    /// What the last backend said that was unwell: the client's answer if there is no other.
    unwell: Option<Answer>,
    /// Where the last thing happened that a backend may be blamed for.
    step: Step,
    /// The reply to the message was an acceptance that broke off (row 6).
    is_truncated: bool,
    /// Why no backend stayed, for what the client says next.
    failure: Option<OwnReply>,
    flight: Vec<u8>,
    outputs: VecDeque<Output>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            manners: Manners::default(),
            said: Vec::new(),
            weight: 0,
            line: Line::Idle,
            moves: 0,
            content: Content::No,
            chunks: None,
            has_copy: true,
            completed: None,
            is_doubted: false,
            is_deserted: false,
            is_refused_here: false,
            verdict: None,
            ending: None,
            unwell: None,
            step: Step::Mail,
            is_truncated: false,
            failure: None,
            flight: Vec::new(),
            outputs: VecDeque::new(),
        }
    }
}

impl Said {
    fn new(verb: Verb, line: &[u8], without_size: Option<&[u8]>) -> Self {
        Self {
            verb,
            line: line.to_vec(),
            without_size: without_size.map(<[u8]>::to_vec),
            told: None,
        }
    }

    /// Octets of memory that a command of such a line takes, room for others behind it included.
    const fn weight(line: usize) -> usize {
        2 * size_of::<Self>() + line
    }
}

impl Exchange {
    /// One that does what its operator wants done.
    pub fn new(manners: Manners) -> Self {
        Self {
            manners,
            ..Self::default()
        }
    }

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

    /// Why it has failed while the client had more to say: what is answered to that. 503 would make a
    /// client give up recipients for good.
    pub fn failure(&self) -> Option<OwnReply> {
        self.failure
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

    /// Whether more of the message is of use to somebody. The rest of one that was judged before its
    /// end is only read.
    pub fn wants_message(&self) -> bool {
        !self.is_over() && self.verdict.is_none()
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

    /// Whether the message was refused by its owner.
    pub fn is_refused_here(&self) -> bool {
        self.is_refused_here
    }

    /// Whether the end of the message was sent and not answered (rule F5).
    pub fn is_committed(&self) -> bool {
        matches!(&self.line, Line::Held(held) if held.sending == Sending::Committed)
    }

    /// Whether the connection may be left for another without a doubt about the message, and without
    /// the client's noticing.
    pub fn may_be_left(&self, now: Instant) -> bool {
        let before_end = |sending| {
            matches!(
                sending,
                Sending::Commands | Sending::Content | Sending::Chunk
            )
        };
        self.may_move(now) && matches!(&self.line, Line::Held(held) if before_end(held.sending))
    }

    /// Whether the client has done with it, and only its connection is not free yet.
    pub fn is_put_away(&self) -> bool {
        let waits = |held: &Held| matches!(held.sending, Sending::Reset(_) | Sending::LoneDot);
        self.is_deserted || matches!(&self.line, Line::Held(held) if waits(held))
    }

    /// Whether the client may say RCPT or DATA.
    pub fn takes_commands(&self) -> bool {
        let open = match &self.line {
            Line::Wanted => true,
            Line::Held(held) => held.sending == Sending::Commands,
            Line::Idle | Line::Gone => false,
        };
        open && self.content == Content::No && self.chunks.is_none()
    }

    /// Whether the client may say BDAT: a recipient was accepted, and all that was said before is
    /// answered.
    pub fn takes_chunks(&self) -> bool {
        let open = match &self.line {
            Line::Wanted => true,
            Line::Held(held) => held.sending == Sending::Commands,
            Line::Idle | Line::Gone => false,
        };
        open && !self.is_awaited() && self.content == Content::No && self.has_recipient()
    }

    /// The octets of the message that have been announced by BDAT, and whether they are all.
    pub fn chunks(&self) -> Option<Chunk> {
        let chunks = self.chunks?;
        Some(Chunk {
            octets: chunks.end,
            place: chunks.place,
        })
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
        self.said.push(Said::new(Verb::Mail, line, without_size));
        self.weight = Said::weight(line.len() + without_size.map_or(0, <[u8]>::len));
        self.line = Line::Wanted;
        self.outputs.push_back(Output::Lease(Want::Any));
        self.advance(now);
        self.check();
    }

    /// The client says RCPT or DATA, while the exchange [takes commands](Self::takes_commands). Where
    /// we answer DATA ourselves, only when nothing is awaited.
    pub fn say(&mut self, verb: Verb, line: &[u8], now: Instant) {
        debug_assert!(verb != Verb::Mail && self.takes_commands());
        self.said.push(Said::new(verb, line, None));
        self.weight += Said::weight(line.len());
        let ours = self.manners.first_354 == First354::Ours;
        if verb == Verb::Data && ours && self.has_recipient() {
            self.answer(self.said.len() - 1, Told::Accepted, OwnReply::SEND_DATA);
            self.content = Content::Open;
        }
        self.advance(now);
        self.check();
    }

    /// The client says BDAT, while the exchange [takes chunks](Self::takes_chunks).
    pub fn chunk(&mut self, chunk: Chunk, now: Instant) {
        debug_assert!(self.takes_chunks());
        let before = self.chunks.map_or(0, |chunks| chunks.end);
        self.chunks = Some(Chunks {
            end: before.saturating_add(chunk.octets),
            place: chunk.place,
        });
        self.content = Content::Open;
        self.advance(now);
        self.check();
    }

    /// The client has ended its message, or a chunk of it.
    pub fn complete(&mut self, now: Instant) {
        debug_assert_eq!(self.content, Content::Open);
        self.content = Content::Complete;
        if !self.more_follows() {
            self.completed = Some(now);
        }
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
            self.is_refused_here = true;
            self.tell(reply);
            // A connection that is still looked for is not needed either.
            let line = matches!(self.line, Line::Held(_) | Line::Wanted);
            self.end(line.then_some(Fate::Abort), TransactionEnd::Refused);
        }
        self.check();
    }

    /// Whether the client will say more of its message.
    fn more_follows(&self) -> bool {
        let more = |chunks: &Chunks| chunks.place == ChunkPlace::More;
        self.chunks.as_ref().is_some_and(more)
    }

    /// Whether DATA was said and is not answered: what follows is the message or a command, and
    /// nobody knows which.
    pub fn awaits_data(&self) -> bool {
        let last = self.said.last();
        last.is_some_and(|said| said.verb == Verb::Data && said.told.is_none())
    }

    /// The line of MAIL.
    pub fn mail_line(&self) -> &[u8] {
        self.said.first().map_or(&[], |said| &said.line)
    }

    fn rcpts(&self, told: Told) -> impl Iterator<Item = &Said> {
        let of = move |said: &&Said| said.verb == Verb::Rcpt && said.told == Some(told);
        self.said.iter().filter(of)
    }

    /// The lines of RCPT that were accepted.
    pub fn recipients_accepted(&self) -> impl Iterator<Item = &[u8]> {
        self.rcpts(Told::Accepted).map(|said| &said.line[..])
    }

    /// How many RCPT were refused.
    pub fn recipients_refused(&self) -> u32 {
        self.rcpts(Told::Refused).count() as u32
    }

    /// How often it has moved.
    pub fn moves(&self) -> u8 {
        self.moves
    }

    /// Whether a message that was in doubt was said again.
    pub fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Whether its client has left.
    pub fn is_deserted(&self) -> bool {
        self.is_deserted
    }

    /// How far it had come at the backend that was last heard, or blamed.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether the backend's acceptance of the message broke off before its end (row 6).
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Whether the client has been asked for its message, or has begun to send it.
    pub fn has_content(&self) -> bool {
        self.content != Content::No
    }

    /// Whether the client has ended its message.
    pub fn is_complete(&self) -> bool {
        self.completed.is_some()
    }

    /// Octets of memory that its commands take, with one more whose line is so long.
    pub fn weight_with(&self, line: usize) -> usize {
        self.weight + Said::weight(line)
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

    /// The last octet of the message and its end, or of a chunk, have been handed to the kernel.
    pub fn committed(&mut self, now: Instant) {
        debug_assert_eq!(self.content, Content::Complete);
        let sending = if self.more_follows() {
            Sending::Chunk
        } else {
            Sending::Committed
        };
        if let Line::Held(held) = &mut self.line {
            debug_assert_eq!(held.sending, Sending::Content);
            held.sending = sending;
            held.since = now;
        }
        self.check();
    }

    /// A connection has been found; it is ready for MAIL.
    pub fn leased(&mut self, leased: Leased, now: Instant) {
        if !matches!(self.line, Line::Wanted) {
            // The message was judged meanwhile.
            self.outputs.push_back(Output::Release(Fate::Keep));
            return;
        }
        self.line = Line::Held(Held {
            pipelining: leased.pipelining,
            size: leased.size,
            chunking: leased.chunking,
            reused: leased.reused,
            times: leased.times,
            hedge: match leased.slow_after {
                Some(after) => Hedge::At(now + after),
                None => Hedge::Off,
            },
            places: leased.places.map(Places::new),
            replay: self.said.iter().any(|said| said.told.is_some()),
            unheard: true,
            next: 0,
            outstanding: VecDeque::new(),
            sending: Sending::Commands,
            taken: 0,
            since: now,
        });
        self.flight.clear();
        self.advance(now);
        self.give_back_spare();
        self.check();
    }

    /// None could be found: `reply` says why.
    pub fn not_leased(&mut self, reply: OwnReply) {
        if !matches!(self.line, Line::Wanted) {
            return;
        }
        let said = self.unwell.take();
        self.fail(said.unwrap_or(reply.into()));
        self.check();
    }

    /// The client takes the transaction back. Only when nothing is awaited.
    pub fn abandon(&mut self, now: Instant) {
        self.take_back(TransactionEnd::Abandoned, now);
    }

    /// The owner refuses the message between two chunks, and says so itself.
    pub fn refuse_chunk(&mut self, now: Instant) {
        self.is_refused_here = true;
        self.take_back(TransactionEnd::Refused, now);
    }

    fn take_back(&mut self, end: TransactionEnd, now: Instant) {
        debug_assert!(!self.is_awaited());
        match &self.line {
            Line::Held(held)
                if held.sending == Sending::Commands && held.outstanding.is_empty() =>
            {
                self.reset(end, now);
            }
            Line::Held(held) if matches!(held.sending, Sending::Reset(_) | Sending::LoneDot) => {}
            Line::Held(_) => self.end(Some(Fate::Abort), end),
            Line::Idle | Line::Wanted => self.end(None, end),
            Line::Gone => {}
        }
        self.check();
    }

    /// Says RSET, which needs a connection that is in step; it is kept when that is answered.
    fn reset(&mut self, end: TransactionEnd, now: Instant) {
        if let Line::Held(held) = &mut self.line {
            held.sending = Sending::Reset(end);
            held.since = now;
            self.flight.extend_from_slice(b"RSET\r\n");
        }
    }

    /// The client has left. A message that was committed waits for its reply, for the log (F11).
    pub fn client_lost(&mut self) {
        self.is_deserted = true;
        self.outputs.extend(self.ending.take().map(Output::End));
        match &self.line {
            Line::Held(held) if held.sending == Sending::Committed => {}
            Line::Held(Held {
                sending: Sending::Reset(end),
                ..
            }) => self.end(Some(Fate::Abort), *end),
            Line::Held(_) => self.end(Some(Fate::Abort), TransactionEnd::Abandoned),
            Line::Idle | Line::Wanted => self.end(None, TransactionEnd::Abandoned),
            Line::Gone => {}
        }
        self.check();
    }

    /// Says what may be said now.
    fn advance(&mut self, now: Instant) {
        while let Line::Held(held) = &self.line {
            if held.sending != Sending::Commands {
                return;
            }
            let next = held.next;
            let Some(said) = self.said.get(next) else {
                return self.say_chunk(now);
            };
            let (verb, told, size) = (said.verb, said.told, held.size);
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
            if verb == Verb::Rcpt && self.take_place() == Place::Awaited {
                return;
            }
            let said = &self.said[next];
            let plain = said.without_size.as_ref().filter(|_| !size);
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

    /// Says BDAT for the open chunk and for those before it that this backend has not had: a replay
    /// needs one. Not before all else is answered: a commit behind an open question would leave in
    /// doubt what can still be moved.
    fn say_chunk(&mut self, now: Instant) {
        let (Line::Held(held), Some(chunks)) = (&mut self.line, self.chunks) else {
            return;
        };
        if self.content == Content::No || !held.outstanding.is_empty() {
            return;
        }
        if !held.chunking {
            return self.unfit(now);
        }
        let last = match chunks.place {
            ChunkPlace::More => "",
            ChunkPlace::Last => " LAST",
        };
        let line = format!("BDAT {}{last}\r\n", chunks.end - held.taken);
        self.flight.extend_from_slice(line.as_bytes());
        held.sending = Sending::Content;
        held.since = now;
    }

    fn pass(&mut self, index: usize) {
        if let Line::Held(held) = &mut self.line {
            held.next = index + 1;
        }
    }

    fn send(&mut self, sending: Sending) {
        if let Line::Held(held) = &mut self.line {
            held.sending = sending;
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
                #[cfg(debug_assertions)]
                if let Some(places) = &held.places {
                    let said = self.said[..held.next].iter();
                    let counts =
                        |said: &&Said| said.verb == Verb::Rcpt && said.told != Some(Told::Refused);
                    let counted = said.filter(counts).count();
                    assert_eq!(places.in_use(), counted, "each recipient has its place");
                }
            }
            if self.is_over() && !self.is_deserted {
                assert!(first_open.is_none(), "nobody waits at the end");
            }
        }
    }
}

#[cfg(test)]
mod tests;
