//! Mode "smtp" in front of each kind of real server: what arrives, over how many connections, and
//! what a client does not notice.
//!
//! The same tests for all of them; what is particular to one is at the end.

use crate::lab::backend::{Backend, body};
use crate::lab::exim::Exim;
use crate::lab::haraka::Haraka;
use crate::lab::opensmtpd::OpenSmtpd;
use crate::lab::postfix::Postfix;
use crate::lab::posthouse::{NO_PROBES, Posthouse, QUICK_PROBES};
use crate::lab::smtp_server::SmtpServer;
use crate::lab::{Client, wait_for};

/// Postfix as it comes.
fn stock_postfix() -> Postfix {
    Postfix::keeping(&["smtpd_forbid_unauth_pipelining=no"])
}

/// Postfix as strict as it can be: it ends a session that pipelines where RFC 2920 forbids it, and
/// refuses a message with a bare LF.
fn strict_postfix() -> Postfix {
    Postfix::keeping(&["smtpd_forbid_bare_newline=reject"])
}

macro_rules! in_front_of {
    ($($server:ident = $start:expr;)*) => {$(
        mod $server {
            use super::*;

            #[test]
            fn a_message_arrives_octet_for_octet_d2_d12() {
                super::a_message_arrives_octet_for_octet(&$start);
            }

            #[test]
            fn a_message_of_ten_megabytes_arrives_as_it_was_d2() {
                super::a_large_message_arrives_as_it_was(&$start);
            }

            #[test]
            fn a_pipelined_group_is_answered_in_order_p2_p5_p10() {
                super::a_pipelined_group_is_answered_in_order(&$start);
            }

            #[test]
            fn fifty_messages_take_a_few_connections_n2_n4() {
                super::fifty_messages_take_a_few_connections(&$start);
            }

            #[test]
            fn a_restart_between_messages_is_not_seen_n3() {
                super::a_restart_between_messages_is_not_seen(&mut $start);
            }
        }
    )*};
}

in_front_of! {
    postfix = stock_postfix();
    postfix_that_is_strict = strict_postfix();
    exim = Exim::start();
    opensmtpd = OpenSmtpd::start();
    haraka = Haraka::plain();
    smtp_server = SmtpServer::start();
}

/// Balances to one backend without probes, so that every connection is for mail.
fn without_probes(backend: &impl Backend) -> Posthouse {
    Posthouse::smtp(&[backend.address()], NO_PROBES)
}

/// Waits until the backend has taken so many messages; none may come behind them.
fn has_taken(backend: &impl Backend, messages: usize) {
    wait_for(&format!("{messages} messages"), || {
        (backend.taken() >= messages).then_some(())
    });
    assert_eq!(backend.taken(), messages);
}

/// Lines that a relay which edits would edit: dots in front, all octets but NUL, CR and LF, long and
/// empty lines at the end.
fn awkward_lines() -> Vec<u8> {
    let mut lines = b".\r\n..\r\n.leading\r\n...three\r\n. \r\n \r\n".to_vec();
    let octets = (1..=255_u8).filter(|octet| !b"\r\n".contains(octet));
    for row in octets.collect::<Vec<_>>().chunks(64) {
        lines.extend_from_slice(row);
        lines.extend_from_slice(b"\r\n");
    }
    lines.extend_from_slice(&[b'x'; 900]);
    lines.extend_from_slice(b"\r\n.\r\n\r\n\r\n");
    lines
}

fn message(subject: &str, lines: &[u8]) -> Vec<u8> {
    let header = format!("Subject: {subject}\r\nMessage-ID: <{subject}@client.test>\r\n\r\n");
    [header.as_bytes(), lines].concat()
}

fn a_message_arrives_octet_for_octet(backend: &impl Backend) {
    // OpenSMTPD clears the high bit unless BODY=8BITMIME was said, and we announce that only once
    // the backend is known to have it (rule E3).
    let posthouse = Posthouse::smtp(&[backend.address()], QUICK_PROBES);
    let mut client = wait_for("8BITMIME to be announced", || {
        let mut client = Client::greeted(posthouse.address());
        let reply = client.expect(250, "EHLO client.test");
        let is_announced = reply.lines.iter().any(|line| line.ends_with("8BITMIME"));
        is_announced.then_some(client)
    });
    let sent = message("octets", &awkward_lines());
    let reply = client.transaction("MAIL FROM:<sender@client.test> BODY=8BITMIME", &sent);
    let reply = reply.expect("the message is taken");
    assert_eq!(reply.code, 250, "{}", reply.text());
    // Rule D1: a dot straight behind 354 is a whole message.
    client.accepted(b"");
    client.quit();
    has_taken(backend, 2);
    let bodies: Vec<_> = backend.kept().iter().map(|kept| body(kept)).collect();
    let sent = body(&sent);
    assert!(
        bodies.contains(&sent),
        "sent {:?}\nkept {:?}",
        String::from_utf8_lossy(&sent),
        bodies
            .iter()
            .map(|kept| String::from_utf8_lossy(kept))
            .collect::<Vec<_>>()
    );
    assert!(bodies.contains(&Vec::new()), "the empty one is not empty");
}

fn a_large_message_arrives_as_it_was(backend: &impl Backend) {
    const OCTETS: usize = 10_000_000;
    let mut lines = Vec::with_capacity(OCTETS);
    for number in 0.. {
        let line = format!("{number:070}\r\n");
        if lines.len() + line.len() > OCTETS {
            break;
        }
        lines.extend_from_slice(line.as_bytes());
    }
    let posthouse = without_probes(backend);
    let mut client = Client::ready(posthouse.address());
    let sent = message("large", &lines);
    client.accepted(&sent);
    client.quit();
    has_taken(backend, 1);
    let kept = backend.kept();
    assert!(
        body(&kept[0]) == body(&sent),
        "{} octets of {} or others",
        body(&kept[0]).len(),
        body(&sent).len()
    );
}

