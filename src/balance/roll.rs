//! The members of one pool in one generation, in the order of their tiers, and what policies
//! compute from them once. Immutable but for the weight tree.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::member::{Member, MemberSettings, address_key};
use super::policy::source_hash::Maglev;
use super::weights::Weights;
use super::{Balance, PoolSettings, PoolShared};
use crate::types::{Tier, Weight};

/// A configured backend that has no address: its name was not looked up with success yet, or leads
/// nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its rank.
    pub tier: Tier,
    /// Its share, if it had one address.
    pub weight: Weight,
}

#[derive(Debug)]
pub(super) struct Roll {
    pub(super) serial: u32,
    pub(super) settings: PoolSettings,
    pub(super) members: Box<[Arc<Member>]>,
    /// By tier number: how many members are in tiers up to it.
    ends: [u32; Tier::MAX as usize + 1],
    /// Random-two: effective weights of usable members of open tiers, kept by the installed pool.
    pub(super) weights: Option<Weights>,
    /// Source-hash: a table for each set of open tiers, by the number of members in it.
    tables: Vec<(usize, Maglev)>,
    /// Members that have quotas.
    pub(super) limited: Box<[u32]>,
    /// Backends without any address: they count as lost.
    pub(super) absent: Vec<Absent>,
    /// Where the next scan begins. Written without a locked instruction: a lost step is harmless.
    rotation: AtomicU32,
}

impl Roll {
    pub(super) fn new(
        name: &Arc<str>,
        settings: PoolSettings,
        mut listed: Vec<MemberSettings>,
        shared: &Arc<PoolShared>,
    ) -> Self {
        // A name may resolve to one address twice; the state is the same, and so is the backend.
        let mut seen = BTreeSet::new();
        listed.retain(|member| seen.insert(Arc::as_ptr(&member.state)));
        listed.sort_by_key(|member| member.tier);
        let mut ends = [0u32; Tier::MAX as usize + 1];
        for member in &listed {
            for end in &mut ends[usize::from(member.tier.value())..] {
                *end += 1;
            }
        }
        let serial = shared.next_serial();
        let members: Box<[Arc<Member>]> = (0..)
            .zip(listed)
            .map(|(index, settings)| {
                Arc::new(Member {
                    index,
                    serial,
                    pool: Arc::clone(name),
                    address_key: address_key(settings.address),
                    settings,
                    shared: Arc::clone(shared),
                })
            })
            .collect();
        let mut roll = Self {
            serial,
            settings,
            weights: (settings.balance == Balance::RandomTwo).then(|| Weights::new(members.len())),
            limited: members
                .iter()
                .filter(|member| member.settings.quota.is_some())
                .map(|member| member.index)
                .collect(),
            members,
            ends,
            absent: Vec::new(),
            tables: Vec::new(),
            rotation: AtomicU32::new(0),
        };
        if settings.balance == Balance::SourceHash {
            roll.tables = roll.make_tables(name);
        }
        roll
    }

    fn make_tables(&self, name: &str) -> Vec<(usize, Maglev)> {
        let weights: Vec<u16> = self
            .members
            .iter()
            .map(|member| member.nominal_weight().value())
            .collect();
        self.tiers_after(0)
            .map(|tier| {
                let open = tier.end;
                let table = Maglev::new(name, &self.members[..open], &weights[..open]);
                (open, table)
            })
            .collect()
    }

    /// The members in tiers up to `tier`: a prefix. At least the first tier that has members.
    pub(super) fn open(&self, tier: u8) -> usize {
        match self.ends[usize::from(tier.min(Tier::MAX))] {
            0 => self.tiers_after(0).next().map_or(0, |first| first.end),
            end => end as usize,
        }
    }

    /// The members of each tier after the first `from` members.
    pub(super) fn tiers_after(&self, from: usize) -> impl Iterator<Item = Range<usize>> {
        self.ends
            .windows(2)
            .map(|pair| pair[0] as usize..pair[1] as usize)
            .filter(move |tier| !tier.is_empty() && tier.start >= from)
    }

    /// The tiers that have backends, in order.
    pub(super) fn tiers(&self) -> Vec<u8> {
        let has_members =
            |tier: u8| self.ends[usize::from(tier)] > self.ends[usize::from(tier) - 1];
        let lacks_some = |tier: u8| self.absent.iter().any(|absent| absent.tier.value() == tier);
        (1..=Tier::MAX)
            .filter(|tier| has_members(*tier) || lacks_some(*tier))
            .collect()
    }

    /// The members that are addresses of the backend `first` begins with: they are listed one after
    /// the other.
    pub(super) fn addresses_from(&self, first: usize) -> Range<usize> {
        let name = &self.members[first].settings.name;
        let others = self.members[first..].iter();
        let count = others.take_while(|member| member.settings.name == *name);
        first..first + count.count()
    }

    pub(super) fn table(&self, open: usize) -> Option<&Maglev> {
        self.tables
            .iter()
            .find(|(members, _)| *members == open)
            .map(|(_, table)| table)
    }

    pub(super) fn rotation(&self) -> usize {
        self.rotation.load(Ordering::Relaxed) as usize
    }

    /// The next scan begins behind `index`.
    pub(super) fn rotate_behind(&self, index: usize) {
        self.rotation.store(index as u32 + 1, Ordering::Relaxed);
    }
}
