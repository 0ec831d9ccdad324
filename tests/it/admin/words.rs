//! What an operator reads: causes, marks, and the log of changes. With the built program.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::cli::{posthouse, stdout};

/// The program with a dead backend, a token, and its log in a pipe; killed with the test.
struct Service {
    child: Child,
    log: std::sync::mpsc::Receiver<String>,
    address: String,
    folder: tempfile::TempDir,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = whole::dead().to_string();
        let (listener, backend) = (whole::dead(), whole::dead());
        let file = folder.path().join("posthouse.toml");
        token_in(folder.path());
        let text = format!(
            "[admin]\nbind = \"{address}\"\ntoken_file = \"token\"\n\
             [listeners.mx]\nbind = [\"{listener}\"]\npool = \"mx\"\n\
             [pools.mx.health]\ninterval = \"1s\"\n\
             [pools.mx.backends]\none = {{ address = \"{backend}\", weight = 2 }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
            .args(["run", "-c"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (said, log) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        Self {
            child,
            log,
            address,
            folder,
        }
    }

    /// Reads the log until a line has all these parts.
    fn hear(&self, parts: &[&str]) -> String {
        let mut before = Vec::new();
        loop {
            let line = self.log.recv_timeout(whole::PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no {parts:?} in {before:#?}"));
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
            before.push(line);
        }
    }

    fn run(&self, token: Option<&str>, words: &[&str]) -> std::process::Output {
        let file = self.folder.path().join("shown");
        let mut words = words.to_vec();
        words.extend(["--admin", &self.address]);
        if let Some(token) = token {
            std::fs::write(&file, token).unwrap();
            words.extend(["--token-file", file.to_str().unwrap()]);
        }
        posthouse(&words)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn changes_are_logged_with_who_what_and_what_came_of_it() {
    let service = Service::start();
    service.hear(&[
        "backend.state",
        "to=down",
        "cause=\"connection refused (found by a probe)\"",
    ]);

    let drained = service.run(Some(TOKEN), &["backend", "mx/one", "drain"]);
    assert!(drained.status.success(), "{drained:?}");
    let line = service.hear(&["admin.changed"]);
    for part in [
        " info ",
        "who=127.0.0.1:",
        "by=token",
        "change=backend",
        "pool=mx",
        "backend=one",
        "state=drain",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let refused = service.run(Some("wr0ng"), &["backend", "mx/one", "weight", "7"]);
    assert!(!refused.status.success());
    let line = service.hear(&["admin.refused"]);
    for part in [
        " warn ",
        "who=127.0.0.1:",
        "change=backend",
        "backend=one",
        "status=401",
        "error=\"that is not the token\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("by=") && !line.contains("wr0ng"), "{line}");
    service.run(None, &["reload"]);
    service.hear(&["admin.refused", "change=reload", "status=401"]);
    service.run(Some(TOKEN), &["reload"]);
    let line = service.hear(&["admin.changed", "change=reload"]);
    assert!(!line.contains(TOKEN), "{line}");
    std::fs::write(service.folder.path().join("posthouse.toml"), "wrong").unwrap();
    service.run(Some(TOKEN), &["reload"]);
    service.hear(&[
        "admin.refused",
        "change=reload",
        "by=token",
        "status=422",
        "mistakes",
    ]);
    service.run(Some(TOKEN), &["backend", "mx", "failback"]);
    service.hear(&["admin.changed", "change=failback", "pool=mx"]);
    service.run(Some(TOKEN), &["backend", "mx/one", "weight", "auto"]);
    service.hear(&["admin.changed", "weight=configured"]);
}

#[test]
fn the_status_says_causes_in_words_and_marks_while_they_hold() {
    let service = Service::start();
    service.hear(&["backend.state", "to=down"]);
    let shown = || stdout(&service.run(None, &["status"]));
    let text = shown();
    assert!(
        text.contains("  connection refused (found by a probe)\n"),
        "{text}"
    );
    let set = |words: &[&str]| {
        let mut all = vec!["backend", "mx/one"];
        all.extend(words);
        let output = service.run(Some(TOKEN), &all);
        assert!(output.status.success(), "{output:?}");
    };
    set(&["drain"]);
    set(&["weight", "7"]);
    let text = shown();
    assert!(text.contains("  set by 127.0.0.1\n"), "{text}");
    assert!(
        text.contains("\n  one: weight 7 set by 127.0.0.1 "),
        "{text}"
    );
    assert!(text.contains("ago; 2 is configured\n"), "{text}");
    set(&["ready"]);
    set(&["weight", "2"]);
    let text = shown();
    assert!(!text.contains("set by"), "{text}");
    assert!(
        text.contains("  connection refused (found by a probe)\n"),
        "{text}"
    );
}
