//! What we tell a client that we do not serve, and a close that lets it read that.
//!
//! A reply is made only where it would be understood (promise 6): on a port that greets in clear
//! text, and after a PROXY header that must come first. Elsewhere the connection is closed and
//! counted. Such a connection is no session: see [`closing_places`](super::closing_places).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::closing_places::ClosingKind;
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

/// How a client that was turned away is told so.
#[derive(Debug)]
pub(super) enum TurnedAway {
    /// No place was free: the connection is closed with these words, if there are any.
    AtOnce(Vec<u8>),
    /// It has a place of its own, in which [`refuse`] tells it: by a dialogue, or in one reply.
    InPlace(Option<Box<ClosingDialogue>>),
}

/// Accounts for a refusal and finds the client a place in which it is told.
pub(super) fn turn_away(session: &mut Session, refusal: Refusal) -> TurnedAway {
    if let Refusal::NoBackend(why) = refusal {
        tracing::debug!(session.id = %session.id, cause = ?why, "session.no-backend");
    }
    let phase = phase(session, refusal);
    session.end(outcome(refusal), EndedBy::Us, phase);
    if !session.may_speak || refusal == Refusal::ProxyHeader {
        return TurnedAway::AtOnce(Vec::new());
    }
    if refusal != Refusal::Monitor {
        session.reply = Some(text(session, refusal));
    }
    let mut dialogue = dialogue(session, refusal).map(Box::new);
    note_first_reply(session, refusal, dialogue.as_deref_mut());
    let kind = match refusal {
        Refusal::Monitor => ClosingKind::Monitor,
        _ => ClosingKind::Refused,
    };
    if session.begin_closing(kind) {
        return TurnedAway::InPlace(dialogue);
    }
    TurnedAway::AtOnce(match dialogue {
        Some(dialogue) => dialogue.greeting().to_vec(),
        None => reply(session),
    })
}

/// Counts the reply that the client is told first, and keeps it for the log.
fn note_first_reply(
    session: &mut Session,
    refusal: Refusal,
    dialogue: Option<&mut ClosingDialogue>,
) {
    let told = match dialogue {
        Some(dialogue) => dialogue.refused(),
        None => vec![OwnRefusal {
            command: CommandName::Connect,
            reply: reply_name(refusal),
        }],
    };
    for refused in told {
        let line = session.reply.clone();
        session.was_refused_with(refused, line);
    }
}

/// Tells a client in its place why it was turned away, and closes so that it can read that.
pub(super) async fn refuse(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
    dialogue: Option<Box<ClosingDialogue>>,
) {
    match dialogue {
        Some(dialogue) => converse(session, client, timer, dialogue).await,
        None => say(session, client, timer).await,
    }
}

/// The dialogue with a client that is told more than one reply.
fn dialogue(session: &Session, refusal: Refusal) -> Option<ClosingDialogue> {
    let hostname = || Arc::clone(&session.cx.shared.current.load().config.hostname);
    match refusal {
        Refusal::Denied => {
            let text = &session.listener.view.settings.replies.denied;
            Some(ClosingDialogue::denied(&hostname()).with_greeting(text))
        }
        Refusal::Monitor => {
            let readiness = if is_ready(session) {
                Readiness::Ready
            } else {
                Readiness::NotReady
            };
            Some(ClosingDialogue::monitor(&hostname(), readiness))
        }
        Refusal::ShuttingDown
        | Refusal::GlobalLimit
        | Refusal::ClientLimit
        | Refusal::ProxyHeader
        | Refusal::EarlyTalker
        | Refusal::NoBackend(_)
        | Refusal::Lacking(_)
        | Refusal::QueueTimeout => None,
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

/// The name of the reply to a refusal; its words are the listener's ([`text`]).
fn reply_name(refusal: Refusal) -> OwnReply {
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

/// The one reply that the client gets.
fn reply(session: &Session) -> Vec<u8> {
    let text = session.reply.as_deref().unwrap_or_default();
    format!("{text}\r\n").into_bytes()
}

/// One reply, then a lingering close.
async fn say(session: &mut Session, client: &Stream, timer: &mut Timer) {
    let line = reply(session);
    let deadline = clock::now() + LINGER_TIME;
    let mut sent = 0;
    let said = poll_fn(|cx| {
        while sent < line.len() {
            match client.poll_send(cx, &line[sent..]) {
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

/// Ends our direction and lets the client read: bounded in time, octets and number (rule K5). From
/// then on the connection is no session any more.
pub(super) async fn linger(session: &mut Session, client: &Stream, timer: &mut Timer) {
    if !session.begin_closing(ClosingKind::Served) {
        // What was said leaves before a close that may reset.
        client.end();
        return;
    }
    let cx = &session.cx;
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

/// A short dialogue of our own, bounded by itself in octets and commands and here in time.
async fn converse(
    session: &mut Session,
    client: &Stream,
    timer: &mut Timer,
    mut dialogue: Box<ClosingDialogue>,
) {
    let deadline = clock::now() + CLOSING_TIME_MAX;
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
                    for refused in dialogue.refused() {
                        session.was_refused(refused);
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
