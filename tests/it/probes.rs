//! Probes against scripted backends, and what they do to a pool (rules H1–H7, X12, X13, T2).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use posthouse::balance::{BackendState, FailureKind, HealthState, Stage};
use posthouse::config::Config;
use posthouse::config::model::{
    AdminState, Backend, BackendAddress, Depth, GreetingMode, Identity,
};
use posthouse::control::probe::{
    Header, Opening, Plan, ProbeResult, ProbeTls, ProxyVerdict, RelayTest, Starttls, Target, Trust,
    probe_once,
};
use posthouse::control::{BackendChange, Handle};
use posthouse::lab::{At, Script};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::whole::{config, dead, eventually, listener, pool, replace, run, sink, wait};

fn target(address: SocketAddr) -> Target {
    Target {
        address,
        host: None,
        opening: Opening::Smtp,
        header: Header::None,
        source: None,
        interface: None,
        freebind: false,
    }
}

fn plan(depth: Depth) -> Plan {
    Plan {
        depth,
        ehlo_name: Arc::from("lb.test"),
        recipient: Some(Arc::from("postmaster@one.test")),
        connect_timeout: Duration::from_secs(3),
        greeting_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        trust: Trust::Any,
        relay_test: None,
    }
}

fn probe(target: &Target, plan: &Plan) -> ProbeResult {
    wait(probe_once(target, plan, &ProbeTls::new().unwrap()))
}

#[test]
fn a_good_backend_is_asked_politely_and_its_keywords_are_kept() {
    let backend = sink("one.test", Script::good());
    let result = probe(&target(backend.address()), &plan(Depth::Ehlo));
    assert_eq!((result.failure, result.stage), (None, Stage::Ehlo));
    let text = result.greeting_text.as_deref().unwrap();
    assert!(text.contains("one.test"), "{text}");
    assert!(result.keywords.iter().any(|word| &**word == "8BITMIME"));
    assert_eq!(result.starttls, Starttls::Absent);
    assert_eq!(result.proxy, ProxyVerdict::NotSent);
    let steps: Vec<_> = result.steps.iter().map(|step| step.name).collect();
    assert_eq!(steps, ["connect", "greeting", "ehlo", "quit"]);
    assert!(result.connect.is_some() && result.greeting.is_some());
    // H5: QUIT, the 221, and only then the end.
    let counts = wait(backend.wait_for(|counts| counts.open == 0)).unwrap();
    assert_eq!((counts.quits, counts.lost, counts.resets), (1, 0, 0));
}

#[test]
fn a_connect_probe_says_nothing() {
    let backend = sink("one.test", Script::good());
    let result = probe(&target(backend.address()), &plan(Depth::Connect));
    assert_eq!((result.failure, result.stage), (None, Stage::Connect));
    let counts = wait(backend.wait_for(|counts| counts.open == 0 && counts.connections == 1));
    assert_eq!(counts.unwrap().ehlos, 0);
}

#[test]
fn a_mail_probe_takes_everything_back_and_sends_no_message() {
    let backend = sink("one.test", Script::good());
    let result = probe(&target(backend.address()), &plan(Depth::Mail));
    assert_eq!((result.failure, result.stage), (None, Stage::Mail));
    let counts = backend.counts();
    assert_eq!((counts.mails, counts.recipients), (1, 1));
    assert_eq!((counts.rsets, counts.messages), (1, 0));
}

#[test]
fn each_way_to_fail_has_its_name_and_stage() {
    let greeting = |reply: &str| sink("one.test", Script::greeting(reply));
    let at = |at: At| sink("one.test", Script::good().reply(at, "550 5.0.0 no"));
    let plan = plan(Depth::Mail);
    let mut short = plan.clone();
    short.greeting_timeout = Duration::from_millis(100);
    let silent = sink("one.test", Script::silent());
    let closing = sink("one.test", Script::good().close_at(At::Greeting));
    let resetting = sink("one.test", Script::good().reset_at(At::Ehlo));
    let (busy, no) = (greeting("421 4.3.0 not now"), greeting("554 5.3.2 no"));
    let (ehlo, rcpt) = (at(At::Ehlo), at(At::Rcpt));
    for (backend, stage, kind, code) in [
        (&silent, Stage::Greeting, FailureKind::Timeout, None),
        (&closing, Stage::Greeting, FailureKind::Closed, None),
        (&resetting, Stage::Ehlo, FailureKind::Reset, None),
        (&busy, Stage::Greeting, FailureKind::Temporary, Some(421)),
        (&no, Stage::Greeting, FailureKind::Permanent, Some(554)),
        (&ehlo, Stage::Ehlo, FailureKind::Permanent, Some(550)),
        (&rcpt, Stage::Mail, FailureKind::Permanent, Some(550)),
    ] {
        let patience = match kind {
            FailureKind::Timeout => &short,
            _ => &plan,
        };
        let result = probe(&target(backend.address()), patience);
        let seen = (result.stage, result.failure);
        assert_eq!(seen, (stage, Some(kind)), "{result:?}");
        if code.is_some() {
            assert_eq!(result.code, code, "{result:?}");
        }
    }
    let result = probe(&target(dead()), &plan);
    let seen = (result.stage, result.failure);
    assert_eq!(seen, (Stage::Connect, Some(FailureKind::Refused)));
}

