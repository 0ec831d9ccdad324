//! One table of the file, read key by key.
//!
//! A [`Section`] knows from the table of [`keys`] which keys there are and in which
//! range; what is wrong goes to the [`Report`] and the field keeps its default, so that one pass
//! finds every mistake. A key that is read but not in the table of keys, or the reverse, is a bug
//! that any test finds: `key` and `finish` assert it.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::foreign;
use super::keys::{self, Key, Kind};
use super::near;
use super::report::{Place, Report};
use super::value::{self, Wrong};
use crate::types::Percent;

/// Listeners, pools, or backends of one pool, at most.
const ENTRIES_MAX: usize = 65_536;

/// A value that stands in the file, with its place.
pub(super) struct Found<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) place: Place,
}

/// One table, or its absence (then every key has its default).
pub(super) struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    /// Where the table is; where to point when a key is missing.
    pub(super) place: Place,
    pub(super) report: &'a Report,
    keys: &'static keys::Section,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        table: Option<&'a DeTable<'a>>,
        place: Place,
        pattern: &str,
        report: &'a Report,
    ) -> Self {
        Self {
            table,
            place,
            report,
            keys: keys::section(pattern),
            asked: RefCell::default(),
        }
    }

    /// A table inside this one that may be absent.
    pub(super) fn child(&self, name: &'static str) -> Section<'a> {
        assert!(
            self.keys.tables.contains(&name),
            "{name} is not in the table of keys"
        );
        let found = self.table_of(name);
        let pattern = join(self.keys.path, name);
        let place = found
            .as_ref()
            .map_or_else(|| self.place.clone(), |(_, place)| place.clone());
        Section::new(found.map(|(table, _)| table), place, &pattern, self.report)
    }

    /// The table of this name, if it is there and a table.
    pub(super) fn table_of(&self, name: &str) -> Option<(&'a DeTable<'a>, Place)> {
        let (key, value) = self.table?.get_key_value(name)?;
        let mut place = self.at(name, value.span());
        if place.span.is_empty() {
            place.span = key.span();
        }
        match value.get_ref() {
            DeValue::Table(table) => Some((table, place)),
            other => {
                self.wrong_type(
                    &Found {
                        value: other,
                        place,
                    },
                    "a table",
                    None,
                );
                None
            }
        }
    }

    /// The places of the entries of a table of tables: names are checked, other types refused.
    pub(super) fn named(
        &self,
        name: &'static str,
        help: &str,
    ) -> Vec<(Arc<str>, &'a DeTable<'a>, Place)> {
        assert!(
            self.keys.tables.contains(&name),
            "{name} is not in the table of keys"
        );
        self.table_of(name)
            .map(|(table, place)| entries(table, &place, help, self.report))
            .unwrap_or_default()
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The value of `name`, if it is there.
    pub(super) fn found(&self, name: &'static str) -> Option<(Found<'a>, &'static Key)> {
        let key = self.key(name);
        let value = self.table?.get(name)?;
        let place = self.at(name, value.span());
        let value = value.get_ref();
        Some((Found { value, place }, key))
    }

    /// The place of `name`, or of the table where it is not written.
    pub(super) fn place_of(&self, name: &str) -> Place {
        match self.table.and_then(|table| table.get(name)) {
            Some(value) => self.at(name, value.span()),
            None => self.place.clone(),
        }
    }

    /// Whether `name` is written in the file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(name))
    }

    pub(super) fn flag(&self, name: &'static str, into: &mut bool) {
        let Some((found, key)) = self.found(name) else {
            return;
        };
        assert!(
            matches!(key.kind, Kind::Flag),
            "{name} is not a flag in the table of keys"
        );
        match found.value {
            DeValue::Boolean(value) => *into = *value,
            other => {
                let meant = other.as_str().and_then(|text| match text {
                    "yes" | "on" | "true" | "enabled" => Some("write true without quotes"),
                    "no" | "off" | "false" | "disabled" => Some("write false without quotes"),
                    _ => None,
                });
                self.wrong_type(&found, "true or false", meant.map(str::to_owned));
            }
        }
    }

    /// A whole number within the range of the table of keys.
    pub(super) fn count<T: TryFrom<u64>>(&self, name: &'static str, into: &mut T) {
        let Some((found, key)) = self.found(name) else {
            return;
        };
        let Kind::Count { min, max, unit } = key.kind else {
            unreachable!("{name} is not a count in the table of keys");
        };
        let DeValue::Integer(integer) = found.value else {
            let help = found
                .value
                .as_str()
                .filter(|text| text.parse::<u64>().is_ok());
            let help = help.map(|text| format!("write {text} without quotes"));
            return self.wrong_type(&found, "a whole number", help);
        };
        let parsed = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fitting = parsed.filter(|number| (min..=max).contains(number));
        match fitting.and_then(|number| T::try_from(number).ok()) {
            Some(value) => *into = value,
            None => self.report.error(
                &found.place,
                Wrong {
                    message: format!("{integer} is outside {min} to {max}{}", spaced(unit)),
                    help: limit_help(key),
                },
            ),
        }
    }

    /// The same for a key whose absence means something of its own.
    pub(super) fn count_opt<T: TryFrom<u64> + Default>(
        &self,
        name: &'static str,
        into: &mut Option<T>,
    ) {
        let mut value = T::default();
        self.count(name, &mut value);
        if self.has(name) {
            *into = Some(value);
        }
    }

    pub(super) fn duration(&self, name: &'static str, into: &mut Duration) {
        if let Some(duration) = self.duration_opt(name) {
            *into = duration;
        }
    }

    pub(super) fn duration_opt(&self, name: &'static str) -> Option<Duration> {
        let (found, key) = self.found(name)?;
        let Kind::Duration { min, max } = key.kind else {
            unreachable!("{name} is not a duration in the table of keys");
        };
        if let DeValue::Integer(number) = found.value {
            let help =
                format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds");
            self.report.error(
                &found.place,
                Wrong::new(format!("{number} has no unit"), help),
            );
            return None;
        }
        let duration = self.read(&found, "a duration such as \"5s\"", value::duration)?;
        if (min..=max).contains(&duration) {
            return Some(duration);
        }
        let [low, high] = [min, max].map(value::duration_text);
        self.report.error(
            &found.place,
            Wrong {
                message: format!(
                    "{} is outside {low} to {high}",
                    value::duration_text(duration)
                ),
                help: limit_help(key),
            },
        );
        None
    }

    /// An amount of octets, as a whole number or with a unit in quotes.
    pub(super) fn size(&self, name: &'static str, into: &mut u64) {
        let Some((found, key)) = self.found(name) else {
            return;
        };
        let Kind::Size { min, max } = key.kind else {
            unreachable!("{name} is not a size in the table of keys");
        };
        let read = match found.value {
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix())
                .map_err(|_| integer.to_string()),
            _ => match self.read(&found, "a size such as \"25MiB\"", value::size) {
                Some(octets) => Ok(octets),
                None => return,
            },
        };
        match read {
            Ok(octets) if (min..=max).contains(&octets) => *into = octets,
            Ok(_) | Err(_) => {
                let shown = read.map_or_else(|text| text, value::size_text);
                let [low, high] = [min, max].map(value::size_text);
                let message = format!("{shown} is outside {low} to {high}");
                let help = limit_help(key);
                self.report.error(&found.place, Wrong { message, help });
            }
        }
    }

    pub(super) fn percent(&self, name: &'static str, into: &mut Percent) {
        let Some((found, key)) = self.found(name) else {
            return;
        };
        let Kind::Percent { min } = key.kind else {
            unreachable!("{name} is not a percentage in the table of keys");
        };
        if let DeValue::Integer(number) = found.value {
            let help = format!("write \"{number}%\"");
            return self.wrong_type(&found, "a percentage in quotes", Some(help));
        }
        match self.read(&found, "a percentage such as \"50%\"", value::percent) {
            Some(value) if value.value() >= min => *into = value,
            Some(_) => {
                let message = format!("the least here is {min}%");
                let help = limit_help(key);
                self.report.error(&found.place, Wrong { message, help });
            }
            None => {}
        }
    }

    /// One of a few words; the words of the table of keys must be exactly these.
    pub(super) fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)], into: &mut T) {
        self.word_except(name, words, into, |_| None);
    }

    /// The same; nothing where what is written is none of them.
    pub(super) fn word_or<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> Option<T> {
        let read = self.read_word(name, words, |_| None);
        read.or_else(|| (!self.has(name)).then_some(default))
    }

    /// The same, where some words are known but refused for a reason of their own.
    pub(super) fn word_except<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&str, T)],
        into: &mut T,
        refused: impl Fn(&str) -> Option<Wrong>,
    ) {
        if let Some(value) = self.read_word(name, words, refused) {
            *into = value;
        }
    }

    fn read_word<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&str, T)],
        refused: impl Fn(&str) -> Option<Wrong>,
    ) -> Option<T> {
        let key = self.key(name);
        let Kind::Word(known) = key.kind else {
            unreachable!("{name} is not a word in the table of keys");
        };
        assert!(
            known.iter().eq(words.iter().map(|(word, _)| word)),
            "the words of {name} are not those of the table of keys"
        );
        let (found, _) = self.found(name)?;
        let read = |text: &str| match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(refused(text).unwrap_or_else(|| Wrong {
                message: format!("{:?} is not known here", value::shown(text)),
                help: word_help(name, text, known),
            })),
        };
        if found.value.as_str().is_none() {
            let help = near::list("", known).map(|list| format!("write a word in quotes; {list}"));
            self.wrong_type(&found, "a string", help);
            return None;
        }
        self.read(&found, "a string", read)
    }

    /// A string that `read` understands.
    pub(super) fn text<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (found, key) = self.found(name)?;
        let Kind::Text(form) = key.kind else {
            unreachable!("{name} is not a text in the table of keys");
        };
        self.read(&found, form, read)
    }

    /// A string or an array of strings that `read` understands, each with its place.
    pub(super) fn list<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<(T, Place)> {
        let Some((found, key)) = self.found(name) else {
            return Vec::new();
        };
        let Kind::List { form, max } = key.kind else {
            unreachable!("{name} is not a list in the table of keys");
        };
        let DeValue::Array(array) = found.value else {
            return self
                .read(&found, form, read)
                .map(|value| (value, found.place))
                .into_iter()
                .collect();
        };
        if array.len() > max {
            let message = format!("{} entries are more than {max}", array.len());
            self.report.error(
                &found.place,
                Wrong {
                    message,
                    help: None,
                },
            );
        }
        array
            .iter()
            .take(max)
            .filter_map(|entry| {
                let place = self.at(name, entry.span());
                let value = entry.get_ref();
                let entry = Found { value, place };
                Some((self.read(&entry, form, &read)?, entry.place))
            })
            .collect()
    }

    fn read<T>(
        &self,
        found: &Found<'_>,
        form: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let Some(text) = found.value.as_str() else {
            self.wrong_type(found, form, None);
            return None;
        };
        read(text)
            .map_err(|wrong| self.report.error(&found.place, wrong))
            .ok()
    }

    /// A key that must be there.
    pub(super) fn require(&self, name: &'static str, help: &str) {
        let there = self.has(name);
        if !there && self.is_present() {
            let wrong = Wrong::new(format!("`{name}` is missing"), help);
            self.report.missing(&self.place, wrong);
        }
    }

    /// Whether a list or table is not written, or written with nothing in it.
    pub(super) fn is_unset_or_empty(&self, name: &str) -> bool {
        let value = self.table.and_then(|table| table.get(name));
        value.is_none_or(|value| {
            let value = value.get_ref();
            value.as_array().is_some_and(|array| array.is_empty())
                || value.as_table().is_some_and(DeTable::is_empty)
        })
    }

    /// A mistake of this key.
    pub(super) fn error(&self, name: &str, message: impl Into<String>, help: &str) {
        self.report
            .error(&self.place_of(name), Wrong::new(message, help));
    }

    /// A warning about this key.
    pub(super) fn warn(&self, name: &str, message: impl Into<String>, help: &str) {
        self.report
            .warn(&self.place_of(name), Wrong::new(message, help));
    }

    /// Reports the keys that are not known; asserts that every known one was read.
    pub(super) fn finish(&self) {
        for key in self.keys.keys {
            assert!(
                self.asked.borrow().contains(&key.name),
                "{}.{} is in the table of keys but is not read",
                self.keys.path,
                key.name
            );
        }
        let Some(table) = self.table else {
            return;
        };
        let names = || self.keys.keys.iter().map(|key| key.name);
        let known: Vec<&str> = names().chain(self.keys.tables.iter().copied()).collect();
        for (key, _) in table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let wrong = Wrong {
                message: format!("there is no key `{}` here", value::shown(name)),
                help: Some(self.unknown_help(name, &known)),
            };
            self.report.error(&self.at(name, key.span()), wrong);
        }
    }

    /// The same word first, then what other programs call so, then the spelling.
    fn unknown_help(&self, name: &str, known: &[&str]) -> String {
        if let Some(same) = near::same(name, known.iter().copied()) {
            return format!("did you mean `{same}`?");
        }
        if let Some(help) = foreign::key(name, self.keys.path) {
            return help.to_owned();
        }
        if let Some(help) = self.elsewhere(name) {
            return help;
        }
        near::help(name, known).unwrap_or_else(|| "nothing is known here".to_owned())
    }

    /// Where a key of this name belongs.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let others = keys::SECTIONS
            .iter()
            .filter(|section| section.path != self.keys.path);
        let places: Vec<(&str, &str)> = others
            .filter_map(|section| {
                let names = section.keys.iter().map(|key| key.name);
                Some((section.path, near::same(name, names)?))
            })
            .collect();
        let (first, key) = *places.first()?;
        let tables: Vec<&str> = places.iter().map(|(path, _)| *path).collect();
        Some(match (first, tables.len()) {
            ("", 1) => format!("`{key}` belongs at the top of the file, above every [table]"),
            ("", _) => format!(
                "`{key}` belongs at the top of the file, above every [table], or into [{}]",
                tables[1..].join("] or [")
            ),
            _ => format!("`{key}` belongs into [{}]", tables.join("] or [")),
        })
    }

    fn key(&self, name: &'static str) -> &'static Key {
        self.asked.borrow_mut().push(name);
        self.keys
            .keys
            .iter()
            .find(|key| key.name == name)
            .expect("every key that is read is in the table of keys, as any load proves")
    }

    fn at(&self, name: &str, span: Range<usize>) -> Place {
        Place {
            source: Arc::clone(&self.place.source),
            span,
            path: join(&self.place.path, name),
        }
    }

    fn wrong_type(&self, found: &Found<'_>, expected: &str, help: Option<String>) {
        wrong_type(self.report, found, expected, help);
    }
}

