//! Transactions over kept-alive connections, end to end: what a client meets while backends fail.

use std::time::Duration;

use posthouse::balance::{FailureKind, Observation, Stage};
use posthouse::config::Config;
use posthouse::config::model::{EarlyTalker, Mode, Quota, QuotaUnit, Sticky};
use posthouse::lab::{Act, At, Piece, Script, Sink, SinkHandle, SinkPlan, WhenFull};
use posthouse::metrics::{SessionOutcome, TransactionOutcome};
use posthouse::worker::Command;

use crate::harness::client::{Client, End};
use crate::harness::{Balancer, HOSTNAME, config, dead, eventually, listener, pool};

fn sink(name: &str, script: Script) -> SinkHandle {
    Sink::start(SinkPlan::with(script).named(name).keeping(1 << 20)).expect("loopback has a port")
}

fn good(name: &str) -> SinkHandle {
    sink(name, Script::good())
}

fn smtp(backends: &[&SinkHandle]) -> Config {
    let addresses: Vec<_> = backends.iter().map(|sink| sink.address()).collect();
    let mut config = config(&addresses);
    listener(&mut config).mode = Mode::Smtp;
    config
}

/// A client that has said EHLO.
async fn client(balancer: &Balancer) -> Client {
    let mut client = Client::connect(balancer.address).await;
    client.expect("220").await;
    client.ask("EHLO client.test", "250").await;
    client
}

async fn quit(mut client: Client) {
    client.ask("QUIT", "221 2.0.0 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
}

/// Everything of `extensions` that a client is offered.
async fn offered(balancer: &Balancer) -> Vec<String> {
    let mut client = Client::connect(balancer.address).await;
    client.expect("220").await;
    client.say("EHLO client.test\r\n").await;
    let mut lines = Vec::new();
    loop {
        let line = client.line().await;
        lines.push(line[4..].to_owned());
        if line.as_bytes()[3] == b' ' {
            quit(client).await;
            return lines;
        }
    }
}

const BODY: &str = "Subject: x\r\n\r\n..stuffed\r\nline\r\n";

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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    let reply = client.ask(".", "250").await;
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
async fn sessions_use_one_connection_after_another_and_it_is_ended_with_quit_n2_n4() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    pool(&mut config).smtp.idle_timeout = Duration::from_millis(200);
    let balancer = Balancer::start(config);
    for _ in 0..3 {
        let mut client = client(&balancer).await;
        client.send_message(BODY).await;
        client.send_message(BODY).await;
        quit(client).await;
    }
    let counts = backend.counts();
    assert_eq!((counts.messages, counts.connections), (6, 1));
    assert_eq!(counts.rsets, 0, "nothing was left unfinished");
    backend
        .wait_for(|counts| counts.quits == 1 && counts.open == 0)
        .await
        .expect("idle for too long, it is ended in order");
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn a_connection_carries_so_many_messages_n4() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    pool(&mut config).smtp.max_messages = 2;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    for _ in 0..4 {
        client.send_message(BODY).await;
    }
    quit(client).await;
    let counts = backend
        .wait_for(|counts| counts.quits == 2)
        .await
        .expect("worn connections are ended");
    assert_eq!((counts.messages, counts.connections), (4, 2));
    balancer.wait_until_empty().await;
}

/// Rows 1 to 4 of rule F1: another backend takes the message, once, and the client sees nothing.
#[tokio::test]
async fn a_backend_that_dies_before_the_commit_is_replaced_f1() {
    let before = [
        At::Connect,
        At::Greeting,
        At::Ehlo,
        At::Mail,
        At::Rcpt,
        At::Data,
        At::MidData,
    ];
    for at in before {
        for script in [Script::good().close_at(at), Script::good().reset_at(at)] {
            let bad = sink("bad.test", script);
            let backend = good("good.test");
            let balancer = Balancer::start(smtp(&[&bad, &backend]));
            let mut client = client(&balancer).await;
            client.send_message(BODY).await;
            quit(client).await;
            assert_eq!(balancer.attempts("b0"), 1, "{at:?}: it was tried");
            assert_eq!(bad.counts().messages, 0, "{at:?}");
            assert_eq!(backend.counts().messages, 1, "{at:?}");
        }
    }
}

