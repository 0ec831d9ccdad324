//! What a data thread lends its sessions, and the set of sessions it runs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use slab::Slab;

use super::capabilities::Capabilities;
use super::closing_places::{ClosingBounds, ClosingPlaces};
use super::keeper::Keeper;
use super::warm::{self, Warming};
use crate::balance::BackendState;
use crate::config::model;
use crate::metrics::WorkerCounters;
use crate::net::clock;
use crate::net::event_loop::{EventLoop, TaskId};
use crate::net::pipe::PipePool;
use crate::smtp::{EarlyTalker, First354, InDoubt, MailPolicy, Manners, OwnReply, Tarpit};
use crate::snapshot::{ListenerView, Shared};
use crate::telemetry::WorkerLog;
use crate::types::{Rng, SessionId, WorkerId};

/// The scratch of a thread, in octets: larger than any burst of a dialogue, so that one read ends a
/// turn.
const SCRATCH_OCTETS: usize = 64 * 1024;

/// A listener's policy, shared by this thread's sessions without touching a shared count.
#[derive(Debug)]
pub struct LocalListener {
    /// The policy of the generation the session was accepted in.
    pub view: Arc<ListenerView>,
    /// What it says about transactions.
    pub(super) mail: Arc<MailPolicy>,
}

impl LocalListener {
    /// The policy of `view`, of a generation in which our name is `hostname`. Those whose mistakes
    /// are held back share the places of `tarpit`.
    pub fn new(view: &Arc<ListenerView>, hostname: &str, tarpit: &Arc<Tarpit>) -> Self {
        let settings = &view.settings.smtp;
        let replies = &view.settings.replies;
        let mut words = settings.replies.clone();
        words.put(OwnReply::SHUTTING_DOWN, Arc::clone(&replies.shutting_down));
        words.put(OwnReply::SYNCHRONIZATION, Arc::clone(&replies.early_talker));
        let mail = MailPolicy {
            host: hostname.into(),
            words,
            quirks: settings.client_quirks,
            line_endings: settings.line_endings,
            size_max: settings.max_message_size,
            recipients_max: settings.max_recipients as usize,
            replay_max: settings.replay_max,
            greet_delay: settings.greet_delay,
            early_talker: match view.settings.early_talker {
                model::EarlyTalker::Pass => EarlyTalker::Pass,
                model::EarlyTalker::Log => EarlyTalker::Log,
                model::EarlyTalker::Reject => EarlyTalker::Reject,
            },
            tarpit_delay: settings.tarpit,
            tarpit: Arc::clone(tarpit),
            manners: Manners {
                in_doubt: if settings.replay_in_doubt {
                    InDoubt::Replay
                } else {
                    InDoubt::Tell
                },
                first_354: if settings.buffer_first {
                    First354::Ours
                } else {
                    First354::Backends
                },
            },
            command_time: settings.command_timeout,
            block_time: settings.data_timeout,
        };
        Self {
            view: Arc::clone(view),
            mail: Arc::new(mail),
        }
    }
}

/// What the set of sessions knows of one.
#[derive(Debug)]
pub struct SessionEntry {
    /// The stable index of its listener.
    pub listener: usize,
    /// Its task, once it has one.
    task: Option<TaskId>,
    /// The backend it is at, by identity only.
    backend: usize,
    drains: bool,
    /// It holds transactions: it can do without its backend.
    is_mail: bool,
    /// It is to leave its backend.
    leaves: bool,
}

/// What a session that holds transactions is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// End at the next boundary.
    pub(super) drains: bool,
    /// Leave the backend.
    pub(super) leaves: bool,
}

