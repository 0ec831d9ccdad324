//! Each file of `config_bad/` fails with exactly the text beside it (`.expected`), so that a change
//! of any message is seen. After a change on purpose: `POSTHOUSE_BLESS=1 cargo nextest run
//! config_mistakes` writes the texts anew; read them before committing.

use std::fs;
use std::path::{Path, PathBuf};

use posthouse::config::{self, Color, ConfigErrors, Severity};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/config_bad")
}

/// Loads a fixture under its bare name, so that messages hold no path of this machine.
fn mistakes(name: &str) -> ConfigErrors {
    let text = fs::read_to_string(folder().join(name)).expect("the fixture is there");
    let read = |path: &Path| fs::read_to_string(folder().join(path));
    match config::parse(&text, Path::new(name), "mx.example.org", &read) {
        Ok(loaded) => loaded.warnings,
        Err(errors) => errors,
    }
}

fn compare(name: &str) -> ConfigErrors {
    let errors = mistakes(name);
    let rendered = errors.render(Color::Off);
    let beside = folder().join(name).with_extension("expected");
    if std::env::var_os("POSTHOUSE_BLESS").is_some() {
        fs::write(&beside, &rendered).expect("the fixture folder can be written");
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    assert!(
        rendered == expected,
        "{name}: expected\n{expected}\nfound\n{rendered}"
    );
    errors
}

#[test]
fn rule_m5_an_address_of_this_host_is_refused_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("posthouse.toml");
    let own = ["192.0.2.2", "fd00::2"].map(|ip| ip.parse().expect("an address"));
    let mistakes = |bind: &str, more: &str, backend: &str| {
        let text = format!(
            "hostname = \"mx.example.org\"\n[listeners.mx]\nbind = \"{bind}\"\n{more}\npool = \"mx\"\n\
             [pools.mx.backends]\nmx1 = {{ address = \"{backend}\" }}\n"
        );
        fs::write(&path, text).expect("the folder can be written");
        match config::load_on(&path, &own) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.mistakes().to_vec(),
        }
    };
    for (bind, backend) in [
        ("0.0.0.0:25", "192.0.2.2:25"),
        ("0.0.0.0:25", "127.0.0.9:25"),
        ("[::]:25", "[fd00::2]:25"),
    ] {
        let found = mistakes(bind, "", backend);
        assert_eq!(found.len(), 1, "{bind} {backend}: {found:?}");
        assert_eq!((found[0].line, found[0].severity), (7, Severity::Error));
        let help = found[0].help.as_deref().unwrap_or_default();
        assert!(help.contains("bind the addresses"), "{help}");
    }
    for (bind, more, backend) in [
        ("0.0.0.0:25", "", "192.0.2.2:26"),
        ("0.0.0.0:25", "", "192.0.2.3:25"),
        ("[::]:25", "", "192.0.2.2:25"),
        ("192.0.2.1:25", "", "192.0.2.2:25"),
        // A socket that is bound to an interface does not hear its own host.
        ("0.0.0.0:25", "interface = \"eth0\"", "192.0.2.2:25"),
    ] {
        let found = mistakes(bind, more, backend);
        assert_eq!(found, [], "{bind} {backend}");
    }
}

#[test]
fn words_and_values_of_other_programs_are_told_what_is_written_here() {
    let errors = compare("foreign.toml");
    let helpless = errors.mistakes().iter().find(|one| one.help.is_none());
    assert_eq!(helpless, None);
}

fn count(errors: &ConfigErrors, severity: Severity) -> usize {
    let mistakes = errors.mistakes().iter();
    mistakes
        .filter(|mistake| mistake.severity == severity)
        .count()
}

#[test]
fn many_mistakes_of_every_kind_are_all_found_at_once() {
    let errors = compare("many.toml");
    assert!(count(&errors, Severity::Error) >= 30);
    assert!(
        errors
            .mistakes()
            .is_sorted_by_key(|mistake| mistake.span.start)
    );
}

#[test]
fn mistakes_of_syntax_do_not_hide_the_others() {
    let errors = compare("syntax.toml");
    let messages: Vec<&str> = errors
        .mistakes()
        .iter()
        .map(|m| m.message.as_str())
        .collect();
    assert!(messages.iter().any(|message| message.contains("\"robin\"")));
    let presumed =
        |message: &&&str| message.contains("` is missing") || message.contains("no pool");
    assert_eq!(messages.iter().find(presumed), None);
}

#[test]
fn addresses_that_meet_or_lead_back_to_us_are_refused() {
    compare("addresses.toml");
    compare("family.toml");
}

#[test]
fn replies_that_break_the_protocol_are_refused() {
    compare("replies.toml");
}

#[test]
fn rule_r2_words_that_break_the_protocol_are_refused() {
    compare("smtp-replies.toml");
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    compare("contradictions.toml");
}

#[test]
fn what_must_be_there_and_is_not_is_named() {
    compare("missing.toml");
    compare("empty.toml");
}

#[test]
fn odd_settings_are_warnings_and_do_not_stop_the_load() {
    let errors = compare("warnings.toml");
    assert_eq!(count(&errors, Severity::Error), 0);
    assert!(count(&errors, Severity::Warning) >= 10);
}

