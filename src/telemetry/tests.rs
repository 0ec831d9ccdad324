//! Telemetry as its users see it: what comes out at the other end.

use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};

use super::*;
use crate::balance::{
    AdminState, Cause, FailureKind, HealthState, PoolEvent, Quota, QuotaLevel, QuotaUnit, QuotaUse,
    Stage, StateChange,
};
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase, TransactionOutcome};
use crate::smtp::HelloName;
use crate::types::SessionId;
use tracing_subscriber::layer::SubscriberExt;

/// Long enough for a loaded machine; no test waits for it to pass.
const LIMIT: Duration = Duration::from_secs(20);

/// An output that can be read afterwards.
#[derive(Clone, Default)]
pub(super) struct Kept(pub(super) Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }
}

impl Write for Kept {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe nobody reads: blocks until the test lets it go.
struct Stuck(mpsc::Receiver<()>, Kept);

impl Write for Stuck {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(octets)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells the test of each write.
struct Told(mpsc::Sender<String>);

impl Write for Told {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(octets).into_owned());
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(format: LogFormat) -> Log {
    Log {
        format,
        ..Log::default()
    }
}

fn kept(log: Log) -> (Telemetry, Kept) {
    let kept = Kept::default();
    (to_sink(log, Box::new(kept.clone())), kept)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn attempts() -> Vec<AttemptRecord> {
    vec![
        AttemptRecord {
            backend: Arc::from("mx1"),
            stage: Stage::Connect,
            kind: FailureKind::Refused,
            code: None,
            after: Duration::from_micros(301),
        },
        AttemptRecord {
            backend: Arc::from("mx2"),
            stage: Stage::Greeting,
            kind: FailureKind::Temporary,
            code: Some(421),
            after: Duration::from_millis(12),
        },
    ]
}

fn record(failures: &[AttemptRecord], outcome: SessionOutcome) -> SessionRecord<'_> {
    SessionRecord {
        at: Instant::now(),
        id: SessionId(0x0100_0000_0000_002a),
        listener: "mx",
        client: address("[2001:db8::7]:4242"),
        via: Some(address("192.0.2.1:99")),
        backend: Some(("pool", "mx3", address("10.0.0.13:25"))),
        attempts: 3,
        failures,
        hedged: true,
        queue: Some(Duration::from_millis(2)),
        connect: Some(Duration::from_micros(400)),
        greeting: Some(Duration::from_micros(15_001)),
        session: Duration::from_micros(1_234_567),
        octets_to_backend: 10_240,
        octets_to_client: 512,
        ended_by: EndedBy::Client,
        phase: SessionPhase::Relay,
        outcome,
        reply: Some("421 4.3.2 mx.example \"busy\"\r\n"),
        refused: 0,
        refusals: &[],
    }
}

#[test]
fn a_session_line_says_everything_in_text() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let failures = attempts();
    let mut worker = telemetry.worker_log(Instant::now);
    worker.session(&record(&failures, SessionOutcome::Completed));
    worker.flush();
    telemetry.flush(LIMIT);
    let text = kept.text();
    assert_eq!(
        &text[27..],
        " info session.end session.id=010000000000002a listener=mx \
         client.addr=[2001:db8::7]:4242 via.addr=192.0.2.1:99 pool=pool backend=mx3 \
         backend.addr=10.0.0.13:25 outcome=completed ended_by=client phase=relay attempts=3 \
         failures=mx1/connect/refused/0.301,mx2/greeting/temporary/421/12.000 hedged=true \
         queue_ms=2.000 connect_ms=0.400 greeting_ms=15.001 session_ms=1234.567 \
         octets.to_backend=10240 octets.to_client=512 \
         reply=\"421 4.3.2 mx.example \\\"busy\\\"\"\n"
    );
}

#[test]
fn a_session_line_says_everything_in_json() {
    let (telemetry, kept) = kept(log(LogFormat::Json));
    let failures = attempts();
    let mut worker = telemetry.worker_log(Instant::now);
    worker.session(&record(&failures, SessionOutcome::NoBackend));
    drop(worker);
    telemetry.flush(LIMIT);
    let line: serde_json::Value = serde_json::from_str(&kept.text()).expect("one JSON object");
    assert_eq!(line["event"], "session.end");
    assert_eq!(line["session.id"], "010000000000002a");
    assert_eq!(line["outcome"], "no-backend");
    assert_eq!(line["failures"][0]["backend"], "mx1");
    assert_eq!(line["failures"][0]["code"], serde_json::Value::Null);
    assert_eq!(line["failures"][1]["code"], 421);
    assert_eq!(line["failures"][1]["ms"], 12.0);
    assert_eq!(line["session_ms"], 1234.567);
    assert_eq!(line["hedged"], true);
    assert_eq!(line["reply"], "421 4.3.2 mx.example \"busy\"");
}

#[test]
fn a_session_line_tells_what_we_refused_and_to_which_command() {
    let refusal = |command, code, text: &str| RefusalRecord {
        command,
        code,
        text: text.to_owned(),
    };
    let refusals = [
        refusal("mail", 501, "5.5.4 syntax: MAIL FROM:<address>"),
        refusal("unknown", 500, "5.5.2 \u{1b}[2J; \"what?\""),
        refusal("quit", 421, &"x".repeat(4_000)),
    ];
    let line = |format| {
        let (telemetry, kept) = kept(log(format));
        let mut worker = telemetry.worker_log(Instant::now);
        worker.session(&SessionRecord {
            refused: 7,
            refusals: &refusals,
            ..record(&[], SessionOutcome::RefusedByUs)
        });
        drop(worker);
        telemetry.flush(LIMIT);
        kept.text()
    };
    let text = line(LogFormat::Text);
    let told = " outcome=refused-by-us refused=7 refusals=\"mail 501 5.5.4 syntax: MAIL \
                FROM:<address>; unknown 500 5.5.2 \\u{1b}[2J; \\\"what?\\\"; quit 421 xxx";
    assert!(text.contains(told), "{text}");
    assert!(text.len() < 1_000, "{}", text.len());
    let json: serde_json::Value = serde_json::from_str(&line(LogFormat::Json)).expect("JSON");
    assert_eq!(json["refused"], 7);
    assert_eq!(json["refusals"][0]["command"], "mail");
    assert_eq!(json["refusals"][0]["code"], 501);
    assert_eq!(
        json["refusals"][0]["text"],
        "5.5.4 syntax: MAIL FROM:<address>"
    );
    assert_eq!(json["refusals"][1]["text"], "5.5.2 \u{1b}[2J; \"what?\"");
}

#[test]
fn a_line_bears_the_time_of_what_it_tells_whichever_worker_writes_it_and_when() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let ended = Instant::now();
    let now = ended + Duration::from_millis(1_500);
    let mut workers = [
        telemetry.worker_log(Instant::now),
        telemetry.worker_log(Instant::now),
    ];
    for (worker, at) in [(1, now), (0, ended), (1, ended), (0, now)] {
        let mut record = record(&[], SessionOutcome::Completed);
        record.at = at;
        workers[worker].session(&record);
        workers[worker].flush();
    }
    drop(workers);
    telemetry.flush(LIMIT);
    let text = kept.text();
    let mut stamps: Vec<_> = text.lines().map(|line| &line[..27]).collect();
    stamps.sort_unstable();
    assert_eq!((stamps[0], stamps[2]), (stamps[1], stamps[3]), "{stamps:?}");
    let micros = |stamp: &str| stamp[20..26].parse::<u64>().expect("digits");
    let apart = (micros(stamps[3]) + 1_000_000 - micros(stamps[0])) % 1_000_000;
    assert_eq!(apart, 500_000, "{stamps:?}");
}

