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
mod tests;
