//! Bodies and replies of the status endpoint.
//!
//! A body is one piece in memory, or the text of a scrape that is made while it is sent: then one
//! chunk exists at a time, and the place of the scrape is given back when the body is dropped.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::views::Refusal;
use crate::metrics::exposition::{self, Exposition};

/// A reply of the endpoint.
pub(super) type Reply = Response<Octets>;

/// The body of a reply.
#[derive(Debug)]
pub(super) enum Octets {
    Whole(Option<Bytes>),
    Scrape(Box<Scrape>),
}

/// A scrape while it is sent.
#[derive(Debug)]
pub(super) struct Scrape {
    text: Exposition,
    turn: Turn,
    _place: OwnedSemaphorePermit,
}

/// Whose turn on the loop it is: between two chunks everybody else gets one.
#[derive(Debug)]
enum Turn {
    Ours,
    Others,
}

impl Scrape {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.turn {
            Turn::Ours => {
                self.turn = Turn::Others;
                Poll::Ready(self.text.next().map(Bytes::from))
            }
            Turn::Others => {
                self.turn = Turn::Ours;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Body for Octets {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Scrape(scrape) => scrape.poll_chunk(cx),
        };
        chunk.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Scrape(..) => SizeHint::default(),
        }
    }
}

/// A reply with this body.
pub(super) fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let body: Bytes = body.into();
    let body = Octets::Whole((!body.is_empty()).then_some(body));
    with_kind(status, kind, body)
}

/// The page of a scrape.
pub(super) fn scrape(text: Exposition, place: OwnedSemaphorePermit) -> Reply {
    with_kind(
        StatusCode::OK,
        exposition::CONTENT_TYPE,
        Octets::Scrape(Box::new(Scrape {
            text,
            turn: Turn::Ours,
            _place: place,
        })),
    )
}

/// JSON, one line per field for those who read it with their eyes.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            whole(status, "application/json", text)
        }
        Err(error) => whole(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain; charset=utf-8",
            format!("{error}\n"),
        ),
    }
}

/// A refusal: what is wrong and what to do about it.
pub(super) fn refusal(
    status: StatusCode,
    error: impl Into<String>,
    remedy: impl Into<String>,
) -> Reply {
    json(
        status,
        &Refusal {
            error: error.into(),
            remedy: remedy.into(),
        },
    )
}

/// The path is known and the method is not one of `allowed`.
pub(super) fn wrong_method(allowed: &'static str) -> Reply {
    let mut reply = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method",
        format!("use {allowed}"),
    );
    reply
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

fn with_kind(status: StatusCode, kind: &'static str, body: Octets) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    reply
}
