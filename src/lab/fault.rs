//! Faults as they are typed: `greeting=421`, `rcpt=delay:2s`, `dot=reset`.
//!
//! The words are those of [`Script`]; a fault that cannot be read says what could have been meant.

use std::str::FromStr;
use std::time::Duration;

use super::script::{Act, At, Script, WhenFull};

/// One typed fault, to be put into a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Act(At, Act),
    Reply(At, String),
    Delay(At, Duration),
    Teaser(Duration),
    DelayAll(Duration),
    Proxy,
    NoPipelining,
    Capabilities(Vec<String>),
    Max(u32, WhenFull),
    After(u32),
}

/// Why a fault cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// There is no `=`.
    #[error("a fault is WHERE=WHAT, for example greeting=421 or rcpt=delay:2s")]
    Form,
    /// The word before `=` is not known.
    #[error(
        "{0:?} is not a place for a fault: take connect, greeting, ehlo, mail, rcpt, data, \
         mid-data, dot, taken, rset, quit, all, after, proxy, pipelining, capabilities or max"
    )]
    Place(String),
    /// The word behind `=` is not known there.
    #[error(
        "{what:?} cannot happen at {place}: take close, reset, die, silent, torn:OCTETS, \
         delay:TIME{teaser} or a reply such as 421 or \"550 5.1.1 no such user\""
    )]
    Act {
        /// What was typed.
        what: String,
        /// Where.
        place: &'static str,
        /// The words for another choice.
        teaser: &'static str,
    },
    /// A duration is not one.
    #[error("{0:?} is not a time: write a number with ms, s or m, for example 300ms or 6s")]
    Time(String),
    /// A setting has another value than it can have.
    #[error("{place} cannot be {what:?}: {remedy}")]
    Setting {
        /// Which.
        place: &'static str,
        /// What was typed.
        what: String,
        /// What to write.
        remedy: &'static str,
    },
}

impl Fault {
    /// The script with this fault.
    #[must_use]
    pub fn put_into(self, mut script: Script) -> Script {
        match self.0 {
            Kind::Act(at, act) => script.act(at, act),
            Kind::Reply(at, reply) => script.reply(at, &reply),
            Kind::Delay(at, delay) => script.delay(at, delay),
            Kind::Teaser(after) => {
                let teaser = Script::teaser(after);
                let act = teaser
                    .step(At::Greeting)
                    .map(|step| step.act.clone())
                    .unwrap_or_default();
                script.act(At::Greeting, act)
            }
            Kind::DelayAll(delay) => script.reply_delay(delay),
            Kind::Proxy => script.proxy_required(),
            Kind::NoPipelining => script.no_pipelining(),
            Kind::Capabilities(keywords) => {
                script.capabilities = keywords;
                script
            }
            Kind::Max(limit, when_full) => script.max_connections(limit, when_full),
            Kind::After(mails) => script.after_mails(mails),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (place, what) = text.split_once('=').ok_or(FaultError::Form)?;
        let setting = |place, remedy| FaultError::Setting {
            place,
            what: what.to_owned(),
            remedy,
        };
        let kind = match (place, what) {
            ("proxy", "required") => Kind::Proxy,
            ("proxy", _) => return Err(setting("proxy", "write proxy=required")),
            ("pipelining", "off") => Kind::NoPipelining,
            ("pipelining", _) => return Err(setting("pipelining", "write pipelining=off")),
            ("capabilities", list) => Kind::Capabilities(
                list.split(',')
                    .map(str::trim)
                    .filter(|keyword| !keyword.is_empty())
                    .map(String::from)
                    .collect(),
            ),
            ("max", rule) => read_max(rule).ok_or_else(|| {
                setting(
                    "max",
                    "write max=2 (one more waits) or max=2:421 (it is refused)",
                )
            })?,
            ("after", count) => Kind::After(count.parse().map_err(|_| {
                setting(
                    "after",
                    "write after=3: three transactions of each connection pass first",
                )
            })?),
            ("all", rule) => match rule.strip_prefix("delay:") {
                Some(time) => Kind::DelayAll(read_time(time)?),
                None => return Err(setting("all", "write all=delay:50ms")),
            },
            (place, what) => read_act(place, what)?,
        };
        Ok(Self(kind))
    }
}

fn read_act(place: &str, what: &str) -> Result<Kind, FaultError> {
    let at = At::ALL
        .into_iter()
        .find(|at| at.name() == place)
        .ok_or_else(|| FaultError::Place(place.to_owned()))?;
    let can_reply = !matches!(at, At::Connect | At::MidData | At::Taken);
    match what {
        "close" => Ok(Kind::Act(at, Act::Close)),
        "reset" => Ok(Kind::Act(at, Act::Reset)),
        "silent" => Ok(Kind::Act(at, Act::Silent)),
        "die" => Ok(Kind::Act(at, Act::Die)),
        _ => {
            if let Some(time) = what.strip_prefix("delay:") {
                return Ok(Kind::Delay(at, read_time(time)?));
            }
            if let Some(octets) = what.strip_prefix("torn:") {
                return Ok(Kind::Act(at, Act::Torn(octets.into())));
            }
            if let (Some(time), At::Greeting) = (what.strip_prefix("teaser:"), at) {
                return Ok(Kind::Teaser(read_time(time)?));
            }
            read_reply(what)
                .filter(|_| can_reply)
                .map(|reply| Kind::Reply(at, reply))
                .ok_or_else(|| FaultError::Act {
                    what: what.to_owned(),
                    place: at.name(),
                    teaser: if at == At::Greeting {
                        ", teaser:TIME"
                    } else {
                        ""
                    },
                })
        }
    }
}

/// A reply: every line begins with a code; a code alone gets a text. `\n` separates lines.
fn read_reply(text: &str) -> Option<String> {
    let text = text.replace("\\n", "\n");
    let starts_with_code = |line: &str| {
        let octets = line.as_bytes();
        octets.len() >= 3
            && (b'2'..=b'5').contains(&octets[0])
            && octets[1..3].iter().all(u8::is_ascii_digit)
            && matches!(octets.get(3), None | Some(b' ' | b'-'))
    };
    if !text.lines().all(starts_with_code) || text.is_empty() {
        return None;
    }
    if text.len() > 3 {
        return Some(text);
    }
    let words = match &*text {
        "220" => "sink.test ESMTP",
        "421" => "4.3.2 sink.test service not available",
        "450" => "4.2.1 mailbox unavailable",
        "451" => "4.3.0 local error in processing",
        "452" => "4.3.1 insufficient system storage",
        "550" => "5.1.1 no such user here",
        "552" => "5.3.4 message too big",
        "554" => "5.7.1 no service for you",
        _ => return Some(format!("{text} {}.0.0 scripted", &text[..1])),
    };
    Some(format!("{text} {words}"))
}

fn read_max(rule: &str) -> Option<Kind> {
    let (limit, reply) = match rule.split_once(':') {
        Some((limit, reply)) => (limit, Some(reply)),
        None => (rule, None),
    };
    let when_full = match reply {
        None | Some("wait") => WhenFull::Wait,
        Some(reply) => WhenFull::Refuse(read_reply(reply)?),
    };
    Some(Kind::Max(limit.parse().ok()?, when_full))
}

fn read_time(text: &str) -> Result<Duration, FaultError> {
    read_duration(text).ok_or_else(|| FaultError::Time(text.to_owned()))
}

/// A duration as it is typed: a whole number with `ms`, `s` or `m`, at most 1,000,000 of them.
pub fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok().filter(|n| *n <= 1_000_000)?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(fault: &str) -> Script {
        let fault: Fault = fault.parse().unwrap();
        fault.put_into(Script::good())
    }

