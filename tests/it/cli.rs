//! The command line, with the built binary: words, reports and exit codes.

use std::process::{Command, Output};

pub(crate) fn posthouse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(arguments)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn version_names_release_build_and_machine() {
    let output = posthouse(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(
        text.starts_with(concat!("posthouse ", env!("CARGO_PKG_VERSION"), " (")),
        "{text}"
    );
    assert!(text.contains("build, x86_64-linux") || !cfg!(target_arch = "x86_64"));
}

#[test]
fn wrong_usage_exits_2_and_says_how_to_ask() {
    for arguments in [&["sink"][..], &["walk"], &["sink", "--listen", "nowhere"]] {
        let output = posthouse(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = stderr(&output);
        assert!(
            text.contains("--help") || text.contains("ADDRESS:PORT"),
            "{text}"
        );
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = posthouse(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("sink"), "{shell}");
    }
}

#[test]
fn a_sink_ends_by_itself_and_reports_in_json() {
    let output = posthouse(&["sink", "--listen", "0", "--json", "--seconds", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["counts"]["messages"], 0);
    assert!(
        report["listen"][0]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
}

#[test]
fn a_taken_port_is_named_with_a_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = posthouse(&["sink", "--listen", &address]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains(&address) && text.contains("ss -ltnp"),
        "{text}"
    );
}
