//! The one path by which the configuration in force changes: load, build, bind, swap, apply.
//!
//! Everything that can fail comes before the swap and leaves no trace; after it nothing can fail.
//! Reloads are done one at a time by one task. One pointer is swapped: workers see the old
//! generation or the new one, and never half of either.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, spawn_blocking};

use super::bindings::{Bindings, Listening, Prepared};
use super::descriptors;
use super::discovery::Names;
use super::handle::{Handle, ReloadFrom, ReloadReport, ReloadRequest, shown};
use super::own;
use super::prober::PROBES_MAX;
use super::quotas;
use super::reading::FileReader;
use super::restart::Waiting;
use super::service;
use super::ticker::Leftovers;
use super::vetting::Vetting;
use crate::config::{self, Color, Config, ConfigErrors, FILE_OCTETS_MAX, Loaded};
use crate::net::listen::BindError;
use crate::snapshot::{RunPhase, Shared, Snapshot, build};
use crate::types::Generation;
use crate::worker::Worker;

/// Changes that a report names one by one.
const CHANGES_MAX: usize = 200;
/// How long the read of one file of the configuration may take.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all reads of one reload may take.
const READS_TIMEOUT: Duration = Duration::from_secs(10);

/// What a reload needs and changes.
pub(super) struct Reloader {
    pub(super) handle: Handle,
    pub(super) workers: Rc<Vec<Worker>>,
    pub(super) bindings: Bindings,
    pub(super) config_path: Option<PathBuf>,
    pub(super) files: FileReader,
    pub(super) names: Rc<Names>,
    pub(super) leftovers: Rc<RefCell<Leftovers>>,
    /// What earlier reloads changed without effect.
    pub(super) restart: Waiting,
    /// Tells the prober to look at the new snapshot.
    pub(super) retarget: Rc<Notify>,
}

/// Why a reload changes nothing.
struct Refusal {
    /// Each mistake on one line, for the log.
    lines: Vec<String>,
    /// Each with its source line underlined, for who reads the report.
    rendered: Vec<String>,
}

/// A new generation, ready to be swapped in.
struct Next {
    snapshot: Arc<Snapshot>,
    vetting: Vetting,
    listening: Listening,
    session_limit: u32,
    changes: Changes,
}

/// What a new configuration changes.
struct Changes {
    /// Each in one sentence.
    sentences: Vec<String>,
    /// Those without effect before a restart.
    restart: Vec<String>,
}

