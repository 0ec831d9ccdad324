//! A cheap SMTP sink: one thread, any number of sessions, one write per group of replies, a few
//! faults that can be switched on while it serves, and a journal that outlives it.
//!
//! Of a message it asks what all clients here do: that its end is the end of a read, as nobody says
//! more before the reply to it. It is deterministic: the `221` and the FIN leave in one segment, so
//! that whoever reads them makes the same system calls every time.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
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

/// What it does wrong once it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `421` instead of a greeting, and close.
    #[default]
    Greeting421,
    /// `421` to MAIL, and close.
    Mail421,
    /// Closes when the first octets of a message have come.
    CloseMidData,
    /// `451 4.3.1` to every message.
    Dot431,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [
        Self::Greeting421,
        Self::Mail421,
        Self::CloseMidData,
        Self::Dot431,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Greeting421 => "greeting-421",
            Self::Mail421 => "mail-421",
            Self::CloseMidData => "close-mid-data",
            Self::Dot431 => "dot-431",
        }
    }
}

/// What a sink does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// Waits before it greets, so that the other side is surely waiting for it.
    pub(crate) greeting_delay: Duration,
    /// Announces PIPELINING.
    pub(crate) pipelining: Pipelining,
    pub(crate) fault: Fault,
    /// Every message is noted here before it is acknowledged: sender and octets. What is written
    /// stays when the process is killed.
    pub(crate) journal: Option<PathBuf>,
}

/// Whether EHLO announces it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pipelining {
    Announced,
    #[default]
    NotAnnounced,
}

/// What a sink counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) octets: AtomicU64,
    /// Does from now on what its fault says.
    pub(crate) fails: AtomicBool,
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
        Self::default()
    }

    /// Greets after a millisecond: whoever dialled is asleep by then, every time.
    pub(crate) fn lock_step() -> Self {
        Self {
            greeting_delay: Duration::from_millis(1),
            ..Self::default()
        }
    }

    /// The same, and takes groups of commands.
    pub(crate) fn pipelining() -> Self {
        Self {
            pipelining: Pipelining::Announced,
            ..Self::lock_step()
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
    let journal = behaviour.journal.as_ref().map(|path| {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(path);
        file.expect("the folder of the journal is ours")
    });
    let shared = Rc::new(Shared {
        behaviour: behaviour.clone(),
        counts: Arc::clone(counts),
        scratch: RefCell::new(vec![0; SCRATCH]),
        journal,
    });
    local.block_on(&runtime, async {
        for socket in sockets {
            let listener = TcpListener::from_std(socket).expect("the socket listens already");
            let shared = Rc::clone(&shared);
            tokio::task::spawn_local(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else {
                        // Out of descriptors: let some sessions end.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    tokio::task::spawn_local(session(stream, Rc::clone(&shared)));
                }
            });
        }
        let _ = stopped.wait_for(|stop| *stop).await;
    });
}

/// What all sessions of a sink use.
struct Shared {
    behaviour: Behaviour,
    counts: Arc<Counts>,
    scratch: RefCell<Vec<u8>>,
    journal: Option<File>,
}

impl Shared {
    fn fails(&self, fault: Fault) -> bool {
        self.behaviour.fault == fault && self.counts.fails.load(Ordering::Relaxed)
    }
}

/// One session; an error of the socket just ends it.
async fn session(stream: TcpStream, shared: Rc<Shared>) {
    let _ = stream.set_nodelay(true);
    shared.counts.sessions.fetch_add(1, Ordering::Relaxed);
    let delay = shared.behaviour.greeting_delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if shared.fails(Fault::Greeting421) {
        let _ = goodbye(&stream, b"421 4.3.2 sink.example too busy\r\n").await;
        return;
    }
    let _ = converse(&stream, &shared).await;
}

async fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    write(stream, b"220 sink.example ESMTP\r\n").await?;
    let mut dialogue = Dialogue::default();
    loop {
        stream.readable().await?;
        let next = {
            let mut buffer = shared.scratch.borrow_mut();
            let octets = match stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(octets) => octets,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            shared
                .counts
                .octets
                .fetch_add(octets as u64, Ordering::Relaxed);
            dialogue.hear(&buffer[..octets], shared)
        };
        let replies = std::mem::take(&mut dialogue.replies);
        match next {
            Next::GoOn if replies.is_empty() => {}
            Next::GoOn => write(stream, &replies).await?,
            Next::End => return goodbye(stream, &replies).await,
            Next::Drop => return Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// Says the replies and closes.
    End,
    /// Closes without a word.
    Drop,
}

/// What one session has come to.
#[derive(Debug, Default)]
struct Dialogue {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    replies: Vec<u8>,
    /// The last octets of the message, in case its end is cut in two; `None` outside of one.
    tail: Option<[u8; END_OF_DATA.len()]>,
    sender: Vec<u8>,
    size: usize,
}

impl Dialogue {
    fn hear(&mut self, octets: &[u8], shared: &Shared) -> Next {
        if self.tail.is_some() {
            return self.message(octets, shared);
        }
        let mut rest = octets;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            let (line, behind) = rest.split_at(end + 1);
            rest = behind;
            let next = if self.begun.is_empty() {
                self.command(line, shared)
            } else {
                self.begun.extend_from_slice(line);
                let line = std::mem::take(&mut self.begun);
                self.command(&line, shared)
            };
            if next != Next::GoOn {
                return next;
            }
        }
        self.begun.extend_from_slice(rest);
        Next::GoOn
    }

    fn command(&mut self, line: &[u8], shared: &Shared) -> Next {
        let letter = |at: usize| line.get(at).map_or(0, u8::to_ascii_uppercase);
        let verb: [u8; 4] = std::array::from_fn(letter);
        let reply: &[u8] = match &verb {
            b"HELO" => b"250 sink.example\r\n",
            b"EHLO" => match shared.behaviour.pipelining {
                Pipelining::Announced => {
                    b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n"
                }
                Pipelining::NotAnnounced => b"250-sink.example\r\n250-8BITMIME\r\n250 SIZE\r\n",
            },
            b"MAIL" if shared.fails(Fault::Mail421) => {
                self.replies
                    .extend_from_slice(b"421 4.3.2 sink.example is going\r\n");
                return Next::End;
            }
            b"MAIL" => {
                line.trim_ascii_end().clone_into(&mut self.sender);
                b"250 2.1.0 Ok\r\n"
            }
            b"RCPT" => b"250 2.1.5 Ok\r\n",
            b"NOOP" | b"RSET" => b"250 2.0.0 Ok\r\n",
            b"DATA" => {
                self.tail = Some(*b"\0\0\0\r\n");
                self.size = 0;
                b"354 End data with <CR><LF>.<CR><LF>\r\n"
            }
            b"QUIT" => {
                self.replies.extend_from_slice(b"221 Bye\r\n");
                return Next::End;
            }
            _ => b"502 5.5.2 Not here\r\n",
        };
        self.replies.extend_from_slice(reply);
        Next::GoOn
    }

    fn message(&mut self, octets: &[u8], shared: &Shared) -> Next {
        if shared.fails(Fault::CloseMidData) {
            return Next::Drop;
        }
        let Some(tail) = &mut self.tail else {
            return Next::GoOn;
        };
        self.size += octets.len();
        for octet in &octets[octets.len().saturating_sub(tail.len())..] {
            tail.rotate_left(1);
            tail[END_OF_DATA.len() - 1] = *octet;
        }
        if tail != END_OF_DATA {
            return Next::GoOn;
        }
        self.tail = None;
        if shared.fails(Fault::Dot431) {
            self.replies
                .extend_from_slice(b"451 4.3.1 Mail system full\r\n");
            return Next::GoOn;
        }
        shared.counts.messages.fetch_add(1, Ordering::Relaxed);
        if let Some(mut journal) = shared.journal.as_ref() {
            let sender = String::from_utf8_lossy(&self.sender);
            // One write, so that no entry is torn.
            let entry = format!("{} {sender}\n", self.size);
            if journal.write_all(entry.as_bytes()).is_err() {
                return Next::Drop;
            }
        }
        self.replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
        Next::GoOn
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
