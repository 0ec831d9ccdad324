//! The terminal: colours where they are wanted, widths, and bars.
//!
//! Colours are off when the stream is no terminal, when `NO_COLOR` is set, or `TERM` is `dumb`.

use std::io::{self, IsTerminal, Write};

use crate::config;

/// Paints words, or leaves them plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub(super) Colors);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    On,
    Off,
}

impl Paint {
    /// For standard output.
    pub(super) fn for_stdout() -> Self {
        Self::when(io::stdout().is_terminal())
    }

    /// For standard error.
    pub(super) fn for_stderr() -> Self {
        Self::when(io::stderr().is_terminal())
    }

    fn when(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(if terminal && !refused {
            Colors::On
        } else {
            Colors::Off
        })
    }

    /// The same choice, as the configuration's renderer takes it.
    pub(super) fn for_config(self) -> config::Color {
        match self.0 {
            Colors::On => config::Color::On,
            Colors::Off => config::Color::Off,
        }
    }

    pub(super) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn accent(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self.0 {
            Colors::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Colors::Off => text.to_owned(),
        }
    }
}

/// Prints to standard output. A pipe that was closed (`| head`) wants no more, which is no error.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Columns and rows of the terminal on standard output.
pub(super) fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 0).then_some((columns, rows))
}

/// Columns of the terminal on standard error, or those of a file.
pub(super) fn columns_of_stderr() -> usize {
    const OF_A_FILE: usize = 100;
    const LEAST: usize = 40;
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let columns = size.map(|size| usize::from(size.ws_col));
    columns
        .filter(|columns| *columns >= LEAST)
        .unwrap_or(OF_A_FILE)
}

/// A bar of `width` cells, filled in eighths.
pub(super) fn bar(share: f64, width: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    #[expect(
        clippy::cast_sign_loss,
        reason = "the share is clamped to 0..=1, the width is small"
    )]
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(PARTS[eighths % 8]);
    let cells = eighths.div_ceil(8);
    bar.push_str(&" ".repeat(width.saturating_sub(cells)));
    bar
}

/// A row of bars of height 0 to 8, one for each value.
pub(super) fn sparkline(values: &[u64]) -> String {
    const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    values
        .iter()
        .map(|value| HEIGHTS[(value * 8).div_ceil(most) as usize])
        .collect()
}

/// The visible width of painted text: characters outside escape sequences.
pub(super) fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            // Every sequence we write is CSI … letter.
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            columns += 1;
        }
    }
    columns
}

/// Painted text, padded with spaces to so many columns.
pub(super) fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// Painted text, cut to so many columns.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            out.push(character);
            for more in characters.by_ref() {
                out.push(more);
                if more.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if left > 0 {
            out.push(character);
            left -= 1;
        }
    }
    out.push('…');
    if out.contains('\x1b') {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_asked_and_as_full_as_the_share() {
        for tenth in 0..=10_u8 {
            let bar = bar(f64::from(tenth) / 10.0, 20);
            assert_eq!(width(&bar), 20, "{tenth}");
            assert_eq!(bar.matches('█').count(), usize::from(tenth) * 2, "{tenth}");
        }
        assert_eq!(bar(f64::NAN, 4), "    ");
        assert_eq!(bar(0.3125, 2), "▋ ");
    }

    #[test]
    fn sparklines_reach_the_top_at_the_most() {
        assert_eq!(sparkline(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(sparkline(&[0, 0]), "  ");
    }

    #[test]
    fn colours_take_no_columns() {
        let red = Paint(Colors::On).bad("dead");
        assert_eq!(width(&red), 4);
        assert_eq!(width(&pad(&red, 9)), 9);
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(width(&cut(&red, 3)), 3);
        assert_eq!(cut("abc", 3), "abc");
    }
}