impl Reloader {
    /// Does what is asked for until nobody can ask any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>) {
        while let Some(request) = requests.recv().await {
            let report = self.reload(request.trigger, request.from).await;
            if let Some(reply) = request.reply {
                // Who asked may have gone.
                let _ = reply.send(report);
            }
        }
    }

    async fn reload(&mut self, trigger: &'static str, from: ReloadFrom) -> ReloadReport {
        let by_names = matches!(from, ReloadFrom::Names(_));
        if !by_names {
            service::reloading();
        }
        let shared = Arc::clone(self.handle.shared());
        let now_in_force = shared.current.load().generation.0;
        let report = ReloadReport::new(trigger, now_in_force);
        let report = match self.prepare(from).await {
            Ok(next) => {
                let generation = next.snapshot.generation.0;
                let changes = bounded(self.apply(next));
                shared.control.reloads.inc();
                ReloadReport {
                    generation,
                    changes,
                    ..report
                }
            }
            Err(refusal) => {
                shared.control.reload_failures.inc();
                for mistake in &refusal.lines {
                    tracing::warn!(mistake, "reload.mistake");
                }
                report.refused(refusal.rendered)
            }
        };
        log(&report);
        if !by_names {
            service::ready(&status(&report));
        }
        self.publish(&report);
        report
    }

    /// Everything that may fail.
    async fn prepare(&mut self, from: ReloadFrom) -> Result<Next, Refusal> {
        let shared = Arc::clone(self.handle.shared());
        if shared.phase() == RunPhase::Draining {
            return Err(Refusal::because("the process is stopping"));
        }
        let current = shared.current.load_full();
        let (config, changes) = self.read(from, &current).await?;
        let workers = self.workers.len();
        let session_limit =
            descriptors::session_limit(&config, workers, PROBES_MAX, shared.descriptor_limit)
                .map_err(|error| Refusal::because(error.to_string()))?;
        self.names.learn(&config).await;
        let vetting = self.names.vet(&config).await;
        let resolved = vetting.resolved();
        let bindings = self.bindings.clone();
        let generation = Generation(current.generation.0 + 1);
        // One trip off the loop: tables of 10,000 backends, and /proc if an address is taken.
        let built = spawn_blocking(move || {
            let loops = own::backends_that_are_us(&config, &own::own_addresses());
            if !loops.is_empty() {
                return Err(loops);
            }
            let now = Instant::now();
            let snapshot = build(config, &resolved, &shared.registry, generation, now);
            let prepared = prepare(&bindings, &snapshot.config, workers)?;
            let listening = prepared.listen(&bindings);
            let listening = listening.map_err(|error| vec![error.to_string()])?;
            Ok((Arc::new(snapshot), listening))
        });
        let (snapshot, listening) = built
            .await
            .map_err(|panic| fault(&panic))?
            .map_err(Refusal::of)?;
        Ok(Next {
            snapshot,
            vetting,
            listening,
            session_limit,
            changes,
        })
    }

    async fn read(
        &self,
        from: ReloadFrom,
        current: &Snapshot,
    ) -> Result<(Arc<Config>, Changes), Refusal> {
        let loaded = match from {
            ReloadFrom::Names(sentences) => {
                let restart = Vec::new();
                return Ok((Arc::clone(&current.config), Changes { sentences, restart }));
            }
            ReloadFrom::Given(config) => Loaded {
                config: *config,
                warnings: ConfigErrors::default(),
            },
            ReloadFrom::File => load(self.config_path.clone(), self.files.clone()).await?,
        };
        let plan = config::diff(&current.config, &loaded.config);
        let mut changes = Changes {
            sentences: plan.sentences,
            restart: plan.restart,
        };
        let warnings = loaded.warnings.mistakes().iter();
        changes.sentences.extend(warnings.map(ToString::to_string));
        Ok((Arc::new(loaded.config), changes))
    }

    /// Swaps the pointer and does what follows from it. Nothing here can fail.
    fn apply(&mut self, next: Next) -> Vec<String> {
        let shared = Arc::clone(self.handle.shared());
        let now = Instant::now();
        let new = next.snapshot;
        let old = shared.current.swap(Arc::clone(&new));
        for pool in new.pools() {
            pool.pool.install(now);
        }
        self.configure_backends(&old, &new, now);
        // Who waits in a pool that is gone looks where its listener leads now.
        for gone in old.pools().filter(|pool| new.pool(pool.index).is_none()) {
            gone.pool.retire();
        }
        let limit = next.session_limit;
        shared.session_limit.store(limit, Ordering::Relaxed);
        shared.replay_memory.resize(new.config.replay_memory);
        self.bindings.apply(next.listening, &new, &self.workers);
        self.retarget.notify_one();
        self.names.adopt(next.vetting, &new.config);
        shared.telemetry.apply(new.config.log);
        let mut leftovers = self.leftovers.borrow_mut();
        self.restart.note(&old.config, &next.changes.restart);
        self.handle.board().restart_needed = self.restart.sentences(&new.config);
        let cut_at = now + new.config.drain_timeout;
        leftovers.cuts.schedule(&old, &new, cut_at);
        leftovers.retired.push(old);
        quotas::sweep(&shared);
        next.changes.sentences
    }

    /// Gives backends the state that the new configuration says, where the one before said another.
    fn configure_backends(&self, old: &Snapshot, new: &Snapshot, now: Instant) {
        if Arc::ptr_eq(&old.config, &new.config) {
            return;
        }
        for view in new.pools() {
            for member in view.pool.members() {
                let configured = view.settings.backends.get(&member.settings.name);
                if let Some(backend) = configured
                    && let Some(changed) = member.settings.state.configure_admin(backend.state, now)
                {
                    self.handle.tell(&changed);
                }
            }
        }
    }

    /// Keeps the report where the status page finds it. A mere change of addresses must not hide
    /// the mistakes of a reload that somebody asked for.
    fn publish(&self, report: &ReloadReport) {
        let mut board = self.handle.board();
        board.listening = self.bindings.listening();
        let hides = board.last_reload.as_ref().is_some_and(|last| !last.ok);
        if report.trigger != "discovery" || !hides {
            board.last_reload = Some(report.clone());
        }
    }
}

