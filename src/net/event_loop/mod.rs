//! A data thread's event loop: tasks, socket readiness and timers, on one thread.
//!
//! It does for a worker what a general runtime would, with what a relay can leave out left out: one
//! task polls a socket, so readiness and waker lie in one small entry of a slab (24 octets instead
//! of a 256-octet block); closing a socket needs no call to epoll; a timer is an entry of a
//! millisecond wheel; the clock is read once per turn; and the tasks' headers are used again. Per
//! short session that is 15,000 instructions, four system calls and three allocations less.
//!
//! A turn: poll the tasks that were woken (at most 256), look at the sockets (without
//! waiting if a task is left), fire the timers. A task that wakes itself is polled after the look.
//! A task that panics is dropped, and nothing else.

mod sources;
mod tasks;
mod wheel;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

pub use sources::Ready;
use sources::{Source, Sources};
use tasks::{Header, Queue};
use wheel::Wheel;

use super::clock;

/// Tasks polled before the sockets are looked at again.
const TURN_POLLS: u32 = 256;
/// Events taken in one look.
const EVENTS: usize = 256;
/// The token of the bell that other threads ring.
const BELL: u64 = u64::MAX;
/// The token of the clock.
const CLOCK: u64 = u64::MAX - 1;
/// The task that the loop was entered with.
const MAIN: u32 = tasks::NOBODY - 1;

thread_local! {
    static CURRENT: RefCell<Option<Rc<EventLoop>>> = const { RefCell::new(None) };
}

/// An event loop.
pub struct EventLoop {
    epoll: OwnedFd,
    /// Becomes readable when the first timer is due; edge-triggered, never read.
    clock: OwnedFd,
    /// The tick it is set for, until it has fired.
    clock_set_for: Cell<Option<u64>>,
    queue: Arc<Queue>,
    sources: RefCell<Sources>,
    wheel: RefCell<Wheel>,
    events: RefCell<Vec<epoll::Event>>,
    tasks: RefCell<Tasks>,
    /// Looks at the sockets so far.
    turns: Cell<u32>,
    began: Instant,
}

/// The tasks by index. A place is used again, with its header, by a later task.
#[derive(Default)]
struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    header: Arc<Header>,
    task: Option<Task>,
    /// How many tasks have ended here.
    turn: u32,
    aborted: bool,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

/// A spawned task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId {
    index: u32,
    turn: u32,
}

