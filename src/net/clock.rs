//! The only reader of the clock on the data path.
//!
//! Inside an event loop the clock is read once per turn: what one turn handles happened at one
//! instant. A turn takes microseconds, rarely a millisecond.

use std::cell::Cell;
use std::time::Instant;

thread_local! {
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Now, to the turn of this thread's event loop.
pub fn now() -> Instant {
    TURN.get().unwrap_or_else(read)
}

/// Now, to the nanosecond.
pub fn read() -> Instant {
    Instant::now()
}

/// A new turn begins.
pub(super) fn turn() -> Instant {
    let now = read();
    TURN.set(Some(now));
    now
}

/// The event loop of this thread has ended.
pub(super) fn leave() {
    TURN.set(None);
}