/// The same word first, then what other programs call so, then the spelling.
fn word_help(key: &str, word: &str, known: &[&str]) -> Option<String> {
    if let Some(same) = near::same(word, known.iter().copied()) {
        return Some(format!("did you mean `{same}`?"));
    }
    if let Some(ours) = foreign::value(key, word).filter(|ours| known.contains(ours)) {
        return Some(format!("known here as {ours:?}: write `{key} = {ours:?}`"));
    }
    near::help(word, known)
}

/// What happens at the limit, as a remedy: it begins small and ends without a full stop.
fn limit_help(key: &Key) -> Option<String> {
    let text = key.at_limit.strip_suffix('.')?;
    let mut chars = text.chars();
    let first = chars.next()?;
    let lower: String = first.to_lowercase().collect();
    Some(lower + chars.as_str())
}

/// The entries of a table of tables.
pub(super) fn entries<'a>(
    table: &'a DeTable<'a>,
    place: &Place,
    help: &str,
    report: &Report,
) -> Vec<(Arc<str>, &'a DeTable<'a>, Place)> {
    if table.len() > ENTRIES_MAX {
        let message = format!("{} entries are more than {ENTRIES_MAX}", table.len());
        report.error(place, Wrong::new(message, "split them over several tables"));
    }
    let mut entries = Vec::with_capacity(table.len().min(ENTRIES_MAX));
    for (key, entry) in table.iter().take(ENTRIES_MAX) {
        let here = entry_place(place, key, entry);
        let name = value::name(key.get_ref()).map_err(|wrong| {
            let span = key.span();
            report.error(
                &Place {
                    span,
                    ..here.clone()
                },
                wrong,
            );
        });
        let DeValue::Table(inner) = entry.get_ref() else {
            let found = Found {
                value: entry.get_ref(),
                place: here,
            };
            wrong_type(report, &found, "a table", Some(help.to_owned()));
            continue;
        };
        if let Ok(name) = name {
            entries.push((name, inner, here));
        }
    }
    entries
}

fn entry_place(
    place: &Place,
    key: &Spanned<toml::de::DeString<'_>>,
    entry: &Spanned<DeValue<'_>>,
) -> Place {
    let span = if entry.span().is_empty() {
        key.span()
    } else {
        entry.span()
    };
    Place {
        source: Arc::clone(&place.source),
        span,
        path: join(&place.path, key.get_ref()),
    }
}

fn wrong_type(report: &Report, found: &Found<'_>, expected: &str, help: Option<String>) {
    let article = match found.value.type_str() {
        "integer" | "array" => "an",
        _ => "a",
    };
    let message = format!(
        "expected {expected}, found {article} {}",
        found.value.type_str()
    );
    report.error(&found.place, Wrong { message, help });
}

/// A key path; names with a dot are quoted as the file needs it.
fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    let name = if bare {
        name.to_owned()
    } else {
        format!("{:?}", value::shown(name))
    };
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    }
}
