//! The writer: an OS thread that alone writes log lines, fed with whole batches.
//!
//! The queue is bounded and nobody waits for a place in it: a stuck pipe stops only this thread,
//! and what finds no place is dropped and counted. After each write it naps a little so that under
//! load batches gather instead of each waking it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::{Clock, Wall};
use super::journal::Journal;
use super::line::{self, Form, Head};
use super::storm::{EventStorm, Verdict};
use crate::config::model::LogLevel;

/// Batches that may wait for the writer; with [`super::BATCH_OCTETS_MAX`] the bound of its memory.
pub(super) const BATCHES_WAITING_MAX: usize = 64;
/// Events that may wait for the writer, in octets (one more line may start below it).
const EVENT_OCTETS_MAX: usize = 256 * 1024;
/// How long a count of left-out events waits to be said when nothing else happens.
const NEWS_WAIT: Duration = Duration::from_secs(1);
/// Written buffers that are kept for the next batch.
const BUFFERS_KEPT_MAX: usize = 16;
/// A buffer larger than this is not kept.
const BUFFER_KEPT_OCTETS_MAX: usize = 128 * 1024;
/// How long the writer lets batches gather.
const NAP: Duration = Duration::from_millis(10);
/// How long a descriptor that another program made non-blocking is left alone when it is full.
const FULL_WAIT: Duration = Duration::from_millis(5);

/// What is handed to the writer.
pub(super) enum Handed {
    /// Whole lines, and how many.
    Batch { octets: Vec<u8>, lines: u32 },
    /// There are events.
    Wake,
    /// Say so when everything before is written.
    Flush(SyncSender<()>),
}

/// Where lines go.
pub(super) enum Output {
    Stream(Box<dyn Write + Send>),
    Journal(Journal),
}

/// What both sides of the queue know.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Lines that were dropped.
    pub(super) drops: AtomicU64,
    buffers: Mutex<Vec<Vec<u8>>>,
    events: Mutex<Events>,
}

/// Lines of events that wait, and the storm limit over all threads.
#[derive(Debug, Default)]
pub(super) struct Events {
    octets: Vec<u8>,
    lines: u32,
    storm: EventStorm,
    /// Left out in windows that have ended, not said yet.
    left_out: Vec<(&'static str, u64)>,
}

impl Events {
    pub(super) fn admit(&mut self, second: u64, name: &'static str) -> Verdict {
        self.roll(second);
        self.storm.admit(name)
    }

    fn roll(&mut self, second: u64) {
        for (name, count) in self.storm.roll(second) {
            match self.left_out.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => self.left_out.push((name, count)),
            }
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.octets.len() < EVENT_OCTETS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    pub(super) fn add(&mut self, line: impl FnOnce(&mut Vec<u8>)) {
        line(&mut self.octets);
        self.lines += 1;
    }
}

impl Ledger {
    /// An empty buffer, a used one if there is one at once.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.buffers
            .try_lock()
            .ok()
            .and_then(|mut buffers| buffers.pop())
            .unwrap_or_default()
    }

    /// The events that wait. Their counts are whole after a panic too.
    pub(super) fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if let Ok(mut buffers) = self.buffers.lock()
            && buffers.len() < BUFFERS_KEPT_MAX
            && buffer.capacity() <= BUFFER_KEPT_OCTETS_MAX
        {
            buffers.push(buffer);
        }
    }
}

/// Starts the thread; it ends when the last sender is gone and everything is written.
///
/// # Errors
/// The thread could not be made.
pub(super) fn start(
    output: Output,
    form: impl Fn() -> Form + Send + 'static,
    ledger: Arc<Ledger>,
    wall: Arc<Wall>,
) -> io::Result<SyncSender<Handed>> {
    let (sender, receiver) = sync_channel(BATCHES_WAITING_MAX);
    let writer = Writer {
        output,
        form: Box::new(form),
        ledger,
        wall,
        clock: Clock::default(),
        drops_said: 0,
    };
    std::thread::Builder::new()
        .name("posthouse-log".to_owned())
        .spawn(move || writer.run(&receiver))?;
    Ok(sender)
}

struct Writer {
    output: Output,
    form: Box<dyn Fn() -> Form + Send>,
    ledger: Arc<Ledger>,
    wall: Arc<Wall>,
    clock: Clock,
    drops_said: u64,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Handed>) {
        loop {
            let first = if self.ledger.events().storm.has_news() {
                queue.recv_timeout(NEWS_WAIT)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match first {
                Ok(first) => self.take(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.write_events();
            self.gather(queue);
        }
        self.write_events();
    }

    /// Goes on as long as every nap brings something.
    fn gather(&mut self, queue: &Receiver<Handed>) {
        let mut gathered = true;
        while gathered {
            gathered = false;
            std::thread::sleep(NAP);
            while let Ok(next) = queue.try_recv() {
                gathered = true;
                self.take(next);
                self.write_events();
            }
            self.say_drops();
        }
    }

    fn take(&mut self, handed: Handed) {
        match handed {
            Handed::Batch { octets, lines } => {
                self.write_or_count(&octets, lines);
                self.ledger.keep(octets);
            }
            Handed::Wake => {}
            Handed::Flush(done) => {
                self.write_events();
                self.say_drops();
                // The asker may have given up: then nobody needs the answer.
                let _ = done.try_send(());
            }
        }
    }

    /// Writes the events that wait and what the storm limit left out.
    fn write_events(&mut self) {
        let (time, second) = self.clock.at(&self.wall, Instant::now());
        let mut events = self.ledger.events();
        events.roll(second);
        let left_out = std::mem::take(&mut events.left_out);
        if events.is_empty() && left_out.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut events.lines);
        let mut octets = std::mem::replace(&mut events.octets, self.ledger.buffer());
        drop(events);
        if !left_out.is_empty() {
            let head = Head {
                time,
                level: LogLevel::Warn,
                event: "log.suppressed",
            };
            line::line(&mut octets, (self.form)(), head, |fields| {
                fields.number("lines", left_out.iter().map(|(_, n)| n).sum::<u64>());
                for (name, count) in &left_out {
                    fields.counted(name, *count);
                }
            });
            lines += 1;
        }
        self.write_or_count(&octets, lines);
        self.ledger.keep(octets);
    }

    fn write_or_count(&mut self, octets: &[u8], lines: u32) {
        if self.write(octets).is_err() {
            self.ledger
                .drops
                .fetch_add(u64::from(lines), Ordering::Relaxed);
        }
    }

    /// One line whenever lines were dropped since the last one.
    fn say_drops(&mut self) {
        let drops = self.ledger.drops.load(Ordering::Relaxed);
        let new = drops.saturating_sub(self.drops_said);
        if new == 0 {
            return;
        }
        let (time, _) = self.clock.at(&self.wall, Instant::now());
        let mut octets = Vec::new();
        let head = Head {
            time,
            level: LogLevel::Warn,
            event: "log.dropped",
        };
        line::line(&mut octets, (self.form)(), head, |fields| {
            fields.number("lines", new);
            fields.number("lines.total", drops);
        });
        if self.write(&octets).is_ok() {
            self.drops_said = drops;
        }
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.output {
            Output::Stream(stream) => write_whole(stream, octets),
            Output::Journal(journal) => journal.write(octets),
        }
    }
}

/// `write_all` that also waits for a full non-blocking descriptor.
fn write_whole(stream: &mut dyn Write, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match stream.write(octets) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => octets = &octets[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(FULL_WAIT);
            }
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}
