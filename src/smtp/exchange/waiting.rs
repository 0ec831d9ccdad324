//! How long a backend may be silent: when another is thought of, and when this one is left (rule K1).

use std::time::Instant;

use super::{Exchange, HEDGE_AGAIN, Hedge, Held, Line, MOVES_MAX, Output, Sending, Trouble, Verb};

impl Exchange {
    /// When [`Exchange::timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let slow = self.slow_at();
        slow.into_iter().chain(self.silent_at()).min()
    }

    /// When a MAIL without an answer is slow. Only while nothing was heard from this backend: then
    /// nobody has been told anything that it could take back.
    fn slow_at(&self) -> Option<Instant> {
        let Line::Held(held) = &self.line else {
            return None;
        };
        match held.hedge {
            Hedge::At(at) | Hedge::Again(at) if self.may_hedge(held) => Some(at),
            Hedge::At(_) | Hedge::Again(_) | Hedge::Off => None,
        }
    }

    fn may_hedge(&self, held: &Held) -> bool {
        held.unheard && held.sending == Sending::Commands && self.moves < MOVES_MAX
    }

    /// The deadline has passed.
    pub fn timeout(&mut self, now: Instant) {
        if self.slow_at().is_some_and(|at| at <= now)
            && let Line::Held(held) = &mut self.line
        {
            held.hedge = Hedge::Again(now + HEDGE_AGAIN);
            self.outputs.push_back(Output::Slow);
        }
        if self.silent_at().is_some_and(|at| at <= now) {
            self.lost(Trouble::Silent, &[], now);
        }
        self.check();
    }

    /// The owner grants another backend to a MAIL that was [slow](Output::Slow). Whether it was
    /// still of use.
    pub fn hedge(&mut self, now: Instant) -> bool {
        let Line::Held(held) = &self.line else {
            return false;
        };
        let asked = matches!(held.hedge, Hedge::Again(_));
        let granted = asked && self.may_hedge(held) && self.may_move(now);
        if granted {
            self.note_step();
            self.trouble(Trouble::Silent, now);
        }
        self.check();
        granted
    }

    /// When the backend's silence is too long.
    fn silent_at(&self) -> Option<Instant> {
        let Line::Held(held) = &self.line else {
            return None;
        };
        let times = &held.times;
        let limit = match held.sending {
            Sending::Commands => {
                let first = *held.outstanding.front()?;
                match self.said[first].verb {
                    Verb::Data => times.data,
                    Verb::Mail | Verb::Rcpt => times.reply,
                }
            }
            Sending::Content => times.block,
            Sending::Chunk | Sending::Committed | Sending::LoneDot => times.last,
            Sending::Reset(_) => times.reply,
        };
        Some(held.since + limit)
    }
}
