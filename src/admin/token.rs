//! The bearer token that changing verbs need.
//!
//! The first line of a file, read anew for each use so that a rotated token needs no reload.
//! Compared without telling by its duration where two tokens differ. What the process reads must be
//! a regular file, and is given up after [`READ_TIMEOUT`]; a command may be given its token by a pipe.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::TOKEN_OCTETS_MAX;
use crate::control::FileReader;

/// How long a read of it may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the token is.
#[derive(Clone, Debug)]
pub struct Token {
    path: PathBuf,
    files: FileReader,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {path:?}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its first line is empty.
    #[error("the first line of the token file {0:?} is empty: put the token there")]
    Empty(PathBuf),
}

impl Token {
    /// The token in this file, which must be there now.
    ///
    /// # Errors
    /// It cannot be read, or its first line is empty.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let token = Self {
            path: path.to_owned(),
            files: FileReader::default(),
        };
        token.read()?;
        Ok(token)
    }

    /// Whether `offered` is the token. Waits for the file, so not for the loop of a thread.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn matches(&self, offered: &[u8]) -> Result<bool, TokenError> {
        Ok(equal(self.read()?.as_bytes(), offered))
    }

    fn read(&self) -> Result<String, TokenError> {
        let text = self.files.read(&self.path, TOKEN_OCTETS_MAX, READ_TIMEOUT);
        first_line(&self.path, text)
    }
}

/// The first line of a token file, without the spaces around it. Any file, a pipe too.
///
/// # Errors
/// It cannot be read, or its first line is empty.
pub fn read(path: &Path) -> Result<String, TokenError> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(TOKEN_OCTETS_MAX).read_to_string(&mut text));
    first_line(path, read.map(|_| text))
}

fn first_line(path: &Path, text: io::Result<String>) -> Result<String, TokenError> {
    let text = text.map_err(|source| TokenError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(token.to_owned()),
        _ => Err(TokenError::Empty(path.to_owned())),
    }
}

/// Looks at every octet of `offered` whatever it finds; only the length may show.
fn equal(secret: &[u8], offered: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != offered.len());
    for (index, octet) in offered.iter().enumerate() {
        difference |= octet ^ secret[index % secret.len()];
    }
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_counts_and_a_rotated_token_needs_no_reload() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, " secret-one \nsecond line\n").expect("write");
        let token = Token::from_file(&path).expect("a token");
        assert!(token.matches(b"secret-one").expect("readable"));
        for wrong in [
            &b""[..],
            b"secret-on",
            b"secret-onesecret-one",
            b"secret-onf",
            b"Secret-one",
            b"second line",
        ] {
            assert!(!token.matches(wrong).expect("readable"), "{wrong:?}");
        }
        std::fs::write(&path, "secret-two").expect("write");
        assert!(token.matches(b"secret-two").expect("readable"));
        assert!(!token.matches(b"secret-one").expect("readable"));
    }

    #[test]
    fn a_missing_or_empty_file_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let error = Token::from_file(&path).expect_err("missing");
        assert!(error.to_string().contains("token"), "{error}");
        std::fs::write(&path, "\nsecret\n").expect("write");
        assert!(matches!(Token::from_file(&path), Err(TokenError::Empty(_))));
    }

    #[test]
    fn the_process_takes_no_pipe_for_its_token_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        let error = Token::from_file(&path).expect_err("no regular file");
        let TokenError::Unreadable { source, .. } = error else {
            panic!("{error}");
        };
        assert!(source.to_string().contains("a named pipe"), "{source}");
    }
}
