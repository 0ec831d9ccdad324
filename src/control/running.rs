//! A running balancer, as the thread that started it sees it.

use std::thread::JoinHandle;
use std::time::Duration;

use super::handle::{ChangeError, Handle, LocalTask, Request};

/// A running balancer. Dropping it ends it at once; [`Running::wait`] waits for its end.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    thread: Option<JoinHandle<Ended>>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every session had ended by itself.
    Clean,
    /// Sessions were cut: at the deadline of a drain, or because it was told to end at once.
    Cut {
        /// How many.
        sessions: u32,
    },
    /// The control thread failed; a fault of ours.
    Failed,
}

impl Ended {
    /// The exit code: 0 clean, 3 sessions were cut, 4 a fault of ours. (1 is a mistake in the
    /// configuration and 2 a start that failed: [`super::StartError::exit_code`].)
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Cut { .. } => 3,
            Self::Failed => 4,
        }
    }
}

impl Running {
    pub(super) fn new(handle: Handle, thread: JoinHandle<Ended>) -> Self {
        Self {
            handle,
            thread: Some(thread),
        }
    }

    /// The door to the control thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a task on the control thread until it ends or the process does.
    ///
    /// # Errors
    /// [`ChangeError::Stopping`].
    pub fn spawn_on_control<F, T>(&self, task: F) -> Result<(), ChangeError>
    where
        F: FnOnce(Handle) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let handle = self.handle.clone();
        let start = move || Box::pin(task(handle)) as LocalTask;
        self.handle.try_send(Request::Run(Box::new(start)))
    }

    /// Stops accepting and ends when the sessions have ended, or after `shutdown_timeout`: what
    /// SIGTERM does.
    pub fn drain(&self) {
        self.insist(|| Request::Drain);
    }

    /// Ends at once: what a second signal does.
    pub fn stop(&self) {
        self.insist(|| Request::Stop);
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Ended {
        self.join()
    }

    /// The mailbox is full only while the control thread is busy, and a stop must not get lost.
    fn insist(&self, request: impl Fn() -> Request) {
        const RETRY: Duration = Duration::from_millis(5);
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.handle.try_send(request()).is_err() && !ended() {
            std::thread::sleep(RETRY);
        }
    }

    fn join(&mut self) -> Ended {
        self.thread.take().map_or(Ended::Failed, |thread| {
            thread.join().unwrap_or(Ended::Failed)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            self.join();
        }
    }
}
