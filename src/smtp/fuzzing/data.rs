//! What the fuzzer of message content checks; unit tests replay its corpus and ask it themselves.
//!
//! The rules are said a second time here, slowly and of a whole message only, and a receiver is
//! played that is more lenient than any server: it ends lines at CRLF, LF and CR alike.

use super::super::{
    DataCounts, DataProgress, DataScanner, LineEndings, Offence, Piece, Stuffer, UnfitForData,
    Unstuffer,
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
        check_prefixes(line_endings, &input);
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
                if line == b"." {
                    line.push(b'.');
                }
                offence.get_or_insert((Offence::Nul, output.len() + line.len()));
            }
            line.push(octet);
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
    assert!(!has_end_for_anyone(output), "{}", output.escape_ascii());
    assert_clean(output);
    let Some((_, None)) = scanned.end else {
        return;
    };
    assert!(output.is_empty() || output.ends_with(b"\r\n"));
    let sent = [output, b".\r\n".as_slice()].concat();
    let again = scan(line_endings, &[&sent]);
    assert_eq!(
        (&again.output, again.end),
        (output, Some((sent.len(), None)))
    );
    let repairs = again.counts.bare_cr + again.counts.bare_lf + again.counts.lone_dots;
    assert_eq!(repairs, 0);
    check_stuffing(output, scanned.counts.message());
}

/// Rules D3 and D8, for a receiver to whom CRLF, LF and CR are all line ends, and NUL ends what it
/// sees of a line.
fn has_end_for_anyone(output: &[u8]) -> bool {
    output
        .split_inclusive(|octet| matches!(octet, b'\r' | b'\n'))
        .any(|line| matches!(line, b".\r" | b".\n") || line.starts_with(b".\0"))
}

fn assert_clean(output: &[u8]) {
    for (at, octet) in output.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(output.get(at + 1), Some(&b'\n'), "bare CR"),
            b'\n' => assert_eq!(output[..at].last(), Some(&b'\r'), "bare LF"),
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
        match stuffer.stuff(chunk, |piece| {
            stuffed.extend_from_slice(piece.octets(chunk));
        }) {
            Ok(()) => {}
            Err(refusal) => {
                assert_eq!(refusal, UnfitForData::Octet(Offence::Nul));
                assert!(content.contains(&0));
                return;
            }
        }
    }
    assert_eq!(stuffer.finish(), Ok(()));
    assert_eq!(unstuff(&[&stuffed]), content);
}

/// A message that breaks off has put out the beginning of what the whole would have, and never
/// an end.
fn check_prefixes(line_endings: LineEndings, input: &[u8]) {
    for length in (0..input.len()).take(24) {
        let part = scan(line_endings, &[&input[..length]]);
        assert_eq!(part, scan(line_endings, &cut(&input[..length], &[1])));
        assert!(!has_end_for_anyone(&part.output));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: &[&[u8]] = &[
        b"\r\n", b"\n", b"\r", b".", b"\r\n.", b"\n.\r\n", b"x", b"text ", b"\0", b"\xfe",
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

    /// All messages of up to seven octets out of four kinds: every path through the scanner.
    #[test]
    fn every_short_message_is_scanned_as_the_rules_say_in_any_chunks() {
        let kinds = *b"\r\n.x";
        for length in 0..=7_u32 {
            for number in 0..4_usize.pow(length) {
                let octet = |place: u32| kinds[number >> (2 * place) & 3];
                let mut data = vec![0x21];
                data.extend((0..length).map(octet));
                fuzz_data(&data);
            }
        }
    }

    proptest! {
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
