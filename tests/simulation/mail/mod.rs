//! The SMTP mode's core between seeded clients, backends and networks.
//!
//! The world plays the driver: it moves octets in pieces of any size, finds connections, keeps and
//! loses them. At its end a model counts: a 250 without a backend's copy, a copy too many, a reply
//! too many or too few, a connection or an octet of memory that was not given back.

mod client;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthouse::balance::{Epoch, Limited, Quota, QuotaUnit, Quotas, Spent, UsedUp};
use posthouse::smtp::{
    EarlyTalker, Effect, Elsewhere, Extensions, Fate, First354, InDoubt, Kept as Reuse, Keyword,
    Keywords, LeaseTerms, LineEndings, MailPolicy, MailSession, Manners, Needed, OwnExtensions,
    OwnReply, ReplayMemory, SessionLimits, Tarpit, TransactionEnd, Want,
};
use posthouse::types::Rng;

use client::{Client, Sent};
use server::{Fault, Kept, Kind, Moment, Server};

/// More steps than any session takes.
const STEPS_MAX: u32 = 200_000;

/// Mistakes that can be planted, to see that the model finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Two replies to the client change places.
    SwapReplies,
    /// A connection is put back while its transaction runs.
    ReleaseEarly,
    /// A message in doubt is said to another backend.
    ReplayInDoubt,
    /// A refused recipient's reply is kept back.
    DropRefusal,
    /// A part of the message is not passed on.
    ForgetContent,
    /// A chunk is answered and not passed on.
    ForgetChunk,
    /// A recipient is passed on that no place was left for.
    PassQuota,
    /// What a message in doubt has taken of a quota is given back.
    ForgetDoubt,
}

/// What happened in a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn note(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    pub(crate) fn assert_eventful(&self) {
        let expected = [
            "accepted",
            "accepted in chunks",
            "moved between chunks",
            "refused",
            "in doubt",
            "failed",
            "abandoned",
            "replayed in doubt",
            "early talker",
            "tarpitted",
            "refused by us",
            "slow",
            "hedged",
            "kept connection used",
            "kept connection dead",
            "moved",
            "struck",
            "timed out",
            "client left",
            "client stalled",
            "client sent away",
            "recipient put off",
            "quota used up",
            "place given back",
            "drained",
        ];
        for what in expected {
            let count = self.counts.get(what).copied().unwrap_or_default();
            assert!(count > 10, "{what}: {count} of {:?}", self.counts);
        }
    }
}

/// A backend: how its connections are.
#[derive(Debug)]
struct Backend {
    kind: Kind,
    /// Of ten connections so many have a fault.
    faults: u32,
    is_down: bool,
    /// What its provider allows,
    limited: Option<Limited>,
    /// and when it was given so many recipients.
    given: Vec<(Instant, u64)>,
}

/// What a provider allows, in worlds where that is limited.
const QUOTA: Quota = Quota {
    count: 4,
    period: Duration::from_mins(10),
    unit: QuotaUnit::Recipients,
};

impl Backend {
    fn reserve(&self, recipients: u32, now: Instant) -> Result<Option<Spent>, UsedUp> {
        match &self.limited {
            Some(limited) => limited.take(recipients, now).map(Some),
            None => Ok(None),
        }
    }
}

/// A connection between the session and a backend.
#[derive(Debug)]
struct Line {
    backend: usize,
    server: Server,
    /// On its way to the server.
    output: Vec<u8>,
    is_reused: bool,
}

struct World {
    rng: Rng,
    bug: Bug,
    now: Instant,
    session: MailSession,
    memory: Arc<ReplayMemory>,
    tarpit: Arc<Tarpit>,
    announced: Extensions,
    client: Client,
    /// Said by the client and not consumed.
    pending: Vec<u8>,
    backends: Vec<Backend>,
    idle: Vec<Line>,
    line: Option<Line>,
    wanted: Option<(Want, Needed)>,
    /// What the transaction has taken of its backend's quota.
    spent: Option<Spent>,
    /// Octets of a chunk that are still to be forgotten.
    forgotten: usize,
    tried: Vec<usize>,
    kept: Vec<Kept>,
    in_doubt: u64,
    /// Messages that were said again on purpose, and so may be there twice.
    replays_in_doubt: u64,
    client_left: bool,
    /// It says nothing more.
    client_stalled: bool,
    tally: Tally,
}

