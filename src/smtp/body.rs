//! The copy of a message that a replay needs, and the buffer it streams through (rules F1, F5, F6).
//!
//! Content is appended in the form in which it goes to the backend, without the terminator, and
//! written from a cursor. While the message is replayable all of it is kept, so that the cursor can
//! go back to the beginning for another backend. Over `replay_max`, or with the process's
//! `replay_memory` used up, it turns: what has been sent is freed behind the cursor, the rest
//! streams on through a small window, and nothing can go back. It never turns again.
//!
//! The SHA-256 of a message is computed when it is asked for; of a message that has turned, octets
//! are digested before they are freed. The longest step is bounded, for a thread serves others too.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::{ReplayMemory, Reservation};

/// What a message that cannot be replayed may have received and not yet sent, before
/// [`MessageBody::room`] is zero. It is not part of `replay_memory`.
pub const STREAM_WINDOW: usize = 65_536;
/// Chunks of a replayable message: most messages fit the first, long ones need few.
const CHUNK_FIRST: usize = 4_096;
const CHUNK_SECOND: usize = 16_384;
const CHUNK_OTHERS: usize = 65_536;
/// Chunks of a message that streams.
const CHUNK_STREAMED: usize = 16_384;
/// At most so many octets are digested by one call that frees them: some tenths of a millisecond.
/// While a long copy is being freed, a push of a window comes with two such steps, so that what it
/// takes beyond the budget stays below a third of the copy.
const DIGEST_STEP: usize = 262_144;

/// Why a message cannot be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayLoss {
    /// It is longer than `replay_max`.
    #[error("the message is longer than replay_max")]
    MessageLimit,
    /// The process had no memory left for it.
    #[error("replay_memory is used up")]
    MemoryFull,
}

/// The first 128 bits of the SHA-256 of a message, by which an operator finds it; shown in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyDigest(pub [u8; 16]);

/// A message on its way.
#[derive(Debug)]
pub struct MessageBody {
    chunks: VecDeque<Chunk>,
    /// Octets pushed.
    length: u64,
    /// The cursor: octets written to the present backend.
    sent: u64,
    replay_max: u64,
    reservation: Reservation,
    loss: Option<ReplayLoss>,
    progress: Progress,
    digest: Digesting,
}

/// Octets in a row; full but for the last.
#[derive(Debug)]
struct Chunk {
    /// Where in the message it begins.
    start: u64,
    octets: Vec<u8>,
    /// What of the budget it stands for.
    reserved: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Coming,
    Complete,
}

/// The digest of the first `octets` of the message.
#[derive(Default)]
struct Digesting {
    octets: u64,
    context: Option<Box<Context>>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.octets.len() as u64
    }

    fn free(&self) -> usize {
        self.octets.capacity() - self.octets.len()
    }

    /// Forgets its octets, to hold those that follow.
    fn restart(&mut self) {
        self.start = self.end();
        self.octets.clear();
    }

    /// What of it stands at `from` of the message and behind.
    fn behind(&self, from: u64) -> &[u8] {
        let skip = from.saturating_sub(self.start) as usize;
        self.octets.get(skip..).unwrap_or_default()
    }
}

impl Digesting {
    fn update(&mut self, octets: &[u8]) {
        self.context
            .get_or_insert_with(|| Box::new(Context::new(&SHA256)))
            .update(octets);
        self.octets += octets.len() as u64;
    }

    fn value(&self) -> BodyDigest {
        let context = self.context.as_deref().cloned();
        let digest = context.unwrap_or_else(|| Context::new(&SHA256)).finish();
        let first = digest.as_ref().first_chunk();
        BodyDigest(*first.expect("SHA-256 has 32 octets"))
    }
}

