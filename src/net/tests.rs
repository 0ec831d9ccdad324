//! Relays over real loopback sockets: order is asserted, never duration.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::accept::Acceptor;
use super::clock;
use super::dial::{Origin, dial};
use super::event_loop::{EventLoop, yield_now};
use super::linger::Linger;
use super::pipe::PipePool;
use super::relay::{Lent, Relay, RelayEnd, Seen, Side};
use super::stream::{Stream, Watched};
use super::timer::sleep_until;

const SCRATCH: usize = 64 * 1024;
/// A test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

/// A blocking peer, and our end of the connection on the event loop.
fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    ours.set_nodelay(true).unwrap();
    // Room for several long reads before the first one.
    SockRef::from(&ours)
        .set_recv_buffer_size(400 * 1024)
        .unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (peer, Stream::new(ours).unwrap())
}

fn run<F: Future>(test: F) -> F::Output {
    let event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        let deadline = clock::now() + PATIENCE;
        tokio::select! {
            output = test => output,
            () = sleep_until(deadline) => panic!("it does not end"),
        }
    })
}

/// Octets that no two offsets share by chance.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = crate::types::Rng::seeded(seed);
    (0..length / 8)
        .flat_map(|_| rng.next().to_le_bytes())
        .collect()
}

async fn relay_to_end(
    relay: &mut Relay,
    client: &Stream,
    backend: &Stream,
    pipes: &PipePool,
    spliced: &mut u32,
) -> RelayEnd {
    let mut scratch = vec![0; SCRATCH];
    poll_fn(|cx| {
        let mut seen = Seen::default();
        let mut lent = Lent {
            scratch: &mut scratch,
            pipes,
        };
        let end = relay.poll(cx, client, backend, &mut lent, &mut seen);
        *spliced += u32::from(seen.began_splicing);
        assert!(
            relay.spilled() <= 2 * SCRATCH,
            "a direction holds one scratch at most"
        );
        end
    })
    .await
}

#[test]
fn a_lasting_connection_has_keepalive_and_a_user_timeout_k6() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = dial(listener.local_addr().unwrap(), Origin::default()).unwrap();
        poll_fn(|cx| stream.poll_connected(cx)).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"220 ").unwrap();
        poll_fn(|cx| {
            stream.poll_read_with(cx, |socket| {
                let socket = SockRef::from(&socket);
                assert!(socket.tcp_nodelay()?, "from the beginning");
                assert!(!socket.keepalive()?);
                stream.keep_alive();
                assert!(socket.keepalive()?);
                assert_eq!(socket.tcp_keepalive_time()?, Duration::from_mins(1));
                assert_eq!(socket.tcp_keepalive_interval()?, Duration::from_secs(10));
                assert_eq!(socket.tcp_keepalive_retries()?, 6);
                let two_minutes = Some(Duration::from_mins(2));
                assert_eq!(socket.tcp_user_timeout()?, two_minutes);
                Ok(())
            })
        })
        .await
        .unwrap();
    });
}

fn send_all(mut peer: TcpStream, octets: Vec<u8>) -> thread::JoinHandle<TcpStream> {
    thread::spawn(move || {
        peer.write_all(&octets).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        peer
    })
}

fn read_all(mut peer: TcpStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut read = Vec::new();
        peer.read_to_end(&mut read).unwrap();
        read
    })
}

/// Waits until so much is waiting that a few long reads follow each other, however slow the peers.
async fn until_bulk_waits(stream: &Stream) {
    const BULK: usize = 128 * 1024;
    let mut seen = vec![0; BULK];
    while poll_fn(|cx| stream.poll_peek(cx, &mut seen)).await.unwrap() < BULK {
        sleep_until(clock::now() + Duration::from_millis(1)).await;
    }
}

