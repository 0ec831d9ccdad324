//! The loop of the control thread: signals, requests, and the end.
//!
//! A drain stops accepting, waits until the last session has ended or `shutdown_timeout` is over,
//! and then stops the workers; a second SIGTERM or SIGINT ends it at once (rule K7). Tasks that must
//! live as long as the process are started here, and a panic in one of them is logged and does not end
//! it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::handle::{Handle, LocalTask, ReloadRequest, Request};
use super::quotas::StateFile;
use super::reload::{self, Reloader};
use super::running::Ended;
use super::signals::{self, SignalOrder, Signals};
use super::{announce, prober, quotas, service, ticker, watch};
use crate::worker::{Command, Worker};

/// Reloads that may wait for the one that is being done.
const RELOADS_MAX: usize = 16;
/// Between looks at the number of sessions while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// Connections that were in an accept queue when we stopped accepting become sessions only when a
/// worker takes them: so long a drain lasts at least.
const DRAIN_MIN: Duration = Duration::from_millis(250);
/// How long the log may take to write its last lines.
const FLUSH: Duration = Duration::from_secs(2);

/// What `start` made.
pub(super) struct Parts {
    pub(super) reloader: Reloader,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) on_control: Option<LocalTask>,
    pub(super) state_file: Option<Arc<StateFile>>,
}

impl Parts {
    pub(super) fn handle(&self) -> &Handle {
        &self.reloader.handle
    }
}

/// What ends the serving, and who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Drain(DrainCause),
    Stop,
}

/// What began a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DrainCause {
    /// SIGTERM or SIGINT: another one ends at once.
    End(&'static str),
    /// SIGQUIT: it never cuts a session.
    Soft(&'static str),
    /// The program in which we run.
    Program,
}

impl DrainCause {
    fn name(self) -> &'static str {
        match self {
            Self::End(name) | Self::Soft(name) => name,
            Self::Program => "program",
        }
    }
}

/// Runs until the end.
pub(super) async fn run(parts: Parts, mut signals: Signals) -> Ended {
    let Parts {
        reloader,
        mut requests,
        on_control,
        state_file,
    } = parts;
    let handle = reloader.handle.clone();
    let workers = Rc::clone(&reloader.workers);
    let status = reload::started_status(handle.shared(), reloader.config_path.as_deref());
    let mut tasks = JoinSet::new();
    let reloads = spawn_tasks(&mut tasks, reloader, state_file.clone());
    if let Some(task) = on_control {
        tasks.spawn_local(task);
    }
    announce::ready(&handle);
    service::ready(&status);
    let order = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                SignalOrder::Reload => forward(&reloads, super::start::quiet_reload("signal")),
                SignalOrder::End(name) => break Order::Drain(DrainCause::End(name)),
                SignalOrder::Drain(name) => break Order::Drain(DrainCause::Soft(name)),
            },
            request = requests.recv() => match request {
                Some(Request::Drain) => break Order::Drain(DrainCause::Program),
                Some(Request::Stop) | None => break Order::Stop,
                Some(Request::Run(task)) => { tasks.spawn_local(task()); }
                Some(reload @ Request::Reload(_)) => forward(&reloads, reload),
            },
            Some(ended) = tasks.join_next() => note(ended),
        }
    };
    // Nothing is bound or changed any more; the status endpoint goes on answering.
    drop(reloads);
    let ended = match order {
        Order::Drain(asker) => drain(&handle, &workers, asker, &mut signals, &mut requests).await,
        Order::Stop => cut(&handle),
    };
    tasks.shutdown().await;
    finish(&handle, workers, state_file, ended).await;
    ended
}