impl MessageBody {
    /// An empty one, which takes no memory; of at most `replay_max` octets a copy is kept.
    pub fn new(memory: &Arc<ReplayMemory>, replay_max: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            length: 0,
            sent: 0,
            replay_max,
            reservation: Reservation::new(memory),
            loss: None,
            progress: Progress::Coming,
            digest: Digesting::default(),
        }
    }

    /// Appends content. At the push that makes the message not replayable, and at no other, the
    /// reason is returned, to be counted.
    ///
    /// # Panics
    /// When the message is complete.
    pub fn push(&mut self, octets: &[u8]) -> Option<ReplayLoss> {
        assert_eq!(self.progress, Progress::Coming, "nothing follows the end");
        let before = self.loss;
        if self.length + octets.len() as u64 > self.replay_max {
            self.loss.get_or_insert(ReplayLoss::MessageLimit);
        }
        self.release();
        let mut rest = octets;
        while !rest.is_empty() {
            let chunk = match self.chunks.back_mut() {
                Some(chunk) if chunk.free() > 0 => chunk,
                _ => self.grow(),
            };
            let (now, later) = rest.split_at(rest.len().min(chunk.free()));
            chunk.octets.extend_from_slice(now);
            self.length += now.len() as u64;
            rest = later;
        }
        self.check_invariants();
        self.loss.filter(|_| before.is_none())
    }

    /// Another chunk, of the budget if there is one left.
    fn grow(&mut self) -> &mut Chunk {
        let mut capacity = match self.length {
            0 => CHUNK_FIRST,
            length if length == CHUNK_FIRST as u64 => CHUNK_SECOND,
            _ => CHUNK_OTHERS,
        };
        let mut reserved = capacity as u64;
        if self.loss.is_none() && !self.reservation.grow(reserved) {
            self.loss = Some(ReplayLoss::MemoryFull);
        }
        if self.loss.is_some() {
            (capacity, reserved) = (CHUNK_STREAMED, 0);
        }
        self.chunks.push_back(Chunk {
            start: self.length,
            octets: Vec::with_capacity(capacity),
            reserved,
        });
        self.chunks.back_mut().expect("it was just pushed")
    }

    /// No more content comes; the terminator is the caller's.
    pub fn complete(&mut self) {
        self.progress = Progress::Complete;
    }

    /// Whether all content is here.
    pub fn is_complete(&self) -> bool {
        self.progress == Progress::Complete
    }

    /// Octets received.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Octets written to the present backend.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether everything received so far has been written. If the message is complete as well, the
    /// terminator is next.
    pub fn is_all_sent(&self) -> bool {
        self.sent == self.length
    }

    /// How many octets may be read for it now. It does not bound a push: what repairs add to one
    /// read fits beyond it.
    ///
    /// A replayable message is bounded by its limits, so it may always have a window more; one that
    /// streams waits for the backend.
    pub fn room(&self) -> usize {
        let unsent = usize::try_from(self.length - self.sent).unwrap_or(usize::MAX);
        match (self.progress, self.loss) {
            (Progress::Complete, _) => 0,
            (Progress::Coming, None) => STREAM_WINDOW,
            (Progress::Coming, Some(_)) => STREAM_WINDOW.saturating_sub(unsent),
        }
    }

    /// The next octets to write: those in one piece at the cursor, empty if there are none.
    pub fn unsent(&self) -> &[u8] {
        self.unsent_parts().next().unwrap_or_default()
    }

    /// All that is to be written now, in pieces for one `writev`.
    pub fn unsent_parts(&self) -> impl Iterator<Item = &[u8]> {
        let first = self
            .chunks
            .partition_point(|chunk| chunk.end() <= self.sent);
        self.chunks
            .range(first..)
            .map(|chunk| chunk.behind(self.sent))
            .filter(|part| !part.is_empty())
    }

    /// So many octets have been taken by the kernel, or by the TLS writer.
    ///
    /// # Panics
    /// When there were fewer.
    pub fn advance(&mut self, octets: usize) {
        self.sent += octets as u64;
        assert!(self.sent <= self.length, "more was sent than there is");
        self.release();
        self.check_invariants();
    }

    /// Why it cannot be replayed, if it cannot.
    pub fn loss(&self) -> Option<ReplayLoss> {
        self.loss
    }

    /// Goes back to the beginning, for another backend.
    ///
    /// # Errors
    /// When the message is not replayable; then nothing changes.
    pub fn rewind(&mut self) -> Result<(), ReplayLoss> {
        if let Some(loss) = self.loss {
            return Err(loss);
        }
        self.sent = 0;
        Ok(())
    }

    /// Digests at most `octets_max` more octets of what has been received. The digest once there
    /// are no more, `None` if it is to be asked again: between calls, others can be served.
    pub fn digest(&mut self, octets_max: usize) -> Option<BodyDigest> {
        self.digest_up_to(self.length, octets_max);
        (self.digest.octets == self.length).then(|| self.digest.value())
    }

    fn digest_up_to(&mut self, end: u64, octets_max: usize) {
        let from = self.digest.octets;
        let end = end.min(from.saturating_add(octets_max as u64));
        let first = self.chunks.partition_point(|chunk| chunk.end() <= from);
        for chunk in self.chunks.range(first..) {
            let left = (end - self.digest.octets) as usize;
            if left == 0 {
                break;
            }
            let octets = chunk.behind(self.digest.octets);
            self.digest.update(&octets[..octets.len().min(left)]);
        }
    }

    /// Frees what has been sent of a message that streams, as much as was digested.
    fn release(&mut self) {
        if self.loss.is_none() {
            return;
        }
        if self.sent > self.digest.octets {
            self.digest_up_to(self.sent, DIGEST_STEP);
        }
        let gone = self.sent.min(self.digest.octets);
        while self.chunks.front().is_some_and(|chunk| chunk.end() <= gone) {
            if self.chunks.len() == 1 && self.chunks[0].reserved == 0 {
                // The one chunk of a stream that keeps up is used over and over.
                self.chunks[0].restart();
                break;
            }
            let chunk = self.chunks.pop_front().expect("it was just seen");
            self.reservation.shrink(chunk.reserved);
        }
    }

    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let reserved: u64 = self.chunks.iter().map(|chunk| chunk.reserved).sum();
        assert_eq!(reserved, self.reservation.octets());
        let first = self.chunks.front().map_or(self.length, |chunk| chunk.start);
        assert!(first <= self.sent && self.sent <= self.length);
        assert!(first <= self.digest.octets && self.digest.octets <= self.length);
        assert!(self.loss.is_some() || first == 0 && self.length <= self.replay_max);
        let mut at = first;
        for chunk in &self.chunks {
            assert_eq!(chunk.start, at);
            at = chunk.end();
        }
        assert_eq!(at, self.length);
    }
}

