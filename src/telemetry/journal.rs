//! systemd's journal by its native protocol: one datagram per entry on a Unix socket.
//!
//! The one socket of this layer, std's own. When the journal goes away, entries are written to
//! standard error instead, which is said once per outage, and the socket is tried again at most
//! once per second. <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::types::in_words;

/// Where systemd listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The way to the journal.
pub(super) struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    lost_at: Option<Instant>,
    instead: Box<dyn Write + Send>,
}

impl Journal {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn open(path: &Path, instead: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            socket: Some(connect(path)?),
            lost_at: None,
            instead,
        })
    }

    /// Sends every entry of a batch, or writes it to where it goes instead.
    ///
    /// # Errors
    /// Neither was possible.
    pub(super) fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let mut rest = batch;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (entry, next) = behind.split_at(length.min(behind.len()));
            rest = next;
            self.entry(entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &[u8]) -> io::Result<()> {
        if self.lost_at.is_some_and(|at| at.elapsed() >= RETRY_AFTER) {
            self.socket = connect(&self.path).ok();
            self.lost_at = self.socket.is_none().then(Instant::now);
        }
        if let Some(socket) = &self.socket {
            let Err(error) = send(socket, entry) else {
                return Ok(());
            };
            // The journal was restarted: its socket is a new one.
            self.socket = connect(&self.path).ok();
            let sent = self.socket.as_ref().is_some_and(|s| send(s, entry).is_ok());
            if sent {
                return Ok(());
            }
            self.socket = None;
            self.lost_at = Some(Instant::now());
            writeln!(
                self.instead,
                "warn log.journal_lost error=\"{}\" remedy=\"logging to standard error\"",
                in_words(&error)
            )?;
        }
        self.instead.write_all(message_of(entry))
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(entry) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done.map(drop),
        }
    }
}

/// The text of an entry with its line end: `MESSAGE` is the first field and has no line end within.
fn message_of(entry: &[u8]) -> &[u8] {
    let text = entry.strip_prefix(b"MESSAGE=").unwrap_or(entry);
    match text.iter().position(|octet| *octet == b'\n') {
        Some(end) => &text[..=end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::Kept;

    fn batch(entries: &[&str]) -> Vec<u8> {
        let mut batch = Vec::new();
        for entry in entries {
            batch.extend_from_slice(&u32::try_from(entry.len()).expect("short").to_le_bytes());
            batch.extend_from_slice(entry.as_bytes());
        }
        batch
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut octets = [0; 1024];
        let length = socket.recv(&mut octets).expect("a datagram");
        String::from_utf8_lossy(&octets[..length]).into_owned()
    }

    #[test]
    fn each_entry_of_a_batch_is_a_datagram() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("bind");
        let mut journal = Journal::open(&path, Box::new(io::sink())).expect("open");
        journal
            .write(&batch(&["MESSAGE=a\nX=1\n", "MESSAGE=b\n"]))
            .expect("write");
        assert_eq!(received(&journald), "MESSAGE=a\nX=1\n");
        assert_eq!(received(&journald), "MESSAGE=b\n");
    }

    #[test]
    fn a_lost_journal_is_said_once_and_its_entries_go_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("bind");
        let kept = Kept::default();
        let mut journal = Journal::open(&path, Box::new(kept.clone())).expect("open");
        drop(journald);
        std::fs::remove_file(&path).expect("the socket's file");
        journal
            .write(&batch(&["MESSAGE=a\nX=1\n", "MESSAGE=b\nX=2\n"]))
            .expect("instead");
        let text = String::from_utf8(kept.0.lock().expect("no panic").clone()).expect("UTF-8");
        assert!(text.starts_with("warn log.journal_lost error="), "{text}");
        assert!(text.ends_with("\na\nb\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_restarted_journal_gets_the_next_entry() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("bind");
        let mut journal = Journal::open(&path, Box::new(io::sink())).expect("open");
        drop(journald);
        std::fs::remove_file(&path).expect("the socket's file");
        let journald = UnixDatagram::bind(&path).expect("bind");
        journal.write(&batch(&["MESSAGE=a\n"])).expect("write");
        assert_eq!(received(&journald), "MESSAGE=a\n");
    }
}
