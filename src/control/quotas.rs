//! The state file: what was used of the quotas, kept over restarts.
//!
//! Written every [`SAVE_EVERY`] if anything has changed, and at the end, beside the file and then
//! moved into its place, so that a crash leaves the old one or the new one. A crash forgets at most
//! what was used since the last save. A file that cannot be read is put aside and said, for mail
//! has to flow.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::handle::Handle;
use crate::balance::{QuotaRecord, QuotaUnit};
use crate::snapshot::{Registry, Shared};

/// Between saves.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// The version of the file.
const VERSION: u32 = 1;
/// The largest file that is read, in octets: ten thousand backends with eight quotas each.
const FILE_MAX: u64 = 128 << 20;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    version: u32,
    /// By pool and backend.
    quotas: BTreeMap<String, BTreeMap<String, Vec<Window>>>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
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
enum StateError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a state file: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has version {0}, and this program writes version {VERSION}")]
    Version(u32),
    #[error("has more than {FILE_MAX} octets")]
    TooLarge,
}

/// Puts back what was kept, before the first session.
pub(super) fn load(shared: &Shared) {
    let Some(path) = state_file(shared) else {
        return;
    };
    match read(&path) {
        Ok(None) => {}
        Ok(Some(file)) => restore(&file, &shared.registry),
        Err(error) => {
            let aside = beside(&path, "bad");
            let moved = std::fs::rename(&path, &aside).is_ok();
            tracing::error!(file = %path.display(),
                %error,
                put_aside = %if moved { aside.display().to_string() } else { "no".to_owned() },
                remedy = "quotas start at zero; look at the file, or remove it",
                "quotas.not-read");
        }
    }
}

/// Saves now and then until the process ends.
pub(super) async fn run(handle: Handle) {
    let Some(path) = state_file(handle.shared()) else {
        return std::future::pending().await;
    };
    let mut ticks = interval(SAVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut saved = None;
    let mut failed = false;
    loop {
        ticks.tick().await;
        let file = collect(&handle.shared().registry);
        if saved.as_ref() == Some(&file) {
            continue;
        }
        let to = path.clone();
        let written = spawn_blocking(move || write(&to, "new", &file).map(|()| file)).await;
        match written {
            Ok(Ok(file)) => {
                saved = Some(file);
                failed = false;
            }
            Ok(Err(error)) if !failed => {
                failed = true;
                tracing::error!(file = %path.display(),
                    %error,
                    remedy = "let the process write there, or set another state_file",
                    "quotas.not-saved");
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Saves for the last time.
pub(super) fn save(shared: &Shared) {
    if let Some(path) = state_file(shared)
        // The last but one may still be on its way to the disk.
        && let Err(error) = write(&path, "last", &collect(&shared.registry))
    {
        tracing::error!(file = %path.display(), %error, "quotas.not-saved");
    }
}

fn state_file(shared: &Shared) -> Option<PathBuf> {
    shared.state_file.clone()
}

fn read(path: &Path) -> Result<Option<File>, StateError> {
    let text = match std::fs::metadata(path) {
        Ok(found) if found.len() > FILE_MAX => return Err(StateError::TooLarge),
        Ok(_) => std::fs::read(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let file: File = serde_json::from_slice(&text)?;
    if file.version != VERSION {
        return Err(StateError::Version(file.version));
    }
    Ok(Some(file))
}

fn write(path: &Path, ending: &str, file: &File) -> io::Result<()> {
    let text = serde_json::to_vec(file)?;
    let beside = beside(path, ending);
    let mut new = std::fs::File::create(&beside)?;
    new.write_all(&text)?;
    new.sync_all()?;
    std::fs::rename(&beside, path)
}

/// The file's name with another ending behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn restore(file: &File, registry: &Registry) {
    let now = Instant::now();
    for (pool, backend, quotas) in registry.all_quotas() {
        let windows = file.quotas.get(&*pool).and_then(|of| of.get(&*backend));
        let records: Vec<_> = windows.into_iter().flatten().map(record_of).collect();
        quotas.restore(&records, now);
    }
}

fn collect(registry: &Registry) -> File {
    let now = Instant::now();
    let mut quotas: BTreeMap<String, BTreeMap<String, Vec<Window>>> = BTreeMap::new();
    for (pool, backend, of) in registry.all_quotas() {
        let windows = of.records(now).into_iter().map(window_of).collect();
        let pool = quotas.entry(pool.to_string()).or_default();
        pool.insert(backend.to_string(), windows);
    }
    File {
        version: VERSION,
        quotas,
    }
}

fn record_of(window: &Window) -> QuotaRecord {
    QuotaRecord {
        period: Duration::from_millis(window.period_ms),
        unit: match window.unit {
            Unit::Messages => QuotaUnit::Messages,
            Unit::Recipients => QuotaUnit::Recipients,
        },
        parts: window.used.clone(),
    }
}

fn window_of(record: QuotaRecord) -> Window {
    Window {
        unit: match record.unit {
            QuotaUnit::Messages => Unit::Messages,
            QuotaUnit::Recipients => Unit::Recipients,
        },
        period_ms: u64::try_from(record.period.as_millis()).unwrap_or(u64::MAX),
        used: record.parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Epoch, Quota};
    use std::sync::Arc;

    fn registry() -> Registry {
        let registry = Registry::new(1);
        let now = Instant::now();
        registry.begin(Epoch {
            instant: now,
            unix: Duration::from_secs(1_000_000),
        });
        let quotas = registry.quotas(&Arc::from("mx"), &Arc::from("one"), now);
        let quota = Quota {
            count: 10,
            period: Duration::from_hours(1),
            unit: QuotaUnit::Messages,
        };
        quotas.configure(&[quota], now);
        registry
    }

    fn used(registry: &Registry) -> u64 {
        let (_, _, quotas) = registry.all_quotas().remove(0);
        quotas.usage(Instant::now())[0].used
    }

    #[test]
    fn what_was_used_comes_back_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let before = registry();
        let (_, _, quotas) = before.all_quotas().remove(0);
        let now = Instant::now();
        quotas.take(now).unwrap().unwrap().keep(1, now);
        write(&path, "new", &collect(&before)).unwrap();
        let after = registry();
        assert_eq!(used(&after), 0);
        restore(&read(&path).unwrap().unwrap(), &after);
        assert_eq!(used(&after), 1);
        assert!(!beside(&path, "new").exists());
    }

    #[test]
    fn a_missing_file_is_none_and_a_wrong_one_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert!(read(&path).unwrap().is_none());
        for (text, said) in [
            ("", "is not a state file"),
            ("{}", "is not a state file"),
            (r#"{"version":2,"quotas":{}}"#, "has version 2"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
