//! A client that holds connections to the status endpoint keeps no other client from it.

use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// A header that is not whole.
const TORN: &[u8] = b"GET /healthz HTTP/1.1\r\nX";

fn at(address: &Address) -> SocketAddr {
    let Address::Tcp(address) = address else {
        panic!("TCP")
    };
    address.parse().unwrap()
}

/// Connects from this address of loopback.
async fn connected(from: [u8; 4], to: &Address) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(at(to)).await.unwrap()
}

/// Says a torn header and comes again as soon as it is dropped.
async fn hold(address: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let _ = stream.write_all(TORN).await;
            let _ = stream.read_u8().await;
        }
    }
}

async fn is_ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = timeout(whole::PATIENCE, stream.read_to_end(&mut rest));
    // An end or a reset: octets of the question may be unread.
    let _ = ended.await.expect("it is closed");
}

#[test]
fn silent_clients_that_come_again_keep_no_health_check_from_its_answer() {
    for holders in [200, 2000] {
        beside(&process(1), &loopback(), None, async |address| {
            let mut crowd = JoinSet::new();
            for _ in 0..holders {
                crowd.spawn(hold(at(&address)));
            }
            // Every place is taken when somebody has been dropped.
            let mut first = TcpStream::connect(at(&address)).await.unwrap();
            is_ended(&mut first).await;
            let client = client(&address, None);
            for path in ["/healthz", "/readyz", "/healthz", "/readyz/mx", "/status"] {
                let asked = client.ask(Method::GET, path, None);
                let answer = timeout(whole::PATIENCE, asked).await;
                let answer = answer.expect("an answer in time").expect("an answer");
                assert_eq!(answer.status, StatusCode::OK, "{path}, {holders} holders");
            }
        });
    }
}

#[test]
fn a_peer_with_few_connections_keeps_them_and_the_longest_silent_of_many_go() {
    beside(&process(1), &loopback(), None, async |address| {
        let mut few = connected([127, 0, 0, 2], &address).await;
        few.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        let mut many = Vec::new();
        for _ in 0..200 {
            many.push(connected([127, 0, 0, 1], &address).await);
        }
        for stream in &mut many[..72] {
            is_ended(stream).await;
        }
        few.write_all(b"host: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        few.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

/// Asks for a long page and reads none of it.
async fn unread(address: &Address) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(at(address)).await.unwrap();
    let question = b"GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(question).await.unwrap();
    stream
}

#[test]
fn readers_that_stand_still_are_cut_and_slow_ones_give_way() {
    let (short, long) = (Duration::from_millis(50), Duration::from_mins(5));
    let still = Timeouts {
        stall: short,
        page: long,
        connection: long,
        ..Timeouts::default()
    };
    let slow = Timeouts {
        stall: long,
        page: short,
        ..still
    };
    for timeouts in [still, slow] {
        let shared = process(5000);
        beside_with(timeouts, &shared, &loopback(), None, async |address| {
            let mut readers = Vec::new();
            for _ in 0..8 {
                readers.push(unread(&address).await);
            }
            // They take every place there is for pages, and then some.
            let client = client(&address, None);
            let health = ask(&client, Method::GET, "/healthz", "").await;
            assert_eq!(health.status, StatusCode::OK);
            let asked = client.ask(Method::GET, "/status", None);
            let answer = timeout(whole::PATIENCE, asked).await;
            let answer = answer.expect("an answer in time").expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{timeouts:?}");
        });
    }
}

#[test]
fn questions_beyond_those_that_may_wait_for_a_page_are_refused() {
    let long = Duration::from_mins(5);
    let timeouts = Timeouts {
        stall: long,
        page: long,
        connection: long,
        ..Timeouts::default()
    };
    let shared = process(5000);
    beside_with(timeouts, &shared, &loopback(), None, async |address| {
        // 4 are sent, 8 wait, and one is too many.
        let mut asked = JoinSet::new();
        for _ in 0..13 {
            let mut stream = unread(&address).await;
            asked.spawn(async move {
                let mut first = [0; 12];
                stream.read_exact(&mut first).await.unwrap();
                (String::from_utf8_lossy(&first).into_owned(), stream)
            });
        }
        let mut held = Vec::new();
        let mut refused = loop {
            let next = timeout(whole::PATIENCE, asked.join_next()).await;
            let (first, stream) = next.expect("one is refused").unwrap().unwrap();
            if first == "HTTP/1.1 503" {
                break stream;
            }
            assert_eq!(first, "HTTP/1.1 200");
            held.push(stream);
        };
        let mut rest = String::new();
        refused.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("ask again later"), "{rest}");
        let client = client(&address, None);
        for path in ["/healthz", "/readyz"] {
            let answer = ask(&client, Method::GET, path, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
        }
        assert!(held.len() <= 4, "{}", held.len());
    });
}

#[test]
fn a_health_check_that_promises_a_body_is_answered_without_it() {
    beside(&process(1), &loopback(), None, async |address| {
        let question = "GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n";
        let answer = timeout(whole::PATIENCE, raw(&address, question)).await;
        let answer = answer.expect("it is closed");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

#[test]
fn a_body_that_does_not_come_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let timeouts = Timeouts {
        body: Duration::from_millis(50),
        ..Timeouts::default()
    };
    let question = "PUT /pools/mx/backends/mx0 HTTP/1.1\r\nhost: localhost\r\n\
                    authorization: Bearer s3cret\r\ncontent-length: 17\r\n\r\n{\"state\":";
    let token = Some(token_in(folder.path()));
    beside_with(timeouts, &process(1), &loopback(), token, async |address| {
        let answer = raw(&address, question).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    });
}

#[test]
fn many_slow_readers_leave_room_for_health_checks() {
    let long = Duration::from_mins(5);
    let timeouts = Timeouts {
        stall: long,
        connection: long,
        page: long,
        ..Timeouts::default()
    };
    // Pages that nearly fit into the buffers of the system are the easiest to have many of.
    let shared = process(300);
    beside_with(timeouts, &shared, &loopback(), None, async |address| {
        let mut readers = Vec::new();
        let client = client(&address, None);
        for _ in 0..300 {
            readers.push(unread(&address).await);
            let asked = client.ask(Method::GET, "/healthz", None);
            let answer = timeout(whole::PATIENCE, asked).await;
            let answer = answer.expect("an answer in time").expect("an answer");
            assert_eq!(answer.status, StatusCode::OK);
        }
    });
}
