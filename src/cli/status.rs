//! `posthouse status`: what the running process does, as a table.
//!
//! Pools, tiers and backends with their state and why. Colour only on a terminal; what backends
//! said is shown without control octets.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use hyper::Method;

use super::Exit;
use super::endpoint::{AdminArgs, Endpoint, runtime, shown};
use super::term::{Colors, Paint};
use crate::admin::views::{Backend, Pool, Status};
use crate::admin::{duration, marks, period, replay_memory, short};

/// The longest cause in a table.
const CAUSE_CHARACTERS_MAX: usize = 72;

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Show it again every so many seconds, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u16).range(1..=3600)
    )]
    pub(super) watch: Option<u16>,
    /// The whole status as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Where the running process is asked.
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

/// Shows the status once, or again and again. Exit code 1 if the process is not ready.
///
/// # Errors
/// There was no answer (without `--watch`), or nobody reads the output any more.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let endpoint = args.admin.endpoint()?;
    let runtime = runtime()?;
    let paint = Paint::for_stdout();
    let Some(seconds) = args.watch else {
        let body = runtime.block_on(ask(&endpoint))?;
        let (text, ready) = show(&body, args.json, paint)?;
        put_out(&text)?;
        return Ok(if ready { Exit::Done } else { Exit::Mistakes });
    };
    loop {
        let text = match runtime.block_on(ask(&endpoint)) {
            Ok(body) => show(&body, args.json, paint)?.0,
            // It may be restarting: that is what one watches for.
            Err(error) => format!("{}\n", shown(&format!("{error:#}"))),
        };
        let clear = if std::io::stdout().is_terminal() {
            "\x1b[H\x1b[2J\x1b[3J"
        } else {
            ""
        };
        put_out(&format!("{clear}{text}"))?;
        std::thread::sleep(Duration::from_secs(u64::from(seconds)));
    }
}

async fn ask(endpoint: &Endpoint) -> anyhow::Result<Vec<u8>> {
    let answer = endpoint.ask_for(Method::GET, "/status", None).await?;
    Ok(answer.body.into())
}

fn show(body: &[u8], json: bool, paint: Paint) -> anyhow::Result<(String, bool)> {
    let status: Status =
        serde_json::from_slice(body).context("the answer is no status of posthouse")?;
    let text = if json {
        String::from_utf8_lossy(body).into_owned()
    } else {
        render(&status, paint)
    };
    Ok((text, status.ready))
}

fn put_out(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write the table")
}

/// A state in its colour; `padded` is how it is shown.
fn state(paint: Paint, word: &str, padded: &str) -> String {
    match word {
        "up" | "ready" => paint.good(padded),
        "down" | "ejected" | "not ready" => paint.bad(padded),
        _ => paint.warn(padded),
    }
}

/// Which side of a column is straight.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// A table whose columns are as wide as their widest cell.
struct Table {
    heads: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
    /// The column that holds a state, to be coloured.
    state: Option<usize>,
}

