//! The storm limit: what may be said of one kind of event within one second.
//!
//! A log line for each of a million refusals is an outage of its own. What is left out is counted
//! and said once per second. Windows are whole seconds of the wall clock: exact enough to bound,
//! and cheap. A line that is told late counts in the window there is; a clock that jumps back
//! further than that begins a new one.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use crate::metrics::{SessionOutcome, TransactionOutcome};

/// Lines of one outcome within a second and worker, of sessions and of transactions each. Those
/// that ended well are not limited, nor are messages in doubt: each of them has a line.
pub(super) const LINES_PER_SECOND_MAX: u32 = 50;
/// Events of one name within a second, all threads together.
pub(super) const EVENTS_PER_SECOND_MAX: u32 = 200;
/// Event names that are told apart; names are static, so this is never met in practice.
const NAMES_MAX: usize = 512;

/// Lines of messages in doubt are told so much late at most, in seconds.
const LATE_SECONDS_MAX: u64 = 10;

/// Whether a line may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Write,
    LeaveOut,
}

/// One worker's count of session lines.
pub(super) type SessionStorm = OutcomeStorm<SessionOutcome, { SessionOutcome::ALL.len() }>;
/// One worker's count of transaction lines.
pub(super) type TransactionStorm =
    OutcomeStorm<TransactionOutcome, { TransactionOutcome::ALL.len() }>;

/// How something ended, as far as the storm limit asks.
pub(super) trait Outcome: Copy {
    /// Its place in tables of counts.
    fn place(self) -> usize;
    /// Whether every line of it is written.
    fn is_unlimited(self) -> bool;
}

impl Outcome for SessionOutcome {
    fn place(self) -> usize {
        self.index()
    }

    fn is_unlimited(self) -> bool {
        self == Self::Completed
    }
}

impl Outcome for TransactionOutcome {
    fn place(self) -> usize {
        self.index()
    }

    fn is_unlimited(self) -> bool {
        matches!(self, Self::Accepted | Self::InDoubt)
    }
}

/// One worker's count of lines by outcome, `N` of them.
#[derive(Debug)]
pub(super) struct OutcomeStorm<O, const N: usize> {
    second: u64,
    written: [u32; N],
    left_out: [u64; N],
    of: PhantomData<O>,
}

impl<O, const N: usize> Default for OutcomeStorm<O, N> {
    fn default() -> Self {
        Self {
            second: 0,
            written: [0; N],
            left_out: [0; N],
            of: PhantomData,
        }
    }
}

impl<O: Outcome, const N: usize> OutcomeStorm<O, N> {
    /// Lines left out in a window that has ended, by outcome; `None` if there were none.
    pub(super) fn roll(&mut self, second: u64) -> Option<[u64; N]> {
        let is_late = second < self.second && self.second - second <= LATE_SECONDS_MAX;
        if second == self.second || is_late {
            return None;
        }
        self.second = second;
        self.written = [0; N];
        self.has_news()
            .then(|| std::mem::replace(&mut self.left_out, [0; N]))
    }

    /// Counts one line of `outcome`. Call [`Self::roll`] first.
    pub(super) fn admit(&mut self, outcome: O) -> Verdict {
        if outcome.is_unlimited() {
            return Verdict::Write;
        }
        let at = outcome.place();
        if self.written[at] < LINES_PER_SECOND_MAX {
            self.written[at] += 1;
            Verdict::Write
        } else {
            self.left_out[at] += 1;
            Verdict::LeaveOut
        }
    }

    /// Whether something was left out and not said yet.
    pub(super) fn has_news(&self) -> bool {
        self.left_out.iter().any(|count| *count > 0)
    }
}

/// The count of all other events, by name.
#[derive(Debug, Default)]
pub(super) struct EventStorm {
    second: u64,
    by_name: BTreeMap<&'static str, (u32, u64)>,
}

