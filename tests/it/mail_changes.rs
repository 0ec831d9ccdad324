//! Sessions that hold transactions outlive what happens to their backends between transactions:
//! reload, drain, failure, failback; and what a restart keeps.

use std::time::Duration;

use posthouse::config::Config;
use posthouse::config::model::{AdminState, Mode, Quota, QuotaUnit};
use posthouse::control::BackendChange;
use posthouse::lab::{Script, SinkHandle};

use crate::harness::client::{MAIL, RCPT};
use crate::whole::{
    Peer, address, config, dead, eventually, listener, pool, replace, run, sink, wait,
};

fn smtp(backends: &[(&str, &SinkHandle)]) -> Config {
    let addresses: Vec<_> = backends
        .iter()
        .map(|(name, sink)| (*name, sink.address()))
        .collect();
    let mut config = config(&addresses);
    listener(&mut config).mode = Mode::Smtp;
    config
}

/// A client that has said HELO, whose reply is one line.
fn client(address: std::net::SocketAddr) -> Peer {
    let mut peer = Peer::greeted_by(address, "lb.test");
    assert!(peer.ask("HELO client.test").starts_with("250"));
    peer
}

/// One message; the last reply.
fn send(peer: &mut Peer) -> String {
    for command in [MAIL, RCPT] {
        let reply = peer.ask(command);
        if !reply.starts_with("250") {
            return reply;
        }
    }
    assert!(peer.ask("DATA").starts_with("354"));
    peer.ask("Subject: x\r\n\r\nbody\r\n.")
}

fn sends(peer: &mut Peer) {
    let reply = send(peer);
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn a_session_goes_on_with_the_backends_of_the_new_configuration() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let running = run(smtp(&[("one", &one)]));
    let mut peer = client(address(running.handle(), "mx"));
    sends(&mut peer);
    let report = replace(running.handle(), smtp(&[("two", &two)]));
    assert!(report.ok, "{report:?}");
    sends(&mut peer);
    assert_eq!((one.counts().messages, two.counts().messages), (1, 1));
    assert!(peer.ask("QUIT").starts_with("221"));
}

/// The client says HELO, which no backend ever hears (rules E5, E6).
#[test]
fn a_kept_connection_bears_the_name_it_was_told_n1() {
    let one = sink("one.test", Script::good());
    let named = |hostname: &str| {
        let mut config = smtp(&[("one", &one)]);
        config.hostname = hostname.into();
        config
    };
    let running = run(named("lb.test"));
    let mut peer = client(address(running.handle(), "mx"));
    sends(&mut peer);
    assert!(replace(running.handle(), named("new.test")).ok);
    sends(&mut peer);
    sends(&mut peer);
    // The first one is still there, for whoever bears that name.
    assert!(replace(running.handle(), named("lb.test")).ok);
    sends(&mut peer);
    let counts = one.counts();
    assert_eq!((counts.connections, counts.ehlos), (2, 2));
    let messages = one.messages();
    let names: Vec<_> = messages.iter().map(|it| &*it.helo).collect();
    assert_eq!(names, ["lb.test", "new.test", "new.test", "lb.test"]);
}

#[test]
fn a_session_goes_on_while_its_backend_is_drained_and_comes_back() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let running = run(smtp(&[("one", &one), ("two", &two)]));
    let mut peer = client(address(running.handle(), "mx"));
    sends(&mut peer);
    let change = |state| {
        let change = BackendChange {
            state: Some(state),
            weight: None,
            who: "test".into(),
        };
        wait(running.handle().set_backend("mx", "one", change)).unwrap();
    };
    change(AdminState::Drain);
    eventually("its kept connection is ended with QUIT", || {
        one.counts().quits == 1
    });
    sends(&mut peer);
    change(AdminState::Ready);
    sends(&mut peer);
    assert_eq!((one.counts().messages, two.counts().messages), (2, 1));
}

#[test]
fn a_session_outlives_the_death_of_every_backend() {
    let one = sink("one.test", Script::good());
    let running = run(smtp(&[("one", &one)]));
    let mut peer = client(address(running.handle(), "mx"));
    sends(&mut peer);
    wait(one.stop());
    let reply = send(&mut peer);
    assert!(reply.starts_with("451 4."), "{reply}");
    wait(one.restart()).unwrap();
    sends(&mut peer);
    assert_eq!(one.counts().messages, 2);
}

#[test]
fn what_was_used_of_a_quota_outlives_a_restart() {
    let one = sink("one.test", Script::good());
    let folder = tempfile::tempdir().unwrap();
    let configured = || {
        let mut config = smtp(&[("one", &one)]);
        config.state_file = Some(folder.path().join("state.json"));
        let pool = pool(&mut config);
        pool.queue_max = 0;
        let backend = pool.backends.get_mut("one").unwrap();
        backend.quota = vec![Quota {
            count: 2,
            period: Duration::from_hours(1),
            unit: QuotaUnit::Messages,
        }];
        config
    };
    let running = run(configured());
    sends(&mut client(address(running.handle(), "mx")));
    running.stop();
    running.wait();
    let running = run(configured());
    let mut peer = client(address(running.handle(), "mx"));
    sends(&mut peer);
    let reply = send(&mut peer);
    assert!(reply.starts_with("451 4.3.2"), "{reply}");
}

#[test]
fn backends_that_are_dead_at_the_start_are_found_when_they_come() {
    let mut config = config(&[("one", dead())]);
    listener(&mut config).mode = Mode::Smtp;
    let running = run(config);
    let mut peer = client(address(running.handle(), "mx"));
    let reply = send(&mut peer);
    assert!(reply.starts_with("451 4.4.1"), "{reply}");
    let one = sink("one.test", Script::good());
    assert!(replace(running.handle(), smtp(&[("one", &one)])).ok);
    sends(&mut peer);
}
