//! Amounts: weight, tier, percentage and rate, each with its range.
//!
//! A value of these types is within its range by construction; the readers of configuration turn
//! anything else into a mistake with a position.

use std::num::NonZeroU16;
use std::time::Duration;

/// The share of a backend among the backends of its open tiers, 1 to 1,000.
///
/// "No traffic" is not a weight but an administrative state (`drain`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The largest weight.
    pub const MAX: u16 = 1000;
    /// The weight of a backend that names none.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// A weight, or `None` outside 1 to 1,000.
    pub fn new(value: u16) -> Option<Self> {
        NonZeroU16::new(value)
            .filter(|v| v.get() <= Self::MAX)
            .map(Self)
    }

    /// The number.
    pub fn value(self) -> u16 {
        self.0.get()
    }
}

/// The rank of a backend: tier 1 serves, tier 2 stands by for it, and so on, 1 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(u8);

impl Tier {
    /// The last tier.
    pub const MAX: u8 = 16;
    /// The tier of a backend that names none.
    pub const FIRST: Self = Self(1);

    /// A tier, or `None` outside 1 to 16.
    pub fn new(value: u8) -> Option<Self> {
        (1..=Self::MAX).contains(&value).then_some(Self(value))
    }

    /// The number, counted from 1.
    pub fn value(self) -> u8 {
        self.0
    }
}

/// A percentage, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    /// A percentage, or `None` above 100.
    pub fn new(value: u8) -> Option<Self> {
        (value <= 100).then_some(Self(value))
    }

    /// The number.
    pub fn value(self) -> u8 {
        self.0
    }
}

/// So many events per so long, for example 100 per minute; bursts up to `count` are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Events in one `period`, at least 1.
    pub count: u32,
    /// The period, at least one millisecond.
    pub period: Duration,
}
