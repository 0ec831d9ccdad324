//! One accepted connection from accept to close.
//!
//! A session lives and dies on one thread. It reads as the list of its steps: admission, PROXY
//! header, connect (with failover and hedging), relay, outcome. It knows no file and no HTTP, and
//! nothing of the worker that runs it but its [`Context`].

mod admission;
mod attempt;
mod capabilities;
mod closing;
mod closing_places;
mod connect;
mod context;
mod dialled;
mod header;
mod keeper;
mod mail;
mod record;
mod refusals;
mod relay;
mod warm;

pub use closing_places::ClosingBounds;
pub use context::{Context, LocalListener, SessionEntry};
pub use keeper::KEPT_MAX;
pub use record::Ticket;

use std::net::TcpStream;
use std::rc::Rc;

use crate::config::model::Mode;
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::net::accept::Accepted;
use crate::net::clock;
use crate::net::linger;
use crate::net::stream::Stream;
use crate::net::timer::Timer;
use crate::session::closing::{Refusal, TurnedAway};
use crate::session::connect::ConnectEnd;
use crate::session::record::Session;
use crate::session::relay::{Last, Running};

/// Runs one session to its end. The ticket was entered in the context's set by the caller.
///
/// The session begins here, before the first poll: what the future holds, it holds once.
pub fn run(
    cx: Rc<Context>,
    listener: Rc<LocalListener>,
    accepted: Accepted,
    ticket: Ticket,
) -> impl Future<Output = ()> {
    let now = clock::now();
    let Accepted { socket, peer } = accepted;
    let mut session = Session::begin(cx, listener, peer, ticket, now);
    async move {
        if let Err(refusal) = admission::at_accept(&mut session) {
            // On the heap, so that sessions do not pay for it.
            return Box::pin(refuse_at_accept(&mut session, socket, refusal)).await;
        }
        let Ok(client) = &Stream::new(socket) else {
            session.end(SessionOutcome::Failed, EndedBy::Us, SessionPhase::Admission);
            return;
        };
        let mut timer = Timer::new();
        if let Err(refusal) = serve(&mut session, client, &mut timer).await {
            match closing::turn_away(&mut session, refusal) {
                TurnedAway::AtOnce(words) => client.say_at_once(&words),
                TurnedAway::InPlace(dialogue) => {
                    Box::pin(closing::refuse(&mut session, client, &mut timer, dialogue)).await;
                }
            }
        }
    }
}

/// Refuses a connection that was just accepted. Where one write is all that it gets, the socket never
/// meets the event loop.
async fn refuse_at_accept(session: &mut Session, socket: TcpStream, refusal: Refusal) {
    match closing::turn_away(session, refusal) {
        TurnedAway::AtOnce(words) => linger::say_and_close(socket, &words),
        TurnedAway::InPlace(dialogue) => {
            if let Ok(client) = &Stream::new(socket) {
                closing::refuse(session, client, &mut Timer::new(), dialogue).await;
            }
        }
    }
}

/// The steps of a connection that has a place; an error is a refusal that the client is told of.
async fn serve(session: &mut Session, client: &Stream, timer: &mut Timer) -> Result<(), Refusal> {
    header::receive(session, client, timer).await?;
    admission::behind_header(session)?;
    if session.listener.view.settings.mode == Mode::Smtp {
        // On the heap, so that relayed sessions do not pay for it.
        Box::pin(mail::run(session, client, timer)).await;
        return Ok(());
    }
    let ConnectEnd::Live(live) = connect::any(session, client, timer).await? else {
        return Ok(());
    };
    let mut running = Running::new(session, client, live);
    let end = running.until_end(timer).await;
    let last = running.finish(end);
    // The backend's connection and its place are not held while the client lingers.
    drop(running);
    if last == Last::Linger {
        closing::linger(session, client, timer).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_is_small() {
        let octets = size_of_output(run);
        assert!(octets <= 656, "a session's future has {octets} octets");
    }
}
