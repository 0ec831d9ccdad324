//! What clients send beside the grammar, end to end, and a limit of recipients below what they expect.

use posthouse::smtp::{ClientQuirks, Keywords};

use super::{client, good, offered, quit, smtp};
use crate::harness::client::{Client, End, MAIL};
use crate::harness::{Balancer, listener};

/// A shell script, a RAID controller: LF, no brackets or blanks around the address, a name that is
/// not ASCII. What the backend gets has the form of RFC 5321.
#[tokio::test]
async fn clients_are_taken_as_they_are_g12_g13() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = Client::connect(balancer.address).await;
    client.expect("220").await;
    client.say("EHLO b\u{fc}ro\n").await;
    client.expect("250").await;
    client
        .say("MAIL FROM: a@example.org\nRCPT TO:< b@example.net >\nRCPT TO:c@example.net\r\nDATA\n")
        .await;
    for code in ["250", "250", "250", "354"] {
        client.expect(code).await;
    }
    client
        .say("a\0b\n.\r\n\0.\0\r\nMAIL FROM:<evil@example.org>\r\n.\r\nQUIT\n")
        .await;
    client.expect("250").await;
    client.expect("221").await;
    assert_eq!(client.expect_end().await, End::Fin);
    let messages = backend.messages();
    assert_eq!(messages.len(), 1, "as many as the client was told of");
    assert_eq!(messages[0].from, "a@example.org");
    assert_eq!(messages[0].to, ["b@example.net", "c@example.net"]);
    let content = b"a b\r\n.\r\n . \r\nMAIL FROM:<evil@example.org>\r\n";
    assert_eq!(messages[0].content, content);
}

#[tokio::test]
async fn where_quirks_are_rejected_lf_ends_the_session_g12() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    listener(&mut config).smtp.client_quirks = ClientQuirks::Reject;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM: <a@example.org>", "501 5.5.4").await;
    client.ask("MAIL FROM:a@example.org", "501 5.5.4").await;
    client.say(format!("{MAIL}\nQUIT\r\n")).await;
    client.expect("500 5.5.2").await;
    assert_eq!(client.expect_end().await, End::Fin);
    assert_eq!(
        backend.counts().connections,
        0,
        "no backend has heard of it"
    );
}

#[tokio::test]
async fn fewer_recipients_than_a_hundred_are_announced_and_kept_s5() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    let settings = &mut listener(&mut config).smtp;
    settings.max_recipients = 50;
    settings.announce = Some(Keywords::default());
    let balancer = Balancer::start(config);
    assert_eq!(offered(&balancer).await, ["lb.test", "LIMITS RCPTMAX=50"]);
    let mut client = client(&balancer).await;
    client.ask(MAIL, "250").await;
    for number in 1..=50 {
        client
            .ask(&format!("RCPT TO:<r{number}@example.net>"), "250")
            .await;
    }
    client.ask("RCPT TO:<r51@example.net>", "452 4.5.3").await;
    client.finish_transaction("x\r\n", "250").await;
    quit(client).await;
    assert_eq!(backend.messages()[0].to.len(), 50);
}
