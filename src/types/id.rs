//! Identifiers: sessions, workers, generations.

use std::fmt;

/// One accepted connection, unique for the life of the process: worker in the top 8 bits, then a
/// counter, so that no two threads share a cache line to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The `sequence`-th session of `worker`.
    pub fn new(worker: WorkerId, sequence: u64) -> Self {
        Self((u64::from(worker.0) << 56) | (sequence & 0x00ff_ffff_ffff_ffff))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
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
