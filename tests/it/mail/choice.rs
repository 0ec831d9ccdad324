//! Which backend a transaction goes to, and what is announced because of them.

use std::time::Duration;

use posthouse::config::model::{Balance, Quota, QuotaUnit, Sticky};
use posthouse::lab::Script;

use super::{BODY, announces, client, good, offered, quit, sink, smtp};
use crate::harness::client::MAIL;
use crate::harness::{Balancer, pool};

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
    let few = ["SIZE 1000", "8BITMIME", "DSN"];
    let one = sink("one.test", Script::good().capabilities(many));
    let two = sink("two.test", Script::good().capabilities(few));
    let balancer = Balancer::start(smtp(&[&one, &two]));
    let own = ["lb.test", "PIPELINING", "SIZE", "LIMITS RCPTMAX=1000"];
    assert_eq!(offered(&balancer).await, own, "unknown at first");
    announces(&balancer.backend("b0"), &many);
    announces(&balancer.backend("b1"), &few);
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
            announces(&backend, &["SIZE 1000"]);
        }
    }
}

#[tokio::test]
async fn a_sticky_session_stays_where_it_is() {
    let one = good("one.test");
    let two = good("two.test");
    let mut config = smtp(&[&one, &two]);
    pool(&mut config).balance = Balance::RoundRobin;
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

/// A quota is a limit like any other: the rest goes to others, and then it waits or is put off.
#[tokio::test]
async fn what_a_provider_does_not_allow_goes_to_another() {
    let one = good("one.test");
    let two = good("two.test");
    let mut config = smtp(&[&one, &two]);
    let pool = pool(&mut config);
    pool.queue_timeout = Duration::from_secs(1);
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
    client.ask(MAIL, "250").await;
    client.ask("RSET", "250").await;
    for _ in 0..5 {
        client.send_message(BODY).await;
    }
    client.ask(MAIL, "451 4.3.2").await;
    quit(client).await;
    assert_eq!((one.counts().messages, two.counts().messages), (2, 3));
}
