//! The demo is a promise in one command: nothing is lost while backends die.

use crate::cli::{posthouse, stderr, stdout};

#[test]
fn six_seconds_lose_no_session_while_a_backend_dies_and_comes_back() {
    let output = posthouse(&["demo", "--seconds", "6"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    assert!(
        text.contains("       0 sessions refused, or never greeted\n"),
        "{text}"
    );
    // What was cut and what was lost are not the same, and the last word agrees with the counts.
    let count = |words: &str| -> u64 {
        let line = text.lines().find(|line| line.contains(words));
        let first = line.and_then(|line| line.split_whitespace().next());
        first.and_then(|first| first.parse().ok()).expect(words)
    };
    let last = text.trim_end().lines().last().unwrap();
    match count("sessions cut by the kill") {
        0 => assert!(last.starts_with("No session was lost"), "{text}"),
        cut => assert!(
            last.contains(&format!("what was cut ({cut}) was sent again")),
            "{text}"
        ),
    }
    for name in ["alpha", "beta", "gamma"] {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("  {name} ")) && line.contains("messages"))
            .unwrap_or_else(|| panic!("no row for {name} in:\n{text}"));
        let got: u64 = row.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(got > 0, "{row}");
    }
    for event in [
        "we kill it",
        "connection refused",
        "we start it again",
        "up again",
    ] {
        assert!(text.contains(event), "{event} in:\n{text}");
    }
}

/// Promises 1 and 4: each acknowledged message is in exactly one backend though one dies while it
/// is being sent some.
#[test]
fn six_seconds_of_smtp_mode_lose_and_double_nothing_while_a_backend_dies_within_a_message() {
    let output = posthouse(&["demo", "--mode", "smtp", "--seconds", "6"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let fact = |words: &str| -> u64 {
        let line = text.lines().find(|line| line.ends_with(words));
        let line = line.unwrap_or_else(|| panic!("no {words:?} in:\n{text}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(fact("sessions refused, or never greeted"), 0);
    assert_eq!(fact("of them in no backend (compared by their numbers)"), 0);
    assert_eq!(fact("of them in two"), 0);
    assert!(fact("messages acknowledged") > 0, "{text}");
    assert!(fact("unseen by the client") > 0, "{text}");
    assert!(
        fact("dialled for all that") < fact("messages acknowledged") / 2,
        "{text}"
    );
    for event in [
        "we kill it in the middle of a message",
        "connection refused",
        "we start it again",
        "up again",
    ] {
        assert!(text.contains(event), "{event} in:\n{text}");
    }
}

#[test]
fn a_port_that_was_asked_for_is_refused_when_it_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = posthouse(&["demo", "--seconds", "1", "--port", &port]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains(&port) && text.contains("ss -ltnp"), "{text}");
}

#[test]
fn the_embedded_configuration_is_printed_and_good() {
    for mode in ["passthrough", "smtp"] {
        let output = posthouse(&["demo", "--print-config", "--mode", mode]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains(&format!("\nmode = \"{mode}\"\n")));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("demo.toml");
        std::fs::write(&file, &output.stdout).unwrap();
        let check = posthouse(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
        let said = stdout(&check);
        assert!(
            said.contains("1 listener") && said.contains("1 pool, 3 backends"),
            "{said}"
        );
    }
}

#[test]
fn ctrl_c_ends_the_demo_cleanly_with_a_summary() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["demo", "--clients", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let counted = |line: &String| line.starts_with("00:01 ");
    lines.by_ref().map(Result::unwrap).find(counted).unwrap();
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last = rest.last().unwrap();
    assert!(last.contains("was lost"), "{last}");
}
