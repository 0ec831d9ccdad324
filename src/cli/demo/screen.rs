//! The terminal as a picture: its own screen, given back however the demo ends.

use std::io::{self, Write};

use crate::cli::term::{self, Paint};

const ALTERNATE_ON: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const ALTERNATE_OFF: &str = "\x1b[?25h\x1b[?1049l";
/// A frame is shown whole or not at all, where the terminal knows how.
const FRAME_BEGIN: &str = "\x1b[?2026h\x1b[H";
const FRAME_END: &str = "\x1b[J\x1b[?2026l";

/// The alternate screen; dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen {
    paint: Paint,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> Self {
        put(ALTERNATE_ON).unwrap_or_default();
        Self {
            paint: Paint::for_stdout(),
        }
    }

    /// Columns and rows now.
    pub(super) fn size(&self) -> (usize, usize) {
        term::size().unwrap_or((80, 24))
    }

    /// Its colours.
    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// Draws a frame.
    pub(super) fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from(FRAME_BEGIN);
        for (row, line) in lines.iter().enumerate() {
            if row > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(line);
            frame.push_str("\x1b[K");
        }
        frame.push_str(FRAME_END);
        put(&frame)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        put(ALTERNATE_OFF).unwrap_or_default();
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
