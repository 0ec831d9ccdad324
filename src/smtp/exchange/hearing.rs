//! What a backend's reply, or the end of its connection, means for a transaction (rows of rule F1).

use std::time::Instant;

use memchr::memchr2;

use super::super::replies::OwnReply;
use super::super::reply::{Reply, ReplyCode};
use super::{
    Answer, Content, Exchange, Fate, First354, Line, Output, Sending, Step, Told, TransactionEnd,
    Trouble, Verb, Want,
};

impl Exchange {
    /// The backend has said a whole reply.
    pub fn reply(&mut self, reply: &Reply<'_>, now: Instant) {
        self.note_step();
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
            _ if reply.code == ReplyCode::CLOSING => self.trouble(Trouble::Closing, now),
            (Sending::Content, None) => self.early(reply),
            (Sending::Chunk, None) => self.chunk_answered(reply, now),
            (Sending::LoneDot | Sending::Reset(_), None) if !self.flight.is_empty() => {
                // It answers what was not said yet.
                self.trouble(Trouble::Desync, now);
            }
            (Sending::LoneDot, None) => self.end(Some(Fate::Keep), TransactionEnd::Refused),
            (Sending::Reset(end), None) => self.end(Some(Fate::Keep), end),
            _ => self.trouble(Trouble::Desync, now),
        }
        self.give_back_spare();
        self.check();
    }

    /// The connection has ended or failed; `partial` is what was read of a reply that did not end.
    pub fn lost(&mut self, trouble: Trouble, partial: &[u8], now: Instant) {
        self.note_step();
        let Line::Held(held) = &self.line else { return };
        if held.sending == Sending::Committed && is_acceptance(partial) {
            // Row 6: a server says 2yz only after it has taken the message.
            self.is_truncated = true;
            let answer = Output::Answer(what_came(partial), None);
            self.outputs.push_back(answer);
            self.content = Content::No;
            self.end(Some(Fate::Retire), TransactionEnd::Accepted);
        } else {
            self.trouble(trouble, now);
        }
        self.check();
    }

    /// Notes how far it has come, before what is heard moves it on.
    pub(super) fn note_step(&mut self) {
        let Line::Held(held) = &self.line else { return };
        self.step = match held.sending {
            Sending::Commands => {
                let last = held.next.saturating_sub(1);
                match self.said[held.outstanding.front().copied().unwrap_or(last)].verb {
                    Verb::Mail => Step::Mail,
                    Verb::Rcpt => Step::Rcpt,
                    Verb::Data => Step::Data,
                }
            }
            Sending::Content | Sending::Chunk => Step::Content,
            Sending::Committed => Step::End,
            Sending::LoneDot | Sending::Reset(_) => Step::Mail,
        };
    }

    /// A command's reply, in step.
    fn answered(&mut self, index: usize, reply: &Reply<'_>, now: Instant) {
        let accepts = match self.said[index].verb {
            Verb::Mail | Verb::Rcpt => reply.code.class() == 2,
            Verb::Data => reply.code.value() == 354,
        };
        match (self.said[index].told, accepts) {
            (None, false) if reply.code.class() < 4 => self.trouble(Trouble::Desync, now),
            // A refused RCPT is about one recipient: to move for it would put the others at risk.
            (None, false)
                if self.said[index].verb != Verb::Rcpt
                    && reply.code.class() == 4
                    && is_unwell(reply)
                    && self.may_move(now) =>
            {
                self.leave_unwell(reply, Fate::Abort);
            }
            (None, false) => {
                self.answer(index, Told::Refused, Answer::of(reply));
                if self.said[index].verb == Verb::Rcpt {
                    self.free_place();
                }
                self.settle(now);
            }
            (None, true) if self.said[index].verb == Verb::Data && !self.has_recipient() => {
                self.answer(index, Told::Refused, OwnReply::NO_RECIPIENTS);
                self.flight.extend_from_slice(b".\r\n");
                self.send(Sending::LoneDot);
            }
            // A recipient of a transaction that was refused: it has lost its place.
            (None, true)
                if self.said[index].verb == Verb::Rcpt
                    && self.said[0].told == Some(Told::Refused) =>
            {
                self.trouble(Trouble::Desync, now);
            }
            (None, true) => {
                self.answer(index, Told::Accepted, Answer::of(reply));
                self.accepted(index, now);
            }
            (Some(Told::Accepted), true) => self.accepted(index, now),
            (Some(Told::Accepted), false)
                if self.said[index].verb == Verb::Data
                    && self.manners.first_354 == First354::Ours =>
            {
                self.data_refused(reply, now);
            }
            // What the client was told does not come true here (F8): nothing can be taken back.
            (Some(_), _) => self.give_up(Fate::Abort, OwnReply::BACKEND_LOST),
        }
    }

    /// DATA, which we have answered ourselves, is refused: that is the reply to the message (F9).
    fn data_refused(&mut self, reply: &Reply<'_>, now: Instant) {
        match reply.code.class() {
            4 if is_unwell(reply) && self.may_move(now) => self.leave_unwell(reply, Fate::Abort),
            4 | 5 => {
                self.tell(Answer::of(reply));
                self.reset(TransactionEnd::Refused, now);
            }
            _ => self.trouble(Trouble::Desync, now),
        }
    }

    /// What was refused because of the backend's own state is said to another (rows 2, 3 and 8).
    fn leave_unwell(&mut self, reply: &Reply<'_>, fate: Fate) {
        self.unwell = (reply.code != ReplyCode::CLOSING).then(|| Answer::of(reply));
        self.outputs.push_back(Output::Strike(Trouble::Unwell));
        self.outputs.push_back(Output::Release(fate));
        self.move_on(Want::Other);
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
        // Behind a refused chunk only RSET is sure to bring a connection back into step.
        let is_chunk = self.chunks.is_some() && reply.code.class() != 2;
        let fate = if reply.code == ReplyCode::CLOSING || is_chunk {
            Fate::Retire
        } else {
            Fate::Keep
        };
        match reply.code.class() {
            2 => {
                self.tell(Answer::of(reply));
                self.end(Some(fate), TransactionEnd::Accepted);
            }
            4 if is_unwell(reply) && self.may_move(now) => self.leave_unwell(reply, fate),
            4 if reply.code == ReplyCode::CLOSING => {
                // A 421 would tell the client that its connection closes (S13).
                self.tell(OwnReply::NO_BACKEND);
                self.end(Some(fate), TransactionEnd::Refused);
            }
            4 | 5 if is_chunk => {
                self.tell(Answer::of(reply));
                self.reset(TransactionEnd::Refused, now);
            }
            4 | 5 => {
                self.tell(Answer::of(reply));
                self.end(Some(fate), TransactionEnd::Refused);
            }
            // 3yz to an end: it has not understood what we said. Whether it has the message?
            _ => self.trouble(Trouble::Desync, now),
        }
    }

    /// The reply to a chunk that is not the last.
    fn chunk_answered(&mut self, reply: &Reply<'_>, now: Instant) {
        match reply.code.class() {
            2 => {
                let end = self.chunks.map_or(0, |chunks| chunks.end);
                if let Line::Held(held) = &mut self.line {
                    held.taken = end;
                    held.sending = Sending::Commands;
                }
                self.tell(Answer::of(reply));
            }
            4 if is_unwell(reply) && self.may_move(now) => self.leave_unwell(reply, Fate::Abort),
            4 | 5 => {
                self.tell(Answer::of(reply));
                self.reset(TransactionEnd::Refused, now);
            }
            _ => self.trouble(Trouble::Desync, now),
        }
    }

    /// A reply before the end of the message was sent (D7).
    fn early(&mut self, reply: &Reply<'_>) {
        self.outputs.push_back(Output::Early);
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
}

/// Row 8: the backend is unwell, not the message: 421, x.3.x, a bare 452.
fn is_unwell(reply: &Reply<'_>) -> bool {
    match reply.enhanced {
        Some(enhanced) => enhanced.subject == 3 || reply.code == ReplyCode::CLOSING,
        None => matches!(reply.code.value(), 421 | 452),
    }
}

/// The first line of an acceptance that broke off, as far as it came.
fn what_came(partial: &[u8]) -> Answer {
    let text = partial.get(4..).unwrap_or_default();
    let end = memchr2(b'\r', b'\n', text).unwrap_or(text.len());
    if text[..end].trim_ascii().is_empty() {
        return OwnReply::OK.into();
    }
    Answer::Backend([&partial[..3], b" ", &text[..end], b"\r\n"].concat())
}

/// `2dd` and SP or `-`: a server says so only when it has the message.
fn is_acceptance(partial: &[u8]) -> bool {
    matches!(partial, [b'2', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..])
}
