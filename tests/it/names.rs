//! Backends given by name: what one name leads to holds nothing else back.

use std::net::SocketAddr;
use std::sync::Arc;

use posthouse::config::Config;
use posthouse::config::model::{AddressFamily, Backend, BackendAddress};
use posthouse::control::Handle;
use posthouse::lab::Script;

use crate::whole::{Peer, address, config, dead, eventually, listener, pool, replace, run, sink};

/// A backend of the pool `mx` at `localhost`, which every resolver knows.
fn add(config: &mut Config, name: &str, port: u16) {
    let address = BackendAddress::Name {
        host: Arc::from("localhost"),
        port,
    };
    let mut backend = Backend::at(address);
    backend.family = AddressFamily::Ipv4;
    pool(config).backends.insert(Arc::from(name), backend);
}

/// The backends without an address, each with its cause.
fn without_address(handle: &Handle) -> Vec<(String, String)> {
    let snapshot = handle.shared().current.load();
    let view = snapshot.pool_named("mx").expect("the pool");
    let texts =
        |none: &posthouse::snapshot::Unresolved| (none.backend.to_string(), none.cause.to_string());
    view.unresolved.iter().map(texts).collect()
}

fn addresses(handle: &Handle, backend: &str) -> Vec<SocketAddr> {
    let snapshot = handle.shared().current.load();
    let view = snapshot.pool_named("mx").expect("the pool");
    let members = view.pool.members().iter();
    let of_name = members.filter(|member| &*member.settings.name == backend);
    of_name.map(|member| member.settings.address).collect()
}

#[test]
fn rule_m5_a_name_that_leads_back_to_us_holds_nothing_back() {
    let one = sink("one.test", Script::good());
    let at = dead();
    let mut given = config(&[]);
    listener(&mut given).bind = vec![at];
    add(&mut given, "ours", at.port());
    add(&mut given, "well", one.address().port());
    let running = run(given.clone());
    let handle = running.handle();
    let [(name, cause)] = &without_address(handle)[..] else {
        panic!("one leads to us: {:?}", without_address(handle));
    };
    assert_eq!(name, "ours");
    let expected = format!("{at} is this host, where listener mx listens on {at}");
    assert_eq!(*cause, expected);
    assert_eq!(addresses(handle, "well"), [one.address()]);
    Peer::greeted_by(at, "one.test").ask("QUIT");
    // An unrelated change.
    given.drain_timeout *= 2;
    let report = replace(handle, given);
    assert!(report.ok, "{report:?}");
    Peer::greeted_by(at, "one.test").ask("QUIT");
}

#[test]
fn a_name_whose_addresses_become_ours_by_a_reload_is_down_with_that_cause() {
    let one = sink("one.test", Script::good());
    let mut given = config(&[("other", one.address())]);
    let soon = dead();
    add(&mut given, "named", soon.port());
    let running = run(given.clone());
    let handle = running.handle();
    assert_eq!(addresses(handle, "named"), [soon]);
    let port = SocketAddr::from(([127, 0, 0, 1], 0));
    listener(&mut given).bind = vec![port, soon];
    let report = replace(handle, given);
    assert!(report.ok, "{report:?}");
    assert_eq!(addresses(handle, "named"), []);
    assert!(without_address(handle)[0].1.contains("is this host"));
    let at = address(handle, "mx");
    Peer::greeted_by(at, "one.test").ask("QUIT");
}

#[test]
fn a_family_that_a_name_has_no_address_of_leaves_none() {
    let one = sink("one.test", Script::good());
    let mut given = config(&[("other", one.address())]);
    let mut backend = Backend::at(BackendAddress::Name {
        host: Arc::from("name.invalid"),
        port: 25,
    });
    backend.family = AddressFamily::Ipv6;
    pool(&mut given).backends.insert(Arc::from("six"), backend);
    let running = run(given);
    let handle = running.handle();
    eventually("it says why", || {
        let [(name, cause)] = &without_address(handle)[..] else {
            return false;
        };
        name == "six" && cause.starts_with("name.invalid has no address: ")
    });
}
