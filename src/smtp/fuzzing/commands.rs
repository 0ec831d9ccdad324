//! What the fuzzer of command lines, commands, extensions and replies checks.

#![expect(
    clippy::panic,
    reason = "a panic is how a fuzzer says that it found something"
)]

use std::num::NonZeroU64;

use memchr::memchr;

use super::super::closing::Next;
use super::super::{
    COMMAND_LINE_MAX, ClientQuirks, Command, CommandLine, Extensions, HELLO_NAME_MAX, Keyword,
    Keywords, LineDefect, LineKind, LineReader, MECHANISMS_MAX, Mail, Needed, OwnExtensions,
    OwnReply, Parameters, REPLY_LINES_MAX, Rcpt, Reply, ReplyError, ReplyRead, ReplyText,
    SessionLimits, Smtputf8, WRITTEN_LINE_MAX, judge_backends, judge_mail, judge_rcpt,
    parse_command, read_reply, write_reply,
};

/// Any octets, of which the first says how the others are read: as what a client says, in any
/// chunks, and as what a backend answers to EHLO.
///
/// # Panics
/// When a reader or writer is wrong.
pub fn fuzz_commands(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else {
        return;
    };
    let quirks = if first & 1 == 0 {
        ClientQuirks::Reject
    } else {
        ClientQuirks::Accept
    };
    let kind = if first & 2 == 0 {
        LineKind::Command
    } else {
        LineKind::Auth
    };
    let smtputf8 = if first & 4 == 0 {
        Smtputf8::Unused
    } else {
        Smtputf8::Used
    };
    let lines = read_lines(rest, rest.len().max(1), quirks, kind);
    let size = usize::from(first >> 3) + 1;
    assert_eq!(lines, read_lines(rest, size, quirks, kind));
    assert_eq!(lines, read_lines(rest, 1, quirks, kind));
    for line in lines.iter().filter_map(|line| line.as_ref().ok()) {
        check_line(line, quirks, smtputf8);
    }
    if let ReplyRead::Complete(reply) = read_reply(rest) {
        check_relayed(&reply);
        check_extensions(&Extensions::read(&reply));
    }
}

/// The lines and defects of `octets` in chunks of `size`, up to the one that ends the session.
fn read_lines(
    octets: &[u8],
    size: usize,
    quirks: ClientQuirks,
    kind: LineKind,
) -> Vec<Result<Vec<u8>, LineDefect>> {
    let mut reader = LineReader::new(quirks);
    let mut buffer = Vec::new();
    let mut lines = Vec::new();
    for chunk in octets.chunks(size) {
        buffer.extend_from_slice(chunk);
        let mut at = 0;
        loop {
            let (line, consumed) = match reader.read(&buffer[at..], kind) {
                CommandLine::Incomplete { consumed } => {
                    at += consumed;
                    break;
                }
                CommandLine::Complete { text, consumed } => (Ok(text.to_vec()), consumed),
                CommandLine::Defective { defect, consumed } => (Err(defect), consumed),
            };
            assert!((1..=buffer.len() - at).contains(&consumed));
            at += consumed;
            let ends = line
                .as_ref()
                .is_err_and(|defect| defect.next() == Next::Close);
            lines.push(line);
            if ends {
                return lines;
            }
        }
        buffer.drain(..at);
        assert!(kind == LineKind::Auth || buffer.len() < COMMAND_LINE_MAX);
    }
    lines
}

