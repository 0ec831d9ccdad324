//! The control thread: start, reload, probes, discovery, drain, signals.
//!
//! [`start()`] raises limits, binds, starts the data threads and then keeps one thread of its own for
//! everything that is not a session. Whatever blocks (files, the system resolver, building tables)
//! runs off its loop. Other threads reach it through a [`Handle`]; the data threads are reached by
//! [`crate::worker::Command`]s and the one snapshot pointer, never by a lock they would wait for.
//! It knows no HTTP: the status endpoint is put on this thread by [`Running::spawn_on_control`] or
//! by the hook of [`StartOptions`].

mod announce;
mod bindings;
mod cuts;
mod descriptors;
mod discovery;
mod handle;
mod lookup_error;
mod own;
pub mod probe;
mod prober;
mod quotas;
mod reading;
mod reload;
mod restart;
mod running;
mod service;
mod signals;
mod start;
mod supervise;
mod ticker;
mod vetting;
mod watch;

pub use descriptors::{ADMIN_CONNECTIONS_MAX, DescriptorError};
pub use handle::{BackendChange, ChangeError, Handle, LocalTask, ReloadReport};
pub use own::own_addresses;
pub use reading::FileReader;
pub use running::{Ended, Running};
pub use signals::{ProcessSignals, Signals};
pub use start::{OnControl, StartError, StartOptions, start};
