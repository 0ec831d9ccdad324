//! A data thread: its runtime, listeners, sessions, and the mailbox from control.
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

use std::net::TcpListener;
use std::sync::Arc;

use crate::balance::BackendState;
use crate::snapshot::Shared;
use crate::types::WorkerId;

/// What control tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on this (already listening) socket for the listener with this stable index.
    Bind {
        listener: usize,
        socket: TcpListener,
    },
    /// Stop accepting for this listener: drain its accept queues, then close its sockets.
    /// `keep` are the local addresses that stay.
    Unbind {
        listener: usize,
        keep: Vec<std::net::SocketAddr>,
    },
    /// End the sessions of this listener now.
    CutListener(usize),
    /// End the sessions at this backend now.
    CutBackend(Arc<BackendState>),
    /// Stop accepting everywhere (drain the accept queues first).
    StopAccepting,
    /// End every session now and stop.
    Stop,
}

/// A running data thread.
#[derive(Debug)]
pub struct Worker {}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread or its runtime could not be made.
    pub fn start(id: WorkerId, shared: Arc<Shared>) -> std::io::Result<Self> {
        todo!()
    }
    /// Never blocks.
    pub fn send(&self, command: Command) {
        todo!()
    }
    /// Waits until the thread has ended (after `Stop`).
    pub fn join(self) {
        todo!()
    }
}
