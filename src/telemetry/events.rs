//! All lines but those of sessions: `tracing` events, state changes, events of pools.
//!
//! An event's name is the `name:` it was made with, or else its message; the names are static and
//! the storm limit counts by them. Spans are not used and cost nothing here. Libraries are heard
//! only where an operator could act: their warnings at `debug`, else their errors.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::line::Fields;
use super::{Core, Telemetry};
use crate::balance::{
    AdminState, Cause, HealthState, PoolEvent, QuotaLevel, QuotaUse, StateChange,
};
use crate::config::duration_text;
use crate::config::model::LogLevel;

/// The one word for a backend's state: what the operator set, or else what we found.
pub fn state_name(admin: AdminState, health: HealthState) -> &'static str {
    match (admin, health) {
        (AdminState::Drain, _) => "drain",
        (AdminState::Maint, _) => "maint",
        (AdminState::Ready, health) => health.name(),
    }
}

impl Telemetry {
    /// One `backend.state` event: `warn` when a backend is lost, else `info`.
    pub fn state_change(&self, change: &StateChange) {
        let to = state_name(change.to.0, change.to.1);
        let level = match (change.to.0, change.to.1) {
            (AdminState::Ready, HealthState::Down | HealthState::Ejected) => LogLevel::Warn,
            _ => LogLevel::Info,
        };
        self.core().event(level, "backend.state", |fields| {
            fields.text("pool", &change.pool);
            fields.text("backend", &change.backend);
            fields.shown("backend.addr", change.address);
            fields.text("from", state_name(change.from.0, change.from.1));
            fields.text("to", to);
            cause_fields(fields, &change.cause);
        });
    }

    /// One `backend.quota` event: `warn` when little or nothing is left, else `info`.
    fn quota_level(&self, pool: &str, backend: &str, of: &QuotaUse, state: QuotaLevel) {
        let level = match state {
            QuotaLevel::Near | QuotaLevel::UsedUp => LogLevel::Warn,
            QuotaLevel::Free => LogLevel::Info,
        };
        self.core().event(level, "backend.quota", |fields| {
            fields.text("pool", pool);
            fields.text("backend", backend);
            fields.text("state", state.name());
            fields.number("used", of.used);
            fields.number("limit", of.quota.count);
            fields.text("unit", of.quota.unit.name());
            fields.text("window", &duration_text(of.quota.period));
        });
    }

    /// One event of a pool.
    pub fn pool_event(&self, event: &PoolEvent) {
        match event {
            PoolEvent::Changed(change) => self.state_change(change),
            PoolEvent::TierOpened {
                pool,
                tier,
                usable_weight,
                configured_weight,
            } => self
                .core()
                .event(LogLevel::Warn, "pool.tier_opened", |fields| {
                    fields.text("pool", pool);
                    fields.number("tier", tier);
                    fields.number("weight.usable", usable_weight);
                    fields.number("weight.configured", configured_weight);
                }),
            PoolEvent::Quota {
                pool,
                backend,
                quota,
                level,
            } => self.quota_level(pool, backend, quota, *level),
            PoolEvent::TierClosed { pool, tier } => {
                self.core()
                    .event(LogLevel::Info, "pool.tier_closed", |fields| {
                        fields.text("pool", pool);
                        fields.number("tier", tier);
                    });
            }
        }
    }
}

fn cause_fields(fields: &mut Fields<'_>, cause: &Cause) {
    fields.shown("cause", cause);
    fields.text("cause.origin", cause.origin);
    if let Some(stage) = cause.stage {
        fields.text("cause.stage", stage.name());
    }
    if let Some(kind) = cause.kind {
        fields.text("cause.kind", kind.name());
    }
    if let Some(code) = cause.code {
        fields.number("cause.code", code);
    }
    if let Some(text) = &cause.text {
        fields.text("cause.text", text);
    }
    if let Some(duration) = cause.duration {
        fields.millis("cause.ms", duration);
    }
    if let Some(who) = &cause.who {
        fields.text("cause.who", who);
    }
}