impl EventLoop {
    /// Makes a loop.
    ///
    /// # Errors
    /// No descriptor or no memory.
    pub fn new() -> io::Result<Rc<Self>> {
        let queue = Queue::new()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = epoll::EventData::new_u64(BELL);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, queue.bell(), bell, flags)?;
        let flags_of_clock = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let clock = timerfd_create(TimerfdClockId::Monotonic, flags_of_clock)?;
        epoll::add(&epoll, &clock, epoll::EventData::new_u64(CLOCK), flags)?;
        Ok(Rc::new(Self {
            epoll,
            clock,
            clock_set_for: Cell::new(None),
            queue,
            sources: RefCell::default(),
            wheel: RefCell::new(Wheel::new()),
            events: RefCell::new(Vec::with_capacity(EVENTS)),
            tasks: RefCell::default(),
            turns: Cell::new(0),
            began: clock::read(),
        }))
    }

    /// The loop that runs on this thread.
    ///
    /// # Panics
    /// Outside of a loop: sockets and timers are made by its tasks.
    pub fn current() -> Rc<Self> {
        CURRENT.with(|current| {
            let current = current.borrow();
            Rc::clone(current.as_ref().expect("a task of an event loop"))
        })
    }

    /// Runs `main` to its end, and what it spawns meanwhile; what is left then is dropped.
    ///
    /// # Panics
    /// When `main` does, or when another loop runs on this thread.
    pub fn block_on<F: Future>(self: &Rc<Self>, main: F) -> F::Output {
        let _running = Running::begin(self);
        let header = Header::new(MAIN, &self.queue);
        let waker = Waker::from(Arc::clone(&header));
        let mut main = pin!(main);
        waker.wake_by_ref();
        loop {
            for _ in 0..TURN_POLLS {
                match tasks::next() {
                    None => break,
                    Some(MAIN) => {
                        header.begin_poll();
                        tasks::set_running(MAIN);
                        let polled = main.as_mut().poll(&mut Context::from_waker(&waker));
                        tasks::set_running(tasks::NOBODY);
                        if let Poll::Ready(output) = polled {
                            return output;
                        }
                    }
                    Some(index) => self.poll_task(index),
                }
            }
            self.look();
        }
    }

    /// Adds a task; it is polled in this turn.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
        let mut tasks = self.tasks.borrow_mut();
        let index = tasks.free.pop().unwrap_or_else(|| {
            let index = tasks.places.len() as u32;
            tasks.places.push(Place {
                header: Header::new(index, &self.queue),
                task: None,
                turn: 0,
                aborted: false,
            });
            index
        });
        let place = &mut tasks.places[index as usize];
        let waker = Waker::from(Arc::clone(&place.header));
        waker.wake_by_ref();
        place.task = Some(Task { future, waker });
        place.aborted = false;
        TaskId {
            index,
            turn: place.turn,
        }
    }

    /// Drops a task when it would be polled next, which is soon. One that has ended is left alone.
    pub fn abort(&self, task: TaskId) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(place) = tasks.places.get_mut(task.index as usize) else {
            return;
        };
        if place.turn == task.turn {
            place.aborted = true;
            let header = Arc::clone(&place.header);
            drop(tasks);
            std::task::Wake::wake(header);
        }
    }

    /// Polls a task soon. One that has ended is left alone.
    pub fn wake(&self, task: TaskId) {
        let tasks = self.tasks.borrow();
        let place = tasks.places.get(task.index as usize);
        if let Some(place) = place.filter(|place| place.turn == task.turn) {
            let header = Arc::clone(&place.header);
            drop(tasks);
            std::task::Wake::wake(header);
        }
    }

    fn poll_task(&self, index: u32) {
        let (task, aborted) = {
            let mut tasks = self.tasks.borrow_mut();
            let place = &mut tasks.places[index as usize];
            place.header.begin_poll();
            (place.task.take(), place.aborted)
        };
        // Woken by a waker of an earlier task of this place.
        let Some(mut task) = task else { return };
        if !aborted {
            tasks::set_running(index);
            let polled = catch_unwind(AssertUnwindSafe(|| {
                task.future
                    .as_mut()
                    .poll(&mut Context::from_waker(&task.waker))
            }));
            tasks::set_running(tasks::NOBODY);
            if let Ok(Poll::Pending) = polled {
                let mut tasks = self.tasks.borrow_mut();
                tasks.places[index as usize].task = Some(task);
                return;
            }
        }
        self.end(index, task);
    }

    /// The task that is left at a place when the loop stops. The run queue is dropped as well, so
    /// the place must not go on believing that it is queued.
    fn vacate(&self, index: u32) -> Option<Task> {
        let place = &mut self.tasks.borrow_mut().places[index as usize];
        place.header.begin_poll();
        place.task.take()
    }

    fn end(&self, index: u32, task: Task) {
        // A panic in a destructor ends this task, too, and nothing else.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
        let mut tasks = self.tasks.borrow_mut();
        let place = &mut tasks.places[index as usize];
        place.turn = place.turn.wrapping_add(1);
        tasks.free.push(index);
    }

    /// Looks at the sockets, waiting for the next timer at most, and fires what is due.
    fn look(&self) {
        let wait = if tasks::any() {
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            })
        } else {
            self.set_clock();
            None
        };
        let mut events = self.events.borrow_mut();
        events.clear();
        // Interrupted by a signal: nothing was seen.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), wait);
        let now = clock::turn();
        self.turns.set(self.turns.get().wrapping_add(1));
        let mut rung = false;
        let sources = self.sources.borrow();
        for event in events.iter() {
            let (token, flags) = (event.data.u64(), event.flags);
            match token {
                BELL => rung = true,
                CLOCK => self.clock_set_for.set(None),
                _ => sources.event(token, Ready::of(flags)),
            }
        }
        drop(sources);
        if rung {
            self.queue.take_remote();
        }
        let mut wheel = self.wheel.borrow_mut();
        if let Some(next) = wheel.next() {
            let tick = self.tick_before(now);
            if next <= tick {
                wheel.advance(tick);
            }
        }
        drop(wheel);
        tasks::undefer();
    }

    /// Makes sure that epoll returns for the next timer. A clock of its own, set a few times per
    /// second, costs less than a timeout, which the kernel sets up and tears down for every wait.
    fn set_clock(&self) {
        let Some(next) = self.wheel.borrow().next() else {
            return;
        };
        if self.clock_set_for.get().is_some_and(|set| set <= next) {
            return;
        }
        let at = self.began + Duration::from_millis(next);
        // A nanosecond at least: zero would stop it.
        let wait = at
            .saturating_duration_since(clock::read())
            .max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        match timerfd_settime(&self.clock, TimerfdTimerFlags::empty(), &once) {
            Ok(_) => self.clock_set_for.set(Some(next)),
            Err(error) => unreachable!("a relative time that is in range: {error}"),
        }
    }

    /// The last tick that is not after `now`.
    fn tick_before(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    }

    /// The first tick that is not before `then`.
    fn tick_after(&self, then: Instant) -> u64 {
        let since = then.saturating_duration_since(self.began);
        since.as_secs() * 1_000 + u64::from(since.subsec_nanos().div_ceil(1_000_000))
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").finish_non_exhaustive()
    }
}

