//! Starting: limits, names, tables, addresses, threads, in this order.
//!
//! Whatever can fail comes before the first socket listens; a start that fails leaves nothing
//! behind. The caller has loaded the configuration and started the log already.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::announce::{self, ProcessLimits};
use super::bindings::{Bindings, Prepared};
use super::descriptors::{self, DescriptorError};
use super::discovery::Names;
use super::handle::{Handle, LocalTask, Request};
use super::own;
use super::prober::PROBES_MAX;
use super::quotas::StateFile;
use super::reading::FileReader;
use super::reload::{self, Reloader};
use super::restart::Waiting;
use super::running::{Ended, Running};
use super::signals::Signals;
use super::supervise::{self, Parts};
use super::ticker::Leftovers;
use crate::balance::Epoch;
use crate::config::Config;
use crate::snapshot::{Registry, Resolved, Shared, build};
use crate::telemetry::Telemetry;
use crate::types::{Generation, WorkerId};
use crate::worker::{Command, Worker};

/// The most data threads.
const WORKERS_MAX: usize = 64;
/// How long blocking work may hold up the end of the process.
const BLOCKING_END: Duration = Duration::from_millis(200);

/// Run on the control thread before anything listens: it binds the status endpoint and returns the
/// task that serves it, or says why the process cannot start.
pub type OnControl = Box<dyn FnOnce(Handle) -> Result<LocalTask, String> + Send>;

/// How to start.
pub struct StartOptions {
    /// The file that a reload reads; without it reloads are refused.
    pub config_path: Option<PathBuf>,
    /// Whether the process's signals are ours.
    pub signals: Signals,
    /// A task for the control thread, usually the status endpoint.
    pub on_control: Option<OnControl>,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not fit this machine.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// Backends are listeners of ours; each says what to do.
    #[error("{}", .0.join("\n"))]
    Loop(Vec<String>),
    /// Addresses cannot be had; each says what to do.
    #[error("{}", .0.join("\n"))]
    Bind(Vec<String>),
    /// The status endpoint cannot start.
    #[error("{0}")]
    OnControl(String),
    /// The operator ended it before it had started.
    #[error("{0} ended the start")]
    Ended(&'static str),
    /// A thread or a runtime could not be made.
    #[error("cannot start the {what}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// The exit code: 1 a mistake in the configuration, 2 this machine did not let us start, 0 it
    /// was told to end.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(_) => 0,
            Self::Descriptors(_) | Self::Loop(_) => 1,
            Self::Bind(_) | Self::OnControl(_) | Self::Thread { .. } => 2,
        }
    }
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            config_path: None,
            signals: Signals::Ignored,
            on_control: None,
        }
    }
}

/// Starts a balancer with this configuration: when it returns, every address listens.
///
/// # Errors
/// [`StartError`]; nothing listens and no thread of ours is left.
pub fn start(
    options: StartOptions,
    config: Config,
    telemetry: Telemetry,
) -> Result<Running, StartError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let StartOptions {
        config_path,
        mut signals,
        on_control,
    } = options;
    let run = move || match begin_runtime() {
        Ok(runtime) => {
            let ended = runtime.block_on(async {
                // Until it returns `begin` has no thread of ours running and nothing that listens, so
                // it may be dropped.
                let began = tokio::select! {
                    biased;
                    name = signals.end() => Err(StartError::Ended(name)),
                    began = begin(config_path, on_control, config, telemetry) => began,
                };
                match began {
                    Ok(parts) => {
                        // The starter waits for exactly this.
                        let _ = sender.send(Ok(parts.handle().clone()));
                        supervise::run(parts, signals).await
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                        Ended::Clean
                    }
                }
            });
            runtime.shutdown_timeout(BLOCKING_END);
            ended
        }
        Err(error) => {
            let _ = sender.send(Err(error));
            Ended::Clean
        }
    };
    let thread = thread::Builder::new()
        .name("control".to_owned())
        .spawn(run)
        .map_err(|source| StartError::Thread {
            what: "control thread",
            source,
        })?;
    match receiver.recv() {
        Ok(Ok(handle)) => Ok(Running::new(handle, thread)),
        Ok(Err(error)) => {
            // It has nothing left to do.
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(StartError::Thread {
            what: "control thread",
            source: io::Error::other("it ended before it had started"),
        }),
    }
}

fn begin_runtime() -> Result<tokio::runtime::LocalRuntime, StartError> {
    Builder::new_current_thread()
        .enable_all()
        .thread_name("control-blocking")
        .build_local(LocalOptions::default())
        .map_err(|source| StartError::Thread {
            what: "runtime of the control thread",
            source,
        })
}

/// How many data threads: as configured, or one per core we may use.
fn worker_count(config: &Config) -> usize {
    let cores = || thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = config.workers.map_or_else(cores, usize::from);
    count.clamp(1, WORKERS_MAX)
}

