//! A cheap SMTP sink: one thread, any number of sessions, one write per reply, and a few faults.
//!
//! It answers the next octets only when the last reply was asked for, so it suits clients that wait
//! for every reply (smtp-source, and the client of this folder), not pipelining ones. A message ends
//! with a read that ends in CRLF.CRLF. It is deterministic: the `221` and the FIN leave in one
//! segment, so that whoever reads them makes the same system calls every time.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The longest accept queue asked for.
const BACKLOG: i32 = 4096;
/// One read of message data.
const SCRATCH: usize = 256 * 1024;
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// How it greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    Good,
    /// `421` and close.
    Busy,
}

/// What a sink does.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) greeting: Greeting,
    /// Waits before it greets, so that the other side is surely waiting for it.
    pub(crate) greeting_delay: Duration,
}

/// What a sink counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) octets: AtomicU64,
    /// Greets 421 from now on.
    pub(crate) busy: AtomicBool,
}

/// A sink on a thread of this process; ends when dropped.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) counts: Arc<Counts>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Behaviour {
    /// Greets at once.
    pub(crate) fn good() -> Self {
        Self {
            greeting: Greeting::Good,
            greeting_delay: Duration::ZERO,
        }
    }

    /// Greets after a millisecond: whoever dialled is asleep by then, every time.
    pub(crate) fn lock_step() -> Self {
        Self {
            greeting: Greeting::Good,
            greeting_delay: Duration::from_millis(1),
        }
    }
}

impl Sink {
    /// Listens on these addresses and serves until dropped.
    pub(crate) fn start(listen: &[SocketAddr], behaviour: Behaviour) -> Result<Self> {
        let sockets = listen
            .iter()
            .map(|at| bind(*at))
            .collect::<Result<Vec<_>>>()?;
        let counts = Arc::new(Counts::default());
        counts
            .busy
            .store(behaviour.greeting == Greeting::Busy, Ordering::Relaxed);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::clone(&counts);
        let thread = thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || serve(sockets, &behaviour, &shared, stopped))?;
        Ok(Self {
            counts,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(at: SocketAddr) -> Result<std::net::TcpListener> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    Ok(open()
        .with_context(|| format!("the sink cannot listen on {at}"))?
        .into())
}

fn serve(
    sockets: Vec<std::net::TcpListener>,
    behaviour: &Behaviour,
    counts: &Arc<Counts>,
    mut stopped: watch::Receiver<bool>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs an epoll and an eventfd");
    let local = tokio::task::LocalSet::new();
    let scratch = Rc::new(RefCell::new(vec![0; SCRATCH]));
    local.block_on(&runtime, async {
        for socket in sockets {
            let listener = TcpListener::from_std(socket).expect("the socket listens already");
            let (behaviour, counts) = (behaviour.clone(), Arc::clone(counts));
            let scratch = Rc::clone(&scratch);
            tokio::task::spawn_local(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        // Out of descriptors: let some sessions end.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let session = session(
                        stream,
                        behaviour.greeting_delay,
                        Arc::clone(&counts),
                        Rc::clone(&scratch),
                    );
                    tokio::task::spawn_local(session);
                }
            });
        }
        let _ = stopped.wait_for(|stop| *stop).await;
    });
}

/// One session; an error of the socket just ends it.
async fn session(
    stream: TcpStream,
    delay: Duration,
    counts: Arc<Counts>,
    scratch: Rc<RefCell<Vec<u8>>>,
) {
    let _ = stream.set_nodelay(true);
    counts.sessions.fetch_add(1, Ordering::Relaxed);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if counts.busy.load(Ordering::Relaxed) {
        let _ = goodbye(&stream, b"421 4.3.2 sink.example too busy\r\n").await;
        return;
    }
    let _ = converse(&stream, &counts, &scratch).await;
}

async fn converse(
    stream: &TcpStream,
    counts: &Counts,
    scratch: &RefCell<Vec<u8>>,
) -> io::Result<()> {
    write(stream, b"220 sink.example ESMTP\r\n").await?;
    let mut in_data = false;
    // The last octets of the read before, in case the end of data is cut in two.
    let mut tail = [0_u8; END_OF_DATA.len()];
    loop {
        stream.readable().await?;
        let (octets, verb) = {
            let mut buffer = scratch.borrow_mut();
            let octets = match stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(octets) => octets,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            for octet in &buffer[octets.saturating_sub(tail.len())..octets] {
                tail.rotate_left(1);
                tail[END_OF_DATA.len() - 1] = *octet;
            }
            let letter = |at: usize| {
                if at < octets {
                    buffer[at].to_ascii_uppercase()
                } else {
                    0
                }
            };
            let verb: [u8; 4] = std::array::from_fn(letter);
            (octets, verb)
        };
        counts.octets.fetch_add(octets as u64, Ordering::Relaxed);
        if in_data {
            if tail == END_OF_DATA {
                in_data = false;
                counts.messages.fetch_add(1, Ordering::Relaxed);
                write(stream, b"250 2.0.0 Ok\r\n").await?;
            }
            continue;
        }
        if !tail.ends_with(b"\r\n") {
            continue;
        }
        match &verb {
            b"HELO" => write(stream, b"250 sink.example\r\n").await?,
            b"EHLO" => write(stream, b"250-sink.example\r\n250-8BITMIME\r\n250 SIZE\r\n").await?,
            b"MAIL" => write(stream, b"250 2.1.0 Ok\r\n").await?,
            b"RCPT" => write(stream, b"250 2.1.5 Ok\r\n").await?,
            b"NOOP" | b"RSET" => write(stream, b"250 2.0.0 Ok\r\n").await?,
            b"DATA" => {
                write(stream, b"354 End data with <CR><LF>.<CR><LF>\r\n").await?;
                in_data = true;
            }
            b"QUIT" => return goodbye(stream, b"221 Bye\r\n").await,
            _ => write(stream, b"502 5.5.2 Not here\r\n").await?,
        }
    }
}

/// The last reply and the FIN in one segment: corked octets leave when the socket is shut down.
async fn goodbye(stream: &TcpStream, reply: &[u8]) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(false)?;
    socket.set_tcp_cork(true)?;
    write(stream, reply).await?;
    socket.shutdown(std::net::Shutdown::Write)
}

async fn write(stream: &TcpStream, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match stream.try_write(octets) {
            Ok(written) => octets = &octets[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
