//! How sessions begin and end: early talkers, drain, cut, silence, too many mistakes.

use std::time::Duration;

use posthouse::config::model::EarlyTalker;
use posthouse::lab::{At, Script};
use posthouse::metrics::SessionOutcome;
use posthouse::worker::Command;

use super::{BODY, client, good, quit, sink, smtp};
use crate::harness::client::{Client, End, MAIL, RCPT};
use crate::harness::{Balancer, listener, listeners_sum, pool};

#[tokio::test]
async fn who_talks_before_a_late_greeting_is_found_s14() {
    let backend = good("one.test");
    for (early, answer) in [
        (EarlyTalker::Reject, "554 5.5.0"),
        (EarlyTalker::Log, "220 lb.test"),
    ] {
        let mut config = smtp(&[&backend]);
        let listener = listener(&mut config);
        listener.smtp.greet_delay = Duration::from_secs(2);
        listener.early_talker = early;
        let balancer = Balancer::start(config);
        let mut bot = Client::connect(balancer.address).await;
        bot.say("EHLO bot.test\r\n").await;
        let mut patient = Client::connect(balancer.address).await;
        bot.expect(answer).await;
        patient.expect("220 lb.test").await;
        let talkers = listeners_sum(&balancer.shared, |c| c.early_talkers.value());
        assert_eq!(talkers, 1, "{early:?}");
    }
}

#[tokio::test]
async fn a_drain_ends_idle_sessions_at_once_and_others_behind_their_transaction_k7() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut idle = client(&balancer).await;
    let mut busy = client(&balancer).await;
    busy.begin_content().await;
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

#[tokio::test]
async fn a_cut_session_leaves_no_whole_message_k4() {
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say(BODY).await;
    balancer.command(|| Command::Stop);
    let counts = backend
        .wait_for(|counts| counts.open == 0 && counts.lost == 1)
        .await
        .expect("it is reset");
    assert_eq!((counts.messages, counts.resets), (0, 1));
}

#[tokio::test]
async fn a_client_that_is_silent_for_too_long_is_told_so_b6() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    listener(&mut config).smtp.command_timeout = Duration::from_secs(1);
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.expect("421 4.4.2 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::IdleTimeout, 1).await;
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
        client.ask(MAIL, "250").await;
        client.ask(RCPT, "550").await;
        client.ask("RCPT TO:<c@example.net>", "550").await;
        client.ask("RSET", "250").await;
    }
    quit(client).await;
}
