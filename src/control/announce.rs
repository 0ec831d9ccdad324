//! What the log says of the process itself: that it starts, with what, that it serves, and how it
//! ended. A log that begins with these lines explains every later one.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use super::handle::{Handle, shown};
use super::running::Ended;
use crate::config::Config;
use crate::config::model::{AdminBind, Mode};
use crate::snapshot::Shared;
use crate::types::{COMMIT, VERSION};

/// Listeners that a line names.
const LISTENERS_MAX: usize = 32;

/// What this machine and the configuration allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessLimits {
    /// Data threads.
    pub(super) workers: usize,
    /// Sessions at once.
    pub(super) max_sessions: u32,
    /// File descriptors.
    pub(super) descriptors: u64,
}

/// Before anything is bound: what is about to be done, so that a failure has its context.
pub(super) fn start(config: &Config, path: Option<&Path>, limits: ProcessLimits) {
    let backends: usize = config.pools.values().map(|pool| pool.backends.len()).sum();
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        pid = std::process::id(),
        config = shown(path),
        hostname = &*config.hostname,
        listeners = listeners(config),
        pools = config.pools.len(),
        backends,
        admin = admin(config),
        workers = limits.workers,
        max_sessions = limits.max_sessions,
        descriptors = limits.descriptors,
        "start"
    );
}

/// Every address listens; with the ports that the kernel chose.
pub(super) fn ready(handle: &Handle) {
    let listening = handle.listening();
    let mut addresses = String::new();
    for (name, address) in listening.iter().take(LISTENERS_MAX) {
        let _ = write!(addresses, "{}{name} {address}", separator(&addresses));
    }
    say_rest(&mut addresses, listening.len());
    let shared = handle.shared();
    tracing::info!(
        listening = addresses,
        generation = shared.current.load().generation.0,
        start_ms = Instant::now().duration_since(shared.started).as_millis(),
        "ready"
    );
}

/// The last line.
pub(super) fn stopped(shared: &Shared, ended: Ended) {
    let cut = match ended {
        Ended::Clean | Ended::Failed => 0,
        Ended::Cut { sessions } => sessions,
    };
    let uptime = Instant::now().duration_since(shared.started);
    tracing::info!(sessions_cut = cut, uptime_s = uptime.as_secs(), "stopped");
}

/// `mx passthrough 0.0.0.0:25 [::]:25 -> mx`, separated by commas.
fn listeners(config: &Config) -> String {
    let mut text = String::new();
    for (name, listener) in config.listeners.iter().take(LISTENERS_MAX) {
        let mode = match listener.mode {
            Mode::Passthrough => "passthrough",
            Mode::Smtp => "smtp",
        };
        let _ = write!(text, "{}{name} {mode}", separator(&text));
        for bind in &listener.bind {
            let _ = write!(text, " {bind}");
        }
        let _ = write!(text, " -> {}", listener.pool);
    }
    say_rest(&mut text, config.listeners.len());
    text
}

fn admin(config: &Config) -> String {
    let Some(admin) = &config.admin else {
        return "off".to_owned();
    };
    let binds = admin.bind.iter().map(|bind| match bind {
        AdminBind::Tcp(address) => address.to_string(),
        AdminBind::Unix { path, .. } => format!("unix:{}", path.display()),
    });
    binds.collect::<Vec<_>>().join(" ")
}

fn separator(text: &str) -> &'static str {
    if text.is_empty() { "" } else { ", " }
}

fn say_rest(text: &mut String, count: usize) {
    if count > LISTENERS_MAX {
        let _ = write!(text, ", and {} more", count - LISTENERS_MAX);
    }
}
