//! Every path of the status endpoint and what is done for it.
//!
//! Every question but a health check must name a host of ours; one that changes something must pass
//! the rest of the guard. Health checks pass no guard and never wait: they say nothing that is worth
//! guarding. Pages are gathered off the loop, and few at a time: with ten thousand backends a page is
//! megabytes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep_until, timeout};

use super::changes::{AskedChange, log_foreign};
use super::connections::{Connections, Peer, Phase, TrackedConnection};
use super::guard::{self, AskedOf, Right, Transport};
use super::host::{AskedHost, OurHosts};
use super::reply::{self, Reply, refusal, wrong_method};
use super::timeouts::Timeouts;
use super::token::Token;
use super::{
    BODY_OCTETS_MAX, PAGES_AT_ONCE_MAX, PAGES_WAITING_MAX, gather, metrics, page, put, readiness,
    views,
};
use crate::control::{BackendChange, ChangeError, Handle};
use crate::metrics::exposition::Exposition;

const READ: &str = "GET, HEAD";

/// What all connections share.
pub(super) struct Endpoint {
    pub(super) timeouts: Timeouts,
    handle: Handle,
    token: Option<Token>,
    /// Where it listens; `None` for a Unix socket.
    bound: Option<IpAddr>,
    connections: Connections,
    pages: Arc<Semaphore>,
}

/// A client of the status endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    /// A client over TCP.
    At(SocketAddr),
    /// A process on this host, over the Unix socket.
    User { uid: u32, pid: Option<i32> },
    /// A process of which the kernel says nothing.
    Unknown,
}

impl Who {
    /// Whose connections its own count with.
    pub(super) fn peer(&self) -> Peer {
        match self {
            Self::At(address) => Peer::at(address.ip()),
            Self::User { uid, .. } => Peer::User(*uid),
            Self::Unknown => Peer::Unknown,
        }
    }

    fn transport(&self) -> Transport {
        match self {
            Self::At(_) => Transport::Tcp,
            Self::User { .. } | Self::Unknown => Transport::Unix,
        }
    }

    /// For the status page: an address or a user id.
    fn mark(&self) -> Arc<str> {
        match self {
            Self::At(address) => address.ip().to_canonical().to_string().into(),
            Self::User { uid, .. } => format!("uid {uid}").into(),
            Self::Unknown => Arc::from("unix"),
        }
    }
}

/// For the log.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::User {
                uid,
                pid: Some(pid),
            } => write!(f, "uid {uid} pid {pid}"),
            Self::User { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Unknown => f.write_str("unix"),
        }
    }
}

/// What answers need to know of a connection.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) who: Who,
    pub(super) connection: TrackedConnection,
    /// Its permit to have a page, if it asked for one. Kept until the connection has ended, so that
    /// slow readers cannot make many pages stay in memory.
    page: OnceLock<Arc<OwnedSemaphorePermit>>,
}

impl Asker {
    pub(super) fn new(who: Who, connection: TrackedConnection) -> Self {
        let page = OnceLock::new();
        Self {
            who,
            connection,
            page,
        }
    }
}

