//! Every path of the status endpoint and what is done for it.
//!
//! Reading needs nothing; changing verbs pass the guard first. Pages are gathered off the loop, and
//! few at a time: with ten thousand backends a page is megabytes.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::guard::{self, Door};
use super::reply::{self, Reply, refusal, wrong_method};
use super::token::Token;
use super::{BODY_OCTETS_MAX, PAGES_AT_ONCE_MAX, gather, metrics, page, views};
use crate::balance::AdminState;
use crate::control::{BackendChange, ChangeError, Handle};
use crate::metrics::exposition::Exposition;
use crate::types::Weight;

const READ: &str = "GET, HEAD";

/// What all connections share.
pub(super) struct Endpoint {
    pub(super) handle: Handle,
    pub(super) token: Option<Token>,
    pages: Arc<Semaphore>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) door: Door,
    /// For the log and the status page: an address or a user id.
    pub(super) who: Arc<str>,
}

impl Endpoint {
    pub(super) fn new(handle: Handle, token: Option<Token>) -> Self {
        Self {
            handle,
            token,
            pages: Arc::new(Semaphore::new(PAGES_AT_ONCE_MAX)),
        }
    }

    /// Every path.
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
            [Some(""), None, ..] => self.read(&asked, Page::Html).await,
            [Some("style.css"), None, ..] => self.read(&asked, Page::Style).await,
            [Some("healthz"), None, ..] => self.read(&asked, Page::Alive).await,
            [Some("readyz"), None, ..] => self.read(&asked, Page::Ready).await,
            [Some("status"), None, ..] => self.read(&asked, Page::Status).await,
            [Some("metrics"), None, ..] => self.read(&asked, Page::Metrics).await,
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
                "paths: / /healthz /readyz /status /metrics /reload /pools/P/backends/B \
                 /pools/P/failback",
            ),
        }
    }

    async fn read(&self, asked: &Request<Incoming>, page: Page) -> Reply {
        if !matches!(*asked.method(), Method::GET | Method::HEAD) {
            return wrong_method(READ);
        }
        match page {
            Page::Alive => reply::whole(StatusCode::OK, "text/plain; charset=utf-8", "alive\n"),
            Page::Style => reply::whole(StatusCode::OK, "text/css; charset=utf-8", page::STYLE),
            Page::Ready => self.ready(),
            Page::Status => match self.gathered(status_json).await {
                Some((reply, _permit)) => reply,
                None => stopping(),
            },
            Page::Html => match self.gathered(status_page).await {
                Some((reply, _permit)) => reply,
                None => stopping(),
            },
            Page::Metrics => match self.gathered(metrics::scrape).await {
                Some((scrape, permit)) => reply::scrape(Exposition::new(scrape), permit),
                None => stopping(),
            },
        }
    }

    fn ready(&self) -> Reply {
        let readiness = gather::readiness(self.handle.shared());
        let status = if readiness.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut text = String::from(if readiness.ready {
            "ready\n"
        } else {
            "not ready\n"
        });
        for reason in readiness.reasons {
            text.push_str(&reason);
            text.push('\n');
        }
        reply::whole(status, "text/plain; charset=utf-8", text)
    }

    /// What `gather` finds, off the loop, when a place for one more page is free.
    async fn gathered<T: Send + 'static>(
        &self,
        gather: fn(&Handle) -> T,
    ) -> Option<(T, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.pages).acquire_owned().await.ok()?;
        let handle = self.handle.clone();
        let found = spawn_blocking(move || gather(&handle)).await.ok()?;
        Some((found, permit))
    }

    /// The token file is read for it: off the loop.
    async fn may_change(&self, asker: &Asker, asked: &Request<Incoming>) -> Result<(), Box<Reply>> {
        let hostname = Arc::clone(&self.handle.shared().current.load().config.hostname);
        let (door, token, headers) = (asker.door, self.token.clone(), asked.headers().clone());
        spawn_blocking(move || guard::may_change(door, token.as_ref(), &hostname, &headers))
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
        if let Err(refused) = self.may_change(asker, asked).await {
            return *refused;
        }
        match self.handle.reload("http").await {
            Ok(report) => {
                let status = if report.ok {
                    StatusCode::OK
                } else {
                    StatusCode::UNPROCESSABLE_ENTITY
                };
                reply::json(status, &gather::reload(report))
            }
            Err(error) => change_error(&error),
        }
    }

    async fn fail_back(&self, asker: &Asker, asked: &Request<Incoming>, pool: &str) -> Reply {
        if *asked.method() != Method::POST {
            return wrong_method("POST");
        }
        if let Err(refused) = self.may_change(asker, asked).await {
            return *refused;
        }
        match self.handle.fail_back(pool).await {
            Ok(()) => reply::json(StatusCode::OK, &serde_json::json!({ "pool": pool })),
            Err(error) => change_error(&error),
        }
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
        if let Err(refused) = self.may_change(asker, &asked).await {
            return *refused;
        }
        let body = match Limited::new(asked.into_body(), BODY_OCTETS_MAX)
            .collect()
            .await
        {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                return refusal(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body cannot be read: {error}"),
                    "send at most 65,536 octets",
                );
            }
        };
        let change = match change(&body, &asker.who) {
            Ok(change) => change,
            Err(refused) => return *refused,
        };
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

