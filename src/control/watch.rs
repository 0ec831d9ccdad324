//! `watch = true`: a reload when the configuration or a backends file changes.
//!
//! Files are looked at once a second, off the loop: this sees an editor's rename, a symbolic link
//! that was swapped and a file on a network file system alike, and needs no descriptor per folder.
//! A change is acted on when the files have stayed the same for [`SETTLE`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::handle::{Handle, ReloadFrom, ReloadRequest};
use super::reading::FileReader;
use super::reload::READ_TIMEOUT;
use crate::config::{self, Config, FILE_OCTETS_MAX};

/// Between looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long files must have stayed the same.
const SETTLE: Duration = Duration::from_millis(200);
/// Looks until a file that never rests is read anyway.
const SETTLE_MAX: usize = 25;

/// What tells one state of a file from another; `None` where there is no file.
type Print = Option<(u64, u64, u64, i64, i64)>;

/// The files and their state when they were last read.
type Prints = BTreeMap<PathBuf, Print>;

/// Watches until the process ends.
pub(super) async fn run(
    handle: Handle,
    config_path: Option<PathBuf>,
    reloads: mpsc::Sender<ReloadRequest>,
) {
    let reader = FileReader::default();
    let mut known = Prints::new();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let config = Arc::clone(&handle.shared().current.load().config);
        if !config.watch {
            known.clear();
            continue;
        }
        let files = files(&config, config_path.as_deref());
        let Some(now) = look(files.clone(), &reader).await else {
            continue;
        };
        let mut changed = differs(&known, &now);
        if !changed && now.keys().any(|file| !known.contains_key(file)) {
            // It may have been written between its being read and this first look at it.
            changed = is_outdated(config_path.clone(), config, reader.clone()).await;
        }
        known = now;
        if changed {
            known = settle(files, known, &reader).await;
            let request = ReloadRequest {
                trigger: "watch",
                from: ReloadFrom::File,
                reply: None,
            };
            if reloads.send(request).await.is_err() {
                return;
            }
        }
    }
}

fn files(config: &Config, config_path: Option<&Path>) -> Vec<PathBuf> {
    let mut files = config.files.clone();
    files.extend(config_path.map(Path::to_path_buf));
    files.sort();
    files.dedup();
    files
}

/// `None` if a file cannot be looked at in time.
async fn look(files: Vec<PathBuf>, reader: &FileReader) -> Option<Prints> {
    let reader = reader.clone();
    let prints = move || {
        let print = |file: PathBuf| {
            let found = reader.run(&file, READ_TIMEOUT, |file| Ok(print(file)));
            found.ok().map(|print| (file, print))
        };
        files.into_iter().map(print).collect()
    };
    // A panic within would be ours; then nothing seems to have changed.
    tokio::task::spawn_blocking(prints)
        .await
        .unwrap_or_default()
}

/// Waits until two looks in a row agree.
async fn settle(files: Vec<PathBuf>, mut last: Prints, reader: &FileReader) -> Prints {
    for _ in 0..SETTLE_MAX {
        sleep(SETTLE).await;
        match look(files.clone(), reader).await {
            Some(now) if now != last => last = now,
            Some(_) | None => break,
        }
    }
    last
}

fn print(file: &Path) -> Print {
    let data = fs::metadata(file).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
    ))
}

/// Whether a file that was known looks different. One that is newly watched was just read.
fn differs(known: &Prints, now: &Prints) -> bool {
    now.iter()
        .any(|(file, print)| known.get(file).is_some_and(|before| before != print))
}

/// Whether the file now says something else than the configuration in force.
async fn is_outdated(path: Option<PathBuf>, in_force: Arc<Config>, reader: FileReader) -> bool {
    let Some(path) = path else { return false };
    let differs = move || {
        let read = |file: &Path| reader.read(file, FILE_OCTETS_MAX, READ_TIMEOUT);
        let loaded = config::load_by(&path, &[], &read);
        loaded.map_or(true, |loaded| loaded.config != *in_force)
    };
    tokio::task::spawn_blocking(differs).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn prints(file: &Path) -> Prints {
        Prints::from([(file.to_path_buf(), print(file))])
    }

    #[test]
    fn a_rename_over_the_file_is_a_change_even_with_equal_length_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&file, "one").unwrap();
        fs::write(&other, "two").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        let before = prints(&file);
        fs::File::options()
            .write(true)
            .open(&other)
            .unwrap()
            .set_modified(time)
            .unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(differs(&before, &prints(&file)));
    }

    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) = (
            folder.path().join("one"),
            folder.path().join("two"),
            folder.path().join("link"),
        );
        fs::write(&one, "same").unwrap();
        fs::write(&two, "same").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let before = prints(&link);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(differs(&before, &prints(&link)));
    }

    #[test]
    fn an_untouched_file_and_a_newly_watched_one_are_no_change() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let before = prints(file.path());
        assert!(!differs(&before, &prints(file.path())));
        assert!(!differs(&Prints::new(), &prints(file.path())));
        file.write_all(b"longer").unwrap();
        assert!(differs(&before, &prints(file.path())));
    }

    #[test]
    fn a_file_that_vanishes_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "one").unwrap();
        let before = prints(&file);
        fs::remove_file(&file).unwrap();
        assert!(differs(&before, &prints(&file)));
    }
}
