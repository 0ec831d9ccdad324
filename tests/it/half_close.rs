//! Clients that say all they have and end their direction, before they were greeted: `nc -N`, and
//! scripts that pipe a session into a socket.

use std::time::Duration;

use posthouse::config::model::{EarlyTalker, Mode};
use posthouse::lab::{At, Script};
use posthouse::metrics::SessionOutcome;

use crate::harness::client::{Client, End};
use crate::harness::{Balancer, config, good, listener, pool, sink};

const SESSION: &str = "EHLO client.test\r\nMAIL FROM:<a@example.org>\r\n\
    RCPT TO:<b@example.net>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n";

/// Says all of it and ends its direction.
async fn piped(balancer: &Balancer, octets: &str) -> Client {
    let mut client = Client::connect(balancer.address).await;
    client.say(octets).await;
    client.end().await;
    client
}

#[tokio::test]
async fn a_client_that_ends_behind_its_words_before_the_greeting_is_served_k3() {
    for mode in [Mode::Passthrough, Mode::Smtp] {
        let backend = sink("late.test", Script::good().hold_at(At::Greeting));
        let mut config = config(&[backend.address()]);
        listener(&mut config).mode = mode;
        let balancer = Balancer::start(config);
        let mut quits = piped(&balancer, "QUIT\r\n").await;
        let mut sends = piped(&balancer, SESSION).await;
        backend.release();
        quits.expect("220").await;
        quits.expect("221").await;
        assert_eq!(quits.expect_end().await, End::Fin);
        for code in ["220", "250", "250", "250", "354", "250", "221"] {
            sends.expect(code).await;
        }
        assert_eq!(sends.expect_end().await, End::Fin);
        assert_eq!(backend.messages().len(), 1, "{mode:?}");
        balancer.wait_for(SessionOutcome::Completed, 2).await;
        balancer.wait_until_no_session().await;
    }
}

/// Mode "smtp" holds its greeting back: the end of the client's direction waits behind its words.
#[tokio::test]
async fn a_client_that_ends_before_a_greeting_that_is_held_back_is_served_k3() {
    for early in [EarlyTalker::Pass, EarlyTalker::Log] {
        let backend = good("one.test");
        let mut config = config(&[backend.address()]);
        listener(&mut config).mode = Mode::Smtp;
        listener(&mut config).early_talker = early;
        listener(&mut config).smtp.greet_delay = Duration::from_secs(1);
        let balancer = Balancer::start(config);
        let mut client = piped(&balancer, SESSION).await;
        for code in ["220", "250", "250", "250", "354", "250", "221"] {
            client.expect(code).await;
        }
        assert_eq!(client.expect_end().await, End::Fin);
        assert_eq!(backend.messages().len(), 1, "{early:?}");
    }
}

#[tokio::test]
async fn a_client_that_ends_without_a_word_or_resets_behind_its_words_has_left() {
    let backend = sink("slow.test", Script::silent());
    let mut config = config(&[backend.address()]);
    pool(&mut config).hedge.enabled = false;
    let balancer = Balancer::start(config);
    for ended in 1..=3 {
        let mut client = match ended {
            1 => piped(&balancer, "").await,
            _ => piped(&balancer, "QUIT\r\n").await,
        };
        match ended {
            1 => assert_eq!(client.expect_end().await, End::Fin),
            2 => client.reset(),
            // It closes altogether, and its own kernel answers nothing that it is told.
            _ => {
                let dialled = backend.wait_for(|counts| counts.open == 1).await;
                dialled.expect("a half-close is served");
                client.reset();
            }
        }
        balancer.wait_for(SessionOutcome::Abandoned, ended).await;
        balancer.wait_until_empty().await;
    }
}

#[tokio::test]
async fn a_client_that_talks_early_and_ends_is_rejected_where_asked_s14() {
    let backend = sink("late.test", Script::good().hold_at(At::Greeting));
    let mut config = config(&[backend.address()]);
    listener(&mut config).early_talker = EarlyTalker::Reject;
    let balancer = Balancer::start(config);
    let mut client = piped(&balancer, SESSION).await;
    client.expect("554 5.5.0 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::EarlyTalker, 1).await;
}

/// Those that we answer ourselves are heard to the end of their words as well.
#[tokio::test]
async fn a_denied_client_and_a_monitor_that_end_early_have_their_replies() {
    let backend = good("one.test");
    for code in ["554", "220"] {
        let mut config = config(&[backend.address()]);
        let loopback = || "127.0.0.0/8".parse().expect("a network");
        let networks = posthouse::types::Networks::new(vec![loopback()]);
        match code {
            "554" => listener(&mut config).deny = networks,
            _ => listener(&mut config).monitor_networks = networks,
        }
        let balancer = Balancer::start(config);
        let mut client = piped(&balancer, "QUIT\r\n").await;
        client.expect(code).await;
        client.expect("221").await;
        assert_eq!(client.expect_end().await, End::Fin);
    }
}
