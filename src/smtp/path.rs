//! The path of MAIL and RCPT: what stands between the angle brackets (RFC 5321 §4.1.2).
//!
//! Whether an address exists, or is one, is the backend's to say, so its octets go on as they came
//! (rule G1). What is checked is that nobody can disagree where the path ends: brackets and quotes
//! are paired, spaces and brackets occur within quotes only, quotes stand only where a quoted local
//! part may, there is no backslash outside them and one `@` at most. Where [`ClientQuirks::Accept`]
//! says so, blanks around an address are dropped and its brackets may be missing (rule G12).

use super::line::COMMAND_LINE_MAX;
use super::parameters::{is_blank, trim_start};
use super::quirks::ClientQuirks;

/// An address without brackets, and what follows it, may be so long: with the brackets that it is
/// passed on with, the line keeps to [`COMMAND_LINE_MAX`].
const UNBRACKETED_MAX: usize = COMMAND_LINE_MAX - b"MAIL FROM:<>\r\n".len();

/// A reverse-path or forward-path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a>(&'a [u8]);

/// Why there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathError {
    /// It does not begin with `<`, nor with an address that may stand without.
    Missing,
    /// A control octet in it.
    Control,
    /// It is none, or has no end.
    Syntax,
}

impl<'a> Path<'a> {
    /// Reads the path at the beginning of `text`, which stands behind the colon, and says what
    /// follows it.
    pub(super) fn read(
        text: &'a [u8],
        quirks: ClientQuirks,
    ) -> Result<(Self, &'a [u8]), PathError> {
        let text = drop_blanks(text, quirks);
        match (text.split_first(), quirks) {
            (Some((b'<', inside)), _) => Self::in_brackets(inside, quirks),
            (_, ClientQuirks::Accept) => Self::unbracketed(text),
            (_, ClientQuirks::Reject) => Err(PathError::Missing),
        }
    }

    fn in_brackets(inside: &'a [u8], quirks: ClientQuirks) -> Result<(Self, &'a [u8]), PathError> {
        let inside = drop_blanks(inside, quirks);
        let (address, behind) = inside.split_at(end_of(inside)?);
        let Some(rest) = drop_blanks(behind, quirks).strip_prefix(b">") else {
            return Err(match behind {
                [b'\t', ..] => PathError::Control,
                _ => PathError::Syntax,
            });
        };
        let mailbox = match address.first() {
            Some(b'@') => behind_route(address).ok_or(PathError::Syntax)?,
            _ => address,
        };
        if at_signs(mailbox) > 1 {
            return Err(PathError::Syntax);
        }
        Ok((Self(address), rest))
    }

    /// One word that can be nothing but an address: no quotes, no route, no literal (rule G12).
    fn unbracketed(text: &'a [u8]) -> Result<(Self, &'a [u8]), PathError> {
        let end = text.iter().position(|&octet| is_blank(octet));
        let (address, rest) = text.split_at(end.unwrap_or(text.len()));
        let mut parts = address.split(|&octet| octet == b'@');
        let is_dot_atom =
            |part: &[u8]| !part.is_empty() && part.iter().copied().all(is_atext_or_dot);
        let is_address = parts.next().is_some_and(is_dot_atom)
            && parts.next().is_some_and(is_dot_atom)
            && parts.next().is_none();
        if is_address && text.len() <= UNBRACKETED_MAX {
            Ok((Self(address), rest))
        } else {
            Err(PathError::Missing)
        }
    }

    /// Without its brackets, as it came: a mailbox, maybe with a source route before it, or nothing.
    pub fn address(self) -> &'a [u8] {
        self.0
    }

    /// Whether it is `<>`, from which no bounce comes back (RFC 5321 §4.5.5).
    pub fn is_null(self) -> bool {
        self.0.is_empty()
    }
}

/// What follows the colon that ends a source route, if anything does (RFC 5321 §4.1.1.3). The colons
/// of a literal of IPv6 stand within its brackets.
fn behind_route(address: &[u8]) -> Option<&[u8]> {
    let mut in_literal = false;
    let colon = address.iter().position(|octet| {
        match octet {
            b'[' => in_literal = true,
            b']' => in_literal = false,
            _ => {}
        }
        *octet == b':' && !in_literal
    })?;
    Some(&address[colon + 1..]).filter(|mailbox| !mailbox.is_empty())
}

/// How many `@` there are outside quotes: behind the second one, servers disagree on which is the
/// domain.
fn at_signs(mailbox: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let is_sign = |octet: &&u8| {
        let is_sign = **octet == b'@' && !quoted;
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        is_sign
    };
    mailbox.iter().filter(is_sign).count()
}

fn drop_blanks(text: &[u8], quirks: ClientQuirks) -> &[u8] {
    match quirks {
        ClientQuirks::Accept => trim_start(text),
        ClientQuirks::Reject => text,
    }
}

/// RFC 5322 §3.2.3.
fn is_atext_or_dot(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&octet)
}

