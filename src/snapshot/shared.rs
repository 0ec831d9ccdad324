//! The one object every thread holds: the current snapshot, the registry, counters, telemetry.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use super::{Registry, Snapshot};
use crate::metrics::{ControlCounters, WorkerCounters};
use crate::smtp::{ReplayMemory, Tarpit};
use crate::telemetry::Telemetry;
use crate::types::Places;

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// Accepting.
    Serving,
    /// SIGTERM came: no new sessions, the old ones may end.
    Draining,
}

/// Shared by all threads for the life of the process.
#[derive(Debug)]
pub struct Shared {
    /// The pointer that is swapped.
    pub current: ArcSwap<Snapshot>,
    /// What outlives snapshots.
    pub registry: Registry,
    /// By worker.
    pub workers: Vec<CachePadded<WorkerCounters>>,
    /// Of the control thread.
    pub control: ControlCounters,
    /// Where quotas are kept over restarts; a reload does not change it.
    pub state_file: Option<PathBuf>,
    /// What replay copies of messages may take.
    pub replay_memory: Arc<ReplayMemory>,
    /// Places for sessions whose replies are held back (rule B5).
    pub tarpit: Arc<Tarpit>,
    /// The log.
    pub telemetry: Telemetry,
    /// When the process began, for monotonic differences.
    pub started: Instant,
    /// The same on the wall clock.
    pub started_at: SystemTime,
    /// Sessions now, of the whole process.
    pub session_places: Places,
    /// The most there may be: `max_sessions`, or what the descriptor limit allows.
    pub session_limit: AtomicU32,
    /// The descriptor limit in force.
    pub descriptor_limit: u64,
    phase: AtomicU8,
}

impl Shared {
    /// The state of a process that starts with `first`.
    pub fn new(
        first: Snapshot,
        registry: Registry,
        workers: usize,
        telemetry: Telemetry,
        session_limit: u32,
        descriptor_limit: u64,
        started: (Instant, SystemTime),
    ) -> Arc<Self> {
        let replay_memory = ReplayMemory::new(first.config.replay_memory);
        let state_file = first.config.state_file.clone();
        Arc::new(Self {
            state_file,
            replay_memory,
            tarpit: Arc::default(),
            current: ArcSwap::from_pointee(first),
            registry,
            workers: (0..workers)
                .map(|_| CachePadded::new(WorkerCounters::default()))
                .collect(),
            control: ControlCounters::default(),
            telemetry,
            started: started.0,
            started_at: started.1,
            session_places: Places::default(),
            session_limit: AtomicU32::new(session_limit),
            descriptor_limit,
            phase: AtomicU8::new(0),
        })
    }

    /// Sessions now, of the whole process.
    pub fn sessions(&self) -> u32 {
        self.session_places.taken()
    }

    /// Connections now that are no sessions, or none any more: refused, monitors, lingering.
    pub fn closing(&self) -> u64 {
        let workers = self.workers.iter();
        workers.map(|worker| worker.closing.value()).sum()
    }

    /// What the process is doing.
    pub fn phase(&self) -> RunPhase {
        if self.phase.load(Ordering::Relaxed) == 0 {
            RunPhase::Serving
        } else {
            RunPhase::Draining
        }
    }

    /// SIGTERM came.
    pub fn start_draining(&self) {
        self.phase.store(1, Ordering::Relaxed);
    }
}