/// Rules S5, S14, E1, N4, K1: ranges; rule F1: what is kept.
#[test]
fn mistakes_in_mode_smtp_are_all_found_at_once() {
    let errors = compare("smtp.toml");
    assert!(count(&errors, Severity::Error) >= 30);
    assert_eq!(count(&errors, Severity::Warning), 0);
    // Without probes nothing needs to be deep.
    let depth = |m: &&config::Mistake| m.path == "pools.other.health.depth";
    assert_eq!(errors.mistakes().iter().find(depth), None);
}

#[test]
fn the_state_file_is_none_that_is_read() {
    let text = "state_file = \"STATE\"\nadmin = { bind = \"127.0.0.1:8025\", token_file = \"a/token\" }\n\
                listeners.mx = { bind = \"[::]:25\", pool = \"mx\" }\n\
                pools.mx = { backends_file = \"mx.toml\" }\n";
    let read = |_: &Path| Ok("mx1 = { address = \"10.0.0.11:25\" }".to_owned());
    let load = |state: &str| {
        let text = text.replace("STATE", state);
        config::parse(&text, Path::new("etc/main.toml"), "mx.example.org", &read)
    };
    for state in ["main.toml", "mx.toml", "./mx.toml", "a/token"] {
        let errors = load(state).expect_err(state);
        assert_eq!(count(&errors, Severity::Error), 1, "{state}");
        assert_eq!(
            (errors.mistakes()[0].line, &*errors.mistakes()[0].path),
            (1, "state_file")
        );
    }
    let config = load("state").expect("a file of its own").config;
    assert_eq!(config.state_file.as_deref(), Some(Path::new("etc/state")));
}

#[test]
fn odd_settings_of_mode_smtp_are_warnings_and_do_not_stop_the_load() {
    let errors = compare("smtp-warnings.toml");
    assert_eq!(count(&errors, Severity::Error), 0);
    assert!(count(&errors, Severity::Warning) >= 20);
}

#[test]
fn mistakes_in_a_backends_file_point_into_that_file() {
    let errors = compare("backends-file.toml");
    let inside: Vec<(usize, &str)> = errors
        .mistakes()
        .iter()
        .filter(|mistake| mistake.file == Path::new("backends/broken.toml"))
        .map(|mistake| (mistake.line, mistake.path.as_str()))
        .collect();
    assert!(inside.contains(&(2, "mx2.adress")), "{inside:?}");
    assert!(inside.contains(&(3, "mx3.weight")), "{inside:?}");
}

#[test]
fn every_fixture_has_a_test() {
    let own = include_str!("config_mistakes.rs");
    for entry in fs::read_dir(folder()).expect("the folder is there") {
        let name = entry.expect("readable").file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".toml") {
            assert!(
                own.contains(&format!("compare(\"{name}\")")),
                "{name} has no test"
            );
        }
    }
}

#[test]
fn a_missing_file_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    let errors = config::load(&folder.path().join("absent.toml")).expect_err("it is not there");
    let [mistake] = errors.mistakes() else {
        panic!("one mistake, not {}", errors.mistakes().len());
    };
    assert!(mistake.message.contains("cannot read"), "{mistake}");
    assert!(
        mistake
            .help
            .as_deref()
            .is_some_and(|help| help.contains("path")),
        "{mistake}"
    );
}

#[test]
fn a_file_that_is_no_text_is_one_mistake() {
    let folder = tempfile::tempdir().expect("a folder of our own");
    let path = folder.path().join("latin1.toml");
    fs::write(&path, b"hostname = \"m\xfcller\"").expect("the folder can be written");
    let errors = config::load(&path).expect_err("it is no UTF-8");
    assert!(errors.render(Color::Off).contains("save the file as UTF-8"));
    let errors = config::load(folder.path()).expect_err("it is a folder");
    assert_eq!(errors.mistakes().len(), 1);
}

#[test]
fn colour_adds_escapes_and_nothing_else() {
    let errors = mistakes("many.toml");
    let (plain, colored) = (errors.render(Color::Off), errors.render(Color::On));
    assert!(!plain.contains('\u{1b}') && colored.contains("\u{1b}["));
    let mut stripped = String::new();
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        stripped.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    stripped.push_str(rest);
    assert_eq!(stripped, plain);
}

#[test]
fn a_mistake_serialises_with_its_place() {
    let errors = mistakes("many.toml");
    let json = serde_json::to_value(&errors.mistakes()[0]).expect("plain data");
    assert_eq!(json["path"], "wrkers");
    assert_eq!(json["file"], "many.toml");
    assert_eq!(
        (json["line"].as_u64(), json["column"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(json["severity"], "error");
    assert_eq!(json["help"], "did you mean `workers`?");
}

#[test]
fn beyond_the_limit_mistakes_are_counted_but_not_kept() {
    let lines: Vec<String> = (0..2 * config::MISTAKES_MAX)
        .map(|n| format!("zz{n} = 1"))
        .collect();
    let lines = lines.join("\n");
    let read = |_: &Path| Ok(String::new());
    let errors =
        config::parse(&lines, Path::new("zz.toml"), "mx", &read).expect_err("unknown keys");
    assert_eq!(errors.mistakes().len(), config::MISTAKES_MAX);
    let last = errors.render(Color::Off).lines().last().map(str::to_owned);
    assert_eq!(
        last.as_deref(),
        Some("500 mistakes, and 501 more that are not shown")
    );
}
