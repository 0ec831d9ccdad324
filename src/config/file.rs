//! Files that operators write: regular ones only, of bounded size.
//!
//! A read of a named pipe, a device or a socket may never end: such a file is refused before it is
//! opened, and once more when it is open, in case the file was replaced meanwhile. A read of a file
//! system whose server is gone may still never end; a caller that must not wait reads on another
//! thread.

use std::fs::{self, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// The text of a regular file of at most `octets_max` octets.
///
/// # Errors
/// It is no regular file, is larger, is not UTF-8, or cannot be read.
pub fn read_regular(path: &Path, octets_max: u64) -> io::Result<String> {
    must_be_regular(fs::metadata(path)?.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)?;
    must_be_regular(file.metadata()?.file_type())?;
    let mut text = String::new();
    file.take(octets_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > octets_max {
        let message = format!("it is larger than {}", size(octets_max));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

fn must_be_regular(found: FileType) -> io::Result<()> {
    let (kind, what) = if found.is_file() {
        return Ok(());
    } else if found.is_dir() {
        (io::ErrorKind::IsADirectory, "a folder")
    } else if found.is_fifo() {
        (io::ErrorKind::InvalidInput, "a named pipe")
    } else if found.is_socket() {
        (io::ErrorKind::InvalidInput, "a socket")
    } else {
        (io::ErrorKind::InvalidInput, "a device")
    };
    Err(io::Error::new(
        kind,
        format!("it is {what}, not a regular file"),
    ))
}

fn size(octets: u64) -> String {
    match octets >> 20 {
        0 => format!("{octets} octets"),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read_regular(&at(name), 4).unwrap(), "text");
        }
        let refusals = [
            (at("folder"), "a folder"),
            (at("pipe"), "a named pipe"),
            (at("socket"), "a socket"),
            ("/dev/zero".into(), "a device"),
        ];
        for (path, what) in refusals {
            let error = read_regular(&path, 4).unwrap_err().to_string();
            assert_eq!(error, format!("it is {what}, not a regular file"));
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_regular(file.path(), 5).unwrap(), "12345");
        let error = read_regular(file.path(), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it is larger than 4 octets");
    }
}