/// How long the address is that stands behind `<`: up to the `>`, or to a blank outside quotes,
/// behind which nothing but that `>` may follow.
fn end_of(text: &[u8]) -> Result<usize, PathError> {
    let mut quoted = false;
    let mut octets = text.iter().copied().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'\t' if !quoted => return Ok(at),
            0..=0x1f | 0x7f => return Err(PathError::Control),
            b'"' if quoted => {
                if !matches!(text.get(at + 1), Some(b'@' | b'.' | b'>' | b' ' | b'\t')) {
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
            b'"' if at == 0 || matches!(text[at - 1], b':' | b'.') => quoted = true,
            b'>' | b' ' => return Ok(at),
            b'<' | b'\\' | b'"' => return Err(PathError::Syntax),
            _ => {}
        }
    }
    Err(PathError::Syntax)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [ClientQuirks; 2] = [ClientQuirks::Accept, ClientQuirks::Reject];

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
            "<\"a@b\"@c>",
            "<\"a\\\"@b\"@c>",
            "<@a:\"b@c\"@d>",
            "<!#$%&'*+-/=?^_`{|}~@example.com>",
            "<üser@example.com>",
        ];
        for path in paths {
            for behind in ["", " SIZE=1", "SIZE=1", "> x"] {
                for quirks in BOTH {
                    let text = format!("{path}{behind}");
                    let (read, rest) = Path::read(text.as_bytes(), quirks).expect(path);
                    assert_eq!(rest, behind.as_bytes());
                    assert_eq!(read.is_null(), path == "<>");
                    assert_eq!(format!("<{}>", path_text(read)), path);
                }
            }
        }
    }

    fn path_text(path: Path<'_>) -> &str {
        std::str::from_utf8(path.address()).expect("the table is UTF-8")
    }

    #[test]
    fn a_path_whose_end_could_be_disputed_is_refused() {
        let wrong = [
            ("", PathError::Missing),
            ("\"x\"<a@b>", PathError::Missing),
            ("\"x y\"@z", PathError::Missing),
            ("a", PathError::Missing),
            ("a@", PathError::Missing),
            ("@b", PathError::Missing),
            ("a@b@c", PathError::Missing),
            ("a@b,c@d", PathError::Missing),
            ("a@b;", PathError::Missing),
            ("@a:b@c", PathError::Missing),
            ("a@b>", PathError::Missing),
            ("a@b<c@d>", PathError::Missing),
            ("a\\ b@c", PathError::Missing),
            ("a(b)@c", PathError::Missing),
            ("a@[192.0.2.1]", PathError::Missing),
            ("üser@example.com", PathError::Missing),
            ("a@b\u{a0}SIZE=1", PathError::Missing),
            ("<", PathError::Syntax),
            ("<a@b", PathError::Syntax),
            ("<a b@c>", PathError::Syntax),
            ("<a@b c>", PathError::Syntax),
            ("<a @b>", PathError::Syntax),
            ("<\"a\" @b>", PathError::Syntax),
            ("<a@b ", PathError::Syntax),
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
            ("<@[IPv6:2001:db8::1]>", PathError::Syntax),
            ("<a@@b>", PathError::Syntax),
            ("<a@b@c>", PathError::Syntax),
            ("<@a:b@c@d>", PathError::Syntax),
            ("<\"a\"@b@c>", PathError::Syntax),
            ("<\"a\\\"\"@b@c>", PathError::Syntax),
            ("<a\0@b>", PathError::Control),
            ("<a\t@b>", PathError::Control),
            ("<\"a\\\u{7f}\"@b>", PathError::Control),
        ];
        for (text, error) in wrong {
            for quirks in BOTH {
                assert_eq!(Path::read(text.as_bytes(), quirks), Err(error), "{text:?}");
            }
        }
    }

    #[test]
    fn rule_g12_blanks_and_missing_brackets_are_taken_where_quirks_are() {
        let table = [
            (" <a@b>", "a@b", PathError::Missing),
            ("\t<>", "", PathError::Missing),
            ("a@b", "a@b", PathError::Missing),
            (
                "  a.b+c=d@e.example",
                "a.b+c=d@e.example",
                PathError::Missing,
            ),
            ("< a@b>", "a@b", PathError::Syntax),
            ("<a@b >", "a@b", PathError::Syntax),
            ("< \t a@b  >", "a@b", PathError::Syntax),
            ("<a@b\t>", "a@b", PathError::Control),
            ("< >", "", PathError::Syntax),
            ("< \"a > b\" >", "\"a > b\"", PathError::Syntax),
            ("<@a,@b:c@d >", "@a,@b:c@d", PathError::Syntax),
        ];
        for (path, address, error) in table {
            for behind in ["", " SIZE=1"] {
                let text = format!("{path}{behind}");
                let (read, rest) = Path::read(text.as_bytes(), ClientQuirks::Accept).expect(path);
                assert_eq!((path_text(read), rest), (address, behind.as_bytes()));
                let strictly = Path::read(text.as_bytes(), ClientQuirks::Reject);
                assert_eq!(strictly, Err(error), "{text:?}");
            }
        }
    }

    #[test]
    fn rule_g2_an_address_leaves_room_for_the_brackets_it_goes_on_with() {
        let longest = format!("{}@b", "a".repeat(UNBRACKETED_MAX - 2));
        let read = Path::read(longest.as_bytes(), ClientQuirks::Accept);
        assert!(read.is_ok_and(|(path, _)| path.address() == longest.as_bytes()));
        for longer in [format!("a{longest}"), format!(" {longest} ")] {
            let read = Path::read(longer.as_bytes(), ClientQuirks::Accept);
            assert_eq!(read, Err(PathError::Missing));
        }
    }
}