impl Refusal {
    fn because(reason: impl Into<String>) -> Self {
        Self::of(vec![reason.into()])
    }

    fn of(lines: Vec<String>) -> Self {
        Self {
            rendered: lines.clone(),
            lines,
        }
    }
}

/// Binds what `config` adds; all of it or nothing.
pub(super) fn prepare(
    bindings: &Bindings,
    config: &Config,
    workers: usize,
) -> Result<Prepared, Vec<String>> {
    let texts = |errors: Vec<BindError>| errors.iter().map(ToString::to_string).collect();
    bindings.prepare(config, workers).map_err(texts)
}

async fn load(path: Option<PathBuf>, files: FileReader) -> Result<Loaded, Refusal> {
    let Some(path) = path else {
        return Err(Refusal::because(
            "this process was started without a configuration file",
        ));
    };
    let loaded = spawn_blocking(move || {
        let until = Instant::now() + READS_TIMEOUT;
        let read = |file: &Path| {
            let left = until.saturating_duration_since(Instant::now());
            files.read(file, FILE_OCTETS_MAX, left.min(READ_TIMEOUT))
        };
        config::load_by(&path, &own::own_addresses(), &read)
    });
    let loaded = loaded.await;
    loaded
        .map_err(|panic| fault(&panic))?
        .map_err(|errors| Refusal {
            lines: errors.mistakes().iter().map(ToString::to_string).collect(),
            rendered: errors
                .mistakes()
                .iter()
                .map(|mistake| mistake.render(Color::Off))
                .collect(),
        })
}

/// At most [`CHANGES_MAX`] sentences, and one that counts the others.
fn bounded(mut changes: Vec<String>) -> Vec<String> {
    let more = changes.len().saturating_sub(CHANGES_MAX);
    changes.truncate(CHANGES_MAX);
    if more > 0 {
        changes.push(format!("and {more} more changes"));
    }
    changes
}

fn fault(panic: &JoinError) -> Refusal {
    Refusal::because(format!("a fault of ours: {panic}"))
}

fn log(report: &ReloadReport) {
    let (generation, trigger) = (report.generation, report.trigger);
    if report.ok {
        let changes = report.changes.len();
        tracing::info!(trigger, generation, changes, "reload.done");
        for change in &report.changes {
            tracing::info!(change, "reload.change");
        }
    } else {
        let mistakes = report.mistakes.len();
        tracing::warn!(trigger, generation, mistakes, "reload.refused");
    }
}

fn status(report: &ReloadReport) -> String {
    if report.ok {
        format!("serving, generation {}", report.generation)
    } else {
        format!(
            "serving, generation {}; the last reload was refused for {} mistakes",
            report.generation,
            report.mistakes.len()
        )
    }
}

/// The line for `systemctl status` after a start.
pub(super) fn started_status(shared: &Shared, config_path: Option<&Path>) -> String {
    let generation = shared.current.load().generation.0;
    format!("serving, generation {generation}, {}", shown(config_path))
}
