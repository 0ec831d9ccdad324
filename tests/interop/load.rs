//! Many messages over several real servers, one of which may die meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::lab::postfix::Postfix;
use crate::lab::posthouse::{Posthouse, QUICK_PROBES};
use crate::lab::{Client, smtp_source, wait_for};

/// Sum of what several servers queued.
fn messages(servers: &[Postfix]) -> usize {
    servers.iter().map(Postfix::messages).sum()
}

#[test]
fn every_message_of_smtp_source_arrives_once() {
    let servers = [Postfix::plain(), Postfix::plain(), Postfix::plain()];
    let posthouse = Posthouse::in_front_of(&servers.each_ref().map(|it| it.address(0)), "");
    smtp_source::send(posthouse.address(), 1000, 10);
    wait_for("1000 messages", || {
        (messages(&servers) >= 1000).then_some(())
    });
    let counts = servers.each_ref().map(Postfix::messages);
    assert_eq!(counts.iter().sum::<usize>(), 1000, "{counts:?}");
    // Ten at a time over three with the fewest sessions first: nobody is left out.
    assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
}

/// How one session of the load went.
enum Outcome {
    /// A 250 to the final dot.
    Accepted,
    /// Cut off after the greeting, which no layer 4 balancer can hide.
    Cut,
    /// No 220: what must never happen while another backend is usable.
    Ungreeted(String),
}

fn one_session(posthouse: SocketAddr) -> Outcome {
    let greeted = Client::dial(posthouse).and_then(|mut client| match client.reply()? {
        reply if reply.code == 220 => Ok(client),
        reply => Err(io::Error::other(reply.text())),
    });
    match greeted {
        Err(error) => Outcome::Ungreeted(error.to_string()),
        Ok(mut client) => match client.message("load") {
            Ok(reply) if reply.code == 250 => {
                // The word was given; whether QUIT is answered no longer matters.
                let _ = client.command("QUIT");
                Outcome::Accepted
            }
            _ => Outcome::Cut,
        },
    }
}

#[test]
fn a_postfix_that_is_killed_under_load_costs_no_session_its_greeting() {
    const CLIENTS: usize = 8;
    const BEFORE: u32 = 150;
    const AFTER: u32 = 450;
    let mut servers = [Postfix::plain(), Postfix::plain(), Postfix::plain()];
    let addresses = servers.each_ref().map(|it| it.address(0));
    let posthouse = Posthouse::in_front_of(&addresses, QUICK_PROBES);
    let address = posthouse.address();
    let started = AtomicU32::new(0);
    let (accepted, cut) = (AtomicU32::new(0), AtomicU32::new(0));
    let ungreeted = std::sync::Mutex::new(Vec::new());
    let survivors_before = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while started.fetch_add(1, Ordering::Relaxed) < BEFORE + AFTER {
                    match one_session(address) {
                        Outcome::Accepted => _ = accepted.fetch_add(1, Ordering::Relaxed),
                        Outcome::Cut => _ = cut.fetch_add(1, Ordering::Relaxed),
                        Outcome::Ungreeted(why) => {
                            ungreeted.lock().expect("no thread panicked").push(why);
                        }
                    }
                }
            });
        }
        wait_for("the load to be under way", || {
            (started.load(Ordering::Relaxed) >= BEFORE).then_some(())
        });
        servers[0].kill();
        messages(&servers[1..])
    });
    let ungreeted = ungreeted.into_inner().expect("no thread panicked");
    assert!(
        ungreeted.is_empty(),
        "{} not greeted: {ungreeted:?}",
        ungreeted.len()
    );
    // Only those that the dead one was serving at that moment can have been cut.
    let cut = cut.load(Ordering::Relaxed) as usize;
    assert!(cut <= CLIENTS, "{cut} were cut");
    assert!(
        messages(&servers[1..]) > survivors_before,
        "the others went on"
    );
    posthouse.backend_becomes("b0", "down");
}
