//! The door to the control thread for the status endpoint, the command line and tests.
//!
//! A reload is sent to the control thread, which does one at a time; operator's changes of backends
//! are made at once in the state that outlives snapshots, so that they survive reloads.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::balance::{AdminState, BackendState, StateChange};
use crate::config::Config;
use crate::snapshot::Shared;
use crate::types::Weight;

/// Requests that may wait for the control thread; more wait in their senders.
pub(super) const REQUESTS_MAX: usize = 64;

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    /// Whether it took effect.
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
    /// The new administrative state.
    pub state: Option<AdminState>,
    /// `Some(None)` returns to the configured weight.
    pub weight: Option<Option<Weight>>,
    /// Who asked, for the log and the status page.
    pub who: Arc<str>,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No such pool in the current generation.
    #[error("there is no pool named {0:?}")]
    NoPool(String),
    /// No such backend in that pool, or none of its addresses is known yet.
    #[error("pool {pool:?} has no backend named {backend:?}")]
    NoBackend {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
    },
    /// The process is ending (or has no control thread).
    #[error("the control thread is stopping")]
    Stopping,
}

/// What the control thread is asked for.
pub(super) enum Request {
    /// A reload.
    Reload(ReloadRequest),
    /// Stop accepting and end when the sessions have ended.
    Drain,
    /// End now.
    Stop,
    /// Run a task on the control thread.
    Run(Box<dyn FnOnce() -> LocalTask + Send>),
}

/// A reload, and who waits for its report.
pub(super) struct ReloadRequest {
    pub(super) trigger: &'static str,
    pub(super) from: ReloadFrom,
    pub(super) reply: Option<oneshot::Sender<ReloadReport>>,
}

/// Where the new configuration comes from.
pub(super) enum ReloadFrom {
    /// The configuration file.
    File,
    /// This configuration.
    Given(Box<Config>),
    /// The current configuration; only the addresses of names have changed, as these sentences say.
    Names(Vec<String>),
}

/// A task of the control thread; it may hold what must not leave that thread.
pub type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// What the control thread lets others read.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) last_reload: Option<ReloadReport>,
    /// Changes that wait for a restart.
    pub(super) restart_needed: Vec<String>,
    /// Where each listener listens now.
    pub(super) listening: Vec<(Arc<str>, SocketAddr)>,
}

