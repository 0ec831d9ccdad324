//! The demo as lines, where standard output is no terminal.

use std::io::{self, Write};

use super::NAMES;
use super::board::Board;
use super::picture::{by_hand, clock, event};
use crate::cli::term::Paint;

/// What was printed already.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: bool,
    events: usize,
    second: u64,
}

impl Lines {
    /// Prints what is new: events at once, counts once a second.
    pub(super) fn print(&mut self, board: &Board) -> io::Result<()> {
        let paint = Paint::for_stdout();
        let mut out = io::stdout().lock();
        if !self.begun {
            self.begun = true;
            writeln!(
                out,
                "demo: {} clients -> {} -> 3 backends; status http://{}/",
                board.clients, board.places.listen, board.places.admin
            )?;
            for note in &board.places.notes {
                writeln!(out, "demo: {note}")?;
            }
            let [swaks, ..] = by_hand(board);
            writeln!(out, "demo: send one yourself: {swaks}")?;
        }
        let new = (board.events_ever - self.events).min(board.events.len());
        self.events = board.events_ever;
        for one in board.events.iter().skip(board.events.len() - new) {
            writeln!(out, "{}", event(one, paint))?;
        }
        let second = board.elapsed.as_secs();
        if second > self.second {
            self.second = second;
            let counts: Vec<String> = NAMES
                .iter()
                .zip(&board.rows)
                .map(|(name, row)| format!("{name} {} ({})", row.messages, row.state))
                .collect();
            write!(
                out,
                "{} {}, sessions refused {}",
                clock(second),
                counts.join(", "),
                board.traffic().lost
            )?;
            if let Some(smtp) = &board.smtp {
                let account = smtp.account;
                write!(
                    out,
                    ", acknowledged {}, lost {}, doubled {}, moved {}, in doubt {}",
                    account.acknowledged,
                    account.missing,
                    account.doubled,
                    smtp.moved,
                    account.in_doubt
                )?;
            }
            writeln!(out)?;
        }
        out.flush()
    }
}