/// Plays one world to its end.
///
/// # Panics
/// When a promise is broken.
pub(crate) fn play(seed: u64, bug: Bug) -> Tally {
    let mut world = World::new(seed, bug);
    for _ in 0..STEPS_MAX {
        if world.is_done() {
            world.judge();
            return world.tally;
        }
        world.step();
    }
    unreachable!("the session does not end: {:?}", world.client);
}

impl World {
    fn new(seed: u64, bug: Bug) -> Self {
        let mut rng = Rng::seeded(seed);
        let now = Instant::now();
        let memory = ReplayMemory::new(64 << 20);
        let tarpit = Arc::new(Tarpit::default());
        let policy = MailPolicy {
            host: "lb.example".into(),
            replay_max: if rng.below(4) == 0 { 200 } else { 1 << 20 },
            line_endings: if rng.below(4) == 0 {
                LineEndings::Reject
            } else {
                LineEndings::Normalize
            },
            size_max: if rng.below(6) == 0 { 400 } else { 0 },
            tarpit_delay: Duration::from_secs(if rng.below(2) == 0 { 5 } else { 0 }),
            tarpit: Arc::clone(&tarpit),
            greet_delay: Duration::from_secs(if rng.below(8) == 0 { 3 } else { 0 }),
            early_talker: [EarlyTalker::Pass, EarlyTalker::Log, EarlyTalker::Reject]
                [rng.below(3) as usize],
            manners: Manners {
                in_doubt: if rng.below(6) == 0 {
                    InDoubt::Replay
                } else {
                    InDoubt::Tell
                },
                first_354: if rng.below(4) == 0 {
                    First354::Ours
                } else {
                    First354::Backends
                },
            },
            ..MailPolicy::default()
        };
        let session = MailSession::new(Arc::new(policy), Arc::clone(&memory), now);
        let own = OwnExtensions {
            allowed: Keywords::default()
                .with(Keyword::Pipelining)
                .with(Keyword::Size)
                .with(Keyword::EnhancedStatusCodes)
                .with(Keyword::Chunking),
            size_max: None,
            limits: SessionLimits::default(),
        };
        let may_chunk = rng.below(3) > 0;
        let is_limited = rng.below(2) == 0;
        let mut backends: Vec<Backend> = (0..2 + rng.below(3))
            .map(|_| Backend {
                kind: Kind {
                    pipelining: rng.below(4) > 0,
                    chunking: may_chunk,
                    refuses: ['p', 'q', '-'][rng.below(3) as usize],
                },
                faults: rng.below(8),
                is_down: rng.below(10) == 0,
                limited: is_limited.then(|| {
                    let unix = Duration::from_hours(400_000);
                    let quotas = Quotas::new(Epoch { instant: now, unix });
                    quotas.limited(&[QUOTA])
                }),
                given: Vec::new(),
            })
            .collect();
        let seen: Vec<_> = backends
            .iter()
            .map(|backend| extensions(backend.kind))
            .collect();
        let announced = Extensions::announced(&own, &seen);
        if rng.below(6) == 0 {
            // Announced, and gone when it is needed.
            backends[0].kind.chunking = false;
        }
        Self {
            client: Client::new(seed, may_chunk, &mut rng),
            bug,
            now,
            session,
            memory,
            tarpit,
            announced,
            pending: Vec::new(),
            backends,
            idle: Vec::new(),
            line: None,
            wanted: None,
            spent: None,
            forgotten: 0,
            tried: Vec::new(),
            kept: Vec::new(),
            in_doubt: 0,
            replays_in_doubt: 0,
            client_left: false,
            client_stalled: false,
            tally: Tally::default(),
            rng,
        }
    }

    fn is_done(&self) -> bool {
        let said = self.client_left || self.session.to_client().is_empty();
        self.session.is_closing() && said && !self.session.is_in_transaction()
    }

    /// One thing happens, at random among those that can.
    fn step(&mut self) {
        let moved = match self.rng.below(10) {
            0 | 1 => self.client_speaks(),
            2 | 3 => self.client_hears(),
            4 | 5 => self.backend_is_said(),
            6 | 7 => self.backend_says(),
            8 => self.lease(),
            _ => self.accident(),
        };
        if !moved && self.is_stuck() {
            self.wait();
        }
        self.effects();
    }

