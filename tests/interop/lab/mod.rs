//! The laboratory: real mail servers and clients, each test with its own.
//!
//! Every server runs in a temporary folder on ports taken from [`Port`], is ready when it has
//! greeted, and is stopped when its guard is dropped. `tests/install.sh` puts the programs where
//! this module looks for them; a missing one is a failure, never a skipped test. Nothing here
//! knows Posthouse except [`posthouse`].

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod dropping;
pub(crate) mod exim;
pub(crate) mod haproxy;
pub(crate) mod haraka;
pub(crate) mod opensmtpd;
pub(crate) mod port;
pub(crate) mod postfix;
pub(crate) mod posthouse;
pub(crate) mod process;
pub(crate) mod smtp_server;
pub(crate) mod smtp_source;
pub(crate) mod swaks;
pub(crate) mod tls;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) use client::Client;
pub(crate) use port::Port;

/// How long a test waits for an event before it says that the event did not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often something that cannot wake us (a log file, a port) is looked at while we wait.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `look` finds something, at most [`PATIENCE`]; then fails, naming `event`.
pub(crate) fn wait_for<T>(event: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "waited {PATIENCE:?} in vain for {event}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits for a line of a server's `log` with `text` in it.
pub(crate) fn wait_for_line(server: &str, text: &str, log: impl Fn() -> String) -> String {
    let event = format!("{server} to log {text:?}; it logged:\n{}", log());
    let with_text = |log: String| {
        let mut lines = log.lines();
        lines.find(|line| line.contains(text)).map(str::to_owned)
    };
    wait_for(&event, || with_text(log()))
}

/// Shows what helps to understand a failure.
#[expect(clippy::print_stderr, reason = "what a test says when it fails")]
pub(crate) fn say(what: &str) {
    eprintln!("{what}");
}

/// Ends the test with `what` went wrong.
#[expect(clippy::panic, reason = "the way a test fails")]
pub(crate) fn fail(what: &str) -> ! {
    panic!("{what}");
}

/// The ignored folder into which `tests/install.sh` unpacks servers.
pub(crate) fn lab_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".lab")
}

/// A program under [`lab_folder`].
///
/// # Panics
/// When `tests/install.sh` has not run.
pub(crate) fn unpacked(path: &str) -> PathBuf {
    let program = lab_folder().join(path);
    assert!(
        program.exists(),
        "{} is missing: run tests/install.sh",
        program.display()
    );
    program
}

/// Where the libraries of an unpacked server are, as `LD_LIBRARY_PATH` wants them, whatever the
/// architecture's folder is called.
pub(crate) fn unpacked_libraries(server: &str) -> String {
    let usr_lib = unpacked(server).join("usr/lib");
    let folders = std::fs::read_dir(&usr_lib).into_iter().flatten().flatten();
    let folders = folders
        .map(|entry| entry.path())
        .filter(|path| path.is_dir());
    let all: Vec<_> = folders
        .chain([usr_lib])
        .map(|path| path.display().to_string())
        .collect();
    all.join(":")
}

/// A folder for one server, which other accounts may enter, removed when dropped.
pub(crate) fn folder(name: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::Builder::new()
        .prefix(&format!("posthouse-{name}-"))
        .tempdir_in("/tmp")
        .expect("/tmp can be written");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("our own folder can be opened to others");
    folder
}
