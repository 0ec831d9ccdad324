//! What a sink does at each point of a conversation.
//!
//! A script is data: a step for each point where it differs from a good MTA. It is taken by a
//! connection when it is accepted; a live change reaches new connections, and those that are open
//! only if it is meant for all.

use std::collections::BTreeMap;
use std::time::Duration;

/// A point of a conversation, in the order of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// Right after accept, before a PROXY header is read.
    Connect,
    /// Where the greeting is due.
    Greeting,
    /// The reply to EHLO or HELO.
    Ehlo,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA.
    Data,
    /// After the first octets of a message have come.
    MidData,
    /// The reply to the final dot, or to `BDAT … LAST`: the message is whole and not taken yet.
    Dot,
    /// The message is taken, and counted; the reply that says so is due. What ends the connection
    /// here leaves the sender in doubt about a message that arrived (rule F3).
    Taken,
    /// The reply to RSET.
    Rset,
    /// The reply to QUIT.
    Quit,
}

impl At {
    /// Every point, in order.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Greeting,
        Self::Ehlo,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::MidData,
        Self::Dot,
        Self::Taken,
        Self::Rset,
        Self::Quit,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::MidData => "mid-data",
            Self::Dot => "dot",
            Self::Taken => "taken",
            Self::Rset => "rset",
            Self::Quit => "quit",
        }
    }
}

/// Octets and how long to wait before they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The wait.
    pub after: Duration,
    /// Exactly these octets, in one write.
    pub octets: Vec<u8>,
}

/// What happens at a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Act {
    /// What a good MTA does.
    #[default]
    Usual,
    /// These lines instead, each with a code; the last code decides what follows: 421 closes, 4yz
    /// and 5yz refuse the command. A 5yz greeting stays open and answers 503 until QUIT
    /// (RFC 5321 §3.1).
    Reply(Vec<String>),
    /// Raw octets in pieces: teasers, dribbles, garbage. The first three octets of the last piece
    /// decide what follows, as in [`Act::Reply`].
    Pieces(Vec<Piece>),
    /// These octets, and nothing more: a reply that breaks off (rows 6 and 7 of rule F1).
    Torn(Vec<u8>),
    /// Close in order (FIN) without a word.
    Close,
    /// Reset (RST).
    Reset,
    /// Nothing, for as long as the peer stays.
    Silent,
    /// Nothing until [`super::SinkHandle::release`]; then the usual.
    Hold,
    /// The whole sink dies, as by `kill -9`: every connection is reset, the port is closed. It can
    /// be started again.
    Die,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) delay: Duration,
    pub(super) act: Act,
}

/// Whether a connection must begin with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyRule {
    /// No header: one that comes is read as commands, as a real MTA would.
    #[default]
    Off,
    /// A v1 or v2 header, or the connection is closed.
    Required,
}

/// What a connection beyond `max_connections` meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is accepted and hears nothing until a place is free (Postfix at its process limit).
    Wait,
    /// This reply, then the end.
    Refuse(String),
}

/// What a sink does, point by point; [`Script::default`] is a good MTA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    steps: BTreeMap<At, Step>,
    /// Whether a PROXY header must come first.
    pub proxy: ProxyRule,
    /// EHLO keywords with their parameters. `SIZE n` is enforced, `CHUNKING` switches BDAT on.
    pub capabilities: Vec<String>,
    /// Whether anything behind a command in the same flight ends the session with 500, as
    /// OpenSMTPD does.
    pub pipelining: Pipelining,
    /// Connections at once, and what one more meets.
    pub max_connections: Option<(u32, WhenFull)>,
    /// A wait before every reply.
    pub reply_delay: Duration,
    /// Transactions that a connection has begun before anything else happens on it: what comes at a
    /// point comes from the next one on.
    pub after_mails: u32,
}

/// What a sink thinks of pipelined commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipelining {
    /// They are answered in order (RFC 2920).
    Taken,
    /// `500 5.5.1` and the end (OpenSMTPD).
    Refused,
}

impl Default for Script {
    fn default() -> Self {
        let keywords = [
            "PIPELINING",
            "SIZE 52428800",
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
            "SMTPUTF8",
        ];
        Self {
            steps: BTreeMap::new(),
            proxy: ProxyRule::Off,
            capabilities: keywords.map(String::from).to_vec(),
            pipelining: Pipelining::Taken,
            max_connections: None,
            reply_delay: Duration::ZERO,
            after_mails: 0,
        }
    }
}

impl Script {
    /// A good MTA.
    pub fn good() -> Self {
        Self::default()
    }

    /// Accepts and never greets.
    pub fn silent() -> Self {
        Self::default().act(At::Greeting, Act::Silent)
    }