/// The door to the control thread: cheap to clone, any runtime.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    board: Arc<Mutex<Board>>,
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// A handle, and the end where its requests come out.
    pub(super) fn new(shared: Arc<Shared>) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let handle = Self {
            shared,
            board: Arc::default(),
            requests,
        };
        (handle, receiver)
    }

    /// A handle without a control thread behind it: reloads answer [`ChangeError::Stopping`],
    /// everything else works. For tests of what only reads.
    pub fn detached(shared: Arc<Shared>) -> Self {
        Self::new(shared).0
    }

    /// What every thread holds.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reloads the configuration file and waits for the outcome.
    ///
    /// # Errors
    /// [`ChangeError::Stopping`]. A file with mistakes is no error but a report that says so.
    pub async fn reload(&self, trigger: &'static str) -> Result<ReloadReport, ChangeError> {
        self.ask(trigger, ReloadFrom::File).await
    }

    /// Makes `config` the configuration, by the path of a reload, and waits for the outcome.
    ///
    /// # Errors
    /// [`ChangeError::Stopping`].
    pub async fn replace(
        &self,
        config: Config,
        trigger: &'static str,
    ) -> Result<ReloadReport, ChangeError> {
        self.ask(trigger, ReloadFrom::Given(Box::new(config))).await
    }

    async fn ask(
        &self,
        trigger: &'static str,
        from: ReloadFrom,
    ) -> Result<ReloadReport, ChangeError> {
        let (reply, report) = oneshot::channel();
        self.send(Request::Reload(ReloadRequest {
            trigger,
            from,
            reply: Some(reply),
        }))
        .await?;
        report.await.map_err(|_| ChangeError::Stopping)
    }

    /// Hands a request over; waits while [`REQUESTS_MAX`] others wait.
    pub(super) async fn send(&self, request: Request) -> Result<(), ChangeError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| ChangeError::Stopping)
    }

    /// The same without waiting; `Stopping` also when too many requests wait.
    pub(super) fn try_send(&self, request: Request) -> Result<(), ChangeError> {
        let sent = self.requests.try_send(request);
        sent.map_err(|_| ChangeError::Stopping)
    }

    /// Sets state or weight of a backend: of every address its name has. It survives reloads.
    ///
    /// # Errors
    /// No such pool or backend.
    #[expect(
        clippy::unused_async,
        reason = "whoever changes backends may come to wait for the control thread"
    )]
    pub async fn set_backend(
        &self,
        pool: &str,
        backend: &str,
        change: BackendChange,
    ) -> Result<(), ChangeError> {
        let now = Instant::now();
        for state in self.states(pool, backend)? {
            if let Some(admin) = change.state
                && let Some(changed) = state.set_admin(admin, Arc::clone(&change.who), now)
            {
                self.tell(&changed);
            }
            if let Some(weight) = change.weight {
                state.set_weight(weight, Arc::clone(&change.who), now);
                tracing::info!(
                    pool,
                    backend,
                    weight = weight.map(Weight::value),
                    who = &*change.who,
                    "backend.weight"
                );
            }
        }
        Ok(())
    }

    fn states(&self, pool: &str, backend: &str) -> Result<Vec<Arc<BackendState>>, ChangeError> {
        let snapshot = self.shared.current.load();
        let view = snapshot
            .pool_named(pool)
            .ok_or_else(|| ChangeError::NoPool(pool.to_owned()))?;
        let states: Vec<_> = view
            .pool
            .members()
            .iter()
            .filter(|member| &*member.settings.name == backend)
            .map(|member| Arc::clone(&member.settings.state))
            .collect();
        if states.is_empty() {
            return Err(ChangeError::NoBackend {
                pool: pool.to_owned(),
                backend: backend.to_owned(),
            });
        }
        Ok(states)
    }

    /// `failback = "manual"`: let the first tier take over again.
    ///
    /// # Errors
    /// No such pool.
    #[expect(
        clippy::unused_async,
        reason = "whoever changes backends may come to wait for the control thread"
    )]
    pub async fn fail_back(&self, pool: &str) -> Result<(), ChangeError> {
        let snapshot = self.shared.current.load_full();
        let view = snapshot
            .pool_named(pool)
            .ok_or_else(|| ChangeError::NoPool(pool.to_owned()))?;
        for event in view.pool.fail_back(Instant::now()) {
            self.shared.telemetry.pool_event(&event);
        }
        Ok(())
    }

    /// The last reload that was asked for; one that merely followed changed addresses does not
    /// hide the mistakes of an earlier one.
    pub fn last_reload(&self) -> Option<ReloadReport> {
        self.board().last_reload.clone()
    }

    /// Changes of the configuration in force that take effect only after a restart, one sentence
    /// each.
    pub fn restart_needed(&self) -> Vec<String> {
        self.board().restart_needed.clone()
    }

    /// Where each listener listens now, with the port the kernel chose for port 0.
    pub fn listening(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.board().listening.clone()
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        // The board holds plain values: they are whole even if a holder panicked.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs and counts a change of state.
    pub(super) fn tell(&self, change: &StateChange) {
        self.shared.control.state_changes.inc();
        self.shared.telemetry.state_change(change);
    }
}

impl ReloadReport {
    /// A report of now.
    pub(super) fn new(trigger: &'static str, generation: u64) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            ok: true,
            generation,
            at: since.map_or(0, |since| since.as_secs()),
            trigger,
            mistakes: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The same, refused for these mistakes.
    pub(super) fn refused(self, mistakes: Vec<String>) -> Self {
        Self {
            ok: false,
            mistakes,
            changes: Vec::new(),
            ..self
        }
    }
}

/// The name of a configuration file in messages.
pub(super) fn shown(path: Option<&Path>) -> String {
    path.map_or_else(
        || "the built-in configuration".to_owned(),
        |path| path.display().to_string(),
    )
}
