//! A message that comes by BDAT (RFC 3030; rules C1–C4).
//!
//! Chunks go on as they come, octet by octet: their length is the frame, so nothing in them is
//! repaired, and a bare CR or LF can end nothing. Where such octets are rejected they are here too.
//! One chunk is passed on at a time; what follows it waits for its reply.

use std::time::Instant;

use super::super::budget::Cost;
use super::super::chunking::{
    Chunk, ChunkCounter, ChunkEnd, ChunkFate, ChunkPlace, ChunkRefusal, Envelope,
};
use super::super::data::LineEndings;
use super::super::exchange::Exchange;
use super::super::extensions::Keyword;
use super::super::replies::OwnReply;
use super::super::stuffing::{Stuffer, UnfitForData};
use super::content::refusal_of;
use super::{Effect, Hello, MailSession};

/// The chunks of a message, or one that belongs to none.
#[derive(Debug)]
pub(super) struct Chunks {
    counter: ChunkCounter,
    /// Looks for octets that are rejected.
    octets: Stuffer,
}

impl Chunks {
    fn new(size_max: u64) -> Self {
        let size_max = if size_max == 0 { u64::MAX } else { size_max };
        Self {
            counter: ChunkCounter::new(size_max),
            octets: Stuffer::default(),
        }
    }

    /// Whether octets of a chunk are still to come.
    pub(super) fn is_open(&self) -> bool {
        self.counter.left() > 0
    }

    /// The first octet among these that is rejected; of the `last` ones also what they end with.
    fn offence(&mut self, octets: &[u8], last: bool) -> Option<OwnReply> {
        let read = self.octets.stuff(octets, |_| {});
        let read = read.and_then(|()| if last { self.octets.finish() } else { Ok(()) });
        match read {
            Err(UnfitForData::Octet(offence)) => Some(refusal_of(offence)),
            // DATA could not say it; BDAT can.
            Err(UnfitForData::NoLineEnd) | Ok(()) => None,
        }
    }
}

impl MailSession {
    /// BDAT, once all before it is answered. Its octets follow whatever becomes of it (rule C2).
    pub(super) fn bdat(&mut self, chunk: Chunk, now: Instant) {
        let is_ready = self.may_chunk() && self.exchange().is_some_and(Exchange::takes_chunks);
        let size_max = self.policy.size_max;
        let chunks = self
            .chunks
            .get_or_insert_with(|| Box::new(Chunks::new(size_max)));
        let counter = &mut chunks.counter;
        let has_begun = counter.has_begun();
        if has_begun && !is_ready {
            counter.fail();
        }
        let envelope = if has_begun || is_ready {
            Envelope::Ready
        } else {
            Envelope::Missing
        };
        let fate = counter.begin(chunk, envelope);
        let refusal = match fate {
            ChunkFate::Absurd => Some(OwnReply::FAR_TOO_BIG),
            ChunkFate::Discard(ChunkRefusal::TooBig) => Some(OwnReply::TOO_BIG),
            ChunkFate::Forward | ChunkFate::Discard(_) => None,
        };
        if is_ready
            && let Some(refusal) = refusal
            && let Some(open) = &mut self.open
        {
            open.exchange.refuse_chunk(now);
            if fate == ChunkFate::Absurd {
                // Nobody stays for the reply to RSET.
                open.exchange.client_lost();
            }
            let mut line = Vec::new();
            self.policy
                .words
                .write(refusal, &self.policy.host, &mut line);
            open.trace.answered(refusal.code(), &line, now);
        }
        match (fate, &mut self.open) {
            (ChunkFate::Absurd, _) => return self.say(OwnReply::FAR_TOO_BIG, Cost::Nothing),
            (ChunkFate::Forward, Some(open)) => {
                open.needed.keywords.insert(Keyword::Chunking);
                open.exchange.chunk(chunk, now);
            }
            (ChunkFate::Forward | ChunkFate::Discard(_), _) => {}
        }
        // It may have no octets.
        self.chunk(&[], now);
    }

    /// Whether BDAT was announced to this client.
    fn may_chunk(&self) -> bool {
        match &self.hello {
            Hello::Ehlo(_, announced) => announced.keywords.has(Keyword::Chunking),
            Hello::None | Hello::Helo(_) => false,
        }
    }

    /// Takes octets of a chunk.
    pub(super) fn chunk(&mut self, rest: &[u8], now: Instant) -> usize {
        let Some(chunks) = &mut self.chunks else {
            return 0;
        };
        let wanted = chunks.counter.fate() == ChunkFate::Forward;
        let takes = |exchange: &Exchange| exchange.is_content() && exchange.wants_message();
        if let Some(open) = &mut self.open
            && !open.exchange.wants_message()
        {
            open.forget_message(&self.memory);
        }
        let open = self.open.as_deref_mut();
        let mut open = open.filter(|open| wanted && takes(&open.exchange));
        let room = open.as_ref().map_or(rest.len(), |open| open.body.room());
        let taken = chunks.counter.take(rest.len().min(room));
        let octets = &rest[..taken.octets];
        if let Some(open) = &mut open {
            if open.waits_for_client() {
                open.exchange.moved(now);
            }
            open.size += octets.len() as u64;
            if let Some(loss) = open.body.push(octets) {
                open.exchange.copy_lost();
                self.effects.push_back(Effect::NotReplayable(loss));
            }
            let is_last = taken.end.is_some_and(|end| end.place == ChunkPlace::Last);
            if self.policy.line_endings == LineEndings::Reject
                && let Some(refusal) = chunks.offence(octets, is_last)
            {
                open.exchange.refuse(refusal);
            }
        }
        if let Some(end) = taken.end {
            self.chunk_ended(end, now);
        }
        self.collect();
        taken.octets
    }

    /// A chunk is complete: its one reply is due, from its backend or from us.
    fn chunk_ended(&mut self, end: ChunkEnd, now: Instant) {
        let is_last = end.place == ChunkPlace::Last;
        match end.refusal {
            None | Some(ChunkRefusal::Failed) => {
                if let Some(open) = &mut self.open {
                    if is_last {
                        open.body.complete();
                    }
                    open.exchange.complete(now);
                }
            }
            Some(ChunkRefusal::TooBig) => self.say(OwnReply::TOO_BIG, Cost::Junk),
            Some(ChunkRefusal::OutOfSequence | ChunkRefusal::AfterFailure) => {
                match self.failure {
                    _ if !self.may_chunk() => self.say(OwnReply::NOT_OFFERED, Cost::Error),
                    Some(failure) => self.say(failure, Cost::Junk),
                    // Where it was said in one flight with recipients that were all refused, or
                    // with a chunk that was, it is no mistake.
                    None => self.say(OwnReply::BAD_SEQUENCE, Cost::RefusedRcpt),
                }
            }
        }
        let begun = |chunks: &Chunks| chunks.counter.has_begun();
        if is_last || !self.chunks.as_deref().is_some_and(begun) {
            self.chunks = None;
        }
    }
}
