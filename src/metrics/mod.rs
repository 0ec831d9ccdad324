//! Counters of everything that is not a backend's own, and their exposition.
//!
//! Written by one thread each, summed when scraped. Labels are enums and configured names only.

mod counters;
pub mod exposition;
pub mod sample;

pub use counters::{
    ControlCounters, EndedBy, ListenerCounters, ListenerTotals, MailCounters, SessionOutcome,
    SessionPhase, TransactionOutcome, WorkerCounters,
};
