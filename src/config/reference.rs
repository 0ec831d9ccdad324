//! The documentation of every key, as a configuration that loads.
//!
//! Rendered from the table of keys, so that it cannot differ from what the reader accepts; the
//! copy in `config/reference.toml` is compared with it by a test.

use std::fmt::Write as _;

use super::keys::{Default, Key, Kind, SECTIONS, Section};
use super::value::{duration_text, size_text};

/// The longest line of a comment, in characters.
const LINE_MAX: usize = 100;

/// What must stand before the tables of mode "smtp": a listener in that mode, and its pool.
const RELAY: [(&str, &str); 2] = [
    (
        "listeners.NAME.smtp",
        "# Another listener, in mode \"smtp\".\n[listeners.relay]\n\
         bind = [\"0.0.0.0:2525\", \"[::]:2525\"]\nmode = \"smtp\"\npool = \"relay\"\n\n",
    ),
    (
        "pools.NAME.smtp",
        "# The pool of the listener in mode \"smtp\".\n[pools.relay.backends]\n\
         relay1 = { address = \"10.0.0.21:25\" }\n\n",
    ),
];

const HEAD: &str = "\
Every key of Posthouse, with its default, its range, what happens at the limit, and why it is \
there. This file is made from the program itself: posthouse config-reference > \
config/reference.toml

It loads as it is. Keys that are commented out have no default value: what holds without them is \
said above them. Durations are one whole number and a unit (ms, s, m, h, d); names of listeners, \
pools and backends are 1 to 64 of letters, digits, `.`, `_`, `-`. Check a file of yours with: \
posthouse check -c FILE";

/// Every key with its default, as text for `config/reference.toml`.
pub fn reference() -> String {
    let mut text = String::new();
    for paragraph in HEAD.split("\n\n") {
        comment(&mut text, paragraph);
        text.push_str("#\n");
    }
    text.truncate(text.len() - "#\n".len());
    for section in SECTIONS {
        table(&mut text, section);
    }
    text
}

fn table(text: &mut String, section: &Section) {
    text.push('\n');
    if let Some((_, before)) = RELAY.iter().find(|(path, _)| *path == section.path) {
        text.push_str(before);
    }
    comment(text, section.about);
    if !section.path.is_empty() {
        let _ = writeln!(text, "[{}]", example_path(section.path));
    }
    for key in section.keys {
        text.push('\n');
        entry(text, key);
    }
}

/// A path with names in place of `NAME`: listeners and pools are `mx`, a backend `mx1`; in mode
/// "smtp" they are `relay`.
pub(super) fn example_path(path: &str) -> String {
    path.replace("NAME.smtp", "relay.smtp")
        .replace("backends.NAME", "backends.mx1")
        .replace("NAME", "mx")
}

fn entry(text: &mut String, key: &Key) {
    comment(text, key.why);
    let mut facts = kind_text(key.kind);
    match key.default {
        Default::Value(_) => facts.push('.'),
        Default::Required { .. } => facts.push_str(". Required."),
        Default::Absent { means, .. } => {
            let _ = write!(facts, ". Without it: {means}.");
        }
    }
    if !key.at_limit.is_empty() {
        let _ = write!(facts, " {}", key.at_limit);
    }
    comment(text, &facts);
    let _ = match key.default {
        Default::Value(value) | Default::Required { example: value } => {
            writeln!(text, "{} = {value}", key.name)
        }
        Default::Absent { example, .. } => writeln!(text, "#{} = {example}", key.name),
    };
}

/// Type, range and unit.
fn kind_text(kind: Kind) -> String {
    match kind {
        Kind::Flag => "true or false".to_owned(),
        Kind::Count { min, max, unit } => {
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!(" {unit}")
            };
            format!("{min} to {max}{unit}")
        }
        Kind::Duration { min, max } => {
            format!("\"{}\" to \"{}\"", duration_text(min), duration_text(max))
        }
        Kind::Size { min, max } => {
            let [min, max] = [min, max].map(|octets| match size_text(octets) {
                text if text.ends_with('B') => format!("\"{text}\""),
                text => text,
            });
            format!("{min} to {max}: octets, or a number and KiB, MiB, GiB, kB, MB or GB")
        }
        Kind::Percent { min } => format!("\"{min}%\" to \"100%\""),
        Kind::Word([only]) => format!("Only \"{only}\" in this version"),
        Kind::Word(words) => {
            let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            quoted.join(" | ")
        }
        Kind::Text(form) => capital(form),
        Kind::List { form, .. } => format!("{}, or an array of them", capital(form)),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// A comment, wrapped.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_MAX {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
