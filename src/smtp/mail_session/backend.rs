//! The backend's side of a session: what it is to be sent, what it has said, and what the open
//! transaction asks for.

use std::time::Instant;

use super::super::body::MessageBody;
use super::super::budget::Cost;
use super::super::exchange::{Answer, Exchange, Fate, Leased, Output, Trouble};
use super::super::extensions::{Extensions, Keyword};
use super::super::parameters::Smtputf8;
use super::super::replies::{OwnReply, ReplyText, write_reply};
use super::super::reply::{ReplyRead, read_reply};
use super::{END_OF_DATA, Effect, Kept, MailSession, Outgoing, Stage};

impl MailSession {
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

    pub(super) fn collect(&mut self) {
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
