//! Commands as the RFC has them, as clients send them, and as neither should.

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
