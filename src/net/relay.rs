//! Both directions of a session after its commit, in one poll.
//!
//! Each direction ends by itself (FIN in order, half-close kept); a reset of one leg becomes a reset
//! of the other; a receiver that is gone lets the other direction finish first. A reset discards what
//! is still under way: where a backend resets right behind its last octets, the client gets these and
//! an end in order. The relay knows no deadline: it says when octets moved, the caller keeps the time.

use std::io;
use std::task::{Context, Poll, ready};

use super::pipe::PipePool;
pub use super::pump::Lent;
use super::pump::{Found, Leg, Pump};
use super::stream::Stream;

/// A side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Side {
    Client,
    Backend,
}

/// How a relay ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both directions ended in order; `first` ended first.
    Ended {
        /// Who sent the first FIN.
        first: Side,
    },
    /// The backend had ended and takes no more, but the client still sends: linger, so that it can
    /// read what the backend said last.
    BackendGone,
    /// This side's connection was reset (or failed): the other is to be reset as well.
    Reset {
        /// Whose connection.
        by: Side,
    },
    /// The backend's connection was reset (or failed) right behind octets that may still be under
    /// way to the client: linger, so that it can read them.
    ResetBehindOctets,
}

/// What a poll of the relay saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Octets moved.
    pub moved: bool,
    /// Directions that began to splice.
    pub began_splicing: u8,
    /// A pipe was wanted and none was free.
    pub wanted_pipe: bool,
}

/// The two directions.
#[derive(Debug)]
pub struct Relay {
    to_backend: Pump,
    to_client: Pump,
    first_end: Option<Side>,
    backend_gone: bool,
    /// The client was sent octets and has said nothing since.
    under_way: bool,
}

impl Relay {
    /// A relay whose client is first sent `unsent`; `sent` octets of the backend's have gone out
    /// already.
    pub fn new(sent: usize, unsent: &[u8]) -> Self {
        let mut to_client = if unsent.is_empty() {
            Pump::new()
        } else {
            Pump::with_held(unsent)
        };
        to_client.count(sent + unsent.len());
        Self {
            to_backend: Pump::new(),
            to_client,
            first_end: None,
            backend_gone: false,
            under_way: sent + unsent.len() > 0,
        }
    }

    /// Octets the client has sent.
    pub fn octets_to_backend(&self) -> u64 {
        self.to_backend.octets()
    }

    /// Octets the backend has sent.
    pub fn octets_to_client(&self) -> u64 {
        self.to_client.octets()
    }

    /// Octets of memory held in spill buffers.
    pub fn spilled(&self) -> usize {
        self.to_backend.spilled() + self.to_client.spilled()
    }

    /// Who ended first, once one direction is over.
    pub fn half_closed_by(&self) -> Option<Side> {
        self.first_end
    }

    /// Moves octets both ways until both wait.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        backend: &Stream,
        lent: &mut Lent<'_>,
        seen: &mut Seen,
    ) -> Poll<RelayEnd> {
        let mut found = Found::default();
        let end = self.poll_both(cx, client, backend, lent, &mut found);
        seen.moved = found.moved;
        seen.began_splicing = found.began_splicing;
        seen.wanted_pipe = found.wanted_pipe;
        end
    }

    fn poll_both(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        backend: &Stream,
        lent: &mut Lent<'_>,
        found: &mut Found,
    ) -> Poll<RelayEnd> {
        let mut again = false;
        let mut ended = [None; 2];
        let said = self.to_backend.octets();
        // The backend's words first: if it is about to be found gone, they have gone out before.
        if !self.to_client.is_over() {
            match self.to_client.poll(cx, (backend, client), lent, found) {
                Poll::Ready(Ok(())) if self.to_client.is_over() => {
                    ended[0] = Some(client);
                    self.note_end(Side::Backend);
                }
                Poll::Ready(Ok(())) => again = true,
                Poll::Ready(Err((Leg::From, _))) => {
                    self.under_way |= found.moved;
                    return Poll::Ready(self.lost_backend(lent));
                }
                Poll::Ready(Err((Leg::To, _))) => {
                    return Poll::Ready(self.reset(Side::Client, lent));
                }
                Poll::Pending => {}
            }
        }
        let delivered = found.moved;
        self.under_way |= delivered;
        if !self.to_backend.is_over() {
            match self.to_backend.poll(cx, (client, backend), lent, found) {
                Poll::Ready(Ok(())) if self.to_backend.is_over() => {
                    ended[1] = Some(backend);
                    self.note_end(Side::Client);
                }
                Poll::Ready(Ok(())) => again = true,
                Poll::Ready(Err((Leg::To, error))) if is_gone(&error) => {
                    self.backend_gone = true;
                    self.to_backend.give_up(lent.pipes);
                    again = !self.to_client.is_over();
                }
                // The backend has left and everything was delivered: the client need not part in
                // order (many close as soon as they have said QUIT).
                Poll::Ready(Err((Leg::From, _))) if self.to_client.is_over() => {
                    self.to_backend.give_up(lent.pipes);
                }
                Poll::Ready(Err((Leg::From, _))) => {
                    return Poll::Ready(self.reset(Side::Client, lent));
                }
                Poll::Ready(Err((Leg::To, _))) => {
                    return Poll::Ready(self.lost_backend(lent));
                }
                Poll::Pending => {}
            }
        }
        // What is heard of the client in this same poll was said before it could hear that.
        if self.to_backend.octets() != said && !delivered {
            self.under_way = false;
        }
        if self.to_backend.is_over() && self.to_client.is_over() {
            // Both connections are closed next, which sends each its FIN.
            if self.backend_gone {
                return Poll::Ready(RelayEnd::BackendGone);
            }
            let first = self.first_end.unwrap_or(Side::Client);
            return Poll::Ready(RelayEnd::Ended { first });
        }
        for told in ended.into_iter().flatten() {
            told.end();
        }
        if let Poll::Ready(end) = self.poll_reset(cx, client, backend, lent) {
            return Poll::Ready(end);
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether the side that has ended, and is not read any more, has reset its connection since.
    fn poll_reset(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        backend: &Stream,
        lent: &Lent<'_>,
    ) -> Poll<RelayEnd> {
        match (self.to_backend.is_over(), self.to_client.is_over()) {
            (true, false) => {
                ready!(client.poll_reset(cx));
                Poll::Ready(self.reset(Side::Client, lent))
            }
            (false, true) => {
                ready!(backend.poll_reset(cx));
                self.abandon(lent.pipes);
                Poll::Ready(RelayEnd::BackendGone)
            }
            (false, false) | (true, true) => Poll::Pending,
        }
    }

    fn note_end(&mut self, side: Side) {
        self.first_end.get_or_insert(side);
    }

    /// The backend's connection failed. No reset overtakes what it has said last.
    fn lost_backend(&mut self, lent: &Lent<'_>) -> RelayEnd {
        let end = self.reset(Side::Backend, lent);
        if self.under_way {
            RelayEnd::ResetBehindOctets
        } else {
            end
        }
    }

    /// Gives pipes back (those with octets are closed) and says whose reset it was.
    fn reset(&mut self, by: Side, lent: &Lent<'_>) -> RelayEnd {
        self.abandon(lent.pipes);
        RelayEnd::Reset { by }
    }

    /// Gives back the thread's pipes: at the end of every session.
    pub fn abandon(&mut self, pipes: &PipePool) {
        self.to_backend.give_up(pipes);
        self.to_client.give_up(pipes);
    }
}

/// The receiver's socket takes nothing any more, but may still have words for us.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
