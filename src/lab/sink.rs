//! The sink: its listeners, its life (stop, restart), and the handle by which a test drives it.
//!
//! One task owns the listeners and, in a set, all connections: stopping it leaves nothing behind.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::counts::{MessageRecord, ProxyRecord, SinkCounts, Tally, WaitedInVain};
use super::script::{At, Script, WhenFull};
use super::session::{Common, Session};
use super::wire::{Gate, set_reset_on_drop};

/// The length of the accept queue.
const BACKLOG: i32 = 4096;
/// Orders that may wait for the sink's task.
const ORDERS_MAX: usize = 16;
/// How long accepting pauses when the process has no descriptor left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(10);

/// How a sink is started.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// Addresses, at least one; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Its name in greetings and replies.
    pub name: Arc<str>,
    /// What it does at first.
    pub script: Script,
    /// The last so many messages and PROXY headers are recorded; 0 counts only.
    pub keep_records: usize,
    /// So many octets of each recorded message are kept.
    pub keep_octets: usize,
}

impl Default for SinkPlan {
    /// A good MTA on a free port of 127.0.0.1 that records the last 1,000 messages without content.
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            name: Arc::from("sink.test"),
            script: Script::good(),
            keep_records: 1000,
            keep_octets: 0,
        }
    }
}

impl SinkPlan {
    /// The default plan with this script.
    pub fn with(script: Script) -> Self {
        Self {
            script,
            ..Self::default()
        }
    }

    /// The same with this name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Arc::from(name);
        self
    }

    /// The same on these addresses.
    #[must_use]
    pub fn on(mut self, listen: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.listen = listen.into_iter().collect();
        self
    }

    /// The same, keeping up to `octets` of each message.
    #[must_use]
    pub fn keeping(mut self, octets: usize) -> Self {
        self.keep_octets = octets;
        self
    }
}

/// The test MTA.
#[derive(Debug)]
pub struct Sink;

impl Sink {
    /// Starts a sink on the current tokio runtime (of any kind, with I/O and time).
    ///
    /// # Errors
    /// An address cannot be bound; the error names it.
    pub fn start(plan: SinkPlan) -> io::Result<SinkHandle> {
        let (sockets, handle, task) = prepare(plan)?;
        let listeners = listen_all(sockets)?;
        tokio::spawn(task.run(listeners));
        Ok(handle)
    }

    /// Starts a sink on a thread and runtime of its own, which end with the handle.
    ///
    /// # Errors
    /// An address cannot be bound, or the thread cannot be made.
    pub fn spawn_thread(plan: SinkPlan) -> io::Result<SinkHandle> {
        let (sockets, handle, task) = prepare(plan)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        thread::Builder::new().name("sink".into()).spawn(move || {
            runtime.block_on(async {
                // Only a runtime without I/O refuses sockets that already listen.
                if let Ok(listeners) = listen_all(sockets) {
                    task.run(listeners).await;
                }
            });
        })?;
        Ok(handle)
    }
}

/// The door to a running sink; when the last clone is dropped the sink stops and resets everything.
#[derive(Clone, Debug)]
pub struct SinkHandle {
    addresses: Arc<[SocketAddr]>,
    tally: Arc<Tally>,
    script: Arc<Mutex<Arc<Script>>>,
    news: Arc<watch::Sender<Arc<Script>>>,
    gate: Arc<watch::Sender<Gate>>,
    orders: mpsc::Sender<Order>,
}

impl SinkHandle {
    /// The first address.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Every address.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The counts now.
    pub fn counts(&self) -> SinkCounts {
        self.tally.counts()
    }

    /// The recorded messages, oldest first.
    pub fn messages(&self) -> Vec<MessageRecord> {
        self.tally.messages()
    }

    /// Takes the recorded messages out, oldest first.
    pub fn take_messages(&self) -> Vec<MessageRecord> {
        self.tally.take_messages()
    }

    /// The recorded PROXY headers, oldest first.
    pub fn proxy_headers(&self) -> Vec<ProxyRecord> {
        self.tally.headers()
    }

    /// Waits until the counts hold what is asked, at most 10 seconds.
    ///
    /// # Errors
    /// They did not; the error says what they were.
    pub async fn wait_for(
        &self,
        holds: impl Fn(&SinkCounts) -> bool,
    ) -> Result<SinkCounts, WaitedInVain> {
        self.tally.wait_for(holds).await
    }

    /// New connections follow this script from now on.
    pub fn script(&self, script: Script) {
        *self
            .script
            .lock()
            .expect("no code panics while it holds the script") = Arc::new(script);
    }

