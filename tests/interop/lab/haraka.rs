//! Haraka (from npm): takes and keeps every message; wants PROXY v1 from loopback if it is asked to.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::backend::{Backend, KeptFolder};
use super::process::Process;
use super::{Client, Port, unpacked, wait_for_line};

/// Accepts every message and every recipient but `refused@…`, and says from whom. Each message is a
/// file in `KEPT`, written before it is acknowledged.
const SINK: &str = "\
const fs = require('node:fs')
let count = 0
exports.hook_connect = (next, connection) => {
    connection.loginfo(`sink: connection from ${connection.remote.ip}`)
    next()
}
exports.hook_rcpt = (next, connection, [recipient]) =>
    recipient.user === 'refused' ? next(DENY, 'no such user') : next(OK)
exports.hook_queue = (next, connection) => {
    connection.transaction.message_stream.get_data((message) => {
        count += 1
        const file = `${process.env.KEPT}/${process.pid}-${count}`
        fs.writeFileSync(`${file}.part`, message)
        fs.renameSync(`${file}.part`, file)
        connection.loginfo(`message from ${connection.remote.ip}`)
        next(OK)
    })
}
";

/// Whether clients must send a PROXY v1 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    Off,
    V1,
}

/// A running Haraka.
#[derive(Debug)]
pub(crate) struct Haraka {
    process: Process,
    port: Port,
    kept: KeptFolder,
    proxy: Proxy,
    folder: tempfile::TempDir,
}

impl Haraka {
    /// Starts one that wants a PROXY v1 header from loopback.
    pub(crate) fn start() -> Self {
        Self::start_with(Proxy::V1)
    }

    /// Starts one that wants no header.
    pub(crate) fn plain() -> Self {
        Self::start_with(Proxy::Off)
    }

    /// Starts it and waits until it greets, or listens if it greets nobody without a header.
    fn start_with(proxy: Proxy) -> Self {
        let folder = super::folder("haraka");
        let port = Port::take();
        let kept = KeptFolder::inside(folder.path());
        configure(folder.path(), &port, proxy);
        let process = launch(folder.path(), &kept, &port, proxy);
        Self {
            process,
            port,
            kept,
            proxy,
            folder,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Waits for a line of the log with `text` in it.
    pub(crate) fn logged(&self, text: &str) -> String {
        wait_for_line("Haraka", text, || self.process.output())
    }
}

impl Backend for Haraka {
    fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn connections(&self) -> usize {
        self.process
            .output()
            .matches("sink: connection from")
            .count()
    }

    fn taken(&self) -> usize {
        self.kept.count()
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        self.kept.read()
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.folder.path(), &self.kept, &self.port, self.proxy);
    }
}

fn launch(folder: &Path, kept: &KeptFolder, port: &Port, proxy: Proxy) -> Process {
    let mut command = Command::new(unpacked("haraka/node_modules/.bin/haraka"));
    command.arg("-c").arg(folder);
    command.env("KEPT", kept.path());
    let output = folder.join("output");
    match proxy {
        Proxy::Off => Process::start_greeting("haraka", command, &output, port),
        Proxy::V1 => Process::start_until("haraka", command, &output, || {
            Client::dial(port.address()).ok().map(drop)
        }),
    }
}

/// The whole default configuration (a partial `connection.ini` makes Haraka crash), then ours.
fn configure(folder: &Path, port: &Port, proxy: Proxy) {
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
    let mut connection = std::fs::read_to_string(config.join("connection.ini"))
        .expect("Haraka brings connection.ini");
    if proxy == Proxy::V1 {
        connection = connection.replace("hosts[] =\n", "hosts[] = 127.0.0.1\n");
        assert!(
            connection.contains("\nhosts[] = 127.0.0.1\n"),
            "connection.ini has another form now"
        );
    }
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
