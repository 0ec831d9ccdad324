//! Backends that fail before the commit are replaced, and the client sees nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use posthouse::balance::{FailureKind, Observation, Stage, Tried};
use posthouse::config::Config;
use posthouse::config::model::{Balance, Mode};
use posthouse::lab::{Act, At, Script, SinkHandle};
use posthouse::worker::Command;

use super::{BODY, announces, client, good, quit, sink, smtp};
use crate::harness::client::{MAIL, RCPT};
use crate::harness::{Balancer, config, dead, listener, pool, workers_sum};

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
            if at == At::MidData {
                client.begin_content().await;
                client.say(BODY).await;
                found_dead(&backend).await;
                client.ask(".", "250").await;
            } else {
                client.send_message(BODY).await;
            }
            quit(client).await;
            assert_eq!(balancer.attempts("b0"), 1, "{at:?}: it was tried");
            assert_eq!(bad.counts().messages, 0, "{at:?}");
            assert_eq!(backend.counts().messages, 1, "{at:?}");
        }
    }
}

/// Waits until the failure of the backend before this one is noticed: behind the last octet of a
/// message that message is in doubt, and nobody else may have it.
async fn found_dead(next: &SinkHandle) {
    let moved = next.wait_for(|counts| counts.connections == 1);
    moved.await.expect("the other is dialled");
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
        let expected = if moved { "250" } else { reply };
        client.send(BODY, expected).await;
        client.ask("NOOP", "250").await;
        quit(client).await;
        assert_eq!(backend.counts().messages, u64::from(moved), "{reply}");
    }
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
        announces(&state, &["CHUNKING", "PIPELINING"]);
    }
    client.ask("EHLO client.test", "250").await;
    client.begin_transaction().await;
    client.say("BDAT 5\r\none\r\n").await;
    client.expect("250").await;
    client.say("BDAT 5 LAST\r\ntwo\r\n").await;
    client.expect("250").await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!((bad.counts().messages, messages.len()), (1, 1));
    assert_eq!(messages[0].content, b"one\r\ntwo\r\n");
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
    client.begin_content().await;
    client.say(BODY).await;
    found_dead(&backend).await;
    client.ask(".", "451 4.4.2").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
    assert_eq!(bad.counts().messages + backend.counts().messages, 0);
}

#[tokio::test]
async fn a_silent_backend_is_left_in_its_time_k1() {
    // They wait at the same time.
    let cases = [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data];
    let cases = cases.map(|at| tokio::spawn(a_silent_backend_is_left_at(at)));
    for case in cases {
        case.await.expect("no case fails");
    }
}

async fn a_silent_backend_is_left_at(at: At) {
    // For the backend that takes over it holds as well.
    const TIME: Duration = Duration::from_secs(2);
    let bad = sink("bad.test", Script::good().act(at, Act::Silent));
    let backend = good("good.test");
    let mut config = smtp(&[&bad, &backend]);
    let pool = pool(&mut config);
    pool.hedge.enabled = false;
    pool.greeting_timeout = TIME;
    pool.smtp.reply_timeout = TIME;
    pool.smtp.data_timeout = TIME;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(balancer.attempts("b0"), 1, "{at:?}: it was tried");
    assert_eq!(backend.counts().messages, 1, "{at:?}");
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
    let hedges = workers_sum(&balancer.shared, |worker| worker.mail_hedges.value());
    assert_eq!((hedges, backend.counts().messages), (1, 1));
}

#[tokio::test]
async fn a_transaction_leaves_a_backend_that_is_found_down_while_it_is_silent() {
    let frozen = sink("frozen.test", Script::good().act(At::Rcpt, Act::Silent));
    let backend = good("good.test");
    let balancer = Balancer::start(smtp(&[&frozen, &backend]));
    let mut client = client(&balancer).await;
    client.ask(MAIL, "250").await;
    client.say(format!("{RCPT}\r\n")).await;
    let first = balancer.backend("b0");
    for _ in 0..5 {
        let strike = Observation::Strike {
            stage: Stage::Greeting,
            kind: FailureKind::Timeout,
            code: None,
            text: None,
            after: Duration::from_secs(1),
        };
        first.observe(strike, Instant::now());
    }
    client.expect("250").await;
    client.finish_transaction(BODY, "250").await;
    quit(client).await;
    assert_eq!(backend.counts().messages, 1);
}

