//! How much of one quota is used: places that are reserved, and what was used in each part of the
//! span.
//!
//! A place is reserved before the backend is told, and becomes used when the backend has the
//! message; so what is in flight counts, however long it takes. All of it is atomic and nothing
//! waits: a place is got by compare-exchange against the quota, and a part that has left the span is
//! given back by whoever sees it first. The count may be too high for a moment, never too low.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::{Epoch, Quota, QuotaLevel, QuotaRecord, QuotaUnit};

/// Parts of a span.
const PARTS: u64 = 64;
/// The part that is now, and as many before as the span has.
const COUNTED: usize = PARTS as usize + 1;
/// Bits of a count within its part: more than the largest quota.
const COUNT_BITS: u32 = 30;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// Bits of a part's number are left for it: eight years of a span of one second, and then again.
const NUMBER_MASK: u64 = u64::MAX >> COUNT_BITS;

/// The use of one quota, of all threads.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) epoch: Epoch,
    pub(super) period: Duration,
    pub(super) unit: QuotaUnit,
    /// What is reserved, and what was used in the parts.
    taken: AtomicU64,
    /// By number of the part, modulo how many there are.
    parts: [AtomicU64; COUNTED],
    /// The part that was now when parts were forgotten last.
    looked: AtomicU64,
    /// Since when looks have found it used up.
    pub(super) used_up: Since,
    /// The level an operator was told last.
    told: AtomicU8,
    /// Since when looks have found less used than belongs to that level.
    pub(super) below_told: Since,
}

/// Since when looks have found something to hold, in nanoseconds since 1970; 0 is not now.
#[derive(Debug, Default)]
pub(super) struct Since(AtomicU64);

/// What one look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Holds,
    DoesNot,
}

impl Since {
    /// Notes what a look has found; since when it has held, if it holds.
    pub(super) fn note(&self, found: Look, now: Duration) -> Option<Duration> {
        let Self(noted) = self;
        if found == Look::DoesNot {
            // Most looks find nothing, and need not write where others reserve.
            if noted.load(Ordering::Relaxed) != 0 {
                noted.store(0, Ordering::Relaxed);
            }
            return None;
        }
        let now_nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
        let first = noted.compare_exchange(0, now_nanos, Ordering::Relaxed, Ordering::Relaxed);
        let since = first.map_or_else(|since| since, |_| now_nanos);
        Some(Duration::from_nanos(since))
    }
}

impl Look {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::DoesNot }
    }
}

/// The number of a part, and what was used in it.
#[derive(Clone, Copy, Debug)]
struct Part {
    number: u64,
    used: u64,
}

impl Part {
    fn read(word: u64) -> Self {
        Self {
            number: word >> COUNT_BITS,
            used: word & COUNT_MAX,
        }
    }

    fn word(self) -> u64 {
        (self.number & NUMBER_MASK) << COUNT_BITS | self.used
    }

    /// How many parts it is behind `current`. Another thread's clock may be a little ahead.
    fn age(self, current: u64) -> u64 {
        let age = current.wrapping_sub(self.number) & NUMBER_MASK;
        if age > NUMBER_MASK / 2 { 0 } else { age }
    }
}

impl Window {
    pub(super) fn new(epoch: Epoch, period: Duration, unit: QuotaUnit) -> Self {
        Self {
            epoch,
            period,
            unit,
            taken: AtomicU64::new(0),
            parts: [const { AtomicU64::new(0) }; COUNTED],
            looked: AtomicU64::new(0),
            used_up: Since::default(),
            told: AtomicU8::new(QuotaLevel::Free.number()),
            below_told: Since::default(),
        }
    }

    /// What an operator was told last.
    pub(super) fn told(&self) -> QuotaLevel {
        QuotaLevel::of_number(self.told.load(Ordering::Relaxed))
    }

    pub(super) fn tell(&self, level: QuotaLevel) {
        self.told.store(level.number(), Ordering::Relaxed);
    }

    pub(super) fn counts(&self, quota: &Quota) -> bool {
        (self.period, self.unit) == (quota.period, quota.unit)
    }