/// Lets a task's peers, and the sockets, have their turn.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A loop that runs; dropped, its tasks are.
struct Running<'a> {
    event_loop: &'a Rc<EventLoop>,
    _entered: tasks::Entered,
}

impl<'a> Running<'a> {
    fn begin(event_loop: &'a Rc<EventLoop>) -> Self {
        let entered = event_loop.queue.enter();
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(event_loop)));
        clock::turn();
        Self {
            event_loop,
            _entered: entered,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        tasks::set_running(tasks::NOBODY);
        // A task may spawn others while it is dropped, at any place; they are dropped as well.
        let mut left = true;
        while std::mem::take(&mut left) {
            let places = self.event_loop.tasks.borrow().places.len() as u32;
            for index in 0..places {
                if let Some(task) = self.event_loop.vacate(index) {
                    self.event_loop.end(index, task);
                    left = true;
                }
            }
        }
        CURRENT.with(|current| current.borrow_mut().take());
        clock::leave();
    }
}

/// What a socket is to be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Octets and the end; room only after a write came back short.
    Read,
    /// Also the end of a connect.
    Both,
    /// Connections; reported as long as there are any.
    Accept,
    /// Nothing, for a while.
    Paused,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        use epoll::EventFlags as F;
        match self {
            Self::Read => F::IN | F::PRI | F::RDHUP | F::ET,
            Self::Both => F::IN | F::PRI | F::OUT | F::RDHUP | F::ET,
            Self::Accept => F::IN,
            Self::Paused => F::empty(),
        }
    }
}

/// A socket's registration, held beside the socket: closing that ends it in the kernel.
#[derive(Debug)]
pub(super) struct Registration {
    event_loop: Rc<EventLoop>,
    source: Rc<Source>,
}

impl Registration {
    /// Registers a socket that is known to be `ready`.
    pub(super) fn new(
        socket: BorrowedFd<'_>,
        interest: Interest,
        ready: Ready,
    ) -> io::Result<Self> {
        let event_loop = EventLoop::current();
        let source = event_loop.sources.borrow_mut().insert(ready);
        let this = Self { event_loop, source };
        let data = epoll::EventData::new_u64(this.source.token());
        epoll::add(&this.event_loop.epoll, socket, data, interest.flags())?;
        Ok(this)
    }

    pub(super) fn change(&self, socket: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(self.source.token());
        epoll::modify(&self.event_loop.epoll, socket, data, interest.flags())?;
        Ok(())
    }

    /// Ends it while the socket lives on.
    pub(super) fn end(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.event_loop.epoll, socket)?)
    }

    /// The number of the loop's turn.
    pub(super) fn turn(&self) -> u32 {
        self.event_loop.turns.get()
    }

    /// Ready when octets, or an end, may be waiting.
    #[inline]
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Ready> {
        self.source.poll(Ready::FOR_READ, cx)
    }

    /// Whether the socket was seen to be that, and no call contradicted it.
    #[inline]
    pub(super) fn is(&self, ready: Ready) -> bool {
        self.source.is(ready)
    }

    /// Ready when there may be room, or an error.
    #[inline]
    pub(super) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<Ready> {
        self.source.poll(Ready::FOR_WRITE, cx)
    }

    /// Ready when the peer has ended its direction.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Ready> {
        self.source.poll(Ready::READ_CLOSED, cx)
    }

    /// Ready when both directions are closed: the peer has reset, after its own end too.
    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Ready> {
        self.source.poll(Ready::WRITE_CLOSED, cx)
    }

    #[inline]
    pub(super) fn clear(&self, ready: Ready) {
        self.source.clear(ready);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.event_loop.sources.borrow_mut().remove(&self.source);
    }
}

/// A place in the wheel, taken when it is first set.
#[derive(Debug)]
pub(super) struct Alarm {
    event_loop: Rc<EventLoop>,
    key: Option<NonZeroU32>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            event_loop: EventLoop::current(),
            key: None,
        }
    }

    /// Wakes the task at `deadline`, and not at an earlier one that was set before.
    pub(super) fn set(&mut self, deadline: Instant, cx: &Context<'_>) {
        let mut wheel = self.event_loop.wheel.borrow_mut();
        let due = self.event_loop.tick_after(deadline);
        if let Some(key) = self.key {
            wheel.reset(key.get() - 1, due, cx.waker());
        } else {
            let key = wheel.insert(due, cx.waker().clone());
            self.key = NonZeroU32::new(key + 1);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.event_loop.wheel.borrow_mut().remove(key.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests;
