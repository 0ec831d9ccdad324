//! The other side of the status endpoint: one question over TCP or a Unix socket.
//!
//! For the command line and tests. One connection per question; the answer is bounded in size and
//! time. Every error says what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::views::Refusal;

/// Where the endpoint is looked for if no configuration says where it is.
pub const DEFAULT_ADDRESSES: [&str; 2] = ["unix:/run/posthouse/admin.sock", "127.0.0.1:8025"];
/// The longest answer that is read: ten thousand backends need about a tenth.
const ANSWER_OCTETS_MAX: usize = 64 * 1024 * 1024;
/// How long the connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: a little more than the endpoint gives a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// What was typed is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a status endpoint: use HOST:PORT, http://HOST:PORT or unix:/PATH")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return path
                .is_absolute()
                .then_some(Self::Unix(path))
                .ok_or_else(wrong);
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || b".-_:[]%".contains(&octet);
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let valid = !host.is_empty()
            && host.bytes().all(plain)
            && (bracketed || !host.contains([':', '[', ']']))
            && port.parse::<u16>().is_ok();
        valid.then(|| Self::Tcp(rest.to_owned())).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An answer of the endpoint.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("nobody listens on {0}")]
    Refused(Address),
    /// The socket's permissions.
    #[error("no permission for {0}: ask as root or as a member of the socket's group")]
    Permission(Address),
    /// Any other failure of the connection.
    #[error("cannot reach the status endpoint on {at}")]
    Io {
        /// Where.
        at: Address,
        /// Why.
        source: io::Error,
    },
    /// It does not speak HTTP, or stopped in the middle.
    #[error("{at} did not answer as a status endpoint does: {cause}; is another program there?")]
    Garbled {
        /// Where.
        at: Address,
        /// Why.
        cause: String,
    },
    /// It took too long.
    #[error("{0} did not answer in time: see its log, and posthouse_worker_loop_stalls_total")]
    Timeout(Address),
    /// It said no.
    #[error("{error} ({status}); {remedy}")]
    Denied {
        /// The status code.
        status: StatusCode,
        /// What is wrong.
        error: String,
        /// What to do about it.
        remedy: String,
    },
}

/// A question's address and token.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where to ask.
    pub address: Address,
    /// The bearer token, where changes need one.
    pub token: Option<String>,
}

impl Client {
    /// Asks; any status is an answer. `path` begins with a slash and is percent-escaped.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, ClientError> {
        let mut question = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            question = question.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            question = question.header(CONTENT_TYPE, "application/json");
        }
        let mut question = question
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.garbled(&error))?;
        match &self.address {
            Address::Tcp(address) => {
                let stream = self.connected(TcpStream::connect(address.as_str())).await?;
                // Its address is always one of its hosts; a name that leads there need not be.
                let host = stream.peer_addr().map_or(address.clone(), |at| {
                    // Without the scope of a link-local address.
                    SocketAddr::new(at.ip(), at.port()).to_string()
                });
                let host = HeaderValue::try_from(host).map_err(|error| self.garbled(&error))?;
                question.headers_mut().insert(HOST, host);
                self.exchange(stream, question).await
            }
            Address::Unix(path) => {
                let stream = self.connected(UnixStream::connect(path)).await?;
                let host = HeaderValue::from_static("localhost");
                question.headers_mut().insert(HOST, host);
                self.exchange(stream, question).await
            }
        }
    }

    /// Asks, and takes anything but a 2xx for a refusal.
    ///
    /// # Errors
    /// There was no answer, or it was a refusal.
    pub async fn ask_for(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, ClientError> {
        let answer = self.ask(method, path, body).await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(self.denied(&answer))
        }
    }

    /// The refusal in an answer.
    pub fn denied(&self, answer: &Answer) -> ClientError {
        let refusal = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Refusal {
            error: String::from_utf8_lossy(&answer.body)
                .lines()
                .next()
                .filter(|line| !line.is_empty())
                .unwrap_or("refused without a word")
                .to_owned(),
            remedy: format!("is {} a status endpoint of posthouse?", self.address),
        });
        ClientError::Denied {
            status: answer.status,
            error: refusal.error,
            remedy: refusal.remedy,
        }
    }

    async fn connected<S>(
        &self,
        connect: impl Future<Output = io::Result<S>>,
    ) -> Result<S, ClientError> {
        let at = || self.address.clone();
        match timeout(CONNECT_TIMEOUT, connect).await {
            Err(_) => Err(ClientError::Timeout(at())),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    ClientError::Refused(at())
                }
                io::ErrorKind::PermissionDenied => ClientError::Permission(at()),
                _ => ClientError::Io { at: at(), source },
            }),
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        question: Request<Full<Bytes>>,
    ) -> Result<Answer, ClientError> {
        let both = async {
            let (mut asker, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| self.garbled(&error))?;
            let answer = async {
                let answer = asker
                    .send_request(question)
                    .await
                    .map_err(|error| self.garbled(&error))?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX)
                    .collect()
                    .await
                    .map_err(|error| self.garbled(&*error))?
                    .to_bytes();
                Ok(Answer { status, body })
            };
            let mut answer = std::pin::pin!(answer);
            // Cancel-safe: whichever ends first, the other is not needed or goes on below.
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                _ = connection => answer.await,
            }
        };
        timeout(ANSWER_TIMEOUT, both)
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout(self.address.clone())))
    }

    fn garbled(&self, cause: &(impl std::fmt::Display + ?Sized)) -> ClientError {
        ClientError::Garbled {
            at: self.address.clone(),
            cause: cause.to_string(),
        }
    }
}

/// A name as one part of a path (RFC 3986 §2.1).
pub fn escaped(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for octet in name.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{octet:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_the_forms_that_are() {
        for (text, shown) in [
            ("127.0.0.1:8025", "127.0.0.1:8025"),
            ("http://lb1.example:8025/", "lb1.example:8025"),
            ("http://[::1]:8025", "[::1]:8025"),
            (
                "unix:/run/posthouse/admin.sock",
                "unix:/run/posthouse/admin.sock",
            ),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
        }
        for text in [
            "",
            "localhost",
            "https://a:1",
            "a:99999",
            ":25",
            "unix:relative",
            "::1:8025",
            "a b:1",
            "http://a:1/status",
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.to_string().contains("unix:/PATH"), "{error}");
        }
    }

    #[test]
    fn names_become_parts_of_a_path() {
        assert_eq!(escaped("mx-1.a_b~"), "mx-1.a_b~");
        assert_eq!(escaped("a/b c%é"), "a%2Fb%20c%25%C3%A9");
    }
}
