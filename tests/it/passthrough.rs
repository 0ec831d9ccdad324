//! Passthrough sessions end to end: failover before the greeting, octets unchanged after it.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use posthouse::config::model::{EarlyTalker, GreetingMode, Identity, ProxyIn, WhenAllDown};
use posthouse::identity::{HeaderOut, ProxyVersion};
use posthouse::lab::{At, Script};
use posthouse::metrics::SessionOutcome;
use posthouse::snapshot::{Resolved, build};
use posthouse::types::{Generation, Networks};
use posthouse::worker::Command;

use crate::harness::client::{Client, End};
use crate::harness::{Balancer, config, dead, good, listener, pool, sink};

async fn greeted_by(balancer: &Balancer, name: &str) -> Client {
    let mut client = Client::connect(balancer.address).await;
    let greeting = client.expect("220").await;
    assert!(greeting.contains(name), "{greeting:?} is not {name}'s");
    client
}

async fn quit(mut client: Client) {
    client.ask("QUIT", "221").await;
    client.expect_end().await;
}

fn loopback() -> Networks {
    Networks::new(vec!["127.0.0.0/8".parse().expect("a network")])
}

#[tokio::test]
async fn a_message_arrives_unchanged() {
    let backend = good("one.test");
    let balancer = Balancer::start(config(&[backend.address()]));
    let mut client = greeted_by(&balancer, "one.test").await;
    client.ask("EHLO client.test", "250").await;
    let body = "Subject: x\r\n\r\n..stuffed\r\nbare\nlf and \x00 nul\r\n";
    client.send_message(body).await;
    quit(client).await;
    let messages = backend.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        messages[0].content,
        body.replace("\r\n..", "\r\n.").as_bytes()
    );
    balancer.wait_for(SessionOutcome::Completed, 1).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn a_dead_backend_is_never_met_s9() {
    let backend = good("two.test");
    let balancer = Balancer::start(config(&[dead(), backend.address()]));
    for _ in 0..3 {
        quit(greeted_by(&balancer, "two.test").await).await;
    }
    assert_eq!(
        balancer.attempts("b0"),
        3,
        "each session tried the dead one first"
    );
    balancer.wait_until_empty().await;
}

/// Backends that fail at the greeting in every way a client must not see (rules S6, S7, S9).
#[tokio::test]
async fn a_backend_that_does_not_greet_is_replaced_s7_s9() {
    let faults = [
        ("421", Script::greeting("421 4.3.2 busy.test too busy")),
        ("554", Script::greeting("554 no service here")),
        ("250", Script::greeting("250 not a greeting")),
        ("garbage", Script::greeting("SSH-2.0-OpenSSH_9.2")),
        ("close", Script::good().close_at(At::Greeting)),
        ("reset", Script::good().reset_at(At::Greeting)),
        ("silent", Script::silent()),
    ];
    for (fault, script) in faults {
        let bad = sink("bad.test", script);
        let backend = good("good.test");
        let mut config = config(&[bad.address(), backend.address()]);
        // For the backend that takes over it holds as well.
        pool(&mut config).greeting_timeout = Duration::from_secs(2);
        pool(&mut config).hedge.enabled = false;
        let balancer = Balancer::start(config);
        quit(greeted_by(&balancer, "good.test").await).await;
        assert_eq!(balancer.attempts("b0"), 1, "{fault}: it was tried");
        balancer.wait_until_empty().await;
    }
}

