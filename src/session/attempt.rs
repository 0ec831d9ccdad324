//! One attempt at one backend: dial, identity, greeting; for mail transactions EHLO as well.
//!
//! Nothing of an attempt is seen by the client; dropping it closes the connection without an octet
//! of SMTP (but for EHLO). It keeps no time: it is told `now` and says its deadlines.

use std::cell::RefMut;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::context;
use super::dialled::{self, Heard, Hello};
use super::record::Session;
use crate::balance::{
    FailureKind, OPENING_TIME, Observation, OpeningPlace, PickMode, Slot, Spent, Stage,
};
use crate::config::model::{self, GreetingMode, Identity};
use crate::identity::{HeaderOut, ProxyVersion};
use crate::net::stream::Stream;
use crate::smtp::{
    Extensions, Greeting, GreetingJudgement, GreetingRule, IdentityCarried, OpeningFailure,
    judge_greeting, read_greeting,
};
use crate::snapshot::PoolView;
use crate::telemetry::AttemptRecord;
use crate::types::in_words;

/// In last resort a connect may take so long,
const LAST_RESORT_CONNECT: Duration = Duration::from_secs(1);
/// and a greeting so long.
const LAST_RESORT_GREETING: Duration = Duration::from_secs(3);
/// A greeting is not hedged before this, whatever the backend's usual.
const HEDGE_GREETING_MIN: Duration = Duration::from_secs(1);
/// A greeting is hedged when it takes so many times the backend's usual.
const HEDGE_GREETING_FACTOR: u32 = 3;

/// A backend's last greeting is known so exactly.
const GREETED_COARSE: Duration = Duration::from_millis(10);

/// What the pool of an attempt says about it, copied: an attempt holds no snapshot.
#[derive(Clone, Copy, Debug)]
struct Rules {
    connect_timeout: Duration,
    greeting_timeout: Duration,
    hedge_connect_after: Option<Duration>,
    hedge_greeting_after: Option<Duration>,
    identity: Identity,
    header_max: u16,
    verdicts: GreetingRule,
    greets: GreetingMode,
}

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) stream: Stream,
    pub(super) slot: Slot,
    /// What its transaction takes of a quota.
    pub(super) spent: Option<Spent>,
    rules: Rules,
    /// Held until the backend has spoken (rule N6).
    opening: Option<OpeningPlace>,
    dialled: Instant,
    connected: Option<Instant>,
    hedge_asked: bool,
    /// The backend is not known to have greeted anybody since: the dial, or a later greeting.
    quiet_since: Instant,
    /// Why a hedge was dialled beside this one: a lost race is then this one's fault.
    slow: bool,
    talk: Talk,
}

/// What is said on the connection before it is of use.
#[derive(Debug)]
enum Talk {
    /// The greeting is the client's. The beginning of one that came in pieces.
    Relay(Vec<u8>),
    /// The greeting and the reply to EHLO are ours.
    Mail(Hello),
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The client's session goes through it.
    Relay,
    /// Transactions of ours.
    Mail,
}

/// What an attempt has come to.
#[derive(Debug)]
pub(super) enum Progress {
    /// It connected (and told the identity); the greeting is awaited.
    Connected,
    /// It may be committed to: the octets to relay are in the scratch (so many) or its pieces.
    Won { octets: Octets, refused: bool },
    /// It is ready for MAIL.
    Ready(Extensions),
    /// It failed.
    Failed(Failure),
}

/// Where the first octets of the backend are.
#[derive(Debug)]
pub(super) enum Octets {
    /// The first so many of the scratch.
    InScratch(usize),
    /// Came in pieces.
    Kept(Vec<u8>),
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) kind: FailureKind,
    pub(super) code: Option<u16>,
    pub(super) text: Option<Arc<str>>,
}

impl Failure {
    pub(super) fn new(stage: Stage, kind: FailureKind) -> Self {
        Self {
            stage,
            kind,
            code: None,
            text: None,
        }
    }

    pub(super) fn of_opening(stage: Stage, failure: OpeningFailure) -> Self {
        let (code, text) = match failure {
            OpeningFailure::Greeting { code, text } | OpeningFailure::Ehlo { code, text } => {
                (Some(code), text)
            }
            OpeningFailure::Garbage(_) | OpeningFailure::Desync => (None, failure.to_string()),
        };
        Self {
            code,
            text: Some(Arc::from(text)),
            ..Self::new(stage, code.map_or(FailureKind::Garbage, refusal))
        }
    }

