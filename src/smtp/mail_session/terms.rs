//! What a session is given, and what it asks for.

use std::sync::Arc;
use std::time::Duration;

use super::super::body::ReplayLoss;
use super::super::data::LineEndings;
use super::super::exchange::{BackendTimes, Fate, Manners, Step, TransactionEnd, Trouble, Want};
use super::super::parameters::Needed;
use super::super::quirks::ClientQuirks;
use super::super::refusal::OwnRefusal;
use super::super::replies::Words;
use super::super::tarpit::Tarpit;

/// What a listener says about its sessions.
#[derive(Clone, Debug)]
pub struct MailPolicy {
    /// Our name, in the greeting and wherever a reply names a host.
    pub host: Box<str>,
    /// The words of our replies (rule R2).
    pub words: Words,
    /// Whether habits of clients are taken that RFC 5321 does not allow (rules G12, G13).
    pub quirks: ClientQuirks,
    /// What is done about bare CR and LF in messages.
    pub line_endings: LineEndings,
    /// The largest message, in octets; 0 is no limit.
    pub size_max: u64,
    /// RCPT of one transaction; one more is answered 452 (rule S5).
    pub recipients_max: usize,
    /// Octets of a message that are kept for a replay.
    pub replay_max: u64,
    /// How long the greeting is held back; zero greets at once (rule S14).
    pub greet_delay: Duration,
    /// What is done about a client that talks meanwhile.
    pub early_talker: EarlyTalker,
    /// How long each further mistake is held back once half of the error points are spent (rule
    /// B5); zero holds nothing back.
    pub tarpit_delay: Duration,
    /// The places for sessions that are held back.
    pub tarpit: Arc<Tarpit>,
    /// What is done where the protocol leaves a choice (rules F7, F9).
    pub manners: Manners,
    /// How long the next command may take (rule B6: 300 s at least).
    pub command_time: Duration,
    /// How long the next octets of a message may take.
    pub block_time: Duration,
}

impl Default for MailPolicy {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            words: Words::default(),
            quirks: ClientQuirks::Accept,
            line_endings: LineEndings::Normalize,
            size_max: 0,
            recipients_max: 1_000,
            replay_max: 32 << 20,
            greet_delay: Duration::ZERO,
            early_talker: EarlyTalker::Pass,
            tarpit_delay: Duration::ZERO,
            tarpit: Arc::default(),
            manners: Manners::default(),
            command_time: Duration::from_mins(5),
            block_time: Duration::from_mins(3),
        }
    }
}

/// What is done about a client that talks before it is greeted (rule S14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyTalker {
    /// Nothing: what it says is read behind the greeting.
    #[default]
    Pass,
    /// [`Effect::EarlyTalker`], and the same.
    Log,
    /// [`Effect::EarlyTalker`], `554 5.5.0` instead of the greeting, and the end.
    Reject,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Get a connection, to a backend that has all that is needed.
    Lease {
        /// Which.
        want: Want,
        /// What MAIL and RCPT asked for so far.
        needed: Needed,
    },
    /// Put the connection back, or close it; or do not look for one any more.
    Release(Fate),
    /// The connection failed through its backend's fault, at this step.
    Strike(Trouble, Step),
    /// A message in doubt is said to another backend, because
    /// [`InDoubt::Replay`](super::super::exchange::InDoubt) was asked for; it may arrive twice. Its
    /// transaction ends accepted or in doubt.
    ReplayInDoubt,
    /// The client talks before it was greeted; said once, and never where that passes.
    EarlyTalker,
    /// The client was refused something with a reply of ours: to be told and counted.
    Refused(OwnRefusal),
    /// The reply to a mistake is held back (rule B5): to be counted.
    Tarpitted,
    /// MAIL has not been answered for longer than usual: [`hedge`](super::MailSession::hedge) would
    /// say it to another backend. Asked once for each connection.
    Slow,
    /// The backend has judged the message before its end (rule D7): to be counted.
    EarlyReply,
    /// Reserve places for so many recipients at the backend, whose quota counts them
    /// ([`LeaseTerms::places`]): [`reserved`](super::MailSession::reserved) says how many were got.
    Reserve(u32),
    /// So many of its places are not needed any more.
    GiveBack(u32),
    /// The message streams on and cannot be replayed.
    NotReplayable(ReplayLoss),
    /// The transaction has ended. A connection that was asked for is not needed any more.
    Ended(TransactionEnd),
}

/// What is to be written to the backend.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Commands, or the next octets of the message.
    pub octets: &'a [u8],
    /// What follows `octets` at once: the end of the message, if they are its last. The last octet
    /// of it is the commit (rule F5): before writing it, look whether both sides are still there
    /// (F6).
    pub end: &'a [u8],
}

/// What a connection that was found is like, but for what its backend announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Whether it has carried transactions before.
    pub kept: Kept,
    /// How long its backend is waited for.
    pub times: BackendTimes,
    /// After so long without an answer to MAIL, [`Effect::Slow`]; `None` is never.
    pub slow_after: Option<Duration>,
    /// Recipients that places were reserved for, where a quota counts them: as many as were
    /// accepted before, and one at least.
    pub places: Option<u32>,
}

impl LeaseTerms {
    /// With the times of [`BackendTimes::default`], and no quota of recipients.
    pub fn of(kept: Kept) -> Self {
        Self {
            kept,
            times: BackendTimes::default(),
            slow_after: None,
            places: None,
        }
    }
}

/// Whether a connection has carried transactions before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "yes and no")]
pub enum Kept {
    Yes,
    No,
}