impl Table {
    fn render(&self, out: &mut String, paint: Paint) {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .chain([self.heads[column].0.len()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let heads: Vec<String> = self
            .heads
            .iter()
            .map(|(head, _)| (*head).to_owned())
            .collect();
        let line = self.line(&heads, &widths, Paint(Colors::Off));
        let _ = writeln!(out, "{}", paint.strong(&line));
        for row in &self.rows {
            let _ = writeln!(out, "{}", self.line(row, &widths, paint));
        }
    }

    fn line(&self, cells: &[String], widths: &[usize], paint: Paint) -> String {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let gap = " ".repeat(width - cell.chars().count());
            let padded = match self.heads[column].1 {
                Side::Left => format!("{cell}{gap}"),
                Side::Right => format!("{gap}{cell}"),
            };
            if self.state == Some(column) {
                line.push_str(&state(paint, cell, &padded));
            } else {
                line.push_str(&padded);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn render(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    let word = match (status.phase.as_str(), status.ready) {
        ("draining", _) => "draining",
        (_, true) => "ready",
        (_, false) => "not ready",
    };
    let replay = replay_memory(status).map_or(String::new(), |replay| format!(", {replay}"));
    let _ = writeln!(
        out,
        "posthouse {} on {}: {}, up {}, generation {}, {} of {} sessions{replay}",
        shown(&status.version),
        shown(&status.hostname),
        state(paint, word, word),
        duration(status.uptime_seconds),
        status.generation,
        status.limits.sessions,
        status.limits.sessions_max
    );
    for reason in &status.reasons {
        let _ = writeln!(out, "  {}", shown(reason));
    }
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| !reload.ok) {
        let _ = writeln!(
            out,
            "  the last reload was refused ({} wrong): posthouse check shows every mistake",
            reload.mistakes.len()
        );
    }
    for change in &status.restart_needed {
        let _ = writeln!(out, "  restart needed: {}", shown(change));
    }
    out.push('\n');
    listeners(status).render(&mut out, paint);
    if status
        .listeners
        .iter()
        .any(|listener| listener.mail.is_some())
    {
        out.push('\n');
        mail(status).render(&mut out, paint);
    }
    for pool in &status.pools {
        out.push('\n');
        self::pool(pool, &mut out, paint);
    }
    for leaving in &status.leaving {
        let line = format!(
            "removed: {}/{} at {} still has {} sessions",
            leaving.pool, leaving.name, leaving.address, leaving.open
        );
        let _ = write!(out, "\n{}\n", shown(&line));
    }
    out
}

fn listeners(status: &Status) -> Table {
    let rows = status.listeners.iter().map(|listener| {
        vec![
            shown(&listener.name),
            shown(&listener.mode),
            shown(&listener.bind.join(" ")),
            shown(&listener.pool),
            listener.sessions.to_string(),
            listener.accepted.to_string(),
        ]
    });
    Table {
        heads: vec![
            ("LISTENER", Side::Left),
            ("MODE", Side::Left),
            ("ADDRESS", Side::Left),
            ("POOL", Side::Left),
            ("SESSIONS", Side::Right),
            ("ACCEPTED", Side::Right),
        ],
        rows: rows.collect(),
        state: None,
    }
}

/// The mail of listeners in smtp mode.
fn mail(status: &Status) -> Table {
    let listeners = status.listeners.iter();
    let rows = listeners.filter_map(|listener| {
        let mail = listener.mail.as_ref()?;
        let counts = [
            mail.transactions(&["accepted"]),
            mail.transactions(&["refused", "refused-by-us"]),
            mail.transactions(&["abandoned"]),
            mail.transactions(&["no-backend", "failed", "cut"]),
            mail.transactions(&["in-doubt"]),
            mail.recipients_accepted,
            mail.message_bytes / 1_000_000,
        ];
        let cells = counts.iter().map(ToString::to_string);
        Some([shown(&listener.name)].into_iter().chain(cells).collect())
    });
    Table {
        heads: vec![
            ("MAIL", Side::Left),
            ("ACCEPTED", Side::Right),
            ("REFUSED", Side::Right),
            ("GIVEN UP", Side::Right),
            ("NOT PLACED", Side::Right),
            ("IN DOUBT", Side::Right),
            ("RECIPIENTS", Side::Right),
            ("MB", Side::Right),
        ],
        rows: rows.collect(),
        state: None,
    }
}

/// What backends were given of their quotas.
fn quotas(pool: &Pool) -> Table {
    let rows = pool.quotas.iter().map(|quota| {
        vec![
            shown(&quota.backend),
            quota.used.to_string(),
            quota.limit.to_string(),
            format!("{} in {}", shown(&quota.unit), period(quota.period_seconds)),
        ]
    });
    Table {
        heads: vec![
            ("QUOTA", Side::Left),
            ("USED", Side::Right),
            ("LIMIT", Side::Right),
            ("OF", Side::Left),
        ],
        rows: rows.collect(),
        state: None,
    }
}

fn pool(pool: &Pool, out: &mut String, paint: Paint) {
    let title = format!("pool {}", shown(&pool.name));
    let _ = write!(
        out,
        "{}: {}, {} usable, {} of {} waiting",
        paint.strong(&title),
        shown(&pool.balance),
        pool.usable,
        pool.waiting,
        pool.waiting_max
    );
    if pool.all_down {
        let _ = write!(out, ", {}", state(paint, "down", "no backend is healthy"));
    }
    if pool.failback_pending {
        let _ = write!(
            out,
            ", a standby tier serves until: posthouse backend {} failback",
            shown(&pool.name)
        );
    }
    out.push('\n');
    for (at, name) in pool.unresolved.iter().enumerate() {
        let cause = pool.unresolved_causes.get(at);
        let cause = cause.map_or("its host name has no address", |cause| cause);
        let _ = writeln!(out, "  backend {}: {}", shown(name), shown(cause));
    }
    backends(pool).render(out, paint);
    for mark in marks(pool) {
        let _ = writeln!(out, "  {}", shown(&mark));
    }
    if !pool.quotas.is_empty() {
        out.push('\n');
        quotas(pool).render(out, paint);
    }
}

fn backends(pool: &Pool) -> Table {
    let mut heads = vec![
        ("BACKEND", Side::Left),
        ("ADDRESS", Side::Left),
        ("TIER", Side::Left),
        ("STATE", Side::Left),
        ("FOR", Side::Right),
        ("OPEN", Side::Right),
        ("IN FLIGHT", Side::Right),
        ("SESSIONS", Side::Right),
        ("STRIKES", Side::Right),
        ("PROBE MS", Side::Right),
        ("WEIGHT", Side::Right),
        ("CAUSE", Side::Left),
    ];
    let has_mail = pool.has_mail();
    if has_mail {
        heads.splice(8..8, MAIL_COLUMNS.map(|head| (head, Side::Right)));
    }
    let mut rows = Vec::new();
    for tier in &pool.tiers {
        let rank = if tier.open {
            tier.tier.to_string()
        } else {
            format!("{} standby", tier.tier)
        };
        rows.extend(tier.backends.iter().map(|backend| {
            let mut row = row(&rank, backend);
            if has_mail {
                row.splice(8..8, mail_cells(backend));
            }
            row
        }));
    }
    Table {
        heads,
        rows,
        state: Some(3),
    }
}

/// What backends of a pool in smtp mode have in addition.
const MAIL_COLUMNS: [&str; 4] = ["KEPT", "MESSAGES", "MOVED", "IN DOUBT"];

fn mail_cells(backend: &Backend) -> [String; MAIL_COLUMNS.len()] {
    let mail = backend.mail.clone().unwrap_or_default();
    let moved = mail.moved.values().sum();
    [mail.kept_idle, mail.accepted, moved, mail.in_doubt].map(|count: u64| count.to_string())
}

fn row(rank: &str, backend: &Backend) -> Vec<String> {
    let probe = backend.probe.as_ref();
    let open = match backend.open_max {
        0 => backend.open.to_string(),
        most => format!("{}/{most}", backend.open),
    };
    let weight = if backend.weight_override.is_some() {
        format!("{}*", short(backend.weight_effective))
    } else {
        short(backend.weight_effective)
    };
    let mut cause = shown(&backend.cause.words);
    if let Some((at, _)) = cause.char_indices().nth(CAUSE_CHARACTERS_MAX) {
        cause.truncate(at);
        cause.push('…');
    }
    vec![
        shown(&backend.name),
        shown(&backend.address),
        rank.to_owned(),
        shown(&backend.state_words()),
        duration(backend.since_seconds),
        open,
        backend.in_flight.to_string(),
        backend.totals.sessions.to_string(),
        backend.totals.strikes.to_string(),
        probe.map_or("-".to_owned(), |probe| format!("{:.1}", probe.duration_ms)),
        weight,
        cause,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::{
        BackendMail, Cause, Listener, ListenerMail, Mark, Probe, Quota, Tier, Totals,
    };

    const PLAIN: Paint = Paint(Colors::Off);
    const COLOURED: Paint = Paint(Colors::On);

    fn status() -> Status {
        let backend = |name: &str, state: &str, text: &str| Backend {
            name: name.to_owned(),
            address: "10.0.0.11:25".to_owned(),
            state: state.to_owned(),
            cause: Cause {
                words: format!("{text} (found by a probe)"),
                ..Cause::default()
            },
            since_seconds: 61.0,
            weight_effective: 1.0,
            totals: Totals {
                sessions: 1234,
                ..Totals::default()
            },
            ..Backend::default()
        };
        let mut second = backend("a-longer-name", "ejected", "gone\u{1b}[2J");
        second.weight_override = Some(3);
        second.weight_configured = 1;
        second.weight_mark = Some(Mark {
            by: "uid 0".to_owned(),
            seconds: 90.0,
            ..Mark::default()
        });
        second.weight_effective = 1.5;
        second.open_max = 20;
        second.probe = Some(Probe {
            duration_ms: 12.34,
            ..Probe::default()
        });
        Status {
            version: "0.1.0".to_owned(),
            hostname: "lb.example".to_owned(),
            phase: "serving".to_owned(),
            ready: true,
            generation: 3,
            listeners: vec![Listener {
                name: "mx".to_owned(),
                mode: "passthrough".to_owned(),
                bind: vec!["0.0.0.0:25".to_owned()],
                pool: "mx".to_owned(),
                ..Listener::default()
            }],
            pools: vec![Pool {
                name: "mx".to_owned(),
                balance: "first".to_owned(),
                tiers: vec![
                    Tier {
                        tier: 1,
                        open: true,
                        backends: vec![backend("mx1", "up", "ok")],
                    },
                    Tier {
                        tier: 2,
                        open: false,
                        backends: vec![second],
                    },
                ],
                ..Pool::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn the_table_is_straight() {
        let text = render(&status(), PLAIN);
        assert_eq!(
            text,
            "\
posthouse 0.1.0 on lb.example: ready, up 0s, generation 3, 0 of 0 sessions

LISTENER  MODE         ADDRESS     POOL  SESSIONS  ACCEPTED
mx        passthrough  0.0.0.0:25  mx           0         0

pool mx: first, 0 usable, 0 of 0 waiting
BACKEND        ADDRESS       TIER       STATE      FOR  OPEN  IN FLIGHT  SESSIONS  STRIKES  PROBE MS  WEIGHT  CAUSE
mx1            10.0.0.11:25  1          up       1m01s     0          0      1234        0         -       1  ok (found by a probe)
a-longer-name  10.0.0.11:25  2 standby  ejected  1m01s  0/20          0      1234        0      12.3    1.5*  gone\u{fffd}[2J (found by a probe)
  a-longer-name: weight 3 set by uid 0 1m30s ago; 1 is configured
"
        );
    }

    #[test]
    fn smtp_mode_has_columns_and_tables_of_its_own() {
        let mut status = status();
        status.limits.replay_bytes = Some(3 << 20);
        status.limits.replay_bytes_max = Some(256 << 20);
        status.listeners[0].mode = "smtp".to_owned();
        status.listeners[0].mail = Some(ListenerMail {
            transactions: [
                ("accepted", 40),
                ("refused", 2),
                ("refused-by-us", 1),
                ("in-doubt", 1),
            ]
            .map(|(name, count)| (name.to_owned(), count))
            .into(),
            recipients_accepted: 55,
            recipients_refused: 3,
            message_bytes: 2_500_000,
        });
        status.pools[0].tiers[0].backends[0].mail = Some(BackendMail {
            kept_idle: 4,
            accepted: 40,
            moved: [("lost".to_owned(), 2), ("silent".to_owned(), 1)].into(),
            in_doubt: 1,
            ..BackendMail::default()
        });
        status.pools[0].quotas = vec![Quota {
            backend: "mx1".to_owned(),
            unit: "messages".to_owned(),
            used: 40,
            limit: 500,
            period_seconds: 3600,
        }];
        status.pools[0].tiers.pop();
        let text = render(&status, PLAIN);
        assert_eq!(
            text,
            "\
posthouse 0.1.0 on lb.example: ready, up 0s, generation 3, 0 of 0 sessions, replay memory 3.0 of 256 MiB

LISTENER  MODE  ADDRESS     POOL  SESSIONS  ACCEPTED
mx        smtp  0.0.0.0:25  mx           0         0

MAIL  ACCEPTED  REFUSED  GIVEN UP  NOT PLACED  IN DOUBT  RECIPIENTS  MB
mx          40        3         0           0         1          55   2

pool mx: first, 0 usable, 0 of 0 waiting
BACKEND  ADDRESS       TIER  STATE    FOR  OPEN  IN FLIGHT  SESSIONS  KEPT  MESSAGES  MOVED  IN DOUBT  STRIKES  PROBE MS  WEIGHT  CAUSE
mx1      10.0.0.11:25  1     up     1m01s     0          0      1234     4        40      3         1        0         -       1  ok (found by a probe)

QUOTA  USED  LIMIT  OF
mx1      40    500  messages in 1 hour
"
        );
    }

    #[test]
    fn a_backend_whose_quota_is_used_up_is_full_for_that_reason() {
        let mut status = status();
        let backend = &mut status.pools[0].tiers[0].backends[0];
        backend.state = "full".to_owned();
        backend.cause = Cause {
            words: "500 of 500 messages in 1 hour".to_owned(),
            origin: "quota".to_owned(),
            ..Cause::default()
        };
        let text = render(&status, PLAIN);
        let line = text.lines().find(|line| line.starts_with("mx1"));
        let line = line.expect("its line");
        assert!(line.contains("  full (quota)  "), "{line}");
        assert!(line.ends_with("  500 of 500 messages in 1 hour"), "{line}");
    }

    #[test]
    fn what_waits_for_a_restart_is_said() {
        let mut status = status();
        status.restart_needed = vec!["workers: 1 → 2".to_owned()];
        let text = render(&status, PLAIN);
        assert!(
            text.contains("\n  restart needed: workers: 1 → 2\n"),
            "{text}"
        );
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let plain = render(&status(), PLAIN);
        let mut coloured = render(&status(), COLOURED);
        assert!(coloured.contains("\x1b[1;31mejected\x1b[0m"));
        for code in ["0", "1", "1;31", "32", "33"] {
            coloured = coloured.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn the_json_of_the_endpoint_is_read_back() {
        let body = serde_json::to_vec(&status()).expect("plain");
        let (text, ready) = show(&body, false, PLAIN).expect("a status");
        assert!(ready && text.contains("a-longer-name"));
        show(b"<html>", false, PLAIN).expect_err("no status");
    }
}
