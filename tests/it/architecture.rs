//! The house rules of the manual's architecture page, checked against the sources.
//!
//! A folder may use only rows above its own; the cores know no runtime, clock, socket or log; every
//! file says what it is for; no file grows beyond measure.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the house, top to bottom; folders of one row do not use each other unless listed.
const ROWS: [(&str, u8); 17] = [
    ("types", 0),
    ("smtp", 1),
    ("identity", 1),
    ("balance", 1),
    ("config", 2),
    ("metrics", 2),
    ("telemetry", 2),
    ("snapshot", 3),
    ("net", 4),
    ("session", 5),
    ("worker", 6),
    ("control", 7),
    ("admin", 8),
    ("lab", 8),
    ("cli", 9),
    ("app", 10),
    ("manual", 10),
];

/// Uses within a row that are meant: telemetry speaks of configuration and outcomes, the command
/// line starts the composition root.
const WITHIN_ROW: [(&str, &str); 3] = [
    ("telemetry", "config"),
    ("telemetry", "metrics"),
    ("config", "metrics"),
];

/// Uses against the grain that are meant, each with its reason.
const EXCEPTIONS: [(&str, &str); 1] = [
    // `run` and `demo` hand over to the composition root, which is the only other thing at the top.
    ("cli", "app"),
];

/// Folders a row may not use at all, although they are above it.
const NOT_USED: [(&str, &str); 8] = [
    ("net", "smtp"),
    ("net", "config"),
    ("net", "balance"),
    ("net", "snapshot"),
    ("net", "telemetry"),
    ("net", "metrics"),
    ("worker", "lab"),
    ("session", "control"),
];

/// Words a folder must not contain outside its tests and comments.
const BANNED: [(&str, &[&str]); 6] = [
    ("types", CORE),
    ("smtp", CORE),
    ("identity", CORE),
    ("balance", CORE),
    ("session", &["hyper", "std::fs"]),
    ("worker", &["hyper", "std::fs"]),
];

const CORE: &[&str] = &[
    "tokio",
    "Instant::now",
    "SystemTime::now",
    "TcpStream",
    "TcpListener",
    "tracing",
    "async fn",
    "println!",
    "HashMap",
    "HashSet",
    "thread_rng",
    "fastrand::u",
];

/// Lines of code (without tests) that a file may have.
const FILE_LINES_MAX: usize = 600;

struct Source {
    path: PathBuf,
    folder: String,
    text: String,
}

impl Source {
    /// The lines before the tests, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = self
            .path
            .file_name()
            .is_some_and(|name| name == "tests.rs" || name == "testing.rs");
        self.text
            .lines()
            .enumerate()
            .take_while(move |(_, line)| !is_tests && line.trim() != "#[cfg(test)]")
            .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 40, "the sources are where they are expected");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is text");
            let inner = path
                .strip_prefix(root)
                .expect("it was found below the root");
            let first = inner.components().next().expect("a file has a name");
            let folder = first
                .as_os_str()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned();
            found.push(Source {
                path: inner.to_owned(),
                folder,
                text,
            });
        }
    }
}

#[test]
fn a_folder_uses_only_rows_above_its_own() {
    let rows: BTreeMap<&str, u8> = ROWS.into_iter().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(&row) = rows.get(source.folder.as_str()) else {
            continue;
        };
        for (number, line) in source.code() {
            for used in line.split("crate::").skip(1) {
                let name: String = used
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let Some(&of) = rows.get(name.as_str()) else {
                    continue;
                };
                let pair = (source.folder.as_str(), name.as_str());
                let fine = name == source.folder
                    || of < row
                    || EXCEPTIONS.contains(&pair)
                    || (of == row && WITHIN_ROW.contains(&pair));
                if !fine || NOT_USED.contains(&pair) {
                    wrong.push(format!("{}:{number}: uses {name}", source.path.display()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "against the layers:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_folder_has_a_row() {
    let rows: BTreeMap<&str, u8> = ROWS.into_iter().collect();
    for source in sources() {
        let known = rows.contains_key(source.folder.as_str())
            || ["lib", "main", "build"].contains(&&*source.folder);
        assert!(known, "{} is in no row", source.path.display());
    }
}

#[test]
fn the_cores_know_no_runtime_clock_socket_or_log() {
    let banned: BTreeMap<&str, &[&str]> = BANNED.into_iter().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(words) = banned.get(source.folder.as_str()) else {
            continue;
        };
        for (number, line) in source.code() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "must not be there:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    for source in sources() {
        assert!(
            source.text.starts_with("//!"),
            "{} has no header",
            source.path.display()
        );
    }
}

#[test]
fn no_file_grows_beyond_measure() {
    for source in sources()
        .into_iter()
        .filter(|source| source.folder != "manual")
    {
        let lines = source
            .code()
            .filter(|(_, line)| !line.trim().is_empty())
            .count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines of code; split it",
            source.path.display()
        );
    }
}

#[test]
fn the_clock_is_read_in_few_places() {
    const READERS: [&str; 9] = [
        "net",
        "control",
        "admin",
        "lab",
        "cli",
        "app",
        "telemetry",
        "main",
        "snapshot",
    ];
    for source in sources() {
        for (number, line) in source.code() {
            assert!(
                !line.contains("Instant::now") || READERS.contains(&&*source.folder),
                "{}:{number} reads the clock",
                source.path.display()
            );
        }
    }
}

#[test]
fn nothing_speaks_of_the_place_it_was_made_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["README.md", "tests/all.sh", "tests/install.sh", ".ci/run"] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        for word in ["/root/", "/work/", "/home/"] {
            assert!(!text.contains(word), "{file} names {word}");
        }
    }
}
