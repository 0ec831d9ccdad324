//! Every file of `config/` loads without a mistake or a warning, and `reference.toml` is the text
//! the program renders.

use std::fs;
use std::path::{Path, PathBuf};

use posthouse::config::model::Mode;
use posthouse::config::{self, Color, Loaded};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn samples() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder()).expect("the folder is part of the repository");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    files
}

fn load(path: &Path) -> Loaded {
    match config::load_with_warnings(path) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{}", errors.render(Color::Off)),
    }
}

#[test]
fn every_sample_loads_without_a_mistake_or_a_warning() {
    let samples = samples();
    assert!(samples.len() >= 11, "samples are gone: {samples:?}");
    for path in samples {
        let loaded = load(&path);
        let warnings = loaded.warnings.render(Color::Off);
        assert!(
            loaded.warnings.is_empty(),
            "{}:\n{warnings}",
            path.display()
        );
        assert_eq!(loaded.config.files[0], path);
    }
}

#[test]
fn every_sample_begins_with_a_comment_that_says_what_it_is_for() {
    for path in samples() {
        let text = fs::read_to_string(&path).expect("a sample is text");
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("# ") && first.len() > 30,
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_backends_file_sample_reads_both_tables() {
    let config = load(&folder().join("backends-file.toml")).config;
    let names: Vec<&str> = config.pools["mx"]
        .backends
        .keys()
        .map(|name| &**name)
        .collect();
    assert_eq!(names, ["fixed", "mx1", "mx2", "mx3"]);
    let files = [
        folder().join("backends-file.toml"),
        folder().join("backends/mx.toml"),
    ];
    assert_eq!(config.files, files);
}

#[test]
fn the_samples_of_mode_smtp_keep_their_quotas_over_restarts_and_spill() {
    for name in ["smtp-transactions.toml", "providers.toml"] {
        let config = load(&folder().join(name)).config;
        let modes = config.listeners.values().map(|listener| listener.mode);
        assert!(modes.eq([Mode::Smtp]), "{name}");
        assert!(config.state_file.is_some(), "{name}");
        for pool in config.pools.values() {
            assert!(pool.spill_when_full, "{name}");
            let last = pool.backends.values().max_by_key(|backend| backend.tier);
            let last = last.expect("a pool has backends");
            assert!(last.tier.value() == 2 && last.quota.len() == 2, "{name}");
        }
    }
}

#[test]
fn the_reference_in_the_repository_is_the_rendered_one() {
    let path = folder().join("reference.toml");
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == config::reference(),
        "config/reference.toml is not what the program renders; \
         run: posthouse config-reference > config/reference.toml"
    );
}

#[test]
fn every_configuration_of_the_readme_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README is there");
    let blocks: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .collect();
    assert!(!blocks.is_empty(), "the README shows a configuration");
    for text in blocks {
        let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let loaded = config::parse(text, Path::new("README.md"), "mx.example", &none);
        let loaded = loaded.unwrap_or_else(|e| panic!("{}", e.render(Color::Off)));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
