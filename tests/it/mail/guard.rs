//! What protects the house in mode "smtp", end to end: who errs is answered late, who comes too
//! many is refused before anybody's transaction fails, and which backend connections are kept and
//! how.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use posthouse::lab::{At, Script};
use posthouse::metrics::SessionOutcome;
use posthouse::worker::Command;

use super::{BODY, client, good, quit, sink, smtp};
use crate::harness::client::{Client, End, MAIL, RCPT};
use crate::harness::{Balancer, eventually, listener, listeners_sum, pool};

const WRONG: &str = "XYZZY\r\n";

fn tarpitted(balancer: &Balancer) -> u64 {
    listeners_sum(&balancer.shared, |of| of.tarpitted.value())
}

#[tokio::test]
async fn who_errs_too_often_is_answered_late_and_nobody_else_is_b5() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    // Longer than the test: it is the drain that ends the wait.
    listener(&mut config).smtp.tarpit = Duration::from_hours(1);
    let balancer = Balancer::start(config);
    let mut guesser = client(&balancer).await;
    guesser.say(WRONG.repeat(7) + "NOOP\r\n").await;
    for _ in 0..5 {
        guesser.expect("500 5.5.2").await;
    }
    eventually("the sixth is held back", || tarpitted(&balancer) == 1).await;
    // The one worker serves others meanwhile.
    let mut other = client(&balancer).await;
    other.send_message(BODY).await;
    quit(other).await;
    assert!(!guesser.heard_something());
    assert_eq!(balancer.shared.tarpit.taken(), 1);
    balancer.command(|| Command::StopAccepting);
    guesser.expect("500 5.5.2").await;
    guesser.expect("421 4.3.2").await;
    assert_eq!(guesser.expect_end().await, End::Fin);
    eventually("its place is given back", || {
        balancer.shared.tarpit.taken() == 0
    })
    .await;
    assert_eq!(tarpitted(&balancer), 1);
}

/// A client may end its direction behind all it has to say (rule K3).
#[tokio::test]
async fn every_mistake_that_is_held_back_is_answered_in_its_turn_b5() {
    let backend = sink("one.test", Script::good().hold_at(At::Mail));
    let mut config = smtp(&[&backend]);
    listener(&mut config).smtp.tarpit = Duration::from_millis(20);
    let balancer = Balancer::start(config);
    let mut guesser = client(&balancer).await;
    guesser.say(WRONG.repeat(5)).await;
    guesser.say(format!("{MAIL}\r\nNOOP\r\n")).await;
    guesser.say(WRONG.repeat(3) + "NOOP\r\nQUIT\r\n").await;
    guesser.end().await;
    for _ in 0..5 {
        guesser.expect("500 5.5.2").await;
    }
    // It has said all, and that it has, while its backend thinks.
    backend
        .wait_for(|counts| counts.faults == 1)
        .await
        .expect("MAIL has come");
    backend.release();
    guesser.expect("250").await;
    guesser.expect("250 2.0.0").await;
    for _ in 0..3 {
        guesser.expect("500 5.5.2").await;
    }
    guesser.expect("250 2.0.0").await;
    guesser.expect("221 2.0.0").await;
    assert_eq!(guesser.expect_end().await, End::Fin);
    assert_eq!(tarpitted(&balancer), 3);
}

/// What is short is refused to those who come, never to those who are within a transaction.
#[tokio::test]
async fn without_room_new_sessions_are_refused_and_open_transactions_go_on_b7() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    config.replay_memory = 0;
    let balancer = Balancer::start(config);
    let mut first = client(&balancer).await;
    first.ask(MAIL, "250").await;
    balancer.shared.session_limit.store(1, Ordering::Relaxed);
    let mut second = Client::connect(balancer.address).await;
    second.expect("421 4.3.2 lb.test").await;
    assert_eq!(second.expect_end().await, End::Fin);
    first.ask(RCPT, "250").await;
    let line = format!("{}\r\n", "x".repeat(98));
    first.finish_transaction(&line.repeat(10_000), "250").await;
    quit(first).await;
    assert_eq!(backend.counts().octets, 1_000_000);
    let worker = &balancer.shared.workers[0];
    let lost = worker.not_replayable_memory.value();
    assert_eq!(lost, 1, "it streamed on without a copy");
}

