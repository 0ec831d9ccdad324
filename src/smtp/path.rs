//! The path of MAIL and RCPT: what stands between the angle brackets (RFC 5321 §4.1.2).
//!
//! Whether an address exists, or is one, is the backend's to say, so the octets go on as they came
//! (rule G1). What is checked is that nobody can disagree where the path ends: brackets and quotes
//! are paired, spaces and brackets occur within quotes only, quotes stand only where a quoted local
//! part may, and there is no backslash outside them.

use memchr::memchr;

/// A reverse-path or forward-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a>(&'a [u8]);

/// Why there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// It does not begin with `<`.
    NoBrackets,
    /// A control octet in it.
    Control,
    /// It is none, or has no end.
    Syntax,
}

impl<'a> Path<'a> {
    /// Reads a path at the beginning of `text`, and says what follows it.
    pub(super) fn read(text: &'a [u8]) -> Result<(Self, &'a [u8]), PathError> {
        if text.first() != Some(&b'<') {
            return Err(PathError::NoBrackets);
        }
        let (path, rest) = text.split_at(end_of(text)?);
        let path = Self(path);
        if path.address().first() == Some(&b'@') && !path.has_route() {
            return Err(PathError::Syntax);
        }
        Ok((path, rest))
    }

    /// With its brackets, as it came.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }

    /// Between the brackets: a mailbox, maybe with a source route before it, or nothing.
    pub fn address(self) -> &'a [u8] {
        &self.0[1..self.0.len() - 1]
    }

    /// Whether it is `<>`, from which no bounce comes back (RFC 5321 §4.5.5).
    pub fn is_null(self) -> bool {
        self.0 == b"<>"
    }

    /// Whether something follows the colon that ends a source route (RFC 5321 §4.1.1.3).
    fn has_route(self) -> bool {
        let colon = memchr(b':', self.address());
        colon.is_some_and(|at| at + 1 < self.address().len())
    }
}

/// Where the path ends that begins with the first octet, just behind its `>`.
fn end_of(text: &[u8]) -> Result<usize, PathError> {
    let mut quoted = false;
    let mut octets = text.iter().copied().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        match octet {
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'"' if quoted => {
                if !matches!(text.get(at + 1), Some(b'@' | b'.' | b'>')) {
                    return Err(PathError::Syntax);
                }
                quoted = false;
            }
            b'\\' if quoted => match octets.next() {
                Some((_, 0..=0x1f | 0x7f)) => return Err(PathError::Control),
                Some(_) => {}
                None => return Err(PathError::Syntax),
            },
            _ if quoted => {}
            b'"' if matches!(text[at - 1], b'<' | b':' | b'.') => quoted = true,
            b'>' => return Ok(at + 1),
            b'<' | b' ' | b'\\' | b'"' => return Err(PathError::Syntax),
            _ => {}
        }
    }
    Err(PathError::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_g1_paths_are_kept_to_the_octet() {
        let paths = [
            "<>",
            "<a@b>",
            "<Joe.BLOW+tag=x@Example.COM>",
            "<postmaster>",
            "<@a,@b:c@d>",
            "<@[IPv6:2001:db8::1]:c@d>",
            "<user@[192.0.2.1]>",
            "<user@[IPv6:2001:db8::1]>",
            "<\"joe \\\"blow\\\" > <\"@example.com>",
            "<a.\"b c\".d@example.com>",
            "<\"\"@example.com>",
            "<\"only\">",
            "<!#$%&'*+-/=?^_`{|}~@example.com>",
            "<üser@example.com>",
        ];
        for path in paths {
            for behind in ["", " SIZE=1", "SIZE=1", "> x"] {
                let text = format!("{path}{behind}");
                let (read, rest) = Path::read(text.as_bytes()).expect(path);
                assert_eq!((read.octets(), rest), (path.as_bytes(), behind.as_bytes()));
                assert_eq!(read.is_null(), path == "<>");
                assert_eq!(format!("<{}>", path_text(read)), path);
            }
        }
    }

    fn path_text(path: Path<'_>) -> &str {
        std::str::from_utf8(path.address()).expect("the table is UTF-8")
    }

    #[test]
    fn a_path_whose_end_could_be_disputed_is_refused() {
        let wrong = [
            ("", PathError::NoBrackets),
            ("a@b", PathError::NoBrackets),
            (" <a@b>", PathError::NoBrackets),
            ("\"x\"<a@b>", PathError::NoBrackets),
            ("<", PathError::Syntax),
            ("<a@b", PathError::Syntax),
            ("<a b@c>", PathError::Syntax),
            ("<a@b >", PathError::Syntax),
            ("<<a@b>>", PathError::Syntax),
            ("<a\\>b@c>", PathError::Syntax),
            ("<a\\ b@c>", PathError::Syntax),
            ("<\"a@b>", PathError::Syntax),
            ("<\"a\\\"@b>", PathError::Syntax),
            ("<\"a\\", PathError::Syntax),
            ("<a\"b c\"@d>", PathError::Syntax),
            ("<\"a\"b@c>", PathError::Syntax),
            ("<@a>", PathError::Syntax),
            ("<@a,@b:>", PathError::Syntax),
            ("<a\0@b>", PathError::Control),
            ("<a\t@b>", PathError::Control),
            ("<\"a\\\u{7f}\"@b>", PathError::Control),
        ];
        for (text, error) in wrong {
            assert_eq!(Path::read(text.as_bytes()), Err(error), "{text:?}");
        }
    }
}