/// The same where it says 421 (rule S13).
#[tokio::test]
async fn a_421_before_the_commit_is_never_seen_s13() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
        let bad = sink("bad.test", Script::good().reply(at, "421 4.3.2 closing"));
        let backend = good("good.test");
        let balancer = Balancer::start(smtp(&[&bad, &backend]));
        let mut client = client(&balancer).await;
        client.send_message(BODY).await;
        quit(client).await;
        assert_eq!(backend.counts().messages, 1, "{at:?}");
    }
}

#[tokio::test]
async fn a_backend_that_is_unwell_at_the_dot_is_replaced_and_one_that_refuses_is_not_f1() {
    for (reply, moved) in [
        ("452 4.3.1 disk full", true),
        ("451 4.3.0 try later", true),
        ("452 no room", true),
        ("450 4.7.1 greylisted", false),
        ("451 4.2.1 busy mailbox", false),
        ("554 5.7.1 spam", false),
    ] {
        let bad = sink("bad.test", Script::good().reply(At::Dot, reply));
        let backend = good("good.test");
        let balancer = Balancer::start(smtp(&[&bad, &backend]));
        let mut client = client(&balancer).await;
        client.ask("MAIL FROM:<a@example.org>", "250").await;
        client.ask("RCPT TO:<b@example.net>", "250").await;
        client.ask("DATA", "354").await;
        client.say(BODY).await;
        let expected = if moved { "250" } else { reply };
        client.ask(".", expected).await;
        client.ask("NOOP", "250").await;
        quit(client).await;
        assert_eq!(backend.counts().messages, u64::from(moved), "{reply}");
    }
}

#[tokio::test]
async fn after_the_commit_it_is_in_doubt_and_sent_to_nobody_else_f3_f4() {
    let bad = sink("bad.test", Script::good().close_at(At::Dot));
    let backend = good("good.test");
    let balancer = Balancer::start(smtp(&[&bad, &backend]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    client.ask(".", "451 4.4.2").await;
    bad.script(Script::good());
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(bad.counts().messages + backend.counts().messages, 1);
}

#[tokio::test]
async fn a_silent_backend_is_left_in_its_time_k1() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
        let bad = sink("bad.test", Script::good().act(at, Act::Silent));
        let backend = good("good.test");
        let mut config = smtp(&[&bad, &backend]);
        let pool = pool(&mut config);
        pool.hedge.enabled = false;
        pool.greeting_timeout = Duration::from_millis(100);
        pool.smtp.reply_timeout = Duration::from_millis(100);
        pool.smtp.data_timeout = Duration::from_millis(100);
        let balancer = Balancer::start(config);
        let mut client = client(&balancer).await;
        client.send_message(BODY).await;
        quit(client).await;
        assert_eq!(backend.counts().messages, 1, "{at:?}");
    }
}

/// First twenty, 5 (rule F8).
#[tokio::test]
async fn a_second_backend_that_refuses_a_recipient_ends_it_with_451_f8() {
    let bad = sink("bad.test", Script::good().close_at(At::MidData));
    let backend = sink(
        "other.test",
        Script::good().reply(At::Rcpt, "550 5.1.1 no such user"),
    );
    let balancer = Balancer::start(smtp(&[&bad, &backend]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    client.ask(".", "451 4.4.2").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
    assert_eq!(bad.counts().messages + backend.counts().messages, 0);
}

/// First twenty, 16 (rule N3).
#[tokio::test]
async fn a_kept_connection_that_has_died_costs_nobody_anything_n3() {
    for script in [
        Script::good().close_at(At::Mail),
        Script::good().reset_at(At::Mail),
    ] {
        let backend = sink("one.test", script.after_mails(1));
        let balancer = Balancer::start(smtp(&[&backend]));
        let mut client = client(&balancer).await;
        client.send_message(BODY).await;
        client.send_message(BODY).await;
        quit(client).await;
        let counts = backend.counts();
        assert_eq!((counts.messages, counts.connections), (2, 2));
    }
}

#[tokio::test]
async fn a_kept_connection_that_has_had_its_share_is_recycled_unseen_n4() {
    for reply in ["421 4.7.0 too many messages", "452 4.3.2 enough"] {
        let script = Script::good().reply(At::Mail, reply).after_mails(2);
        let backend = sink("one.test", script);
        let balancer = Balancer::start(smtp(&[&backend]));
        let mut client = client(&balancer).await;
        for _ in 0..9 {
            client.send_message(BODY).await;
        }
        quit(client).await;
        let counts = backend.counts();
        assert_eq!((counts.messages, counts.connections), (9, 5), "{reply}");
        assert_eq!(counts.faults, 2, "{reply}: seen twice, its limit is known");
    }
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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say("one\n.\ntwo\r\n.\r\n").await;
    client.expect("250").await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].content, b"one\r\n.\r\ntwo\r\n");
}

