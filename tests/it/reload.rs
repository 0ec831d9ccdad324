//! Reload: no connection refused, no session dropped, nothing forgotten, nothing half-done
//! (promise 5).

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use posthouse::config::model::{AdminState, Backend, BackendAddress, Listener, Pool};
use posthouse::config::{self};
use posthouse::control::{BackendChange, Handle, Running, StartOptions};
use posthouse::lab::Script;
use posthouse::telemetry;

use crate::whole::{
    Peer, address, config, dead, eventually, listener, pool, replace, run, run_with, sink, wait,
};

fn file(listen: SocketAddr, backend: SocketAddr, more: &str) -> String {
    format!(
        "workers = 2\n{more}\n[listeners.mx]\nbind = [\"{listen}\"]\nmode = \"passthrough\"\n\
         pool = \"mx\"\n[pools.mx.health]\nprobe = false\n[pools.mx.backends]\n\
         one = {{ address = \"{backend}\" }}\n"
    )
}

fn run_file(path: &Path) -> Running {
    let config = config::load(path).unwrap_or_else(|errors| panic!("{errors}"));
    let options = StartOptions {
        config_path: Some(path.to_path_buf()),
        ..StartOptions::default()
    };
    run_with(options, config)
}

fn generation(handle: &Handle) -> u64 {
    handle.shared().current.load().generation.0
}

#[test]
fn a_reload_leads_new_sessions_to_the_new_backends_and_keeps_the_old_session() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posthouse.toml");
    let at = dead();
    fs::write(&path, file(at, one.address(), "")).unwrap();
    let running = run_file(&path);
    let mut old = Peer::greeted_by(at, "one.test");
    fs::write(&path, file(at, two.address(), "")).unwrap();
    let report = wait(running.handle().reload("signal")).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.generation, report.trigger), (2, "signal"));
    assert!(!report.changes.is_empty(), "{report:?}");
    Peer::greeted_by(at, "two.test").ask("QUIT");
    assert!(old.ask("EHLO client.test").starts_with("250"));
    assert_eq!(running.handle().last_reload(), Some(report));
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_all_of_them_are_reported() {
    let one = sink("one.test", Script::good());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posthouse.toml");
    let at = dead();
    fs::write(&path, file(at, one.address(), "")).unwrap();
    let running = run_file(&path);
    let bad = file(at, one.address(), "drain_timeout = \"soon\"\nwach = true");
    fs::write(&path, bad).unwrap();
    let report = wait(running.handle().reload("http")).unwrap();
    assert!(!report.ok);
    assert_eq!(report.generation, 1);
    let text = report.mistakes.join("\n");
    assert!(
        text.contains("drain_timeout") && text.contains("wach"),
        "{text}"
    );
    assert_eq!(generation(running.handle()), 1);
    let control = &running.handle().shared().control;
    assert_eq!(
        (control.reloads.value(), control.reload_failures.value()),
        (0, 1)
    );
    Peer::greeted_by(at, "one.test").ask("QUIT");
}

#[test]
fn an_address_in_use_refuses_the_whole_reload() {
    let one = sink("one.test", Script::good());
    let before = config(&[("one", one.address())]);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = dead();
    let mut after = before;
    for (name, bind) in [("a", free), ("b", taken.local_addr().unwrap())] {
        let listener = Listener::new(vec![bind], "mx", "lb.test");
        after.listeners.insert(Arc::from(name), listener);
    }
    let report = replace(running.handle(), after);
    assert!(!report.ok);
    assert!(report.mistakes[0].contains("in use"), "{report:?}");
    assert!(TcpStream::connect(free).is_err(), "nothing half-done");
    assert_eq!(generation(running.handle()), 1);
    Peer::greeted_by(at, "one.test").ask("QUIT");
}

