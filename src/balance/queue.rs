//! The queue of one pool: clients that wait, without a greeting, for a place at a backend.
//!
//! One FIFO for all workers, touched only when every backend is full. A release hands its place to
//! the first waiter that may use it, without decrementing; what else may bring a place (a backend
//! that returns, a tier that opens) picks for the waiters in order. A waiter counts itself before it
//! looks for a place and a release gives its place back before it looks for waiters, so that no
//! wake-up is lost. Lock order: the queue, then a ticket or the heap.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use super::choose::{NoBackend, Purpose, may_come};
use super::member::{Fit, Heed, Member, Tried};
use super::roll::Roll;
use super::shared::{PoolShared, lock};
use super::slot::Slot;
use crate::types::{ClientKey, Rng};

/// The answer of [`super::Pool::enqueue`].
#[derive(Debug)]
pub enum Queued {
    /// A place came free meanwhile.
    Slot(Slot),
    /// Wait for [`Waiter::poll_slot`].
    Waiting(Waiter),
    /// The queue is full or off, or no place can come for this session: it tried all that are
    /// usable, or none is.
    Full,
}

/// A client in the queue; dropping it leaves the queue (and gives back a place it was handed).
#[derive(Debug)]
pub struct Waiter {
    shared: Arc<PoolShared>,
    ticket: u64,
    cell: Arc<Cell>,
    /// Keeps the members alive while somebody waits for them, even if a reload removed the pool.
    _roll: Arc<Roll>,
}

/// Where a waiter finds what it was given.
#[derive(Debug)]
struct Cell(Mutex<Given>);

#[derive(Debug)]
enum Given {
    Nothing(Option<Waker>),
    Slot(Slot),
    /// A reload, or no place will ever come: resolve the pool anew.
    Stale,
    Taken,
}

/// What [`Given`] says, without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    Slot,
    Stale,
}

impl Given {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Nothing(_) => Outcome::Nothing,
            Self::Slot(_) => Outcome::Slot,
            Self::Stale | Self::Taken => Outcome::Stale,
        }
    }
}

#[derive(Debug)]
struct Entry {
    client: ClientKey,
    tried: Tried,
    cell: Arc<Cell>,
}

/// Behind the pool's mutex.
#[derive(Debug)]
pub(super) struct Queue {
    serial: u32,
    roll: Weak<Roll>,
    /// By ticket: the order of arrival.
    entries: BTreeMap<u64, Entry>,
    next_ticket: u64,
    rng: Rng,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            serial: 0,
            roll: Weak::new(),
            entries: BTreeMap::new(),
            next_ticket: 0,
            rng: Rng::seeded(0),
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Wakers to be called once no lock is held.
#[derive(Default)]
struct Woken(Vec<Waker>);

impl Drop for Woken {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Cell {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Given::Nothing(None))))
    }

    fn give(&self, gift: Given, woken: &mut Woken) {
        let before = std::mem::replace(&mut *lock(&self.0), gift);
        if let Given::Nothing(Some(waker)) = before {
            woken.0.push(waker);
        }
    }

    fn take(&self) -> Option<Result<Slot, ()>> {
        let mut given = lock(&self.0);
        match std::mem::replace(&mut *given, Given::Taken) {
            Given::Slot(slot) => Some(Ok(slot)),
            Given::Stale | Given::Taken => Some(Err(())),
            waiting @ Given::Nothing(_) => {
                *given = waiting;
                None
            }
        }
    }
}

impl Waiter {
    /// `Ok(slot)`, or `Err(())` when a reload made this pool stale or no place can come any more:
    /// resolve the pool anew and pick.
    pub fn poll_slot(&mut self, cx: &mut Context<'_>) -> Poll<Result<Slot, ()>> {
        if let Some(given) = self.cell.take() {
            return Poll::Ready(given);
        }
        let mut given = lock(&self.cell.0);
        if let Given::Nothing(waker) = &mut *given {
            let fresh = cx.waker().clone();
            let before = waker.replace(fresh);
            drop(given);
            drop(before);
            return Poll::Pending;
        }
        drop(given);
        Poll::Ready(self.cell.take().unwrap_or(Err(())))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.shared.leave(self.ticket);
        // A slot that was handed over meanwhile is dropped here, without a lock, and goes on to the
        // next waiter.
        drop(self.cell.take());
    }
}

