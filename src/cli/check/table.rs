//! The findings as two tables: what each backend is good for, with remarks below it, and which
//! keywords it offers. Never wider than [`COLUMNS_MAX`].

use super::live::{CERTIFICATE_DAYS_LOW, Finding, RelayRemedy};
use crate::cli::term::{Paint, cut, pad, width};
use crate::config::wrapped;

/// The widest line.
pub(super) const COLUMNS_MAX: usize = 100;
/// What stands before a remark.
const MARGIN: &str = "    ";
/// Between two columns.
const GAP: &str = "  ";
/// The narrowest first column.
const NAME_MIN: usize = 12;

const HEAD: [&str; 8] = [
    "BACKEND", "ADDRESS", "USABLE", "GREETING", "PROXY", "STARTTLS", "CERT", "RELAY",
];

/// Keywords that decide what a client may do, each with a column of its own.
const KEYWORDS: [&str; 8] = [
    "STARTTLS",
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "CHUNKING",
    "DSN",
    "AUTH",
    "SIZE",
];

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Fact,
    Warning,
    Fault,
}

impl Sort {
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        match self {
            Self::Fact => paint.faint(text),
            Self::Warning => paint.warn(text),
            Self::Fault => paint.bad(text),
        }
    }
}

/// Both tables, and a line that counts.
pub(super) fn draw(findings: &[Finding], paint: Paint) -> String {
    let mut text = verdicts(findings, paint);
    let offers: Vec<&Finding> = findings
        .iter()
        .filter(|finding| !finding.keywords.is_empty())
        .collect();
    if !offers.is_empty() {
        text.push('\n');
        text.push_str(&keywords(&offers, paint));
    }
    text + &count(findings, paint)
}

/// What one backend is good for, and below it what is to be said.
fn verdicts(findings: &[Finding], paint: Paint) -> String {
    let rows: Vec<Vec<String>> = findings.iter().map(|one| row(one, paint)).collect();
    let widths = widths(&HEAD, &rows);
    let mut text = line(&heads(&HEAD, paint), &widths);
    for (finding, row) in findings.iter().zip(&rows) {
        text.push_str(&line(row, &widths));
        if width(&row[1]) > widths[1] {
            remark(
                &mut text,
                &format!("address: {}", finding.address),
                |line| paint.faint(line),
            );
        }
        for (sort, words) in words(finding) {
            remark(&mut text, &words, |line| sort.paint(paint, line));
        }
    }
    text
}

/// One column for each keyword.
fn keywords(findings: &[&Finding], paint: Paint) -> String {
    let head: Vec<&str> = ["KEYWORDS OF"].into_iter().chain(KEYWORDS).collect();
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let same = |other: &&&Finding| label(other) == label(finding);
            let is_alone = findings.iter().filter(same).count() == 1;
            let name = if is_alone {
                label(finding)
            } else {
                format!("{} {}", label(finding), finding.address)
            };
            let cells = KEYWORDS.iter().map(|keyword| offered(finding, keyword));
            [name].into_iter().chain(cells).collect()
        })
        .collect();
    let widths = widths(&head, &rows);
    let mut text = line(&heads(&head, paint), &widths);
    for row in &rows {
        text.push_str(&line(row, &widths));
    }
    text
}

/// `yes`, the limit of SIZE, or `-`.
fn offered(finding: &Finding, keyword: &str) -> String {
    let of = |line: &String| {
        let mut words = line.split(' ');
        let is_it = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case(keyword));
        is_it.then(|| words.next().unwrap_or_default().to_owned())
    };
    match finding.keywords.iter().find_map(of) {
        None => "-".to_owned(),
        Some(limit) if keyword == "SIZE" && !limit.is_empty() && limit != "0" => limit,
        Some(_) => "yes".to_owned(),
    }
}

/// Columns as wide as their cells; the first two give way where the line would be too wide.
fn widths(head: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| width(&row[column]));
            cells.max().unwrap_or(0).max(head[column].len())
        })
        .collect();
    let whole: usize = widths.iter().sum::<usize>() + GAP.len() * (head.len() - 1);
    let mut over = whole.saturating_sub(COLUMNS_MAX);
    for (column, least) in [(0, NAME_MIN), (1, head[1].len().max(NAME_MIN))] {
        let spare = widths[column].saturating_sub(least).min(over);
        widths[column] -= spare;
        over -= spare;
    }
    widths
}

fn heads(head: &[&str], paint: Paint) -> Vec<String> {
    head.iter().map(|word| paint.faint(word)).collect()
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| pad(&cut(cell, *width), *width))
        .collect();
    padded.join(GAP).trim_end().to_owned() + "\n"
}

/// A remark in lines of its own, each painted alone.
pub(super) fn remark(text: &mut String, words: &str, paint: impl Fn(&str) -> String) {
    for line in wrapped(words, COLUMNS_MAX - MARGIN.len()).lines() {
        text.push_str(MARGIN);
        // A word that is longer than a line, such as a greeting without blanks.
        text.push_str(&paint(&cut(line, COLUMNS_MAX - MARGIN.len())));
        text.push('\n');
    }
}

/// As `posthouse backend` takes it.
fn label(finding: &Finding) -> String {
    format!("{}/{}", finding.pool, finding.backend)
}

