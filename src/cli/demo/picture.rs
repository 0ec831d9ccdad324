//! The live picture as lines: pure, from what the board knows and the size of the terminal.

use super::NAMES;
use super::board::{Board, Event, HISTORY, Mood, Row, Smtp, Voice};
use crate::cli::term::{Paint, bar, cut, pad, sparkline};

/// The picture is never wider.
const WIDTH_MAX: usize = 104;
/// Events that are shown, where there is room.
const EVENTS_SHOWN: usize = 12;
/// Lines that are not events.
const FIXED: usize = 19;

/// The lines of a frame, at most as many as there are rows.
pub(super) fn lines(board: &Board, (columns, rows): (usize, usize), paint: Paint) -> Vec<String> {
    let width = columns.saturating_sub(1).min(WIDTH_MAX);
    let mut lines = head(board, width, paint);
    lines.push(String::new());
    lines.extend(table(board, width, paint));
    lines.push(String::new());
    lines.extend(totals(board, paint));
    lines.push(String::new());
    let room = rows.saturating_sub(FIXED + board.places.notes.len());
    let room = room.clamp(1, EVENTS_SHOWN);
    lines.extend(events(board, room, paint));
    lines.push(String::new());
    lines.extend(try_it(board, paint));
    lines.truncate(rows);
    lines.iter().map(|line| cut(line, width)).collect()
}

fn head(board: &Board, width: usize, paint: Paint) -> Vec<String> {
    let left = format!(
        " {}  {}",
        paint.strong("POSTHOUSE"),
        paint.faint(match &board.smtp {
            None => "no client ever meets a dead backend",
            Some(_) => "a message survives its backend",
        })
    );
    let right = format!(
        "{}  {}",
        clock(board.elapsed.as_secs()),
        paint.faint("Ctrl-C ends it")
    );
    let mut lines = vec![format!(
        "{}{right}",
        pad(&left, width.saturating_sub(crate::cli::term::width(&right)))
    )];
    lines.push(paint.faint(&format!(" {}", "─".repeat(width.saturating_sub(1)))));
    lines.push(format!(
        " {} clients {} {} {} 3 backends   {} http://{}/",
        board.clients,
        paint.faint("──▶"),
        paint.accent(&board.places.listen.to_string()),
        paint.faint("──▶"),
        paint.faint("status"),
        board.places.admin
    ));
    for note in &board.places.notes {
        lines.push(format!(" {}", paint.warn(note)));
    }
    lines
}

fn table(board: &Board, width: usize, paint: Paint) -> Vec<String> {
    // Columns that do not give way: margin, name, state, messages, share, sessions, greeting, gaps.
    let rest = width.saturating_sub(64);
    let bar_width = (rest / 2).clamp(4, 24);
    let spark_width = (rest - bar_width.min(rest)).clamp(4, HISTORY);
    let mut lines = vec![paint.faint(&format!(
        "   {:<8}{:<17}{:<bar_width$}  {:>8} {:>6}  {:>4}  {:>8}   last {} s",
        "backend",
        "state",
        "got",
        "messages",
        "share",
        "now",
        match &board.smtp {
            None => "greeting",
            Some(_) => "kept",
        },
        spark_width / 2
    ))];
    let most = board.rows.iter().map(|row| row.messages).max().unwrap_or(0);
    let total = board.messages().max(1);
    for (name, row) in NAMES.iter().zip(&board.rows) {
        let (sign, colour): (&str, fn(Paint, &str) -> String) = match row.mood {
            Mood::Unknown => ("○", Paint::faint),
            Mood::Well => ("●", Paint::good),
            Mood::Weak => ("●", Paint::warn),
            Mood::Out => ("✖", Paint::bad),
        };
        let filled = bar(row.messages as f64 / most.max(1) as f64, bar_width);
        let share = row.messages as f64 * 100.0 / total as f64;
        let greeting = match (&board.smtp, row.greeting) {
            (Some(_), _) => row.kept.to_string(),
            (None, None) => "-".to_owned(),
            (None, Some(time)) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        };
        lines.push(format!(
            " {} {}{}{}  {:>8} {:>4.0} %  {:>4}  {greeting:>8}   {}",
            colour(paint, sign),
            pad(&paint.strong(name), 8),
            pad(&colour(paint, &row.state), 17),
            colour(paint, &filled),
            row.messages,
            share,
            row.now,
            colour(paint, &recent(row, spark_width)),
        ));
    }
    lines
}