fn spawn_tasks(
    tasks: &mut JoinSet<()>,
    reloader: Reloader,
    state_file: Option<Arc<StateFile>>,
) -> mpsc::Sender<ReloadRequest> {
    let (sender, receiver) = mpsc::channel(RELOADS_MAX);
    let handle = reloader.handle.clone();
    let workers = Rc::clone(&reloader.workers);
    let leftovers = Rc::clone(&reloader.leftovers);
    let retarget = Rc::clone(&reloader.retarget);
    let path = reloader.config_path.clone();
    tasks.spawn_local(ticker::run(handle.clone(), workers, leftovers));
    tasks.spawn_local(prober::run(handle.clone(), retarget));
    let shared = Arc::clone(handle.shared());
    let config_in_force = move || Arc::clone(&shared.current.load().config);
    tasks.spawn_local(Rc::clone(&reloader.names).run(config_in_force, sender.clone()));
    tasks.spawn_local(watch::run(handle.clone(), path, sender.clone()));
    tasks.spawn_local(quotas::run(handle.clone(), state_file));
    tasks.spawn_local(service::watchdog(Arc::clone(handle.shared())));
    tasks.spawn_local(reloader.run(receiver));
    sender
}

/// Hands a reload to the task that does them. When too many wait, one that nobody waits for adds
/// nothing, and one that somebody waits for is answered by its dropped reply.
fn forward(reloads: &mpsc::Sender<ReloadRequest>, request: Request) {
    if let Request::Reload(request) = request
        && let Err(error) = reloads.try_send(request)
    {
        tracing::warn!(%error, "reload.dropped");
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "control.panic");
    }
}

async fn drain(
    handle: &Handle,
    workers: &[Worker],
    asker: DrainCause,
    signals: &mut Signals,
    requests: &mut mpsc::Receiver<Request>,
) -> Ended {
    let shared = handle.shared();
    let limit = shared.current.load().config.shutdown_timeout;
    let since = Instant::now();
    let sessions = shared.sessions();
    tracing::info!(by = asker.name(), sessions, limit = ?limit, "drain.begin");
    service::stopping(limit);
    shared.start_draining();
    for worker in workers {
        worker.send(Command::StopAccepting);
    }
    let mut ticks = interval(DRAIN_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = u32::MAX;
    let mut cuts_next = matches!(asker, DrainCause::End(_));
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let left = shared.sessions();
                // Closing connections still have to read their last reply: seconds at most.
                let quiet = left == 0 && shared.closing() == 0;
                if quiet && since.elapsed() >= DRAIN_MIN {
                    return Ended::Clean;
                }
                if since.elapsed() >= limit {
                    return cut(handle);
                }
                if left != told {
                    told = left;
                    service::status(&format!("draining, {left} sessions left"));
                }
            }
            asked = signals.next() => match asked {
                SignalOrder::End(_) if cuts_next => return cut(handle),
                SignalOrder::End(name) => {
                    cuts_next = true;
                    signals::ignored(&name, "it drains already; another one ends it at once");
                }
                SignalOrder::Drain(name) => signals::ignored(&name, "it drains already"),
                SignalOrder::Reload => signals::ignored(&"SIGHUP", "it drains: nothing is reloaded"),
            },
            Some(request) = requests.recv() => if matches!(request, Request::Stop) {
                return cut(handle);
            },
        }
    }
}

/// The sessions that are left are about to be cut.
fn cut(handle: &Handle) -> Ended {
    handle.shared().start_draining();
    match handle.shared().sessions() {
        0 => Ended::Clean,
        sessions => {
            tracing::warn!(sessions, "drain.cut");
            Ended::Cut { sessions }
        }
    }
}

async fn finish(
    handle: &Handle,
    workers: Rc<Vec<Worker>>,
    state_file: Option<Arc<StateFile>>,
    ended: Ended,
) {
    for worker in workers.iter() {
        worker.send(Command::Stop);
    }
    let telemetry = handle.shared().telemetry.clone();
    let shared = Arc::clone(handle.shared());
    let workers = Rc::into_inner(workers);
    let joined = spawn_blocking(move || {
        workers.into_iter().flatten().for_each(Worker::join);
        if let Some(state_file) = state_file {
            state_file.finish(&shared);
        }
        announce::stopped(&shared, ended);
        telemetry.flush(FLUSH);
    });
    note(joined.await);
}