/// Of one backend no more connections are kept than `max_idle`, nor than a quarter of what it may
/// have.
#[tokio::test]
async fn no_more_idle_connections_are_kept_than_a_backend_can_spare_n5() {
    for (max_connections, kept) in [(0, 12), (8, 2)] {
        let backend = good("one.test");
        let mut config = smtp(&[&backend]);
        let pool = pool(&mut config);
        assert_eq!(pool.smtp.max_idle, 12, "the default");
        let b0 = pool.backends.get_mut("b0").expect("it is there");
        b0.max_connections = max_connections;
        let balancer = Balancer::start(config);
        let count = if max_connections == 0 { 20 } else { 8 };
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = client(&balancer).await;
            client.begin_transaction().await;
            clients.push(client);
        }
        assert_eq!(backend.counts().open, count, "all at once");
        for mut client in clients {
            client.finish_transaction(BODY, "250").await;
            quit(client).await;
        }
        let counts = backend
            .wait_for(|counts| counts.quits == count - kept && counts.open == kept)
            .await
            .expect("the others are ended with QUIT");
        assert_eq!(counts.connections, count);
    }
}

/// A backend that greets late is dialled by one session; the others find what that one leaves.
#[tokio::test]
async fn who_waits_for_a_turn_takes_a_kept_connection_n6() {
    const CLIENTS: u64 = 12;
    let script = Script::good().delay(At::Greeting, Duration::from_millis(60));
    let backend = sink("one.test", script);
    let mut config = smtp(&[&backend]);
    pool(&mut config).smtp.max_opening = 1;
    let balancer = Balancer::start(config);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = client(&balancer).await;
        client
            .say(format!("{MAIL}\r\n{RCPT}\r\nDATA\r\n{BODY}.\r\nQUIT\r\n"))
            .await;
        clients.push(client);
    }
    for mut client in clients {
        for reply in ["250", "250", "354", "250", "221"] {
            client.expect(reply).await;
        }
    }
    let counts = backend.counts();
    assert_eq!(counts.messages, CLIENTS);
    assert!(counts.connections < CLIENTS / 2, "{counts:?}");
}

/// Age is not idleness: in use all the while, it ends behind a transaction (rule N4).
#[tokio::test]
async fn a_connection_grows_so_old_and_no_older_n4() {
    let backend = good("one.test");
    let mut config = smtp(&[&backend]);
    let smtp = &mut pool(&mut config).smtp;
    smtp.max_age = Duration::from_millis(10);
    smtp.idle_timeout = Duration::from_mins(10);
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    // It is too old at once, or when it is looked at next.
    backend
        .wait_for(|counts| counts.quits == 1)
        .await
        .expect("it is ended with QUIT");
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(backend.counts().connections, 2);
}

/// What the kernel says of the established connections to `peer`, two of its columns.
fn connections(peer: SocketAddr, column: usize) -> Vec<(String, u64)> {
    const REMOTE: usize = 2;
    const STATE: usize = 3;
    const ESTABLISHED: &str = "01";
    let SocketAddr::V4(peer) = peer else {
        unreachable!("these tests use IPv4")
    };
    let remote = format!(
        "{:08X}:{:04X}",
        u32::from_le_bytes(peer.ip().octets()),
        peer.port()
    );
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let row = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields.get(REMOTE)? == &remote && fields.get(STATE)? == &ESTABLISHED;
        let (first, second) = fields.get(column).filter(|_| is_it)?.split_once(':')?;
        Some((first.to_owned(), u64::from_str_radix(second, 16).ok()?))
    };
    table.lines().filter_map(row).collect()
}

