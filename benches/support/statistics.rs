//! The few statistics the tables need: median, percentile, and a bootstrap interval for the median
//! of paired ratios. Nothing assumes a distribution.

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The middle value; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value below which `percent` of the values lie, by linear interpolation; 0 of none.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = percent / 100.0 * last as f64;
    let below = place.floor();
    #[expect(clippy::cast_sign_loss, reason = "a place in a list is not negative")]
    let index = below as usize;
    let next = sorted[(index + 1).min(last)];
    sorted[index] + (next - sorted[index]) * (place - below)
}

/// The median of paired ratios, with the interval that resampling the pairs gives.
pub(crate) fn paired_ratio(ours: &[f64], theirs: &[f64]) -> Estimate {
    let logs: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| (a / b).ln()).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let resampled: Vec<f64> = (0..2_000)
        .map(|_| {
            let draw: Vec<f64> = logs.iter().map(|_| logs[rng.usize(..logs.len())]).collect();
            median(&draw)
        })
        .collect();
    Estimate {
        value: median(&logs).exp(),
        low: percentile(&resampled, 2.5).exp(),
        high: percentile(&resampled, 97.5).exp(),
    }
}

/// What one more unit costs: the slope between two measurements.
pub(crate) fn slope(few: (u32, f64), many: (u32, f64)) -> f64 {
    (many.1 - few.1) / f64::from(many.0 - few.0)
}
