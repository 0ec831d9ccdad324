//! One backend as one generation names it, and the backends a session has tried.

use std::net::SocketAddr;
use std::sync::Arc;

use super::backend::Standing;
use super::policy::source_hash::{Key, SipHash};
use super::slow_start::UNIT;
use super::{BackendState, Limited, PoolShared};
use crate::types::{Tier, Weight};

/// What a generation's configuration says of a member.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    /// Its name within the pool.
    pub name: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// Its share among the open tiers.
    pub weight: Weight,
    /// Its rank.
    pub tier: Tier,
    /// Sockets at once; 0 is no limit.
    pub max_connections: u32,
    /// What its provider allows all addresses of its name, if that is limited.
    pub quota: Option<Limited>,
    /// What outlives generations.
    pub state: Arc<BackendState>,
}

/// One backend as one generation names it. Cheap to keep: holds the backend's state, no snapshot.
#[derive(Debug)]
pub struct Member {
    /// Its place in its pool's list in its generation.
    pub index: u32,
    /// The name of its pool.
    pub pool: Arc<str>,
    /// What the configuration says of it.
    pub settings: MemberSettings,
    /// The generation it belongs to.
    pub(super) serial: u32,
    /// Its address as [`Tried`] remembers it.
    pub(super) address_key: u64,
    pub(super) shared: Arc<PoolShared>,
}

/// What a member can do for one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It can take it.
    Takes(Load),
    /// It is at `max_connections`.
    Full,
    /// The session tried it.
    Tried,
    /// Down or ejected.
    Unwell,
    /// The operator keeps it out.
    Drained,
}

/// Sessions against weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    pub(super) weight_256: u32,
}

impl Load {
    /// Whether one more session here weighs less than one more there: (in flight + 1) / weight.
    #[inline]
    pub(super) fn is_below(self, other: Self) -> bool {
        (u64::from(self.in_flight) + 1) * u64::from(other.weight_256)
            < (u64::from(other.in_flight) + 1) * u64::from(self.weight_256)
    }

    /// Whether what is here weighs less than what is there: in flight / weight.
    pub(super) fn is_idler(self, other: Self) -> bool {
        u64::from(self.in_flight) * u64::from(other.weight_256)
            < u64::from(other.in_flight) * u64::from(self.weight_256)
    }
}

/// Whether a choice looks at health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heed {
    Health,
    /// Last resort: only what the operator says.
    Admin,
}

impl Member {
    pub(super) fn state(&self) -> &BackendState {
        &self.settings.state
    }

    /// The operator's weight, or the configured one; without slow start.
    pub(super) fn nominal_weight(&self) -> Weight {
        self.state()
            .weight_override()
            .unwrap_or(self.settings.weight)
    }

    pub(super) fn tier(&self) -> u8 {
        self.settings.tier.value()
    }

    pub(super) fn is_full(&self) -> bool {
        let max = self.settings.max_connections;
        (max != 0 && self.state().open() >= max) || self.is_used_up()
    }

    /// Whether its provider allows no more for now.
    pub(super) fn is_used_up(&self) -> bool {
        let limited = self.settings.quota.as_ref();
        limited.is_some_and(Limited::is_used_up)
    }

    /// Weight as balancing sees it now, in 1/256 of a unit.
    pub(super) fn weight_256(&self) -> u32 {
        self.weight_of(self.state().standing())
    }

    fn weight_of(&self, standing: Standing) -> u32 {
        match standing.weight_256() {
            0 => u32::from(self.settings.weight.value()) * UNIT,
            weight => weight,
        }
    }

    pub(super) fn load(&self) -> Load {
        Load {
            in_flight: self.state().in_flight(),
            weight_256: self.weight_256(),
        }
    }

    /// What it can do for a session that has tried `tried`.
    #[inline]
    pub(super) fn fit(&self, tried: &Tried, heed: Heed) -> Fit {
        #[cfg(test)]
        count_look();
        let standing = self.state().standing();
        if !standing.is_ready() {
            Fit::Drained
        } else if heed == Heed::Health && !standing.is_usable() {
            Fit::Unwell
        } else if !tried.is_empty() && tried.has(self) {
            Fit::Tried
        } else if self.is_full() {
            Fit::Full
        } else {
            Fit::Takes(Load {
                in_flight: self.state().in_flight(),
                weight_256: self.weight_of(standing),
            })
        }
    }

    /// The load, if it can take a session that has tried `tried`.
    #[inline]
    pub(super) fn takes(&self, tried: &Tried, heed: Heed) -> Option<Load> {
        match self.fit(tried, heed) {
            Fit::Takes(load) => Some(load),
            Fit::Full | Fit::Tried | Fit::Unwell | Fit::Drained => None,
        }
    }
}

/// The backends a session has tried (by address), at most 8 remembered: the ninth takes the place
/// of the first. Some were merely slow: where no other is left, they get a second look.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    keys: [u64; Tried::MAX],
    len: u8,
    next: u8,
    /// A bit for each place: it was slow, and nothing worse.
    slow: u8,
}

impl Tried {
    /// How many are remembered.
    pub const MAX: usize = 8;

    /// Remembers `member`; twice is once.
    pub fn add(&mut self, member: &Member) {
        let at = self.place_of(member);
        self.slow &= !(1 << at);
    }

    /// Remembers one that was slow.
    pub fn add_slow(&mut self, member: &Member) {
        if !self.has(member) {
            let at = self.place_of(member);
            self.slow |= 1 << at;
        }
    }

    /// Forgets those that were merely slow; whether there were any.
    pub fn forgive(&mut self) -> bool {
        let slow = std::mem::take(&mut self.slow);
        if slow == 0 {
            return false;
        }
        let old = std::mem::take(self);
        for (at, key) in old.keys[..old.len()].iter().enumerate() {
            if slow & (1 << at) == 0 {
                self.keys[self.len()] = *key;
                self.len += 1;
            }
        }
        self.next = self.len % Self::MAX as u8;
        true
    }

    /// Where `member` is remembered, from now on.
    fn place_of(&mut self, member: &Member) -> usize {
        let known = &self.keys[..self.len()];
        if let Some(at) = known.iter().position(|key| *key == member.address_key) {
            return at;
        }
        let at = usize::from(self.next);
        self.keys[at] = member.address_key;
        self.next = (self.next + 1) % Self::MAX as u8;
        self.len = (self.len + 1).min(Self::MAX as u8);
        at
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `member`'s address was tried.
    pub fn has(&self, member: &Member) -> bool {
        self.keys[..self.len()].contains(&member.address_key)
    }
}

/// An address in 64 bits. Two addresses of one pool collide once in 2⁶⁴ pairs; the harm would be
/// one backend not tried by one session.
pub(super) fn address_key(address: SocketAddr) -> u64 {
    let mut hash = SipHash::new(Key(0x706f_7374, 0x686f_7573));
    match address {
        SocketAddr::V4(v4) => hash.write(&v4.ip().octets()),
        SocketAddr::V6(v6) => {
            hash.write(&v6.ip().octets());
            hash.write(&v6.scope_id().to_be_bytes());
        }
    }
    hash.write(&address.port().to_be_bytes());
    hash.finish()
}

#[cfg(test)]
thread_local! {
    static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts a look at a member, or a comparison: the measure of what a pick costs.
#[cfg(test)]
pub(super) fn count_look() {
    LOOKS.set(LOOKS.get() + 1);
}

#[cfg(test)]
pub(super) fn looks() -> u64 {
    LOOKS.get()
}
