//! What clients say and what backends announce: any octets, any chunking, and `smtp-proto` as second
//! opinion where both of us accept.
//!
//! It takes less and more: it knows no parameter it cannot read and no path without brackets, ends
//! every line at LF and a name at a space, skips CR wherever it stands, takes backslashes and `DSN_X`
//! for DSN, and reads a SIZE over `usize` anew from its last digits. It decodes quotes, so an address
//! with quotes is not compared, nor a source route with colons in it; and `+XX` of an xtext, so that
//! only plain values are.
#![no_main]

use std::borrow::Cow;

use posthouse_fuzz::smtp::{
    Body, ClientQuirks, Command, CommandLine, Extensions, Keyword, Keywords, LineKind, LineReader, Mail,
    Parameters, Path, Rcpt, Reply, ReplyRead, Smtputf8, fuzz_commands, judge_mail, judge_rcpt,
    parse_command, read_reply,
};
use smtp_proto::{
    EXT_8BIT_MIME, EXT_AUTH, EXT_CHUNKING, EXT_DSN, EXT_ENHANCED_STATUS_CODES, EXT_PIPELINING,
    EXT_SIZE, EXT_SMTP_UTF8, EXT_START_TLS, EhloResponse, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME,
    MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, MailFrom, RcptTo, Request,
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz_commands(data);
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    let quirks = if first & 1 == 0 {
        ClientQuirks::Reject
    } else {
        ClientQuirks::Accept
    };
    let mut reader = LineReader::new(quirks);
    let mut at = 0;
    loop {
        match reader.read(&rest[at..], LineKind::Command) {
            CommandLine::Complete { text, consumed } => {
                compare_line(text, &rest[at..at + consumed], quirks);
                at += consumed;
            }
            CommandLine::Incomplete { .. } | CommandLine::Defective { .. } => break,
        }
    }
    if let ReplyRead::Complete(reply) = read_reply(rest) {
        compare_ehlo(&reply);
    }
});

fn compare_line(text: &[u8], line: &[u8], quirks: ClientQuirks) {
    let ours = parse_command(text, quirks, Smtputf8::Used);
    let theirs = Request::parse(&mut line.iter());
    let (Ok(ours), Ok(theirs)) = (ours, theirs) else {
        return;
    };
    match (ours, theirs) {
        (Command::Ehlo(name), Request::Ehlo { host })
        | (Command::Helo(name), Request::Helo { host }) => {
            // A tab is a blank to us and part of the name to them.
            let tabs = text.contains(&b'\t');
            let first = name.as_said().split(' ').next();
            assert!(tabs || first == Some(&*host), "{name} is {host} to them");
        }
        (Command::Mail(ours), Request::Mail { from }) => compare_mail(ours, &from),
        (Command::Rcpt(ours), Request::Rcpt { to }) => compare_rcpt(ours, &to),
        (
            Command::Bdat { octets, last },
            Request::Bdat {
                chunk_size,
                is_last,
            },
        ) => {
            assert_eq!(last, is_last);
            // Theirs wraps around where no message reaches.
            assert!(octets == chunk_size as u64 || octets >= 10_u64.pow(18));
        }
        (Command::Data, Request::Data)
        | (Command::Rset, Request::Rset)
        | (Command::Noop, Request::Noop { .. })
        | (Command::Quit, Request::Quit)
        | (Command::Vrfy(_), Request::Vrfy { .. })
        | (Command::Help, Request::Help { .. })
        | (Command::Starttls, Request::StartTls)
        | (Command::Auth { .. }, Request::Auth { .. }) => {}
        (ours, theirs) => panic!("{ours:?} is {theirs:?} to them"),
    }
}

