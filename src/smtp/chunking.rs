//! BDAT: counting the octets of chunks (RFC 3030; rules C1, C2 and C4).
//!
//! The octets of a chunk are consumed whatever becomes of it, or they would be read as commands:
//! where a chunk is refused the counter runs on and says so at its end. It looks at no octet and
//! keeps none. One counter serves one transaction after the other.

/// What one BDAT command announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// How many octets follow the command's CRLF.
    pub octets: u64,
    /// Whether the message ends with it.
    pub place: ChunkPlace,
}

/// Where a chunk stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkPlace {
    /// Others follow.
    More,
    /// `LAST`.
    Last,
}

/// Whether there is an envelope for content to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// MAIL and at least one RCPT were accepted.
    Ready,
    /// Not so.
    Missing,
}

/// Why a chunk is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkRefusal {
    /// There is no envelope, or the message was complete: `503 5.5.1`.
    #[error("no envelope for the chunk")]
    OutOfSequence,
    /// The message is over the size limit: `552 5.3.4`, for this chunk and each that follows.
    #[error("message too big")]
    TooBig,
    /// An earlier chunk failed: `503 5.5.1` until RSET.
    #[error("an earlier chunk failed")]
    AfterFailure,
    /// The caller has failed the message while this chunk came in, and knows the reply.
    #[error("the message failed within the chunk")]
    Failed,
}

/// What to do with the octets of the chunk that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ChunkFate {
    /// They are content.
    Forward,
    /// They are dropped, and the chunk is refused at its end.
    Discard(ChunkRefusal),
    /// Twice the size limit would be passed: `552 5.3.4` at once, and close (rules C2, D10).
    Absurd,
}

/// How much of an input belonged to the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ChunkTaken {
    /// So many octets of the input; behind them stands the next command.
    pub octets: usize,
    /// Set when the chunk is complete: the one reply to BDAT is due.
    pub end: Option<ChunkEnd>,
}

/// A complete chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEnd {
    /// Whether the message ends with it.
    pub place: ChunkPlace,
    /// Why it is refused, if it is.
    pub refusal: Option<ChunkRefusal>,
}

/// Counts the chunks of a transaction.
#[derive(Clone, Debug)]
pub struct ChunkCounter {
    size_max: u64,
    phase: Phase,
    /// Octets announced since the envelope was ready, refused ones too.
    total: u64,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No chunk yet.
    Untouched,
    Chunking,
    /// A chunk was refused for this reason.
    Failed(ChunkRefusal),
    /// The last chunk is complete.
    Complete,
}

/// A chunk whose octets are coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    place: ChunkPlace,
    left: u64,
    refusal: Option<ChunkRefusal>,
}

impl ChunkCounter {
    /// For messages of at most `size_max` octets; `u64::MAX` means any.
    pub fn new(size_max: u64) -> Self {
        Self {
            size_max,
            phase: Phase::Untouched,
            total: 0,
            open: None,
        }
    }

    /// A BDAT command has been read. Then [`take`](Self::take) until it says that the chunk is
    /// complete, once at least: a chunk may have no octets.
    pub fn begin(&mut self, chunk: Chunk, envelope: Envelope) -> ChunkFate {
        debug_assert!(self.open.is_none(), "a chunk is consumed before the next");
        let limit = self.size_max.saturating_mul(2);
        if chunk.octets.max(self.total.saturating_add(chunk.octets)) > limit {
            return ChunkFate::Absurd;
        }
        let refusal = self.refusal(chunk, envelope);
        if envelope == Envelope::Ready {
            self.total = self.total.saturating_add(chunk.octets);
            self.phase = refusal.map_or(Phase::Chunking, Phase::Failed);
        }
        self.open = Some(Open {
            place: chunk.place,
            left: chunk.octets,
            refusal,
        });
        self.fate()
    }

    fn refusal(&self, chunk: Chunk, envelope: Envelope) -> Option<ChunkRefusal> {
        match (envelope, self.phase) {
            (Envelope::Missing, _) | (_, Phase::Complete) => Some(ChunkRefusal::OutOfSequence),
            (_, Phase::Failed(ChunkRefusal::TooBig)) => Some(ChunkRefusal::TooBig),
            (_, Phase::Failed(_)) => Some(ChunkRefusal::AfterFailure),
            (_, Phase::Untouched | Phase::Chunking) => {
                let too_big = self.total.saturating_add(chunk.octets) > self.size_max;
                too_big.then_some(ChunkRefusal::TooBig)
            }
        }
    }

