//! One timer per session, fed by the earliest of its named deadlines.
//!
//! Arming is lazy: a later deadline costs nothing (the old one fires, the caller looks again); only
//! an earlier one touches the wheel. So a short session pays for one insertion and one removal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// A session's only timer, pinned in the session's future.
#[derive(Debug)]
pub struct Timer<'a> {
    sleep: Pin<&'a mut Sleep>,
    fired: bool,
    /// The sleep knows the task; a session's task never changes.
    polled: bool,
}

impl<'a> Timer<'a> {
    /// Wraps a pinned sleep.
    pub fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        Self {
            sleep,
            fired: false,
            polled: false,
        }
    }

    /// Makes sure the task is woken at `deadline` or earlier.
    ///
    /// Returns whether the deadline has passed already: the caller then handles it and arms again.
    pub fn arm(&mut self, deadline: Instant, now: Instant, cx: &mut Context<'_>) -> Due {
        if deadline <= now {
            return Due::Now;
        }
        let armed = self.sleep.deadline().into_std();
        if self.polled && !self.fired && armed <= deadline && now < armed {
            return Due::Later;
        }
        self.polled = true;
        if self.fired || deadline < armed {
            self.sleep
                .as_mut()
                .reset(tokio::time::Instant::from_std(deadline));
            self.fired = false;
        }
        while self.sleep.as_mut().poll(cx) == Poll::Ready(()) {
            // It fired for an older, earlier deadline: sleep on to the one that counts. The wheel
            // rounds up to a millisecond, so this ends.
            if self.sleep.deadline().into_std() >= deadline {
                self.fired = true;
                return Due::Now;
            }
            self.sleep
                .as_mut()
                .reset(tokio::time::Instant::from_std(deadline));
        }
        Due::Later
    }
}

/// Whether a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It has.
    Now,
    /// The task will be woken for it.
    Later,
}