#[tokio::test]
async fn a_silent_backend_is_hedged_long_before_its_timeout() {
    let bad = sink("bad.test", Script::silent());
    let backend = good("good.test");
    let mut config = config(&[bad.address(), backend.address()]);
    pool(&mut config).greeting_timeout = Duration::from_mins(1);
    pool(&mut config).hedge.greeting_after = Some(Duration::from_millis(50));
    let balancer = Balancer::start(config);
    quit(greeted_by(&balancer, "good.test").await).await;
    let loser = balancer.backend("b0").view(Instant::now());
    assert_eq!(loser.consecutive_strikes, 1, "the loser got its strike");
    let counts = bad
        .wait_for(|counts| counts.open == 0)
        .await
        .expect("the loser was closed");
    assert_eq!((counts.quits, counts.wordless), (0, 1), "without an octet");
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn a_session_caught_by_a_freeze_is_hedged_although_another_was_greeted_after_its_dial() {
    let freezing = sink("freezing.test", Script::silent());
    let backend = good("good.test");
    let mut config = config(&[freezing.address(), backend.address()]);
    pool(&mut config).greeting_timeout = Duration::from_mins(1);
    pool(&mut config).hedge.greeting_after = Some(Duration::from_secs(1));
    let balancer = Balancer::start(config);
    let mut caught = Client::connect(balancer.address).await;
    freezing
        .wait_for(|counts| counts.connections == 1)
        .await
        .expect("it was dialled");
    freezing.script(Script::good());
    quit(greeted_by(&balancer, "freezing.test").await).await;
    let greeting = caught.expect("220").await;
    assert!(greeting.contains("good.test"), "{greeting:?}");
    quit(caught).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn at_most_three_backends_are_tried_s12() {
    let backend = good("good.test");
    let balancer = Balancer::start(config(&[dead(), dead(), dead(), backend.address()]));
    let mut client = Client::connect(balancer.address).await;
    client.expect("421 4.3.2 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::NoBackend, 1).await;
    assert_eq!(balancer.attempts("b3"), 0);
}

#[tokio::test]
async fn all_attempts_together_have_one_deadline_s12() {
    let (silent, spare) = (
        sink("silent.test", Script::silent()),
        sink("spare.test", Script::silent()),
    );
    let mut config = config(&[silent.address(), spare.address()]);
    pool(&mut config).hedge.enabled = false;
    pool(&mut config).greeting_timeout = Duration::from_mins(1);
    pool(&mut config).failover_timeout = Duration::from_secs(1);
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect("421 4.3.2 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::NoBackend, 1).await;
    assert_eq!((balancer.attempts("b0"), balancer.attempts("b1")), (1, 0));
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn no_backend_at_all_is_a_proper_reply() {
    let mut config = config(&[dead()]);
    pool(&mut config).when_all_down = WhenAllDown::Refuse;
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client
        .expect("421 4.3.2 lb.test service not available")
        .await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn a_teaser_reaches_the_client_before_the_rest_s8() {
    let backend = sink("tease.test", Script::teaser(Duration::from_secs(2)));
    let balancer = Balancer::start(config(&[backend.address()]));
    let mut client = Client::connect(balancer.address).await;
    let first = client.line().await;
    assert!(first.starts_with("220-"), "{first}");
    assert!(
        !client.heard_something(),
        "the last line comes when the backend sends it"
    );
    client.expect("220 ").await;
    quit(client).await;
}

#[tokio::test]
async fn a_policy_greeting_is_relayed_when_the_backend_knows_the_client_s9() {
    for (greeting, relayed) in [
        ("554 5.7.1 your address is listed", true),
        (
            "421 4.7.0 mx.test too many connections from 127.0.0.1",
            true,
        ),
        ("421 mx.test too many connections from 127.0.0.1", true),
        ("421 4.3.2 all server ports are busy", false),
    ] {
        let bad = sink("bad.test", Script::greeting(greeting).proxy_required());
        let backend = sink("good.test", Script::good().proxy_required());
        let mut config = config(&[bad.address(), backend.address()]);
        pool(&mut config).identity = Identity::ProxyV2;
        let balancer = Balancer::start(config);
        let mut client = Client::connect(balancer.address).await;
        if relayed {
            assert_eq!(client.expect(&greeting[..3]).await, greeting);
            client.end().await;
            client.expect_end().await;
            balancer.wait_for(SessionOutcome::Refused, 1).await;
        } else {
            client.expect("220").await;
            quit(client).await;
        }
        balancer.wait_until_empty().await;
    }
}

#[tokio::test]
async fn the_backend_learns_the_client_by_v1_and_v2_x8_x11() {
    for (identity, version) in [(Identity::ProxyV1, 1), (Identity::ProxyV2, 2)] {
        let backend = sink("px.test", Script::good().proxy_required());
        let mut config = config(&[backend.address()]);
        pool(&mut config).identity = identity;
        let balancer = Balancer::start(config);
        let client = greeted_by(&balancer, "px.test").await;
        let local = client.local();
        quit(client).await;
        let headers = backend.proxy_headers();
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[0].version, version);
        assert_eq!(headers[0].source, Some(local));
        assert_eq!(headers[0].destination, Some(balancer.address));
        assert!(headers[0].length <= 232, "{} octets", headers[0].length);
        assert_eq!(headers[0].unique_id.is_some(), version == 2);
    }
}

#[tokio::test]
async fn a_received_header_names_the_client_x7() {
    let backend = sink("px.test", Script::good().proxy_required());
    let mut config = config(&[backend.address()]);
    pool(&mut config).identity = Identity::ProxyV2;
    listener(&mut config).proxy_protocol = ProxyIn::Required;
    listener(&mut config).trusted_proxies = loopback();
    let balancer = Balancer::start(config);
    let source = "203.0.113.7:4711".parse().expect("an address");
    let destination = "198.51.100.1:25".parse().expect("an address");
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = HeaderOut::new(version, source, destination, None, b"", 232);
        let mut client = Client::connect(balancer.address).await;
        // In pieces: the header is put together, and what is behind it stays in the stream (X5).
        let (one, two) = header.octets().split_at(9);
        client.say(one).await;
        tokio::task::yield_now().await;
        client.say(two).await;
        client.expect("220").await;
        quit(client).await;
    }
    for header in backend.proxy_headers() {
        assert_eq!(
            (header.source, header.destination),
            (Some(source), Some(destination))
        );
    }
    assert_eq!(backend.proxy_headers().len(), 2);
}

#[tokio::test]
async fn without_a_valid_header_there_is_no_word_x1_x2() {
    let backend = good("px.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).proxy_protocol = ProxyIn::Required;
    listener(&mut config).trusted_proxies = loopback();
    listener(&mut config).proxy_header_timeout = Duration::from_secs(1);
    let balancer = Balancer::start(config);
    for octets in ["EHLO no.header\r\n", "PROXY TCP4 1.2.3.4\r\n", "PROXY T"] {
        let mut client = Client::connect(balancer.address).await;
        client.say(octets).await;
        client.expect_end().await;
    }
    balancer.wait_for(SessionOutcome::ProxyHeader, 3).await;
    assert_eq!(backend.counts().connections, 0, "no backend was bothered");
}

#[tokio::test]
async fn an_untrusted_peer_is_closed_at_once_x1() {
    let backend = good("px.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).proxy_protocol = ProxyIn::Required;
    listener(&mut config).trusted_proxies =
        Networks::new(vec!["192.0.2.0/24".parse().expect("a network")]);
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect_end().await;
    balancer.wait_for(SessionOutcome::ProxyHeader, 1).await;
}

#[tokio::test]
async fn a_client_first_port_passes_octets_from_the_connect_on() {
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let backend = echo.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.expect("a session");
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write)
            .await
            .expect("an echo");
    });
    let mut config = config(&[dead(), backend]);
    listener(&mut config).greeting = GreetingMode::None;
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.say("\x16\x03\x01 hello\n").await;
    assert_eq!(client.line().await, "\x16\x03\x01 hello");
    client.end().await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::Completed, 1).await;
}

#[tokio::test]
async fn a_client_first_port_without_a_backend_is_closed_without_a_word() {
    let mut config = config(&[dead()]);
    listener(&mut config).greeting = GreetingMode::None;
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect_end().await;
    balancer.wait_for(SessionOutcome::NoBackend, 1).await;
}

#[tokio::test]
async fn a_denied_client_is_told_and_may_only_quit_s6() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).deny = loopback();
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect("554 5.7.1").await;
    client.ask("EHLO client.test", "503").await;
    client.ask("QUIT", "221").await;
    client.expect_end().await;
    balancer.wait_for(SessionOutcome::Denied, 1).await;
    assert_eq!(backend.counts().connections, 0);
}

