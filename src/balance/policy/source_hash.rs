//! By the client's address: the same client meets the same backend.
//!
//! Maglev hashing (Eisenbud et al., NSDI 2016 §3.4) over the *configured* members, so that health
//! moves only the clients of what failed: those are hashed again until they meet a member that can
//! take them. Keyed by the pool's name, so that hosts and restarts agree and nobody who does not
//! know the name can aim at one backend. A lowered weight (slow start, degraded) moves a fixed part
//! of a member's clients; a weight raised at run time counts from the next reload on.

use std::sync::Arc;

use super::super::member::{Fit, Heed, Member, Tried};
use super::super::slow_start::UNIT;
use crate::types::ClientKey;

/// Slots of a table for up to [`SMALL_MEMBERS`] members (prime).
const SMALL_SLOTS: u32 = 65_537;
/// Members up to which the small table's shares are within one percent.
const SMALL_MEMBERS: usize = 650;
/// Slots of a table for more (prime).
const LARGE_SLOTS: u32 = 1_048_583;
/// Slots looked at for one client before the members are tried in order.
const PROBES_MAX: u64 = 64;

/// A key of [`SipHash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::balance) struct Key(pub(in crate::balance) u64, pub(in crate::balance) u64);

/// The table of one set of open tiers.
#[derive(Debug)]
pub(in crate::balance) struct Maglev {
    key: Key,
    slots: Box<[u32]>,
}

impl Maglev {
    /// The table of these members; their weights as configured, or as the operator set them.
    pub(in crate::balance) fn new(pool: &str, members: &[Arc<Member>], weights: &[u16]) -> Self {
        let mut hash = SipHash::new(Key(0, 0));
        hash.write(pool.as_bytes());
        let key = Key(
            hash.finish(),
            hash.finish().rotate_left(32) ^ 0x6d61_676c_6576,
        );
        let size = if members.len() <= SMALL_MEMBERS {
            SMALL_SLOTS
        } else {
            LARGE_SLOTS
        };
        Self {
            key,
            slots: fill(size, key, members, weights),
        }
    }

    /// The member for `client`; `None` when [`PROBES_MAX`] slots named none that can take it.
    pub(in crate::balance) fn choose(
        &self,
        members: &[Arc<Member>],
        client: ClientKey,
        tried: &Tried,
    ) -> Option<usize> {
        let mut hash = SipHash::new(self.key);
        hash.write(&client.0.to_be_bytes());
        let home = hash.finish();
        for probe in 0..PROBES_MAX {
            let draw = if probe == 0 { home } else { mixed(home, probe) };
            let slot = (u128::from(draw) * self.slots.len() as u128) >> 64;
            let index = self.slots[slot as usize] as usize;
            let member = &members[index];
            let Fit::Takes(load) = member.fit(tried, Heed::Health) else {
                continue;
            };
            let whole = u64::from(member.settings.weight.value()) * u64::from(UNIT);
            let lot = mixed(home, index as u64 ^ 0x7261_6d70) % whole;
            if lot < u64::from(load.weight_256) {
                return Some(index);
            }
        }
        None
    }
}

/// Each member claims the free slots of its own permutation in turn, as often as its weight says.
fn fill(size: u32, key: Key, members: &[Arc<Member>], weights: &[u16]) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let mut slots = vec![FREE; size as usize].into_boxed_slice();
    if members.is_empty() {
        return slots;
    }
    // A slot costs the mean weight, so that each turn around the members fills about as many slots
    // as there are members, however uneven the weights are.
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let price = (sum / weights.len() as u64).max(1);
    let mut walks: Vec<(u64, u64)> = members
        .iter()
        .map(|member| {
            let mut hash = SipHash::new(key);
            hash.write(member.settings.name.as_bytes());
            hash.write(&member.address_key.to_be_bytes());
            let draw = hash.finish();
            let size = u64::from(size);
            ((draw >> 32) % size, (draw & 0xffff_ffff) % (size - 1) + 1)
        })
        .collect();
    let mut credit = vec![0u64; members.len()];
    let mut left = size;
    loop {
        for (index, (at, skip)) in walks.iter_mut().enumerate() {
            credit[index] += u64::from(weights[index]);
            while credit[index] >= price {
                credit[index] -= price;
                while slots[*at as usize] != FREE {
                    *at = (*at + *skip) % u64::from(size);
                }
                slots[*at as usize] = index as u32;
                left -= 1;
                if left == 0 {
                    return slots;
                }
            }
        }
    }
}

/// A second hash of a hash (splitmix64's finisher).
fn mixed(hash: u64, salt: u64) -> u64 {
    let mut z = hash.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SipHash-2-4 (Aumasson, Bernstein 2012). Our own because the standard library promises neither
/// its algorithm nor keys, and shares must not move when the compiler is updated.
#[derive(Clone, Debug)]
pub(in crate::balance) struct SipHash {
    v: [u64; 4],
    tail: u64,
    length: u64,
}

impl SipHash {
    pub(in crate::balance) fn new(key: Key) -> Self {
        Self {
            v: [
                key.0 ^ 0x736f_6d65_7073_6575,
                key.1 ^ 0x646f_7261_6e64_6f6d,
                key.0 ^ 0x6c79_6765_6e65_7261,
                key.1 ^ 0x7465_6462_7974_6573,
            ],
            tail: 0,
            length: 0,
        }
    }

    pub(in crate::balance) fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.tail |= u64::from(*octet) << (8 * (self.length % 8));
            self.length += 1;
            if self.length.is_multiple_of(8) {
                self.absorb(self.tail);
                self.tail = 0;
            }
        }
    }

    pub(in crate::balance) fn finish(&self) -> u64 {
        let mut last = self.clone();
        last.absorb(self.tail | (self.length << 56));
        last.v[2] ^= 0xff;
        (0..4).for_each(|_| last.round());
        last.v[0] ^ last.v[1] ^ last.v[2] ^ last.v[3]
    }

    fn absorb(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.v;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::PoolSettings;
    use super::super::super::testing::{Fleet, Spec};
    use super::*;

    #[test]
    fn every_member_has_its_share_of_the_slots() {
        for weights in [vec![1; 600], vec![1, 2, 5, 100, 1000], vec![1, 999]] {
            let specs: Vec<Spec> = weights.iter().map(|weight| Spec::weight(*weight)).collect();
            let fleet = Fleet::new(PoolSettings::default(), &specs);
            let table = Maglev::new("mx", fleet.pool.members(), &weights);
            let mut slots = vec![0u32; weights.len()];
            for index in &table.slots {
                slots[*index as usize] += 1;
            }
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (weight, count) in weights.iter().zip(&slots) {
                let fair = f64::from(SMALL_SLOTS) * f64::from(*weight) / total;
                let off = (f64::from(*count) - fair).abs();
                assert!(
                    off <= fair * 0.02 + 2.0,
                    "{weight} of {total}: {count}, not {fair}"
                );
            }
        }
    }

    #[test]
    fn siphash_gives_the_vectors_of_its_paper() {
        let key = Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let input: Vec<u8> = (0..15).collect();
        let hashed = |octets: &[u8]| {
            let mut hash = SipHash::new(key);
            hash.write(octets);
            hash.finish()
        };
        assert_eq!(hashed(&input), 0xa129_ca61_49be_45e5);
        assert_eq!(hashed(&[]), 0x726f_db47_dd0e_0e31);
    }
}
