//! What a listener in smtp mode announces in front of its backends (rule E3).
//!
//! The one place where the operator's words and the backends' meet: the sessions and
//! `posthouse check --live` both ask here.

use std::num::NonZeroU64;

use crate::config::model::{ListenerSmtp, RECIPIENTS_EXPECTED};
use crate::smtp::{Extensions, Keyword, Keywords, OwnExtensions, SessionLimits};

/// The largest value of a limit (RFC 9422 §4).
const LIMIT_MAX: u32 = 999_999;

/// What clients of a listener are offered in front of these backends; one whose extensions are not
/// known yet is given as `Extensions::default()`.
///
/// With `announce` pinned, the operator's word goes for what backends have; their sizes still do.
/// A limit of recipients that clients do not expect is announced in any case (rule S5).
pub fn announced<'a>(
    settings: &ListenerSmtp,
    backends: impl IntoIterator<Item = &'a Extensions>,
) -> Extensions {
    let mut allowed = settings.announce.unwrap_or(Keywords::CLEAR);
    if settings.max_recipients < RECIPIENTS_EXPECTED {
        allowed.insert(Keyword::Limits);
    }
    let own = OwnExtensions {
        allowed,
        size_max: NonZeroU64::new(settings.max_message_size),
        limits: SessionLimits {
            rcpt_max: Some(settings.max_recipients.min(LIMIT_MAX)),
            ..SessionLimits::default()
        },
    };
    let Some(keywords) = settings.announce else {
        return Extensions::announced(&own, backends);
    };
    let having_all = |backend: &Extensions| Extensions {
        keywords,
        ..backend.clone()
    };
    let mut pinned: Vec<_> = backends.into_iter().map(having_all).collect();
    if pinned.is_empty() {
        pinned.push(having_all(&Extensions::default()));
    }
    Extensions::announced(&own, &pinned)
}

#[cfg(test)]
mod tests {
    use super::*;
    fn backend(lines: &[&str]) -> Extensions {
        Extensions::of_lines(lines.iter().map(|line| line.as_bytes()))
    }

    fn lines(extensions: &Extensions) -> String {
        let mut reply = Vec::new();
        extensions.write_ehlo("h", &mut reply);
        String::from_utf8(reply)
            .expect("ASCII")
            .replace("\r\n", "|")
    }

    #[test]
    fn e3_the_intersection_goes_unless_the_operator_pins_the_list() {
        let one = backend(&["PIPELINING", "SIZE 1000", "8BITMIME", "DSN"]);
        let other = backend(&["SIZE 5000", "8BITMIME", "CHUNKING"]);
        let mut settings = ListenerSmtp {
            max_recipients: 2_000_000,
            ..ListenerSmtp::default()
        };
        let shown = |settings: &ListenerSmtp, backends: &[Extensions]| {
            lines(&announced(settings, backends))
        };
        let ours = "250-h|250-PIPELINING|250-SIZE";
        let limits = "250 LIMITS RCPTMAX=999999|";
        let both = [one, other];
        assert_eq!(
            shown(&settings, &both),
            format!("{ours} 1000|250-8BITMIME|{limits}")
        );
        assert_eq!(shown(&settings, &[]), format!("{ours}|{limits}"));
        let unknown = [both[0].clone(), Extensions::default()];
        assert_eq!(shown(&settings, &unknown), format!("{ours} 1000|{limits}"));
        let pinned = Keywords::default().with(Keyword::Size).with(Keyword::Dsn);
        settings.announce = Some(pinned);
        settings.max_message_size = 3000;
        assert_eq!(shown(&settings, &both), "250-h|250-SIZE 1000|250 DSN|");
        assert_eq!(shown(&settings, &[]), "250-h|250-SIZE 3000|250 DSN|");
    }

    #[test]
    fn rule_s5_fewer_recipients_than_clients_expect_are_announced_whatever_is_pinned() {
        let of = |max_recipients, announce| {
            let settings = ListenerSmtp {
                max_recipients,
                announce,
                ..ListenerSmtp::default()
            };
            lines(&announced(&settings, [&backend(&["LIMITS RCPTMAX=70"])]))
        };
        let none = Some(Keywords::default());
        assert_eq!(of(50, none), "250-h|250 LIMITS RCPTMAX=50|");
        assert_eq!(of(99, none), "250-h|250 LIMITS RCPTMAX=70|");
        assert_eq!(of(100, none), "250 h|");
        assert!(of(50, None).ends_with("|250 LIMITS RCPTMAX=50|"));
    }
}
