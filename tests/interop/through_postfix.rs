//! Mail through Posthouse into Postfix: identity, failover at the greeting, TLS end to end, and how
//! a session ends.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::lab::postfix::{Postfix, Service};
use crate::lab::posthouse::{NO_PROBES, Posthouse, QUICK_PROBES, Setup};
use crate::lab::swaks::accepted;
use crate::lab::{Client, PATIENCE, wait_for};

#[test]
fn mail_goes_through_posthouse_into_postfix() {
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], "");
    let transcript = accepted(posthouse.address(), &[]);
    // The greeting and the EHLO reply are the backend's own.
    assert!(
        transcript.contains("<-  220 postfix.test ESMTP Postfix"),
        "{transcript}"
    );
    assert!(transcript.contains("<-  250-postfix.test"), "{transcript}");
    wait_for("one message", || (postfix.messages() == 1).then_some(()));
    posthouse.logged(&["session", "\"b0\"", "127.0.0.1"]);
}

/// The client comes from an address that is not ours, so the log shows whose Postfix took it for.
fn client_is_seen_with(identity: &str, service: Service) {
    let postfix = Postfix::start(&[service]);
    let pool = format!("identity = \"{identity}\"");
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], &pool);
    accepted(posthouse.address(), &["--local-interface", "127.0.0.77"]);
    postfix.logged("client=unknown[127.0.0.77]");
}

#[test]
fn postfix_sees_the_client_with_proxy_v1() {
    client_is_seen_with("proxy-v1", Service::proxy());
}

#[test]
fn postfix_sees_the_client_with_proxy_v2() {
    client_is_seen_with("proxy-v2", Service::proxy());
}

#[test]
fn postfix_sees_the_balancer_without_an_identity() {
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], "");
    accepted(posthouse.address(), &["--local-interface", "127.0.0.77"]);
    postfix.logged("client=unknown[127.0.0.1]");
    assert!(
        !postfix.log().contains("127.0.0.77"),
        "nothing carried the client's address"
    );
}

#[test]
fn postscreen_teaser_reaches_the_client_before_the_final_greeting() {
    // Rule S8: the commit is at the first `220-`, two seconds before postscreen's `220 `.
    let postfix = Postfix::start(&[Service::postscreen()]);
    let pool = format!("identity = \"proxy-v2\"\n{NO_PROBES}");
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], &pool);
    let mut client = Client::dial(posthouse.address()).expect("the listener accepts");
    let teaser = client.line().expect("the teaser comes");
    assert!(teaser.starts_with("220-"), "{teaser}");
    assert!(
        !postfix.log().contains("PASS NEW"),
        "the teaser was held back:\n{}",
        postfix.log()
    );
    let greeting = client.line().expect("the greeting comes");
    assert!(greeting.starts_with("220 "), "{greeting}");
    postfix.logged("PASS NEW [127.0.0.1]");
    let reply = client
        .message("through postscreen")
        .expect("the message is taken");
    assert_eq!(reply.code, 250, "{}", reply.text());
    client.quit();
}

#[test]
fn postscreen_is_up_for_probes_and_gives_them_no_bad_marks() {
    // Rules H6 and P6: a probe that talked before `220 ` would be logged as PREGREET.
    let postfix = Postfix::start(&[Service::postscreen()]);
    let pool = format!("identity = \"proxy-v2\"\n{QUICK_PROBES}");
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], &pool);
    posthouse.backend_becomes("b0", "up");
    wait_for("two whole probes", || {
        (postfix.log().matches("PASS NEW").count() >= 2).then_some(())
    });
    for bad in ["PREGREET", "HANGUP", "COMMAND", "NON-SMTP"] {
        assert!(!postfix.log().contains(bad), "{bad} in:\n{}", postfix.log());
    }
}

