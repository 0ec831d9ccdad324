//! What the log and the counts tell of transactions, each with what really happened.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthouse::config::Config;
use posthouse::config::model::{Balance, Log, LogFormat, Mode};
use posthouse::lab::{At, Script, Sink, SinkHandle, SinkPlan};
use posthouse::metrics::TransactionOutcome;
use posthouse::telemetry;
use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::{Balancer, config, eventually, listener, pool};

const BODY: &str = "Subject: x\r\n\r\nbody\r\n";

pub(crate) fn sink(script: Script) -> SinkHandle {
    Sink::start(SinkPlan::with(script)).expect("loopback has a port")
}

/// A balancer whose log can be read.
pub(crate) struct Told {
    pub(crate) balancer: Balancer,
    log: Lines,
}

/// A log that can be read.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("UTF-8")
    }
}

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Told {
    pub(crate) fn start(backends: &[&SinkHandle], change: impl FnOnce(&mut Config)) -> Self {
        Self::with_workers(backends, 1, change)
    }

    pub(crate) fn with_workers(
        backends: &[&SinkHandle],
        count: u8,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let addresses: Vec<_> = backends.iter().map(|sink| sink.address()).collect();
        let mut config = config(&addresses);
        listener(&mut config).mode = Mode::Smtp;
        pool(&mut config).balance = Balance::First;
        change(&mut config);
        let settings = Log {
            format: LogFormat::Json,
            transactions: true,
            ..Log::default()
        };
        let log = Lines::default();
        let telemetry = telemetry::to_sink(settings, Box::new(log.clone()));
        let balancer = Balancer::with(config, count, telemetry);
        Self { balancer, log }
    }

    pub(crate) async fn client(&self) -> Client {
        let mut client = Client::connect(self.balancer.address).await;
        client.expect("220").await;
        client.ask("EHLO client.test", "250").await;
        client
    }

    /// The lines of transactions, once there are so many.
    pub(crate) async fn transactions(&self, count: usize) -> Vec<Value> {
        self.lines("transaction.end", count).await
    }

    /// The lines of sessions, once there are so many.
    pub(crate) async fn sessions(&self, count: usize) -> Vec<Value> {
        self.lines("session.end", count).await
    }

    /// The lines of one event, once there are so many.
    async fn lines(&self, event: &str, count: usize) -> Vec<Value> {
        let lines = || -> Vec<Value> {
            let text = self.log.0.lock().unwrap().clone();
            let lines = text.split_inclusive(|&octet| octet == b'\n');
            let whole = lines.filter(|line| line.ends_with(b"\n"));
            whole
                .map(|line| serde_json::from_slice(line).expect("a line is JSON"))
                .filter(|line: &Value| line["event"] == event)
                .collect()
        };
        eventually("the lines", || lines().len() >= count).await;
        lines()
    }

    /// Messages in doubt at each backend.
    fn in_doubt(&self) -> Vec<u64> {
        let snapshot = self.balancer.shared.current.load();
        let pool = snapshot.pool_named("mx").expect("the pool");
        let members = pool.pool.members().iter();
        let of = |totals: &posthouse::balance::BackendTotals| totals.mail.in_doubt.value();
        members
            .map(|member| member.settings.state.totals.sum(of))
            .collect()
    }
}

async fn up_to_data(client: &mut Client) {
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("DATA", "354").await;
}

#[tokio::test]
async fn the_stage_at_which_a_backend_failed_is_told() {
    for (at, stage, outcome) in [
        (At::Mail, "mail", "accepted"),
        (At::Rcpt, "rcpt", "accepted"),
        (At::Data, "data", "accepted"),
        (At::MidData, "content", "accepted"),
        (At::Dot, "end-of-data", "in-doubt"),
    ] {
        let bad = sink(Script::good().close_at(at));
        let good = sink(Script::good());
        let told = Told::start(&[&bad, &good], |_| {});
        let mut client = told.client().await;
        up_to_data(&mut client).await;
        client.say(BODY).await;
        if at == At::MidData {
            // Behind the last octet of the message it would be in doubt.
            let moved = good.wait_for(|counts| counts.connections == 1);
            moved.await.expect("the failure is noticed");
        }
        client.say(".\r\n").await;
        client
            .expect(if outcome == "accepted" { "250" } else { "451" })
            .await;
        let lines = told.transactions(1).await;
        assert_eq!(lines[0]["outcome"], outcome, "{at:?}");
        assert_eq!(lines[0]["failures"][0]["stage"], stage, "{at:?}: {lines:?}");
    }
}