    /// What to do with the octets of the chunk that is open, or the next one's if there were one.
    pub fn fate(&self) -> ChunkFate {
        match self.open.and_then(|open| open.refusal) {
            None => ChunkFate::Forward,
            Some(refusal) => ChunkFate::Discard(refusal),
        }
    }

    /// Takes the octets of an input of length `available` that belong to the open chunk. Without
    /// one it takes nothing.
    pub fn take(&mut self, available: usize) -> ChunkTaken {
        let Some(open) = &mut self.open else {
            return ChunkTaken {
                octets: 0,
                end: None,
            };
        };
        let octets = usize::try_from(open.left).map_or(available, |left| left.min(available));
        open.left -= octets as u64;
        if open.left > 0 {
            return ChunkTaken { octets, end: None };
        }
        let end = ChunkEnd {
            place: open.place,
            refusal: open.refusal,
        };
        if end.place == ChunkPlace::Last && end.refusal.is_none() {
            self.phase = Phase::Complete;
        }
        self.open = None;
        ChunkTaken {
            octets,
            end: Some(end),
        }
    }

    /// The octets of the open chunk that are still to come.
    pub fn left(&self) -> u64 {
        self.open.map_or(0, |open| open.left)
    }

    /// Octets of the message announced so far, those of refused chunks too.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether content has been sent by BDAT: then DATA, MAIL and RCPT are answered `503 5.5.1`
    /// until RSET (rule C4).
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Untouched
    }

    /// The message has failed, because a backend refused a chunk or was lost: the rest of the open
    /// chunk is dropped, and every further one is refused until RSET (rule C4).
    pub fn fail(&mut self) {
        if !matches!(self.phase, Phase::Failed(_)) {
            self.phase = Phase::Failed(ChunkRefusal::Failed);
        }
        if let Some(open) = &mut self.open {
            open.refusal.get_or_insert(ChunkRefusal::Failed);
        }
    }

    /// The transaction is over: its final reply has been given, or RSET, EHLO or HELO came.
    pub fn reset(&mut self) {
        debug_assert!(self.open.is_none(), "no command is read within a chunk");
        *self = Self::new(self.size_max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn more(octets: u64) -> Chunk {
        Chunk {
            octets,
            place: ChunkPlace::More,
        }
    }

    fn last(octets: u64) -> Chunk {
        Chunk {
            octets,
            place: ChunkPlace::Last,
        }
    }

    /// The whole of a chunk at once, with a command behind it.
    fn whole(counter: &mut ChunkCounter, chunk: Chunk, envelope: Envelope) -> Option<ChunkRefusal> {
        assert_ne!(counter.begin(chunk, envelope), ChunkFate::Absurd);
        let taken = counter.take(chunk.octets as usize + 6);
        assert_eq!(taken.octets as u64, chunk.octets);
        let end = taken.end.expect("it is complete");
        assert_eq!(end.place, chunk.place);
        end.refusal
    }

    #[test]
    fn rule_c1_each_chunk_takes_its_octets_and_no_more() {
        let mut counter = ChunkCounter::new(1000);
        assert_eq!(counter.begin(more(10), Envelope::Ready), ChunkFate::Forward);
        let taken = counter.take(4);
        assert_eq!((taken.octets, taken.end, counter.left()), (4, None, 6));
        assert_eq!(counter.take(0).end, None);
        let taken = counter.take(20);
        assert_eq!(taken.octets, 6);
        assert!(taken.end.is_some_and(|end| end.refusal.is_none()));
        assert_eq!(counter.take(20).octets, 0);
        assert_eq!(whole(&mut counter, last(0), Envelope::Ready), None);
        assert_eq!(counter.total(), 10);
    }

    #[test]
    fn rule_c2_a_refused_chunk_is_consumed_to_its_last_octet() {
        let mut counter = ChunkCounter::new(1000);
        let fate = counter.begin(more(100), Envelope::Missing);
        assert_eq!(fate, ChunkFate::Discard(ChunkRefusal::OutOfSequence));
        assert_eq!(counter.take(99).end, None);
        let taken = counter.take(99);
        assert_eq!(taken.octets, 1);
        assert_eq!(
            taken.end.and_then(|end| end.refusal),
            Some(ChunkRefusal::OutOfSequence)
        );
        // Without envelope there was no transaction that could have failed.
        assert!(!counter.has_begun());
        assert_eq!(whole(&mut counter, last(5), Envelope::Ready), None);
    }

    #[test]
    fn rule_c2_an_absurd_number_is_not_waited_for() {
        let mut counter = ChunkCounter::new(1000);
        assert_eq!(
            counter.begin(more(2001), Envelope::Ready),
            ChunkFate::Absurd
        );
        assert_eq!(
            counter.begin(more(u64::MAX), Envelope::Missing),
            ChunkFate::Absurd
        );
        assert_eq!(
            whole(&mut counter, more(2000), Envelope::Ready),
            Some(ChunkRefusal::TooBig)
        );
        // Nor is one that becomes so by its predecessors (rule D10).
        assert_eq!(counter.begin(more(1), Envelope::Ready), ChunkFate::Absurd);
        let mut unlimited = ChunkCounter::new(u64::MAX);
        assert_eq!(
            unlimited.begin(more(u64::MAX), Envelope::Ready),
            ChunkFate::Forward
        );
    }

    #[test]
    fn rule_d10_over_the_limit_each_chunk_is_refused_and_consumed() {
        let mut counter = ChunkCounter::new(10);
        assert_eq!(whole(&mut counter, more(10), Envelope::Ready), None);
        for chunk in [more(1), more(0), last(2)] {
            let refusal = whole(&mut counter, chunk, Envelope::Ready);
            assert_eq!(refusal, Some(ChunkRefusal::TooBig));
        }
    }

    #[test]
    fn rule_c4_after_a_failed_chunk_all_fail_until_rset() {
        let mut counter = ChunkCounter::new(1000);
        assert_eq!(counter.begin(more(10), Envelope::Ready), ChunkFate::Forward);
        assert_eq!(counter.take(3).octets, 3);
        counter.fail();
        assert_eq!(counter.fate(), ChunkFate::Discard(ChunkRefusal::Failed));
        let taken = counter.take(100);
        assert_eq!(taken.octets, 7);
        assert_eq!(
            taken.end.and_then(|end| end.refusal),
            Some(ChunkRefusal::Failed)
        );
        for chunk in [more(1), last(1)] {
            let refusal = whole(&mut counter, chunk, Envelope::Ready);
            assert_eq!(refusal, Some(ChunkRefusal::AfterFailure));
        }
        assert!(counter.has_begun());
        counter.reset();
        assert!(!counter.has_begun());
        assert_eq!(whole(&mut counter, last(1), Envelope::Ready), None);
    }

    #[test]
    fn rule_c4_data_mail_and_rcpt_are_out_of_sequence_once_a_chunk_came() {
        let mut counter = ChunkCounter::new(1000);
        assert!(!counter.has_begun());
        assert_eq!(whole(&mut counter, more(0), Envelope::Ready), None);
        assert!(counter.has_begun());
    }

    #[test]
    fn a_chunk_behind_the_last_is_out_of_sequence() {
        let mut counter = ChunkCounter::new(1000);
        assert_eq!(whole(&mut counter, last(3), Envelope::Ready), None);
        assert_eq!(
            whole(&mut counter, last(3), Envelope::Ready),
            Some(ChunkRefusal::OutOfSequence)
        );
    }

    proptest! {
        #[test]
        fn octets_and_ends_do_not_depend_on_how_the_input_comes(
            chunks in proptest::collection::vec((0_u64..40, any::<bool>()), 1..8),
            sizes in proptest::collection::vec(1_usize..30, 1..8),
            size_max in 20_u64..200,
        ) {
            let mut by_pieces = ChunkCounter::new(size_max);
            let mut at_once = ChunkCounter::new(size_max);
            let mut sizes = sizes.iter().cycle();
            for (octets, is_last) in chunks {
                let chunk = if is_last { last(octets) } else { more(octets) };
                let fate = at_once.begin(chunk, Envelope::Ready);
                prop_assert_eq!(by_pieces.begin(chunk, Envelope::Ready), fate);
                if fate == ChunkFate::Absurd {
                    break;
                }
                let whole = at_once.take(1000);
                let mut taken = 0;
                let end = loop {
                    let piece = by_pieces.take(*sizes.next().expect("it is a cycle"));
                    taken += piece.octets;
                    if let Some(end) = piece.end {
                        break end;
                    }
                };
                prop_assert_eq!((taken, Some(end)), (whole.octets, whole.end));
                prop_assert_eq!(taken as u64, octets);
                prop_assert_eq!(by_pieces.phase, at_once.phase);
            }
        }
    }
}
