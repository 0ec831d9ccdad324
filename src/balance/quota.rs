//! What a provider allows: so many messages or recipients within any span of so long.
//!
//! One window per quota, shared by all threads and by all addresses of a backend's name, for it is
//! the provider who counts. A span is divided into [`PARTS`] parts and one part more is counted, so
//! that what was counted is never less than what any span of that length holds: a quota is not
//! passed, and at most one part in 64 of it is given away. Within the process time is monotonic; over
//! a restart it is the wall clock's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::shared::lock;

/// Parts of a span.
const PARTS: u64 = 64;

/// At most so much within any span of so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many, 1 to 1,000,000,000.
    pub count: u64,
    /// Within any span of this length, 1 second to 31 days.
    pub period: Duration,
    /// Of what.
    pub unit: QuotaUnit,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaUnit {
    /// Messages.
    Messages,
    /// Recipients of messages.
    Recipients,
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The quota.
    pub quota: Quota,
    /// What was used within its span.
    pub used: u64,
}

/// The part of a window that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRecord {
    /// The length of the span.
    pub period: Duration,
    /// What is counted.
    pub unit: QuotaUnit,
    /// Numbers of parts since the beginning, and what was used in each; in order.
    pub parts: Vec<(u64, u64)>,
}

/// Where time began: an instant, and what the wall clock said then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The instant.
    pub instant: Instant,
    /// The time since 1970 at that instant.
    pub unix: Duration,
}

impl Epoch {
    fn at(self, now: Instant) -> Duration {
        self.unix + now.saturating_duration_since(self.instant)
    }
}

/// The quotas of one backend's name. Reading whether one is used up takes no lock.
#[derive(Debug)]
pub struct Quotas {
    epoch: Epoch,
    used_up: AtomicBool,
    windows: Mutex<Vec<Window>>,
}

#[derive(Clone, Debug)]
struct Window {
    quota: Quota,
    /// By number of the part, in order; at most `PARTS` + 1.
    parts: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Quotas {
    /// None.
    pub fn new(epoch: Epoch) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            used_up: AtomicBool::new(false),
            windows: Mutex::default(),
        })
    }

    /// Sets what counts from now on. What was used of a quota of the same span and unit stays.
    pub fn configure(&self, quotas: &[Quota], now: Instant) {
        let now = self.epoch.at(now);
        let mut windows = lock(&self.windows);
        let before = std::mem::take(&mut *windows);
        *windows = quotas
            .iter()
            .map(|&quota| {
                let same = |window: &&Window| {
                    (window.quota.period, window.quota.unit) == (quota.period, quota.unit)
                };
                let old = before.iter().find(same);
                Window {
                    quota,
                    parts: old.map_or_else(VecDeque::new, |old| old.parts.clone()),
                    sum: old.map_or(0, |old| old.sum),
                }
            })
            .collect();
        self.judge(&mut windows, now);
    }

    /// Takes one message, with its first recipient, if all quotas have room for it.
    ///
    /// # Errors
    /// One of them is used up.
    pub fn take(self: &Arc<Self>, now: Instant) -> Result<Option<Spent>, UsedUp> {
        let now = self.epoch.at(now);
        let mut windows = lock(&self.windows);
        if windows.is_empty() {
            return Ok(None);
        }
        if !self.judge(&mut windows, now) {
            return Err(UsedUp);
        }
        let parts = windows.iter_mut().map(|window| window.add(1, now));
        let parts = parts.collect();
        self.judge(&mut windows, now);
        Ok(Some(Spent {
            quotas: Arc::clone(self),
            at: now,
            parts,
            fate: SpentFate::GivenBack,
        }))
    }

    /// Whether one of them is used up, as of the last look.
    pub fn is_used_up(&self) -> bool {
        self.used_up.load(Ordering::Acquire)
    }

    /// Looks again; whether there is room where there was none.
    pub fn refresh(&self, now: Instant) -> bool {
        self.is_used_up() && self.judge(&mut lock(&self.windows), self.epoch.at(now))
    }

    /// How much is used now.
    pub fn usage(&self, now: Instant) -> Vec<QuotaUse> {
        let now = self.epoch.at(now);
        let mut windows = lock(&self.windows);
        let of = |window: &mut Window| {
            window.forget(now);
            QuotaUse {
                quota: window.quota,
                used: window.sum,
            }
        };
        windows.iter_mut().map(of).collect()
    }

    /// Whether anything was used that may still count.
    pub fn has_counts(&self) -> bool {
        lock(&self.windows).iter().any(|window| window.sum > 0)
    }

    /// What is to be kept over a restart.
    pub fn records(&self, now: Instant) -> Vec<QuotaRecord> {
        let now = self.epoch.at(now);
        let mut windows = lock(&self.windows);
        let of = |window: &mut Window| {
            window.forget(now);
            QuotaRecord {
                period: window.quota.period,
                unit: window.quota.unit,
                parts: window.parts.iter().copied().collect(),
            }
        };
        windows.iter_mut().map(of).collect()
    }

    /// Puts back what was kept; what is not asked for any more is dropped.
    pub fn restore(&self, records: &[QuotaRecord], now: Instant) {
        let now = self.epoch.at(now);
        let mut windows = lock(&self.windows);
        for window in &mut *windows {
            let same = |record: &&QuotaRecord| {
                (record.period, record.unit) == (window.quota.period, window.quota.unit)
            };
            if let Some(record) = records.iter().find(same) {
                let current = window.part(now);
                let mut parts = record.parts.clone();
                // A clock that was set back must not keep a window shut for ever.
                parts.retain(|(part, _)| *part <= current);
                parts.sort_unstable();
                parts.dedup_by_key(|(part, _)| *part);
                window.sum = parts.iter().map(|(_, used)| *used).sum();
                window.parts = parts.into();
            }
        }
        self.judge(&mut windows, now);
    }

    /// Whether there is room in all of them; publishes it.
    fn judge(&self, windows: &mut [Window], now: Duration) -> bool {
        let has_room = windows.iter_mut().all(|window| window.has_room(now));
        self.used_up.store(!has_room, Ordering::Release);
        has_room
    }
}