#[tokio::test]
async fn a_denied_client_that_floods_is_closed_long_before_its_time() {
    // What sockets may hold, and far less than a flood of the 5 s that a dialogue may take.
    const TAKEN_MAX: usize = 32 << 20;
    let mut config = config(&[dead()]);
    listener(&mut config).deny = loopback();
    let balancer = Balancer::start(config);
    let at = balancer.address;
    let flood = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(at).expect("it listens");
        let mut taken = 0;
        // Not one line end: no command is ever complete.
        while let Ok(n) = stream.write(&[b'N'; 8 * 1024]) {
            taken += n;
        }
        taken
    });
    let taken = flood.await.expect("it is stopped by a reset");
    assert!(taken <= TAKEN_MAX, "{taken} octets");
    balancer.wait_for(SessionOutcome::Denied, 1).await;
}

#[tokio::test]
async fn a_monitor_is_answered_without_dialling() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).monitor_networks = loopback();
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect("220 lb.test").await;
    client.ask("QUIT", "221").await;
    client.expect_end().await;
    balancer.wait_for(SessionOutcome::Monitor, 1).await;
    assert_eq!(backend.counts().connections, 0);
}

#[tokio::test]
async fn one_client_has_so_many_sessions_and_no_more() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).max_sessions_per_client = 1;
    let balancer = Balancer::start(config);
    let first = greeted_by(&balancer, "one.test").await;
    let mut second = Client::connect(balancer.address).await;
    second.expect("421 4.7.0 lb.test").await;
    second.expect_end().await;
    quit(first).await;
    balancer.wait_until_empty().await;
    quit(greeted_by(&balancer, "one.test").await).await;
}