#[test]
fn a_reload_whose_sessions_do_not_fit_is_refused() {
    let before = config(&[]);
    let running = run(before.clone());
    let mut after = before;
    after.max_sessions = Some(u32::MAX);
    let report = replace(running.handle(), after);
    assert!(!report.ok);
    assert!(report.mistakes[0].contains("max_sessions"), "{report:?}");
}

#[test]
fn a_new_session_limit_takes_effect() {
    let before = config(&[]);
    let running = run(before.clone());
    let mut after = before;
    after.max_sessions = Some(20);
    assert!(replace(running.handle(), after).ok);
    let limit = &running.handle().shared().session_limit;
    assert_eq!(limit.load(Ordering::Relaxed), 20);
}

#[test]
fn a_removed_listener_stops_accepting_and_its_sessions_are_cut_after_the_drain_timeout() {
    let one = sink("one.test", Script::good());
    let mut before = config(&[("one", one.address())]);
    before.drain_timeout = Duration::from_millis(100);
    let extra = dead();
    let listener = Listener::new(vec![extra], "mx", "lb.test");
    before.listeners.insert(Arc::from("extra"), listener);
    let running = run(before.clone());
    let mut stays = Peer::greeted_by(address(running.handle(), "mx"), "one.test");
    let goes = Peer::greeted_by(extra, "one.test");
    let mut after = before;
    after.listeners.remove("extra");
    assert!(replace(running.handle(), after).ok);
    eventually("nobody listens", || TcpStream::connect(extra).is_err());
    goes.wait_for_end();
    assert!(stays.ask("EHLO client.test").starts_with("250"));
}

#[test]
fn sessions_of_a_removed_backend_are_cut_after_the_drain_timeout_and_no_others() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let mut before = config(&[("one", one.address()), ("two", two.address())]);
    before.drain_timeout = Duration::from_millis(100);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let cut = Peer::greeted_by(at, "one.test");
    let mut after = before;
    pool(&mut after).backends.remove("one");
    assert!(replace(running.handle(), after).ok);
    let mut stays = Peer::greeted_by(at, "two.test");
    cut.wait_for_end();
    assert!(stays.ask("EHLO client.test").starts_with("250"));
    // Forgotten, once nobody needs it.
    let registry = &running.handle().shared().registry;
    eventually("the backend is forgotten", || {
        registry.sweep(std::time::Instant::now());
        registry.backends().len() == 1
    });
}

#[test]
fn a_backend_that_comes_back_in_time_is_not_cut() {
    let one = sink("one.test", Script::good());
    let mut before = config(&[("one", one.address()), ("two", one.address())]);
    // The removal of `two` shows when the cuts of that reload are done.
    // Both reloads come within it.
    before.drain_timeout = Duration::from_secs(2);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let mut session = Peer::greeted_by(at, "one.test");
    let mut without = before.clone();
    pool(&mut without).backends.remove("one");
    assert!(replace(running.handle(), without).ok);
    let mut again = before;
    pool(&mut again).backends.remove("two");
    assert!(replace(running.handle(), again).ok);
    let registry = &running.handle().shared().registry;
    eventually("the other backend's cut is done", || {
        registry.sweep(std::time::Instant::now());
        registry.backends().len() == 1
    });
    assert!(session.ask("EHLO client.test").starts_with("250"));
}

#[test]
fn what_the_operator_said_and_what_was_counted_survive_a_reload() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let before = config(&[("one", one.address()), ("two", two.address())]);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    Peer::greeted_by(at, "one.test").ask("QUIT");
    let drain = BackendChange {
        state: Some(AdminState::Drain),
        weight: None,
        who: Arc::from("test"),
    };
    wait(running.handle().set_backend("mx", "one", drain.clone())).unwrap();
    let mut after = before;
    listener(&mut after).idle_timeout = Duration::from_secs(99);
    assert!(replace(running.handle(), after).ok);
    Peer::greeted_by(at, "two.test").ask("QUIT");
    let registry = &running.handle().shared().registry;
    let states = registry.backends();
    let state = states
        .iter()
        .find(|state| &**state.name() == "one")
        .unwrap();
    assert_eq!(state.sums().attempts, 1);
    let unknown = wait(running.handle().set_backend("mx", "three", drain.clone()));
    assert!(unknown.unwrap_err().to_string().contains("three"));
    let unknown = wait(running.handle().set_backend("nope", "one", drain));
    assert!(unknown.unwrap_err().to_string().contains("nope"));
}

