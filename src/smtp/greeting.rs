//! STUB: a backend's greeting, and whose fault a bad one is (DESIGN §5, rules S6–S9).
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use super::reply::{Reply, ReplyError};

/// What the octets a backend has sent so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting<'a> {
    Incomplete,
    /// The first line is complete and is a valid `220`: commit now, with everything that was read.
    Good,
    /// A complete reply that is not 220.
    Bad(Reply<'a>),
    Garbage(ReplyError),
}

/// Reads the greeting from all octets received so far. Stateless: call it again with more.
pub fn read_greeting(octets: &[u8]) -> Greeting<'_> {
    todo!()
}

/// Whether the backend knows who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityCarried {
    Yes,
    No,
}

/// `greeting_verdicts` of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingRule {
    Auto,
    Next,
    Relay,
}

/// What to do with a bad greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingJudgement {
    /// The backend's fault: a strike, and the next backend.
    Next,
    /// About this client: relay it, no strike.
    Relay,
    /// Relay it, and tell the balancer (`Observation::RefusedClient`).
    RelayAndCount,
}

/// The verdict table of DESIGN §5.
pub fn judge_greeting(
    reply: &Reply<'_>,
    identity: IdentityCarried,
    rule: GreetingRule,
) -> GreetingJudgement {
    todo!()
}
