//! A reserved place at a backend, given back by `Drop`, whatever happens to the session.
//!
//! A connection that is kept alive between transactions is [`Parked`]: it still counts as a socket,
//! which is what `max_connections` limits, and balancing does not see it any more.

use std::sync::Arc;

use super::choose::PickMode;
use super::handing::{Heir, Kind};
use super::member::{Member, Tried};

/// A reserved place at a backend: counts in `open` and `in_flight` until dropped; a drop hands the
/// place to the first waiter instead, if there is one.
#[derive(Debug)]
pub struct Slot {
    place: Place,
}

/// The place of a connection that nobody uses now: counts in `open` until dropped.
#[derive(Debug)]
pub struct Parked {
    place: Place,
}

/// What a slot and a parked place have in common.
#[derive(Debug)]
struct Place {
    member: Arc<Member>,
    counts: Use,
}

/// What a place counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// `open` and `in_flight`.
    Flight(PickMode),
    /// `open`.
    Open,
    /// Nothing: another has it.
    Gone,
}

impl Slot {
    /// The place was reserved by the caller.
    pub(super) fn reserved(member: Arc<Member>, mode: PickMode) -> Self {
        let place = Place {
            member,
            counts: Use::Flight(mode),
        };
        Self { place }
    }

    /// The place comes from another slot, which is forgotten.
    pub(super) fn handed(member: Arc<Member>) -> Self {
        Self::reserved(member, PickMode::Normal)
    }

    /// The backend.
    pub fn member(&self) -> &Arc<Member> {
        &self.place.member
    }

    /// How it should be used.
    pub fn mode(&self) -> PickMode {
        match self.place.counts {
            Use::Flight(mode) => mode,
            Use::Open | Use::Gone => PickMode::Normal,
        }
    }

    /// Takes the place for whoever has waited longest for one here, if a connection of `kind` is of
    /// use to it too. Nobody is passed over: if it is not, all may have the place alone.
    ///
    /// # Errors
    /// Nobody waits who can use both; the slot goes on as it was.
    pub fn heir(mut self, kind: Kind) -> Result<Heir, Self> {
        let member = &self.place.member;
        let shared = &member.shared;
        let heir = (shared.waiting() > 0).then(|| shared.heir_of(member, kind));
        let Some(heir) = heir.flatten() else {
            return Err(self);
        };
        self.place.counts = Use::Gone;
        Ok(heir)
    }

    /// Gives the session's place back and keeps the socket's.
    #[must_use]
    pub fn park(self) -> Parked {
        let Self { mut place } = self;
        place.member.state().land();
        place.counts = Use::Open;
        place.member.shared.place_came_free(&place.member);
        Parked { place }
    }
}

impl Parked {
    /// The backend, as the generation names it in which the place was taken.
    pub fn member(&self) -> &Arc<Member> {
        &self.place.member
    }

    /// Whether the backend may serve a session that has tried `tried`, as many connections as it may
    /// have or not: the place is taken already.
    pub fn may_serve(&self, tried: &Tried) -> bool {
        let member = &self.place.member;
        member.state().standing().is_usable() && !tried.has(member) && !member.is_used_up()
    }

    /// How many wait for a place in the pool: this one may be given up for them.
    pub fn waiting(&self) -> u32 {
        self.place.member.shared.waiting()
    }

    /// Uses the place again.
    #[must_use]
    pub fn resume(self) -> Slot {
        let Self { mut place } = self;
        place.take_off();
        Slot { place }
    }
}

impl Place {
    fn take_off(&mut self) {
        self.member.state().take_off();
        self.counts = Use::Flight(PickMode::Normal);
        self.member.shared.place_came_free(&self.member);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match self.counts {
            Use::Flight(_) => {}
            // What is handed over, or released, is a place of a session.
            Use::Open => self.member.state().take_off(),
            Use::Gone => return,
        }
        let shared = &self.member.shared;
        if shared.waiting() > 0 && shared.hand_over(&self.member) {
            return;
        }
        self.member.state().release();
        shared.place_came_free(&self.member);
        if shared.waiting() > 0 {
            shared.dispatch();
        }
    }
}
