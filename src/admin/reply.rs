//! Bodies and replies of the status endpoint.
//!
//! A body is one piece in memory that is sent in slices, or the text of a scrape that is made while
//! it is sent: then one chunk exists at a time.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::views::Refusal;
use crate::metrics::exposition::{self, Exposition};

/// A reply of the endpoint.
pub(super) type Reply = Response<Octets>;

/// The longest slice of a body that is handed on at once.
const SLICE_OCTETS_MAX: usize = 64 * 1024;

/// The body of a reply.
#[derive(Debug)]
pub(super) struct Octets(Text);

#[derive(Debug)]
enum Text {
    Whole(Bytes),
    Scrape(Box<Scrape>),
}

/// A scrape while it is sent.
#[derive(Debug)]
struct Scrape {
    text: Exposition,
    turn: Turn,
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
        let chunk = match &mut self.get_mut().0 {
            Text::Whole(rest) if rest.is_empty() => Poll::Ready(None),
            Text::Whole(rest) => {
                let slice = rest.split_to(rest.len().min(SLICE_OCTETS_MAX));
                Poll::Ready(Some(slice))
            }
            Text::Scrape(scrape) => scrape.poll_chunk(cx),
        };
        chunk.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Text::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Text::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Text::Scrape(..) => SizeHint::default(),
        }
    }
}

/// A reply with this body.
pub(super) fn whole(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    with_kind(status, kind, Text::Whole(body.into()))
}

/// A few words.
pub(super) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    whole(status, "text/plain; charset=utf-8", body)
}

/// The page of a scrape.
pub(super) fn scrape(text: Exposition) -> Reply {
    let turn = Turn::Ours;
    let scrape = Text::Scrape(Box::new(Scrape { text, turn }));
    with_kind(StatusCode::OK, exposition::CONTENT_TYPE, scrape)
}

/// JSON, one line per field for those who read it with their eyes.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            whole(status, "application/json", text)
        }
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// A refusal: what is wrong and what to do about it.
pub(super) fn refusal(
    status: StatusCode,
    error: impl Into<String>,
    remedy: impl Into<String>,
) -> Reply {
    let refusal = Refusal {
        error: error.into(),
        remedy: remedy.into(),
    };
    let mut reply = json(status, &refusal);
    // For the log: an extension is not sent.
    reply.extensions_mut().insert(refusal);
    reply
}

/// What a refusal says.
pub(super) fn refused(reply: &Reply) -> Option<&Refusal> {
    reply.extensions().get()
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

fn with_kind(status: StatusCode, kind: &'static str, text: Text) -> Reply {
    let mut reply = Response::new(Octets(text));
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
