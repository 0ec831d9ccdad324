//! Dot-stuffing taken away and put on: DATA to BDAT and back (RFC 5321 §4.5.2, RFC 3030; rules C6
//! and C7).
//!
//! Both directions stream and keep one word of state; the result is the same for any chunking.
//! Neither writes or expects the terminating `.CRLF`. What DATA cannot carry is refused rather than
//! repaired: a client that sends BDAT meant its octets.

use std::ops::Range;

use memchr::{memchr, memchr3};

use super::{Offence, Piece};

/// Takes the stuffing from what a `DataScanner` has put out.
#[derive(Clone, Debug, Default)]
pub struct Unstuffer(Place);

/// Puts the stuffing on the content of BDAT.
#[derive(Clone, Debug, Default)]
pub struct Stuffer {
    place: Place,
    refused: Option<UnfitForData>,
}

/// Why octets that came by BDAT cannot go on by DATA: `554 5.6.3`, and the backend's connection is
/// closed without end of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitForData {
    /// DATA cannot carry it unchanged.
    #[error(transparent)]
    Octet(#[from] Offence),
    /// The last line has no CRLF.
    #[error("no line end at the end")]
    NoLineEnd,
}

/// Named for the octets just seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// CRLF, or nothing yet.
    #[default]
    LineStart,
    Within,
    Cr,
}

impl Unstuffer {
    /// Gives `put` the ranges of `input` that are content, in order and never empty.
    pub fn unstuff(&mut self, input: &[u8], mut put: impl FnMut(Range<usize>)) {
        let (mut from, mut at) = (0, 0);
        while let Some(&octet) = input.get(at) {
            match (self.0, octet) {
                (Place::LineStart, b'.') => {
                    if at > from {
                        put(from..at);
                    }
                    at += 1;
                    from = at;
                    self.0 = Place::Within;
                }
                (Place::Within | Place::LineStart, _) => {
                    let cr = memchr(b'\r', &input[at..]);
                    self.0 = cr.map_or(Place::Within, |_| Place::Cr);
                    at = cr.map_or(input.len(), |found| at + found + 1);
                }
                (Place::Cr, b'\n') => {
                    at += 1;
                    self.0 = Place::LineStart;
                }
                (Place::Cr, _) => self.0 = Place::Within,
            }
        }
        if at > from {
            put(from..at);
        }
    }
}

impl Stuffer {
    /// Gives `put` what goes on, in order: at most two octets for each that came.
    ///
    /// # Errors
    /// When the content cannot be sent by DATA. Part of it may have been put out; every later call
    /// fails the same way.
    pub fn stuff(&mut self, input: &[u8], mut put: impl FnMut(Piece)) -> Result<(), UnfitForData> {
        let (mut from, mut at) = (0, 0);
        while let Some(&octet) = input.get(at) {
            if let Some(refused) = self.refused {
                return Err(refused);
            }
            match (self.place, octet) {
                (Place::LineStart, b'.') => {
                    if at > from {
                        put(Piece::Range(from..at));
                    }
                    put(Piece::Insert(b"."));
                    from = at;
                    at += 1;
                    self.place = Place::Within;
                }
                (Place::Within | Place::LineStart, _) => at = self.skim(input, at),
                (Place::Cr, b'\n') => {
                    at += 1;
                    self.place = Place::LineStart;
                }
                (Place::Cr, _) => self.refused = Some(UnfitForData::Octet(Offence::BareCr)),
            }
        }
        if at > from {
            put(Piece::Range(from..at));
        }
        self.refused.map_or(Ok(()), Err)
    }

    /// To be asked behind the last octet, before the end of data is written.
    ///
    /// A message without any octet is fit: to DATA it is `.CRLF` at once (rule D1).
    ///
    /// # Errors
    /// When the content does not end with CRLF, or was refused before.
    pub fn finish(&self) -> Result<(), UnfitForData> {
        match (self.refused, self.place) {
            (Some(refused), _) => Err(refused),
            (None, Place::LineStart) => Ok(()),
            (None, Place::Within) => Err(UnfitForData::NoLineEnd),
            (None, Place::Cr) => Err(UnfitForData::Octet(Offence::BareCr)),
        }
    }

    /// Passes over lines that need nothing; where to go on.
    fn skim(&mut self, input: &[u8], from: usize) -> usize {
        self.place = Place::Within;
        let mut at = from;
        while let Some(found) = memchr3(b'\r', b'\n', 0, &input[at..]) {
            at += found;
            match (input[at], input.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    at += 2;
                    if matches!(input.get(at), Some(b'.') | None) {
                        self.place = Place::LineStart;
                        return at;
                    }
                }
                (b'\r', None) => {
                    self.place = Place::Cr;
                    return at + 1;
                }
                (octet, _) => {
                    self.refused = Some(match octet {
                        b'\r' => UnfitForData::Octet(Offence::BareCr),
                        b'\n' => UnfitForData::Octet(Offence::BareLf),
                        _ => UnfitForData::Octet(Offence::Nul),
                    });
                    return at;
                }
            }
        }
        input.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unstuffed(chunks: &[&[u8]]) -> Vec<u8> {
        let mut unstuffer = Unstuffer::default();
        let mut content = Vec::new();
        for chunk in chunks {
            unstuffer.unstuff(chunk, |range| content.extend_from_slice(&chunk[range]));
        }
        content
    }