#[test]
fn a_source_we_do_not_have_is_our_own_fault() {
    let backend = sink("one.test", Script::good());
    let mut target = target(backend.address());
    target.source = Some("192.0.2.1".parse().unwrap());
    let result = probe(&target, &plan(Depth::Ehlo));
    assert_eq!(result.failure, Some(FailureKind::Local), "{result:?}");
}

#[test]
fn a_full_backend_is_good_but_full_h4() {
    let full = "421 4.3.2 too many connections";
    let backend = sink("one.test", Script::greeting(full));
    let result = probe(&target(backend.address()), &plan(Depth::Ehlo));
    assert!(result.full && result.failure.is_none(), "{result:?}");
}

#[test]
fn v2_pools_get_a_local_header_x12() {
    let backend = sink("one.test", Script::good().proxy_required());
    let mut target = target(backend.address());
    target.header = Header::V2;
    let result = probe(&target, &plan(Depth::Ehlo));
    assert_eq!(result.failure, None, "{result:?}");
    assert_eq!(result.proxy, ProxyVerdict::Accepted);
    let header = &backend.proxy_headers()[0];
    assert_eq!((header.version, header.source), (2, None));
}

#[test]
fn v1_pools_get_the_sockets_own_addresses_x12() {
    let backend = sink("one.test", Script::good().proxy_required());
    let mut target = target(backend.address());
    target.header = Header::V1;
    let result = probe(&target, &plan(Depth::Ehlo));
    assert_eq!(result.failure, None, "{result:?}");
    let header = &backend.proxy_headers()[0];
    assert_eq!(header.version, 1);
    assert_eq!(header.destination, Some(backend.address()));
    assert!(header.source.unwrap().ip().is_loopback());
}

#[test]
fn a_header_that_is_taken_for_commands_is_a_mismatch_x13() {
    let backend = sink("one.test", Script::good());
    for header in [Header::V1, Header::V2] {
        let mut target = target(backend.address());
        target.header = header;
        let result = probe(&target, &plan(Depth::Ehlo));
        assert_eq!(
            result.failure,
            Some(FailureKind::ProxyMismatch),
            "{result:?}"
        );
        assert_eq!(result.proxy, ProxyVerdict::Mismatch);
    }
}

#[test]
fn an_open_relay_is_told_from_a_closed_one_h7() {
    let mut plan = plan(Depth::Ehlo);
    plan.relay_test = Some(Arc::from("nobody@elsewhere.invalid"));
    let open = sink("one.test", Script::good());
    let refusing = Script::good().reply(At::Rcpt, "554 5.7.1 relay access denied");
    let closed = sink("two.test", refusing);
    for (backend, relay) in [(open, RelayTest::Accepted), (closed, RelayTest::Refused)] {
        let result = probe(&target(backend.address()), &plan);
        assert_eq!((result.failure, result.relay), (None, Some(relay)));
        assert_eq!(backend.counts().messages, 0);
    }
}

/// A backend that speaks TLS: the sinks do not.
struct TlsBackend {
    address: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// STARTTLS, in order.
    Starttls,
    /// The same, with a reply to a command nobody sent behind the 220 (CVE-2021-38371).
    Injection,
    /// TLS from the first octet.
    Implicit,
}

impl TlsBackend {
    fn start(speaks: Speaks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut wanted = rcgen::CertificateParams::new(vec!["mx.test".to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(2100, 1, 1);
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        let subject = (rcgen::DnType::CommonName, "mx.test");
        wanted.distinguished_name.push(subject.0, subject.1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = wanted.self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let server = Arc::new(server);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that does not like the certificate leaves in the middle.
                let _ = serve(stream.unwrap(), speaks, &server);
            }
        });
        Self { address }
    }
}