/// Counts sessions of clients that come one after the other until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(at: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let good: Arc<AtomicU64> = Arc::default();
        let client = |_| {
            let (stop, good) = (Arc::clone(&stop), Arc::clone(&good));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let (mut peer, greeting) = Peer::greeted(at);
                    assert!(greeting.starts_with("220"), "{greeting:?}");
                    assert!(peer.ask("NOOP").starts_with("250"));
                    assert!(peer.ask("QUIT").starts_with("221"));
                    good.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = (0..clients).map(client).collect();
        Self {
            stop,
            good,
            clients,
        }
    }

    fn sessions(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no session failed");
        }
        self.good.load(Ordering::Relaxed)
    }
}

#[test]
fn thirty_reloads_under_load_fail_no_session() {
    let sinks = ["one.test", "two.test", "three.test"].map(|name| sink(name, Script::good()));
    let all = config(&[
        ("one", sinks[0].address()),
        ("two", sinks[1].address()),
        ("three", sinks[2].address()),
    ]);
    let mut fewer = all.clone();
    pool(&mut fewer).backends.remove("one");
    listener(&mut fewer).idle_timeout = Duration::from_secs(99);
    let running = run(all.clone());
    let load = Load::on(address(running.handle(), "mx"), 4);
    for round in 0..30 {
        let next = if round % 2 == 0 { &fewer } else { &all };
        assert!(replace(running.handle(), next.clone()).ok);
        let seen = load.sessions();
        eventually("sessions go on", || load.sessions() >= seen + 4);
    }
    assert!(load.finish() >= 120);
    assert_eq!(generation(running.handle()), 31);
}

#[test]
fn an_address_that_moves_to_another_listener_refuses_nobody() {
    let one = sink("one.test", Script::good());
    let at = dead();
    let mut first = config(&[("one", one.address())]);
    listener(&mut first).bind = vec![at];
    let mut second = first.clone();
    let moved = second.listeners.remove("mx").unwrap();
    second.listeners.insert(Arc::from("other"), moved);
    let running = run(first.clone());
    let load = Load::on(at, 2);
    for round in 0..10 {
        let next = if round % 2 == 0 { &second } else { &first };
        assert!(replace(running.handle(), next.clone()).ok);
        let seen = load.sessions();
        eventually("sessions go on", || load.sessions() >= seen + 2);
    }
    load.finish();
}

#[test]
fn a_wildcard_and_an_address_under_it_change_places() {
    let one = sink("one.test", Script::good());
    let port = dead().port();
    let bind = |text: &str| vec![format!("{text}:{port}").parse::<SocketAddr>().unwrap()];
    let mut wide = config(&[("one", one.address())]);
    listener(&mut wide).bind = bind("0.0.0.0");
    let mut narrow = wide.clone();
    listener(&mut narrow).bind = bind("127.0.0.1");
    let running = run(wide.clone());
    for next in [narrow, wide] {
        let report = replace(running.handle(), next);
        assert!(report.ok, "{report:?}");
        // A connection that reaches the socket that is being closed is lost with it: the address
        // was taken away, though another one covers it.
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("it serves", || {
            TcpStream::connect(at).is_ok() && Peer::greeted(at).1.contains("one.test")
        });
    }
}