#[tokio::test]
async fn a_listener_has_so_many_sessions_and_no_more() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).max_sessions = 1;
    let balancer = Balancer::start(config);
    let first = greeted_by(&balancer, "one.test").await;
    let mut second = Client::connect(balancer.address).await;
    second
        .expect("421 4.3.2 lb.test too many connections")
        .await;
    quit(first).await;
}

#[tokio::test]
async fn a_full_pool_makes_clients_wait_without_a_greeting() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    pool(&mut config)
        .backends
        .get_mut("b0")
        .expect("b0")
        .max_connections = 1;
    let balancer = Balancer::start(config);
    let first = greeted_by(&balancer, "one.test").await;
    let mut second = Client::connect(balancer.address).await;
    while balancer.shared.workers[0].queued.value() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!second.heard_something());
    quit(first).await;
    second.expect("220").await;
    quit(second).await;
    assert!(backend.counts().connections == 2);
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn a_wait_in_the_queue_ends_with_a_reply() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    pool(&mut config)
        .backends
        .get_mut("b0")
        .expect("b0")
        .max_connections = 1;
    pool(&mut config).queue_timeout = Duration::from_millis(100);
    let balancer = Balancer::start(config);
    let first = greeted_by(&balancer, "one.test").await;
    let mut second = Client::connect(balancer.address).await;
    second.expect("421 4.3.2 lb.test").await;
    balancer.wait_for(SessionOutcome::QueueTimeout, 1).await;
    quit(first).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_dial_along() {
    let backend = sink("slow.test", Script::silent());
    let mut config = config(&[backend.address()]);
    pool(&mut config).hedge.enabled = false;
    let balancer = Balancer::start(config);
    let client = Client::connect(balancer.address).await;
    backend
        .wait_for(|counts| counts.open == 1)
        .await
        .expect("it was dialled");
    client.reset();
    backend
        .wait_for(|counts| counts.open == 0)
        .await
        .expect("the dial was abandoned");
    balancer.wait_for(SessionOutcome::Abandoned, 1).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn an_early_talker_is_rejected_where_asked_and_else_delivered_s14() {
    for (policy, rejected) in [
        (EarlyTalker::Reject, true),
        (EarlyTalker::Log, false),
        (EarlyTalker::Pass, false),
    ] {
        let backend = sink("late.test", Script::good().hold_at(At::Greeting));
        let mut config = config(&[backend.address()]);
        listener(&mut config).early_talker = policy;
        let balancer = Balancer::start(config);
        let mut client = Client::connect(balancer.address).await;
        client.say("EHLO early.test\r\n").await;
        backend.release();
        if rejected {
            client.expect("554 5.5.0 lb.test").await;
            balancer.wait_for(SessionOutcome::EarlyTalker, 1).await;
        } else {
            client.expect("220").await;
            client.expect("250").await;
            quit(client).await;
        }
    }
}

#[tokio::test]
async fn a_proxy_header_is_no_early_talk_s14() {
    let header = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 25\r\n";
    for (behind, rejected) in [("", false), ("EHLO early.test\r\n", true)] {
        let backend = sink("late.test", Script::good().hold_at(At::Greeting));
        let mut config = config(&[backend.address()]);
        listener(&mut config).early_talker = EarlyTalker::Reject;
        listener(&mut config).proxy_protocol = ProxyIn::Required;
        listener(&mut config).trusted_proxies = loopback();
        let balancer = Balancer::start(config);
        let mut client = Client::connect(balancer.address).await;
        client.say(format!("{header}{behind}")).await;
        backend.release();
        if rejected {
            client.expect("554 5.5.0 lb.test").await;
        } else {
            client.expect("220").await;
            quit(client).await;
        }
    }
}

#[tokio::test]
async fn a_session_without_an_octet_ends_by_a_reset_of_both() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).idle_timeout = Duration::from_millis(100);
    let balancer = Balancer::start(config);
    let mut client = greeted_by(&balancer, "one.test").await;
    assert_eq!(
        client.expect_end().await,
        End::Rst,
        "it must not look complete (K4)"
    );
    balancer.wait_for(SessionOutcome::IdleTimeout, 1).await;
    balancer.wait_until_empty().await;
}