    /// All connections follow this script from now on, those that are open from their next step.
    pub fn script_for_all(&self, script: Script) {
        self.script(script.clone());
        self.news.send_replace(Arc::new(script));
    }

    /// Opens the gate at which [`super::Act::Hold`] waits, until [`SinkHandle::hold`].
    pub fn release(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// Shuts that gate again; it is shut at first.
    pub fn hold(&self) {
        self.gate.send_replace(Gate::Shut);
    }

    /// Dies: closes the listeners and resets every connection. Returns when that is done.
    pub async fn stop(&self) {
        self.order(Order::Stop).await;
    }

    /// Resets every connection and goes on listening.
    pub async fn reset_connections(&self) {
        self.order(Order::Reset).await;
    }

    /// Comes back on the same addresses. Does nothing if it runs.
    ///
    /// # Errors
    /// An address was taken meanwhile.
    pub async fn restart(&self) -> io::Result<()> {
        let (done, result) = oneshot::channel();
        let gone = || io::Error::other("the sink's runtime has ended");
        self.orders
            .send(Order::Start(done))
            .await
            .map_err(|_| gone())?;
        result.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn order(&self, make: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, result) = oneshot::channel();
        // A sink whose runtime has ended has stopped already.
        if self.orders.send(make(done)).await.is_ok() {
            let _ = result.await;
        }
    }
}

#[derive(Debug)]
enum Order {
    Stop(oneshot::Sender<()>),
    Reset(oneshot::Sender<()>),
    Start(oneshot::Sender<io::Result<()>>),
}

type Prepared = (Vec<StdListener>, SinkHandle, SinkTask);

fn prepare(plan: SinkPlan) -> io::Result<Prepared> {
    let held = plan
        .listen
        .iter()
        .map(|address| bind(*address))
        .collect::<io::Result<Vec<_>>>()?;
    let addresses: Arc<[SocketAddr]> = held
        .iter()
        .map(|socket| socket.local_addr().map(|address| address.as_socket()))
        .filter_map(io::Result::transpose)
        .collect::<io::Result<_>>()?;
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a sink needs at least one address",
        ));
    }
    let sockets = listen(&addresses)?;
    let tally = Arc::new(Tally::new(plan.keep_records));
    let script = Arc::new(Mutex::new(Arc::new(plan.script)));
    let news = Arc::new(watch::Sender::new(Arc::default()));
    let (gate, gate_seen) = watch::channel(Gate::Shut);
    let (orders, orders_taken) = mpsc::channel(ORDERS_MAX);
    let handle = SinkHandle {
        addresses: Arc::clone(&addresses),
        tally: Arc::clone(&tally),
        script: Arc::clone(&script),
        news: Arc::clone(&news),
        gate: Arc::new(gate),
        orders,
    };
    let task = SinkTask {
        addresses,
        tally,
        script,
        news,
        doom: Arc::default(),
        gate: gate_seen,
        orders: orders_taken,
        name: plan.name,
        keep_octets: plan.keep_octets,
        places: None,
        _held: held,
    };
    Ok((sockets, handle, task))
}

fn listen(addresses: &[SocketAddr]) -> io::Result<Vec<StdListener>> {
    let listen = |address: &SocketAddr| {
        let socket = bind(*address)?;
        let listening = socket.listen(BACKLOG);
        listening.map_err(|error| named(*address, &error))?;
        Ok(socket.into())
    };
    addresses.iter().map(listen).collect()
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let bound = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bound().map_err(|error| named(address, &error))
}