    fn piece(&mut self, length: usize) -> usize {
        if length == 0 {
            return 0;
        }
        match self.rng.below(3) {
            0 => 1,
            1 => 1 + self.rng.below(length as u32) as usize,
            _ => length,
        }
    }

    fn client_speaks(&mut self) -> bool {
        if self.client_left || self.client_stalled {
            return false;
        }
        self.client.speak(&mut self.rng);
        let length = self.piece(self.client.output.len());
        self.pending.extend(self.client.output.drain(..length));
        if self.pending.is_empty() || !self.session.reads_client() {
            return false;
        }
        let used = self
            .session
            .client(&self.pending, &self.announced, self.now);
        self.pending.drain(..used);
        length > 0 || used > 0
    }

    fn client_hears(&mut self) -> bool {
        let length = self.piece(self.session.to_client().len());
        if length == 0 || self.client_left {
            return false;
        }
        let mut octets = self.session.to_client()[..length].to_vec();
        self.session.sent_to_client(length);
        match self.bug {
            Bug::SwapReplies => octets = swap_lines(&octets),
            Bug::DropRefusal if octets.starts_with(b"550 5.1.1") => octets.clear(),
            _ => {}
        }
        self.client.hear(&octets);
        true
    }

    fn backend_is_said(&mut self) -> bool {
        if self.line.is_none() {
            return false;
        }
        let outgoing = self.session.to_backend();
        let mut octets = [outgoing.octets, outgoing.end].concat();
        let total = octets.len();
        let mut length = self.piece(total);
        if length == 0 {
            return false;
        }
        if self.bug == Bug::ForgetChunk {
            length = total;
        }
        octets.truncate(length);
        self.session.sent_to_backend(length, self.now);
        if self.bug == Bug::ForgetContent && length > 30 && length < total {
            octets.remove(20);
        }
        if self.bug == Bug::ForgetChunk {
            self.forget(&mut octets);
        }
        let Some(line) = &mut self.line else {
            return false;
        };
        // A server that has gone takes octets all the same, until that is noticed.
        line.output.extend_from_slice(&octets);
        let arrived = std::mem::take(&mut line.output);
        if !line.server.is_ended {
            let backend = line.backend;
            if let Some(kept) = line.server.take(&arrived) {
                let recipients = kept.recipients.len() as u64;
                self.backends[backend].given.push((self.now, recipients));
                self.kept.push(kept);
            }
        }
        true
    }

    /// Leaves a chunk out that is not the last, and answers it.
    fn forget(&mut self, octets: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(octets);
        let length = text
            .strip_prefix("BDAT ")
            .and_then(|rest| rest.strip_suffix("\r\n")?.parse().ok());
        let begins = length.is_some();
        if let Some(length) = length {
            self.forgotten = length;
            octets.clear();
        }
        let length = self.forgotten.min(octets.len());
        octets.drain(..length);
        self.forgotten -= length;
        if (length > 0 || begins) && self.forgotten == 0 {
            let line = self.line.as_mut().expect("it is sent on a line");
            line.server.output.extend_from_slice(b"250 2.0.0 ok\r\n");
        }
    }

    fn backend_says(&mut self) -> bool {
        if !self.session.reads_backend() {
            return false;
        }
        let Some(line) = &mut self.line else {
            return false;
        };
        if line.server.output.is_empty() {
            if line.server.is_ended {
                self.session.backend_lost(self.now);
                return true;
            }
            return false;
        }
        let length = line.server.output.len();
        let length = 1 + self.rng.below(length as u32) as usize;
        let octets: Vec<u8> = line.server.output.drain(..length).collect();
        self.session.backend(&octets, self.now);
        true
    }