#[tokio::test]
async fn an_idle_timeout_shorter_than_the_patience_with_backends_holds_from_the_first_octet() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).idle_timeout = Duration::from_millis(100);
    // The session's one timer is set for these before the relay begins.
    pool(&mut config).hedge.enabled = false;
    pool(&mut config).connect_timeout = Duration::from_mins(1);
    pool(&mut config).greeting_timeout = Duration::from_mins(1);
    pool(&mut config).failover_timeout = Duration::from_mins(1);
    let balancer = Balancer::start(config);
    let mut client = greeted_by(&balancer, "one.test").await;
    assert_eq!(client.expect_end().await, End::Rst);
    balancer.wait_for(SessionOutcome::IdleTimeout, 1).await;
}

#[tokio::test]
async fn a_connection_still_in_the_accept_queue_is_told_of_the_shutdown() {
    let backend = good("one.test");
    let balancer = Balancer::start(config(&[backend.address()]));
    let queue = Queue::of(1).await;
    balancer.shared.start_draining();
    balancer.command(|| queue.bind(&balancer));
    balancer.command(|| Command::StopAccepting);
    let mut client = queue.clients.into_iter().next().expect("one client");
    client.expect("421 4.3.2 lb.test shutting down").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_for(SessionOutcome::ShuttingDown, 1).await;
    assert_eq!(backend.counts().connections, 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_sessions_that_come_out_of_the_accept_queue() {
    let backend = good("one.test");
    let balancer = Balancer::start(config(&[backend.address()]));
    let session = greeted_by(&balancer, "one.test").await;
    let queue = Queue::of(3).await;
    balancer.command(|| queue.bind(&balancer));
    balancer.command(|| Command::Stop);
    let ended = tokio::task::spawn_blocking(move || drop(balancer));
    let ended = tokio::time::timeout(crate::harness::PATIENCE, ended).await;
    ended.expect("the worker ends").expect("it does not panic");
    drop((session, queue));
}

/// A worker that has served nobody there yet knows the listener all the same.
#[tokio::test]
async fn who_is_in_the_queue_of_a_listener_that_a_reload_took_away_is_served() {
    let backend = good("one.test");
    let balancer = Balancer::start(config(&[backend.address()]));
    let mut queue = Queue::of(1).await;
    let bind = Mutex::new(Some(queue.bind(&balancer)));
    let mut without = config(&[backend.address()]);
    without.listeners.clear();
    let registry = &balancer.shared.registry;
    let next = build(
        Arc::new(without),
        &Resolved::default(),
        registry,
        Generation(2),
        Instant::now(),
    );
    balancer.shared.current.store(Arc::new(next));
    balancer.command(|| bind.lock().unwrap().take().expect("one worker"));
    queue.clients[0].expect("220").await;
    queue.clients[0].ask("QUIT", "221").await;
}

/// A listening socket with clients in its accept queue that no worker has yet.
struct Queue {
    socket: std::net::TcpListener,
    clients: Vec<Client>,
}

impl Queue {
    async fn of(count: usize) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a port");
        socket
            .set_nonblocking(true)
            .expect("a socket can be non-blocking");
        let at = socket.local_addr().expect("it is bound");
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::connect(at).await);
        }
        Self { socket, clients }
    }

    fn bind(&self, balancer: &Balancer) -> Command {
        let snapshot = balancer.shared.current.load();
        let listener = snapshot.listeners().next().expect("one listener");
        Command::Bind {
            view: Arc::clone(listener),
            hostname: "lb.test".into(),
            socket: self.socket.try_clone().expect("a descriptor is free"),
        }
    }
}

