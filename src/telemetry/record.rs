//! The one line of a session: its facts and how they are written.
//!
//! Durations are milliseconds with three decimals; absent facts are absent fields. Failed attempts
//! are `backend/stage/kind[/code]/ms`, separated by commas, and an array of objects in JSON; so are
//! refusals of ours, which are `command code text`, separated by semicolons.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::line::{Fields, Form, json_value, millis};
use crate::balance::{FailureKind, Stage};
use crate::config::model::LogLevel;
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::types::SessionId;

/// The most octets of a reply of ours that are told; three of them have room in one value.
const REFUSAL_OCTETS_MAX: usize = 300;

/// One failed attempt of a session.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The backend's name.
    pub backend: Arc<str>,
    /// How far the attempt had got.
    pub stage: Stage,
    /// Why it failed.
    pub kind: FailureKind,
    /// The reply code, if there was a reply.
    pub code: Option<u16>,
    /// How long the attempt took.
    pub after: Duration,
}

/// Everything the one line of a session says.
#[derive(Debug)]
pub struct SessionRecord<'a> {
    /// When it ended: the time of the line.
    pub at: Instant,
    /// The session.
    pub id: SessionId,
    /// The listener's name.
    pub listener: &'a str,
    /// The true client: from the PROXY header where there is one.
    pub client: SocketAddr,
    /// The TCP peer, where it is not the client.
    pub via: Option<SocketAddr>,
    /// Pool, name and address of the backend that served (or refused) it.
    pub backend: Option<(&'a str, &'a str, SocketAddr)>,
    /// Dials, the good one included.
    pub attempts: u32,
    /// The failed ones.
    pub failures: &'a [AttemptRecord],
    /// Whether a second backend was dialled because the first was slow.
    pub hedged: bool,
    /// Time in the queue, if it waited.
    pub queue: Option<Duration>,
    /// From dial to connected, of the backend that served it.
    pub connect: Option<Duration>,
    /// From accept to the first octet to the client.
    pub greeting: Option<Duration>,
    /// From accept to the end.
    pub session: Duration,
    /// Octets from the client to the backend.
    pub octets_to_backend: u64,
    /// Octets from the backend to the client.
    pub octets_to_client: u64,
    /// Who ended it.
    pub ended_by: EndedBy,
    /// In which phase.
    pub phase: SessionPhase,
    /// How it ended.
    pub outcome: SessionOutcome,
    /// The reply we made ourselves, or the bad greeting we relayed.
    pub reply: Option<&'a str>,
    /// How often we refused the client something.
    pub refused: u32,
    /// The last of that, in order.
    pub refusals: &'a [RefusalRecord],
}

/// A reply of ours that refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalRecord {
    /// The name of the command that it answered.
    pub command: &'static str,
    /// The code.
    pub code: u16,
    /// What followed it, without CRLF.
    pub text: String,
}

impl SessionRecord<'_> {
    /// The event's name.
    pub(super) const EVENT: &'static str = "session.end";

    /// A monitor checks every few seconds for ever: its lines would bury those of sessions.
    pub(super) fn level(outcome: SessionOutcome) -> LogLevel {
        if outcome == SessionOutcome::Monitor {
            LogLevel::Debug
        } else {
            LogLevel::Info
        }
    }

    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        fields.shown("session.id", self.id);
        fields.text("listener", self.listener);
        fields.shown("client.addr", self.client);
        if let Some(via) = self.via {
            fields.shown("via.addr", via);
        }
        if let Some((pool, backend, address)) = self.backend {
            fields.text("pool", pool);
            fields.text("backend", backend);
            fields.shown("backend.addr", address);
        }
        fields.text("outcome", self.outcome.name());
        if self.refused > 0 {
            fields.number("refused", self.refused);
            write_refusals(self.refusals, fields);
        }
        fields.text("ended_by", self.ended_by.name());
        fields.text("phase", self.phase.name());
        fields.number("attempts", self.attempts);
        if !self.failures.is_empty() {
            write_failures(self.failures, fields);
        }
        if self.hedged {
            fields.number("hedged", true);
        }
        for (key, duration) in [
            ("queue_ms", self.queue),
            ("connect_ms", self.connect),
            ("greeting_ms", self.greeting),
            ("session_ms", Some(self.session)),
        ] {
            if let Some(duration) = duration {
                fields.millis(key, duration);
            }
        }
        fields.number("octets.to_backend", self.octets_to_backend);
        fields.number("octets.to_client", self.octets_to_client);
        if let Some(reply) = self.reply {
            fields.text("reply", reply.trim_end());
        }
    }
}

/// The refusals: `command code text` with semicolons, or an array of objects.
fn write_refusals(refusals: &[RefusalRecord], fields: &mut Fields<'_>) {
    match fields.form {
        Form::Text | Form::Journal => fields.written("refusals", |out| {
            for (index, refusal) in refusals.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(b"; ");
                }
                let _ = write!(
                    out,
                    "{} {} {}",
                    refusal.command,
                    refusal.code,
                    refusal.cut()
                );
            }
        }),
        Form::Json => {
            fields.key("refusals");
            for (index, refusal) in refusals.iter().enumerate() {
                let out = &mut *fields.out;
                out.extend_from_slice(if index == 0 { b"[" } else { b"," });
                let _ = write!(
                    out,
                    "{{\"command\":\"{}\",\"code\":{},\"text\":",
                    refusal.command, refusal.code
                );
                json_value(out, refusal.cut());
                out.push(b'}');
            }
            fields.out.push(b']');
        }
    }
}

impl RefusalRecord {
    /// As much of the text as is told.
    fn cut(&self) -> &str {
        &self.text[..self.text.floor_char_boundary(REFUSAL_OCTETS_MAX)]
    }
}

/// The failed attempts: `backend/stage/kind[/code]/ms` with commas, or an array of objects.
pub(super) fn write_failures(failures: &[AttemptRecord], fields: &mut Fields<'_>) {
    match fields.form {
        Form::Text | Form::Journal => fields.written("failures", |out| {
            for (index, failure) in failures.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(failure.backend.as_bytes());
                out.push(b'/');
                out.extend_from_slice(failure.stage.name().as_bytes());
                out.push(b'/');
                out.extend_from_slice(failure.kind.name().as_bytes());
                if let Some(code) = failure.code {
                    let _ = write!(out, "/{code}");
                }
                out.push(b'/');
                millis(out, failure.after);
            }
        }),
        Form::Json => {
            fields.key("failures");
            for (index, failure) in failures.iter().enumerate() {
                let out = &mut *fields.out;
                out.extend_from_slice(if index == 0 { b"[" } else { b"," });
                out.extend_from_slice(b"{\"backend\":");
                json_value(out, &failure.backend);
                let _ = write!(
                    out,
                    ",\"stage\":\"{}\",\"kind\":\"{}\"",
                    failure.stage.name(),
                    failure.kind.name()
                );
                if let Some(code) = failure.code {
                    let _ = write!(out, ",\"code\":{code}");
                }
                out.extend_from_slice(b",\"ms\":");
                millis(out, failure.after);
                out.push(b'}');
            }
            fields.out.push(b']');
        }
    }
}
