//! Lines of every kind, in any chunks.

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
                CommandLine::Complete { text, consumed } => (Event::Line(text.to_vec()), consumed),
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
