//! The status page for people: the JSON as tables, without a script.
//!
//! Everything that came from outside is escaped, and the page's policy forbids scripts, foreign
//! pictures, forms and frames: a backend's greeting cannot become markup.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use super::reply::{self, Reply};
use super::views::{Backend, Mark, Pool, Status, Tier};

/// Backends shown on the page; more are in `/status`.
const BACKENDS_SHOWN_MAX: usize = 500;

const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The style sheet.
pub(super) const STYLE: &str = include_str!("page.css");

/// The page of `status`.
pub(super) fn reply(status: &Status) -> Reply {
    let mut reply = reply::whole(StatusCode::OK, "text/html; charset=utf-8", html(status));
    reply
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    reply
}

fn html(status: &Status) -> String {
    let mut out = String::with_capacity(16 * 1024);
    out.push_str(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <meta name=viewport content=\"width=device-width\"><title>Posthouse</title>\
         <link rel=stylesheet href=/style.css><main><header><h1>Posthouse</h1>",
    );
    let word = match (status.ready, status.phase.as_str()) {
        (_, "draining") => "draining",
        (true, _) => "ready",
        (false, _) => "not ready",
    };
    let mark = if status.ready { "up" } else { "down" };
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, "<p class=\"state {mark}\">{word}</p><p>");
    escape(&mut out, &status.hostname);
    let _ = write!(
        out,
        " · version {} · up {} · generation {} · {} of {} sessions",
        status.version,
        duration(status.uptime_seconds),
        status.generation,
        status.limits.sessions,
        status.limits.sessions_max,
    );
    if let Some(replay) = replay_memory(status) {
        let _ = write!(out, " · {replay}");
    }
    out.push_str("</p></header>");
    for reason in &status.reasons {
        out.push_str("<p class=reason>");
        escape(&mut out, reason);
        out.push_str("</p>");
    }
    for change in &status.restart_needed {
        out.push_str("<p class=reason>restart needed: ");
        escape(&mut out, change);
        out.push_str("</p>");
    }
    reload(&mut out, status);
    listeners(&mut out, status);
    mail(&mut out, status);
    let mut room = BACKENDS_SHOWN_MAX;
    for pool in &status.pools {
        self::pool(&mut out, pool, &mut room);
    }
    if room == 0 {
        out.push_str("<p>More backends are in <a href=/status>/status</a>.</p>");
    }
    out.push_str(
        "<footer><a href=/status>status</a> · <a href=/metrics>metrics</a> · \
         <a href=/readyz>readyz</a></footer></main></html>\n",
    );
    out
}

fn reload(out: &mut String, status: &Status) {
    let Some(reload) = status.last_reload.as_ref().filter(|reload| !reload.ok) else {
        return;
    };
    out.push_str("<p class=reason>The last reload was refused; nothing changed.</p><pre>");
    for mistake in &reload.mistakes {
        escape(out, mistake);
        out.push('\n');
    }
    out.push_str("</pre>");
}

