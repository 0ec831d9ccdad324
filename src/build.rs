//! Before the build: which commit this is, for `posthouse version`.
//!
//! Only release builds ask, so that a commit does not make a developer build everything again. A
//! packager without a repository sets `POSTHOUSE_COMMIT`; outside of a repository of our own it is
//! "unknown". Nothing here can fail a build.

use std::path::Path;
use std::process::Command;

/// The environment variable for packagers.
const GIVEN: &str = "POSTHOUSE_COMMIT";
/// The name under which the program reads the commit. It is another one, because cargo passes it on
/// to the tests that it runs: a build within a test must not take it for a packager's.
const BUILT: &str = "POSTHOUSE_BUILT_FROM";
/// Digits of a commit.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed={GIVEN}");
    let commit = given().or_else(of_repository);
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={BUILT}={commit}");
}

fn given() -> Option<String> {
    let given = std::env::var(GIVEN).ok()?;
    let is_word = !given.is_empty() && given.bytes().all(|c| c.is_ascii_graphic());
    is_word.then_some(given)
}

fn of_repository() -> Option<String> {
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // An archive of ours that was unpacked inside another repository has no commit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // The commit changes with the branch that is checked out, or with what the branch names.
    watch("HEAD");
    watch("packed-refs");
    if let Some(branch) = git(&["symbolic-ref", "--quiet", "HEAD"]) {
        watch(&branch);
    }
    git(&["rev-parse", &format!("--short={DIGITS}"), "HEAD"])
}

/// Builds again when this file of the repository changes; one that is missing would do so each time.
fn watch(file: &str) {
    if let Some(path) = git(&["rev-parse", "--git-path", file])
        && Path::new(&path).exists()
    {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
