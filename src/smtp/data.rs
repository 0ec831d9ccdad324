//! The content of DATA on its way through (RFC 5321 §4.1.1.4, §4.5.2; rules D1 to D12).
//!
//! The scanner finds the one true end, CRLF `.` CRLF, and hands on everything before it in the wire
//! form, dot-stuffing untouched: clean stretches as ranges of the input, repairs as small pieces of
//! our own. It never puts out the terminating `.CRLF`: who holds `Ended` owes it to the backend.
//!
//! Invariant: what was put out contains CR and LF only as CRLF, no NUL, and no line of one dot. So
//! there is nothing in it on which any server ends a message, whether it takes LF for a line end,
//! drops CR or drops NUL (rules D3, D8), and a message that has ended ends with CRLF or is empty.
//! Events, output and counts are the same for any chunking: what cannot be decided yet, at most
//! `.CR`, is held in the scanner.

use std::ops::Range;

use memchr::memchr3;

/// What is done about CR and LF that are not CRLF, and about NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEndings {
    /// LF becomes CRLF, CR becomes SP, a line of one dot becomes a line of two, unless CRLF stands
    /// on both sides of it (rule D4); NUL becomes SP, because a server that drops it could find a
    /// line of one dot behind it, or reads the line only up to it (rule D8).
    #[default]
    Normalize,
    /// The message is refused at its end, and nothing behind the offence is put out (rule D5).
    Reject,
}

/// A part of what goes on to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These octets of the input as they are; never empty.
    Range(Range<usize>),
    /// Octets of ours: a repair, or what was held back from an earlier input; at most four.
    Insert(&'static [u8]),
}

/// Why a message is refused where [`LineEndings::Reject`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Offence {
    /// CR without LF behind it: `550 5.5.2`.
    #[error("bare <CR>")]
    BareCr,
    /// LF without CR before it: `550 5.5.2`.
    #[error("bare <LF>")]
    BareLf,
    /// NUL: `550 5.6.0`.
    #[error("NUL")]
    Nul,
}

/// How far a scan got. Octets behind the consumed ones are the next commands' (rule D9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum DataProgress {
    /// All octets were content; more must come.
    More,
    /// The client has completed the message: the backend is to be sent `.CRLF`.
    Ended {
        /// Octets of this input up to and with the end of data.
        consumed: usize,
    },
    /// The client has completed a message that no backend may be told to be complete.
    Refused {
        /// Octets of this input up to and with the end of data.
        consumed: usize,
        /// The first offence.
        offence: Offence,
    },
}

/// What has been seen so far. Octets that are held back are in `wire_in` only.
///
/// Behind an offence, or when muted, it goes on counting what would have been put out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataCounts {
    /// Octets consumed, with the terminator.
    pub wire_in: u64,
    /// Octets put out, without the terminator.
    pub wire_out: u64,
    /// Lines put out that begin with a dot, which the receiver takes away (RFC 5321 §4.5.2).
    pub dots: u64,
    /// Lines put out.
    pub lines: u64,
    /// The longest complete line with its CRLF, a leading dot not counted (RFC 5321 §4.5.3.1.6).
    pub longest_line: u64,
    /// CR without LF.
    pub bare_cr: u64,
    /// LF without CR.
    pub bare_lf: u64,
    /// Lines of one dot that were no end, because CRLF was missing on a side: on these, servers
    /// disagree (rule D3).
    pub lone_dots: u64,
    /// NUL octets.
    pub nul: u64,
}

impl DataCounts {
    /// The size of the message as SIZE means it (RFC 1870 §3): without dot-stuffing and terminator.
    pub fn message(&self) -> u64 {
        self.wire_out - self.dots
    }
}

impl Piece {
    /// The octets, where `input` is what was scanned.
    pub fn octets<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Range(range) => &input[range.clone()],
            Self::Insert(octets) => octets,
        }
    }
}