    pub(super) fn of(stage: Stage, error: &io::Error) -> Self {
        Self {
            text: Some(Arc::from(&*in_words(error))),
            ..Self::new(stage, kind_of(error))
        }
    }
}

/// Begins an attempt at the backend of `slot`.
pub(super) fn begin(
    session: &Session,
    pool: &PoolView,
    slot: Slot,
    spent: Option<Spent>,
    purpose: Purpose,
    opening: Option<OpeningPlace>,
    now: Instant,
) -> Result<Attempt, (Slot, Failure)> {
    let settings = &pool.settings;
    let mut rules = Rules::of(session, settings, slot.mode());
    let talk = match purpose {
        Purpose::Relay => Talk::Relay(Vec::new()),
        Purpose::Mail => {
            rules.greets = GreetingMode::Smtp;
            let name = Arc::clone(&session.cx.shared.current.load().config.hostname);
            Talk::Mail(Hello::new(name))
        }
    };
    let own = &session.listener.view.settings.source;
    let sources = if own.is_empty() {
        &settings.source
    } else {
        own
    };
    let address = slot.member().settings.address;
    match dialled::dial(&session.cx, settings, sources, address) {
        Ok(stream) => Ok(Attempt {
            stream,
            slot,
            spent,
            rules,
            opening,
            dialled: now,
            connected: None,
            hedge_asked: false,
            quiet_since: now,
            slow: false,
            talk,
        }),
        Err(failure) => Err((slot, failure)),
    }
}

impl Rules {
    fn of(session: &Session, pool: &model::Pool, mode: PickMode) -> Self {
        let hedge = pool.hedge;
        let normal = mode == PickMode::Normal;
        let hedged = hedge.enabled && normal;
        Self {
            connect_timeout: if normal {
                pool.connect_timeout
            } else {
                pool.connect_timeout.min(LAST_RESORT_CONNECT)
            },
            greeting_timeout: if normal {
                pool.greeting_timeout
            } else {
                pool.greeting_timeout.min(LAST_RESORT_GREETING)
            },
            hedge_connect_after: hedged.then_some(hedge.connect_after),
            hedge_greeting_after: if hedged {
                Some(hedge.greeting_after.unwrap_or(Duration::ZERO))
            } else {
                None
            },
            identity: pool.identity,
            header_max: pool.proxy_header_max,
            verdicts: match pool.greeting_verdicts {
                model::GreetingVerdicts::Auto => GreetingRule::Auto,
                model::GreetingVerdicts::Next => GreetingRule::Next,
                model::GreetingVerdicts::Relay => GreetingRule::Relay,
            },
            greets: session.listener.view.settings.greeting,
        }
    }
}

impl Attempt {
    pub(super) fn dialled(&self) -> Instant {
        self.dialled
    }

    /// From dial to connected, once it is.
    pub(super) fn connect_time(&self) -> Option<Duration> {
        Some(self.connected?.saturating_duration_since(self.dialled))
    }

