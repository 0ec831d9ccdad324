//! Where mistakes are collected, and the places they point to.
//!
//! Bounded: beyond [`MISTAKES_MAX`] they are only counted, but an error is never lost behind
//! warnings, because it decides whether the configuration is used.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Loaded;
use super::foreign;
use super::mistake::{ConfigErrors, MISTAKES_MAX, Mistake, Severity, Source};
use super::model::Config;
use super::value::Wrong;

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    mistakes: RefCell<Vec<Mistake>>,
    left_out: Cell<usize>,
    /// Lines that are no TOML: what was made of them is not worth a second mistake.
    broken: RefCell<BTreeSet<(PathBuf, usize)>>,
}

/// A place in a file that can be pointed at.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

impl Report {
    pub(super) fn error(&self, place: &Place, wrong: Wrong) {
        self.add(place, wrong, Severity::Error);
    }

    pub(super) fn warn(&self, place: &Place, wrong: Wrong) {
        self.add(place, wrong, Severity::Warning);
    }

    /// An error that holds only if everything could be read.
    pub(super) fn missing(&self, place: &Place, wrong: Wrong) {
        if self.is_whole() {
            self.error(place, wrong);
        }
    }

    /// A mistake of syntax; one per line, and one for a bracket that swallows what follows.
    pub(super) fn syntax(&self, place: &Place, message: &str) {
        let mut mistake = Mistake::at(&place.source, place.span.clone(), "");
        let line = (mistake.file.clone(), mistake.line);
        if !self.broken.borrow_mut().insert(line) {
            return;
        }
        let swallowed = message.contains("between array elements");
        let again = |m: &Mistake| m.message == message && m.file == mistake.file;
        if swallowed && self.mistakes.borrow().iter().any(again) {
            return;
        }
        let foreign = foreign::line(mistake.line_text());
        mistake.help = if let Some(help) = foreign {
            Some(help.to_owned())
        } else if swallowed {
            Some("is there a `]` missing before this?".to_owned())
        } else if message.contains("must be quoted") {
            Some("put the value in double quotes".to_owned())
        } else {
            None
        };
        message.clone_into(&mut mistake.message);
        if self.makes_room_for(Severity::Error) {
            self.push(mistake);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
    }

    /// Whether no file had a mistake of syntax.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.borrow().is_empty()
    }

    /// Whether there is an error so far.
    pub(super) fn has_errors(&self) -> bool {
        let mistakes = self.mistakes.borrow();
        mistakes.iter().any(|m| m.severity == Severity::Error)
    }

    /// The configuration with its warnings, or all mistakes.
    pub(super) fn into_result(self, main: &Path, config: Config) -> Result<Loaded, ConfigErrors> {
        let failed = self.has_errors();
        let mistakes = self.mistakes.into_inner();
        let warnings = ConfigErrors::new(mistakes, self.left_out.get(), main);
        if failed {
            return Err(warnings);
        }
        Ok(Loaded { config, warnings })
    }

    fn add(&self, place: &Place, wrong: Wrong, severity: Severity) {
        if !self.makes_room_for(severity) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        let mut mistake = Mistake::at(&place.source, place.span.clone(), &place.path);
        let line = (mistake.file.clone(), mistake.line);
        if !self.is_whole() && self.broken.borrow().contains(&line) {
            return;
        }
        mistake.message = wrong.message;
        mistake.help = wrong.help;
        mistake.severity = severity;
        self.push(mistake);
    }

    /// Whether a mistake more is kept; an error takes the place of a warning.
    fn makes_room_for(&self, severity: Severity) -> bool {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() < MISTAKES_MAX {
            return true;
        }
        let warning = |m: &Mistake| m.severity == Severity::Warning;
        let displaced = match severity {
            Severity::Error => mistakes.iter().rposition(warning),
            Severity::Warning => None,
        };
        if let Some(at) = displaced {
            mistakes.swap_remove(at);
            self.left_out.set(self.left_out.get() + 1);
        }
        displaced.is_some()
    }

    fn push(&self, mistake: Mistake) {
        self.mistakes.borrow_mut().push(mistake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: usize) -> Place {
        let text = "x\n".repeat(2 * MISTAKES_MAX);
        Place {
            source: Arc::new(Source::new(Path::new("a.toml"), text)),
            span: 2 * line..2 * line + 1,
            path: format!("key{line}"),
        }
    }

    #[test]
    fn an_error_is_never_lost_behind_warnings() {
        let report = Report::default();
        for line in 0..MISTAKES_MAX + 5 {
            report.warn(&place(line), Wrong::new("odd", ""));
        }
        assert!(!report.has_errors());
        report.error(&place(MISTAKES_MAX + 7), Wrong::new("bad", ""));
        assert!(report.has_errors());
        assert_eq!(report.left_out.get(), 6);
        assert_eq!(report.mistakes.borrow().len(), MISTAKES_MAX);
    }

    #[test]
    fn a_line_that_is_no_toml_gets_one_mistake_only() {
        let report = Report::default();
        report.syntax(&place(3), "what is this");
        report.syntax(&place(3), "and this");
        report.error(&place(3), Wrong::new("made of it", ""));
        report.missing(
            &place(9),
            Wrong::new("perhaps in the part that was lost", ""),
        );
        report.error(&place(4), Wrong::new("another line", ""));
        let kept = report.mistakes.borrow();
        let messages: Vec<&str> = kept.iter().map(|m| m.message.as_str()).collect();
        assert_eq!(messages, ["what is this", "another line"]);
    }
}
