//! The table of keys says what the reader does: every default, every end of every range.

use std::io;
use std::path::Path;

use super::*;
use crate::config::model::{Backend, BackendAddress, Config, Listener, Mode, Pool};
use crate::config::reference::example_path;
use crate::config::{Color, ConfigErrors, Loaded, parse, reference};

const HOST: &str = "host.example";

/// The least that loads; `admin` is there too, so that every table can be reached.
const LEAST: &str = "\
    admin.bind = [\"127.0.0.1:8025\", \"unix:/run/posthouse/admin.sock\"]\n\
    listeners.mx.bind = [\"0.0.0.0:25\", \"[::]:25\"]\n\
    listeners.mx.pool = \"mx\"\n\
    listeners.relay.bind = [\"0.0.0.0:2525\", \"[::]:2525\"]\n\
    listeners.relay.mode = \"smtp\"\n\
    listeners.relay.pool = \"relay\"\n\
    pools.relay.backends.relay1.address = \"10.0.0.21:25\"\n\
    pools.mx.backends.mx1.address = \"10.0.0.11:25\"\n";

fn read(text: &str) -> Result<Loaded, ConfigErrors> {
    let backends_file =
        |_: &Path| -> io::Result<String> { Ok("x = { address = \"[::1]:9\" }".into()) };
    parse(text, Path::new("test.toml"), HOST, &backends_file)
}

/// The least that loads, with one key more (or another value for a key it has).
fn with_key(section: &Section, key: &Key, value: &str) -> String {
    let table = example_path(section.path);
    let path = if table.is_empty() {
        key.name.to_owned()
    } else {
        format!("{table}.{}", key.name)
    };
    let own = format!("{path} =");
    let others = LEAST.lines().filter(|line| !line.starts_with(&own));
    let lines: Vec<&str> = others.collect();
    let text = format!("{}\n{own} {value}\n", lines.join("\n"));
    text
}

/// What is said about the value of this key itself.
fn about(section: &Section, key: &Key, value: &str) -> Vec<String> {
    let text = with_key(section, key, value);
    let line = text.lines().count();
    let errors = match read(&text) {
        Ok(loaded) => loaded.warnings,
        Err(errors) => errors,
    };
    let own = errors
        .mistakes()
        .iter()
        .filter(|mistake| mistake.line == line);
    own.map(|mistake| mistake.message.clone()).collect()
}

fn all_keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

fn expected_defaults() -> Config {
    let mut config = Config::for_host(HOST);
    let bind = ["0.0.0.0:25", "[::]:25"].map(|text| text.parse().expect("an address"));
    config
        .listeners
        .insert("mx".into(), Listener::new(bind.to_vec(), "mx", HOST));
    let bind = ["0.0.0.0:2525", "[::]:2525"].map(|text| text.parse().expect("an address"));
    let mut relay = Listener::new(bind.to_vec(), "relay", HOST);
    relay.mode = Mode::Smtp;
    config.listeners.insert("relay".into(), relay);
    for (pool, backend, address) in [
        ("mx", "mx1", "10.0.0.11:25"),
        ("relay", "relay1", "10.0.0.21:25"),
    ] {
        let mut settings = Pool::for_host(HOST);
        let address = BackendAddress::Literal(address.parse().expect("an address"));
        settings
            .backends
            .insert(backend.into(), Backend::at(address));
        config.pools.insert(pool.into(), settings);
    }
    config.files = vec!["test.toml".into()];
    config
}

#[test]
fn the_reference_loads_and_its_defaults_are_the_models() {
    let loaded = read(&reference()).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(
        loaded.warnings.is_empty(),
        "{}",
        loaded.warnings.render(Color::Off)
    );
    let mut config = loaded.config;
    assert!(config.admin.take().is_some());
    assert_eq!(config, expected_defaults());
}

