//! One log line in its three forms: text, JSON, journal.
//!
//! Everything is appended to the caller's buffer; a plain value allocates nothing. No control
//! octet of a value ever reaches the output: neither a terminal nor a line-reading tool can be
//! led astray by what a peer sent. The journal form is a length (4 octets, little endian) and
//! the payload of one datagram, `MESSAGE` first.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use super::clock::Stamp;
use crate::config::model::LogLevel;

/// The longest value of one field in octets; the rest is cut.
pub(super) const VALUE_OCTETS_MAX: usize = 1024;

/// The longest key made of a name.
const COUNTED_KEY_MAX: usize = 64;

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `time level event key=value …`
    Text,
    /// One object per line.
    Json,
    /// One datagram of systemd's journal.
    Journal,
}

/// What every line begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) time: Stamp,
    pub(super) level: LogLevel,
    pub(super) event: &'a str,
}

/// Appends one line; `fields` is called once, or twice for the journal.
pub(super) fn line(
    out: &mut Vec<u8>,
    form: Form,
    head: Head<'_>,
    fields: impl Fn(&mut Fields<'_>),
) {
    match form {
        Form::Text => {
            out.extend_from_slice(&head.time);
            out.push(b' ');
            out.extend_from_slice(level_name(head.level).as_bytes());
            out.push(b' ');
            text_value(out, head.event);
            fields(&mut Fields { out, form });
            out.push(b'\n');
        }
        Form::Json => {
            out.extend_from_slice(b"{\"time\":\"");
            out.extend_from_slice(&head.time);
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(level_name(head.level).as_bytes());
            out.extend_from_slice(b"\",\"event\":");
            json_value(out, head.event);
            fields(&mut Fields { out, form });
            out.extend_from_slice(b"}\n");
        }
        Form::Journal => journal_entry(out, head, fields),
    }
}

fn journal_entry(out: &mut Vec<u8>, head: Head<'_>, fields: impl Fn(&mut Fields<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(b"MESSAGE=");
    text_value(out, head.event);
    fields(&mut Fields {
        out,
        form: Form::Text,
    });
    out.extend_from_slice(b"\nPRIORITY=");
    out.push(priority(head.level));
    out.extend_from_slice(b"\nSYSLOG_IDENTIFIER=posthouse\nEVENT=");
    escape(out, head.event, Escapes::Text);
    out.push(b'\n');
    fields(&mut Fields {
        out,
        form: Form::Journal,
    });
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The name of a level in text and JSON.
pub(super) fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Off => "off",
    }
}

/// The journal's PRIORITY (syslog severity, RFC 5424 §6.2.1).
fn priority(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => b'3',
        LogLevel::Warn => b'4',
        LogLevel::Info => b'6',
        LogLevel::Debug | LogLevel::Off => b'7',
    }
}

/// The fields of one line.
pub(super) struct Fields<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) form: Form,
}

