//! A kept connection that goes with its place to the session that has waited longest for one.
//!
//! While clients queue, the connection of a transaction that has ended is somebody's at once: it
//! leaves this thread's loop, and arrives on that of the waiter, which may be another's. A dial, a
//! greeting and EHLO for every message would cost most where there is least to spare. What arrives
//! is looked at before it is used (rule N3), and what cannot be used makes room for a dial.

use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::{Kept, origin};
use crate::balance::{Carried, KeptClosed, Kind, Slot};
use crate::net::stream::Stream;
use crate::session::record::Session;
use crate::smtp::Extensions;

/// A kept connection on nobody's loop.
#[derive(Debug)]
struct Travelling {
    socket: TcpStream,
    extensions: Extensions,
    born: Instant,
    name: Arc<str>,
    messages: u32,
}

/// Which connections a session may be given (rule N1): those from the pool's addresses, or from its
/// listener's own.
pub(in crate::session) fn kind(session: &Session) -> Kind {
    kind_of(origin(session))
}

fn kind_of(origin: Option<usize>) -> Kind {
    Kind(origin.map_or(0, |listener| listener + 1))
}

/// Gives a connection with its place to the first who waits for the place, if it has a use for both.
pub(super) fn pass_on(
    origin: Option<usize>,
    slot: Slot,
    kept: Kept,
) -> Result<(), Box<(Slot, Kept)>> {
    let kind = kind_of(origin);
    match slot.heir(kind) {
        Ok(heir) => {
            let travelling = kept.leave();
            heir.receive(travelling.map(|travelling| Carried::new(kind, travelling)));
            Ok(())
        }
        Err(slot) => Err(Box::new((slot, kept))),
    }
}

/// The connection that has come with a place, unless it has died on the way or was told another
/// name of ours. It is closed then, and the place is there to be dialled for.
pub(in crate::session) fn receive(
    session: &Session,
    slot: &Slot,
    carried: Carried,
) -> Option<Kept> {
    let travelling = carried.open::<Travelling>()?;
    let is_ours = *travelling.name == *session.cx.shared.current.load().config.hostname;
    let kept = if is_ours {
        Kept::arrive(travelling)
    } else {
        None
    };
    if kept.is_none() {
        let worker = session.cx.worker.index();
        let mail = &slot.member().settings.state.totals.of(worker).mail;
        mail.closed[KeptClosed::Backend.index()].inc();
    }
    kept
}

impl Kept {
    fn leave(self) -> Option<Travelling> {
        let Self {
            stream,
            extensions,
            born,
            name,
            messages,
        } = self;
        Some(Travelling {
            socket: stream.leave().ok()?,
            extensions: Rc::unwrap_or_clone(extensions),
            born,
            name,
            messages,
        })
    }

    fn arrive(travelling: Travelling) -> Option<Self> {
        let Travelling {
            socket,
            extensions,
            born,
            name,
            messages,
        } = travelling;
        Some(Self {
            stream: Stream::arrived(socket).ok()?,
            extensions: Rc::new(extensions),
            born,
            name,
            messages,
        })
    }
}
