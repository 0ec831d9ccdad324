//! The books of the demo in smtp mode: each message that was acknowledged against each that a
//! backend took.
//!
//! A message must be in exactly one backend. It may be in two only if its sender was once told that
//! its fate was not known (`451 4.4.2`) and sent it again, as every mail server does. Entries are
//! closed some time after the acknowledgement, so that the books of an endless demo stay small.

use std::collections::BTreeMap;
use std::time::Duration;

use super::traffic::SENDER_DOMAIN;

/// How long after its acknowledgement a second copy of a message is still looked for.
const OPEN_TIME: Duration = Duration::from_secs(30);

/// A message of the demo: who wrote it, and which of his it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LetterId {
    pub(super) client: u16,
    pub(super) number: u64,
}

impl LetterId {
    /// As a Message-ID, with angle brackets.
    pub(super) fn message_id(self) -> String {
        format!("<{}.client{}{SENDER_DOMAIN}>", self.number, self.client)
    }

    /// Reads it back; `None` for mail of others.
    pub(super) fn read(message_id: &str) -> Option<Self> {
        let local = message_id
            .strip_prefix('<')?
            .strip_suffix('>')?
            .strip_suffix(SENDER_DOMAIN)?;
        let (number, client) = local.split_once(".client")?;
        Some(Self {
            client: client.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

/// What clients heard since the last time they were asked.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Messages that were acknowledged.
    pub(super) acknowledged: Vec<LetterId>,
    /// Messages whose fate was said to be unknown.
    pub(super) doubted: Vec<LetterId>,
}

/// What the books say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Messages that were acknowledged.
    pub(super) acknowledged: u64,
    /// Of those, in no backend: never.
    pub(super) missing: u64,
    /// Copies beyond the first, of messages that never were in doubt: never.
    pub(super) doubled: u64,
    /// Times that a client was told that the fate of its message was unknown.
    pub(super) in_doubt: u64,
    /// Copies beyond the first, of messages that were in doubt.
    pub(super) doubled_in_doubt: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    acknowledged: Option<Duration>,
    copies: u64,
    doubts: u64,
}

/// The books.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: BTreeMap<LetterId, Entry>,
    closed: Account,
}

impl Ledger {
    /// What clients heard, `now` after the begin. Enter it before what backends took: a backend
    /// records a message before it answers.
    pub(super) fn heard(&mut self, heard: Heard, now: Duration) {
        for id in heard.acknowledged {
            self.open.entry(id).or_default().acknowledged = Some(now);
        }
        for id in heard.doubted {
            self.open.entry(id).or_default().doubts += 1;
        }
    }

    /// A backend took this message.
    pub(super) fn taken(&mut self, id: LetterId) {
        self.open.entry(id).or_default().copies += 1;
    }

    /// Closes the entries that have nothing more to expect.
    pub(super) fn close(&mut self, now: Duration) {
        let closed = &mut self.closed;
        self.open.retain(|_, entry| {
            let old = entry.acknowledged.is_some_and(|at| at + OPEN_TIME <= now);
            let stays = !old || entry.copies == 0;
            if !stays {
                closed.add(entry);
            }
            stays
        });
    }

    /// The account of all entries, open ones included.
    pub(super) fn account(&self) -> Account {
        let mut account = self.closed;
        self.open.values().for_each(|entry| account.add(entry));
        account
    }
}

impl Account {
    fn add(&mut self, entry: &Entry) {
        let more = entry.copies.saturating_sub(1);
        self.in_doubt += entry.doubts;
        if entry.doubts > 0 {
            self.doubled_in_doubt += more.min(entry.doubts);
        }
        self.doubled += more.saturating_sub(entry.doubts);
        if entry.acknowledged.is_some() {
            self.acknowledged += 1;
            self.missing += u64::from(entry.copies == 0);
        }
    }

    /// Whether each acknowledged message is in exactly one backend, those in doubt excepted.
    pub(super) fn is_clean(self) -> bool {
        self.missing == 0 && self.doubled == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> LetterId {
        LetterId { client: 7, number }
    }

    fn heard(acknowledged: &[u64], doubted: &[u64]) -> Heard {
        let ids = |numbers: &[u64]| numbers.iter().map(|number| id(*number)).collect();
        Heard {
            acknowledged: ids(acknowledged),
            doubted: ids(doubted),
        }
    }

    #[test]
    fn a_message_id_is_read_back_and_mail_of_others_is_not_ours() {
        assert_eq!(id(12).message_id(), "<12.client7@clients.demo>");
        assert_eq!(LetterId::read("<12.client7@clients.demo>"), Some(id(12)));
        for other in [
            "<12.client7@example.org>",
            "12.client7@clients.demo",
            "<x.clienty@clients.demo>",
            "",
        ] {
            assert_eq!(LetterId::read(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_acknowledged_and_nowhere_is_missing_however_old() {
        let mut ledger = Ledger::default();
        ledger.heard(heard(&[1, 2], &[]), Duration::ZERO);
        ledger.taken(id(1));
        // Never acknowledged: its client was told something else, or left.
        ledger.taken(id(3));
        ledger.close(OPEN_TIME * 3);
        let account = ledger.account();
        assert_eq!((account.acknowledged, account.missing), (2, 1));
        assert!(!account.is_clean());
        ledger.taken(id(2));
        assert!(ledger.account().is_clean());
        assert_eq!(ledger.open.len(), 2, "the settled one is closed");
    }

    #[test]
    fn a_second_copy_is_a_fault_unless_the_message_was_in_doubt() {
        let mut ledger = Ledger::default();
        ledger.heard(heard(&[1, 2, 3], &[2, 3, 3]), Duration::ZERO);
        for number in [1, 2, 2, 3] {
            ledger.taken(id(number));
        }
        let account = ledger.account();
        assert_eq!((account.in_doubt, account.doubled_in_doubt), (3, 1));
        assert!(account.is_clean());
        // One copy more than there were doubts, and one without any doubt.
        ledger.taken(id(2));
        ledger.taken(id(1));
        let account = ledger.account();
        assert_eq!((account.doubled, account.doubled_in_doubt), (2, 1));
        assert!(!account.is_clean());
        ledger.close(OPEN_TIME);
        assert_eq!(ledger.account(), account, "closing forgets nothing");
        assert!(ledger.open.is_empty());
    }
}
