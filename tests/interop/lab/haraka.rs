//! Haraka (from npm): takes every message; wants PROXY v1 from loopback if it is asked to.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::process::Process;
use super::{Client, Port, unpacked, wait_for};

/// Accepts every recipient and message, and says from whom.
const SINK: &str = "\
exports.hook_rcpt = (next) => next(OK)
exports.hook_queue = (next, connection) => {
    connection.loginfo(`message from ${connection.remote.ip}`)
    next(OK)
}
";

/// A running Haraka that wants a PROXY v1 header from loopback.
#[derive(Debug)]
pub(crate) struct Haraka {
    process: Process,
    port: Port,
    _folder: tempfile::TempDir,
}

impl Haraka {
    /// Starts it and waits until it listens; it greets nobody without a header.
    pub(crate) fn start() -> Self {
        let folder = super::folder("haraka");
        let port = Port::take();
        configure(folder.path(), &port);
        let mut command = Command::new(unpacked("haraka/node_modules/.bin/haraka"));
        command.arg("-c").arg(folder.path());
        let mut process = Process::start("haraka", command, &folder.path().join("output"));
        wait_for("Haraka to listen", || {
            process.assert_running();
            Client::dial(port.address()).ok()
        });
        Self {
            process,
            port,
            _folder: folder,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Waits for a line of the log with `text` in it.
    pub(crate) fn logged(&self, text: &str) -> String {
        wait_for(&format!("Haraka to log {text:?}"), || {
            self.process
                .output()
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        })
    }
}

/// The whole default configuration (a partial `connection.ini` makes Haraka crash), then ours.
fn configure(folder: &Path, port: &Port) {
    let config = folder.join("config");
    let plugins = folder.join("plugins");
    for path in [&config, &plugins] {
        std::fs::create_dir(path).expect("our folder can be written");
    }
    let defaults = unpacked("haraka/node_modules/Haraka/config");
    for file in std::fs::read_dir(defaults)
        .expect("Haraka brings its defaults")
        .flatten()
    {
        if file.path().is_file() {
            std::fs::copy(file.path(), config.join(file.file_name())).expect("a file is copied");
        }
    }
    let connection = std::fs::read_to_string(config.join("connection.ini"))
        .expect("Haraka brings connection.ini")
        .replace("hosts[] =\n", "hosts[] = 127.0.0.1\n");
    assert!(
        connection.contains("\nhosts[] = 127.0.0.1\n"),
        "connection.ini has another form now"
    );
    for (file, text) in [
        (config.join("connection.ini"), connection),
        (
            config.join("smtp.ini"),
            format!("listen={}\nnodes=0\n", port.address()),
        ),
        (config.join("plugins"), "sink\n".to_owned()),
        (plugins.join("sink.js"), SINK.to_owned()),
    ] {
        std::fs::write(file, text).expect("our folder can be written");
    }
}
