//! What a client is told that is not served, and closing so that it can read it.
//!
//! A reply is made only where it would be understood (promise 6): on a port that greets in clear
//! text, and after a PROXY header that must come first. Elsewhere the connection is closed and
//! counted.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::context::LINGERING_MAX;
use super::record::Session;
use crate::balance::NoBackend;
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::net::clock;
use crate::net::linger::{LINGER_TIME, Linger};
use crate::net::stream::Stream;
use crate::net::timer::{Due, Timer};
use crate::smtp::{
    CLOSING_TIME_MAX, ClosingDialogue, CommandName, Keywords, Next, OwnRefusal, OwnReply, Readiness,
};

/// Octets that a client may say in such a dialogue: five commands have 2,560. One that keeps its
/// connection full would never let the thread go.
const DIALOGUE_OCTETS: usize = 64 * 1024;

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    ShuttingDown,
    GlobalLimit,
    ClientLimit,
    Denied,
    Monitor,
    ProxyHeader,
    EarlyTalker,
    NoBackend(NoBackend),
    /// Of a transaction: no backend has all that it needs.
    Lacking(Keywords),
    QueueTimeout,
}

/// Tells the client, where it would understand, and closes.
pub(super) async fn refuse(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
    refusal: Refusal,
) {
    let outcome = outcome(refusal);
    let phase = phase(session, refusal);
    if let Refusal::NoBackend(why) = refusal {
        tracing::debug!(session.id = %session.id, cause = ?why, "session.no-backend");
    }
    session.end(outcome, EndedBy::Us, phase);
    if !session.may_speak {
        return;
    }
    match refusal {
        Refusal::Denied => {
            let text = Arc::clone(&session.listener.view.settings.replies.denied);
            session.reply = Some(Arc::clone(&text));
            let hostname = Arc::clone(&session.cx.shared.current.load().config.hostname);
            let dialogue = ClosingDialogue::denied(&hostname).with_greeting(&text);
            converse(session, client, timer, Box::new(dialogue)).await;
        }
        Refusal::Monitor => {
            let hostname = Arc::clone(&session.cx.shared.current.load().config.hostname);
            let readiness = if is_ready(session) {
                Readiness::Ready
            } else {
                Readiness::NotReady
            };
            converse(
                session,
                client,
                timer,
                Box::new(ClosingDialogue::monitor(&hostname, readiness)),
            )
            .await;
        }
        Refusal::ProxyHeader => {}
        Refusal::ShuttingDown
        | Refusal::GlobalLimit
        | Refusal::ClientLimit
        | Refusal::EarlyTalker
        | Refusal::NoBackend(_)
        | Refusal::Lacking(_)
        | Refusal::QueueTimeout => {
            let text = text(session, refusal);
            let told = OwnRefusal {
                command: CommandName::Connect,
                reply: reply(refusal),
            };
            session.was_told(told, Some(Arc::clone(&text)));
            say(session, client, timer, text).await;
        }
    }
}

/// The reply that says it, by name: its words are the listener's.
fn reply(refusal: Refusal) -> OwnReply {
    match refusal {
        Refusal::ShuttingDown => OwnReply::SHUTTING_DOWN,
        Refusal::GlobalLimit => OwnReply::GLOBAL_LIMIT,
        Refusal::ClientLimit => OwnReply::CLIENT_LIMIT,
        Refusal::Denied => OwnReply::DENIED,
        Refusal::EarlyTalker => OwnReply::SYNCHRONIZATION,
        Refusal::Monitor
        | Refusal::ProxyHeader
        | Refusal::NoBackend(_)
        | Refusal::Lacking(_)
        | Refusal::QueueTimeout => OwnReply::NOT_AVAILABLE,
    }
}

fn is_ready(session: &Session) -> bool {
    let snapshot = session.cx.shared.current.load();
    snapshot
        .pool(session.listener.view.pool)
        .is_some_and(|view| view.pool.is_usable())
}

fn outcome(refusal: Refusal) -> SessionOutcome {
    match refusal {
        Refusal::ShuttingDown => SessionOutcome::ShuttingDown,
        Refusal::GlobalLimit => SessionOutcome::GlobalLimit,
        Refusal::ClientLimit => SessionOutcome::ClientLimit,
        Refusal::Denied => SessionOutcome::Denied,
        Refusal::Monitor => SessionOutcome::Monitor,
        Refusal::ProxyHeader => SessionOutcome::ProxyHeader,
        Refusal::EarlyTalker => SessionOutcome::EarlyTalker,
        Refusal::NoBackend(_) | Refusal::Lacking(_) => SessionOutcome::NoBackend,
        Refusal::QueueTimeout => SessionOutcome::QueueTimeout,
    }
}