impl EventStorm {
    /// Whether something was left out and not said yet.
    pub(super) fn has_news(&self) -> bool {
        self.by_name.values().any(|(_, left_out)| *left_out > 0)
    }

    /// Names and counts left out in a window that has ended.
    pub(super) fn roll(&mut self, second: u64) -> Vec<(&'static str, u64)> {
        if second == self.second {
            return Vec::new();
        }
        self.second = second;
        std::mem::take(&mut self.by_name)
            .into_iter()
            .filter(|(_, (_, left_out))| *left_out > 0)
            .map(|(name, (_, left_out))| (name, left_out))
            .collect()
    }

    /// Counts one event. Call [`Self::roll`] first.
    pub(super) fn admit(&mut self, name: &'static str) -> Verdict {
        if self.by_name.len() >= NAMES_MAX && !self.by_name.contains_key(name) {
            return Verdict::LeaveOut;
        }
        let (written, left_out) = self.by_name.entry(name).or_default();
        if *written < EVENTS_PER_SECOND_MAX {
            *written += 1;
            Verdict::Write
        } else {
            *left_out += 1;
            Verdict::LeaveOut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outcome_cannot_crowd_out_another() {
        let mut storm = SessionStorm::default();
        assert_eq!(storm.roll(1), None);
        for _ in 0..LINES_PER_SECOND_MAX {
            assert_eq!(storm.admit(SessionOutcome::Denied), Verdict::Write);
        }
        assert_eq!(storm.admit(SessionOutcome::Denied), Verdict::LeaveOut);
        assert_eq!(storm.admit(SessionOutcome::NoBackend), Verdict::Write);
        for _ in 0..1000 {
            assert_eq!(storm.admit(SessionOutcome::Completed), Verdict::Write);
        }
        let left_out = storm.roll(2).expect("one was left out");
        assert_eq!(left_out[SessionOutcome::Denied.index()], 1);
        assert_eq!(left_out.iter().sum::<u64>(), 1);
        assert_eq!(storm.admit(SessionOutcome::Denied), Verdict::Write);
        assert_eq!(storm.roll(3), None);
    }

    #[test]
    fn a_late_line_opens_no_window_and_a_clock_that_was_set_back_does() {
        let mut storm = SessionStorm::default();
        storm.roll(1_000);
        for _ in 0..=LINES_PER_SECOND_MAX {
            storm.admit(SessionOutcome::Denied);
        }
        assert_eq!(storm.roll(999), None);
        assert_eq!(storm.admit(SessionOutcome::Denied), Verdict::LeaveOut);
        let left_out = storm.roll(500).expect("a new window");
        assert_eq!(left_out[SessionOutcome::Denied.index()], 2);
    }

    #[test]
    fn neither_an_accepted_message_nor_one_in_doubt_is_ever_left_out() {
        let mut storm = TransactionStorm::default();
        storm.roll(1);
        for outcome in TransactionOutcome::ALL {
            let written = (0..1000)
                .filter(|_| storm.admit(outcome) == Verdict::Write)
                .count();
            let all = matches!(
                outcome,
                TransactionOutcome::Accepted | TransactionOutcome::InDoubt
            );
            assert_eq!(written, if all { 1000 } else { 50 }, "{outcome:?}");
        }
        let left_out = storm.roll(2).expect("most were left out");
        assert_eq!(left_out.iter().sum::<u64>(), 6 * 950);
    }

    #[test]
    fn events_are_limited_by_name() {
        let mut storm = EventStorm::default();
        storm.roll(1);
        let written = (0..EVENTS_PER_SECOND_MAX + 3)
            .filter(|_| storm.admit("a") == Verdict::Write)
            .count();
        assert_eq!(written, 200);
        assert_eq!(storm.admit("b"), Verdict::Write);
        assert_eq!(storm.roll(1), vec![]);
        assert_eq!(storm.roll(2), vec![("a", 3)]);
        assert_eq!(storm.roll(3), vec![]);
    }
}