fn compare_mail(ours: Mail<'_>, theirs: &MailFrom<Cow<'_, str>>) {
    compare_path(ours.path, &theirs.address);
    let everything = everything();
    let Ok(terms) = judge_mail(ours.parameters, Some(&everything)) else {
        return;
    };
    if !is_plain(ours.parameters) {
        return;
    }
    let size = terms.size.unwrap_or_default();
    assert!(size == theirs.size as u64 || size >= 10_u64.pow(18));
    let said = |flag: u64| theirs.flags & flag != 0;
    assert_eq!(said(MAIL_SMTPUTF8), terms.smtputf8 == Smtputf8::Used);
    assert_eq!(said(MAIL_BODY_7BIT), terms.body == Some(Body::SevenBit));
    let eight = terms.body == Some(Body::EightBitMime);
    assert_eq!(said(MAIL_BODY_8BITMIME), eight);
    let ret = said(MAIL_RET_FULL) || said(MAIL_RET_HDRS);
    assert_eq!(ret, ours.parameters.has("RET"));
    assert_eq!(theirs.env_id.is_some(), ours.parameters.has("ENVID"));
}

fn compare_rcpt(ours: Rcpt<'_>, theirs: &RcptTo<Cow<'_, str>>) {
    compare_path(ours.path, &theirs.address);
    if judge_rcpt(ours.parameters, Some(&everything())).is_ok() && is_plain(ours.parameters) {
        assert_eq!(theirs.flags != 0, ours.parameters.has("NOTIFY"));
        assert_eq!(theirs.orcpt.is_some(), ours.parameters.has("ORCPT"));
    }
}

/// Whether values hold nothing that one of us decodes.
fn is_plain(parameters: Parameters<'_>) -> bool {
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"@.;,-_".contains(octet);
    let mut values = parameters.iter().filter_map(|parameter| parameter.value);
    values.all(|value| value.iter().all(plain))
}

fn compare_path(ours: Path<'_>, theirs: &str) {
    let address = ours.address();
    if address.iter().any(|octet| b"\"\\[".contains(octet)) {
        return;
    }
    let mailbox = match address {
        [b'@', ..] => address.splitn(2, |&octet| octet == b':').nth(1),
        _ => Some(address),
    };
    let mailbox = mailbox.expect("a source route ends with a colon");
    if mailbox.contains(&b':') {
        return;
    }
    let postmaster = theirs.is_empty() && mailbox.eq_ignore_ascii_case(b"postmaster");
    assert!(
        postmaster || mailbox == theirs.as_bytes(),
        "{ours:?} is {theirs:?} to them"
    );
}

fn everything() -> Extensions {
    let all = Keyword::ALL.into_iter();
    Extensions {
        keywords: all.fold(Keywords::default(), Keywords::with),
        ..Extensions::default()
    }
}

fn compare_ehlo(reply: &Reply<'_>) {
    // A tab is a blank to us and part of a keyword to them.
    if reply.octets.contains(&b'\t') {
        return;
    }
    let Ok(theirs) = EhloResponse::parse(&mut reply.octets.iter()) else {
        return;
    };
    let ours = Extensions::read(reply);
    let names = [
        (Keyword::Pipelining, EXT_PIPELINING),
        (Keyword::Size, EXT_SIZE),
        (Keyword::EightBitMime, EXT_8BIT_MIME),
        (Keyword::Smtputf8, EXT_SMTP_UTF8),
        (Keyword::EnhancedStatusCodes, EXT_ENHANCED_STATUS_CODES),
        (Keyword::Dsn, EXT_DSN),
        (Keyword::Chunking, EXT_CHUNKING),
        (Keyword::Starttls, EXT_START_TLS),
        (Keyword::Auth, EXT_AUTH),
    ];
    // Short words of letters and digits mean the same to both; of others they make more.
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b' ' | b'-');
    let is_plain = reply.lines().skip(1).all(|line| {
        let mut words = line.split(|&octet| octet == b' ');
        line.iter().all(plain) && words.all(|word| word.len() <= "ENHANCEDSTATUSCODES".len())
    });
    // A word they make something else of may hide the next line from them as well.
    if !is_plain {
        return;
    }
    for (keyword, bit) in names {
        let announced = theirs.capabilities & bit != 0;
        assert_eq!(announced, ours.keywords.has(keyword), "{keyword:?}");
    }
    let sizes = reply.lines().skip(1).filter(|line| {
        let word = line.trim_ascii_start().get(..4);
        word.is_some_and(|word| word.eq_ignore_ascii_case(b"SIZE"))
    });
    if let (Some(size), 1) = (ours.size_max, sizes.count()) {
        assert!(size.get() == theirs.size as u64 || size.get() >= 10_u64.pow(18));
    }
}
