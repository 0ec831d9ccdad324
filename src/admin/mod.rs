//! The HTTP status endpoint: state, metrics, and the few changes an operator makes at run time.
//!
//! Served on the control thread, so that no page ever costs a session. Everything is bounded:
//! connections, header, body, time, pages at once; one question per connection. A new connection is
//! accepted at once and a silent one gives way to it, so that health checks are always answered.
//! No TLS of its own: loopback or a Unix socket is the default, and a reverse proxy does the rest.
//! The JSON is described in the manual's `status` page.

mod bind;
mod changes;
pub mod client;
mod connections;
mod gather;
mod guard;
mod host;
mod mail;
mod metrics;
mod page;
mod put;
mod readiness;
mod reply;
mod routes;
mod timeouts;
mod token;
pub mod views;

pub use bind::{AdminListener, BindError};
pub use page::{duration, marks, period, replay_memory, short};
pub use timeouts::Timeouts;
pub use token::{Token, TokenError, read as read_token};

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::config::model;
use crate::control::{ADMIN_CONNECTIONS_MAX, Handle};
use crate::types::in_words;
use bind::Socket;
use connections::{Connections, Phase, SILENT_KEPT_MIN, TrackedConnection};
use routes::{Asker, Endpoint, Who};
use timeouts::StallTimeout;

/// The longest header of a question, in octets.
const HEADER_OCTETS_MAX: usize = 16 * 1024;
/// Header lines of a question.
const HEADER_LINES_MAX: usize = 64;
/// The longest body of a question, in octets.
const BODY_OCTETS_MAX: usize = 64 * 1024;
/// Pages that are gathered or sent at once: each may be megabytes.
const PAGES_AT_ONCE_MAX: usize = 4;
/// Questions that wait until their page may be made, of one peer and of all.
const PAGES_WAITING_MAX: (usize, usize) = (8, 32);
/// How long accepting pauses when no descriptor or memory is to be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the endpoint cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Its socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Binds as configured and returns the task that serves until it is dropped.
///
/// # Errors
/// The socket cannot be bound or the token file not read.
pub fn start(
    settings: &model::Admin,
    handle: Handle,
) -> Result<impl Future<Output = io::Result<()>> + use<>, AdminError> {
    let token = settings
        .token_file
        .as_deref()
        .map(Token::from_file)
        .transpose()?;
    let binds = settings.bind.iter().map(AdminListener::bind);
    let listeners = binds.collect::<Result<Vec<_>, _>>()?;
    Ok(serve_all(listeners, token, handle))
}

/// Serves each listener with connections of its own: many clients on TCP do not keep an operator from
/// the Unix socket.
async fn serve_all(
    listeners: Vec<AdminListener>,
    token: Option<Token>,
    handle: Handle,
) -> io::Result<()> {
    let mut serving = JoinSet::new();
    for listener in listeners {
        let never = std::future::pending();
        let timeouts = Timeouts::default();
        serving.spawn(serve(
            listener,
            token.clone(),
            handle.clone(),
            timeouts,
            never,
        ));
    }
    match serving.join_next().await {
        Some(ended) => ended.unwrap_or_else(|panic| Err(io::Error::other(panic))),
        None => Ok(()),
    }
}

/// Serves until `stop` is ready; open connections are then cut. Needs a tokio runtime with time
/// and I/O.
///
/// # Errors
/// The runtime does not take the socket.
pub async fn serve(
    listener: AdminListener,
    token: Option<Token>,
    handle: Handle,
    timeouts: Timeouts,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let bound = listener.address().map(|address| address.ip());
    let open = Connections::default();
    let endpoint = Endpoint::new(handle, token, bound, open.clone(), timeouts);
    let endpoint = Arc::new(endpoint);
    let mut stop = pin!(stop);
    let mut tasks = JoinSet::new();
    let (socket, _file) = Accepting::new(listener.socket)?;
    loop {
        // One connection too many is accepted, and then a silent one gives way.
        let may_accept = tasks.len() <= ADMIN_CONNECTIONS_MAX;
        let gives_way = (open.len() > ADMIN_CONNECTIONS_MAX)
            .then(|| open.longest_silent())
            .flatten();
        let gives_way_at = gives_way.unwrap_or_else(Instant::now) + SILENT_KEPT_MIN;
        // Cancel-safe: accept and join_next lose nothing when dropped.
        tokio::select! {
            () = &mut stop => return Ok(()),
            Some(_) = tasks.join_next() => {}
            () = sleep_until(gives_way_at.into()), if gives_way.is_some() => {
                open.drop_longest_silent(Instant::now());
            }
            accepted = socket.accept(), if may_accept => match accepted {
                Ok(connection) => {
                    let tracked = open.track(connection.who().peer(), Instant::now());
                    let id = tracked.id();
                    let served = connection.serve(Arc::clone(&endpoint), tracked);
                    open.set_task(id, tasks.spawn(served));
                }
                Err(error) => {
                    tracing::warn!(name: "admin.accept_failed", error = &*in_words(&error));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Connection {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Accepting {
    fn new(socket: Socket) -> io::Result<(Self, Option<bind::SocketFile>)> {
        Ok(match socket {
            Socket::Tcp(socket) => (Self::Tcp(TcpListener::from_std(socket)?), None),
            Socket::Unix(socket, file) => (Self::Unix(UnixListener::from_std(socket)?), Some(file)),
        })
    }

    async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Connection::Tcp(stream, peer)
            }
            Self::Unix(socket) => Connection::Unix(socket.accept().await?.0),
        })
    }
}

impl Connection {
    fn who(&self) -> Who {
        match self {
            Self::Tcp(_, peer) => Who::At(*peer),
            Self::Unix(stream) => stream.peer_cred().map_or(Who::Unknown, |of| Who::User {
                uid: of.uid(),
                pid: of.pid(),
            }),
        }
    }

    async fn serve(self, endpoint: Arc<Endpoint>, tracked: TrackedConnection) {
        let asker = Asker::new(self.who(), tracked);
        match self {
            Self::Tcp(stream, _) => serve_one(stream, asker, &endpoint).await,
            Self::Unix(stream) => serve_one(stream, asker, &endpoint).await,
        }
    }
}

/// One question and its reply; a client's faults end its connection and nothing else.
async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin, asker: Asker, endpoint: &Endpoint) {
    let timeouts = endpoint.timeouts;
    let answer = service_fn(|asked| {
        let asker = &asker;
        async move {
            asker.connection.set_phase(Phase::Answering, Instant::now());
            Ok::<_, Infallible>(endpoint.answer(asker, asked).await)
        }
    });
    let stream = TokioIo::new(StallTimeout::new(stream, timeouts.stall));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.header)
        .max_buf_size(HEADER_OCTETS_MAX)
        .max_headers(HEADER_LINES_MAX)
        .keep_alive(false)
        .serve_connection(stream, answer);
    match timeout(timeouts.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(name: "admin.connection_failed", client = %asker.who, %error);
        }
        Err(_) => tracing::debug!(name: "admin.connection_timeout", client = %asker.who),
    }
}
