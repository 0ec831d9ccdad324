//! An indexed heap of the eligible members of a large pool, smallest key first.
//!
//! It serves least-connections (key: (in flight + 1) / weight, then who was picked longest ago) and
//! round-robin (key: the middle of the next turn). Members that cannot take a session are
//! parked outside and come back when their state changes or a place comes free. One short mutex per
//! pool guards it, innermost of all locks; keys are read from the backends' atomics whenever a
//! member moves, so a count that changed without the lock is put right by whoever changed it.

use std::cmp::Ordering;
use std::sync::{Arc, Weak};

use super::Balance;
use super::member::{Heed, Member, Tried};
use super::policy::round_robin;
use super::roll::Roll;

/// Children of a node: four, so that a large heap is shallow and siblings share a cache line.
const ARITY: usize = 4;
const PARKED: u32 = u32::MAX;

/// What the heap is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// No heap: the pool is small or its policy needs none.
    Off,
    LeastConnections,
    RoundRobin,
}

impl Order {
    /// The order a pool of this size needs.
    pub(super) fn of(balance: Balance, members: usize) -> Self {
        if members <= super::policy::SCAN_MAX {
            return Self::Off;
        }
        match balance {
            Balance::LeastConnections => Self::LeastConnections,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::RandomTwo | Balance::SourceHash | Balance::First => Self::Off,
        }
    }
}

/// A rank: `over / under`, then `stamp`.
#[derive(Clone, Copy, Debug)]
struct Key {
    over: u64,
    under: u64,
    stamp: u64,
}

impl Key {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        super::member::count_look();
        // Loads are below 2³³ and weights below 2¹⁸; turns are compared over 1.
        let (here, there) = if self.under == other.under {
            (self.over, other.over)
        } else {
            (self.over * other.under, other.over * self.under)
        };
        here.cmp(&there).then(self.stamp.cmp(&other.stamp))
    }

    fn is_before(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Less
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    key: Key,
    index: u32,
}

/// The heap of the installed generation.
#[derive(Debug)]
pub(super) struct Heap {
    pub(super) serial: u32,
    pub(super) order: Order,
    pub(super) roll: Weak<Roll>,
    nodes: Vec<Node>,
    /// By member index: where its node is, or [`PARKED`].
    places: Vec<u32>,
    /// By member index: when it was picked last.
    stamps: Vec<u64>,
    clock: u64,
}

impl Heap {
    pub(super) fn new() -> Self {
        Self {
            serial: 0,
            order: Order::Off,
            roll: Weak::new(),
            nodes: Vec::new(),
            places: Vec::new(),
            stamps: Vec::new(),
            clock: 0,
        }
    }

    /// Empties it for a new generation.
    pub(super) fn renew(&mut self, roll: &Arc<Roll>, order: Order) {
        let members = roll.members.len();
        self.serial = roll.serial;
        self.roll = Arc::downgrade(roll);
        self.order = order;
        self.nodes.clear();
        self.places.clear();
        self.stamps.clear();
        if order != Order::Off {
            self.nodes.reserve(members);
            self.places.resize(members, PARKED);
            self.stamps.resize(members, 0);
        }
    }

    /// Puts a member where it belongs: by its key, or parked.
    pub(super) fn put(&mut self, member: &Member, may_serve: Presence) {
        if self.order == Order::Off {
            return;
        }
        let index = member.index as usize;
        if may_serve == Presence::Parked || member.is_full() {
            self.park(index);
            return;
        }
        let key = self.key(member);
        match self.places[index] {
            PARKED => {
                self.nodes.push(Node {
                    key,
                    index: member.index,
                });
                self.places[index] = (self.nodes.len() - 1) as u32;
                self.sift_up(self.nodes.len() - 1);
            }
            place => self.rekey(place as usize, key),
        }
    }

    /// The member with the smallest key that the session has not tried. Members that turn out full
    /// or out on the way are parked: whoever changes that puts them back.
    pub(super) fn best(&mut self, members: &[Arc<Member>], tried: &Tried) -> Option<usize> {
        loop {
            let index = self.smallest(|index| !tried.has(&members[index]))?;
            if members[index].takes(tried, Heed::Health).is_some() {
                return Some(index);
            }
            self.park(index);
        }
    }

