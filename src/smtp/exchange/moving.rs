//! What becomes of a transaction whose connection is of no more use: the next backend, or the end.

use std::time::Instant;

use super::super::replies::OwnReply;
use super::{
    Answer, Content, Exchange, Fate, InDoubt, Line, MOVES_MAX, Output, REPLAY_TIME, Sending, Told,
    TransactionEnd, Trouble, Want,
};

impl Exchange {
    pub(super) fn answer(&mut self, index: usize, told: Told, answer: impl Into<Answer>) {
        debug_assert!(self.said[index].told.is_none(), "one reply per command");
        debug_assert!(
            self.said[..index].iter().all(|said| said.told.is_some()),
            "replies in the order of the commands"
        );
        let said = &mut self.said[index];
        said.told = Some(told);
        let verb = Some(said.verb);
        self.outputs.push_back(Output::Answer(answer.into(), verb));
    }

    /// Answers the end of the message, or of a chunk. While it is in doubt, only with an acceptance:
    /// a refusal by the second backend says nothing of the first copy.
    pub(super) fn tell(&mut self, answer: impl Into<Answer>) {
        let answer = answer.into();
        let answer = if self.is_doubted && !answer.accepts() {
            OwnReply::IN_DOUBT.into()
        } else {
            answer
        };
        if self.content == Content::Complete {
            self.content = Content::No;
            self.outputs.push_back(Output::Answer(answer, None));
        } else {
            self.verdict = Some(answer);
        }
    }

    /// The connection is of no more use.
    pub(super) fn trouble(&mut self, trouble: Trouble, now: Instant) {
        let Line::Held(held) = &self.line else { return };
        let sending = held.sending;
        let was_dead = held.unheard && held.reused && trouble == Trouble::Lost;
        match sending {
            Sending::Committed if self.may_replay_in_doubt(now) => {
                self.is_doubted = true;
                self.outputs.push_back(Output::Strike(trouble));
                self.outputs.push_back(Output::ReplayInDoubt);
                self.outputs.push_back(Output::Release(Fate::Abort));
                self.move_on(Want::Other);
            }
            Sending::Committed => {
                self.outputs.push_back(Output::Strike(trouble));
                self.tell(OwnReply::IN_DOUBT);
                self.end(Some(Fate::Retire), TransactionEnd::InDoubt);
            }
            // Nobody waits for these.
            Sending::Reset(end) => self.end(Some(Fate::Retire), end),
            Sending::LoneDot => self.end(Some(Fate::Retire), TransactionEnd::Refused),
            Sending::Commands if was_dead => self.renew(Fate::Retire),
            // There is no transaction to go on with.
            Sending::Commands if self.said[0].told == Some(Told::Refused) => {
                self.outputs.push_back(Output::Strike(trouble));
                self.give_up(Fate::Abort, OwnReply::BAD_SEQUENCE);
            }
            Sending::Commands | Sending::Content | Sending::Chunk if self.may_move(now) => {
                self.outputs.push_back(Output::Strike(trouble));
                self.outputs.push_back(Output::Release(Fate::Abort));
                self.move_on(Want::Other);
            }
            Sending::Commands | Sending::Content | Sending::Chunk => {
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
    pub(super) fn renew(&mut self, fate: Fate) {
        self.outputs.push_back(Output::Release(fate));
        self.line = Line::Wanted;
        self.flight.clear();
        self.outputs.push_back(Output::Lease(Want::New));
    }

    /// The backend cannot do what the client asks for, which is no fault of its own.
    pub(super) fn unfit(&mut self, now: Instant) {
        if self.may_move(now) {
            self.outputs.push_back(Output::Release(Fate::Abort));
            self.move_on(Want::Other);
        } else {
            self.give_up(Fate::Abort, OwnReply::PARAMETER_NOT_NOW);
        }
    }

    pub(super) fn may_move(&self, now: Instant) -> bool {
        let in_time = self
            .completed
            .is_none_or(|completed| now.saturating_duration_since(completed) < REPLAY_TIME);
        let nothing = self.content == Content::No && self.chunks.is_none();
        let whole = nothing || self.has_copy;
        // Nobody would hear that it was taken, and says it again.
        self.moves < MOVES_MAX && whole && in_time && !self.is_deserted
    }

    /// Once, and only for a client that still waits (rule F7).
    fn may_replay_in_doubt(&self, now: Instant) -> bool {
        let wanted = self.manners.in_doubt == InDoubt::Replay && !self.is_doubted;
        wanted && !self.is_deserted && self.may_move(now)
    }

    pub(super) fn move_on(&mut self, want: Want) {
        self.moves += 1;
        self.line = Line::Wanted;
        self.flight.clear();
        self.outputs.push_back(Output::Lease(want));
    }

    pub(super) fn give_up(&mut self, fate: Fate, reply: OwnReply) {
        self.outputs.push_back(Output::Release(fate));
        self.fail(reply);
    }

    /// Answers whatever the client waits for, once each, and ends. Behind an accepted MAIL nobody
    /// is told 503: a recipient that is told 5yz bounces.
    pub(super) fn fail(&mut self, reply: impl Into<Answer>) {
        let reply = reply.into();
        let is_begun = self.said[0].told == Some(Told::Accepted);
        if is_begun && (self.content == Content::No || self.more_follows()) {
            self.failure = Some(match &reply {
                Answer::Own(reply) => *reply,
                Answer::Backend(_) => OwnReply::NO_BACKEND,
            });
        }
        let later = if is_begun {
            reply.clone()
        } else {
            OwnReply::BAD_SEQUENCE.into()
        };
        let mut reply = Some(reply);
        for index in 0..self.said.len() {
            if self.said[index].told.is_none() {
                let text = reply.take().unwrap_or_else(|| later.clone());
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

    pub(super) fn end(&mut self, fate: Option<Fate>, end: TransactionEnd) {
        let end = match end {
            TransactionEnd::Accepted => end,
            _ if self.is_doubted => TransactionEnd::InDoubt,
            _ => end,
        };
        if let Some(fate) = fate {
            self.outputs.push_back(Output::Release(fate));
        }
        self.line = Line::Gone;
        self.flight.clear();
        // Who has left does not end the message any more.
        if self.content == Content::Open && self.verdict.is_some() && !self.is_deserted {
            self.ending = Some(end);
        } else {
            self.outputs.push_back(Output::End(end));
        }
    }
}
