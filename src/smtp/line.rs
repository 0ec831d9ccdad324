//! Command lines of clients (rules G2, G3, G12; RFC 5321 §2.3.8, §4.5.3.1.4).
//!
//! A line ends with CRLF, and with LF where [`ClientQuirks::Accept`] takes it. A line over its limit
//! is dropped up to its end and then answered once: what is cut short is never executed. A bare CR
//! is what a smuggler or a browser sends, so it ends the session. So does a bare LF behind STARTTLS,
//! BDAT and AUTH whatever the quirks: what follows these is not a command.
//!
//! The caller keeps the octets: [`LineReader::read`] is given all it has and says how many may be
//! discarded. The lines found depend on no chunking. The reader itself keeps no octets, only how
//! many of an overlong line went by.

use memchr::memchr2;

use super::budget::Cost;
use super::closing::Next;
use super::parameters::is_blank;
use super::quirks::ClientQuirks;
use super::replies::OwnReply;

/// The longest command line, CRLF included: the 512 of RFC 5321 with what extensions add (G2).
pub const COMMAND_LINE_MAX: usize = 2048;
/// The longest line of an AUTH exchange, CRLF included (RFC 4954 §4, rule G3).
pub const AUTH_LINE_MAX: usize = 12_288;
/// As many octets of an overlong line are dropped; if it has not ended then, the session does.
pub const DROPPED_LINE_MAX: usize = 1 << 20;

/// Which limit a line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A command: [`COMMAND_LINE_MAX`].
    Command,
    /// What a client says between AUTH and its final reply: [`AUTH_LINE_MAX`].
    Auth,
}

/// What the octets received so far mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandLine<'a> {
    /// No line has ended yet.
    Incomplete {
        /// So many octets are to be discarded: none, unless the line is over its limit.
        consumed: usize,
    },
    /// A whole line.
    Complete {
        /// Without its line end. It holds neither CR nor LF.
        text: &'a [u8],
        /// The line with its end.
        consumed: usize,
    },
    /// A line that is not to be executed.
    Defective {
        /// What is wrong with it.
        defect: LineDefect,
        /// What is to be discarded.
        consumed: usize,
    },
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineDefect {
    /// LF without CR.
    #[error("bare LF in a command line")]
    BareLf,
    /// CR without LF.
    #[error("bare CR in a command line")]
    BareCr,
    /// Over [`COMMAND_LINE_MAX`]; it has been dropped to its end.
    #[error("the command line is longer than 2,048 octets")]
    TooLong,
    /// Over [`COMMAND_LINE_MAX`] and begins with BDAT: nobody knows where its chunk ends.
    #[error("the BDAT line is longer than 2,048 octets")]
    BdatTooLong,
    /// Over [`AUTH_LINE_MAX`]; it has been dropped to its end, and the exchange is over.
    #[error("the line of the AUTH exchange is longer than 12,288 octets")]
    AuthTooLong,
    /// Over [`DROPPED_LINE_MAX`].
    #[error("the line has no end")]
    Endless,
}

impl LineDefect {
    /// What the client is told.
    pub fn reply(self) -> OwnReply {
        match self {
            Self::BareLf | Self::BareCr => OwnReply::BARE_LINE_END,
            Self::TooLong => OwnReply::LINE_TOO_LONG,
            Self::BdatTooLong => OwnReply::BAD_CHUNK,
            Self::AuthTooLong => OwnReply::AUTH_LINE_TOO_LONG,
            Self::Endless => OwnReply::ENDLESS_LINE,
        }
    }

    /// Whether the session ends with that reply.
    pub fn next(self) -> Next {
        self.reply().next()
    }

    /// What it costs the client.
    pub fn cost(self) -> Cost {
        Cost::Error
    }
}

/// Reads the lines of one session.
#[derive(Clone, Debug)]
pub struct LineReader {
    quirks: ClientQuirks,
    /// Set while the rest of an overlong line is dropped.
    overlong: Option<Overlong>,
}

#[derive(Clone, Copy, Debug)]
struct Overlong {
    /// Octets of the line that were dropped so far.
    dropped: usize,
    defect: LineDefect,
    bare_lf: BareLf,
}

/// What LF without CR does to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BareLf {
    Ends,
    Spoils,
}

/// The limits of one line, in octets.
#[derive(Clone, Copy, Debug)]
struct Limits {
    line: usize,
    dropped: usize,
}