impl PoolShared {
    /// Waiters now.
    pub(super) fn waiting(&self) -> u32 {
        self.waiters.load(Ordering::SeqCst)
    }

    pub(super) fn enqueue(
        self: &Arc<Self>,
        roll: &Arc<Roll>,
        client: ClientKey,
        tried: &Tried,
        rng: &mut Rng,
    ) -> Queued {
        // Who waits in vain would be told so only when it comes to be first.
        if !tried.is_empty() && !may_come(roll, tried) {
            return Queued::Full;
        }
        let cell = Cell::new();
        let ticket;
        let renewed;
        {
            let mut queue = lock(&self.queue);
            renewed = queue.serial > roll.serial;
            if queue.entries.len() >= roll.settings.queue_max as usize {
                return Queued::Full;
            }
            ticket = queue.next_ticket;
            queue.next_ticket += 1;
            if renewed {
                *lock(&cell.0) = Given::Stale;
            } else {
                if queue.roll.strong_count() == 0 {
                    queue.roll = Arc::downgrade(roll);
                }
                queue.rng = Rng::seeded(rng.next());
                let entry = Entry {
                    client,
                    tried: tried.clone(),
                    cell: Arc::clone(&cell),
                };
                queue.entries.insert(ticket, entry);
                self.count_waiters(&queue);
            }
        }
        let waiter = Waiter {
            shared: Arc::clone(self),
            ticket,
            cell,
            _roll: Arc::clone(roll),
        };
        self.dispatch();
        let outcome = lock(&waiter.cell.0).outcome();
        match outcome {
            Outcome::Slot => {
                if let Some(Ok(slot)) = waiter.cell.take() {
                    return Queued::Slot(slot);
                }
            }
            // A place can never come for this session: told to resolve anew it would come back here
            // for ever while others wait.
            Outcome::Stale if !renewed => return Queued::Full,
            Outcome::Stale | Outcome::Nothing => {}
        }
        Queued::Waiting(waiter)
    }

    /// Picks for the waiters, in order, as long as there are places.
    pub(super) fn dispatch(self: &Arc<Self>) {
        let mut woken = Woken::default();
        let mut guard = lock(&self.queue);
        let queue = &mut *guard;
        let Some(roll) = queue.roll.upgrade() else {
            return;
        };
        let mut served = Vec::new();
        for (ticket, entry) in &queue.entries {
            let picked = self.pick(
                &roll,
                entry.client,
                &entry.tried,
                Purpose::Session,
                &mut queue.rng,
            );
            match picked {
                Ok(slot) => {
                    entry.cell.give(Given::Slot(slot), &mut woken);
                    served.push(*ticket);
                }
                // Full for all, then; one that has tried some may be stopped by those alone.
                Err(NoBackend::AllFull) if entry.tried.is_empty() => break,
                Err(NoBackend::AllFull) => {}
                Err(
                    NoBackend::AllDown
                    | NoBackend::AllDrained
                    | NoBackend::AllTried
                    | NoBackend::Empty,
                ) => {
                    entry.cell.give(Given::Stale, &mut woken);
                    served.push(*ticket);
                }
            }
        }
        for ticket in served {
            queue.entries.remove(&ticket);
        }
        self.count_waiters(queue);
        drop(guard);
        drop(woken);
    }