/// Everything a session needs of its thread.
#[derive(Debug)]
pub struct Context {
    /// Shared by all threads.
    pub shared: Arc<Shared>,
    /// This thread.
    pub worker: WorkerId,
    /// What runs its sessions.
    pub event_loop: Rc<EventLoop>,
    /// Pipes for splicing.
    pub pipes: PipePool,
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) rng: RefCell<Rng>,
    pub(super) log: RefCell<WorkerLog>,
    pub(super) closing_places: ClosingPlaces,
    /// Transactions in doubt that are being digested for the log.
    pub(super) untold: Cell<u32>,
    pub(super) source_turn: Cell<usize>,
    pub(super) keeper: Keeper,
    pub(super) warming: Warming,
    pub(super) capabilities: Capabilities,
    draining: Cell<bool>,
    /// Listeners that are gone: who still comes from their queues drains at once.
    drained: RefCell<BTreeSet<usize>>,
    sessions: RefCell<Slab<SessionEntry>>,
    /// The id of the last session that this thread accepted.
    last_id: Cell<SessionId>,
    /// When the process began, since 1970.
    began: Duration,
}

impl Context {
    /// The context of thread `worker`, which may make `pipes` pipes; made inside its event loop.
    pub fn new(shared: Arc<Shared>, worker: WorkerId, pipes: usize, seed: u64) -> Rc<Self> {
        let log = shared.telemetry.worker_log(clock::now);
        let began = shared.started_at.duration_since(UNIX_EPOCH);
        let began = began.unwrap_or_default();
        let bounds = ClosingBounds::of(shared.descriptor_limit, shared.workers.len());
        Rc::new(Self {
            shared,
            worker,
            event_loop: EventLoop::current(),
            pipes: PipePool::new(pipes),
            scratch: RefCell::new(vec![0; SCRATCH_OCTETS].into_boxed_slice()),
            rng: RefCell::new(Rng::seeded(seed)),
            log: RefCell::new(log),
            closing_places: ClosingPlaces::new(bounds),
            untold: Cell::new(0),
            source_turn: Cell::new(0),
            keeper: Keeper::default(),
            warming: Warming::default(),
            capabilities: Capabilities::default(),
            draining: Cell::new(false),
            drained: RefCell::default(),
            sessions: RefCell::default(),
            last_id: Cell::new(SessionId(0)),
            began,
        })
    }

    /// This thread's counters.
    pub fn counters(&self) -> &WorkerCounters {
        &self.shared.workers[self.worker.index()]
    }

    /// Enters a session of `listener`; the caller adds the task.
    pub fn enter(&self, listener: usize) -> usize {
        self.sessions.borrow_mut().insert(SessionEntry {
            listener,
            task: None,
            backend: 0,
            drains: self.draining.get() || self.drained.borrow().contains(&listener),
            is_mail: false,
            leaves: false,
        })
    }

    /// Adds the task that runs the session.
    pub fn set_task(&self, key: usize, task: TaskId) {
        if let Some(entry) = self.sessions.borrow_mut().get_mut(key) {
            entry.task = Some(task);
        }
    }

    /// Sessions of this thread now.
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Whether every session has ended and been told of.
    pub fn is_idle(&self) -> bool {
        self.sessions() == 0 && self.untold.get() == 0
    }

    /// Ends the sessions that `which` chooses; each logs itself as cut.
    pub fn cut(&self, which: impl Fn(&SessionEntry) -> bool) {
        for (_, entry) in self.sessions.borrow().iter() {
            if which(entry)
                && let Some(task) = entry.task
            {
                self.event_loop.abort(task);
            }
        }
    }

    /// Takes a backend from those that are at it: a relayed session ends, an open transaction moves
    /// on.
    pub fn cut_backend(&self, backend: &Arc<BackendState>) {
        for (_, entry) in self.sessions.borrow_mut().iter_mut() {
            if !entry.is_at(backend) {
                continue;
            }
            let Some(task) = entry.task else { continue };
            if entry.is_mail {
                entry.leaves = true;
                self.event_loop.wake(task);
            } else {
                self.event_loop.abort(task);
            }
        }
    }

    /// Sessions that hold transactions end at their next boundary (rule K7): those that `which`
    /// chooses. Relayed ones cannot be told.
    fn drain(&self, which: impl Fn(&SessionEntry) -> bool) {
        for (_, entry) in self.sessions.borrow_mut().iter_mut() {
            if which(entry) && !entry.drains {
                entry.drains = true;
                if let Some(task) = entry.task {
                    self.event_loop.wake(task);
                }
            }
        }
    }