#[test]
fn a_pool_that_is_renamed_serves_at_once() {
    let one = sink("one.test", Script::good());
    let before = config(&[("one", one.address())]);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let mut after = before;
    let pool: Pool = after.pools.remove("mx").unwrap();
    after.pools.insert(Arc::from("renamed"), pool);
    listener(&mut after).pool = Arc::from("renamed");
    assert!(replace(running.handle(), after).ok);
    Peer::greeted_by(at, "one.test").ask("QUIT");
}

#[test]
fn a_client_that_waits_for_a_place_finds_the_one_a_reload_makes() {
    let one = sink("one.test", Script::good());
    let mut before = config(&[("one", one.address())]);
    let place = |config: &mut config::Config, places| {
        let backends = &mut pool(config).backends;
        backends
            .get_mut("one")
            .expect("it is there")
            .max_connections = places;
    };
    place(&mut before, 1);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let _first = Peer::greeted_by(at, "one.test");
    let mut waiting = Peer::connect(at);
    let waits = || {
        running
            .handle()
            .shared()
            .current
            .load()
            .pool_named("mx")
            .map(|p| p.pool.waiting())
    };
    eventually("it waits", || waits() == Some(1));
    let mut after = before;
    place(&mut after, 2);
    assert!(replace(running.handle(), after).ok);
    assert!(waiting.line().contains("one.test"));
}

/// A configuration whose only place is taken, and a client that waits for it.
struct Crowd {
    before: config::Config,
    running: Running,
    _first: Peer,
    waiting: Peer,
}

impl Crowd {
    fn at(backend: SocketAddr, name: &str) -> Self {
        let mut before = config(&[("one", backend)]);
        let mx = pool(&mut before);
        mx.backends
            .get_mut("one")
            .expect("it is there")
            .max_connections = 1;
        mx.queue_timeout = Duration::from_mins(1);
        mx.failover_timeout = Duration::from_mins(1);
        let running = run(before.clone());
        let at = address(running.handle(), "mx");
        let first = Peer::greeted_by(at, name);
        let waiting = Peer::connect(at);
        eventually("it waits", || {
            let snapshot = running.handle().shared().current.load();
            snapshot.pool_named("mx").map(|mx| mx.pool.waiting()) == Some(1)
        });
        Self {
            before,
            running,
            _first: first,
            waiting,
        }
    }
}

#[test]
fn a_client_that_waits_in_a_pool_that_goes_finds_the_one_its_listener_leads_to_now() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let mut crowd = Crowd::at(one.address(), "one.test");
    let mut after = crowd.before.clone();
    let mut renamed: Pool = after.pools.remove("mx").unwrap();
    renamed.backends.get_mut("one").unwrap().address = BackendAddress::Literal(two.address());
    after.pools.insert(Arc::from("renamed"), renamed);
    listener(&mut after).pool = Arc::from("renamed");
    assert!(replace(crowd.running.handle(), after).ok);
    assert!(crowd.waiting.line().contains("two.test"));
}

#[test]
fn a_client_that_waits_follows_its_listener_to_another_pool() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let mut crowd = Crowd::at(one.address(), "one.test");
    let mut after = crowd.before.clone();
    let mut other: Pool = after.pools["mx"].clone();
    other.backends.get_mut("one").unwrap().address = BackendAddress::Literal(two.address());
    after.pools.insert(Arc::from("other"), other);
    listener(&mut after).pool = Arc::from("other");
    assert!(replace(crowd.running.handle(), after).ok);
    assert!(crowd.waiting.line().contains("two.test"));
}

#[test]
fn a_client_that_waits_where_listener_and_pool_go_is_told_at_once() {
    let one = sink("one.test", Script::good());
    let mut crowd = Crowd::at(one.address(), "one.test");
    let mut after = crowd.before.clone();
    let mx = after.pools.remove("mx").unwrap();
    after.pools.insert(Arc::from("other"), mx);
    let mut elsewhere = after.listeners.remove("mx").unwrap();
    elsewhere.pool = Arc::from("other");
    after.listeners.insert(Arc::from("other"), elsewhere);
    assert!(replace(crowd.running.handle(), after).ok);
    let told = crowd.waiting.line();
    assert!(told.starts_with("421 4.3.2 lb.test"), "{told:?}");
}

