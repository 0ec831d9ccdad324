//! The last word of the demo.

use std::fmt::Write as _;

use super::NAMES;
use super::board::Board;
use crate::cli::term::{Paint, bar, pad};

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
    let _ = write!(
        text,
        "\n  {failed:>6} failed sessions\n  {:>6} times another backend took over before the client \
         saw anything\n  {:>6} sessions cut in the middle by a kill; {} messages sent again\n  \
         {:>3.0} ms slowest greeting\n",
        board.failovers,
        traffic.cut,
        traffic.sent_again,
        traffic.slowest_greeting.as_secs_f64() * 1e3,
    );
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
