//! How slowly a message may come in (RFC 5321 §4.5.3.2.5; rules B6 and K).
//!
//! Without a clock: all times are durations since the 354, less the time in which we did not want
//! to read, because a client must not pay for a slow backend. A message may take as long as it
//! likes while it moves; what ends it is silence, or an average that only an attacker has.

use std::time::Duration;

/// The longest wait for the next octet (RFC 5321 §4.5.3.2.5).
pub const DATA_BLOCK_TIME_MAX: Duration = Duration::from_mins(3);
/// How long the average is not looked at.
pub const DATA_RATE_GRACE: Duration = Duration::from_mins(1);
/// The least average, in octets a second, behind the grace.
pub const DATA_RATE_MIN_PER_SECOND: u64 = 100;

/// Why a client is given up while it sends a message; both are `421 4.4.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataFault {
    /// No octet for [`DATA_BLOCK_TIME_MAX`].
    #[error("the message stalled")]
    Stalled,
    /// Less than [`DATA_RATE_MIN_PER_SECOND`] on average.
    #[error("the message came too slowly")]
    TooSlow,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataPace {
    /// Octets received.
    pub octets: u64,
    /// When the last of them came.
    pub last: Duration,
}

impl DataPace {
    /// When the client is given up if nothing more comes, and why. Each octet moves it on, never
    /// back.
    pub fn gives_up_at(&self) -> (Duration, DataFault) {
        let stalled = self.last.saturating_add(DATA_BLOCK_TIME_MAX);
        let earned = self.octets.saturating_mul(1000 / DATA_RATE_MIN_PER_SECOND);
        let slow = Duration::from_millis(earned).max(DATA_RATE_GRACE);
        if stalled <= slow {
            (stalled, DataFault::Stalled)
        } else {
            (slow, DataFault::TooSlow)
        }
    }

    /// Whether the client is to be given up `elapsed` after the 354.
    pub fn judge(&self, elapsed: Duration) -> Option<DataFault> {
        let (at, fault) = self.gives_up_at();
        (elapsed >= at).then_some(fault)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(octets: u64, last: u64) -> DataPace {
        DataPace {
            octets,
            last: Duration::from_secs(last),
        }
    }

    #[test]
    fn rule_b6_a_hundred_octets_a_second_are_asked_for_behind_the_first_minute() {
        let judged = |octets, elapsed| pace(octets, elapsed).judge(Duration::from_secs(elapsed));
        assert_eq!(judged(0, 59), None);
        assert_eq!(judged(6_000, 60), Some(DataFault::TooSlow));
        assert_eq!(judged(6_001, 60), None);
        assert_eq!(judged(6_001, 61), Some(DataFault::TooSlow));
        assert_eq!(judged(360_100, 3_600), None);
        assert_eq!(judged(360_000, 3_600), Some(DataFault::TooSlow));
        assert_eq!(judged(u64::MAX, 1_000_000), None);
    }

    #[test]
    fn rule_k_three_minutes_of_silence_end_even_a_fast_message() {
        let fast = pace(1_000_000_000, 100);
        assert_eq!(
            fast.gives_up_at(),
            (Duration::from_secs(280), DataFault::Stalled)
        );
        assert_eq!(fast.judge(Duration::from_millis(279_999)), None);
        assert_eq!(
            fast.judge(Duration::from_secs(280)),
            Some(DataFault::Stalled)
        );
        let nothing = DataPace::default();
        assert_eq!(nothing.gives_up_at(), (DATA_RATE_GRACE, DataFault::TooSlow));
    }

    proptest! {
        #[test]
        fn octets_give_time_and_never_take_it(
            octets in 0..1_u64 << 40, more in 0..1_u64 << 40, last in 0_u64..10_000, later in 0_u64..10_000,
        ) {
            let (at, _) = pace(octets, last).gives_up_at();
            prop_assert!(pace(octets + more, last + later).gives_up_at().0 >= at);
            prop_assert!(pace(octets, last).judge(at).is_some());
            prop_assert!(pace(octets, last).judge(at.saturating_sub(Duration::from_nanos(1))).is_none());
        }
    }
}
