//! Real servers that die, hang and come back under load in mode "smtp": no client session fails,
//! no acknowledged message is missing, and none is there twice, except where a message was in doubt
//! and its client was told so (rules F1 to F8).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::lab::backend::Backend;
use crate::lab::postfix::Postfix;
use crate::lab::posthouse::{NO_PROBES, Posthouse};
use crate::lab::{Client, wait_for};

/// Failures are found by sessions alone, and soon; a silent server costs no more than a second.
const IMPATIENT: &str = "\
max_attempts = 5
slow_start = \"0s\"
greeting_timeout = \"1s\"
[pools.mx.smtp]
reply_timeout = \"1s\"
data_timeout = \"1s\"
[pools.mx.eject]
time = \"1s\"
max_time = \"1s\"
[pools.mx.health]
interval = \"200ms\"
fast_interval = \"100ms\"
timeout = \"1s\"
greeting_timeout = \"1s\"
";

const CLIENTS: usize = 8;
/// Messages of one client session.
const MESSAGES: usize = 3;

/// What the clients of a load were told.
#[derive(Default)]
struct Load {
    /// Messages acknowledged so far.
    acknowledged: AtomicUsize,
    is_over: AtomicBool,
    tokens: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    accepted: BTreeSet<String>,
    in_doubt: BTreeSet<String>,
    failures: Vec<String>,
}

impl Load {
    /// One client: sessions with some messages each, until the load is over.
    fn client(&self, name: usize, posthouse: SocketAddr) {
        for session in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.session(&format!("{name}-{session}"), posthouse) {
                let failure = format!("{name}-{session}: {error}");
                self.told(|told| told.failures.push(failure));
                return;
            }
        }
    }

    fn session(&self, name: &str, posthouse: SocketAddr) -> io::Result<()> {
        let mut client = Client::dial(posthouse)?;
        let greeting = client.reply()?;
        if greeting.code != 220 {
            return Err(io::Error::other(greeting.text()));
        }
        client.command("EHLO client.test")?;
        for number in 0..MESSAGES {
            let token = format!("<{name}-{number}@load.test>");
            let lines = "line of the load\r\n".repeat(200);
            let message = format!("Message-ID: {token}\r\nSubject: load\r\n\r\n{lines}");
            let mail = "MAIL FROM:<sender@client.test>";
            let reply = client.transaction(mail, message.as_bytes())?;
            match reply.code {
                250 => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.told(|told| told.accepted.insert(token));
                }
                451 if reply.text().starts_with("451 4.4.2") => {
                    self.told(|told| told.in_doubt.insert(token));
                }
                _ => return Err(io::Error::other(reply.text())),
            }
        }
        client.command("QUIT").map(drop)
    }

    fn told<T>(&self, note: impl FnOnce(&mut Told) -> T) -> T {
        note(&mut self.tokens.lock().expect("no thread panicked"))
    }

    /// Waits until so many more messages have been acknowledged.
    fn goes_on_for(&self, messages: usize) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        wait_for(&format!("{messages} messages more"), || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            self.told(|told| assert!(told.failures.is_empty(), "{:?}", told.failures));
            (now >= from + messages).then_some(())
        });
    }
}

/// Says when the load is over, also when a test fails.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Shows the end of a balancer's log when its test fails.
struct ShownOnFailure<'a>(&'a Posthouse);

impl Drop for ShownOnFailure<'_> {
    fn drop(&mut self) {
        const LINES: usize = 60;
        if std::thread::panicking() {
            let log = self.0.log();
            let sessions_aside = |line: &&str| !line.contains("\"accepted\"");
            let lines: Vec<_> = log.lines().filter(sessions_aside).collect();
            let end = &lines[lines.len().saturating_sub(LINES)..];
            crate::lab::say(&end.join("\n"));
        }
    }
}

/// Runs a load while `faults` happen to three servers, and compares what clients were told with what
/// the servers have.
fn nothing_is_lost_while(faults: impl FnOnce(&mut [Postfix; 3], &Load)) {
    let mut servers = [(); 3].map(|()| Postfix::keeping(&[]));
    let posthouse = Posthouse::smtp(&servers.each_ref().map(Backend::address), IMPATIENT);
    let load = Load::default();
    let _log = ShownOnFailure(&posthouse);
    std::thread::scope(|scope| {
        let over = Over(&load);
        for name in 0..CLIENTS {
            let (load, address) = (&load, posthouse.address());
            scope.spawn(move || load.client(name, address));
        }
        load.goes_on_for(50);
        faults(&mut servers, &load);
        load.goes_on_for(50);
        drop(over);
    });
    let told = load.tokens.into_inner().expect("no thread panicked");
    assert!(told.failures.is_empty(), "{:#?}", told.failures);
    let mut copies = BTreeMap::new();
    for file in servers.iter().flat_map(Postfix::raw_queue_files) {
        *copies.entry(token_in(&file)).or_insert(0) += 1;
    }
    let missing: Vec<_> = told
        .accepted
        .iter()
        .filter(|token| !copies.contains_key(*token))
        .collect();
    assert!(missing.is_empty(), "acknowledged and missing: {missing:?}");
    let twice: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // Nothing was kept that its client was told nothing about.
    let known = told.accepted.union(&told.in_doubt).count();
    assert!(copies.len() <= known, "{} of {known}", copies.len());
    // A message in doubt was on its way to a server when that failed.
    assert!(told.in_doubt.len() <= CLIENTS, "{:?}", told.in_doubt);
    for _ in &told.in_doubt {
        posthouse.logged(&["in-doubt"]);
    }
}

