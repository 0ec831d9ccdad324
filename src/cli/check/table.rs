//! The findings as an aligned table, two lines of words under each backend.

use super::live::{CERTIFICATE_DAYS_LOW, Finding, RelayRemedy};
use crate::cli::term::{Paint, pad, width};

const HEAD: [&str; 8] = [
    "POOL",
    "BACKEND",
    "ADDRESS",
    "REACHABLE",
    "GREETING",
    "PROXY",
    "STARTTLS",
    "RELAY",
];

/// The table, and a last line that counts.
pub(super) fn draw(findings: &[Finding], paint: Paint) -> String {
    let rows: Vec<[String; 8]> = findings.iter().map(|one| row(one, paint)).collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            let cells = rows.iter().map(|row| width(&row[column]));
            cells.max().unwrap_or(0).max(HEAD[column].len())
        })
        .collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| pad(cell, *width))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&HEAD.map(|word| paint.faint(word)));
    for (finding, row) in findings.iter().zip(&rows) {
        text.push_str(&line(row));
        for words in words(finding, paint) {
            text.push_str("    ");
            text.push_str(&words);
            text.push('\n');
        }
    }
    text + &count(findings, paint)
}

fn row(finding: &Finding, paint: Paint) -> [String; 8] {
    let reachable = match (finding.reachable, finding.full.is_some()) {
        (true, false) => paint.good("yes"),
        (true, true) => paint.warn("yes, full"),
        (false, _) => paint.bad("no"),
    };
    let greeting = finding.greeting_seconds.map_or_else(
        || "-".to_owned(),
        |seconds| format!("{:.1} ms", seconds * 1e3),
    );
    let proxy = match finding.proxy {
        "accepted" => paint.good("accepted"),
        "mismatch" => paint.bad("mismatch"),
        other => other.to_owned(),
    };
    let starttls = match (finding.starttls, finding.certificate_days) {
        ("works", Some(days)) if days < CERTIFICATE_DAYS_LOW => {
            paint.warn(&format!("works, {days} days left"))
        }
        ("works", Some(days)) => paint.good(&format!("works, {days} days left")),
        ("works", None) => paint.good("works"),
        ("failed", _) => paint.bad("failed"),
        (other, _) => other.to_owned(),
    };
    let relay = match finding.relay {
        "refused" => paint.good("refused"),
        "open" if finding.is_open_relay() => paint.bad("OPEN"),
        "open" => paint.warn("accepted"),
        other => other.to_owned(),
    };
    [
        finding.pool.clone(),
        finding.backend.clone(),
        finding.address.clone(),
        reachable,
        greeting,
        proxy,
        starttls,
        relay,
    ]
}

fn words(finding: &Finding, paint: Paint) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(failure) = &finding.failure {
        words.push(paint.bad(failure));
    }
    if let Some(full) = &finding.full {
        words.push(paint.warn(&format!("says it is full: {full}")));
    }
    if let Some(greeting) = &finding.greeting {
        words.push(paint.faint(&format!("greeting: {greeting}")));
    }
    if !finding.keywords.is_empty() {
        words.push(paint.faint(&format!("keywords: {}", finding.keywords.join(", "))));
    }
    if finding.proxy == "mismatch" {
        words.push(paint.warn(
            "the PROXY header was taken for commands: make the backend expect it, or set \
             identity = \"none\"",
        ));
    }
    if finding.is_open_relay() {
        words.push(paint.bad(
            "open relay: a foreign recipient is accepted from here, so from whoever comes to us",
        ));
        words.push(paint.bad(&relay_remedy(finding)));
    } else if finding.relay == "open" && finding.identity_carried {
        words.push(paint.warn(
            "a foreign recipient is accepted from our own address; clients are judged by theirs",
        ));
    } else if finding.relay == "open" {
        words.push(paint.faint(
            "a foreign recipient is accepted from here, so from the clients that may come to us",
        ));
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
