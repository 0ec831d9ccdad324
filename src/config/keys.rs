//! Every key there is: type, range, default, behaviour at the limit, and why.
//!
//! The reader takes names and ranges from here and [`reference()`](super::reference()) its text;
//! tests prove that every default equals the model's. So the documentation cannot be wrong.

mod listener;
mod pool;
mod process;
mod smtp;

use std::time::Duration;

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// Its path; `NAME` stands for a name of the operator's choice. Empty for the top of the file.
    pub path: &'static str,
    /// What it is about, in sentences.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// The tables inside it.
    pub tables: &'static [&'static str],
}

/// A key of a table.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is, and in which range.
    pub kind: Kind,
    /// What holds when it is absent.
    pub default: Default,
    /// What happens at the limit, or at the ends of the range.
    pub at_limit: &'static str,
    /// Why it is there and why the default is what it is.
    pub why: &'static str,
}

/// What the value of a key is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number, both ends included.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A duration in quotes, both ends included.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// An amount of octets: a whole number, or one with a unit in quotes; both ends included.
    Size {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A percentage in quotes, up to `"100%"`.
    Percent {
        /// The least.
        min: u8,
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string of this form.
    Text(&'static str),
    /// A string of this form, or an array of such strings.
    List {
        /// The form of each.
        form: &'static str,
        /// How many at most.
        max: usize,
    },
}

/// What holds when a key is absent.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This value, as TOML.
    Value(&'static str),
    /// Something that no value says.
    Absent {
        /// A value, as TOML, to show the form.
        example: &'static str,
        /// What its absence means.
        means: &'static str,
    },
    /// The key must be there.
    Required {
        /// A value, as TOML, to show the form.
        example: &'static str,
    },
}

/// All tables, outer ones first.
pub const SECTIONS: &[Section] = &[
    process::TOP,
    process::LOG,
    process::ADMIN,
    listener::LISTENER,
    listener::REPLIES,
    smtp::LISTENER,
    smtp::REPLIES,
    pool::POOL,
    pool::HEDGE,
    pool::HEALTH,
    pool::EJECT,
    smtp::POOL,
    pool::BACKEND,
];

/// The table of this path.
pub(super) fn section(path: &str) -> &'static Section {
    SECTIONS
        .iter()
        .find(|section| section.path == path)
        .expect("the reader asks for tables of the list only, as any load proves")
}

const fn count(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Count { min, max, unit }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min: Duration::from_millis(min),
        max: Duration::from_millis(max),
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[cfg(test)]
mod tests;
