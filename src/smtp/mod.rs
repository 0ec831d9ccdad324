//! The protocol without I/O: commands, extensions, replies, greetings, the probe's conversation.
//!
//! No clock, no socket, no `async`. Every reader is bounded and gives the same answer for any
//! chunking of its input. RFC 5321 §4.2.

mod body;
mod budget;
mod chunking;
mod closing;
mod command;
mod conversation;
mod data;
mod exchange;
mod extensions;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod greeting;
mod line;
mod mail_session;
mod opening;
mod pace;
mod parameters;
mod path;
mod probe;
mod quirks;
mod refusal;
mod replay_memory;
mod replies;
mod reply;
mod stuffing;
mod tarpit;

pub use body::{BodyDigest, MessageBody, ReplayLoss, STREAM_WINDOW};
pub use budget::{Budget, Cost, ERROR_POINTS_MAX, JUNK_POINTS_MAX};
pub use chunking::{
    Chunk, ChunkCounter, ChunkEnd, ChunkFate, ChunkPlace, ChunkRefusal, ChunkTaken, Envelope,
};
pub use closing::{CLOSING_COMMANDS_MAX, CLOSING_TIME_MAX, ClosingDialogue, Next, Readiness};
pub use command::{
    Command, CommandError, HELLO_NAME_MAX, HelloName, InitialResponse, Mail, Rcpt, parse_command,
};
pub use conversation::Conversation;
pub use data::{DataCounts, DataProgress, DataScanner, LineEndings, Offence, Piece};
pub use exchange::{
    Answer, BackendTimes, Elsewhere, Exchange, Fate, First354, InDoubt, Leased, MOVES_MAX, Manners,
    Output, Step, TransactionEnd, Trouble, Verb, Want,
};
pub use extensions::{
    Extensions, Keyword, Keywords, MECHANISMS_MAX, OwnExtensions, SessionLimits, write_helo,
};
#[cfg(any(test, fuzzing))]
pub use fuzzing::{fuzz_commands, fuzz_data, fuzz_dialogues, fuzz_greeting, fuzz_session};
pub use greeting::{
    Greeting, GreetingJudgement, GreetingRule, IdentityCarried, judge_greeting, read_greeting,
};
pub use line::{
    AUTH_LINE_MAX, COMMAND_LINE_MAX, CommandLine, DROPPED_LINE_MAX, LineDefect, LineKind,
    LineReader,
};
pub use mail_session::{
    EarlyTalker, Effect, Kept, LeaseTerms, MailPolicy, MailSession, Outgoing, TransactionFacts,
};
pub use opening::{Opening, OpeningFailure, OpeningStep};
pub use pace::{
    DATA_BLOCK_TIME_MAX, DATA_RATE_GRACE, DATA_RATE_MIN_PER_SECOND, DataFault, DataPace,
};
pub use parameters::{
    Body, MailTerms, Needed, Parameter, ParameterError, Parameters, Smtputf8, judge_backends,
    judge_mail, judge_rcpt,
};
pub use path::Path;
pub use probe::{
    ProbeEnd, ProbeFailure, ProbeInput, ProbeOutput, ProbePlan, ProbeStage, RelayTest,
};
pub use quirks::ClientQuirks;
pub use refusal::{CommandName, OwnRefusal};
pub use replay_memory::{ReplayMemory, Reservation};
pub use replies::{OwnReply, ReplyText, WRITTEN_LINE_MAX, Wording, Words, write_reply};
pub use reply::{
    EnhancedCode, REPLY_LINE_MAX, REPLY_LINES_MAX, REPLY_MAX, Reply, ReplyCode, ReplyError,
    ReplyRead, SHORT_TEXT_MAX, read_reply,
};
pub use stuffing::{Stuffer, UnfitForData, Unstuffer};
pub use tarpit::{TARPITTED_MAX, Tarpit, TarpitPlace};