fn serve(
    mut clear: std::net::TcpStream,
    speaks: Speaks,
    server: &Arc<rustls::ServerConfig>,
) -> std::io::Result<()> {
    if speaks != Speaks::Implicit {
        clear.write_all(b"220 mx.test ESMTP\r\n")?;
        command(&mut clear, "EHLO")?;
        clear.write_all(b"250-mx.test\r\n250-STARTTLS\r\n250 SIZE 1\r\n")?;
        if command(&mut clear, "")?.starts_with("QUIT") {
            return clear.write_all(b"221 bye\r\n");
        }
        let more: &[u8] = match speaks {
            Speaks::Injection => b"220 go\r\n250 injected\r\n",
            Speaks::Starttls | Speaks::Implicit => b"220 go\r\n",
        };
        clear.write_all(more)?;
    }
    let connection = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, clear);
    if speaks == Speaks::Implicit {
        tls.write_all(b"220 mx.test ESMTP\r\n")?;
    }
    command(&mut tls, "EHLO")?;
    tls.write_all(b"250-mx.test\r\n250 AUTH PLAIN\r\n")?;
    command(&mut tls, "QUIT")?;
    tls.write_all(b"221 bye\r\n")
}

fn command(stream: &mut impl Read, verb: &str) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut octet = [0];
    while !line.ends_with(b"\r\n") {
        if stream.read(&mut octet)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        line.push(octet[0]);
    }
    let line = String::from_utf8(line).unwrap();
    assert!(line.starts_with(verb), "{line:?}");
    Ok(line)
}

#[test]
fn starttls_is_tried_and_the_certificate_looked_at() {
    let backend = TlsBackend::start(Speaks::Starttls);
    let result = probe(&target(backend.address), &plan(Depth::Starttls));
    assert_eq!((result.failure, result.stage), (None, Stage::Starttls));
    assert_eq!(result.starttls, Starttls::Works);
    let certificate = result.certificate.as_ref().unwrap();
    assert_eq!(certificate.subject, "CN=mx.test");
    assert!(certificate.days_left > 20_000, "{certificate:?}");
    assert_eq!(
        result.report().certificate_days,
        Some(certificate.days_left)
    );
    // T3: what was announced in clear text is forgotten.
    assert_eq!(&*result.keywords[0], "AUTH PLAIN");
    let shallow = probe(&target(backend.address), &plan(Depth::Ehlo));
    assert_eq!(shallow.starttls, Starttls::Offered);
}

#[test]
fn octets_behind_the_reply_to_starttls_are_never_read_as_said_within_t2() {
    let backend = TlsBackend::start(Speaks::Injection);
    let result = probe(&target(backend.address), &plan(Depth::Starttls));
    assert_eq!(result.stage, Stage::Starttls);
    assert_eq!(result.failure, Some(FailureKind::Garbage), "{result:?}");
    assert!(result.certificate.is_none());
}

#[test]
fn a_certificate_nobody_vouches_for_fails_where_that_is_asked_t10() {
    let backend = TlsBackend::start(Speaks::Starttls);
    let mut plan = plan(Depth::Starttls);
    plan.trust = Trust::SystemRoots;
    let mut target = target(backend.address);
    target.host = Some(Arc::from("mx.test"));
    let result = probe(&target, &plan);
    assert_eq!(result.failure, Some(FailureKind::Tls), "{result:?}");
    assert_eq!(result.starttls, Starttls::Failed);
}

#[test]
fn a_tls_port_is_greeted_within_tls() {
    let backend = TlsBackend::start(Speaks::Implicit);
    let mut implicit = target(backend.address);
    implicit.opening = Opening::Tls;
    let result = probe(&implicit, &plan(Depth::Starttls));
    assert_eq!((result.failure, result.stage), (None, Stage::Ehlo));
    assert!(result.certificate.is_some());
    assert!(result.greeting_text.is_some());
}

#[test]
fn a_clear_text_port_is_no_tls_port() {
    let backend = sink("one.test", Script::good());
    let mut implicit = target(backend.address());
    implicit.opening = Opening::Tls;
    let result = probe(&implicit, &plan(Depth::Ehlo));
    assert_eq!(result.failure, Some(FailureKind::Tls), "{result:?}");
}

/// [`config`] with quick probes.
fn probed(backends: &[(&str, SocketAddr)]) -> Config {
    let mut config = config(backends);
    let health = &mut pool(&mut config).health;
    health.probe = true;
    (health.interval, health.fast_interval) =
        (Duration::from_millis(20), Duration::from_millis(10));
    (health.rise, health.fall) = (2, 3);
    config
}

fn state(handle: &Handle, pool: &str, name: &str) -> Arc<BackendState> {
    let states = handle.shared().registry.backends();
    let found = states
        .iter()
        .find(|state| (&**state.pool(), &**state.name()) == (pool, name));
    Arc::clone(found.unwrap())
}

fn health(state: &BackendState) -> HealthState {
    state.view(std::time::Instant::now()).health
}

