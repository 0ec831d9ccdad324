//! The last word of the demo.

use std::fmt::Write as _;
use std::time::Duration;

use super::NAMES;
use super::board::{Board, Smtp};
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
    text.push('\n');
    let facts = match &board.smtp {
        None => of_sessions(board, paint),
        Some(smtp) => of_messages(board, smtp, paint),
    };
    for (amount, words) in facts {
        let margin = " ".repeat(8_usize.saturating_sub(width(&amount)));
        let _ = writeln!(text, "{margin}{amount} {words}");
    }
    let _ = writeln!(text, "\n{}", verdict(board, paint));
    text
}

type Facts = Vec<(String, &'static str)>;

/// A count that must be zero.
fn never(count: u64, paint: Paint) -> String {
    match count {
        0 => paint.good("0"),
        count => paint.bad(&count.to_string()),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

fn of_sessions(board: &Board, paint: Paint) -> Facts {
    let traffic = board.traffic();
    vec![
        (
            never(traffic.lost, paint),
            "sessions refused, or never greeted",
        ),
        (
            board.failovers.to_string(),
            "failovers: another backend took over before the client saw anything",
        ),
        (
            traffic.cut.to_string(),
            "sessions cut by the kill, after their backend had greeted (mode \"smtp\" has none)",
        ),
        (
            traffic.sent_again.to_string(),
            "messages of those, sent again by their clients as every mail server does",
        ),
        (
            milliseconds(traffic.slowest_greeting),
            "the slowest greeting",
        ),
    ]
}

fn of_messages(board: &Board, smtp: &Smtp, paint: Paint) -> Facts {
    let traffic = board.traffic();
    let account = smtp.account;
    let mut facts = vec![
        (
            never(traffic.lost, paint),
            "sessions refused, or never greeted",
        ),
        (account.acknowledged.to_string(), "messages acknowledged"),
        (
            never(account.missing, paint),
            "of them in no backend (compared by their numbers)",
        ),
        (never(account.doubled, paint), "of them in two"),
        (
            smtp.moved.to_string(),
            "moved to another backend while they were sent, unseen by the client",
        ),
    ];
    if account.in_doubt > 0 {
        facts.extend([
            (
                account.in_doubt.to_string(),
                "in doubt: the backend died after the last octet, so the client was told 451 and \
                 sent it again",
            ),
            (
                account.doubled_in_doubt.to_string(),
                "of those had arrived all the same",
            ),
        ]);
    }
    facts.extend([
        (
            smtp.connections.0.to_string(),
            "connections were dialled for all that",
        ),
        (
            milliseconds(traffic.slowest_message),
            "the slowest message, from MAIL to the reply",
        ),
    ]);
    facts
}

fn verdict(board: &Board, paint: Paint) -> String {
    let traffic = board.traffic();
    match &board.smtp {
        None if board.is_clean() && traffic.cut == 0 => {
            paint.good("No session was lost, and every acknowledged message is in a backend.")
        }
        None if board.is_clean() => paint.good(&format!(
            "Every client was greeted and no message was lost: what was cut ({}) was sent again.",
            traffic.cut
        )),
        Some(smtp) if board.is_clean() && smtp.account.in_doubt == 0 => paint
            .good("No session was lost, and every acknowledged message is in exactly one backend."),
        Some(_) if board.is_clean() => paint.good(
            "No session was lost, and every acknowledged message that was not in doubt is in \
             exactly one backend.",
        ),
        _ => match &traffic.last_loss {
            Some(loss) => paint.bad(&format!(
                "{} sessions were refused or never greeted; the last one {loss}",
                traffic.lost
            )),
            None if board.unfinished => paint.bad("Some clients were still waiting at the end."),
            None if board
                .smtp
                .as_ref()
                .is_some_and(|smtp| smtp.account.doubled > 0) =>
            {
                paint.bad("A message that was not in doubt is in two backends.")
            }
            None => paint.bad("An acknowledged message is in no backend."),
        },
    }
}
