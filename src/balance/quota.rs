//! What a provider allows: so many messages or recipients within any span of so long.
//!
//! One window per quota, shared by all threads and by all addresses of a backend's name, for it is
//! the provider who counts. A place is reserved before the backend is told of a message or of a
//! recipient, by compare-exchange, and given back if nothing came of it; so a quota is not passed,
//! whoever else is sending. A span is divided into 64 parts and one part more is counted, so that
//! what was counted is never less than what any span of that length holds: at most one part in 64
//! of a quota is given away. Within the process time is monotonic; over a restart it is the wall
//! clock's.
//!
//! What was used of a quota that is not asked for any more is kept until it would not count: a
//! quota that returns goes on from there, and one with another span begins with what is known.

mod watch;
mod window;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use self::watch::{QUOTA_FREE_PERCENT, QUOTA_NEAR_PERCENT, QUOTA_TOLD_PERIOD_MIN, QuotaLevel};
use self::window::{Look, Window};
use super::shared::lock;

/// The shortest span of a quota.
pub const QUOTA_PERIOD_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const QUOTA_PERIOD_MAX: Duration = Duration::from_hours(31 * 24);
/// Windows of one backend's name: twice as many as it may have quotas. Of those that are not asked
/// for, the ones that have rested longest are forgotten.
const WINDOWS_MAX: usize = 16;

/// At most so much within any span of so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many, 1 to 1,000,000,000.
    pub count: u64,
    /// Within any span of this length, [`QUOTA_PERIOD_MIN`] to [`QUOTA_PERIOD_MAX`].
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
    /// What was used within its span, and what is reserved.
    pub used: u64,
    /// For how long looks have found it used up; `None` if it has room.
    pub used_up_for: Option<Duration>,
}

impl QuotaUnit {
    /// Its name in logs, metrics and the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }
}

/// The part of a window that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRecord {
    /// The length of the span.
    pub period: Duration,
    /// What is counted.
    pub unit: QuotaUnit,
    /// Numbers of parts since 1970, and what was used in each; in order.
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
    /// The time since 1970, if no clock was set since.
    pub fn at(self, now: Instant) -> Duration {
        self.unix + now.saturating_duration_since(self.instant)
    }
}

/// What was used of the quotas of one backend's name, over all generations.
#[derive(Debug)]
pub struct Quotas {
    epoch: Epoch,
    known: Mutex<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    window: Arc<Window>,
    asked: Asked,
}

/// Whether a window is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    /// Not since then: what was used later is known to others at best.
    Since(Duration),
    Now,
}

/// What a provider allows, as one generation says it, and what was used of that. Neither reading
/// nor reserving takes a lock.
#[derive(Clone, Debug)]
pub struct Limited {
    quotas: Arc<Quotas>,
    limits: Arc<[Limit]>,
}

#[derive(Debug)]
struct Limit {
    quota: Quota,
    window: Arc<Window>,
}

