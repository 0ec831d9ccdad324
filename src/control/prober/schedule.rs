//! Which probe is due when: jitter, the fast interval, and live sessions that make one needless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::targets::{Conversation, Interest};
use crate::balance::{AdminState, BackendState};
use crate::control::probe::{Plan, Target};
use crate::types::Rng;

/// Intervals vary by so many per hundred to either side, so that probes do not march in step.
const JITTER_PERCENT: u32 = 20;

/// A probe that is to be made now.
pub(super) struct Due {
    pub(super) id: u64,
    pub(super) target: Target,
    pub(super) plan: Plan,
}

/// What is probed, and when next.
pub(super) struct Schedule {
    entries: BTreeMap<u64, Entry>,
    ids: BTreeMap<Arc<Conversation>, u64>,
    queue: BTreeSet<(Instant, u64)>,
    next_id: u64,
    rng: Rng,
}

struct Entry {
    conversation: Arc<Conversation>,
    interest: Interest,
    /// When it is due; `None` while it runs.
    due: Option<Instant>,
    /// A live session has put it off once already.
    postponed: bool,
    /// All members were in maintenance when it was due.
    dormant: bool,
    /// Counts probes, for sources in turn.
    turn: usize,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            ids: BTreeMap::new(),
            queue: BTreeSet::new(),
            next_id: 0,
            rng: Rng::seeded(seed),
        }
    }

    /// When the next probe is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// Takes over the conversations of a new snapshot: what stays keeps its place in time, what is
    /// new comes within its fast interval, spread at random.
    pub(super) fn retarget(&mut self, wanted: BTreeMap<Conversation, Interest>, now: Instant) {
        let gone: Vec<_> = self
            .ids
            .iter()
            .filter(|(conversation, _)| !wanted.contains_key(&***conversation))
            .map(|(conversation, id)| (Arc::clone(conversation), *id))
            .collect();
        for (conversation, id) in gone {
            self.ids.remove(&conversation);
            if let Some(Entry { due: Some(due), .. }) = self.entries.remove(&id) {
                self.queue.remove(&(due, id));
            }
        }
        for (conversation, interest) in wanted {
            match self.ids.get(&conversation) {
                Some(id) => {
                    let entry = self.entries.get_mut(id).expect("every id has its entry");
                    entry.interest = interest;
                }
                None => self.add(conversation, interest, now),
            }
        }
    }

    fn add(&mut self, conversation: Conversation, interest: Interest, now: Instant) {
        let spread = interest.fast_interval.as_micros();
        let spread = u32::try_from(spread).unwrap_or(u32::MAX);
        let after = Duration::from_micros(u64::from(self.rng.below(spread)));
        let id = self.next_id;
        self.next_id += 1;
        let conversation = Arc::new(conversation);
        self.ids.insert(Arc::clone(&conversation), id);
        let entry = Entry {
            conversation,
            interest,
            due: None,
            postponed: false,
            dormant: false,
            turn: 0,
        };
        self.entries.insert(id, entry);
        self.plan(id, now + after);
    }

    /// The next probe to be made, if one is due. It is out of the queue until [`Schedule::done`].
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        loop {
            let (due, id) = *self.queue.first()?;
            if due > now {
                return None;
            }
            self.queue.pop_first();
            let entry = self.entries.get_mut(&id).expect("the queue names entries");
            entry.due = None;
            if let Some(later) = entry.later(now) {
                let jittered = now + self.jitter(later);
                self.plan(id, jittered);
                continue;
            }
            return Some(entry.begin(id));
        }
    }

    /// The probe has ended: plans the next.
    pub(super) fn done(&mut self, id: u64, now: Instant) {
        if let Some(entry) = self.entries.get(&id) {
            let interval = entry.interest.wait();
            let after = self.jitter(interval);
            self.plan(id, now + after);
        }
    }

    /// Brings forward what has begun to change, or has come out of maintenance, since it was
    /// planned.
    pub(super) fn look(&mut self, now: Instant) {
        let mut earlier = Vec::new();
        for (id, entry) in &self.entries {
            let Some(due) = entry.due else { continue };
            let interest = &entry.interest;
            let latest = if entry.dormant && !interest.is_dormant() {
                now
            } else if interest.is_changing() {
                now + interest.fast_interval
            } else {
                continue;
            };
            if due > latest {
                earlier.push((*id, due, latest));
            }
        }
        for (id, due, latest) in earlier {
            self.queue.remove(&(due, id));
            self.plan(id, latest);
        }
    }

    /// The target of an entry and whom its result is for; `None` if it is gone.
    pub(super) fn concerned(&self, id: u64) -> Option<(&Target, Vec<Arc<BackendState>>)> {
        let entry = self.entries.get(&id)?;
        let members = entry.interest.members.iter();
        let members = members.filter(|state| !is_maint(state)).cloned().collect();
        Some((&entry.conversation.target, members))
    }

    fn plan(&mut self, id: u64, due: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.due = Some(due);
            self.queue.insert((due, id));
        }
    }

    fn jitter(&mut self, interval: Duration) -> Duration {
        let percent = 100 - JITTER_PERCENT + self.rng.below(2 * JITTER_PERCENT + 1);
        interval * percent / 100
    }
}

impl Entry {
    /// How much later it should be, though it is due.
    fn later(&mut self, now: Instant) -> Option<Duration> {
        let interest = &self.interest;
        self.dormant = interest.is_dormant();
        if self.dormant {
            return Some(interest.interval);
        }
        let live = interest.needless_for(now).filter(|_| !self.postponed)?;
        self.postponed = true;
        Some(live)
    }

    fn begin(&mut self, id: u64) -> Due {
        self.postponed = false;
        let sources = &self.conversation.sources;
        let source = sources.get(self.turn % sources.len().max(1)).copied();
        self.turn = self.turn.wrapping_add(1);
        Due {
            id,
            target: Target {
                source,
                ..self.conversation.target.clone()
            },
            plan: self.conversation.plan.clone(),
        }
    }
}

impl Interest {
    fn is_changing(&self) -> bool {
        self.members
            .iter()
            .any(|state| !is_maint(state) && state.is_changing())
    }

    fn is_dormant(&self) -> bool {
        self.members.iter().all(is_maint)
    }

    fn wait(&self) -> Duration {
        if self.is_changing() {
            self.fast_interval
        } else {
            self.interval
        }
    }

    /// How long a clean live session of every member makes a probe needless, at most one interval.
    fn needless_for(&self, now: Instant) -> Option<Duration> {
        if self.is_changing() {
            return None;
        }
        let greeted = self.members.iter().map(|state| state.last_greeted());
        let oldest = greeted.collect::<Option<Vec<_>>>()?.into_iter().min()?;
        let until = oldest + self.interval;
        let wait = until.saturating_duration_since(now);
        (!wait.is_zero()).then(|| wait.min(self.interval))
    }
}

fn is_maint(state: &Arc<BackendState>) -> bool {
    state.view(Instant::now()).admin == AdminState::Maint
}