fn named(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

fn listen_all(sockets: Vec<StdListener>) -> io::Result<Vec<TcpListener>> {
    sockets.into_iter().map(TcpListener::from_std).collect()
}

/// The places of a sink with `max_connections`, for the limit in force.
#[derive(Debug)]
struct Places {
    limit: u32,
    free: Arc<Semaphore>,
}

#[derive(Debug)]
struct SinkTask {
    addresses: Arc<[SocketAddr]>,
    tally: Arc<Tally>,
    script: Arc<Mutex<Arc<Script>>>,
    news: Arc<watch::Sender<Arc<Script>>>,
    doom: Arc<Notify>,
    gate: watch::Receiver<Gate>,
    orders: mpsc::Receiver<Order>,
    name: Arc<str>,
    keep_octets: usize,
    places: Option<Places>,
    /// They never listen: while the sink is dead nobody else gets its ports.
    _held: Vec<Socket>,
}

impl SinkTask {
    async fn run(mut self, mut listeners: Vec<TcpListener>) {
        let mut sessions = JoinSet::new();
        loop {
            // Every branch is cancel-safe: a channel, a permit, a poll of accept, a set of tasks.
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => return,
                    Some(Order::Stop(done)) => {
                        listeners.clear();
                        sessions.shutdown().await;
                        let _ = done.send(());
                    }
                    Some(Order::Reset(done)) => {
                        sessions.shutdown().await;
                        let _ = done.send(());
                    }
                    Some(Order::Start(done)) => {
                        let _ = done.send(self.listen_again(&mut listeners));
                    }
                },
                () = self.doom.notified() => {
                    listeners.clear();
                    sessions.shutdown().await;
                    self.tally.count(|counts| counts.deaths += 1);
                }
                accepted = accept_any(&listeners) => match accepted {
                    Ok((stream, peer)) => self.admit(stream, peer, &mut sessions),
                    Err(_) => sleep(ACCEPT_BACKOFF).await,
                },
                Some(_) = sessions.join_next() => {}
            }
        }
    }

    fn listen_again(&self, listeners: &mut Vec<TcpListener>) -> io::Result<()> {
        if listeners.is_empty() {
            *listeners = listen_all(listen(&self.addresses)?)?;
        }
        Ok(())
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, sessions: &mut JoinSet<()>) {
        // Whatever ends a connection before its session does (a stop) resets it, as a crash does.
        set_reset_on_drop(&stream, true);
        // Batched replies are whole writes: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        let mut script = Arc::clone(
            &self
                .script
                .lock()
                .expect("no code panics while it holds the script"),
        );
        let mut place = None;
        if let Some((limit, when_full)) = script.max_connections.clone() {
            let free = self.places(limit);
            match (Arc::clone(&free).try_acquire_owned(), when_full) {
                (Ok(permit), _) => place = Some(Place::Held(permit)),
                (Err(_), WhenFull::Wait) => place = Some(Place::Wanted(free)),
                (Err(_), WhenFull::Refuse(reply)) => {
                    script = Arc::new(Script::clone(&script).reply(At::Greeting, &reply));
                }
            }
        }
        let common = Common {
            name: Arc::clone(&self.name),
            script,
            news: self.news.subscribe(),
            doom: Arc::clone(&self.doom),
            tally: Arc::clone(&self.tally),
            gate: self.gate.clone(),
            keep_octets: self.keep_octets,
        };
        let open = OpenCount::new(Arc::clone(&self.tally));
        sessions.spawn(async move {
            let _open = open;
            let _held = match place {
                None => None,
                Some(Place::Held(permit)) => Some(permit),
                Some(Place::Wanted(free)) => match wait_for_place(&stream, free).await {
                    Some(permit) => Some(permit),
                    None => return,
                },
            };
            Session::new(stream, peer, common).run().await;
        });
    }

    fn places(&mut self, limit: u32) -> Arc<Semaphore> {
        let places = match self.places.take() {
            Some(places) if places.limit == limit => places,
            _ => Places {
                limit,
                free: Arc::new(Semaphore::new(limit as usize)),
            },
        };
        Arc::clone(&self.places.insert(places).free)
    }
}

/// A connection's place under `max_connections`.
#[derive(Debug)]
enum Place {
    Held(tokio::sync::OwnedSemaphorePermit),
    Wanted(Arc<Semaphore>),
}

/// A place, or `None` when the peer left while it waited.
async fn wait_for_place(
    stream: &TcpStream,
    free: Arc<Semaphore>,
) -> Option<tokio::sync::OwnedSemaphorePermit> {
    let left = async {
        let mut octet = [0; 1];
        loop {
            match stream.peek(&mut octet).await {
                Ok(0) | Err(_) => return,
                // Input waits for the greeting; ask again for the end only now and then.
                Ok(_) => sleep(ACCEPT_BACKOFF).await,
            }
        }
    };
    // Both branches are cancel-safe: a semaphore, and peeks that take nothing.
    tokio::select! {
        permit = free.acquire_owned() => permit.ok(),
        () = left => None,
    }
}

async fn accept_any(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for listener in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
struct OpenCount(Arc<Tally>);

impl OpenCount {
    fn new(tally: Arc<Tally>) -> Self {
        tally.count(|counts| {
            counts.connections += 1;
            counts.open += 1;
        });
        Self(tally)
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.count(|counts| counts.open -= 1);
    }
}