#[tokio::test]
async fn a_reset_passes_through_k4() {
    let backend = sink("one.test", Script::good().reset_at(At::Mail));
    let balancer = Balancer::start(config(&[backend.address()]));
    let mut client = greeted_by(&balancer, "one.test").await;
    client.ask("EHLO client.test", "250").await;
    client.say("MAIL FROM:<a@example.org>\r\n").await;
    assert_eq!(client.expect_end().await, End::Rst);
    balancer.wait_for(SessionOutcome::BackendReset, 1).await;
}

/// The backend says its last and resets, at the greeting or behind a command. Many times: whether the
/// reset is seen together with the octets is a matter of microseconds.
#[tokio::test]
async fn what_a_backend_said_before_its_reset_reaches_the_client_k4() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let backend = port.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for (turn, stream) in port.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let socket = socket2::SockRef::from(&stream);
            let set = socket.set_linger(Some(Duration::ZERO));
            set.expect("a socket option");
            // Where the balancer has left already, the client shows it.
            let _ = stream.write_all(b"220 one.test ESMTP\r\n");
            if turn % 2 == 1 {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(b"250 one.test\r\n");
            }
        }
    });
    let mut config = config(&[backend]);
    // Each session is one attempt, so that the backend's turns are the client's.
    pool(&mut config).max_attempts = 1;
    let balancer = Balancer::start(config);
    for turn in 0..400 {
        let mut client = Client::connect(balancer.address).await;
        let greeting = client.reply().await;
        if !greeting.starts_with("220") {
            // The reset was seen before the commit.
            assert!(greeting.starts_with("421 4.3.2") && turn % 2 == 0, "{turn}");
            continue;
        }
        if turn % 2 == 1 {
            client.ask("EHLO client.test", "250").await;
        }
        assert_eq!(client.expect_end().await, End::Fin, "{turn}");
    }
    balancer.wait_until_empty().await;
    assert!(balancer.ended(SessionOutcome::BackendReset) >= 200);
}

#[tokio::test]
async fn the_sessions_of_one_backend_can_be_cut() {
    let (one, two) = (good("one.test"), good("two.test"));
    let mut config = config(&[one.address(), two.address()]);
    pool(&mut config)
        .backends
        .get_mut("b0")
        .expect("b0")
        .max_connections = 1;
    pool(&mut config).spill_when_full = true;
    let balancer = Balancer::start(config);
    let mut first = greeted_by(&balancer, "one.test").await;
    let second = greeted_by(&balancer, "two.test").await;
    let cut = balancer.backend("b0");
    assert_eq!(cut.open(), 1);
    balancer.command(|| Command::CutBackend(Arc::clone(&cut)));
    balancer.wait_for(SessionOutcome::Cut, 1).await;
    let _ = (first.expect_end().await, second);
}

#[tokio::test]
async fn a_stop_accounts_for_every_session() {
    let backend = good("one.test");
    let balancer = Balancer::with_workers(config(&[backend.address()]), 2);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(greeted_by(&balancer, "one.test").await);
    }
    balancer.command(|| Command::Stop);
    balancer.wait_for(SessionOutcome::Cut, 8).await;
    balancer.wait_until_empty().await;
}