#[tokio::test]
async fn an_acceptance_that_breaks_off_is_told_with_what_came_f1_row_6() {
    let backend = sink(Script::good().torn_at(At::Dot, "250-2.0.0 queued as 4F"));
    let told = Told::start(&[&backend], |_| {});
    let mut client = told.client().await;
    up_to_data(&mut client).await;
    client.say(format!("{BODY}.\r\n")).await;
    client.expect("250 2.0.0 queued as 4F").await;
    let lines = told.transactions(1).await;
    assert_eq!(lines[0]["outcome"], "accepted");
    assert_eq!(lines[0]["reply_truncated"], true, "{lines:?}");
}

#[tokio::test]
async fn a_message_that_was_sent_again_in_doubt_is_told_with_the_backend_that_may_have_it_f7() {
    for (second, outcome) in [
        (Script::good(), "accepted"),
        (Script::good().reply(At::Dot, "550 5.7.1 no"), "in-doubt"),
    ] {
        let (bad, other) = (sink(Script::good().close_at(At::Dot)), sink(second));
        let told = Told::start(&[&bad, &other], |config| {
            listener(config).smtp.replay_in_doubt = true;
        });
        let mut client = told.client().await;
        up_to_data(&mut client).await;
        client.say(format!("{BODY}.\r\n")).await;
        client
            .expect(if outcome == "accepted" {
                "250"
            } else {
                "451 4.4.2"
            })
            .await;
        let lines = told.transactions(1).await;
        assert_eq!(lines[0]["outcome"], outcome);
        assert_eq!(lines[0]["in_doubt_at"], "b0", "{lines:?}");
        for digest in ["envelope", "body"] {
            assert_eq!(lines[0][digest].as_str().map(str::len), Some(32));
        }
        assert_eq!(told.in_doubt(), [1, 0]);
    }
}

#[tokio::test]
async fn what_we_refuse_of_chunks_is_told_as_ours() {
    let backend = sink(Script::good().capabilities(["PIPELINING", "CHUNKING"]));
    let told = Told::start(&[&backend], |config| {
        listener(config).smtp.max_message_size = 1_000;
    });
    for (length, next) in [(1_500, "250"), (10_000_000, "end")] {
        let mut client = told.client().await;
        // What a backend announces is known once one has been dialled.
        client.send_message(BODY).await;
        client.ask("EHLO client.test", "250").await;
        client.ask("MAIL FROM:<a@example.org>", "250").await;
        client.ask("RCPT TO:<b@example.net>", "250").await;
        let octets = if next == "end" { 0 } else { length };
        client
            .say(format!("BDAT {length} LAST\r\n{}", "x".repeat(octets)))
            .await;
        client.expect("552 5.3.4").await;
    }
    let lines = told.transactions(4).await;
    let refused = lines.iter().filter(|line| line["outcome"] != "accepted");
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 2);
    for line in refused {
        assert_eq!(line["outcome"], "refused-by-us", "{line}");
        assert!(line["reply"].as_str().is_some_and(|r| r.starts_with("552")));
    }
}

#[tokio::test]
async fn a_refusal_stays_one_though_the_client_leaves_at_once() {
    let backend = sink(Script::good().reply(At::Data, "451 4.7.1 not now"));
    let told = Told::start(&[&backend], |config| {
        listener(config).smtp.buffer_first = true;
    });
    let mut client = told.client().await;
    up_to_data(&mut client).await;
    client.say(format!("{BODY}.\r\nQUIT\r\n")).await;
    client.expect("451 4.7.1").await;
    client.expect("221").await;
    let lines = told.transactions(1).await;
    assert_eq!(lines[0]["outcome"], TransactionOutcome::Refused.name());
}

#[tokio::test]
async fn octets_are_counted_at_the_backend_that_had_them() {
    let (one, two) = (sink(Script::good()), sink(Script::good()));
    let told = Told::start(&[&one, &two], |config| {
        pool(config).balance = Balance::RoundRobin;
        pool(config).smtp.idle_timeout = Duration::from_mins(1);
    });
    let mut client = told.client().await;
    for _ in 0..6 {
        client.send_message(BODY).await;
    }
    assert_eq!((one.counts().messages, two.counts().messages), (3, 3));
    told.transactions(6).await;
    let snapshot = told.balancer.shared.current.load();
    let pool = snapshot.pool_named("mx").expect("the pool");
    for member in pool.pool.members() {
        let totals = &member.settings.state.totals;
        let octets = totals.sum(|t| t.octets_to_backend.value());
        let least = 3 * BODY.len() as u64;
        assert!((least..3 * least + 300).contains(&octets), "{octets}");
        assert!(totals.sum(|t| t.octets_to_client.value()) > 0);
        assert_eq!(totals.sum(|t| t.sessions.value()), 1, "one connection");
    }
}
