//! Waiting until a connection may be opened (rule N6).
//!
//! A burst of sessions that find no kept connection would dial all at once, and overflow the
//! backend's accept queue. Only `max_opening` do; the others look again, and again, until one of
//! those has been accepted, or some session gives a connection back. The place at the backend is
//! theirs meanwhile, and `failover_timeout` bounds the wait.

use std::task::Poll;
use std::time::{Duration, Instant};

use super::super::attempt::Purpose;
use super::super::record::Session;
use super::{Connecting, Found, From, note_wait, pool_now};
use crate::balance::{OpeningPlace, PickMode, Slot, Spent};

/// A connection whose turn has not come looks again after so long,
const TURN_FIRST: Duration = Duration::from_millis(2);
/// and then after twice as long each time, up to this.
const TURN_LAST: Duration = Duration::from_millis(32);

/// A place at a backend that accepts others first (rule N6).
#[derive(Debug)]
pub(super) struct Turn {
    slot: Slot,
    spent: Option<Spent>,
    since: Instant,
    /// When it is looked at again,
    pub(super) next: Instant,
    /// and how long after that.
    pause: Duration,
}

/// As many connections to the backend are being opened as may be.
#[derive(Clone, Copy, Debug)]
struct NotYet;

impl Connecting {
    /// Dials, or waits until it may.
    pub(super) fn open(
        &mut self,
        session: &mut Session,
        slot: Slot,
        spent: Option<Spent>,
        now: Instant,
    ) {
        match self.opening(session, &slot) {
            Ok(opening) => self.dial(session, slot, spent, opening, now),
            Err(NotYet) => {
                self.turn = Some(Turn {
                    slot,
                    spent,
                    since: now,
                    next: now + TURN_FIRST,
                    pause: 2 * TURN_FIRST,
                });
            }
        }
    }

    /// Whether the backend may be dialled now. A relayed session is a connection of its own client,
    /// and never waits here.
    fn opening(&self, session: &Session, slot: &Slot) -> Result<Option<OpeningPlace>, NotYet> {
        if self.aim.purpose == Purpose::Relay {
            return Ok(None);
        }
        let snapshot = session.cx.shared.current.load();
        let Some(view) = pool_now(&snapshot, session) else {
            return Ok(None);
        };
        let max = view.settings.smtp.max_opening;
        let place = OpeningPlace::take(&slot.member().settings.state, max);
        place.map(Some).ok_or(NotYet)
    }

    /// Looks whether its turn has come, or whether a connection is kept meanwhile.
    pub(super) fn look_again(
        &mut self,
        session: &mut Session,
        mut turn: Turn,
        now: Instant,
    ) -> Poll<Option<Found>> {
        if now < turn.next {
            self.turn = Some(turn);
            return Poll::Pending;
        }
        let state = &turn.slot.member().settings.state;
        let has_fallen = turn.slot.mode() == PickMode::Normal && !state.is_well();
        if has_fallen || !state.is_in_service() {
            // Those whose turn came first may have found out: another one is picked.
            note_wait(session, turn.since, now);
            return Poll::Ready(None);
        }
        if self.aim.from == From::Anywhere {
            let keeper = &session.cx.keeper;
            let kept = keeper.take(session, turn.slot.member(), self.aim.needed, now);
            if let Some(kept) = kept {
                note_wait(session, turn.since, now);
                return Poll::Ready(Some(Found::Kept(turn.slot, kept, turn.spent)));
            }
        }
        if let Ok(opening) = self.opening(session, &turn.slot) {
            note_wait(session, turn.since, now);
            self.dial(session, turn.slot, turn.spent, opening, now);
            return Poll::Ready(None);
        }
        turn.next = now + turn.pause;
        turn.pause = (2 * turn.pause).min(TURN_LAST);
        self.turn = Some(turn);
        Poll::Pending
    }
}
