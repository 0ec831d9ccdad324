//! Recipients at a backend whose provider counts them: no RCPT is said without a place that was
//! reserved for it.
//!
//! The first place comes with the connection, so that a backend without room is not chosen. As long
//! as the connection is held there is at least that one; so a recipient finds no place only behind
//! others that were accepted. Then the transaction moves to a backend that has room for all of them,
//! or, where there is none, the recipient is told 452: the client sends the rest in another
//! transaction, which is balanced anew (RFC 5321 §4.5.3.1.10).

use std::time::Instant;

use super::super::replies::OwnReply;
use super::{Exchange, Fate, Line, Output, Said, Sending, Told, Verb, Want};

/// Whether there is room for a transaction, as far as it has come, at another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// One has room for what it has and the next recipient.
    Room,
    /// None has.
    None,
}

/// The places at one backend.
#[derive(Debug)]
pub(super) struct Places {
    /// Reserved and not used.
    spare: u32,
    /// For RCPT that are accepted or not answered.
    in_use: u32,
    asked: Asked,
}

/// Whether more places were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    /// The owner has not answered yet.
    Yes,
    /// There were none while RCPT were unanswered, which may free some.
    InVain,
}

/// Whether the next RCPT may be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Taken,
    /// Not yet.
    Awaited,
}

impl Places {
    pub(super) fn new(places: u32) -> Self {
        Self {
            spare: places,
            in_use: 0,
            asked: Asked::No,
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn in_use(&self) -> usize {
        self.in_use as usize
    }
}

impl Exchange {
    /// So many places were got behind [`Output::Reserve`]; where that is none, `elsewhere` says
    /// whether to move.
    pub fn reserved(&mut self, granted: u32, elsewhere: Elsewhere, now: Instant) {
        // One that was lost meanwhile gives them back with all its others.
        let Line::Held(held) = &mut self.line else {
            return;
        };
        let in_step = held.outstanding.is_empty();
        let Some(places) = held.places.as_mut().filter(|of| of.asked == Asked::Yes) else {
            return;
        };
        places.spare += granted;
        places.asked = Asked::No;
        if granted == 0 && in_step {
            self.no_room(elsewhere, now);
        } else if granted == 0 {
            places.asked = Asked::InVain;
        }
        self.advance(now);
        self.give_back_spare();
        self.check();
    }

    /// Takes a place for the RCPT that is to be said next, or asks for some.
    pub(super) fn take_place(&mut self) -> Place {
        let Line::Held(held) = &mut self.line else {
            return Place::Awaited;
        };
        let in_step = held.outstanding.is_empty();
        let Some(places) = &mut held.places else {
            return Place::Taken;
        };
        if places.spare > 0 {
            places.spare -= 1;
            places.in_use += 1;
            return Place::Taken;
        }
        if places.asked == Asked::No || (places.asked == Asked::InVain && in_step) {
            places.asked = Asked::Yes;
            let wanted = if held.pipelining {
                waiting(&self.said[held.next..])
            } else {
                1
            };
            self.outputs.push_back(Output::Reserve(wanted));
        }
        Place::Awaited
    }

    /// The backend has refused a recipient.
    pub(super) fn free_place(&mut self) {
        if let Line::Held(held) = &mut self.line
            && let Some(places) = &mut held.places
        {
            places.in_use -= 1;
            places.spare += 1;
        }
    }

    /// Gives back what neither a recipient that waits nor the first one needs.
    pub(super) fn give_back_spare(&mut self) {
        if let Line::Held(held) = &mut self.line
            && let Some(places) = held.places.as_mut().filter(|places| places.spare > 0)
        {
            let first = u32::from(places.in_use == 0);
            let needed = match held.sending {
                Sending::Commands => waiting(&self.said[held.next..]).max(first),
                _ => first,
            };
            let surplus = places.spare.saturating_sub(needed);
            if surplus > 0 {
                places.spare -= surplus;
                self.outputs.push_back(Output::GiveBack(surplus));
            }
        }
    }

    /// The provider allows no more recipients, and everything that was said is answered.
    fn no_room(&mut self, elsewhere: Elsewhere, now: Instant) {
        let Line::Held(held) = &self.line else {
            return;
        };
        let next = held.next;
        let untold = self.said.get(next).is_some_and(|said| said.told.is_none());
        let may_move = self.may_move(now);
        let leaves = may_move && elsewhere == Elsewhere::Room;
        if untold && !leaves && self.rcpts(Told::Accepted).next().is_some() {
            self.answer(next, Told::Refused, OwnReply::TOO_MANY_RECIPIENTS);
            self.pass(next);
        } else if may_move {
            // It is no fault of the backend's that it was chosen before so much was known.
            self.outputs.push_back(Output::Release(Fate::Abort));
            self.move_on(Want::Other);
        } else {
            self.give_up(Fate::Abort, OwnReply::NO_BACKEND);
        }
    }
}

/// Recipients that are still to be said.
fn waiting(said: &[Said]) -> u32 {
    let waits = |said: &&Said| said.verb == Verb::Rcpt && said.told != Some(Told::Refused);
    said.iter().filter(waits).count() as u32
}
