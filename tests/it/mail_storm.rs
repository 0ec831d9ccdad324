//! Backends that fail at every instant, one after the other and all together, under load: promises
//! 1, 2 and 4 on the real driver.
//!
//! Every message has a name. At the end each one that was acknowledged is in exactly one backend;
//! one that was answered 451 for doubt is in at most one; any other is in none. `SEED=` replays the
//! order of faults (not of the threads).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use posthouse::config::model::Mode;
use posthouse::lab::{At, Script, Sink, SinkHandle, SinkPlan};
use posthouse::types::Rng;

use crate::harness::client::{Client, MAIL, RCPT};
use crate::harness::{Balancer, config, listener, pool};

const CLIENTS: u64 = 12;
const MESSAGES: u64 = 150;

fn script(rng: &mut Rng) -> Script {
    let points = [
        At::Connect,
        At::Greeting,
        At::Ehlo,
        At::Mail,
        At::Rcpt,
        At::Data,
        At::MidData,
        At::Dot,
        At::Taken,
    ];
    let at = points[rng.below(points.len() as u32) as usize];
    // A backend that takes a message and refuses it then has taken it twice.
    let no_reply = matches!(at, At::Connect | At::MidData | At::Taken);
    let script = match rng.below(6) {
        0 | 1 => Script::good(),
        2 => Script::good().close_at(at),
        3 => Script::good().reset_at(at),
        4 if !no_reply => Script::good().reply(at, "421 4.3.2 closing"),
        5 if !no_reply => Script::good().reply(at, "452 4.3.1 full"),
        _ => Script::good().no_pipelining(),
    };
    script.after_mails(rng.below(3))
}

/// What each message was answered at its end, or when it was refused.
async fn send(address: std::net::SocketAddr, number: u64) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    let mut client = Client::introduced(address).await;
    for message in 0..MESSAGES {
        let name = format!("{number}-{message}");
        let answer = one(&mut client, &name, message).await;
        answers.insert(name, answer);
    }
    client.ask("QUIT", "221").await;
    answers
}

async fn one(client: &mut Client, name: &str, message: u64) -> String {
    let body = format!("Subject: {name}\r\n\r\n{}\r\n.\r\n", "x".repeat(70));
    if message.is_multiple_of(2) {
        client.say(format!("{MAIL}\r\n{RCPT}\r\nDATA\r\n")).await;
        let replies = [
            client.reply().await,
            client.reply().await,
            client.reply().await,
        ];
        if !replies[2].starts_with("354") {
            client.ask("RSET", "250").await;
            return format!("refused: {}", replies.join(" "));
        }
    } else {
        for command in [MAIL, RCPT, "DATA"] {
            client.say(format!("{command}\r\n")).await;
            let reply = client.reply().await;
            if !reply.starts_with(['2', '3']) {
                client.ask("RSET", "250").await;
                return format!("refused: {reply}");
            }
        }
    }
    client.say(body).await;
    client.reply().await
}

fn sink(name: &str) -> SinkHandle {
    let mut plan = SinkPlan::with(Script::good()).named(name);
    plan.keep_records = (CLIENTS * MESSAGES) as usize;
    Sink::spawn_thread(plan).expect("loopback has a port")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_message_is_in_exactly_one_backend_m1_m2() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let sinks = Arc::new([sink("one.test"), sink("two.test"), sink("three.test")]);
    let addresses: Vec<_> = sinks.iter().map(SinkHandle::address).collect();
    let mut config = config(&addresses);
    listener(&mut config).mode = Mode::Smtp;
    let pool = pool(&mut config);
    pool.balance = posthouse::config::model::Balance::LeastConnections;
    pool.eject.strikes = 0;
    pool.eject.min_attempts = u16::MAX;
    let balancer = Balancer::with_workers(config, 2);
    let over = Arc::new(AtomicBool::new(false));
    let storm = {
        let (sinks, over) = (Arc::clone(&sinks), Arc::clone(&over));
        tokio::spawn(async move {
            let mut rng = Rng::seeded(seed);
            while !over.load(Ordering::Relaxed) {
                let at = rng.below(3) as usize;
                sinks[at].script(script(&mut rng));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(send(balancer.address, number)))
        .collect();
    let mut answers = BTreeMap::new();
    for client in clients {
        answers.extend(client.await.expect("no client fails"));
    }
    over.store(true, Ordering::Relaxed);
    storm.await.expect("the storm ends");
    let mut copies: BTreeMap<String, u64> = BTreeMap::new();
    for message in sinks.iter().flat_map(SinkHandle::messages) {
        let name = message.subject.expect("each message has its name");
        *copies.entry(name).or_default() += 1;
    }
    let mut acknowledged = 0;
    for (name, answer) in &answers {
        let count = copies.get(name).copied().unwrap_or(0);
        if answer.starts_with("250") {
            acknowledged += 1;
            assert_eq!(count, 1, "{name}: {answer}");
        } else {
            assert!(answer.contains('4'), "{name}: {answer}");
            let may_be_there = u64::from(answer.starts_with("451 4.4.2"));
            assert!(count <= may_be_there, "{name}: {answer}, {count} copies");
        }
    }
    assert!(acknowledged * 2 > CLIENTS * MESSAGES, "{acknowledged}");
    balancer.wait_until_no_session().await;
}
