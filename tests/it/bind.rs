//! Starting: addresses that cannot be had, and limits that do not fit, say what to do.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use posthouse::config::Config;
use posthouse::config::model::Listener;
use posthouse::control::{StartError, StartOptions, start};
use posthouse::lab::Script;
use posthouse::telemetry;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::whole::{Peer, address, config, dead, listener, run, sink};

fn start_error(config: Config) -> StartError {
    match start(StartOptions::default(), config, telemetry::silent()) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn every_worker_listens_on_every_address() {
    let backend = sink("one.test", Script::good());
    let mut config = config(&[("one", backend.address())]);
    listener(&mut config).bind = vec![dead(), dead()];
    let wanted = config.listeners["mx"].bind.clone();
    let running = run(config);
    let listening = running.handle().listening();
    assert_eq!(listening.len(), 2);
    for address in wanted {
        Peer::greeted_by(address, "one.test").ask("QUIT");
    }
}

#[test]
fn a_port_in_use_names_its_holder_and_leaves_nothing_listening() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = dead();
    let mut config = config(&[]);
    listener(&mut config).bind = vec![free, taken.local_addr().unwrap()];
    let error = start_error(config);
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(text.contains("in use") && text.contains(&pid), "{text}");
    assert!(TcpStream::connect(free).is_err(), "nothing listens");
}

/// The kernel would let us share the port, and half the connections would go to the other.
#[test]
fn another_process_with_reuseport_is_found_too() {
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_port(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    other.bind(&SockAddr::from(any)).unwrap();
    other.listen(8).unwrap();
    let mut config = config(&[]);
    listener(&mut config).bind = vec![other.local_addr().unwrap().as_socket().unwrap()];
    assert!(start_error(config).to_string().contains("in use"));
}

#[test]
fn every_address_that_cannot_be_had_is_named_at_once() {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = taken.each_ref().map(|one| one.local_addr().unwrap());
    let mut config = config(&[]);
    listener(&mut config).bind = addresses.to_vec();
    let text = start_error(config).to_string();
    for address in addresses {
        assert!(text.contains(&address.to_string()), "{text}");
    }
}

#[test]
fn max_sessions_beyond_the_descriptor_limit_is_refused_with_the_remedy() {
    let mut config = config(&[]);
    config.max_sessions = Some(u32::MAX);
    let error = start_error(config);
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("LimitNOFILE="), "{error}");
}

#[test]
fn what_the_hook_says_ends_the_start() {
    let free = dead();
    let mut config = config(&[]);
    listener(&mut config).bind = vec![free];
    let options = StartOptions {
        on_control: Some(Box::new(|_| Err("no place for the status page".to_owned()))),
        ..StartOptions::default()
    };
    let error = start(options, config, telemetry::silent()).unwrap_err();
    assert_eq!(error.to_string(), "no place for the status page");
    assert!(TcpStream::connect(free).is_err(), "nothing listens");
}

#[test]
fn a_task_runs_on_the_control_thread() {
    let running = run(config(&[]));
    let (sender, receiver) = std::sync::mpsc::channel();
    let task = move |handle: posthouse::control::Handle| async move {
        let name = std::thread::current().name().map(str::to_owned);
        sender.send((name, handle.listening().len())).unwrap();
    };
    running.spawn_on_control(task).unwrap();
    assert_eq!(receiver.recv().unwrap(), (Some("control".to_owned()), 1));
}

#[test]
fn both_families_of_one_port_can_be_bound() {
    let backend = sink("one.test", Script::good());
    let mut config = config(&[("one", backend.address())]);
    let port = dead().port();
    let Ok(probe) = TcpListener::bind(("::1", 0)) else {
        return; // A host without IPv6.
    };
    drop(probe);
    let six = Listener::new(vec![format!("[::]:{port}").parse().unwrap()], "mx", "lb");
    listener(&mut config).bind = vec![format!("0.0.0.0:{port}").parse().unwrap()];
    config.listeners.insert(Arc::from("six"), six);
    let running = run(config);
    assert!(address(running.handle(), "six").is_ipv6());
    for host in ["127.0.0.1", "[::1]"] {
        let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
        Peer::greeted_by(address, "one.test").ask("QUIT");
    }
}
