//! Which backend is asked next, and what a place at it is used for.

use std::time::Instant;

use super::{Connecting, From, Picked, Waiting, pool_now};
use crate::balance::{NoBackend, Queued, Slot, Tried, UsedUp};
use crate::session::attempt::Purpose;
use crate::session::closing::Refusal;
use crate::session::record::Session;
use crate::smtp::Needed;
use crate::snapshot::{PoolView, Snapshot};

impl Connecting {
    /// A slot, or a place in the queue.
    pub(super) fn pick(&mut self, session: &mut Session, now: Instant) -> Result<Picked, Refusal> {
        let context = std::rc::Rc::clone(&session.cx);
        let snapshot = context.shared.current.load();
        let Some(view) = pool_now(&snapshot, session) else {
            return Err(self.none(NoBackend::Empty));
        };
        let settings = &view.settings;
        if self.total.is_none() {
            self.total = Some(self.began + settings.failover_timeout);
            self.attempts_max = u32::from(settings.max_attempts);
        }
        if self.made >= self.attempts_max {
            return Err(self.none(NoBackend::AllTried));
        }
        let client = session.client_key();
        let mut rng = context.rng.borrow_mut();
        let mut passed_over = 0;
        loop {
            if passed_over >= Tried::MAX {
                return self.pick_capable(session, &snapshot, view, now);
            }
            let picked = match self.preferred(view) {
                Some(slot) => Ok(slot),
                None => view.pool.pick(client, &self.tried, now, &mut rng),
            };
            match picked {
                Ok(slot) if self.lacks(session, &snapshot, view, &slot) => passed_over += 1,
                Ok(slot) => {
                    // If its quota was used up a moment ago, it is full from now on.
                    if let Some(picked) = self.use_slot(session, view, slot, now) {
                        return Ok(picked);
                    }
                }
                // Who was merely slow is asked again before the client waits, or is told of it.
                Err(NoBackend::AllFull | NoBackend::AllTried) if self.tried.forgive() => {}
                Err(NoBackend::AllFull) => break,
                Err(none) => return Err(self.none(none)),
            }
        }
        if self.aim.from == From::Anywhere
            && let Some((slot, kept)) =
                context
                    .keeper
                    .any(session, view, &self.tried, self.aim.needed, now)
        {
            match view.pool.spend(slot.member(), self.aim.recipients, now) {
                Ok(spent) => return Ok(Picked::Kept(slot, kept, spent)),
                // For others it is as good as before.
                Err(UsedUp) => context.keeper.put(session, slot, kept, now),
            }
        }
        let wish = self.wish(session);
        match view.pool.enqueue(client, &self.tried, wish, &mut rng) {
            Queued::Handed(handed) => {
                let used = self.use_handed(session, handed, now);
                Ok(used.unwrap_or(Picked::Waits))
            }
            Queued::Full => Err(self.none(NoBackend::AllFull)),
            Queued::Waiting(waiter) => {
                let interrupted = self.wait_until.take();
                if interrupted.is_none() {
                    context.counters().queued.inc();
                }
                let until = interrupted.unwrap_or(now + settings.queue_timeout);
                self.waiting = Some(Waiting {
                    waiter,
                    since: now,
                    until,
                });
                Ok(Picked::Waits)
            }
        }
    }

    /// Whether the backend is known to lack something that is needed; it is passed over then.
    fn lacks(
        &mut self,
        session: &Session,
        snapshot: &Snapshot,
        view: &PoolView,
        slot: &Slot,
    ) -> bool {
        let needed = self.aim.needed;
        if needed == Needed::default() {
            return false;
        }
        let known = &session.cx.capabilities;
        let lacking = known.lacking(snapshot.generation, view, slot.member(), needed);
        if lacking.is_empty() {
            return false;
        }
        self.lacking = self.lacking.union(lacking);
        self.tried.add(slot.member());
        true
    }

    /// Where more backends lack something than a session remembers, each is looked at once.
    fn pick_capable(
        &mut self,
        session: &Session,
        snapshot: &Snapshot,
        view: &PoolView,
        now: Instant,
    ) -> Result<Picked, Refusal> {
        let known = &session.cx.capabilities;
        let mut is_any = false;
        for member in view.pool.members() {
            let lacking = known.lacking(snapshot.generation, view, member, self.aim.needed);
            if !lacking.is_empty() {
                continue;
            }
            is_any = true;
            let slot = view.pool.pick_at(&member.settings.state, &self.tried);
            if let Some(picked) = slot.and_then(|slot| self.use_slot(session, view, slot, now)) {
                return Ok(picked);
            }
        }
        if is_any {
            return Err(Refusal::NoBackend(NoBackend::AllFull));
        }
        Err(self.none(NoBackend::AllTried))
    }

    /// What a place at a backend is used for: a kept connection, or a new one. `None` if its
    /// provider allows no more.
    pub(super) fn use_slot(
        &mut self,
        session: &Session,
        view: &PoolView,
        slot: Slot,
        now: Instant,
    ) -> Option<Picked> {
        if self.aim.purpose == Purpose::Relay {
            return Some(Picked::Slot(slot, None));
        }
        let recipients = self.aim.recipients;
        let Ok(spent) = view.pool.spend(slot.member(), recipients, now) else {
            if recipients > 1 {
                // It may have room for others, so that it is picked again; but not for these.
                self.tried.add(slot.member());
            }
            return None;
        };
        if self.aim.from == From::Dial {
            return Some(Picked::Slot(slot, spent));
        }
        let keeper = &session.cx.keeper;
        let kept = keeper.take(session, slot.member(), self.aim.needed, now);
        Some(match kept {
            Some(kept) => Picked::Kept(slot, kept, spent),
            None => Picked::Slot(slot, spent),
        })
    }
}
