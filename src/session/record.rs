//! What a session is and has done so far; its end is accounted for exactly once, in `Drop`.
//!
//! Whatever ends a session (a step, a cut, a panic) ends here: one outcome, one log line, one set
//! of counters, no count that can leak.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::closing_places::ClosingKind;
use super::context::{Context, LocalListener, Orders, since};
use super::refusals::Refusals;
use crate::balance::{ClientPermit, Member};
use crate::config::model::{GreetingMode, Mode, ProxyIn};
use crate::identity::ReceivedTlvs;
use crate::metrics::{EndedBy, SessionOutcome, SessionPhase};
use crate::net::clock;
use crate::telemetry::{AttemptRecord, SessionRecord};
use crate::types::{ClientKey, SessionId};

/// A session's place in its thread's set.
#[derive(Debug)]
pub struct Ticket(pub usize);

/// A session in the making.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) cx: Rc<Context>,
    pub(super) listener: Rc<LocalListener>,
    pub(super) id: SessionId,
    /// The TCP peer.
    pub(super) peer: SocketAddr,
    /// The true client, where a PROXY header named it.
    pub(super) named: Option<Box<Named>>,
    pub(super) accepted: Instant,
    /// Boxed, because most listeners set no limit by client.
    pub(super) permit: Option<Box<ClientPermit>>,
    pub(super) backend: Option<Arc<Member>>,
    pub(super) failures: Vec<AttemptRecord>,
    /// Dials; where it holds transactions, connections that all of them were tried on.
    pub(super) attempts: u32,
    /// What it was refused; nothing is kept for one that was not.
    pub(super) refusals: Option<Box<Refusals>>,
    pub(super) hedged: bool,
    pub(super) queue: Lap,
    pub(super) connect: Lap,
    pub(super) greeting: Lap,
    pub(super) octets_to_backend: u64,
    pub(super) octets_to_client: u64,
    pub(super) phase: SessionPhase,
    pub(super) reply: Option<Arc<str>>,
    /// Whether a reply of ours would be understood: the port greets in clear text, and a PROXY
    /// header that must come first has come (promise 6).
    pub(super) may_speak: bool,
    counted_as: CountedAs,
    end: Option<(SessionOutcome, EndedBy)>,
    key: usize,
}

/// What a connection is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CountedAs {
    /// It was accepted, and nothing is decided yet.
    Nothing,
    Session,
    /// A connection that is closing: it was no session, or is none any more.
    Closing(ClosingKind),
}

/// How long a step took, if it was taken: in 32 bits, because every idle session keeps three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lap(Option<NonZeroU32>);

impl Lap {
    /// A step that took so long; more than 71 minutes count as that.
    pub(super) fn of(took: Duration) -> Self {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(micros.saturating_add(1)))
    }

    /// How long it took, to the microsecond.
    pub(super) fn taken(self) -> Option<Duration> {
        self.0
            .map(|micros| Duration::from_micros(u64::from(micros.get() - 1)))
    }
}

/// What a PROXY header said.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) client: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) tlvs: Option<Box<ReceivedTlvs>>,
}

impl Session {
    pub(super) fn begin(
        cx: Rc<Context>,
        listener: Rc<LocalListener>,
        peer: SocketAddr,
        Ticket(key): Ticket,
        now: Instant,
    ) -> Self {
        let id = cx.next_id(now);
        let counters = listener.view.state.counters.of(cx.worker.index());
        counters.accepted.inc();
        let settings = &listener.view.settings;
        let may_speak =
            settings.greeting == GreetingMode::Smtp && settings.proxy_protocol == ProxyIn::Off;
        Self {
            cx,
            listener,
            id,
            peer,
            named: None,
            accepted: now,
            permit: None,
            backend: None,
            failures: Vec::new(),
            attempts: 0,
            refusals: None,
            hedged: false,
            queue: Lap::default(),
            connect: Lap::default(),
            greeting: Lap::default(),
            octets_to_backend: 0,
            octets_to_client: 0,
            phase: SessionPhase::Admission,
            reply: None,
            may_speak,
            counted_as: CountedAs::Nothing,
            end: None,
            key,
        }
    }

    /// The true client.
    pub(super) fn client(&self) -> SocketAddr {
        self.named.as_ref().map_or(self.peer, |named| named.client)
    }

    /// The true client as limits and affinity know it.
    pub(super) fn client_key(&self) -> ClientKey {
        ClientKey::of(self.client().ip())
    }

    /// Makes it a session, if process and listener have a place for one more; whether they had.
    #[must_use]
    pub(super) fn take_place(&mut self) -> bool {
        debug_assert_eq!(self.counted_as, CountedAs::Nothing);
        let served = self.cx.take_place(&self.listener.view);
        if served {
            self.counted_as = CountedAs::Session;
        }
        served
    }