async fn begin(
    config_path: Option<PathBuf>,
    on_control: Option<OnControl>,
    config: Config,
    telemetry: Telemetry,
) -> Result<Parts, StartError> {
    let started = (Instant::now(), SystemTime::now());
    let limit = descriptors::raise().map_err(|source| StartError::Thread {
        what: "process: its descriptor limit is not known",
        source,
    })?;
    let count = worker_count(&config);
    let session_limit = descriptors::session_limit(&config, count, PROBES_MAX, limit)?;
    let limits = ProcessLimits {
        workers: count,
        max_sessions: session_limit,
        descriptors: limit,
    };
    announce::start(&config, config_path.as_deref(), limits);
    let names = Rc::new(Names::default());
    let config = Arc::new(config);
    names.learn(&config).await;
    let vetting = names.vet(&config).await;
    let resolved = vetting.resolved();
    names.adopt(vetting, &config);
    let loops = own::backends_that_are_us(&config, &own::own_addresses());
    if !loops.is_empty() {
        return Err(StartError::Loop(loops));
    }
    let (shared, state_file) = first_shared(
        config,
        resolved,
        count,
        telemetry,
        (session_limit, limit),
        started,
    )
    .await?;
    let (handle, requests) = Handle::new(Arc::clone(&shared));
    let prepared = first_bind(&shared, count).await?;
    let on_control = match on_control {
        Some(hook) => Some(hook(handle.clone()).map_err(StartError::OnControl)?),
        None => None,
    };
    let mut bindings = Bindings::default();
    let listening = prepared
        .listen(&bindings)
        .map_err(|error| StartError::Bind(vec![error.to_string()]))?;
    let workers = Rc::new(start_workers(&shared, count)?);
    bindings.apply(listening, &shared.current.load(), &workers);
    handle.board().listening = bindings.listening();
    let reloader = Reloader {
        handle,
        workers,
        bindings,
        config_path,
        files: FileReader::default(),
        names,
        leftovers: Rc::new(RefCell::new(Leftovers::default())),
        restart: Waiting::default(),
        retarget: Rc::new(Notify::new()),
    };
    Ok(Parts {
        reloader,
        requests,
        on_control,
        state_file,
    })
}

/// The first generation, with its pools installed.
async fn first_shared(
    config: Arc<Config>,
    resolved: Resolved,
    workers: usize,
    telemetry: Telemetry,
    (session_limit, descriptor_limit): (u32, u64),
    started: (Instant, SystemTime),
) -> Result<(Arc<Shared>, Option<Arc<StateFile>>), StartError> {
    let build = move || {
        let registry = Registry::new(workers);
        let unix = started.1.duration_since(SystemTime::UNIX_EPOCH);
        registry.begin(Epoch {
            instant: started.0,
            unix: unix.unwrap_or_default(),
        });
        let now = Instant::now();
        let first = build(config, &resolved, &registry, Generation(1), now);
        let shared = Shared::new(
            first,
            registry,
            workers,
            telemetry,
            session_limit,
            descriptor_limit,
            started,
        );
        // What is installed begins with what is known.
        let state_file = StateFile::load(&shared);
        for pool in shared.current.load().pools() {
            pool.pool.install(now);
        }
        (shared, state_file)
    };
    spawn_blocking(build).await.map_err(fault)
}

async fn first_bind(shared: &Arc<Shared>, workers: usize) -> Result<Prepared, StartError> {
    let config = Arc::clone(&shared.current.load().config);
    spawn_blocking(move || reload::prepare(&Bindings::default(), &config, workers))
        .await
        .map_err(fault)?
        .map_err(StartError::Bind)
}

fn start_workers(shared: &Arc<Shared>, count: usize) -> Result<Vec<Worker>, StartError> {
    let mut workers = Vec::with_capacity(count);
    for index in 0..count {
        let id = WorkerId(u8::try_from(index).expect("at most 64 workers"));
        match Worker::start(id, Arc::clone(shared)) {
            Ok(worker) => workers.push(worker),
            Err(source) => {
                for worker in workers {
                    worker.send(Command::Stop);
                    worker.join();
                }
                return Err(StartError::Thread {
                    what: "data threads",
                    source,
                });
            }
        }
    }
    Ok(workers)
}

fn fault(panic: tokio::task::JoinError) -> StartError {
    StartError::Thread {
        what: "first generation",
        source: io::Error::other(panic),
    }
}

/// A reload that nobody waits for.
pub(super) fn quiet_reload(trigger: &'static str) -> Request {
    Request::Reload(super::handle::ReloadRequest {
        trigger,
        from: super::handle::ReloadFrom::File,
        reply: None,
    })
}
