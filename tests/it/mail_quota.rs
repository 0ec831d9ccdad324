//! What providers allow, end to end: recipients within a message, backends that fail, reloads and
//! restarts with a state file.

use std::path::Path;
use std::time::Duration;

use posthouse::config::Config;
use posthouse::config::model::{Mode, Quota, QuotaUnit};
use posthouse::control::Running;
use posthouse::lab::{At, Script, Sink, SinkHandle, SinkPlan};

use crate::mail_evidence::{Lines, Told};
use crate::whole::{Peer, address, config, eventually, listener, pool, replace, run};

use QuotaUnit::{Messages, Recipients};

const HOUR: Duration = Duration::from_hours(1);

/// One that keeps what it was given.
fn sink(name: &str, script: Script) -> SinkHandle {
    let plan = SinkPlan::with(script).named(name).keeping(1 << 20);
    Sink::spawn_thread(plan).expect("loopback has a port")
}

/// One backend and what its provider allows within an hour.
struct Allowed<'a> {
    name: &'a str,
    sink: &'a SinkHandle,
    quota: Option<(u64, QuotaUnit)>,
}

fn allowed<'a>(name: &'a str, sink: &'a SinkHandle, count: u64, unit: QuotaUnit) -> Allowed<'a> {
    Allowed {
        name,
        sink,
        quota: Some((count, unit)),
    }
}

/// Backends of which the first that has room is taken. Nobody waits for room.
fn smtp(backends: &[Allowed<'_>]) -> Config {
    let addresses: Vec<_> = backends
        .iter()
        .map(|of| (of.name, of.sink.address()))
        .collect();
    let mut config = config(&addresses);
    listener(&mut config).mode = Mode::Smtp;
    let pool = pool(&mut config);
    pool.queue_max = 0;
    for of in backends {
        let backend = pool.backends.get_mut(of.name).expect("it was named");
        backend.quota = of
            .quota
            .map(|(count, unit)| Quota {
                count,
                period: HOUR,
                unit,
            })
            .into_iter()
            .collect();
    }
    config
}

fn client(running: &Running) -> Peer {
    let mut peer = Peer::greeted_by(address(running.handle(), "mx"), "lb.test");
    assert!(peer.ask("HELO client.test").starts_with("250"));
    peer
}

/// So many RCPT; the last without its end.
fn rcpts(count: usize) -> String {
    let rcpt = |number| format!("RCPT TO:<r{number}@example.net>");
    let lines: Vec<_> = (0..count).map(rcpt).collect();
    lines.join("\r\n")
}

/// MAIL, so many RCPT and DATA in one flight, and the message; what each RCPT was told.
fn send(peer: &mut Peer, recipients: usize) -> Vec<String> {
    let group = format!("MAIL FROM:<a@example.org>\r\n{}\r\nDATA", rcpts(recipients));
    assert!(peer.ask(&group).starts_with("250"), "to MAIL");
    let told = (0..recipients).map(|_| peer.line()).collect();
    assert!(peer.line().starts_with("354"), "to DATA");
    let reply = peer.ask("Subject: x\r\n\r\nbody\r\n.");
    assert!(reply.starts_with("250"), "{reply}");
    told
}

/// How many were accepted; the others were told that there are too many.
fn accepted(told: &[String]) -> usize {
    let accepted = told.iter().take_while(|reply| reply.starts_with("250"));
    let accepted = accepted.count();
    for reply in &told[accepted..] {
        assert!(reply.starts_with("452 4.5.3"), "{reply}");
    }
    accepted
}

/// The recipients of each message.
fn given(sink: &SinkHandle) -> Vec<usize> {
    let messages = sink.messages();
    messages.iter().map(|message| message.to.len()).collect()
}

fn used(running: &Running, backend: &str) -> Vec<u64> {
    let snapshot = running.handle().shared().current.load();
    let pool = snapshot.pool_named("mx").expect("there is a pool");
    let members = pool.pool.members().iter();
    let mut of = members.filter(|member| &*member.settings.name == backend);
    let limited = of.next().and_then(|member| member.settings.quota.as_ref());
    let usage = limited.map(|limited| limited.usage(std::time::Instant::now()));
    usage.into_iter().flatten().map(|of| of.used).collect()
}

#[test]
fn a_message_goes_where_there_is_room_for_its_recipients_and_what_has_none_is_told_452() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let running = run(smtp(&[
        allowed("one", &one, 5, Recipients),
        allowed("two", &two, 200, Recipients),
    ]));
    let mut peer = client(&running);
    assert_eq!(accepted(&send(&mut peer, 100)), 100, "one flight");
    assert_eq!((given(&one), given(&two)), (vec![], vec![100]));
    assert_eq!(
        (used(&running, "one"), used(&running, "two")),
        (vec![0], vec![100])
    );
    assert_eq!(accepted(&send(&mut peer, 110)), 100, "nobody has more");
    assert_eq!(accepted(&send(&mut peer, 10)), 5, "balanced anew");
    assert_eq!((given(&one), given(&two)), (vec![5], vec![100, 100]));
    let reply = peer.ask("MAIL FROM:<a@example.org>");
    assert!(reply.starts_with("451 4.3.2"), "nobody has room: {reply}");
}

