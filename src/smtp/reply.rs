//! Replies: what a backend says (RFC 5321 §4.2, rules G5–G7).
//!
//! A reply is one or more lines of one code; the last has a space, or nothing, behind it. The
//! reader is stateless: it is given all octets received so far and says `Incomplete` until the
//! last line is whole. Its verdict depends on no chunking: once it is not `Incomplete`, more octets
//! do not change it, and it is reached at the first octet that decides.
//!
//! A line ends with LF; a CR before it is part of the line end. A bare LF is thus tolerated from
//! backends: clients tolerate it too, the octets are relayed as they are, and no command of ours
//! can make a backend echo one. Towards clients nothing of the kind is accepted or sent.

use memchr::memchr;

/// The longest line of a reply, line end included: eight times what RFC 5321 §4.5.3.1.5 allows.
pub const REPLY_LINE_MAX: usize = 4096;
/// The most lines of one reply.
pub const REPLY_LINES_MAX: usize = 128;
/// The longest reply, line ends included.
pub const REPLY_MAX: usize = 65_536;
/// The longest text given to logs, in characters.
pub const SHORT_TEXT_MAX: usize = 200;

/// A three-digit code, first digit 2 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyCode(u16);

/// RFC 3463, as the first line of a reply carries it (RFC 2034 §4).
///
/// The class is 2, 4 or 5 and normally the first digit of the reply code; a backend that
/// contradicts itself is not corrected here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedCode {
    /// 2 success, 4 not now, 5 no.
    pub class: u8,
    /// What it is about: 3 the mail system, 4 the network, 7 policy, …
    pub subject: u16,
    /// The detail within the subject.
    pub detail: u16,
}

/// A complete reply, borrowed from the octets it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The code, the same on each line.
    pub code: ReplyCode,
    /// The enhanced code of the first line, if there is one.
    pub enhanced: Option<EnhancedCode>,
    /// The octets of the whole reply with its line ends.
    pub octets: &'a [u8],
}

/// Why octets are no reply. Each is fatal for the connection (rule G7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line begins with something else than a code of 200 to 599 and SP, `-` or its end.
    #[error("not a reply")]
    NotAReply,
    /// Two lines of one reply differ in their code.
    #[error("the code changes within the reply")]
    CodeChanges,
    /// Over [`REPLY_LINE_MAX`].
    #[error("a line of the reply is longer than 4,096 octets")]
    LineTooLong,
    /// Over [`REPLY_LINES_MAX`] or [`REPLY_MAX`].
    #[error("the reply has more than 128 lines or 65,536 octets")]
    TooLong,
}

/// What the octets received so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyRead<'a> {
    /// The beginning of a reply.
    Incomplete,
    /// A whole reply; what follows it belongs to the next one.
    Complete(Reply<'a>),
    /// No reply, whatever follows.
    Invalid(ReplyError),
}

/// Reads one reply from the beginning of `octets`. Stateless: call it again with more.
pub fn read_reply(octets: &[u8]) -> ReplyRead<'_> {
    let mut start = 0;
    let mut code = None;
    for _ in 0..REPLY_LINES_MAX {
        match read_line(octets, start, code) {
            LineRead::Incomplete => return ReplyRead::Incomplete,
            LineRead::Invalid(error) => return ReplyRead::Invalid(error),
            LineRead::Complete(line) => {
                start = line.end;
                code = Some(line.code);
                if line.place == LinePlace::Last {
                    return ReplyRead::Complete(Reply::new(line.code, &octets[..line.end]));
                }
            }
        }
    }
    ReplyRead::Invalid(ReplyError::TooLong)
}

/// Whether more lines of the same reply follow a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinePlace {
    /// `-` behind the code.
    More,
    /// SP or nothing behind the code.
    Last,
}

/// A whole line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) code: ReplyCode,
    pub(super) place: LinePlace,
    /// Just behind its LF, counted from the beginning of the reply.
    pub(super) end: usize,
}

/// What a line, as far as it has come, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineRead {
    Incomplete,
    Complete(Line),
    Invalid(ReplyError),
}

