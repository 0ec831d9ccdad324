//! Timers by the millisecond: a hierarchical wheel (Varghese and Lauck, scheme 7).
//!
//! Setting, moving and removing a timer take constant time and, once the wheel has grown, allocate
//! nothing. Six levels of 64 slots reach two years; a timer further away waits in the last level
//! and is sorted in again.

use std::task::Waker;

use slab::Slab;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// No entry.
const NONE: u32 = u32::MAX;

/// The timers of a loop. Time is in ticks since the loop began.
#[derive(Debug)]
pub(super) struct Wheel {
    entries: Slab<Entry>,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    /// Everything due until here has fired.
    elapsed: u64,
    /// No timer is due before; recomputed when it is reached.
    next: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    due: u64,
    waker: Waker,
    place: Option<Place>,
    before: u32,
    after: u32,
}

/// The list an entry is in.
#[derive(Clone, Copy, Debug)]
struct Place {
    level: u8,
    slot: u8,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            elapsed: 0,
            next: None,
        }
    }

    /// Adds a timer.
    pub(super) fn insert(&mut self, due: u64, waker: Waker) -> u32 {
        let key = self.entries.insert(Entry {
            due,
            waker,
            place: None,
            before: NONE,
            after: NONE,
        }) as u32;
        self.link(key);
        key
    }

    /// Moves a timer, whether it has fired or not.
    pub(super) fn reset(&mut self, key: u32, due: u64, waker: &Waker) {
        self.unlink(key);
        let entry = &mut self.entries[key as usize];
        entry.due = due;
        entry.waker.clone_from(waker);
        self.link(key);
    }

    pub(super) fn remove(&mut self, key: u32) {
        self.unlink(key);
        self.entries.remove(key as usize);
    }

    /// When to look again: no timer is due before. `None`: there is no timer.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// Fires what is due at `now`.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some((level, slot, begins)) = self.first() {
            self.next = Some(begins);
            if begins > now {
                break;
            }
            self.elapsed = self.elapsed.max(begins);
            let mut key = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while key != NONE {
                let entry = &mut self.entries[key as usize];
                let this = std::mem::replace(&mut key, entry.after);
                entry.place = None;
                if entry.due <= self.elapsed {
                    entry.waker.wake_by_ref();
                } else {
                    self.link(this);
                }
            }
        }
        self.elapsed = self.elapsed.max(now);
        if self.occupied == [0; LEVELS] {
            self.next = None;
        }
    }

    /// The first list that has entries, and the tick at which it must be looked at.
    fn first(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let shift = SLOT_BITS * level as u32;
        let at = (self.elapsed >> shift) % SLOTS as u64;
        let ahead = self.occupied[level]
            .rotate_right(at as u32)
            .trailing_zeros();
        let slot = (at + u64::from(ahead)) % SLOTS as u64;
        let turn = (self.elapsed >> shift) + u64::from(ahead);
        Some((level, slot as usize, turn << shift))
    }

    fn link(&mut self, key: u32) {
        // What is overdue fires at the next look.
        let due = self.entries[key as usize].due.max(self.elapsed);
        let reach = (1 << (SLOT_BITS * LEVELS as u32)) - 1;
        let due = due.min(self.elapsed + reach - (reach >> SLOT_BITS));
        let distant = (self.elapsed ^ due) | (SLOTS as u64 - 1);
        let level = (distant.ilog2() / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = ((due >> (SLOT_BITS * level as u32)) % SLOTS as u64) as usize;
        let head = std::mem::replace(&mut self.heads[level][slot], key);
        if head != NONE {
            self.entries[head as usize].before = key;
        }
        let entry = &mut self.entries[key as usize];
        entry.before = NONE;
        entry.after = head;
        entry.place = Some(Place {
            level: level as u8,
            slot: slot as u8,
        });
        self.occupied[level] |= 1 << slot;
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }

    fn unlink(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        let Some(place) = entry.place.take() else {
            return;
        };
        let (before, after) = (entry.before, entry.after);
        let (level, slot) = (usize::from(place.level), usize::from(place.slot));
        if before == NONE {
            self.heads[level][slot] = after;
            if after == NONE {
                self.occupied[level] &= !(1 << slot);
            }
        } else {
            self.entries[before as usize].after = after;
        }
        if after != NONE {
            self.entries[after as usize].before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::types::Rng;

    #[derive(Default)]
    struct Fired(AtomicU32);

    impl Wake for Fired {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn timers_fire_in_the_tick_they_are_due_and_once() {
        for seed in 0..64 {
            let mut rng = Rng::seeded(seed);
            let mut wheel = Wheel::new();
            let mut model: BTreeMap<u32, (u64, Arc<Fired>)> = BTreeMap::new();
            let mut now = 0;
            for _ in 0..2_000 {
                match rng.below(8) {
                    0..=2 => {
                        let due = now + far(&mut rng);
                        let fired = Arc::<Fired>::default();
                        let key = wheel.insert(due, Waker::from(Arc::clone(&fired)));
                        assert!(model.insert(key, (due, fired)).is_none());
                    }
                    3 => {
                        if let Some(key) = any(&mut rng, &model) {
                            wheel.remove(key);
                            model.remove(&key);
                        }
                    }
                    4 => {
                        if let Some(key) = any(&mut rng, &model) {
                            let due = now + far(&mut rng);
                            let fired = Arc::<Fired>::default();
                            wheel.reset(key, due, &Waker::from(Arc::clone(&fired)));
                            model.insert(key, (due, fired));
                        }
                    }
                    _ => {
                        now += far(&mut rng);
                        let first = model.iter().filter(|(_, (_, fired))| count(fired) == 0);
                        let first = first.map(|(_, (due, _))| *due).min();
                        let next = wheel.next();
                        assert!(first.is_none_or(|first| next.is_some_and(|next| next <= first)));
                        wheel.advance(now);
                    }
                }
                for (key, (due, fired)) in &model {
                    // One that was set for the present tick fires at the next look.
                    let expected = u32::from(*due < now || count(fired) == 1 && *due == now);
                    assert!(*due == now || count(fired) == expected, "{key} {due} {now}");
                }
            }
        }
    }

    fn count(fired: &Arc<Fired>) -> u32 {
        fired.0.load(Ordering::Relaxed)
    }

    /// A distance of any order of magnitude.
    fn far(rng: &mut Rng) -> u64 {
        let bits = rng.below(30);
        u64::from(rng.below(1 << bits))
    }

    fn any(rng: &mut Rng, model: &BTreeMap<u32, (u64, Arc<Fired>)>) -> Option<u32> {
        let count = u32::try_from(model.len()).unwrap().max(1);
        model.keys().nth(rng.below(count) as usize).copied()
    }

    #[test]
    fn a_timer_beyond_the_wheel_s_reach_still_fires_when_it_is_due() {
        let mut wheel = Wheel::new();
        let fired = Arc::<Fired>::default();
        let due = 1 << 40;
        wheel.insert(due, Waker::from(Arc::clone(&fired)));
        wheel.advance(due - 1);
        assert_eq!(count(&fired), 0);
        wheel.advance(due);
        assert_eq!(count(&fired), 1);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn the_next_look_is_never_after_the_first_timer() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.next(), None);
        let fired = Arc::<Fired>::default();
        let late = wheel.insert(700_000, Waker::from(Arc::clone(&fired)));
        let soon = wheel.insert(250, Waker::from(Arc::clone(&fired)));
        assert_eq!(wheel.next(), Some(250));
        wheel.remove(soon);
        wheel.advance(250);
        let next = wheel.next().expect("one is left");
        assert!(next > 250 && next <= 700_000);
        wheel.remove(late);
        wheel.advance(next);
        assert_eq!(wheel.next(), None);
    }
}
