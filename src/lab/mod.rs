//! The embedded test MTA with scripted faults: the demo, the tests, drills against a live pool.
//!
//! A [`Sink`] takes mail and throws it away, counting everything; a [`Script`] makes it fail in the
//! ways real MTAs fail: refusing, silent, slow, resetting at any stage. A [`Letter`] is the other
//! side: a message sent by a small lock-step client, alone or in a [`ClientSession`] with others. Nothing here decides anything for the
//! balancer; it speaks RFC 5321 on its own so that a mistake in the cores is not mirrored.

mod client;
mod command;
mod counts;
mod data;
mod envelope;
mod fault;
mod reply;
mod script;
mod session;
mod sink;
mod wire;

pub use client::{ClientSession, Letter, SendError, SendFault, SendStage, Sent};
pub use counts::{MessageRecord, ProxyRecord, SinkCounts, WaitedInVain, body_hash};
pub use fault::{Fault, FaultError, read_duration};
pub use script::{Act, At, Piece, ProxyRule, Script, WhenFull};
pub use sink::{Sink, SinkHandle, SinkPlan};
