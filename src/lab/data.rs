//! The sink's own reader of DATA content: framing and dot-unstuffing (RFC 5321 §4.5.2).
//!
//! Strict: only `CRLF . CRLF` ends a message, and the state before the first octet is "after CRLF".
//! It gives the same result for any chunking and buffers nothing.

/// Reads message content until the final dot.
#[derive(Debug, Default)]
pub(super) struct DataReader(State);

/// Named for the octets just seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    Dot,
    DotCr,
    Within,
    Cr,
}

/// How far a push got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All octets were content; more must come.
    More,
    /// The message ended after so many octets; what follows is the next command.
    Ended(usize),
}

impl DataReader {
    /// Takes octets as they came and hands the unstuffed content to `content`.
    pub(super) fn push(&mut self, octets: &[u8], mut content: impl FnMut(&[u8])) -> Progress {
        let mut at = 0;
        while at < octets.len() {
            let rest = &octets[at..];
            match self.0 {
                State::LineStart if rest[0] == b'.' => {
                    self.0 = State::Dot;
                    at += 1;
                }
                State::Dot if rest[0] == b'\r' => {
                    self.0 = State::DotCr;
                    at += 1;
                }
                State::DotCr if rest[0] == b'\n' => {
                    self.0 = State::LineStart;
                    return Progress::Ended(at + 1);
                }
                State::DotCr => {
                    content(b"\r");
                    self.0 = State::Cr;
                }
                State::Within => {
                    let end = memchr::memchr(b'\r', rest).map_or(rest.len(), |cr| cr + 1);
                    content(&rest[..end]);
                    if rest[end - 1] == b'\r' {
                        self.0 = State::Cr;
                    }
                    at += end;
                }
                State::Cr if rest[0] == b'\n' => {
                    content(b"\n");
                    self.0 = State::LineStart;
                    at += 1;
                }
                State::LineStart | State::Dot | State::Cr => self.0 = State::Within,
            }
        }
        Progress::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> (Vec<u8>, Option<usize>) {
        let mut reader = DataReader::default();
        let mut content = Vec::new();
        let mut before = 0;
        for chunk in chunks {
            match reader.push(chunk, |part| content.extend_from_slice(part)) {
                Progress::More => before += chunk.len(),
                Progress::Ended(at) => return (content, Some(before + at)),
            }
        }
        (content, None)
    }

    #[test]
    fn messages_end_where_the_rfc_says_and_nowhere_else() {
        // (octets, content, end): rules D1 and D3.
        let table: &[(&[u8], &[u8], Option<usize>)] = &[
            (b".\r\n", b"", Some(3)),
            (b"a\r\n.\r\n", b"a\r\n", Some(6)),
            (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", Some(6)),
            (b"..a\r\n.\r\n", b".a\r\n", Some(8)),
            (b"..\r\n.\r\n", b".\r\n", Some(7)),
            (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n", Some(10)),
            (b"a\n.\n", b"a\n.\n", None),
            (b"a\n.\r\n", b"a\n.\r\n", None),
            (b"a\r\n.\n", b"a\r\n\n", None),
            (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n", Some(9)),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\r\n", Some(10)),
        ];
        for (octets, content, end) in table {
            assert_eq!(read(&[octets]), (content.to_vec(), *end), "{octets:?}");
        }
    }

    #[test]
    fn any_chunking_gives_the_same_message() {
        let octets: &[u8] = b"x\r\n..dot\r\n\r\nlong \r middle\r\n.\rno\r\n.\r\nMAIL";
        let whole = read(&[octets]);
        assert_eq!(whole.1, Some(octets.len() - 4));
        for first in 0..octets.len() {
            for second in first..octets.len() {
                let parts = [&octets[..first], &octets[first..second], &octets[second..]];
                assert_eq!(read(&parts), whole, "split at {first} and {second}");
            }
        }
    }
}
