//! What the fuzzer of session operations checks: any client, any backend, any order of events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memchr_iter;

use super::super::data::LineEndings;
use super::super::exchange::{Elsewhere, First354, InDoubt, Manners, TransactionEnd};
use super::super::mail_session::{EarlyTalker, Effect, Kept, LeaseTerms, MailPolicy, MailSession};
use super::super::replay_memory::ReplayMemory;
use super::super::replies::OwnReply;
use super::super::reply::{ReplyRead, read_reply};
use super::super::tarpit::Tarpit;
use super::super::{ClientQuirks, Extensions, Keyword};

/// What a client often says.
const CLIENT: [&[u8]; 16] = [
    b"EHLO client.example\r\n",
    b"HELO client.example\r\n",
    b"MAIL FROM:<a@x>\r\n",
    b"MAIL FROM: a@x SIZE=20 BODY=8BITMIME\n",
    b"RCPT TO:< b@y >\n",
    b"DATA\n",
    b"text\r\n..dot\r\n",
    b".\r\n",
    b"BDAT 5\r\n\r\n.\r\n",
    b"BDAT 4 LAST\r\nmore",
    b"BDAT 0 LAST\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n",
    b"bare\nline\rends\0",
];

/// What a backend often says.
const BACKEND: [&[u8]; 12] = [
    b"250 2.0.0 ok\r\n",
    b"250-2.0.0 more\r\n",
    b"354 go on\r\n",
    b"421 4.3.2 going down\r\n",
    b"451 4.7.1 later\r\n",
    b"452 4.3.1 full\r\n",
    b"550 5.1.1 no\r\n",
    b"554 5.6.0 no\r\n",
    b"250 ok\r\n250 ok\r\n354 go on\r\n",
    b"250 ",
    b"25",
    b"\xff",
];

/// A session, and the little that is known of its world.
struct World {
    session: MailSession,
    memory: Arc<ReplayMemory>,
    tarpit: Arc<Tarpit>,
    announced: Extensions,
    now: Instant,
    /// Said by the client and not taken.
    pending: Vec<u8>,
    /// Octets of the client that were taken, as far as they can have an answer.
    lines: usize,
    /// What the client has been told and has not looked at.
    told: Vec<u8>,
    replies: usize,
    has_line: bool,
    is_wanted: bool,
    /// How many recipients of a message each backend's provider allows, if that is limited,
    quota: Option<u32>,
    /// and the places that are reserved.
    places: u32,
    /// Backends' replies of class 2.
    acceptances: usize,
    accepted: usize,
    /// Something was said without being asked: a greeting, a drain, a timeout.
    unasked: usize,
}

/// Any octets, of which the first two say what the listener is like, and the others what happens.
/// The session keeps its invariants, asks for what can be done, tells its client no more than one
/// reply for each line, accepts no message that no backend has accepted, and gives everything back.
/// `now` is when it begins; which time that is makes no difference.
///
/// # Panics
/// When it does not.
pub fn fuzz_session(now: Instant, data: &[u8]) {
    let Some((&[first, second], rest)) = data.split_first_chunk() else {
        return;
    };
    let mut world = World::new(first, second, now);
    let mut rest = rest;
    while let Some((&operation, behind)) = rest.split_first() {
        rest = world.step(operation, behind);
        world.effects();
        world.check();
    }
    world.end();
}

