//! Slow start: the weight of a backend that came back grows in a straight line.
//!
//! The ramp is applied by `tick` to an atomic, so that a choice reads one number. A backend that
//! was there at the start of the process, or was added by a reload, serves in full at once.

use std::time::{Duration, Instant};

use crate::types::Weight;

/// One unit of weight in the numbers that balancing compares.
pub(super) const UNIT: u32 = 256;

/// A ramp begins at this fraction (one in so many) of the weight: a backend that just came back
/// gets some sessions, not none.
const FLOOR: u32 = 16;

/// Whether a backend says it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fullness {
    Well,
    /// Half the weight.
    Degraded,
}

/// The weight balancing sees, in 1/256 of a unit; at least 1. The second value says whether the
/// ramp is still going on.
pub(super) fn effective(
    weight: Weight,
    fullness: Fullness,
    ramp_from: Option<Instant>,
    slow_start: Duration,
    now: Instant,
) -> (u32, Ramp) {
    let whole = u32::from(weight.value()) * UNIT;
    let whole = match fullness {
        Fullness::Well => whole,
        Fullness::Degraded => whole / 2,
    };
    let Some(from) = ramp_from else {
        return (whole, Ramp::Done);
    };
    let passed = now.saturating_duration_since(from);
    if passed >= slow_start {
        return (whole, Ramp::Done);
    }
    let grown = u128::from(whole) * passed.as_micros() / slow_start.as_micros().max(1);
    let grown = u32::try_from(grown).expect("a part is not more than the whole");
    (grown.max(whole / FLOOR).max(1), Ramp::Going)
}

/// Whether a slow start is still going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ramp {
    Going,
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(from: Instant, seconds: u64) -> u32 {
        let weight = Weight::new(10).expect("10 is a weight");
        let now = from + Duration::from_secs(seconds);
        effective(
            weight,
            Fullness::Well,
            Some(from),
            Duration::from_secs(100),
            now,
        )
        .0
    }

    #[test]
    fn the_weight_grows_in_a_straight_line_from_a_sixteenth() {
        let from = Instant::now();
        assert_eq!(at(from, 0), 2560 / 16);
        assert_eq!(at(from, 25), 640);
        assert_eq!(at(from, 50), 1280);
        assert_eq!(at(from, 100), 2560);
        assert_eq!(at(from, 1000), 2560);
    }

    #[test]
    fn a_degraded_backend_has_half_its_weight_and_never_none() {
        let now = Instant::now();
        let (weight, ramp) = effective(Weight::ONE, Fullness::Degraded, None, Duration::ZERO, now);
        assert_eq!((weight, ramp), (UNIT / 2, Ramp::Done));
        let slow = Duration::from_hours(1);
        let (weight, ramp) = effective(Weight::ONE, Fullness::Degraded, Some(now), slow, now);
        assert_eq!((weight, ramp), (UNIT / 32, Ramp::Going));
    }

    #[test]
    fn no_slow_start_is_at_once() {
        let now = Instant::now();
        let (weight, ramp) = effective(Weight::ONE, Fullness::Well, Some(now), Duration::ZERO, now);
        assert_eq!((weight, ramp), (UNIT, Ramp::Done));
    }
}