    /// A listener is gone: its sessions end at their next boundary.
    pub fn drain_listener(&self, listener: usize) {
        self.drained.borrow_mut().insert(listener);
        self.drain(|entry| entry.listener == listener);
    }

    /// The listener is there again.
    pub fn revive_listener(&self, listener: usize) {
        self.drained.borrow_mut().remove(&listener);
    }

    /// The thread accepts no more: every session drains, and no connection is kept.
    pub fn drain_all(self: &Rc<Self>) {
        self.draining.set(true);
        self.drain(|_| true);
        self.keeper.clear(self);
    }

    /// Ends kept connections that have had their time, and makes those that are missing.
    pub fn sweep(self: &Rc<Self>) {
        self.keeper.sweep(self, clock::now());
        warm::look(self);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(super) fn note_mail(&self, key: usize) {
        if let Some(entry) = self.sessions.borrow_mut().get_mut(key) {
            entry.is_mail = true;
        }
    }

    /// What a session that holds transactions is to do.
    pub(super) fn orders(&self, key: usize) -> Orders {
        let mut sessions = self.sessions.borrow_mut();
        let Some(entry) = sessions.get_mut(key) else {
            return Orders::default();
        };
        Orders {
            drains: entry.drains,
            leaves: std::mem::take(&mut entry.leaves),
        }
    }

    /// Hands the log's batch over.
    pub fn flush_log(&self) {
        let mut log = self.log.borrow_mut();
        log.flush();
        self.counters().log_drops.set(log.drops());
        self.counters().log_suppressed.set(log.suppressed());
    }

    pub(super) fn note_backend(&self, key: usize, backend: &Arc<BackendState>) {
        if let Some(entry) = self.sessions.borrow_mut().get_mut(key) {
            entry.backend = Arc::as_ptr(backend).addr();
        }
    }

    pub(super) fn note_no_backend(&self, key: usize) {
        if let Some(entry) = self.sessions.borrow_mut().get_mut(key) {
            entry.backend = 0;
        }
    }

    pub(super) fn leave(&self, key: usize) {
        let _ = self.sessions.borrow_mut().try_remove(key);
    }

    /// An id for a session that is accepted now. Its time goes on from when the process began, so
    /// that it never runs back, whatever becomes of the wall clock.
    pub(super) fn next_id(&self, now: Instant) -> SessionId {
        let accepted = self.began + since(now, self.shared.started);
        let id = SessionId::next(self.last_id.get(), self.worker, accepted);
        self.last_id.set(id);
        id
    }

    /// Octets that identify a session across restarts, for PROXY's UNIQUE_ID.
    pub(super) fn instance(&self) -> u64 {
        self.began.as_micros() as u64
    }

    /// Takes a place for one more session of `listener`, if process and listener have one.
    #[must_use]
    pub(super) fn take_place(&self, listener: &ListenerView) -> bool {
        let limit = self.shared.session_limit.load(Ordering::Relaxed);
        if !self.shared.session_places.take(limit) {
            return false;
        }
        let own = match listener.settings.max_sessions {
            0 => u32::MAX,
            own => own,
        };
        if !listener.state.sessions.take(own) {
            self.shared.session_places.give_back();
            return false;
        }
        self.counters().sessions.inc();
        true
    }

    /// Gives the place of a session of `listener` back.
    pub(super) fn give_place_back(&self, listener: &ListenerView) {
        self.counters().sessions.sub(1);
        listener.state.sessions.give_back();
        self.shared.session_places.give_back();
    }

    /// Says how many connections are open that are no sessions.
    pub(super) fn note_closing(&self) {
        self.counters().closing.set(self.closing_places.taken());
    }
}

impl SessionEntry {
    /// Whether the session is at this backend.
    pub fn is_at(&self, backend: &Arc<BackendState>) -> bool {
        self.backend == Arc::as_ptr(backend).addr()
    }
}

/// Saturating difference, for instants that come from different reads.
pub(super) fn since(now: Instant, then: Instant) -> Duration {
    now.saturating_duration_since(then)
}
