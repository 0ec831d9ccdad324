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
    /// Appends the command for a backend, address and parameters as they came. SIZE is left out for one that
    /// did not announce it; that it has the others is for [`Extensions::lacks`] to say.
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
mod tests {
    use super::super::extensions::Keywords;
    use super::*;

    fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
        parse_command(line, ClientQuirks::Accept, Smtputf8::Unused)
    }

    fn parse_strictly(line: &[u8]) -> Result<Command<'_>, CommandError> {
        parse_command(line, ClientQuirks::Reject, Smtputf8::Unused)
    }

    fn mail(line: &str) -> Mail<'_> {
        match parse(line.as_bytes()) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{other:?} for {line}"),
        }
    }

    fn rcpt(line: &str) -> Rcpt<'_> {
        match parse_command(line.as_bytes(), ClientQuirks::Accept, Smtputf8::Used) {
            Ok(Command::Rcpt(rcpt)) => rcpt,
            other => panic!("{other:?} for {line}"),
        }
    }

    /// The reply to a line that is refused, as far as its enhanced code goes.
    fn refusal(line: &[u8], quirks: ClientQuirks) -> (String, Next) {
        let error = parse_command(line, quirks, Smtputf8::Unused);
        let error = error.expect_err(&line.escape_ascii().to_string());
        let mut out = Vec::new();
        error.reply().write("mx", &mut out);
        let text = String::from_utf8(out).expect("we speak ASCII");
        let words: Vec<_> = text.split(' ').take(2).collect();
        (words.join(" "), error.next())
    }

    fn assert_refused(lines: &[&[u8]], codes: &str, next: Next) {
        for line in lines {
            for quirks in [ClientQuirks::Accept, ClientQuirks::Reject] {
                let expected = (codes.to_owned(), next);
                let refusal = refusal(line, quirks);
                assert_eq!(refusal, expected, "{}", line.escape_ascii());
            }
        }
    }

    /// Lines that are followed, and what a strict reader says to each.
    fn assert_strictly_refused(lines: &[&str], codes: &str) {
        for line in lines {
            assert!(parse(line.as_bytes()).is_ok(), "{line}");
            let refusal = refusal(line.as_bytes(), ClientQuirks::Reject);
            assert_eq!(refusal, (codes.to_owned(), Next::Continue), "{line}");
        }
    }

    #[test]
    fn rule_g1_verbs_are_read_in_any_case() {
        let lines: [(&str, Command<'_>); 14] = [
            (
                "EHLO client.example",
                Command::Ehlo(HelloName("client.example")),
            ),
            ("eHlO [192.0.2.1]", Command::Ehlo(HelloName("[192.0.2.1]"))),
            ("helo  my pc ", Command::Helo(HelloName("my pc"))),
            ("data", Command::Data),
            ("DATA \t ", Command::Data),
            ("Rset", Command::Rset),
            ("NOOP", Command::Noop),
            ("noop are you there", Command::Noop),
            ("QUIT", Command::Quit),
            ("vrfy joe", Command::Vrfy(b"joe")),
            ("HELP", Command::Help),
            ("help MAIL", Command::Help),
            ("starttls", Command::Starttls),
            (
                "auth plain",
                Command::Auth {
                    mechanism: "plain",
                    initial: None,
                },
            ),
        ];
        for (line, command) in lines {
            assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
            assert_eq!(parse_strictly(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn rule_g1_paths_and_parameters_go_on_to_the_octet() {
        let all = Extensions {
            keywords: Keyword::ALL
                .into_iter()
                .fold(Keywords::default(), Keywords::with),
            ..Extensions::default()
        };
        let lines = [
            ("MAIL FROM:<>", "MAIL FROM:<>\r\n"),
            (
                "mail from: <Joe@Example.COM>\tSize=10  body=8bitmime",
                "MAIL FROM:<Joe@Example.COM> Size=10 body=8bitmime\r\n",
            ),
            (
                "MAIL FROM:<\"a > b\"@c> ENVID=a+3Db",
                "MAIL FROM:<\"a > b\"@c> ENVID=a+3Db\r\n",
            ),
            (
                "MAIL FROM:<jos\u{e9}@example.com> SmtpUtf8",
                "MAIL FROM:<jos\u{e9}@example.com> SmtpUtf8\r\n",
            ),
            ("MAIL FROM:<@a,@b:c@d>", "MAIL FROM:<@a,@b:c@d>\r\n"),
        ];
        for (line, written) in lines {
            let mut out = Vec::new();
            mail(line).write(&all, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), written);
        }
        let lines = [
            ("RCPT TO:<postmaster>", "RCPT TO:<postmaster>\r\n"),
            (
                "rcpt To:  <a@b>  NOTIFY=NEVER ORCPT=rfc822;a+40b ",
                "RCPT TO:<a@b> NOTIFY=NEVER ORCPT=rfc822;a+40b\r\n",
            ),
            ("RCPT TO:<\u{fc}@b>", "RCPT TO:<\u{fc}@b>\r\n"),
        ];
        for (line, written) in lines {
            let mut out = Vec::new();
            rcpt(line).write(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), written);
        }
    }

    #[test]
    fn size_is_not_said_to_a_backend_that_did_not_announce_it() {
        let mut out = Vec::new();
        mail("MAIL FROM:<a@b> size=10 BODY=7BIT").write(&Extensions::default(), &mut out);
        assert_eq!(out, b"MAIL FROM:<a@b> BODY=7BIT\r\n");
    }

    #[test]
    fn rule_g12_what_clients_say_instead_of_a_path_goes_on_as_one() {
        let lines = [
            ("MAIL FROM: <a@b>", "MAIL FROM:<a@b>"),
            ("MAIL FROM:\t <a@b> SIZE=1", "MAIL FROM:<a@b> SIZE=1"),
            ("MAIL FROM:< a@b >", "MAIL FROM:<a@b>"),
            (
                "mail from:  <\ta@b  > BODY=7BIT",
                "MAIL FROM:<a@b> BODY=7BIT",
            ),
            ("MAIL FROM: <>", "MAIL FROM:<>"),
            ("MAIL FROM:< >", "MAIL FROM:<>"),
            ("MAIL FROM:< \"a > b\"@c >", "MAIL FROM:<\"a > b\"@c>"),
            ("MAIL FROM:< @x,@y:a@b >", "MAIL FROM:<@x,@y:a@b>"),
            ("MAIL FROM:a@b", "MAIL FROM:<a@b>"),
            ("MAIL FROM: a@b", "MAIL FROM:<a@b>"),
            (
                "MAIL FROM:Joe.B+x=y@Example.COM  Size=1",
                "MAIL FROM:<Joe.B+x=y@Example.COM> Size=1",
            ),
            (
                "MAIL FROM:!#$%&'*+-/=?^_`{|}~@b",
                "MAIL FROM:<!#$%&'*+-/=?^_`{|}~@b>",
            ),
        ];
        let mut all = Extensions::default();
        all.keywords.insert(Keyword::Size);
        for (line, written) in lines {
            let mut out = Vec::new();
            mail(line).write(&all, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("{written}\r\n"));
        }
        let lines = [
            ("RCPT TO: <a@b>", "RCPT TO:<a@b>"),
            ("RCPT TO:<a@b > NOTIFY=NEVER", "RCPT TO:<a@b> NOTIFY=NEVER"),
            ("RCPT TO:a@b\tNOTIFY=NEVER", "RCPT TO:<a@b> NOTIFY=NEVER"),
            ("rcpt to: a@b ", "RCPT TO:<a@b>"),
            ("RCPT TO: < postmaster >", "RCPT TO:<postmaster>"),
            ("RCPT TO: <\u{fc}@b >", "RCPT TO:<\u{fc}@b>"),
        ];
        for (line, written) in lines {
            let mut out = Vec::new();
            rcpt(line).write(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("{written}\r\n"));
        }
    }

    #[test]
    fn rule_g12_where_quirks_are_rejected_a_path_has_its_brackets_and_no_blanks() {
        let lines = ["MAIL FROM: <a@b>", "MAIL FROM:a@b", "MAIL FROM: a@b SIZE=1"];
        assert_strictly_refused(&lines, "501 5.5.4");
        let lines = ["RCPT TO:\t<a@b>", "RCPT TO:a@b", "RCPT TO: a@b"];
        assert_strictly_refused(&lines, "501 5.5.4");
        assert_strictly_refused(&["MAIL FROM:< a@b >", "MAIL FROM:< >"], "501 5.1.7");
        assert_strictly_refused(&["RCPT TO:<a@b >", "RCPT TO:< a@b>"], "501 5.1.3");
        assert_strictly_refused(&["EHLO b\u{fc}ro", "helo \u{fc}"], "501 5.5.4");
    }

    #[test]
    fn a_path_without_brackets_or_end_is_refused() {
        let lines: [&[u8]; 16] = [
            b"MAIL",
            b"MAIL FROM",
            b"MAIL FROM:",
            b"MAIL FROM: ",
            b"MAIL FROM <a@b>",
            b"MAIL FROM :a@b",
            b"MAIL TO:<a@b>",
            b"MAIL FROM:a",
            b"MAIL FROM:SIZE=10",
            b"MAIL FROM:Joe <a@b>",
            b"MAIL FROM:\"a b\"@c",
            b"RCPT TO:a b@c",
            b"RCPT TO:a@b,c@d",
            b"RCPT TO:@a:b@c",
            b"RCPT TO:a@[192.0.2.1]",
            b"RCPT FROM:<a@b>",
        ];
        assert_refused(&lines, "501 5.5.4", Next::Continue);
        let lines: [&[u8]; 5] = [
            b"MAIL FROM:<a@b",
            b"MAIL FROM:<a b>",
            b"MAIL FROM:<a @b>",
            b"MAIL FROM:<a@b c@d>",
            b"MAIL FROM:<<a@b>>",
        ];
        assert_refused(&lines, "501 5.1.7", Next::Continue);
        let lines: [&[u8]; 4] = [
            b"RCPT TO:<>",
            b"RCPT TO:<a@b",
            b"RCPT TO:<\"a@b>",
            b"RCPT TO:< >",
        ];
        assert_refused(&lines, "501 5.1.3", Next::Continue);
        let lines: [&[u8]; 5] = [
            b"MAIL FROM:<a@b>SIZE=1",
            b"MAIL FROM:<a@b>> SIZE=1",
            b"MAIL FROM:<a@b> <c@d>",
            b"MAIL FROM:<a@b> =1",
            b"RCPT TO:<a@b> -X",
        ];
        assert_refused(&lines, "501 5.5.4", Next::Continue);
        let lines: [&[u8]; 3] = [
            b"MAIL FROM:a@b <c@d>",
            b"MAIL FROM:a@b c@d",
            b"RCPT TO:a@b -X",
        ];
        assert_refused(&lines, "501 5.5.4", Next::Continue);
    }

    #[test]
    fn rule_b1_what_we_know_and_do_not_offer_is_told_apart() {
        for verb in [
            "EXPN", "etrn", "ATRN", "TURN", "SEND", "SOML", "SAML", "BURL",
        ] {
            for rest in ["", " x"] {
                let line = format!("{verb}{rest}");
                assert_refused(&[line.as_bytes()], "502 5.5.1", Next::Continue);
            }
        }
        let lines: [&[u8]; 8] = [
            b"",
            b"  ",
            b" NOOP",
            b"EHLOX a",
            b"EHL a",
            b"STARTTLSX",
            b"LHLO a",
            b"<html>",
        ];
        assert_refused(&lines, "500 5.5.2", Next::Continue);
    }

    #[test]
    fn rule_b3_lines_of_other_protocols_end_the_session() {
        let lines: [&[u8]; 12] = [
            b"GET / HTTP/1.1",
            b"POST /submit HTTP/1.1",
            b"put /x",
            b"HEAD",
            b"OPTIONS *",
            b"CONNECT mx:25 HTTP/1.1",
            b"USER joe",
            b"PRI * HTTP/2.0",
            b"GET /\0\xff",
            b"Host: mx.example",
            b"Content-Type:text/plain",
            b"X-Smuggled:",
        ];
        assert_refused(&lines, "421 4.7.0", Next::Close);
    }

    #[test]
    fn rule_x24_what_tells_another_identity_is_unknown() {
        let lines: [&[u8]; 4] = [
            b"XCLIENT ADDR=192.0.2.1",
            b"XFORWARD ADDR=192.0.2.1",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25",
            b"xclient",
        ];
        assert_refused(&lines, "500 5.5.2", Next::Continue);
    }

    #[test]
    fn rule_g13_control_octets_are_refused() {
        let lines: [&[u8]; 8] = [
            b"NOOP \0",
            b"EHLO a\tb",
            b"EHLO a\x7f",
            b"MAIL FROM:<a\tb@c>",
            b"MAIL FROM:<a\0@c>",
            b"MAIL FROM:<a@c> ENVID=\x01",
            b"DA\0TA",
            b"\x16\x03\x01",
        ];
        assert_refused(&lines, "501 5.5.2", Next::Continue);
    }

    #[test]
    fn rule_g13_octets_over_127_need_utf8_and_smtputf8() {
        let lines: [&[u8]; 3] = [b"NOOP \xff", b"MAIL FROM:<\xe9@b> SMTPUTF8", b"EHLO \xe9"];
        assert_refused(&lines, "500 5.5.2", Next::Continue);
        assert_strictly_refused(&["EHLO é", "helo b\u{fc}ro"], "501 5.5.4");
        let utf8 = ["MAIL FROM:<é@b>", "MAIL FROM:<a@é> SIZE=1", "RCPT TO:<é@b>"];
        assert_refused(&utf8.map(str::as_bytes), "553 5.6.7", Next::Continue);
        assert_eq!(parse("NOOP é".as_bytes()), Ok(Command::Noop));
        assert!(rcpt("RCPT TO:<é@b> ORCPT=utf-8;é").parameters.has("orcpt"));
    }

    #[test]
    fn rule_g13_a_name_outside_ascii_is_taken_and_printed_escaped() {
        let Ok(Command::Ehlo(name)) = parse("EHLO b\u{fc}ro pc".as_bytes()) else {
            panic!("it is taken");
        };
        assert_eq!(name.as_said(), "b\u{fc}ro pc");
        assert_eq!(name.to_string(), r"b\xc3\xbcro pc");
        assert_eq!(format!("{name:?}"), r#""b\xc3\xbcro pc""#);
        assert!(format!("{:?}", Command::Helo(name)).is_ascii());
        let longest = "\u{fc}".repeat(HELLO_NAME_MAX / 2);
        assert!(parse(format!("EHLO {longest}x").as_bytes()).is_ok());
        let line = format!("EHLO {longest}xx");
        assert_refused(&[line.as_bytes()], "501 5.5.4", Next::Continue);
    }

    #[test]
    fn rule_g14_arguments_stand_where_they_belong() {
        let long = [b"EHLO ", [b'a'; 256].as_slice()].concat();
        let lines: [&[u8]; 13] = [
            b"DATA now",
            b"RSET x",
            b"QUIT x",
            b"STARTTLS x",
            b"EHLO",
            b"HELO ",
            &long,
            b"VRFY",
            b"AUTH",
            b"AUTH PLAIN a b",
            b"AUTH (x)",
            b"AUTH =",
            b"AUTH ABCDEFGHIJKLMNOPQRSTU",
        ];
        assert_refused(&lines, "501 5.5.4", Next::Continue);
        assert!(parse(&long[..260]).is_ok());
    }

    #[test]
    fn rule_b4_commands_that_lead_nowhere_are_junk_and_mistakes_are_errors() {
        for (line, cost) in [
            ("NOOP", Cost::Junk),
            ("HELP", Cost::Junk),
            ("VRFY joe", Cost::Junk),
            ("RSET", Cost::Nothing),
            ("MAIL FROM:<>", Cost::Nothing),
        ] {
            assert_eq!(
                parse(line.as_bytes()).map(|command| command.cost()),
                Ok(cost)
            );
        }
        assert_eq!(CommandError::Unknown.cost(), Cost::Error);
    }

    #[test]
    fn rule_c1_chunks_have_a_length_and_may_be_the_last() {
        let bdat = |octets, last| Ok(Command::Bdat { octets, last });
        assert_eq!(parse(b"BDAT 0 LAST"), bdat(0, true));
        assert_eq!(parse(b"bdat 86  last "), bdat(86, true));
        assert_eq!(parse(b"BDAT 00000000000000000007"), bdat(7, false));
        assert_eq!(parse(b"BDAT 18446744073709551615"), bdat(u64::MAX, false));
    }

    #[test]
    fn rule_c3_a_chunk_without_readable_length_ends_the_session() {
        let lines: [&[u8]; 12] = [
            b"BDAT",
            b"BDAT x",
            b"BDAT -1",
            b"BDAT +1",
            b"BDAT 1x",
            b"BDAT 1 FIRST",
            b"BDAT 1 LAST LAST",
            b"BDAT LAST",
            b"BDAT 18446744073709551616",
            b"BDAT 000000000000000000001",
            b"BDAT 5\0",
            b"BDAT \xff",
        ];
        assert_refused(&lines, "501 5.5.4", Next::Close);
    }

    #[test]
    fn rule_a2_credentials_are_not_printed() {
        let Ok(command) = parse(b"AUTH PLAIN AGpvZQBzZWNyZXQ=") else {
            panic!("AUTH is a command");
        };
        let text = format!("{command:?}");
        assert!(text.contains("PLAIN") && !text.contains("AGpv"), "{text}");
        let Command::Auth {
            initial: Some(initial),
            ..
        } = command
        else {
            panic!("there is an initial response");
        };
        assert_eq!(initial.octets(), b"AGpvZQBzZWNyZXQ=");
    }
}