fn check_line(line: &[u8], quirks: ClientQuirks, smtputf8: Smtputf8) {
    assert!(!line.contains(&b'\r') && !line.contains(&b'\n'));
    let command = parse_command(line, quirks, smtputf8);
    // What a strict reader follows means the same to one that takes more.
    let strictly = parse_command(line, ClientQuirks::Reject, smtputf8);
    assert!(strictly.is_err() || strictly == command);
    match command {
        Err(error) => check_own(error.reply()),
        Ok(Command::Mail(mail)) => check_mail(mail, line),
        Ok(Command::Rcpt(rcpt)) => check_rcpt(rcpt, line, smtputf8),
        Ok(Command::Ehlo(name) | Command::Helo(name)) => {
            let said = name.as_said();
            assert!((1..=HELLO_NAME_MAX).contains(&said.len()));
            assert!(!said.bytes().any(|octet| octet.is_ascii_control()));
            assert!(quirks == ClientQuirks::Accept || said.is_ascii());
            let shown = format!("{name}{name:?}");
            assert!(shown.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
        }
        Ok(Command::Vrfy(argument)) => assert!(!argument.is_empty()),
        Ok(Command::Auth { mechanism, initial }) => {
            assert!((1..=20).contains(&mechanism.len()));
            assert!(initial.is_none_or(|initial| !initial.octets().is_empty()));
        }
        Ok(
            Command::Data
            | Command::Bdat { .. }
            | Command::Rset
            | Command::Noop
            | Command::Quit
            | Command::Help
            | Command::Starttls,
        ) => {}
    }
}

fn check_own(own: OwnReply) {
    let mut out = Vec::new();
    own.write("mx.example", &mut out);
    let ReplyRead::Complete(reply) = read_reply(&out) else {
        panic!("not a reply: {}", out.escape_ascii());
    };
    assert_eq!((reply.code, reply.octets.len()), (own.code(), out.len()));
    assert!(reply.code.class() >= 4 && reply.enhanced.is_some());
}

/// Everything, so that any parameter can be judged.
fn equipped() -> Extensions {
    Extensions {
        keywords: every_keyword(),
        size_max: NonZeroU64::new(1 << 20),
        ..Extensions::default()
    }
}

fn every_keyword() -> Keywords {
    let all = Keyword::ALL.into_iter();
    all.fold(Keywords::default(), Keywords::with)
}

/// What goes to the backend is one line and means the same.
fn check_mail(mail: Mail<'_>, line: &[u8]) {
    let equipped = equipped();
    let mut out = Vec::new();
    mail.write(&equipped, &mut out);
    let written = check_written(&out, line);
    let again = parse_command(written, ClientQuirks::Reject, Smtputf8::Unused);
    let Ok(Command::Mail(again)) = again else {
        panic!("not read again: {}", written.escape_ascii());
    };
    assert_eq!(again.path, mail.path);
    assert!(again.parameters.iter().eq(mail.parameters.iter()));
    check_path(mail.path.address(), mail.parameters);

    assert_eq!(
        judge_mail(mail.parameters, None).is_ok(),
        mail.parameters.iter().next().is_none()
    );
    match judge_mail(mail.parameters, Some(&equipped)) {
        Err(error) => check_own(error.reply()),
        Ok(terms) => {
            assert!(equipped.lacks(terms.needed).is_empty());
            assert_eq!(judge_backends(terms.needed, [&equipped]), Ok(()));
            let utf8 = terms.needed.keywords.has(Keyword::Smtputf8);
            assert_eq!(utf8, terms.smtputf8 == Smtputf8::Used);
            assert_eq!(utf8, mail.parameters.has("SMTPUTF8"));
            let nothing = Extensions::default();
            assert_eq!(nothing.lacks(terms.needed), terms.needed.keywords);
        }
    }
}

fn check_rcpt(rcpt: Rcpt<'_>, line: &[u8], smtputf8: Smtputf8) {
    let mut out = Vec::new();
    rcpt.write(&mut out);
    let written = check_written(&out, line);
    let again = parse_command(written, ClientQuirks::Reject, smtputf8);
    let Ok(Command::Rcpt(again)) = again else {
        panic!("not read again: {}", written.escape_ascii());
    };
    assert_eq!(again.path, rcpt.path);
    assert!(again.parameters.iter().eq(rcpt.parameters.iter()) && !rcpt.path.is_null());
    check_path(rcpt.path.address(), rcpt.parameters);
    if let Err(error) = judge_rcpt(rcpt.parameters, Some(&equipped())) {
        check_own(error.reply());
    }
}

/// One line, no longer than the client's but for brackets that this had not, of which the text is
/// given back.
fn check_written<'a>(out: &'a [u8], line: &[u8]) -> &'a [u8] {
    let written = out.strip_suffix(b"\r\n").expect("a line ends with CRLF");
    // A parameter may have brackets too.
    let colon = memchr(b':', line).expect("one follows FROM and TO");
    let has_brackets = line[colon + 1..].trim_ascii_start().starts_with(b"<");
    let brackets = if has_brackets { 0 } else { 2 };
    assert!(!written.iter().any(u8::is_ascii_control) && written.len() <= line.len() + brackets);
    assert!(out.len() <= COMMAND_LINE_MAX, "a backend may cut it short");
    written
}