/// Reads the line at `start` of a reply whose earlier lines had the code `expected`.
pub(super) fn read_line(octets: &[u8], start: usize, expected: Option<ReplyCode>) -> LineRead {
    let room = REPLY_LINE_MAX.min(REPLY_MAX - start);
    let rest = &octets[start..];
    // Octets beyond a limit have no say, so that the verdict does not depend on how many came.
    let line = &rest[..rest.len().min(room)];
    let mut digits = [0; 3];
    for (place, &octet) in line.iter().take(3).enumerate() {
        let first = if place == 0 { b'2'..=b'5' } else { b'0'..=b'9' };
        if !first.contains(&octet) {
            return LineRead::Invalid(ReplyError::NotAReply);
        }
        if expected.is_some_and(|code| code.digits()[place] != octet) {
            return LineRead::Invalid(ReplyError::CodeChanges);
        }
        digits[place] = octet;
    }
    let place = match (line.get(3), line.get(4)) {
        (Some(b'-'), _) => LinePlace::More,
        (Some(b' ' | b'\n') | None, _) | (Some(b'\r'), Some(b'\n') | None) => LinePlace::Last,
        (Some(_), _) => return LineRead::Invalid(ReplyError::NotAReply),
    };
    match memchr(b'\n', line) {
        Some(at) => LineRead::Complete(Line {
            code: ReplyCode::of(digits),
            place,
            end: start + at + 1,
        }),
        None if line.len() < room => LineRead::Incomplete,
        None if room < REPLY_LINE_MAX => LineRead::Invalid(ReplyError::TooLong),
        None => LineRead::Invalid(ReplyError::LineTooLong),
    }
}

impl ReplyCode {
    /// `220`: the only good greeting (rule S6).
    pub const READY: Self = Self(220);
    /// `421`: not now, and the connection is being closed.
    pub const CLOSING: Self = Self(421);

    /// The number.
    pub fn value(self) -> u16 {
        self.0
    }

    /// The first digit, which decides for codes nobody knows (rule G7): 2 done, 3 go on, 4 not
    /// now, 5 no.
    pub fn class(self) -> u16 {
        self.0 / 100
    }

    /// A code of ours.
    pub(super) const fn known(value: u16) -> Self {
        Self(value)
    }

    fn of(digits: [u8; 3]) -> Self {
        Self(
            digits
                .iter()
                .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
        )
    }

    pub(super) fn digits(self) -> [u8; 3] {
        [self.0 / 100, self.0 / 10 % 10, self.0 % 10].map(|digit| b'0' + digit as u8)
    }
}

impl EnhancedCode {
    /// Reads `class.subject.detail` at the beginning of a line's text; SP or the end follows it.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let word = text.split(|&octet| octet == b' ').next()?;
        let mut parts = word.split(|&octet| octet == b'.');
        let class = number(parts.next()?)?;
        let subject = number(parts.next()?)?;
        let detail = number(parts.next()?)?;
        let whole = parts.next().is_none() && matches!(class, 2 | 4 | 5);
        whole.then_some(Self {
            class: class as u8,
            subject,
            detail,
        })
    }
}

/// One to three digits (RFC 3463 §2).
fn number(digits: &[u8]) -> Option<u16> {
    let short = (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    short.then(|| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
    })
}

impl<'a> Reply<'a> {
    fn new(code: ReplyCode, octets: &'a [u8]) -> Self {
        let mut reply = Self {
            code,
            enhanced: None,
            octets,
        };
        reply.enhanced = EnhancedCode::read(reply.first_line());
        reply
    }

    /// The text of each line without code, separator and line end.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.octets
            .split_inclusive(|&octet| octet == b'\n')
            .map(|line| {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                line.get(4..).unwrap_or_default()
            })
    }

    /// The text of the first line.
    pub fn first_line(&self) -> &'a [u8] {
        self.lines().next().unwrap_or_default()
    }

    /// The first line's text for logs: printable ASCII, everything else replaced by `?`, at most
    /// [`SHORT_TEXT_MAX`] characters.
    pub fn short_text(&self) -> String {
        printable(self.first_line())
    }
}

