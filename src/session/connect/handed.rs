//! What a session has without a pick: what it was handed in the queue, and the place that a kept
//! connection has left.
//!
//! Whatever is of no use here goes on to the next who waits, and nothing of it is lost.

use std::sync::Arc;
use std::time::Instant;

use super::super::attempt::Purpose;
use super::super::keeper;
use super::super::record::Session;
use super::{Connecting, From, Picked, pool_now};
use crate::balance::{Handed, Parked, Slot, UsedUp, Wish};
use crate::snapshot::PoolView;

impl Connecting {
    /// The place that the session has, or one at the backend that it prefers.
    pub(super) fn preferred(&mut self, view: &PoolView) -> Option<Slot> {
        let parked = self.place.take();
        let serves = |parked: &Parked| {
            view.pool.has(&parked.member().settings.state) && parked.may_serve(&self.tried)
        };
        if let Some(parked) = parked.filter(serves) {
            return Some(parked.resume());
        }
        let state = self.aim.prefer.take()?;
        view.pool.pick_at(&state, &self.tried)
    }

    /// What may be handed over to a session that waits.
    pub(super) fn wish(&self, session: &Session) -> Wish {
        match (self.aim.purpose, self.aim.from) {
            (Purpose::Mail, From::Anywhere) => Wish::Connection(keeper::kind(session)),
            (Purpose::Mail, From::Dial) | (Purpose::Relay, _) => Wish::Place,
        }
    }

    /// What a place that was waited for is used for. `None` if it is of no use here; then it goes on,
    /// and what has come with it.
    pub(super) fn use_handed(
        &mut self,
        session: &Session,
        handed: Handed,
        now: Instant,
    ) -> Option<Picked> {
        let (slot, carried) = handed.into_parts();
        let kept = carried.and_then(|carried| keeper::receive(session, &slot, carried));
        let shared = Arc::clone(&session.cx.shared);
        let snapshot = shared.current.load();
        let view = pool_now(&snapshot, session);
        let Some(kept) = kept else {
            return self.use_slot(session, view?, slot, now);
        };
        let recipients = self.aim.recipients;
        let lacking = kept.extensions.lacks(self.aim.needed);
        if !lacking.is_empty() {
            self.lacking = self.lacking.union(lacking);
            self.tried.add(slot.member());
        } else if let Some(view) = view.filter(|view| view.name == slot.member().pool) {
            match view.pool.spend(slot.member(), recipients, now) {
                Ok(spent) => return Some(Picked::Kept(slot, kept, spent)),
                // It may have room for others.
                Err(UsedUp) if recipients > 1 => self.tried.add(slot.member()),
                Err(UsedUp) => {}
            }
        }
        session.cx.keeper.put(session, slot, kept, now);
        None
    }
}