impl Window {
    fn part_length(&self) -> Duration {
        self.quota.period / PARTS as u32
    }

    /// The number of the part that is now.
    fn part(&self, now: Duration) -> u64 {
        let length = self.part_length().as_nanos().max(1);
        u64::try_from(now.as_nanos() / length).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, now: Duration) {
        let current = self.part(now);
        while let Some(&(part, used)) = self.parts.front()
            && part + PARTS < current
        {
            self.parts.pop_front();
            self.sum -= used;
        }
    }

    fn has_room(&mut self, now: Duration) -> bool {
        self.forget(now);
        self.sum < self.quota.count
    }

    /// Counts it, and says in which part.
    fn add(&mut self, used: u64, now: Duration) -> u64 {
        let current = self.part(now);
        self.sum += used;
        match self.parts.back_mut() {
            // Another thread's clock may be a little behind.
            Some(last) if last.0 >= current => {
                last.1 += used;
                last.0
            }
            _ => {
                self.parts.push_back((current, used));
                current
            }
        }
    }

    /// Takes one back out of its part, unless that has been forgotten.
    fn give_back(&mut self, part: u64) {
        let mut same = self.parts.iter_mut().filter(|(other, _)| *other == part);
        if let Some((_, used)) = same.find(|(_, used)| *used > 0) {
            *used -= 1;
            self.sum -= 1;
        }
    }
}

/// A quota of the backend is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a quota of the backend is used up")]
pub struct UsedUp;

