//! Mail through Posthouse into Exim, OpenSMTPD and Haraka, and with HAProxy in front.
//!
//! Rules X8–X12: which header each of them takes, and that ours is one of these.

use crate::lab::Client;
use crate::lab::exim::Exim;
use crate::lab::haproxy::Haproxy;
use crate::lab::haraka::Haraka;
use crate::lab::opensmtpd::OpenSmtpd;
use crate::lab::postfix::{Postfix, Service};
use crate::lab::posthouse::{Posthouse, QUICK_PROBES, Setup};
use crate::lab::swaks::accepted;

/// A client address that is not the balancer's own.
const FROM_77: &[&str] = &["--local-interface", "127.0.0.77"];

#[test]
fn exim_takes_mail_through_posthouse() {
    let exim = Exim::start();
    let posthouse = Posthouse::in_front_of(&[exim.plain()], QUICK_PROBES);
    accepted(posthouse.address(), FROM_77);
    exim.logged("<= sender@client.test H=(client.test) [127.0.0.1]");
    posthouse.backend_becomes("b0", "up");
}

#[test]
fn exim_sees_the_client_with_proxy_v2() {
    let exim = Exim::start();
    let pool = format!("identity = \"proxy-v2\"\n{QUICK_PROBES}");
    let posthouse = Posthouse::in_front_of(&[exim.proxy()], &pool);
    accepted(posthouse.address(), FROM_77);
    exim.logged("<= sender@client.test H=(client.test) [127.0.0.77]");
    // The probes came with LOCAL and were served.
    posthouse.backend_becomes("b0", "up");
}

#[test]
fn exim_sees_the_client_with_proxy_v1() {
    let exim = Exim::start();
    let pool = format!("identity = \"proxy-v1\"\n{QUICK_PROBES}");
    let posthouse = Posthouse::in_front_of(&[exim.proxy()], &pool);
    accepted(posthouse.address(), FROM_77);
    exim.logged("<= sender@client.test H=(client.test) [127.0.0.77]");
    posthouse.backend_becomes("b0", "up");
}

#[test]
fn opensmtpd_takes_mail_through_posthouse() {
    let opensmtpd = OpenSmtpd::start();
    let posthouse = Posthouse::in_front_of(&[opensmtpd.plain()], QUICK_PROBES);
    accepted(posthouse.address(), FROM_77);
    opensmtpd.logged("smtp message");
    posthouse.backend_becomes("b0", "up");
}

#[test]
fn opensmtpd_sees_the_client_with_proxy_v2() {
    let opensmtpd = OpenSmtpd::start();
    let pool = format!("identity = \"proxy-v2\"\n{QUICK_PROBES}");
    let posthouse = Posthouse::in_front_of(&[opensmtpd.proxy()], &pool);
    accepted(posthouse.address(), FROM_77);
    opensmtpd.logged("smtp connected address=127.0.0.77");
    posthouse.backend_becomes("b0", "up");
}

#[test]
fn haraka_sees_the_client_with_proxy_v1() {
    let haraka = Haraka::start();
    let pool = format!("identity = \"proxy-v1\"\n{QUICK_PROBES}");
    let posthouse = Posthouse::in_front_of(&[haraka.address()], &pool);
    accepted(posthouse.address(), FROM_77);
    haraka.logged("message from 127.0.0.77");
    // Rule X12: the probes came with the socket's real addresses, as v1 has no LOCAL.
    posthouse.backend_becomes("b0", "up");
}

#[test]
fn behind_haproxy_the_backend_sees_the_true_client() {
    // Rule X7: the address in HAProxy's header is the client's from then on.
    let postfix = Postfix::start(&[Service::proxy()]);
    let listener = "proxy_protocol = \"required\"\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
    let posthouse = Setup::new()
        .listener(listener)
        .pool("identity = \"proxy-v2\"", &[postfix.address(0)])
        .start();
    let haproxy = Haproxy::in_front_of(posthouse.address());
    accepted(haproxy.address(), FROM_77);
    postfix.logged("client=unknown[127.0.0.77]");
    posthouse.logged(&["127.0.0.77"]);
}

#[test]
fn a_client_that_bypasses_haproxy_is_not_served() {
    // Rule X1: without a header from a trusted address nothing is said.
    let postfix = Postfix::start(&[Service::proxy()]);
    let listener = "proxy_protocol = \"required\"\ntrusted_proxies = [\"192.0.2.0/24\"]\n";
    let posthouse = Setup::new()
        .listener(listener)
        .pool("identity = \"proxy-v2\"", &[postfix.address(0)])
        .start();
    let mut client = Client::dial(posthouse.address()).expect("the kernel accepts");
    assert!(client.line().is_err(), "it was served");
}