    /// What is reserved or was used, as of the last look.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Reserves `wanted` places, or as many as there are; how many.
    pub(super) fn reserve(&self, wanted: u64, count: u64, now: Duration) -> u64 {
        self.forget(now);
        let mut granted = 0;
        let _ = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                granted = wanted.min(count.saturating_sub(taken));
                (granted > 0).then_some(taken + granted)
            });
        granted
    }

    /// Reserves all of these places, or none.
    pub(super) fn reserve_all(&self, wanted: u64, count: u64, now: Duration) -> bool {
        self.forget(now);
        let reserved = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken.saturating_add(wanted) <= count).then(|| taken + wanted)
            });
        reserved.is_ok()
    }

    /// Gives places back that were reserved.
    pub(super) fn give_back(&self, places: u64) {
        let before = self.taken.fetch_sub(places, Ordering::AcqRel);
        debug_assert!(before >= places, "what is given back was reserved");
    }

    /// Of the places that were reserved so many are used now.
    pub(super) fn settle(&self, reserved: u64, used: u64, now: Duration) {
        self.forget(now);
        // What is taken never falls below what the parts hold, whoever looks meanwhile.
        self.taken
            .fetch_add(used.saturating_sub(reserved), Ordering::AcqRel);
        self.put(self.part(now), used);
        self.give_back(reserved.saturating_sub(used));
    }

    /// Gives back what has left the span.
    pub(super) fn forget(&self, now: Duration) {
        let current = self.part(now);
        if self.looked.load(Ordering::Acquire) >= current {
            return;
        }
        for slot in &self.parts {
            let word = slot.load(Ordering::Acquire);
            let part = Part::read(word);
            if part.used > 0
                && part.age(current) > PARTS
                && slot
                    .compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                self.give_back(part.used);
            }
        }
        self.looked.fetch_max(current, Ordering::AcqRel);
    }

    /// Counts what is in `taken` already in its part.
    fn put(&self, number: u64, used: u64) {
        if used == 0 {
            return;
        }
        let slot = &self.parts[(number % COUNTED as u64) as usize];
        let mut word = slot.load(Ordering::Acquire);
        loop {
            let there = Part::read(word);
            let same = there.used > 0 && there.age(number) < COUNTED as u64;
            let part = if same {
                Part {
                    number: there.number,
                    used: (there.used + used).min(COUNT_MAX),
                }
            } else {
                Part {
                    number,
                    used: used.min(COUNT_MAX),
                }
            };
            match slot.compare_exchange_weak(word, part.word(), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    // What a part cannot hold, and what has left the span, counts no more.
                    let counted = if same { there.used } else { 0 };
                    let gone = if same { 0 } else { there.used };
                    let excess = counted + used - part.used;
                    if gone + excess > 0 {
                        self.give_back(gone + excess);
                    }
                    return;
                }
                Err(changed) => word = changed,
            }
        }
    }

    /// Whether nothing was used that still counts, and nothing is reserved.
    pub(super) fn is_empty(&self, now: Duration) -> bool {
        self.forget(now);
        self.taken() == 0
    }

    /// What was used, by part.
    pub(super) fn record(&self, now: Duration) -> QuotaRecord {
        let current = self.part(now);
        let read = |slot: &AtomicU64| Part::read(slot.load(Ordering::Acquire));
        let counts = |part: &Part| part.used > 0 && part.age(current) <= PARTS;
        let parts = self.parts.iter().map(read).filter(counts);
        let mut parts: Vec<_> = parts
            .map(|part| (current - part.age(current), part.used))
            .collect();
        parts.sort_unstable();
        QuotaRecord {
            period: self.period,
            unit: self.unit,
            parts,
        }
    }

    /// Adds what was used before, of a window with spans of any length, if it is not older than
    /// `since`. Where the parts differ it counts from the end of its own: not less than it was.
    /// What seems to come from the future is counted now: a clock that was set back neither opens a
    /// window nor shuts it for ever.
    pub(super) fn add(&self, record: &QuotaRecord, since: Duration, now: Duration) {
        let length = part_length(record.period);
        let current = self.part(now);
        for &(number, used) in &record.parts {
            let begins = nanos(number, length);
            let end = nanos(number.saturating_add(1), length);
            let last = Duration::from_nanos(u64::try_from(end - 1).unwrap_or(u64::MAX));
            let own = self.part(last).min(current);
            if begins < since.as_nanos() || own + PARTS < current {
                continue;
            }
            let used = used.min(COUNT_MAX);
            self.taken.fetch_add(used, Ordering::AcqRel);
            self.put(own, used);
        }
    }

    /// The number of the part that is now.
    fn part(&self, now: Duration) -> u64 {
        let length = part_length(self.period);
        u64::try_from(now.as_nanos() / length).unwrap_or(u64::MAX)
    }
}

/// In nanoseconds.
fn part_length(period: Duration) -> u128 {
    (period.as_nanos() / u128::from(PARTS)).max(1)
}

/// The end of a part of a window with such spans, since 1970.
pub(super) fn end_of(period: Duration, number: u64) -> Duration {
    let end = nanos(number.saturating_add(1), part_length(period));
    Duration::from_nanos(u64::try_from(end).unwrap_or(u64::MAX))
}

fn nanos(parts: u64, length: u128) -> u128 {
    u128::from(parts) * length
}
