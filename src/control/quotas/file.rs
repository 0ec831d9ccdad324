//! The format of the state file.
//!
//! It is written beside the old one and then moved into its place, so that a crash leaves the old
//! one or the new one.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::balance::{QuotaRecord, QuotaUnit};
use crate::config::read_regular;
use crate::types::in_words;

/// The version of the file.
const VERSION: u32 = 1;
/// The largest file that is read or written, in octets: ten thousand backends with eight full quotas
/// each.
const FILE_MAX: u64 = 128 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    version: u32,
    /// Seconds that the wall clock was ahead of the numbers of the parts when this was written.
    #[serde(default)]
    clock_ahead: i64,
    /// By pool and backend.
    quotas: BTreeMap<String, BTreeMap<String, Vec<Window>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    unit: Unit,
    period_ms: u64,
    /// Numbers of 64ths of the period since 1970, and what was used in each.
    used: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Messages,
    Recipients,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// Of reading or of writing: the event says which.
    #[error("{}", in_words(.0))]
    Io(#[from] io::Error),
    #[error("is not a state file: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has version {0}, and this program writes version {VERSION}")]
    Version(u32),
    #[error("has more than {FILE_MAX} octets")]
    TooLarge,
}

impl File {
    pub(super) fn new(clock_ahead: i64) -> Self {
        Self {
            version: VERSION,
            clock_ahead,
            quotas: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, pool: &str, backend: &str, records: Vec<QuotaRecord>) {
        if !records.is_empty() {
            let windows = records.into_iter().map(Window::of).collect();
            let pool = self.quotas.entry(pool.to_owned()).or_default();
            pool.insert(backend.to_owned(), windows);
        }
    }

    /// What is in it, by pool and backend; of what is in `known` too, only what it has more.
    pub(super) fn records<'a>(
        &'a self,
        known: Option<&'a Self>,
    ) -> impl Iterator<Item = (&'a str, &'a str, Vec<QuotaRecord>)> {
        self.quotas.iter().flat_map(move |(pool, backends)| {
            backends.iter().map(move |(backend, windows)| {
                let before = known.and_then(|known| known.quotas.get(pool)?.get(backend));
                let before = before.map_or(&[][..], |windows| &windows[..]);
                let records = windows.iter().map(|window| {
                    let same = |old: &&Window| {
                        (old.unit, old.period_ms) == (window.unit, window.period_ms)
                    };
                    window.record(before.iter().find(same), self.clock_ahead)
                });
                (&pool[..], &backend[..], records.collect())
            })
        })
    }
}

impl Window {
    fn of(record: QuotaRecord) -> Self {
        Self {
            unit: match record.unit {
                QuotaUnit::Messages => Unit::Messages,
                QuotaUnit::Recipients => Unit::Recipients,
            },
            period_ms: u64::try_from(record.period.as_millis()).unwrap_or(u64::MAX),
            used: record.parts,
        }
    }

    fn record(&self, known: Option<&Self>, clock_ahead: i64) -> QuotaRecord {
        let period = Duration::from_millis(self.period_ms);
        let parts = self.used.iter().map(|&(number, used)| {
            let mut before = known.iter().flat_map(|known| &known.used);
            let before = before.find(|(other, _)| *other == number);
            let used = used.saturating_sub(before.map_or(0, |(_, used)| *used));
            (ahead(number, period, clock_ahead), used)
        });
        QuotaRecord {
            period,
            unit: match self.unit {
                Unit::Messages => QuotaUnit::Messages,
                Unit::Recipients => QuotaUnit::Recipients,
            },
            parts: parts.filter(|(_, used)| *used > 0).collect(),
        }
    }
}

/// The number of the part in which this one ends by the wall clock.
fn ahead(number: u64, period: Duration, clock_ahead: i64) -> u64 {
    let length = (period.as_nanos() / 64).max(1).cast_signed();
    let end = (i128::from(number) + 1) * length - 1 + i128::from(clock_ahead) * 1_000_000_000;
    u64::try_from(end / length).unwrap_or(0)
}

/// `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<File>, StateError> {
    let text = match read_regular(path, FILE_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            return Err(StateError::TooLarge);
        }
        Err(error) => return Err(error.into()),
    };
    let file: File = serde_json::from_str(&text)?;
    if file.version != VERSION {
        return Err(StateError::Version(file.version));
    }
    Ok(Some(file))
}

pub(super) fn write(path: &Path, file: &File) -> Result<(), StateError> {
    let text = serde_json::to_vec(file)?;
    // One that would not be read again must not take the place of one that is.
    if text.len() as u64 > FILE_MAX {
        return Err(StateError::TooLarge);
    }
    let beside = beside(path, "new");
    let mut new = std::fs::File::create(&beside)?;
    new.write_all(&text)?;
    new.sync_all()?;
    Ok(std::fs::rename(&beside, path)?)
}

/// The file's name with another ending behind it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