/// `text` as printable ASCII, other octets replaced by `?`, at most [`SHORT_TEXT_MAX`] of them.
pub(super) fn printable(text: &[u8]) -> String {
    let shown = |&octet: &u8| {
        if matches!(octet, b' '..=b'~') {
            char::from(octet)
        } else {
            '?'
        }
    };
    text.iter().take(SHORT_TEXT_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(octets: &[u8]) -> Reply<'_> {
        match read_reply(octets) {
            ReplyRead::Complete(reply) => reply,
            other => panic!("{other:?} for {}", octets.escape_ascii()),
        }
    }

    #[test]
    fn the_forms_of_rfc_5321_are_read() {
        let forms: [(&[u8], u16, usize); 7] = [
            (b"220 mx.example ESMTP\r\n", 220, 1),
            (b"250\r\n", 250, 1),
            (b"250 \r\n", 250, 1),
            (b"250-mx\r\n250-PIPELINING\r\n250 SIZE\r\n", 250, 3),
            (b"250-\r\n250\r\n", 250, 2),
            (b"220 bare line feed\n", 220, 1),
            (b"599 unknown codes go by their first digit\r\n", 599, 1),
        ];
        for (octets, code, lines) in forms {
            let reply = complete(octets);
            assert_eq!((reply.code.value(), reply.lines().count()), (code, lines));
            assert_eq!(reply.octets, octets);
        }
    }

    #[test]
    fn rule_g5_what_is_not_a_reply_is_refused_at_its_first_wrong_octet() {
        let wrong: [(&[u8], ReplyError); 10] = [
            (b"1", ReplyError::NotAReply),
            (b"6", ReplyError::NotAReply),
            (b"2x", ReplyError::NotAReply),
            (b"22 ", ReplyError::NotAReply),
            (b"220x", ReplyError::NotAReply),
            (b"220\t", ReplyError::NotAReply),
            (b"220\rx", ReplyError::NotAReply),
            (b"\r\n", ReplyError::NotAReply),
            (b"SSH-2.0", ReplyError::NotAReply),
            // postscreen to an early talker.
            (b"220-teaser\r\n25", ReplyError::CodeChanges),
        ];
        for (octets, error) in wrong {
            assert_eq!(read_reply(octets), ReplyRead::Invalid(error));
            let before = &octets[..octets.len() - 1];
            if !matches!(before, b"SSH-2." | b"\r") {
                assert_eq!(read_reply(before), ReplyRead::Incomplete);
            }
        }
    }

    #[test]
    fn limits_hold_at_the_octet() {
        let line = |length: usize| [b"220 ".as_slice(), &vec![b'a'; length - 6], b"\r\n"].concat();
        assert_eq!(complete(&line(REPLY_LINE_MAX)).octets.len(), REPLY_LINE_MAX);
        let too_long = ReplyRead::Invalid(ReplyError::LineTooLong);
        assert_eq!(read_reply(&line(REPLY_LINE_MAX + 1)), too_long);

        let many = |lines: usize| [b"250-x\r\n".repeat(lines - 1), b"250 x\r\n".to_vec()].concat();
        assert_eq!(
            complete(&many(REPLY_LINES_MAX)).lines().count(),
            REPLY_LINES_MAX
        );
        assert_eq!(
            read_reply(&many(REPLY_LINES_MAX + 1)),
            ReplyRead::Invalid(ReplyError::TooLong)
        );

        let wide = [b"250-".as_slice(), &[b'a'; 4090], b"\r\n"].concat();
        let full = [
            wide.repeat(15),
            line(REPLY_MAX - 15 * 4096).as_slice().to_vec(),
        ]
        .concat();
        assert_eq!(
            read_reply(&full),
            ReplyRead::Invalid(ReplyError::CodeChanges)
        );
        let full = [wide.repeat(16), b"250 x\r\n".to_vec()].concat();
        assert_eq!(read_reply(&full), ReplyRead::Invalid(ReplyError::TooLong));
    }

    #[test]
    fn enhanced_codes_are_read_from_the_first_line_only() {
        let code = |class, subject, detail| {
            Some(EnhancedCode {
                class,
                subject,
                detail,
            })
        };
        let texts: [(&[u8], Option<EnhancedCode>); 9] = [
            (b"421 4.7.0 mx Error\r\n", code(4, 7, 0)),
            (b"250 2.1.10\r\n", code(2, 1, 10)),
            (b"550 5.7.999 no\r\n", code(5, 7, 999)),
            (b"250-mx\r\n250 2.0.0 ok\r\n", None),
            (b"220 3.7.0 x\r\n", None),
            (b"220 4.7 x\r\n", None),
            (b"220 4.7.0.1 x\r\n", None),
            (b"421 4.7.0, x\r\n", None),
            (b"421 4.7.1000 x\r\n", None),
        ];
        for (octets, enhanced) in texts {
            assert_eq!(
                complete(octets).enhanced,
                enhanced,
                "{}",
                octets.escape_ascii()
            );
        }
    }

    #[test]
    fn texts_for_logs_are_short_and_printable() {
        let reply = [
            b"220-a\x07\xffb\r\xe2\x80\xaec",
            [b'x'; 300].as_slice(),
            b"\r\n220 \r\n",
        ];
        let reply = reply.concat();
        let text = complete(&reply).short_text();
        assert!(text.starts_with("a??b????c"), "{text}");
        assert_eq!(text.len(), SHORT_TEXT_MAX);
    }

    /// Octets that are often nearly a reply.
    fn nearly_replies() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"220 ".to_vec()),
            Just(b"220-".to_vec()),
            Just(b"250".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"4.7.0 text".to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_verdict_once_reached_stays(octets in nearly_replies()) {
            let whole = read_reply(&octets);
            for end in 0..octets.len() {
                let part = read_reply(&octets[..end]);
                prop_assert!(part == ReplyRead::Incomplete || part == whole);
            }
        }
    }
}