fn row(finding: &Finding, paint: Paint) -> Vec<String> {
    let usable = match (finding.usable, finding.full.is_some()) {
        (true, false) => paint.good("yes"),
        (_, true) => paint.warn("full"),
        (false, false) => paint.bad("no"),
    };
    let greeting = finding.greeting_seconds.map_or_else(
        || "-".to_owned(),
        |seconds| format!("{:.1} ms", seconds * 1e3),
    );
    let proxy = match (finding.proxy, finding.ipv6_clients) {
        ("accepted", "refused") => paint.bad("not IPv6"),
        ("accepted", _) => paint.good("accepted"),
        ("mismatch", _) => paint.bad("mismatch"),
        (other, _) => other.to_owned(),
    };
    let starttls = match finding.starttls {
        "works" => paint.good("works"),
        "failed" => paint.bad("failed"),
        other => other.to_owned(),
    };
    let certificate = match finding.certificate_days {
        Some(days) if days < CERTIFICATE_DAYS_LOW => paint.warn(&format!("{days} days")),
        Some(days) => paint.good(&format!("{days} days")),
        None => "-".to_owned(),
    };
    let relay = match finding.relay {
        "refused" => paint.good("refused"),
        "open" if finding.is_open_relay() => paint.bad("OPEN"),
        "open" => paint.warn("accepted"),
        other => other.to_owned(),
    };
    vec![
        label(finding),
        finding.address.clone(),
        usable,
        greeting,
        proxy,
        starttls,
        certificate,
        relay,
    ]
}

fn words(finding: &Finding) -> Vec<(Sort, String)> {
    let mut words = Vec::new();
    let mut say = |sort, text: String| words.push((sort, text));
    if let Some(failure) = &finding.failure {
        say(Sort::Fault, failure.clone());
    }
    if let Some(full) = &finding.full {
        say(Sort::Warning, format!("says it is full: {full}"));
    }
    if let Some(greeting) = &finding.greeting {
        say(Sort::Fact, format!("greeting: {greeting}"));
    }
    if finding.proxy == "mismatch" {
        let text = "the PROXY header was taken for commands: make the backend expect it, or set \
                    identity = \"none\"";
        say(Sort::Warning, text.to_owned());
    }
    let answer = finding.ipv6_failure.as_deref().unwrap_or_default();
    match finding.ipv6_clients {
        "refused" => {
            say(
                Sort::Fault,
                format!("refuses clients that come by IPv6: {answer}"),
            );
            let text = "set inet_protocols = all in its main.cf (Postfix) or turn its IPv6 on, or \
                        bind the listeners to IPv4 alone";
            say(Sort::Fault, text.to_owned());
        }
        "unknown" => {
            let text = format!(
                "refuses the client 2001:db8::25, which came by IPv6, perhaps for its address: \
                 {answer}"
            );
            say(Sort::Warning, text);
        }
        _ => {}
    }
    if finding.is_open_relay() {
        let text = "open relay: a foreign recipient is accepted from here, so from whoever comes \
                    to us";
        say(Sort::Fault, text.to_owned());
        say(Sort::Fault, relay_remedy(finding));
    } else if finding.relay == "open" && finding.identity_carried {
        let text = "a foreign recipient is accepted from our own address; clients are judged by \
                    theirs";
        say(Sort::Warning, text.to_owned());
    } else if finding.relay == "open" {
        let text = "a foreign recipient is accepted from here, so from the clients that may come \
                    to us";
        say(Sort::Fact, text.to_owned());
    }
    words
}

fn relay_remedy(finding: &Finding) -> String {
    let other = match finding.relay_remedy {
        RelayRemedy::Identity => "tell it the client: identity = \"proxy-v2\"".to_owned(),
        RelayRemedy::Allow => {
            let listeners = finding.open_listeners.join(", ");
            format!("name the clients that may come, with \"allow\" at listener {listeners}")
        }
    };
    format!("take our address out of its mynetworks, or {other}")
}

fn count(findings: &[Finding], paint: Paint) -> String {
    let bad = findings.iter().filter(|finding| !finding.is_good()).count();
    let total = findings.len();
    let text = match (total, bad) {
        (0, _) => paint.warn("no backends to dial"),
        (1, 0) => paint.good("the backend is good"),
        (_, 0) => paint.good(&format!("all {total} addresses are good")),
        (_, bad) => paint.bad(&format!("{bad} of {total} addresses need attention")),
    };
    format!("\n{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::term::Colors;

    fn finding(backend: &str, address: &str) -> Finding {
        Finding {
            pool: "incoming-mail".to_owned(),
            backend: backend.to_owned(),
            address: address.to_owned(),
            usable: true,
            failure: Some("ehlo: 421 4.3.2 ".repeat(20)),
            full: None,
            greeting_seconds: Some(7.9999),
            greeting: Some("x".repeat(300)),
            keywords: vec!["SIZE 99999999999".to_owned(), "starttls".to_owned()],
            proxy: "accepted",
            ipv6_clients: "not tried",
            ipv6_failure: None,
            starttls: "works",
            certificate_days: Some(3650),
            relay: "accepted",
            identity_carried: true,
            open_listeners: Vec::new(),
            relay_remedy: RelayRemedy::Identity,
        }
    }

    #[test]
    fn no_line_is_wider_than_a_hundred_columns_and_no_address_is_lost() {
        let long = "[2001:db8:1111:2222:3333:4444:5555:6666]:2525";
        let name = "a-backend-with-a-name-that-is-as-long-as-names-of-backends-are";
        let findings = [
            finding("mx1", "10.0.0.1:25"),
            finding(name, long),
            finding(name, "[2001:db8::1]:25"),
        ];
        for colors in [Colors::Off, Colors::On] {
            let text = draw(&findings, Paint(colors));
            for line in text.lines() {
                assert!(width(line) <= COLUMNS_MAX, "{line}");
            }
            assert!(text.contains(long), "{text}");
        }
    }
}
