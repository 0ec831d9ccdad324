//! Whether this process, or one pool of it, should be sent mail.
//!
//! Anybody may make a health check, so the answer has counts and names of pools, and never an address.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::reply::{self, Reply};
use crate::snapshot::{PoolView, RunPhase, Shared};
use crate::telemetry::state_name;

/// Whether mail can be taken, and what stands against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    /// Everything that is wrong, even if it is ready.
    pub(super) reasons: Vec<String>,
}

/// The process is ready if some pool that a listener leads to can take mail.
pub(super) fn of_process(shared: &Shared) -> Readiness {
    let snapshot = shared.current.load();
    let mut reasons = Vec::new();
    let mut some_usable = false;
    for pool in snapshot.pools() {
        let used = snapshot.listeners().any(|l| l.pool == pool.index);
        if used && pool.pool.is_usable() {
            some_usable = true;
        } else if used {
            reasons.push(format!("pool {:?} cannot take mail", &*pool.name));
        }
    }
    if snapshot.listeners().next().is_none() {
        reasons.push("there is no listener".to_owned());
    }
    let draining = is_draining(shared, &mut reasons);
    Readiness {
        ready: some_usable && !draining,
        reasons,
    }
}

/// A pool is ready if one of its backends is usable; `None` if there is no such pool.
pub(super) fn of_pool(shared: &Shared, name: &str) -> Option<Readiness> {
    let snapshot = shared.current.load();
    let pool = snapshot.pool_named(name)?;
    let usable = pool.pool.is_usable();
    let mut reasons = Vec::new();
    if !usable {
        reasons.push(format!("pool {name:?} cannot take mail: {}", why_not(pool)));
    }
    let draining = is_draining(shared, &mut reasons);
    Some(Readiness {
        ready: usable && !draining,
        reasons,
    })
}

fn is_draining(shared: &Shared, reasons: &mut Vec<String>) -> bool {
    let draining = shared.phase() == RunPhase::Draining;
    if draining {
        reasons.push("draining: the process is shutting down".to_owned());
    }
    draining
}

/// How many backends are in which state: `2 down, 1 drain`.
fn why_not(pool: &PoolView) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for member in pool.pool.members() {
        let (admin, health) = member.settings.state.state();
        *counts.entry(state_name(admin, health)).or_default() += 1;
    }
    if !pool.unresolved.is_empty() {
        counts.insert("without an address", pool.unresolved.len());
    }
    if counts.is_empty() {
        return "it has no backend".to_owned();
    }
    let counts = counts
        .iter()
        .map(|(state, count)| format!("{count} {state}"));
    counts.collect::<Vec<_>>().join(", ")
}

/// The answer to a health check.
pub(super) fn reply(readiness: &Readiness) -> Reply {
    let (status, word) = if readiness.ready {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    let mut text = String::from(word);
    for reason in &readiness.reasons {
        text.push_str(reason);
        text.push('\n');
    }
    reply::plain(status, text)
}
