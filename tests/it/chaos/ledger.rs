//! The messages, what backends took of them, and what must not be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};

use posthouse::types::Rng;

/// Mistakes that are kept.
const WRONGS_MAX: usize = 20;

/// A generator for one thing among many of a kind.
pub(crate) fn rng_of(seed: u64, kind: u64, number: u64) -> Rng {
    let mixed = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(kind.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(number.wrapping_mul(0x94d0_49bb_1331_11eb));
    let mut rng = Rng::seeded(mixed);
    rng.next();
    rng
}

/// One message: its envelope and content follow from its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) number: u64,
    seed: u64,
}

impl Message {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self { number, seed }
    }

    pub(crate) fn sender(self) -> String {
        format!("<m{}@from.test>", self.number)
    }

    pub(crate) fn recipients(self) -> Vec<String> {
        let count = 1 + rng_of(self.seed, 1, self.number).below(3);
        let recipient = |at| format!("<r{}-{at}@to.test>", self.number);
        (0..count).map(recipient).collect()
    }

    /// Lines of every sort; a few messages are long.
    pub(crate) fn content(self) -> Vec<u8> {
        let mut rng = rng_of(self.seed, 2, self.number);
        let mut text = format!("Message-Number: {}\r\n\r\n", self.number);
        let lines = if rng.below(40) == 0 {
            2000
        } else {
            rng.below(20)
        };
        for line in 0..lines {
            let line = match rng.below(8) {
                0 => ".".to_owned(),
                1 => "..".to_owned(),
                2 => String::new(),
                3 => ".MAIL FROM:<other@from.test>".to_owned(),
                4 => "x".repeat(998),
                _ => format!("{} line {line} {:x}", self.number, rng.next()),
            };
            let _ = write!(text, "{line}\r\n");
        }
        text.into_bytes()
    }
}

/// What a client knows of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Acknowledged, for these recipients.
    Taken(Vec<String>),
    /// Refused: it is nowhere.
    Refused,
    /// 451 for want of an answer: it may have been taken.
    InDoubt,
    /// The connection ended before the answer; whether the whole message had been sent.
    Unknown { complete: bool },
}

#[derive(Debug, Default)]
struct Entries {
    taken: BTreeMap<u64, Vec<String>>,
    fates: BTreeMap<u64, Fate>,
    wrongs: Vec<String>,
    wrong: usize,
    /// Clients that were left without a greeting.
    ungreeted: usize,
}

/// What happened, told by both ends.
#[derive(Debug)]
pub(crate) struct Ledger {
    seed: u64,
    entries: Mutex<Entries>,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            entries: Mutex::default(),
        }
    }

    pub(crate) fn message(&self, number: u64) -> Message {
        Message::new(self.seed, number)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().expect("nobody panics with it")
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let mut entries = self.lock();
        entries.wrong += 1;
        if entries.wrongs.len() < WRONGS_MAX {
            entries.wrongs.push(what.into());
        }
    }

    pub(crate) fn left_without_greeting(&self) {
        self.lock().ungreeted += 1;
    }

    /// A backend has decided to take a message.
    pub(crate) fn take(&self, backend: &str, sender: &str, recipients: &[String], content: &[u8]) {
        let number = sender
            .strip_prefix("<m")
            .and_then(|rest| rest.strip_suffix("@from.test>"))
            .and_then(|number| number.parse().ok());
        let Some(number) = number else {
            return self.wrong(format!("{backend} took a message of {sender}"));
        };
        let message = self.message(number);
        let known = message.recipients();
        if recipients
            .iter()
            .any(|recipient| !known.contains(recipient))
        {
            self.wrong(format!("{backend}: {number} has recipients {recipients:?}"));
        }
        if content != message.content() {
            let found = String::from_utf8_lossy(content);
            let start: String = found.chars().take(80).collect();
            self.wrong(format!("{backend}: {number} has the content {start:?}…"));
        }
        let mut entries = self.lock();
        if entries.taken.insert(number, recipients.to_vec()).is_some() {
            drop(entries);
            self.wrong(format!("{number} was taken twice, at last by {backend}"));
        }
    }

    pub(crate) fn ended(&self, number: u64, fate: Fate) {
        let before = self.lock().fates.insert(number, fate);
        assert_eq!(before, None, "each message is sent once");
    }

    /// Compares what clients and backends tell; counts by fate.
    pub(crate) fn settle(&self) -> Settled {
        let (fates, taken) = {
            let entries = self.lock();
            (entries.fates.clone(), entries.taken.clone())
        };
        let mut settled = Settled::default();
        for (number, fate) in &fates {
            let found = taken.get(number);
            let is_right = match fate {
                Fate::Taken(recipients) => {
                    settled.taken += 1;
                    found == Some(recipients)
                }
                Fate::Refused => {
                    settled.refused += 1;
                    found.is_none()
                }
                Fate::Unknown { complete: false } => {
                    settled.broken_off += 1;
                    found.is_none()
                }
                Fate::InDoubt => {
                    settled.in_doubt += 1;
                    true
                }
                Fate::Unknown { complete: true } => {
                    settled.unanswered += 1;
                    true
                }
            };
            if !is_right {
                self.wrong(format!("{number} is {fate:?}, and found as {found:?}"));
            }
        }
        for number in taken.keys().filter(|number| !fates.contains_key(number)) {
            self.wrong(format!("nobody sent {number}"));
        }
        let mut entries = self.lock();
        settled.ungreeted = entries.ungreeted;
        settled.wrong = entries.wrong;
        settled.wrongs = std::mem::take(&mut entries.wrongs);
        settled
    }
}

/// Messages by what became of them, and what is wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) taken: usize,
    pub(crate) refused: usize,
    pub(crate) in_doubt: usize,
    pub(crate) broken_off: usize,
    pub(crate) unanswered: usize,
    pub(crate) ungreeted: usize,
    pub(crate) wrong: usize,
    pub(crate) wrongs: Vec<String>,
}

impl Settled {
    pub(crate) fn messages(&self) -> usize {
        self.taken + self.refused + self.in_doubt + self.broken_off + self.unanswered
    }
}
