//! What `--version` says: release, kind of build, machine. No repository is needed to build it.

use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

static LINE: LazyLock<String> = LazyLock::new(write);

/// One line, without the program's name.
pub(super) fn line() -> &'static str {
    &LINE
}

fn write() -> String {
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!(
        "{} ({build} build, {ARCH}-{OS}, Rust {} or later)",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_RUST_VERSION"),
    )
}
