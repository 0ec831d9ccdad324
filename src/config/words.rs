//! The words of the file for our own enums, in one place for reading and for showing.

use super::model::{
    AddressFamily, AdminState, Balance, Depth, EarlyTalker, Failback, GreetingMode,
    GreetingVerdicts, Identity, LogFormat, LogLevel, LogOutput, Mode, ProxyIn, QuotaUnit, Sticky,
    WhenAllDown,
};
use crate::smtp::{ClientQuirks, LineEndings};

/// Words and what they mean.
pub(super) type Words<T> = &'static [(&'static str, T)];

pub(super) const LEVELS: Words<LogLevel> = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("off", LogLevel::Off),
];
pub(super) const FORMATS: Words<LogFormat> =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const OUTPUTS: Words<LogOutput> = &[
    ("stdout", LogOutput::Stdout),
    ("stderr", LogOutput::Stderr),
    ("journald", LogOutput::Journald),
];
pub(super) const MODES: Words<Mode> = &[("passthrough", Mode::Passthrough), ("smtp", Mode::Smtp)];
pub(super) const GREETINGS: Words<GreetingMode> =
    &[("smtp", GreetingMode::Smtp), ("none", GreetingMode::None)];
pub(super) const PROXIES: Words<ProxyIn> =
    &[("off", ProxyIn::Off), ("required", ProxyIn::Required)];
pub(super) const EARLY_TALKERS: Words<EarlyTalker> = &[
    ("pass", EarlyTalker::Pass),
    ("log", EarlyTalker::Log),
    ("reject", EarlyTalker::Reject),
];
pub(super) const POLICIES: Words<Balance> = &[
    ("least-connections", Balance::LeastConnections),
    ("round-robin", Balance::RoundRobin),
    ("random-two", Balance::RandomTwo),
    ("source-hash", Balance::SourceHash),
    ("first", Balance::First),
];
pub(super) const IDENTITIES: Words<Identity> = &[
    ("none", Identity::None),
    ("proxy-v1", Identity::ProxyV1),
    ("proxy-v2", Identity::ProxyV2),
];
pub(super) const VERDICTS: Words<GreetingVerdicts> = &[
    ("auto", GreetingVerdicts::Auto),
    ("next", GreetingVerdicts::Next),
    ("relay", GreetingVerdicts::Relay),
];
pub(super) const ALL_DOWN: Words<WhenAllDown> =
    &[("try", WhenAllDown::Try), ("refuse", WhenAllDown::Refuse)];
pub(super) const FAILBACKS: Words<Failback> =
    &[("auto", Failback::Auto), ("manual", Failback::Manual)];
pub(super) const DEPTHS: Words<Depth> = &[
    ("connect", Depth::Connect),
    ("banner", Depth::Banner),
    ("ehlo", Depth::Ehlo),
    ("starttls", Depth::Starttls),
    ("mail", Depth::Mail),
];
pub(super) const CLIENT_QUIRKS: Words<ClientQuirks> = &[
    ("accept", ClientQuirks::Accept),
    ("reject", ClientQuirks::Reject),
];
pub(super) const LINE_ENDINGS: Words<LineEndings> = &[
    ("normalize", LineEndings::Normalize),
    ("reject", LineEndings::Reject),
];
pub(super) const STICKY: Words<Sticky> = &[
    ("none", Sticky::None),
    ("session", Sticky::Session),
    ("source", Sticky::Source),
];
pub(super) const QUOTA_UNITS: Words<QuotaUnit> = &[
    ("messages", QuotaUnit::Messages),
    ("recipients", QuotaUnit::Recipients),
];
pub(super) const STATES: Words<AdminState> = &[
    ("ready", AdminState::Ready),
    ("drain", AdminState::Drain),
    ("maint", AdminState::Maint),
];

pub(super) const FAMILIES: Words<AddressFamily> = &[
    ("any", AddressFamily::Any),
    ("ipv4", AddressFamily::Ipv4),
    ("ipv6", AddressFamily::Ipv6),
];

/// The word for `value`.
pub(super) fn word<T: PartialEq>(words: Words<T>, value: &T) -> &'static str {
    words
        .iter()
        .find(|(_, meaning)| meaning == value)
        .map_or("?", |(word, _)| word)
}
