//! What the line of a session tells: what we refused it, what it was tried on, when it was.

use std::time::Duration;

use posthouse::lab::{At, Script};
use posthouse::metrics::SessionOutcome;
use posthouse::smtp::OwnReply;
use posthouse::types::Networks;
use serde_json::{Value, json};

use crate::harness::{listener, listeners_sum, pool};
use crate::mail_evidence::{Told, sink};

const BODY: &str = "Subject: x\r\n\r\nbody\r\n";

/// How often a reply of ours was counted.
fn counted(told: &Told, reply: OwnReply) -> u64 {
    listeners_sum(&told.balancer.shared, |of| {
        of.refusals[reply.index()].value()
    })
}

/// The commands and codes of the refusals that a session's line tells.
fn refusals(line: &Value) -> Vec<(&str, u64)> {
    let refusals = line["refusals"].as_array().expect("there are some");
    let pairs = refusals.iter().map(|refusal| {
        let command = refusal["command"].as_str().expect("a command");
        (command, refusal["code"].as_u64().expect("a code"))
    });
    pairs.collect()
}

#[tokio::test]
async fn a_session_whose_only_mail_we_refused_says_why_and_is_not_completed() {
    let backend = sink(Script::good());
    let told = Told::start(&[&backend], |_| {});
    let mut client = told.client().await;
    client.ask("MAIL FROM:<raid @example.com>", "501").await;
    client.ask("QUIT", "221").await;
    let line = &told.sessions(1).await[0];
    assert_eq!(line["outcome"], "refused-by-us");
    assert_eq!(line["ended_by"], "client");
    assert_eq!(line["refused"], 1);
    let refusal = json!({
        "command": "mail",
        "code": 501,
        "text": "5.1.7 bad sender address syntax",
    });
    assert_eq!(line["refusals"], json!([refusal]));
    assert_eq!(line["attempts"], 0);
    assert_eq!(counted(&told, OwnReply::BAD_SENDER), 1);
    assert_eq!(told.balancer.ended(SessionOutcome::RefusedByUs), 1);
}

#[tokio::test]
async fn a_session_that_delivered_a_message_is_completed_and_tells_its_refusals() {
    let backend = sink(Script::good());
    let told = Told::start(&[&backend], |_| {});
    let mut client = told.client().await;
    for _ in 0..4 {
        client.ask("DATA", "503").await;
    }
    client.ask("AGpvZQBodW50ZXIy", "500").await;
    client.send_message(BODY).await;
    client.ask("QUIT", "221").await;
    let line = &told.sessions(1).await[0];
    assert_eq!(line["outcome"], "completed");
    assert_eq!(line["refused"], 5, "all are counted");
    let last = [("data", 503), ("data", 503), ("unknown", 500)];
    assert_eq!(refusals(line), last, "the last three are told");
    assert!(!line.to_string().contains("AGpv"), "it may be a password");
    assert_eq!(counted(&told, OwnReply::BAD_SEQUENCE), 4);
}

#[tokio::test]
async fn what_a_backend_refuses_is_no_refusal_of_ours() {
    let backend = sink(Script::good().reply(At::Rcpt, "550 5.1.1 no such user"));
    let told = Told::start(&[&backend], |_| {});
    let mut client = told.client().await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "550 5.1.1").await;
    client.ask("QUIT", "221").await;
    let line = &told.sessions(1).await[0];
    assert_eq!(line["outcome"], "completed");
    assert_eq!(line["refused"], Value::Null);
    assert_eq!(line["refusals"], Value::Null);
}

#[tokio::test]
async fn a_transaction_without_a_backend_is_told_in_the_operator_s_words() {
    let backend = sink(Script::good().close_at(At::Greeting));
    let told = Told::start(&[&backend], |config| {
        pool(config).max_attempts = 1;
        let words = &mut listener(config).smtp.replies;
        words.put(OwnReply::NO_BACKEND_ANSWERED, "451 4.4.1 come back".into());
    });
    let mut client = told.client().await;
    client
        .ask("MAIL FROM:<a@example.org>", "451 4.4.1 come back")
        .await;
    client.ask("QUIT", "221").await;
    let line = &told.sessions(1).await[0];
    assert_eq!(line["outcome"], "refused-by-us");
    assert_eq!(line["refusals"][0]["text"], "4.4.1 come back");
    assert_eq!(counted(&told, OwnReply::NO_BACKEND_ANSWERED), 1);
}

