//! The protocol without I/O: replies, greetings, the probe's conversation.
//!
//! No clock, no socket, no `async`. Every reader is bounded and gives the same answer for any
//! chunking of its input. RFC 5321 §4.2.

mod greeting;
mod probe;
mod reply;

pub use greeting::{
    Greeting, GreetingJudgement, GreetingRule, IdentityCarried, judge_greeting, read_greeting,
};
pub use probe::{
    Conversation, ProbeEnd, ProbeFailure, ProbeInput, ProbeOutput, ProbePlan, ProbeStage,
};
pub use reply::{EnhancedCode, Reply, ReplyCode, ReplyError, ReplyRead, read_reply};
