//! The terminal as a picture: its own screen, given back however the demo ends.

use std::io::{self, Write};

const ALTERNATE_ON: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const ALTERNATE_OFF: &str = "\x1b[?25h\x1b[?1049l";
/// A frame is shown whole or not at all, where the terminal knows how.
const FRAME_BEGIN: &str = "\x1b[?2026h\x1b[H";
const FRAME_END: &str = "\x1b[J\x1b[?2026l";

/// The alternate screen; dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen {
    /// What is on it: an unchanged frame is not drawn again.
    shown: String,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> Self {
        put(ALTERNATE_ON).unwrap_or_default();
        Self {
            shown: String::new(),
        }
    }

    /// Draws a frame.
    pub(super) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut frame = String::from(FRAME_BEGIN);
        for (row, line) in lines.iter().enumerate() {
            if row > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(line);
            frame.push_str("\x1b[K");
        }
        frame.push_str(FRAME_END);
        if frame == self.shown {
            return Ok(());
        }
        put(&frame)?;
        self.shown = frame;
        Ok(())
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