#[test]
fn reloads_do_not_prolong_a_wait_beyond_the_queue_timeout() {
    let one = sink("one.test", Script::good());
    let mut before = config(&[("one", one.address())]);
    let mx = pool(&mut before);
    mx.backends.get_mut("one").unwrap().max_connections = 1;
    mx.queue_timeout = Duration::from_secs(2);
    mx.failover_timeout = Duration::from_mins(1);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let _first = Peer::greeted_by(at, "one.test");
    let mut waiting = Peer::connect(at);
    eventually("it waits", || {
        let snapshot = running.handle().shared().current.load();
        snapshot.pool_named("mx").map(|mx| mx.pool.waiting()) == Some(1)
    });
    let told = std::thread::spawn(move || waiting.line());
    let mut reloads = 0;
    eventually("it is told", || {
        reloads += 1;
        assert!(replace(running.handle(), before.clone()).ok);
        told.is_finished()
    });
    assert!(reloads > 1, "reloads interrupted the wait");
    assert!(told.join().unwrap().starts_with("421 4.3.2 lb.test"));
}

#[test]
fn what_waits_for_a_restart_is_said_until_the_file_says_what_runs() {
    let before = config(&[]);
    let running = run(before.clone());
    let handle = running.handle();
    let workers = |count| {
        let mut config = before.clone();
        config.workers = Some(count);
        config
    };
    assert!(handle.restart_needed().is_empty());
    assert!(replace(handle, workers(3)).ok);
    assert_eq!(handle.restart_needed(), ["workers: 2 → 3"]);
    // Another reload that does not touch it.
    let mut more = workers(3);
    more.drain_timeout = Duration::from_secs(99);
    assert!(replace(handle, more).ok);
    assert_eq!(handle.restart_needed(), ["workers: 2 → 3"]);
    assert!(replace(handle, workers(2)).ok);
    assert!(handle.restart_needed().is_empty());
}

#[test]
fn rule_m5_a_backend_at_an_address_of_this_host_is_refused() {
    let port = dead().port();
    let every = SocketAddr::from(([0, 0, 0, 0], port));
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let one = sink("one.test", Script::good());
    let mut good = config(&[("one", one.address())]);
    listener(&mut good).bind = vec![every];
    let running = run(good.clone());
    let mut bad = good;
    let looping = Backend::at(BackendAddress::Literal(here));
    pool(&mut bad).backends.insert(Arc::from("two"), looping);
    let report = replace(running.handle(), bad.clone());
    assert!(!report.ok);
    assert!(
        report.mistakes[0].contains("pools.mx.backends.two"),
        "{report:?}"
    );
    assert_eq!(generation(running.handle()), 1);
    drop(running);
    let error = posthouse::control::start(StartOptions::default(), bad, telemetry::silent());
    let error = error.expect_err("it would go round");
    assert_eq!(error.exit_code(), 1);
    assert!(
        error.to_string().contains("the mail server itself"),
        "{error}"
    );
}

#[test]
fn a_watched_file_is_reloaded_when_another_is_renamed_over_it() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posthouse.toml");
    let at = dead();
    fs::write(&path, file(at, one.address(), "watch = true")).unwrap();
    let running = run_file(&path);
    Peer::greeted_by(at, "one.test").ask("QUIT");
    let new = folder.path().join("posthouse.toml.new");
    fs::write(&new, file(at, two.address(), "watch = true")).unwrap();
    fs::rename(&new, &path).unwrap();
    let handle = running.handle();
    eventually("it is reloaded", || {
        handle.last_reload().is_some_and(|report| report.ok)
    });
    assert_eq!(handle.last_reload().unwrap().trigger, "watch");
    Peer::greeted_by(at, "two.test").ask("QUIT");
}