impl Fields<'_> {
    /// A text; whatever it contains.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let cut = cut(value);
        match self.form {
            Form::Text => text_value(self.out, cut),
            Form::Json => json_value(self.out, cut),
            Form::Journal => {
                escape(self.out, cut, Escapes::Text);
                self.out.push(b'\n');
            }
        }
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str, value: impl Display) {
        self.key(key);
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "{value}");
        self.end();
    }

    /// A count whose key is a name that may hold any character (as `event src/x.rs:7`).
    pub(super) fn counted(&mut self, name: &str, count: u64) {
        let mut key = [b'_'; COUNTED_KEY_MAX];
        let length = name.len().min(COUNTED_KEY_MAX);
        for (to, from) in key.iter_mut().zip(name.bytes()) {
            if from.is_ascii_alphanumeric() || matches!(from, b'.' | b'-') {
                *to = from;
            }
        }
        let key = std::str::from_utf8(&key[..length]).expect("only ASCII was put in");
        self.number(key, count);
    }

    /// Milliseconds with three decimals.
    pub(super) fn millis(&mut self, key: &str, value: Duration) {
        self.key(key);
        millis(self.out, value);
        self.end();
    }

    /// Anything that can be displayed.
    pub(super) fn shown(&mut self, key: &str, value: impl Display) {
        self.written(key, |out| {
            let _ = write!(out, "{value}");
        });
    }

    /// What `write` appends, which must be UTF-8: quoted and escaped only if it has to be.
    pub(super) fn written(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        if self.form == Form::Json {
            self.out.push(b'"');
        }
        let start = self.out.len();
        write(self.out);
        let value = &self.out[start..];
        if value.len() > VALUE_OCTETS_MAX
            || value.is_empty()
            || !value.iter().copied().all(is_plain)
        {
            let value = String::from_utf8_lossy(value).into_owned();
            self.out.truncate(start);
            match self.form {
                Form::Text => text_value(self.out, cut(&value)),
                Form::Json => escape(self.out, cut(&value), Escapes::Json),
                Form::Journal => escape(self.out, cut(&value), Escapes::Text),
            }
        }
        if self.form == Form::Json {
            self.out.push(b'"');
        }
        self.end();
    }

    /// Texts, whatever they contain, between commas; in JSON an array. The caller bounds them.
    pub(super) fn list(&mut self, key: &str, values: &[&[u8]]) {
        self.key(key);
        let (open, close): (&[u8], &[u8]) = match self.form {
            Form::Text => (b"\"", b"\""),
            Form::Json => (b"[", b"]"),
            Form::Journal => (b"", b""),
        };
        self.out.extend_from_slice(open);
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let value = String::from_utf8_lossy(value);
            match self.form {
                Form::Json => json_value(self.out, cut(&value)),
                Form::Text | Form::Journal => escape(self.out, cut(&value), Escapes::Text),
            }
        }
        self.out.extend_from_slice(close);
        self.end();
    }

    /// The key with what separates it from the field before and from its value.
    pub(super) fn key(&mut self, key: &str) {
        match self.form {
            Form::Text => {
                self.out.push(b' ');
                self.out.extend_from_slice(key.as_bytes());
                self.out.push(b'=');
            }
            Form::Json => {
                self.out.extend_from_slice(b",\"");
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Form::Journal => {
                self.out.extend(key.bytes().map(journal_octet));
                self.out.push(b'=');
            }
        }
    }

    fn end(&mut self) {
        if self.form == Form::Journal {
            self.out.push(b'\n');
        }
    }
}

/// Milliseconds with three decimals, without a unit.
pub(super) fn millis(out: &mut Vec<u8>, value: Duration) {
    let micros = value.as_micros();
    let _ = write!(out, "{}.{:03}", micros / 1000, micros % 1000);
}

/// The journal takes A-Z, 0-9 and `_` in names.
fn journal_octet(octet: u8) -> u8 {
    match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => octet.to_ascii_uppercase(),
        _ => b'_',
    }
}

/// Octets that mean the same in all forms without quotes.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'"' | b'=' | b'\\')
}

fn text_value(out: &mut Vec<u8>, value: &str) {
    if !value.is_empty() && value.bytes().all(is_plain) {
        out.extend_from_slice(value.as_bytes());
    } else {
        out.push(b'"');
        escape(out, value, Escapes::Text);
        out.push(b'"');
    }
}

pub(super) fn json_value(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    escape(out, value, Escapes::Json);
    out.push(b'"');
}

/// How a character that must not be shown is written.
#[derive(Clone, Copy)]
enum Escapes {
    /// `\u{85}`
    Text,
    /// `\u0085`
    Json,
}

