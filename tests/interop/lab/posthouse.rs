//! Posthouse as an operator runs it: the built binary with a configuration file.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use super::process::Process;
use super::{PATIENCE, Port, wait_for};

/// Probes every 200 ms, so that a test sees a backend change while it watches.
pub(crate) const QUICK_PROBES: &str = "[pools.mx.health]\n\
     interval = \"200ms\"\n\
     fast_interval = \"100ms\"\n";

/// No probes: what a test sees is done by sessions alone.
pub(crate) const NO_PROBES: &str = "[pools.mx.health]\nprobe = false\n";

/// A configuration in the making: one pool `mx`, any number of listeners.
#[derive(Debug)]
pub(crate) struct Setup {
    listeners: Vec<Port>,
    admin: Port,
    text: String,
}

impl Setup {
    /// Two workers and an admin endpoint, no listener and no pool yet.
    pub(crate) fn new() -> Self {
        let admin = Port::take();
        let text = format!(
            "hostname = \"lb.test\"\n\
             workers = 2\n\
             [log]\n\
             format = \"json\"\n\
             [admin]\n\
             bind = \"{}\"\n",
            admin.address()
        );
        Self {
            listeners: Vec::new(),
            admin,
            text,
        }
    }

    /// One listener on loopback with further keys.
    pub(crate) fn listener(mut self, keys: &str) -> Self {
        let port = Port::take();
        let _ = write!(
            self.text,
            "[listeners.l{}]\nbind = [\"{}\"]\npool = \"mx\"\n{keys}\n",
            self.listeners.len(),
            port.address()
        );
        self.listeners.push(port);
        self
    }

    /// The pool: further keys (its own first, then tables such as `[pools.mx.health]`), and its
    /// backends, which are named `b0`, `b1` and so on.
    pub(crate) fn pool(mut self, keys: &str, backends: &[SocketAddr]) -> Self {
        let _ = write!(self.text, "[pools.mx]\n{keys}\n[pools.mx.backends]\n");
        for (number, address) in backends.iter().enumerate() {
            let _ = writeln!(self.text, "b{number} = {{ address = \"{address}\" }}");
        }
        self
    }

    /// Writes the file, which lives as long as the folder.
    pub(crate) fn write(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = super::folder("posthouse");
        let file = folder.path().join("posthouse.toml");
        std::fs::write(&file, &self.text).expect("our folder can be written");
        (folder, file)
    }

    /// Starts the balancer and waits until it says that it can take mail.
    pub(crate) fn start(self) -> Posthouse {
        let (folder, file) = self.write();
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthouse"));
        command.arg("run").arg("-c").arg(&file);
        let mut process = Process::start("posthouse", command, &folder.path().join("output"));
        let admin = self.admin.address();
        wait_for("posthouse to be ready", || {
            process.assert_running();
            fetch(admin, "/readyz").filter(|answer| answer.status == 200)
        });
        Posthouse {
            process,
            listeners: self.listeners,
            admin: self.admin,
            _folder: folder,
        }
    }
}

/// A running balancer.
#[derive(Debug)]
pub(crate) struct Posthouse {
    process: Process,
    listeners: Vec<Port>,
    admin: Port,
    _folder: tempfile::TempDir,
}

impl Posthouse {
    /// One listener in front of these backends, with further keys of the pool.
    pub(crate) fn in_front_of(backends: &[SocketAddr], pool: &str) -> Self {
        Setup::new().listener("").pool(pool, backends).start()
    }

    /// The same in mode "smtp".
    pub(crate) fn smtp(backends: &[SocketAddr], pool: &str) -> Self {
        let listener = "mode = \"smtp\"\n";
        Setup::new().listener(listener).pool(pool, backends).start()
    }

    /// Where the listener with this place in the list is.
    pub(crate) fn listener(&self, place: usize) -> SocketAddr {
        self.listeners[place].address()
    }

    /// Where the first listener is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listeners[0].address()
    }

    /// What the log says so far, one JSON object per line.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// Waits for a line of the log with all of `texts` in it.
    pub(crate) fn logged(&self, texts: &[&str]) -> String {
        wait_for(&format!("posthouse to log {texts:?}"), || {
            self.log()
                .lines()
                .find(|line| texts.iter().all(|text| line.contains(text)))
                .map(str::to_owned)
        })
    }

    /// `GET path` of the admin endpoint.
    pub(crate) fn admin(&self, path: &str) -> String {
        let answer = fetch(self.admin.address(), path).expect("the admin endpoint answers");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// What `/status` says of one backend of the pool `mx`.
    pub(crate) fn backend(&self, name: &str) -> serde_json::Value {
        let status: serde_json::Value =
            serde_json::from_str(&self.admin("/status")).expect("/status is JSON");
        find_named(&status["pools"], name)
            .unwrap_or_else(|| super::fail(&format!("no backend {name} in {status:#}")))
    }

    /// Waits until `/status` says this about a backend; the whole entry.
    pub(crate) fn backend_becomes(&self, name: &str, health: &str) -> serde_json::Value {
        wait_for(
            &format!("backend {name} to be {health}: {:#}", self.backend(name)),
            || {
                let backend = self.backend(name);
                backend
                    .as_object()?
                    .values()
                    .any(|value| value == health)
                    .then_some(backend)
            },
        )
    }
}

/// An entry with this name, wherever `/status` nests it.
fn find_named(value: &serde_json::Value, name: &str) -> Option<serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => {
            if map.get("name").is_some_and(|value| value == name) {
                return Some(value.clone());
            }
            map.values().find_map(|value| find_named(value, name))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|value| find_named(value, name)),
        _ => None,
    }
}

/// An answer of the admin endpoint.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What it says.
    pub(crate) body: String,
}

/// `GET path`; `None` while nobody answers.
pub(crate) fn fetch(server: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}

/// Runs the binary to its end.
pub(crate) fn posthouse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

/// Both streams of a finished run.
pub(crate) fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}