impl World {
    fn new(first: u8, second: u8, now: Instant) -> Self {
        let is = |octet: u8, bit: u8| octet >> bit & 1 == 1;
        let tarpit = Arc::new(Tarpit::default());
        let policy = MailPolicy {
            host: "lb.example".into(),
            quirks: if is(second, 7) {
                ClientQuirks::Reject
            } else {
                ClientQuirks::Accept
            },
            line_endings: if is(first, 0) {
                LineEndings::Reject
            } else {
                LineEndings::Normalize
            },
            size_max: if is(first, 1) { 30 } else { 0 },
            recipients_max: if is(first, 2) { 2 } else { 100 },
            replay_max: if is(first, 3) { 10 } else { 1 << 20 },
            greet_delay: Duration::from_secs(u64::from(first >> 4 & 1) * 3),
            early_talker: [EarlyTalker::Pass, EarlyTalker::Log, EarlyTalker::Reject]
                [usize::from(first >> 5 & 3) % 3],
            manners: Manners {
                in_doubt: if is(first, 7) {
                    InDoubt::Replay
                } else {
                    InDoubt::Tell
                },
                first_354: if is(second, 0) {
                    First354::Ours
                } else {
                    First354::Backends
                },
            },
            tarpit_delay: Duration::from_secs(u64::from(second >> 5 & 1) * 5),
            tarpit: Arc::clone(&tarpit),
            ..MailPolicy::default()
        };
        let mut announced = Extensions::default();
        for (bit, keyword) in [Keyword::Pipelining, Keyword::Size, Keyword::Chunking]
            .into_iter()
            .enumerate()
        {
            if is(second, bit as u8 + 1) {
                announced.keywords.insert(keyword);
            }
        }
        let memory = ReplayMemory::new(if is(second, 4) { 0 } else { 1 << 20 });
        Self {
            session: MailSession::new(Arc::new(policy), Arc::clone(&memory), now),
            memory,
            tarpit,
            announced,
            now,
            pending: Vec::new(),
            lines: 0,
            told: Vec::new(),
            replies: 0,
            has_line: false,
            is_wanted: false,
            quota: is(second, 5).then_some(u32::from(second >> 6) + 1),
            places: 0,
            acceptances: 0,
            accepted: 0,
            unasked: 1,
        }
    }

