//! A data thread's log: a buffer of its own and the storm limit.
//!
//! No lock, no channel and no allocation per line: a batch is handed over when it is full, or when
//! the thread flushes and the last one is a little while ago.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::{Clock, Stamp};
use super::line::{self, Head};
use super::record::SessionRecord;
use super::storm::{SessionStorm, TransactionStorm, Verdict};
use super::transaction::TransactionRecord;
use super::{BATCH_OCTETS_MAX, Core};
use crate::config::model::LogLevel;
use crate::metrics::{SessionOutcome, TransactionOutcome};

/// Flushes closer than this gather into one batch. Together with a flush every 100 ms and the
/// writer's nap no line is older than 150 ms when it is written.
const HAND_OVER_AFTER: Duration = Duration::from_millis(20);
/// When this much is gathered, the next flush hands it over whenever it comes.
const HAND_OVER_OCTETS: usize = 16 * 1024;
/// Room that is kept for one more line.
const LINE_OCTETS_USUAL: usize = 2048;

/// A data thread's log: formats into its own buffer and hands over whole batches.
#[derive(Debug)]
pub struct WorkerLog {
    core: Arc<Core>,
    clock: Clock,
    storm: SessionStorm,
    transactions: TransactionStorm,
    buffer: Vec<u8>,
    lines: u32,
    handed_over: Option<Instant>,
    drops: u64,
    suppressed: u64,
}

impl WorkerLog {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            clock: Clock::default(),
            storm: SessionStorm::default(),
            transactions: TransactionStorm::default(),
            buffer: Vec::new(),
            lines: 0,
            handed_over: None,
            drops: 0,
            suppressed: 0,
        }
    }

    /// Whether session lines are wanted: skip the work if not.
    pub fn wants_sessions(&self) -> bool {
        self.core.settings.wants_sessions()
    }

    /// One session's line. Never blocks; drops and counts when the writer is behind.
    pub fn session(&mut self, record: &SessionRecord<'_>) {
        let level = SessionRecord::level(record.outcome);
        if !self.wants_sessions() || !self.core.settings.wants(level) {
            return;
        }
        let (time, second) = self.clock.at(&self.core.wall, record.at);
        self.say_left_out(time, second);
        if self.storm.admit(record.outcome) == Verdict::LeaveOut {
            self.suppressed += 1;
            return;
        }
        let head = Head {
            time,
            level,
            event: SessionRecord::EVENT,
        };
        line::line(&mut self.buffer, self.core.form(), head, |fields| {
            record.write(fields);
        });
        self.count_line();
    }

    /// Whether a line is wanted for a transaction that ended so: skip the work if not. A message
    /// in doubt has its line whether or not transactions have theirs (rule F3).
    pub fn wants_transaction(&self, outcome: TransactionOutcome) -> bool {
        let settings = &self.core.settings;
        match outcome {
            TransactionOutcome::InDoubt => settings.wants(TransactionRecord::level(outcome)),
            TransactionOutcome::Accepted
            | TransactionOutcome::Refused
            | TransactionOutcome::RefusedByUs
            | TransactionOutcome::Abandoned
            | TransactionOutcome::NoBackend
            | TransactionOutcome::Failed
            | TransactionOutcome::Cut => settings.wants_transactions(),
        }
    }

    /// Whether the lines of transactions name sender and recipients.
    pub fn wants_addresses(&self) -> bool {
        self.core.settings.wants_addresses()
    }

    /// One transaction's line. Never blocks; drops and counts when the writer is behind.
    pub fn transaction(&mut self, record: &TransactionRecord<'_>) {
        if !self.wants_transaction(record.outcome) {
            return;
        }
        let (time, second) = self.clock.at(&self.core.wall, record.at);
        self.say_left_out(time, second);
        if self.transactions.admit(record.outcome) == Verdict::LeaveOut {
            self.suppressed += 1;
            return;
        }
        let head = Head {
            time,
            level: TransactionRecord::level(record.outcome),
            event: TransactionRecord::EVENT,
        };
        line::line(&mut self.buffer, self.core.form(), head, |fields| {
            record.write(fields);
        });
        self.count_line();
    }

    /// Hands over what is buffered; called when the loop goes idle and every 100 ms.
    ///
    /// Calls that follow each other closely leave the lines where they are, so that an idle moment
    /// after each session does not wake the writer each time: the 100 ms call is what counts.
    pub fn flush(&mut self) {
        let has_news = self.has_news();
        if self.lines == 0 && !has_news {
            return;
        }
        let now = Instant::now();
        if has_news {
            let (time, second) = self.clock.at(&self.core.wall, now);
            self.say_left_out(time, second);
        }
        if self.lines == 0 {
            return;
        }
        let due = self
            .handed_over
            .is_none_or(|at| now.saturating_duration_since(at) >= HAND_OVER_AFTER);
        if due || self.buffer.len() >= HAND_OVER_OCTETS {
            self.handed_over = Some(now);
            self.hand_over();
        }
    }

    /// Lines of this thread dropped so far because the writer was behind.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// Lines of sessions and transactions of this thread left out so far by the storm limit.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    fn has_news(&self) -> bool {
        self.storm.has_news() || self.transactions.has_news()
    }

    /// One `log.suppressed` line when a second with left-out lines is over.
    fn say_left_out(&mut self, time: Stamp, second: u64) {
        let sessions = self.storm.roll(second);
        let transactions = self.transactions.roll(second);
        if sessions.is_none() && transactions.is_none() {
            return;
        }
        let sessions = sessions.unwrap_or_default();
        let transactions = transactions.unwrap_or_default();
        let head = Head {
            time,
            level: LogLevel::Warn,
            event: "log.suppressed",
        };
        line::line(&mut self.buffer, self.core.form(), head, |fields| {
            let lines = sessions.iter().chain(&transactions).sum::<u64>();
            fields.number("lines", lines);
            for outcome in SessionOutcome::ALL {
                let count = sessions[outcome.index()];
                if count > 0 {
                    fields.number(outcome.name(), count);
                }
            }
            for outcome in TransactionOutcome::ALL {
                let count = transactions[outcome.index()];
                if count > 0 {
                    fields.number(TransactionRecord::left_out_key(outcome), count);
                }
            }
        });
        self.count_line();
    }

    fn count_line(&mut self) {
        self.lines += 1;
        if self.buffer.len() + LINE_OCTETS_USUAL > BATCH_OCTETS_MAX {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let batch = std::mem::replace(&mut self.buffer, self.core.ledger.buffer());
        let lines = std::mem::take(&mut self.lines);
        self.drops += u64::from(self.core.hand_over(batch, lines));
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        if self.has_news() {
            // The window has not ended, but nobody will ask again.
            let (time, second) = self.clock.at(&self.core.wall, Instant::now());
            self.say_left_out(time, second.wrapping_add(1));
        }
        if self.lines > 0 {
            self.hand_over();
        }
    }
}