#[test]
fn recipients_one_by_one_are_taken_as_long_as_there_is_room() {
    let one = sink("one.test", Script::good().no_pipelining());
    let running = run(smtp(&[allowed("one", &one, 2, Recipients)]));
    let (mut peer, mut other) = (client(&running), client(&running));
    assert!(peer.ask("MAIL FROM:<a@example.org>").starts_with("250"));
    assert!(peer.ask("RCPT TO:<b@example.net>").starts_with("250"));
    assert!(other.ask("MAIL FROM:<a@example.org>").starts_with("250"));
    assert!(peer.ask("RCPT TO:<c@example.net>").starts_with("452 4.5.3"));
    assert!(other.ask("RSET").starts_with("250"));
    eventually("its place is given back", || used(&running, "one") == [1]);
    assert!(peer.ask("RCPT TO:<c@example.net>").starts_with("250"));
    assert!(peer.ask("DATA").starts_with("354"));
    assert!(peer.ask("Subject: x\r\n\r\nbody\r\n.").starts_with("250"));
    assert_eq!(given(&one), [2]);
}

#[test]
fn places_of_refused_recipients_are_for_others() {
    let one = sink(
        "one.test",
        Script::good().reply(At::Rcpt, "550 5.1.1 unknown"),
    );
    let two = sink("two.test", Script::good());
    let running = run(smtp(&[
        allowed("one", &one, 3, Recipients),
        allowed("two", &two, 9, Recipients),
    ]));
    let mut peer = client(&running);
    assert!(peer.ask("MAIL FROM:<a@example.org>").starts_with("250"));
    for _ in 0..9 {
        let reply = peer.ask("RCPT TO:<b@example.net>");
        assert!(reply.starts_with("550 5.1.1"), "{reply}");
    }
    assert_eq!(used(&running, "one"), [1], "as long as it is held");
    assert!(peer.ask("RSET").starts_with("250"));
    eventually("nothing was used", || used(&running, "one") == [0]);
}

#[test]
fn charges_follow_a_message_to_another_backend() {
    let one = sink("one.test", Script::good().close_at(At::Data));
    let two = sink("two.test", Script::good());
    let three = sink("three.test", Script::good());
    let running = run(smtp(&[
        allowed("a-dies", &one, 20, Recipients),
        // It has room, but not for all of this message.
        allowed("b-small", &three, 6, Recipients),
        allowed("c-takes", &two, 7, Recipients),
    ]));
    let mut peer = client(&running);
    assert_eq!(accepted(&send(&mut peer, 7)), 7);
    assert_eq!((given(&two), given(&three)), (vec![7], vec![]));
    assert_eq!(used(&running, "a-dies"), [0]);
    assert_eq!(used(&running, "b-small"), [0]);
    assert_eq!(used(&running, "c-takes"), [7]);
}

#[test]
fn a_message_in_doubt_is_charged_where_it_may_be() {
    let one = sink("one.test", Script::good().close_at(At::Dot));
    let running = run(smtp(&[allowed("one", &one, 9, Recipients)]));
    let mut peer = client(&running);
    assert!(peer.ask("MAIL FROM:<a@example.org>").starts_with("250"));
    assert!(peer.ask("RCPT TO:<b@example.net>").starts_with("250"));
    assert!(peer.ask("RCPT TO:<c@example.net>").starts_with("250"));
    assert!(peer.ask("DATA").starts_with("354"));
    let reply = peer.ask("Subject: x\r\n\r\nbody\r\n.");
    assert!(reply.starts_with("451 4.4.2"), "{reply}");
    eventually("it is charged", || used(&running, "one") == [2]);
}

