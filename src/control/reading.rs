//! Reads of files that may never return: each on a thread of its own, with a bound on the wait.
//!
//! A read of a file system whose server is gone cannot be cancelled. It is given up after a while
//! and its thread left behind; it ends when the read does. A file that holds up
//! [`GIVEN_UP_PER_FILE_MAX`] threads is not read again before one of them ends, and no more than
//! [`READS_MAX`] reads go on at once, so that later attempts, of other files, work.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::read_regular;

/// Reads at once, those that were given up included.
const READS_MAX: usize = 8;
/// Reads of one file that were given up and have not returned.
const GIVEN_UP_PER_FILE_MAX: usize = 2;

/// Reads files without ever waiting for longer than it is told. Clones share the bounds.
#[derive(Clone, Debug, Default)]
pub struct FileReader {
    reads: Arc<Reads>,
}

#[derive(Debug, Default)]
struct Reads {
    running: Mutex<Running>,
    one_ended: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    by_number: BTreeMap<u64, Read>,
}

#[derive(Debug)]
struct Read {
    path: PathBuf,
    is_given_up: bool,
}

impl Running {
    /// The files of reads that were given up and have not returned.
    fn stuck(&self) -> impl Iterator<Item = &Path> {
        let reads = self.by_number.values();
        reads.filter_map(|read| read.is_given_up.then_some(&*read.path))
    }
}

impl FileReader {
    /// The text of a regular file of at most `octets_max` octets.
    ///
    /// # Errors
    /// As [`read_regular`], and `TimedOut` if that takes longer than `patience`, or if earlier reads
    /// have not returned.
    pub fn read(&self, path: &Path, octets_max: u64, patience: Duration) -> io::Result<String> {
        self.run(path, patience, move |path| read_regular(path, octets_max))
    }

    /// The answer of `look`, in the time.
    pub(super) fn run<T: Send + 'static>(
        &self,
        path: &Path,
        patience: Duration,
        look: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let until = Instant::now() + patience;
        let place = self.begin(path, until)?;
        let number = place.number;
        let (sender, answer) = mpsc::sync_channel(1);
        let path = path.to_owned();
        let read = move || {
            let found = look(&path);
            drop(place);
            // The caller may have given it up.
            let _ = sender.send(found);
        };
        // Not joined: it may never end. Its place counts it.
        thread::Builder::new()
            .name("file-read".to_owned())
            .spawn(read)?;
        match answer.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(found) => found,
            Err(RecvTimeoutError::Timeout) => Err(self.give_up(number, patience)),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("a fault of ours")),
        }
    }

    /// A place, when there is one.
    fn begin(&self, path: &Path, until: Instant) -> io::Result<Place> {
        let mut running = self.reads.lock();
        loop {
            let of_file = running.stuck().filter(|stuck| *stuck == path).count();
            if of_file >= GIVEN_UP_PER_FILE_MAX {
                return Err(late("earlier reads of it have not returned"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late(match running.stuck().next() {
                    Some(stuck) => format!("a read of {} has not returned", stuck.display()),
                    None => "other reads have not returned".to_owned(),
                }));
            }
            if running.by_number.len() < READS_MAX {
                let number = running.next;
                running.next += 1;
                let read = Read {
                    path: path.to_owned(),
                    is_given_up: false,
                };
                running.by_number.insert(number, read);
                let reads = Arc::clone(&self.reads);
                return Ok(Place { reads, number });
            }
            let woken = self.reads.one_ended.wait_timeout(running, left);
            running = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn give_up(&self, number: u64, after: Duration) -> io::Error {
        let mut running = self.reads.lock();
        // It may have returned in this moment.
        if let Some(read) = running.by_number.get_mut(&number) {
            read.is_given_up = true;
            let file = read.path.display().to_string();
            let stuck = running.stuck().count();
            drop(running);
            tracing::warn!(file, ?after, stuck, "file.stuck");
        }
        late(format!("it has not been read within {after:?}"))
    }
}

impl Reads {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn late(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why.into())
}

/// A read that goes on.
struct Place {
    reads: Arc<Reads>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let read = self.reads.lock().by_number.remove(&self.number);
        self.reads.one_ended.notify_one();
        if let Some(read) = read.filter(|read| read.is_given_up) {
            tracing::info!(file = %read.path.display(), "file.returned");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    /// Gives up a read of `path` that returns when the sender is dropped.
    fn stick(reader: &FileReader, path: &str) -> mpsc::Sender<()> {
        let (sender, ends) = mpsc::channel::<()>();
        let stuck = reader.run(Path::new(path), SHORT, move |_| {
            let _ = ends.recv();
            Ok(())
        });
        assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
        sender
    }

    fn look(reader: &FileReader, path: &str, patience: Duration) -> Result<(), String> {
        let found = reader.run(Path::new(path), patience, |_| Ok(()));
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn a_read_that_does_not_return_ends_its_attempt_only() {
        let reader = FileReader::default();
        let first = stick(&reader, "a");
        assert_eq!(look(&reader, "a", LONG), Ok(()));
        let second = stick(&reader, "a");
        let refused = look(&reader, "a", LONG).unwrap_err();
        assert_eq!(refused, "earlier reads of it have not returned");
        assert_eq!(look(&reader, "b", LONG), Ok(()));
        drop((first, second));
        while look(&reader, "a", LONG).is_err() {
            thread::yield_now();
        }
    }

    #[test]
    fn so_many_threads_are_left_behind_and_no_more() {
        let reader = FileReader::default();
        let names: Vec<_> = (0..READS_MAX).map(|at| at.to_string()).collect();
        let mut stuck: Vec<_> = names.iter().map(|name| stick(&reader, name)).collect();
        let refused = look(&reader, "another", SHORT).unwrap_err();
        assert_eq!(refused, "a read of 0 has not returned");
        // A caller that may wait longer gets the place of a read that returns.
        drop(stuck.pop());
        assert_eq!(look(&reader, "another", LONG), Ok(()));
    }
}
