//! A worker's heartbeat: shows that its loop turns, counts stalls, hands the log over, ends kept
//! connections that have had their time.

use std::rc::Rc;
use std::time::Duration;

use crate::net::clock;
use crate::net::timer::sleep_until;
use crate::session::Context;

/// Between beats.
const BEAT: Duration = Duration::from_millis(100);
/// A beat later than this is a stall: something held the loop.
const STALL: Duration = Duration::from_millis(20);

pub(super) async fn run(cx: Rc<Context>) {
    let mut due = clock::now() + BEAT;
    loop {
        sleep_until(due).await;
        let now = clock::now();
        let counters = cx.counters();
        if now.saturating_duration_since(due) > STALL {
            counters.loop_stalls.inc();
        }
        let age = now.saturating_duration_since(cx.shared.started);
        counters.heartbeat_micros.set(age.as_micros() as u64);
        cx.flush_log();
        cx.sweep();
        due = now + BEAT;
    }
}