#[test]
fn clients_together_never_pass_a_quota() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let mut config = smtp(&[
        allowed("one", &one, 57, Recipients),
        allowed("two", &two, 31, Recipients),
    ]);
    config.workers = Some(2);
    let running = run(config);
    let taken: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut peer = client(&running);
                    let mut taken = 0;
                    for recipients in [3, 7, 1, 5, 7, 7, 7] {
                        if peer.ask("MAIL FROM:<a@example.org>").starts_with("451") {
                            continue;
                        }
                        let mut told = vec![peer.ask(&rcpts(recipients))];
                        told.extend((1..recipients).map(|_| peer.line()));
                        taken += accepted(&told);
                        assert!(peer.ask("DATA").starts_with("354"));
                        let reply = peer.ask("Subject: x\r\n\r\nbody\r\n.");
                        assert!(reply.starts_with("250"), "{reply}");
                    }
                    taken
                })
            })
            .collect();
        clients.into_iter().map(|of| of.join().unwrap()).sum()
    });
    let (first, second): (usize, usize) = (given(&one).iter().sum(), given(&two).iter().sum());
    assert_eq!(first + second, taken);
    // 222 were asked for: who found no room found it used up.
    assert_eq!((first, second), (57, 31));
}

/// One backend with five messages an hour, or another one without a quota; the state file is kept.
fn with_file(
    sink: &SinkHandle,
    name: &str,
    quota: Option<(u64, QuotaUnit)>,
    file: &Path,
) -> Config {
    let mut config = smtp(&[Allowed { name, sink, quota }]);
    config.state_file = Some(file.to_owned());
    config
}

#[test]
fn a_backend_that_comes_by_a_reload_finds_what_an_older_run_has_used() {
    let one = sink("one.test", Script::good());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let five = Some((5, Messages));
    let running = run(with_file(&one, "one", five, &file));
    send(&mut client(&running), 1);
    send(&mut client(&running), 1);
    running.stop();
    running.wait();
    // A run that knows nothing of it keeps it.
    let running = run(with_file(&one, "other", five, &file));
    send(&mut client(&running), 1);
    running.stop();
    running.wait();
    let running = run(with_file(&one, "other", None, &file));
    assert!(replace(running.handle(), with_file(&one, "one", five, &file)).ok);
    assert_eq!(used(&running, "one"), [2]);
    send(&mut client(&running), 1);
    // It goes, and comes back.
    assert!(replace(running.handle(), with_file(&one, "other", five, &file)).ok);
    running
        .handle()
        .shared()
        .registry
        .sweep(std::time::Instant::now());
    assert_eq!(used(&running, "other"), [1]);
    assert!(replace(running.handle(), with_file(&one, "one", None, &file)).ok);
    assert!(used(&running, "one").is_empty());
    assert!(replace(running.handle(), with_file(&one, "one", five, &file)).ok);
    assert_eq!(used(&running, "one"), [3]);
    running.stop();
    running.wait();
    let running = run(with_file(&one, "one", five, &file));
    assert_eq!(used(&running, "one"), [3]);
}

#[test]
fn another_period_by_a_reload_does_not_begin_at_zero() {
    let one = sink("one.test", Script::good());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let configured = |period| {
        let mut config = with_file(&one, "one", Some((5, Messages)), &file);
        let backend = pool(&mut config).backends.get_mut("one").unwrap();
        backend.quota[0].period = period;
        config
    };
    let running = run(configured(HOUR));
    send(&mut client(&running), 1);
    assert!(replace(running.handle(), configured(2 * HOUR)).ok);
    assert_eq!(used(&running, "one"), [1]);
    send(&mut client(&running), 1);
    running.stop();
    running.wait();
    let running = run(configured(3 * HOUR));
    assert_eq!(used(&running, "one"), [2]);
}

#[test]
fn of_two_processes_with_one_state_file_the_second_waits_for_the_first() {
    let one = sink("one.test", Script::good());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let configured = || with_file(&one, "one", Some((9, Messages)), &file);
    let first = run(configured());
    let second = run(configured());
    send(&mut client(&first), 1);
    send(&mut client(&second), 1);
    send(&mut client(&second), 1);
    first.stop();
    first.wait();
    // It takes the file over, with what the first has added.
    second.stop();
    second.wait();
    let third = run(configured());
    assert_eq!(used(&third, "one"), [3]);
}

#[test]
fn a_state_file_that_cannot_be_read_is_put_aside_and_one_lost_meanwhile_comes_back() {
    let one = sink("one.test", Script::good());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    std::fs::write(&file, "nonsense").unwrap();
    let configured = || with_file(&one, "one", Some((9, Messages)), &file);
    let running = run(configured());
    assert_eq!(used(&running, "one"), [0]);
    let aside = folder.path().join("state.json.bad");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "nonsense");
    send(&mut client(&running), 1);
    // A folder in its place: nothing can be moved there.
    let _ = std::fs::remove_file(&file);
    std::fs::create_dir(&file).unwrap();
    std::fs::write(file.join("in the way"), "").unwrap();
    send(&mut client(&running), 1);
    std::fs::remove_dir_all(&file).unwrap();
    running.stop();
    running.wait();
    let running = run(configured());
    assert_eq!(used(&running, "one"), [2]);
}

