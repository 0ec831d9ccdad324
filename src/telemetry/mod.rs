//! Log lines: one per session and transaction from the data threads, events from everywhere else.
//!
//! A data thread formats into a buffer of its own ([`WorkerLog`]) and hands whole batches to the
//! writer thread; everything else comes as `tracing` events or by [`Telemetry`]'s own doors.
//! Nobody ever waits for the log: behind a stuck pipe lines are dropped and counted. A storm of
//! failures is cut to a few lines per second and a count. This layer has one socket, std's
//! datagram socket to systemd's journal, and no runtime. Values are shown without control octets;
//! credentials and message content never get here.

mod clock;
mod events;
mod journal;
mod line;
mod record;
mod storm;
mod transaction;
mod worker;
mod writer;

pub use events::state_name;
pub use record::{AttemptRecord, RefusalRecord, SessionRecord};
pub use transaction::{Addresses, InDoubtRecord, TransactionReason, TransactionRecord};
pub use worker::WorkerLog;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::config::model::{Log, LogFormat, LogLevel, LogOutput};
use crate::types::in_words;
use clock::{Clock, Wall};
use events::Name;
use journal::Journal;
use line::{Fields, Form, Head};
use storm::Verdict;
use writer::{Handed, Ledger, Output};

/// The largest batch a data thread gathers before it hands it over.
pub const BATCH_OCTETS_MAX: usize = 64 * 1024;
/// How long a waiting [`Telemetry::flush`] sleeps before it looks again for a place in the queue.
const FLUSH_RETRY: Duration = Duration::from_millis(1);

/// Starts the writer thread and the `tracing` subscriber of this process. Once.
///
/// Where the journal is asked for and nobody listens there, lines go to standard error and the
/// first one says so. Call [`Telemetry::flush`] before the process ends.
pub fn start(log: Log) -> Telemetry {
    let (output, form, missing) = open(log.output);
    let telemetry = Telemetry::new(log, output, form);
    events::subscribe(Arc::clone(telemetry.core()));
    if let Some(error) = missing {
        telemetry
            .core()
            .event(LogLevel::Warn, "log.journal_unavailable", |fields| {
                fields.text("error", &in_words(&error));
                fields.text("remedy", "logging to standard error");
            });
    }
    telemetry
}

/// A telemetry that writes to `sink` and is not the process's subscriber: tests, embedding.
pub fn to_sink(log: Log, sink: Box<dyn Write + Send>) -> Telemetry {
    Telemetry::new(log, Output::Stream(sink), FormChoice::ByFormat)
}

/// A telemetry that drops everything: tests, fuzzers.
pub fn silent() -> Telemetry {
    Telemetry(Arc::new(Core {
        settings: Arc::new(Settings::new(
            Log {
                level: LogLevel::Off,
                sessions: false,
                ..Log::default()
            },
            FormChoice::ByFormat,
        )),
        ledger: Arc::new(Ledger::default()),
        wall: Arc::new(Wall::new()),
        suppressed: AtomicU64::new(0),
        queue: None,
    }))
}

/// The door to the log; cheap to clone, any thread.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Core>);

impl Telemetry {
    fn new(log: Log, output: Output, form: FormChoice) -> Self {
        let ledger = Arc::new(Ledger::default());
        let settings = Arc::new(Settings::new(log, form));
        let wall = Arc::new(Wall::new());
        let for_writer = Arc::clone(&settings);
        let form = move || for_writer.form();
        let queue = writer::start(output, form, Arc::clone(&ledger), Arc::clone(&wall)).ok();
        Self(Arc::new(Core {
            settings,
            ledger,
            wall,
            suppressed: AtomicU64::new(0),
            queue,
        }))
    }

    fn core(&self) -> &Arc<Core> {
        &self.0
    }

    /// A worker's own bounded buffer. Not `Sync`; one per data thread, which asks for it: `now` is
    /// its clock, by which its events are told as well.
    pub fn worker_log(&self, now: fn() -> Instant) -> WorkerLog {
        clock::follow(now);
        WorkerLog::new(Arc::clone(&self.0))
    }

