//! Commands of clients (rules B1, B3, G1, G13, G14; RFC 5321 §4.1.1).
//!
//! A line of [`LineReader`](super::LineReader) is parsed into a [`Command`] that borrows it, or into
//! a [`CommandError`] that knows its reply. What may follow what is not decided here, nor whether a
//! parameter may be used: see [`judge_mail`](super::judge_mail). Addresses and parameters go on to
//! a backend as they came; everything between them is written anew, in the form of RFC 5321 whatever
//! the client's was ([`ClientQuirks`]).

use std::fmt;

use memchr::memchr;

use super::budget::Cost;
use super::closing::Next;
use super::extensions::{Extensions, Keyword, is_mechanism};
use super::parameters::{Parameter, Parameters, Smtputf8, is_blank, trim_start};
use super::path::{Path, PathError};
use super::quirks::ClientQuirks;
use super::replies::OwnReply;

/// The longest name in EHLO and HELO (RFC 5321 §4.5.3.1.2), in octets.
pub const HELLO_NAME_MAX: usize = 255;
/// The longest verb we know, in octets.
const VERB_MAX: usize = 8;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO.
    Ehlo(HelloName<'a>),
    /// HELO.
    Helo(HelloName<'a>),
    /// MAIL FROM.
    Mail(Mail<'a>),
    /// RCPT TO.
    Rcpt(Rcpt<'a>),
    /// DATA.
    Data,
    /// BDAT (RFC 3030).
    Bdat {
        /// The length of the chunk that follows the line.
        octets: u64,
        /// Whether it is the last.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, whatever its argument.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY with its argument.
    Vrfy(&'a [u8]),
    /// HELP, whatever its argument.
    Help,
    /// STARTTLS.
    Starttls,
    /// AUTH.
    Auth {
        /// The mechanism, in any case.
        mechanism: &'a str,
        /// What came with it.
        initial: Option<InitialResponse<'a>>,
    },
}

impl Command<'_> {
    /// What it costs the client whatever it is answered (rule B4). That RSET without a transaction
    /// and a second EHLO are junk too, only the session can tell.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Noop | Self::Vrfy(_) | Self::Help => Cost::Junk,
            Self::Ehlo(_)
            | Self::Helo(_)
            | Self::Mail(_)
            | Self::Rcpt(_)
            | Self::Data
            | Self::Bdat { .. }
            | Self::Rset
            | Self::Quit
            | Self::Starttls
            | Self::Auth { .. } => Cost::Nothing,
        }
    }
}

/// The client's name in EHLO or HELO: no ASCII controls, at most [`HELLO_NAME_MAX`]. What is not
/// ASCII in it is printed as `\xc3`, octet by octet, so that no log has it raw.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct HelloName<'a>(&'a str);

impl<'a> HelloName<'a> {
    /// That name.
    pub fn of(name: &'a str) -> Self {
        Self(name)
    }

    /// As the client said it, to be encoded before anybody else sees it (rule G13).
    pub fn as_said(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for HelloName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii() {
            return f.write_str(self.0);
        }
        self.0.chars().try_for_each(|letter| {
            let mut octets = [0; 4];
            match letter.encode_utf8(&mut octets) {
                ascii if ascii.is_ascii() => f.write_str(ascii),
                other => write!(f, "{}", other.as_bytes().escape_ascii()),
            }
        })
    }
}

impl fmt::Debug for HelloName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// MAIL: whom the message is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mail<'a> {
    /// The reverse-path; it may be null.
    pub path: Path<'a>,
    /// Its parameters, well formed but not judged.
    pub parameters: Parameters<'a>,
}

/// RCPT: one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcpt<'a> {
    /// The forward-path.
    pub path: Path<'a>,
    /// Its parameters, well formed but not judged.
    pub parameters: Parameters<'a>,
}

/// The initial response of AUTH: a credential, which no log and no debugger's print shows (A2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InitialResponse<'a>(&'a [u8]);

