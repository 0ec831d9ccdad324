//! The queue of one pool: clients that wait, without a greeting, for a place at a backend.
//!
//! One FIFO for all workers, touched only when every backend is full. A release hands its place to
//! the first waiter that may use it, without decrementing, and with it the connection that has the
//! place if that waiter has a use for it; what else may bring a place (a backend that returns, a
//! tier that opens) picks for the waiters in order. Nobody is overtaken, whatever its thread. A waiter counts itself before it
//! looks for a place and a release gives its place back before it looks for waiters, so that no
//! wake-up is lost. Lock order: the queue, then a ticket or the heap.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use super::choose::{NoBackend, Purpose, may_come};
use super::handing::{Handed, Heir, Kind, Wish};
use super::member::{Fit, Heed, Member, Tried};
use super::roll::Roll;
use super::shared::{PoolShared, lock};
use super::slot::Slot;
use crate::types::{ClientKey, Rng};

/// The answer of [`super::Pool::enqueue`].
#[derive(Debug)]
pub enum Queued {
    /// A place came free meanwhile.
    Handed(Handed),
    /// Wait for [`Waiter::poll_handed`].
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
pub(super) struct Cell(Mutex<Given>);

#[derive(Debug)]
enum Given {
    Nothing(Option<Waker>),
    Handed(Handed),
    /// A reload, or no place will ever come: resolve the pool anew.
    Stale,
    Taken,
}

/// What [`Given`] says, without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    Handed,
    Stale,
}

impl Given {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Nothing(_) => Outcome::Nothing,
            Self::Handed(_) => Outcome::Handed,
            Self::Stale | Self::Taken => Outcome::Stale,
        }
    }
}

#[derive(Debug)]
struct Entry {
    client: ClientKey,
    tried: Tried,
    wish: Wish,
    cell: Arc<Cell>,
}

/// What is offered to those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    Place,
    /// A connection with its place, to a waiter that has a use for both.
    Connection(Kind),
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

    /// Gives what the waiter was taken out of the queue for. If it has left, that goes on when the
    /// cell is dropped.
    pub(super) fn hand(&self, handed: Handed) {
        self.give(Given::Handed(handed), &mut Woken::default());
    }

    fn take(&self) -> Option<Result<Handed, ()>> {
        let mut given = lock(&self.0);
        match std::mem::replace(&mut *given, Given::Taken) {
            Given::Handed(handed) => Some(Ok(handed)),
            Given::Stale | Given::Taken => Some(Err(())),
            waiting @ Given::Nothing(_) => {
                *given = waiting;
                None
            }
        }
    }
}

impl Waiter {
    /// What was handed over, or `Err(())` when a reload made this pool stale or no place can come
    /// any more: resolve the pool anew and pick.
    pub fn poll_handed(&mut self, cx: &mut Context<'_>) -> Poll<Result<Handed, ()>> {
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
        // What was handed over meanwhile is dropped here, without a lock, and goes on to the next
        // waiter.
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
        wish: Wish,
        rng: &mut Rng,
    ) -> Queued {
        // Who waits in vain would be told so only when it comes to be first.
        if !tried.is_empty() && !may_come(roll, tried) {
            return Queued::Full;
        }
        let cell = Cell::new();
        let ticket;
        let renewed;
        let serial;
        {
            let mut queue = lock(&self.queue);
            serial = queue.serial;
            renewed = serial > roll.serial;
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
                    wish,
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
            Outcome::Handed => {
                if let Some(Ok(handed)) = waiter.cell.take() {
                    return Queued::Handed(handed);
                }
            }
            // A place can never come for this session: told to resolve anew it would come back here
            // for ever while others wait. A reload in between turns out all who wait, and those too
            // who came with its generation before it was installed.
            Outcome::Stale if !renewed && lock(&self.queue).serial == serial => {
                return Queued::Full;
            }
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
                    let handed = Handed::place(slot);
                    entry.cell.give(Given::Handed(handed), &mut woken);
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
        // It is given when it is dropped.
        self.heir(member, Offer::Place).is_some()
    }

    /// Takes the first waiter that may use a place at `member` out of the queue, if the backend may
    /// still be used at all and that waiter has a use for a connection of `kind` too. The caller
    /// then forgets the place without giving it back.
    pub(super) fn heir_of(&self, member: &Member, kind: Kind) -> Option<Heir> {
        self.heir(member, Offer::Connection(kind))
    }

    fn heir(&self, member: &Member, offer: Offer) -> Option<Heir> {
        let mut queue = lock(&self.queue);
        let roll = queue.roll.upgrade()?;
        let place = member.state().place();
        let is_there = place.serial == roll.serial;
        let members = roll.members.get(place.index as usize);
        let member = members.filter(|_| is_there)?;
        let max = member.settings.max_connections;
        // The place that is handed over counts in `open`; a reload may have lowered the limit.
        let within = max == 0 || member.state().open() <= max;
        // Who is given what its provider does not allow would only give it on, for ever.
        let allowed = within && !member.is_used_up();
        if !allowed || (member.index as usize) >= self.open_members(&roll) {
            return None;
        }
        let fits = |entry: &Entry| match member.fit(&entry.tried, Heed::Health) {
            // Full, because the place that is handed over is still counted.
            Fit::Takes(_) | Fit::Full => true,
            Fit::Tried | Fit::Unwell | Fit::Drained => false,
        };
        let (&ticket, first) = queue.entries.iter().find(|(_, entry)| fits(entry))?;
        let has_use = match offer {
            Offer::Place => true,
            Offer::Connection(kind) => first.wish == Wish::Connection(kind),
        };
        if !has_use {
            return None;
        }
        let entry = queue.entries.remove(&ticket).expect("it was found above");
        self.count_waiters(&queue);
        drop(queue);
        Some(Heir::new(entry.cell, Slot::handed(Arc::clone(member))))
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
    use super::super::{AdminState, Carried, PickMode, PoolSettings, WhenAllDown};
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
            let handed = self.poll_handed();
            handed.map(|given| given.map(|handed| handed.into_parts().0))
        }

        fn poll_handed(&mut self) -> Poll<Result<Handed, ()>> {
            let waker = Waker::from(Arc::clone(&self.bell));
            self.waiter.poll_handed(&mut Context::from_waker(&waker))
        }

        fn is_called(&self) -> bool {
            self.bell.0.load(Ordering::SeqCst) > 0
        }
    }

