//! Many sessions at once in front of servers whose accept queues are short (rule N6).

use std::sync::Barrier;
use std::thread;

use crate::lab::backend::Backend;
use crate::lab::exim::Exim;
use crate::lab::opensmtpd::OpenSmtpd;
use crate::lab::posthouse::{NO_PROBES, Posthouse};
use crate::lab::{Client, wait_for};

/// More than the queues of OpenSMTPD (6 places) and Exim (21) hold together with what is served.
const SESSIONS: usize = 64;

/// All say MAIL at the same moment, to one backend: none may be told that there is none.
fn a_burst_is_served(backend: &impl Backend) {
    let posthouse = Posthouse::smtp(&[backend.address()], NO_PROBES);
    let ready = || Client::ready(posthouse.address());
    let clients: Vec<_> = std::iter::repeat_with(ready).take(SESSIONS).collect();
    let begin = Barrier::new(SESSIONS);
    let session = |mut client: Client| {
        begin.wait();
        let reply = client.transaction(
            "MAIL FROM:<sender@client.test>",
            b"Subject: burst\r\n\r\ntext\r\n",
        );
        reply.map_or_else(|error| error.to_string(), |reply| reply.text())
    };
    let session = &session;
    let replies: Vec<String> = thread::scope(|scope| {
        let begun: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(move || session(client)))
            .collect();
        let ended = begun.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|it| it.expect("no thread panicked")).collect()
    });
    let is_accepted = |reply: &String| reply.starts_with("250");
    assert!(replies.iter().all(is_accepted), "{replies:?}");
    wait_for("all messages", || {
        (backend.taken() >= SESSIONS).then_some(())
    });
    assert_eq!(backend.taken(), SESSIONS);
    let failures = posthouse.log().matches("\"failures\"").count();
    assert_eq!(failures, 0, "no attempt failed or was slow");
}

#[test]
fn a_burst_into_opensmtpd_overflows_no_queue_n6() {
    a_burst_is_served(&OpenSmtpd::start());
}

#[test]
fn a_burst_into_exim_overflows_no_queue_n6() {
    a_burst_is_served(&Exim::start());
}
