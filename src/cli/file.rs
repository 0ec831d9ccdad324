//! The configuration file to use: `-c FILE`, else the variable POSTHOUSE_CONFIG, else the usual place.
//! The same for every command that reads it or asks the process that runs with it.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where a configuration is if none is named.
const USUAL_PATH: &str = "/etc/posthouse/posthouse.toml";
/// The environment variable that may name it.
const VARIABLE: &str = "POSTHOUSE_CONFIG";

/// `-c FILE`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigArg {
    /// The configuration file [default: $POSTHOUSE_CONFIG, else /etc/posthouse/posthouse.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// The configuration file to use, and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) named_by: NamedBy,
}

/// Who named a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// The operator, by the option or the variable.
    Operator,
    /// Nobody: it is the usual place.
    Nobody,
}

impl ConfigArg {
    /// The file to use.
    pub(super) fn file(&self) -> ConfigFile {
        meant(self.config.clone(), std::env::var_os(VARIABLE))
    }
}

impl ConfigFile {
    /// What to say when it cannot be read and nobody named it.
    pub(super) fn hint(&self) -> Option<String> {
        (self.named_by == NamedBy::Nobody && !self.path.exists()).then(|| {
            format!("no configuration was named: use -c FILE, or set {VARIABLE} to its path")
        })
    }
}

fn meant(typed: Option<PathBuf>, variable: Option<OsString>) -> ConfigFile {
    let variable = variable
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    match typed.or(variable) {
        Some(path) => ConfigFile {
            path,
            named_by: NamedBy::Operator,
        },
        None => ConfigFile {
            path: PathBuf::from(USUAL_PATH),
            named_by: NamedBy::Nobody,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_goes_before_the_variable_and_that_before_the_usual_place() {
        let meant = |typed: Option<&str>, variable: Option<&str>| {
            let meant = meant(typed.map(PathBuf::from), variable.map(OsString::from));
            (meant.path.to_string_lossy().into_owned(), meant.named_by)
        };
        assert_eq!(
            meant(Some("a"), Some("b")),
            ("a".to_owned(), NamedBy::Operator)
        );
        assert_eq!(meant(None, Some("b")), ("b".to_owned(), NamedBy::Operator));
        for unset in [None, Some("")] {
            let usual = (USUAL_PATH.to_owned(), NamedBy::Nobody);
            assert_eq!(meant(None, unset), usual);
        }
    }
}