#[tokio::test]
async fn what_all_backends_have_is_announced_and_nothing_else_e1_e3() {
    let many = [
        "PIPELINING",
        "SIZE 2000",
        "8BITMIME",
        "DSN",
        "BINARYMIME",
        "XCLIENT ADDR",
    ];
    let one = sink("one.test", Script::good().capabilities(many));
    let two = sink(
        "two.test",
        Script::good().capabilities(["SIZE 1000", "8BITMIME", "DSN"]),
    );
    let balancer = Balancer::start(smtp(&[&one, &two]));
    let own = ["lb.test", "PIPELINING", "SIZE", "LIMITS RCPTMAX=1000"];
    assert_eq!(offered(&balancer).await, own, "unknown at first");
    for backend in balancer.shared.registry.backends() {
        let keywords: &[&str] = if &**backend.name() == "b0" {
            &many
        } else {
            &["SIZE 1000", "8BITMIME", "DSN"]
        };
        backend.announces(&keywords.iter().map(|&word| word.into()).collect());
    }
    let both = [
        "lb.test",
        "PIPELINING",
        "SIZE 1000",
        "8BITMIME",
        "DSN",
        "LIMITS RCPTMAX=1000",
    ];
    assert_eq!(offered(&balancer).await, both);
}

#[tokio::test]
async fn a_message_goes_to_a_backend_that_has_room_for_it_e3() {
    let small = sink("small.test", Script::good().capabilities(["SIZE 1000"]));
    let large = good("large.test");
    let balancer = Balancer::start(smtp(&[&small, &large]));
    let mut client = client(&balancer).await;
    client
        .ask("MAIL FROM:<a@example.org> SIZE=5000", "250")
        .await;
    client.ask("RSET", "250").await;
    client
        .ask("MAIL FROM:<a@example.org> SIZE=900", "250")
        .await;
    client.ask("RSET", "250").await;
    quit(client).await;
    assert_eq!(large.counts().mails, 1);
    assert_eq!(small.counts().mails, 1);
}

/// First twenty, 19 (rule K3).
#[tokio::test]
async fn a_client_that_ends_its_direction_after_the_dot_reads_the_reply_k3() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
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
async fn a_drain_ends_idle_sessions_at_once_and_others_behind_their_transaction_k7() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut idle = client(&balancer).await;
    let mut busy = client(&balancer).await;
    busy.ask("MAIL FROM:<a@example.org>", "250").await;
    busy.ask("RCPT TO:<b@example.net>", "250").await;
    busy.ask("DATA", "354").await;
    busy.say(format!("{BODY}.\r\n")).await;
    balancer.command(|| Command::StopAccepting);
    idle.expect("421 4.3.2 lb.test").await;
    assert_eq!(idle.expect_end().await, End::Fin);
    backend.release();
    busy.expect("250").await;
    busy.expect("421 4.3.2 lb.test").await;
    assert_eq!(busy.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::ShuttingDown, 2).await;
    balancer.wait_until_empty().await;
}

/// First twenty, 18 (rule K5).
#[tokio::test]
async fn a_421_behind_a_flood_can_be_read_k5() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.say("BOGUS\r\n".repeat(2_000)).await;
    let mut last = String::new();
    loop {
        let line = client.line().await;
        if line.is_empty() {
            break;
        }
        last = line;
    }
    assert!(last.starts_with("421 4.7.0 lb.test"), "{last:?} (rule B4)");
    balancer.wait_for(SessionOutcome::ClientErrors, 1).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn without_a_backend_mail_is_put_off_and_the_session_goes_on_r() {
    let mut config = config(&[dead()]);
    listener(&mut config).mode = Mode::Smtp;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "451 4.4.1").await;
    client.ask("RCPT TO:<b@example.net>", "503").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn one_place_serves_two_sessions_in_turn() {
    let backend = sink(
        "one.test",
        Script::good().max_connections(1, WhenFull::Wait),
    );
    let mut config = smtp(&[&backend]);
    let b0 = pool(&mut config).backends.get_mut("b0");
    b0.expect("the backend").max_connections = 1;
    let balancer = Balancer::start(config);
    let mut first = client(&balancer).await;
    let mut second = client(&balancer).await;
    first.ask("MAIL FROM:<a@example.org>", "250").await;
    second.say("MAIL FROM:<b@example.org>\r\n").await;
    first.ask("RSET", "250").await;
    second.expect("250").await;
    second.ask("RSET", "250").await;
    first.send_message(BODY).await;
    second.send_message(BODY).await;
    quit(first).await;
    quit(second).await;
    assert_eq!(backend.counts().messages, 2);
}