#[test]
fn each_default_written_out_changes_nothing() {
    let without = read(LEAST).unwrap_or_else(|errors| panic!("{errors}"));
    for (section, key) in all_keys() {
        if let Default::Value(value) = key.default {
            let with = read(&with_key(section, key, value)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(with.config, without.config, "{}.{}", section.path, key.name);
        }
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let reference = reference();
    for (section, key) in all_keys() {
        let written = match key.default {
            Default::Value(value) => format!("\n{} = {value}\n", key.name),
            Default::Required { example } => format!("\n{} = {example}\n", key.name),
            Default::Absent { example, .. } => format!("\n#{} = {example}\n", key.name),
        };
        assert!(
            reference.contains(&written),
            "{}.{}",
            section.path,
            key.name
        );
        assert!(
            !key.why.is_empty(),
            "{}.{} has no reason",
            section.path,
            key.name
        );
    }
    let long = reference.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None);
}

#[test]
fn every_example_is_understood() {
    for (section, key) in all_keys() {
        let (Default::Absent { example, .. } | Default::Required { example }) = key.default else {
            continue;
        };
        let said = about(section, key, example);
        // These need another key beside them, as the fixtures of the mistakes show.
        let needs_more = matches!(key.name, "probe_recipient");
        assert!(
            said.is_empty() || needs_more,
            "{}.{}: {said:?}",
            section.path,
            key.name
        );
        let without = read(LEAST).expect("it loads").config;
        if let Ok(with) = read(&with_key(section, key, example)) {
            let same = matches!(key.default, Default::Required { .. });
            assert_eq!(
                with.config == without,
                same,
                "{}.{}",
                section.path,
                key.name
            );
        }
    }
}

#[test]
fn both_ends_of_every_range_are_taken_and_the_next_value_is_refused() {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).expect("short");
    for (section, key) in all_keys() {
        let (inside, outside) = match key.kind {
            Kind::Count { min, max, .. } => {
                let below = min
                    .checked_sub(1)
                    .map_or("-1".to_owned(), |n| n.to_string());
                (
                    [min.to_string(), max.to_string()],
                    [below, (max + 1).to_string()],
                )
            }
            Kind::Duration { min, max } => {
                let (min, max) = (millis(min), millis(max));
                let below = min
                    .checked_sub(1)
                    .map_or("\"-1s\"".to_owned(), |n| format!("\"{n}ms\""));
                (
                    [format!("\"{min}ms\""), format!("\"{max}ms\"")],
                    [below, format!("\"{}ms\"", max + 1)],
                )
            }
            Kind::Size { min, max } => {
                let below = min
                    .checked_sub(1)
                    .map_or("-1".to_owned(), |n| n.to_string());
                (
                    [min.to_string(), max.to_string()],
                    [below, (max + 1).to_string()],
                )
            }
            Kind::Percent { min } => {
                let below = min
                    .checked_sub(1)
                    .map_or("\"-1%\"".to_owned(), |n| format!("\"{n}%\""));
                (
                    [format!("\"{min}%\""), "\"100%\"".to_owned()],
                    [below, "\"101%\"".to_owned()],
                )
            }
            Kind::Flag | Kind::Word(_) | Kind::Text(_) | Kind::List { .. } => continue,
        };
        let refused = |value: &str| {
            let said = about(section, key, value);
            said.iter().any(|message| {
                ["outside", "the least here", "is not a"]
                    .iter()
                    .any(|part| message.contains(part))
            })
        };
        for value in inside {
            assert!(
                !refused(&value),
                "{}.{} refuses {value}",
                section.path,
                key.name
            );
        }
        for value in outside {
            assert!(
                refused(&value),
                "{}.{} takes {value}",
                section.path,
                key.name
            );
        }
    }
}

#[test]
fn every_word_is_taken_and_another_is_refused() {
    for (section, key) in all_keys() {
        let Kind::Word(words) = key.kind else {
            continue;
        };
        let refused = |word: &str| {
            let said = about(section, key, &format!("{word:?}"));
            said.iter()
                .any(|message| message.contains("not known") || message.contains("not available"))
        };
        for word in words {
            assert!(
                !refused(word),
                "{}.{} refuses {word}",
                section.path,
                key.name
            );
        }
        assert!(refused("other"), "{}.{}", section.path, key.name);
    }
}

#[test]
fn a_value_of_another_type_is_refused_by_every_key() {
    for (section, key) in all_keys() {
        let wrong = if matches!(key.kind, Kind::Flag) {
            "\"true\""
        } else {
            "true"
        };
        let said = about(section, key, wrong);
        assert!(
            said.iter().any(|message| message.starts_with("expected ")),
            "{}.{}: {said:?}",
            section.path,
            key.name
        );
        assert!(
            !about(section, key, "1979-05-27").is_empty(),
            "{}.{}",
            section.path,
            key.name
        );
    }
}

#[test]
fn every_table_inside_another_is_described() {
    for section in SECTIONS {
        for table in section.tables {
            let inner = match (section.path, *table) {
                ("", named @ ("listeners" | "pools")) => format!("{named}.NAME"),
                ("", table) => table.to_owned(),
                (path, "backends") => format!("{path}.backends.NAME"),
                (path, table) => format!("{path}.{table}"),
            };
            assert!(
                SECTIONS.iter().any(|section| section.path == inner),
                "{inner}"
            );
        }
    }
}