    /// Gives back what a session takes, its place and its client's, for a closing place of `kind`;
    /// whether there was one. Without one, the caller closes the connection at once.
    #[must_use]
    pub(super) fn begin_closing(&mut self, kind: ClosingKind) -> bool {
        if matches!(self.counted_as, CountedAs::Closing(_)) {
            return true;
        }
        self.permit = None;
        let found = self.cx.closing_places.take(kind, self.client_key());
        if found {
            // Before the session's place is given back: a drain must see one or the other.
            self.cx.note_closing();
            self.give_place_back();
            self.counted_as = CountedAs::Closing(kind);
        } else {
            self.cx.counters().closed_at_once.inc();
        }
        found
    }

    fn give_place_back(&mut self) {
        match std::mem::replace(&mut self.counted_as, CountedAs::Nothing) {
            CountedAs::Nothing => {}
            CountedAs::Session => self.cx.give_place_back(&self.listener.view),
            CountedAs::Closing(kind) => {
                self.cx.closing_places.give_back(kind, self.client_key());
                self.cx.note_closing();
            }
        }
    }

    /// Says how it ended; the first word counts.
    pub(super) fn end(&mut self, outcome: SessionOutcome, by: EndedBy, phase: SessionPhase) {
        if self.end.is_none() {
            self.end = Some((outcome, by));
            self.phase = phase;
        }
    }

    /// Notes the backend, for the set of sessions and the log.
    pub(super) fn at_backend(&mut self, member: &Arc<Member>) {
        self.cx.note_backend(self.key, &member.settings.state);
        self.backend = Some(Arc::clone(member));
    }

    /// It is at no backend between transactions; the log names the last one.
    pub(super) fn leaves_backend(&self) {
        self.cx.note_no_backend(self.key);
    }

    /// It holds transactions.
    pub(super) fn is_mail(&self) {
        self.cx.note_mail(self.key);
    }

    /// What it is told to do.
    pub(super) fn orders(&self) -> Orders {
        self.cx.orders(self.key)
    }

    fn account(&self, outcome: SessionOutcome, took: Duration) {
        let worker = self.cx.worker.index();
        let counters = self.listener.view.state.counters.of(worker);
        counters.outcomes[outcome.index()].inc();
        if !outcome.is_turned_away() {
            counters.session.observe(took);
        }
        if let Some(queue) = self.queue.taken() {
            counters.queue.observe(queue);
        }
        if let Some(connect) = self.connect.taken() {
            counters.connect.observe(connect);
        }
        if let Some(greeting) = self.greeting.taken() {
            counters.greeting.observe(greeting);
        }
        if self.octets_to_backend + self.octets_to_client > 0 {
            counters.octets_to_backend.add(self.octets_to_backend);
            counters.octets_to_client.add(self.octets_to_client);
        }
        // Where SMTP ends here each backend has had its own part.
        let is_passed = self.listener.view.settings.mode == Mode::Passthrough;
        if let Some(member) = &self.backend
            && is_passed
        {
            let totals = member.settings.state.totals.of(worker);
            totals.octets_to_backend.add(self.octets_to_backend);
            totals.octets_to_client.add(self.octets_to_client);
        }
    }

    fn log(&self, outcome: SessionOutcome, by: EndedBy, took: Duration, now: Instant) {
        // A session that is dropped while the log is borrowed (a panic in the log) is not logged.
        let Ok(mut log) = self.cx.log.try_borrow_mut() else {
            return;
        };
        if !log.wants_sessions() {
            return;
        }
        let view = &self.listener.view;
        let (refused, refusals) = self.refusal_records();
        log.session(&SessionRecord {
            at: now,
            id: self.id,
            listener: &view.name,
            client: self.client(),
            via: self.named.is_some().then_some(self.peer),
            backend: self.backend.as_ref().map(|member| {
                (
                    &*member.pool,
                    &*member.settings.name,
                    member.settings.address,
                )
            }),
            attempts: self.attempts,
            failures: &self.failures,
            hedged: self.hedged,
            queue: self.queue.taken(),
            connect: self.connect.taken(),
            greeting: self.greeting.taken(),
            session: took,
            octets_to_backend: self.octets_to_backend,
            octets_to_client: self.octets_to_client,
            ended_by: by,
            phase: self.phase,
            outcome,
            reply: self.reply.as_deref(),
            refused,
            refusals: &refusals,
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (outcome, by) = self.end.take().unwrap_or_else(|| {
            if std::thread::panicking() {
                self.cx.counters().panics.inc();
                (SessionOutcome::Failed, EndedBy::Us)
            } else {
                (SessionOutcome::Cut, EndedBy::Us)
            }
        });
        let now = clock::now();
        let took = since(now, self.accepted);
        self.account(outcome, took);
        // Before the log, so that a panic there leaks nothing.
        self.give_place_back();
        self.cx.leave(self.key);
        self.log(outcome, by, took, now);
    }
}
