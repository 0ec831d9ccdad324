//! The command line, with the built binary: words, reports and exit codes.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use posthouse::lab::{At, Script, Sink, SinkHandle, SinkPlan, body_hash};

use crate::harness::dead;

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

fn sink(script: Script) -> SinkHandle {
    Sink::spawn_thread(SinkPlan::with(script)).unwrap()
}

/// A configuration with these lines for backends, on a port that is free.
fn config(pool: &str, backends: &[String]) -> (tempfile::TempDir, String) {
    config_of("", pool, backends)
}

/// The same with these lines for the listener.
fn config_of(listener: &str, pool: &str, backends: &[String]) -> (tempfile::TempDir, String) {
    let address = dead();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[listeners.mx]\nbind = [\"{address}\"]\npool = \"mx\"\n{listener}\n\
         [pools.mx]\n{pool}\n[pools.mx.health]\ngreeting_timeout = \"2s\"\n\
         [pools.mx.backends]\n{}\n",
        backends.join("\n")
    );
    let file = folder.path().join("posthouse.toml");
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

fn backend(name: &str, sink: &SinkHandle) -> String {
    format!("{name} = {{ address = \"{}\" }}", sink.address())
}

const COMMANDS: [&str; 12] = [
    "run",
    "check",
    "probe",
    "status",
    "backend",
    "reload",
    "sink",
    "demo",
    "config-reference",
    "completions",
    "man",
    "version",
];

#[test]
fn version_names_release_commit_build_and_machine() {
    for word in ["--version", "version"] {
        let output = posthouse(&[word]);
        assert_eq!(output.status.code(), Some(0));
        let text = stdout(&output);
        let begin = concat!("posthouse ", env!("CARGO_PKG_VERSION"), " (commit ");
        let rest = text.strip_prefix(begin).unwrap_or_else(|| panic!("{text}"));
        let (commit, _) = rest.split_once(',').unwrap();
        let is_hash = commit.len() == 12 && commit.bytes().all(|c| c.is_ascii_hexdigit());
        assert!(is_hash || commit == "unknown", "{text}");
        assert!(text.contains(std::env::consts::ARCH), "{text}");
    }
}

#[test]
fn help_is_a_command_and_knows_the_others() {
    let all = stdout(&posthouse(&["help"]));
    for command in COMMANDS {
        assert!(
            all.contains(&format!("\n  {command} ")),
            "{command} in\n{all}"
        );
    }
    let output = posthouse(&["help", "reload"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("it has mistakes, which are shown"));
}

#[test]
fn the_help_of_every_command_lists_its_exit_codes() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let output = posthouse(&[command, flag]);
            assert_eq!(output.status.code(), Some(0), "{command} {flag}");
            let text = stdout(&output);
            assert!(text.contains("Exit codes"), "{command} {flag}:\n{text}");
        }
    }
    let text = stdout(&posthouse(&["--help"]));
    assert!(
        text.contains("Exit codes") && text.contains("Examples"),
        "{text}"
    );
}

