//! Receiving the PROXY header (rules X1–X7): before anything else, within its own deadline.
//!
//! The octets behind the header stay in the kernel: the header is looked at first and then taken to
//! its exact length. Only a header that comes in pieces costs a buffer.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::closing::Refusal;
use super::record::{Named, Session};
use crate::config::model::{GreetingMode, ProxyIn};
use crate::identity::{HEADER_IN_MAX, HeaderRead, ReceivedHeader, read_header};
use crate::metrics::SessionPhase;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::{Due, Timer};

/// Receives the header where the listener requires one, from a peer that is trusted.
pub(super) async fn receive(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
) -> Result<(), Refusal> {
    let settings = &session.listener.view.settings;
    if settings.proxy_protocol == ProxyIn::Off {
        return Ok(());
    }
    session.phase = SessionPhase::ProxyHeader;
    let deadline = session.accepted + settings.proxy_header_timeout;
    let mut pieces = Vec::new();
    let header = poll_fn(|cx| {
        let mut scratch = session.cx.scratch.borrow_mut();
        if let Poll::Ready(header) = poll_header(cx, client, &mut scratch, &mut pieces) {
            return Poll::Ready(header);
        }
        match timer.arm(deadline, clock::now(), cx) {
            Due::Now => Poll::Ready(Err(Refusal::ProxyHeader)),
            Due::Later => Poll::Pending,
        }
    })
    .await?;
    if is_from_here(&header, session.cx.instance()) {
        return Err(Refusal::ProxyHeader);
    }
    session.may_speak = session.listener.view.settings.greeting == GreetingMode::Smtp;
    if header.addresses.is_some() || header.tlvs.is_some() {
        let local = client.local_addr().map_err(|_| Refusal::ProxyHeader)?;
        let (named, destination) = header.addresses.unwrap_or((session.peer, local));
        session.named = Some(Box::new(Named {
            client: named,
            destination,
            tlvs: header.tlvs,
        }));
    }
    Ok(())
}

/// Whether the connection left this process before and came back: a loop (rule M5). Ids go through
/// other balancers unchanged.
fn is_from_here(header: &ReceivedHeader, instance: u64) -> bool {
    let id = header
        .tlvs
        .as_ref()
        .and_then(|tlvs| tlvs.unique_id.as_deref());
    id.is_some_and(|id| id.starts_with(&instance.to_be_bytes()))
}

fn poll_header(
    cx: &mut Context<'_>,
    client: &Stream,
    scratch: &mut [u8],
    pieces: &mut Vec<u8>,
) -> Poll<Result<ReceivedHeader, Refusal>> {
    loop {
        let before = pieces.len();
        let shown = match client.poll_peek(cx, &mut scratch[before..HEADER_IN_MAX + before]) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Refusal::ProxyHeader)),
            Poll::Ready(Ok(n)) => n,
            Poll::Pending => return Poll::Pending,
        };
        scratch[..before].copy_from_slice(pieces);
        let (take, header) = match read_header(&scratch[..before + shown]) {
            HeaderRead::Complete(header) => (header.length - before, Some(header)),
            HeaderRead::Incomplete if before + shown <= HEADER_IN_MAX => (shown, None),
            HeaderRead::Incomplete | HeaderRead::Invalid(_) => {
                return Poll::Ready(Err(Refusal::ProxyHeader));
            }
        };
        let Ok(taken) = client.take(&mut scratch[before..before + take]) else {
            return Poll::Ready(Err(Refusal::ProxyHeader));
        };
        if let Some(header) = header {
            return Poll::Ready(Ok(header));
        }
        pieces.extend_from_slice(&scratch[before..before + taken]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ReceivedTlvs;

    #[test]
    fn rule_m5_a_header_with_our_own_id_is_a_loop() {
        let from = |id: Option<&[u8]>| {
            let unique_id = id.map(<[u8]>::to_vec);
            let tlvs = ReceivedTlvs {
                unique_id,
                ..ReceivedTlvs::default()
            };
            let header = ReceivedHeader {
                length: 28,
                addresses: None,
                tlvs: Some(Box::new(tlvs)),
            };
            is_from_here(&header, 0x0102_0304_0506_0708)
        };
        assert!(from(Some(&[
            1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1
        ])));
        assert!(!from(Some(&[
            1, 2, 3, 4, 5, 6, 7, 9, 0, 0, 0, 0, 0, 0, 0, 1
        ])));
        assert!(!from(Some(&[1, 2, 3])));
        assert!(!from(None));
    }
}