    fn stuffed(chunks: &[&[u8]]) -> Result<Vec<u8>, UnfitForData> {
        let mut stuffer = Stuffer::default();
        let mut wire = Vec::new();
        for chunk in chunks {
            stuffer.stuff(chunk, |piece| wire.extend_from_slice(piece.octets(chunk)))?;
        }
        stuffer.finish()?;
        Ok(wire)
    }

    /// Octets of which many are special, and whole pieces of which more are.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let word: &[&[u8]] = &[
            b".",
            b"..",
            b"\r\n",
            b"\r\n",
            b"x",
            b" y",
            b"\xff",
            b"\r\n.\r\n",
        ];
        let word = proptest::sample::select(word);
        proptest::collection::vec(word, 0..20).prop_map(|words| words.concat())
    }

    #[test]
    fn a_dot_at_the_beginning_of_a_line_is_doubled_and_taken_back() {
        let table: [(&[u8], &[u8]); 7] = [
            (b"", b""),
            (b"a\r\n", b"a\r\n"),
            (b".\r\n", b"..\r\n"),
            (b"..a.\r\n", b"...a.\r\n"),
            (b"a\r\n.b\r\n", b"a\r\n..b\r\n"),
            (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n"),
            (b"\xff.\r\n\r\n", b"\xff.\r\n\r\n"),
        ];
        for (content, wire) in table {
            assert_eq!(stuffed(&[content]), Ok(wire.to_vec()));
            assert_eq!(unstuffed(&[wire]), content);
        }
    }

    #[test]
    fn a_sender_that_forgot_to_stuff_loses_its_dot_as_at_any_server() {
        assert_eq!(unstuffed(&[b".a\r\n..\r\n...\r\n"]), b"a\r\n.\r\n..\r\n");
    }

    #[test]
    fn rule_c6_what_data_cannot_carry_is_refused_in_any_chunks() {
        let table: [(&[u8], UnfitForData); 10] = [
            (b"a", UnfitForData::NoLineEnd),
            (b".", UnfitForData::NoLineEnd),
            (b"a\r\nb", UnfitForData::NoLineEnd),
            (b"a\r", UnfitForData::Octet(Offence::BareCr)),
            (b"a\rb\r\n", UnfitForData::Octet(Offence::BareCr)),
            (b"a\r\r\n", UnfitForData::Octet(Offence::BareCr)),
            (b"a\nb\r\n", UnfitForData::Octet(Offence::BareLf)),
            (b"\n", UnfitForData::Octet(Offence::BareLf)),
            (b"a\r\n.\n", UnfitForData::Octet(Offence::BareLf)),
            (b"a\0b\r\n", UnfitForData::Octet(Offence::Nul)),
        ];
        for (content, reason) in table {
            let octets: Vec<_> = content.chunks(1).collect();
            assert_eq!(
                stuffed(&[content]),
                Err(reason),
                "{}",
                content.escape_ascii()
            );
            assert_eq!(stuffed(&octets), Err(reason), "{}", content.escape_ascii());
        }
    }

    #[test]
    fn what_was_refused_stays_refused() {
        let mut stuffer = Stuffer::default();
        assert_eq!(
            stuffer.stuff(b"a\nb", |_| ()),
            Err(UnfitForData::Octet(Offence::BareLf))
        );
        assert_eq!(
            stuffer.stuff(b"c\r\n", |_| ()),
            Err(UnfitForData::Octet(Offence::BareLf))
        );
        assert_eq!(stuffer.finish(), Err(UnfitForData::Octet(Offence::BareLf)));
    }

    proptest! {
        #[test]
        fn unstuffing_undoes_stuffing_in_any_chunks(
            mut content in content(),
            cut in 0_usize..60,
            size in 1_usize..9,
        ) {
            content.extend_from_slice(b"\r\n");
            let (left, right) = content.split_at(cut.min(content.len()));
            let wire = stuffed(&[left, right]).expect("it has whole lines only");
            prop_assert_eq!(&stuffed(&content.chunks(size).collect::<Vec<_>>()), &Ok(wire.clone()));
            prop_assert_eq!(unstuffed(&wire.chunks(size).collect::<Vec<_>>()), content);
            let lone = [b"\r\n".as_slice(), &wire].concat();
            prop_assert!(!lone.windows(5).any(|window| window == b"\r\n.\r\n"));
        }
    }
}