#[test]
fn a_backend_that_dies_goes_down_and_comes_back() {
    let backend = sink("one.test", Script::good());
    let running = run(probed(&[("one", backend.address())]));
    let one = state(running.handle(), "mx", "one");
    eventually("it is up", || health(&one) == HealthState::Up);
    wait(backend.stop());
    eventually("it is down", || health(&one) == HealthState::Down);
    let cause = one.view(std::time::Instant::now()).cause;
    assert_eq!(cause.origin, "probe");
    assert_eq!(cause.kind, Some(FailureKind::Refused));
    wait(backend.restart()).unwrap();
    eventually("it is up again", || health(&one) == HealthState::Up);
    let control = &running.handle().shared().control;
    // A result shows before it is counted.
    eventually("fall is 3", || control.probes_bad.value() >= 3);
    eventually("1 and rise", || control.probes_good.value() >= 3);
    eventually("each change counts", || control.state_changes.value() >= 3);
}

#[test]
fn two_pools_share_one_probe_and_other_questions_get_their_own() {
    let backend = sink("one.test", Script::good().proxy_required());
    let mut config = probed(&[("one", backend.address())]);
    pool(&mut config).identity = Identity::ProxyV2;
    pool(&mut config).health.interval = Duration::from_hours(1);
    let mut same = pool(&mut config).clone();
    same.balance = posthouse::config::model::Balance::RoundRobin;
    let mut other = same.clone();
    other.identity = Identity::ProxyV1;
    config.pools.insert(Arc::from("same"), same);
    config.pools.insert(Arc::from("other"), other);
    let running = run(config);
    for pool in ["mx", "same", "other"] {
        let state = state(running.handle(), pool, "one");
        eventually("it is up", || health(&state) == HealthState::Up);
    }
    assert_eq!(backend.counts().connections, 2);
}

#[test]
fn backends_in_maintenance_are_not_probed_until_they_are_ready_again() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let mut config = probed(&[("one", one.address()), ("two", two.address())]);
    let maint = pool(&mut config).backends.get_mut("one").unwrap();
    maint.state = AdminState::Maint;
    let running = run(config);
    wait(two.wait_for(|counts| counts.connections >= 10)).unwrap();
    assert_eq!(one.counts().connections, 0);
    let ready = BackendChange {
        state: Some(AdminState::Ready),
        weight: None,
        who: Arc::from("test"),
    };
    wait(running.handle().set_backend("mx", "one", ready)).unwrap();
    wait(one.wait_for(|counts| counts.connections >= 1)).unwrap();
}

#[test]
fn a_reload_probes_what_is_new_and_leaves_what_is_gone() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let before = probed(&[("one", one.address())]);
    let running = run(before.clone());
    wait(one.wait_for(|counts| counts.connections >= 2)).unwrap();
    let mut after = before;
    let backends = &mut pool(&mut after).backends;
    backends.remove("one");
    let backend = Backend::at(BackendAddress::Literal(two.address()));
    backends.insert(Arc::from("two"), backend);
    assert!(replace(running.handle(), after).ok);
    wait(two.wait_for(|counts| counts.connections >= 2)).unwrap();
    // At most the one that was under way when the reload came.
    let left = one.counts().connections;
    wait(two.wait_for(|counts| counts.connections >= 12)).unwrap();
    assert!(one.counts().connections <= left + 1);
}

#[test]
fn the_pool_of_a_tls_listener_is_probed_within_tls() {
    let backend = TlsBackend::start(Speaks::Implicit);
    let mut config = probed(&[("one", backend.address)]);
    listener(&mut config).greeting = GreetingMode::None;
    let running = run(config);
    let one = state(running.handle(), "mx", "one");
    eventually("it is up", || health(&one) == HealthState::Up);
    let (_, report) = one.view(std::time::Instant::now()).last_probe.unwrap();
    assert!(report.certificate_days.is_some());
}

#[test]
fn a_mismatched_header_keeps_a_backend_out_x13() {
    let backend = sink("one.test", Script::good());
    let mut config = probed(&[("one", backend.address())]);
    pool(&mut config).identity = Identity::ProxyV2;
    let running = run(config);
    let one = state(running.handle(), "mx", "one");
    eventually("it is down", || health(&one) == HealthState::Down);
    let cause = one.view(std::time::Instant::now()).cause;
    assert_eq!(cause.kind, Some(FailureKind::ProxyMismatch));
}

#[test]
fn probes_go_on_beside_max_connections() {
    let backend = sink("one.test", Script::good());
    let mut config = probed(&[("one", backend.address())]);
    let one = pool(&mut config).backends.get_mut("one").unwrap();
    one.max_connections = 1;
    let running = run(config);
    let at = crate::whole::address(running.handle(), "mx");
    let _session = crate::whole::Peer::greeted_by(at, "one.test");
    let seen = backend.counts().connections;
    wait(backend.wait_for(|counts| counts.connections > seen)).unwrap();
    let one = state(running.handle(), "mx", "one");
    assert_eq!(one.open(), 1, "probes take no place");
}