#[tokio::test]
async fn a_sticky_session_stays_where_it_is() {
    let one = good("one.test");
    let two = good("two.test");
    let mut config = smtp(&[&one, &two]);
    pool(&mut config).balance = posthouse::config::model::Balance::RoundRobin;
    pool(&mut config).smtp.sticky = Sticky::Session;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    for _ in 0..4 {
        client.send_message(BODY).await;
    }
    quit(client).await;
    let counts = [one.counts().messages, two.counts().messages];
    assert!(counts == [4, 0] || counts == [0, 4], "{counts:?}");
}

#[tokio::test]
async fn a_cut_session_leaves_no_whole_message_k4() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    balancer.command(|| Command::Stop);
    let counts = backend
        .wait_for(|counts| counts.open == 0 && counts.lost == 1)
        .await
        .expect("it is reset");
    assert_eq!((counts.messages, counts.resets), (0, 1));
}

#[tokio::test]
async fn a_transaction_leaves_a_backend_that_is_cut_and_goes_on_elsewhere() {
    let removed = good("removed.test");
    let other = good("other.test");
    let balancer = Balancer::start(smtp(&[&removed, &other]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    assert_eq!(removed.counts().mails, 1);
    let backends = balancer.shared.registry.backends();
    let first = backends.iter().find(|state| &**state.name() == "b0");
    let first = std::sync::Arc::clone(first.expect("the backend"));
    balancer.command(move || Command::CutBackend(std::sync::Arc::clone(&first)));
    removed
        .wait_for(|counts| counts.open == 0)
        .await
        .expect("it is left");
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    client.ask(".", "250").await;
    quit(client).await;
    assert_eq!((removed.counts().messages, other.counts().messages), (0, 1));
}

#[tokio::test]
async fn good_transactions_between_them_forgive_strikes() {
    let backend = sink("one.test", Script::good().close_at(At::Rcpt).after_mails(3));
    let other = good("other.test");
    let balancer = Balancer::start(smtp(&[&backend, &other]));
    let mut client = client(&balancer).await;
    for _ in 0..24 {
        client.send_message(BODY).await;
    }
    quit(client).await;
    // Each connection failed its fourth transaction: six strikes, never two in a row.
    assert_eq!(other.counts().messages, 6);
    assert_eq!(backend.counts().messages, 18);
}

/// A quota is a limit like any other: the rest goes to others, and then it waits or is put off.
#[tokio::test]
async fn what_a_provider_does_not_allow_goes_to_another() {
    let one = good("one.test");
    let two = good("two.test");
    let mut config = smtp(&[&one, &two]);
    let pool = pool(&mut config);
    pool.queue_timeout = Duration::from_millis(50);
    for (name, count) in [("b0", 2), ("b1", 3)] {
        let backend = pool.backends.get_mut(name).expect("the backend");
        backend.quota = vec![Quota {
            count,
            period: Duration::from_hours(1),
            unit: QuotaUnit::Messages,
        }];
    }
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RSET", "250").await;
    for _ in 0..5 {
        client.send_message(BODY).await;
    }
    client.ask("MAIL FROM:<a@example.org>", "451 4.3.2").await;
    quit(client).await;
    assert_eq!((one.counts().messages, two.counts().messages), (2, 3));
}

#[tokio::test]
async fn connections_are_ready_before_anybody_asks() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    pool(&mut config).smtp.min_idle = 2;
    let balancer = Balancer::start(config);
    backend
        .wait_for(|counts| counts.ehlos == 2)
        .await
        .expect("two are made");
    balancer.wait_until_idle(2).await;
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(backend.counts().connections, 2, "it used one of them");
}

#[tokio::test]
async fn a_client_that_is_silent_for_too_long_is_told_so_b6() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    listener(&mut config).smtp.command_timeout = Duration::from_millis(50);
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.expect("421 4.4.2 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::IdleTimeout, 1).await;
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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.say("BDAT 9\r\n.\r\nQUIT\r\n").await;
    client.expect("250").await;
    client.say("BDAT 5 LAST\r\nrest\n").await;
    client.expect("250").await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].content, b".\r\nQUIT\r\nrest\n");
}