/// So much may a backend of [`Told`] be given within an hour. Nobody waits for room.
fn limit(config: &mut Config, backend: &str, count: u64, unit: QuotaUnit) {
    let pool = crate::harness::pool(config);
    pool.queue_max = 0;
    let backend = pool.backends.get_mut(backend).expect("it was named");
    backend.quota = vec![Quota {
        count,
        period: HOUR,
        unit,
    }];
}

#[tokio::test]
async fn a_transaction_that_a_quota_refuses_or_moves_says_so() {
    let body = "Subject: x\r\n\r\nbody\r\n";
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    // Moved: the second recipient has room at the other only.
    let told = Told::start(&[&one, &two], |config| limit(config, "b0", 1, Recipients));
    let mut client = told.client().await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("RCPT TO:<c@example.net>", "250").await;
    client.ask("DATA", "354").await;
    client.say(format!("{body}.\r\n")).await;
    client.expect("250").await;
    let line = &told.transactions(1).await[0];
    assert_eq!(
        (&line["outcome"], &line["backend"]),
        (&"accepted".into(), &"b1".into())
    );
    assert_eq!(line["reason"], "quota", "{line}");
    assert_eq!(line["replayed"], 1);
    assert_eq!(line["failures"], serde_json::Value::Null, "nobody's fault");
    let moved = |of: &posthouse::balance::BackendTotals| {
        of.mail.moves[posthouse::balance::MoveCause::Quota.index()].value()
    };
    assert_eq!(told.balancer.backend("b0").totals.sum(moved), 1);

    // Not moved, for there is no other: the recipient is refused, and then the next transaction is.
    let told = Told::start(&[&one], |config| limit(config, "b0", 1, Recipients));
    let mut client = told.client().await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("RCPT TO:<c@example.net>", "452 4.5.3").await;
    client.ask("DATA", "354").await;
    client.say(format!("{body}.\r\n")).await;
    client.expect("250").await;
    client.ask("MAIL FROM:<a@example.org>", "451 4.3.2").await;
    let lines = told.transactions(2).await;
    assert_eq!(lines[0]["outcome"], "accepted");
    assert_eq!(lines[0]["reason"], "quota", "{}", lines[0]);
    assert_eq!(lines[1]["outcome"], "no-backend");
    assert_eq!(lines[1]["reason"], "quota", "{}", lines[1]);
}

#[tokio::test]
async fn what_no_quota_refuses_has_no_such_reason() {
    let one = sink("one.test", Script::good());
    let told = Told::start(&[&one], |config| {
        limit(config, "b0", 9, Recipients);
        crate::harness::listener(config).smtp.max_recipients = 1;
        crate::harness::pool(config).max_attempts = 1;
    });
    let mut client = told.client().await;
    client.ask("MAIL FROM:<a@example.org>", "250").await;
    client.ask("RCPT TO:<b@example.net>", "250").await;
    client.ask("RCPT TO:<c@example.net>", "452 4.5.3").await;
    client.ask("RSET", "250").await;
    drop(one);
    client.ask("MAIL FROM:<a@example.org>", "451").await;
    for line in told.transactions(2).await {
        assert_eq!(line["reason"], serde_json::Value::Null, "{line}");
    }
}

#[test]
fn the_log_is_told_when_a_quota_is_used_up_and_only_then() {
    let one = sink("one.test", Script::good());
    let log = Lines::default();
    let settings = posthouse::config::model::Log {
        sessions: false,
        ..Default::default()
    };
    let telemetry = posthouse::telemetry::to_sink(settings, Box::new(log.clone()));
    let config = smtp(&[allowed("one", &one, 5, Messages)]);
    let options = posthouse::control::StartOptions::default();
    let running = posthouse::control::start(options, config, telemetry).unwrap();
    let events = || {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("backend.quota"));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    for _ in 0..4 {
        send(&mut client(&running), 1);
    }
    eventually("most of it is told", || events().len() == 1);
    send(&mut client(&running), 1);
    eventually("all of it is told", || events().len() == 2);
    let told = events();
    let near = " backend=one state=near used=4 limit=5 unit=messages window=1h";
    assert!(told[0].ends_with(near), "{told:?}");
    let used_up = " backend=one state=used-up used=5 limit=5 unit=messages window=1h";
    assert!(told[1].ends_with(used_up), "{told:?}");
}
