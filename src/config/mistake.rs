//! Mistakes in a configuration: where, what, and what to do; and how they look on a terminal.
//!
//! A [`Mistake`] keeps the text of its file, so that it can be shown long after the file changed.
//! Warnings travel in the same type, because a reader wants them in the same list and order.

use std::fmt::{self, Write as _};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use crate::types::in_words;

/// Mistakes that are kept; the rest is only counted. No one reads more, and each costs memory.
pub const MISTAKES_MAX: usize = 500;

/// Columns of a help where the terminal's are not known.
const COLUMNS: usize = 100;
/// What stands before a help: one column less than the digits of the line, blanks, `= help: `.
const HELP_MARGIN: usize = 11;

/// How bad a [`Mistake`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, but probably does not do what was meant.
    Warning,
}

/// Whether to colour what is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// With ANSI escapes.
    On,
    /// Plain text.
    Off,
}

/// One file as it was read.
#[derive(PartialEq, Eq)]
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) text: String,
    /// Where lines begin, so that a place is found without reading the text again.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(file: &Path, text: String) -> Self {
        let newlines = memchr::memchr_iter(b'\n', text.as_bytes());
        let lines = std::iter::once(0)
            .chain(newlines.map(|at| at + 1))
            .collect();
        Self {
            file: file.to_owned(),
            text,
            lines,
        }
    }

    /// The line that holds the octet at `at`, counted from 1, and where it begins.
    fn line(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at);
        (line, self.lines[line - 1])
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.file)
    }
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The key, for example `pools.mx.health.interval`; empty if no key is concerned.
    pub path: String,
    /// The file it is in.
    pub file: PathBuf,
    /// The octets of the file it is about; empty if it is about the whole file.
    pub span: Range<usize>,
    /// The line, counted from 1; 0 if it is about the whole file.
    pub line: usize,
    /// The character in the line, counted from 1; 0 if it is about the whole file.
    pub column: usize,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Error or warning.
    pub severity: Severity,
    #[serde(skip)]
    source: Arc<Source>,
}

impl Mistake {
    pub(super) fn at(source: &Arc<Source>, span: Range<usize>, path: &str) -> Self {
        let span = clamp(&source.text, span);
        let (line, line_start) = source.line(span.start);
        let before = &source.text[line_start..span.start];
        Self {
            path: path.to_owned(),
            file: source.file.clone(),
            line,
            column: before.chars().count() + 1,
            span,
            message: String::new(),
            help: None,
            severity: Severity::Error,
            source: Arc::clone(source),
        }
    }

    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        let (reason, help) = unreadable(error);
        Self {
            path: String::new(),
            file: file.to_owned(),
            span: 0..0,
            line: 0,
            column: 0,
            message: format!("cannot read {}: {reason}", file.display()),
            help: Some(help.to_owned()),
            severity: Severity::Error,
            source: Arc::new(Source::new(file, String::new())),
        }
    }

    /// The text of the line where it begins.
    pub(super) fn line_text(&self) -> &str {
        self.first_line().0
    }

    /// The mistake with its source line underlined, its key path and its help.
    pub fn render(&self, color: Color) -> String {
        self.render_within(color, COLUMNS)
    }

    /// The same for a terminal of so many columns.
    fn render_within(&self, color: Color, columns: usize) -> String {
        let renderer = match color {
            Color::On => Renderer::styled(),
            Color::Off => Renderer::plain(),
        };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let file = self.file.display().to_string();
        let title = level.primary_title(annotate_snippets::normalize_untrusted_str(&self.message));
        let mut group = if self.line == 0 {
            Group::with_title(title).element(Origin::path(file))
        } else {
            let (line, span) = self.first_line();
            let mark = AnnotationKind::Primary.span(span).label(self.path.clone());
            let snippet = Snippet::source(line).line_start(self.line).path(file);
            Group::with_title(title).element(snippet.annotation(mark))
        };
        if let Some(help) = &self.help {
            let margin = self.line.max(1).ilog10() as usize + HELP_MARGIN;
            let help = annotate_snippets::normalize_untrusted_str(help);
            let help = wrapped(&help, columns.saturating_sub(margin));
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// The line where the span begins, and the part of the span within it.
    fn first_line(&self) -> (&str, Range<usize>) {
        let text = &self.source.text;
        let (_, start) = self.source.line(self.span.start);
        let rest = &text[start..];
        let line = rest.split('\n').next().unwrap_or(rest);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let from = (self.span.start - start).min(line.len());
        let to = (self.span.end - start).clamp(from, line.len());
        (line, from..to)
    }
}

/// Text in lines of at most so many characters; a longer word has a line of its own.
pub fn wrapped(text: &str, columns: usize) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > columns {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// `file:line:column: key: message (help)`, on one line.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Why a file could not be read, and what to do.
pub(super) fn unreadable(error: &io::Error) -> (String, &'static str) {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "check the path, and the folder that it is relative to",
        io::ErrorKind::PermissionDenied => {
            "let the user that runs posthouse read the file and enter its folders"
        }
        io::ErrorKind::InvalidData => "save the file as UTF-8",
        io::ErrorKind::IsADirectory => "give the file in it",
        io::ErrorKind::InvalidInput => "give a regular file",
        io::ErrorKind::TimedOut => {
            "is it on a network file system whose server is gone? Give a file of this machine, or \
             try again when the server is back"
        }
        io::ErrorKind::FileTooLarge => "this is probably not the file you mean",
        _ => "try to read it with `cat`",
    };
    (in_words(error).into_owned(), help)
}

/// Moves a span onto characters that exist.
fn clamp(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// Every mistake of a configuration, in the order of the file; or every warning of a good one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors {
    mistakes: Vec<Mistake>,
    left_out: usize,
}

impl ConfigErrors {
    pub(super) fn new(mut mistakes: Vec<Mistake>, left_out: usize, main: &Path) -> Self {
        mistakes.sort_by(|a, b| {
            let key = |m: &Mistake| (m.file != main, m.file.clone(), m.span.start);
            key(a).cmp(&key(b))
        });
        mistakes.dedup_by(|a, b| a.file == b.file && a.span == b.span && a.message == b.message);
        Self { mistakes, left_out }
    }

    /// The mistakes, for JSON; at most [`MISTAKES_MAX`].
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// All mistakes, each with its source line, and a last line that counts them.
    pub fn render(&self, color: Color) -> String {
        self.render_within(color, COLUMNS)
    }

    /// The same for a terminal of so many columns.
    pub fn render_within(&self, color: Color, columns: usize) -> String {
        let mut text = String::new();
        for mistake in &self.mistakes {
            text.push_str(&mistake.render_within(color, columns));
            text.push_str("\n\n");
        }
        let of = |severity| {
            self.mistakes
                .iter()
                .filter(|m| m.severity == severity)
                .count()
        };
        let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
        let plural = |n: usize, word: &str| match n {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        };
        let counts: Vec<String> = [(errors, "mistake"), (warnings, "warning")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| plural(n, word))
            .collect();
        text.push_str(&counts.join(", "));
        if self.left_out > 0 {
            let _ = write!(text, ", and {} more that are not shown", self.left_out);
        }
        text.push('\n');
        text
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(Color::Off).trim_end())
    }
}

impl std::error::Error for ConfigErrors {}