#[tokio::test]
async fn a_transaction_leaves_a_backend_that_is_cut_and_goes_on_elsewhere() {
    let removed = good("removed.test");
    let other = good("other.test");
    let balancer = Balancer::start(smtp(&[&removed, &other]));
    let mut client = client(&balancer).await;
    client.begin_transaction().await;
    assert_eq!(removed.counts().mails, 1);
    let first = balancer.backend("b0");
    balancer.command(|| Command::CutBackend(Arc::clone(&first)));
    removed
        .wait_for(|counts| counts.open == 0)
        .await
        .expect("it is left");
    client.finish_transaction(BODY, "250").await;
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

#[tokio::test]
async fn without_a_backend_mail_is_put_off_and_the_session_goes_on_r() {
    let mut config = config(&[dead()]);
    listener(&mut config).mode = Mode::Smtp;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.ask(MAIL, "451 4.4.1").await;
    client.ask(RCPT, "503").await;
    client.ask("NOOP", "250").await;
    quit(client).await;
    balancer.wait_until_empty().await;
}

/// The first is asked first, and another soon if it is slow to greet; both have their time.
fn hedged(backends: &[&SinkHandle]) -> Config {
    let mut config = smtp(backends);
    let pool = pool(&mut config);
    pool.balance = Balance::First;
    pool.hedge.greeting_after = Some(Duration::from_millis(20));
    pool.greeting_timeout = Duration::from_secs(10);
    config
}

/// Who lost a race of greetings because another had a start has shown nothing against it.
#[tokio::test]
async fn who_lost_the_race_to_greet_takes_the_message_when_the_winner_dies() {
    let winner = Script::good()
        .delay(At::Greeting, Duration::from_millis(200))
        .close_at(At::Mail);
    let winner = sink("winner.test", winner);
    // Dialled by the hedge, and slower in any case.
    let script = Script::good().delay(At::Greeting, Duration::from_secs(2));
    let loser = sink("loser.test", script);
    let config = hedged(&[&winner, &loser]);
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(winner.counts().ehlos, 1, "it won");
    assert_eq!(loser.counts().messages, 1);
}

/// A backend that was slow to greet is better than none.
#[tokio::test]
async fn who_was_slow_to_greet_is_asked_again_where_no_other_is_left() {
    let script = Script::good().delay(At::Greeting, Duration::from_secs(1));
    let slow = sink("slow.test", script);
    let dies = sink("dies.test", Script::good().close_at(At::Mail));
    let config = hedged(&[&slow, &dies]);
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(slow.counts().messages, 1);
}

/// The slow one is free while another is full: nobody waits for that.
#[tokio::test]
async fn who_was_slow_to_greet_is_asked_again_before_a_full_one_is_waited_for() {
    let script = Script::good().delay(At::Greeting, Duration::from_secs(1));
    let slow = sink("slow.test", script);
    let dies = sink("dies.test", Script::good().close_at(At::Mail));
    let full = good("full.test");
    let mut config = smtp(&[&slow, &dies, &full]);
    let pool = pool(&mut config);
    pool.balance = Balance::First;
    pool.backends
        .get_mut("b2")
        .expect("the third")
        .max_connections = 1;
    pool.hedge.greeting_after = Some(Duration::from_millis(20));
    pool.greeting_timeout = Duration::from_secs(10);
    let balancer = Balancer::start(config);
    // Somebody has the only place.
    let taken = balancer.backend("b2");
    let snapshot = balancer.shared.current.load_full();
    let view = snapshot.pool_named("mx").expect("the pool");
    let place = view.pool.pick_at(&taken, &Tried::default());
    assert!(place.is_some());
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!((slow.counts().messages, full.counts().messages), (1, 0));
}
