//! The servers by themselves, without Posthouse: what the other tests take for granted.
//!
//! When one of these fails, the laboratory is at fault, not the product.

use crate::lab::exim::Exim;
use crate::lab::haproxy::Haproxy;
use crate::lab::haraka::Haraka;
use crate::lab::opensmtpd::OpenSmtpd;
use crate::lab::postfix::{Postfix, Service};
use crate::lab::swaks::accepted;
use crate::lab::{Client, smtp_source, wait_for};

/// swaks sends a PROXY v2 header for this client.
const AS_A_CLIENT_V2: &[&str] = &[
    "--proxy-version",
    "2",
    "--proxy-family",
    "AF_INET",
    "--proxy-protocol",
    "STREAM",
    "--proxy-command",
    "PROXY",
    "--proxy-source",
    "203.0.113.9",
    "--proxy-source-port",
    "4321",
    "--proxy-dest",
    "192.0.2.25",
    "--proxy-dest-port",
    "25",
];

/// The same in version 1.
const AS_A_CLIENT_V1: &[&str] = &[
    "--proxy-version",
    "1",
    "--proxy-family",
    "TCP4",
    "--proxy-source",
    "203.0.113.9",
    "--proxy-source-port",
    "4321",
    "--proxy-dest",
    "192.0.2.25",
    "--proxy-dest-port",
    "25",
];

#[test]
fn postfix_takes_mail_and_believes_proxy_headers() {
    let postfix = Postfix::start(&[Service::plain(), Service::proxy()]);
    accepted(postfix.address(0), &[]);
    postfix.logged("client=unknown[127.0.0.1]");
    accepted(postfix.address(1), AS_A_CLIENT_V2);
    postfix.logged("client=unknown[203.0.113.9]");
    accepted(postfix.address(1), AS_A_CLIENT_V1);
    wait_for("three messages", || (postfix.messages() == 3).then_some(()));
}

#[test]
fn postfix_at_its_process_limit_accepts_and_stays_silent() {
    let postfix = Postfix::start(&[Service::plain().with_processes(1)]);
    let first = Client::greeted(postfix.address(0));
    let second = Client::dial(postfix.address(0)).expect("the kernel accepts for Postfix");
    let moment = std::time::Duration::from_millis(300);
    second
        .socket()
        .set_read_timeout(Some(moment))
        .expect("a timeout can be set");
    let mut octet = [0];
    let read = std::io::Read::read(&mut second.socket(), &mut octet);
    assert!(
        read.is_err(),
        "rule S7: no greeting while the only smtpd is busy, but {read:?}"
    );
    first.quit();
}

#[test]
fn postscreen_sends_its_teaser_first_and_the_greeting_later() {
    let postfix = Postfix::start(&[Service::postscreen()]);
    let transcript = accepted(postfix.address(0), AS_A_CLIENT_V2);
    assert!(transcript.contains("<-  220-"), "{transcript}");
    postfix.logged("CONNECT from [203.0.113.9]:4321");
    postfix.logged("PASS NEW [203.0.113.9]:4321");
}

#[test]
fn exim_takes_mail_and_believes_proxy_v2() {
    let exim = Exim::start();
    accepted(exim.plain(), &[]);
    exim.logged("<= sender@client.test H=(client.test) [127.0.0.1]");
    accepted(exim.proxy(), AS_A_CLIENT_V2);
    exim.logged("<= sender@client.test H=(client.test) [203.0.113.9]");
}

#[test]
fn opensmtpd_takes_mail_and_believes_proxy_v2() {
    let opensmtpd = OpenSmtpd::start();
    accepted(opensmtpd.plain(), &[]);
    opensmtpd.logged("smtp message");
    accepted(opensmtpd.proxy(), AS_A_CLIENT_V2);
    opensmtpd.logged("smtp connected address=203.0.113.9");
}

#[test]
fn haraka_takes_mail_and_believes_proxy_v1() {
    let haraka = Haraka::start();
    accepted(haraka.address(), AS_A_CLIENT_V1);
    haraka.logged("message from 203.0.113.9");
}

#[test]
fn haproxy_tells_postfix_who_the_client_is() {
    let postfix = Postfix::start(&[Service::proxy()]);
    let haproxy = Haproxy::in_front_of(postfix.address(0));
    accepted(haproxy.address(), &[]);
    postfix.logged("client=unknown[127.0.0.1]");
}

#[test]
fn postfix_speaks_tls_by_starttls_and_from_the_first_octet() {
    let postfix = Postfix::start(&[Service::plain(), Service::wrapped_in_tls()]);
    let transcript = accepted(postfix.address(0), &["--tls"]);
    assert!(transcript.contains("=== TLS started"), "{transcript}");
    let transcript = accepted(postfix.address(1), &["--tls-on-connect"]);
    assert!(transcript.contains("=== TLS started"), "{transcript}");
}

#[test]
fn smtp_source_counts_what_postfix_counts() {
    let mut postfix = Postfix::plain();
    smtp_source::send(postfix.address(0), 50, 5);
    wait_for("50 messages", || (postfix.messages() == 50).then_some(()));
    postfix.kill();
    assert!(
        Client::dial(postfix.address(0)).is_err(),
        "a killed Postfix does not listen"
    );
}