    #[test]
    fn typed_faults_are_the_scripts_they_name() {
        let good = Script::good;
        let seconds = Duration::from_secs;
        let table = [
            ("greeting=silent", Script::silent()),
            (
                "greeting=421",
                Script::greeting("421 4.3.2 sink.test service not available"),
            ),
            ("greeting=220-a\\n220 b", Script::greeting("220-a\n220 b")),
            ("greeting=teaser:6s", Script::teaser(seconds(6))),
            ("connect=reset", good().reset_at(At::Connect)),
            ("mid-data=close", good().close_at(At::MidData)),
            ("mid-data=die", good().die_at(At::MidData)),
            ("taken=reset", good().reset_at(At::Taken)),
            ("dot=torn:25", good().torn_at(At::Dot, "25")),
            ("after=3", good().after_mails(3)),
            ("rcpt=delay:2s", good().delay(At::Rcpt, seconds(2))),
            ("mail=499", good().reply(At::Mail, "499 4.0.0 scripted")),
            ("all=delay:1m", good().reply_delay(seconds(60))),
            ("proxy=required", good().proxy_required()),
            ("pipelining=off", good().no_pipelining()),
            (
                "capabilities=SIZE 9, 8BITMIME",
                good().capabilities(["SIZE 9", "8BITMIME"]),
            ),
            ("max=2", good().max_connections(2, WhenFull::Wait)),
            (
                "max=1:421 4.7.0 full",
                good().max_connections(1, WhenFull::Refuse("421 4.7.0 full".into())),
            ),
        ];
        for (typed, meant) in table {
            assert_eq!(script(typed), meant, "{typed}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_to_write() {
        let table = [
            ("greeting", "WHERE=WHAT"),
            ("banner=421", "greeting"),
            ("greeting=soon", "teaser:TIME"),
            ("rcpt=teaser:2s", "delay:TIME or"),
            ("connect=421", "cannot happen at connect"),
            ("taken=451", "cannot happen at taken"),
            ("after=many", "after=3"),
            ("rcpt=delay:2", "300ms"),
            ("rcpt=190", "a reply such as"),
            ("max=many", "max=2:421"),
            ("proxy=yes", "proxy=required"),
            ("all=close", "all=delay:50ms"),
        ];
        for (typed, word) in table {
            let error = typed.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(word), "{typed}: {error}");
        }
    }
}
