//! Kept-alive connections: how long they are kept, when they are replaced, when they are made.

use std::net::IpAddr;
use std::time::Duration;

use posthouse::config::model::Balance;
use posthouse::lab::{At, Script, WhenFull};

use super::guard::sources_of_connections;
use super::{BODY, client, good, quit, sink, smtp};
use crate::harness::client::MAIL;
use crate::harness::{Balancer, eventually, pool};

#[tokio::test]
async fn sessions_use_one_connection_after_another_and_it_is_ended_with_quit_n2_n4() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    // Longer than what may pass between two sessions.
    pool(&mut config).smtp.idle_timeout = Duration::from_secs(2);
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

/// Twice refused where there was no room at all: that says nothing of how long a connection lasts.
#[tokio::test]
async fn a_backend_that_had_no_room_for_a_moment_is_kept_connections_to_as_before_n4() {
    let full = || Script::good().reply(At::Mail, "452 4.3.1 disk full");
    let backend = good("one.test");
    let other = good("other.test");
    let mut config = smtp(&[&backend, &other]);
    pool(&mut config).balance = Balance::First;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    for _ in 0..2 {
        backend.script(full().after_mails(1));
        client.send_message(BODY).await;
        // Neither the connection that is kept has room now, nor a new one.
        backend.script(full());
        client.send_message(BODY).await;
    }
    backend.script(Script::good());
    let before = backend.counts().connections;
    for _ in 0..6 {
        client.send_message(BODY).await;
    }
    quit(client).await;
    assert_eq!(other.counts().messages, 2, "while there was no room");
    assert_eq!(backend.counts().messages, 8);
    let dialled = backend.counts().connections - before;
    assert_eq!(dialled, 1, "for six messages");
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
    // Another is made ready while it is in use.
    assert_eq!(reused(&balancer), 1, "it used one of them");
}

/// As those that sessions dial: no source has all ports to give.
#[tokio::test]
async fn connections_that_are_made_ready_leave_from_every_source_in_turn() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    let sources = [[127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from);
    pool(&mut config).smtp.min_idle = 2;
    pool(&mut config).source = sources.to_vec();
    let balancer = Balancer::start(config);
    balancer.wait_until_idle(2).await;
    eventually("one of each", || {
        let mut from = sources_of_connections(backend.address());
        from.sort();
        from == sources
    })
    .await;
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(reused(&balancer), 1, "it used one of them");
    let from = backend.messages()[0].peer.ip();
    assert!(sources.contains(&from), "{from}");
}

/// Transactions over connections that were there already.
fn reused(balancer: &Balancer) -> u64 {
    let totals = &balancer.backend("b0").totals;
    totals.sum(|of| of.mail.reused.value())
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
    first.ask(MAIL, "250").await;
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
