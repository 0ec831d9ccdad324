//! smtp-server (from npm): the SMTP server of Node.js programs; takes and keeps every message.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::backend::{Backend, KeptFolder};
use super::process::Process;
use super::{Port, unpacked};

/// Each message is a file in `KEPT`, written before it is acknowledged. After `LIMIT` messages a
/// connection is told 421 at MAIL.
const PROGRAM: &str = "\
const fs = require('node:fs')
const { SMTPServer } = require('smtp-server')
const limit = Number(process.env.LIMIT)
const refusal = (code, text) => Object.assign(new Error(text), { responseCode: code })
let count = 0
new SMTPServer({
    name: 'smtp-server.test',
    disabledCommands: ['STARTTLS', 'AUTH'],
    authOptional: true,
    disableReverseLookup: true,
    onConnect(session, done) { console.log('sink: connection'); session.taken = 0; done() },
    onMailFrom(address, session, done) {
        done(session.taken < limit ? null : refusal(421, '4.7.0 too many messages'))
    },
    onRcptTo(address, session, done) {
        done(address.address.startsWith('refused@') ? refusal(550, '5.1.1 no such user') : null)
    },
    onData(stream, session, done) {
        const parts = []
        stream.on('data', (part) => parts.push(part))
        stream.on('end', () => {
            count += 1
            session.taken += 1
            const file = `${process.env.KEPT}/${process.pid}-${count}`
            fs.writeFileSync(`${file}.part`, Buffer.concat(parts))
            fs.renameSync(`${file}.part`, file)
            done()
        })
    },
}).on('error', (error) => console.log(`sink: ${error.message}`))
    .listen(Number(process.env.PORT), '127.0.0.1')
";

/// A running smtp-server.
#[derive(Debug)]
pub(crate) struct SmtpServer {
    process: Process,
    port: Port,
    kept: KeptFolder,
    messages_max: u32,
    folder: tempfile::TempDir,
}

impl SmtpServer {
    /// Starts it and waits for its greeting.
    pub(crate) fn start() -> Self {
        Self::with_messages_max(u32::MAX)
    }

    /// Starts one that takes so many messages on one connection.
    pub(crate) fn with_messages_max(messages_max: u32) -> Self {
        let folder = super::folder("smtp-server");
        let port = Port::take();
        let kept = KeptFolder::inside(folder.path());
        let process = launch(folder.path(), &kept, &port, messages_max);
        Self {
            process,
            port,
            kept,
            messages_max,
            folder,
        }
    }
}

impl Backend for SmtpServer {
    fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn connections(&self) -> usize {
        self.process.output().matches("sink: connection").count()
    }

    fn taken(&self) -> usize {
        self.kept.count()
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        self.kept.read()
    }

    fn restart(&mut self) {
        self.process.kill();
        self.process = launch(
            self.folder.path(),
            &self.kept,
            &self.port,
            self.messages_max,
        );
    }
}

fn launch(folder: &Path, kept: &KeptFolder, port: &Port, messages_max: u32) -> Process {
    let mut command = Command::new("node");
    command
        .args(["--eval", PROGRAM])
        .current_dir(unpacked("node-mail"))
        .env("PORT", port.number().to_string())
        .env("LIMIT", messages_max.to_string())
        .env("KEPT", kept.path());
    Process::start_greeting("smtp-server", command, &folder.join("output"), port)
}