impl Quotas {
    /// None.
    pub fn new(epoch: Epoch) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            known: Mutex::default(),
        })
    }

    /// What a generation allows. Nothing counts differently before [`Limited::install`].
    pub fn limited(self: &Arc<Self>, quotas: &[Quota]) -> Limited {
        let mut known = lock(&self.known);
        let mut limits: Vec<Limit> = Vec::with_capacity(quotas.len());
        for quota in quotas {
            let window = self.window(&mut known, quota.period, quota.unit, Duration::ZERO);
            // What is said twice is the smaller of both.
            let same = limits.iter_mut().find(|limit| limit.window.counts(quota));
            match same {
                Some(limit) => limit.quota.count = limit.quota.count.min(quota.count),
                None => limits.push(Limit {
                    quota: *quota,
                    window,
                }),
            }
        }
        Limited {
            quotas: Arc::clone(self),
            limits: limits.into(),
        }
    }

    fn window(
        &self,
        known: &mut Vec<Known>,
        period: Duration,
        unit: QuotaUnit,
        since: Duration,
    ) -> Arc<Window> {
        let mut windows = known.iter().map(|known| &known.window);
        if let Some(window) = windows.find(|window| (window.period, window.unit) == (period, unit))
        {
            return Arc::clone(window);
        }
        let window = Arc::new(Window::new(self.epoch, period, unit));
        known.push(Known {
            window: Arc::clone(&window),
            asked: Asked::Since(since),
        });
        window
    }

    /// Whether anything was used that may still count.
    pub fn has_counts(&self, now: Instant) -> bool {
        let now = self.epoch.at(now);
        let mut known = lock(&self.known);
        forget(&mut known, now);
        known.iter().any(|known| !known.window.is_empty(now))
    }

    /// When something was used last; in steps of a part.
    pub fn last_used(&self, now: Instant) -> Duration {
        let records = self.records(now);
        let last = records.iter().filter_map(QuotaRecord::last).max();
        last.unwrap_or_default()
    }

    /// What is to be kept over a restart.
    pub fn records(&self, now: Instant) -> Vec<QuotaRecord> {
        let now = self.epoch.at(now);
        let known = lock(&self.known);
        let records = known.iter().map(|known| known.window.record(now));
        records.filter(|record| !record.parts.is_empty()).collect()
    }

    /// Adds what was used before, or by others. Whoever calls it knows that it was not counted here.
    pub fn restore(&self, records: &[QuotaRecord], now: Instant) {
        let now = self.epoch.at(now);
        let mut known = lock(&self.known);
        for record in records {
            if (QUOTA_PERIOD_MIN..=QUOTA_PERIOD_MAX).contains(&record.period) {
                let window = self.window(&mut known, record.period, record.unit, now);
                window.add(record, Duration::ZERO, now);
                // It knows all there is to know.
                let of = |known: &&mut Known| Arc::ptr_eq(&known.window, &window);
                if let Some(restored) = known.iter_mut().find(of)
                    && restored.asked != Asked::Now
                {
                    restored.asked = Asked::Since(now);
                }
            }
        }
        forget(&mut known, now);
    }

    /// These windows count from now on, and no others. One that did not count learns what was used
    /// meanwhile from another of the same unit: the one that was asked for last, and of these the
    /// longest.
    fn install(&self, limits: &[Limit], now: Instant) {
        let now = self.epoch.at(now);
        let mut known = lock(&self.known);
        let is_asked = |window: &Arc<Window>| {
            let mut windows = limits.iter().map(|limit| &limit.window);
            windows.any(|asked| Arc::ptr_eq(asked, window))
        };
        for at in 0..known.len() {
            if let Asked::Since(since) = known[at].asked
                && is_asked(&known[at].window)
            {
                let window = &known[at].window;
                let others = known.iter().filter(|other| {
                    !Arc::ptr_eq(&other.window, window) && other.window.unit == window.unit
                });
                let best = others.max_by_key(|other| (other.asked, other.window.period));
                if let Some(best) = best {
                    window.add(&best.window.record(now), since, now);
                }
            }
        }
        for known in &mut *known {
            known.asked = match (is_asked(&known.window), known.asked) {
                (true, _) => Asked::Now,
                (false, Asked::Now) => Asked::Since(now),
                (false, since) => since,
            };
        }
        forget(&mut known, now);
    }
}

/// Windows that nobody asks for go when they count nothing, or when there are too many.
fn forget(known: &mut Vec<Known>, now: Duration) {
    known.retain(|known| {
        let is_held = Arc::strong_count(&known.window) > 1;
        known.asked == Asked::Now || is_held || !known.window.is_empty(now)
    });
    while known.len() > WINDOWS_MAX {
        let oldest = (0..known.len()).min_by_key(|&at| known[at].asked);
        match oldest {
            Some(at) if known[at].asked != Asked::Now => drop(known.swap_remove(at)),
            Some(_) | None => return,
        }
    }
}

impl QuotaRecord {
    /// The end of the last part in which something was used, since 1970.
    fn last(&self) -> Option<Duration> {
        let &(number, _) = self.parts.last()?;
        Some(window::end_of(self.period, number))
    }
}

impl Limited {
    /// Makes this what counts, when its generation becomes the current one.
    pub fn install(&self, now: Instant) {
        self.quotas.install(&self.limits, now);
    }

    /// Whether one of the quotas is used up, as of the last look.
    pub fn is_used_up(&self) -> bool {
        let mut limits = self.limits.iter();
        limits.any(|limit| limit.window.taken() >= limit.quota.count)
    }

    /// Whether there is room now for a message with so many recipients.
    pub fn has_room(&self, recipients: u32, now: Instant) -> bool {
        self.refresh(now);
        let mut limits = self.limits.iter();
        limits.all(|limit| {
            let places = limit.places(u64::from(recipients));
            limit.window.taken().saturating_add(places) <= limit.quota.count
        })
    }