fn escape(out: &mut Vec<u8>, value: &str, escapes: Escapes) {
    if value.bytes().all(is_plain) {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    for character in value.chars() {
        match (character, escapes) {
            ('"' | '\\', _) => out.extend_from_slice(&[b'\\', character as u8]),
            ('\n', _) => out.extend_from_slice(b"\\n"),
            ('\r', _) => out.extend_from_slice(b"\\r"),
            ('\t', _) => out.extend_from_slice(b"\\t"),
            (hidden, Escapes::Text) if is_hidden(hidden) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(hidden));
            }
            (hidden, Escapes::Json) if is_hidden(hidden) => {
                let _ = write!(out, "\\u{:04x}", u32::from(hidden));
            }
            (shown, _) => out.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Controls (C0, DEL, C1), line and paragraph separators, and what turns the writing direction.
/// All lie in the basic plane, so that JSON needs no surrogates.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most [`VALUE_OCTETS_MAX`] octets, on a character's boundary.
fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(VALUE_OCTETS_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head<'static> {
        Head {
            time: *b"2026-11-22T02:55:47.123456Z",
            level: LogLevel::Info,
            event: "session.end",
        }
    }

    fn written(form: Form, fields: impl Fn(&mut Fields<'_>)) -> String {
        let mut out = Vec::new();
        line(&mut out, form, head(), fields);
        String::from_utf8(out).expect("lines are UTF-8")
    }

    fn nasty(fields: &mut Fields<'_>) {
        fields.text("a", "plain");
        fields.text("b", "two words");
        fields.text("c", "");
        fields.text("d", "x\r\n\"y\"\\\u{1b}[31m\u{85}\u{202e}é");
        fields.shown("e", "k=v");
        fields.number("f", 7);
        fields.millis("g", Duration::from_micros(1_002_003));
    }

    #[test]
    fn text_quotes_only_what_needs_it_and_hides_controls() {
        assert_eq!(
            written(Form::Text, nasty),
            "2026-11-22T02:55:47.123456Z info session.end a=plain b=\"two words\" c=\"\" \
             d=\"x\\r\\n\\\"y\\\"\\\\\\u{1b}[31m\\u{85}\\u{202e}é\" e=\"k=v\" f=7 g=1002.003\n"
        );
    }

    #[test]
    fn json_lines_parse_back_to_what_was_said() {
        let line = written(Form::Json, nasty);
        assert!(line.ends_with("}\n") && line.bytes().filter(|octet| *octet < 32).count() == 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["time"], "2026-11-22T02:55:47.123456Z");
        assert_eq!(value["event"], "session.end");
        assert_eq!(value["d"], "x\r\n\"y\"\\\u{1b}[31m\u{85}\u{202e}é");
        assert_eq!(value["c"], "");
        assert_eq!(value["f"], 7);
        assert_eq!(value["g"], 1002.003);
    }

    #[test]
    fn a_journal_entry_has_its_length_a_message_and_upper_cased_fields() {
        let mut entry = Vec::new();
        line(&mut entry, Form::Journal, head(), |fields| {
            fields.shown("client.addr", "192.0.2.1:99");
            fields.text("reply", "no\nway");
        });
        let (length, payload) = entry.split_first_chunk::<4>().expect("a length");
        assert_eq!(u32::from_le_bytes(*length) as usize, payload.len());
        assert_eq!(
            String::from_utf8_lossy(payload),
            "MESSAGE=session.end client.addr=192.0.2.1:99 reply=\"no\\nway\"\nPRIORITY=6\n\
             SYSLOG_IDENTIFIER=posthouse\nEVENT=session.end\nCLIENT_ADDR=192.0.2.1:99\n\
             REPLY=no\\nway\n"
        );
    }

    #[test]
    fn values_are_bounded() {
        let long = "é".repeat(VALUE_OCTETS_MAX);
        for form in [Form::Text, Form::Json] {
            let by_text = written(form, |fields| fields.text("a", &long)).len();
            let shown = written(form, |fields| fields.shown("a", &long)).len();
            assert!(by_text < 2 * VALUE_OCTETS_MAX + 300, "{by_text}");
            assert!(shown < 2 * VALUE_OCTETS_MAX + 300, "{shown}");
        }
    }

    #[test]
    fn every_character_survives_json() {
        for code in (0..0x1_1000).filter_map(char::from_u32) {
            let text = format!("a{code}b");
            let line = written(Form::Json, |fields| fields.text("v", &text));
            let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
            assert_eq!(value["v"], text.as_str(), "{code:?}");
        }
    }
}
