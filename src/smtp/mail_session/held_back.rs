//! Replies that are held back: the tarpit (rule B5).
//!
//! Once half of its error points are spent, each further mistake is answered later. Nothing of the
//! client is read meanwhile, so what it says next waits in the kernel; what was answered before
//! still goes out, and so does everything at once when the session drains. The backend of an open
//! transaction is heard all the same.

use std::time::Instant;

use super::super::budget::Cost;
use super::super::closing::Next;
use super::super::tarpit::TarpitPlace;
use super::{Effect, MailSession, Stage};

/// The replies that wait, and until when.
#[derive(Debug)]
pub(super) struct HeldBack {
    pub(super) until: Instant,
    /// Octets of replies that came before them.
    pub(super) before: usize,
    _place: TarpitPlace,
}

impl MailSession {
    /// Whether a reply is held back: the client is still to hear it, whatever it does meanwhile.
    pub fn is_holding_back(&self) -> bool {
        self.held_back.is_some()
    }

    /// Holds the reply back that is about to be written and costs the client so much. One mistake
    /// behind another waits for its turn, so that saying all of them at once gains nothing; the
    /// budget bounds how many there are.
    pub(super) fn hold_back(&mut self, cost: Cost) {
        let delay = self.policy.tarpit_delay;
        let listens = matches!(self.stage, Stage::Open | Stage::Ended);
        let is_due = cost.is_error() && self.budget.is_half_spent() && self.next == Next::Continue;
        if delay.is_zero() || !listens || !is_due {
            return;
        }
        if let Some(held) = &mut self.held_back {
            held.until += delay;
        } else if let Some(place) = self.policy.tarpit.enter() {
            self.held_back = Some(Box::new(HeldBack {
                until: self.clock + delay,
                before: self.replies.len(),
                _place: place,
            }));
        } else {
            return;
        }
        self.effects.push_back(Effect::Tarpitted);
    }

    /// Lets replies go whose time has come.
    pub(super) fn let_go(&mut self, now: Instant) {
        if self
            .held_back
            .as_ref()
            .is_some_and(|held| held.until <= now)
        {
            self.held_back = None;
        }
    }
}