fn status_json(handle: &Handle) -> Reply {
    reply::json(StatusCode::OK, &gather::status(handle))
}

fn status_page(handle: &Handle) -> Reply {
    page::reply(&gather::status(handle))
}

/// What can be read.
#[derive(Clone, Copy)]
enum Page {
    Html,
    Style,
    Alive,
    Ready,
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

/// The change that a body asks for.
fn change(body: &Bytes, who: &Arc<str>) -> Result<BackendChange, Box<Reply>> {
    let bad =
        |error: String, remedy: &str| Box::new(refusal(StatusCode::BAD_REQUEST, error, remedy));
    let example = "send {\"state\": \"ready\"|\"drain\"|\"maint\", \"weight\": 1..1000|null}, or \
                   one of the two";
    let put: views::BackendPut = serde_json::from_slice(body).map_err(|error| {
        bad(
            format!("the body is not what is expected: {error}"),
            example,
        )
    })?;
    let state = match put.state.as_deref() {
        None => None,
        Some("ready") => Some(AdminState::Ready),
        Some("drain") => Some(AdminState::Drain),
        Some("maint") => Some(AdminState::Maint),
        Some(other) => return Err(bad(format!("there is no state {other:?}"), example)),
    };
    let weight = match put.weight {
        None => None,
        Some(None) => Some(None),
        Some(Some(value)) => match Weight::new(value) {
            Some(weight) => Some(Some(weight)),
            None => return Err(bad(format!("{value} is no weight"), example)),
        },
    };
    if state.is_none() && weight.is_none() {
        return Err(bad("nothing to change".to_owned(), example));
    }
    Ok(BackendChange {
        state,
        weight,
        who: Arc::clone(who),
    })
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

    #[test]
    fn a_body_says_what_to_change() {
        let who: Arc<str> = Arc::from("test");
        let read = |text: &'static str| change(&Bytes::from_static(text.as_bytes()), &who);
        let both = read(r#"{"state":"drain","weight":9}"#).expect("valid");
        assert_eq!(both.state, Some(AdminState::Drain));
        assert_eq!(both.weight, Some(Weight::new(9)));
        let back = read(r#"{"weight":null}"#).expect("valid");
        assert_eq!((back.state, back.weight), (None, Some(None)));
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"state":"up"}"#,
            r#"{"weight":0}"#,
            r#"{"weight":1001}"#,
            r#"{"weight":"7"}"#,
            r#"{"state":"drain","x":1}"#,
        ] {
            let refused = read(wrong).expect_err(wrong);
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
