//! The control thread: start, reload, probes, discovery, drain, signals.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::sync::Arc;
use std::time::SystemTime;

use crate::balance::AdminState;
use crate::snapshot::Shared;
use crate::types::{Generation, Weight};

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    pub ok: bool,
    /// The generation in force afterwards.
    pub generation: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// What asked: signal | http | watch | discovery.
    pub trigger: &'static str,
    /// Every mistake, rendered without colour; empty when `ok`.
    pub mistakes: Vec<String>,
    /// One sentence per change that took effect, and per key that needs a restart.
    pub changes: Vec<String>,
}

/// A change of one backend (of all addresses of its name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendChange {
    pub state: Option<AdminState>,
    /// `Some(None)` returns to the configured weight.
    pub weight: Option<Option<Weight>>,
    pub who: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no pool named {0:?}")]
    NoPool(String),
    #[error("pool {pool:?} has no backend named {backend:?}")]
    NoBackend { pool: String, backend: String },
    #[error("the control thread is stopping")]
    Stopping,
}

/// The door to the control thread: cheap to clone, any runtime.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    pub async fn reload(&self, trigger: &'static str) -> Result<ReloadReport, ChangeError> {
        todo!()
    }
    pub async fn set_backend(
        &self,
        pool: &str,
        backend: &str,
        change: BackendChange,
    ) -> Result<(), ChangeError> {
        todo!()
    }
    /// `failback = "manual"`: let the first tier take over again.
    pub async fn fail_back(&self, pool: &str) -> Result<(), ChangeError> {
        todo!()
    }
    pub fn last_reload(&self) -> Option<ReloadReport> {
        todo!()
    }
}

#[expect(dead_code, reason = "stub")]
fn keep(_: SystemTime, _: Generation) {}
