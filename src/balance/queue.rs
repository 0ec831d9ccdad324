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

use super::choose::{NoBackend, Purpose};
use super::member::{Fit, Heed, Tried};
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
    /// The queue is full or off.
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
    #[expect(
        clippy::result_unit_err,
        reason = "there is exactly one error, and it says: again"
    )]
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
        let cell = Cell::new();
        let ticket;
        {
            let mut queue = lock(&self.queue);
            if queue.entries.len() >= roll.settings.queue_max as usize {
                return Queued::Full;
            }
            ticket = queue.next_ticket;
            queue.next_ticket += 1;
            if queue.serial > roll.serial {
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
        let handed = matches!(&*lock(&waiter.cell.0), Given::Slot(_));
        if handed && let Some(Ok(slot)) = waiter.cell.take() {
            return Queued::Slot(slot);
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

    /// Gives the place of `slot` to the first waiter that may use it, if the backend may still be
    /// used at all. The caller then forgets the slot without giving its place back.
    pub(super) fn hand_over(&self, slot: &Slot) -> bool {
        let mut woken = Woken::default();
        let mut queue = lock(&self.queue);
        let Some(roll) = queue.roll.upgrade() else {
            return false;
        };
        let place = slot.member().state().place();
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
            .find(|(_, entry)| {
                !entry.tried.has(member)
                    && matches!(
                        member.fit(&entry.tried, Heed::Health),
                        Fit::Takes(_) | Fit::Full
                    )
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
        let mut woken = Woken::default();
        let mut queue = lock(&self.queue);
        queue.serial = roll.serial;
        queue.roll = Arc::downgrade(roll);
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
