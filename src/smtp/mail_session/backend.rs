//! The backend's side of a session: what it is to be sent, what it has said, and what the open
//! transaction asks for.

use std::time::Instant;

use super::super::budget::{Budget, Cost};
use super::super::exchange::{
    Answer, Elsewhere, Exchange, Fate, Leased, Output, TransactionEnd, Trouble, Verb,
};
use super::super::extensions::{Extensions, Keyword};
use super::super::parameters::Smtputf8;
use super::super::refusal::CommandName;
use super::super::replies::{OwnReply, ReplyText, write_reply};
use super::super::reply::{ReplyRead, read_reply};
use super::transaction::Transaction;
use super::{Effect, Kept, LeaseTerms, MailSession, Outgoing, Stage, TransactionFacts};

impl MailSession {
    /// What is to be written to the backend.
    pub fn to_backend(&self) -> Outgoing<'_> {
        let nothing = Outgoing {
            octets: &[],
            end: &[],
        };
        self.open
            .as_deref()
            .map_or(nothing, Transaction::to_backend)
    }

    /// So many octets of that have been handed to the kernel.
    pub fn sent_to_backend(&mut self, octets: usize, now: Instant) {
        if let Some(open) = &mut self.open {
            open.sent(octets, now);
        }
        self.keep_time(now);
    }

    /// A connection has been found, and its backend is waited for as usual. It said `extensions` to
    /// EHLO.
    pub fn leased(&mut self, extensions: &Extensions, kept: Kept, now: Instant) {
        self.leased_on(extensions, &LeaseTerms::of(kept), now);
    }

    /// A connection has been found. Its backend said `extensions` to EHLO. If it is not wanted any
    /// more it is given back at once.
    pub fn leased_on(&mut self, extensions: &Extensions, terms: &LeaseTerms, now: Instant) {
        let leased = Leased {
            pipelining: extensions.keywords.has(Keyword::Pipelining),
            size: extensions.keywords.has(Keyword::Size),
            chunking: extensions.keywords.has(Keyword::Chunking),
            reused: terms.kept == Kept::Yes,
            times: terms.times,
            slow_after: terms.slow_after,
            places: terms.places,
        };
        self.clock = now;
        match &mut self.open {
            Some(open) => {
                open.trace.leased();
                open.exchange.leased(leased, now);
            }
            None => self.effects.push_back(Effect::Release(Fate::Keep)),
        }
        self.collect();
        self.keep_time(now);
    }

    /// None could be found.
    pub fn not_leased(&mut self, reply: OwnReply) {
        if let Some(open) = &mut self.open {
            open.exchange.not_leased(reply);
        }
        self.collect();
    }

    /// So many places were got behind [`Effect::Reserve`]; none is an answer too. They count until
    /// the connection is released, or [`Effect::GiveBack`].
    pub fn reserved(&mut self, places: u32, elsewhere: Elsewhere, now: Instant) {
        self.clock = now;
        if let Some(open) = &mut self.open {
            open.exchange.reserved(places, elsewhere, now);
        }
        self.collect();
        self.keep_time(now);
    }

    /// How many recipients of the open transaction have been accepted: a backend that it moves to
    /// must have places for all of them.
    pub fn recipients_accepted(&self) -> u32 {
        let accepted = self.exchange().map(Exchange::recipients_accepted);
        accepted.map_or(0, |accepted| accepted.count() as u32)
    }

    /// Another backend is granted to a MAIL that is slow, at the cost of a strike and a move: behind
    /// [`Effect::Slow`]. Whether it was of use; an answer may have come meanwhile.
    pub fn hedge(&mut self, now: Instant) -> bool {
        self.clock = now;
        let open = self.open.as_deref_mut();
        let is_moved = open.is_some_and(|open| open.exchange.hedge(now));
        self.collect();
        is_moved
    }

    /// What the backend has said.
    pub fn backend(&mut self, octets: &[u8], now: Instant) {
        self.clock = now;
        // Most replies come in one piece.
        let mut heard = std::mem::take(&mut self.heard);
        let mut rest = if heard.is_empty() {
            octets
        } else {
            heard.extend_from_slice(octets);
            &heard
        };
        // What follows a connection's last reply is not the next one's.
        while let Some(open) = &mut self.open
            && open.exchange.has_connection()
        {
            let exchange = &mut open.exchange;
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
        self.keep_time(now);
    }

    /// The backend's connection has ended or failed.
    pub fn backend_lost(&mut self, now: Instant) {
        self.clock = now;
        let partial = std::mem::take(&mut self.heard);
        if let Some(open) = &mut self.open {
            open.exchange.lost(Trouble::Lost, &partial, now);
        }
        self.collect();
        self.keep_time(now);
    }

    /// Whether the end of a message was sent and not answered: nobody knows whether it was taken.
    pub fn is_committed(&self) -> bool {
        let open = self.open.as_deref();
        open.is_some_and(|open| open.exchange.is_committed())
    }

    /// The backend has been found to be out of service while it is waited for: it is left as one
    /// that is silent, but never behind the commit.
    pub fn leave_backend(&mut self, now: Instant) {
        if let Some(open) = &mut self.open
            && open.exchange.is_awaited()
            && open.exchange.may_be_left(now)
        {
            self.clock = now;
            open.exchange.lost(Trouble::Silent, &[], now);
            self.collect();
            self.keep_time(now);
        }
    }

    pub(super) fn collect(&mut self) {
        self.collect_after(false);
    }

    /// Does what the exchange asks for. `unread`: the backend has said more than it was asked.
    fn collect_after(&mut self, unread: bool) {
        while let Some(open) = &mut self.open
            && let Some(output) = open.exchange.output()
        {
            match output {
                Output::Lease(want) => {
                    self.heard.clear();
                    let needed = open.rewind();
                    self.effects.push_back(Effect::Lease { want, needed });
                }
                Output::Answer(answer, verb) => self.answer(answer, verb),
                Output::Release(Fate::Keep) if unread => {
                    // Octets that nobody asked for: out of step (rule N2).
                    self.effects.push_back(Effect::Release(Fate::Retire));
                }
                Output::Release(fate) => self.effects.push_back(Effect::Release(fate)),
                Output::ReplayInDoubt => self.effects.push_back(Effect::ReplayInDoubt),
                Output::Early => self.effects.push_back(Effect::EarlyReply),
                Output::Reserve(places) => self.effects.push_back(Effect::Reserve(places)),
                Output::GiveBack(places) => self.effects.push_back(Effect::GiveBack(places)),
                Output::Slow => self.effects.push_back(Effect::Slow),
                Output::Strike(trouble) => {
                    let step = open.exchange.step();
                    self.effects.push_back(Effect::Strike(trouble, step));
                }
                Output::End(end) => {
                    if end == TransactionEnd::Accepted {
                        self.budget = Budget::default();
                    }
                    self.effects.push_back(Effect::Ended(end));
                }
            }
        }
        let closing = self.is_ending();
        // A session that ends takes its transaction with it, once nobody waits for an answer.
        if closing
            && let Some(open) = &mut self.open
            && !open.exchange.is_awaited()
            && !open.exchange.is_put_away()
        {
            open.exchange.client_lost();
            return self.collect();
        }
        // The rest of a message that was judged early is still to come, from who is still there.
        let is_done =
            |exchange: &Exchange| exchange.is_over() && (closing || !exchange.is_content());
        if self.exchange().is_some_and(is_done) {
            self.failure = self.exchange().and_then(Exchange::failure);
            self.ended.extend(self.open.take().map(TransactionFacts));
        }
        match self.stage {
            Stage::Draining if self.open.is_none() && !self.is_in_chunk() => {
                self.own(OwnReply::SHUTTING_DOWN);
            }
            Stage::Ended if !self.is_awaited() && !closing => self.leave(),
            Stage::Open | Stage::Draining | Stage::Ended | Stage::Gone => {}
        }
    }

    /// The command that is answered; `None` is the end of the message, or of a chunk.
    fn answered_command(&self, verb: Option<Verb>) -> CommandName {
        let chunks = self.exchange().and_then(Exchange::chunks);
        match verb {
            Some(verb) => CommandName::of_verb(verb),
            None if chunks.is_some() => CommandName::Bdat,
            None => CommandName::EndOfData,
        }
    }

    /// What a backend said, as the client gets it (rule G11), or what we say in its place. A
    /// refusal costs the client half a point whoever says it (rule B4), which also bounds how many
    /// refused commands a transaction can hold.
    fn answer(&mut self, answer: Answer, verb: Option<Verb>) {
        let mut octets = Vec::new();
        let mut own = None;
        match answer {
            Answer::Own(reply) => {
                let policy = &self.policy;
                policy.words.write(reply, &policy.host, &mut octets);
                own = Some(reply);
            }
            Answer::Backend(reply) => octets = reply,
        }
        let allowed = match self.open.as_deref().map(|open| open.smtputf8) {
            Some(Smtputf8::Used) => ReplyText::Utf8,
            Some(Smtputf8::Unused) | None => ReplyText::Ascii,
        };
        if let ReplyRead::Complete(reply) = read_reply(&octets) {
            let cost = if reply.code.class() == 5 {
                Cost::RefusedRcpt
            } else {
                Cost::Nothing
            };
            if self.pays(cost) {
                let start = self.replies.len();
                write_reply(&reply, allowed, &mut self.replies);
                if let Some(open) = &mut self.open {
                    open.trace.look(&open.exchange, self.clock);
                    let written = &self.replies[start..];
                    open.trace.answered(reply.code, written, self.clock);
                }
                if self.stage == Stage::Gone {
                    self.replies = Vec::new();
                } else if let Some(own) = own {
                    self.note_refusal(self.answered_command(verb), own);
                }
            }
        }
    }
}