/// What is found first.
enum Scan {
    /// No line end; `held` octets at the end, 0 or 1, may be half of one.
    Open { held: usize },
    /// CRLF behind so many octets.
    CrLf(usize),
    /// LF alone.
    Lf(usize),
    /// CR alone.
    Cr(usize),
}

impl LineReader {
    /// A reader at the beginning of a line.
    pub fn new(quirks: ClientQuirks) -> Self {
        Self {
            quirks,
            overlong: None,
        }
    }

    /// Reads one line from the beginning of `octets`, which is all that has been received and not
    /// consumed. Call it again with more, or for the next line; `kind` may change between lines.
    pub fn read<'a>(&mut self, octets: &'a [u8], kind: LineKind) -> CommandLine<'a> {
        let line = match kind {
            LineKind::Command => COMMAND_LINE_MAX,
            LineKind::Auth => AUTH_LINE_MAX,
        };
        let dropped = DROPPED_LINE_MAX;
        self.read_within(octets, kind, Limits { line, dropped })
    }

    fn read_within<'a>(
        &mut self,
        octets: &'a [u8],
        kind: LineKind,
        limits: Limits,
    ) -> CommandLine<'a> {
        if let Some(overlong) = self.overlong {
            return self.drop_on(octets, overlong, limits);
        }
        // Octets beyond a limit have no say, so that the verdict does not depend on how many came.
        let window = &octets[..octets.len().min(limits.line)];
        match scan(window) {
            Scan::CrLf(at) => CommandLine::Complete {
                text: &octets[..at],
                consumed: at + 2,
            },
            Scan::Lf(at) => self.ended_by_lf(window, at, kind, limits),
            Scan::Cr(at) => CommandLine::Defective {
                defect: LineDefect::BareCr,
                consumed: at + 1,
            },
            Scan::Open { .. } if window.len() < limits.line => {
                CommandLine::Incomplete { consumed: 0 }
            }
            Scan::Open { .. } => {
                let overlong = Overlong {
                    dropped: 0,
                    defect: too_long(window, kind),
                    bare_lf: self.bare_lf(window, kind),
                };
                self.drop_on(octets, overlong, limits)
            }
        }
    }

    /// The line that a bare LF ends at `at`. It goes on with CRLF, so it has room for CR as well.
    fn ended_by_lf<'a>(
        &self,
        octets: &'a [u8],
        at: usize,
        kind: LineKind,
        limits: Limits,
    ) -> CommandLine<'a> {
        let text = &octets[..at];
        let consumed = at + 1;
        match self.bare_lf(text, kind) {
            BareLf::Ends if consumed < limits.line => CommandLine::Complete { text, consumed },
            BareLf::Ends => CommandLine::Defective {
                defect: too_long(text, kind),
                consumed,
            },
            BareLf::Spoils => CommandLine::Defective {
                defect: LineDefect::BareLf,
                consumed,
            },
        }
    }

    /// Goes on to the end of an overlong line.
    fn drop_on<'a>(
        &mut self,
        octets: &[u8],
        overlong: Overlong,
        limits: Limits,
    ) -> CommandLine<'a> {
        self.overlong = None;
        let room = limits.dropped - overlong.dropped;
        let window = &octets[..octets.len().min(room)];
        let (defect, consumed) = match scan(window) {
            Scan::CrLf(at) => (overlong.defect, at + 2),
            Scan::Lf(at) => match overlong.bare_lf {
                BareLf::Ends => (overlong.defect, at + 1),
                BareLf::Spoils => (LineDefect::BareLf, at + 1),
            },
            Scan::Cr(at) => (LineDefect::BareCr, at + 1),
            Scan::Open { .. } if window.len() == room => (LineDefect::Endless, room),
            Scan::Open { held } => {
                let consumed = window.len() - held;
                self.overlong = Some(Overlong {
                    dropped: overlong.dropped + consumed,
                    ..overlong
                });
                return CommandLine::Incomplete { consumed };
            }
        };
        CommandLine::Defective { defect, consumed }
    }

    /// What a bare LF does to a line that begins so. Behind STARTTLS, BDAT and AUTH come octets that
    /// are no commands: two readers that disagree about the end of such a line read different ones.
    fn bare_lf(&self, line: &[u8], kind: LineKind) -> BareLf {
        let verb = verb_of(line);
        let is = |name: &&[u8]| verb.eq_ignore_ascii_case(name);
        let is_strict = [b"STARTTLS".as_slice(), b"BDAT", b"AUTH"].iter().any(is);
        match (self.quirks, kind) {
            (ClientQuirks::Accept, LineKind::Command) if !is_strict => BareLf::Ends,
            (ClientQuirks::Accept | ClientQuirks::Reject, _) => BareLf::Spoils,
        }
    }
}

