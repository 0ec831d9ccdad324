//! Tables: two files, and what a reload from one to the other does.

use std::io;
use std::path::Path;

use super::*;
use crate::config::keys::{self, Kind, SECTIONS};
use crate::config::parse;
use crate::config::reference::example_path;

const OLD: &str = r#"
[admin]
bind = "127.0.0.1:8025"
[listeners.mx]
bind = ["0.0.0.0:25", "[::]:25"]
pool = "mx"
[listeners.submission]
bind = "0.0.0.0:587"
pool = "relay"
[pools.mx.backends]
mx1 = { address = "10.0.0.11:25" }
mx2 = { address = "10.0.0.12:25", weight = 2 }
[pools.relay.backends]
r1 = { address = "relay.example:587" }
"#;

fn config(text: &str) -> Config {
    let read = |_: &Path| -> io::Result<String> { Ok("x = { address = \"10.9.9.9:9\" }".into()) };
    parse(text, Path::new("test.toml"), "host.example", &read)
        .unwrap_or_else(|errors| panic!("{errors}"))
        .config
}

/// The plan from `OLD` to `OLD` with one text replaced.
fn plan(from: &str, to: &str) -> Plan {
    assert!(OLD.contains(from), "{from:?} is not in the old file");
    diff(&config(OLD), &config(&OLD.replace(from, to)))
}