#[test]
fn a_thread_s_events_are_told_by_its_clock() {
    fn turn() -> Instant {
        static TURN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *TURN.get_or_init(Instant::now)
    }
    let (telemetry, kept) = kept(log(LogFormat::Text));
    turn();
    std::thread::spawn(move || {
        let mut worker = telemetry.worker_log(turn);
        let event = PoolEvent::TierClosed {
            pool: Arc::from("mx"),
            tier: 2,
        };
        telemetry.pool_event(&event);
        let mut record = record(&[], SessionOutcome::Completed);
        record.at = turn();
        worker.session(&record);
        drop(worker);
        telemetry.flush(LIMIT);
    })
    .join()
    .expect("it ends");
    let text = kept.text();
    let stamps: Vec<_> = text.lines().map(|line| &line[..27]).collect();
    assert_eq!(stamps.len(), 2);
    assert_eq!(stamps[0], stamps[1], "one turn, one time");
}

#[test]
fn a_json_session_id_is_a_string_even_if_it_looks_like_a_number() {
    let (telemetry, kept) = kept(log(LogFormat::Json));
    let mut worker = telemetry.worker_log(Instant::now);
    let mut record = record(&[], SessionOutcome::Completed);
    record.id = SessionId(0x10);
    worker.session(&record);
    drop(worker);
    telemetry.flush(LIMIT);
    assert!(kept.text().contains("\"session.id\":\"0000000000000010\""));
}

