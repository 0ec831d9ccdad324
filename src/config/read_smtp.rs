//! `[listeners.NAME.smtp]` and `[pools.NAME.smtp]`: what only mode "smtp" has.

use std::time::Duration;

use super::model::{
    EarlyTalker, GreetingMode, Listener, ListenerSmtp, Mode, Pool, PoolSmtp, Quota,
    RECIPIENTS_EXPECTED,
};
use super::report::Place;
use super::section::Section;
use super::value::{self, Wrong, duration_text};
use super::words;
use crate::smtp::{Keyword, Keywords, OwnReply, Words};

/// A server must wait so long for the next command (RFC 5321 §4.5.3.2.7).
const SILENCE_ADVISED: Duration = Duration::from_mins(5);
/// Every server takes a message of so many octets (RFC 5321 §4.5.3.1.7).
const MESSAGE_SIZE_ADVISED: u64 = 65_536;
/// With less patience for the reply to a message, messages that were accepted are sent again.
const FINAL_ADVISED: Duration = Duration::from_mins(1);

/// The `smtp` table of a listener.
pub(super) fn listener(section: &Section<'_>, listener: &Listener, hostname: &str) -> ListenerSmtp {
    let mut smtp = ListenerSmtp::default();
    section.word(
        "client_quirks",
        words::CLIENT_QUIRKS,
        &mut smtp.client_quirks,
    );
    section.word("line_endings", words::LINE_ENDINGS, &mut smtp.line_endings);
    section.size("max_message_size", &mut smtp.max_message_size);
    section.count("max_recipients", &mut smtp.max_recipients);
    section.duration("command_timeout", &mut smtp.command_timeout);
    section.duration("data_timeout", &mut smtp.data_timeout);
    section.duration("greet_delay", &mut smtp.greet_delay);
    section.duration("tarpit", &mut smtp.tarpit);
    smtp.announce = announce(section);
    section.size("replay_max", &mut smtp.replay_max);
    section.flag("replay_in_doubt", &mut smtp.replay_in_doubt);
    section.flag("buffer_first", &mut smtp.buffer_first);
    smtp.replies = replies(&section.child("replies"), hostname);
    listener_contradictions(section, &smtp, listener);
    section.finish();
    smtp
}

/// Our replies in the operator's words; those that are ours anyway are not kept.
fn replies(section: &Section<'_>, hostname: &str) -> Words {
    let mut words = Words::default();
    for wording in OwnReply::ALL {
        let Some(key) = wording.key else { continue };
        let read = |text: &str| {
            let line = value::own_reply(text, wording.reply, hostname)?;
            let is_ours = wording.default.trim_matches('"') == text;
            Ok((!is_ours).then_some(line))
        };
        if let Some(Some(line)) = section.text(key, read) {
            words.put(wording.reply, line);
        }
    }
    section.finish();
    words
}

fn announce(section: &Section<'_>) -> Option<Keywords> {
    let listed = section.list("announce", value::keyword);
    let words = section.has("announce").then(|| {
        let add = |all: Keywords, (keyword, _): &(Keyword, Place)| all.with(*keyword);
        listed.iter().fold(Keywords::default(), add)
    })?;
    if words.has(Keyword::Smtputf8) && !words.has(Keyword::EightBitMime) {
        section.error(
            "announce",
            "SMTPUTF8 must not be announced without 8BITMIME (RFC 6531 §3.1)",
            "add \"8BITMIME\"",
        );
    }
    Some(words)
}