/// Makes `core` the receiver of this process's events. A second call in one process (tests) is
/// ignored: the first receiver stays.
pub(super) fn subscribe(core: Arc<Core>) {
    let subscriber = tracing_subscriber::registry().with(EventLayer { core });
    // An error says that there is a receiver already.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

pub(super) struct EventLayer {
    pub(super) core: Arc<Core>,
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && self.core.wants(heard_at(metadata))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        SCRATCH.with_borrow_mut(|values| {
            values.clear();
            event.record(values);
            let metadata = event.metadata();
            let (name, message) = name_of(metadata, values);
            let level = level_of(*metadata.level());
            self.core.event_named(level, name, |fields| {
                if let Some(message) = message {
                    fields.text("message", message);
                }
                values.write(fields);
            });
        });
    }
}

thread_local! {
    /// Kept so that an event allocates only while its values grow beyond all before.
    static SCRATCH: RefCell<Values> = RefCell::default();
}

/// The event's name, whether it is static, and the message where that is not the name.
fn name_of<'a>(
    metadata: &'static Metadata<'static>,
    values: &'a Values,
) -> (Name<'a>, Option<&'a str>) {
    let message = values.message();
    if metadata.name().starts_with("event ") {
        match message {
            Some(message) => (
                Name {
                    shown: message,
                    counted: metadata.name(),
                },
                None,
            ),
            None => (Name::fixed(metadata.target()), None),
        }
    } else {
        (Name::fixed(metadata.name()), message)
    }
}

/// An event's name as shown, and the static name the storm limit counts it by (for a message made
/// at run time: the place in the source).
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) shown: &'a str,
    pub(super) counted: &'static str,
}

impl Name<'_> {
    pub(super) fn fixed(name: &'static str) -> Self {
        Self {
            shown: name,
            counted: name,
        }
    }
}

/// At which of our levels an event is heard.
fn heard_at(metadata: &Metadata<'_>) -> LogLevel {
    let level = level_of(*metadata.level());
    if metadata.target().starts_with("posthouse") {
        return level;
    }
    match level {
        LogLevel::Error => LogLevel::Error,
        LogLevel::Warn => LogLevel::Debug,
        LogLevel::Info | LogLevel::Debug | LogLevel::Off => LogLevel::Off,
    }
}

fn level_of(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

/// The values of one event, written one after the other into one text.
#[derive(Default)]
pub(super) struct Values {
    text: String,
    /// Field name, end of its value in `text`, and whether it is a bare number or bool.
    fields: Vec<(&'static str, usize, Kind)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Bare,
}

impl Values {
    fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    fn add(&mut self, field: &Field, kind: Kind, value: std::fmt::Arguments<'_>) {
        // Writing to a String fails only if a Display does: then its field is shorter.
        let _ = self.text.write_fmt(value);
        self.fields.push((field.name(), self.text.len(), kind));
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &str, Kind)> {
        let mut start = 0;
        self.fields.iter().map(move |&(name, end, kind)| {
            let value = &self.text[start..end];
            start = end;
            (name, value, kind)
        })
    }

    fn message(&self) -> Option<&str> {
        self.iter()
            .find(|(name, _, _)| *name == "message")
            .map(|(_, value, _)| value)
    }

    fn write(&self, fields: &mut Fields<'_>) {
        for (name, value, kind) in self.iter().filter(|(name, _, _)| *name != "message") {
            match kind {
                Kind::Text => fields.text(name, value),
                Kind::Bare => fields.number(name, value),
            }
        }
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Kind::Text, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, Kind::Text, format_args!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Kind::Bare, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Kind::Bare, format_args!("{value}"));
    }

    // Without these a wide number, as `Duration::as_millis` gives, would be text in JSON.
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(field, Kind::Bare, format_args!("{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.add(field, Kind::Bare, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Kind::Bare, format_args!("{value}"));
    }
}