#[test]
fn a_reload_changes_format_level_and_sessions() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let mut worker = telemetry.worker_log(Instant::now);
    assert!(worker.wants_sessions());
    telemetry.apply(log(LogFormat::Json));
    worker.session(&record(&[], SessionOutcome::Completed));
    telemetry.apply(Log {
        sessions: false,
        ..log(LogFormat::Json)
    });
    assert!(!worker.wants_sessions());
    worker.session(&record(&[], SessionOutcome::Completed));
    telemetry.apply(Log {
        level: LogLevel::Warn,
        ..log(LogFormat::Json)
    });
    assert!(!worker.wants_sessions());
    drop(worker);
    telemetry.flush(LIMIT);
    assert_eq!(kept.text().lines().count(), 1);
    assert!(kept.text().starts_with('{'));
}

#[test]
fn checks_of_monitors_are_written_at_level_debug_alone() {
    for (level, lines) in [(LogLevel::Info, 1), (LogLevel::Debug, 2)] {
        let text = log(LogFormat::Text);
        let (telemetry, kept) = kept(Log { level, ..text });
        let mut worker = telemetry.worker_log(Instant::now);
        worker.session(&record(&[], SessionOutcome::Monitor));
        worker.session(&record(&[], SessionOutcome::Completed));
        drop(worker);
        telemetry.flush(LIMIT);
        let text = kept.text();
        assert_eq!(text.lines().count(), lines, "{text}");
        assert!(text.contains(" info session.end "));
        assert_eq!(text.contains(" debug session.end "), lines == 2);
    }
}

#[test]
fn a_stuck_pipe_stops_nobody_and_what_is_lost_is_counted() {
    let (let_go, stuck) = mpsc::channel();
    let kept = Kept::default();
    let telemetry = to_sink(log(LogFormat::Text), Box::new(Stuck(stuck, kept.clone())));
    let mut worker = telemetry.worker_log(Instant::now);
    let mut said = 0;
    // Far more than the queue holds: none of these calls may wait.
    while telemetry.drops() == 0 {
        worker.session(&record(&[], SessionOutcome::Completed));
        said += 1;
        assert!(said < 1_000_000, "the queue has no bound");
    }
    let most = (writer::BATCHES_WAITING_MAX + 2) * BATCH_OCTETS_MAX;
    assert!(said * 200 < most, "{said} lines are more than the bound");
    assert_eq!(worker.drops(), telemetry.drops());
    drop(worker);
    let lost = telemetry.drops();
    drop(let_go);
    telemetry.flush(LIMIT);
    telemetry.flush(LIMIT);
    let text = kept.text();
    let written = text.lines().filter(|l| l.contains("session.end")).count() as u64;
    assert_eq!(written + lost, said as u64);
    assert!(
        text.contains(" warn log.dropped lines="),
        "the loss is said"
    );
}

#[test]
fn a_storm_of_one_outcome_is_counted_instead_of_written() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let mut worker = telemetry.worker_log(Instant::now);
    for _ in 0..500 {
        worker.session(&record(&[], SessionOutcome::Denied));
    }
    worker.session(&record(&[], SessionOutcome::Completed));
    let suppressed = worker.suppressed();
    drop(worker);
    telemetry.flush(LIMIT);
    let text = kept.text();
    let written = text
        .lines()
        .filter(|l| l.contains("outcome=denied"))
        .count() as u64;
    assert_eq!(written + suppressed, 500);
    // The test may cross a second's border, not more.
    assert!((50..=100).contains(&written), "{written}");
    assert_eq!(text.matches("outcome=completed").count(), 1);
    let said: u64 = text
        .lines()
        .filter_map(|line| {
            line.split_once("log.suppressed lines=")?
                .1
                .split(' ')
                .next()
        })
        .map(|count| count.parse::<u64>().expect("a count"))
        .sum();
    assert_eq!(said, suppressed);
    assert!(text.contains(" denied="), "by outcome");
}

fn transaction(outcome: TransactionOutcome) -> TransactionRecord<'static> {
    TransactionRecord {
        at: Instant::now(),
        session: SessionId(0x2a),
        number: 1,
        listener: "mx",
        client: address("192.0.2.1:99"),
        helo: HelloName::of("client.example"),
        backend: None,
        attempts: 0,
        failures: &[],
        kept: false,
        replayed: 0,
        size: 0,
        recipients_accepted: 0,
        recipients_refused: 0,
        mail: None,
        body: None,
        reply_after: None,
        transaction: Duration::from_micros(1),
        outcome,
        reason: None,
        reply: None,
        doubted: None,
        unseen: false,
        reply_truncated: false,
        in_doubt: None,
        addresses: None,
    }
}

