//! The only reader of the clock on the data path.
//!
//! tokio's instant is handed out as std's, so that paused time works everywhere. Callers read it
//! once per poll and pass it down.

use std::time::Instant;

/// Now.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