    /// Finds a connection, or says that there is none.
    fn lease(&mut self) -> bool {
        let Some((want, needed)) = self.wanted.take() else {
            return false;
        };
        let fits = |kind: Kind| extensions(kind).lacks(needed).is_empty();
        let fitting = self.idle.iter().rposition(|line| fits(line.server.kind));
        let recipients = self.session.recipients_accepted().max(1);
        if want == Want::Any
            && let Some(at) = fitting
            && let Ok(spent) = self.backends[self.idle[at].backend].reserve(recipients, self.now)
        {
            self.spent = spent;
            let mut line = self.idle.remove(at);
            line.is_reused = true;
            self.tally.note("kept connection used");
            return self.leased(line);
        }
        loop {
            let open: Vec<usize> = (0..self.backends.len())
                .filter(|backend| !self.tried.contains(backend))
                .filter(|&backend| fits(self.backends[backend].kind))
                .collect();
            let Some(&backend) = open.get(self.rng.below(open.len().max(1) as u32) as usize) else {
                self.session.not_leased(OwnReply::NO_BACKEND);
                return true;
            };
            if self.backends[backend].is_down || self.rng.below(20) == 0 {
                self.tried.push(backend);
                continue;
            }
            let Ok(spent) = self.backends[backend].reserve(recipients, self.now) else {
                self.tally.note("quota used up");
                self.tried.push(backend);
                continue;
            };
            self.spent = spent;
            let line = self.dial(backend);
            return self.leased(line);
        }
    }

    fn dial(&mut self, backend: usize) -> Line {
        let about = &self.backends[backend];
        let fault = if self.rng.below(10) < about.faults {
            fault(&mut self.rng)
        } else {
            Fault::None
        };
        Line {
            backend,
            server: Server::new(about.kind, fault, &mut self.rng),
            output: Vec::new(),
            is_reused: false,
        }
    }

    fn leased(&mut self, line: Line) -> bool {
        let extensions = extensions(line.server.kind);
        let reuse = if line.is_reused {
            Reuse::Yes
        } else {
            Reuse::No
        };
        self.line = Some(line);
        let terms = LeaseTerms {
            slow_after: (self.rng.below(2) == 0).then_some(Duration::from_secs(1)),
            places: self.spent.as_ref().map(Spent::recipients),
            ..LeaseTerms::of(reuse)
        };
        self.session.leased_on(&extensions, &terms, self.now);
        true
    }

    /// Something that is nobody's turn.
    fn accident(&mut self) -> bool {
        match self.rng.below(400) {
            0 if !self.client_left => {
                self.client_left = true;
                self.tally.note("client left");
                if self.rng.below(2) == 0 {
                    self.session.client_ended();
                } else {
                    self.session.client_lost();
                }
                true
            }
            1 => {
                self.session.drain();
                self.tally.note("drained");
                true
            }
            2 if !self.client_stalled => {
                self.client_stalled = true;
                self.tally.note("client stalled");
                true
            }
            3..=40 => {
                let rng = &mut self.rng;
                let idle = self.idle.last_mut();
                idle.map(|line| line.server.leave(rng)).is_some()
            }
            _ => false,
        }
    }

    /// Whether nothing can happen but that time passes.
    fn is_stuck(&mut self) -> bool {
        let outgoing = self.session.to_backend();
        let sends = self.line.is_some() && !(outgoing.octets.is_empty() && outgoing.end.is_empty());
        let hears = self
            .line
            .as_ref()
            .is_some_and(|line| !line.server.output.is_empty() || line.server.is_ended);
        let talks = !self.client_left && !self.session.to_client().is_empty();
        self.client.speak(&mut self.rng);
        let is_silent = self.client_left || self.client_stalled;
        let speaks = !is_silent && !self.client.output.is_empty();
        let used = if is_silent || !self.session.reads_client() {
            0
        } else {
            self.session
                .client(&self.pending, &self.announced, self.now)
        };
        self.pending.drain(..used);
        used == 0 && !sends && !hears && !talks && !speaks && self.wanted.is_none()
    }

    /// Time passes until something is due.
    fn wait(&mut self) {
        // A client that has read 221 or 421 is not listened to any more.
        let deadline = self.session.deadline();
        let deadline = deadline.expect("no session waits for ever");
        self.now = self.now.max(deadline) + Duration::from_millis(1);
        self.tally.note("timed out");
        self.session.timeout(self.now);
        self.effects();
        if self.rng.below(2) == 0
            && let Some(line) = &mut self.line
        {
            line.server.arrive();
        }
    }