fn token_in(file: &[u8]) -> String {
    let text = String::from_utf8_lossy(file);
    let from = text
        .find("Message-ID: ")
        .map(|at| at + "Message-ID: ".len());
    let token = &text[from.expect("each message of the load has one")..];
    token[..=token.find('>').expect("it ends")].to_owned()
}

#[test]
fn nothing_is_lost_when_a_postfix_is_killed_and_comes_back_f1() {
    nothing_is_lost_while(|servers, load| {
        servers[0].kill();
        load.goes_on_for(100);
        Backend::restart(&mut servers[0]);
        let before = servers[0].taken();
        wait_for("the returned one to be used", || {
            load.told(|told| assert!(told.failures.is_empty(), "{:?}", told.failures));
            (servers[0].taken() > before).then_some(())
        });
    });
}

#[test]
fn nothing_is_lost_when_the_smtpd_processes_are_killed_f1() {
    nothing_is_lost_while(|servers, load| {
        // Master may hold a service back for a minute whose processes die, so one is left alone.
        for server in &servers[..2] {
            assert!(server.kill_smtpd() > 0, "it was serving");
            load.goes_on_for(50);
        }
    });
}

#[test]
fn nothing_is_lost_when_a_postfix_stands_still_and_goes_on_k1() {
    nothing_is_lost_while(|servers, load| {
        servers[1].stop();
        // Those whose message it had before it stopped wait for its word (rule F3).
        load.goes_on_for(100);
        servers[1].resume();
    });
}

/// One that uses `other` where `first` fails only, with these further lines for its pool.
fn in_front_of(first: &Postfix, other: &Postfix, lines: &str) -> Posthouse {
    let pool = format!("balance = \"first\"\n{lines}{NO_PROBES}");
    Posthouse::smtp(&[Backend::address(first), Backend::address(other)], &pool)
}

/// First twenty, 5 (rule F8).
#[test]
fn a_second_postfix_that_refuses_a_recipient_ends_it_with_451_f8() {
    let mut first = Postfix::keeping(&[]);
    let other = Postfix::keeping(&[
        "smtpd_recipient_restrictions=check_recipient_access,inline:{rcpt@example.test=REJECT}",
    ]);
    let posthouse = in_front_of(&first, &other, "");
    let mut client = Client::ready(posthouse.address());
    client.begin();
    client.send_apart(b"Subject: cut\r\n\r\noff\r\n");
    first.kill();
    let reply = client.expect(451, ".");
    assert!(reply.text().starts_with("451 4.4.2"), "{}", reply.text());
    client.expect(250, "NOOP");
    client.quit();
    assert_eq!((first.taken(), other.taken()), (0, 0));
}

/// First twenty, 4: row 4 of rule F1, with a server that has part of the message.
#[test]
fn a_postfix_that_dies_within_the_message_is_not_missed_f1() {
    let mut first = Postfix::keeping(&[]);
    let other = Postfix::keeping(&[]);
    let posthouse = in_front_of(&first, &other, "");
    let mut client = Client::ready(posthouse.address());
    client.begin();
    client.send_apart(b"Subject: half\r\n\r\n");
    client.send_apart(&b"a line that goes to the first\r\n".repeat(10_000));
    first.kill();
    client
        .send(&b"a line that goes to the other\r\n".repeat(10_000))
        .expect("the session is open");
    client.expect(250, ".");
    client.quit();
    assert_eq!((first.taken(), other.taken()), (0, 1));
    let kept = String::from_utf8(other.kept().remove(0)).expect("it was ASCII");
    assert_eq!(kept.matches("goes to the first").count(), 10_000);
    assert_eq!(kept.matches("goes to the other").count(), 10_000);
}

/// First twenty, 9 (rule S7).
#[test]
fn a_postfix_at_its_process_limit_is_replaced_unseen_s7() {
    let full = Postfix::keeping_with_processes(1);
    let good = Postfix::keeping(&[]);
    let occupant = Client::greeted(Backend::address(&full));
    let posthouse = in_front_of(&full, &good, "greeting_timeout = \"500ms\"\n");
    let mut client = Client::ready(posthouse.address());
    client.accepted(b"Subject: anyway\r\n\r\ntext\r\n");
    client.quit();
    assert_eq!((full.taken(), good.taken()), (0, 1));
    occupant.quit();
}

/// First twenty, 19 (rule K3).
#[test]
fn a_client_that_ends_its_direction_after_the_dot_reads_postfixs_reply_k3() {
    let postfix = Postfix::keeping(&[]);
    let posthouse = Posthouse::smtp(&[Backend::address(&postfix)], NO_PROBES);
    let mut client = Client::greeted(posthouse.address());
    client.up_to_data();
    client
        .send(b"Subject: half\r\n\r\nclosed\r\n.\r\n")
        .expect("the session is open");
    client.finish_sending();
    let reply = client.reply().expect("the reply to the final dot comes");
    assert_eq!(reply.code, 250, "{}", reply.text());
    assert!(reply.text().contains("queued as"), "{}", reply.text());
    assert!(client.is_at_end());
    assert_eq!(postfix.taken(), 1);
}

/// Rule F11: what a client has not completed is completed by nobody.
#[test]
fn a_client_that_leaves_within_the_message_leaves_none_f11() {
    let postfix = Postfix::keeping(&[]);
    let posthouse = Posthouse::smtp(&[Backend::address(&postfix)], NO_PROBES);
    let mut client = Client::greeted(posthouse.address());
    client.up_to_data();
    client.send_apart(b"Subject: cut\r\n\r\noff\r\n");
    drop(client);
    postfix.logged("lost connection after DATA");
    assert_eq!(postfix.taken(), 0);
}
