//! `posthouse check --live`: the table an operator looks at before traffic is let in.

use crate::lab::Port;
use crate::lab::postfix::{Postfix, Service};
use crate::lab::posthouse::{Setup, posthouse, said};

fn check_live(setup: &Setup) -> (Option<i32>, String) {
    let (_folder, file) = setup.write();
    let output = posthouse(&[
        "check",
        "--live",
        "-c",
        file.to_str().expect("our path is UTF-8"),
    ]);
    (output.status.code(), said(&output))
}

#[test]
fn the_table_shows_greeting_keywords_and_certificate_of_postfix() {
    let postfix = Postfix::start_trusting("192.0.2.0/24", &[Service::plain()]);
    let setup = Setup::new().listener("").pool("", &[postfix.address(0)]);
    let (code, table) = check_live(&setup);
    assert_eq!(code, Some(0), "{table}");
    for shown in [
        "b0",
        "postfix.test ESMTP Postfix",
        "PIPELINING",
        "STARTTLS",
        " days",
        "USABLE",
    ] {
        assert!(table.contains(shown), "{shown:?} is missing in:\n{table}");
    }
}

#[test]
fn an_open_relay_through_us_is_found() {
    // Rule D11: our address is in mynetworks, and nothing tells Postfix who the client is.
    let postfix = Postfix::start(&[Service::plain()]);
    let setup = Setup::new().listener("").pool("", &[postfix.address(0)]);
    let (_, table) = check_live(&setup);
    assert!(table.to_lowercase().contains("open relay"), "{table}");
}

#[test]
fn a_postfix_that_refuses_foreign_domains_is_no_open_relay() {
    let postfix = Postfix::start_trusting("192.0.2.0/24", &[Service::plain()]);
    let setup = Setup::new().listener("").pool("", &[postfix.address(0)]);
    let (_, table) = check_live(&setup);
    assert!(!table.to_lowercase().contains("open relay"), "{table}");
}

#[test]
fn a_proxy_mismatch_is_shown_and_fails_the_check() {
    // Rule X13.
    let postfix = Postfix::plain();
    let setup = Setup::new()
        .listener("")
        .pool("identity = \"proxy-v2\"", &[postfix.address(0)]);
    let (code, table) = check_live(&setup);
    assert_ne!(code, Some(0), "{table}");
    assert!(table.to_lowercase().contains("mismatch"), "{table}");
}

#[test]
fn a_backend_that_nobody_answers_for_fails_the_check() {
    let nobody = Port::take();
    let setup = Setup::new().listener("").pool("", &[nobody.address()]);
    let (code, table) = check_live(&setup);
    assert_ne!(code, Some(0), "{table}");
    assert!(table.contains("refused"), "{table}");
}

#[test]
fn a_postfix_without_ipv6_refuses_clients_that_come_by_ipv6_and_that_is_a_finding() {
    // The instances of these tests have `inet_protocols = ipv4`, as many a real one.
    let postfix = Postfix::start_trusting("192.0.2.0/24", &[Service::proxy()]);
    let six = "\n[listeners.six]\nbind = \"[::1]:25\"\npool = \"mx\"\n";
    for (identity, listener, code) in [
        ("proxy-v2", six, 1),
        ("proxy-v1", six, 1),
        ("proxy-v2", "", 0),
    ] {
        let pool = format!("identity = \"{identity}\"");
        let setup = Setup::new()
            .listener(listener)
            .pool(&pool, &[postfix.address(0)]);
        let (status, table) = check_live(&setup);
        assert_eq!(status, Some(code), "{table}");
        let said = ["not IPv6", "421 4.3.0", "inet_protocols = all"];
        for word in said {
            assert_eq!(table.contains(word), code == 1, "{word} in\n{table}");
        }
    }
}
