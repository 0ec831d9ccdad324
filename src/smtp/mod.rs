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

// placeholder until the real one lands
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    Close,
}
#[derive(Debug)]
pub struct ClosingDialogue;
impl ClosingDialogue {
    pub fn denied(_: &str) -> Self {
        Self
    }
    pub fn monitor(_: &str, _: bool) -> Self {
        Self
    }
    pub fn greeting(&self) -> &[u8] {
        b""
    }
    pub fn handle(&mut self, _: &[u8], _: &mut Vec<u8>) -> Next {
        Next::Close
    }
}
