//! What an exchange is told, and what it asks for.

use std::time::Duration;

use super::super::replies::OwnReply;
use super::super::reply::Reply;

/// What the operator wants done where the protocol leaves a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manners {
    /// About a message that is in doubt.
    pub in_doubt: InDoubt,
    /// About DATA.
    pub first_354: First354,
}

/// What is done with a message whose backend is lost behind the commit octet (rule F7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InDoubt {
    /// The client is told 451 4.4.2 and decides.
    #[default]
    Tell,
    /// It is said to another backend, once; it may arrive twice.
    Replay,
}

/// Who answers DATA first (rule F9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum First354 {
    /// The backend: its 354 is relayed.
    #[default]
    Backends,
    /// We do, and what the backend says instead is the reply to the message.
    Ours,
}

/// A command of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 5321's")]
pub enum Verb {
    Mail,
    Rcpt,
    Data,
}

impl Verb {
    /// How the line of MAIL begins.
    pub const MAIL_FROM: &'static [u8] = b"MAIL FROM:";
    /// How the line of RCPT begins.
    pub const RCPT_TO: &'static [u8] = b"RCPT TO:";
}

/// What a connection that the exchange is given is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The backend announced PIPELINING.
    pub pipelining: bool,
    /// It announced SIZE.
    pub size: bool,
    /// It announced CHUNKING.
    pub chunking: bool,
    /// It has carried transactions before: if it fails at once, it was dead already.
    pub reused: bool,
    /// How long it is waited for.
    pub times: BackendTimes,
    /// After so long without any answer it is slow; `None` is never.
    pub slow_after: Option<Duration>,
    /// Recipients that places were reserved for, where a quota counts them. No RCPT is said without
    /// a place.
    pub places: Option<u32>,
}

/// How long a backend is waited for (rule K1): for one reply or one block each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendTimes {
    /// The reply to MAIL, RCPT or RSET.
    pub reply: Duration,
    /// The 354.
    pub data: Duration,
    /// Until it takes the next octets of a message.
    pub block: Duration,
    /// The reply to the end of a message, or of a chunk.
    pub last: Duration,
}

impl Default for BackendTimes {
    /// What RFC 5321 §4.5.3.2 tells clients, less 5 s: so that ours is still there when we answer.
    fn default() -> Self {
        Self {
            reply: Duration::from_secs(295),
            data: Duration::from_secs(115),
            block: Duration::from_mins(3),
            last: Duration::from_secs(595),
        }
    }
}

/// What the client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With words of ours.
    Own(OwnReply),
    /// With a backend's reply, as it came.
    Backend(Vec<u8>),
}

impl Answer {
    pub(super) fn of(reply: &Reply<'_>) -> Self {
        Self::Backend(reply.octets.to_vec())
    }

    /// Whether it is a 2yz.
    pub(super) fn accepts(&self) -> bool {
        match self {
            Self::Own(reply) => reply.code().class() == 2,
            Self::Backend(octets) => octets.first() == Some(&b'2'),
        }
    }
}

impl From<OwnReply> for Answer {
    fn from(reply: OwnReply) -> Self {
        Self::Own(reply)
    }
}

/// What is asked of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Get a connection to a backend that has not failed this transaction.
    Lease(Want),
    /// Send this to the client: it answers its oldest unanswered command, which is this one; `None`
    /// is the end of the message, or of a chunk.
    Answer(Answer, Option<Verb>),
    /// The connection is not needed any more.
    Release(Fate),
    /// The connection failed, through its backend's fault.
    Strike(Trouble),
    /// A message in doubt is said again, because [`InDoubt::Replay`] was asked for.
    ReplayInDoubt,
    /// MAIL has not been answered for longer than usual: [`Exchange::hedge`](super::Exchange::hedge)
    /// would say it to another backend. Asked once for each connection.
    Slow,
    /// Reserve places for so many recipients more; [`Exchange::reserved`](super::Exchange::reserved)
    /// says how many were got.
    Reserve(u32),
    /// So many places that were reserved are not needed any more.
    GiveBack(u32),
    /// The backend has judged the message before its end (rule D7).
    Early,
    /// The transaction has ended; nothing follows.
    End(TransactionEnd),
}

/// Which connection is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any, kept ones first.
    Any,
    /// A new one to the same backend: the kept one was dead.
    New,
    /// One to another backend.
    Other,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in order and may carry the next transaction (rule N2).
    Keep,
    /// Close it; nothing is unfinished there.
    Retire,
    /// Close it: the backend refuses another transaction on it (rule N4), and nobody sees that.
    Worn,
    /// Close it so that the backend does not take an unfinished message for a whole one.
    Abort,
}

/// What went wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Ended or reset.
    Lost,
    /// Silent for too long.
    Silent,
    /// 421 (rule S13).
    Closing,
    /// What it said is no reply, or answers nothing.
    Desync,
    /// The message was refused for the time being by the backend's own state (x.3.x).
    Unwell,
}

/// How far a transaction had come at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// MAIL awaited its reply, or RSET did.
    Mail,
    /// A RCPT did.
    Rcpt,
    /// DATA did.
    Data,
    /// The message was on its way.
    Content,
    /// It was said whole.
    End,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// A backend has taken responsibility.
    Accepted,
    /// A backend refused MAIL or the message.
    Refused,
    /// The client took it back (RSET, EHLO, QUIT) or left before its end.
    Abandoned,
    /// No backend could be found, or none stayed.
    Failed,
    /// The commit was made and no reply came (rule F3).
    InDoubt,
}
