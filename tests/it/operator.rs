//! The program in an operator's hands: README's commands with README's configuration, the running
//! process found through its file, and what `check` finds on the machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use posthouse::config::{ListenChecks, Obstacle};
use posthouse::lab::{At, Script, SinkHandle};

use crate::whole::{dead, sink};

/// A folder with a configuration, in which commands are run.
struct Desk {
    folder: tempfile::TempDir,
}

/// The program that runs, killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Desk {
    fn with(config: &str) -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        desk.write("posthouse.toml", config);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("NO_COLOR", "1")
            .env_remove("POSTHOUSE_CONFIG")
            .env_remove("POSTHOUSE_TOKEN");
        command
    }

    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        said(&self.command(arguments).output().unwrap())
    }

    /// Runs the balancer until it says that it is ready.
    fn run(&self, arguments: &[&str]) -> Running {
        let mut child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
        let running = Running(child);
        let ready = log.find(|line| line.as_ref().is_ok_and(|line| line.contains(" ready ")));
        assert!(ready.is_some(), "it ended before it was ready");
        // The log is read on, so that it is never in the way.
        std::thread::spawn(move || log.for_each(drop));
        running
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn config(at: SocketAddr, admin: &str) -> String {
    format!(
        "workers = 1\n[listeners.mx]\nbind = \"{at}\"\npool = \"mx\"\n\
         [pools.mx.health]\nprobe = false\n[pools.mx.backends]\n\
         mx1 = {{ address = \"127.0.0.1:9\" }}\n{admin}"
    )
}

/// The first configuration of the README and the commands below it.
fn readme() -> (String, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(path).unwrap();
    let part = text.split("## First configuration").nth(1).unwrap();
    let block = |kind: &str| -> String {
        let begin = format!("```{kind}\n");
        let rest = part.split(&begin).nth(1).unwrap();
        rest.split("\n```").next().unwrap().to_owned()
    };
    let commands = block("sh example");
    let commands = commands.lines().map(|line| {
        let command = line.split('#').next().unwrap_or_default();
        command.trim().to_owned()
    });
    let commands = commands.filter(|command| !command.is_empty());
    (block("toml"), commands.collect())
}

#[test]
fn the_commands_of_the_readme_work_with_the_configuration_of_the_readme() {
    let script = || {
        let refuses = Script::good().reply(At::Rcpt, "554 5.7.1 relay access denied");
        refuses.proxy_required()
    };
    let backends: Vec<SinkHandle> = (0..3).map(|_| sink("mx.test", script())).collect();
    let (mut text, commands) = readme();
    let desk = Desk::with("");
    let socket = desk.path("run/admin.sock");
    for (written, here) in [
        ("0.0.0.0:25", dead().to_string()),
        ("[::]:25", dead().to_string()),
        ("10.0.0.11:25", backends[0].address().to_string()),
        ("10.0.0.12:25", backends[1].address().to_string()),
        ("mx.site-b.example:25", backends[2].address().to_string()),
        ("127.0.0.1:8025", dead().to_string()),
        ("/run/posthouse/admin.sock", socket.display().to_string()),
    ] {
        assert!(text.contains(written), "{written} in\n{text}");
        text = text.replace(written, &here);
    }
    desk.write("posthouse.toml", &text);
    let mut running = None;
    for command in &commands {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words.remove(0), "posthouse", "{command}");
        if words.last() == Some(&"&") {
            words.pop();
            running = Some(desk.run(&words));
            continue;
        }
        let (code, said) = desk.ask(&words);
        assert_eq!(code, Some(0), "{command}:\n{said}");
    }
    assert!(running.is_some() && commands.len() >= 7, "{commands:?}");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn the_running_process_is_found_through_its_file_by_option_and_by_variable() {
    let desk = Desk::with("");
    let (http, socket) = (dead(), desk.path("run/admin.sock"));
    let admin = format!(
        "[admin]\nbind = [\"{http}\", \"unix:{}\"]\ntoken_file = \"token\"\n",
        socket.display()
    );
    desk.write("token", "s3cret\n");
    desk.write("posthouse.toml", &config(dead(), &admin));
    let running = desk.run(&["run", "-c", "posthouse.toml"]);
    let drain = ["backend", "mx/mx1", "drain"];
    let (code, said) = desk.ask(&[&drain[..], &["-c", "posthouse.toml"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let by_variable = desk
        .command(&drain)
        .env("POSTHOUSE_CONFIG", "posthouse.toml")
        .output();
    assert_eq!(by_variable.unwrap().status.code(), Some(0));

    // Without the socket the token of the file opens the other door.
    fs::remove_file(&socket).unwrap();
    let (code, said) = desk.ask(&["reload", "-c", "posthouse.toml"]);
    assert_eq!(code, Some(0), "{said}");
    fs::remove_file(desk.path("token")).unwrap();
    let (code, said) = desk.ask(&["reload", "-c", "posthouse.toml"]);
    assert_eq!(code, Some(2), "{said}");
    desk.write("token", "s3cret\n");

    // A file with mistakes still leads to the process, which says them.
    let broken = config(dead(), &admin).replace("pool = \"mx\"", "pool = \"mx\"\nmode = ");
    desk.write("posthouse.toml", &broken);
    let (code, said) = desk.ask(&["reload", "-c", "posthouse.toml"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not reloaded"), "{said}");

    drop(running);
    let (code, said) = desk.ask(&["status", "-c", "posthouse.toml"]);
    assert_eq!(code, Some(2), "{said}");
    for word in [
        &format!("nobody listens on unix:{}", socket.display()),
        &format!("nobody listens on {http}"),
        "is posthouse running with posthouse.toml?",
        "--admin",
    ] {
        assert!(said.contains(word), "{word} in {said}");
    }
    let (code, said) = desk.ask(&["status", "--admin", &http.to_string()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is this in its [admin] bind?"), "{said}");
}

#[test]
fn check_finds_what_run_would_find_on_this_machine() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = (taken.local_addr().unwrap(), taken);
    let here = dead();
    let admin = |keys: &str| format!("[admin]\nbind = \"127.0.0.1:0\"\n{keys}\n");
    let token = admin("token_file = \"token\"");
    let long = "x".repeat(5_000);
    let group = "[admin]\nbind = \"unix:/run/posthouse.sock\"\ngroup = \"no-such-group\"\n";
    for (text, file, code, says) in [
        (config(here, &token), None, 1, "token is not there"),
        (
            config(here, &token),
            Some(("\nsecret\n", 0o600)),
            1,
            "is empty",
        ),
        (
            config(here, &token),
            Some((long.as_str(), 0o600)),
            1,
            "it is larger than 4096 octets",
        ),
        (config(here, &token), Some(("secret\n", 0o600)), 0, ""),
        (
            config(here, &token),
            Some(("secret\n", 0o644)),
            0,
            "every user of this machine can read the token",
        ),
        (
            config(here, &admin("token_file = \".\"")),
            None,
            1,
            "it is a folder, not a regular file",
        ),
        (
            config(here, &admin("token_file = \"/run/credentials/none/token\"")),
            None,
            0,
            "LoadCredential",
        ),
        (
            format!("state_file = \"no/such/state\"\n{}", config(here, "")),
            None,
            0,
            "there is no folder ./no/such",
        ),
        (
            config(
                here,
                "[admin]\nbind = \"unix:/no/such/folder/admin.sock\"\n",
            ),
            None,
            0,
            "RuntimeDirectory",
        ),
        (
            config(here, "[admin]\nbind = \"unix:/etc/passwd\"\n"),
            None,
            1,
            "is not a socket",
        ),
        (config(here, group), None, 1, "no group \"no-such-group\""),
        (
            config(here, "[admin]\nbind = \"0.0.0.0:8025\"\n"),
            None,
            0,
            "can read every address and count",
        ),
        (config(taken.0, ""), None, 0, "is in use by "),
        (
            config("203.0.113.1:2525".parse().unwrap(), ""),
            None,
            0,
            "this host has no address 203.0.113.1",
        ),
    ] {
        let desk = Desk::with(&text);
        if let Some((token, mode)) = file {
            desk.write("token", token);
            let bits = fs::Permissions::from_mode(mode);
            fs::set_permissions(desk.path("token"), bits).unwrap();
        }
        let (found, said) = desk.ask(&["check", "./posthouse.toml"]);
        assert_eq!(found, Some(code), "{text}\n{said}");
        assert!(said.contains(says), "{says} in\n{said}");
        let is_silent = !said.contains("warning") && !said.contains("error");
        assert_eq!(is_silent, says.is_empty(), "{text}\n{said}");
    }
    // A file for another machine: what is missing on this one does not matter.
    let desk = Desk::with(&config(taken.0, &token));
    let (code, said) = desk.ask(&["check", "--file-only", "posthouse.toml"]);
    assert!(code == Some(0) && !said.contains("warning"), "{said}");
}

#[test]
fn check_warns_of_a_port_that_needs_a_privilege_the_user_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posthouse.toml");
    fs::write(&path, config("0.0.0.0:25".parse().unwrap(), "")).unwrap();
    let here = ListenChecks {
        holder: &|_| None,
        obstacle: &|address| (address.port() == 25).then_some(Obstacle::Privilege),
    };
    let loaded = posthouse::config::load_here(&path, &[], &here).expect("a warning is no mistake");
    let warning = loaded.warnings.to_string();
    for word in ["may not listen on port 25", "AmbientCapabilities", "setcap"] {
        assert!(warning.contains(word), "{word} in\n{warning}");
    }
}

#[test]
fn check_takes_the_file_once() {
    let desk = Desk::with(&config(dead(), ""));
    for named in [&["posthouse.toml"][..], &["-c", "posthouse.toml"]] {
        let (code, said) = desk.ask(&[&["check"], named].concat());
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = desk.ask(&["check", "posthouse.toml", "-c", "posthouse.toml"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = desk.ask(&["check"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("POSTHOUSE_CONFIG"), "{said}");
}