fn listener_contradictions(section: &Section<'_>, smtp: &ListenerSmtp, listener: &Listener) {
    if smtp.max_message_size > 0 && smtp.max_message_size < MESSAGE_SIZE_ADVISED {
        section.warn(
            "max_message_size",
            "a server must take messages of 64 KiB, and larger ones are refused for good",
            "set it to \"64KiB\" or more (RFC 5321 §4.5.3.1.7), or to 0 for no limit",
        );
    }
    if smtp.max_recipients < RECIPIENTS_EXPECTED {
        section.warn(
            "max_recipients",
            format!(
                "clients may send {RECIPIENTS_EXPECTED} recipients at once: one that neither reads \
                 LIMITS RCPTMAX nor sends the rest again loses them"
            ),
            "set it to 100 or more (RFC 5321 §4.5.3.1.8), unless a backend behind this listener \
             takes no more",
        );
    }
    silence_fits(section, "command_timeout", smtp.command_timeout);
    if !smtp.greet_delay.is_zero() && listener.early_talker == EarlyTalker::Pass {
        section.warn(
            "greet_delay",
            "every client waits, and nothing is done about those that do not",
            "set `early_talker = \"reject\"` or \"log\" in the listener, or remove this key",
        );
    }
    if smtp.replay_in_doubt && smtp.replay_max == 0 {
        section.warn(
            "replay_in_doubt",
            "this never happens: replay_max is 0, so no message is kept",
            "set replay_max to \"32MiB\", or remove this key",
        );
    }
}

fn silence_fits(section: &Section<'_>, key: &'static str, timeout: Duration) {
    if timeout < SILENCE_ADVISED {
        section.warn(
            key,
            "a client may be silent for 5 minutes, and is cut before",
            "set it to \"5m\" or more (RFC 5321 §4.5.3.2.7)",
        );
    }
}

/// What a listener must not say, or should not, in this mode: keys that mean nothing in it, and a
/// table that belongs to the other one.
pub(super) fn mode_contradictions(section: &Section<'_>, listener: &Listener, mode: Mode) {
    match mode {
        Mode::Passthrough => {
            silence_fits(section, "idle_timeout", listener.idle_timeout);
            if section.has("smtp") && !section.is_unset_or_empty("smtp") {
                section.error(
                    "smtp",
                    "this table says nothing in mode \"passthrough\": octets pass unchanged",
                    "set `mode = \"smtp\"` in the listener, or remove the table",
                );
            }
        }
        Mode::Smtp => smtp_contradictions(section, listener),
    }
}

fn smtp_contradictions(section: &Section<'_>, listener: &Listener) {
    if listener.greeting == GreetingMode::None {
        section.error(
            "greeting",
            "in mode \"smtp\" we greet the client ourselves, in clear text",
            "remove this key, or set `mode = \"passthrough\"` for TLS from the first octet",
        );
    }
    let elsewhere = [
        (
            "idle_timeout",
            "set `command_timeout` and `data_timeout` in the table `smtp` of the listener instead",
        ),
        (
            "half_close_timeout",
            "remove this key; `final_timeout` in the table `smtp` of the pool bounds the last wait",
        ),
    ];
    for (key, help) in elsewhere {
        if section.has(key) {
            section.warn(key, "this key says nothing in mode \"smtp\"", help);
        }
    }
    let greets_at_once = listener.smtp.greet_delay.is_zero();
    if listener.early_talker != EarlyTalker::Pass && greets_at_once {
        section.warn(
            "early_talker",
            "hardly any client is early: in mode \"smtp\" the greeting is sent at once",
            "set `greet_delay = \"3s\"` in the table `smtp` of the listener, or remove this key",
        );
    }
}

/// The `smtp` table of a pool.
pub(super) fn pool(section: &Section<'_>) -> PoolSmtp {
    let mut smtp = PoolSmtp::default();
    section.word("sticky", words::STICKY, &mut smtp.sticky);
    section.duration("idle_timeout", &mut smtp.idle_timeout);
    section.duration("max_age", &mut smtp.max_age);
    section.count("max_messages", &mut smtp.max_messages);
    section.count("max_idle", &mut smtp.max_idle);
    section.count("max_opening", &mut smtp.max_opening);
    section.count("min_idle", &mut smtp.min_idle);
    section.duration("reply_timeout", &mut smtp.reply_timeout);
    section.duration("data_timeout", &mut smtp.data_timeout);
    section.duration("block_timeout", &mut smtp.block_timeout);
    section.duration("final_timeout", &mut smtp.final_timeout);
    pool_contradictions(section, &smtp);
    section.finish();
    smtp
}