#[test]
fn the_manual_page_holds_every_command_and_the_exit_codes() {
    let output = posthouse(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    let page = stdout(&output);
    assert!(page.contains(".TH posthouse 1"), "{}", &page[..200]);
    for command in COMMANDS {
        let heading = format!(".SH \"POSTHOUSE {}\"", command.to_uppercase());
        assert!(page.contains(&heading), "{heading}");
    }
    assert!(page.contains("Exit codes"));
}

#[test]
fn wrong_usage_exits_2_and_says_how_to_ask() {
    for arguments in [&["sink"][..], &["walk"], &["sink", "--listen", "nowhere"]] {
        let output = posthouse(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}");
    }
    let output = posthouse(&["sink", "--listen", "0", "--fault", "banner=421"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("is not a place for a fault"), "{text}");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = posthouse(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = stdout(&output);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn the_reference_configuration_is_printed_and_loads() {
    let output = posthouse(&["config-reference"]);
    assert_eq!(output.status.code(), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("reference.toml");
    std::fs::write(&file, &output.stdout).unwrap();
    let check = posthouse(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(0), "{}", stderr(&check));
}

#[test]
fn check_shows_every_mistake_at_once_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    let text = "[listeners.mx]\nbind = [\"127.0.0.1:99999\"]\npool = \"mx\"\nmod = \"passthrough\"\n\
                [pools.mx]\nbalance = \"least-conections\"\n[pools.mx.backends]\n\
                a = { address = \"10.0.0.1:25\", weight = 0 }\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let output = posthouse(&["check", "-c", path]);
    assert_eq!(output.status.code(), Some(1));
    let shown = stderr(&output);
    for part in [
        "99999",
        "mod = \"passthrough\"",
        "least-connections",
        "weight = 0",
        "^",
        "4 mistakes",
    ] {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    let output = posthouse(&["check", "-c", path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["mistakes"].as_array().unwrap().len(), 4);
    // What cannot be checked cannot be run either, with the same words.
    let run = posthouse(&["run", "-c", path]);
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(stderr(&run), shown);
}

#[test]
fn a_missing_file_is_named_with_a_remedy() {
    for command in ["check", "run"] {
        let output = posthouse(&[command, "-c", "/nowhere/posthouse.toml"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let text = stderr(&output);
        assert!(text.contains("/nowhere/posthouse.toml"), "{text}");
        assert!(text.contains("check the path"), "{text}");
    }
}

#[test]
fn run_names_a_taken_port_and_exits_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("posthouse.toml");
    let text = format!(
        "[listeners.mx]\nbind = [\"{address}\"]\npool = \"mx\"\n\
         [pools.mx.backends]\na = {{ address = \"127.0.0.1:9\" }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let output = posthouse(&["run", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(text.contains("ss "), "{text}");
}

#[test]
fn a_taken_port_of_a_sink_is_named_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = posthouse(&["sink", "--listen", &address]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains(&address) && text.contains("ss -ltnp"),
        "{text}"
    );
}

#[test]
fn a_probe_grades_each_fault_with_its_word_and_exit_code() {
    let wait = Duration::from_secs(30);
    let table = [
        (Script::good(), &[][..], 0, "SMTP OK - sink.test ESMTP"),
        (
            Script::good(),
            &["--depth", "connect"],
            0,
            "SMTP OK - connected",
        ),
        (Script::good(), &["--warn", "0ms"], 1, "SMTP WARNING - slow"),
        (
            Script::good(),
            &["--crit", "0ms"],
            2,
            "SMTP CRITICAL - slow",
        ),
        (
            Script::good(),
            &["--depth", "starttls"],
            2,
            "SMTP CRITICAL - starttls: ",
        ),
        (
            Script::good(),
            &["--depth", "mail", "--recipient", "a@example.com"],
            0,
            "SMTP OK - ",
        ),
        (
            Script::good().reply(At::Rcpt, "550 5.1.1 no"),
            &["--depth", "mail", "--recipient", "a@example.com"],
            2,
            "SMTP CRITICAL - mail: 550 5.1.1 no",
        ),
        (
            Script::greeting("421 4.3.2 busy"),
            &[],
            1,
            "SMTP WARNING - 421 4.3.2 busy",
        ),
        (
            Script::greeting("554 5.7.1 go away"),
            &[],
            2,
            "SMTP CRITICAL - greeting: 554 5.7.1 go away",
        ),
        (
            Script::silent(),
            &["--greeting-timeout", "100ms"],
            2,
            "SMTP CRITICAL - greeting: timeout",
        ),
        (
            Script::good().delay(At::Ehlo, wait),
            &["--timeout", "1s", "--greeting-timeout", "10s"],
            2,
            "SMTP CRITICAL - ehlo: timeout",
        ),
        (
            Script::good().close_at(At::Greeting),
            &[],
            2,
            "SMTP CRITICAL - greeting: ",
        ),
        (
            Script::good().reset_at(At::Ehlo),
            &[],
            2,
            "SMTP CRITICAL - ehlo: ",
        ),
        (
            Script::good().proxy_required(),
            &["--proxy", "v2"],
            0,
            "SMTP OK - ",
        ),
        (
            Script::good().proxy_required(),
            &["--proxy", "v1"],
            0,
            "SMTP OK - ",
        ),
        (
            Script::good(),
            &["--proxy", "v2"],
            2,
            "SMTP CRITICAL - ehlo: 500",
        ),
    ];
    for (script, flags, code, begin) in table {
        let sink = sink(script.clone());
        let address = sink.address().to_string();
        let output = posthouse(&[&["probe", &address], flags].concat());
        let text = stdout(&output);
        assert!(text.starts_with(begin), "{flags:?}: {text}");
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let (_, data) = text.split_once(" | ").unwrap();
        let time = data.strip_prefix("time=").and_then(|it| it.split_once('s'));
        let seconds: f64 = time.expect("how long it took").0.parse().unwrap();
        assert!(seconds > 0.0, "{data}");
    }
}

#[test]
fn a_probe_that_cannot_begin_is_unknown() {
    let output = posthouse(&["probe", "no-such-host.invalid"]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(stdout(&output).starts_with("SMTP UNKNOWN - cannot look up"));
    let output = posthouse(&["probe", "127.0.0.1:25", "--depth", "deep"]);
    assert_eq!(output.status.code(), Some(3));
    let output = posthouse(&["probe", &dead().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    assert!(
        text.starts_with("SMTP CRITICAL - connect: connection refused"),
        "{text}"
    );
}

#[test]
fn check_live_shows_what_every_backend_says() {
    let good = sink(Script::good().reply(At::Rcpt, "554 5.7.1 relay access denied"));
    let relay = sink(Script::good());
    let silent = sink(Script::silent());
    let full = sink(Script::greeting("421 4.3.2 busy"));
    let backends = [
        backend("a-good", &good),
        backend("b-relay", &relay),
        backend("c-silent", &silent),
        backend("d-full", &full),
    ];
    let (_folder, path) = config("", &backends);
    let output = posthouse(&["check", "-c", &path, "--live"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stdout(&output);
    let row = |name: &str| {
        let found = text.lines().find(|line| line.contains(name));
        found.unwrap_or_else(|| panic!("{name} in:\n{text}"))
    };
    assert!(
        row("a-good").contains("yes") && row("a-good").contains("refused"),
        "{text}"
    );
    assert!(row("b-relay").contains("OPEN"), "{text}");
    assert!(row("c-silent").contains(" no "), "{text}");
    assert!(row("d-full").contains(" full "), "{text}");
    let below = |word: &str| {
        let head = text.lines().find(|line| line.starts_with("KEYWORDS OF"));
        let at = head.and_then(|head| head.find(word)).expect(word);
        let rows = text
            .lines()
            .skip_while(|line| !line.starts_with("KEYWORDS OF"));
        let row = rows.skip(1).find(|line| line.starts_with("mx/a-good"));
        let cell = row.and_then(|row| row.get(at..)).unwrap_or_default();
        cell.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    for (word, offered) in [
        ("STARTTLS", "-"),
        ("PIPELINING", "yes"),
        ("AUTH", "-"),
        ("SIZE", "52428800"),
    ] {
        assert_eq!(below(word), offered, "{word} in\n{text}");
    }
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{text}");
    assert!(text.contains("2 of 4 addresses need attention"), "{text}");
    assert_eq!(good.counts().messages + relay.counts().messages, 0);

    let (_folder, path) = config("", &[backend("a-good", &good)]);
    let output = posthouse(&["check", "-c", &path, "--live", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["backends"][0]["relay"], "refused");
    assert_eq!(report["backends"][0]["usable"], true);
}

#[test]
fn check_live_says_what_smtp_mode_announces_and_who_keeps_it_from_more_e3() {
    let with = |keywords: &[&str]| {
        let script = Script::good().capabilities(keywords.iter().copied());
        sink(script.reply(At::Rcpt, "554 5.7.1 relay access denied"))
    };
    let all = with(&[
        "PIPELINING",
        "SIZE 5000",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "CHUNKING",
    ]);
    let old = with(&["SIZE 1000", "SMTPUTF8", "CHUNKING", "XCLIENT NAME"]);
    let away = with(&["SIZE 5"]);
    let backends = [
        backend("a-all", &all),
        backend("b-old", &old),
        format!(
            "c-away = {{ address = \"{}\", state = \"drain\" }}",
            away.address()
        ),
    ];
    let (_folder, path) = config_of("mode = \"smtp\"", "", &backends);
    let output = posthouse(&["check", "-c", &path, "--live"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    let old = format!("b-old {}", old.address());
    for line in [
        "listener mx announces in front of pool mx: PIPELINING, SIZE 1000, CHUNKING, LIMITS RCPTMAX=1000",
        &format!("    8BITMIME is not announced: {old} lacks it"),
        &format!("    SMTPUTF8 is not announced: it needs 8BITMIME, which {old} lacks"),
        &format!("    DSN is not announced: {old} lacks it"),
        &format!("    the smallest SIZE is that of {old}: 1000; others take up to 5000"),
    ] {
        assert!(
            text.lines().any(|known| known == line),
            "{line}\nin:\n{text}"
        );
    }

    let silent = sink(Script::silent());
    let backends = [backend("a-all", &all), backend("b-silent", &silent)];
    let pinned = "mode = \"smtp\"\n[listeners.mx.smtp]\nannounce = [\"SIZE\", \"DSN\", \"ENHANCEDSTATUSCODES\"]";
    for (listener, announced, until_known) in [
        (
            "mode = \"smtp\"",
            &[
                "PIPELINING",
                "SIZE 5000",
                "8BITMIME",
                "SMTPUTF8",
                "DSN",
                "CHUNKING",
                "LIMITS RCPTMAX=1000",
            ][..],
            Some(&["PIPELINING", "SIZE 5000", "LIMITS RCPTMAX=1000"]),
        ),
        (pinned, &["SIZE 5000", "ENHANCEDSTATUSCODES", "DSN"], None),
    ] {
        let (_folder, path) = config_of(listener, "", &backends);
        let output = posthouse(&["check", "-c", &path, "--live", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        let offer = &report["extensions"][0];
        assert_eq!(offer["announced"], serde_json::json!(announced));
        assert_eq!(
            offer["unknown"],
            serde_json::json!([format!("b-silent {}", silent.address())])
        );
        let until = offer.get("until_known").cloned();
        assert_eq!(until, until_known.map(|lines| serde_json::json!(lines)));
        if listener == pinned {
            let missing = &offer["missing"][0];
            assert_eq!(missing["keyword"], "ENHANCEDSTATUSCODES");
            assert_eq!(missing["announced"], true);
            assert_eq!(
                missing["lacked_by"],
                serde_json::json!([format!("a-all {}", all.address())])
            );
        }
    }
}

/// A relay has to relay for us; what matters is for whom we do.
#[test]
fn check_live_takes_a_relay_for_known_clients_for_good_d11() {
    let relay = sink(Script::good());
    let elsewhere =
        "mode = \"smtp\"\nproxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1\"]";
    for (listener, code, word, remedy) in [
        ("mode = \"smtp\"", 0, "accepted", None),
        (
            &format!("{elsewhere}\nallow = [\"192.0.2.0/24\"]"),
            0,
            "accepted",
            None,
        ),
        (elsewhere, 1, "OPEN", Some("with \"allow\" at listener mx")),
        (
            &format!("{elsewhere}\nallow = [\"192.0.2.0/24\", \"0.0.0.0/0\"]"),
            1,
            "OPEN",
            Some("with \"allow\" at listener mx"),
        ),
        ("", 1, "OPEN", Some("identity = \"proxy-v2\"")),
        ("allow = [\"192.0.2.0/24\"]", 0, "accepted", None),
    ] {
        let (_folder, path) = config_of(listener, "", &[backend("relay", &relay)]);
        let output = posthouse(&["check", "-c", &path, "--live"]);
        let text = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{listener}: {text}");
        let row = text.lines().find(|line| line.starts_with("mx/relay "));
        assert!(
            row.is_some_and(|row| row.trim_end().ends_with(word)),
            "{text}"
        );
        for known in ["with \"allow\" at", "identity = \"proxy-v2\""] {
            let said = remedy.is_some_and(|remedy| remedy.contains(known));
            assert_eq!(text.contains(known), said, "{listener}: {text}");
        }
    }
}

#[test]
fn check_live_tells_who_understands_the_proxy_header() {
    let understands = sink(Script::good().proxy_required());
    let misreads = sink(Script::good());
    let backends = [
        backend("a-understands", &understands),
        backend("b-misreads", &misreads),
    ];
    let (_folder, path) = config("identity = \"proxy-v2\"", &backends);
    let output = posthouse(&["check", "-c", &path, "--live", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["backends"][0]["proxy"], "accepted");
    assert_eq!(report["backends"][1]["proxy"], "mismatch");
    assert_eq!(report["backends"][1]["usable"], false);
}

/// A sink as a program, until it ends: what became of the letters, its exit code, its report.
fn run_sink(args: &[&str], letters: u64) -> (Vec<bool>, Option<i32>, serde_json::Value) {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["sink", "--listen", "0", "--json"])
        .args(args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut words = BufReader::new(child.stderr.take().unwrap());
    words.read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("listening on ").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let taken = runtime.block_on(async {
        let mut taken = Vec::new();
        for number in 1..=letters {
            let letter = posthouse::lab::Letter::numbered(number);
            taken.push(letter.send(address.parse().unwrap()).await.is_ok());
        }
        taken
    });
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["listen"][0], address);
    (taken, output.status.code(), report)
}

#[test]
fn a_sink_ends_by_itself_and_reports_what_it_took_in_json() {
    let args = ["--messages", "2", "--fault", "mail=delay:1ms"];
    let (taken, code, report) = run_sink(&args, 2);
    assert_eq!((taken, code), (vec![true, true], Some(0)));
    assert_eq!(report["counts"]["messages"], 2);
    assert_eq!(report["counts"]["recipients"], 2);
    assert_eq!(report["counts"]["faults"], 2);
    assert_eq!(report["messages"][1]["subject"], "letter 2");
    assert_eq!(report["messages"][1]["message_id"], "<2@client.test>");
    assert_eq!(report["messages"][0]["from"], "sender@client.test");
    let hash = body_hash(&posthouse::lab::Letter::numbered(1).content);
    assert_eq!(report["messages"][0]["hash"], format!("{hash:016x}"));
}

#[test]
fn a_sink_that_dies_as_it_was_told_reports_what_it_had_taken() {
    let (taken, code, report) = run_sink(&["--fault", "taken=die"], 1);
    assert_eq!((taken, code), (vec![false], Some(0)));
    assert_eq!(report["counts"]["deaths"], 1);
    assert_eq!(report["messages"][0]["message_id"], "<1@client.test>");
}

#[test]
fn run_balances_until_sigterm_and_exits_0() {
    use std::io::{BufRead, BufReader};
    let good = sink(Script::good());
    let dead = sink(Script::greeting("421 4.3.2 busy"));
    let (_folder, path) = config(
        "balance = \"first\"",
        &[backend("a-dead", &dead), backend("b-good", &good)],
    );
    let text = std::fs::read_to_string(&path).unwrap();
    let address = text.split('"').nth(1).unwrap().to_owned();
    let mut child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["run", "-c", &path])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_ready = |line: &String| line.contains(" ready ");
    let first = log.by_ref().map(Result::unwrap).find(is_ready).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let sent = runtime.block_on(async {
        let letter = posthouse::lab::Letter::numbered(1);
        letter.send(address.parse().unwrap()).await
    });
    assert!(sent.is_ok(), "{sent:?} after {first}");
    assert_eq!(good.counts().messages, 1);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let rest: Vec<String> = log.map(Result::unwrap).collect();
    assert!(
        rest.iter()
            .any(|line| line.contains("completed") && line.contains("b-good")),
        "{first}\n{}",
        rest.join("\n")
    );
}
