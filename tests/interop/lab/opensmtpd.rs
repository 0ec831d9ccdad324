//! OpenSMTPD (unpacked): its queue, control socket and helpers have compiled-in paths, so each
//! instance runs in a mount namespace of its own with fresh ones.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::backend::{Backend, read_all, whole_files};
use super::process::Process;
use super::{Port, unpacked, unpacked_libraries, wait_for, wait_for_line};

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
    folder: tempfile::TempDir,
}

impl OpenSmtpd {
    /// Starts it and waits for its greeting.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with further lines of `smtpd.conf`.
    pub(crate) fn start_with(lines: &str) -> Self {
        let folder = super::folder("opensmtpd");
        let (plain, proxy) = (Port::take(), Port::take());
        let maildir = folder.path().join("mail");
        std::fs::create_dir(&maildir).expect("our folder can be written");
        // Deliveries are made by `nobody`.
        std::fs::set_permissions(&maildir, Permissions::from_mode(0o777))
            .expect("our own folder can be opened to others");
        let text = format!(
            "listen on 127.0.0.1 port {} hostname os.test\n\
             listen on 127.0.0.1 port {} hostname os.test proxy-v2\n\
             {lines}\
             action \"keep\" maildir \"{}\" virtual {{ \"@\" = \"nobody\" }}\n\
             match from any for rcpt-to \"refused@example.test\" reject\n\
             match from any for any action \"keep\"\n",
            plain.number(),
            proxy.number(),
            maildir.display()
        );
        std::fs::write(folder.path().join("smtpd.conf"), text).expect("our folder can be written");
        let process = launch(folder.path(), &plain);
        Self {
            process,
            plain,
            proxy,
            folder,
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
        wait_for_line("OpenSMTPD", text, || self.log())
    }
}

impl Backend for OpenSmtpd {
    fn address(&self) -> SocketAddr {
        self.plain.address()
    }

    fn connections(&self) -> usize {
        self.log().matches(" smtp connected address=").count()
    }

    fn taken(&self) -> usize {
        self.log().matches(" smtp message msgid=").count()
    }

    fn kept(&self) -> Vec<Vec<u8>> {
        let delivered = self.folder.path().join("mail/new");
        wait_for("OpenSMTPD to deliver what it took", || {
            let files = whole_files(&delivered);
            (files.len() >= self.taken()).then(|| read_all(&files))
        })
    }

    fn restart(&mut self) {
        // Its queue is in memory: what it has taken is delivered first.
        self.kept();
        self.process.kill();
        self.process = launch(self.folder.path(), &self.plain);
    }
}

fn launch(folder: &Path, plain: &Port) -> Process {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", START]);
    command
        .env("LAB", unpacked("opensmtpd"))
        .env("CONFIG", folder.join("smtpd.conf"))
        .env("LD_LIBRARY_PATH", unpacked_libraries("opensmtpd"));
    Process::start_greeting("opensmtpd", command, &folder.join("output"), plain)
}
