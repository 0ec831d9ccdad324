//! The life of a session after its commit: octets both ways until both sides have ended, or one
//! reset, or nothing moved for too long.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::connect::Live;
use super::record::Session;
use crate::balance::Slot;
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::net::clock;
use crate::net::relay::{Lent, Relay, RelayEnd, Seen, Side};
use crate::net::stream::Stream;
use crate::net::timer::{Due, Timer};

/// Keepalive and user timeout are set on the backend's socket when a session lasts so long: five
/// system calls that a short one is spared.
const LASTING: Duration = Duration::from_secs(10);

/// How the relay was ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Itself(RelayEnd),
    Idle,
    HalfClosed,
}

/// How the client's connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Close,
    /// It is to read what it was told last (rule K5).
    Linger,
}

/// A running relay. Dropped while it runs (a cut, a panic) it resets both sides, so that neither
/// takes an abandoned transfer for a complete one (rule K4), and still accounts for its octets.
#[derive(Debug)]
pub(super) struct Running<'a> {
    session: &'a mut Session,
    client: &'a Stream,
    backend: Stream,
    relay: Relay,
    /// The place at the backend, given back at the end.
    _slot: Slot,
    spilled: u64,
    refused: bool,
    ended: bool,
}

impl<'a> Running<'a> {
    /// Takes over what connecting has found.
    pub(super) fn new(session: &'a mut Session, client: &'a Stream, live: Live) -> Self {
        let Live {
            backend,
            slot,
            relay,
            refused,
        } = live;
        Self {
            session,
            client,
            backend,
            relay,
            _slot: slot,
            spilled: 0,
            refused,
            ended: false,
        }
    }

    /// Relays until both sides have ended, one has reset, or nothing moved for too long.
    pub(super) async fn until_end(&mut self, timer: &mut Timer) -> End {
        let mut active = clock::now();
        let lasts = self.session.accepted + LASTING;
        let mut lasting = false;
        let mut half_closed = None;
        poll_fn(|task| {
            let now = clock::now();
            let mut seen = Seen::default();
            if let Poll::Ready(end) = self.poll(task, &mut seen) {
                return Poll::Ready(End::Itself(end));
            }
            if seen.moved {
                active = now;
            }
            let half = self.relay.half_closed_by().is_some();
            // Deadlines only move away, but at the begin and when a direction ends.
            if half_closed == Some(half) && timer.is_set(now) {
                return Poll::Pending;
            }
            half_closed = Some(half);
            loop {
                let settings = &self.session.listener.view.settings;
                let (deadline, end) = deadline(
                    half,
                    active,
                    settings.idle_timeout,
                    settings.half_close_timeout,
                );
                let next = if lasting {
                    deadline
                } else {
                    deadline.min(lasts)
                };
                match timer.arm(next, now, task) {
                    Due::Later => return Poll::Pending,
                    Due::Now if deadline <= now => return Poll::Ready(end),
                    Due::Now => {
                        lasting = true;
                        self.backend.keep_alive();
                    }
                }
            }
        })
        .await
    }

    fn poll(&mut self, task: &mut Context<'_>, seen: &mut Seen) -> Poll<RelayEnd> {
        let cx = &self.session.cx;
        let mut scratch = cx.scratch.borrow_mut();
        let mut lent = Lent {
            scratch: &mut scratch,
            pipes: &cx.pipes,
        };
        let end = self
            .relay
            .poll(task, self.client, &self.backend, &mut lent, seen);
        let counters = cx.counters();
        if seen.began_splicing > 0 {
            counters.spliced.add(u64::from(seen.began_splicing));
        }
        if seen.wanted_pipe {
            counters.pipes_exhausted.inc();
        }
        let spilled = self.relay.spilled() as u64;
        if spilled != self.spilled {
            counters
                .spilled_octets
                .add(spilled.wrapping_sub(self.spilled));
            self.spilled = spilled;
        }
        end
    }

    /// Passes the end on to the other side and gives the outcome; what is left to be done for the
    /// client once this is dropped.
    pub(super) fn finish(&mut self, end: End) -> Last {
        self.ended = true;
        let phase = SessionPhase::Relay;
        let completed = if self.refused {
            SessionOutcome::Refused
        } else {
            SessionOutcome::Completed
        };
        match end {
            End::Itself(RelayEnd::Ended { first }) => self.session.end(completed, by(first), phase),
            End::Itself(RelayEnd::BackendGone) => {
                self.session.end(completed, EndedBy::Backend, phase);
                return Last::Linger;
            }
            End::Itself(RelayEnd::Reset { by: Side::Client }) => {
                self.backend.reset_on_close();
                self.session
                    .end(SessionOutcome::ClientReset, EndedBy::Client, phase);
            }
            End::Itself(RelayEnd::Reset { by: Side::Backend }) => {
                self.client.reset_on_close();
                self.session
                    .end(SessionOutcome::BackendReset, EndedBy::Backend, phase);
            }
            End::Itself(RelayEnd::ResetBehindOctets) => {
                self.session
                    .end(SessionOutcome::BackendReset, EndedBy::Backend, phase);
                return Last::Linger;
            }
            End::Idle => {
                self.reset_both();
                self.session
                    .end(SessionOutcome::IdleTimeout, EndedBy::Us, phase);
            }
            End::HalfClosed => {
                self.reset_both();
                self.session
                    .end(SessionOutcome::HalfCloseTimeout, EndedBy::Us, phase);
            }
        }
        Last::Close
    }

    fn reset_both(&self) {
        self.client.reset_on_close();
        self.backend.reset_on_close();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.reset_both();
        }
        self.relay.abandon(&self.session.cx.pipes);
        self.session.octets_to_backend = self.relay.octets_to_backend();
        self.session.octets_to_client = self.relay.octets_to_client();
        let counters = self.session.cx.counters();
        counters.spilled_octets.sub(self.spilled);
    }
}

/// The deadline in force and what it means when it passes.
fn deadline(
    half_closed: bool,
    active: Instant,
    idle: Duration,
    half_close: Duration,
) -> (Instant, End) {
    if half_closed && half_close < idle {
        (active + half_close, End::HalfClosed)
    } else {
        (active + idle, End::Idle)
    }
}

fn by(side: Side) -> EndedBy {
    match side {
        Side::Client => EndedBy::Client,
        Side::Backend => EndedBy::Backend,
    }
}