#[tokio::test]
async fn a_backend_that_dies_between_chunks_is_replaced_f1_c1() {
    let bad = sink(
        "bad.test",
        Script::good().close_at(At::MidData).after_mails(1),
    );
    let backend = good("good.test");
    let balancer = Balancer::start(smtp(&[&bad, &backend]));
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    for state in balancer.shared.registry.backends() {
        state.announces(
            &["CHUNKING".into(), "PIPELINING".into()]
                .into_iter()
                .collect(),
        );
    }
    client.ask("EHLO client.test", "250").await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.say("BDAT 5\r\none\r\n").await;
    client.expect("250").await;
    client.say("BDAT 5 LAST\r\ntwo\r\n").await;
    client.expect("250").await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!((bad.counts().messages, messages.len()), (1, 1));
    assert_eq!(messages[0].content, b"one\r\ntwo\r\n");
}

#[tokio::test]
async fn a_mail_that_is_not_answered_is_said_to_another_backend_long_before_its_time() {
    let frozen = sink("frozen.test", Script::good().act(At::Mail, Act::Silent));
    let backend = good("good.test");
    let mut config = smtp(&[&frozen, &backend]);
    pool(&mut config).hedge.greeting_after = Some(Duration::from_millis(50));
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    let hedges: u64 = balancer
        .shared
        .workers
        .iter()
        .map(|w| w.mail_hedges.value())
        .sum();
    assert_eq!((hedges, backend.counts().messages), (1, 1));
}