fn recent(row: &Row, width: usize) -> String {
    let skipped = row.history.len().saturating_sub(width);
    let values: Vec<u64> = row.history.iter().skip(skipped).copied().collect();
    sparkline(&values)
}

fn totals(board: &Board, paint: Paint) -> Vec<String> {
    let traffic = board.traffic();
    let failed = if traffic.lost == 0 {
        paint.good("0 sessions refused")
    } else {
        paint.bad(&format!("{} SESSIONS REFUSED", traffic.lost))
    };
    let mut lines = match &board.smtp {
        None => sessions(board, &failed, paint),
        Some(smtp) => messages(board, smtp, &failed, paint),
    };
    if let Some(loss) = &traffic.last_loss {
        lines.push(paint.bad(&format!("   last loss: {loss}")));
    }
    lines
}

fn sessions(board: &Board, failed: &str, paint: Paint) -> Vec<String> {
    let traffic = board.traffic();
    let mut more = format!(
        "   {} failovers that no client saw",
        paint.strong(&board.failovers.to_string())
    );
    if traffic.cut > 0 {
        more.push_str(&paint.warn(&format!("   {} cut by a kill, sent again", traffic.cut)));
    }
    vec![
        format!(
            "   {failed}   {} messages   {} per second   slowest greeting {:.0} ms",
            paint.strong(&traffic.taken.to_string()),
            board.per_second(),
            traffic.slowest_greeting.as_secs_f64() * 1e3,
        ),
        more,
    ]
}

fn messages(board: &Board, smtp: &Smtp, failed: &str, paint: Paint) -> Vec<String> {
    let account = smtp.account;
    let never = |count: u64, word: &str| match count {
        0 => paint.good(&format!("0 {word}")),
        _ => paint.bad(&format!("{count} {}", word.to_uppercase())),
    };
    let mut more = format!(
        "   {} moved to another backend while they were sent   slowest message {:.0} ms",
        paint.strong(&smtp.moved.to_string()),
        board.traffic().slowest_message.as_secs_f64() * 1e3
    );
    if account.in_doubt > 0 {
        more.push_str(&paint.warn(&format!("   {} in doubt, sent again", account.in_doubt)));
    }
    vec![
        format!(
            "   {failed}   {} messages   {}   {}   {} per second",
            paint.strong(&account.acknowledged.to_string()),
            never(account.missing, "lost"),
            never(account.doubled, "doubled"),
            board.per_second(),
        ),
        more,
    ]
}

fn events(board: &Board, room: usize, paint: Paint) -> Vec<String> {
    let mut lines = vec![paint.faint("   what happens")];
    let skipped = board.events.len().saturating_sub(room);
    let shown = board.events.iter().skip(skipped);
    lines.extend(shown.map(|one| format!("   {}", event(one, paint))));
    // The place of events does not move the lines below while they come in.
    while lines.len() < room + 1 {
        lines.push(String::new());
    }
    lines
}

/// One event as a line.
pub(super) fn event(event: &Event, paint: Paint) -> String {
    let (who, colour): (&str, fn(Paint, &str) -> String) = match event.voice {
        Voice::Demo => ("demo", Paint::warn),
        Voice::Posthouse => ("posthouse", Paint::accent),
        Voice::You => ("you", Paint::good),
    };
    format!(
        "{} {} {} {}",
        paint.faint(&clock(event.at.as_secs())),
        pad(&colour(paint, who), 9),
        pad(&paint.strong(event.backend), 5),
        event.text
    )
}

fn try_it(board: &Board, paint: Paint) -> Vec<String> {
    let mut lines = vec![paint.faint("   send one yourself, in another terminal")];
    lines.extend(by_hand(board).map(|line| format!("   {}", paint.accent(&line))));
    lines
}

/// Two ways to send a message by hand; the second one takes two lines.
pub(super) fn by_hand(board: &Board) -> [String; 3] {
    let (host, port) = (board.places.listen.ip(), board.places.listen.port());
    [
        format!("swaks --server {host}:{port} --from me@example.org --to you@example.com"),
        r"printf '%s\n' 'HELO x' 'MAIL FROM:<a@x>' 'RCPT TO:<b@x>' DATA hi . QUIT |".to_owned(),
        format!("  nc -C {host} {port}"),
    ]
}

/// Minutes and seconds.
pub(super) fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}
