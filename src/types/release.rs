//! Which Posthouse this is.

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, shortened; "unknown" in a debug build or without a repository.
pub const COMMIT: &str = match option_env!("POSTHOUSE_BUILT_FROM") {
    Some(commit) => commit,
    None => "unknown",
};
