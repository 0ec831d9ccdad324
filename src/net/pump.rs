//! One direction of a relay: copy through the thread's scratch, or splice through a pipe.
//!
//! Invariant: while anything is held for the receiver nothing more is read from the sender, so a
//! direction holds at most one scratch (64 KiB) or one pipe. A pipe is filled only when empty:
//! then `EAGAIN` always speaks of the socket, and the edge that will come is the socket's. (A pipe
//! that is full by slots, not octets, gives the same `EAGAIN`; 1,448-byte segments fill 64 KiB of
//! slots at 23 KB.)

use std::io;
use std::task::{Context, Poll};

use rustix::pipe::{SpliceFlags, splice};

use super::pipe::{PIPE_OCTETS, Pipe, PipePool};
use super::stream::Stream;

/// A read longer than this is credit for splicing, a shorter one is debit.
const BULK_READ: i32 = 16 * 1024;
/// So much credit makes a direction splice: two full scratches, or a few long reads.
const BULK_BEGIN: i32 = 96 * 1024;
/// More credit is not kept: a stream that has turned into a dialogue soon copies again.
const BULK_MAX: i32 = 256 * 1024;
/// What one direction may move in one poll before others get their turn.
const TURN_OCTETS: usize = 1024 * 1024;
/// How many reads one direction may do in one poll.
const TURN_READS: u8 = 64;

/// What a thread lends a relay for one poll.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The thread's scratch.
    pub scratch: &'a mut [u8],
    /// The thread's pipes.
    pub pipes: &'a PipePool,
}

/// Which leg an error or end belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leg {
    From,
    To,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has ended; what is held goes out first, then our FIN.
    Ending,
    /// Nothing is left to deliver: the receiver may be told, or it is gone.
    Over,
}

#[derive(Debug)]
pub(super) struct Pump {
    octets: u64,
    /// What the receiver did not take of the last read; empty without an allocation.
    spill: Vec<u8>,
    spill_at: usize,
    pipe: Option<Pipe>,
    state: State,
    splicing: bool,
    credit: i32,
}

/// What a poll of a pump found out beside its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) moved: bool,
    pub(super) began_splicing: u8,
    pub(super) wanted_pipe: bool,
}

impl Pump {
    pub(super) fn new() -> Self {
        Self {
            octets: 0,
            spill: Vec::new(),
            spill_at: 0,
            pipe: None,
            state: State::Open,
            splicing: false,
            credit: 0,
        }
    }

    /// A direction that has `octets` to deliver before anything else.
    pub(super) fn with_held(octets: &[u8]) -> Self {
        Self {
            spill: octets.to_vec(),
            ..Self::new()
        }
    }

    /// Octets the sender has given us.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    pub(super) fn count(&mut self, octets: usize) {
        self.octets += octets as u64;
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Octets in the spill buffer.
    pub(super) fn spilled(&self) -> usize {
        self.spill.capacity()
    }

    /// The receiver is gone: nothing more is read or delivered.
    pub(super) fn give_up(&mut self, pipes: &PipePool) {
        self.state = State::Over;
        self.spill = Vec::new();
        if let Some(pipe) = self.pipe.take() {
            pipes.put(pipe);
        }
    }

