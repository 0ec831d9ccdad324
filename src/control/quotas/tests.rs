//! What comes back from the state file, and what does not.

use super::*;
use crate::balance::{Epoch, Limited, Quota, QuotaUnit};

const HOUR: Duration = Duration::from_hours(1);

fn registry(unix: u64) -> Registry {
    let registry = Registry::new(1);
    registry.begin(Epoch {
        instant: Instant::now(),
        unix: Duration::from_secs(unix),
    });
    registry
}

/// The wall clock at which these processes run, in seconds.
fn wall() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    wall.expect("it is after 1970").as_secs()
}

fn configured(registry: &Registry, backend: &str) -> Limited {
    let now = Instant::now();
    let quota = Quota {
        count: 1_000,
        period: HOUR,
        unit: QuotaUnit::Messages,
    };
    let quotas = registry.quotas(&"mx".into(), &backend.into(), now);
    let limited = quotas.limited(&[quota]);
    limited.install(now);
    limited
}

fn spend(limited: &Limited, messages: u32) {
    for _ in 0..messages {
        let now = Instant::now();
        limited.take(1, now).expect("there is room").keep(1, now);
    }
}

fn used(limited: &Limited) -> u64 {
    limited.usage(Instant::now())[0].used
}

#[test]
fn what_was_used_comes_back_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let before = registry(wall());
    spend(&configured(&before, "one"), 2);
    file::write(&path, &collect(&before)).unwrap();
    let after = registry(wall());
    restore(&file::read(&path).unwrap().unwrap(), None, &after);
    assert_eq!(used(&configured(&after, "one")), 2);
    assert!(!beside(&path, "new").exists());
}

#[test]
fn what_is_not_configured_stays_in_the_file_until_it_would_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let first = registry(wall());
    spend(&configured(&first, "one"), 2);
    file::write(&path, &collect(&first)).unwrap();
    let second = registry(wall());
    spend(&configured(&second, "two"), 1);
    restore(&file::read(&path).unwrap().unwrap(), None, &second);
    assert_eq!(second.sweep(Instant::now()), 0);
    file::write(&path, &collect(&second)).unwrap();
    let third = registry(wall());
    restore(&file::read(&path).unwrap().unwrap(), None, &third);
    assert_eq!(used(&configured(&third, "one")), 2);
    // Days later nothing of it counts, and nothing of it is written.
    let late = registry(wall() + 3 * 86_400);
    restore(&file::read(&path).unwrap().unwrap(), None, &late);
    late.sweep(Instant::now());
    assert!(late.all_quotas().is_empty());
    assert_eq!(used(&configured(&late, "one")), 0);
}

#[test]
fn names_that_are_not_configured_are_bounded_and_the_last_used_stay() {
    let registry = registry(wall());
    let old = configured(&registry, "old");
    spend(&old, 1);
    for number in 0..UNCONFIGURED_MAX + 5 {
        spend(&configured(&registry, &format!("gone{number}")), 1);
    }
    assert_eq!(registry.sweep(Instant::now()), 5);
    assert_eq!(registry.all_quotas().len(), UNCONFIGURED_MAX + 1);
    assert_eq!(used(&old), 1, "one that is configured is never forgotten");
}

#[test]
fn a_wall_clock_that_was_set_while_the_process_ran_moves_nothing() {
    let before = registry(wall() - 86_400);
    spend(&configured(&before, "one"), 2);
    let file = collect(&before);
    let after = registry(wall());
    restore(&file, None, &after);
    assert_eq!(used(&configured(&after, "one")), 2);
    let before = registry(wall() + 86_400);
    spend(&configured(&before, "one"), 2);
    let file = collect(&before);
    let after = registry(wall() + 2 * 3_600);
    restore(&file, None, &after);
    assert_eq!(used(&configured(&after, "one")), 0, "two hours later");
}

#[test]
fn of_a_file_that_was_known_only_what_is_new_is_added() {
    let theirs = registry(wall());
    let one = configured(&theirs, "one");
    spend(&one, 3);
    let known = collect(&theirs);
    spend(&one, 2);
    spend(&configured(&theirs, "two"), 1);
    let later = collect(&theirs);
    let ours = registry(wall());
    restore(&known, None, &ours);
    let (one, two) = (configured(&ours, "one"), configured(&ours, "two"));
    spend(&one, 10);
    restore(&later, Some(&known), &ours);
    assert_eq!((used(&one), used(&two)), (15, 1));
}

#[test]
fn one_process_at_a_time_has_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let (one, two) = (Hold::of(&path), Hold::of(&path));
    assert!(matches!((&one, &two), (Hold::Ours(_), Hold::Others)));
    drop(one);
    assert!(matches!(Hold::of(&path), Hold::Ours(_)));
}

#[test]
fn a_save_that_hangs_is_given_up_and_the_file_taken_over_once_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let before = registry(wall());
    spend(&configured(&before, "one"), 2);
    file::write(&path, &collect(&before)).unwrap();
    // Nobody reads what is written there, so that the open does not return.
    let pipe = beside(&path, "new");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let state = Arc::new(StateFile::at(path.clone()));
    let after = Arc::new(registry(wall()));
    let one = configured(&after, "one");
    spend(&one, 1);
    let save = |patience| {
        let registry = Arc::clone(&after);
        state.in_time(patience, move |inner, path| inner.save(path, &registry))
    };
    let error = save(Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    // What the file had was used as well, though nothing can be written.
    while used(&one) < 3 {
        std::thread::yield_now();
    }
    drop(fs::File::open(&pipe).unwrap());
    fs::remove_file(&pipe).ok();
    while save(FILE_TIMEOUT).is_err() {}
    spend(&one, 1);
    save(FILE_TIMEOUT).unwrap();
    assert!(file::read(&path).unwrap() == Some(collect(&after)));
}

#[test]
fn a_missing_file_is_none_and_a_wrong_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    assert!(file::read(&path).unwrap().is_none());
    for (text, said) in [
        ("", "is not a state file"),
        ("{}", "is not a state file"),
        (r#"{"version":2,"quotas":{}}"#, "has version 2"),
    ] {
        fs::write(&path, text).unwrap();
        let error = file::read(&path).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    // What was written before the clock was told of.
    fs::write(&path, r#"{"version":1,"quotas":{}}"#).unwrap();
    assert_eq!(file::read(&path).unwrap(), Some(File::new(0)));
}

#[test]
fn a_file_that_cannot_be_written_is_not_called_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/state");
    let error = file::write(&path, &collect(&registry(wall()))).unwrap_err();
    assert_eq!(error.to_string(), "no such file or directory");
}