impl<'a> InitialResponse<'a> {
    /// The octets, for a backend only.
    pub fn octets(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for InitialResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a line is no command that can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No verb we know.
    #[error("unknown command")]
    Unknown,
    /// A verb of SMTP that is never followed (rule B1).
    #[error("command not offered")]
    NotOffered,
    /// A line of another protocol, or of a message header (rule B3).
    #[error("a line of another protocol")]
    Foreign,
    /// A control octet (rule G13).
    #[error("control octets in a command")]
    Control,
    /// Octets that are not UTF-8 (rule G13).
    #[error("a command that is not UTF-8")]
    NotUtf8,
    /// UTF-8 in MAIL or RCPT without SMTPUTF8 (rule G13).
    #[error("UTF-8 in an address without SMTPUTF8")]
    Utf8Unmet,
    /// EHLO or HELO without a name, or with one that is too long or, where that is rejected, not
    /// ASCII.
    #[error("no name in EHLO or HELO")]
    Hello,
    /// An argument where none belongs (rule G14).
    #[error("an argument where none belongs")]
    Argument,
    /// No FROM:, or nothing that is a path behind it.
    #[error("MAIL without a path")]
    MailSyntax,
    /// No TO:, or nothing that is a path behind it.
    #[error("RCPT without a path")]
    RcptSyntax,
    /// No address in the brackets of MAIL.
    #[error("MAIL with a malformed path")]
    Sender,
    /// No address in the brackets of RCPT.
    #[error("RCPT with a malformed path")]
    Recipient,
    /// What follows a path is not parameters.
    #[error("malformed parameters")]
    Parameter,
    /// VRFY without argument.
    #[error("VRFY without argument")]
    Vrfy,
    /// AUTH without a mechanism.
    #[error("AUTH without mechanism")]
    Auth,
    /// BDAT without a length: the framing is lost (rule C3).
    #[error("BDAT without a length")]
    Chunk,
}

impl CommandError {
    /// What the client is told.
    pub fn reply(self) -> OwnReply {
        match self {
            Self::Unknown => OwnReply::UNKNOWN_COMMAND,
            Self::NotOffered => OwnReply::NOT_OFFERED,
            Self::Foreign => OwnReply::NOT_SMTP,
            Self::Control => OwnReply::CONTROL_OCTETS,
            Self::NotUtf8 => OwnReply::NOT_UTF8,
            Self::Utf8Unmet => OwnReply::UTF8_UNMET,
            Self::Hello => OwnReply::BAD_HELLO,
            Self::Argument => OwnReply::NO_ARGUMENT,
            Self::MailSyntax => OwnReply::MAIL_SYNTAX,
            Self::RcptSyntax => OwnReply::RCPT_SYNTAX,
            Self::Sender => OwnReply::BAD_SENDER,
            Self::Recipient => OwnReply::BAD_RECIPIENT,
            Self::Parameter => OwnReply::BAD_PARAMETER,
            Self::Vrfy => OwnReply::VRFY_SYNTAX,
            Self::Auth => OwnReply::AUTH_SYNTAX,
            Self::Chunk => OwnReply::BAD_CHUNK,
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

/// Parses a line without its line end. `smtputf8` says what the open transaction uses; without one
/// it is [`Smtputf8::Unused`], and MAIL decides for itself.
///
/// # Errors
/// What is wrong with it; what ends the session comes before what does not.
pub fn parse_command(
    line: &[u8],
    quirks: ClientQuirks,
    smtputf8: Smtputf8,
) -> Result<Command<'_>, CommandError> {
    let line = trim_end(line);
    let verb_end = line.iter().position(|&octet| is_blank(octet));
    let (word, rest) = line.split_at(verb_end.unwrap_or(line.len()));
    let argument = trim_start(rest);
    match Verb::of(word) {
        Verb::Foreign => Err(CommandError::Foreign),
        // Whatever else is wrong with the line, it is the framing that counts.
        Verb::Bdat => parse_bdat(argument),
        Verb::Plain(verb) => {
            check_octets(line)?;
            parse_argument(verb, argument, quirks, smtputf8)
        }
    }
}

impl Mail<'_> {
    /// Appends the command for a backend, address and parameters as they came. SIZE is left out for a
    /// backend that did not announce it; [`Extensions::lacks`] says whether it has the others.
    pub fn write(&self, backend: &Extensions, out: &mut Vec<u8>) {
        let sized = backend.keywords.has(Keyword::Size);
        let known = |parameter: &Parameter<'_>| sized || !parameter.is("SIZE");
        let parameters = self.parameters.iter().filter(known);
        write_command(b"MAIL FROM:<", self.path, parameters, out);
    }
}

impl Rcpt<'_> {
    /// Appends the command for a backend, address and parameters as they came.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_command(b"RCPT TO:<", self.path, self.parameters.iter(), out);
    }
}

