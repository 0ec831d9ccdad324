//! A data thread: its event loop, its listeners, its sessions, and the mailbox from control.
//!
//! One event loop per worker; nothing on it blocks and nothing of a session leaves it.
//! The mailbox is bounded by what control sends (a few commands per reload); a worker that is asked
//! to stop ends its sessions, and each of them accounts for itself.

mod accept;
mod heartbeat;

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::balance::BackendState;
use crate::net::event_loop::{EventLoop, yield_now};
use crate::session::Context;
use crate::snapshot::{ListenerView, Shared};
use crate::types::{WorkerId, in_words};

/// Pipes for splicing, of all workers together (fs.pipe-user-pages-soft allows 256 such pipes).
const PIPES_TOTAL: usize = 200;
/// Pipes for splicing, of one worker.
const PIPES_PER_WORKER: usize = 64;

/// What control tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on this (already listening, non-blocking) socket for this listener.
    Bind {
        /// Its policy at this moment: a later generation may have no such listener any more, and
        /// what is in the queue by then is served all the same.
        view: Arc<ListenerView>,
        /// Our name in that generation.
        hostname: Arc<str>,
        /// The socket.
        socket: TcpListener,
    },
    /// The sockets at this address lead to another listener from now on. They stay open, so that no
    /// connection is lost.
    Move {
        /// The local address.
        local: SocketAddr,
        /// The stable index of the listener they led to.
        from: usize,
        /// The stable index of the listener they lead to now.
        to: usize,
    },
    /// Stop accepting for this listener: drain its accept queues, then close its sockets.
    Unbind {
        /// The stable index.
        listener: usize,
        /// Local addresses that stay.
        keep: Vec<SocketAddr>,
    },
    /// End the sessions of this listener now.
    CutListener(usize),
    /// End the sessions at this backend now.
    CutBackend(Arc<BackendState>),
    /// Stop accepting everywhere; the accept queues are drained first.
    StopAccepting,
    /// End every session now and stop.
    Stop,
}

/// A running data thread.
#[derive(Debug)]
pub struct Worker {
    mailbox: UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread or its event loop could not be made.
    pub fn start(id: WorkerId, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (mailbox, commands) = unbounded_channel();
        let (report, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{}", id.0))
            .spawn(move || match EventLoop::new() {
                Ok(event_loop) => {
                    let _ = report.send(Ok(()));
                    event_loop.block_on(serve(id, shared, commands));
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            })?;
        started
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the worker ended at once")))?;
        Ok(Self { mailbox, thread })
    }

    /// Never blocks.
    pub fn send(&self, command: Command) {
        // A worker that has ended needs no more commands.
        let _ = self.mailbox.send(command);
    }

    /// Whether the thread has ended: expected only after `Stop`.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the thread has ended (after `Stop`).
    pub fn join(self) {
        let _ = self.thread.join();
    }
}

/// The thread's main task.
async fn serve(id: WorkerId, shared: Arc<Shared>, mut commands: UnboundedReceiver<Command>) {
    let snapshot = shared.current.load_full();
    let workers = shared.workers.len().max(1);
    let pipes = if snapshot.config.splice {
        PIPES_PER_WORKER.min(PIPES_TOTAL / workers)
    } else {
        0
    };
    drop(snapshot);
    let seed = shared
        .started_at
        .elapsed()
        .map_or(0, |age| age.as_nanos() as u64)
        ^ (u64::from(id.0) << 32)
        ^ u64::from(std::process::id());
    let cx = Context::new(shared, id, pipes, seed);
    let ports = Rc::new(RefCell::new(accept::Ports::default()));
    EventLoop::current().spawn(heartbeat::run(Rc::clone(&cx)));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Bind {
                view,
                hostname,
                socket,
            } => {
                cx.revive_listener(view.state.index);
                if let Err(error) = accept::bind(&cx, &ports, &view, &hostname, socket) {
                    tracing::error!(
                        worker = id.0,
                        error = &*in_words(&error),
                        "listener.bind-failed"
                    );
                }
            }
            Command::Move { local, from, to } => {
                ports.borrow().lead(local, from, to);
                cx.revive_listener(to);
                if !ports.borrow().serves(from) {
                    cx.drain_listener(from);
                }
            }
            Command::Unbind { listener, keep } => {
                ports
                    .borrow_mut()
                    .stop(|port| port.listener() == listener && !keep.contains(&port.local));
                if keep.is_empty() {
                    cx.drain_listener(listener);
                }
            }
            Command::CutListener(listener) => cx.cut(|entry| entry.listener == listener),
            Command::CutBackend(backend) => cx.cut_backend(&backend),
            Command::StopAccepting => {
                ports.borrow_mut().stop(|_| true);
                cx.drain_all();
            }
            Command::Stop => break,
        }
    }
    ports.borrow_mut().stop(|_| true);
    // Acceptors drain their queues when they are scheduled next, and aborted sessions end then: both
    // before this task is again. What came out of a queue is cut as well.
    loop {
        cx.cut(|_| true);
        yield_now().await;
        if cx.is_idle() {
            break;
        }
    }
    cx.flush_log();
}
