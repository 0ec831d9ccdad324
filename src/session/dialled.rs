//! A connection to a backend that is not of use yet: dialled from where its pool says and, for
//! transactions of ours, greeting and EHLO (rules S6, E5, P6).
//!
//! Shared by attempts of a session and by those that nobody has asked for yet. It keeps no time:
//! who drives it knows one deadline until it is connected and one for all that is heard behind that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use super::attempt::Failure;
use super::context::Context;
use crate::balance::{FailureKind, Stage};
use crate::config::model;
use crate::net::dial::{self, Origin};
use crate::net::stream::Stream;
use crate::smtp::{Extensions, Opening, OpeningStep};

/// Dials `to` as its pool says, from the next of `sources` in turn that is of the right family.
pub(super) fn dial(
    cx: &Context,
    pool: &model::Pool,
    sources: &[IpAddr],
    to: SocketAddr,
) -> Result<Stream, Failure> {
    let origin = Origin {
        source: source(cx, sources, to),
        interface: pool.interface.as_deref(),
        freebind: pool.freebind,
    };
    dial::dial(to, origin).map_err(|error| Failure::of(Stage::Connect, &error))
}

fn source(cx: &Context, sources: &[IpAddr], to: SocketAddr) -> Option<IpAddr> {
    if sources.is_empty() {
        return None;
    }
    let turn = cx.source_turn.get();
    cx.source_turn.set(turn.wrapping_add(1));
    let fitting = || {
        sources
            .iter()
            .filter(|source| source.is_ipv4() == to.is_ipv4())
    };
    let count = fitting().count();
    fitting().nth(turn.checked_rem(count)?).copied()
}

/// Waits until it is connected.
pub(super) fn poll_connected(
    task: &mut task::Context<'_>,
    stream: &Stream,
) -> Poll<Result<(), Failure>> {
    let failed = |error: io::Error| Failure::of(Stage::Connect, &error);
    stream.poll_connected(task).map_err(failed)
}

/// Waits for what the backend says, at least one octet; its end is a failure at this stage.
pub(super) fn poll_heard(
    task: &mut task::Context<'_>,
    stream: &Stream,
    into: &mut [u8],
    stage: Stage,
) -> Poll<Result<usize, Failure>> {
    stream.poll_recv(task, into).map(|heard| match heard {
        Ok(0) => Err(Failure::new(stage, FailureKind::Closed)),
        Ok(n) => Ok(n),
        Err(error) => Err(Failure::of(stage, &error)),
    })
}

/// Greeting and EHLO, where both replies are ours.
#[derive(Debug)]
pub(super) struct Hello {
    opening: Box<Opening>,
    name: Arc<str>,
    /// From dial to the greeting.
    greeted: Option<Duration>,
}

/// What has come of a [`Hello`].
#[derive(Debug)]
pub(super) enum Heard {
    /// More must come.
    Part,
    /// It is ready for MAIL.
    Ready {
        extensions: Extensions,
        /// From dial to the greeting.
        greeted: Duration,
    },
    /// It is of no use.
    Failed(Failure),
}

impl Hello {
    /// `name` is ours.
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            opening: Box::new(Opening::new(&name)),
            name,
            greeted: None,
        }
    }

    /// The name that the backend is told.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is awaited.
    pub(super) fn stage(&self) -> Stage {
        if self.opening.is_greeted() {
            Stage::Ehlo
        } else {
            Stage::Greeting
        }
    }

    /// Takes what the backend has said so long `after` the dial, and answers it.
    pub(super) fn hear(
        &mut self,
        task: &mut task::Context<'_>,
        stream: &Stream,
        octets: &[u8],
        after: Duration,
    ) -> Heard {
        let stage = self.stage();
        match self.opening.handle(octets) {
            OpeningStep::Wait => Heard::Part,
            OpeningStep::Say(octets) => {
                self.greeted = Some(after);
                match stream.poll_send(task, &octets) {
                    Poll::Ready(Ok(n)) if n == octets.len() => Heard::Part,
                    Poll::Ready(Err(error)) => Heard::Failed(Failure::of(Stage::Ehlo, &error)),
                    // The first line on a connection, and no room for it.
                    _ => Heard::Failed(Failure::new(Stage::Ehlo, FailureKind::Closed)),
                }
            }
            OpeningStep::Ready(extensions) => Heard::Ready {
                extensions,
                greeted: self.greeted.unwrap_or(after),
            },
            OpeningStep::Failed(failure) => Heard::Failed(Failure::of_opening(stage, failure)),
        }
    }
}
