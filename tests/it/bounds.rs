//! A refused client takes nothing from clients that are served (no session, no descriptor, no accept
//! rate) and not the places of other refused clients.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use posthouse::config::Config;
use posthouse::config::model::{Mode, ProxyIn};
use posthouse::identity::{HeaderOut, ProxyVersion};
use posthouse::metrics::SessionOutcome;
use posthouse::session::ClosingBounds;
use posthouse::types::{Networks, Rate};

use crate::harness::client::{Client, End};
use crate::harness::{Balancer, config, eventually, good, listener, workers_sum};

/// Served.
const FRIEND: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Denied, and a flood.
const FLOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Denied as well.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Another balancer.
const MONITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// Connections of the flood, held open: more than one address may have places.
const FLOOD_SIZE: usize = 200;

fn only(address: Ipv4Addr) -> Networks {
    Networks::new(vec![format!("{address}/32").parse().expect("a network")])
}

/// Denies two addresses, and knows a monitor.
fn guarded(config: &mut Config) {
    let denied = [FLOOD, OTHER].map(|address| format!("{address}/32").parse().expect("a network"));
    listener(config).deny = Networks::new(denied.to_vec());
    listener(config).monitor_networks = only(MONITOR);
}

/// Connections that were refused with this code, and are held open by the client.
async fn flood(balancer: &Balancer, code: &str) -> Vec<Client> {
    let mut held = Vec::new();
    for _ in 0..FLOOD_SIZE {
        let mut client = Client::connect_from(FLOOD, balancer.address).await;
        client.expect(code).await;
        held.push(client);
    }
    held
}

fn a_minute(count: u32) -> Rate {
    Rate {
        count,
        period: Duration::from_mins(1),
    }
}

#[tokio::test]
async fn a_flood_of_the_refused_takes_no_session_and_no_place_of_others() {
    let backend = good("one.test");
    for mode in [Mode::Passthrough, Mode::Smtp] {
        let mut config = config(&[backend.address()]);
        guarded(&mut config);
        listener(&mut config).mode = mode;
        listener(&mut config).max_sessions = 2;
        let balancer = Balancer::start(config);
        let held = flood(&balancer, "554").await;
        let bound = u64::from(ClosingBounds::of(20_000, 1).total());
        let closing = balancer.shared.closing();
        assert!(0 < closing && closing < bound.min(FLOOD_SIZE as u64));
        assert_eq!(balancer.shared.sessions(), 0);
        // Another denied client has its dialogue, and so has a monitor.
        for (address, words) in [(OTHER, ["554", "503"]), (MONITOR, ["220", "250"])] {
            let mut client = Client::connect_from(address, balancer.address).await;
            client.expect(words[0]).await;
            client.ask("EHLO client.test", words[1]).await;
            client.ask("QUIT", "221").await;
        }
        // Those who are served have all their sessions, and not one more.
        let mut served = Vec::new();
        for _ in 0..2 {
            let mut client = Client::connect_from(FRIEND, balancer.address).await;
            client.expect("220").await;
            served.push(client);
        }
        assert_eq!(balancer.shared.sessions(), 2);
        let mut third = Client::connect_from(FRIEND, balancer.address).await;
        third.expect("421 4.3.2").await;
        drop((held, served, third));
        balancer.wait_until_empty().await;
        let none = || balancer.shared.closing() == 0;
        eventually("all places are free again", none).await;
        assert_eq!(
            balancer.ended(SessionOutcome::Denied),
            FLOOD_SIZE as u64 + 1
        );
    }
}

/// A refused client without a place is told as well, and closed.
#[tokio::test]
async fn beyond_its_share_a_refused_address_is_told_and_closed_at_once() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    guarded(&mut config);
    let balancer = Balancer::start(config);
    let held = flood(&balancer, "554").await;
    let counted = workers_sum(&balancer.shared, |worker| worker.closed_at_once.value());
    assert_eq!(counted, FLOOD_SIZE as u64 - balancer.shared.closing());
    let mut last = held.into_iter().last().expect("there are many");
    assert_eq!(last.expect_end().await, End::Fin);
}

#[tokio::test]
async fn a_client_over_its_own_limit_leaves_the_sessions_to_others() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).max_sessions_per_client = 1;
    listener(&mut config).accept_rate = Some(a_minute(2));
    let balancer = Balancer::start(config);
    balancer.shared.session_limit.store(2, Ordering::Relaxed);
    let mut first = Client::connect_from(FLOOD, balancer.address).await;
    first.expect("220").await;
    let _held = flood(&balancer, "421 4.7.0").await;
    let mut friend = Client::connect_from(FRIEND, balancer.address).await;
    friend.expect("220").await;
    assert_eq!(balancer.shared.sessions(), 2);
}

