//! The wall clock of log lines: RFC 3339 in UTC with microseconds.
//!
//! The text of a second is made once and kept: within it a line costs six digits. Knows no time
//! zone and no leap second (Unix time has none).

use std::time::{SystemTime, UNIX_EPOCH};

/// The clock of one thread's lines.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    /// `2026-11-22T02:55:47` of `second`.
    text: [u8; 19],
}

/// A moment as a line says it: `2026-11-22T02:55:47.123456Z`.
pub(super) type Stamp = [u8; 27];

impl Clock {
    /// The moment now, and the Unix second it lies in.
    pub(super) fn now(&mut self) -> (Stamp, u64) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        (
            self.stamp(since.as_secs(), since.subsec_micros()),
            since.as_secs(),
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
    fn the_kept_second_gives_way_to_the_next() {
        let mut clock = Clock::default();
        assert!(clock.stamp(59, 7).ends_with(b"00:00:59.000007Z"));
        assert!(clock.stamp(59, 999_999).ends_with(b"00:00:59.999999Z"));
        assert!(clock.stamp(60, 0).ends_with(b"00:01:00.000000Z"));
    }
}
