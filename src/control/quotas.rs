//! Keeping what was used of the quotas over restarts.
//!
//! Saved every [`SAVE_EVERY`] if anything has changed, and at the end. A crash forgets at most what
//! was used since the last save. A file that cannot be read is put aside and said, for mail has to
//! flow. All that is in the file comes back, configured or not: what a later reload brings (back)
//! finds its counts, and what nobody asks for goes when it would not count any more.
//!
//! One process at a time writes the file. One that finds it in use says so, counts on from what it
//! read, and takes the file over, with what was added meanwhile, when the other ends.
//!
//! A folder whose server is gone holds up neither the start nor the end: see
//! [`reading`](super::reading).

mod file;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use self::file::{File, StateError, beside};
use super::handle::Handle;
use super::reading::FileReader;
use crate::snapshot::{Registry, Shared, UNCONFIGURED_MAX};
use crate::types::in_words;

/// Between saves.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// How long the start, a save and the end wait for the file.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);
/// The wall clock was set when it has gone so far away from ours.
const CLOCK_SET: u64 = 2;

/// The state file of this process.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    inner: Mutex<Inner>,
    files: FileReader,
}

#[derive(Debug, Default)]
struct Inner {
    hold: Hold,
    /// What was read of the file, or written to it, last.
    known: Option<File>,
    /// The last save failed, which was said.
    has_failed: bool,
}

/// Whether the file is ours.
#[derive(Debug, Default)]
enum Hold {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// Another process writes it.
    Others,
    /// It is; the lock is held as long as its file is open. Where locks cannot be had, there is none.
    Ours(#[expect(dead_code, reason = "held, not read")] Option<fs::File>),
}

impl StateFile {
    /// Puts back what was kept, before the first session; `None` where nothing is to be kept.
    pub(super) fn load(shared: &Shared) -> Option<Arc<Self>> {
        let state = Arc::new(Self::at(shared.state_file.clone()?));
        let look = |path: &Path| {
            let hold = Hold::of(path);
            let known = file::read(path).unwrap_or_else(|error| {
                put_aside(path, &error);
                None
            });
            Ok((hold, known))
        };
        match state.files.run(&state.path, FILE_TIMEOUT, look) {
            Ok((hold, known)) => state.inner().begin(&state.path, hold, known, shared),
            // The first save that gets through takes the file over, with what is in it.
            Err(error) => tracing::error!(file = %state.path.display(),
                error = &*in_words(&error),
                remedy = "let the process reach the folder: quotas start at zero until it does",
                "quotas.not-read"),
        }
        Some(state)
    }

    fn at(path: PathBuf) -> Self {
        Self {
            path,
            inner: Mutex::default(),
            files: FileReader::default(),
        }
    }

    /// Saves for the last time.
    pub(super) fn finish(self: &Arc<Self>, shared: &Arc<Shared>) {
        let of = Arc::clone(shared);
        let last = move |inner: &mut Inner, path: &Path| {
            if matches!(inner.hold, Hold::Ours(_)) {
                // Whatever has become of the file meanwhile.
                inner.known = None;
            }
            inner.save(path, &of.registry);
        };
        if let Err(error) = self.in_time(FILE_TIMEOUT, last) {
            tracing::error!(file = %self.path.display(),
                error = &*in_words(&error),
                remedy = "let the process reach the folder: what was used since the last save is \
                          forgotten",
                "quotas.not-saved");
        }
    }

    /// Works on the file, which may hang, for so long at most.
    fn in_time(
        self: &Arc<Self>,
        patience: Duration,
        work: impl FnOnce(&mut Inner, &Path) + Send + 'static,
    ) -> io::Result<()> {
        let state = Arc::clone(self);
        let work = move |path: &Path| {
            work(&mut state.inner(), path);
            Ok(())
        };
        self.files.run(&self.path, patience, work)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Locks the file beside the state file, which is never moved, if nobody else has.
    fn of(path: &Path) -> Self {
        let options = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, "lock"));
        match options.map(|lock| (lock.try_lock(), lock)) {
            Ok((Ok(()), lock)) => Self::Ours(Some(lock)),
            Ok((Err(fs::TryLockError::WouldBlock), _)) => Self::Others,
            // The save will say what is wrong there.
            Ok((Err(fs::TryLockError::Error(_)), _)) | Err(_) => Self::Ours(None),
        }
    }
}