#[test]
fn the_use_of_a_quota_is_an_event_that_says_of_what() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let event = |level, used| PoolEvent::Quota {
        pool: Arc::from("out"),
        backend: Arc::from("provider"),
        quota: QuotaUse {
            quota: Quota {
                count: 20_000,
                period: Duration::from_hours(24),
                unit: QuotaUnit::Recipients,
            },
            used,
            used_up_for: None,
        },
        level,
    };
    telemetry.pool_event(&event(QuotaLevel::Near, 16_000));
    telemetry.pool_event(&event(QuotaLevel::UsedUp, 20_000));
    telemetry.pool_event(&event(QuotaLevel::Free, 17_900));
    telemetry.flush(LIMIT);
    let text = kept.text();
    let lines: Vec<_> = text.lines().map(|line| &line[27..]).collect();
    let said = |level, state, used| {
        format!(
            " {level} backend.quota pool=out backend=provider state={state} used={used} \
             limit=20000 unit=recipients window=24h"
        )
    };
    assert_eq!(
        lines,
        [
            said("warn", "near", 16_000),
            said("warn", "used-up", 20_000),
            said("info", "free", 17_900)
        ]
    );
}

#[test]
fn a_transaction_line_says_that_a_quota_was_the_reason() {
    let (telemetry, kept) = kept(Log {
        transactions: true,
        ..log(LogFormat::Text)
    });
    let mut worker = telemetry.worker_log(Instant::now);
    worker.transaction(&TransactionRecord {
        reason: Some(TransactionReason::Quota),
        ..transaction(TransactionOutcome::NoBackend)
    });
    drop(worker);
    telemetry.flush(LIMIT);
    let text = kept.text();
    assert!(
        text.contains(" outcome=no-backend reason=quota attempts=0 "),
        "{text}"
    );
}

#[test]
fn a_storm_of_transactions_is_counted_apart_from_sessions() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let mut worker = telemetry.worker_log(Instant::now);
    for _ in 0..500 {
        worker.transaction(&transaction(TransactionOutcome::Failed));
        worker.transaction(&transaction(TransactionOutcome::InDoubt));
        worker.session(&record(&[], SessionOutcome::Failed));
    }
    let suppressed = worker.suppressed();
    drop(worker);
    telemetry.flush(LIMIT);
    let text = kept.text();
    let written = text.matches("outcome=failed").count() as u64;
    assert_eq!(written + suppressed, 1000);
    // The test may cross a second's border, not more.
    assert!((100..=200).contains(&written), "{written}");
    assert_eq!(text.matches("outcome=in-doubt").count(), 500);
    assert!(text.contains(" failed=") && text.contains(" transactions.failed="));
}

#[test]
fn a_reload_changes_the_switches_of_transactions() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let mut worker = telemetry.worker_log(Instant::now);
    assert!(worker.wants_transaction(TransactionOutcome::Accepted) && !worker.wants_addresses());
    telemetry.apply(Log {
        transactions: false,
        addresses: true,
        ..log(LogFormat::Text)
    });
    assert!(!worker.wants_transaction(TransactionOutcome::Accepted) && worker.wants_addresses());
    assert!(worker.wants_sessions());
    worker.transaction(&transaction(TransactionOutcome::Accepted));
    drop(worker);
    telemetry.flush(LIMIT);
    assert_eq!(kept.text(), "");
}

#[test]
fn f3_a_message_in_doubt_has_its_line_whatever_is_switched_off_but_warnings() {
    let (telemetry, kept) = kept(Log {
        level: LogLevel::Warn,
        transactions: false,
        ..log(LogFormat::Text)
    });
    let mut worker = telemetry.worker_log(Instant::now);
    assert!(!worker.wants_transaction(TransactionOutcome::Accepted));
    assert!(worker.wants_transaction(TransactionOutcome::InDoubt));
    worker.transaction(&transaction(TransactionOutcome::Accepted));
    worker.transaction(&transaction(TransactionOutcome::InDoubt));
    drop(worker);
    telemetry.flush(LIMIT);
    assert_eq!(kept.text().lines().count(), 1);
    assert!(
        kept.text()
            .contains(" warn transaction.end session.id=000000000000002a ")
    );
    telemetry.apply(Log {
        level: LogLevel::Error,
        ..log(LogFormat::Text)
    });
    assert!(
        !telemetry
            .worker_log(Instant::now)
            .wants_transaction(TransactionOutcome::InDoubt)
    );
}