    fn effects(&mut self) {
        while let Some(effect) = self.session.effect() {
            match effect {
                Effect::Lease { want, needed } => {
                    assert!(self.line.is_none(), "one connection at a time");
                    if want == Want::Other && needed.keywords.has(Keyword::Chunking) {
                        self.tally.note("moved between chunks");
                    }
                    self.wanted = Some((want, needed));
                    self.spent = None;
                    match want {
                        Want::Any => self.tried.clear(),
                        Want::New => self.tally.note("kept connection dead"),
                        Want::Other => self.tally.note("moved"),
                    }
                }
                Effect::Release(fate) => {
                    let Some(line) = self.line.take() else {
                        assert!(self.wanted.take().is_some(), "it was asked for");
                        continue;
                    };
                    if fate == Fate::Keep {
                        assert!(line.server.output.is_empty(), "rule N2: unread replies");
                        self.idle.push(line);
                    } else if fate == Fate::Abort {
                        self.tried.push(line.backend);
                    }
                }
                Effect::ReplayInDoubt => {
                    self.settle(Some(self.session.recipients_accepted()));
                    self.replays_in_doubt += 1;
                    self.tally.note("replayed in doubt");
                }
                Effect::Reserve(recipients) => self.reserve(recipients),
                Effect::GiveBack(recipients) => {
                    let spent = self.spent.as_mut().expect("there is a quota");
                    spent.give_back(recipients);
                    self.tally.note("place given back");
                }
                Effect::EarlyTalker => self.tally.note("early talker"),
                Effect::Slow => {
                    self.tally.note("slow");
                    if self.rng.below(2) == 0 && self.session.hedge(self.now) {
                        self.tally.note("hedged");
                    }
                }
                Effect::Refused(refusal) => {
                    assert!(refusal.reply.refuses(), "{refusal:?}");
                    self.tally.note("refused by us");
                }
                Effect::Tarpitted => self.tally.note("tarpitted"),
                Effect::Strike(..) => self.tally.note("struck"),
                Effect::EarlyReply => self.tally.note("early reply"),
                Effect::NotReplayable(_) => self.tally.note("not replayable"),
                Effect::Ended(end) => self.ended(end),
            }
        }
        if self.bug == Bug::ReleaseEarly && self.session.to_backend().end.len() == 3 {
            self.idle.extend(self.line.take());
        }
    }

    fn reserve(&mut self, recipients: u32) {
        let spent = self.spent.as_mut().expect("there is a quota");
        let granted = match self.bug {
            Bug::PassQuota => recipients,
            _ => spent.reserve(recipients, self.now),
        };
        // True or not: the search for another is what counts.
        let elsewhere = if self.rng.below(2) == 0 {
            Elsewhere::Room
        } else {
            Elsewhere::None
        };
        self.session.reserved(granted, elsewhere, self.now);
    }

    /// Keeps what was taken of a quota for so many recipients, or gives it back.
    fn settle(&mut self, recipients: Option<u32>) {
        if let Some((spent, recipients)) = self.spent.take().zip(recipients) {
            spent.keep(recipients, self.now);
        }
    }

    fn ended(&mut self, end: TransactionEnd) {
        self.wanted = None;
        let facts = self.session.facts().expect("each end has its facts");
        let may_be_taken = match end {
            TransactionEnd::Accepted => true,
            TransactionEnd::InDoubt => self.bug != Bug::ForgetDoubt,
            TransactionEnd::Refused | TransactionEnd::Abandoned | TransactionEnd::Failed => false,
        };
        self.settle(may_be_taken.then(|| facts.recipients_accepted()));
        let reply = facts.reply().and_then(|reply| reply.first());
        match end {
            TransactionEnd::Accepted => {
                assert!(reply == Some(&b'2') && facts.recipients_accepted() > 0);
                assert!(facts.reply_time().is_some());
            }
            TransactionEnd::InDoubt => assert!(facts.reply_time().is_some() || self.client_left),
            TransactionEnd::Refused | TransactionEnd::Abandoned | TransactionEnd::Failed => {}
        }
        self.tally.note(match end {
            TransactionEnd::Accepted => "accepted",
            TransactionEnd::Refused => "refused",
            TransactionEnd::Abandoned => "abandoned",
            TransactionEnd::Failed => "failed",
            TransactionEnd::InDoubt => "in doubt",
        });
        if end == TransactionEnd::InDoubt {
            self.in_doubt += 1;
            if self.bug == Bug::ReplayInDoubt
                && let Some(last) = self.kept.last().cloned()
            {
                self.kept.push(last);
            }
        }
    }

