//! The page is read by a checker that knows only the format.

use std::time::Duration;

use super::*;
use crate::balance::{FailureKind, KeptClosed, MoveCause, Stage};
use crate::metrics::sample::*;
use crate::metrics::{SessionOutcome, TransactionOutcome};
use crate::types::Histogram;

#[path = "../../../tests/it/prometheus.rs"]
mod prometheus;

fn totals(durations: &[u64]) -> HistogramTotals {
    let histogram = Histogram::default();
    for micros in durations {
        histogram.observe(Duration::from_micros(*micros));
    }
    let mut totals = HistogramTotals::default();
    histogram.add_to(&mut totals);
    totals
}

fn backend(number: usize) -> BackendSample {
    BackendSample {
        pool: "mx".to_owned(),
        backend: format!("mx{number}"),
        address: format!("10.0.{}.{}:25", number / 256, number % 256),
        state: "up",
        weight: 1.5,
        attempts: 3,
        sessions: 2,
        strikes: vec![(Stage::Greeting, FailureKind::Temporary, 1)],
        greetings: (2, 0.25),
        probe: Some(ProbeSample {
            good: true,
            seconds: 0.0125,
            certificate_days: Some(2),
        }),
        ..BackendSample::default()
    }
}

fn mail() -> MailSample {
    let mut outcomes = [0; TransactionOutcome::ALL.len()];
    outcomes[TransactionOutcome::InDoubt.index()] = 3;
    MailSample {
        outcomes,
        recipients: (5, 6),
        octets: 4096,
        mail: totals(&[100]),
        reply: totals(&[2_000]),
        transaction: totals(&[3_000_000]),
    }
}

fn backend_mail() -> BackendMailSample {
    BackendMailSample {
        idle: 4,
        transactions: 9,
        accepted: 8,
        in_doubt: 1,
        connections: (2, 7),
        closed: vec![(KeptClosed::Age, 11)],
        moves: vec![(MoveCause::Desync, 12)],
    }
}

fn scrape(backends: usize) -> Scrape {
    let mut outcomes = [0; SessionOutcome::ALL.len()];
    outcomes[SessionOutcome::Refused.index()] = 4;
    Scrape {
        process: ProcessSample {
            ready: true,
            descriptors: Some(20),
            started_at: 1_763_776_547.25,
            last_reload: Some((1_763_776_600, false)),
            reloads: (5, 1),
            ..ProcessSample::default()
        },
        listeners: vec![
            ListenerSample {
                name: "mx".to_owned(),
                accepted: 9,
                outcomes,
                octets: Directions {
                    to_backend: 10,
                    to_client: 20,
                },
                refusals: vec![("mail_syntax", 3)],
                greeting: totals(&[50, 100, 101, 2_000_000_000]),
                ..ListenerSample::default()
            },
            ListenerSample {
                name: "submission".to_owned(),
                mail: Some(Box::new(mail())),
                ..ListenerSample::default()
            },
            ListenerSample {
                name: "odd \"name\"\\\n".to_owned(),
                ..ListenerSample::default()
            },
        ],
        pools: vec![PoolSample {
            name: "mx".to_owned(),
            waiting: 7,
            quotas: vec![QuotaSample {
                backend: "provider".to_owned(),
                unit: "recipients",
                window: "24h".to_owned(),
                used: 19_000,
                limit: 20_000,
            }],
            open_tier: 2,
            ..PoolSample::default()
        }],
        backends: (0..backends).map(backend).collect(),
        workers: vec![WorkerSample {
            name: "0".to_owned(),
            heartbeat_age: 0.05,
            not_replayable: (1, 2),
            ..WorkerSample::default()
        }],
    }
}

fn page(scrape: Scrape) -> String {
    let octets: Vec<u8> = Exposition::new(scrape).flatten().collect();
    String::from_utf8(octets).expect("UTF-8")
}

#[test]
fn the_page_obeys_the_format_and_says_the_numbers() {
    let series = prometheus::check(&page(scrape(2))).expect("a valid page");
    for (key, value) in [
        ("posthouse_ready{}", 1.0),
        ("posthouse_reloads_total{result=failed}", 1.0),
        ("posthouse_config_last_reload_successful{}", 0.0),
        ("process_open_fds{}", 20.0),
        ("process_start_time_seconds{}", 1_763_776_547.25),
        ("posthouse_sessions_total{listener=mx,outcome=refused}", 4.0),
        (
            "posthouse_backend_quota_used{pool=mx,backend=provider,unit=recipients,window=24h}",
            19_000.0,
        ),
        (
            "posthouse_backend_quota_limit{pool=mx,backend=provider,unit=recipients,window=24h}",
            20_000.0,
        ),
        (
            "posthouse_refusals_total{listener=mx,reply=mail_syntax}",
            3.0,
        ),
        (
            "posthouse_sessions_total{listener=mx,outcome=completed}",
            0.0,
        ),
        (
            "posthouse_listener_bytes_total{listener=mx,direction=to_client}",
            20.0,
        ),
        (
            "posthouse_listener_accepted_total{listener=odd \"name\"\\\n}",
            0.0,
        ),
        (
            "posthouse_greeting_seconds_bucket{listener=mx,le=0.0001}",
            2.0,
        ),
        (
            "posthouse_greeting_seconds_bucket{listener=mx,le=0.00025}",
            3.0,
        ),
        (
            "posthouse_greeting_seconds_bucket{listener=mx,le=1000}",
            3.0,
        ),
        ("posthouse_greeting_seconds_count{listener=mx}", 4.0),
        ("posthouse_greeting_seconds_sum{listener=mx}", 2_000.000_251),
        ("posthouse_pool_queue_waiting{pool=mx}", 7.0),
        (
            "posthouse_backend_state{pool=mx,backend=mx1,address=10.0.0.1:25,state=up}",
            1.0,
        ),
        (
            "posthouse_backend_state{pool=mx,backend=mx1,address=10.0.0.1:25,state=down}",
            0.0,
        ),
        (
            "posthouse_backend_strikes_total{pool=mx,backend=mx0,address=10.0.0.0:25,stage=greeting,kind=temporary}",
            1.0,
        ),
        (
            "posthouse_backend_greeting_seconds_sum{pool=mx,backend=mx0,address=10.0.0.0:25}",
            0.25,
        ),
        (
            "posthouse_backend_certificate_remaining_seconds{pool=mx,backend=mx0,address=10.0.0.0:25}",
            172_800.0,
        ),
        ("posthouse_worker_heartbeat_age_seconds{worker=0}", 0.05),
    ] {
        assert_eq!(series.get(key), Some(&value), "{key}");
    }
}

