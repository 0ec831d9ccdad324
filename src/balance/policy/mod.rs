//! The policies that choose among the eligible members of the open tiers, one file each.
//!
//! Each is a function of what it is shown; none reserves, locks or keeps a count. Up to
//! [`SCAN_MAX`] members are scanned; above that least-connections and round-robin are answered by
//! the heap (`heap.rs`), random-two by the weight tree and source-hash by its table, so that no
//! pick costs more than the logarithm of the pool.

pub(super) mod first;
pub(super) mod least_connections;
pub(super) mod random_two;
pub(super) mod round_robin;
pub(super) mod source_hash;

/// The most members a pick scans as a matter of course.
pub(super) const SCAN_MAX: usize = 64;
