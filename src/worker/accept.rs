//! Accepting on this thread: one task per listening socket.
//!
//! Out of descriptors or memory it backs off, counts, says so once in a while, and goes on serving
//! what is there. A socket that is stopped drains its queue first: a connection the kernel has
//! completed is never reset by us.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::net::accept::{Accepted, Acceptor};
use crate::net::clock;
use crate::net::event_loop::EventLoop;
use crate::net::timer::sleep_until;
use crate::session::{self, Context, LocalListener, Ticket};
use crate::snapshot::ListenerView;
use crate::types::{Generation, in_words};

/// The pause after accept(2) failed for want of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Failures between two warnings: one in about ten seconds.
const WARN_EVERY: u64 = 100;

/// The sockets this thread accepts on.
#[derive(Debug, Default)]
pub(super) struct Ports(Vec<Port>);

/// One of them.
#[derive(Debug)]
pub(super) struct Port {
    /// Where it listens.
    pub(super) local: SocketAddr,
    orders: Rc<Orders>,
}

/// What the task of a socket is to do.
#[derive(Debug)]
struct Orders {
    /// The stable index of the listener it leads to.
    listener: Cell<usize>,
    stop: Cell<bool>,
    stopped: Notify,
}

impl Port {
    /// The stable index of its listener.
    pub(super) fn listener(&self) -> usize {
        self.orders.listener.get()
    }
}

impl Ports {
    /// Makes the sockets at `local` lead to another listener.
    pub(super) fn lead(&self, local: SocketAddr, from: usize, to: usize) {
        let moved = |port: &&Port| port.local == local && port.listener() == from;
        for port in self.0.iter().filter(moved) {
            port.orders.listener.set(to);
        }
    }

    /// Whether any socket leads to this listener.
    pub(super) fn serves(&self, listener: usize) -> bool {
        self.0.iter().any(|port| port.listener() == listener)
    }

    /// Stops those that `which` chooses.
    pub(super) fn stop(&mut self, which: impl Fn(&Port) -> bool) {
        self.0.retain(|port| {
            let stops = which(port);
            if stops {
                port.orders.stop.set(true);
                port.orders.stopped.notify_one();
            }
            !stops
        });
    }
}

/// Begins to accept on `socket`.
pub(super) fn bind(
    cx: &Rc<Context>,
    ports: &Rc<RefCell<Ports>>,
    view: &Arc<ListenerView>,
    hostname: &str,
    socket: TcpListener,
) -> io::Result<()> {
    let acceptor = Acceptor::new(socket)?;
    let local = acceptor.local();
    let orders = Rc::new(Orders {
        listener: Cell::new(view.state.index),
        stop: Cell::new(false),
        stopped: Notify::new(),
    });
    let policy = Policy::new(cx, view, hostname);
    let run = accept(Rc::clone(cx), acceptor, Rc::clone(&orders), policy);
    EventLoop::current().spawn(run);
    ports.borrow_mut().0.push(Port { local, orders });
    Ok(())
}

async fn accept(cx: Rc<Context>, acceptor: Acceptor, orders: Rc<Orders>, mut policy: Policy) {
    let mut failures = 0;
    while !orders.stop.get() {
        let accepted = tokio::select! {
            biased;
            // Cancel-safe: a connection is returned by the same poll that took it from the queue.
            accepted = poll_fn(|task| acceptor.poll_accept(task)) => accepted,
            () = orders.stopped.notified() => break,
        };
        match accepted {
            Ok(accepted) => policy.start(&cx, orders.listener.get(), accepted),
            Err(error) => {
                note_failure(&cx, &mut failures, &error);
                // Where that fails the loop turns more often than it need.
                let _ = acceptor.pause(true);
                sleep_until(clock::now() + BACK_OFF).await;
                let _ = acceptor.pause(false);
            }
        }
    }
    // Bounded: the queue is not longer than the backlog, and no new connection comes to a socket
    // whose siblings are closing too but for those completed meanwhile.
    while let Ok(accepted) = acceptor.accept_queued() {
        policy.start(&cx, orders.listener.get(), accepted);
    }
}

fn note_failure(cx: &Context, failures: &mut u64, error: &io::Error) {
    cx.counters().accept_failures.inc();
    if failures.is_multiple_of(WARN_EVERY) {
        tracing::warn!(
            worker = cx.worker.0,
            error = &*in_words(error),
            failures = *failures + 1,
            remedy =
                "cannot accept; raise the descriptor limit (LimitNOFILE) or lower max_sessions",
            "listener.accept-failed"
        );
    }
    *failures += 1;
}

/// The listener's policy of the current generation, looked up once per generation; that of the last
/// generation which had the listener, where this one has not.
#[derive(Debug)]
struct Policy {
    listener: usize,
    generation: Generation,
    local: Rc<LocalListener>,
}

impl Policy {
    fn new(cx: &Context, view: &Arc<ListenerView>, hostname: &str) -> Self {
        Self {
            listener: view.state.index,
            generation: Generation(0),
            local: Rc::new(LocalListener::new(view, hostname, &cx.shared.tarpit)),
        }
    }

    fn start(&mut self, cx: &Rc<Context>, listener: usize, accepted: Accepted) {
        let snapshot = cx.shared.current.load();
        if (snapshot.generation, listener) != (self.generation, self.listener) {
            self.generation = snapshot.generation;
            self.listener = listener;
            // A listener that this generation has no more serves its queue by its last policy.
            if let Some(view) = snapshot.listener(self.listener) {
                let hostname = &snapshot.config.hostname;
                let tarpit = &cx.shared.tarpit;
                self.local = Rc::new(LocalListener::new(view, hostname, tarpit));
            }
        }
        drop(snapshot);
        let key = cx.enter(self.listener);
        let run = session::run(Rc::clone(cx), Rc::clone(&self.local), accepted, Ticket(key));
        cx.set_task(key, cx.event_loop.spawn(run));
    }
}
