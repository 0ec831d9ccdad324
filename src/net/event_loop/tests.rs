//! The loop by itself: order is asserted, never duration.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use super::super::accept::Acceptor;
use super::super::pipe::PipePool;
use super::super::relay::{Lent, Relay, Seen};
use super::super::stream::{Stream, Watched};
use super::super::timer::sleep_until;
use super::*;

type Said = Rc<RefCell<Vec<&'static str>>>;

/// Says something when it is dropped.
struct Parting(Said, &'static str);

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

/// Spawns a task, which keeps its loop alive, when it is dropped.
struct Spawner(Said);

impl Drop for Spawner {
    fn drop(&mut self) {
        let parting = Parting(Rc::clone(&self.0), "child");
        let event_loop = EventLoop::current();
        let held = (parting, Rc::clone(&event_loop));
        event_loop.spawn(async move { drop(held) });
    }
}

fn run<F: Future>(test: F) -> F::Output {
    EventLoop::new().unwrap().block_on(test)
}

fn after(millis: u64) -> Instant {
    clock::now() + Duration::from_millis(millis)
}

#[test]
fn other_threads_wake_a_loop_that_sleeps() {
    let (sender, mut receiver) = unbounded_channel();
    let other = thread::spawn(move || {
        for number in 0..1_000 {
            sender.send(number).unwrap();
            if number % 100 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    run(async {
        for expected in 0..1_000 {
            assert_eq!(receiver.recv().await, Some(expected));
        }
        assert_eq!(receiver.recv().await, None);
    });
    other.join().unwrap();
}

#[test]
fn a_wake_between_making_and_running_a_loop_is_not_lost() {
    let event_loop = EventLoop::new().unwrap();
    for _ in 0..2 {
        let (sender, receiver) = oneshot::channel();
        let other = thread::spawn(move || sender.send(7).unwrap());
        assert_eq!(event_loop.block_on(receiver), Ok(7));
        other.join().unwrap();
    }
}

#[test]
fn timers_fire_in_the_order_of_their_deadlines() {
    let said = Said::default();
    run(async {
        for (name, millis) in [("third", 30), ("first", 10), ("second", 20)] {
            let said = Rc::clone(&said);
            EventLoop::current().spawn(async move {
                sleep_until(after(millis)).await;
                said.borrow_mut().push(name);
            });
        }
        sleep_until(after(60)).await;
    });
    assert_eq!(*said.borrow(), ["first", "second", "third"]);
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    let said = Said::default();
    run(async {
        let parting = Parting(Rc::clone(&said), "unwound");
        EventLoop::current().spawn(async move {
            let _parting = parting;
            yield_now().await;
            std::panic::resume_unwind(Box::new("a task's own mistake"));
        });
        let (sender, receiver) = oneshot::channel();
        EventLoop::current().spawn(async move {
            sleep_until(after(5)).await;
            sender.send(()).unwrap();
        });
        receiver.await.expect("the other task lives");
    });
    assert_eq!(*said.borrow(), ["unwound"]);
}

#[test]
fn an_aborted_task_is_dropped_soon_and_one_that_ended_is_left_alone() {
    let said = Said::default();
    run(async {
        let parting = Parting(Rc::clone(&said), "aborted");
        let event_loop = EventLoop::current();
        let aborted = event_loop.spawn(async move {
            let _parting = parting;
            std::future::pending::<()>().await;
        });
        yield_now().await;
        event_loop.abort(aborted);
        assert!(said.borrow().is_empty(), "not inside of the call");
        yield_now().await;
        assert_eq!(*said.borrow(), ["aborted"]);
        // The next task has its place; the old name must not reach it.
        let (sender, receiver) = oneshot::channel();
        let next = event_loop.spawn(async move {
            yield_now().await;
            sender.send(()).unwrap();
        });
        assert_eq!(next.index, aborted.index);
        event_loop.abort(aborted);
        receiver.await.expect("it was not aborted");
    });
}

#[test]
fn tasks_that_are_left_are_dropped_with_those_they_spawn() {
    let said = Said::default();
    run(async {
        let (parting, spawner) = (
            Parting(Rc::clone(&said), "parent"),
            Spawner(Rc::clone(&said)),
        );
        EventLoop::current().spawn(async move {
            let _left = (spawner, parting);
            std::future::pending::<()>().await;
        });
        yield_now().await;
    });
    assert_eq!(*said.borrow(), ["parent", "child"]);
    assert_eq!(Rc::strong_count(&said), 1);
}

#[test]
fn a_task_spawned_while_others_are_dropped_is_dropped_wherever_its_place_is() {
    let said = Said::default();
    run(async {
        let event_loop = EventLoop::current();
        // Its place is the first, and free again when the second is dropped.
        event_loop.spawn(async {});
        let spawner = Spawner(Rc::clone(&said));
        event_loop.spawn(async move {
            let _spawner = spawner;
            std::future::pending::<()>().await;
        });
        yield_now().await;
    });
    assert_eq!(*said.borrow(), ["child"]);
    assert_eq!(Rc::strong_count(&said), 1, "nothing is left of it");
}

#[test]
fn a_place_whose_task_was_dropped_while_queued_serves_the_next_run() {
    let event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        // Queued, and never polled.
        EventLoop::current().spawn(async {});
    });
    let (sender, receiver) = oneshot::channel();
    event_loop.block_on(async {
        EventLoop::current().spawn(async move { sender.send(()).unwrap() });
        let told = after(2_000);
        tokio::select! {
            () = sleep_until(told) => panic!("the task is never polled"),
            heard = receiver => heard.expect("it says so"),
        }
    });
}

/// Polled for one reason, it must see what another thread wrote before a wake that found it queued.
#[test]
fn a_wake_from_another_thread_is_seen_by_the_poll_it_falls_together_with() {
    const ROUNDS: u32 = 20_000;
    let said = Arc::new(AtomicU32::new(0));
    let (wakers, their_wakers) = std::sync::mpsc::channel::<Waker>();
    let theirs = Arc::clone(&said);
    let other = thread::spawn(move || {
        let waker = their_wakers.recv().unwrap();
        for round in 1..=ROUNDS {
            theirs.store(round, Ordering::Release);
            waker.wake_by_ref();
            while theirs.load(Ordering::Acquire) != 0 {
                std::hint::spin_loop();
            }
        }
    });
    run(async {
        let mut wakers = Some(wakers);
        let mut heard = 0;
        // It keeps its first waker, as a future may that is polled by one task only.
        let all = poll_fn(|cx| {
            if let Some(wakers) = wakers.take() {
                wakers.send(cx.waker().clone()).unwrap();
            }
            if said.load(Ordering::Acquire) == 0 {
                return Poll::Pending;
            }
            heard += 1;
            said.store(0, Ordering::Release);
            if heard == ROUNDS {
                return Poll::Ready(());
            }
            // Woken by itself as well, so that wakes fall together.
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        tokio::select! {
            () = all => {}
            () = sleep_until(after(30_000)) => panic!("a wake was lost"),
        }
    });
    other.join().unwrap();
}

#[test]
fn a_task_that_wakes_itself_starves_neither_sockets_nor_timers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    run(async {
        EventLoop::current().spawn(async {
            loop {
                yield_now().await;
            }
        });
        let stream = Stream::new(ours).unwrap();
        sleep_until(after(2)).await;
        drop(peer);
        let seen = poll_fn(|cx| stream.poll_watch(cx)).await;
        assert_eq!(seen, Watched::Closed);
    });
}

/// A peer, and our end of the connection.
fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (peer, Stream::new(ours).unwrap())
}

/// Waits of sessions that may last for minutes must not cost a turn each.
#[test]
fn a_session_that_waits_does_not_turn_the_loop() {
    const TURNS_MAX: u32 = 20;
    type Prepare = fn(&mut TcpStream, &mut TcpStream);
    let waits: [(&str, Prepare); 4] = [
        ("half-closed by the client", |client, _| {
            client.shutdown(Shutdown::Write).unwrap();
        }),
        ("half-closed behind octets", |client, _| {
            client.write_all(b"QUIT\r\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }),
        ("half-closed by the backend", |_, backend| {
            backend.write_all(b"221 bye\r\n").unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
        }),
        ("stalled by a client that does not read", |_, backend| {
            backend.set_nonblocking(true).unwrap();
            while backend.write(&[b'x'; 8 * 1024]).is_ok() {}
        }),
    ];
    for (what, prepare) in waits {
        for pipes in [0, 2] {
            run(async {
                let ((mut client_peer, client), (mut backend_peer, backend)) = (pair(), pair());
                prepare(&mut client_peer, &mut backend_peer);
                let pipes = PipePool::new(pipes);
                let mut scratch = vec![0; 64 * 1024];
                EventLoop::current().spawn(async move {
                    let mut relay = Relay::new(0, &[]);
                    poll_fn(|cx| {
                        let mut lent = Lent {
                            scratch: &mut scratch,
                            pipes: &pipes,
                        };
                        relay.poll(cx, &client, &backend, &mut lent, &mut Seen::default())
                    })
                    .await;
                });
                sleep_until(after(50)).await;
                let before = EventLoop::current().turns.get();
                sleep_until(after(50)).await;
                let turns = EventLoop::current().turns.get() - before;
                assert!(turns <= TURNS_MAX, "{what}: {turns} turns in 50 ms");
                drop((client_peer, backend_peer));
            });
        }
    }
}

/// No descriptor to accept with: the queue is full, and nobody must be woken for it.
#[test]
fn a_paused_acceptor_does_not_turn_the_loop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    run(async {
        let acceptor = Acceptor::new(listener).unwrap();
        acceptor.pause(true).unwrap();
        sleep_until(after(5)).await;
        let before = EventLoop::current().turns.get();
        sleep_until(after(50)).await;
        let turns = EventLoop::current().turns.get() - before;
        assert!(turns <= 10, "{turns} turns in 50 ms");
        acceptor.pause(false).unwrap();
        poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
    });
    drop(client);
}

#[test]
#[should_panic(expected = "a task of an event loop")]
fn a_socket_outside_of_a_loop_is_a_mistake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(Stream::new(peer));
}