fn scan(octets: &[u8]) -> Scan {
    let Some(at) = memchr2(b'\r', b'\n', octets) else {
        return Scan::Open { held: 0 };
    };
    match (octets[at], octets.get(at + 1)) {
        (b'\n', _) => Scan::Lf(at),
        (_, Some(b'\n')) => Scan::CrLf(at),
        (_, Some(_)) => Scan::Cr(at),
        (_, None) => Scan::Open { held: 1 },
    }
}

fn verb_of(line: &[u8]) -> &[u8] {
    let mut words = line.split(|&octet| is_blank(octet));
    words.next().unwrap_or_default()
}

/// Which defect an overlong line has, by its beginning.
fn too_long(line: &[u8], kind: LineKind) -> LineDefect {
    let is_chunk = verb_of(line).eq_ignore_ascii_case(b"BDAT");
    match kind {
        LineKind::Auth => LineDefect::AuthTooLong,
        LineKind::Command if is_chunk => LineDefect::BdatTooLong,
        LineKind::Command => LineDefect::TooLong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session makes of the lines it reads.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Event {
        Line(Vec<u8>),
        Defect(LineDefect),
    }

    struct Session {
        reader: LineReader,
        kind: LineKind,
        limits: Limits,
        buffer: Vec<u8>,
        events: Vec<Event>,
        closed: bool,
    }

    impl Session {
        fn new(quirks: ClientQuirks, kind: LineKind, limits: Limits) -> Self {
            Self {
                reader: LineReader::new(quirks),
                kind,
                limits,
                buffer: Vec::new(),
                events: Vec::new(),
                closed: false,
            }
        }

        /// Reads as a driver does, and holds what it must.
        fn octets(&mut self, octets: &[u8]) {
            self.buffer.extend_from_slice(octets);
            while !self.closed {
                let read = self
                    .reader
                    .read_within(&self.buffer, self.kind, self.limits);
                let (event, consumed) = match read {
                    CommandLine::Incomplete { consumed } => {
                        self.buffer.drain(..consumed);
                        assert!(self.buffer.len() < self.limits.line);
                        return;
                    }
                    CommandLine::Complete { text, consumed } => {
                        (Event::Line(text.to_vec()), consumed)
                    }
                    CommandLine::Defective { defect, consumed } => {
                        self.closed = defect.next() == Next::Close;
                        (Event::Defect(defect), consumed)
                    }
                };
                assert!((1..=self.buffer.len()).contains(&consumed));
                self.buffer.drain(..consumed);
                self.events.push(event);
            }
        }
    }

    const REAL: Limits = Limits {
        line: COMMAND_LINE_MAX,
        dropped: DROPPED_LINE_MAX,
    };

    fn events(octets: &[u8], kind: LineKind) -> Vec<Event> {
        events_of(ClientQuirks::Reject, octets, kind)
    }

    fn events_of(quirks: ClientQuirks, octets: &[u8], kind: LineKind) -> Vec<Event> {
        let mut reader = LineReader::new(quirks);
        let mut events = Vec::new();
        let mut rest = octets;
        loop {
            let (event, consumed) = match reader.read(rest, kind) {
                CommandLine::Incomplete { .. } => return events,
                CommandLine::Complete { text, consumed } => (Event::Line(text.to_vec()), consumed),
                CommandLine::Defective { defect, consumed } => (Event::Defect(defect), consumed),
            };
            rest = &rest[consumed..];
            events.push(event);
        }
    }

    fn line(text: &[u8]) -> Event {
        Event::Line(text.to_vec())
    }

    #[test]
    fn rule_g12_where_quirks_are_rejected_only_crlf_ends_a_line() {
        let cases: [(&[u8], &[Event]); 6] = [
            (b"NOOP\r\nQUIT\r\n", &[line(b"NOOP"), line(b"QUIT")]),
            (b"\r\n", &[line(b"")]),
            (b"NOOP\r", &[]),
            (b"NOOP\nQ", &[Event::Defect(LineDefect::BareLf)]),
            (b"NOOP\rQ", &[Event::Defect(LineDefect::BareCr)]),
            (b"NOOP\r\r\n", &[Event::Defect(LineDefect::BareCr)]),
        ];
        for (octets, expected) in cases {
            let found = events(octets, LineKind::Command);
            assert_eq!(&found[..expected.len()], expected);
            assert!(expected.len() == found.len() || octets[4] == b'\r' || octets[4] == b'\n');
        }
        for defect in [LineDefect::BareLf, LineDefect::BareCr] {
            assert_eq!(defect.next(), Next::Close);
            let mut out = Vec::new();
            defect.reply().write("mx.example", &mut out);
            assert!(out.starts_with(b"500 5.5.2 "));
        }
    }

    #[test]
    fn rule_g12_lf_ends_a_line_where_quirks_are_accepted_and_cr_does_not() {
        let bare_cr = || Event::Defect(LineDefect::BareCr);
        let table: [(&[u8], &[Event]); 6] = [
            (
                b"NOOP\nRSET\r\n\nX",
                &[line(b"NOOP"), line(b"RSET"), line(b"")],
            ),
            (b"NOOP\nDATA\rx\n", &[line(b"NOOP"), bare_cr()]),
            (b"NOOP\n\rx", &[line(b"NOOP"), bare_cr()]),
            (b"NOOP\r\r\n", &[bare_cr()]),
            // What is no such command is read as any other.
            (
                b"STARTTLSX\nBDATA 1\n",
                &[line(b"STARTTLSX"), line(b"BDATA 1")],
            ),
            (
                b"NOOP STARTTLS\n AUTH\n",
                &[line(b"NOOP STARTTLS"), line(b" AUTH")],
            ),
        ];
        for (octets, expected) in table {
            let mut session = Session::new(ClientQuirks::Accept, LineKind::Command, REAL);
            session.octets(octets);
            assert_eq!(session.events, expected, "{}", octets.escape_ascii());
        }
    }

    #[test]
    fn rule_g12_lf_never_ends_starttls_bdat_or_auth() {
        let defect = [Event::Defect(LineDefect::BareLf)];
        for text in [
            "STARTTLS",
            "bdat 5 LAST",
            "BDAT\t0",
            "Auth PLAIN AAAA",
            "AUTH",
        ] {
            for quirks in [ClientQuirks::Accept, ClientQuirks::Reject] {
                let octets = format!("{text}\nNOOP\r\n");
                for size in [1, octets.len()] {
                    let mut session = Session::new(quirks, LineKind::Command, REAL);
                    let chunks = octets.as_bytes().chunks(size);
                    chunks.for_each(|chunk| session.octets(chunk));
                    assert_eq!(session.events, defect, "{text}");
                    assert!(session.closed);
                }
            }
            // Nor does it when the line is too long to be kept.
            let octets = format!("{text} {}\nNOOP\r\n", "x".repeat(3000));
            let mut session = Session::new(ClientQuirks::Accept, LineKind::Command, REAL);
            session.octets(octets.as_bytes());
            assert_eq!(session.events, defect, "{text}");
        }
        let mut exchange = Session::new(ClientQuirks::Accept, LineKind::Auth, REAL);
        exchange.octets(b"AGpvZQBzZWNyZXQ=\n");
        assert_eq!(exchange.events, defect);
    }

    /// Such a line is passed on with CRLF.
    #[test]
    fn rule_g2_a_line_that_ends_with_lf_has_room_for_cr_too() {
        let longest = vec![b'x'; COMMAND_LINE_MAX - 2];
        let octets = [
            &longest[..],
            b"\nx",
            &longest,
            b"\nxx",
            &longest,
            b"\nNOOP\n",
        ]
        .concat();
        let found = events_of(ClientQuirks::Accept, &octets, LineKind::Command);
        let too_long = || Event::Defect(LineDefect::TooLong);
        assert_eq!(
            found,
            [line(&longest), too_long(), too_long(), line(b"NOOP")]
        );
    }

    #[test]
    fn rules_g2_and_g3_limits_hold_at_the_octet() {
        let kinds = [
            (LineKind::Command, COMMAND_LINE_MAX, LineDefect::TooLong),
            (LineKind::Auth, AUTH_LINE_MAX, LineDefect::AuthTooLong),
        ];
        for (kind, max, defect) in kinds {
            let longest = vec![b'x'; max - 2];
            let octets = [&longest[..], b"\r\nNOOP\r\n"].concat();
            assert_eq!(events(&octets, kind), [line(&longest), line(b"NOOP")]);
            // Over the limit, a line is answered once and not executed, and the next one is.
            let octets = [b"x", &longest[..], b"\r\nNOOP\r\n"].concat();
            assert_eq!(
                events(&octets, kind),
                [Event::Defect(defect), line(b"NOOP")]
            );
            assert_eq!(defect.next(), Next::Continue);
        }
    }

    #[test]
    fn rule_g2_an_overlong_line_is_dropped_as_it_comes() {
        let mut session = Session::new(ClientQuirks::Reject, LineKind::Command, REAL);
        for _ in 0..1000 {
            session.octets(b"RCPT TO:<x@example.com> ");
        }
        assert!(session.events.is_empty());
        session.octets(b"\r\nNOOP\r\n");
        let expected = [Event::Defect(LineDefect::TooLong), line(b"NOOP")];
        assert_eq!(session.events, expected);
    }

    #[test]
    fn a_line_without_end_ends_the_session() {
        let mut session = Session::new(ClientQuirks::Reject, LineKind::Command, REAL);
        session.octets(&vec![b'x'; DROPPED_LINE_MAX - 1]);
        assert!(session.events.is_empty());
        session.octets(b"x");
        assert_eq!(session.events, [Event::Defect(LineDefect::Endless)]);
        assert!(session.closed);
    }

    #[test]
    fn rule_c3_an_overlong_bdat_line_ends_the_session() {
        for verb in ["BDAT ", "bdat\t"] {
            let octets = format!("{verb}{}5 LAST\r\nQUIT\r\n", " ".repeat(2048));
            let defect = LineDefect::BdatTooLong;
            let first = &events(octets.as_bytes(), LineKind::Command)[0];
            assert_eq!(*first, Event::Defect(defect));
            assert_eq!(defect.next(), Next::Close);
        }
    }

    /// The rules, said a second time: octet by octet, of everything at once.
    fn expected(octets: &[u8], quirks: ClientQuirks, limits: Limits) -> Vec<Event> {
        let mut events = Vec::new();
        let mut line = Vec::new();
        for &octet in octets {
            let behind_cr = line.last() == Some(&b'\r');
            let overlong = line.len() + usize::from(!behind_cr) >= limits.line;
            line.push(octet);
            let defect = match octet {
                b'\n' if behind_cr || quirks == ClientQuirks::Accept => {
                    line.truncate(line.len() - 1 - usize::from(behind_cr));
                    events.push(if overlong {
                        Event::Defect(LineDefect::TooLong)
                    } else {
                        Event::Line(std::mem::take(&mut line))
                    });
                    line.clear();
                    continue;
                }
                b'\n' => LineDefect::BareLf,
                _ if behind_cr => LineDefect::BareCr,
                _ if line.len() == limits.dropped => LineDefect::Endless,
                _ => continue,
            };
            events.push(Event::Defect(defect));
            break;
        }
        events
    }

    #[test]
    fn all_short_inputs_in_all_halves_give_the_lines_of_the_rules() {
        let limits = Limits {
            line: 4,
            dropped: 7,
        };
        for length in 0..=9_u32 {
            for number in 0..3_usize.pow(length) {
                let digit = |place| number / 3_usize.pow(place) % 3;
                let octets: Vec<u8> = (0..length).map(|place| b"a\r\n"[digit(place)]).collect();
                for quirks in [ClientQuirks::Reject, ClientQuirks::Accept] {
                    let expected = expected(&octets, quirks, limits);
                    for split in 0..=octets.len() {
                        let mut session = Session::new(quirks, LineKind::Command, limits);
                        session.octets(&octets[..split]);
                        session.octets(&octets[split..]);
                        assert_eq!(session.events, expected, "{}", octets.escape_ascii());
                    }
                    let mut session = Session::new(quirks, LineKind::Command, limits);
                    octets.chunks(1).for_each(|octet| session.octets(octet));
                    assert_eq!(session.events, expected, "{}", octets.escape_ascii());
                }
            }
        }
    }
}
