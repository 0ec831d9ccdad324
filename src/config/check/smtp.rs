//! Checks across tables for mode "smtp": what a pool must be to stand behind such a listener, and
//! settings of that mode that nobody uses.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::model::{Depth, GreetingVerdicts, Identity, Mode};
use super::super::read::Everything;
use super::super::read_listener::ListenerRead;
use super::super::read_pool::PoolRead;
use super::super::report::Report;
use super::super::value::{Wrong, quota_text, size_text};

/// The shortest period for which counts that begin at zero after a restart are worth a word.
const QUOTA_PERIOD_KEPT: Duration = Duration::from_hours(1);

pub(super) fn across_tables(all: &Everything, report: &Report) {
    for (name, pool) in &all.pools {
        let leads_here = |read: &&ListenerRead| *read.listener.pool == **name;
        let listeners: Vec<&ListenerRead> = all.listeners.values().filter(leads_here).collect();
        let of_mode = |mode| listeners.iter().any(|read| read.mode == Some(mode));
        if of_mode(Mode::Smtp) {
            behind_smtp(name, pool, report);
            if listeners.iter().all(|read| read.mode == Some(Mode::Smtp)) {
                greeted_by_us(pool, report);
            }
        } else if !listeners.is_empty() && !report.has_errors() {
            unused(name, pool, report);
        }
        if of_mode(Mode::Smtp) && of_mode(Mode::Passthrough) {
            counted_in_part(pool, report);
        }
    }
    quotas_forget(all, report);
    memory_fits(all, report);
    state_file_is_its_own(all, report);
}

/// What the sessions of mode "smtp" need of a pool.
fn behind_smtp(name: &Arc<str>, pool: &PoolRead, report: &Report) {
    if pool.pool.identity != Identity::None {
        let wrong = Wrong::new(
            "the client's identity is not carried in mode \"smtp\" yet",
            format!(
                "set `identity = \"none\"` in [pools.{name}], or lead a listener in mode \
                 \"passthrough\" to it"
            ),
        );
        report.error(&pool.identity, wrong);
    }
    let health = &pool.pool.health;
    if health.probe && health.depth < Depth::Ehlo {
        let wrong = Wrong::new(
            "a listener in mode \"smtp\" leads to this pool, and needs to know what its backends \
             announce",
            format!("set `depth = \"ehlo\"` or deeper in [pools.{name}.health]"),
        );
        report.error(&pool.depth, wrong);
    }
}

fn greeted_by_us(pool: &PoolRead, report: &Report) {
    if pool.pool.greeting_verdicts == GreetingVerdicts::Relay {
        let wrong = Wrong::new(
            "in mode \"smtp\" no greeting of a backend is handed on: we have greeted the client",
            "remove this key: the next backend is tried",
        );
        report.warn(&pool.verdicts, wrong);
    }
}

/// Settings of mode "smtp" in a pool that only passthrough listeners use.
fn unused(name: &Arc<str>, pool: &PoolRead, report: &Report) {
    if let Some(place) = &pool.smtp {
        let wrong = Wrong::new(
            format!("no listener in mode \"smtp\" leads to the pool {name:?}"),
            "set `mode = \"smtp\"` in its listener, or remove this table",
        );
        report.warn(place, wrong);
    }
    if let Some(place) = pool.quotas.values().next() {
        let wrong = Wrong::new(
            "this is not counted: messages are seen in mode \"smtp\" only",
            "set `mode = \"smtp\"` in the listener of the pool, or limit `max_connections` instead",
        );
        report.warn(place, wrong);
    }
}

fn counted_in_part(pool: &PoolRead, report: &Report) {
    if let Some(place) = pool.quotas.values().next() {
        let wrong = Wrong::new(
            "messages that come through a listener in mode \"passthrough\" are not counted",
            "lead only listeners in mode \"smtp\" to this pool",
        );
        report.warn(place, wrong);
    }
}

/// A count for a day that a restart sets to zero lets twice as much through.
fn quotas_forget(all: &Everything, report: &Report) {
    if all.config.state_file.is_some() {
        return;
    }
    let pools = all.pools.values();
    let mut long = pools.flat_map(|pool| {
        pool.quotas.iter().filter_map(|(name, place)| {
            let mut quotas = pool.pool.backends[name].quota.iter();
            Some((
                quotas.find(|quota| quota.period >= QUOTA_PERIOD_KEPT)?,
                place,
            ))
        })
    });
    // Once is enough: the remedy is one for all.
    if let Some((quota, place)) = long.next() {
        let wrong = Wrong::new(
            format!(
                "after a restart the count of {} begins at zero",
                quota_text(quota)
            ),
            "add `state_file = \"/var/lib/posthouse/state\"` at the top of the file",
        );
        report.warn(place, wrong);
    }
}

fn memory_fits(all: &Everything, report: &Report) {
    let memory = all.config.replay_memory;
    for read in all.listeners.values() {
        let message = read.listener.smtp.replay_max;
        if read.mode == Some(Mode::Smtp) && 0 < memory && memory < message {
            let [message, memory] = [message, memory].map(size_text);
            let wrong = Wrong::new(
                format!(
                    "replay_memory ({memory}) has no room for one message of replay_max \
                         ({message})"
                ),
                "set replay_memory at the top of the file to more, or replay_max to less",
            );
            let place = read.replay_max.as_ref().unwrap_or(&all.replay_memory);
            report.warn(place, wrong);
        }
    }
}

/// The state file is written: it must be no file that is read.
fn state_file_is_its_own(all: &Everything, report: &Report) {
    let Some(state) = &all.config.state_file else {
        return;
    };
    let files = all
        .pools
        .values()
        .filter_map(|pool| pool.pool.backends_file.as_deref());
    let admin = all.config.admin.as_ref();
    let token = admin.and_then(|admin| admin.token_file.as_deref());
    let mut read = files.chain(token).chain([&*all.top.source.file]);
    if read.any(|file: &Path| file == state) {
        let wrong = Wrong::new(
            format!("{} would be overwritten", state.display()),
            "give a file of its own: \"/var/lib/posthouse/state\"",
        );
        report.error(&all.state_file, wrong);
    }
}
