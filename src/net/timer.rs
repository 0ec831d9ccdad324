//! One timer per session, fed by the earliest of its named deadlines.
//!
//! Arming is lazy: a later deadline costs nothing (the old one fires, the caller looks again); only
//! an earlier one touches the wheel. So a short session pays for one insertion and one removal.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use super::clock;
use super::event_loop::Alarm;

/// A session's only timer.
#[derive(Debug)]
pub struct Timer {
    alarm: Alarm,
    /// The deadline the alarm was last set for.
    armed: Option<Instant>,
}

impl Timer {
    /// A timer of this thread's event loop.
    #[expect(clippy::new_without_default, reason = "it belongs to a loop")]
    pub fn new() -> Self {
        Self {
            alarm: Alarm::new(),
            armed: None,
        }
    }

    /// Makes sure the task is woken at `deadline` or earlier, to the millisecond after it.
    ///
    /// Returns whether the deadline has passed already: the caller then handles it and arms again.
    pub fn arm(&mut self, deadline: Instant, now: Instant, cx: &mut Context<'_>) -> Due {
        if deadline <= now {
            return Due::Now;
        }
        // One that is earlier and still to come will do.
        if !(self.is_set(now) && self.armed <= Some(deadline)) {
            self.alarm.set(deadline, cx);
            self.armed = Some(deadline);
        }
        Due::Later
    }

    /// Whether it is armed and has not fired: the task will be woken.
    pub fn is_set(&self, now: Instant) -> bool {
        self.armed.is_some_and(|armed| now < armed)
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

/// Waits until `deadline`.
pub async fn sleep_until(deadline: Instant) {
    let mut timer = Timer::new();
    poll_fn(|cx| match timer.arm(deadline, clock::now(), cx) {
        Due::Now => Poll::Ready(()),
        Due::Later => Poll::Pending,
    })
    .await;
}