fn check_path(address: &[u8], parameters: Parameters<'_>) {
    let quotes = address.contains(&b'"');
    assert!(quotes || !address.iter().any(|octet| b" <>".contains(octet)));
    for parameter in parameters.iter() {
        assert!(!parameter.octets.contains(&b' ') && !parameter.keyword.is_empty());
    }
}

/// Rule G11: the same reply, clean, and clean for good.
fn check_relayed(reply: &Reply<'_>) {
    for allowed in [ReplyText::Ascii, ReplyText::Utf8] {
        let mut out = Vec::new();
        write_reply(reply, allowed, &mut out);
        let lines = out.split_inclusive(|&octet| octet == b'\n');
        for line in lines.clone() {
            let text = line.strip_suffix(b"\r\n").expect("a line ends with CRLF");
            assert!(line.len() <= WRITTEN_LINE_MAX);
            assert!(
                text.iter()
                    .all(|&octet| octet == b'\t' || !octet.is_ascii_control())
            );
            assert!(allowed == ReplyText::Utf8 || text.is_ascii());
            assert!(std::str::from_utf8(text).is_ok());
        }
        assert!(lines.clone().count() >= reply.lines().count());
        let relayed = match read_reply(&out) {
            ReplyRead::Complete(relayed) => relayed,
            // Splitting may make more lines than are taken from a backend.
            ReplyRead::Invalid(ReplyError::TooLong) if lines.count() > REPLY_LINES_MAX => continue,
            other => panic!("{other:?} for {}", out.escape_ascii()),
        };
        assert_eq!(relayed.octets.len(), out.len());
        assert_eq!(
            (relayed.code, relayed.enhanced),
            (reply.code, reply.enhanced)
        );
        let mut again = Vec::new();
        write_reply(&relayed, allowed, &mut again);
        assert_eq!(again, out);
    }
}

/// Rule E3, said as laws.
fn check_extensions(backend: &Extensions) {
    assert!(backend.mechanisms.len() <= MECHANISMS_MAX);
    let own = OwnExtensions {
        allowed: Keywords::CLEAR,
        size_max: NonZeroU64::new(10_000_000),
        limits: SessionLimits::default(),
    };
    let announced = Extensions::announced(&own, [backend]);
    assert!(announced.keywords.without(own.allowed).is_empty());
    assert!(announced.size_max <= own.size_max && announced.limits.mail_max.is_none());
    // What is announced for one, for it twice and with another does not grow.
    assert_eq!(announced, Extensions::announced(&own, [backend, backend]));
    let unknown = Extensions::default();
    let fewer = Extensions::announced(&own, [backend, &unknown]);
    assert_eq!(fewer, Extensions::announced(&own, [&unknown, backend]));
    assert!(fewer.keywords.without(announced.keywords).is_empty());
    // The backend can do all that is announced because of it.
    let shared = announced.keywords.without(fewer.keywords);
    let needed = Needed {
        keywords: shared,
        size: announced.size_max.map(NonZeroU64::get),
    };
    assert!(backend.lacks(needed).is_empty());
    // What is written is read back as the same.
    let mut out = Vec::new();
    announced.write_ehlo("lb.example", &mut out);
    let ReplyRead::Complete(reply) = read_reply(&out) else {
        panic!("not a reply: {}", out.escape_ascii());
    };
    assert_eq!(reply.octets.len(), out.len());
    assert_eq!(Extensions::read(&reply), announced);
}