/// Octets of the last bracket, parameters and CRLF that most commands do not exceed.
const USUAL_PARAMETERS: usize = 32;

fn write_command<'a>(
    verb: &[u8],
    path: Path<'_>,
    parameters: impl Iterator<Item = Parameter<'a>>,
    out: &mut Vec<u8>,
) {
    // At once for all but long parameters, instead of word by word.
    out.reserve(verb.len() + path.address().len() + USUAL_PARAMETERS);
    out.extend_from_slice(verb);
    out.extend_from_slice(path.address());
    out.push(b'>');
    for parameter in parameters {
        out.push(b' ');
        out.extend_from_slice(parameter.octets);
    }
    out.extend_from_slice(b"\r\n");
}

/// What the first word of a line is.
#[derive(Clone, Copy)]
enum Verb {
    /// Of another protocol (rule B3).
    Foreign,
    Bdat,
    Plain(PlainVerb),
}

/// A verb behind which the next line is a command, whatever it says.
#[derive(Clone, Copy)]
enum PlainVerb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    Starttls,
    Auth,
    NotOffered,
    Unknown,
}

impl Verb {
    fn of(word: &[u8]) -> Self {
        let mut upper = [0; VERB_MAX];
        let upper = match upper.get_mut(..word.len()) {
            Some(letters) => {
                letters.copy_from_slice(word);
                letters.make_ascii_uppercase();
                &*letters
            }
            None => word,
        };
        Self::Plain(match upper {
            b"EHLO" => PlainVerb::Ehlo,
            b"HELO" => PlainVerb::Helo,
            b"MAIL" => PlainVerb::Mail,
            b"RCPT" => PlainVerb::Rcpt,
            b"DATA" => PlainVerb::Data,
            b"BDAT" => return Self::Bdat,
            b"RSET" => PlainVerb::Rset,
            b"NOOP" => PlainVerb::Noop,
            b"QUIT" => PlainVerb::Quit,
            b"VRFY" => PlainVerb::Vrfy,
            b"HELP" => PlainVerb::Help,
            b"STARTTLS" => PlainVerb::Starttls,
            b"AUTH" => PlainVerb::Auth,
            b"EXPN" | b"ETRN" | b"ATRN" | b"TURN" | b"SEND" | b"SOML" | b"SAML" | b"BURL" => {
                PlainVerb::NotOffered
            }
            b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" | b"USER" | b"PRI" => {
                return Self::Foreign;
            }
            _ if is_header_name(word) => return Self::Foreign,
            _ => PlainVerb::Unknown,
        })
    }
}

/// Whether a word begins like a field of a header: a name and a colon.
fn is_header_name(word: &[u8]) -> bool {
    let name = memchr(b':', word).map(|colon| &word[..colon]);
    name.is_some_and(|name| !name.is_empty() && name.iter().all(u8::is_ascii_graphic))
}

/// Rule G13. A tab passes as a blank; where it is none, it is refused later.
fn check_octets(line: &[u8]) -> Result<(), CommandError> {
    if line
        .iter()
        .any(|&octet| is_control(octet) && octet != b'\t')
    {
        return Err(CommandError::Control);
    }
    match std::str::from_utf8(line) {
        Ok(_) => Ok(()),
        Err(_) => Err(CommandError::NotUtf8),
    }
}

fn is_control(octet: u8) -> bool {
    octet < b' ' || octet == 0x7f
}

fn parse_argument(
    verb: PlainVerb,
    argument: &[u8],
    quirks: ClientQuirks,
    smtputf8: Smtputf8,
) -> Result<Command<'_>, CommandError> {
    let alone = |command| match argument {
        [] => Ok(command),
        _ => Err(CommandError::Argument),
    };
    match verb {
        PlainVerb::Ehlo => read_name(argument, quirks).map(Command::Ehlo),
        PlainVerb::Helo => read_name(argument, quirks).map(Command::Helo),
        PlainVerb::Mail => parse_mail(argument, quirks).map(Command::Mail),
        PlainVerb::Rcpt => parse_rcpt(argument, quirks, smtputf8).map(Command::Rcpt),
        PlainVerb::Data => alone(Command::Data),
        PlainVerb::Rset => alone(Command::Rset),
        PlainVerb::Quit => alone(Command::Quit),
        PlainVerb::Starttls => alone(Command::Starttls),
        PlainVerb::Noop => Ok(Command::Noop),
        PlainVerb::Help => Ok(Command::Help),
        PlainVerb::Vrfy if argument.is_empty() => Err(CommandError::Vrfy),
        PlainVerb::Vrfy => Ok(Command::Vrfy(argument)),
        PlainVerb::Auth => parse_auth(argument),
        PlainVerb::NotOffered => Err(CommandError::NotOffered),
        PlainVerb::Unknown => Err(CommandError::Unknown),
    }
}

