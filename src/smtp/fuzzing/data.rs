//! What the fuzzer of message content checks; unit tests replay its corpus and ask it themselves.
//!
//! The rules are said a second time here, slowly and of a whole message only, and receivers are
//! played that differ in what ends a line and in what they make of CR and NUL: each must find the
//! one end that the client was told of.

use super::super::{
    DataCounts, DataProgress, DataScanner, LineEndings, Offence, Piece, Stuffer, Unstuffer,
};

/// What becomes of octets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scanned {
    output: Vec<u8>,
    end: Option<(usize, Option<Offence>)>,
    counts: DataCounts,
}

/// The first octet says how the rest comes in; behind the rest the message is ended, so that it
/// always ends somewhere.
///
/// # Panics
/// When the scanner is wrong.
pub fn fuzz_data(data: &[u8]) {
    let (first, content) = data.split_first().unwrap_or((&0, &[]));
    let input = [content, b"\r\n.\r\nMAIL\r\n.\r\n"].concat();
    let sizes = [usize::from(first & 15) + 1, usize::from(first >> 4) + 1];
    for line_endings in [LineEndings::Normalize, LineEndings::Reject] {
        let at_once = scan(line_endings, &[&input]);
        for chunks in [cut(&input, &[1]), cut(&input, &sizes)] {
            assert_eq!(
                scan(line_endings, &chunks),
                at_once,
                "{}",
                input.escape_ascii()
            );
        }
        let expected = expected(line_endings, &input);
        assert_eq!(at_once, expected, "{}", input.escape_ascii());
        check_output(line_endings, &at_once);
        check_prefixes(line_endings, &input, &at_once);
    }
}

/// Pieces of the given sizes, over and over.
fn cut<'a>(mut octets: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if octets.is_empty() {
            break;
        }
        let (chunk, rest) = octets.split_at(octets.len().min(*size));
        chunks.push(chunk);
        octets = rest;
    }
    chunks
}

fn scan(line_endings: LineEndings, chunks: &[&[u8]]) -> Scanned {
    let mut scanner = DataScanner::new(line_endings);
    let mut output = Vec::new();
    let (mut before, mut end) = (0, None);
    for chunk in chunks {
        let already = output.len();
        let progress = scanner.scan(chunk, |piece| {
            assert!(
                matches!(&piece, Piece::Insert(octets) if octets.len() <= 4)
                    || matches!(&piece, Piece::Range(range) if !range.is_empty())
            );
            output.extend_from_slice(piece.octets(chunk));
        });
        assert!(output.len() - already <= 2 * chunk.len() + 2);
        end = match progress {
            DataProgress::More => None,
            DataProgress::Ended { consumed } => Some((before + consumed, None)),
            DataProgress::Refused { consumed, offence } => Some((before + consumed, Some(offence))),
        };
        if end.is_some() {
            let behind = scanner.scan(b"x\n", |piece| output.extend(piece.octets(b"x\n")));
            assert_ne!(behind, DataProgress::More, "there is but one end");
            break;
        }
        before += chunk.len();
    }
    Scanned {
        output,
        end,
        counts: *scanner.counts(),
    }
}

/// Rules D1, D4, D5 and D8.
fn expected(line_endings: LineEndings, input: &[u8]) -> Scanned {
    let begins = |at: usize| at == 0 || input[..at].ends_with(b"\r\n");
    let end = (0..input.len()).find(|&at| begins(at) && input[at..].starts_with(b".\r\n"));
    let end = end.expect("each message is ended");
    let mut counts = DataCounts {
        wire_in: end as u64 + 3,
        ..DataCounts::default()
    };
    let (mut output, mut line) = (Vec::new(), Vec::new());
    let mut offence: Option<(Offence, usize)> = None;
    let mut after_lf = false;
    let mut octets = input[..end].iter().enumerate();
    while let Some((at, &octet)) = octets.next() {
        let is_crlf = octet == b'\r' && input[at + 1] == b'\n';
        if is_crlf || octet == b'\n' {
            let lone_dot = line == b".";
            if lone_dot {
                assert!(after_lf || !is_crlf, "or it were the end");
                line.push(b'.');
                counts.lone_dots += 1;
            }
            if is_crlf {
                octets.next();
            } else {
                counts.bare_lf += 1;
                // The dot of such a line is held back when the offence is seen.
                let kept = if lone_dot { 0 } else { line.len() };
                offence.get_or_insert((Offence::BareLf, output.len() + kept));
            }
            line.extend_from_slice(b"\r\n");
            let dot = u64::from(line[0] == b'.');
            counts.dots += dot;
            counts.lines += 1;
            counts.longest_line = counts.longest_line.max(line.len() as u64 - dot);
            output.append(&mut line);
            after_lf = !is_crlf;
        } else if octet == b'\r' {
            counts.bare_cr += 1;
            offence.get_or_insert((Offence::BareCr, output.len() + line.len()));
            line.push(b' ');
        } else {
            if octet == 0 {
                counts.nul += 1;
                offence.get_or_insert((Offence::Nul, output.len() + line.len()));
            }
            line.push(if octet == 0 { b' ' } else { octet });
        }
    }
    assert!(line.is_empty(), "the end stands behind CRLF");
    counts.wire_out = output.len() as u64;
    let offence = offence.filter(|_| line_endings == LineEndings::Reject);
    if let Some((_, kept)) = offence {
        output.truncate(kept);
    }
    Scanned {
        output,
        end: Some((end + 3, offence.map(|(offence, _)| offence))),
        counts,
    }
}