impl Endpoint {
    pub(super) fn new(
        handle: Handle,
        token: Option<Token>,
        bound: Option<IpAddr>,
        connections: Connections,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            timeouts,
            handle,
            token,
            bound,
            connections,
            pages: Arc::new(Semaphore::new(PAGES_AT_ONCE_MAX)),
        }
    }

    /// Answers one question.
    pub(super) async fn answer(&self, asker: &Asker, asked: Request<Incoming>) -> Reply {
        let path = asked.uri().path().to_owned();
        let mut parts = path
            .strip_prefix('/')
            .unwrap_or(&path)
            .split('/')
            .map(decoded);
        let parts: [Option<String>; 5] = std::array::from_fn(|_| parts.next());
        let parts = parts.each_ref().map(|part| part.as_deref());
        match parts {
            [Some(""), None, ..] => self.read(asker, &asked, Page::Html).await,
            [Some("style.css"), None, ..] => self.read(asker, &asked, Page::Style).await,
            [Some("healthz"), None, ..] => {
                check(&asked, || reply::plain(StatusCode::OK, "alive\n"))
            }
            [Some("readyz"), None, ..] => check(&asked, || self.ready()),
            [Some("readyz"), Some(pool), None, ..] => check(&asked, || self.pool_ready(pool)),
            [Some("status"), None, ..] => self.read(asker, &asked, Page::Status).await,
            [Some("metrics"), None, ..] => self.read(asker, &asked, Page::Metrics).await,
            [Some("reload"), None, ..] => self.reload(asker, &asked).await,
            [Some("pools"), Some(pool), Some("failback"), None, ..] => {
                self.fail_back(asker, &asked, pool).await
            }
            [
                Some("pools"),
                Some(pool),
                Some("backends"),
                Some(backend),
                None,
            ] => self.set_backend(asker, asked, pool, backend).await,
            _ => refusal(
                StatusCode::NOT_FOUND,
                format!("there is nothing at {path:?}"),
                "paths: / /healthz /readyz /readyz/P /status /metrics /reload \
                 /pools/P/backends/B /pools/P/failback",
            ),
        }
    }

    async fn read(&self, asker: &Asker, asked: &Request<Incoming>, page: Page) -> Reply {
        if !matches!(*asked.method(), Method::GET | Method::HEAD) {
            return wrong_method(READ);
        }
        let host = asked_host(asked);
        let may = self.with_our_hosts(|ours| guard::may_read(asker.who.transport(), ours, &host));
        if let Err(refused) = may {
            log_foreign(&asker.who, asked.uri().path(), &refused);
            return *refused;
        }
        match page {
            Page::Style => reply::whole(StatusCode::OK, "text/css; charset=utf-8", page::STYLE),
            Page::Status => self.gathered(asker, status_json).await,
            Page::Html => self.gathered(asker, status_page).await,
            Page::Metrics => self.gathered(asker, metrics_page).await,
        }
    }

    fn ready(&self) -> Reply {
        let readiness = readiness::of_process(self.handle.shared());
        readiness::reply(&readiness)
    }

    fn pool_ready(&self, pool: &str) -> Reply {
        match readiness::of_pool(self.handle.shared(), pool) {
            Some(readiness) => readiness::reply(&readiness),
            None => change_error(&ChangeError::NoPool(pool.to_owned())),
        }
    }

    /// The page that `gather` makes off the loop, once one more page may be made.
    async fn gathered(&self, asker: &Asker, gather: fn(&Handle) -> Reply) -> Reply {
        let permit = match self.page_permit(asker).await {
            Ok(permit) => permit,
            Err(refused) => return *refused,
        };
        // Gathering goes on, and keeps the permit, if the connection ends meanwhile.
        let permit = Arc::clone(asker.page.get_or_init(|| Arc::new(permit)));
        let handle = self.handle.clone();
        let gathered = spawn_blocking(move || {
            let page = gather(&handle);
            drop(permit);
            page
        });
        let page = gathered.await;
        asker.connection.set_phase(Phase::Page, Instant::now());
        page.unwrap_or_else(|_| stopping())
    }

    /// A permit for one more page. While there is none, a page that has been on its way for too long
    /// is cut.
    async fn page_permit(&self, asker: &Asker) -> Result<OwnedSemaphorePermit, Box<Reply>> {
        let waiting = |peer| self.connections.count(Phase::Waiting, peer);
        let (of_peer, of_all) = PAGES_WAITING_MAX;
        if waiting(Some(asker.connection.peer())) >= of_peer || waiting(None) >= of_all {
            return Err(Box::new(refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many questions wait for a page",
                "ask again later; /healthz and /readyz are always answered",
            )));
        }
        asker.connection.set_phase(Phase::Waiting, Instant::now());
        let kept_min = self.timeouts.page;
        let mut permit = pin!(Arc::clone(&self.pages).acquire_owned());
        loop {
            let since = self.connections.longest_page().unwrap_or_else(Instant::now);
            // Cancel-safe: the wait for a permit keeps its turn, and time passes anyway.
            tokio::select! {
                biased;
                permit = &mut permit => {
                    asker.connection.set_phase(Phase::Answering, Instant::now());
                    return permit.map_err(|_| Box::new(stopping()));
                }
                () = sleep_until((since + kept_min).into()) => {
                    self.connections.drop_longest_page(kept_min, Instant::now());
                }
            }
        }
    }

    fn with_our_hosts<T>(&self, judge: impl FnOnce(&OurHosts<'_>) -> T) -> T {
        let snapshot = self.handle.shared().current.load();
        let admin = snapshot.config.admin.as_ref();
        judge(&OurHosts {
            bound: self.bound,
            hostname: &snapshot.config.hostname,
            hosts: admin.map_or(&[], |admin| &admin.hosts),
        })
    }

    /// By what right `asker` may change something; else the refusal, which has been logged.
    async fn may_change(
        &self,
        asker: &Asker,
        asked: &Request<Incoming>,
        what: &AskedChange<'_>,
    ) -> Result<Right, Box<Reply>> {
        let host = asked_host(asked);
        let (transport, headers) = (asker.who.transport(), asked.headers());
        let may = self.with_our_hosts(|ours| guard::is_asked_here(transport, ours, &host, headers));
        let right = match may {
            Ok(()) => self.right(transport, headers.clone()).await,
            Err(refused) => Err(refused),
        };
        right.inspect_err(|refused| what.log(&asker.who, None, refused))
    }

    /// The token file is read for it: off the loop.
    async fn right(&self, transport: Transport, headers: HeaderMap) -> Result<Right, Box<Reply>> {
        let token = self.token.clone();
        spawn_blocking(move || guard::right(transport, token.as_ref(), &headers))
            .await
            .unwrap_or_else(|panic| {
                let error = format!("a fault of ours: {panic}");
                Err(Box::new(refusal(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    error,
                    "look into the log",
                )))
            })
    }

    async fn reload(&self, asker: &Asker, asked: &Request<Incoming>) -> Reply {
        if *asked.method() != Method::POST {
            return wrong_method("POST");
        }
        let what = AskedChange::of("reload");
        let right = match self.may_change(asker, asked, &what).await {
            Ok(right) => right,
            Err(refused) => return *refused,
        };
        let reply = match self.handle.reload("http").await {
            Ok(report) => {
                let status = if report.ok {
                    StatusCode::OK
                } else {
                    StatusCode::UNPROCESSABLE_ENTITY
                };
                reply::json(status, &gather::reload(report))
            }
            Err(error) => change_error(&error),
        };
        what.log(&asker.who, Some(right), &reply);
        reply
    }

    async fn fail_back(&self, asker: &Asker, asked: &Request<Incoming>, pool: &str) -> Reply {
        if *asked.method() != Method::POST {
            return wrong_method("POST");
        }
        let what = AskedChange::of_pool("failback", pool);
        let right = match self.may_change(asker, asked, &what).await {
            Ok(right) => right,
            Err(refused) => return *refused,
        };
        let reply = match self.handle.fail_back(pool).await {
            Ok(()) => reply::json(StatusCode::OK, &serde_json::json!({ "pool": pool })),
            Err(error) => change_error(&error),
        };
        what.log(&asker.who, Some(right), &reply);
        reply
    }

    async fn set_backend(
        &self,
        asker: &Asker,
        asked: Request<Incoming>,
        pool: &str,
        backend: &str,
    ) -> Reply {
        if *asked.method() != Method::PUT {
            return wrong_method("PUT");
        }
        let mut what = AskedChange::of_backend("backend", pool, backend);
        let right = match self.may_change(asker, &asked, &what).await {
            Ok(right) => right,
            Err(refused) => return *refused,
        };
        let reply = match self.wanted(asker, asked).await {
            Ok(change) => {
                what.wants(&change);
                self.change_backend(pool, backend, change).await
            }
            Err(refused) => *refused,
        };
        what.log(&asker.who, Some(right), &reply);
        reply
    }

    /// The change that the body asks for.
    async fn wanted(
        &self,
        asker: &Asker,
        asked: Request<Incoming>,
    ) -> Result<BackendChange, Box<Reply>> {
        let body = Limited::new(asked.into_body(), BODY_OCTETS_MAX).collect();
        let refused =
            |status, error: String, remedy: &str| Box::new(refusal(status, error, remedy));
        match timeout(self.timeouts.body, body).await {
            Ok(Ok(body)) => put::change(&body.to_bytes(), &asker.who.mark()),
            Ok(Err(error)) => Err(refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body cannot be read: {error}"),
                "send at most 65,536 octets",
            )),
            Err(_) => Err(refused(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time".to_owned(),
                "send it together with the header",
            )),
        }
    }

    async fn change_backend(&self, pool: &str, backend: &str, change: BackendChange) -> Reply {
        match self.handle.set_backend(pool, backend, change).await {
            Ok(()) => reply::json(
                StatusCode::OK,
                &views::BackendChanged {
                    pool: pool.to_owned(),
                    backends: gather::backends_named(self.handle.shared(), pool, backend),
                },
            ),
            Err(error) => change_error(&error),
        }
    }
}