    /// No span holds more recipients than the provider allows, and no place was lost.
    fn judge_quotas(&mut self) {
        for _ in 0..self.client.recipients_put_off {
            self.tally.note("recipient put off");
        }
        let long_after = self.now + 2 * QUOTA.period;
        for backend in &self.backends {
            let Some(limited) = &backend.limited else {
                continue;
            };
            for (at, _) in &backend.given {
                let within = backend
                    .given
                    .iter()
                    .filter(|(other, _)| *other >= *at && other.duration_since(*at) < QUOTA.period);
                let recipients: u64 = within.map(|(_, recipients)| recipients).sum();
                assert!(recipients <= QUOTA.count, "a quota was passed: {backend:?}");
            }
            assert_eq!(limited.usage(long_after)[0].used, 0, "a place was lost");
        }
    }

    /// Counts.
    fn judge(&mut self) {
        assert!(self.line.is_none(), "a connection was not given back");
        assert_eq!(self.memory.used(), 0, "replay memory was not given back");
        assert_eq!(self.tarpit.taken(), 0, "a place was not given back");
        self.judge_quotas();
        let (mut doubtful, mut doubled) = (0, 0);
        for kept in &self.kept {
            let of = |sent: &&Sent| contains(&kept.content, sent.id.as_bytes());
            let sent = self.client.sent.iter().find(of);
            let sent = sent.expect("promise 2: only what a client has completed");
            assert!(
                sent.is_completed && kept.content == sent.content,
                "promise 8"
            );
            assert!(
                kept.mail.starts_with(&sent.mail) && sent.is_for(&kept.recipients),
                "promise 1: exactly those recipients: {kept:?} {sent:?}"
            );
        }
        for sent in &self.client.sent {
            let of = |kept: &&Kept| contains(&kept.content, sent.id.as_bytes());
            let copies = self.kept.iter().filter(of).count() as u64;
            doubled += copies.saturating_sub(1);
            match sent.told {
                Some(250) => {
                    assert!(copies > 0, "promise 1: {sent:?}");
                    if sent.in_chunks {
                        self.tally.note("accepted in chunks");
                    }
                }
                Some(451) if copies > 0 => doubtful += 1,
                Some(_) => assert_eq!(copies, 0, "rule M2: {sent:?}"),
                None => {}
            }
        }
        assert!(
            doubled <= self.replays_in_doubt,
            "promise 4: copies too many"
        );
        assert!(doubtful <= self.in_doubt, "copies that nobody doubts");
        if self.client_stalled && self.client.is_over {
            self.tally.note("client sent away");
        }
        // What is far too big is not read to its end.
        let is_cut = self.session.closes_with() == Some(OwnReply::FAR_TOO_BIG);
        if !self.client_left && !self.client_stalled && !self.client.is_over && !is_cut {
            assert!(self.client.is_content(), "promise 3: every command a reply");
        }
    }
}

/// What a backend announces.
fn extensions(kind: Kind) -> Extensions {
    let mut extensions = Extensions::default();
    extensions.keywords.insert(Keyword::EnhancedStatusCodes);
    if kind.pipelining {
        extensions.keywords.insert(Keyword::Pipelining);
    }
    if kind.chunking {
        extensions.keywords.insert(Keyword::Chunking);
    }
    extensions
}

fn fault(rng: &mut Rng) -> Fault {
    let moment = [Moment::Mail, Moment::Rcpt, Moment::Data][rng.below(3) as usize];
    let at = rng.below(400) as usize;
    match rng.below(12) {
        0 => Fault::EndAt(moment),
        1 => Fault::SilentAt(moment),
        2 => Fault::ClosingAt(moment),
        3 => Fault::EndInContent(at),
        4 => Fault::EarlyRefusal(at),
        5 => Fault::EarlyAcceptance(at),
        6 => Fault::CutReply(rng.below(18) as usize),
        7 => Fault::ForgetAndEnd,
        8 => Fault::Full,
        9 => Fault::Slow,
        10 => Fault::DataRefused,
        _ => Fault::CutReply(0),
    }
}

fn contains(octets: &[u8], what: &[u8]) -> bool {
    // The line, so that `1-1` is not found in `1-11`.
    let line = [b"Message-Id: ", what, b"\r\n"].concat();
    octets.windows(line.len()).any(|window| window == line)
}

fn swap_lines(octets: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = octets.split_inclusive(|&octet| octet == b'\n').collect();
    match lines.as_slice() {
        [first, second] if first[..3] != second[..3] => [*second, *first].concat(),
        _ => octets.to_vec(),
    }
}