fn listeners(out: &mut String, status: &Status) {
    out.push_str(
        "<h2>Listeners</h2><table><tr><th>listener<th>mode<th>address<th>pool<th class=n>sessions\
         <th class=n>accepted<th class=n>no backend<th class=n>MB in<th class=n>MB out</tr>",
    );
    for listener in &status.listeners {
        out.push_str("<tr><td>");
        escape(out, &listener.name);
        out.push_str("<td>");
        escape(out, &listener.mode);
        out.push_str("<td>");
        escape(out, &listener.bind.join(", "));
        out.push_str("<td>");
        escape(out, &listener.pool);
        let refused = listener.outcomes.get("no-backend").copied().unwrap_or(0)
            + listener.outcomes.get("queue-timeout").copied().unwrap_or(0);
        let _ = write!(
            out,
            "<td class=n>{}<td class=n>{}<td class=n>{refused}<td class=n>{:.1}<td class=n>{:.1}",
            listener.sessions,
            listener.accepted,
            listener.bytes_to_backend as f64 / 1e6,
            listener.bytes_to_client as f64 / 1e6,
        );
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

/// The mail of listeners in smtp mode; nothing where there is none.
fn mail(out: &mut String, status: &Status) {
    let mut listeners = status
        .listeners
        .iter()
        .filter_map(|listener| Some((&listener.name, listener.mail.as_ref()?)))
        .peekable();
    if listeners.peek().is_none() {
        return;
    }
    out.push_str(
        "<h2>Mail</h2><table><tr><th>listener<th class=n>accepted<th class=n>refused\
         <th class=n>given up<th class=n>not placed<th class=n>in doubt\
         <th class=n>recipients<th class=n>MB</tr>",
    );
    for (name, mail) in listeners {
        out.push_str("<tr><td>");
        escape(out, name);
        let _ = write!(
            out,
            "<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}{}<td class=n>{}<td class=n>{:.1}</tr>",
            mail.transactions(&["accepted"]),
            mail.transactions(&["refused", "refused-by-us"]),
            mail.transactions(&["abandoned"]),
            mail.transactions(&["no-backend", "failed", "cut"]),
            doubt(mail.transactions(&["in-doubt"])),
            mail.recipients_accepted,
            mail.message_bytes as f64 / 1e6,
        );
    }
    out.push_str("</table>");
}

/// A cell that draws the eye if it is not zero.
fn doubt(count: u64) -> String {
    let class = if count > 0 { "n degraded" } else { "n" };
    format!("<td class=\"{class}\">{count}")
}

fn pool(out: &mut String, pool: &Pool, room: &mut usize) {
    out.push_str("<h2>Pool ");
    escape(out, &pool.name);
    let _ = write!(
        out,
        "</h2><p>{} · {} usable · {} of {} waiting",
        pool.balance, pool.usable, pool.waiting, pool.waiting_max
    );
    if pool.all_down {
        out.push_str(" · <b class=down>no backend is healthy</b>");
    }
    if pool.failback_pending {
        out.push_str(" · a standby tier serves until failback");
    }
    for (at, name) in pool.unresolved.iter().enumerate() {
        out.push_str(" · no address for ");
        escape(out, name);
        if let Some(cause) = pool.unresolved_causes.get(at) {
            out.push_str(": ");
            escape(out, cause);
        }
    }
    let columns = Columns::of(pool);
    out.push_str(
        "</p><table><tr><th>backend<th>address<th class=n>tier<th>state<th>for<th>cause\
         <th class=n>open",
    );
    if columns == Columns::Mail {
        out.push_str("<th class=n>kept");
    }
    out.push_str("<th class=n>in flight<th class=n>sessions");
    if columns == Columns::Mail {
        out.push_str("<th class=n>messages<th class=n>moved<th class=n>in doubt");
    }
    out.push_str("<th class=n>strikes<th class=n>probe ms<th class=n>weight</tr>");
    for tier in &pool.tiers {
        for backend in tier.backends.iter().take(*room) {
            row(out, tier, backend, columns);
        }
        *room = room.saturating_sub(tier.backends.len());
    }
    out.push_str("</table>");
    for mark in marks(pool) {
        out.push_str("<p class=mark>");
        escape(out, &mark);
        out.push_str("</p>");
    }
    quotas(out, pool);
}

/// What is shown of the backends of a pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// Sessions.
    Plain,
    /// Mail as well.
    Mail,
}

impl Columns {
    fn of(pool: &Pool) -> Self {
        if pool.has_mail() {
            Self::Mail
        } else {
            Self::Plain
        }
    }
}

fn quotas(out: &mut String, pool: &Pool) {
    if pool.quotas.is_empty() {
        return;
    }
    out.push_str(
        "<table class=quotas><tr><th>quota<th class=n>used<th class=n>limit<th>of<th>within</tr>",
    );
    for quota in &pool.quotas {
        out.push_str("<tr><td>");
        escape(out, &quota.backend);
        let class = if quota.used >= quota.limit {
            "n degraded"
        } else {
            "n"
        };
        let _ = write!(
            out,
            "<td class=\"{class}\">{}<td class=n>{}<td>",
            quota.used, quota.limit
        );
        escape(out, &quota.unit);
        let _ = write!(out, "<td>{}</tr>", period(quota.period_seconds));
    }
    out.push_str("</table>");
}

fn row(out: &mut String, tier: &Tier, backend: &Backend, columns: Columns) {
    out.push_str("<tr><td>");
    escape(out, &backend.name);
    out.push_str("<td>");
    escape(out, &backend.address);
    let standby = if tier.open { "" } else { " standby" };
    let _ = write!(
        out,
        "<td class=n>{0}{standby}<td class=\"state {1}\">{2}<td>{3}<td>",
        tier.tier,
        backend.state,
        backend.state_words(),
        duration(backend.since_seconds)
    );
    escape(out, &backend.cause.words);
    let mail = backend.mail.as_ref().filter(|_| columns == Columns::Mail);
    let _ = write!(out, "<td class=n>{}", backend.open);
    if columns == Columns::Mail {
        let kept = mail.map_or(0, |mail| mail.kept_idle);
        let _ = write!(out, "<td class=n>{kept}");
    }
    let _ = write!(
        out,
        "<td class=n>{}<td class=n>{}",
        backend.in_flight, backend.totals.sessions
    );
    if columns == Columns::Mail {
        let (accepted, moved, in_doubt) = mail.map_or((0, 0, 0), |mail| {
            (
                mail.accepted,
                mail.moved.values().sum::<u64>(),
                mail.in_doubt,
            )
        });
        let _ = write!(
            out,
            "<td class=n>{accepted}<td class=n>{moved}{}",
            doubt(in_doubt)
        );
    }
    let probe = backend.probe.as_ref();
    let _ = write!(
        out,
        "<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
        backend.totals.strikes,
        probe.map_or("–".to_owned(), |probe| format!(
            "{:.1}",
            probe.duration_ms
        )),
        short(backend.weight_effective),
    );
}

/// What copies of messages for replays take, for people; `None` where smtp mode is not in use.
pub fn replay_memory(status: &Status) -> Option<String> {
    let mut listeners = status.listeners.iter();
    listeners.find(|listener| listener.mail.is_some())?;
    let (used, most) = (status.limits.replay_bytes?, status.limits.replay_bytes_max?);
    let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
    Some(format!(
        "replay memory {:.1} of {} MiB",
        mib(used),
        short(mib(most))
    ))
}

/// What operators have set at run time against the configuration, as far as states and causes do
/// not say so already: one sentence each.
pub fn marks(pool: &Pool) -> Vec<String> {
    let mut marks = Vec::new();
    for backend in pool.tiers.iter().flat_map(|tier| &tier.backends) {
        let name = &backend.name;
        if let Some(mark) = backend
            .admin_mark
            .as_ref()
            .filter(|_| backend.admin == "ready")
        {
            let by = set_by(mark);
            marks.push(format!(
                "{name}: ready {by}; the configuration says otherwise"
            ));
        }
        if let (Some(mark), Some(weight)) = (&backend.weight_mark, backend.weight_override) {
            let (by, configured) = (set_by(mark), backend.weight_configured);
            marks.push(format!(
                "{name}: weight {weight} {by}; {configured} is configured"
            ));
        }
    }
    // All addresses of a name were set together.
    marks.dedup();
    marks
}

fn set_by(mark: &Mark) -> String {
    format!("set by {} {} ago", mark.by, duration(mark.seconds))
}

/// A period as a quota names it: in the largest unit that divides it.
pub fn period(seconds: u64) -> String {
    for (unit, name) in [(86_400, "day"), (3600, "hour"), (60, "minute")] {
        if seconds > 0 && seconds.is_multiple_of(unit) {
            return match seconds / unit {
                1 => format!("1 {name}"),
                many => format!("{many} {name}s"),
            };
        }
    }
    format!("{seconds} s")
}

/// A weight without needless decimals.
pub fn short(weight: f64) -> String {
    if weight.fract() == 0.0 {
        format!("{weight:.0}")
    } else {
        format!("{weight:.1}")
    }
}

/// A duration in its two largest units.
pub fn duration(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).map_or(0, |whole| whole.as_secs());
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::{BackendMail, Cause, Listener, ListenerMail, Quota};

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let evil = "<script>alert('&\"')</script>".to_owned();
        let backend = Backend {
            name: evil.clone(),
            address: evil.clone(),
            state: "down".to_owned(),
            cause: Cause {
                origin: "probe".to_owned(),
                words: evil.clone(),
                ..Cause::default()
            },
            weight_override: Some(7),
            weight_mark: Some(Mark {
                by: evil.clone(),
                ..Mark::default()
            }),
            ..Backend::default()
        };
        let status = Status {
            hostname: evil.clone(),
            reasons: vec![evil.clone()],
            listeners: vec![Listener {
                name: evil.clone(),
                mode: evil.clone(),
                mail: Some(ListenerMail::default()),
                ..Listener::default()
            }],
            pools: vec![Pool {
                name: evil.clone(),
                unresolved: vec![evil.clone()],
                unresolved_causes: vec![evil.clone()],
                quotas: vec![Quota {
                    backend: evil.clone(),
                    unit: evil,
                    ..Quota::default()
                }],
                tiers: vec![Tier {
                    tier: 1,
                    open: true,
                    backends: vec![backend],
                }],
                ..Pool::default()
            }],
            ..Status::default()
        };
        let page = html(&status);
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 15);
    }

    #[test]
    fn a_page_without_smtp_mode_says_nothing_of_mail() {
        let mut status = Status {
            listeners: vec![Listener::default()],
            pools: vec![Pool {
                tiers: vec![Tier {
                    backends: vec![Backend::default()],
                    ..Tier::default()
                }],
                ..Pool::default()
            }],
            ..Status::default()
        };
        let of_mail = [
            "<h2>Mail",
            "<th class=n>kept",
            "in doubt",
            "quota",
            "replay",
        ];
        let page = html(&status);
        assert!(!of_mail.iter().any(|word| page.contains(word)), "{page}");
        status.limits.replay_bytes = Some(3 << 19);
        status.limits.replay_bytes_max = Some(256 << 20);
        status.listeners[0].mail = Some(ListenerMail::default());
        status.pools[0].tiers[0].backends[0].mail = Some(BackendMail {
            kept_idle: 17,
            in_doubt: 1,
            ..BackendMail::default()
        });
        status.pools[0].quotas = vec![Quota::default()];
        let page = html(&status);
        assert!(of_mail.iter().all(|word| page.contains(word)), "{page}");
        assert!(page.contains("replay memory 1.5 of 256 MiB"));
        assert!(page.contains("<td class=n>17<"));
        assert!(page.contains("<td class=\"n degraded\">1<"));
        let cells = page.rsplit("<tr>").find(|row| row.contains(">17<"));
        let heads = page.rsplit("<tr>").find(|row| row.contains("<th>backend"));
        assert_eq!(
            cells.map(|row| row.matches("<td").count()),
            heads.map(|row| row.matches("<th").count())
        );
    }

    #[test]
    fn periods_are_said_in_the_largest_unit_that_divides_them() {
        for (seconds, text) in [
            (1, "1 s"),
            (60, "1 minute"),
            (90, "90 s"),
            (7200, "2 hours"),
            (86_400, "1 day"),
        ] {
            assert_eq!(period(seconds), text);
        }
    }

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.9, "59s"),
            (61.0, "1m01s"),
            (3661.0, "1h01m"),
            (90_000.0, "1d01h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
