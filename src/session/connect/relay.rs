//! From an admitted client to a backend that has greeted it.
//!
//! The client's socket is watched, not read: the kernel's buffer is the bound for what it says
//! early. The greeting is its first octet; from there nothing can be retried.

use std::cell::RefMut;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Aim, Connecting, Found};
use crate::balance::{Observation, Slot, Stage, Tried};
use crate::config::model::{EarlyTalker, GreetingMode};
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::net::clock;
use crate::net::relay::Relay;
use crate::net::stream::{Stream, Watched};
use crate::net::timer::{Due, Timer};
use crate::session::attempt::{Attempt, Octets};
use crate::session::closing::Refusal;
use crate::session::context::since;
use crate::session::record::{Lap, Session};

/// A session that was committed to a backend.
#[derive(Debug)]
pub(in crate::session) struct Live {
    pub(in crate::session) backend: Stream,
    pub(in crate::session) slot: Slot,
    pub(in crate::session) relay: Relay,
    /// The greeting was bad and is relayed as the verdict about this client.
    pub(in crate::session) refused: bool,
}

/// How connecting ended, if not by a refusal.
#[derive(Debug)]
pub(in crate::session) enum ConnectEnd {
    Live(Live),
    /// The client left.
    Abandoned,
}

/// Finds a backend that takes the session.
pub(in crate::session) async fn any(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
) -> Result<ConnectEnd, Refusal> {
    // On the heap: it is needed for milliseconds, and the session for minutes.
    let mut connecting = Box::new(Connecting::new(
        Aim::relay(),
        Tried::default(),
        clock::now(),
    ));
    let mut watch = Watch::Silent;
    poll_fn(|cx| {
        let context = Rc::clone(&session.cx);
        let mut scratch = context.scratch.borrow_mut();
        loop {
            let now = clock::now();
            match watch.client(cx, session, client) {
                Ok(true) => {}
                Ok(false) => {
                    let phase = connecting.phase();
                    session.end(SessionOutcome::Abandoned, EndedBy::Client, phase);
                    return Poll::Ready(Ok(ConnectEnd::Abandoned));
                }
                Err(refusal) => return Poll::Ready(Err(refusal)),
            }
            match connecting.poll(cx, session, client, &mut scratch, now) {
                Poll::Ready(Ok(Found::Greeted {
                    attempt,
                    octets,
                    refused,
                })) => {
                    let live = commit(
                        cx, session, client, attempt, &octets, refused, &scratch, now,
                    );
                    return Poll::Ready(Ok(ConnectEnd::Live(live)));
                }
                Poll::Ready(Ok(Found::Ready(..) | Found::Kept(..))) => {
                    debug_assert!(false, "a relay was asked for");
                }
                Poll::Ready(Err(refusal)) => return Poll::Ready(Err(refusal)),
                Poll::Pending => {}
            }
            if timer.arm(connecting.deadline(), now, cx) == Due::Later {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// How far the client has been watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Silent,
    Talked,
}

impl Watch {
    /// `Ok(false)`: the client has left.
    fn client(
        &mut self,
        cx: &mut Context<'_>,
        session: &mut Session,
        client: &Stream,
    ) -> Result<bool, Refusal> {
        while let Poll::Ready(watched) = client.poll_watch(cx) {
            match watched {
                Watched::Talking => self.heard(session)?,
                Watched::Closed => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The client talks before it was greeted (rule S14).
    fn heard(&mut self, session: &mut Session) -> Result<(), Refusal> {
        let settings = &session.listener.view.settings;
        if settings.greeting == GreetingMode::None || *self == Self::Talked {
            return Ok(());
        }
        *self = Self::Talked;
        match settings.early_talker {
            EarlyTalker::Pass => return Ok(()),
            EarlyTalker::Log | EarlyTalker::Reject => {}
        }
        let worker = session.cx.worker.index();
        session
            .listener
            .view
            .state
            .counters
            .of(worker)
            .early_talkers
            .inc();
        if settings.early_talker == EarlyTalker::Reject {
            return Err(Refusal::EarlyTalker);
        }
        tracing::info!(session.id = %session.id,
            client.addr = %session.client(),
            listener = &*session.listener.view.name, "session.early-talker");
        Ok(())
    }
}

/// The first octet goes to the client: from here no retry can be written.
#[expect(
    clippy::too_many_arguments,
    reason = "one call, all of them parts of one moment"
)]
fn commit(
    cx: &mut Context<'_>,
    session: &mut Session,
    client: &Stream,
    winner: Attempt,
    octets: &Octets,
    refused: bool,
    scratch: &RefMut<'_, Box<[u8]>>,
    now: Instant,
) -> Live {
    let first = match octets {
        Octets::InScratch(n) => &scratch[..*n],
        Octets::Kept(octets) => octets,
    };
    let sent = if first.is_empty() {
        0
    } else {
        match client.poll_send(cx, first) {
            Poll::Ready(Ok(sent)) => sent,
            // The relay meets the same error and accounts for it.
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        }
    };
    let relay = Relay::new(sent, &first[sent..]);
    if !refused {
        let after = since(now, winner.dialled());
        winner.observe(session, Observation::Greeted { after }, now);
        let worker = session.cx.worker.index();
        let totals = winner.slot.member().settings.state.totals.of(worker);
        totals.sessions.inc();
        totals.greeting.observe(after);
    }
    session.connect = winner.connect_time().map(Lap::of).unwrap_or_default();
    session.greeting = Lap::of(since(now, session.accepted));
    session.phase = SessionPhase::Relay;
    session.at_backend(winner.slot.member());
    debug_assert_ne!(
        winner.stage(),
        Stage::Connect,
        "only a connected backend wins"
    );
    let Attempt { stream, slot, .. } = winner;
    Live {
        backend: stream,
        slot,
        relay,
        refused,
    }
}