#[tokio::test]
async fn a_transaction_leaves_a_backend_that_is_found_down_while_it_is_silent() {
    let frozen = sink("frozen.test", Script::good().act(At::Rcpt, Act::Silent));
    let backend = good("good.test");
    let balancer = Balancer::start(smtp(&[&frozen, &backend]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.say("RCPT TO:<b@example.net>\r\n").await;
    let backends = balancer.shared.registry.backends();
    let first = backends.iter().find(|state| &**state.name() == "b0");
    for _ in 0..5 {
        let strike = Observation::Strike {
            stage: Stage::Greeting,
            kind: FailureKind::Timeout,
            code: None,
            text: None,
            after: Duration::from_secs(1),
        };
        first
            .expect("the backend")
            .observe(strike, std::time::Instant::now());
    }
    client.expect("250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    client.ask(".", "250").await;
    quit(client).await;
    assert_eq!(backend.counts().messages, 1);
}

#[tokio::test]
async fn a_delivered_message_forgives_what_was_refused_before_it_b4() {
    let script = Script::good()
        .reply(At::Rcpt, "550 5.1.1 no such user")
        .after_mails(1);
    let refusing = sink("one.test", script);
    let mut config = smtp(&[&refusing]);
    // A new connection for every other transaction: one is good, and one is refused.
    pool(&mut config).smtp.max_messages = 2;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    for _ in 0..20 {
        client.send_message(BODY).await;
        client.ask("MAIL FROM:<a@example.org>", "250").await;
        client.ask("RCPT TO:<b@example.net>", "550").await;
        client.ask("RCPT TO:<c@example.net>", "550").await;
        client.ask("RSET", "250").await;
    }
    quit(client).await;
}

#[tokio::test]
async fn where_the_operator_asks_a_message_in_doubt_is_sent_again_f7() {
    let bad = sink("bad.test", Script::good().close_at(At::Dot));
    let backend = good("good.test");
    let mut config = smtp(&[&bad, &backend]);
    listener(&mut config).smtp.replay_in_doubt = true;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!((bad.counts().messages, backend.counts().messages), (0, 1));
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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    client.ask(".", "554 5.7.1").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
}

/// More backends that lack something than a session remembers.
#[tokio::test]
async fn the_one_backend_that_has_what_is_needed_is_found_among_many_e3() {
    let small: Vec<_> = (0..12)
        .map(|_| sink("small.test", Script::good().capabilities(["SIZE 1000"])))
        .collect();
    let large = good("large.test");
    let mut sinks: Vec<_> = small.iter().collect();
    let config = smtp(&sinks);
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    announce_size(&balancer);
    client
        .ask("MAIL FROM:<a@example.org> SIZE=5000", "455 4.3.3")
        .await;
    quit(client).await;
    sinks.push(&large);
    let balancer = Balancer::start(smtp(&sinks));
    let mut client = self::client(&balancer).await;
    announce_size(&balancer);
    client
        .ask("MAIL FROM:<a@example.org> SIZE=5000", "250")
        .await;
    client.ask("RSET", "250").await;
    quit(client).await;
    assert_eq!(large.counts().mails, 1);
}

/// As probes would, of all but the last.
fn announce_size(balancer: &Balancer) {
    for backend in balancer.shared.registry.backends() {
        if &**backend.name() != "b12" {
            backend.announces(&["SIZE 1000".into()].into_iter().collect());
        }
    }
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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say("x\r\n".repeat(30_000)).await;
    client.ask(".", "552 5.3.4").await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RSET", "250").await;
    quit(client).await;
    balancer.wait_until_no_session().await;
    let states = balancer.shared.registry.listeners();
    let count = |outcome: TransactionOutcome| -> u64 {
        let of = |counters: &posthouse::metrics::ListenerCounters| {
            counters.mail.outcomes[outcome.index()].value()
        };
        states.iter().map(|state| state.counters.sum(of)).sum()
    };
    let counts = TransactionOutcome::ALL.map(count);
    assert_eq!(counts.iter().sum::<u64>(), 3);
    for outcome in [
        TransactionOutcome::Accepted,
        TransactionOutcome::RefusedByUs,
        TransactionOutcome::Abandoned,
    ] {
        assert_eq!(count(outcome), 1, "{outcome:?}");
    }
    let octets: u64 = states
        .iter()
        .map(|state| state.counters.sum(|c| c.mail.octets.value()))
        .sum();
    assert_eq!(octets, BODY.len() as u64 - 1, "without stuffing");
}

#[tokio::test]
async fn who_talks_before_a_late_greeting_is_found_s14() {
    let backend = good("one.test");
    for (early, answer) in [
        (EarlyTalker::Reject, "554 5.5.0"),
        (EarlyTalker::Log, "220 lb.test"),
    ] {
        let mut config = smtp(&[&backend]);
        let listener = listener(&mut config);
        listener.smtp.greet_delay = Duration::from_millis(50);
        listener.early_talker = early;
        let balancer = Balancer::start(config);
        let mut bot = Client::connect(balancer.address).await;
        bot.say("EHLO bot.test\r\n").await;
        bot.expect(answer).await;
        let states = balancer.shared.registry.listeners();
        let talkers: u64 = states
            .iter()
            .map(|state| {
                state
                    .counters
                    .sum(|counters| counters.early_talkers.value())
            })
            .sum();
        assert_eq!(talkers, 1, "{early:?}");
        let mut patient = Client::connect(balancer.address).await;
        patient.expect("220 lb.test").await;
    }
}

/// Promise 4: whatever ends a session behind the commit, the message is told to be in doubt.
#[tokio::test]
async fn a_session_cut_behind_the_commit_leaves_a_message_in_doubt_f3() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    // Long enough that its digest takes several steps.
    let line = format!("{}\r\n", "x".repeat(98));
    client.say(line.repeat(20_000)).await;
    client.say(".\r\n").await;
    backend
        .wait_for(|counts| counts.faults == 1)
        .await
        .expect("the message has come");
    balancer.command(|| Command::Stop);
    balancer.wait_for(SessionOutcome::Cut, 1).await;
    let shared = std::sync::Arc::clone(&balancer.shared);
    // Joins the thread: nothing is counted later.
    drop(balancer);
    let doubts: u64 = shared
        .registry
        .listeners()
        .iter()
        .map(|state| {
            let of = |counters: &posthouse::metrics::ListenerCounters| {
                counters.mail.outcomes[TransactionOutcome::InDoubt.index()].value()
            };
            state.counters.sum(of)
        })
        .sum();
    assert_eq!(doubts, 1);
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
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(BODY).await;
    let early = |balancer: &Balancer| -> u64 {
        let workers = balancer.shared.workers.iter();
        workers.map(|worker| worker.early_replies.value()).sum()
    };
    eventually("it has judged", || early(&balancer) == 1).await;
    client.ask(".", "552 5.3.4").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
    assert_eq!(early(&balancer), 1);
}
