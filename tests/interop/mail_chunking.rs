//! BDAT through mode "smtp" into the servers that have it (rules C1, C2, C4).

use crate::lab::backend::{Backend, body};
use crate::lab::exim::Exim;
use crate::lab::postfix::Postfix;
use crate::lab::posthouse::{Posthouse, QUICK_PROBES};
use crate::lab::{Client, wait_for};

/// What is the end of a message, and another message, to a server that looks into a chunk.
const DISGUISED: &[u8] = b"Subject: chunks\r\n\
    \r\n\
    first\r\n\
    .\r\n\
    MAIL FROM:<smuggled@client.test>\r\n\
    RCPT TO:<rcpt@example.test>\r\n\
    DATA\r\n\
    ..\r\n\
    second\r\n\
    .\r\n\
    QUIT\r\n";

#[test]
fn chunks_arrive_in_postfix_as_they_are_c1() {
    chunks_arrive_as_they_are(&Postfix::keeping(&["smtpd_forbid_bare_newline=reject"]));
}

#[test]
fn chunks_arrive_in_exim_as_they_are_c1() {
    chunks_arrive_as_they_are(&Exim::start());
}

/// First twenty, 17.
#[test]
fn a_refused_chunk_is_not_executed_in_front_of_postfix_c2() {
    a_refused_chunk_is_not_executed(&Postfix::keeping(&[]));
}

#[test]
fn a_refused_chunk_is_not_executed_in_front_of_exim_c2() {
    a_refused_chunk_is_not_executed(&Exim::start());
}

/// A client that may use BDAT: we offer it once the backend is known to have it (rule E3).
fn ready(posthouse: &Posthouse) -> Client {
    wait_for("CHUNKING to be announced", || {
        let mut client = Client::greeted(posthouse.address());
        let reply = client.expect(250, "EHLO client.test");
        let is_announced = reply.lines.iter().any(|line| line.ends_with("CHUNKING"));
        is_announced.then_some(client)
    })
}

fn begin(client: &mut Client) {
    client.expect(250, "MAIL FROM:<sender@client.test>");
    client.expect(250, "RCPT TO:<rcpt@example.test>");
}

/// Sends a chunk with its command; the code of the reply.
fn chunk(client: &mut Client, octets: &[u8], last: &str) -> u16 {
    let command = format!("BDAT {}{last}\r\n", octets.len());
    client
        .send(&[command.as_bytes(), octets].concat())
        .expect("the session is open");
    client.reply().expect("each chunk has a reply").code
}

fn chunks_arrive_as_they_are(backend: &impl Backend) {
    let posthouse = Posthouse::smtp(&[backend.address()], QUICK_PROBES);
    let mut client = ready(&posthouse);
    // In one piece, in two that part CR from LF, and with an empty last one.
    begin(&mut client);
    assert_eq!(chunk(&mut client, DISGUISED, " LAST"), 250);
    let dot = DISGUISED.windows(3).position(|three| three == b".\r\n");
    let (one, other) = DISGUISED.split_at(dot.expect("it has a line of one dot") + 2);
    begin(&mut client);
    assert_eq!(chunk(&mut client, one, ""), 250);
    assert_eq!(chunk(&mut client, other, " LAST"), 250);
    begin(&mut client);
    assert_eq!(chunk(&mut client, DISGUISED, ""), 250);
    assert_eq!(chunk(&mut client, b"", " LAST"), 250);
    client.expect(250, "NOOP");
    client.quit();
    assert_eq!(backend.taken(), 3);
    for kept in backend.kept() {
        assert_eq!(
            String::from_utf8_lossy(&body(&kept)),
            String::from_utf8_lossy(&body(DISGUISED))
        );
    }
}

fn a_refused_chunk_is_not_executed(backend: &impl Backend) {
    const PAYLOAD: &[u8] = b"QUIT\r\nMAIL FROM:<smuggled@client.test>\r\n";
    let posthouse = Posthouse::smtp(&[backend.address()], QUICK_PROBES);
    let mut client = ready(&posthouse);
    assert_eq!(chunk(&mut client, PAYLOAD, " LAST"), 503, "outside of mail");
    client.expect(250, "NOOP");
    client.expect(250, "MAIL FROM:<sender@client.test>");
    let refused = client.command("RCPT TO:<refused@example.test>");
    assert!(refused.expect("it is answered").code >= 550);
    let code = chunk(&mut client, PAYLOAD, " LAST");
    assert!([503, 554].contains(&code), "{code}");
    client.expect(250, "RSET");
    begin(&mut client);
    assert_eq!(chunk(&mut client, b"Subject: x\r\n\r\n", " LAST"), 250);
    client.quit();
    assert_eq!(backend.taken(), 1);
}