impl fmt::Debug for Digesting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digesting")
            .field("octets", &self.octets)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLENTY: u64 = 1 << 30;

    fn pattern(length: usize) -> Vec<u8> {
        pattern_from(0, length)
    }

    /// So many octets of that pattern behind its first `start`.
    fn pattern_from(start: usize, length: usize) -> Vec<u8> {
        (start..start + length).map(|at| (at % 251) as u8).collect()
    }

    /// Everything from the cursor on, taken in writes of at most `size` octets.
    fn drain(body: &mut MessageBody, size: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            let part = body.unsent();
            let part = &part[..part.len().min(size)];
            if part.is_empty() {
                return taken;
            }
            let length = part.len();
            taken.extend_from_slice(part);
            body.advance(length);
        }
    }

    fn sha256(octets: &[u8]) -> BodyDigest {
        let digest = aws_lc_rs::digest::digest(&SHA256, octets);
        BodyDigest(*digest.as_ref().first_chunk().expect("32 octets"))
    }

    #[test]
    fn rule_f1_a_copy_is_kept_and_can_be_sent_again() {
        let memory = ReplayMemory::new(PLENTY);
        let content = pattern(300_000);
        let mut body = MessageBody::new(&memory, PLENTY);
        assert_eq!(memory.used(), 0);
        for part in content.chunks(1_000) {
            assert_eq!(body.push(part), None);
        }
        body.complete();
        assert_eq!(drain(&mut body, 7_777), content);
        assert!(body.is_all_sent() && body.is_complete());
        body.rewind().expect("it is replayable");
        assert_eq!((body.sent(), body.is_all_sent()), (0, false));
        assert_eq!(drain(&mut body, usize::MAX), content);
        assert!(
            (300_000..400_000).contains(&memory.used()),
            "{}",
            memory.used()
        );
        drop(body);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_short_message_takes_four_kilobytes_and_none_takes_nothing() {
        let memory = ReplayMemory::new(PLENTY);
        let mut body = MessageBody::new(&memory, PLENTY);
        body.push(b"");
        assert_eq!((memory.used(), body.unsent()), (0, &b""[..]));
        body.push(&pattern(4_096));
        assert_eq!(memory.used(), 4_096);
        body.push(b"x");
        assert_eq!(memory.used(), 4_096 + 16_384);
    }

    #[test]
    fn rule_f1_over_its_limit_a_message_streams_on_and_cannot_go_back() {
        let memory = ReplayMemory::new(PLENTY);
        let content = pattern(200_000);
        let mut body = MessageBody::new(&memory, 100_000);
        assert_eq!(body.push(&content[..100_000]), None);
        let mut sent = drain(&mut body, 50_000);
        assert_eq!(body.rewind(), Ok(()));
        sent.clear();
        sent.extend(drain(&mut body, 50_000));
        assert_eq!(
            body.push(&content[100_000..100_001]),
            Some(ReplayLoss::MessageLimit)
        );
        // Counted once; what had been sent is given back.
        assert_eq!(body.push(&content[100_001..150_000]), None);
        assert_eq!(body.rewind(), Err(ReplayLoss::MessageLimit));
        assert_eq!(body.loss(), Some(ReplayLoss::MessageLimit));
        sent.extend(drain(&mut body, 50_000));
        body.push(&content[150_000..]);
        body.complete();
        sent.extend(drain(&mut body, 50_000));
        assert!(sent == content, "every octet once and in order");
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn rule_f1_without_memory_left_a_message_streams_from_where_it_is() {
        let memory = ReplayMemory::new(30_000);
        let content = pattern(150_000);
        let mut body = MessageBody::new(&memory, PLENTY);
        assert_eq!(body.push(&content[..4_096 + 16_384]), None);
        assert_eq!(
            body.push(&content[20_480..20_481]),
            Some(ReplayLoss::MemoryFull)
        );
        assert_eq!(body.push(&content[20_481..]), None);
        assert_eq!(memory.used(), 20_480, "it is not yet sent");
        assert!(drain(&mut body, 1_000) == content);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn without_a_copy_the_client_waits_for_the_backend() {
        let memory = ReplayMemory::new(0);
        let mut body = MessageBody::new(&memory, PLENTY);
        assert_eq!(body.room(), STREAM_WINDOW);
        assert_eq!(body.push(&pattern(60_000)), Some(ReplayLoss::MemoryFull));
        assert_eq!(body.room(), STREAM_WINDOW - 60_000);
        body.push(&pattern(60_000));
        assert_eq!(body.room(), 0);
        body.advance(60_000 - STREAM_WINDOW / 2);
        assert_eq!(body.room(), 0);
        let unsent = body.unsent_parts().map(<[u8]>::len).sum::<usize>();
        assert_eq!(unsent, 60_000 + STREAM_WINDOW / 2);
        drain(&mut body, usize::MAX);
        assert_eq!(body.room(), STREAM_WINDOW);
        body.complete();
        assert_eq!(body.room(), 0);
    }

    #[test]
    fn a_stream_that_keeps_up_holds_one_small_chunk() {
        let memory = ReplayMemory::new(0);
        let mut body = MessageBody::new(&memory, PLENTY);
        for _ in 0..1_000 {
            body.push(&pattern(1_400));
            drain(&mut body, usize::MAX);
            assert_eq!(body.chunks.len(), 1);
        }
        assert_eq!(body.chunks[0].octets.capacity(), CHUNK_STREAMED);
    }

    #[test]
    fn a_long_copy_is_digested_and_freed_in_steps() {
        let memory = ReplayMemory::new(PLENTY);
        let content = pattern(4_000_000);
        let mut body = MessageBody::new(&memory, 4_000_000);
        body.push(&content);
        drain(&mut body, usize::MAX);
        assert_eq!(body.push(b"x"), Some(ReplayLoss::MessageLimit));
        let used = memory.used();
        assert!(used > 3_500_000, "one step is {DIGEST_STEP} octets: {used}");
        for _ in 0..4_000_000 / DIGEST_STEP {
            body.advance(0);
        }
        drain(&mut body, usize::MAX);
        assert_eq!(memory.used(), 0);
        assert_eq!(
            body.digest(usize::MAX),
            Some(sha256(&[&content[..], b"x"].concat()))
        );
    }

    #[test]
    fn the_digest_is_half_of_the_sha_256_and_made_in_steps() {
        let memory = ReplayMemory::new(PLENTY);
        let mut body = MessageBody::new(&memory, PLENTY);
        // FIPS 180-2, and the empty message.
        let empty = body.digest(0).expect("there is nothing to digest");
        assert_eq!(empty.to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
        body.push(b"abc");
        assert_eq!(body.digest(2), None);
        let digest = body.digest(2).expect("that was all");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(body.digest(0), Some(digest));
    }

    proptest! {
        #[test]
        fn whatever_happens_each_octet_is_sent_once_and_in_order(
            steps in proptest::collection::vec((0_u8..4, 0_usize..90_000), 1..40),
            replay_max in 0_u64..600_000,
            memory_max in 0_u64..600_000,
        ) {
            let memory = ReplayMemory::new(memory_max);
            let mut body = MessageBody::new(&memory, replay_max);
            let (mut content, mut sent) = (Vec::new(), Vec::new());
            for (step, amount) in steps {
                match step {
                    0 | 1 => {
                        let octets = pattern_from(content.len(), amount);
                        let was = body.loss();
                        let turned = body.push(&octets);
                        prop_assert_eq!(turned, body.loss().filter(|_| was.is_none()));
                        content.extend(octets);
                    }
                    2 => {
                        let part = body.unsent();
                        let part = part[..part.len().min(amount)].to_vec();
                        body.advance(part.len());
                        sent.extend(part);
                    }
                    _ => if body.rewind().is_ok() {
                        sent.clear();
                    },
                }
                prop_assert_eq!(body.sent(), sent.len() as u64);
                prop_assert!(content.starts_with(&sent));
                let unsent = body.unsent_parts().collect::<Vec<_>>().concat();
                prop_assert!(unsent == content[sent.len()..]);
                prop_assert!(memory.used() <= memory_max);
                prop_assert_eq!(body.digest(amount / 2 + 1).is_some_and(|digest| digest != sha256(&content)), false);
            }
            body.complete();
            sent.extend(drain(&mut body, 10_000));
            prop_assert!(sent == content);
            prop_assert_eq!(body.digest(usize::MAX), Some(sha256(&content)));
            drop(body);
            prop_assert_eq!(memory.used(), 0);
        }
    }
}
