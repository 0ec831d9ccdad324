//! Clients queue because every backend has as many connections as it may have: connections go from
//! one message to the next with their places, whoever's they are, in the order of arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use posthouse::config::Config;
use posthouse::config::model::{AdminState, Mode};
use posthouse::control::BackendChange;
use posthouse::lab::{At, Script, Sink, SinkHandle, SinkPlan, WhenFull};
use tokio::task::JoinHandle;

use crate::harness::client::Client;
use crate::harness::{Balancer, config, eventually, listener, pool};
use crate::whole;

const CLIENTS: usize = 20;
const MESSAGES: usize = 20;
/// Connections that each backend may have.
const PLACES: u32 = 2;

/// A backend that would not have more connections than it may have, which would be seen as a
/// failure. It may hear of a new one before it hears that the one before was closed.
fn strict(name: &str) -> SinkHandle {
    let refuse = WhenFull::Refuse("421 4.3.2 too many connections".to_owned());
    sink(name, Script::good().max_connections(2 * PLACES, refuse))
}

fn sink(name: &str, script: Script) -> SinkHandle {
    let mut plan = SinkPlan::with(script).named(name);
    plan.keep_records = 2 * CLIENTS * MESSAGES;
    Sink::spawn_thread(plan).expect("loopback has a port")
}

fn full(backends: &[&SinkHandle]) -> Config {
    let addresses: Vec<_> = backends.iter().map(|sink| sink.address()).collect();
    let mut config = config(&addresses);
    listener(&mut config).mode = Mode::Smtp;
    let pool = pool(&mut config);
    pool.hedge.enabled = false;
    for backend in pool.backends.values_mut() {
        backend.max_connections = PLACES;
    }
    config
}

/// Messages one after the other on one session, each with its name.
async fn send(address: SocketAddr, number: usize) {
    let mut client = Client::connect(address).await;
    client.expect("220").await;
    client.ask("EHLO client.test", "250").await;
    for message in 0..MESSAGES {
        client.ask("MAIL FROM:<a@example.org>", "250").await;
        client.ask("RCPT TO:<b@example.net>", "250").await;
        client.ask("DATA", "354").await;
        client
            .say(format!("Subject: {number}-{message}\r\n\r\nbody\r\n.\r\n"))
            .await;
        client.expect("250").await;
    }
    client.ask("QUIT", "221").await;
}

/// Sends all messages of all clients.
async fn campaign(balancer: &Balancer) {
    all_done(clients(balancer)).await;
}

fn clients(balancer: &Balancer) -> Vec<JoinHandle<()>> {
    (0..CLIENTS)
        .map(|number| tokio::spawn(send(balancer.address, number)))
        .collect()
}

async fn all_done(clients: Vec<JoinHandle<()>>) {
    for client in clients {
        client.await.expect("no client is told of anything");
    }
}

/// The names of all messages, in the order in which they were taken; each is there once.
fn taken(backends: &[&SinkHandle]) -> Vec<String> {
    let messages = backends.iter().flat_map(|sink| sink.messages());
    let names: Vec<_> = messages
        .map(|message| message.subject.expect("each message has its name"))
        .collect();
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "no message came twice");
    names
}

#[tokio::test]
async fn a_full_backend_is_dialled_a_few_times_and_not_for_every_message_n1_n2() {
    for workers in [1, 2] {
        let backend = strict("one.test");
        let balancer = Balancer::with_workers(full(&[&backend]), workers);
        campaign(&balancer).await;
        assert_eq!(taken(&[&backend]).len(), CLIENTS * MESSAGES);
        let counts = backend.counts();
        // When the last clients come to their end nobody waits, and what is too many to be kept idle
        // is ended.
        let dials_max = u64::from(2 * PLACES + 4);
        assert!(
            counts.connections <= dials_max,
            "{workers} workers: {} connections for {} messages",
            counts.connections,
            counts.messages
        );
        assert_eq!(counts.greetings, counts.connections, "never one too many");
        assert_eq!(counts.resets, 0);
    }
}

#[tokio::test]
async fn a_session_that_goes_on_sending_waits_behind_those_who_came_before() {
    for workers in [1, 2] {
        // A worker that does not run for a while keeps the others waiting for one place only.
        let slow = Script::good().delay(At::Dot, Duration::from_millis(5));
        let backend = sink("one.test", slow.hold_at(At::Mail));
        let balancer = Balancer::with_workers(full(&[&backend]), workers);
        let clients = clients(&balancer);
        eventually("all have come", || {
            let snapshot = balancer.shared.current.load();
            let pool = snapshot.pool_named("mx").expect("the pool");
            pool.pool.waiting() + PLACES == CLIENTS as u32
        })
        .await;
        backend.release();
        all_done(clients).await;
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for (turn, name) in taken(&[&backend]).iter().enumerate() {
            let (client, _) = name.split_once('-').expect("client and message");
            first.entry(client.to_owned()).or_insert(turn);
        }
        let last = first.values().max().expect("clients");
        // If sessions held on to their places, the last would begin when the others have done.
        assert!(*last < 4 * CLIENTS, "{workers} workers: {first:?}");
    }
}