fn change(to: HealthState, text: &str) -> StateChange {
    StateChange {
        pool: Arc::from("mx"),
        backend: Arc::from("mx1"),
        address: address("10.0.0.11:25"),
        from: (AdminState::Ready, HealthState::Up),
        to: (AdminState::Ready, to),
        cause: Cause {
            origin: "probe",
            stage: Some(Stage::Greeting),
            kind: Some(FailureKind::Temporary),
            code: Some(421),
            text: Some(Arc::from(text)),
            duration: Some(Duration::from_micros(1500)),
            who: None,
        },
    }
}

#[test]
fn a_state_change_says_its_cause() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    telemetry.state_change(&change(HealthState::Down, "too busy\u{1b}[2J"));
    telemetry.pool_event(&PoolEvent::TierOpened {
        pool: Arc::from("mx"),
        tier: 2,
        usable_weight: 0,
        configured_weight: 3,
    });
    telemetry.flush(LIMIT);
    let text = kept.text();
    let mut lines = text.lines().map(|line| &line[27..]);
    assert_eq!(
        lines.next(),
        Some(
            " warn backend.state pool=mx backend=mx1 backend.addr=10.0.0.11:25 from=up to=down \
             cause=\"greeting: 421 too busy\\u{1b}[2J (found by a probe)\" \
             cause.origin=probe cause.stage=greeting cause.kind=temporary cause.code=421 \
             cause.text=\"too busy\\u{1b}[2J\" cause.ms=1.500"
        )
    );
    assert_eq!(
        lines.next(),
        Some(" warn pool.tier_opened pool=mx tier=2 weight.usable=0 weight.configured=3")
    );
}

#[test]
fn tracing_events_come_with_their_fields() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    let subscriber = tracing_subscriber::registry().with(events::EventLayer {
        core: Arc::clone(telemetry.core()),
    });
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(name: "control.reload", generation = 2_u64, ok = true, file = "a b");
        tracing::warn!(client.addr = %"192.0.2.1:9", "accept.failed");
        tracing::debug!("not.wanted");
        tracing::warn!(target: "hyper::proto", "a library's");
        tracing::error!(target: "hyper::proto", "broken");
    });
    telemetry.flush(LIMIT);
    let text = kept.text();
    let lines: Vec<_> = text.lines().map(|line| &line[27..]).collect();
    assert_eq!(
        lines,
        [
            " info control.reload generation=2 ok=true file=\"a b\"",
            " warn accept.failed client.addr=192.0.2.1:9",
            " error broken",
        ]
    );
}

#[test]
fn numbers_of_tracing_events_are_numbers_in_json() {
    let (telemetry, kept) = kept(log(LogFormat::Json));
    let subscriber = tracing_subscriber::registry().with(events::EventLayer {
        core: Arc::clone(telemetry.core()),
    });
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(name: "ready", a = 1_u64, b = -1_i64, c = 1_u128, d = -1_i128);
    });
    telemetry.flush(LIMIT);
    let text = kept.text();
    assert!(text.contains(r#""a":1,"b":-1,"c":1,"d":-1"#), "{text}");
}

#[test]
fn a_storm_of_events_is_limited_by_name() {
    let (telemetry, kept) = kept(log(LogFormat::Text));
    for _ in 0..1000 {
        telemetry.state_change(&change(HealthState::Up, "ok"));
    }
    telemetry.flush(LIMIT);
    let written = kept.text().matches("info backend.state").count() as u64;
    assert_eq!(written + telemetry.suppressed(), 1000);
    // The test may cross a second's border, not more.
    assert!((200..=400).contains(&written), "{written}");
}

#[test]
fn left_out_events_are_said_though_nothing_else_happens() {
    let (said, hear) = mpsc::channel();
    let telemetry = to_sink(log(LogFormat::Text), Box::new(Told(said)));
    for _ in 0..1000 {
        telemetry.state_change(&change(HealthState::Up, "ok"));
    }
    let mut counted = 0;
    let mut written = 0;
    while written + counted < 1000 {
        let text = hear.recv_timeout(LIMIT).expect("the count is said in time");
        written += text.matches("info backend.state").count() as u64;
        counted += text
            .split("backend.state=")
            .skip(1)
            .filter_map(|count| count.trim_end().parse::<u64>().ok())
            .sum::<u64>();
    }
    assert_eq!(counted, telemetry.suppressed());
}

#[test]
fn the_silent_one_says_nothing_and_never_waits() {
    let telemetry = silent();
    let mut worker = telemetry.worker_log(Instant::now);
    assert!(!worker.wants_sessions());
    worker.session(&record(&[], SessionOutcome::Completed));
    worker.flush();
    telemetry.state_change(&change(HealthState::Down, "x"));
    telemetry.flush(LIMIT);
    assert_eq!(telemetry.drops(), 0);
}
