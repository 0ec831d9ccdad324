//! Two hosts and a balancer between them, as network namespaces with Ethernet-sized segments.
//!
//! On loopback a segment is 64 KiB and a pipe fills in one step; between hosts it is 1448 octets, and
//! a splice that comes back short says nothing about what is still to be read. A relay that gets this
//! wrong stands still in the middle of a large message, which only this test can show.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use crate::lab::PATIENCE;
use crate::lab::posthouse::fetch;
use crate::lab::process::Process;
use crate::lab::{folder, wait_for};

/// The size of the message, each way.
const OCTETS: usize = 64 * 1024 * 1024;

/// Three namespaces in a row: client, balancer, backend.
struct Net {
    client: String,
    balancer: String,
    backend: String,
}

const CLIENT: &str = "10.77.1.2";
const BALANCER_TO_CLIENT: &str = "10.77.1.1";
const BALANCER_TO_BACKEND: &str = "10.77.2.1";
const BACKEND: &str = "10.77.2.2";
/// The status endpoint, on the balancer's own loopback.
const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8025);

impl Net {
    fn lay() -> Self {
        let id = std::process::id();
        let net = Self {
            client: format!("posthouse-c{id}"),
            balancer: format!("posthouse-l{id}"),
            backend: format!("posthouse-b{id}"),
        };
        for name in [&net.client, &net.balancer, &net.backend] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        Self::cable((&net.balancer, BALANCER_TO_CLIENT), (&net.client, CLIENT));
        Self::cable(
            (&net.balancer, BALANCER_TO_BACKEND),
            (&net.backend, BACKEND),
        );
        net
    }

    /// A veth pair with Ethernet's MTU and without offloading, which would merge segments again.
    fn cable(one: (&str, &str), other: (&str, &str)) {
        let names = [
            format!("to{}", last_octets(other.1)),
            format!("to{}", last_octets(one.1)),
        ];
        ip(&[
            "link", "add", &names[0], "netns", one.0, "mtu", "1500", "type", "veth", "peer",
            "name", &names[1], "netns", other.0, "mtu", "1500",
        ]);
        for ((namespace, address), name) in [one, other].into_iter().zip(&names) {
            ip(&[
                "-n",
                namespace,
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                name,
            ]);
            ip(&["-n", namespace, "link", "set", name, "up"]);
            run(
                "ip",
                &[
                    "netns", "exec", namespace, "ethtool", "-K", name, "gro", "off", "gso", "off",
                    "tso", "off",
                ],
            );
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.client, &self.balancer, &self.backend] {
            // Takes the interfaces in it along.
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn last_octets(address: &str) -> String {
    address.rsplit('.').take(2).collect::<Vec<_>>().join("-")
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("run tests/install.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?} as root: {said}"
    );
}

/// Runs `work` on a thread of its own inside a namespace.
fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("it was added");
    std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("a thread of root may enter");
        work()
    })
}

/// Octets that differ at every offset and direction, cheap enough for a debug build.
fn block(seed: u64, number: usize) -> Vec<u8> {
    let mut state = seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut octets = vec![0; 64 * 1024];
    for word in octets.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    octets
}

/// Sends the whole message and then FIN.
fn send_all(mut socket: &TcpStream, seed: u64) {
    for number in 0..OCTETS / (64 * 1024) {
        socket
            .write_all(&block(seed, number))
            .expect("the way is open and nothing stalls");
    }
    socket
        .shutdown(Shutdown::Write)
        .expect("the socket is open");
}

/// Reads to the end; every octet must be the one that was sent.
fn receive_all(mut socket: &TcpStream, seed: u64) {
    let mut octets = vec![0; 64 * 1024];
    for number in 0..OCTETS / (64 * 1024) {
        socket.read_exact(&mut octets).unwrap_or_else(|error| {
            crate::lab::fail(&format!("block {number} does not come: {error}"))
        });
        assert!(
            octets == block(seed, number),
            "block {number} is not what was sent"
        );
    }
    assert_eq!(
        socket.read(&mut octets).expect("an orderly end"),
        0,
        "octets behind the end"
    );
}