/// Reads the content of one message.
#[derive(Clone, Debug)]
pub struct DataScanner {
    line_endings: LineEndings,
    state: State,
    output: Output,
    offence: Option<Offence>,
    counts: DataCounts,
    /// Where in the output the current line begins, a leading dot left out.
    line_from: u64,
}

/// Named for the octets just seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A line end of this kind, or nothing yet.
    LineStart(LineEnd),
    /// A dot behind it, held.
    Dot(LineEnd),
    /// Dot and CR behind it, held.
    DotCr(LineEnd),
    Within,
    /// A CR, held.
    Cr,
    Ended,
}

/// What ended the line before, as the client sent it. The beginning counts as CRLF (rule D1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Crlf,
    Lf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    On,
    Off,
}

/// One call of `scan`.
struct Run<'a, F> {
    input: &'a [u8],
    put: F,
    /// The input before it has been dealt with.
    from: usize,
    /// How many of the held octets came with an earlier input.
    carried: usize,
}

impl State {
    /// How many octets were consumed and not put out.
    fn held(self) -> usize {
        match self {
            Self::LineStart(_) | Self::Within | Self::Ended => 0,
            Self::Dot(_) | Self::Cr => 1,
            Self::DotCr(_) => 2,
        }
    }
}

impl DataScanner {
    /// For the octets behind the 354.
    pub fn new(line_endings: LineEndings) -> Self {
        Self {
            line_endings,
            state: State::LineStart(LineEnd::Crlf),
            output: Output::On,
            offence: None,
            counts: DataCounts::default(),
            line_from: 0,
        }
    }

    /// Takes octets up to the end of data and gives `put` what goes on, in order: at most twice as
    /// many octets as came, and two.
    ///
    /// Behind the end of data nothing is consumed.
    pub fn scan(&mut self, input: &[u8], put: impl FnMut(Piece)) -> DataProgress {
        let mut run = Run {
            input,
            put,
            from: 0,
            carried: self.state.held(),
        };
        let mut at = 0;
        while at < input.len() && self.state != State::Ended {
            at = self.step(&mut run, at);
        }
        let decided = at - (self.state.held() - run.carried);
        self.flush(&mut run, decided);
        self.counts.wire_in += at as u64;
        self.check_invariants();
        match (self.state, self.offence) {
            (State::Ended, None) => DataProgress::Ended { consumed: at },
            (State::Ended, Some(offence)) => DataProgress::Refused {
                consumed: at,
                offence,
            },
            _ => DataProgress::More,
        }
    }

    /// What has been seen so far.
    pub fn counts(&self) -> &DataCounts {
        &self.counts
    }

    /// The first offence, as soon as it is seen: from then on nothing is put out, and the backend's
    /// connection can be closed.
    pub fn offence(&self) -> Option<Offence> {
        self.offence
    }

    /// From now on nothing is put out, for the message has failed; its end is still looked for
    /// (rules D7 and D10).
    pub fn mute(&mut self) {
        self.output = Output::Off;
    }