    /// Greets with this reply; lines are separated by `\n`.
    pub fn greeting(reply: &str) -> Self {
        Self::default().reply(At::Greeting, reply)
    }

    /// Like postscreen: `220-` at once, the last line of the greeting `after` that.
    pub fn teaser(after: Duration) -> Self {
        let piece = |after, octets: &str| Piece {
            after,
            octets: octets.into(),
        };
        Self::default().act(
            At::Greeting,
            Act::Pieces(vec![
                piece(Duration::ZERO, "220-sink.test ESMTP\r\n"),
                piece(after, "220 sink.test ESMTP\r\n"),
            ]),
        )
    }

    /// Does this at that point.
    #[must_use]
    pub fn act(mut self, at: At, act: Act) -> Self {
        self.steps.entry(at).or_default().act = act;
        self
    }

    /// Gives this reply at that point; lines are separated by `\n`.
    #[must_use]
    pub fn reply(self, at: At, reply: &str) -> Self {
        let lines = reply
            .lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect();
        self.act(at, Act::Reply(lines))
    }

    /// Waits this long at that point, then goes on as it otherwise would.
    #[must_use]
    pub fn delay(mut self, at: At, delay: Duration) -> Self {
        self.steps.entry(at).or_default().delay = delay;
        self
    }

    /// Closes in order at that point.
    #[must_use]
    pub fn close_at(self, at: At) -> Self {
        self.act(at, Act::Close)
    }

    /// Resets at that point.
    #[must_use]
    pub fn reset_at(self, at: At) -> Self {
        self.act(at, Act::Reset)
    }

    /// Waits at that point for [`super::SinkHandle::release`].
    #[must_use]
    pub fn hold_at(self, at: At) -> Self {
        self.act(at, Act::Hold)
    }

    /// The whole sink dies when a connection comes to that point.
    #[must_use]
    pub fn die_at(self, at: At) -> Self {
        self.act(at, Act::Die)
    }

    /// Gives only these octets of a reply at that point, then closes.
    #[must_use]
    pub fn torn_at(self, at: At, octets: &str) -> Self {
        self.act(at, Act::Torn(octets.into()))
    }

    /// Requires a PROXY header of either version.
    #[must_use]
    pub fn proxy_required(mut self) -> Self {
        self.proxy = ProxyRule::Required;
        self
    }

    /// Announces exactly these keywords.
    #[must_use]
    pub fn capabilities<S: Into<String>>(mut self, keywords: impl IntoIterator<Item = S>) -> Self {
        self.capabilities = keywords.into_iter().map(Into::into).collect();
        self
    }

    /// Takes no pipelining and does not announce it, as OpenSMTPD.
    #[must_use]
    pub fn no_pipelining(mut self) -> Self {
        self.capabilities.retain(|keyword| keyword != "PIPELINING");
        self.pipelining = Pipelining::Refused;
        self
    }

    /// Takes this many connections at once.
    #[must_use]
    pub fn max_connections(mut self, limit: u32, when_full: WhenFull) -> Self {
        self.max_connections = Some((limit, when_full));
        self
    }

    /// Waits this long before every reply.
    #[must_use]
    pub fn reply_delay(mut self, delay: Duration) -> Self {
        self.reply_delay = delay;
        self
    }

    /// Lets so many transactions of each connection pass before it does anything.
    #[must_use]
    pub fn after_mails(mut self, mails: u32) -> Self {
        self.after_mails = mails;
        self
    }

    pub(super) fn step(&self, at: At) -> Option<&Step> {
        self.steps.get(&at)
    }

    /// The number behind `SIZE`, if one is announced; 0 is no limit (RFC 1870 §4).
    pub(super) fn size_limit(&self) -> Option<u64> {
        self.capabilities
            .iter()
            .find_map(|keyword| keyword.strip_prefix("SIZE "))
            .and_then(|number| number.parse().ok())
            .filter(|limit| *limit > 0)
    }

    pub(super) fn announces(&self, keyword: &str) -> bool {
        self.capabilities
            .iter()
            .any(|has| has.eq_ignore_ascii_case(keyword))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_script_has_no_steps_and_the_size_it_announces() {
        let script = Script::good();
        assert!(At::ALL.iter().all(|at| script.step(*at).is_none()));
        assert_eq!(script.size_limit(), Some(52_428_800));
        assert_eq!(Script::good().capabilities(["SIZE 0"]).size_limit(), None);
    }

    #[test]
    fn a_delay_and_an_act_at_one_point_go_together() {
        let wait = Duration::from_secs(3);
        let script = Script::greeting("421 4.3.2 busy").delay(At::Greeting, wait);
        let step = script.step(At::Greeting).unwrap();
        assert_eq!(step.delay, wait);
        assert_eq!(step.act, Act::Reply(vec!["421 4.3.2 busy".into()]));
    }
}