fn patient(socket: &TcpStream) {
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    socket
        .set_write_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
}

/// Both directions of one end; at once, or sending only after all was received.
#[derive(Clone, Copy)]
enum Order {
    SendThenReceive,
    ReceiveThenSend,
    Both,
}

fn exchange(socket: &TcpStream, order: Order, sent: u64, received: u64) {
    match order {
        Order::SendThenReceive => {
            send_all(socket, sent);
            receive_all(socket, received);
        }
        Order::ReceiveThenSend => {
            receive_all(socket, received);
            send_all(socket, sent);
        }
        Order::Both => std::thread::scope(|scope| {
            scope.spawn(|| send_all(socket, sent));
            receive_all(socket, received);
        }),
    }
}

/// The backend: greets and exchanges, for each of `orders` in turn.
fn serve(orders: &'static [(Order, Order)]) {
    let address: SocketAddr = format!("{BACKEND}:2525").parse().expect("an address");
    let listener = TcpListener::bind(address).expect("the namespace is ours alone");
    for (_, order) in orders {
        let (mut socket, _) = listener.accept().expect("the balancer dials");
        patient(&socket);
        socket
            .write_all(b"220 backend.test\r\n")
            .expect("the socket is open");
        exchange(&socket, *order, 2, 1);
    }
}

/// The client: reads the greeting and exchanges, for each of `orders` in turn.
fn visit(orders: &'static [(Order, Order)]) {
    let address: SocketAddr = format!("{BALANCER_TO_CLIENT}:2525")
        .parse()
        .expect("an address");
    for (order, _) in orders {
        let mut socket = TcpStream::connect(address).expect("posthouse listens");
        patient(&socket);
        let mut greeting = [0; 18];
        socket
            .read_exact(&mut greeting)
            .expect("the greeting comes");
        assert_eq!(&greeting, b"220 backend.test\r\n");
        exchange(&socket, *order, 1, 2);
    }
}

/// Client's order, backend's order.
const ORDERS: &[(Order, Order)] = &[
    (Order::SendThenReceive, Order::ReceiveThenSend),
    (Order::ReceiveThenSend, Order::SendThenReceive),
    (Order::Both, Order::Both),
];

#[test]
fn large_messages_cross_two_hosts_whole_and_without_a_stall() {
    let net = Net::lay();
    let folder = folder("two-hosts");
    let config = folder.path().join("posthouse.toml");
    let text = format!(
        "hostname = \"lb.test\"\n\
         workers = 1\n\
         [admin]\n\
         bind = \"{ADMIN}\"\n\
         [listeners.mx]\n\
         bind = [\"{BALANCER_TO_CLIENT}:2525\"]\n\
         pool = \"mx\"\n\
         [pools.mx.health]\n\
         probe = false\n\
         [pools.mx.hedge]\n\
         enabled = false\n\
         [pools.mx.backends]\n\
         b0 = {{ address = \"{BACKEND}:2525\" }}\n"
    );
    std::fs::write(&config, text).expect("our folder can be written");
    let backend = inside(&net.backend, || serve(ORDERS));
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        &net.balancer,
        env!("CARGO_BIN_EXE_posthouse"),
        "run",
        "-c",
    ]);
    command.arg(&config);
    let mut posthouse = Process::start("posthouse", command, &folder.path().join("output"));
    let ask = |path: &'static str| {
        let asked = inside(&net.balancer, move || fetch(ADMIN, path));
        asked.join().expect("asking cannot fail")
    };
    wait_for("posthouse to be ready", || {
        posthouse.assert_running();
        ask("/readyz").filter(|answer| answer.status == 200)
    });
    inside(&net.client, || visit(ORDERS))
        .join()
        .expect("the client is content");
    backend.join().expect("the backend is content");
    // A direction begins to splice at least once, or this test shows nothing; the workers' counts
    // are published a little after the sessions end.
    let directions = ORDERS.len() as u64 * 2;
    wait_for("every direction to have been spliced", || {
        (spliced(&ask("/metrics")?.body) >= directions).then_some(())
    });
}

/// The metric's sum over workers.
fn spliced(metrics: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.starts_with("posthouse_worker_spliced_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