impl Inner {
    /// Begins with what was found.
    fn begin(&mut self, path: &Path, hold: Hold, known: Option<File>, shared: &Shared) {
        if matches!(hold, Hold::Others) {
            tracing::error!(file = %path.display(),
                remedy = "give each process a state_file of its own: until the other has ended, \
                          quotas are counted apart, and what this one counts is not kept",
                "quotas.file-in-use");
        }
        self.hold = hold;
        self.known = known;
        if let Some(file) = &self.known {
            restore(file, None, &shared.registry);
            sweep(shared);
        }
    }

    /// Saves what has changed, if the file is ours.
    fn save(&mut self, path: &Path, registry: &Registry) {
        if !matches!(self.hold, Hold::Ours(_)) {
            self.hold = Hold::of(path);
            if !matches!(self.hold, Hold::Ours(_)) {
                return;
            }
            self.take_over(path, registry);
        }
        let file = collect(registry);
        if self.known.as_ref() == Some(&file) {
            return;
        }
        match file::write(path, &file) {
            Ok(()) => {
                self.known = Some(file);
                self.has_failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(file = %path.display(),
                        %error,
                        remedy = "make its folder and let the process write there, or set another \
                                  state_file",
                        "quotas.not-saved");
                }
            }
        }
    }

    /// The other process has ended, or the file can be reached at last: what was added to it since
    /// we read it was used as well.
    fn take_over(&mut self, path: &Path, registry: &Registry) {
        match file::read(path) {
            Ok(Some(file)) => {
                restore(&file, self.known.as_ref(), registry);
                tracing::info!(file = %path.display(), "quotas.taken-over");
            }
            Ok(None) => {}
            Err(error) => put_aside(path, &error),
        }
        self.known = None;
    }
}

/// Saves now and then until the process ends.
pub(super) async fn run(handle: Handle, state: Option<Arc<StateFile>>) {
    let Some(state) = state else {
        return std::future::pending().await;
    };
    let mut ticks = interval(SAVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (state, shared) = (Arc::clone(&state), Arc::clone(handle.shared()));
        let save = move || {
            let save = move |inner: &mut Inner, path: &Path| inner.save(path, &shared.registry);
            state.in_time(FILE_TIMEOUT, save)
        };
        // A panic there ends this save, and the next may be better. One that is given up was said.
        let _ = spawn_blocking(save).await;
    }
}

/// Forgets backends that are gone, and quotas of such that would not count any more.
pub(super) fn sweep(shared: &Shared) {
    let forgotten = shared.registry.sweep(Instant::now());
    if forgotten > 0 {
        tracing::warn!(
            backends = forgotten,
            kept = UNCONFIGURED_MAX,
            remedy = "none, if these backends do not come back: their quotas would begin at zero",
            "quotas.forgotten"
        );
    }
}

fn put_aside(path: &Path, error: &StateError) {
    let aside = beside(path, "bad");
    let moved = fs::rename(path, &aside).is_ok();
    tracing::error!(file = %path.display(),
        %error,
        put_aside = %if moved { aside.display().to_string() } else { "no".to_owned() },
        remedy = "quotas start at zero; look at the file, or remove it",
        "quotas.not-read");
}

/// Adds what is in the file; of what is in `known` too, only what it has more.
fn restore(file: &File, known: Option<&File>, registry: &Registry) {
    let now = Instant::now();
    for (pool, backend, records) in file.records(known) {
        let quotas = registry.quotas(&pool.into(), &backend.into(), now);
        quotas.restore(&records, now);
    }
}

fn collect(registry: &Registry) -> File {
    let now = Instant::now();
    let mut file = File::new(clock_ahead(registry, now));
    for (pool, backend, of) in registry.all_quotas() {
        file.add(&pool, &backend, of.records(now));
    }
    file
}

/// By how many seconds the wall clock was set since this process began; ours goes on.
fn clock_ahead(registry: &Registry, now: Instant) -> i64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let wall = wall.unwrap_or_default().as_secs().cast_signed();
    let ours = registry.epoch(now).at(now).as_secs().cast_signed();
    let ahead = wall.saturating_sub(ours);
    if ahead.unsigned_abs() < CLOCK_SET {
        0
    } else {
        ahead
    }
}

#[cfg(test)]
mod tests;