#[test]
fn names_are_resolved_before_the_first_session() {
    let one = sink("one.test", Script::good());
    let port = one.address().port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posthouse.toml");
    let at = dead();
    let text = file(at, one.address(), "");
    let by_name = text.replace(&one.address().to_string(), &format!("localhost:{port}"));
    assert_ne!(by_name, text);
    fs::write(&path, by_name).unwrap();
    let running = run_file(&path);
    Peer::greeted_by(at, "one.test").ask("QUIT");
    drop(running);
}

#[test]
fn ten_thousand_new_backends_are_served_from_and_reported_in_bounds() {
    let one = sink("one.test", Script::good());
    let before = config(&[("one", one.address())]);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let mut session = Peer::greeted_by(at, "one.test");
    let mut after = before;
    let backends = &mut pool(&mut after).backends;
    for number in 0..10_000_u16 {
        let address = SocketAddr::from(([127, 1, 0, 1], 10_000 + number));
        let backend = Backend::at(BackendAddress::Literal(address));
        // Behind `one` in the order of names: the policy is "first".
        backends.insert(Arc::from(format!("x{number}")), backend);
    }
    let report = replace(running.handle(), after);
    assert!(report.ok);
    assert!(report.changes.len() <= 201, "{}", report.changes.len());
    assert_eq!(running.handle().shared().registry.backends().len(), 10_001);
    assert!(session.ask("NOOP").starts_with("250"));
    Peer::greeted_by(at, "one.test").ask("QUIT");
}

#[test]
fn without_a_file_a_reload_says_so() {
    let running = run(config(&[]));
    let report = wait(running.handle().reload("http")).unwrap();
    assert!(!report.ok);
    assert!(report.mistakes[0].contains("without a configuration file"));
}

/// The newer word counts: that of the file where it changes, that of the operator until then.
#[test]
fn a_changed_state_holds_from_the_reload_on_and_an_operators_until_the_file_changes() {
    let (one, two) = (
        sink("one.test", Script::good()),
        sink("two.test", Script::good()),
    );
    let before = config(&[("one", one.address()), ("two", two.address())]);
    let running = run(before.clone());
    let at = address(running.handle(), "mx");
    let with = |state| {
        let mut config = before.clone();
        let backend = pool(&mut config).backends.get_mut("one");
        backend.expect("it is there").state = state;
        config
    };
    assert!(replace(running.handle(), with(AdminState::Drain)).ok);
    for _ in 0..3 {
        Peer::greeted_by(at, "two.test").ask("QUIT");
    }
    assert!(replace(running.handle(), with(AdminState::Ready)).ok);
    let change = |state| BackendChange {
        state: Some(state),
        weight: None,
        who: "test".into(),
    };
    wait(
        running
            .handle()
            .set_backend("mx", "two", change(AdminState::Drain)),
    )
    .expect("there is such a backend");
    Peer::greeted_by(at, "one.test").ask("QUIT");
    // A reload that says of "two" what the file said before leaves it as the operator wants it.
    let mut more = with(AdminState::Ready);
    more.max_sessions = Some(50);
    assert!(replace(running.handle(), more).ok);
    Peer::greeted_by(at, "one.test").ask("QUIT");
    // One that says otherwise is the newer word: of "two" at once, of "one" although an operator
    // has confirmed what the file said before.
    wait(
        running
            .handle()
            .set_backend("mx", "one", change(AdminState::Ready)),
    )
    .expect("there is such a backend");
    let mut swapped = with(AdminState::Maint);
    pool(&mut swapped)
        .backends
        .get_mut("two")
        .expect("it is there")
        .state = AdminState::Maint;
    assert!(replace(running.handle(), swapped).ok);
    assert!(replace(running.handle(), with(AdminState::Maint)).ok);
    Peer::greeted_by(at, "two.test").ask("QUIT");
}
