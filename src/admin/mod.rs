//! The HTTP status endpoint: state, metrics, and the few changes an operator makes at run time.
//!
//! Served on the control thread, so that no page ever costs a session. Everything is bounded:
//! connections, header, body, time, pages at once; one question per connection. No TLS of its own:
//! loopback or a Unix socket is the default, and a reverse proxy does the rest. The JSON is
//! described in the manual's `status` page.

mod bind;
pub mod client;
mod gather;
mod guard;
mod mail;
mod metrics;
mod page;
mod reply;
mod routes;
mod token;
pub mod views;

pub use bind::{AdminListener, BindError};
pub use page::{duration, period, replay_memory, short};
pub use token::{Token, TokenError, read as read_token};

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::model;
use crate::control::Handle;
use bind::Socket;
use guard::Door;
use routes::{Asker, Endpoint};

/// Connections at once of one listener; more wait in the kernel's accept queue.
const CONNECTIONS_MAX: usize = 64;
/// The longest header of a question, in octets.
const HEADER_OCTETS_MAX: usize = 16 * 1024;
/// Header lines of a question.
const HEADER_LINES_MAX: usize = 64;
/// The longest body of a question, in octets.
const BODY_OCTETS_MAX: usize = 64 * 1024;
/// Pages that are gathered or sent at once: each may be megabytes.
const PAGES_AT_ONCE_MAX: usize = 4;
/// How long accepting pauses when no descriptor or memory is to be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the header of its question.
    pub header: Duration,
    /// For the whole connection: question, answer and close.
    pub connection: Duration,
}

impl Default for Patience {
    /// 10 s and 30 s.
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            connection: Duration::from_secs(30),
        }
    }
}

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

/// Each listener has connections of its own: a crowd on TCP does not keep an operator from the Unix
/// socket.
async fn serve_all(
    listeners: Vec<AdminListener>,
    token: Option<Token>,
    handle: Handle,
) -> io::Result<()> {
    let mut doors = JoinSet::new();
    for listener in listeners {
        let never = std::future::pending();
        let patience = Patience::default();
        doors.spawn(serve(
            listener,
            token.clone(),
            handle.clone(),
            patience,
            never,
        ));
    }
    match doors.join_next().await {
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
    patience: Patience,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let endpoint = Arc::new(Endpoint::new(handle, token));
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    let (socket, _file) = Accepting::new(listener.socket)?;
    loop {
        // Cancel-safe: accept and join_next lose nothing when dropped.
        tokio::select! {
            () = &mut stop => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = socket.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok(connection) => drop(connections.spawn(connection.serve(Arc::clone(&endpoint), patience))),
                Err(error) => {
                    tracing::warn!(name: "admin.accept_failed", %error);
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
    Tcp(TcpStream, Asker),
    Unix(UnixStream, Asker),
}

impl Accepting {
    fn new(socket: Socket) -> io::Result<(Self, Option<bind::SocketFile>)> {
        Ok(match socket {
            Socket::Tcp(socket) => (Self::Tcp(TcpListener::from_std(socket)?), None),
            Socket::Unix(socket, file) => (Self::Unix(UnixListener::from_std(socket)?), Some(file)),
        })
    }

    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                let who = Arc::from(peer.ip().to_canonical().to_string());
                let door = Door::Tcp;
                Ok(Connection::Tcp(stream, Asker { door, who }))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let who = match stream.peer_cred() {
                    Ok(credentials) => Arc::from(format!("uid {}", credentials.uid())),
                    Err(_) => Arc::from("unix"),
                };
                let door = Door::Unix;
                Ok(Connection::Unix(stream, Asker { door, who }))
            }
        }
    }
}

impl Connection {
    async fn serve(self, endpoint: Arc<Endpoint>, patience: Patience) {
        match self {
            Self::Tcp(stream, asker) => serve_one(stream, asker, &endpoint, patience).await,
            Self::Unix(stream, asker) => serve_one(stream, asker, &endpoint, patience).await,
        }
    }
}

/// One question and its reply; a client's faults end its connection and nothing else.
async fn serve_one(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    asker: Asker,
    endpoint: &Endpoint,
    patience: Patience,
) {
    let answer = service_fn(|asked| {
        let asker = &asker;
        async move { Ok::<_, Infallible>(endpoint.answer(asker, asked).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.header)
        .max_buf_size(HEADER_OCTETS_MAX)
        .max_headers(HEADER_LINES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(patience.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(name: "admin.connection_failed", %error),
        Err(_) => tracing::debug!(name: "admin.connection_timeout", client = %asker.who),
    }
}