fn phase(session: &Session, refusal: Refusal) -> SessionPhase {
    match refusal {
        Refusal::QueueTimeout => SessionPhase::Queue,
        Refusal::NoBackend(_) | Refusal::EarlyTalker => SessionPhase::Connect,
        _ => session.phase,
    }
}

fn text(session: &Session, refusal: Refusal) -> Arc<str> {
    let replies = &session.listener.view.settings.replies;
    Arc::clone(match refusal {
        Refusal::ShuttingDown => &replies.shutting_down,
        Refusal::GlobalLimit => &replies.global_limit,
        Refusal::ClientLimit => &replies.client_limit,
        Refusal::Denied => &replies.denied,
        Refusal::EarlyTalker => &replies.early_talker,
        Refusal::Monitor
        | Refusal::ProxyHeader
        | Refusal::NoBackend(_)
        | Refusal::Lacking(_)
        | Refusal::QueueTimeout => &replies.unavailable,
    })
}

/// One reply, then a lingering close.
async fn say(session: &mut Session, client: &Stream, timer: &mut Timer, reply: Arc<str>) {
    let line = format!("{reply}\r\n");
    session.reply = Some(reply);
    let deadline = clock::now() + LINGER_TIME;
    let mut sent = 0;
    let said = poll_fn(|cx| {
        while sent < line.len() {
            match client.poll_send(cx, &line.as_bytes()[sent..]) {
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => return timer.or(deadline, cx),
            }
        }
        Poll::Ready(true)
    })
    .await;
    if said {
        linger(session, client, timer).await;
    }
}

/// Ends our direction and lets the client read: bounded in time, octets and number (rule K5).
pub(super) async fn linger(session: &mut Session, client: &Stream, timer: &mut Timer) {
    let cx = &session.cx;
    if cx.lingering.get() >= LINGERING_MAX {
        return;
    }
    cx.lingering.set(cx.lingering.get() + 1);
    cx.counters().lingering.set(u64::from(cx.lingering.get()));
    // The count goes back in `Drop`, also if the session is cut meanwhile.
    let _counted = Lingering(session);
    let deadline = clock::now() + LINGER_TIME;
    let mut linger = Linger::begin(client);
    poll_fn(|task| {
        let mut scratch = cx.scratch.borrow_mut();
        if linger.poll(task, client, &mut scratch).is_ready() {
            return Poll::Ready(true);
        }
        timer.or(deadline, task)
    })
    .await;
}

#[derive(Debug)]
struct Lingering<'a>(&'a Session);

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        let cx = &self.0.cx;
        cx.lingering.set(cx.lingering.get().saturating_sub(1));
        cx.counters().lingering.set(u64::from(cx.lingering.get()));
    }
}

/// A short dialogue of our own, bounded by itself in octets and commands and here in time. It is on
/// the heap, so that sessions that are served do not pay for it.
async fn converse(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
    mut dialogue: Box<ClosingDialogue>,
) {
    let deadline = clock::now() + CLOSING_TIME_MAX;
    for refusal in dialogue.refused() {
        // Only a denial is worded by the listener.
        let line = session.reply.clone();
        session.was_told(refusal, line);
    }
    let mut out = dialogue.greeting().to_vec();
    let mut sent = 0;
    let mut next = dialogue.next();
    let mut room = DIALOGUE_OCTETS;
    let context = std::rc::Rc::clone(&session.cx);
    let ended = poll_fn(|cx| {
        loop {
            while sent < out.len() {
                match client.poll_send(cx, &out[sent..]) {
                    Poll::Ready(Ok(n)) => sent += n,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return timer.or(deadline, cx),
                }
            }
            if next == Next::Close || room == 0 {
                return Poll::Ready(true);
            }
            let mut scratch = context.scratch.borrow_mut();
            match client.poll_recv(cx, &mut scratch) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(n)) => {
                    room = room.saturating_sub(n);
                    out.clear();
                    sent = 0;
                    next = dialogue.handle(&scratch[..n], &mut out);
                    for refusal in dialogue.refused() {
                        session.was_refused(refusal);
                    }
                }
                Poll::Pending => return timer.or(deadline, cx),
            }
        }
    })
    .await;
    if ended {
        linger(session, client, timer).await;
    }
}

impl Timer {
    /// `Ready(false)` once `deadline` has passed, else `Pending` with a wake-up for it.
    fn or(&mut self, deadline: std::time::Instant, cx: &mut std::task::Context<'_>) -> Poll<bool> {
        match self.arm(deadline, clock::now(), cx) {
            Due::Now => Poll::Ready(false),
            Due::Later => Poll::Pending,
        }
    }
}
