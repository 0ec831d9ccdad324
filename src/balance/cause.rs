//! A cause in words, for people: on the status page, in the log, on the command line, in the demo.
//!
//! How it failed, at which step, and who found it out: `connection refused (found by a probe)`.

use std::fmt;
use std::time::Duration;

use super::{Cause, FailureKind, Stage};

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(kind) = self.kind else {
            return self.origin_words(f);
        };
        self.failure_words(f, kind)?;
        f.write_str(" (")?;
        self.origin_words(f)?;
        f.write_str(")")
    }
}

impl Cause {
    fn origin_words(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.origin, &self.who) {
            ("operator", Some(who)) => write!(f, "set by {who}"),
            ("probe", _) => f.write_str("found by a probe"),
            ("session", _) => f.write_str("found by live sessions"),
            ("timer", _) => f.write_str("the ejection is over"),
            ("reload", _) => f.write_str("since a reload"),
            ("start", _) => f.write_str("since the start"),
            (other, _) => f.write_str(other),
        }
    }

    fn failure_words(&self, f: &mut fmt::Formatter<'_>, kind: FailureKind) -> fmt::Result {
        let step = self.stage.map_or("session", step);
        let text = self.text.as_deref().filter(|text| !text.is_empty());
        let at_connect = self.stage == Some(Stage::Connect);
        match kind {
            FailureKind::Refused => f.write_str("connection refused"),
            FailureKind::Unreachable => f.write_str(text.unwrap_or("no route to host")),
            FailureKind::Timeout => {
                write!(f, "{step} timed out")?;
                self.after(f)
            }
            FailureKind::Silent => {
                write!(f, "{step} slow")?;
                self.after(f)?;
                f.write_str(", another backend was faster")
            }
            FailureKind::Reset if at_connect => f.write_str("connection reset"),
            FailureKind::Reset => write!(f, "{step}: connection reset"),
            FailureKind::Closed => write!(f, "{step}: connection closed"),
            FailureKind::Temporary | FailureKind::Permanent => {
                write!(f, "{step}: ")?;
                self.reply_words(f, text.unwrap_or("refused"))
            }
            FailureKind::Garbage => write_with(f, format_args!("{step}: no reply of SMTP"), text),
            FailureKind::Tls => write_with(f, format_args!("no TLS"), text),
            FailureKind::ProxyMismatch => write_with(
                f,
                format_args!("the PROXY header is not understood there"),
                text,
            ),
            FailureKind::Local => write_with(f, format_args!("{step}: not possible here"), text),
        }
    }

    /// The reply with its code in front, once.
    fn reply_words(&self, f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
        match self.code {
            Some(code) if !text.starts_with(&code.to_string()) => write!(f, "{code} {text}"),
            _ => f.write_str(text),
        }
    }

    fn after(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.duration {
            Some(time) if time < Duration::from_secs(1) => {
                write!(f, " after {} ms", time.as_millis())
            }
            Some(time) => write!(f, " after {:.1} s", time.as_secs_f64()),
            None => Ok(()),
        }
    }
}

fn write_with(
    f: &mut fmt::Formatter<'_>,
    words: fmt::Arguments<'_>,
    text: Option<&str>,
) -> fmt::Result {
    f.write_fmt(words)?;
    match text {
        Some(text) => write!(f, ": {text}"),
        None => Ok(()),
    }
}

/// A step as people call it.
fn step(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "connect",
        Stage::Identity => "PROXY header",
        Stage::Greeting => "greeting",
        Stage::Ehlo => "EHLO",
        Stage::Starttls => "STARTTLS",
        Stage::Mail => "MAIL",
        Stage::Rcpt => "RCPT",
        Stage::Data => "DATA",
        Stage::Content => "message",
        Stage::EndOfData => "end of data",
        Stage::Quit => "QUIT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(
        origin: &'static str,
        stage: Stage,
        kind: FailureKind,
        reply: (Option<u16>, Option<&str>),
        millis: Option<u64>,
    ) -> String {
        Cause {
            stage: Some(stage),
            kind: Some(kind),
            code: reply.0,
            text: reply.1.map(Into::into),
            duration: millis.map(Duration::from_millis),
            ..Cause::of(origin)
        }
        .to_string()
    }

    #[test]
    fn a_failure_is_said_as_an_operator_would_say_it() {
        use FailureKind as Kind;
        let none = (None, None);
        for (origin, stage, kind, reply, millis, words) in [
            (
                "probe",
                Stage::Connect,
                Kind::Refused,
                (None, Some("connection refused")),
                Some(0),
                "connection refused (found by a probe)",
            ),
            (
                "session",
                Stage::Connect,
                Kind::Unreachable,
                (None, Some("network unreachable")),
                None,
                "network unreachable (found by live sessions)",
            ),
            (
                "probe",
                Stage::Connect,
                Kind::Timeout,
                (None, Some("timed out")),
                Some(3000),
                "connect timed out after 3.0 s (found by a probe)",
            ),
            (
                "session",
                Stage::Greeting,
                Kind::Silent,
                none,
                Some(250),
                "greeting slow after 250 ms, another backend was faster (found by live sessions)",
            ),
            (
                "session",
                Stage::Greeting,
                Kind::Temporary,
                (Some(421), Some("4.3.2 too busy")),
                Some(1),
                "greeting: 421 4.3.2 too busy (found by live sessions)",
            ),
            (
                "probe",
                Stage::Ehlo,
                Kind::Permanent,
                (Some(502), Some("502 what?")),
                Some(1),
                "EHLO: 502 what? (found by a probe)",
            ),
            (
                "probe",
                Stage::Greeting,
                Kind::Closed,
                none,
                Some(1),
                "greeting: connection closed (found by a probe)",
            ),
            (
                "probe",
                Stage::Starttls,
                Kind::Tls,
                (None, Some("certificate expired")),
                Some(1),
                "no TLS: certificate expired (found by a probe)",
            ),
        ] {
            assert_eq!(failed(origin, stage, kind, reply, millis), words);
        }
    }

    #[test]
    fn a_cause_that_is_no_failure_says_its_origin() {
        for (origin, words) in [
            ("probe", "found by a probe"),
            ("timer", "the ejection is over"),
            ("start", "since the start"),
            ("reload", "since a reload"),
        ] {
            assert_eq!(Cause::of(origin).to_string(), words);
        }
        let operator = Cause {
            who: Some("uid 0".into()),
            ..Cause::of("operator")
        };
        assert_eq!(operator.to_string(), "set by uid 0");
    }

    #[test]
    fn every_kind_at_every_stage_has_words() {
        for stage in Stage::ALL {
            for kind in FailureKind::ALL {
                let words = failed("probe", stage, kind, (None, None), None);
                assert!(
                    words.len() > " (found by a probe)".len(),
                    "{stage:?} {kind:?}"
                );
            }
        }
    }
}