#[tokio::test]
async fn a_connection_that_died_while_clients_queue_costs_none_of_them_its_turn_n3_n4() {
    let dies = [
        Script::good().close_at(At::Mail),
        Script::good().reset_at(At::Mail),
        Script::good().reply(At::Mail, "421 4.7.0 too many messages"),
        Script::good().reply(At::Mail, "452 4.3.2 enough"),
    ];
    for script in dies {
        let backend = sink("one.test", script.after_mails(3));
        let balancer = Balancer::with_workers(full(&[&backend]), 2);
        campaign(&balancer).await;
        assert_eq!(taken(&[&backend]).len(), CLIENTS * MESSAGES);
        balancer.wait_until_no_session().await;
    }
}

#[tokio::test]
async fn clients_that_leave_the_queue_take_no_place_and_no_connection_with_them() {
    let backend = sink(
        "one.test",
        Script::good().delay(At::Dot, Duration::from_millis(2)),
    );
    let mut config = full(&[&backend]);
    pool(&mut config).smtp.idle_timeout = Duration::from_millis(200);
    let balancer = Balancer::with_workers(config, 2);
    let address = balancer.address;
    let leavers: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(async move {
                for turn in 0..MESSAGES {
                    let mut client = Client::connect(address).await;
                    client.expect("220").await;
                    client.ask("EHLO client.test", "250").await;
                    client.say("MAIL FROM:<a@example.org>\r\n").await;
                    if (number + turn) % 3 == 0 {
                        client.expect("250").await;
                    }
                    client.reset();
                }
            })
        })
        .collect();
    campaign(&balancer).await;
    for leaver in leavers {
        leaver.await.expect("it leaves unhurt");
    }
    assert_eq!(taken(&[&backend]).len(), CLIENTS * MESSAGES);
    // Idle connections end; then no place is anybody's.
    balancer.wait_until_empty().await;
}

/// Clients of a whole process, each with a thread of its own.
fn peers(address: SocketAddr) -> Vec<std::thread::JoinHandle<()>> {
    let send = move |number: usize| {
        let mut peer = whole::Peer::greeted_by(address, "lb.test");
        assert!(peer.ask("HELO client.test").starts_with("250"));
        for message in 0..MESSAGES {
            let reply = peer.ask("MAIL FROM:<a@example.org>");
            assert!(reply.starts_with("250"), "{reply}");
            assert!(peer.ask("RCPT TO:<b@example.net>").starts_with("250"));
            assert!(peer.ask("DATA").starts_with("354"));
            let text = format!("Subject: {number}-{message}\r\n\r\nbody\r\n.");
            let reply = peer.ask(&text);
            assert!(reply.starts_with("250"), "{reply}");
        }
    };
    (0..CLIENTS)
        .map(|number| std::thread::spawn(move || send(number)))
        .collect()
}

#[test]
fn reloads_and_drains_lose_no_place_and_no_message_while_clients_queue() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let configured = || {
        let mut config = whole::config(&[("one", one.address()), ("two", two.address())]);
        whole::listener(&mut config).mode = Mode::Smtp;
        let pool = whole::pool(&mut config);
        pool.hedge.enabled = false;
        pool.smtp.idle_timeout = Duration::from_millis(200);
        for backend in pool.backends.values_mut() {
            backend.max_connections = PLACES;
        }
        config
    };
    let running = whole::run(configured());
    let address = whole::address(running.handle(), "mx");
    let peers = peers(address);
    let admin = |state| {
        let change = BackendChange {
            state: Some(state),
            weight: None,
            who: "test".into(),
        };
        whole::wait(running.handle().set_backend("mx", "one", change)).unwrap();
    };
    while peers.iter().any(|peer| !peer.is_finished()) {
        assert!(whole::replace(running.handle(), configured()).ok);
        admin(AdminState::Drain);
        admin(AdminState::Ready);
    }
    for peer in peers {
        peer.join().expect("no client is told of anything");
    }
    assert_eq!(taken(&[&one, &two]).len(), CLIENTS * MESSAGES);
    for backend in [&one, &two] {
        whole::eventually("idle connections end", || backend.counts().open == 0);
    }
}
