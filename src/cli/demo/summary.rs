//! The last word of the demo.

use std::fmt::Write as _;

use super::NAMES;
use super::board::Board;
use crate::cli::term::{Paint, bar, pad, width};

/// Who got what, and whether anything was lost.
pub(super) fn text(board: &Board, paint: Paint) -> String {
    let traffic = board.traffic();
    let total = board.messages().max(1) as f64;
    let mut text = format!(
        "\n{} {:.0} seconds, {} clients, {} messages\n\n",
        paint.strong("Posthouse demo:"),
        board.elapsed.as_secs_f64(),
        board.clients,
        traffic.taken,
    );
    for (name, row) in NAMES.iter().zip(&board.rows) {
        let share = row.messages as f64 / total;
        let _ = writeln!(
            text,
            "  {} {:>6} messages {:>3.0} %  {}",
            pad(&paint.strong(name), 6),
            row.messages,
            share * 100.0,
            paint.accent(bar(share, 40).trim_end())
        );
    }
    let failed = match traffic.lost {
        0 => paint.good("0"),
        lost => paint.bad(&lost.to_string()),
    };
    let slowest = traffic.slowest_greeting.as_secs_f64() * 1e3;
    let facts = [
        (failed, "failed sessions"),
        (
            board.failovers.to_string(),
            "failovers: another backend took over before the client saw anything",
        ),
        (
            traffic.cut.to_string(),
            "cut in the middle of a session by the kill",
        ),
        (
            traffic.sent_again.to_string(),
            "sent again because of it, as every mail server does",
        ),
        (format!("{slowest:.0} ms"), "the slowest greeting"),
    ];
    text.push('\n');
    for (amount, words) in facts {
        let margin = " ".repeat(8_usize.saturating_sub(width(&amount)));
        let _ = writeln!(text, "{margin}{amount} {words}");
    }
    let verdict = if board.is_clean() {
        paint.good("No session was lost, and every acknowledged message is in a backend.")
    } else if let Some(loss) = &traffic.last_loss {
        paint.bad(&format!(
            "{} sessions were lost; the last one {loss}",
            traffic.lost
        ))
    } else if board.unfinished {
        paint.bad("Some clients were still waiting at the end.")
    } else {
        paint.bad("An acknowledged message is in no backend.")
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}