/// Waits until the peer's end is seen behind octets.
async fn until_half_closed(stream: &Stream) {
    poll_fn(|cx| {
        while let Poll::Ready(watched) = stream.poll_watch(cx) {
            assert_eq!(watched, Watched::Talking, "the end is behind octets");
        }
        if stream.is_half_closed() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn bulk_both_ways(pipes: &PipePool) -> u32 {
    run(async {
        let (client_peer, client) = pair();
        let (backend_peer, backend) = pair();
        let (up, down) = (noise(24 << 20, 1), noise(16 << 20, 2));
        let readers = [
            read_all(client_peer.try_clone().unwrap()),
            read_all(backend_peer.try_clone().unwrap()),
        ];
        let writers = [
            send_all(client_peer, up.clone()),
            send_all(backend_peer, down.clone()),
        ];
        for stream in [&client, &backend] {
            until_bulk_waits(stream).await;
        }
        let mut spliced = 0;
        let mut relay = Relay::new(0, &[]);
        let end = relay_to_end(&mut relay, &client, &backend, pipes, &mut spliced).await;
        assert!(matches!(end, RelayEnd::Ended { .. }), "{end:?}");
        assert_eq!(relay.octets_to_backend(), up.len() as u64);
        assert_eq!(relay.octets_to_client(), down.len() as u64);
        relay.abandon(pipes);
        drop((client, backend));
        let [at_client, at_backend] = readers.map(|reader| reader.join().unwrap());
        assert!(at_backend == up, "the backend got what the client sent");
        assert!(at_client == down, "the client got what the backend sent");
        for writer in writers {
            writer.join().unwrap();
        }
        spliced
    })
}

#[test]
fn bulk_arrives_unchanged_through_pipes() {
    let pipes = PipePool::new(4);
    assert!(bulk_both_ways(&pipes) >= 2, "both directions spliced");
    let free: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
    assert_eq!(free.len(), 4, "every pipe came back");
    assert!(free.iter().all(|pipe| pipe.held() == 0), "and empty");
}

#[test]
fn bulk_arrives_unchanged_when_pipes_run_out() {
    bulk_both_ways(&PipePool::new(1));
}

#[test]
fn bulk_arrives_unchanged_without_pipes() {
    assert_eq!(bulk_both_ways(&PipePool::new(0)), 0, "nothing spliced");
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender() {
    run(async {
        let (mut client_peer, client) = pair();
        let (backend_peer, backend) = pair();
        client_peer.set_nonblocking(true).unwrap();
        let chunk = noise(8 * 1024, 3);
        let (pipes, mut scratch) = (PipePool::new(0), vec![0; SCRATCH]);
        let mut relay = Relay::new(0, &[]);
        let (mut sent, mut idle_rounds) = (Vec::new(), 0);
        // The client writes whatever its socket takes until nothing moves anywhere.
        while idle_rounds < 50 {
            let moved = poll_fn(|cx| {
                let mut seen = Seen::default();
                let mut lent = Lent {
                    scratch: &mut scratch,
                    pipes: &pipes,
                };
                assert!(
                    relay
                        .poll(cx, &client, &backend, &mut lent, &mut seen)
                        .is_pending()
                );
                Poll::Ready(seen.moved)
            })
            .await;
            match client_peer.write(&chunk) {
                Ok(n) => sent.extend_from_slice(&chunk[..n]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            sleep_until(clock::now() + Duration::from_millis(1)).await;
            idle_rounds = if moved { 0 } else { idle_rounds + 1 };
            assert!(
                relay.spilled() <= SCRATCH,
                "one scratch is all that is held"
            );
        }
        assert!(relay.spilled() > 0, "the rest of one read is held");
        client_peer.set_nonblocking(false).unwrap();
        client_peer.shutdown(Shutdown::Write).unwrap();
        backend_peer.shutdown(Shutdown::Write).unwrap();
        let reader = read_all(backend_peer);
        let end = relay_to_end(&mut relay, &client, &backend, &pipes, &mut 0).await;
        assert!(matches!(end, RelayEnd::Ended { .. }));
        assert_eq!(relay.spilled(), 0, "the buffer is freed when it is drained");
        drop((client, backend));
        assert!(
            reader.join().unwrap() == sent,
            "nothing lost, nothing twice, in order"
        );
    });
}

#[test]
fn a_half_closed_client_still_gets_its_reply_k3() {
    run(async {
        let (mut client_peer, client) = pair();
        let (mut backend_peer, backend) = pair();
        let backend_side = thread::spawn(move || {
            let mut got = Vec::new();
            backend_peer.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"\r\n.\r\n", "the end came in order, after the octets");
            backend_peer.write_all(b"250 2.0.0 Ok: queued\r\n").unwrap();
        });
        client_peer.write_all(b"\r\n.\r\n").unwrap();
        client_peer.shutdown(Shutdown::Write).unwrap();
        let mut relay = Relay::new(0, &[]);
        let end = relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        assert_eq!(
            end,
            RelayEnd::Ended {
                first: Side::Client
            }
        );
        drop((client, backend));
        let mut reply = String::new();
        client_peer.read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "250 2.0.0 Ok: queued\r\n");
        backend_side.join().unwrap();
    });
}

/// A read ends at urgent data, though more is waiting behind it: a telnet's interrupt must neither
/// stall a session nor cut it short.
#[test]
fn what_is_behind_urgent_data_arrives_at_once_and_before_the_end() {
    run(async {
        let (mut client_peer, client) = pair();
        let (backend_peer, backend) = pair();
        client_peer.write_all(b"before ").unwrap();
        SockRef::from(&client_peer).send_out_of_band(b"!").unwrap();
        client_peer.write_all(b"behind\r\n").unwrap();
        client_peer.shutdown(Shutdown::Write).unwrap();
        backend_peer.shutdown(Shutdown::Write).unwrap();
        // All of it has come when the end has.
        until_half_closed(&client).await;
        let reader = read_all(backend_peer);
        let mut relay = Relay::new(0, &[]);
        relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        drop((client, backend));
        // The urgent octet is not part of the stream: a backend would not have read it either.
        assert_eq!(reader.join().unwrap(), b"before behind\r\n");
    });
}

/// splice(2) stops before urgent data and says "nothing there", or "the end" where a FIN has come.
#[test]
fn bulk_with_urgent_data_in_it_arrives_through_pipes() {
    run(async {
        let (mut client_peer, client) = pair();
        let (backend_peer, backend) = pair();
        let octets = noise(8 << 20, 5);
        let expected = octets.clone();
        backend_peer.shutdown(Shutdown::Write).unwrap();
        let reader = read_all(backend_peer);
        let writer = thread::spawn(move || {
            let (before, behind) = octets.split_at(octets.len() - (64 << 10));
            client_peer.write_all(before).unwrap();
            SockRef::from(&client_peer).send_out_of_band(b"!").unwrap();
            client_peer.write_all(behind).unwrap();
            client_peer.shutdown(Shutdown::Write).unwrap();
        });
        until_bulk_waits(&client).await;
        let (pipes, mut spliced) = (PipePool::new(2), 0);
        let mut relay = Relay::new(0, &[]);
        relay_to_end(&mut relay, &client, &backend, &pipes, &mut spliced).await;
        assert!(spliced > 0, "it spliced");
        drop((client, backend));
        writer.join().unwrap();
        let got = reader.join().unwrap();
        assert_eq!(got.len(), expected.len());
        assert!(got == expected, "unchanged");
    });
}

#[test]
fn urgent_data_in_the_middle_of_a_session_does_not_stall_it() {
    run(async {
        let (mut client_peer, client) = pair();
        let (mut backend_peer, backend) = pair();
        let backend_side = thread::spawn(move || {
            let mut got = [0; 15];
            backend_peer.read_exact(&mut got).unwrap();
            backend_peer.shutdown(Shutdown::Write).unwrap();
            got
        });
        client_peer.write_all(b"before ").unwrap();
        SockRef::from(&client_peer).send_out_of_band(b"!").unwrap();
        client_peer.write_all(b"behind\r\n").unwrap();
        let mut seen = [0; 16];
        // Everything is there before the relay reads.
        while poll_fn(|cx| client.poll_peek(cx, &mut seen)).await.unwrap() < 7 {
            sleep_until(clock::now() + Duration::from_millis(1)).await;
        }
        let ends = thread::spawn(move || {
            let got = backend_side.join().unwrap();
            client_peer.shutdown(Shutdown::Write).unwrap();
            got
        });
        let mut relay = Relay::new(0, &[]);
        relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        assert_eq!(&ends.join().unwrap(), b"before behind\r\n");
    });
}

#[test]
fn a_reset_of_the_client_is_told_apart_and_can_be_passed_on_k4() {
    run(async {
        let (client_peer, client) = pair();
        let (mut backend_peer, backend) = pair();
        SockRef::from(&client_peer)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client_peer);
        let mut relay = Relay::new(0, &[]);
        let end = relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        assert_eq!(end, RelayEnd::Reset { by: Side::Client });
        backend.reset_on_close();
        drop(backend);
        let error = backend_peer.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not a clean end");
    });
}

/// Waits for the end of a relay with a peer that resets once its end was passed on.
fn end_after_a_reset_behind(leaver: Side) -> RelayEnd {
    run(async {
        let (client_peer, client) = pair();
        let (backend_peer, backend) = pair();
        let (leaving, mut staying) = match leaver {
            Side::Client => (client_peer, backend_peer),
            Side::Backend => (backend_peer, client_peer),
        };
        leaving.shutdown(Shutdown::Write).unwrap();
        let peers = thread::spawn(move || {
            assert_eq!(staying.read(&mut [0; 8]).unwrap(), 0, "the end comes first");
            SockRef::from(&leaving)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(leaving);
            staying
        });
        let mut relay = Relay::new(0, &[]);
        let end = relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        assert_eq!(relay.half_closed_by(), Some(leaver));
        peers.join().unwrap();
        end
    })
}

#[test]
fn a_reset_behind_an_end_does_not_wait_for_the_other_side_k4() {
    let end = end_after_a_reset_behind(Side::Client);
    assert_eq!(end, RelayEnd::Reset { by: Side::Client });
    let end = end_after_a_reset_behind(Side::Backend);
    assert_eq!(end, RelayEnd::BackendGone);
}

/// A reset discards what is under way; so one that comes right behind the backend's last octets is
/// not passed on. Repeated, because only some of the resets are seen together with the octets.
#[test]
fn a_reset_right_behind_the_backends_octets_does_not_swallow_them_k4() {
    run(async {
        for turn in 0..500 {
            let (mut client_peer, client) = pair();
            let (mut backend_peer, backend) = pair();
            let mut relay = Relay::new(0, &[]);
            if turn % 2 == 1 {
                // The client has more to say meanwhile.
                client_peer.write_all(b"DATA\r\n").unwrap();
            }
            backend_peer.write_all(b"220 mx.example ESMTP\r\n").unwrap();
            SockRef::from(&backend_peer)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(backend_peer);
            let end = relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
            assert!(
                matches!(end, RelayEnd::ResetBehindOctets | RelayEnd::BackendGone),
                "{turn}: {end:?}"
            );
            client.end();
            let reader = read_all(client_peer);
            assert_eq!(
                reader.join().unwrap(),
                b"220 mx.example ESMTP\r\n",
                "{turn}"
            );
        }
    });
}

#[test]
fn a_reset_of_the_backend_while_the_client_waits_for_it_is_passed_on_k4() {
    run(async {
        let (mut client_peer, client) = pair();
        let (mut backend_peer, backend) = pair();
        backend_peer.write_all(b"220 mx.example ESMTP\r\n").unwrap();
        let lock_step = thread::spawn(move || {
            client_peer.read_exact(&mut [0; 22]).unwrap();
            client_peer.write_all(b"EHLO x\r\n").unwrap();
            backend_peer.read_exact(&mut [0; 8]).unwrap();
            SockRef::from(&backend_peer)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(backend_peer);
            client_peer
        });
        let mut relay = Relay::new(0, &[]);
        let end = relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        assert_eq!(end, RelayEnd::Reset { by: Side::Backend });
        lock_step.join().unwrap();
    });
}

#[test]
fn octets_held_at_the_commit_go_first() {
    run(async {
        let (client_peer, client) = pair();
        let (mut backend_peer, backend) = pair();
        backend_peer.write_all(b"250 hello\r\n").unwrap();
        backend_peer.shutdown(Shutdown::Write).unwrap();
        client_peer.shutdown(Shutdown::Write).unwrap();
        let reader = read_all(client_peer);
        let mut relay = Relay::new(3, b" mx.example ESMTP\r\n");
        relay_to_end(&mut relay, &client, &backend, &PipePool::new(0), &mut 0).await;
        assert_eq!(relay.octets_to_client(), 3 + 19 + 11);
        drop((client, backend));
        assert_eq!(
            reader.join().unwrap(),
            b" mx.example ESMTP\r\n250 hello\r\n"
        );
    });
}

#[test]
fn a_client_that_keeps_pipelining_still_reads_the_421_k5() {
    run(async {
        let (mut client_peer, client) = pair();
        // It talks without end until it is stopped by our close.
        let mut flood = client_peer.try_clone().unwrap();
        let flooding = thread::spawn(move || while flood.write_all(&[b'N'; 4096]).is_ok() {});
        let mut scratch = vec![0; SCRATCH];
        let reply = b"421 4.3.2 lb.example shutting down\r\n";
        poll_fn(|cx| client.poll_send(cx, reply)).await.unwrap();
        let mut linger = Linger::begin(&client);
        poll_fn(|cx| linger.poll(cx, &client, &mut scratch)).await;
        let mut read = vec![0; reply.len()];
        client_peer.read_exact(&mut read).unwrap();
        assert_eq!(read, reply);
        drop(client);
        flooding.join().unwrap();
    });
}

#[test]
fn a_watched_client_keeps_its_octets_and_its_end_is_seen() {
    run(async {
        let (mut client_peer, client) = pair();
        client_peer.write_all(b"EHLO early\r\n").unwrap();
        assert_eq!(poll_fn(|cx| client.poll_watch(cx)).await, Watched::Talking);
        let mut scratch = vec![0; SCRATCH];
        let n = poll_fn(|cx| client.poll_recv(cx, &mut scratch))
            .await
            .unwrap();
        assert_eq!(&scratch[..n], b"EHLO early\r\n", "watching takes nothing");
        drop(client_peer);
        assert_eq!(poll_fn(|cx| client.poll_watch(cx)).await, Watched::Closed);
    });
}

#[test]
fn who_has_said_only_what_was_taken_does_not_talk() {
    run(async {
        let (mut peer, client) = pair();
        let mut header = [0; 8];
        peer.write_all(b"PROXY 1\n").unwrap();
        poll_fn(|cx| client.poll_peek(cx, &mut header))
            .await
            .unwrap();
        assert_eq!(client.take(&mut header).unwrap(), 8);
        let talks = poll_fn(|cx| Poll::Ready(client.poll_watch(cx))).await;
        assert_eq!(talks, Poll::Pending);
        peer.write_all(b"EHLO early\r\n").unwrap();
        assert_eq!(poll_fn(|cx| client.poll_watch(cx)).await, Watched::Talking);
    });
}

#[test]
fn an_end_behind_octets_is_a_half_close_and_one_without_a_word_is_an_end_k3() {
    run(async {
        for said_at_once in [true, false] {
            let (mut peer, client) = pair();
            if said_at_once {
                peer.write_all(b"QUIT\r\n").unwrap();
                peer.shutdown(Shutdown::Write).unwrap();
            } else {
                peer.write_all(b"QUIT\r\n").unwrap();
                assert_eq!(poll_fn(|cx| client.poll_watch(cx)).await, Watched::Talking);
                peer.shutdown(Shutdown::Write).unwrap();
            }
            until_half_closed(&client).await;
            // It leaves altogether: what waits is for nobody.
            SockRef::from(&peer)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(peer);
            assert_eq!(poll_fn(|cx| client.poll_watch(cx)).await, Watched::Closed);
        }
        let (peer, client) = pair();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(poll_fn(|cx| client.poll_watch(cx)).await, Watched::Closed);
    });
}

/// Bulk that keeps a thread busy must not leave new clients in the accept queue for seconds.
#[test]
fn long_turns_take_several_connections_at_once() {
    const QUEUED: usize = 64;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..QUEUED)
        .map(|_| TcpStream::connect(at).unwrap())
        .collect();
    run(async {
        let turns = Rc::new(Cell::new(0));
        let burned = Rc::clone(&turns);
        EventLoop::current().spawn(async move {
            loop {
                let begin = clock::read();
                while begin.elapsed() < Duration::from_millis(3) {}
                burned.set(burned.get() + 1);
                yield_now().await;
            }
        });
        let acceptor = Acceptor::new(listener).unwrap();
        for _ in 0..QUEUED {
            poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
        }
        assert!(turns.get() <= 16, "{} turns for {QUEUED}", turns.get());
    });
    drop(clients);
}

#[test]
fn a_refused_connect_says_so() {
    run(async {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let stream = dial(closed, Origin::default()).unwrap();
        let error = poll_fn(|cx| stream.poll_connected(cx)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_socket_goes_on_where_it_arrives() {
    let (peer, left) = run(async {
        let (mut peer, ours) = pair();
        peer.write_all(b"1").unwrap();
        let mut heard = [0; 8];
        assert_eq!(
            poll_fn(|cx| ours.poll_recv(cx, &mut heard)).await.unwrap(),
            1
        );
        (peer, ours.leave().unwrap())
    });
    let mut peer = peer;
    run(async move {
        let ours = Stream::arrived(left).unwrap();
        assert!(ours.is_quiet());
        assert_eq!(poll_fn(|cx| ours.poll_send(cx, b"a")).await.unwrap(), 1);
        let mut heard = [0; 8];
        assert_eq!(peer.read(&mut heard).unwrap(), 1);
        // What comes after it arrived wakes it there.
        let writer = thread::spawn(move || {
            peer.write_all(b"22").unwrap();
            peer
        });
        assert_eq!(
            poll_fn(|cx| ours.poll_recv(cx, &mut heard)).await.unwrap(),
            2
        );
        drop(writer.join().unwrap());
        assert_eq!(
            poll_fn(|cx| ours.poll_recv(cx, &mut heard)).await.unwrap(),
            0
        );
    });
}

#[test]
fn a_socket_that_is_not_quiet_does_not_arrive_n3() {
    for end in [&b"421 bye\r\n"[..], b""] {
        run(async {
            let (mut peer, ours) = pair();
            let ready = ours.leave().unwrap();
            peer.write_all(end).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            // The kernel has it before the look.
            ready.set_nonblocking(false).unwrap();
            ready.peek(&mut [0]).unwrap();
            ready.set_nonblocking(true).unwrap();
            let refused = Stream::arrived(ready).map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionAborted);
        });
    }
}