#[tokio::test]
async fn neither_the_denied_nor_monitors_use_up_the_accept_rate() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    guarded(&mut config);
    listener(&mut config).accept_rate = Some(a_minute(1));
    let balancer = Balancer::start(config);
    for (address, code) in [
        (OTHER, "554"),
        (MONITOR, "220"),
        (FRIEND, "220"),
        (FRIEND, "421"),
    ] {
        let mut client = Client::connect_from(address, balancer.address).await;
        client.expect(code).await;
    }
}

/// The rate of a client counts what it used, not what others kept it from.
#[tokio::test]
async fn a_client_that_found_no_session_free_has_lost_none_of_its_rate() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).rate_per_client = Some(a_minute(1));
    listener(&mut config).max_sessions = 1;
    let balancer = Balancer::start(config);
    let mut other = Client::connect_from(OTHER, balancer.address).await;
    other.expect("220").await;
    for _ in 0..3 {
        let mut client = Client::connect_from(FRIEND, balancer.address).await;
        client.expect("421 4.3.2").await;
    }
    drop(other);
    balancer.wait_until_empty().await;
    for code in ["220", "421 4.7.0"] {
        let mut client = Client::connect_from(FRIEND, balancer.address).await;
        client.expect(code).await;
    }
}

#[tokio::test]
async fn a_client_denied_behind_a_proxy_header_gives_its_session_back() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    guarded(&mut config);
    listener(&mut config).proxy_protocol = ProxyIn::Required;
    listener(&mut config).trusted_proxies = only(FRIEND);
    listener(&mut config).max_sessions = 1;
    let balancer = Balancer::start(config);
    for (source, code) in [(FLOOD, "554"), (FLOOD, "554"), (FRIEND, "220")] {
        let client = (source, 4711).into();
        let header = HeaderOut::new(ProxyVersion::V2, client, balancer.address, None, b"", 232);
        let mut proxy = Client::connect_from(FRIEND, balancer.address).await;
        proxy.say(header.octets()).await;
        proxy.expect(code).await;
        // What was told stays open: the next has a session all the same.
        std::mem::forget(proxy);
    }
    // A peer that is not trusted is closed without having been one.
    let mut stranger = Client::connect_from(OTHER, balancer.address).await;
    stranger.expect_end().await;
    assert_eq!(balancer.shared.sessions(), 1);
    assert_eq!(balancer.ended(SessionOutcome::GlobalLimit), 0);
}

#[tokio::test]
async fn a_connection_that_lingers_behind_its_last_reply_is_no_session() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    listener(&mut config).mode = Mode::Smtp;
    listener(&mut config).max_sessions_per_client = 1;
    let balancer = Balancer::start(config);
    let mut client = Client::introduced(balancer.address).await;
    client.ask("QUIT", "221").await;
    // It does not close, and counts no more against its own limit either.
    eventually("the session is over", || balancer.shared.sessions() == 0).await;
    assert_eq!(balancer.shared.closing(), 1);
    let mut again = Client::connect(balancer.address).await;
    again.expect("220").await;
    drop(client);
    eventually("the place is free", || balancer.shared.closing() == 0).await;
}

#[tokio::test]
async fn a_bound_of_sessions_is_exact_over_all_workers() {
    const LIMIT: u32 = 7;
    let backend = good("one.test");
    let balancer = Balancer::with_workers(config(&[backend.address()]), 4);
    balancer
        .shared
        .session_limit
        .store(LIMIT, Ordering::Relaxed);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let address = balancer.address;
        asking.spawn(async move {
            let mut client = Client::connect(address).await;
            let greeting = client.reply().await;
            (greeting.starts_with("220"), client)
        });
    }
    let told = asking.join_all().await;
    let served = told.iter().filter(|(served, _)| *served).count();
    assert_eq!(served, LIMIT as usize);
    assert_eq!(balancer.shared.sessions(), LIMIT);
    balancer.wait_for(SessionOutcome::GlobalLimit, 93).await;
}

/// What the status calls sessions of a backend are those that it greeted, and now.
#[tokio::test]
async fn a_backend_s_sessions_are_those_it_greeted_from_the_greeting_on() {
    let backend = good("one.test");
    let mut config = config(&[backend.address()]);
    guarded(&mut config);
    let balancer = Balancer::start(config);
    let sessions = || {
        let totals = &balancer.backend("b0").totals;
        totals.sum(|totals| totals.sessions.value())
    };
    for (address, code) in [(OTHER, "554"), (MONITOR, "220")] {
        let mut client = Client::connect_from(address, balancer.address).await;
        client.expect(code).await;
    }
    assert_eq!(sessions(), 0);
    let mut client = Client::connect(balancer.address).await;
    client.expect("220").await;
    assert_eq!((sessions(), balancer.shared.sessions()), (1, 1));
    client.ask("QUIT", "221").await;
    drop(client);
    balancer.wait_until_empty().await;
    assert_eq!(sessions(), 1);
}