#[test]
fn mail_is_counted_where_it_is_and_said_nowhere_else() {
    let mut scrape = scrape(2);
    scrape.process.replay_memory = Some((77, 88));
    scrape.backends[1].mail = Some(Box::new(backend_mail()));
    let page = page(scrape);
    let series = prometheus::check(&page).expect("a valid page");
    let backend = "pool=mx,backend=mx1,address=10.0.0.1:25";
    for (key, value) in [
        ("posthouse_replay_memory_bytes{}", 77),
        ("posthouse_replay_memory_limit_bytes{}", 88),
        (
            "posthouse_transactions_total{listener=submission,outcome=in-doubt}",
            3,
        ),
        (
            "posthouse_transactions_total{listener=submission,outcome=accepted}",
            0,
        ),
        (
            "posthouse_recipients_total{listener=submission,result=accepted}",
            5,
        ),
        (
            "posthouse_recipients_total{listener=submission,result=refused}",
            6,
        ),
        ("posthouse_message_bytes_total{listener=submission}", 4096),
        (
            "posthouse_transaction_mail_seconds_bucket{listener=submission,le=0.0001}",
            1,
        ),
        (
            "posthouse_transaction_reply_seconds_bucket{listener=submission,le=0.001}",
            0,
        ),
        ("posthouse_transaction_seconds_sum{listener=submission}", 3),
        (
            "posthouse_worker_not_replayable_total{worker=0,cause=message-limit}",
            1,
        ),
        (
            "posthouse_worker_not_replayable_total{worker=0,cause=memory}",
            2,
        ),
    ] {
        assert_eq!(series.get(key), Some(&f64::from(value)), "{key}");
    }
    for (name, more, value) in [
        ("transactions_total", "", 9),
        ("messages_total", "", 8),
        ("in_doubt_total", "", 1),
        ("moves_total", ",cause=desync", 12),
        ("kept_idle", "", 4),
        ("mail_connections_total", ",connection=dialled", 2),
        ("mail_connections_total", ",connection=kept", 7),
        ("kept_closed_total", ",cause=age", 11),
    ] {
        let key = format!("posthouse_backend_{name}{{{backend}{more}}}");
        assert_eq!(series.get(&key), Some(&f64::from(value)), "{key}");
    }
    for key in series.keys().filter(|key| key.contains("listener=mx")) {
        let of_mail = ["transaction", "recipients", "message_bytes"];
        assert!(!of_mail.iter().any(|word| key.contains(word)), "{key}");
    }
    assert_eq!(
        page.matches("backend=\"mx0\"").count() + 8,
        page.matches("backend=\"mx1\"").count()
    );
}

#[test]
fn ten_thousand_backends_stay_in_bounded_chunks_and_linear() {
    let size = |backends| -> usize { Exposition::new(scrape(backends)).map(|c| c.len()).sum() };
    let most = Exposition::new(scrape(10_000))
        .map(|chunk| chunk.len())
        .max();
    assert!(most.expect("chunks") < CHUNK_OCTETS + CHUNK_OCTETS / 4);
    // Names and addresses grow by a few digits, nothing else does.
    let by_backend = (size(10_000) - size(0)) / 10_000;
    assert!(by_backend < 2500, "{by_backend}");
    prometheus::check(&page(scrape(10_000))).expect("a valid page");
}

#[test]
fn every_metric_has_a_help_that_is_a_sentence() {
    for (name, kind, help) in catalogue() {
        assert!(
            help.ends_with('.') && !help.contains('\n'),
            "{name}: {help}"
        );
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let head = "# HELP a_total A.\n# TYPE a_total counter\n";
    for (wrong, why) in [
        ("a_total 1\n".to_owned(), "no family"),
        (format!("{head}a_total 1\na_total 2\n"), "duplicate"),
        (format!("{head}a_total{{x=\"1}} 1\n"), "label value"),
        (format!("{head}a_total x\n"), "no number"),
        (format!("{head}a_total 1"), "line feed"),
        (
            "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\n\
             h_sum 1\nh_count 1\n"
                .to_owned(),
            "rise",
        ),
        (
            "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n"
                .to_owned(),
            "count",
        ),
    ] {
        let error = prometheus::check(&wrong).expect_err("it is wrong");
        assert!(error.contains(why), "{error}");
    }
}
