//! What `version` says: release, commit, kind of build, machine.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

use super::{Exit, term};
use crate::types::{COMMIT, VERSION};

static LINE: LazyLock<String> = LazyLock::new(write);

/// One line, without the program's name.
pub(super) fn line() -> &'static str {
    &LINE
}

/// `posthouse version`: the same line as `--version`.
pub(super) fn run() -> Exit {
    term::say(&format!("posthouse {}\n", line()));
    Exit::Done
}

fn write() -> String {
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "{VERSION} (commit {COMMIT}, {build} build, {ARCH}-{OS}, Rust {} or later)",
        env!("CARGO_PKG_RUST_VERSION"),
    )
}
