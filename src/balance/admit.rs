//! STUB: client limits and accept rates.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::sync::Arc;
use std::time::Instant;

use crate::types::{ClientKey, Rate};

/// The limits one listener sets for each client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRules {
    /// 0 is no limit.
    pub max_sessions: u32,
    pub rate: Option<Rate>,
}

/// Exact client limits of one listener in one sharded, bounded table; survives generations.
#[derive(Debug)]
pub struct ClientLimits {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientRefusal {
    TooManySessions,
    TooFast,
    /// The table is full of clients with open sessions (bounded at 1,048,576).
    TableFull,
}

/// Gives the place back when dropped.
#[derive(Debug)]
pub struct ClientPermit {}

impl ClientLimits {
    pub fn new() -> Arc<Self> {
        todo!()
    }
    /// `Ok(None)` when the rules set no limit (no table access).
    pub fn admit(
        self: &Arc<Self>,
        client: ClientKey,
        rules: ClientRules,
        now: Instant,
    ) -> Result<Option<ClientPermit>, ClientRefusal> {
        todo!()
    }
    /// Clients in the table, for the status page.
    pub fn clients(&self) -> usize {
        todo!()
    }
}

/// One listener's accept rate (GCRA in one atomic), shared by all workers.
#[derive(Debug, Default)]
pub struct AcceptRate {}

impl AcceptRate {
    pub fn admit(&self, rate: Rate, now: Instant) -> bool {
        todo!()
    }
}