    /// The name that the backend was told in EHLO; empty where that is the client's affair.
    pub(super) fn name(&self) -> Arc<str> {
        match &self.talk {
            Talk::Mail(hello) => Arc::clone(hello.name()),
            Talk::Relay(_) => Arc::from(""),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    pub(super) fn was_slow(&self) -> bool {
        self.slow
    }

    pub(super) fn stage(&self) -> Stage {
        match &self.talk {
            _ if !self.is_connected() => Stage::Connect,
            Talk::Mail(hello) => hello.stage(),
            Talk::Relay(_) => Stage::Greeting,
        }
    }

    /// Goes as far as the network lets it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        session: &Session,
        client: &Stream,
        scratch: &mut RefMut<'_, Box<[u8]>>,
        now: Instant,
    ) -> Poll<Progress> {
        if self.connected.is_none() {
            if let Err(failure) = ready!(dialled::poll_connected(cx, &self.stream)) {
                return Poll::Ready(Progress::Failed(failure));
            }
            self.connected = Some(now);
            if let Err(failure) = self.introduce(cx, session, client) {
                return Poll::Ready(Progress::Failed(failure));
            }
            if self.rules.greets == GreetingMode::None {
                let octets = Octets::InScratch(0);
                return Poll::Ready(Progress::Won {
                    octets,
                    refused: false,
                });
            }
            return Poll::Ready(Progress::Connected);
        }
        let n = match ready!(dialled::poll_heard(cx, &self.stream, scratch, self.stage())) {
            Ok(n) => n,
            Err(failure) => return Poll::Ready(Progress::Failed(failure)),
        };
        self.opening = None;
        let new = &scratch[..n];
        match &mut self.talk {
            Talk::Relay(pieces) => {
                let pieces = std::mem::take(pieces);
                self.read(session, pieces, new, now)
            }
            Talk::Mail(hello) => {
                let after = now.saturating_duration_since(self.dialled);
                Poll::Ready(match hello.hear(cx, &self.stream, new, after) {
                    Heard::Part => Progress::Connected,
                    Heard::Ready {
                        extensions,
                        greeted,
                    } => {
                        let greeted = Observation::Greeted { after: greeted };
                        self.observe(session, greeted, now);
                        Progress::Ready(extensions)
                    }
                    Heard::Failed(failure) => Progress::Failed(failure),
                })
            }
        }
    }

    /// Tells the backend who the client is: one write, nothing behind it (rule X10).
    fn introduce(
        &self,
        cx: &mut Context<'_>,
        session: &Session,
        client: &Stream,
    ) -> Result<(), Failure> {
        let version = match self.rules.identity {
            Identity::None => return Ok(()),
            Identity::ProxyV1 => ProxyVersion::V1,
            Identity::ProxyV2 => ProxyVersion::V2,
        };
        let local = |error: io::Error| Failure {
            text: Some(Arc::from(&*in_words(&error))),
            ..Failure::new(Stage::Identity, FailureKind::Local)
        };
        let (source, destination, tlvs) = match &session.named {
            Some(named) => (named.client, named.destination, named.tlvs.as_deref()),
            None => (session.peer, client.local_addr().map_err(local)?, None),
        };
        let mut unique = [0; 16];
        unique[..8].copy_from_slice(&session.cx.instance().to_be_bytes());
        unique[8..].copy_from_slice(&session.id.0.to_be_bytes());
        let max = usize::from(self.rules.header_max);
        let header = HeaderOut::new(version, source, destination, tlvs, &unique, max);
        match self.stream.poll_send(cx, header.octets()) {
            Poll::Ready(Ok(n)) if n == header.octets().len() => Ok(()),
            Poll::Ready(Err(error)) => Err(Failure::of(Stage::Identity, &error)),
            // The buffer of a new connection takes 536 octets, or something is wrong with it.
            _ => Err(Failure::new(Stage::Identity, FailureKind::Closed)),
        }
    }

    fn read(
        &mut self,
        session: &Session,
        mut pieces: Vec<u8>,
        new: &[u8],
        now: Instant,
    ) -> Poll<Progress> {
        let whole = if pieces.is_empty() {
            new
        } else {
            pieces.extend_from_slice(new);
            &pieces
        };
        let carried = if self.rules.identity == Identity::None {
            IdentityCarried::No
        } else {
            IdentityCarried::Yes
        };
        let mut refused = false;
        match read_greeting(whole) {
            Greeting::Incomplete => {
                if pieces.is_empty() {
                    pieces = new.to_vec();
                }
                self.talk = Talk::Relay(pieces);
                return Poll::Ready(Progress::Connected);
            }
            Greeting::Good => {}
            Greeting::Garbage(error) => {
                return Poll::Ready(Progress::Failed(Failure {
                    text: Some(Arc::from(error.to_string())),
                    ..Failure::new(Stage::Greeting, FailureKind::Garbage)
                }));
            }
            Greeting::Bad(reply) => {
                let code = reply.code.value();
                let text = Some(Arc::from(reply.short_text()));
                match judge_greeting(&reply, carried, self.rules.verdicts) {
                    GreetingJudgement::Next => {
                        let kind = refusal(code);
                        return Poll::Ready(Progress::Failed(Failure {
                            code: Some(code),
                            text,
                            ..Failure::new(Stage::Greeting, kind)
                        }));
                    }
                    GreetingJudgement::Relay => refused = true,
                    GreetingJudgement::RelayAndCount => {
                        refused = true;
                        let client = session.client_key();
                        self.observe(
                            session,
                            Observation::RefusedClient { client, code, text },
                            now,
                        );
                    }
                }
            }
        }
        let octets = if pieces.is_empty() {
            Octets::InScratch(new.len())
        } else {
            Octets::Kept(pieces)
        };
        Poll::Ready(Progress::Won { octets, refused })
    }

    /// Tells the balancer, and the log if that changed a state.
    pub(super) fn observe(&self, session: &Session, observation: Observation, now: Instant) {
        observe(session, &self.slot, observation, now);
    }

    /// When this attempt fails by time, and when it is slow enough for a hedge.
    pub(super) fn deadlines(&self) -> (Instant, Option<Instant>) {
        let rules = &self.rules;
        match self.connected {
            None => {
                let hedge = rules.hedge_connect_after.filter(|_| !self.hedge_asked);
                (
                    self.dialled + rules.connect_timeout,
                    hedge.map(|after| self.dialled + after),
                )
            }
            Some(connected) => {
                let hedge = rules.hedge_greeting_after.filter(|_| !self.slow);
                let hedge = hedge.map(|after| self.quiet_since + self.hedge_greeting_after(after));
                (connected + rules.greeting_timeout, hedge)
            }
        }
    }

    /// Until when it counts as being opened.
    pub(super) fn opens_until(&self) -> Option<Instant> {
        self.opening.as_ref().map(|_| self.dialled + OPENING_TIME)
    }

    /// It does not count as being opened any more.
    pub(super) fn is_accepted(&mut self) {
        self.opening = None;
    }

    fn hedge_greeting_after(&self, configured: Duration) -> Duration {
        if !configured.is_zero() {
            return configured;
        }
        let usual = self
            .slot
            .member()
            .settings
            .state
            .usual_greeting()
            .unwrap_or_default();
        HEDGE_GREETING_MIN.max(usual * HEDGE_GREETING_FACTOR)
    }

    /// The hedge deadline has passed: whether a hedge should be asked for.
    pub(super) fn wants_hedge(&mut self) -> bool {
        if !self.is_connected() {
            self.hedge_asked = true;
            return true;
        }
        let state = &self.slot.member().settings.state;
        if let Some(greeted) = state.last_greeted()
            && state.greeted_since(self.quiet_since)
        {
            // Others were greeted since: it was well then, and slow with this client only. If it
            // froze afterwards, it is asked again when it has greeted nobody for as long.
            self.quiet_since = greeted + GREETED_COARSE;
            return false;
        }
        self.slow = true;
        true
    }

    /// Marks it as the one a hedge was dialled for.
    pub(super) fn mark_slow(&mut self) {
        self.slow = true;
    }
}

/// One failed attempt: the strike, the counts, the line of the log.
pub(super) fn note_failure(
    session: &mut Session,
    slot: &Slot,
    failure: Failure,
    after: Duration,
    now: Instant,
) {
    let member = slot.member();
    tracing::debug!(session.id = %session.id,
        backend = &*member.settings.name,
        stage = failure.stage.name(),
        cause = failure.kind.name(),
        code = failure.code,
        text = failure.text.as_deref(), "session.attempt-failed");
    session.failures.push(AttemptRecord {
        backend: Arc::clone(&member.settings.name),
        stage: failure.stage,
        kind: failure.kind,
        code: failure.code,
        after,
    });
    note_strike(&session.cx, slot, failure, after, now);
}

/// Tells the balancer, and the log if that changed a state.
pub(super) fn observe(session: &Session, slot: &Slot, observation: Observation, now: Instant) {
    note(&session.cx, slot, observation, now);
}

/// The same without a session.
pub(super) fn note(cx: &context::Context, slot: &Slot, observation: Observation, now: Instant) {
    if let Some(change) = slot.member().settings.state.observe(observation, now) {
        cx.shared.telemetry.state_change(&change);
    }
}

/// The same where no session met it.
pub(super) fn note_strike(
    cx: &context::Context,
    slot: &Slot,
    failure: Failure,
    after: Duration,
    now: Instant,
) {
    let Failure {
        stage,
        kind,
        code,
        text,
    } = failure;
    let state = &slot.member().settings.state;
    state.totals.of(cx.worker.index()).strikes[stage.index()][kind.index()].inc();
    // What is our own fault is no backend's strike.
    if kind != FailureKind::Local {
        let strike = Observation::Strike {
            stage,
            kind,
            code,
            text,
            after,
        };
        note(cx, slot, strike, now);
    }
}

/// What a reply that refuses says.
fn refusal(code: u16) -> FailureKind {
    match code / 100 {
        4 => FailureKind::Temporary,
        5 => FailureKind::Permanent,
        _ => FailureKind::Garbage,
    }
}

fn kind_of(error: &io::Error) -> FailureKind {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => FailureKind::Refused,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
            FailureKind::Unreachable
        }
        Kind::TimedOut => FailureKind::Timeout,
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => FailureKind::Reset,
        Kind::UnexpectedEof => FailureKind::Closed,
        _ => FailureKind::Local,
    }
}