#[test]
fn postfix_at_its_process_limit_is_replaced_before_the_client_sees_anything() {
    // Rule S7: the second connection is accepted and never greeted.
    let full = Postfix::start(&[Service::plain().with_processes(1)]);
    let good = Postfix::plain();
    let occupant = Client::greeted(full.address(0));
    let pool = format!("balance = \"first\"\ngreeting_timeout = \"500ms\"\n{NO_PROBES}");
    let posthouse = Posthouse::in_front_of(&[full.address(0), good.address(0)], &pool);
    accepted(posthouse.address(), &[]);
    wait_for("the message at the other", || {
        (good.messages() == 1).then_some(())
    });
    assert_eq!(full.messages(), 0);
    occupant.quit();
}

#[test]
fn postfix_that_cannot_start_smtpd_is_replaced_and_then_avoided() {
    let broken = Postfix::start(&[Service::that_cannot_start()]);
    let good = Postfix::plain();
    let pool = format!("balance = \"first\"\ngreeting_timeout = \"500ms\"\n{NO_PROBES}");
    let posthouse = Posthouse::in_front_of(&[broken.address(0), good.address(0)], &pool);
    for _ in 0..6 {
        let mut client = Client::greeted(posthouse.address());
        assert_eq!(
            client.message("anyway").expect("the message is taken").code,
            250
        );
        client.quit();
    }
    wait_for("six messages at the other", || {
        (good.messages() == 6).then_some(())
    });
    // Five strikes in a row eject it (§7).
    posthouse.backend_becomes("b0", "ejected");
}

#[test]
fn probes_find_a_postfix_that_cannot_start_smtpd() {
    // Rule H2: a connect proves nothing.
    let broken = Postfix::start(&[Service::that_cannot_start()]);
    let good = Postfix::plain();
    let pool = format!("{QUICK_PROBES}greeting_timeout = \"300ms\"\n");
    let posthouse = Posthouse::in_front_of(&[broken.address(0), good.address(0)], &pool);
    posthouse.backend_becomes("b0", "down");
    posthouse.backend_becomes("b1", "up");
}

#[test]
fn starttls_is_end_to_end_with_the_certificate_of_postfix() {
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], "");
    let transcript = accepted(posthouse.address(), &["--tls"]);
    assert!(transcript.contains("=== TLS started"), "{transcript}");
    let shown = certificate_shown_by(posthouse.address(), &["-starttls", "smtp"]);
    assert_eq!(
        shown,
        certificate_shown_by(postfix.address(0), &["-starttls", "smtp"])
    );
    postfix.logged("TLS connection established from");
}

#[test]
fn port_465_is_passed_through_without_a_greeting() {
    let postfix = Postfix::start(&[Service::wrapped_in_tls()]);
    let setup = Setup::new().listener("greeting = \"none\"");
    let keys = "[pools.mx.health]\ndepth = \"connect\"\n";
    let posthouse = setup.pool(keys, &[postfix.address(0)]).start();
    accepted(posthouse.address(), &["--tls-on-connect"]);
    let shown = certificate_shown_by(posthouse.address(), &[]);
    assert_eq!(shown, certificate_shown_by(postfix.address(0), &[]));
}

#[test]
fn port_465_carries_the_client_in_front_of_the_client_hello() {
    // Rule X10: the header is a segment of its own before TLS begins.
    let service = Service::wrapped_in_tls().with("smtpd_upstream_proxy_protocol=haproxy");
    let postfix = Postfix::start(&[service]);
    let setup = Setup::new().listener("greeting = \"none\"");
    let keys = format!("identity = \"proxy-v2\"\n{NO_PROBES}");
    let posthouse = setup.pool(&keys, &[postfix.address(0)]).start();
    accepted(
        posthouse.address(),
        &["--tls-on-connect", "--local-interface", "127.0.0.77"],
    );
    postfix.logged("client=unknown[127.0.0.77]");
}

#[test]
fn a_pipelining_client_is_served_as_without_us() {
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], "");
    let transcript = accepted(posthouse.address(), &["--pipeline"]);
    let one_flight =
        "-> MAIL FROM:<sender@client.test>\n -> RCPT TO:<rcpt@example.test>\n -> DATA\n";
    assert!(
        transcript.contains(one_flight),
        "it did not pipeline:\n{transcript}"
    );
    postfix.logged("ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5");
}

