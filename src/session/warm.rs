//! Keeping connections ready before anybody asks for them (`min_idle`).
//!
//! Looked at with every heartbeat: a backend that has fewer idle connections of this thread than its
//! share is dialled, one connection at a time, so that a backend that comes back is not stormed. A
//! dial that fails is a strike as any other; the next is made with the next look.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Instant;

use super::attempt::{self, Failure};
use super::context::{Context, since};
use super::dialled::{self, Heard, Hello};
use super::keeper::{Kept, idle_max, key, share};
use crate::balance::{FailureKind, Observation, Slot, Stage, Tried};
use crate::config::model::{self, Identity};
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::{Due, Timer};
use crate::smtp::Extensions;
use crate::snapshot::PoolView;

/// Backends of one thread that are dialled at once.
const WARMING_MAX: usize = 4;

/// Backends that are being dialled.
#[derive(Debug, Default)]
pub(super) struct Warming(RefCell<BTreeSet<usize>>);

/// Dials what is missing.
pub(super) fn look(cx: &Rc<Context>) {
    if cx.is_draining() || !cx.keeper.has_room(cx) {
        return;
    }
    let snapshot = cx.shared.current.load();
    let wants = |pool: &&Arc<PoolView>| {
        pool.settings.smtp.min_idle > 0 && pool.settings.identity == Identity::None
    };
    let hostname = Arc::clone(&snapshot.config.hostname);
    for pool in snapshot.pools().filter(wants) {
        let smtp = &pool.settings.smtp;
        let wanted = share(smtp.min_idle, cx) as usize;
        for member in pool.pool.members() {
            let state = &member.settings.state;
            let warming = &cx.warming.0;
            if warming.borrow().len() >= WARMING_MAX {
                return;
            }
            // No more than would be kept.
            let wanted = wanted.min(idle_max(smtp, member, cx));
            let missing = cx.keeper.idle_of(member) < wanted && pool.pool.waiting() == 0;
            if !missing || warming.borrow().contains(&key(state)) {
                continue;
            }
            let Some(slot) = pool.pool.pick_at(state, &Tried::default()) else {
                continue;
            };
            warming.borrow_mut().insert(key(state));
            let one = One {
                cx: Rc::clone(cx),
                slot: Some(slot),
                key: key(state),
                hostname: Arc::clone(&hostname),
                began: clock::now(),
            };
            let settings = pool.settings.clone();
            cx.event_loop.spawn(one.run(settings));
        }
    }
}

/// One connection that is being made ready.
#[derive(Debug)]
struct One {
    cx: Rc<Context>,
    slot: Option<Slot>,
    key: usize,
    hostname: Arc<str>,
    began: Instant,
}

impl One {
    async fn run(mut self, settings: model::Pool) {
        let Some(slot) = self.slot.take() else { return };
        let opened = self.open(&settings, &slot).await;
        let now = clock::now();
        match opened {
            Ok((stream, extensions)) => {
                stream.keep_alive();
                let kept = Kept::new(stream, extensions, Arc::clone(&self.hostname), now);
                self.cx.keeper.put_new(&self.cx, slot, kept, now);
            }
            Err(failure) => {
                let after = since(now, self.began);
                attempt::note_strike(&self.cx, &slot, failure, after, now);
            }
        }
    }

    async fn open(
        &self,
        settings: &model::Pool,
        slot: &Slot,
    ) -> Result<(Stream, Extensions), Failure> {
        let address = slot.member().settings.address;
        let stream = dialled::dial(&self.cx, settings, &settings.source, address)?;
        let mut timer = Timer::new();
        let connect_by = self.began + settings.connect_timeout;
        within(&mut timer, connect_by, Stage::Connect, |task| {
            dialled::poll_connected(task, &stream)
        })
        .await?;
        let greet_by = clock::now() + settings.greeting_timeout;
        let mut hello = Hello::new(Arc::clone(&self.hostname));
        let mut scratch = [0; 4096];
        loop {
            let stage = hello.stage();
            let n = within(&mut timer, greet_by, stage, |task| {
                dialled::poll_heard(task, &stream, &mut scratch, stage)
            })
            .await?;
            let now = clock::now();
            let after = since(now, self.began);
            let mut hear = |task: &mut Task<'_>| hello.hear(task, &stream, &scratch[..n], after);
            match poll_fn(|task| Poll::Ready(hear(task))).await {
                Heard::Part => {}
                Heard::Ready {
                    extensions,
                    greeted,
                } => {
                    let observed = Observation::Greeted { after: greeted };
                    attempt::note(&self.cx, slot, observed, now);
                    return Ok((stream, extensions));
                }
                Heard::Failed(failure) => return Err(failure),
            }
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        // The look may come again.
        self.cx.warming.0.borrow_mut().remove(&self.key);
    }
}

/// Does it by `deadline`.
async fn within<T>(
    timer: &mut Timer,
    deadline: Instant,
    stage: Stage,
    mut poll: impl FnMut(&mut Task<'_>) -> Poll<Result<T, Failure>>,
) -> Result<T, Failure> {
    poll_fn(|task| match poll(task) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending if timer.arm(deadline, clock::now(), task) == Due::Now => {
            Poll::Ready(Err(Failure::new(stage, FailureKind::Timeout)))
        }
        Poll::Pending => Poll::Pending,
    })
    .await
}