fn names(names: &[Arc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

fn bindings(bindings: &[Binding]) -> Vec<String> {
    bindings
        .iter()
        .map(|b| format!("{} {}", b.listener, b.address))
        .collect()
}

#[test]
fn the_same_configuration_changes_nothing() {
    let plan = diff(&config(OLD), &config(&format!("# a comment\n{OLD}")));
    assert_eq!(plan, Plan::default());
    assert!(plan.is_empty());
}

#[test]
fn addresses_are_bound_and_unbound_one_by_one() {
    let plan = plan("\"[::]:25\"", "\"[::]:2525\"");
    assert_eq!(bindings(&plan.bind), ["mx [::]:2525"]);
    assert_eq!(bindings(&plan.unbind), ["mx [::]:25"]);
    assert_eq!(names(&plan.listeners_changed), ["mx"]);
    assert!(plan.restart.is_empty() && plan.moved.is_empty());
    assert_eq!(
        plan.sentences,
        [
            "listener mx: [::]:2525 is bound",
            "listener mx: [::]:25 is closed, its sessions may end by themselves",
        ]
    );
}

#[test]
fn an_address_that_changes_its_listener_stays_bound() {
    let plan = plan("[listeners.submission]", "[listeners.msa]");
    assert_eq!(bindings(&plan.moved), ["msa 0.0.0.0:587"]);
    assert!(plan.bind.is_empty() && plan.unbind.is_empty());
    assert_eq!(names(&plan.listeners_added), ["msa"]);
    assert_eq!(names(&plan.listeners_removed), ["submission"]);
    let moved = "0.0.0.0:587 stays bound and moves from listener submission to msa";
    assert!(
        plan.sentences.iter().any(|sentence| sentence == moved),
        "{:?}",
        plan.sentences
    );
}

#[test]
fn backends_come_go_and_change() {
    let plan = plan(
        "mx1 = { address = \"10.0.0.11:25\" }\nmx2 = { address = \"10.0.0.12:25\", weight = 2 }",
        "mx2 = { address = \"10.0.0.12:25\", weight = 3, tier = 2 }\nmx3 = { address = \"m.example:25\" }",
    );
    let pair = |backend: &str| (Arc::from("mx"), Arc::from(backend));
    assert_eq!(plan.backends_added, [pair("mx3")]);
    assert_eq!(plan.backends_removed, [pair("mx1")]);
    assert_eq!(plan.backends_changed, [pair("mx2")]);
    assert_eq!(names(&plan.pools_changed), ["mx"]);
    assert_eq!(
        plan.sentences,
        [
            "pool mx: backend mx3 at m.example:25 is new",
            "pool mx: backend mx1 is gone, its sessions may end by themselves",
            "pools.mx.backends.mx2.weight: 2 → 3",
            "pools.mx.backends.mx2.tier: 1 → 2",
        ]
    );
}

#[test]
fn pools_come_and_go_without_a_word_about_each_backend() {
    let plan = plan(
        "[pools.relay.backends]",
        "[pools.out.backends]\no = { address = \"10.1.1.1:25\" }\n[pools.relay.backends]",
    );
    assert_eq!(names(&plan.pools_added), ["out"]);
    assert!(plan.backends_added.is_empty());
    assert_eq!(plan.sentences, ["pool out is new, with 1 backends"]);
    let back = diff(
        &config(&OLD.replace(
            "[pools.relay.backends]",
            "[pools.out.backends]\no = { address = \"10.1.1.1:25\" }\n[pools.relay.backends]",
        )),
        &config(OLD),
    );
    assert_eq!(names(&back.pools_removed), ["out"]);
    assert!(back.backends_removed.is_empty());
}

#[test]
fn what_needs_a_restart_says_so() {
    let rows = [
        (
            "[admin]",
            "workers = 2\n[admin]",
            "workers: one per core → 2: needs a restart",
        ),
        (
            "[admin]",
            "[log]\noutput = \"journald\"\n[admin]",
            "log.output: stdout → journald: needs a restart",
        ),
        (
            "127.0.0.1:8025",
            "127.0.0.1:8026",
            "admin.bind: 127.0.0.1:8025 → 127.0.0.1:8026: needs a restart",
        ),
        (
            "bind = \"127.0.0.1:8025\"",
            "bind = [\"127.0.0.1:8025\", \"unix:/run/a\"]\ngroup = \"adm\"",
            "admin.bind: 127.0.0.1:8025 → [127.0.0.1:8025, unix:/run/a (0660 adm)]: needs a restart",
        ),
        (
            "[admin]\nbind = \"127.0.0.1:8025\"",
            "",
            "the table [admin] was removed: needs a restart",
        ),
        (
            "pool = \"mx\"",
            "pool = \"mx\"\nbacklog = 9",
            "listeners.mx.backlog: 4096 → 9: needs a restart",
        ),
        (
            "[admin]",
            "state_file = \"/s\"\n[admin]",
            "state_file: none → /s: needs a restart",
        ),
    ];
    for (from, to, sentence) in rows {
        let plan = plan(from, to);
        assert_eq!(plan.sentences, [sentence]);
        assert_eq!(plan.restart.len(), 1);
    }
}

#[test]
fn settings_of_mode_smtp_take_effect_at_once_and_are_said_as_the_file_writes_them() {
    let new = OLD
        .replace("[admin]", "replay_memory = \"1GB\"\n[admin]")
        .replace("weight = 2", "quota = [\"100/m\", \"9/2d recipients\"]")
        .replace(
            "pool = \"relay\"",
            "pool = \"relay\"\nmode = \"smtp\"\n\
             smtp = { announce = [\"dsn\", \"SIZE\"], replay_max = 1000001 }",
        );
    let plan = diff(&config(OLD), &config(&new));
    assert!(plan.restart.is_empty(), "{:?}", plan.restart);
    assert_eq!(names(&plan.listeners_changed), ["submission"]);
    assert_eq!(
        plan.sentences,
        [
            "replay_memory: 256MiB → 1GB",
            "listeners.submission.mode: passthrough → smtp",
            "listeners.submission.smtp.announce: what every backend has → [SIZE, DSN]",
            "listeners.submission.smtp.replay_max: 32MiB → 1000001",
            "pools.mx.backends.mx2.weight: 2 → 1",
            "pools.mx.backends.mx2.quota: [] → [100/m messages, 9/2d recipients]",
        ]
    );
}

#[test]
fn a_socket_option_of_new_addresses_only_needs_no_restart() {
    let plan = plan(
        "bind = \"0.0.0.0:587\"",
        "bind = \"0.0.0.0:588\"\nbacklog = 9",
    );
    assert!(plan.restart.is_empty(), "{:?}", plan.restart);
    assert_eq!(names(&plan.listeners_changed), ["submission"]);
}

/// Another value than the default, where one can be made from the table of keys.
fn other_value(key: &keys::Key) -> Option<String> {
    match (key.kind, key.default) {
        (Kind::Flag, keys::Default::Value("true")) => Some("false".to_owned()),
        (Kind::Flag, _) => Some("true".to_owned()),
        // It must not be more than `max_idle`.
        (Kind::Count { .. }, _) if key.name == "min_idle" => Some("1".to_owned()),
        (Kind::Count { min, max, .. }, keys::Default::Value(value)) => {
            Some(if value == min.to_string() { max } else { min }.to_string())
        }
        (Kind::Count { max, .. } | Kind::Size { max, .. }, _) => Some(max.to_string()),
        (Kind::Percent { .. }, _) => Some("\"77%\"".to_owned()),
        (Kind::Word(words), keys::Default::Value(value)) => {
            let mut quoted = words.iter().map(|word| format!("{word:?}"));
            quoted.find(|word| word != value && word != "\"mail\"")
        }
        (Kind::Duration { .. }, _) if key.name == "max_time" => Some("\"1h\"".to_owned()),
        (Kind::Duration { .. }, _) => Some("\"2s\"".to_owned()),
        (Kind::List { .. }, keys::Default::Value(_)) => {
            let value = match key.name {
                "source" => "192.0.2.7",
                "quota" => "100/s",
                "hosts" => "mon.example",
                _ => "192.0.2.0/24",
            };
            Some(format!("[\"{value}\"]"))
        }
        (_, keys::Default::Absent { example, .. }) => Some(example.to_owned()),
        (Kind::Text("a reply"), keys::Default::Value(value)) => {
            Some(format!("{} indeed\"", value.trim_end_matches('"')))
        }
        (Kind::Text(_), keys::Default::Value(value)) => Some(value.replace("{hostname}", "other")),
        (_, _) => None,
    }
}

#[test]
fn every_key_that_changes_is_named_in_a_sentence() {
    let mut named = 0;
    for section in SECTIONS {
        let table = example_path(section.path);
        for key in section.keys {
            // These need another key beside them to load at all, or have tests of their own above.
            let skip = [
                "mode",
                "group",
                "bind",
                "pool",
                "address",
                "proxy_protocol",
                "greeting",
                "fast_interval",
            ];
            let is_reply = matches!(key.kind, Kind::Text("a reply"));
            let skipped = skip.contains(&key.name) && !is_reply;
            let Some(value) = other_value(key).filter(|_| !skipped) else {
                continue;
            };
            let path = if table.is_empty() {
                key.name.to_owned()
            } else {
                format!("{table}.{}", key.name)
            };
            let dotted = "admin.bind = \"127.0.0.1:8025\"\n\
                          listeners.mx.bind = \"[::]:25\"\n\
                          listeners.mx.pool = \"mx\"\n\
                          listeners.relay.bind = \"[::]:2525\"\n\
                          listeners.relay.mode = \"smtp\"\n\
                          listeners.relay.pool = \"relay\"\n\
                          pools.relay.backends.relay1.address = \"10.0.0.21:25\"\n\
                          pools.mx.backends.mx1.address = \"10.0.0.11:25\"\n";
            let new = config(&format!("{dotted}{path} = {value}\n"));
            let plan = diff(&config(dotted), &new);
            let name = format!("{path}: ");
            let found = plan
                .sentences
                .iter()
                .filter(|sentence| sentence.starts_with(&name))
                .count();
            assert_eq!(found, 1, "{path} = {value}: {:?}", plan.sentences);
            named += 1;
        }
    }
    assert!(named >= 130, "only {named} keys were tried");
}
