//! The protocol without I/O: replies, greetings, the probe's conversation.
//!
//! No clock, no socket, no `async`. Every reader is bounded and gives the same answer for any
//! chunking of its input. RFC 5321 §4.2.

mod closing;
mod conversation;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod greeting;
mod probe;
mod reply;

pub use closing::{CLOSING_COMMANDS_MAX, CLOSING_TIME_MAX, ClosingDialogue, Next, Readiness};
pub use conversation::Conversation;
#[cfg(any(test, fuzzing))]
pub use fuzzing::{fuzz_dialogues, fuzz_greeting};
pub use greeting::{
    Greeting, GreetingJudgement, GreetingRule, IdentityCarried, judge_greeting, read_greeting,
};
pub use probe::{
    ProbeEnd, ProbeFailure, ProbeInput, ProbeOutput, ProbePlan, ProbeStage, RelayTest,
};
pub use reply::{
    EnhancedCode, REPLY_LINE_MAX, REPLY_LINES_MAX, REPLY_MAX, Reply, ReplyCode, ReplyError,
    ReplyRead, SHORT_TEXT_MAX, read_reply,
};