    /// Applies a reloaded level, format and switches (output needs a restart).
    pub fn apply(&self, log: Log) {
        self.0.settings.apply(log);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Waits (at most `limit`) until everything handed in so far is written.
    pub fn flush(&self, limit: Duration) {
        let Some(queue) = &self.0.queue else { return };
        let deadline = Instant::now() + limit;
        let (done, written) = sync_channel(1);
        let mut asked = Handed::Flush(done);
        while let Err(TrySendError::Full(back)) = queue.try_send(asked) {
            if Instant::now() >= deadline {
                return;
            }
            asked = back;
            std::thread::sleep(FLUSH_RETRY);
        }
        // An error says that the time is over: then there is nothing left to do.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    /// Lines dropped so far because the writer was behind, of all threads.
    pub fn drops(&self) -> u64 {
        self.0.ledger.drops.load(Ordering::Relaxed)
    }

    /// Events (not session lines) left out so far by the storm limit.
    pub fn suppressed(&self) -> u64 {
        self.0.suppressed.load(Ordering::Relaxed)
    }
}

/// What all doors share.
#[derive(Debug)]
struct Core {
    settings: Arc<Settings>,
    ledger: Arc<Ledger>,
    wall: Arc<Wall>,
    /// Events left out by the storm limit.
    suppressed: AtomicU64,
    /// `None`: silent, or the writer thread could not be made.
    queue: Option<SyncSender<Handed>>,
}

thread_local! {
    /// The clock of the events (not sessions) of this thread.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

impl Core {
    fn wants(&self, level: LogLevel) -> bool {
        self.settings.wants(level)
    }

    fn form(&self) -> Form {
        self.settings.form()
    }

    /// One event with a static name.
    fn event(&self, level: LogLevel, name: &'static str, fields: impl Fn(&mut Fields<'_>)) {
        self.event_named(level, Name::fixed(name), fields);
    }

    fn event_named(&self, level: LogLevel, name: Name<'_>, fields: impl Fn(&mut Fields<'_>)) {
        if !self.wants(level) {
            return;
        }
        let Some(queue) = &self.queue else { return };
        let now = clock::now();
        let (time, second) = CLOCK.with_borrow_mut(|clock| clock.at(&self.wall, now));
        let head = Head {
            time,
            level,
            event: name.shown,
        };
        let mut events = self.ledger.events();
        if events.admit(second, name.counted) == Verdict::LeaveOut {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        } else if events.has_room() {
            let wake = events.is_empty();
            events.add(|octets| line::line(octets, self.form(), head, fields));
            drop(events);
            if wake {
                // A full queue needs no wake: the writer looks at the events after each batch.
                let _ = queue.try_send(Handed::Wake);
            }
        } else {
            self.ledger.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands a batch to the writer, or drops and counts it; the count that was dropped.
    fn hand_over(&self, octets: Vec<u8>, lines: u32) -> u32 {
        let Some(queue) = &self.queue else { return 0 };
        if queue.try_send(Handed::Batch { octets, lines }).is_ok() {
            return 0;
        }
        self.ledger
            .drops
            .fetch_add(u64::from(lines), Ordering::Relaxed);
        lines
    }
}

/// How the form of lines is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormChoice {
    /// By the `format` in force.
    ByFormat,
    /// Always the journal's.
    Journal,
}

/// What a reload may change, in one octet: level, and four bits.
#[derive(Debug)]
struct Settings {
    packed: AtomicU8,
    form: FormChoice,
}

impl Settings {
    const JSON: u8 = 0x10;
    const SESSIONS: u8 = 0x20;
    const TRANSACTIONS: u8 = 0x40;
    const ADDRESSES: u8 = 0x80;
    const LEVEL: u8 = 0x0f;

    fn new(log: Log, form: FormChoice) -> Self {
        let settings = Self {
            packed: AtomicU8::new(0),
            form,
        };
        settings.apply(log);
        settings
    }

    fn apply(&self, log: Log) {
        let level = match log.level {
            LogLevel::Off => 0,
            LogLevel::Error => 1,
            LogLevel::Warn => 2,
            LogLevel::Info => 3,
            LogLevel::Debug => 4,
        };
        let json = match log.format {
            LogFormat::Text => 0,
            LogFormat::Json => Self::JSON,
        };
        let sessions = if log.sessions { Self::SESSIONS } else { 0 };
        let transactions = if log.transactions {
            Self::TRANSACTIONS
        } else {
            0
        };
        let addresses = if log.addresses { Self::ADDRESSES } else { 0 };
        self.packed.store(
            level | json | sessions | transactions | addresses,
            Ordering::Relaxed,
        );
    }

    fn wants(&self, level: LogLevel) -> bool {
        let needed = match level {
            LogLevel::Off => return false,
            LogLevel::Error => 1,
            LogLevel::Warn => 2,
            LogLevel::Info => 3,
            LogLevel::Debug => 4,
        };
        self.packed.load(Ordering::Relaxed) & Self::LEVEL >= needed
    }

    fn wants_sessions(&self) -> bool {
        self.has(Self::SESSIONS) && self.wants(LogLevel::Info)
    }

    fn wants_transactions(&self) -> bool {
        self.has(Self::TRANSACTIONS) && self.wants(LogLevel::Info)
    }

    fn wants_addresses(&self) -> bool {
        self.has(Self::ADDRESSES)
    }

    fn has(&self, bit: u8) -> bool {
        self.packed.load(Ordering::Relaxed) & bit != 0
    }

    fn form(&self) -> Form {
        match self.form {
            FormChoice::Journal => Form::Journal,
            FormChoice::ByFormat if self.has(Self::JSON) => Form::Json,
            FormChoice::ByFormat => Form::Text,
        }
    }
}

/// Opens the output; an error says that the journal is missing and standard error is used instead.
fn open(output: LogOutput) -> (Output, FormChoice, Option<io::Error>) {
    match output {
        LogOutput::Stdout => (
            Output::Stream(stream(&io::stdout())),
            FormChoice::ByFormat,
            None,
        ),
        LogOutput::Stderr => (
            Output::Stream(stream(&io::stderr())),
            FormChoice::ByFormat,
            None,
        ),
        LogOutput::Journald => {
            match Journal::open(Path::new(journal::SOCKET), stream(&io::stderr())) {
                Ok(journal) => (Output::Journal(journal), FormChoice::Journal, None),
                Err(error) => (
                    Output::Stream(stream(&io::stderr())),
                    FormChoice::ByFormat,
                    Some(error),
                ),
            }
        }
    }
}

/// A descriptor of our own: std's would buffer, and lock against everything else that prints.
fn stream(of: &impl AsFd) -> Box<dyn Write + Send> {
    match of.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        // Closed by whoever started us: there is nowhere to write to.
        Err(_) => Box::new(io::sink()),
    }
}

#[cfg(test)]
mod tests;
