//! Identifiers: sessions, workers, generations.

use std::fmt;
use std::time::Duration;

/// One accepted connection: the time of the accept in the upper 56 bits, in sixteenths of a
/// microsecond since 1970 (until the year 2112), and the data thread in the lower 8.
///
/// Ids sort in the order of the accepts, over all threads, as numbers and as text; and an id is not
/// used again after a restart, unless the wall clock was set back. No two threads share a cache line
/// to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Bits of the data thread.
const WORKER_BITS: u32 = 8;
/// What the time is counted in, a second.
const TICKS_PER_SECOND: u64 = 16_000_000;

impl SessionId {
    /// The id of a connection that `worker` has accepted so long after 1970; greater than `last`, the
    /// id that the same worker made before. Connections that were accepted at one instant differ by
    /// a sixteenth of a microsecond each.
    #[must_use]
    pub fn next(last: Self, worker: WorkerId, accepted: Duration) -> Self {
        let part = u64::from(accepted.subsec_nanos()) * (TICKS_PER_SECOND / 1_000_000) / 1_000;
        let ticks = accepted.as_secs() * TICKS_PER_SECOND + part;
        let ticks = ticks.max((last.0 >> WORKER_BITS) + 1);
        Self((ticks << WORKER_BITS) | u64::from(worker.0))
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A data thread, counted from 0. The control thread uses the index after the last worker's where
/// it needs a shard of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u8);

impl WorkerId {
    /// As an index into shards.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The count of snapshots since the start; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: SessionId = SessionId(0);

    #[test]
    fn ids_sort_as_text_in_the_order_of_the_accepts_over_all_workers() {
        let start = Duration::from_micros(1_764_581_000_999_998);
        let mut last = [NEVER; 3];
        let mut texts = Vec::new();
        // A burst at one instant on one worker, between accepts of the others a little later.
        for (micros, worker) in [(0, 2), (0, 2), (0, 2), (1, 0), (2, 1), (3, 0), (9, 2)] {
            let at = start + Duration::from_micros(micros);
            let made = &mut last[usize::from(worker)];
            *made = SessionId::next(*made, WorkerId(worker), at);
            texts.push(made.to_string());
        }
        assert!(texts.is_sorted(), "{texts:?}");
        texts.dedup();
        assert_eq!(texts.len(), 7, "each is unique");
        assert!(texts.iter().all(|text| text.len() == 16));
    }

    #[test]
    fn an_id_holds_the_time_and_the_worker() {
        let at = Duration::new(0x1234_5678, 500_000_000);
        let id = SessionId::next(NEVER, WorkerId(0xab), at);
        let ticks = 0x1234_5678 * TICKS_PER_SECOND + 8_000_000;
        assert_eq!(id.0, (ticks << 8) | 0xab);
        let early = SessionId::next(NEVER, WorkerId(1), Duration::ZERO);
        assert_eq!(early.to_string(), "0000000000000101");
    }

    #[test]
    fn two_workers_never_make_the_same_id() {
        let at = Duration::from_secs(1_764_581_000);
        let make = |worker| SessionId::next(NEVER, WorkerId(worker), at);
        assert!((0..255).map(make).is_sorted_by(|one, other| one < other));
    }
}