/// The timer that runs on each connection to `peer`, and in how many hundredths of a second it is
/// due.
fn timers(peer: SocketAddr) -> Vec<(String, u64)> {
    connections(peer, 5)
}

/// Where our established connections to `peer` come from.
pub(super) fn sources_of_connections(peer: SocketAddr) -> Vec<IpAddr> {
    const LOCAL: usize = 1;
    let address = |(address, _): &(String, u64)| u32::from_str_radix(address, 16);
    let addresses = connections(peer, LOCAL);
    let addresses = addresses.iter().flat_map(address);
    addresses
        .map(|address| IpAddr::from(address.to_le_bytes()))
        .collect()
}

/// Octets for `peer` that it has not acknowledged.
fn unsent(peer: SocketAddr) -> u64 {
    let octets = |(octets, _): &(String, u64)| u64::from_str_radix(octets, 16);
    let queues = connections(peer, 4);
    queues.iter().flat_map(octets).sum()
}

/// Octets that the client at `peer` has sent and nobody has read.
fn unread(peer: SocketAddr) -> u64 {
    connections(peer, 4).iter().map(|(_, octets)| octets).sum()
}

/// What `keep_alive` sets is read in `a_lasting_connection_has_keepalive_and_a_user_timeout_k6`.
#[tokio::test]
async fn connections_to_backends_are_kept_alive_from_their_first_transaction_k6() {
    const KEEPALIVE: &str = "02";
    let backend = good("one.test");
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    // Idle, and so with nothing to send again.
    eventually("the keepalive timer of the kept one runs", || {
        let timers = timers(backend.address());
        matches!(&timers[..], [(timer, due)] if timer == KEEPALIVE && *due <= 6_000)
    })
    .await;
    client.ask(MAIL, "250").await;
    eventually("and that of the one in use", || {
        let timers = timers(backend.address());
        matches!(&timers[..], [(timer, due)] if timer == KEEPALIVE && *due <= 6_000)
    })
    .await;
    quit(client).await;
}

/// Its end is not written for a client that would not hear the reply, even if nothing of that client
/// is being read: so much has it said ahead.
#[tokio::test]
async fn a_client_that_is_gone_before_the_commit_leaves_no_message_f6() {
    let backend = sink("one.test", Script::good().hold_at(At::Data));
    let mut config = smtp(&[&backend]);
    listener(&mut config).smtp.buffer_first = true;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say(format!("{BODY}.\r\n")).await;
    backend
        .wait_for(|counts| counts.faults == 1)
        .await
        .expect("DATA has come");
    client.say("RSET\r\n".repeat(15_000)).await;
    let address = client.local();
    // What is left in the kernel is what the session does not read.
    eventually("it is not read on", || unread(address) > 0).await;
    client.reset();
    backend.release();
    balancer.wait_for(SessionOutcome::ClientReset, 1).await;
    balancer.wait_until_no_session().await;
    assert_eq!(backend.counts().messages, 0);
}

/// Nothing that was said ahead is dropped, however much it is (rule P2).
#[tokio::test]
async fn what_is_said_far_ahead_waits_and_is_answered_p3() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    client.say(format!("{BODY}.\r\n")).await;
    backend
        .wait_for(|counts| counts.faults == 1)
        .await
        .expect("the message has come");
    let large = format!("{}\r\n", "x".repeat(98)).repeat(1_500);
    let ahead = format!("{MAIL}\r\n{RCPT}\r\nDATA\r\n{large}.\r\nQUIT\r\n");
    client.say(&ahead).await;
    let address = client.local();
    eventually("64 KiB of it are held, the rest is the kernel's", || {
        unread(address) + unsent(balancer.address) == ahead.len() as u64 - 65_536
    })
    .await;
    backend.release();
    for reply in ["250", "250", "250", "354", "250", "221"] {
        client.expect(reply).await;
    }
    assert_eq!(client.expect_end().await, End::Fin);
    let messages = backend.messages();
    assert_eq!(messages[1].content, large.as_bytes());
}
