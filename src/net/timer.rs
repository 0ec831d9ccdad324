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
}

impl Timer {
    /// A timer of this thread's event loop.
    #[expect(clippy::new_without_default, reason = "it belongs to a loop")]
    pub fn new() -> Self {
        Self {
            alarm: Alarm::new(),
        }
    }

    /// Makes sure the task is woken at `deadline` or earlier, to the millisecond after it.
    ///
    /// Returns whether the deadline has passed already: the caller then handles it and arms again.
    pub fn arm(&mut self, deadline: Instant, now: Instant, cx: &mut Context<'_>) -> Due {
        if deadline <= now {
            return Due::Now;
        }
        self.alarm.wake_by(deadline, cx);
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

/// Waits until `deadline`.
pub async fn sleep_until(deadline: Instant) {
    let mut timer = Timer::new();
    poll_fn(|cx| match timer.arm(deadline, clock::now(), cx) {
        Due::Now => Poll::Ready(()),
        Due::Later => Poll::Pending,
    })
    .await;
}