fn pool_contradictions(section: &Section<'_>, smtp: &PoolSmtp) {
    if smtp.min_idle > smtp.max_idle {
        section.error(
            "min_idle",
            format!(
                "min_idle ({}) is more than max_idle ({})",
                smtp.min_idle, smtp.max_idle
            ),
            "set max_idle to the same or more",
        );
    }
    if smtp.final_timeout < FINAL_ADVISED {
        section.warn(
            "final_timeout",
            "a backend that accepts a message later is not believed: its client sends it again, \
             and it arrives twice",
            "set it to \"595s\" (RFC 5321 §4.5.3.2.6)",
        );
    }
    // What a client waits itself (RFC 5321 §4.5.3.2): whoever is later speaks to nobody.
    for (key, set, patience, paragraph) in [
        ("reply_timeout", smtp.reply_timeout, 5, "§4.5.3.2.2"),
        ("data_timeout", smtp.data_timeout, 2, "§4.5.3.2.4"),
        ("block_timeout", smtp.block_timeout, 3, "§4.5.3.2.5"),
        ("final_timeout", smtp.final_timeout, 10, "§4.5.3.2.6"),
    ] {
        let patience = Duration::from_mins(patience);
        if set > patience {
            let [set, patience] = [set, patience].map(duration_text);
            section.warn(
                key,
                format!("the client waits {patience} and is gone before {set} have passed"),
                &format!("set it to \"{patience}\" or less (RFC 5321 {paragraph})"),
            );
        }
    }
}

/// Backends that are not kept as many connections to as the pool says: a quarter of what they may
/// have is the most.
pub(super) fn connections_fit(section: &Section<'_>, pool: &Pool) {
    let limited = pool.backends.iter().filter(|(_, b)| b.max_connections > 0);
    let Some((name, least)) = limited.min_by_key(|(_, backend)| backend.max_connections) else {
        return;
    };
    for (key, wanted) in [
        ("min_idle", pool.smtp.min_idle),
        ("max_idle", pool.smtp.max_idle),
    ] {
        let most = (least.max_connections / 4).max(1);
        if section.has(key) && wanted > most {
            section.warn(
                key,
                format!(
                    "backend {name} has max_connections = {}: only {most} of them are kept idle",
                    least.max_connections
                ),
                "set it to a quarter of max_connections or less, or raise that",
            );
        }
    }
}

/// The quotas of a backend.
pub(super) fn quotas(section: &Section<'_>) -> Vec<Quota> {
    let listed = section.list("quota", value::quota);
    for (at, (quota, place)) in listed.iter().enumerate() {
        let others = listed.iter().enumerate().filter(|(other, _)| *other != at);
        let tighter = others.map(|(other, (limit, _))| (other, limit));
        let twice = |other, limit: &Quota| other > at && limit == quota;
        let mut tighter = tighter.filter(|(other, limit)| !twice(*other, limit));
        if let Some((_, limit)) = tighter.find(|(_, limit)| is_never_reached(quota, limit)) {
            let wrong = Wrong::new(
                format!(
                    "this is never reached: {} ends before it",
                    value::quota_text(limit)
                ),
                "remove one of the two, or correct it",
            );
            section.report.warn(place, wrong);
        }
    }
    listed.into_iter().map(|(quota, _)| quota).collect()
}

/// Whether `limit` alone keeps the count below `quota`: a message has at least one recipient.
fn is_never_reached(quota: &Quota, limit: &Quota) -> bool {
    use super::model::QuotaUnit::{Messages, Recipients};
    let counts = match (quota.unit, limit.unit) {
        (Messages, Messages | Recipients) | (Recipients, Recipients) => true,
        (Recipients, Messages) => false,
    };
    let spans = quota.period.as_millis().div_ceil(limit.period.as_millis());
    counts && u128::from(quota.count) >= u128::from(limit.count).saturating_mul(spans)
}