    fn wait(fleet: &mut Fleet, tried: &Tried) -> Seat {
        wait_for(fleet, tried, Wish::Place)
    }

    fn wait_for(fleet: &mut Fleet, tried: &Tried, wish: Wish) -> Seat {
        let queued = fleet
            .pool
            .enqueue(ClientKey(1), tried, wish, &mut fleet.rng);
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
        let queued = old.enqueue(ClientKey(1), &Tried::default(), Wish::Place, &mut fleet.rng);
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
            .enqueue(ClientKey(1), &tried, Wish::Place, &mut fleet.rng);
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
            .enqueue(ClientKey(1), &tried, Wish::Place, &mut fleet.rng);
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
                .enqueue(ClientKey(1), &tried, Wish::Place, &mut fleet.rng);
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
            .enqueue(ClientKey(1), &tried, Wish::Place, &mut fleet.rng);
        assert!(matches!(queued, Queued::Handed(_)));
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

    const HERE: Kind = Kind(0);
    const ELSEWHERE: Kind = Kind(1);

    /// A connection that says when it is closed.
    struct Line(Arc<AtomicUsize>);

    impl Drop for Line {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn line() -> (Carried, Arc<AtomicUsize>) {
        let closed = Arc::<AtomicUsize>::default();
        (Carried::new(HERE, Line(Arc::clone(&closed))), closed)
    }

    /// What a seat that was called was given: whether a connection came with its place.
    fn got_line(seat: &mut Seat) -> (Slot, Option<Line>) {
        let Poll::Ready(Ok(handed)) = seat.poll_handed() else {
            panic!("a place was handed over");
        };
        let (slot, carried) = handed.into_parts();
        (slot, carried.map(|carried| carried.open().expect("a line")))
    }

    #[test]
    fn a_connection_goes_with_its_place_to_the_first_in_line() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let wish = Wish::Connection(HERE);
        let mut first = wait_for(&mut fleet, &Tried::default(), wish);
        let mut second = wait_for(&mut fleet, &Tried::default(), wish);
        let (carried, closed) = line();
        held.heir(HERE).expect("one waits").receive(Some(carried));
        assert!(first.is_called() && !second.is_called());
        let counts = |fleet: &Fleet| (fleet.states[0].open(), fleet.states[0].in_flight());
        assert_eq!(counts(&fleet), (1, 1), "one place, whoever has it");
        let (slot, line) = got_line(&mut first);
        assert!(line.is_some() && closed.load(Ordering::SeqCst) == 0);
        assert!(second.poll().is_pending());
        drop((line, slot));
        let (slot, line) = got_line(&mut second);
        assert!(line.is_none(), "a place without its connection");
        drop(slot);
        fleet.assert_idle();
    }

    #[test]
    fn who_has_no_use_for_a_connection_is_not_overtaken_by_who_has() {
        for first_wish in [Wish::Place, Wish::Connection(ELSEWHERE)] {
            let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
            let held = fleet.pick().expect("a place");
            let mut first = wait_for(&mut fleet, &Tried::default(), first_wish);
            let mut second = wait_for(&mut fleet, &Tried::default(), Wish::Connection(HERE));
            let held = held.heir(HERE).expect_err("the first has no use for it");
            assert_eq!(fleet.pool.waiting(), 2);
            drop(held);
            let (slot, line) = got_line(&mut first);
            assert!(line.is_none() && second.poll().is_pending());
            drop(slot);
            drop(got(&mut second));
            fleet.assert_idle();
        }
    }

    #[test]
    fn a_connection_passes_who_has_tried_its_backend() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1), Spec::max(1)]);
        let held = [
            fleet.pick().expect("a place"),
            fleet.pick().expect("a place"),
        ];
        let tried = fleet.tried(&[number(&held[0])]);
        let mut picky = wait_for(&mut fleet, &tried, Wish::Place);
        let mut any = wait_for(&mut fleet, &Tried::default(), Wish::Connection(HERE));
        let [freed, _other] = held;
        let (carried, _closed) = line();
        freed.heir(HERE).expect("one waits").receive(Some(carried));
        assert!(picky.poll().is_pending());
        assert!(got_line(&mut any).1.is_some());
    }

    #[test]
    fn who_leaves_gives_on_the_connection_it_was_handed() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let wish = Wish::Connection(HERE);
        let first = wait_for(&mut fleet, &Tried::default(), wish);
        let mut second = wait_for(&mut fleet, &Tried::default(), wish);
        let third = wait_for(&mut fleet, &Tried::default(), wish);
        let (carried, closed) = line();
        held.heir(HERE).expect("one waits").receive(Some(carried));
        drop(first);
        let (slot, line) = got_line(&mut second);
        assert!(line.is_some() && closed.load(Ordering::SeqCst) == 0);
        let carried = Carried::new(HERE, line.expect("it is there"));
        slot.heir(HERE).expect("one waits").receive(Some(carried));
        drop(third);
        assert_eq!(
            closed.load(Ordering::SeqCst),
            1,
            "nobody is left to have it"
        );
        fleet.assert_idle();
    }

    #[test]
    fn who_leaves_while_its_gift_is_wrapped_loses_no_place() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let wish = Wish::Connection(HERE);
        let first = wait_for(&mut fleet, &Tried::default(), wish);
        let mut second = wait_for(&mut fleet, &Tried::default(), wish);
        let heir = held.heir(HERE).expect("one waits");
        drop(first);
        let (carried, closed) = line();
        heir.receive(Some(carried));
        let (slot, line) = got_line(&mut second);
        assert!(line.is_some() && closed.load(Ordering::SeqCst) == 0);
        drop((line, slot));
        fleet.assert_idle();
    }

    #[test]
    fn an_heir_that_is_forgotten_gets_its_place_all_the_same() {
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1)]);
        let held = fleet.pick().expect("a place");
        let mut seat = wait_for(&mut fleet, &Tried::default(), Wish::Connection(HERE));
        drop(held.heir(HERE).expect("one waits"));
        assert!(got_line(&mut seat).1.is_none());
        fleet.assert_idle();
    }

    #[test]
    fn a_connection_is_handed_to_nobody_over_a_lowered_limit_or_of_a_backend_that_is_left() {
        let wish = Wish::Connection(HERE);
        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(2)]);
        let held = [
            fleet.pick().expect("a place"),
            fleet.pick().expect("a place"),
        ];
        fleet.reload(PoolSettings::default(), &[Spec::max(1)]);
        let _seat = wait_for(&mut fleet, &Tried::default(), wish);
        let [one, other] = held;
        let one = one
            .heir(HERE)
            .expect_err("two are open, and one is the limit");
        drop(one);
        let heir = other.heir(HERE).expect("within the limit");
        drop(heir);

        let mut fleet = Fleet::new(PoolSettings::default(), &[Spec::max(1), Spec::max(1)]);
        let held = [
            fleet.pick().expect("a place"),
            fleet.pick().expect("a place"),
        ];
        let mut seat = wait_for(&mut fleet, &Tried::default(), wish);
        let [one, other] = held;
        fleet.admin(number(&one), AdminState::Drain);
        let one = one.heir(HERE).expect_err("the operator keeps it out");
        drop(one);
        assert!(seat.poll().is_pending());
        drop(other.heir(HERE).expect("this one serves"));
    }

    #[test]
    fn what_a_provider_does_not_allow_is_not_given_round_among_those_who_wait() {
        let limited = Spec {
            hourly: 1,
            ..Spec::max(1)
        };
        let mut fleet = Fleet::new(PoolSettings::default(), &[limited]);
        let held = fleet.pick().expect("a place");
        let spent = fleet
            .pool
            .spend(held.member(), 1, fleet.now)
            .expect("one is allowed");
        let mut seats = [
            wait(&mut fleet, &Tried::default()),
            wait_for(&mut fleet, &Tried::default(), Wish::Connection(HERE)),
        ];
        let held = held.heir(HERE).expect_err("it may not be used");
        drop(held);
        assert!(seats.iter_mut().all(|seat| seat.poll().is_pending()));
        assert_eq!(fleet.states[0].open(), 0, "it is nobody's");
        drop(spent);
    }
}
