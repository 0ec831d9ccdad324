//! The end of the process: sessions may end by themselves until the deadline (rule K7).

use std::net::TcpStream;
use std::time::Duration;

use posthouse::control::Ended;
use posthouse::lab::Script;

use crate::whole::{Peer, address, config, eventually, run, sink};

#[test]
fn a_drain_waits_for_the_last_session_and_accepts_no_other() {
    let backend = sink("one.test", Script::good());
    let running = run(config(&[("one", backend.address())]));
    let at = address(running.handle(), "mx");
    let mut session = Peer::greeted_by(at, "one.test");
    running.drain();
    eventually("nobody listens", || TcpStream::connect(at).is_err());
    // Draining: the session that was there goes on.
    assert!(session.ask("EHLO client.test").starts_with("250"));
    assert_eq!(running.handle().listening().len(), 1);
    drop(session);
    assert_eq!(running.wait(), Ended::Clean);
}

#[test]
fn sessions_that_are_left_at_the_deadline_are_cut_and_counted() {
    let backend = sink("one.test", Script::good());
    let mut config = config(&[("one", backend.address())]);
    config.shutdown_timeout = Duration::from_millis(100);
    let running = run(config);
    let session = Peer::greeted_by(address(running.handle(), "mx"), "one.test");
    running.drain();
    let ended = running.wait();
    assert_eq!(ended, Ended::Cut { sessions: 1 });
    assert_eq!(ended.exit_code(), 3);
    session.wait_for_end();
}

#[test]
fn a_second_order_ends_a_drain_at_once() {
    let backend = sink("one.test", Script::good());
    let running = run(config(&[("one", backend.address())]));
    let at = address(running.handle(), "mx");
    let session = Peer::greeted_by(at, "one.test");
    running.drain();
    eventually("nobody listens", || TcpStream::connect(at).is_err());
    running.stop();
    assert_eq!(running.wait(), Ended::Cut { sessions: 1 });
    session.wait_for_end();
}

#[test]
fn without_sessions_the_end_is_clean() {
    let running = run(config(&[]));
    running.drain();
    assert_eq!(running.wait(), Ended::Clean);
}

#[test]
fn a_reload_during_the_end_is_refused() {
    let backend = sink("one.test", Script::good());
    let running = run(config(&[("one", backend.address())]));
    let handle = running.handle().clone();
    let at = address(&handle, "mx");
    let session = Peer::greeted_by(at, "one.test");
    running.drain();
    eventually("nobody listens", || TcpStream::connect(at).is_err());
    let answer = crate::whole::wait(handle.reload("http"));
    assert_eq!(answer, Err(posthouse::control::ChangeError::Stopping));
    drop(session);
    assert_eq!(running.wait(), Ended::Clean);
    let answer = crate::whole::wait(handle.reload("http"));
    assert_eq!(answer, Err(posthouse::control::ChangeError::Stopping));
}