/// Answers a health check: for every host, and without waiting.
fn check(asked: &Request<Incoming>, answer: impl FnOnce() -> Reply) -> Reply {
    if matches!(*asked.method(), Method::GET | Method::HEAD) {
        answer()
    } else {
        wrong_method(READ)
    }
}

fn asked_host(asked: &Request<Incoming>) -> AskedOf {
    AskedHost::of(asked.headers(), asked.uri(), asked.version())
}

fn metrics_page(handle: &Handle) -> Reply {
    reply::scrape(Exposition::new(metrics::scrape(handle)))
}

fn status_json(handle: &Handle) -> Reply {
    reply::json(StatusCode::OK, &gather::status(handle))
}

fn status_page(handle: &Handle) -> Reply {
    page::reply(&gather::status(handle))
}

/// A page that can be read.
#[derive(Clone, Copy)]
enum Page {
    Html,
    Style,
    Status,
    Metrics,
}

fn stopping() -> Reply {
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the process is stopping",
        "ask again when it runs",
    )
}

fn change_error(error: &ChangeError) -> Reply {
    match error {
        ChangeError::NoPool(_) | ChangeError::NoBackend { .. } => refusal(
            StatusCode::NOT_FOUND,
            error.to_string(),
            "posthouse status lists pools and backends",
        ),
        ChangeError::Stopping => stopping(),
    }
}

/// A path's part with its percent escapes resolved (RFC 3986 §2.1); a wrong escape stays as it is.
fn decoded(part: &str) -> String {
    let octets = part.as_bytes();
    let mut out = Vec::with_capacity(octets.len());
    let mut at = 0;
    while at < octets.len() {
        let digits = octets.get(at + 1..at + 3);
        let escaped = digits
            .filter(|_| octets[at] == b'%')
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(octets[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_escapes_are_resolved_and_wrong_ones_stay() {
        for (part, expected) in [
            ("mx", "mx"),
            ("a%20b", "a b"),
            ("%2Fx%2f", "/x/"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%+1", "%+1"),
            ("%C3%A9", "é"),
        ] {
            assert_eq!(decoded(part), expected);
        }
    }
}
