//! The bearer token that changing verbs need.
//!
//! The first line of a file, read anew for each use so that a rotated token needs no reload.
//! Compared without telling by its duration where two tokens differ.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest token file that is read.
const FILE_OCTETS_MAX: u64 = 4096;

/// Where the token is.
#[derive(Clone, Debug)]
pub struct Token {
    path: PathBuf,
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
        source: std::io::Error,
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
        read(path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Whether `offered` is the token.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn matches(&self, offered: &[u8]) -> Result<bool, TokenError> {
        Ok(equal(read(&self.path)?.as_bytes(), offered))
    }
}

/// The first line of a token file, without the spaces around it.
///
/// # Errors
/// It cannot be read, or its first line is empty.
pub fn read(path: &Path) -> Result<String, TokenError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_OCTETS_MAX).read_to_string(&mut text))
        .map_err(|source| TokenError::Unreadable {
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
}
