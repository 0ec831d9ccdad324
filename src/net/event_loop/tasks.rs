//! Which tasks are to run: wakes from this thread cost a push, wakes from others a lock and an
//! octet in an eventfd.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

thread_local! {
    static LOCAL: Local = const { Local::new() };
    /// The task that is being polled: what it wakes of itself is polled after the next look at the
    /// sockets.
    static RUNNING: Cell<u32> = const { Cell::new(NOBODY) };
}

/// Identities of loops.
static LOOPS: AtomicU64 = AtomicU64::new(1);

/// The run queue of the loop that runs on this thread.
struct Local {
    /// The loop; 0 is none.
    owner: Cell<u64>,
    ready: RefCell<VecDeque<u32>>,
    deferred: RefCell<Vec<u32>>,
}

/// No task runs.
pub(super) const NOBODY: u32 = u32::MAX;

impl Local {
    const fn new() -> Self {
        Self {
            owner: Cell::new(0),
            ready: RefCell::new(VecDeque::new()),
            deferred: RefCell::new(Vec::new()),
        }
    }

    fn push(&self, task: u32) {
        if task == RUNNING.get() {
            self.deferred.borrow_mut().push(task);
        } else {
            self.ready.borrow_mut().push_back(task);
        }
    }
}

/// What a waker knows of its task. It outlives the task: the place may be another's by then, who
/// is polled once in vain.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) index: u32,
    queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Header {
    pub(super) fn new(index: u32, queue: &Arc<Queue>) -> Arc<Self> {
        Arc::new(Self {
            index,
            queued: AtomicBool::new(false),
            queue: Arc::clone(queue),
        })
    }
}

impl Header {
    /// It is polled now; wakes from here on queue it again.
    #[inline]
    pub(super) fn begin_poll(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Not a mere load, even where it is queued already: the poll that answers an earlier wake
        // must see what was written before this one.
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.index);
        }
    }
}

/// A loop's run queue, as its wakers reach it.
#[derive(Debug)]
pub(super) struct Queue {
    id: u64,
    /// Woken by other threads.
    remote: Mutex<Vec<u32>>,
    bell: OwnedFd,
}

impl Queue {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Arc::new(Self {
            id: LOOPS.fetch_add(1, Ordering::Relaxed),
            remote: Mutex::default(),
            bell: eventfd(0, flags)?,
        }))
    }

    /// What becomes readable when another thread has woken a task; edge-triggered, never read.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn push(&self, task: u32) {
        // A thread that is ending may have no queue any more; it is not the loop's then.
        let local = LOCAL.try_with(|local| {
            let here = local.owner.get() == self.id;
            if here {
                local.push(task);
            }
            here
        });
        if local != Ok(true) {
            self.push_remote(task);
        }
    }

    fn push_remote(&self, task: u32) {
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        remote.push(task);
        if remote.len() == 1 {
            drop(remote);
            // The counter would be full after 2^64 - 2 rings.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Takes over what other threads have woken.
    pub(super) fn take_remote(&self) {
        let woken =
            std::mem::take(&mut *self.remote.lock().unwrap_or_else(PoisonError::into_inner));
        LOCAL.with(|local| local.ready.borrow_mut().extend(woken));
    }

    /// Makes this thread the loop's, until dropped.
    pub(super) fn enter(&self) -> Entered {
        LOCAL.with(|local| {
            assert_eq!(local.owner.replace(self.id), 0, "one loop at a time");
        });
        self.take_remote();
        Entered
    }
}

/// This thread is a loop's.
pub(super) struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        LOCAL.with(|local| {
            local.owner.set(0);
            local.ready.borrow_mut().clear();
            local.deferred.borrow_mut().clear();
        });
    }
}

/// The next task to poll.
pub(super) fn next() -> Option<u32> {
    LOCAL.with(|local| local.ready.borrow_mut().pop_front())
}

/// Says which task is being polled.
pub(super) fn set_running(task: u32) {
    RUNNING.set(task);
}

/// Whether a task is to be polled.
pub(super) fn any() -> bool {
    LOCAL.with(|local| !local.ready.borrow().is_empty() || !local.deferred.borrow().is_empty())
}

/// The sockets were looked at: tasks that woke themselves get their turn, behind the others.
pub(super) fn undefer() {
    LOCAL.with(|local| {
        let mut deferred = local.deferred.borrow_mut();
        if !deferred.is_empty() {
            local.ready.borrow_mut().extend(deferred.drain(..));
        }
    });
}