    /// Marks a member as picked, for the rotation among equals.
    pub(super) fn stamp(&mut self, index: usize) {
        self.clock += 1;
        self.stamps[index] = self.clock;
    }

    pub(super) fn park(&mut self, index: usize) {
        let place = self.places[index];
        if place == PARKED {
            return;
        }
        let place = place as usize;
        self.places[index] = PARKED;
        let last = self.nodes.pop().expect("a node that has a place exists");
        if place < self.nodes.len() {
            self.nodes[place] = last;
            self.places[last.index as usize] = place as u32;
            self.sift_up(place);
            self.sift_down(self.places[last.index as usize] as usize);
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn key(&self, member: &Member) -> Key {
        match self.order {
            Order::Off | Order::RoundRobin => Key {
                over: round_robin::middle(member.state().turn(), member.weight_256()),
                under: 1,
                stamp: self.stamps[member.index as usize],
            },
            Order::LeastConnections => {
                let load = member.load();
                Key {
                    over: u64::from(load.in_flight) + 1,
                    under: u64::from(load.weight_256),
                    stamp: self.stamps[member.index as usize],
                }
            }
        }
    }

    /// The smallest node that passes, found by opening nodes from the root, smallest first: as many
    /// as are refused (at most [`Tried::MAX`]) and their children.
    fn smallest(&self, mut passes: impl FnMut(usize) -> bool) -> Option<usize> {
        let root = self.nodes.first()?;
        if passes(root.index as usize) {
            return Some(root.index as usize);
        }
        let mut edge: Vec<usize> = (1..=ARITY).filter(|at| *at < self.nodes.len()).collect();
        loop {
            let (slot, at) = edge
                .iter()
                .copied()
                .enumerate()
                .min_by(|(_, a), (_, b)| self.nodes[*a].key.cmp(&self.nodes[*b].key))?;
            let index = self.nodes[at].index as usize;
            if passes(index) {
                return Some(index);
            }
            edge.swap_remove(slot);
            let children = at * ARITY + 1..=at * ARITY + ARITY;
            edge.extend(children.filter(|child| *child < self.nodes.len()));
        }
    }

    fn rekey(&mut self, place: usize, key: Key) {
        self.nodes[place].key = key;
        let index = self.nodes[place].index as usize;
        self.sift_up(place);
        self.sift_down(self.places[index] as usize);
    }

    fn sift_up(&mut self, mut at: usize) {
        let node = self.nodes[at];
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if !node.key.is_before(&self.nodes[parent].key) {
                break;
            }
            self.set(at, self.nodes[parent]);
            at = parent;
        }
        self.set(at, node);
    }

    fn sift_down(&mut self, mut at: usize) {
        let node = self.nodes[at];
        loop {
            let from = at * ARITY + 1;
            let to = (from + ARITY).min(self.nodes.len());
            let Some(child) = (from..to).reduce(|least, child| {
                if self.nodes[child].key.is_before(&self.nodes[least].key) {
                    child
                } else {
                    least
                }
            }) else {
                break;
            };
            if !self.nodes[child].key.is_before(&node.key) {
                break;
            }
            self.set(at, self.nodes[child]);
            at = child;
        }
        self.set(at, node);
    }

    fn set(&mut self, at: usize, node: Node) {
        self.nodes[at] = node;
        self.places[node.index as usize] = at as u32;
    }

    /// When nothing changes, every key is what the counts say, and who can serve is here.
    #[cfg(test)]
    pub(super) fn assert_keys(&self, members: &[Arc<Member>]) {
        for node in &self.nodes {
            let key = self.key(&members[node.index as usize]);
            assert_eq!(key.cmp(&node.key), Ordering::Equal, "{}", node.index);
        }
        self.check_invariants();
    }

    #[cfg(any(debug_assertions, test))]
    pub(super) fn check_invariants(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            assert_eq!(self.places[node.index as usize] as usize, at);
            if at > 0 {
                let parent = &self.nodes[(at - 1) / ARITY];
                assert!(!node.key.is_before(&parent.key), "the heap is in order");
            }
        }
        let placed = self.places.iter().filter(|place| **place != PARKED).count();
        assert_eq!(placed, self.nodes.len());
    }
}

/// Whether a member may stand in the heap at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Usable, in an open tier.
    Serves,
    Parked,
}
