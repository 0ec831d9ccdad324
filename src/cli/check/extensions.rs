//! What listeners in smtp mode announce in front of these backends, and which backend keeps more
//! from being announced (rule E3).
//!
//! Only what a probe heard counts here: a running process knows backends that are away now from
//! earlier, and one that was never heard leaves our own extensions alone.

use std::fmt::Write as _;

use serde::Serialize;

use super::live::Finding;
use super::table::{COLUMNS_MAX, Sort};
use crate::balance::AdminState;
use crate::cli::term::Paint;
use crate::config::model::{Config, Listener, Mode};
use crate::config::wrapped;
use crate::smtp::{Extensions, Keyword, Keywords};
use crate::snapshot::announced;

/// The extensions that are announced only if the backends have them.
const SHARED: [Keyword; 5] = [
    Keyword::EightBitMime,
    Keyword::Smtputf8,
    Keyword::EnhancedStatusCodes,
    Keyword::Dsn,
    Keyword::Chunking,
];

/// What one listener announces.
#[derive(Debug, Serialize)]
pub(super) struct Offer {
    /// The listener.
    listener: String,
    /// Its pool.
    pool: String,
    /// Whether the operator pinned the list (`announce`).
    pinned: bool,
    /// The lines of the reply to EHLO behind the first.
    announced: Vec<String>,
    /// What is announced until `unknown` have been heard; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_known: Option<Vec<String>>,
    /// Backends in service that were not heard.
    unknown: Vec<String>,
    /// Extensions that not every backend has, in the order of the reply to EHLO.
    missing: Vec<Missing>,
    /// The smallest SIZE of a backend, if another takes more.
    #[serde(skip_serializing_if = "Option::is_none")]
    smallest_size: Option<Smallest>,
}

/// An extension that some backends have and others do not.
#[derive(Debug, Serialize)]
struct Missing {
    /// The keyword.
    keyword: &'static str,
    /// Whether it is announced all the same, because the operator pinned it.
    announced: bool,
    /// What it cannot be announced without, where that is what they lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    for_want_of: Option<&'static str>,
    /// Who does not have it.
    lacked_by: Vec<String>,
}

/// The backend whose limit goes for all.
#[derive(Debug, Serialize)]
struct Smallest {
    octets: u64,
    backend: String,
    /// The largest of the others; absent if one has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    largest: Option<u64>,
}

/// A backend that was heard.
struct Heard {
    name: String,
    extensions: Extensions,
}

/// What every listener in smtp mode announces.
pub(super) fn offers(config: &Config, findings: &[Finding]) -> Vec<Offer> {
    let listeners = config.listeners.iter();
    listeners
        .filter(|(_, listener)| listener.mode == Mode::Smtp)
        .map(|(name, listener)| offer(name, listener, config, findings))
        .collect()
}

fn offer(name: &str, listener: &Listener, config: &Config, findings: &[Finding]) -> Offer {
    let in_service = |finding: &&Finding| {
        let pool = config.pools.get(finding.pool.as_str());
        let backend = pool.and_then(|pool| pool.backends.get(finding.backend.as_str()));
        *finding.pool == *listener.pool
            && backend.is_some_and(|backend| backend.state == AdminState::Ready)
    };
    let mut heard = Vec::new();
    let mut unknown = Vec::new();
    for finding in findings.iter().filter(in_service) {
        let name = format!("{} {}", finding.backend, finding.address);
        if finding.usable {
            let lines = finding.keywords.iter().map(String::as_bytes);
            let extensions = Extensions::of_lines(lines);
            heard.push(Heard { name, extensions });
        } else {
            unknown.push(name);
        }
    }
    let known = heard.iter().map(|one| &one.extensions);
    let offered = announced(&listener.smtp, known.clone());
    let nothing = Extensions::default();
    let until_known = (!unknown.is_empty())
        .then(|| announced(&listener.smtp, known.chain([&nothing])))
        .filter(|less| *less != offered);
    Offer {
        listener: name.to_owned(),
        pool: listener.pool.to_string(),
        pinned: listener.smtp.announce.is_some(),
        announced: lines(&offered),
        until_known: until_known.as_ref().map(lines),
        unknown,
        missing: missing(listener, &offered, &heard),
        smallest_size: smallest_size(&heard),
    }
}