/// The name in EHLO and HELO. Spaces in it are tolerated: it goes to logs and, encoded, to backends.
fn read_name(argument: &[u8], quirks: ClientQuirks) -> Result<HelloName<'_>, CommandError> {
    if argument.iter().any(|&octet| is_control(octet)) {
        return Err(CommandError::Control);
    }
    let name = std::str::from_utf8(argument).map_err(|_| CommandError::NotUtf8)?;
    let taken = name.is_ascii() || quirks == ClientQuirks::Accept;
    let fine = taken && (1..=HELLO_NAME_MAX).contains(&name.len());
    fine.then_some(HelloName(name)).ok_or(CommandError::Hello)
}

fn parse_mail(argument: &[u8], quirks: ClientQuirks) -> Result<Mail<'_>, CommandError> {
    let path = behind(argument, b"FROM:").ok_or(CommandError::MailSyntax)?;
    let (path, rest) = Path::read(path, quirks).map_err(|error| match error {
        PathError::Missing => CommandError::MailSyntax,
        PathError::Control => CommandError::Control,
        PathError::Syntax => CommandError::Sender,
    })?;
    let parameters = Parameters::read(rest).ok_or(CommandError::Parameter)?;
    if !argument.is_ascii() && !parameters.has("SMTPUTF8") {
        return Err(CommandError::Utf8Unmet);
    }
    Ok(Mail { path, parameters })
}

fn parse_rcpt(
    argument: &[u8],
    quirks: ClientQuirks,
    smtputf8: Smtputf8,
) -> Result<Rcpt<'_>, CommandError> {
    let path = behind(argument, b"TO:").ok_or(CommandError::RcptSyntax)?;
    let (path, rest) = Path::read(path, quirks).map_err(|error| match error {
        PathError::Missing => CommandError::RcptSyntax,
        PathError::Control => CommandError::Control,
        PathError::Syntax => CommandError::Recipient,
    })?;
    if path.is_null() {
        return Err(CommandError::Recipient);
    }
    let parameters = Parameters::read(rest).ok_or(CommandError::Parameter)?;
    if !argument.is_ascii() && smtputf8 == Smtputf8::Unused {
        return Err(CommandError::Utf8Unmet);
    }
    Ok(Rcpt { path, parameters })
}

/// `length [LAST]`, the length of one to twenty digits (RFC 3030 §2).
fn parse_bdat(argument: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut words = words(argument);
    let octets = words.next().and_then(read_length);
    let last = words.next();
    let is_last = last.map(|word| word.eq_ignore_ascii_case(b"LAST"));
    match (octets, is_last, words.next()) {
        (Some(octets), None | Some(true), None) => Ok(Command::Bdat {
            octets,
            last: last.is_some(),
        }),
        _ => Err(CommandError::Chunk),
    }
}

fn read_length(digits: &[u8]) -> Option<u64> {
    let plain = digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

fn parse_auth(argument: &[u8]) -> Result<Command<'_>, CommandError> {
    let mut words = words(argument);
    let mechanism = words.next().filter(|word| is_mechanism(word));
    let mechanism = mechanism.and_then(|word| std::str::from_utf8(word).ok());
    let initial = words.next().map(InitialResponse);
    match (mechanism, words.next()) {
        (Some(mechanism), None) => Ok(Command::Auth { mechanism, initial }),
        _ => Err(CommandError::Auth),
    }
}

/// What follows `prefix`, which is given in upper case.
fn behind<'a>(argument: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = argument.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn words(argument: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = argument.split(|&octet| is_blank(octet));
    words.filter(|word| !word.is_empty())
}

fn trim_end(text: &[u8]) -> &[u8] {
    let last = text.iter().rposition(|&octet| !is_blank(octet));
    &text[..last.map_or(0, |last| last + 1)]
}

#[cfg(test)]
mod tests;