fn a_pipelined_group_is_answered_in_order(backend: &impl Backend) {
    let posthouse = without_probes(backend);
    let mut client = Client::ready(posthouse.address());
    let group = "MAIL FROM:<sender@client.test>\r\nRCPT TO:<one@example.test>\r\nRCPT \
                 TO:<refused@example.test>\r\nRCPT TO:<two@example.test>\r\nDATA\r\n";
    client.send(group.as_bytes()).expect("the session is open");
    let codes: Vec<_> = (0..5).map(|_| code(&mut client)).collect();
    assert_eq!(codes, [250, 250, 550, 250, 354]);
    // What follows the final dot belongs to the next group (rule D9). One without a recipient gets
    // no 354 (rule S1).
    let rest = "Subject: group\r\n\r\ntext\r\n.\r\nMAIL FROM:<sender@client.test>\r\nRCPT \
                TO:<refused@example.test>\r\nDATA\r\n";
    client.send(rest.as_bytes()).expect("the session is open");
    let codes: Vec<_> = (0..4).map(|_| code(&mut client)).collect();
    assert_eq!(codes[..3], [250, 250, 550]);
    assert!([503, 554].contains(&codes[3]), "{codes:?}");
    client
        .send(b"RSET\r\nNOOP\r\nQUIT\r\n")
        .expect("it is open");
    let codes: Vec<_> = (0..3).map(|_| code(&mut client)).collect();
    assert_eq!(codes, [250, 250, 221]);
    assert!(client.is_at_end());
    has_taken(backend, 1);
}

/// The code of the next reply; 550 for a refusal by policy too, which Postfix calls 554.
fn code(client: &mut Client) -> u16 {
    let reply = client.reply().expect("each command has a reply");
    match reply.code {
        554 if reply.text().contains("Recipient address rejected") => 550,
        code => code,
    }
}

fn fifty_messages_take_a_few_connections(backend: &impl Backend) {
    const SESSIONS: usize = 5;
    const EACH: usize = 10;
    let before = backend.connections();
    let posthouse = without_probes(backend);
    for session in 0..SESSIONS {
        let mut client = Client::ready(posthouse.address());
        for number in 0..EACH {
            client.accepted(&message(&format!("{session}-{number}"), b"text\r\n"));
        }
        client.quit();
    }
    has_taken(backend, SESSIONS * EACH);
    // One for each worker, as the sessions come one after another.
    let connections = wait_for("a connection to be logged", || {
        Some(backend.connections() - before).filter(|connections| *connections > 0)
    });
    assert!((1..=2).contains(&connections), "{connections} connections");
}

fn a_restart_between_messages_is_not_seen(backend: &mut impl Backend) {
    let posthouse = without_probes(backend);
    let mut client = Client::ready(posthouse.address());
    client.accepted(&message("before", b"text\r\n"));
    has_taken(backend, 1);
    backend.restart();
    client.accepted(&message("after", b"text\r\n"));
    client.accepted(&message("behind", b"text\r\n"));
    client.quit();
    has_taken(backend, 3);
}

/// More messages than one connection may carry, on one session.
fn its_limit_is_not_seen(backend: &impl Backend) {
    const MESSAGES: usize = 10;
    let before = backend.connections();
    let posthouse = without_probes(backend);
    let mut client = Client::ready(posthouse.address());
    for number in 0..MESSAGES {
        client.accepted(&message(&format!("{number}"), b"text\r\n"));
    }
    client.quit();
    has_taken(backend, MESSAGES);
    let expected = before + MESSAGES.div_ceil(MESSAGES_MAX as usize);
    wait_for("the last connection to be logged", || {
        (backend.connections() >= expected).then_some(())
    });
    assert_eq!(backend.connections(), expected);
}

/// What a server takes on one connection in these tests.
const MESSAGES_MAX: u32 = 3;

#[test]
fn exims_421_after_so_many_messages_is_not_seen_n4() {
    let option = format!("smtp_accept_max_per_connection = {MESSAGES_MAX}\n");
    its_limit_is_not_seen(&Exim::start_with(&option));
}

#[test]
fn opensmtpds_452_after_so_many_messages_is_not_seen_n4() {
    let line = format!("smtp limit max-mails {MESSAGES_MAX}\n");
    its_limit_is_not_seen(&OpenSmtpd::start_with(&line));
}

#[test]
fn smtp_servers_421_after_so_many_messages_is_not_seen_n4() {
    its_limit_is_not_seen(&SmtpServer::with_messages_max(MESSAGES_MAX));
}

#[test]
fn postfix_that_ends_an_idle_connection_is_not_seen_n3() {
    // An unasked 421 and a FIN on a connection that nobody uses (rule S13).
    let postfix = Postfix::keeping(&["smtpd_timeout=1s"]);
    let posthouse = without_probes(&postfix);
    let mut client = Client::ready(posthouse.address());
    for messages in 1..=2 {
        client.accepted(&message(&format!("{messages}"), b"text\r\n"));
        wait_for("Postfix to lose patience", || {
            let timeouts = postfix.log().matches(": timeout after ").count();
            (timeouts == messages).then_some(())
        });
    }
    client.accepted(&message("last", b"text\r\n"));
    client.quit();
    has_taken(&postfix, 3);
}
