//! Sizes, quotas and SMTP keywords.

use std::time::Duration;

use super::super::model::{QUOTA_PERIOD_MAX, QUOTA_PERIOD_MIN, Quota, QuotaUnit};
use super::super::near;
use super::super::words;
use super::{Wrong, duration, duration_text, shown};
use crate::smtp::{Keyword, Keywords};

/// Units of an amount of octets, larger ones first, those of a power of two before the others.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];
/// The largest count of a quota.
const QUOTA_COUNT_MAX: u64 = 1_000_000_000;

/// `25MiB`, `10MB`: one whole number and one unit, in octets.
pub(in super::super) fn size(text: &str) -> Result<u64, Wrong> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    if number.is_empty() {
        return Err(Wrong::new(
            format!("{:?} is not a size", shown(text)),
            "write a number of octets, or a number and a unit: \"25MiB\", \"10MB\", \"512KiB\"",
        ));
    }
    if unit.is_empty() {
        return Err(Wrong::new(
            format!("{text:?} has no unit"),
            format!("write {number} without quotes for octets, or \"{number}MiB\""),
        ));
    }
    let Some((_, octets)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(Wrong::new(
            format!("{:?} is not a unit of size", shown(unit)),
            unit_help(number, unit),
        ));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*octets))
        .ok_or_else(|| Wrong::new(format!("{text:?} is too large"), "the largest is \"1TiB\""))
}

/// What was probably meant: `25M`, `25mb`, `25Mib`, `1.5MiB`.
fn unit_help(number: &str, unit: &str) -> String {
    if unit.starts_with(['.', ',']) {
        return "write a whole number of a smaller unit: \"512KiB\" for half a MiB".to_owned();
    }
    let initial = |unit: &str| unit.chars().next().map(|c| c.to_ascii_uppercase());
    let mut meant = SIZE_UNITS
        .iter()
        .filter(|(name, _)| initial(name) == initial(unit));
    match (meant.next(), meant.next()) {
        (Some((binary, _)), Some((decimal, _))) => format!(
            "write \"{number}{binary}\" (powers of two) or \"{number}{decimal}\" (powers of ten)"
        ),
        _ => "the units are KiB, MiB, GiB, TiB (powers of two) and kB, MB, GB, TB (powers of ten)"
            .to_owned(),
    }
}

/// A size as this file format writes it, in the largest unit that is exact.
pub(in super::super) fn size_text(octets: u64) -> String {
    let exact = |(_, unit): &&(&str, u64)| octets.is_multiple_of(*unit);
    match SIZE_UNITS.iter().find(exact).filter(|_| octets > 0) {
        Some((name, unit)) => format!("{}{name}", octets / unit),
        None => octets.to_string(),
    }
}

/// `100/s`, `20000/24h recipients`: how many per time, and of what.
pub(in super::super) fn quota(text: &str) -> Result<Quota, Wrong> {
    let shape = || {
        Wrong::new(
            format!("{:?} is not a quota", shown(text)),
            "write how many per time: \"100/s\", \"5000/h\" or \"20000/24h recipients\"",
        )
    };
    let (count, rest) = text.split_once('/').ok_or_else(shape)?;
    let rest = rest.trim();
    let (period, unit) = rest.split_once(' ').unwrap_or((rest, "messages"));
    let count: u64 = count.trim().parse().map_err(|_| shape())?;
    let period = if matches!(period, "ms" | "s" | "m" | "h" | "d") {
        duration(&format!("1{period}"))?
    } else {
        duration(period).map_err(|_| shape())?
    };
    let unit = quota_unit(unit.trim())?;
    if !(1..=QUOTA_COUNT_MAX).contains(&count) {
        return Err(Wrong::new(
            format!("{count} is outside 1 to {QUOTA_COUNT_MAX}"),
            "leave it out for no limit, or set state = \"drain\" for no traffic",
        ));
    }
    if !(QUOTA_PERIOD_MIN..=QUOTA_PERIOD_MAX).contains(&period) {
        return Err(Wrong::new(
            format!(
                "the period {} is outside {} to {}",
                duration_text(period),
                duration_text(QUOTA_PERIOD_MIN),
                days_text(QUOTA_PERIOD_MAX)
            ),
            "give a period such as \"1s\", \"1h\" or \"24h\"",
        ));
    }
    Ok(Quota {
        count,
        period,
        unit,
    })
}

fn quota_unit(word: &str) -> Result<QuotaUnit, Wrong> {
    let known = words::QUOTA_UNITS;
    let found = known.iter().find(|(name, _)| *name == word);
    found.map(|(_, unit)| *unit).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Wrong {
            message: format!("{:?} is nothing that a quota counts", shown(word)),
            help: near::help(word, &names),
        }
    })
}

/// A quota as this file format writes it.
pub(in super::super) fn quota_text(quota: &Quota) -> String {
    let Quota {
        count,
        period,
        unit,
    } = quota;
    let unit = words::word(words::QUOTA_UNITS, unit);
    let period = match period.as_millis() {
        1_000 => "s".to_owned(),
        60_000 => "m".to_owned(),
        3_600_000 => "h".to_owned(),
        _ => days_text(*period),
    };
    format!("{count}/{period} {unit}")
}

/// From two days on, a period is said in days if it is a number of them.
fn days_text(period: Duration) -> String {
    let day = Duration::from_hours(24).as_millis();
    match period.as_millis() {
        whole if whole > day && whole.is_multiple_of(day) => format!("{}d", whole / day),
        _ => duration_text(period),
    }
}

/// An extension that the operator may announce (rule E1).
pub(in super::super) fn keyword(text: &str) -> Result<Keyword, Wrong> {
    let known = Keywords::CLEAR.iter();
    if let Some(found) = known
        .into_iter()
        .find(|k| k.name().eq_ignore_ascii_case(text))
    {
        return Ok(found);
    }
    let message = format!("{:?} cannot be announced here", shown(text));
    let help = match text.to_ascii_uppercase().as_str() {
        "STARTTLS" | "AUTH" => "mode \"smtp\" is in clear text in this version: use a listener in \
                                mode \"passthrough\" for TLS and passwords"
            .to_owned(),
        "BINARYMIME" | "REQUIRETLS" | "PRDR" | "XCLIENT" | "XFORWARD" | "ETRN" | "VRFY" => {
            "remove it: it would change what is promised or how replies and messages are counted"
                .to_owned()
        }
        _ => {
            let names: Vec<&str> = Keywords::CLEAR.iter().map(Keyword::name).collect();
            near::help(text, &names).unwrap_or_default()
        }
    };
    Err(Wrong::new(message, help))
}