    /// Gives a place at `member` to the first waiter that may use it, if the backend may still be
    /// used at all. The caller then forgets the place without giving it back.
    pub(super) fn hand_over(&self, member: &Member) -> bool {
        let mut woken = Woken::default();
        let mut queue = lock(&self.queue);
        let Some(roll) = queue.roll.upgrade() else {
            return false;
        };
        let place = member.state().place();
        let Some(member) = roll
            .members
            .get(place.index as usize)
            .filter(|_| place.serial == roll.serial)
        else {
            return false;
        };
        let max = member.settings.max_connections;
        // The place that is handed over counts in `open`; a reload may have lowered the limit.
        let within = max == 0 || member.state().open() <= max;
        if !within || (member.index as usize) >= self.open_members(&roll) {
            return false;
        }
        let Some(ticket) = queue
            .entries
            .iter()
            .find(|(_, entry)| match member.fit(&entry.tried, Heed::Health) {
                // Full, because the place that is handed over is still counted.
                Fit::Takes(_) | Fit::Full => true,
                Fit::Tried | Fit::Unwell | Fit::Drained => false,
            })
            .map(|(ticket, _)| *ticket)
        else {
            return false;
        };
        let entry = queue.entries.remove(&ticket).expect("it was found above");
        self.count_waiters(&queue);
        let handed = Slot::handed(Arc::clone(member));
        entry.cell.give(Given::Slot(handed), &mut woken);
        drop(queue);
        drop(woken);
        true
    }

    /// A new generation: all who wait resolve their pool anew.
    pub(super) fn renew_queue(&self, roll: &Arc<Roll>) {
        self.turn_out(roll.serial, Arc::downgrade(roll));
    }

    /// No snapshot names the pool any more: all who wait resolve their pool anew, and so does who
    /// still comes with its `last` generation.
    pub(super) fn close_queue(&self, last: &Roll) {
        self.turn_out(last.serial + 1, Weak::new());
    }

    fn turn_out(&self, serial: u32, roll: Weak<Roll>) {
        let mut woken = Woken::default();
        let mut queue = lock(&self.queue);
        queue.serial = serial;
        queue.roll = roll;
        for entry in std::mem::take(&mut queue.entries).into_values() {
            entry.cell.give(Given::Stale, &mut woken);
        }
        self.count_waiters(&queue);
        drop(queue);
        drop(woken);
    }

    fn leave(&self, ticket: u64) {
        let mut queue = lock(&self.queue);
        let left = queue.entries.remove(&ticket);
        self.count_waiters(&queue);
        drop(queue);
        drop(left);
    }

    fn count_waiters(&self, queue: &Queue) {
        let waiting = u32::try_from(queue.entries.len()).expect("queue_max is counted in 32 bits");
        self.waiters.store(waiting, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::super::testing::{Fleet, Spec, number};
    use super::super::{AdminState, PickMode, PoolSettings, WhenAllDown};
    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A waiter, its bell, and what a poll gives.
    struct Seat {
        waiter: Waiter,
        bell: Arc<Bell>,
    }

    impl Seat {
        fn poll(&mut self) -> Poll<Result<Slot, ()>> {
            let waker = Waker::from(Arc::clone(&self.bell));
            self.waiter.poll_slot(&mut Context::from_waker(&waker))
        }

        fn is_called(&self) -> bool {
            self.bell.0.load(Ordering::SeqCst) > 0
        }
    }

    fn wait(fleet: &mut Fleet, tried: &Tried) -> Seat {
        let queued = fleet
            .pool
            .enqueue(ClientKey(1), tried, fleet.now, &mut fleet.rng);
        let Queued::Waiting(waiter) = queued else {
            panic!("no place is free and the queue has room: {queued:?}");
        };
        let mut seat = Seat {
            waiter,
            bell: Arc::default(),
        };
        assert!(seat.poll().is_pending());
        seat
    }

    fn got(seat: &mut Seat) -> Slot {
        match seat.poll() {
            Poll::Ready(Ok(slot)) => slot,
            other => panic!("a place was handed over: {other:?}"),
        }
    }

    #[test]
    fn a_release_hands_its_place_to_the_first_in_line() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllFull);
        let mut first = wait(&mut fleet, &Tried::default());
        let mut second = wait(&mut fleet, &Tried::default());
        assert_eq!(fleet.pool.waiting(), 2);
        drop(held);
        assert!(first.is_called() && !second.is_called());
        assert_eq!(
            (fleet.states[0].open(), fleet.states[0].in_flight()),
            (1, 1)
        );
        let slot = got(&mut first);
        assert!(second.poll().is_pending());
        assert_eq!(
            fleet.pick().unwrap_err(),
            NoBackend::AllFull,
            "nobody overtakes"
        );
        drop(slot);
        drop(got(&mut second));
        assert_eq!(fleet.pool.waiting(), 0);
        fleet.assert_idle();
    }