/// What no output may contain, and what must come of it when it is read again.
fn check_output(line_endings: LineEndings, scanned: &Scanned) {
    let output = &scanned.output;
    assert_no_end(output);
    assert_clean(output);
    let Some((_, None)) = scanned.end else {
        return;
    };
    assert!(output.is_empty() || output.ends_with(b"\r\n"));
    let sent = [output, b".\r\n".as_slice()].concat();
    for receiver in Receiver::all() {
        let end = receiver.end_of(&sent);
        assert_eq!(
            end,
            Some(sent.len()),
            "{receiver:?}: {}",
            sent.escape_ascii()
        );
    }
    let again = scan(line_endings, &[&sent]);
    assert_eq!(
        (&again.output, again.end),
        (output, Some((sent.len(), None)))
    );
    let again_counts = &again.counts;
    let repairs = again_counts.bare_cr + again_counts.bare_lf + again_counts.nul;
    let repairs = repairs + again_counts.lone_dots;
    assert_eq!(repairs, 0);
    check_stuffing(output, scanned.counts.message());
}

/// What a receiver takes for the end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndsLine {
    /// CRLF and nothing else.
    Crlf,
    /// LF, with or without CR before it.
    Lf,
    /// LF, once every CR was dropped.
    LfWithoutCr,
    /// Each of CR and LF.
    Any,
}

/// What a receiver makes of NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakesNul {
    AsIs,
    Drops,
    /// As the end of what it sees of a line, which it reads as a C string.
    AsEndOfText,
}

/// A server as servers are (rules D3 and D8).
#[derive(Clone, Copy, Debug)]
struct Receiver {
    line: EndsLine,
    nul: TakesNul,
}

impl Receiver {
    fn all() -> impl Iterator<Item = Self> {
        let lines = [
            EndsLine::Crlf,
            EndsLine::Lf,
            EndsLine::LfWithoutCr,
            EndsLine::Any,
        ];
        let nuls = [TakesNul::AsIs, TakesNul::Drops, TakesNul::AsEndOfText];
        let each = move |line| nuls.map(|nul| Self { line, nul });
        lines.into_iter().flat_map(each)
    }

    /// Where the first message of `wire` ends for it: behind the first line that is a dot.
    fn end_of(self, wire: &[u8]) -> Option<usize> {
        let mut line = Vec::new();
        for (at, &octet) in wire.iter().enumerate() {
            let ends = match self.line {
                EndsLine::Crlf => octet == b'\n' && line.last() == Some(&b'\r'),
                EndsLine::Lf | EndsLine::LfWithoutCr => octet == b'\n',
                EndsLine::Any => matches!(octet, b'\r' | b'\n'),
            };
            if ends {
                if self.text_of(&line) == b"." {
                    // Some take CR for an end already, and LF behind it for one more line.
                    let rest = &wire[at + 1..];
                    let is_half = octet == b'\r' && rest.starts_with(b"\n");
                    return Some(at + 1 + usize::from(is_half));
                }
                line.clear();
            } else {
                let is_dropped = match octet {
                    b'\r' => self.line == EndsLine::LfWithoutCr,
                    0 => self.nul == TakesNul::Drops,
                    _ => false,
                };
                line.extend((!is_dropped).then_some(octet));
            }
        }
        None
    }

    /// What it sees of a line.
    fn text_of(self, line: &[u8]) -> &[u8] {
        let line = match self.line {
            EndsLine::Crlf | EndsLine::Lf => line.strip_suffix(b"\r").unwrap_or(line),
            EndsLine::LfWithoutCr | EndsLine::Any => line,
        };
        match self.nul {
            TakesNul::AsIs | TakesNul::Drops => line,
            TakesNul::AsEndOfText => line.split(|&octet| octet == 0).next().unwrap_or(line),
        }
    }
}

/// Nobody finds an end in it.
fn assert_no_end(output: &[u8]) {
    for receiver in Receiver::all() {
        let end = receiver.end_of(output);
        assert_eq!(end, None, "{receiver:?}: {}", output.escape_ascii());
    }
}

fn assert_clean(output: &[u8]) {
    for (at, octet) in output.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(output.get(at + 1), Some(&b'\n'), "bare CR"),
            b'\n' => assert_eq!(output[..at].last(), Some(&b'\r'), "bare LF"),
            0 => unreachable!("NUL in {}", output.escape_ascii()),
            _ => {}
        }
    }
}