/// What would be announced, or is, and not every backend has.
fn missing(listener: &Listener, offered: &Extensions, heard: &[Heard]) -> Vec<Missing> {
    let allowed = listener.smtp.announce.unwrap_or(Keywords::CLEAR);
    let somewhere = heard.iter().fold(Keywords::default(), |all, one| {
        all.union(one.extensions.keywords)
    });
    let pinned = listener.smtp.announce.unwrap_or_default();
    let worth_saying = |keyword: &Keyword| {
        allowed.has(*keyword) && (somewhere.has(*keyword) || pinned.has(*keyword))
    };
    let lacked_by = |keyword: Keyword| -> Vec<String> {
        let without = |one: &&Heard| !one.extensions.keywords.has(keyword);
        heard
            .iter()
            .filter(without)
            .map(|one| one.name.clone())
            .collect()
    };
    let keywords = SHARED.into_iter().filter(worth_saying);
    keywords
        .filter_map(|keyword| {
            let announced = offered.keywords.has(keyword);
            let mut for_want_of = None;
            let mut backends = lacked_by(keyword);
            if backends.is_empty() && !announced && keyword == Keyword::Smtputf8 {
                // RFC 6531 §3.1 wants both.
                for_want_of = Some(Keyword::EightBitMime.name());
                backends = lacked_by(Keyword::EightBitMime);
            }
            (!backends.is_empty()).then_some(Missing {
                keyword: keyword.name(),
                announced,
                for_want_of,
                lacked_by: backends,
            })
        })
        .collect()
}

fn smallest_size(heard: &[Heard]) -> Option<Smallest> {
    let limit = |one: &Heard| one.extensions.size_max.map_or(u64::MAX, u64::from);
    let smallest = heard.iter().min_by_key(|one| limit(one))?;
    let largest = heard.iter().map(limit).max()?;
    (limit(smallest) < largest).then(|| Smallest {
        octets: limit(smallest),
        backend: smallest.name.clone(),
        largest: (largest != u64::MAX).then_some(largest),
    })
}

fn lines(extensions: &Extensions) -> Vec<String> {
    let mut reply = Vec::new();
    extensions.write_ehlo("", &mut reply);
    let text = String::from_utf8_lossy(&reply);
    let lines = text.lines().skip(1).filter_map(|line| line.get(4..));
    lines.map(str::to_owned).collect()
}

/// The same in words.
pub(super) fn draw(offers: &[Offer], paint: Paint) -> String {
    let mut text = String::new();
    for offer in offers {
        let title = format!("listener {}", offer.listener);
        let line = format!(
            "{title} announces in front of pool {}: {}",
            offer.pool,
            offer.announced.join(", ")
        );
        let line = wrapped(&line, COLUMNS_MAX).replacen(&title, &paint.strong(&title), 1);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{line}");
        for (sort, line) in words(offer) {
            super::table::remark(&mut text, &line, |line| sort.paint(paint, line));
        }
    }
    text
}

fn words(offer: &Offer) -> Vec<(Sort, String)> {
    let mut words = Vec::new();
    for missing in &offer.missing {
        let keyword = missing.keyword;
        let whose = missing.lacked_by.join(", ");
        let lack = match missing.lacked_by.len() {
            1 => "lacks",
            _ => "lack",
        };
        words.push(match (missing.announced, missing.for_want_of) {
            (true, _) => {
                let tail = if keyword == Keyword::EnhancedStatusCodes.name() {
                    ""
                } else {
                    ": mail that needs it goes elsewhere"
                };
                let line = format!(
                    "{keyword} is announced because the configuration says so, and {whose} {lack} \
                     it{tail}"
                );
                (Sort::Warning, line)
            }
            (false, None) => (
                Sort::Fact,
                format!("{keyword} is not announced: {whose} {lack} it"),
            ),
            (false, Some(needed)) => (
                Sort::Fact,
                format!("{keyword} is not announced: it needs {needed}, which {whose} {lack}"),
            ),
        });
    }
    if let Some(smallest) = &offer.smallest_size {
        let others = smallest.largest.map_or_else(
            || "others have no limit".to_owned(),
            |largest| format!("others take up to {largest}"),
        );
        let line = format!(
            "the smallest SIZE is that of {}: {}; {others}",
            smallest.backend, smallest.octets
        );
        words.push((Sort::Fact, line));
    }
    if let Some(less) = &offer.until_known {
        let line = format!(
            "until {} was heard once, only {} is announced",
            offer.unknown.join(", "),
            less.join(", ")
        );
        words.push((Sort::Warning, line));
    }
    words
}