    #[test]
    fn a_place_goes_to_the_first_that_did_not_try_that_backend() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1), Spec::max(1)]);
        let held = [
            fleet.pick().expect("a place"),
            fleet.pick().expect("a place"),
        ];
        let tried = fleet.tried(&[number(&held[0])]);
        let mut picky = wait(&mut fleet, &tried);
        let mut any = wait(&mut fleet, &Tried::default());
        let [freed, other] = held;
        let at = number(&freed);
        drop(freed);
        assert!(picky.poll().is_pending());
        let slot = got(&mut any);
        assert_eq!(number(&slot), at);
        drop(other);
        assert_ne!(number(&got(&mut picky)), at);
    }

    #[test]
    fn who_leaves_gives_back_what_it_was_handed() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let first = wait(&mut fleet, &Tried::default());
        let mut second = wait(&mut fleet, &Tried::default());
        let third = wait(&mut fleet, &Tried::default());
        drop(held);
        drop(first);
        drop(third);
        drop(got(&mut second));
        assert_eq!(fleet.pool.waiting(), 0);
        fleet.assert_idle();
    }

    #[test]
    fn a_reload_sends_all_who_wait_to_resolve_anew() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let mut seat = wait(&mut fleet, &Tried::default());
        let old_specs = [Spec::max(1)];
        fleet.reload(PoolSettings::default(), &old_specs);
        assert!(seat.is_called());
        assert!(matches!(seat.poll(), Poll::Ready(Err(()))));
        assert_eq!(fleet.pool.waiting(), 0);
        let mut again = wait(&mut fleet, &Tried::default());
        drop(held);
        let slot = got(&mut again);
        assert_eq!(slot.member().serial, fleet.pool.members()[0].serial);
    }

    #[test]
    fn who_comes_with_an_old_generation_is_stale_at_once() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let _held = fleet.pick().expect("a place");
        let newer = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let old = std::mem::replace(&mut fleet.pool, newer.pool);
        fleet.reload(PoolSettings::default(), &[Spec::max(1)]);
        let queued = old.enqueue(ClientKey(1), &Tried::default(), fleet.now, &mut fleet.rng);
        let Queued::Waiting(waiter) = queued else {
            panic!("it is told to resolve anew: {queued:?}");
        };
        let mut seat = Seat {
            waiter,
            bell: Arc::default(),
        };
        assert!(matches!(seat.poll(), Poll::Ready(Err(()))));
    }

    #[test]
    fn a_pool_that_is_gone_turns_out_who_waits_and_who_still_comes() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let mut seat = wait(&mut fleet, &Tried::default());
        fleet.pool.retire();
        assert!(seat.is_called());
        assert!(matches!(seat.poll(), Poll::Ready(Err(()))));
        let tried = Tried::default();
        let late = fleet
            .pool
            .enqueue(ClientKey(1), &tried, fleet.now, &mut fleet.rng);
        let Queued::Waiting(waiter) = late else {
            panic!("it is told to resolve anew: {late:?}");
        };
        let mut late = Seat {
            waiter,
            bell: Arc::default(),
        };
        assert!(matches!(late.poll(), Poll::Ready(Err(()))));
        // It may come back, and works before it is installed and after.
        fleet.reload(PoolSettings::default(), &[Spec::max(1)]);
        let mut again = wait(&mut fleet, &Tried::default());
        drop(held);
        drop(got(&mut again));
        fleet.assert_idle();
    }

    #[test]
    fn a_lowered_limit_holds_before_anyone_is_served() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(3)]);
        let held: Vec<_> = (0..3).map(|_| fleet.pick().expect("a place")).collect();
        fleet.reload(PoolSettings::default(), &[Spec::max(1)]);
        let mut seat = wait(&mut fleet, &Tried::default());
        let mut held = held.into_iter();
        drop(held.next());
        drop(held.next());
        assert!(
            seat.poll().is_pending(),
            "one is open, and one is the limit"
        );
        drop(held.next());
        drop(got(&mut seat));
        fleet.assert_idle();
    }

    #[test]
    fn what_returns_or_opens_serves_those_who_wait() {
        let standby = Spec {
            tier: 2,
            ..Spec::max(1)
        };
        let specs = [Spec::max(1), Spec::max(1), standby];
        let mut fleet = Fleet::new(PoolSettings::default(), &specs);
        fleet.take_down(1);
        let _held = fleet.pick().expect("a place");
        let mut first = wait(&mut fleet, &Tried::default());
        let mut second = wait(&mut fleet, &Tried::default());
        fleet.bring_up(1);
        let returned = got(&mut first);
        assert_eq!(number(&returned), 1, "it came back");
        assert!(second.poll().is_pending());
        fleet.take_down(0);
        assert!(second.poll().is_pending());
        fleet.take_down(1);
        assert_eq!(number(&got(&mut second)), 2, "the standby opened");
    }

    #[test]
    fn when_nothing_can_come_those_who_wait_are_told() {
        let refuse = PoolSettings {
            when_all_down: WhenAllDown::Refuse,
            ..PoolSettings::default()
        };
        let mut fleet = Fleet::new(refuse, &[Spec::max(1)]);
        let _held = fleet.pick().expect("a place");
        let mut seat = wait(&mut fleet, &Tried::default());
        fleet.admin(0, AdminState::Drain);
        assert!(matches!(seat.poll(), Poll::Ready(Err(()))));
    }

    #[test]
    fn who_has_tried_everything_does_not_wait_behind_others() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let _held = fleet.pick().expect("a place");
        let _seat = wait(&mut fleet, &Tried::default());
        let tried = fleet.tried(&[0]);
        let queued = fleet
            .pool
            .enqueue(ClientKey(1), &tried, fleet.now, &mut fleet.rng);
        assert!(matches!(queued, Queued::Full), "{queued:?}");
        assert_eq!(fleet.pool.waiting(), 1);
    }

    #[test]
    fn the_last_resort_serves_those_who_wait_too() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let mut seat = wait(&mut fleet, &Tried::default());
        fleet.take_down(0);
        drop(held);
        assert_eq!(got(&mut seat).mode(), PickMode::LastResort);
        fleet.assert_idle();
    }

    #[test]
    fn the_queue_is_bounded_and_can_be_off() {
        for room in [0, 2] {
            let settings = PoolSettings {
                queue_max: room,
                ..PoolSettings::default()
            };
            let mut fleet = Fleet::new(settings, &[Spec::max(1)]);
            let _held = fleet.pick().expect("a place");
            let _seats: Vec<_> = (0..room)
                .map(|_| wait(&mut fleet, &Tried::default()))
                .collect();
            let tried = Tried::default();
            let queued = fleet
                .pool
                .enqueue(ClientKey(1), &tried, fleet.now, &mut fleet.rng);
            assert!(matches!(queued, Queued::Full));
        }
    }

    #[test]
    fn a_place_that_came_free_before_enqueueing_is_found() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        assert_eq!(fleet.pick().unwrap_err(), NoBackend::AllFull);
        drop(held);
        let tried = Tried::default();
        let queued = fleet
            .pool
            .enqueue(ClientKey(1), &tried, fleet.now, &mut fleet.rng);
        assert!(matches!(queued, Queued::Slot(_)));
    }

    #[test]
    fn a_hedge_does_not_overtake_those_who_wait() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1), Spec::max(1)]);
        let only_second = fleet.tried(&[0]);
        let only_first = fleet.tried(&[1]);
        let _held = fleet.pick_for(1, &only_first).expect("a place");
        let seat = wait(&mut fleet, &only_first);
        let hedge = |fleet: &mut Fleet| {
            fleet
                .pool
                .pick_hedge(ClientKey(1), &only_second, fleet.now, &mut fleet.rng)
        };
        assert!(hedge(&mut fleet).is_err());
        drop(seat);
        assert!(hedge(&mut fleet).is_ok(), "nobody waits any more");
    }
}
