//! Counts that one thread writes and any thread reads.
//!
//! A [`Counter`] is added to by a plain load and store, without a locked instruction: right only
//! where one thread writes it. [`Shards`] gives each thread its own padded copy; a reader sums.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// A count with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`; wraps at 2⁶⁴.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Subtracts `n`: for gauges such as "sessions now".
    pub fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(n),
            Ordering::Relaxed,
        );
    }

    /// Sets the value: for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One copy of `T` for each thread, padded so that no two share a cache line.
#[derive(Debug)]
pub struct Shards<T>(Box<[CachePadded<T>]>);

impl<T: Default> Shards<T> {
    /// `count` empty shards.
    pub fn new(count: usize) -> Self {
        Self(
            (0..count.max(1))
                .map(|_| CachePadded::new(T::default()))
                .collect(),
        )
    }
}

impl<T> Shards<T> {
    /// The shard that thread `index` writes; an index beyond the end shares the last shard.
    pub fn of(&self, index: usize) -> &T {
        &self.0[index.min(self.0.len() - 1)]
    }

    /// All shards, to be summed by a reader.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|shard| &**shard)
    }

    /// The sum of one count over all shards.
    pub fn sum(&self, count: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(count).fold(0, u64::wrapping_add)
    }
}

/// A histogram of durations with fixed bounds: 1-2.5-5 steps from 100 µs to 1,000 s.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BOUNDS_MICROS.len() + 1],
    sum_micros: Counter,
}

impl Histogram {
    /// Upper bounds in microseconds, inclusive.
    pub const BOUNDS_MICROS: [u64; 22] = [
        100,
        250,
        500,
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
    ];

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        let at = Self::BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[at].inc();
        self.sum_micros.add(micros);
    }

    /// Adds this histogram to running totals.
    pub fn add_to(&self, totals: &mut HistogramTotals) {
        for (total, bucket) in totals.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.value();
        }
        totals.sum_micros += self.sum_micros.value();
    }
}

/// The sum of several [`Histogram`]s, for a reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramTotals {
    /// Counts by bucket (not cumulative); the last one is above every bound.
    pub buckets: [u64; Histogram::BOUNDS_MICROS.len() + 1],
    /// The sum of all durations in microseconds.
    pub sum_micros: u64,
}
