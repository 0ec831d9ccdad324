//! Ctrl-C and SIGTERM, for the commands that end by them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits to be asked to end.
#[derive(Debug)]
pub(super) struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    /// From now on the signals do not kill the process.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns when one of them came. Cancel-safe.
    pub(super) async fn asked(&mut self) {
        // Both branches are cancel-safe: a signal not taken is kept.
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
