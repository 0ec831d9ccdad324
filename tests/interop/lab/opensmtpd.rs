//! OpenSMTPD (unpacked): its queue, control socket and helpers have compiled-in paths, so each
//! instance runs in a mount namespace of its own with fresh ones.

use std::net::SocketAddr;
use std::process::Command;

use super::process::Process;
use super::{Client, Port, unpacked, unpacked_libraries, wait_for};

/// Mounts a private queue, `/run` and helper folder, then becomes smtpd.
const START: &str = r#"
mount -t tmpfs -o mode=711 tmpfs /var/spool/smtpd &&
mount -t tmpfs -o mode=755 tmpfs /run &&
mount --bind "$LAB/usr/libexec/opensmtpd" /usr/libexec/opensmtpd &&
exec "$LAB/usr/sbin/smtpd" -d -f "$CONFIG"
"#;

/// A running OpenSMTPD with one plain port and one that wants PROXY v2.
#[derive(Debug)]
pub(crate) struct OpenSmtpd {
    process: Process,
    plain: Port,
    proxy: Port,
    _folder: tempfile::TempDir,
}

impl OpenSmtpd {
    /// Starts it and waits for its greeting.
    pub(crate) fn start() -> Self {
        let folder = super::folder("opensmtpd");
        let (plain, proxy) = (Port::take(), Port::take());
        let config = folder.path().join("smtpd.conf");
        let text = format!(
            "listen on 127.0.0.1 port {} hostname os.test\n\
             listen on 127.0.0.1 port {} hostname os.test proxy-v2\n\
             action \"sink\" mda \"cat >/dev/null\" virtual {{ \"@\" = \"nobody\" }}\n\
             match from any for any action \"sink\"\n",
            plain.number(),
            proxy.number()
        );
        std::fs::write(&config, text).expect("our folder can be written");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START]);
        command
            .env("LAB", unpacked("opensmtpd"))
            .env("CONFIG", &config)
            .env("LD_LIBRARY_PATH", unpacked_libraries("opensmtpd"));
        let mut process = Process::start("opensmtpd", command, &folder.path().join("output"));
        wait_for("OpenSMTPD to greet", || {
            process.assert_running();
            Client::greeted_if_up(plain.address()).map(Client::quit)
        });
        Self {
            process,
            plain,
            proxy,
            _folder: folder,
        }
    }

    /// The port without PROXY.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.plain.address()
    }

    /// The port that wants PROXY v2.
    pub(crate) fn proxy(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.process.output()
    }

    /// Waits for a line of the log with `text` in it.
    pub(crate) fn logged(&self, text: &str) -> String {
        wait_for(&format!("OpenSMTPD to log {text:?}"), || {
            self.log()
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        })
    }
}
