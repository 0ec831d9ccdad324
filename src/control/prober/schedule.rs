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
                self.plan(id, now + later);
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
            let soon = now + interest.fast_interval;
            // Cheap first: with 10,000 backends that are well this is all that is done.
            if entry.dormant && !interest.is_dormant() {
                earlier.push((*id, due, now));
            } else if due > soon && interest.is_changing() {
                earlier.push((*id, due, soon));
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
            .any(|state| state.is_changing() && !is_maint(state))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Observation, ProbeReport, Stage};
    use crate::config::model::Depth;
    use crate::control::probe::{Header, Opening, Trust};

    const INTERVAL: Duration = Duration::from_secs(5);
    const FAST: Duration = Duration::from_secs(1);

    fn state(admin: AdminState, now: Instant) -> Arc<BackendState> {
        let address = "192.0.2.1:25".parse().unwrap();
        BackendState::new(Arc::from("mx"), Arc::from("a"), address, admin, 1, now)
    }

    fn conversation(port: u16) -> Conversation {
        Conversation {
            target: Target {
                address: ([192, 0, 2, 1], port).into(),
                host: None,
                opening: Opening::Smtp,
                header: Header::None,
                source: None,
                interface: None,
                freebind: false,
            },
            plan: Plan {
                depth: Depth::Ehlo,
                ehlo_name: Arc::from("lb.test"),
                recipient: None,
                connect_timeout: FAST,
                greeting_timeout: FAST,
                timeout: FAST,
                trust: Trust::Any,
                relay_test: None,
            },
            sources: vec![[192, 0, 2, 8].into(), [192, 0, 2, 9].into()],
        }
    }

    fn wanted(states: &[Arc<BackendState>]) -> BTreeMap<Conversation, Interest> {
        let interest = Interest {
            members: states.to_vec(),
            interval: INTERVAL,
            fast_interval: FAST,
        };
        BTreeMap::from([(conversation(25), interest)])
    }

    fn good() -> ProbeReport {
        ProbeReport {
            stage: Stage::Ehlo,
            failure: None,
            code: Some(250),
            text: None,
            duration: Duration::ZERO,
            greeting: None,
            full: false,
            keywords: Arc::default(),
            certificate_days: None,
        }
    }

    /// A schedule of one backend that is up, its first probe just done.
    fn up(now: Instant) -> (Schedule, Arc<BackendState>) {
        let state = state(AdminState::Ready, now);
        let mut schedule = Schedule::new(7);
        schedule.retarget(wanted(&[Arc::clone(&state)]), now);
        let first = schedule
            .take_due(now + FAST)
            .expect("due within the fast interval");
        state.probed(good(), now);
        assert!(!state.is_changing());
        schedule.done(first.id, now);
        (schedule, state)
    }

    fn wait(schedule: &Schedule, now: Instant) -> Duration {
        let next = schedule.next().expect("something is planned");
        next.saturating_duration_since(now)
    }

    #[test]
    fn the_first_probes_are_spread_over_the_fast_interval() {
        let now = Instant::now();
        let mut schedule = Schedule::new(7);
        let state = state(AdminState::Ready, now);
        let one = wanted(&[state]).pop_first().unwrap().1;
        let many = (0..200)
            .map(|port| (conversation(port), one.clone()))
            .collect();
        schedule.retarget(many, now);
        let due: Vec<_> = schedule.queue.iter().map(|(due, _)| *due - now).collect();
        assert!(due.iter().all(|after| *after < FAST));
        let early = due.iter().filter(|after| **after < FAST / 2).count();
        assert!(
            (50..150).contains(&early),
            "{early} of 200 in the first half"
        );
    }

    #[test]
    fn intervals_vary_by_a_fifth() {
        let now = Instant::now();
        let (mut schedule, _) = up(now);
        let waits: Vec<_> = (0..100)
            .map(|_| {
                schedule.queue.clear();
                schedule.done(0, now);
                wait(&schedule, now)
            })
            .collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= INTERVAL * 8 / 10 && *most <= INTERVAL * 12 / 10);
        assert!(*most > *least + INTERVAL / 5, "{least:?} to {most:?}");
    }

    #[test]
    fn a_changing_backend_is_asked_after_the_fast_interval() {
        let now = Instant::now();
        let (mut schedule, state) = up(now);
        let bad = ProbeReport {
            failure: Some(crate::balance::FailureKind::Timeout),
            ..good()
        };
        state.probed(bad, now);
        // Already planned for later: a look brings it forward.
        assert!(wait(&schedule, now) > FAST);
        schedule.look(now);
        assert!(wait(&schedule, now) <= FAST);
    }

    #[test]
    fn a_live_session_puts_the_next_probe_off_once() {
        let now = Instant::now();
        let (mut schedule, state) = up(now);
        let due = now + INTERVAL * 2;
        let live = Observation::Greeted { after: FAST };
        state.observe(live.clone(), due);
        assert!(schedule.take_due(due).is_none(), "needless");
        let put_off = wait(&schedule, due);
        assert!(put_off <= INTERVAL, "at most one interval");
        let again = due + put_off;
        state.observe(live, again);
        assert!(schedule.take_due(again).is_some(), "not put off twice");
    }

    #[test]
    fn maintenance_is_not_probed_and_its_end_is_noticed() {
        let now = Instant::now();
        let state = state(AdminState::Maint, now);
        let mut schedule = Schedule::new(7);
        schedule.retarget(wanted(&[Arc::clone(&state)]), now);
        let later = now + FAST;
        assert!(schedule.take_due(later).is_none());
        schedule.look(later);
        assert!(schedule.take_due(later).is_none(), "still in maintenance");
        state.set_admin(AdminState::Ready, Arc::from("test"), later);
        schedule.look(later);
        assert!(schedule.take_due(later).is_some());
    }

    #[test]
    fn a_reload_keeps_the_place_in_time_of_what_stays_and_drops_what_goes() {
        let now = Instant::now();
        let (mut schedule, state) = up(now);
        let before = schedule.next();
        schedule.retarget(wanted(&[state]), now);
        assert_eq!(schedule.next(), before);
        schedule.retarget(BTreeMap::new(), now);
        assert_eq!(schedule.next(), None);
        assert!(
            schedule.concerned(0).is_none(),
            "a late result is for nobody"
        );
        schedule.done(0, now);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn sources_are_used_in_turn() {
        let now = Instant::now();
        let (mut schedule, _) = up(now);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let due = schedule.take_due(now + INTERVAL * 9).expect("long due");
            seen.push(due.target.source.unwrap().to_string());
            schedule.done(due.id, now);
        }
        // The first probe of `up` had the first.
        assert_eq!(seen, ["192.0.2.9", "192.0.2.8", "192.0.2.9"]);
    }
}
