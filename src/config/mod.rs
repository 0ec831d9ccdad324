//! Configuration: from text to a [`Config`], with every mistake at once.
//!
//! [`load`] reads files; everything else is pure: [`parse`] from text, [`diff()`] between two
//! configurations, [`reference()`] the documentation of every key. Knows no sockets and no runtime.
//! An invalid file yields no [`Config`] at all, so nothing half-read can ever take effect.

mod check;
mod diff;
mod file;
mod foreign;
pub mod keys;
mod mistake;
pub mod model;
mod near;
mod read;
mod read_listener;
mod read_pool;
mod read_smtp;
mod reference;
mod report;
mod section;
mod value;
mod words;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

pub use check::leads_back;
pub use diff::{Binding, Plan, diff};
pub use file::read_regular;
pub use mistake::{Color, ConfigErrors, MISTAKES_MAX, Mistake, Severity, wrapped};
pub use model::Config;
pub use reference::reference;
pub use value::duration_text;

/// The largest configuration or backends file, in octets; a larger one is a mistake.
pub const FILE_OCTETS_MAX: u64 = 16 * 1024 * 1024;
/// The largest token file, in octets.
pub const TOKEN_OCTETS_MAX: u64 = 4096;

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
    load_on(path, &[])
}

/// The same on a host that has these addresses: a backend at one of them, on a port where we listen
/// on every address, is a mistake as well (rule M5).
///
/// # Errors
/// As [`load`].
pub fn load_on(path: &Path, own: &[IpAddr]) -> Result<Loaded, ConfigErrors> {
    load_with(path, own, None, &read_file)
}

/// The same for `posthouse check`: also what this machine would not let `run` do (files, folders,
/// ports in use).
///
/// # Errors
/// As [`load`].
pub fn load_here(
    path: &Path,
    own: &[IpAddr],
    here: &ListenChecks<'_>,
) -> Result<Loaded, ConfigErrors> {
    load_with(path, own, Some(here), &read_file)
}

/// As [`load_on`], with a reader of files other than the usual one. It must refuse files of more than
/// [`FILE_OCTETS_MAX`] octets.
///
/// # Errors
/// As [`load`].
pub fn load_by(
    path: &Path,
    own: &[IpAddr],
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, ConfigErrors> {
    load_with(path, own, None, read)
}

fn load_with(
    path: &Path,
    own: &[IpAddr],
    here: Option<&ListenChecks<'_>>,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, ConfigErrors> {
    let text = read(path).map_err(|error| {
        let unreadable = Mistake::unreadable(path, &error);
        ConfigErrors::new(vec![unreadable], 0, path)
    })?;
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Machine {
        name: hostname.trim(),
        addresses: own,
        here,
    };
    read::configuration(&text, path, machine, read)
}

/// What `[admin]` of the configuration file at `path` says, whatever is wrong with the rest of it:
/// a file that is being edited must not hide where the running process is asked.
///
/// # Errors
/// The file cannot be read.
pub fn admin_of(path: &Path) -> io::Result<Option<model::Admin>> {
    read_file(path).map(|text| read::admin_alone(text, path))
}

/// What the check of a file may know of the machine it is read on.
#[derive(Clone, Copy)]
struct Machine<'m> {
    name: &'m str,
    addresses: &'m [IpAddr],
    /// `None`: the file is not checked against the machine.
    here: Option<&'m ListenChecks<'m>>,
}

/// Whether this machine lets us listen on an address; only sockets can tell.
pub struct ListenChecks<'m> {
    /// Who listens on an address, unless nobody does or that is posthouse itself.
    pub holder: &'m dyn Fn(SocketAddr) -> Option<String>,
    /// What keeps this process from listening on an address, whoever else listens there.
    pub obstacle: &'m dyn Fn(SocketAddr) -> Option<Obstacle>,
}

/// Why a process may not listen on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The port needs a privilege that the process has not.
    Privilege,
    /// The host does not have the address now.
    NoSuchAddress,
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
    let machine = Machine {
        name: machine,
        addresses: &[],
        here: None,
    };
    read::configuration(text, origin, machine, read)
}

fn read_file(path: &Path) -> io::Result<String> {
    read_regular(path, FILE_OCTETS_MAX)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_nothing(_: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    #[test]
    fn the_name_of_the_machine_is_the_default_and_must_be_a_host_name() {
        let text = "[listeners.mx]\nbind = \"[::]:25\"\npool = \"mx\"\n\
                    [pools.mx.backends]\nmx1 = { address = \"10.0.0.11:25\" }\n";
        let load = |machine| parse(text, Path::new("a.toml"), machine, &read_nothing);
        let config = load("mx7.example.org").expect("a good file").config;
        assert_eq!(&*config.hostname, "mx7.example.org");
        assert_eq!(&*config.pools["mx"].health.ehlo_name, "mx7.example.org");
        let shutting_down = &config.listeners["mx"].replies.shutting_down;
        assert_eq!(&**shutting_down, "421 4.3.2 mx7.example.org shutting down");
        for machine in ["", "(none)", "two words", "x\r\n250 ok"] {
            let errors = load(machine).expect_err("no name to greet with");
            assert_eq!(errors.mistakes().len(), 1, "{machine:?}");
            assert!(
                errors.mistakes()[0]
                    .help
                    .as_deref()
                    .is_some_and(|h| h.contains("hostname"))
            );
        }
    }

    #[test]
    fn a_line_ending_of_windows_is_no_mistake_and_does_not_shift_places() {
        let errors = parse(
            "watch = true\r\nwrkers = 1\r\n",
            Path::new("a.toml"),
            "h",
            &read_nothing,
        )
        .expect_err("an unknown key");
        let place = |m: &Mistake| (m.path == "wrkers").then_some((m.line, m.column));
        assert_eq!(errors.mistakes().iter().find_map(place), Some((2, 1)));
        assert!(errors.render(Color::Off).contains("2 | wrkers = 1\n"));
    }

    proptest! {
        /// Promise 5 begins here: whatever the octets, the answer is a value.
        #[test]
        fn parsing_never_panics_on_any_octets(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            fuzz_parse(&data);
        }

        /// Cuts, doubles and swaps parts of the reference, where almost everything is almost right.
        #[test]
        fn parsing_never_panics_on_a_mutated_reference(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..60, edit()), 1..12)
        ) {
            let mut text: Vec<char> = reference().lines().filter(|line| !line.starts_with("# "))
                .flat_map(|line| line.chars().chain(['\n']))
                .collect();
            for (at, length, edit) in edits {
                let at = at.index(text.len().max(1)).min(text.len());
                let end = (at + length).min(text.len());
                text.splice(at..end, edit.chars());
            }
            let text: String = text.into_iter().collect();
            fuzz_parse(text.as_bytes());
        }
    }

    fn edit() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            Just("\"".to_owned()),
            Just("[".to_owned()),
            Just("]\n".to_owned()),
            Just("{ a = [{ b = 1 }] }".to_owned()),
            Just("99999999999999999999999".to_owned()),
            Just("\n[pools.mx]\n".to_owned()),
            Just("\u{1F4EE}é".to_owned()),
            "[ -~]{0,12}",
        ]
    }
}