    /// Does one thing; what is left of the input.
    fn step<'a>(&mut self, operation: u8, rest: &'a [u8]) -> &'a [u8] {
        let number = usize::from(operation & 0x0f);
        match operation >> 4 {
            0..=2 => self.client_says(CLIENT[number]),
            3 => {
                let (octets, rest) = rest.split_at(rest.len().min(number + 1));
                self.client_says(octets);
                return rest;
            }
            4..=6 => self.backend_says(BACKEND[number % BACKEND.len()]),
            7 => {
                let (octets, rest) = rest.split_at(rest.len().min(number + 1));
                self.backend_says(octets);
                return rest;
            }
            8 | 9 => self.lease(operation),
            10 => self.send(number),
            11 => self.hear(number),
            12 => {
                let pieces = [usize::MAX, 1, 3, 7];
                self.send(pieces[number % 4]);
                self.hear(pieces[number / 4]);
            }
            13 => {
                self.now += Duration::from_secs(1 << number);
                self.on_time();
            }
            14 => {
                if let Some(deadline) = self.session.deadline() {
                    self.now = self.now.max(deadline);
                }
                self.on_time();
            }
            _ => self.accident(number),
        }
        rest
    }

    fn client_says(&mut self, octets: &[u8]) {
        self.pending.extend_from_slice(octets);
        if !self.session.reads_client() {
            return;
        }
        let used = self
            .session
            .client(&self.pending, &self.announced, self.now);
        let taken: Vec<u8> = self.pending.drain(..used).collect();
        // A defect needs no line end.
        self.lines += memchr_iter(b'\n', &taken).count() + memchr_iter(b'\r', &taken).count();
    }

    fn backend_says(&mut self, octets: &[u8]) {
        if !self.has_line || !self.session.reads_backend() {
            return;
        }
        self.acceptances += memchr_iter(b'2', octets).count();
        self.session.backend(octets, self.now);
    }

    fn lease(&mut self, operation: u8) {
        if !self.is_wanted {
            return;
        }
        self.is_wanted = false;
        if operation & 0x1f == 0x1f {
            self.session.not_leased(OwnReply::NO_BACKEND);
            return;
        }
        let mut extensions = Extensions::default();
        for (bit, keyword) in [Keyword::Pipelining, Keyword::Size, Keyword::Chunking]
            .into_iter()
            .enumerate()
        {
            if operation >> bit & 1 == 0 {
                extensions.keywords.insert(keyword);
            }
        }
        let kept = if operation & 8 == 0 {
            Kept::No
        } else {
            Kept::Yes
        };
        if self.quota.is_some() {
            self.places = self.session.recipients_accepted().max(1);
        }
        let terms = LeaseTerms {
            slow_after: (operation & 16 == 0).then_some(Duration::from_secs(2)),
            places: self.quota.map(|_| self.places),
            ..LeaseTerms::of(kept)
        };
        self.has_line = true;
        self.session.leased_on(&extensions, &terms, self.now);
    }

    fn send(&mut self, most: usize) {
        if !self.has_line {
            return;
        }
        let outgoing = self.session.to_backend();
        let octets = outgoing.octets.len() + outgoing.end.len();
        let sent = octets.min(most);
        if sent > 0 {
            self.session.sent_to_backend(sent, self.now);
        }
    }

    fn hear(&mut self, most: usize) {
        let octets = self.session.to_client();
        let heard = octets.len().min(most);
        self.told.extend_from_slice(&octets[..heard]);
        self.session.sent_to_client(heard);
        while let ReplyRead::Complete(reply) = read_reply(&self.told) {
            let length = reply.octets.len();
            assert!(length > 4 && reply.octets.ends_with(b"\r\n"));
            self.told.drain(..length);
            self.replies += 1;
        }
        assert_eq!(read_reply(&self.told), ReplyRead::Incomplete);
    }

    fn on_time(&mut self) {
        if self.session.deadline().is_some_and(|due| due <= self.now) {
            self.unasked += 1;
            self.session.timeout(self.now);
        }
    }

    fn accident(&mut self, number: usize) {
        match number {
            0 | 1 if self.has_line => self.session.backend_lost(self.now),
            2 => self.session.client_ended(),
            3 => self.session.client_lost(),
            4 => {
                self.unasked += 1;
                self.session.drain();
            }
            5 | 6 => {
                self.session.hedge(self.now);
            }
            7 if self.has_line => self.session.leave_backend(self.now),
            _ => {}
        }
    }

    fn effects(&mut self) {
        while let Some(effect) = self.session.effect() {
            match effect {
                Effect::Lease { .. } => {
                    assert!(!self.has_line && !self.is_wanted, "one at a time");
                    self.is_wanted = true;
                }
                Effect::Release(_) => {
                    assert!(
                        self.has_line || self.is_wanted,
                        "only what was asked for is given back"
                    );
                    (self.has_line, self.is_wanted) = (false, false);
                    self.places = 0;
                }
                Effect::Strike(..) | Effect::Slow | Effect::ReplayInDoubt => {
                    assert!(self.has_line, "it is about a backend");
                }
                Effect::Ended(end) => {
                    assert!(!self.has_line, "it is given back before");
                    self.is_wanted = false;
                    let facts = self.session.facts().expect("there is something to say");
                    facts
                        .recipients()
                        .for_each(|address| assert!(!address.is_empty()));
                    self.accepted += usize::from(end == TransactionEnd::Accepted);
                }
                Effect::Reserve(wanted) => self.reserve(wanted),
                Effect::GiveBack(surplus) => {
                    self.places = self
                        .places
                        .checked_sub(surplus)
                        .expect("they were reserved");
                }
                Effect::EarlyTalker
                | Effect::EarlyReply
                | Effect::NotReplayable(_)
                | Effect::Refused(_)
                | Effect::Tarpitted => {}
            }
        }
    }

    fn reserve(&mut self, wanted: u32) {
        assert!(self.has_line && wanted > 0, "for recipients that wait");
        let quota = self.quota.expect("only where recipients are counted");
        let granted = wanted.min(quota - self.places);
        self.places += granted;
        let elsewhere = if wanted.is_multiple_of(2) {
            Elsewhere::Room
        } else {
            Elsewhere::None
        };
        self.session.reserved(granted, elsewhere, self.now);
    }

    fn check(&mut self) {
        if self.quota.is_some() && self.has_line {
            let accepted = self.session.recipients_accepted();
            assert!(accepted <= self.places, "each recipient has its place");
        }
        assert!(self.accepted <= self.acceptances, "promise 1");
        assert!(self.replies <= self.lines + self.unasked, "promise 3");
        let session = &self.session;
        assert!(!session.is_closing() || !session.reads_client());
        let waits = self.is_wanted || session.deadline().is_some();
        let is_done = session.is_closing() && session.to_client().is_empty();
        assert!(waits || is_done, "nothing is waited for: {session:?}");
    }

    /// The client goes, and then the backend: nothing may be left.
    fn end(mut self) {
        self.hear(usize::MAX);
        self.session.client_lost();
        self.effects();
        if self.has_line {
            self.session.backend_lost(self.now);
            self.effects();
        }
        assert!(!self.has_line && !self.is_wanted, "all is given back");
        assert!(self.session.is_closing() && !self.session.is_in_transaction());
        assert_eq!(self.memory.used(), 0);
        assert_eq!(self.tarpit.taken(), 0);
    }
}