/// One message of the quotas. Dropped, it is given back, unless it was kept.
#[derive(Debug)]
pub struct Spent {
    quotas: Arc<Quotas>,
    at: Duration,
    /// Where it was counted, by window.
    parts: Box<[u64]>,
    fate: SpentFate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpentFate {
    GivenBack,
    Kept,
}

impl Spent {
    /// The backend has taken the message for so many recipients, or may have. More recipients than
    /// one may pass a quota: what the backend has accepted is counted whatever it is.
    pub fn keep(mut self, recipients: u64, now: Instant) {
        let now = self.quotas.epoch.at(now);
        self.fate = SpentFate::Kept;
        let mut windows = lock(&self.quotas.windows);
        for (window, part) in windows.iter_mut().zip(&self.parts) {
            // The provider counts it now, not when MAIL was said.
            window.give_back(*part);
            let used = match window.quota.unit {
                QuotaUnit::Messages => 1,
                QuotaUnit::Recipients => recipients.max(1),
            };
            window.add(used, now);
        }
        self.quotas.judge(&mut windows, now);
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if self.fate == SpentFate::GivenBack {
            let mut windows = lock(&self.quotas.windows);
            for (window, part) in windows.iter_mut().zip(&self.parts) {
                window.give_back(*part);
            }
            self.quotas.judge(&mut windows, self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static BEGAN: Instant = Instant::now();
    }

    fn at(after: Duration) -> Instant {
        BEGAN.with(|began| *began + after)
    }

    fn seconds(seconds: u64) -> Instant {
        at(Duration::from_secs(seconds))
    }

    fn quotas(list: &[(u64, u64, QuotaUnit)]) -> Arc<Quotas> {
        let quotas = Quotas::new(Epoch {
            instant: seconds(0),
            unix: Duration::ZERO,
        });
        let of = |&(count, period, unit): &(u64, u64, QuotaUnit)| Quota {
            count,
            period: Duration::from_secs(period),
            unit,
        };
        let list: Vec<_> = list.iter().map(of).collect();
        quotas.configure(&list, seconds(0));
        quotas
    }

    fn spend(quotas: &Arc<Quotas>, recipients: u64, now: Instant) -> bool {
        match quotas.take(now) {
            Ok(spent) => {
                spent.expect("there is a quota").keep(recipients, now);
                true
            }
            Err(UsedUp) => false,
        }
    }

    #[test]
    fn a_quota_is_used_up_and_free_again_when_its_span_has_passed() {
        let quotas = quotas(&[(3, 64, QuotaUnit::Messages)]);
        let spent: Vec<_> = (0..4).map(|at| spend(&quotas, 1, seconds(at))).collect();
        assert_eq!(spent, [true, true, true, false]);
        assert!(quotas.is_used_up());
        assert!(!quotas.refresh(seconds(64)), "one part more is counted");
        assert!(quotas.refresh(seconds(65)));
        assert!(spend(&quotas, 1, seconds(65)));
        assert!(!spend(&quotas, 1, seconds(65)));
    }

    #[test]
    fn all_quotas_have_to_have_room() {
        let quotas = quotas(&[(2, 1, QuotaUnit::Messages), (3, 640, QuotaUnit::Messages)]);
        assert!(spend(&quotas, 1, seconds(0)) && spend(&quotas, 1, seconds(0)));
        assert!(!spend(&quotas, 1, seconds(0)));
        assert!(spend(&quotas, 1, seconds(2)));
        assert!(!spend(&quotas, 1, seconds(4)), "the longer one is used up");
    }

    #[test]
    fn what_was_not_accepted_is_given_back() {
        let quotas = quotas(&[(1, 64, QuotaUnit::Messages)]);
        let spent = quotas.take(seconds(1)).unwrap();
        assert_eq!(quotas.take(seconds(2)).unwrap_err(), UsedUp);
        drop(spent);
        assert!(!quotas.is_used_up());
        assert!(spend(&quotas, 1, seconds(2)));
    }

    #[test]
    fn recipients_count_as_many_as_were_accepted() {
        let quotas = quotas(&[(10, 64, QuotaUnit::Recipients)]);
        assert!(spend(&quotas, 9, seconds(0)));
        assert!(spend(&quotas, 5, seconds(0)), "one more fits");
        assert_eq!(quotas.usage(seconds(0))[0].used, 14);
        assert!(!spend(&quotas, 1, seconds(0)));
    }

    #[test]
    fn a_reload_keeps_what_was_used() {
        let quotas = quotas(&[(3, 64, QuotaUnit::Messages)]);
        assert!(spend(&quotas, 1, seconds(0)) && spend(&quotas, 1, seconds(0)));
        let less = Quota {
            count: 2,
            period: Duration::from_secs(64),
            unit: QuotaUnit::Messages,
        };
        quotas.configure(&[less], seconds(1));
        assert!(quotas.is_used_up());
        quotas.configure(&[], seconds(1));
        assert!(!quotas.is_used_up());
        assert!(quotas.take(seconds(1)).unwrap().is_none());
    }

    #[test]
    fn a_restart_keeps_what_was_used() {
        let before = quotas(&[(3, 64, QuotaUnit::Messages)]);
        assert!(spend(&before, 1, seconds(10)) && spend(&before, 1, seconds(11)));
        let after = quotas(&[(3, 64, QuotaUnit::Messages), (9, 64, QuotaUnit::Recipients)]);
        after.restore(&before.records(seconds(12)), seconds(20));
        assert_eq!(after.usage(seconds(20))[0].used, 2);
        assert_eq!(after.usage(seconds(20))[1].used, 0);
        assert!(spend(&after, 1, seconds(20)));
        assert!(!spend(&after, 1, seconds(20)));
    }

    #[test]
    fn a_clock_that_was_set_back_shuts_nothing_for_ever() {
        let before = quotas(&[(1, 64, QuotaUnit::Messages)]);
        assert!(spend(&before, 1, seconds(1_000)));
        let after = quotas(&[(1, 64, QuotaUnit::Messages)]);
        after.restore(&before.records(seconds(1_000)), seconds(10));
        assert!(spend(&after, 1, seconds(10)));
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_the_quota(
            count in 1_u64..20,
            steps in proptest::collection::vec(0_u64..4_000, 1..200),
        ) {
            let quotas = quotas(&[(count, 10, QuotaUnit::Messages)]);
            let (mut now, mut taken) = (seconds(0), Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                if spend(&quotas, 1, now) {
                    taken.push(now);
                }
                let within = taken.iter().filter(|&&at| now - at < Duration::from_secs(10)).count();
                prop_assert!(within as u64 <= count);
                // Not stingy either: a full window means a full span and one part more.
                let nearly = taken.iter().filter(|&&at| now - at < Duration::from_millis(10_320)).count();
                prop_assert!(!quotas.is_used_up() || nearly as u64 >= count);
            }
        }
    }
}
