//! What is delivered: content octet by octet, replies in their order, each transaction counted once.

use std::time::Duration;

use posthouse::lab::{Act, At, Piece, Script};
use posthouse::metrics::{SessionOutcome, TransactionOutcome};

use super::{BODY, client, good, offered, quit, sink, smtp};
use crate::harness::client::{Client, MAIL};
use crate::harness::{
    Balancer, HOSTNAME, eventually, listener, listeners_sum, transactions, workers_sum,
};

#[tokio::test]
async fn a_message_arrives_unchanged_and_its_reply_is_the_backends_m1() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = Client::connect(balancer.address).await;
    let greeting = client.expect("220").await;
    assert!(
        greeting.starts_with("220 lb.test "),
        "{greeting:?} (rule G10)"
    );
    client.ask("EHLO client.test", "250").await;
    let reply = client.send(BODY, "250").await;
    assert!(reply.contains("octets taken"), "{reply:?} is the backend's");
    quit(client).await;
    let messages = backend.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        messages[0].content,
        BODY.replace("\r\n..", "\r\n.").as_bytes()
    );
    assert_eq!(messages[0].helo, HOSTNAME, "rule E5");
    assert_eq!(messages[0].from, "a@example.org");
    assert_eq!(messages[0].to, ["b@example.net"]);
    balancer.wait_for(SessionOutcome::Completed, 1).await;
}

#[tokio::test]
async fn a_group_is_answered_in_order_and_reaches_an_older_backend_one_by_one_p1_p5() {
    for script in [Script::good(), Script::good().no_pipelining()] {
        let backend = sink("one.test", script);
        let balancer = Balancer::start(smtp(&[&backend]));
        let mut client = client(&balancer).await;
        let group = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nRCPT \
                     TO:<c@example.net>\r\nNOOP\r\nDATA\r\n";
        client.say(group).await;
        for code in ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.0.0", "354"] {
            client.expect(code).await;
        }
        client.say(format!("{BODY}.\r\nQUIT\r\n")).await;
        client.expect("250").await;
        client.expect("221").await;
        let counts = backend.counts();
        assert_eq!((counts.messages, counts.pipelining_refused), (1, 0));
        assert_eq!(backend.messages()[0].to.len(), 2);
    }
}

#[tokio::test]
async fn bare_line_feeds_become_line_ends_and_end_no_message_d1_d4() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say("one\n.\ntwo\r\n.\r\n").await;
    client.expect("250").await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].content, b"one\r\n.\r\ntwo\r\n");
}

/// Rules C1 and C2; first twenty, 17.
#[tokio::test]
async fn chunks_arrive_as_they_are_and_refused_ones_are_no_commands_c1_c2() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    let offered = offered(&balancer).await;
    assert!(offered.iter().any(|line| line == "CHUNKING"), "{offered:?}");
    client.ask("EHLO client.test", "250").await;
    client.say("BDAT 6\r\nQUIT\r\nNOOP\r\n").await;
    client.expect("503").await;
    client.expect("250 2.0.0").await;
    client.begin_transaction().await;
    client.say("BDAT 9\r\n.\r\nQUIT\r\n").await;
    client.expect("250").await;
    client.say("BDAT 5 LAST\r\nrest\n").await;
    client.expect("250").await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].content, b".\r\nQUIT\r\nrest\n");
}

/// First twenty, 19 (rule K3).
#[tokio::test]
async fn a_client_that_ends_its_direction_after_the_dot_reads_the_reply_k3() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say(format!("{BODY}.\r\n")).await;
    client.end().await;
    backend.release();
    client.expect("250").await;
    client.expect_end().await;
    balancer.wait_for(SessionOutcome::Completed, 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_dot_leaves_no_message_f11() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say("Subject: half\r\n\r\nof it").await;
    client.reset();
    backend
        .wait_for(|counts| counts.lost == 1 && counts.open == 0)
        .await
        .expect("the backend's connection ends too");
    assert_eq!(backend.counts().messages, 0);
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn with_buffer_first_a_refused_data_is_the_answer_to_the_dot_f9() {
    let refusing = sink(
        "one.test",
        Script::good().reply(At::Data, "554 5.7.1 not today"),
    );
    let mut config = smtp(&[&refusing]);
    listener(&mut config).smtp.buffer_first = true;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send(BODY, "554 5.7.1").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
}

#[tokio::test]
async fn a_message_that_is_judged_before_its_end_is_counted_d7() {
    let judgement = Piece {
        after: Duration::ZERO,
        octets: b"552 5.3.4 too much\r\n".to_vec(),
    };
    let script = Script::good().act(At::MidData, Act::Pieces(vec![judgement]));
    let backend = sink("one.test", script);
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say(BODY).await;
    let early = || workers_sum(&balancer.shared, |worker| worker.early_replies.value());
    eventually("it has judged", || early() == 1).await;
    client.ask(".", "552 5.3.4").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
    assert_eq!(early(), 1);
}

#[tokio::test]
async fn transactions_are_counted_once_by_how_they_ended() {
    let backend = sink(
        "one.test",
        Script::good()
            .reply(At::Rcpt, "550 5.1.1 no")
            .after_mails(2),
    );
    let mut config = smtp(&[&backend]);
    listener(&mut config).smtp.max_message_size = 65_536;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    client.send(&"x\r\n".repeat(30_000), "552 5.3.4").await;
    client.ask(MAIL, "250").await;
    client.ask("RSET", "250").await;
    quit(client).await;
    balancer.wait_until_no_session().await;
    let count = |outcome| transactions(&balancer.shared, outcome);
    let counts = TransactionOutcome::ALL.map(count);
    assert_eq!(counts.iter().sum::<u64>(), 3);
    for outcome in [
        TransactionOutcome::Accepted,
        TransactionOutcome::RefusedByUs,
        TransactionOutcome::Abandoned,
    ] {
        assert_eq!(count(outcome), 1, "{outcome:?}");
    }
    let octets = listeners_sum(&balancer.shared, |c| c.mail.octets.value());
    assert_eq!(octets, BODY.len() as u64 - 1, "without stuffing");
}
