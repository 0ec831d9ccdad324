//! What clients send beside the grammar (rules G12, G13), and NUL in their messages (rule D8).

use super::*;
use crate::smtp::ClientQuirks;

fn strict() -> MailPolicy {
    MailPolicy {
        quirks: ClientQuirks::Reject,
        ..MailPolicy::default()
    }
}

#[test]
fn rule_g12_a_session_of_commands_that_end_with_lf() {
    let mut lab = Lab::new();
    assert!(lab.say("EHLO raid\n").starts_with("250-lb.example|"));
    let group = "MAIL FROM: a@x\nRCPT TO:< b@y >\r\nRCPT TO:<c@y>\nDATA\n";
    assert_eq!(lab.feed(group), group.len());
    lab.lease();
    let passed = "MAIL FROM:<a@x>|RCPT TO:<b@y>|RCPT TO:<c@y>|DATA|";
    assert_eq!(lab.passed(), passed, "rule P8: in one flight");
    lab.hear("250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n");
    // In the message LF is no end of anything.
    let text = "a\n.\nQUIT\n.\r\n.\n\r\n.\r\nNOOP\nQUIT\n";
    let message = text.find("NOOP").expect("it is there");
    assert_eq!(lab.feed(text), message);
    assert_eq!(lab.passed(), "a|..|QUIT|..|..||.|");
    assert_eq!(lab.hear("250 taken\r\n"), "250 taken|");
    let told = lab.say(&text[message..]);
    assert_eq!(told, "250 2.0.0 ok|221 2.0.0 lb.example closing|");
    let mut facts = lab.ended().1;
    assert_eq!(facts.sender(), b"a@x");
    let recipients: Vec<_> = facts.recipients().collect();
    assert_eq!(recipients, [b"b@y", b"c@y"]);
    assert!(facts.digest(usize::MAX).is_some());
}

#[test]
fn rule_g12_lines_mean_the_same_however_they_end_and_come() {
    let dialogue = "EHLO c\nNOOP\r\nXYZZY\nMAIL FROM:a@x X=1\r\nRCPT TO: <b@y>\nHELP\n\r\nRSET\r\n\
                    NOOP a\tb\nMAIL FROM:\nQUIT\nNOOP\n";
    let mut with_crlf = Lab::new();
    with_crlf.feed(&dialogue.replace("\r\n", "\n").replace('\n', "\r\n"));
    let told = with_crlf.told();
    assert!(
        told.contains("555 5.5.4") && told.ends_with(" closing|"),
        "{told}"
    );
    let mut at_once = Lab::new();
    at_once.feed(dialogue);
    assert_eq!(at_once.told(), told);
    let mut by_octet = Lab::new();
    let (mut pieces, mut held) = (String::new(), String::new());
    for octet in dialogue.split_inclusive("") {
        held += octet;
        held.drain(..by_octet.feed(&held.clone()));
        pieces += &by_octet.told();
    }
    assert_eq!(pieces, told);
}

#[test]
fn rule_g12_a_bare_line_end_in_a_command_ends_the_session() {
    let lines = [
        ("NOOP\rQUIT\r\n", MailPolicy::default()),
        ("NOOP\r\r\n", MailPolicy::default()),
        ("NOOP\nNOOP\rQUIT\n", MailPolicy::default()),
        ("STARTTLS\n", MailPolicy::default()),
        ("BDAT 4 LAST\nQUIT", MailPolicy::default()),
        ("auth PLAIN AGEAYg==\n", MailPolicy::default()),
        ("NOOP\nQUIT\r\n", strict()),
        ("NOOP\rQUIT\r\n", strict()),
    ];
    for (line, policy) in lines {
        let mut lab = Lab::greeted(policy);
        lab.feed(line);
        let told = lab.told();
        let last = told.strip_prefix("250 2.0.0 ok|").unwrap_or(&told);
        assert!(
            last.starts_with("500 5.5.2 "),
            "{}: {told}",
            line.escape_default()
        );
        assert!(lab.session.is_closing());
    }
}

#[test]
fn rule_g12_where_quirks_are_rejected_each_is_a_mistake() {
    for (line, codes) in [
        ("MAIL FROM: <a@x>\r\n", "501 5.5.4 "),
        ("MAIL FROM:a@x\r\n", "501 5.5.4 "),
        ("MAIL FROM:< a@x >\r\n", "501 5.1.7 "),
        ("EHLO b\u{fc}ro\r\n", "501 5.5.4 "),
    ] {
        let mut lab = Lab::greeted(strict());
        let told = lab.say(line);
        assert!(told.starts_with(codes), "{told}");
        assert!(lab.effects().is_empty(), "no backend hears of it");
        assert!(!lab.session.is_closing());
    }
}

#[test]
fn rule_g13_a_name_outside_ascii_is_taken_and_goes_nowhere_raw() {
    for hello in ["EHLO", "HELO"] {
        let mut lab = Lab::new();
        let told = lab.say(&format!("{hello} b\u{fc}ro\r\n"));
        assert!(told.starts_with("250") && told.is_ascii(), "{told}");
        lab.feed("MAIL FROM:<a@x>\r\n");
        lab.lease();
        assert_eq!(lab.passed(), "MAIL FROM:<a@x>|");
        lab.hear("550 no\r\n");
        let facts = lab.ended().1;
        assert_eq!(facts.hello().to_string(), r"b\xc3\xbcro");
    }
    // NUL and the like are refused in any command.
    for line in ["EHLO a\0b\n", "NOOP \0\n", "MAIL FROM:a\0@x\n", "\0\n"] {
        let told = Lab::new().say(line);
        assert!(told.starts_with("501 5.5.2 "), "{told}");
    }
}

#[test]
fn rule_d8_a_backend_gets_no_nul_by_data_and_its_replacement_the_same() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("a\0b\r\n\0.\0\r\n.\0\n\0");
    assert_eq!(lab.passed(), "a b| . |. | ");
    lab.session.backend_lost(lab.now);
    lab.lease();
    assert_eq!(lab.passed(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
    lab.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(lab.passed(), "DATA|");
    lab.hear("354 go on\r\n");
    assert_eq!(lab.passed(), "a b| . |. | ", "the copy is what was sent");
    lab.feed("\r\n.\r\n");
    assert_eq!(lab.passed(), "|.|");
    assert_eq!(lab.hear("250 taken\r\n"), "250 taken|");
}

#[test]
fn rules_c6_and_d8_nul_by_bdat_is_untouched_and_no_backend_gets_it_by_data() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    let chunk = "BDAT 8 LAST\r\na\r\n\0.\0\r\n";
    lab.feed(chunk);
    assert_eq!(lab.passed(), chunk.replace("\r\n", "|"));
    lab.session.backend_lost(lab.now);

    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 3\r\na\0b");
    lab.passed();
    lab.session.backend_lost(lab.now);
    // One without CHUNKING, though that was asked for.
    lab.lease();
    let passed = lab.passed();
    assert!(
        !passed.contains('\0') && !passed.contains("DATA"),
        "{passed}"
    );
}