    /// Looks again.
    pub fn refresh(&self, now: Instant) {
        for limit in &*self.limits {
            limit.window.forget(limit.window.epoch.at(now));
        }
    }

    /// How much is used now.
    pub fn usage(&self, now: Instant) -> Vec<QuotaUse> {
        self.limits.iter().map(|limit| limit.look(now)).collect()
    }

    /// Reserves one message with so many recipients, if all quotas have room for it.
    ///
    /// # Errors
    /// One of them has not.
    pub fn take(&self, recipients: u32, now: Instant) -> Result<Spent, UsedUp> {
        let recipients = u64::from(recipients.max(1));
        for (at, limit) in self.limits.iter().enumerate() {
            let places = limit.places(recipients);
            let now = limit.window.epoch.at(now);
            if !limit.window.reserve_all(places, limit.quota.count, now) {
                for limit in &self.limits[..at] {
                    limit.window.give_back(limit.places(recipients));
                }
                return Err(UsedUp);
            }
        }
        Ok(Spent {
            limits: Arc::clone(&self.limits),
            recipients,
            fate: SpentFate::GivenBack,
        })
    }
}

impl Limit {
    /// How much is used now.
    fn look(&self, now: Instant) -> QuotaUse {
        let now = self.window.epoch.at(now);
        self.window.forget(now);
        let used = self.window.taken();
        let found = Look::of(used >= self.quota.count);
        let used_up_since = self.window.used_up.note(found, now);
        QuotaUse {
            quota: self.quota,
            used,
            used_up_for: used_up_since.map(|since| now.saturating_sub(since)),
        }
    }

    /// What a message with so many recipients takes.
    fn places(&self, recipients: u64) -> u64 {
        match self.quota.unit {
            QuotaUnit::Messages => 1,
            QuotaUnit::Recipients => recipients,
        }
    }
}

/// A quota of the backend has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a quota of the backend has no room")]
pub struct UsedUp;

/// One message of the quotas, with some recipients. Dropped, it is given back, unless it was kept.
#[derive(Debug)]
pub struct Spent {
    limits: Arc<[Limit]>,
    recipients: u64,
    fate: SpentFate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpentFate {
    GivenBack,
    Kept,
}

impl Spent {
    /// Whether recipients are limited.
    pub fn counts_recipients(&self) -> bool {
        let mut limits = self.limits.iter();
        limits.any(|limit| limit.quota.unit == QuotaUnit::Recipients)
    }

    /// The recipients there is a place for.
    pub fn recipients(&self) -> u32 {
        u32::try_from(self.recipients).unwrap_or(u32::MAX)
    }

    /// Reserves so many recipients more, or as many as there is room for; how many.
    pub fn reserve(&mut self, recipients: u32, now: Instant) -> u32 {
        let mut granted = u64::from(recipients);
        for (at, limit) in self.recipient_limits() {
            let now = limit.window.epoch.at(now);
            let got = limit.window.reserve(granted, limit.quota.count, now);
            for (_, other) in self.recipient_limits().filter(|(other, _)| *other < at) {
                other.window.give_back(granted - got);
            }
            granted = got;
        }
        self.recipients += granted;
        u32::try_from(granted).unwrap_or(u32::MAX)
    }

    /// Gives so many of them back.
    pub fn give_back(&mut self, recipients: u32) {
        let recipients = u64::from(recipients).min(self.recipients);
        for (_, limit) in self.recipient_limits() {
            limit.window.give_back(recipients);
        }
        self.recipients -= recipients;
    }

    /// The backend has taken the message for so many recipients, or may have.
    pub fn keep(mut self, recipients: u32, now: Instant) {
        self.fate = SpentFate::Kept;
        let recipients = u64::from(recipients.max(1));
        for limit in &*self.limits {
            // The provider counts it now, not when it was reserved.
            let now = limit.window.epoch.at(now);
            let reserved = limit.places(self.recipients);
            limit.window.settle(reserved, limit.places(recipients), now);
        }
    }

    fn recipient_limits(&self) -> impl Iterator<Item = (usize, &Limit)> {
        let limits = self.limits.iter().enumerate();
        limits.filter(|(_, limit)| limit.quota.unit == QuotaUnit::Recipients)
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if self.fate == SpentFate::GivenBack {
            for limit in &*self.limits {
                limit.window.give_back(limit.places(self.recipients));
            }
        }
    }
}

#[cfg(test)]
mod tests;
