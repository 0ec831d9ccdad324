//! Configuration: from text to a [`Config`], with every mistake at once.
//!
//! [`load`] reads files; everything else is pure: [`parse`] from text, [`diff`] between two
//! configurations, [`reference()`] the documentation of every key. Knows no sockets and no runtime.
//! An invalid file yields no [`Config`] at all, so nothing half-read can ever take effect.

mod check;
mod diff;
pub mod keys;
mod mistake;
pub mod model;
mod near;
mod read;
mod read_listener;
mod read_pool;
mod reference;
mod section;
mod value;
mod words;

use std::io::{self, Read as _};
use std::path::Path;

pub use diff::{Binding, Plan, diff};
pub use mistake::{Color, ConfigErrors, MISTAKES_MAX, Mistake, Severity};
pub use model::Config;
pub use reference::reference;

/// The largest configuration or backends file, in octets; a larger one is a mistake.
pub const FILE_OCTETS_MAX: u64 = 16 * 1024 * 1024;

/// A configuration without mistakes, and what looks odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Only warnings; often empty.
    pub warnings: ConfigErrors,
}

/// Reads the configuration file at `path` and the backends files it names.
///
/// # Errors
/// Every mistake in any of them, and warnings among them; or why a file could not be read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    load_with_warnings(path).map(|loaded| loaded.config)
}

/// The same, keeping the warnings of a configuration without mistakes.
///
/// # Errors
/// As [`load`].
pub fn load_with_warnings(path: &Path) -> Result<Loaded, ConfigErrors> {
    let text = read_file(path).map_err(|error| {
        let unreadable = Mistake::unreadable(path, &error);
        ConfigErrors::new(vec![unreadable], 0, path)
    })?;
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    parse(&text, path, hostname.trim(), &read_file)
}

/// Reads a configuration from text that came from the file `origin`, on a machine named
/// `machine`; backends files are read by `read`.
///
/// # Errors
/// As [`load`].
pub fn parse(
    text: &str,
    origin: &Path,
    machine: &str,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, ConfigErrors> {
    read::configuration(text, origin, machine, read)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(FILE_OCTETS_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {} MiB", FILE_OCTETS_MAX >> 20),
        ));
    }
    Ok(text)
}

/// The fuzzer's way in: any octets; nothing may panic, and what is rendered must be text.
pub fn fuzz_parse(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = |_: &Path| Ok(text.clone().into_owned());
    match parse(&text, Path::new("fuzz.toml"), "fuzz.example", &read) {
        Ok(loaded) => {
            let _ = loaded.warnings.render(Color::On);
        }
        Err(errors) => {
            let _ = errors.render(Color::On);
            let _ = errors.render(Color::Off);
        }
    }
}