#[test]
fn the_250_comes_back_after_the_client_half_closed_behind_the_final_dot() {
    // Rule K3: the FIN goes to Postfix in order, which answers all the same.
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], "");
    let mut client = Client::greeted(posthouse.address());
    client.up_to_data();
    client
        .send(b"Subject: half\r\n\r\nclosed\r\n.\r\n")
        .expect("the session is open");
    client.finish_sending();
    let reply = client.reply().expect("the reply to the final dot comes");
    assert_eq!(reply.code, 250, "{}", reply.text());
    assert!(client.is_at_end(), "Postfix closes after it, and so do we");
    wait_for("the message", || (postfix.messages() == 1).then_some(()));
}

#[test]
fn a_client_that_resets_within_the_message_leaves_none() {
    // Rules K4 and F2: the reset does not look like an orderly end.
    let postfix = Postfix::plain();
    let posthouse = Posthouse::in_front_of(&[postfix.address(0)], "");
    let mut client = Client::greeted(posthouse.address());
    client.up_to_data();
    client
        .send(b"Subject: cut\r\n\r\noff")
        .expect("the session is open");
    reset(client);
    postfix.logged("lost connection after DATA");
    assert_eq!(postfix.messages(), 0);
}

#[test]
fn a_reset_of_the_client_is_a_reset_at_the_backend() {
    // Rule K4.
    let backend = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = backend.local_addr().expect("it is bound");
    let posthouse = Posthouse::in_front_of(&[address], NO_PROBES);
    let client = Client::dial(posthouse.address()).expect("the listener accepts");
    let mut leg = greet(&backend);
    let mut client = read_greeting(client);
    client
        .send(b"EHLO client.test\r\n")
        .expect("the session is open");
    leg.read_exact(&mut [0; 18]).expect("the command comes");
    reset(client);
    let end = leg
        .read(&mut [0; 64])
        .expect_err("a reset is no orderly end");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_of_the_backend_is_a_reset_at_the_client() {
    // Rule K4.
    let backend = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = backend.local_addr().expect("it is bound");
    let posthouse = Posthouse::in_front_of(&[address], NO_PROBES);
    let client = Client::dial(posthouse.address()).expect("the listener accepts");
    let mut leg = greet(&backend);
    let mut client = read_greeting(client);
    // By what it says, the client shows that it has read what came before.
    client.send(b"NOOP\r\n").expect("the leg is open");
    leg.read_exact(&mut [0; 6]).expect("it is passed on");
    reset_socket(&leg);
    drop(leg);
    let end = client.line().expect_err("a reset is no orderly end");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Accepts one connection and greets it.
fn greet(backend: &TcpListener) -> std::net::TcpStream {
    use std::io::Write as _;
    let (mut leg, _) = backend.accept().expect("posthouse dials");
    leg.set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    leg.write_all(b"220 scripted.test\r\n")
        .expect("the leg is open");
    leg
}

fn read_greeting(mut client: Client) -> Client {
    let greeting = client.reply().expect("the greeting comes");
    assert_eq!(greeting.code, 220);
    client
}

/// Closes with RST.
fn reset(client: Client) {
    reset_socket(client.socket());
    drop(client);
}

fn reset_socket(socket: &std::net::TcpStream) {
    socket2::SockRef::from(socket)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER can be set");
}

/// The certificate that `openssl s_client` is shown, as PEM.
fn certificate_shown_by(server: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &server.to_string(),
            "-servername",
            "postfix.test",
        ])
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl is installed: run tests/install.sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = text
        .find("-----BEGIN CERTIFICATE")
        .unwrap_or_else(|| crate::lab::fail(&text));
    let end = text.find("-----END CERTIFICATE").expect("what begins ends");
    text[start..end].to_owned()
}
