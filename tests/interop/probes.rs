//! `posthouse probe` and the active probes of a pool against real servers.
//!
//! Rules H1–H6, P6, X12 and X13: each server calls every depth good, LOCAL is taken, a mismatch of
//! the PROXY protocol is found, and a probe leaves no complaint in a server's log.

use std::net::SocketAddr;

use crate::lab::exim::Exim;
use crate::lab::haraka::Haraka;
use crate::lab::opensmtpd::OpenSmtpd;
use crate::lab::postfix::{Postfix, Service};
use crate::lab::posthouse::{Posthouse, QUICK_PROBES, posthouse, said};
use crate::lab::wait_for;

/// One graded conversation; its exit code and its line.
fn probe(server: SocketAddr, arguments: &[&str]) -> (Option<i32>, String) {
    let server = server.to_string();
    let mut all = vec!["probe", server.as_str()];
    all.extend(arguments);
    let output = posthouse(&all);
    (output.status.code(), said(&output))
}

/// The probe must be OK, as a Nagios plugin says it.
fn is_ok(server: SocketAddr, arguments: &[&str]) -> String {
    let (code, line) = probe(server, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {line}");
    line
}

/// What an impolite or hasty probe leaves in Postfix' log.
const COMPLAINTS: &[&str] = &[
    "lost connection after",
    "improper command pipelining",
    "timeout after",
    "PREGREET",
    "HANGUP",
    "non-SMTP command",
    "too many errors",
];

fn has_no_complaints(postfix: &Postfix) {
    let log = postfix.log();
    for complaint in COMPLAINTS {
        assert!(!log.contains(complaint), "{complaint:?} in:\n{log}");
    }
}

#[test]
fn postfix_is_ok_at_every_depth() {
    let postfix = Postfix::plain();
    let address = postfix.address(0);
    for depth in ["banner", "ehlo", "starttls"] {
        let line = is_ok(address, &["--depth", depth]);
        assert_eq!(
            line.trim_end().lines().count(),
            1,
            "one line for Nagios: {line}"
        );
        assert!(line.contains('|'), "with performance data: {line}");
    }
    is_ok(
        address,
        &["--depth", "mail", "--recipient", "postmaster@example.test"],
    );
    postfix.logged("ehlo=2 starttls=1 mail=1 rcpt=1 rset=1 quit=1 commands=7");
    wait_for("the last disconnect", || {
        (postfix.log().matches("disconnect from").count() >= 5).then_some(())
    });
    has_no_complaints(&postfix);
    is_ok(address, &["--depth", "connect"]);
}

#[test]
fn local_probes_are_taken_by_every_server_with_proxy_v2() {
    // Rule X12: six servers take LOCAL; these are those of the laboratory.
    let postfix = Postfix::start(&[Service::proxy(), Service::postscreen()]);
    let exim = Exim::start();
    let opensmtpd = OpenSmtpd::start();
    for server in [
        postfix.address(0),
        postfix.address(1),
        exim.proxy(),
        opensmtpd.proxy(),
    ] {
        for depth in ["banner", "ehlo"] {
            is_ok(server, &["--proxy", "v2", "--depth", depth]);
        }
    }
    wait_for("both disconnects", || {
        (postfix.log().matches("disconnect from").count() >= 2).then_some(())
    });
    has_no_complaints(&postfix);
    assert!(
        !exim.log().contains("unexpected disconnection"),
        "{}",
        exim.log()
    );
}

#[test]
fn version_1_probes_tell_the_real_addresses() {
    let postfix = Postfix::start(&[Service::proxy()]);
    let haraka = Haraka::start();
    let exim = Exim::start();
    for server in [postfix.address(0), haraka.address(), exim.proxy()] {
        for depth in ["banner", "ehlo"] {
            is_ok(server, &["--proxy", "v1", "--depth", depth]);
        }
    }
    has_no_complaints(&postfix);
}

#[test]
fn exim_and_opensmtpd_are_ok_without_proxy() {
    let exim = Exim::start();
    let opensmtpd = OpenSmtpd::start();
    for server in [exim.plain(), opensmtpd.plain()] {
        for depth in ["connect", "banner", "ehlo"] {
            is_ok(server, &["--depth", depth]);
        }
        is_ok(
            server,
            &["--depth", "mail", "--recipient", "postmaster@example.test"],
        );
    }
}

#[test]
fn a_header_to_a_postfix_that_expects_none_is_a_mismatch() {
    // Rule X13: version 1 makes every reply off by one, version 2 contains a QUIT.
    let postfix = Postfix::plain();
    for version in ["v1", "v2"] {
        let (code, line) = probe(postfix.address(0), &["--proxy", version]);
        assert_eq!(code, Some(2), "{version}: {line}");
        assert!(
            line.to_lowercase().contains("proxy"),
            "it names the cause: {line}"
        );
    }
}

#[test]
fn no_header_to_a_postfix_that_expects_one_is_not_ok() {
    let postfix = Postfix::start(&[Service::proxy()]);
    let (code, line) = probe(postfix.address(0), &[]);
    assert_eq!(code, Some(2), "{line}");
}

#[test]
fn a_postfix_that_cannot_start_smtpd_is_critical() {
    // Rule H2: its kernel accepts.
    let postfix = Postfix::start(&[Service::that_cannot_start()]);
    is_ok(postfix.address(0), &["--depth", "connect"]);
    let (code, line) = probe(postfix.address(0), &["--greeting-timeout", "1s"]);
    assert_eq!(code, Some(2), "{line}");
}

#[test]
fn a_pool_whose_backends_expect_no_header_finds_out_by_its_probes() {
    let postfix = Postfix::plain();
    let good = Postfix::start(&[Service::proxy()]);
    let pool = format!("identity = \"proxy-v2\"\n{QUICK_PROBES}");
    let posthouse = Posthouse::in_front_of(&[postfix.address(0), good.address(0)], &pool);
    let backend = posthouse.backend_becomes("b0", "down");
    assert!(
        backend.to_string().to_lowercase().contains("proxy"),
        "the cause is named: {backend}"
    );
    posthouse.backend_becomes("b1", "up");
}

#[test]
fn active_probes_leave_no_complaint_in_the_log_of_postfix() {
    // Rules P6 and H5.
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], QUICK_PROBES);
    wait_for("ten probes", || {
        (postfix.log().matches("ehlo=1 quit=1 commands=2").count() >= 10).then_some(())
    });
    drop(posthouse);
    // The last one may have been cut by the end of the program, in which case it is the only one.
    let log = postfix.log();
    assert!(log.matches("lost connection after").count() <= 1, "{log}");
    assert!(!log.contains("improper command pipelining"), "{log}");
}