/// To BDAT and back to DATA (rules C6, C7).
fn check_stuffing(wire: &[u8], message: u64) {
    let unstuff = |chunks: &[&[u8]]| {
        let mut unstuffer = Unstuffer::default();
        let mut content = Vec::new();
        for chunk in chunks {
            unstuffer.unstuff(chunk, |range| content.extend_from_slice(&chunk[range]));
        }
        content
    };
    let content = unstuff(&[wire]);
    assert_eq!(content.len() as u64, message, "SIZE counts what BDAT sends");
    assert_eq!(unstuff(&cut(wire, &[1])), content);
    let mut stuffer = Stuffer::default();
    let mut stuffed = Vec::new();
    for chunk in cut(&content, &[3, 1, 7]) {
        let fit = stuffer.stuff(chunk, |piece| {
            stuffed.extend_from_slice(piece.octets(chunk));
        });
        assert_eq!(fit, Ok(()), "what DATA has carried, it can carry");
    }
    assert_eq!(stuffer.finish(), Ok(()));
    assert_eq!(unstuff(&[&stuffed]), content);
}

/// A message that breaks off has put out the beginning of what the whole has, in which nobody finds
/// an end.
fn check_prefixes(line_endings: LineEndings, input: &[u8], whole: &Scanned) {
    for length in (0..input.len()).take(24) {
        let part = scan(line_endings, &[&input[..length]]);
        assert_eq!(part, scan(line_endings, &cut(&input[..length], &[1])));
        assert!(whole.output.starts_with(&part.output));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: &[&[u8]] = &[
        b"\r\n", b"\n", b"\r", b".", b"\r\n.", b"\n.\r\n", b"x", b"text ", b"\0", b"\0.\0", b"\xfe",
    ];

    #[test]
    fn the_corpus_of_message_content_is_handled() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/data");
        let mut entries = 0;
        for entry in std::fs::read_dir(corpus).expect("the corpus is part of the house") {
            let path = entry.expect("the corpus can be listed").path();
            fuzz_data(&std::fs::read(path).expect("an entry can be read"));
            entries += 1;
        }
        assert!(entries > 20, "{entries} entries in {corpus}");
    }

    /// All messages of up to seven octets out of four kinds, and of up to six with NUL for letters:
    /// every path through the scanner.
    #[test]
    fn every_short_message_is_scanned_as_the_rules_say_in_any_chunks() {
        for (kinds, longest) in [(b"\r\n.x".as_slice(), 7_u32), (b"\r\n.\0", 6)] {
            for length in 0..=longest {
                for number in 0..kinds.len().pow(length) {
                    let octet = |place| kinds[number / kinds.len().pow(place) % kinds.len()];
                    let mut data = vec![0x21];
                    data.extend((0..length).map(octet));
                    fuzz_data(&data);
                }
            }
        }
    }

    /// What a backend gets of the messages that come in `chunks`, and how many the client was told
    /// of.
    fn relayed(chunks: &[&[u8]]) -> (Vec<u8>, usize) {
        let (mut wire, mut told) = (Vec::new(), 0);
        let mut scanner = DataScanner::new(LineEndings::Normalize);
        for chunk in chunks {
            let mut rest = *chunk;
            while !rest.is_empty() {
                let put = |piece: Piece| wire.extend_from_slice(piece.octets(rest));
                match scanner.scan(rest, put) {
                    DataProgress::More => break,
                    DataProgress::Ended { consumed } => {
                        wire.extend_from_slice(b".\r\n");
                        told += 1;
                        rest = &rest[consumed..];
                        scanner = DataScanner::new(LineEndings::Normalize);
                    }
                    DataProgress::Refused { .. } => unreachable!("nothing is refused"),
                }
            }
        }
        (wire, told)
    }

    proptest! {
        #[test]
        fn rule_d8_every_server_counts_the_messages_that_the_client_was_told_of(
            words in proptest::collection::vec(
                proptest::sample::select(WORDS),
                0..60,
            ),
            sizes in proptest::collection::vec(1_usize..20, 1..4),
        ) {
            let input = [words.concat().as_slice(), b"\r\n.\r\n"].concat();
            let (wire, told) = relayed(&[&input]);
            prop_assert!(told > 0);
            prop_assert_eq!(&relayed(&cut(&input, &sizes)), &(wire.clone(), told));
            for receiver in Receiver::all() {
                let (mut rest, mut counted) = (&wire[..], 0);
                while let Some(end) = receiver.end_of(rest) {
                    rest = &rest[end..];
                    counted += 1;
                }
                prop_assert_eq!((counted, rest.len()), (told, 0), "{:?}", receiver);
            }
        }

        #[test]
        fn messages_of_special_octets_are_scanned_as_the_rules_say_in_any_chunks(
            first in any::<u8>(),
            words in proptest::collection::vec(
                proptest::sample::select(WORDS),
                0..40,
            ),
        ) {
            let content = words.concat();
            fuzz_data(&[&[first], content.as_slice()].concat());
        }
    }
}
