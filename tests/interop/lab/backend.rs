//! What tests of transactions ask of a server: how many connections and messages it has seen, by its
//! own word, and what it kept of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A server that keeps every message it takes, and refuses `refused@example.test`.
pub(crate) trait Backend {
    /// Where it takes mail, without a PROXY header.
    fn address(&self) -> SocketAddr;

    /// Connections so far, ours to see it greet included.
    fn connections(&self) -> usize;

    /// Messages that it has acknowledged so far.
    fn taken(&self) -> usize;

    /// Those messages in any order, with what the server adds in front and with the line ends of its
    /// store; [`body`] takes that away.
    fn kept(&self) -> Vec<Vec<u8>>;

    /// Kills it, which no connection survives, and starts it again where it was.
    fn restart(&mut self);
}

/// What is behind the header, with LF for CRLF.
pub(crate) fn body(message: &[u8]) -> Vec<u8> {
    let lines = with_plain_line_ends(message);
    let header = lines.windows(2).position(|pair| pair == b"\n\n");
    match header {
        _ if lines.first() == Some(&b'\n') => lines[1..].to_vec(),
        Some(header) => lines[header + 2..].to_vec(),
        None => Vec::new(),
    }
}

/// LF for CRLF; a CR alone stays.
fn with_plain_line_ends(message: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(message.len());
    for (place, octet) in message.iter().enumerate() {
        if !(*octet == b'\r' && message.get(place + 1) == Some(&b'\n')) {
            lines.push(*octet);
        }
    }
    lines
}

/// Files of a folder that are not being written (`.part`).
pub(super) fn whole_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.extension().is_none_or(|it| it != "part"))
        .collect();
    files.sort();
    files
}

pub(super) fn read_all(files: &[PathBuf]) -> Vec<Vec<u8>> {
    let read = |file: &PathBuf| std::fs::read(file).expect("what a server kept can be read");
    files.iter().map(read).collect()
}

/// Where a server whose program is ours keeps its messages: a file each, written before it is
/// acknowledged.
#[derive(Debug)]
pub(super) struct KeptFolder(PathBuf);

impl KeptFolder {
    /// Makes one in the folder of a server.
    pub(super) fn inside(folder: &Path) -> Self {
        let kept = folder.join("kept");
        std::fs::create_dir(&kept).expect("our folder can be written");
        Self(kept)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn count(&self) -> usize {
        whole_files(&self.0).len()
    }

    pub(super) fn read(&self) -> Vec<Vec<u8>> {
        read_all(&whole_files(&self.0))
    }
}