#[tokio::test]
async fn a_timeout_names_the_command_before_it() {
    let backend = sink(Script::good());
    let told = Told::start(&[&backend], |config| {
        listener(config).smtp.command_timeout = Duration::from_millis(100);
    });
    let mut client = told.client().await;
    client.expect("421 4.4.2").await;
    let line = &told.sessions(1).await[0];
    assert_eq!(line["outcome"], "idle-timeout");
    assert_eq!(refusals(line), [("ehlo", 421)]);
    assert_eq!(counted(&told, OwnReply::TIMEOUT), 1);
}

#[tokio::test]
async fn a_denied_client_s_line_tells_every_refusal() {
    let backend = sink(Script::good());
    let told = Told::start(&[&backend], |config| {
        let everybody = "127.0.0.0/8".parse().expect("a network");
        listener(config).deny = Networks::new(vec![everybody]);
    });
    let mut client = crate::harness::client::Client::connect(told.balancer.address).await;
    client.expect("554 5.7.1 lb.test access denied").await;
    client.ask("EHLO client.test", "503").await;
    client.ask("QUIT", "221").await;
    let line = &told.sessions(1).await[0];
    assert_eq!(line["outcome"], "denied");
    assert_eq!(line["refused"], 2);
    assert_eq!(refusals(line), [("connect", 554), ("ehlo", 503)]);
    assert_eq!(line["refusals"][0]["text"], "5.7.1 lb.test access denied");
    assert_eq!(counted(&told, OwnReply::DENIED), 1);
    assert_eq!(counted(&told, OwnReply::ACCESS_DENIED), 1);
}

#[tokio::test]
async fn the_attempts_of_a_session_are_those_of_all_its_transactions() {
    let bad = sink(Script::good().close_at(At::Mail));
    let good = sink(Script::good());
    let told = Told::start(&[&bad, &good], |_| {});
    let mut client = told.client().await;
    client.send_message(BODY).await;
    client.send_message(BODY).await;
    client.ask("QUIT", "221").await;
    let session = &told.sessions(1).await[0];
    let transactions = told.transactions(2).await;
    let attempts = |line: &Value| line["attempts"].as_u64().expect("a count");
    let of_each: Vec<_> = transactions.iter().map(attempts).collect();
    assert_eq!(of_each[0], 2, "the first failed over: {transactions:?}");
    assert!(of_each[1] > 0, "a kept connection counts");
    assert_eq!(attempts(session), of_each.iter().sum::<u64>());
}

/// Microseconds of the day, of a line's time.
fn time_of_day(line: &Value) -> f64 {
    let time = line["time"].as_str().expect("a time");
    let part = |range: std::ops::Range<usize>| time[range].parse::<f64>().expect("digits");
    (part(11..13) * 3_600.0 + part(14..16) * 60.0 + part(17..26)) * 1e6
}

#[tokio::test]
async fn ids_sort_in_the_order_in_which_the_sessions_of_all_workers_began() {
    let backend = sink(Script::good());
    let told = Told::with_workers(&[&backend], 2, |_| {});
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(told.client().await);
    }
    // They end in another order than they began.
    while !clients.is_empty() {
        let mut client = clients.swap_remove(clients.len() / 2);
        client.ask("QUIT", "221").await;
    }
    let lines = told.sessions(40).await;
    let mut begun: Vec<_> = lines
        .iter()
        .map(|line| {
            let id = line["session.id"].as_str().expect("a text");
            let lasted = line["session_ms"].as_f64().expect("a number") * 1e3;
            (id, time_of_day(line) - lasted)
        })
        .collect();
    begun.sort_unstable_by_key(|(id, _)| *id);
    for pair in begun.windows(2) {
        let [(id, one), (next, other)] = pair else {
            continue;
        };
        // Both times are whole microseconds.
        assert!(
            *one <= *other + 2.0 || *other < 1e6,
            "{id} {next}: {pair:?}"
        );
    }
    begun.dedup_by_key(|(id, _)| *id);
    assert_eq!(begun.len(), 40, "each has an id of its own");
}
