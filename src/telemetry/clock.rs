//! The wall clock of log lines: RFC 3339 in UTC with microseconds.
//!
//! A line bears the time of what it tells, whenever it is written: an instant of the monotonic
//! clock, on which the durations in the line were measured too. All threads turn instants into times
//! with the same difference between both clocks, so that their lines can be compared to the
//! microsecond; the difference changes only when the wall clock was set.
//!
//! The text of a second is made once and kept: within it a line costs six digits. Knows no time
//! zone and no leap second (Unix time has none).

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between looks whether the wall clock was set, of each thread that writes lines.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A difference smaller than this comes from reading one clock after the other, and is left alone.
const STEP_MIN: Duration = Duration::from_millis(1);
/// Both clocks are read so often until nothing comes between,
const READS_MAX: u32 = 4;
/// which would take longer than this.
const READ_TIME: Duration = Duration::from_micros(50);

thread_local! {
    /// What this thread takes for now.
    static NOW: Cell<fn() -> Instant> = const { Cell::new(Instant::now) };
}

/// From now on the events of this thread happen when `now` says: a data thread reads the clock once
/// per turn, and its events are not to seem later than what they have caused.
pub(super) fn follow(now: fn() -> Instant) {
    NOW.set(now);
}

/// Now, on this thread.
pub(super) fn now() -> Instant {
    NOW.get()()
}

/// The wall clock as all threads know it.
#[derive(Debug)]
pub(super) struct Wall {
    began: Instant,
    /// Nanoseconds since 1970 when it began, as the wall clock counts now.
    unix_nanos: AtomicU64,
}

impl Wall {
    pub(super) fn new() -> Self {
        let read = read_both().unwrap_or_else(|| (Instant::now(), unix_now()));
        let (began, unix) = read;
        Self {
            began,
            unix_nanos: AtomicU64::new(nanos(unix)),
        }
    }

    /// The time since 1970 at an instant.
    fn at(&self, at: Instant) -> Duration {
        let began = Duration::from_nanos(self.unix_nanos.load(Ordering::Relaxed));
        match at.checked_duration_since(self.began) {
            Some(since) => began + since,
            None => began.saturating_sub(self.began.saturating_duration_since(at)),
        }
    }

    /// Follows the wall clock if it was set.
    fn look(&self) {
        if let Some((instant, unix)) = read_both() {
            self.set(instant, unix);
        }
    }

    /// The wall clock says `unix` at `instant`.
    fn set(&self, instant: Instant, unix: Duration) {
        if self.at(instant).abs_diff(unix) >= STEP_MIN {
            let began = unix.saturating_sub(instant.saturating_duration_since(self.began));
            self.unix_nanos.store(nanos(began), Ordering::Relaxed);
        }
    }
}

/// Both clocks at one time, unless this thread is kept from that.
fn read_both() -> Option<(Instant, Duration)> {
    let mut before = Instant::now();
    for _ in 0..READS_MAX {
        let unix = unix_now();
        let after = Instant::now();
        if after.saturating_duration_since(before) <= READ_TIME {
            return Some((before, unix));
        }
        before = after;
    }
    None
}

fn unix_now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

fn nanos(of: Duration) -> u64 {
    u64::try_from(of.as_nanos()).unwrap_or(u64::MAX)
}

/// The texts of one thread's lines.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    /// `2026-11-22T02:55:47` of `second`.
    text: [u8; 19],
    /// When the wall clock was looked at.
    looked: Option<Instant>,
}

/// A moment as a line says it: `2026-11-22T02:55:47.123456Z`.
pub(super) type Stamp = [u8; 27];

impl Clock {
    /// An instant as a line says it, and the Unix second it lies in.
    pub(super) fn at(&mut self, wall: &Wall, at: Instant) -> (Stamp, u64) {
        let is_due = |looked| at.saturating_duration_since(looked) >= LOOK_EVERY;
        if self.looked.is_none_or(is_due) {
            self.looked = Some(at);
            wall.look();
        }
        let unix = wall.at(at);
        (
            self.stamp(unix.as_secs(), unix.subsec_micros()),
            unix.as_secs(),
        )
    }

    fn stamp(&mut self, second: u64, micros: u32) -> Stamp {
        if second != self.second || self.text[0] == 0 {
            self.second = second;
            self.text = text_of(second);
        }
        let mut stamp = [b'Z'; 27];
        stamp[..19].copy_from_slice(&self.text);
        stamp[19] = b'.';
        digits(&mut stamp[20..26], u64::from(micros));
        stamp
    }
}

/// `YYYY-MM-DDThh:mm:ss`; years above 9999 show their last four digits.
fn text_of(second: u64) -> [u8; 19] {
    let (year, month, day) = civil(second / 86_400);
    let of_day = second % 86_400;
    let mut text = *b"0000-00-00T00:00:00";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], of_day / 3600);
    digits(&mut text[14..16], of_day / 60 % 60);
    digits(&mut text[17..19], of_day % 60);
    text
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Eras of 400 years, years that begin in March: the leap day is then the last day of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn digits(out: &mut [u8], mut value: u64) {
    for octet in out.iter_mut().rev() {
        *octet = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(second: u64, micros: u32) -> String {
        String::from_utf8(Clock::default().stamp(second, micros).to_vec()).expect("digits")
    }

    #[test]
    fn stamps_are_rfc_3339() {
        // From `date -u -d @N --rfc-3339=seconds`.
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_078_012_800, "2004-02-29T00:00:00.000000Z"),
            (1_078_099_200, "2004-03-01T00:00:00.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(shown(second, 0), text);
        }
    }

    #[test]
    fn a_time_is_that_of_its_instant_whichever_thread_tells_it() {
        let wall = Wall::new();
        let now = Instant::now();
        let (one, second) = Clock::default().at(&wall, now);
        let (later, _) = Clock::default().at(&wall, now + Duration::from_millis(1_500));
        let (other, _) = Clock::default().at(&wall, now);
        assert_eq!(one, other);
        let micros = |stamp: Stamp| -> u64 {
            let digit = |octet: &u8| u64::from(octet - b'0');
            let of = stamp[20..26].iter();
            of.fold(0, |number, octet| number * 10 + digit(octet))
        };
        assert_eq!((micros(one) + 500_000) % 1_000_000, micros(later));
        let real = SystemTime::now().duration_since(UNIX_EPOCH);
        assert!(real.expect("it is not 1970").as_secs().abs_diff(second) <= 1);
    }

    #[test]
    fn the_wall_clock_is_followed_when_it_was_set_and_not_for_less() {
        let wall = Wall::new();
        let now = Instant::now();
        let before = wall.at(now);
        wall.set(now, before + STEP_MIN / 2);
        assert_eq!(wall.at(now), before, "that is no more than a slow read");
        let hour = Duration::from_hours(1);
        wall.set(now, before + hour);
        assert_eq!(wall.at(now), before + hour);
        wall.set(now + hour, before);
        assert_eq!(wall.at(now + hour), before, "and back");
        assert_eq!(wall.at(now) + hour, before);
    }

    #[test]
    fn the_kept_second_gives_way_to_the_next() {
        let mut clock = Clock::default();
        assert!(clock.stamp(59, 7).ends_with(b"00:00:59.000007Z"));
        assert!(clock.stamp(59, 999_999).ends_with(b"00:00:59.999999Z"));
        assert!(clock.stamp(60, 0).ends_with(b"00:01:00.000000Z"));
    }
}