    /// Deals with the octet at `at`, or with a clean stretch beginning there; where to go on.
    fn step<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, at: usize) -> usize {
        match (self.state, run.input[at]) {
            (State::Within, _) => return self.skim(run, at),
            (State::LineStart(before), b'.') => self.state = State::Dot(before),
            (State::LineStart(_), _) => {
                self.state = State::Within;
                return at;
            }
            (State::Dot(before), b'\r') => self.state = State::DotCr(before),
            (State::Dot(_), b'\n') => {
                self.pass(run, at);
                self.note(Offence::BareLf);
                self.counts.bare_lf += 1;
                self.lone_dot(run, at + 1, LineEnd::Lf);
            }
            (State::Dot(_), _) => {
                self.dot_is_content(run);
                self.state = State::Within;
                return at;
            }
            (State::DotCr(LineEnd::Crlf), b'\n') => {
                self.pass(run, at);
                run.from = at + 1;
                self.state = State::Ended;
            }
            (State::DotCr(LineEnd::Lf), b'\n') => {
                self.pass(run, at);
                self.lone_dot(run, at + 1, LineEnd::Crlf);
            }
            (State::DotCr(_), _) => {
                self.dot_is_content(run);
                self.state = State::Cr;
                self.bare_cr(run, at);
                return at;
            }
            (State::Cr, b'\n') => {
                if run.carried > 0 {
                    self.insert(run, b"\r");
                    run.carried = 0;
                }
                self.end_line(run, at + 1);
                self.state = State::LineStart(LineEnd::Crlf);
            }
            (State::Cr, _) => {
                self.bare_cr(run, at);
                return at;
            }
            (State::Ended, _) => return at,
        }
        at + 1
    }

    /// Passes over clean lines: one search for each, and nothing is put out.
    fn skim<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, from: usize) -> usize {
        let input = run.input;
        let mut at = from;
        while let Some(found) = memchr3(b'\r', b'\n', 0, &input[at..]) {
            at += found;
            match (input[at], input.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    at += 2;
                    self.end_line(run, at);
                    if matches!(input.get(at), Some(b'.') | None) {
                        self.state = State::LineStart(LineEnd::Crlf);
                        return at;
                    }
                }
                (b'\r', _) => {
                    self.state = State::Cr;
                    return at + 1;
                }
                (b'\n', _) => {
                    self.flush(run, at);
                    self.note(Offence::BareLf);
                    self.counts.bare_lf += 1;
                    self.insert(run, b"\r\n");
                    run.from = at + 1;
                    self.end_line(run, at + 1);
                    self.state = State::LineStart(LineEnd::Lf);
                    return at + 1;
                }
                _ => {
                    self.flush(run, at);
                    self.note(Offence::Nul);
                    self.counts.nul += 1;
                    self.insert(run, b" ");
                    at += 1;
                    run.from = at;
                }
            }
        }
        input.len()
    }

    /// What was held is content: a dot at the beginning of a line.
    fn dot_is_content<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>) {
        self.counts.dots += 1;
        self.line_from += 1;
        if run.carried > 0 {
            self.insert(run, b".");
            run.carried -= 1;
        }
    }

    /// In place of a held CR, with something else than LF at `at`.
    fn bare_cr<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, at: usize) {
        self.pass(run, at);
        self.note(Offence::BareCr);
        self.counts.bare_cr += 1;
        self.insert(run, b" ");
        self.state = State::Within;
    }

    /// In place of a line of one dot that ends at `end` and is no end of data. The dot added is
    /// taken away by the receiver.
    fn lone_dot<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, end: usize, kind: LineEnd) {
        self.counts.lone_dots += 1;
        self.counts.dots += 1;
        self.line_from += 1;
        self.insert(run, b"..\r\n");
        run.from = end;
        self.end_line(run, end);
        self.state = State::LineStart(kind);
    }

    /// Puts out what stands before the held octets, and leaves these out.
    fn pass<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, at: usize) {
        let held = self.state.held() - run.carried;
        self.flush(run, at - held);
        run.from = at;
        run.carried = 0;
    }

    /// Puts out the input up to `to`.
    fn flush<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, to: usize) {
        if to > run.from {
            self.counts.wire_out += (to - run.from) as u64;
            if self.output == Output::On {
                (run.put)(Piece::Range(run.from..to));
            }
            run.from = to;
        }
    }

    fn insert<F: FnMut(Piece)>(&mut self, run: &mut Run<'_, F>, octets: &'static [u8]) {
        self.counts.wire_out += octets.len() as u64;
        if self.output == Output::On {
            (run.put)(Piece::Insert(octets));
        }
    }

    /// Counts a line whose CRLF ends at `end` of the input.
    fn end_line<F>(&mut self, run: &Run<'_, F>, end: usize) {
        let end = self.counts.wire_out + (end - run.from) as u64;
        self.counts.lines += 1;
        self.counts.longest_line = self.counts.longest_line.max(end - self.line_from);
        self.line_from = end;
    }

    /// Takes note of an offence, before which everything has been put out.
    fn note(&mut self, offence: Offence) {
        if self.line_endings == LineEndings::Reject {
            self.offence.get_or_insert(offence);
            self.output = Output::Off;
        }
    }

    fn check_invariants(&self) {
        let counts = &self.counts;
        debug_assert!(counts.dots <= counts.lines + 1 && counts.lone_dots <= counts.dots);
        debug_assert!(counts.lone_dots <= 2 * counts.bare_lf);
        debug_assert!(counts.wire_out <= 2 * counts.wire_in);
        debug_assert!(self.line_from <= counts.wire_out);
        let offences = counts.bare_cr + counts.bare_lf + counts.nul;
        let rejects = self.line_endings == LineEndings::Reject;
        debug_assert_eq!(self.offence.is_some(), rejects && offences > 0);
        if self.state == State::Ended {
            debug_assert_eq!(self.line_from, counts.wire_out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output and progress, of input that comes at once.
    fn scan(line_endings: LineEndings, input: &[u8]) -> (Vec<u8>, DataProgress, DataCounts) {
        let mut scanner = DataScanner::new(line_endings);
        let mut output = Vec::new();
        let progress = scanner.scan(input, |piece| {
            output.extend_from_slice(piece.octets(input));
        });
        (output, progress, *scanner.counts())
    }

    fn ended(consumed: usize) -> DataProgress {
        DataProgress::Ended { consumed }
    }

    #[test]
    fn rule_d1_only_crlf_dot_crlf_ends_a_message() {
        let table: [(&[u8], &[u8], DataProgress); 9] = [
            (b".\r\n", b"", ended(3)),
            (b"\r\n.\r\n", b"\r\n", ended(5)),
            (b"a\r\n.\r\n", b"a\r\n", ended(6)),
            // Rule D2: stuffing stays.
            (b"..\r\n.\r\n", b"..\r\n", ended(7)),
            (b".a\r\n..b\r\n.\r\n", b".a\r\n..b\r\n", ended(12)),
            // Rule D9: what follows is left alone.
            (b"a\r\n.\r\nQUIT\r\n.\r\n", b"a\r\n", ended(6)),
            // Rule D12: any octets.
            (b"\xff\x80\t\r\n.\r\n", b"\xff\x80\t\r\n", ended(8)),
            (b"a\r\n. \r\n", b"a\r\n. \r\n", DataProgress::More),
            (b"a.\r\n", b"a.\r\n", DataProgress::More),
        ];
        for (input, output, progress) in table {
            for line_endings in [LineEndings::Normalize, LineEndings::Reject] {
                let (found, end, _) = scan(line_endings, input);
                assert_eq!(
                    (&*found, end),
                    (output, progress),
                    "{}",
                    input.escape_ascii()
                );
            }
        }
    }

    /// (What stands between two messages, what is left of it, the first offence.)
    const SMUGGLED: [(&[u8], &[u8], Offence); 19] = [
        // The variants on which servers are known to differ.
        (b"\n.\n", b"\r\n..\r\n", Offence::BareLf),
        (b"\n.\r\n", b"\r\n..\r\n", Offence::BareLf),
        (b"\r\n.\n", b"\r\n..\r\n", Offence::BareLf),
        (b"\r\n.\r", b"\r\n. ", Offence::BareCr),
        (b"\r.\r\n", b" .\r\n", Offence::BareCr),
        (b"\r.\r", b" . ", Offence::BareCr),
        // And their relatives.
        (b"\r.\n", b" .\r\n", Offence::BareCr),
        (b"\n.\r", b"\r\n. ", Offence::BareLf),
        (b"\r\r\n.\r\r\n", b" \r\n. \r\n", Offence::BareCr),
        (b"\r\n.\r\r\n", b"\r\n. \r\n", Offence::BareCr),
        (b"\n\n.\n\n", b"\r\n\r\n..\r\n\r\n", Offence::BareLf),
        (b"\r\n\0.\n", b"\r\n .\r\n", Offence::Nul),
        // What a server finds that drops NUL.
        (b"\r\n\0.\r\n", b"\r\n .\r\n", Offence::Nul),
        (b"\r\n.\0\r\n", b"\r\n. \r\n", Offence::Nul),
        (b"\r\n\0.\0\r\n", b"\r\n . \r\n", Offence::Nul),
        (b"\n\0.\0\n", b"\r\n . \r\n", Offence::BareLf),
        (b"\n.\0\n", b"\r\n. \r\n", Offence::BareLf),
        (b"\r\0\n.\r\n", b"  \r\n..\r\n", Offence::BareCr),
        (b"\r\n.\r\0\n", b"\r\n.  \r\n", Offence::BareCr),
    ];

    #[test]
    fn rules_d3_d4_no_variant_of_the_end_smuggles_a_second_message() {
        for (variant, repaired, _) in SMUGGLED {
            let input = [b"a", variant, b"MAIL FROM:<b@c>\r\n.\r\nQUIT\r\n"].concat();
            let (output, end, counts) = scan(LineEndings::Normalize, &input);
            let expected = [b"a", repaired, b"MAIL FROM:<b@c>\r\n"].concat();
            assert_eq!(output, expected, "{}", variant.escape_ascii());
            assert_eq!(end, ended(input.len() - 6));
            assert!(counts.bare_cr + counts.bare_lf + counts.nul > 0);
        }
    }

    #[test]
    fn rules_d3_d5_where_they_are_rejected_all_variants_are_refused_at_the_true_end() {
        for (variant, _, offence) in SMUGGLED {
            let input = [b"a", variant, b"MAIL FROM:<b@c>\r\n.\r\nQUIT\r\n"].concat();
            let (output, end, _) = scan(LineEndings::Reject, &input);
            let consumed = input.len() - 6;
            assert_eq!(end, DataProgress::Refused { consumed, offence });
            assert!(input.starts_with(&output), "{}", output.escape_ascii());
            assert!(output.len() <= 1 + variant.len());
        }
    }

    #[test]
    fn a_lone_dot_at_the_very_beginning_is_one_too() {
        for (input, output) in [
            (b".\na\r\n.\r\n".as_slice(), b"..\r\na\r\n".as_slice()),
            (b"\n.\r\n.\r\n", b"\r\n..\r\n"),
            (b".\n.\r\n.\r\n", b"..\r\n..\r\n"),
        ] {
            let (found, end, counts) = scan(LineEndings::Normalize, input);
            assert_eq!((&*found, end), (output, ended(input.len())));
            assert!(counts.lone_dots > 0);
        }
    }

    /// OpenSMTPD takes a line as a C string and ends the message at a dot with NUL behind it; others
    /// drop NUL.
    #[test]
    fn rule_d8_nul_becomes_a_space_or_is_refused() {
        let table: [(&[u8], &[u8], u64); 5] = [
            (b"a\0b\r\n\0\r\n.\r\n", b"a b\r\n \r\n", 2),
            (b".\0a\r\n.\0\r\n..\0\r\n.\r\n", b". a\r\n. \r\n.. \r\n", 3),
            (b"\0.\r\n\0\0\0.\0\r\n.\r\n", b" .\r\n   . \r\n", 5),
            (b"\n.\0\n.\r\0\r\n.\r\n", b"\r\n. \r\n.  \r\n", 2),
            (b"\0\r\n.\r\n", b" \r\n", 1),
        ];
        for (input, expected, nul) in table {
            let (output, end, counts) = scan(LineEndings::Normalize, input);
            assert_eq!(
                (&*output, end),
                (expected, ended(input.len())),
                "{}",
                input.escape_ascii()
            );
            assert_eq!((counts.nul, counts.lone_dots), (nul, 0));
        }
        let input = b"a\0b\r\n\0\r\n.\r\n";
        let (output, end, _) = scan(LineEndings::Reject, input);
        assert_eq!(output, b"a");
        let refused = DataProgress::Refused {
            consumed: 11,
            offence: Offence::Nul,
        };
        assert_eq!(end, refused);
    }

    #[test]
    fn the_first_offence_is_known_at_once_and_named() {
        let mut scanner = DataScanner::new(LineEndings::Reject);
        assert_eq!(scanner.scan(b"a\r", |_| ()), DataProgress::More);
        assert_eq!(scanner.offence(), None);
        assert_eq!(scanner.scan(b"b\n\0", |_| ()), DataProgress::More);
        assert_eq!(scanner.offence(), Some(Offence::BareCr));
    }

    #[test]
    fn clean_mail_is_put_out_as_one_range_for_each_input() {
        let line = b"The quick brown fox jumps over the lazy dog.\r\n..stuffed\r\n\r\n";
        let mail = [line.repeat(100).as_slice(), b".\r\n"].concat();
        let mut pieces = Vec::new();
        let mut scanner = DataScanner::new(LineEndings::Normalize);
        assert_eq!(
            scanner.scan(&mail, |piece| pieces.push(piece)),
            ended(mail.len())
        );
        assert_eq!(pieces, [Piece::Range(0..mail.len() - 3)]);
    }

    #[test]
    fn what_cannot_be_decided_yet_is_held_and_nothing_else() {
        let held: [(&[u8], usize); 6] = [
            (b"a", 0),
            (b"a\r", 1),
            (b"a\r\n", 0),
            (b"a\r\n.", 1),
            (b"a\r\n.\r", 2),
            (b"a\r\n.x\r", 1),
        ];
        for (input, held) in held {
            let (output, _, counts) = scan(LineEndings::Normalize, input);
            assert_eq!(output, input[..input.len() - held]);
            assert_eq!(counts.wire_in - counts.wire_out, held as u64);
        }
    }

    #[test]
    fn held_octets_come_out_as_what_they_turn_out_to_be() {
        let cases: [(&[&[u8]], &[u8]); 7] = [
            (&[b"a\r", b"\nb"], b"a\r\nb"),
            (&[b"a\r", b"b"], b"a b"),
            (&[b"a\r", b"\r", b"\n"], b"a \r\n"),
            (&[b".", b"a"], b".a"),
            (&[b".", b"\r", b"a"], b". a"),
            (&[b".", b"\n"], b"..\r\n"),
            (&[b"\n.", b"\r", b"\n"], b"\r\n..\r\n"),
        ];
        for (chunks, expected) in cases {
            let mut scanner = DataScanner::new(LineEndings::Normalize);
            let mut output = Vec::new();
            for chunk in chunks {
                let progress = scanner.scan(chunk, |piece| {
                    output.extend_from_slice(piece.octets(chunk));
                });
                assert_eq!(progress, DataProgress::More);
            }
            assert_eq!(output, expected, "{chunks:?}");
        }
    }

    #[test]
    fn rules_d7_d10_a_muted_message_is_read_to_its_end_and_counted() {
        let mut scanner = DataScanner::new(LineEndings::Normalize);
        let mut pieces = 0;
        assert_eq!(scanner.scan(b"abc\r", |_| pieces += 1), DataProgress::More);
        scanner.mute();
        let end = scanner.scan(b"\n.\n\r\n.\r\nRSET\r\n", |_| pieces += 1);
        assert_eq!((end, pieces), (ended(8), 1));
        assert_eq!(scanner.counts().wire_out, 11);
    }

    #[test]
    fn rule_d2_the_size_of_a_message_leaves_out_stuffing_and_terminator() {
        let (_, _, counts) = scan(
            LineEndings::Normalize,
            b"..\r\n.ab\r\nlonger\r\n\n.\n\r\n.\r\n",
        );
        let expected = DataCounts {
            wire_in: 25,
            wire_out: 25,
            dots: 3,
            lines: 6,
            longest_line: 8,
            bare_cr: 0,
            bare_lf: 2,
            lone_dots: 1,
            nul: 0,
        };
        assert_eq!(counts, expected);
        assert_eq!(counts.message(), 22);
    }
}
