//! The socket of a probe: clear or TLS, and what happened on it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

use super::{Header, NamedClient, Target};
use crate::identity::{HeaderOut, LOCAL_V2, ProxyVersion};
use crate::net::dial::{self, Origin};
use crate::smtp::ProbeInput;

/// The longest PROXY header of a probe (rule X11).
const HEADER_MAX: usize = 232;
/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection of a probe.
pub(super) enum Wire {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A failed handshake took it.
    Lost,
}

/// What happened on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Connected,
    Octets(usize),
    TlsDone,
    TlsFailed,
    Closed,
    Reset,
    TimedOut,
}

/// Connects; the caller limits the time.
pub(super) async fn connect(target: &Target) -> io::Result<TcpStream> {
    let origin = Origin {
        source: target.source,
        interface: target.interface.as_deref(),
        freebind: target.freebind,
    };
    let stream = TcpStream::from_std(dial::begin(target.address, origin)?)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// The PROXY header of our own traffic: never UNKNOWN, never UNSPEC (rule X12).
pub(super) fn header(target: &Target, stream: &TcpStream) -> io::Result<Vec<u8>> {
    match target.header {
        Header::None => Ok(Vec::new()),
        Header::V2 => Ok(LOCAL_V2.to_vec()),
        Header::V1 => {
            let (from, to) = (stream.local_addr()?, stream.peer_addr()?);
            Ok(naming(ProxyVersion::V1, NamedClient { from, to }))
        }
        Header::V1Of(client) => Ok(naming(ProxyVersion::V1, client)),
        Header::V2Of(client) => Ok(naming(ProxyVersion::V2, client)),
    }
}

fn naming(version: ProxyVersion, client: NamedClient) -> Vec<u8> {
    let NamedClient { from, to } = client;
    let header = HeaderOut::new(version, from, to, None, &[], HEADER_MAX);
    header.octets().to_vec()
}

/// Sends octets that fit a socket buffer, in one write.
pub(super) async fn write(stream: &mut TcpStream, octets: &[u8]) -> io::Result<()> {
    stream.write_all(octets).await
}

impl Wire {
    /// Sends, if there is anything to send.
    pub(super) async fn send(&mut self, octets: &[u8], deadline: Instant) -> Result<(), Happened> {
        if octets.is_empty() {
            return Ok(());
        }
        let send = async {
            match self {
                Self::Clear(stream) => stream.write_all(octets).await,
                Self::Tls(stream) => {
                    stream.write_all(octets).await?;
                    stream.flush().await
                }
                Self::Lost => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        match timeout_at(deadline, send).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Happened::of(&error)),
            Err(_) => Err(Happened::TimedOut),
        }
    }

    /// Reads what there is.
    pub(super) async fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> Happened {
        match self {
            Self::Clear(stream) => read(stream, buffer, deadline).await,
            Self::Tls(stream) => read(stream, buffer, deadline).await,
            Self::Lost => Happened::Closed,
        }
    }

    /// Ends our direction in order, so that the backend sees FIN and not RST (rule H5).
    pub(super) async fn close(self) {
        let close = async {
            match self {
                Self::Clear(mut stream) => stream.shutdown().await,
                Self::Tls(mut stream) => stream.shutdown().await,
                Self::Lost => Ok(()),
            }
        };
        // A peer that is gone needs no goodbye.
        let _ = timeout(CLOSE_TIMEOUT, close).await;
    }
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    deadline: Instant,
) -> Happened {
    match timeout_at(deadline, stream.read(buffer)).await {
        Ok(Ok(0)) => Happened::Closed,
        Ok(Ok(octets)) => Happened::Octets(octets),
        Ok(Err(error)) => Happened::of(&error),
        Err(_) => Happened::TimedOut,
    }
}

impl Happened {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            // The kernel gave up on the connection (keepalive, user timeout).
            io::ErrorKind::TimedOut => Self::TimedOut,
            // rustls: the peer closed without saying so.
            _ => Self::Closed,
        }
    }

    /// As the conversation wants it.
    pub(super) fn input(self, buffer: &[u8]) -> ProbeInput<'_> {
        match self {
            Self::Connected => ProbeInput::Connected,
            Self::Octets(octets) => ProbeInput::Octets(&buffer[..octets]),
            Self::TlsDone => ProbeInput::TlsDone,
            Self::TlsFailed => ProbeInput::TlsFailed,
            Self::Closed => ProbeInput::Closed,
            Self::Reset => ProbeInput::Reset,
            Self::TimedOut => ProbeInput::TimedOut,
        }
    }
}