    /// Moves what can be moved. `Ready(Ok)` when the direction is over, or when its turn is: then
    /// `is_over` is false and the caller polls again soon.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        lent: &mut Lent<'_>,
        found: &mut Found,
    ) -> Poll<Result<(), (Leg, io::Error)>> {
        let mut octets_left = TURN_OCTETS;
        let mut reads_left = TURN_READS;
        loop {
            match self.poll_flush(cx, to, lent.pipes) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(_)) => found.moved = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err((Leg::To, error))),
                Poll::Pending => return Poll::Pending,
            }
            match self.state {
                State::Open => {}
                State::Ending => {
                    self.state = State::Over;
                    return Poll::Ready(Ok(()));
                }
                State::Over => return Poll::Ready(Ok(())),
            }
            if octets_left == 0 || reads_left == 0 {
                return Poll::Ready(Ok(()));
            }
            let read = if self.splicing && !from.is_urgent() {
                self.poll_splice(cx, (from, to), lent, found)
            } else {
                self.poll_copy(cx, (from, to), lent)
            };
            match read {
                Poll::Ready(Ok(0)) => self.state = State::Ending,
                Poll::Ready(Ok(n)) => {
                    self.octets += n as u64;
                    found.moved = true;
                    octets_left = octets_left.saturating_sub(n);
                    reads_left -= 1;
                    self.judge_bulk(n, lent, found);
                }
                Poll::Ready(Err(failed)) => return Poll::Ready(Err(failed)),
                Poll::Pending => {
                    self.rest(lent.pipes);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Delivers what is held; `Ok(octets delivered)` when nothing is held any more.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        to: &Stream,
        pipes: &PipePool,
    ) -> Poll<io::Result<usize>> {
        let mut delivered = 0;
        while self.spill_at < self.spill.len() {
            match to.poll_send(cx, &self.spill[self.spill_at..]) {
                Poll::Ready(Ok(n)) => {
                    self.spill_at += n;
                    delivered += n;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.spill_at > 0 {
            self.spill = Vec::new();
            self.spill_at = 0;
        }
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(delivered));
        };
        while pipe.held() > 0 {
            let sent = to.poll_write_with(cx, |socket| {
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                Ok(splice(
                    pipe.read_end(),
                    None,
                    socket,
                    None,
                    pipe.held(),
                    flags,
                )?)
            });
            match sent {
                Poll::Ready(Ok(n)) => {
                    pipe.drained(n);
                    delivered += n;
                }
                Poll::Ready(Err(error)) => {
                    if let Some(pipe) = self.pipe.take() {
                        pipes.put(pipe);
                    }
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(delivered))
    }

    /// Reads into the scratch and sends at once; what is not taken is spilled.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        lent: &mut Lent<'_>,
    ) -> Poll<Result<usize, (Leg, io::Error)>> {
        let n = match from.poll_recv(cx, lent.scratch) {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Poll::Ready(Err((Leg::From, error))),
            Poll::Pending => return Poll::Pending,
        };
        if n == 0 {
            return Poll::Ready(Ok(0));
        }
        let octets = &lent.scratch[..n];
        let sent = if from.has_ended() {
            to.poll_send_last(cx, octets)
        } else {
            to.poll_send(cx, octets)
        };
        let sent = match sent {
            Poll::Ready(Ok(sent)) => sent,
            Poll::Ready(Err(error)) => return Poll::Ready(Err((Leg::To, error))),
            Poll::Pending => 0,
        };
        if sent < n {
            self.spill = lent.scratch[sent..n].to_vec();
        }
        Poll::Ready(Ok(n))
    }

    /// Splices; whether an end is one, a read says: splice(2) also ends at urgent data.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&Stream, &Stream),
        lent: &mut Lent<'_>,
        found: &mut Found,
    ) -> Poll<Result<usize, (Leg, io::Error)>> {
        match self.poll_fill(cx, from, lent, found) {
            Poll::Ready(Ok(0)) => self.poll_copy(cx, (from, to), lent),
            filled => filled,
        }
    }

    /// Splices from the socket into an empty pipe.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        lent: &mut Lent<'_>,
        found: &mut Found,
    ) -> Poll<Result<usize, (Leg, io::Error)>> {
        if self.pipe.is_none() {
            self.pipe = lent.pipes.take();
        }
        let Some(pipe) = &mut self.pipe else {
            // All pipes are in use: this round goes through the scratch.
            found.wanted_pipe = true;
            self.splicing = false;
            self.credit = 0;
            return match from.poll_recv(cx, lent.scratch) {
                Poll::Ready(Ok(n)) => {
                    self.spill = lent.scratch[..n].to_vec();
                    Poll::Ready(Ok(n))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err((Leg::From, error))),
                Poll::Pending => Poll::Pending,
            };
        };
        debug_assert_eq!(pipe.held(), 0, "a pipe is filled only when empty");
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let filled = from.poll_read_with(cx, |socket| {
            Ok(splice(
                socket,
                None,
                pipe.write_end(),
                None,
                PIPE_OCTETS,
                flags,
            )?)
        });
        match filled {
            Poll::Ready(Ok(n)) => {
                pipe.filled(n);
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err((Leg::From, error))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Decides between copying and splicing: an account that long transfers fill and short ones
    /// empty, so that one short read in a stream does not change the way.
    fn judge_bulk(&mut self, n: usize, lent: &Lent<'_>, found: &mut Found) {
        let n = i32::try_from(n).unwrap_or(i32::MAX - BULK_MAX);
        self.credit = (self.credit + n - BULK_READ).clamp(0, BULK_MAX);
        if self.splicing {
            self.splicing = self.credit > 0;
        } else if self.credit >= BULK_BEGIN && lent.pipes.is_enabled() {
            self.splicing = true;
            found.began_splicing += 1;
        }
    }

    /// Nothing to read: an empty pipe goes back to the pool. Splicing goes on with the next octets.
    fn rest(&mut self, pipes: &PipePool) {
        if self.pipe.as_ref().is_some_and(|pipe| pipe.held() == 0)
            && let Some(pipe) = self.pipe.take()
        {
            pipes.put(pipe);
        }
    }
}
