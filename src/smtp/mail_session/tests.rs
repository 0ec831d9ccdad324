//! A session by hand: what the simulation does not look at.

use std::time::Duration;

use super::super::data::LineEndings;
use super::super::exchange::Step;
use super::super::exchange::{Fate, First354, InDoubt, MOVES_MAX, TransactionEnd, Trouble, Want};
use super::super::extensions::{Keyword, Keywords, OwnExtensions, SessionLimits};
use super::super::tarpit::Tarpit;
use super::*;

mod clients;

/// A session, its clock, and a backend that is played by hand.
struct Lab {
    session: MailSession,
    announced: Extensions,
    now: Instant,
    effects: Vec<Effect>,
    /// What was refused, by command and reply.
    refused: Vec<(&'static str, &'static str)>,
}

impl Lab {
    fn with(mut policy: MailPolicy) -> Self {
        let now = Instant::now();
        policy.host = "lb.example".into();
        let size_max = policy.size_max;
        let policy = Arc::new(policy);
        let own = OwnExtensions {
            allowed: Keywords::CLEAR,
            size_max: std::num::NonZeroU64::new(size_max),
            limits: SessionLimits::default(),
        };
        let mut lab = Self {
            session: MailSession::new(policy, ReplayMemory::new(1 << 20), now),
            announced: Extensions::announced(&own, []),
            now,
            effects: Vec::new(),
            refused: Vec::new(),
        };
        assert_eq!(lab.told(), "220 lb.example ESMTP|");
        lab
    }

    fn new() -> Self {
        Self::with(MailPolicy::default())
    }

    /// Behind EHLO.
    fn greeted(policy: MailPolicy) -> Self {
        let mut lab = Self::with(policy);
        assert!(
            lab.say("EHLO client.example\r\n")
                .starts_with("250-lb.example|")
        );
        lab
    }

    fn feed(&mut self, octets: &str) -> usize {
        self.session
            .client(octets.as_bytes(), &self.announced, self.now)
    }

    /// Says all of it and hears what is answered.
    fn say(&mut self, octets: &str) -> String {
        assert_eq!(self.feed(octets), octets.len(), "{octets}");
        self.told()
    }

    fn told(&mut self) -> String {
        let told = String::from_utf8(self.session.to_client().to_vec()).unwrap();
        self.session.sent_to_client(told.len());
        told.replace("\r\n", "|")
    }

    /// All but refusals.
    fn effects(&mut self) -> Vec<Effect> {
        while let Some(effect) = self.session.effect() {
            match effect {
                Effect::Refused(refusal) => self
                    .refused
                    .push((refusal.command.name(), refusal.reply.name())),
                other => self.effects.push(other),
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn refused(&mut self) -> Vec<(&'static str, &'static str)> {
        self.effects = self.effects();
        std::mem::take(&mut self.refused)
    }

    fn lease(&mut self) {
        let mut extensions = Extensions::default();
        extensions.keywords.insert(Keyword::Pipelining);
        self.session.leased(&extensions, Kept::No, self.now);
    }

    /// What the backend is said.
    fn passed(&mut self) -> String {
        let mut passed = String::new();
        loop {
            let outgoing = self.session.to_backend();
            let octets = [outgoing.octets, outgoing.end].concat();
            if octets.is_empty() {
                return passed.replace("\r\n", "|");
            }
            self.session.sent_to_backend(octets.len(), self.now);
            passed += std::str::from_utf8(&octets).unwrap();
        }
    }

    fn hear(&mut self, reply: &str) -> String {
        self.session.backend(reply.as_bytes(), self.now);
        self.told()
    }

    /// As far as 354.
    fn up_to_data(policy: MailPolicy) -> Self {
        let mut lab = Self::greeted(policy);
        lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n");
        lab.lease();
        assert_eq!(lab.passed(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|DATA|");
        let told = lab.hear("250 ok\r\n250 ok\r\n354 go on\r\n");
        assert_eq!(told, "250 ok|250 ok|354 go on|");
        lab.effects();
        lab
    }
}

fn reject() -> MailPolicy {
    MailPolicy {
        line_endings: LineEndings::Reject,
        ..MailPolicy::default()
    }
}

fn sized(size_max: u64) -> MailPolicy {
    MailPolicy {
        size_max,
        ..MailPolicy::default()
    }
}

#[test]
fn a_message_goes_through_and_what_follows_it_waits_for_its_reply() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    let text = "Subject: x\r\n\r\n..dot\r\n.\r\nNOOP\r\nMAIL FROM:<c@x>\r\n";
    let message = "Subject: x\r\n\r\n..dot\r\n.\r\n".len();
    assert_eq!(lab.feed(text), message, "rule P3: the rest is given again");
    assert_eq!(lab.passed(), "Subject: x||..dot|.|");
    assert_eq!(lab.feed(&text[message..]), 0);
    assert_eq!(
        lab.hear("250 2.0.0 queued as 4711\r\n"),
        "250 2.0.0 queued as 4711|"
    );
    let effects = lab.effects();
    assert_eq!(effects[0], Effect::Release(Fate::Keep));
    assert_eq!(lab.say(&text[message..]), "250 2.0.0 ok|");
    assert!(matches!(
        lab.effects()[..],
        [Effect::Lease {
            want: Want::Any,
            ..
        }]
    ));
}

/// Where the greeting is held for three seconds.
fn held_greeting(early_talker: EarlyTalker) -> MailSession {
    let policy = MailPolicy {
        host: "lb.example".into(),
        greet_delay: Duration::from_secs(3),
        early_talker,
        ..MailPolicy::default()
    };
    MailSession::new(Arc::new(policy), ReplayMemory::new(0), Instant::now())
}

#[test]
fn rule_s14_the_greeting_is_held_back_and_who_talks_meanwhile_is_found() {
    for (early_talker, effect) in [
        (EarlyTalker::Pass, None),
        (EarlyTalker::Log, Some(Effect::EarlyTalker)),
    ] {
        let mut session = held_greeting(early_talker);
        assert!(session.to_client().is_empty());
        assert_eq!(session.reads_client(), early_talker == EarlyTalker::Log);
        let due = session.deadline().expect("the greeting is due");
        let announced = Extensions::default();
        assert_eq!(session.client(b"EHLO x\r\n", &announced, due), 0);
        assert_eq!(session.effect(), effect);
        assert!(!session.reads_client(), "it is known now");
        assert_eq!(session.client(b"EHLO x\r\n", &announced, due), 0);
        assert_eq!(session.effect(), None, "once");
        session.timeout(due);
        assert_eq!(session.to_client(), b"220 lb.example ESMTP\r\n");
        assert_eq!(session.client(b"EHLO x\r\n", &announced, due), 8);
    }
    let mut session = held_greeting(EarlyTalker::Reject);
    let now = Instant::now();
    assert_eq!(session.client(b"E", &Extensions::default(), now), 0);
    assert_eq!(
        session.to_client(),
        b"554 5.5.0 protocol synchronization\r\n"
    );
    assert_eq!(session.effect(), Some(Effect::EarlyTalker));
    assert!(session.is_closing() && !session.reads_client());
}

#[test]
fn rule_s14_a_client_that_waits_is_greeted_and_a_drain_does_not_wait_for_that() {
    let mut session = held_greeting(EarlyTalker::Reject);
    let due = session.deadline().expect("the greeting is due");
    session.timeout(due);
    assert_eq!(session.to_client(), b"220 lb.example ESMTP\r\n");
    assert_eq!(session.deadline(), Some(due + Duration::from_mins(5)));
    let mut session = held_greeting(EarlyTalker::Reject);
    session.drain();
    assert_eq!(
        session.to_client(),
        b"421 4.3.2 lb.example shutting down\r\n"
    );
    assert!(session.is_closing());
}

#[test]
fn rule_s1_commands_in_the_wrong_order_are_503() {
    let mut lab = Lab::new();
    assert_eq!(
        lab.say("MAIL FROM:<a@x>\r\n"),
        "503 5.5.1 bad sequence of commands|"
    );
    lab.say("EHLO client.example\r\n");
    for line in ["RCPT TO:<b@y>\r\n", "DATA\r\n"] {
        assert_eq!(
            lab.say(line),
            "503 5.5.1 bad sequence of commands|",
            "{line}"
        );
    }
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n");
    for line in ["MAIL FROM:<c@x>\r\n", "DATA\r\n"] {
        assert_eq!(
            lab.say(line),
            "503 5.5.1 bad sequence of commands|",
            "{line}"
        );
    }
}

#[test]
fn rule_s3_and_s4_some_commands_are_answered_here_and_at_any_time() {
    let mut lab = Lab::new();
    for (line, reply) in [
        ("NOOP\r\n", "250 2.0.0 ok|"),
        ("RSET\r\n", "250 2.0.0 ok|"),
        ("HELP\r\n", "214 2.0.0 see RFC 5321|"),
        (
            "VRFY joe\r\n",
            "252 2.5.2 cannot verify, send mail and see|",
        ),
        ("STARTTLS\r\n", "502 5.5.1 command not implemented|"),
        (
            "XCLIENT ADDR=192.0.2.1\r\n",
            "500 5.5.2 command not recognized|",
        ),
        ("HELO client.example\r\n", "250 lb.example|"),
    ] {
        assert_eq!(lab.say(line), reply, "{line}");
    }
    assert!(lab.effects().is_empty(), "no backend hears of it");
    assert_eq!(lab.say("QUIT\r\n"), "221 2.0.0 lb.example closing|");
    assert!(lab.session.is_closing());
}

#[test]
fn rule_e4_a_helo_session_has_no_parameters() {
    let mut lab = Lab::new();
    lab.say("HELO client.example\r\n");
    let told = lab.say("MAIL FROM:<a@x> SIZE=100\r\n");
    assert!(told.starts_with("555 5.5.4 "), "{told}");
}

#[test]
fn rule_s5_one_recipient_too_many_is_452() {
    let mut lab = Lab::greeted(MailPolicy {
        recipients_max: 2,
        ..MailPolicy::default()
    });
    let group = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nRCPT TO:<d@y>\r\n";
    let used = lab.feed(group);
    assert_eq!(&group[used..], "RCPT TO:<d@y>\r\n", "ours waits for theirs");
    lab.lease();
    lab.passed();
    assert_eq!(
        lab.hear("250 ok\r\n250 ok\r\n250 ok\r\n"),
        "250 ok|250 ok|250 ok|"
    );
    assert_eq!(lab.say(&group[used..]), "452 4.5.3 too many recipients|");
}

impl Lab {
    /// The facts of the one transaction that has ended.
    fn ended(&mut self) -> (TransactionEnd, TransactionFacts) {
        loop {
            let effect = self.session.effect().expect("a transaction has ended");
            if let Effect::Ended(end) = effect {
                let facts = self.session.facts();
                return (end, facts.expect("they are there until the next effect"));
            }
        }
    }
}

#[test]
fn rule_m6_a_transaction_that_was_accepted_can_be_told() {
    let mut lab = Lab::greeted(MailPolicy {
        recipients_max: 2,
        ..MailPolicy::default()
    });
    lab.feed("MAIL FROM:<a@x> SIZE=7\r\nRCPT TO:<b@y>\r\nRCPT TO:<no@y>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n");
    lab.say("RCPT TO:<c@y>\r\n");
    lab.now += Duration::from_secs(2);
    lab.feed("DATA\r\n");
    lab.passed();
    lab.hear("354 go on\r\n");
    lab.now += Duration::from_secs(3);
    lab.feed("..dot\r\n.\r\n");
    lab.passed();
    lab.now += Duration::from_secs(4);
    lab.hear("250-2.0.0 ok\r\n250 2.0.0 queued as 4711\r\n");
    let (end, mut facts) = lab.ended();
    assert_eq!(end, TransactionEnd::Accepted);
    assert_eq!(facts.hello().as_said(), "client.example");
    assert_eq!(facts.size(), 6, "a dot that was stuffed does not count");
    let recipients = (facts.recipients_accepted(), facts.recipients_refused());
    assert_eq!(recipients, (1, 2), "one by its backend, one by us");
    let times = [facts.mail_time(), facts.body_time(), facts.reply_time()];
    let seconds = times.map(|time| time.map(|time| time.as_secs()));
    assert_eq!(seconds, [Some(2), Some(3), Some(4)]);
    let reply = b"250-2.0.0 ok\r\n250 2.0.0 queued as 4711\r\n";
    assert_eq!(facts.reply(), Some(&reply[..]));
    assert_eq!(
        (facts.leases(), facts.moves(), facts.is_doubted()),
        (1, 0, false)
    );
    assert_eq!(facts.sender(), b"a@x");
    assert_eq!(facts.recipients().collect::<Vec<_>>(), [b"b@y"]);
    let digest = facts.digest(usize::MAX).expect("all of it");
    let other = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"..dot\r\n");
    assert_eq!(&digest.0[..], &other.as_ref()[..16]);
    assert!(lab.session.facts().is_none(), "once");
}

#[test]
fn a_transaction_that_moved_or_was_refused_can_be_told() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<>\r\nRCPT TO:<b@y>\r\n");
    lab.lease();
    lab.session.backend_lost(lab.now);
    lab.lease();
    lab.passed();
    lab.hear("550 5.7.1 not you\r\n503 5.5.1 need MAIL\r\n");
    let (end, facts) = lab.ended();
    assert_eq!(end, TransactionEnd::Refused);
    let reply = facts.reply();
    assert_eq!(
        reply,
        Some(&b"550 5.7.1 not you\r\n"[..]),
        "not what came of it"
    );
    assert_eq!((facts.leases(), facts.moves()), (2, 1));
    assert_eq!((facts.sender(), facts.recipients().count()), (&b""[..], 0));
    assert_eq!(facts.mail_time(), None);
}

#[test]
fn rule_f7_a_message_in_doubt_is_found_by_its_envelope_and_digest() {
    let in_doubt = |rcpt: &str, text: &str| {
        let mut lab = Lab::greeted(MailPolicy::default());
        lab.feed(&format!("MAIL FROM:<a@x>\r\nRCPT TO:<{rcpt}>\r\nDATA\r\n"));
        lab.lease();
        lab.passed();
        lab.hear("250 ok\r\n250 ok\r\n354 ok\r\n");
        lab.feed(&format!("{text}\r\n.\r\n"));
        lab.passed();
        lab.session.backend_lost(lab.now);
        let (end, mut facts) = lab.ended();
        assert_eq!(end, TransactionEnd::InDoubt);
        assert!(facts.reply().expect("451").starts_with(b"451 4.4.2 "));
        assert_eq!(facts.digest(1), None, "in steps");
        let memory = Arc::clone(&lab.session.memory);
        assert!(memory.used() > 0);
        let body = facts.digest(usize::MAX).expect("all of it");
        let envelope = facts.envelope();
        drop(facts);
        assert_eq!(memory.used(), 0);
        (envelope, body)
    };
    let first = in_doubt("b@y", "text");
    assert_eq!(first, in_doubt("b@y", "text"));
    let (other_rcpt, other_text) = (in_doubt("c@y", "text"), in_doubt("b@y", "other"));
    assert!(first.0 != other_rcpt.0 && first.1 == other_rcpt.1);
    assert!(first.0 == other_text.0 && first.1 != other_text.1);
}

#[test]
fn a_transaction_that_ends_with_its_session_can_be_told() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("half a mess");
    let facts = lab.session.cut().expect("it was open");
    assert_eq!((facts.size(), facts.body_time()), (11, None));
    assert!(lab.session.cut().is_none());
    // EHLO takes it back under the name it had.
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.say("EHLO other.example\r\n");
    lab.passed();
    lab.hear("250 ok\r\n");
    let (end, facts) = lab.ended();
    assert_eq!(
        (end, facts.hello().as_said()),
        (TransactionEnd::Abandoned, "client.example")
    );
}

#[test]
fn what_an_idle_session_holds_is_small() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.hear("250 2.0.0 queued\r\n");
    lab.effects();
    assert!(lab.session.effect().is_none());
    let session = &lab.session;
    assert!(session.open.is_none() && session.chunks.is_none());
    let buffers = session.replies.capacity() + session.heard.capacity();
    assert_eq!(buffers + session.effects.capacity(), 0);
    let with_ehlo = size_of::<MailSession>() + size_of::<Extensions>();
    assert!(with_ehlo <= 544, "{with_ehlo}");
}

#[test]
fn what_a_transaction_holds_is_bounded() {
    let transaction = size_of::<Transaction>() + size_of::<Chunks>();
    assert!(transaction <= 1_280, "{transaction}");
}

#[test]
fn recipients_are_counted_against_the_memory_of_all_and_refused_without_room() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let memory = ReplayMemory::new(40_000);
    lab.session.memory = Arc::clone(&memory);
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n");
    let long = format!("RCPT TO:<{}@y>\r\n", "x".repeat(1_000));
    let mut accepted = 0;
    let told = loop {
        let told = lab.say(&long);
        if !told.is_empty() {
            break told;
        }
        lab.passed();
        assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
        accepted += 1;
    };
    assert_eq!(told, "452 4.3.1 out of memory, try again later|");
    assert!((30..40).contains(&accepted), "{accepted}");
    assert_eq!(memory.used(), 32_768);
    // Those that were accepted stay, and the message can come.
    lab.feed("DATA\r\n");
    assert_eq!(lab.passed(), "DATA|");
    assert_eq!(lab.hear("354 ok\r\n"), "354 ok|");
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.hear("250 ok\r\n");
    lab.effects();
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_handful_of_recipients_takes_no_part_of_that_memory() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let memory = ReplayMemory::new(0);
    lab.session.memory = Arc::clone(&memory);
    lab.feed("MAIL FROM:<a@x>\r\n");
    for _ in 0..20 {
        let rcpt = "RCPT TO:<someone@example.com>\r\n";
        assert_eq!(lab.feed(rcpt), rcpt.len());
    }
    assert_eq!(lab.told(), "");
}

#[test]
fn the_copy_of_a_message_that_is_refused_early_is_given_back_at_once() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed(&"x".repeat(10_000));
    lab.passed();
    lab.hear("552 5.3.4 too big\r\n");
    let memory = Arc::clone(&lab.session.memory);
    assert!(memory.used() > 0);
    lab.feed("more");
    assert_eq!(memory.used(), 0);
    assert_eq!(lab.say("\r\n.\r\n"), "552 5.3.4 too big|");
}

#[test]
fn rule_d10_a_message_over_the_limit_is_read_to_its_end_and_refused() {
    let mut lab = Lab::greeted(sized(20));
    let told = lab.say("MAIL FROM:<a@x> SIZE=21\r\n");
    assert!(told.starts_with("552 5.3.4 "), "{told}");
    let mut lab = Lab::up_to_data(sized(20));
    assert_eq!(lab.say("a line of 21 octets\r\n"), "");
    assert_eq!(lab.effects(), [Effect::Release(Fate::Abort)]);
    assert_eq!(lab.passed(), "", "nothing more is sent");
    assert_eq!(lab.say("and more\r\n.\r\n"), "552 5.3.4 message too big|");
    assert_eq!(lab.effects(), [Effect::Ended(TransactionEnd::Refused)]);
    assert_eq!(lab.say("NOOP\r\n"), "250 2.0.0 ok|");
}

#[test]
fn rule_d5_a_bare_line_end_is_refused_at_the_true_end_where_asked() {
    for (text, reply) in [
        (
            "a\nb\r\n.\r\n",
            "550 5.5.2 bare <CR> or <LF> in the message|",
        ),
        (
            "a\r\n.\nMAIL FROM:<evil@x>\r\n.\r\n",
            "550 5.5.2 bare <CR> or <LF> in the message|",
        ),
        ("a\0b\r\n.\r\n", "550 5.6.0 NUL in the message|"),
    ] {
        let mut lab = Lab::up_to_data(reject());
        assert_eq!(lab.say(text), reply, "{}", text.escape_default());
        let effects = lab.effects();
        assert!(
            effects.contains(&Effect::Release(Fate::Abort)),
            "{effects:?}"
        );
    }
}

#[test]
fn rule_d4_a_smuggled_message_stays_one_message() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("a\n.\r\nMAIL FROM:<evil@x>\r\n.\r\n");
    assert_eq!(lab.passed(), "a|..|MAIL FROM:<evil@x>|.|");
}

#[test]
fn rule_b4_a_client_that_errs_too_often_is_sent_away() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let mut told = String::new();
    for _ in 0..10 {
        told = lab.say("XYZZY\r\n");
    }
    assert_eq!(told, "421 4.7.0 lb.example too many errors|");
    assert!(lab.session.is_closing() && !lab.session.reads_client());
}

#[test]
fn rule_b4_what_is_refused_in_a_transaction_is_counted_too() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n550 5.1.1 no\r\n");
    // One half of a point is spent; each DATA for nobody spends another.
    for _ in 0..18 {
        assert_eq!(lab.say("DATA\r\n"), "554 5.5.1 no valid recipients|");
    }
    assert_eq!(lab.say("DATA\r\n"), "421 4.7.0 lb.example too many errors|");
    lab.passed();
    lab.hear("250 ok\r\n");
    assert!(
        !lab.session.is_in_transaction(),
        "its connection is given back"
    );
}

#[test]
fn a_client_that_does_not_read_stops_its_backend_too() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    assert!(lab.session.reads_backend());
    let long = format!("250-{}\r\n", "x".repeat(500)).repeat(120) + "250 ok\r\n";
    lab.session.backend(long.as_bytes(), lab.now);
    lab.feed("RCPT TO:<b@y>\r\n");
    lab.passed();
    lab.session.backend(long.as_bytes(), lab.now);
    assert!(!lab.session.reads_backend() && !lab.session.reads_client());
    assert!(
        lab.session.deadline().is_some(),
        "nor does it wait for ever"
    );
}

#[test]
fn rule_k7_a_drain_waits_for_the_open_transaction() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.session.drain();
    assert_eq!(lab.told(), "421 4.3.2 lb.example shutting down|");
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.session.drain();
    assert_eq!(lab.told(), "");
    lab.feed("text\r\n.\r\n");
    lab.passed();
    let told = lab.hear("250 2.0.0 queued\r\n");
    assert_eq!(told, "250 2.0.0 queued|421 4.3.2 lb.example shutting down|");
}

#[test]
fn rule_k3_a_client_that_ends_behind_its_message_still_hears_the_reply() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("text\r\n.\r\n");
    lab.session.client_ended();
    assert_eq!(lab.passed(), "text|.|");
    assert_eq!(lab.hear("250 2.0.0 queued\r\n"), "250 2.0.0 queued|");
    assert!(lab.session.is_closing() && !lab.session.is_in_transaction());
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("half a mes");
    lab.session.client_ended();
    assert_eq!(lab.effects()[0], Effect::Release(Fate::Abort), "rule F11");
}

#[test]
fn rule_b6_a_silent_client_is_sent_away_by_what_it_was_to_say() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.now += Duration::from_mins(5);
    assert_eq!(lab.session.deadline(), Some(lab.now));
    lab.session.timeout(lab.now);
    assert_eq!(lab.told(), "421 4.4.2 lb.example timeout exceeded|");
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("half a message\r\n");
    lab.passed();
    lab.now += Duration::from_mins(3);
    lab.session.timeout(lab.now);
    assert_eq!(
        lab.told(),
        "421 4.4.2 lb.example timeout|",
        "not its backend's fault"
    );
    assert!(lab.effects().contains(&Effect::Release(Fate::Abort)));
}

#[test]
fn rule_b6_a_session_that_was_given_up_within_a_message_is_over() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("half a message\r\n");
    lab.passed();
    lab.now += Duration::from_mins(3);
    lab.session.timeout(lab.now);
    lab.told();
    assert!(lab.session.is_closing() && !lab.session.is_in_transaction());
    assert_eq!(lab.session.deadline(), None, "nothing is waited for");
}

#[test]
fn rule_b6_a_client_that_does_not_read_its_last_reply_is_not_waited_for() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.now += Duration::from_mins(5);
    lab.session.timeout(lab.now);
    assert!(!lab.session.to_client().is_empty());
    let deadline = lab.session.deadline().expect("it has to read");
    lab.session.timeout(deadline);
    assert!(lab.session.to_client().is_empty());
}

#[test]
fn rule_b6_ten_minutes_without_mail_end_the_session_however_busy() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let accepted = lab.now;
    for _ in 0..9 {
        lab.now += Duration::from_mins(1);
        lab.say("NOOP\r\n");
    }
    assert_eq!(
        lab.session.deadline(),
        Some(accepted + Duration::from_mins(10))
    );
    lab.now += Duration::from_mins(1);
    lab.session.timeout(lab.now);
    assert_eq!(lab.told(), "421 4.4.2 lb.example timeout exceeded|");
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.now += Duration::from_mins(4);
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n");
    lab.now += Duration::from_mins(4);
    lab.say("RSET\r\n");
    assert_eq!(
        lab.session.deadline(),
        Some(lab.now + Duration::from_secs(295)),
        "its backend's RSET is due first"
    );
    lab.passed();
    lab.hear("250 ok\r\n");
    assert_eq!(
        lab.session.deadline(),
        Some(lab.now + Duration::from_mins(5))
    );
}

#[test]
fn rule_b6_a_command_in_pieces_has_no_more_time_than_a_whole_one() {
    for piece in ["N", &"x".repeat(3_000)] {
        let mut lab = Lab::greeted(MailPolicy::default());
        let due = lab.now + Duration::from_mins(5);
        lab.now += Duration::from_mins(4);
        lab.feed(piece);
        assert_eq!(lab.session.deadline(), Some(due));
    }
}

#[test]
fn rule_b6_a_message_comes_with_a_hundred_octets_a_second() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed(&"x".repeat(100));
    lab.passed();
    let began = lab.now;
    for _ in 0..3 {
        lab.now += Duration::from_secs(15);
        lab.feed(&"x".repeat(100));
        lab.passed();
    }
    assert_eq!(lab.session.deadline(), Some(began + Duration::from_mins(1)));
    lab.feed(&"x".repeat(30_000));
    lab.passed();
    assert_eq!(
        lab.session.deadline(),
        Some(lab.now + Duration::from_mins(3)),
        "what came fast has time"
    );
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("x");
    lab.passed();
    lab.now += Duration::from_mins(1);
    lab.session.timeout(lab.now);
    assert_eq!(lab.told(), "421 4.4.2 lb.example timeout|");
}

#[test]
fn rule_b6_small_chunks_do_not_stretch_a_message() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    let began = lab.now;
    for _ in 0..3 {
        lab.feed("BDAT 1\r\na");
        lab.passed();
        lab.now += Duration::from_secs(100);
        // That was its backend's time.
        assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
        lab.now += Duration::from_secs(15);
    }
    let waited = Duration::from_mins(5);
    let due = began + waited + Duration::from_mins(1);
    assert_eq!(lab.session.deadline(), Some(due));
    lab.session.timeout(due);
    assert_eq!(lab.told(), "421 4.4.2 lb.example timeout|");
}

#[test]
fn rule_k2_the_time_of_a_client_begins_when_it_is_answered() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.now += Duration::from_secs(590);
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    assert_eq!(
        lab.session.deadline(),
        Some(lab.now + Duration::from_mins(5))
    );
}

#[test]
fn rule_k2_a_reply_that_came_late_is_still_to_be_read() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.session.drain();
    for _ in 0..=MOVES_MAX {
        lab.lease();
        lab.passed();
        lab.now += Duration::from_mins(5);
        lab.session.timeout(lab.now);
    }
    let told = lab.told();
    assert!(told.starts_with("451 4.4.2 "), "{told}");
    assert!(
        told.ends_with("|421 4.3.2 lb.example shutting down|"),
        "{told}"
    );
}

#[test]
fn rule_d10_a_message_far_over_the_limit_is_not_read_to_its_end() {
    let mut lab = Lab::up_to_data(sized(20));
    lab.feed("a line of 21 octets\r\n");
    lab.feed("another of 21 octets\r\n");
    assert_eq!(lab.told(), "552 5.3.4 message too big|");
    assert!(lab.session.is_closing() && !lab.session.is_in_transaction());
    let mut lab = Lab::up_to_data(sized(20));
    lab.feed("a line of 21 octets\r\n");
    assert_eq!(
        lab.session.deadline(),
        Some(lab.now + Duration::from_mins(1))
    );
    lab.now += Duration::from_mins(1);
    lab.session.timeout(lab.now);
    assert_eq!(lab.told(), "552 5.3.4 message too big|");
    assert!(lab.session.is_closing() && !lab.session.is_in_transaction());
}

#[test]
fn rule_g2_the_rest_of_an_overlong_line_is_never_executed_while_a_reply_is_awaited() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    assert!(
        lab.feed(&"x".repeat(3_000)) > 2_900,
        "it is dropped as it comes"
    );
    assert_eq!(lab.feed(" QUIT\r\n"), 0, "its answer waits");
    lab.lease();
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    assert_eq!(lab.say(" QUIT\r\n"), "500 5.5.2 line too long|");
}

#[test]
fn a_backend_that_takes_no_more_of_a_message_is_not_its_client_s_fault() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed(&"half a message\r\n".repeat(1_500));
    lab.now += Duration::from_mins(2);
    lab.feed("and more\r\n");
    lab.now += Duration::from_mins(1);
    lab.session.timeout(lab.now);
    let effects = lab.effects();
    assert_eq!(effects[0], Effect::Strike(Trouble::Silent, Step::Content));
    assert!(matches!(
        effects[2],
        Effect::Lease {
            want: Want::Other,
            ..
        }
    ));
    assert_eq!(lab.told(), "");
}

#[test]
fn rule_s7_a_slow_mail_asks_until_it_is_granted_and_moves_then() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    let terms = LeaseTerms {
        slow_after: Some(Duration::from_secs(1)),
        ..LeaseTerms::of(Kept::No)
    };
    lab.session.leased_on(&able(), &terms, lab.now);
    lab.passed();
    lab.effects();
    lab.now += Duration::from_secs(1);
    assert_eq!(lab.session.deadline(), Some(lab.now));
    lab.session.timeout(lab.now);
    assert_eq!(lab.effects(), [Effect::Slow]);
    // There was no place for it: a moment later there may be.
    let again = lab.session.deadline().expect("it asks again");
    assert!(again > lab.now && again <= lab.now + Duration::from_secs(1));
    lab.now = again;
    lab.session.timeout(lab.now);
    assert_eq!(lab.effects(), [Effect::Slow]);
    assert!(lab.session.hedge(lab.now));
    let effects = lab.effects();
    assert_eq!(
        effects[..2],
        [
            Effect::Strike(Trouble::Silent, Step::Mail),
            Effect::Release(Fate::Abort)
        ]
    );
    assert!(matches!(
        effects[2],
        Effect::Lease {
            want: Want::Other,
            ..
        }
    ));
    assert!(!lab.session.hedge(lab.now));
    lab.lease();
    assert_eq!(lab.passed(), "MAIL FROM:<a@x>|");
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
}

#[test]
fn rule_f9_our_354_waits_for_the_recipients_and_a_judged_message_is_read_to_its_end() {
    let mut policy = MailPolicy {
        replay_max: 10,
        ..MailPolicy::default()
    };
    policy.manners.first_354 = First354::Ours;
    let mut lab = Lab::greeted(policy);
    let group = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n";
    assert_eq!(&group[lab.feed(group)..], "DATA\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(lab.say("DATA\r\n"), "354 end with <CRLF>.<CRLF>|");
    lab.feed("a first piece that is no longer kept\r\n");
    assert_eq!(lab.passed(), "DATA|");
    assert_eq!(lab.hear("554 5.7.1 no\r\n"), "");
    let long = "x".repeat(100_000);
    assert_eq!(lab.feed(&long), long.len(), "nobody has to take it");
    assert_eq!(lab.say("\r\n.\r\n"), "554 5.7.1 no|");
    assert_eq!(lab.passed(), "RSET|");
}

#[test]
fn a_connection_that_is_not_wanted_any_more_is_given_back() {
    let mut lab = Lab::up_to_data(sized(20));
    lab.session.backend_lost(lab.now);
    lab.effects();
    // Nobody needs a backend for what is too big.
    lab.feed("a line of 21 octets\r\n");
    assert_eq!(lab.effects(), [Effect::Release(Fate::Abort)]);
    lab.lease();
    assert_eq!(lab.effects(), [Effect::Release(Fate::Keep)]);
    assert_eq!(lab.passed(), "");
    assert_eq!(lab.say(".\r\n"), "552 5.3.4 message too big|");
    assert_eq!(lab.effects(), [Effect::Ended(TransactionEnd::Refused)]);
    lab.lease();
    assert_eq!(lab.effects(), [Effect::Release(Fate::Keep)]);
}

#[test]
fn a_session_that_closes_within_a_refused_message_tells_its_end() {
    let mut lab = Lab::up_to_data(sized(20));
    lab.session.backend_lost(lab.now);
    lab.effects();
    lab.feed("a line of 21 octets\r\nanother of 21 octets\r\n");
    assert!(lab.session.is_closing() && !lab.session.is_in_transaction());
    let ended = Effect::Ended(TransactionEnd::Refused);
    assert_eq!(lab.effects(), [Effect::Release(Fate::Abort), ended]);
}

#[test]
fn a_recipient_behind_a_refused_mail_is_a_backend_out_of_step() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n");
    lab.lease();
    lab.passed();
    let told = lab.hear("550 5.7.1 no\r\n250 ok\r\n");
    let sequence = "503 5.5.1 bad sequence of commands|";
    assert_eq!(told, ["550 5.7.1 no|", sequence, sequence].concat());
    let effects = lab.effects();
    assert!(
        effects.contains(&Effect::Strike(Trouble::Desync, Step::Rcpt)),
        "{effects:?}"
    );
}

#[test]
fn rule_f11_a_client_that_is_gone_is_told_nothing_and_the_log_everything() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.session.client_lost();
    assert!(lab.session.is_in_transaction(), "the reply is waited for");
    assert_eq!(lab.hear("250 2.0.0 queued as 4711\r\n"), "");
    let (end, facts) = lab.ended();
    assert_eq!(end, TransactionEnd::Accepted);
    assert!(facts.is_deserted(), "nobody was told (rule F1, row 10)");
    assert_eq!(facts.reply(), Some(&b"250 2.0.0 queued as 4711\r\n"[..]));
}

#[test]
fn rule_f7_a_replay_in_doubt_is_an_effect_of_its_own() {
    let mut policy = MailPolicy::default();
    policy.manners.in_doubt = InDoubt::Replay;
    let mut lab = Lab::up_to_data(policy);
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.session.backend_lost(lab.now);
    assert!(lab.effects().contains(&Effect::ReplayInDoubt));
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n250 ok\r\n");
    lab.passed();
    lab.hear("354 ok\r\n");
    assert_eq!(lab.passed(), "text|.|");
    assert_eq!(lab.hear("250 2.0.0 queued\r\n"), "250 2.0.0 queued|");
}

#[test]
fn rule_g11_a_backend_cannot_slip_octets_into_its_reply() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    assert_eq!(lab.hear("250 ok \u{e9}\x07\r\n"), "250 ok ???|");
}

/// What a backend of these tests can: everything that is announced in clear text.
fn able() -> Extensions {
    Extensions {
        keywords: Keywords::CLEAR,
        ..Extensions::default()
    }
}

impl Lab {
    /// In front of backends with CHUNKING, with one recipient that was accepted.
    fn up_to_chunks(policy: MailPolicy) -> Self {
        let mut lab = Self::with(policy);
        lab.announced.keywords.insert(Keyword::Chunking);
        assert!(lab.say("EHLO client.example\r\n").contains("CHUNKING"));
        lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n");
        lab.session.leased(&able(), Kept::No, lab.now);
        lab.passed();
        assert_eq!(lab.hear("250 ok\r\n250 ok\r\n"), "250 ok|250 ok|");
        lab.effects();
        lab
    }
}

#[test]
fn rule_c1_chunks_go_on_as_they_come_and_each_has_its_reply() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 9\r\n.\r");
    assert_eq!(lab.passed(), "BDAT 9|.\r");
    lab.feed("\nQUIT\r\n");
    assert_eq!(lab.passed(), "\nQUIT|");
    let behind = "BDAT 3 LAST\r\na\nb";
    assert_eq!(lab.feed(behind), 0, "it waits for the reply to the first");
    assert_eq!(lab.hear("250 9 octets\r\n"), "250 9 octets|");
    assert_eq!(lab.feed(behind), behind.len());
    // The line and what commits in one write, of which the driver looks at the end (rule F6).
    let outgoing = lab.session.to_backend();
    assert_eq!(outgoing.octets, b"BDAT 3 LAST\r\n");
    assert_eq!(outgoing.end, b"a\nb", "octets are not repaired");
    lab.passed();
    let told = lab.hear("250-3 octets\r\n250 2.0.0 queued\r\n");
    assert_eq!(told, "250-3 octets|250 2.0.0 queued|", "rule G6");
    let ended = Effect::Ended(TransactionEnd::Accepted);
    assert_eq!(lab.effects(), [Effect::Release(Fate::Keep), ended]);
    assert_eq!(lab.say("NOOP\r\n"), "250 2.0.0 ok|");
}

#[test]
fn rule_c1_an_empty_last_chunk_is_legal_and_its_line_end_commits() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 4\r\na\r\n.");
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    lab.feed("BDAT 0 LAST\r\n");
    let outgoing = lab.session.to_backend();
    assert_eq!(
        (outgoing.octets, outgoing.end),
        (&b""[..], &b"BDAT 0 LAST\r\n"[..])
    );
    lab.session.sent_to_backend(12, lab.now);
    lab.session.backend_lost(lab.now);
    let moved = lab.effects();
    assert!(
        moved.contains(&Effect::Strike(Trouble::Lost, Step::Content)),
        "the LF has not left"
    );
    assert!(lab.told().is_empty());
}

#[test]
fn rule_f5_but_for_its_last_octet_a_last_chunk_is_not_committed() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 6 LAST\r\nabc");
    lab.passed();
    lab.feed("def");
    let outgoing = lab.session.to_backend();
    assert_eq!((outgoing.octets, outgoing.end), (&b"de"[..], &b"f"[..]));
    lab.session.sent_to_backend(2, lab.now);
    lab.session.backend_lost(lab.now);
    let effects = lab.effects();
    let needs_chunking = |effect: &Effect| matches!(effect, Effect::Lease { want: Want::Other, needed } if needed.keywords.has(Keyword::Chunking));
    assert!(effects.iter().any(needs_chunking), "{effects:?}");
    lab.session.leased(&able(), Kept::No, lab.now);
    assert_eq!(lab.passed(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
    lab.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(lab.passed(), "BDAT 6 LAST|abcdef");
    lab.session.backend_lost(lab.now);
    assert!(lab.told().starts_with("451 4.4.2 "), "now it is");
}

#[test]
fn rule_c2_a_refused_chunk_is_consumed_and_never_read_as_commands() {
    let mut lab = Lab::greeted(MailPolicy::default());
    assert_eq!(
        lab.say("BDAT 6 LAST\r\nQUIT\r\n"),
        "502 5.5.1 command not implemented|",
        "not announced"
    );
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.say("RSET\r\n");
    for chunk in [
        "BDAT 6\r\nQUIT\r\n",
        "BDAT 6 LAST\r\nQUIT\r\n",
        "BDAT 0 LAST\r\n",
    ] {
        assert_eq!(
            lab.say(chunk),
            "503 5.5.1 bad sequence of commands|",
            "{chunk}"
        );
    }
    assert_eq!(lab.say("NOOP\r\n"), "250 2.0.0 ok|");
}

#[test]
fn rule_c2_an_absurd_chunk_is_552_and_the_end() {
    let mut lab = Lab::up_to_chunks(sized(100));
    let used = lab.feed("BDAT 201 LAST\r\nQUIT\r\n");
    assert_eq!(used, "BDAT 201 LAST\r\n".len());
    assert_eq!(lab.told(), "552 5.3.4 message too big|");
    assert!(lab.session.is_closing() && !lab.session.is_in_transaction());
}

#[test]
fn rule_c3_a_length_that_cannot_be_read_ends_the_session() {
    for line in [
        "BDAT\r\n",
        "BDAT x LAST\r\n",
        "BDAT 5 FIRST\r\n",
        "BDAT 99999999999999999999\r\n",
    ] {
        let mut lab = Lab::up_to_chunks(MailPolicy::default());
        assert!(lab.say(line).starts_with("501 5.5.4 "), "{line}");
        assert!(lab.session.is_closing());
    }
}

#[test]
fn rule_c4_behind_a_chunk_only_chunks_are_in_order() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 2\r\na\n");
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    for line in ["DATA\r\n", "RCPT TO:<c@y>\r\n", "MAIL FROM:<c@x>\r\n"] {
        assert_eq!(
            lab.say(line),
            "503 5.5.1 bad sequence of commands|",
            "{line}"
        );
    }
    lab.feed("BDAT 1 LAST\r\nb");
    assert_eq!(lab.passed(), "BDAT 1 LAST|b");
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
}

#[test]
fn rule_c4_after_a_refused_chunk_all_fail_until_rset() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 1\r\na");
    lab.passed();
    assert_eq!(lab.hear("554 5.6.0 no\r\n"), "554 5.6.0 no|");
    assert_eq!(lab.passed(), "RSET|");
    for line in ["BDAT 5\r\nQUIT\n", "MAIL FROM:<c@x>\r\n"] {
        assert_eq!(lab.say(line), "503 5.5.1 bad sequence of commands|");
    }
    assert_eq!(lab.say("RSET\r\n"), "250 2.0.0 ok|");
    lab.hear("250 ok\r\n");
    assert_eq!(lab.effects()[0], Effect::Release(Fate::Keep));
    assert_eq!(lab.say("MAIL FROM:<c@x>\r\n"), "");
}

#[test]
fn rule_d10_over_the_limit_each_chunk_is_told_552_and_its_backend_is_let_go() {
    let mut lab = Lab::up_to_chunks(sized(10));
    lab.feed("BDAT 8\r\n12345678");
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    for chunk in ["BDAT 3\r\n123", "BDAT 2 LAST\r\n12"] {
        assert_eq!(lab.say(chunk), "552 5.3.4 message too big|");
    }
    assert_eq!(lab.passed(), "RSET|");
    lab.hear("250 ok\r\n");
    let ended = Effect::Ended(TransactionEnd::Refused);
    assert_eq!(lab.effects(), [Effect::Release(Fate::Keep), ended]);
    assert_eq!(lab.say("MAIL FROM:<c@x>\r\n"), "", "LAST has ended it");
}

#[test]
fn rule_d5_chunks_with_bare_line_ends_are_refused_where_asked_and_else_untouched() {
    let table = [
        (
            "BDAT 3\r\na\nb",
            "550 5.5.2 bare <CR> or <LF> in the message|",
        ),
        (
            "BDAT 2 LAST\r\na\r",
            "550 5.5.2 bare <CR> or <LF> in the message|",
        ),
        ("BDAT 2\r\n\0a", "550 5.6.0 NUL in the message|"),
    ];
    for (chunk, reply) in table {
        let mut lab = Lab::up_to_chunks(reject());
        assert_eq!(lab.say(chunk), reply, "{}", chunk.escape_default());
        assert_eq!(lab.effects()[0], Effect::Release(Fate::Abort));
        assert_eq!(lab.passed(), "");
        let mut lab = Lab::up_to_chunks(MailPolicy::default());
        lab.feed(chunk);
        assert_eq!(lab.passed(), chunk.replace("\r\n", "|"));
    }
    // CRLF cut by the end of a chunk is one.
    let mut lab = Lab::up_to_chunks(reject());
    lab.feed("BDAT 2\r\na\r");
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    lab.feed("BDAT 2 LAST\r\n\nb");
    assert_eq!(lab.passed(), "BDAT 2 LAST|\nb");
}

#[test]
fn rule_s13_a_transaction_that_has_failed_tells_what_follows_why() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    for _ in 0..=MOVES_MAX {
        lab.session.backend_lost(lab.now);
        lab.session.leased(&able(), Kept::No, lab.now);
        lab.passed();
    }
    assert!(lab.told().is_empty() && !lab.session.is_in_transaction());
    for line in [
        "RCPT TO:<c@y>\r\n",
        "BDAT 1\r\na",
        "BDAT 1 LAST\r\nb",
        "DATA\r\n",
    ] {
        let told = lab.say(line);
        assert!(told.starts_with("451 4.4.2 "), "{line}: {told}");
    }
    assert_eq!(lab.say("RSET\r\n"), "250 2.0.0 ok|");
    assert_eq!(lab.say("DATA\r\n"), "503 5.5.1 bad sequence of commands|");
}

#[test]
fn rule_s13_a_message_lost_within_a_chunk_is_451_at_its_end_and_so_is_what_follows() {
    let policy = MailPolicy {
        replay_max: 0,
        ..MailPolicy::default()
    };
    let mut lab = Lab::up_to_chunks(policy);
    lab.feed("BDAT 4\r\nab");
    lab.passed();
    lab.session.backend_lost(lab.now);
    assert_eq!(lab.told(), "", "rule C2: its octets come first");
    let told = lab.say("cdBDAT 1 LAST\r\ne");
    let lost = "451 4.4.2 connection to the mail server lost, try again|";
    assert_eq!(told, [lost, lost].concat());
}

#[test]
fn rule_k7_a_drain_waits_for_a_chunk_to_be_consumed() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.say("RSET\r\n");
    lab.passed();
    lab.feed("BDAT 6\r\nQU");
    lab.hear("250 ok\r\n");
    lab.session.drain();
    assert!(lab.told().is_empty());
    let told = lab.say("IT\r\n");
    assert_eq!(
        told,
        "503 5.5.1 bad sequence of commands|421 4.3.2 lb.example shutting down|"
    );
}

#[test]
fn rule_g4_lines_of_a_message_may_be_longer_than_the_rfc_asks() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    let long = "x".repeat(5_000);
    lab.feed(&format!("{long}\r\n.\r\n"));
    assert_eq!(lab.passed(), format!("{long}|.|"));
}

#[test]
fn rule_g6_any_reply_of_a_backend_may_have_several_lines() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n");
    lab.lease();
    lab.passed();
    let replies = "250-2.1.0 one\r\n250 2.1.0 two\r\n250-2.1.5 one\r\n250 2.1.5 two\r\n\
        354-one\r\n354 two\r\n";
    for octet in replies.split_inclusive("") {
        lab.session.backend(octet.as_bytes(), lab.now);
    }
    assert_eq!(lab.told(), replies.replace("\r\n", "|"));
    lab.feed("text\r\n.\r\n");
    lab.passed();
    let queued = "250-2.0.0 one\r\n250 2.0.0 queued\r\n";
    assert_eq!(lab.hear(queued), queued.replace("\r\n", "|"));
}

#[test]
fn rule_g7_a_code_nobody_knows_goes_by_its_first_digit() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\n");
    lab.lease();
    lab.passed();
    let told = lab.hear("299 fine\r\n251 elsewhere\r\n599 no\r\n");
    assert_eq!(told, "299 fine|251 elsewhere|599 no|");
    // But 3yz goes on only as 354, and nowhere else.
    lab.feed("DATA\r\n");
    lab.passed();
    lab.effects();
    lab.hear("355 what?\r\n");
    assert_eq!(
        lab.effects()[0],
        Effect::Strike(Trouble::Desync, Step::Data)
    );
}

#[test]
fn rule_s2_ehlo_takes_a_transaction_back_by_rset_and_a_refused_one_changes_nothing() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n");
    assert!(lab.say("EHLO\r\n").starts_with("501 5.5.4 "));
    lab.feed("RCPT TO:<b@y>\r\n");
    assert_eq!(lab.passed(), "RCPT TO:<b@y>|", "it is still open");
    lab.hear("250 ok\r\n");
    assert!(
        lab.say("EHLO other.example\r\n")
            .starts_with("250-lb.example|")
    );
    assert_eq!(lab.passed(), "RSET|", "no backend is said EHLO twice");
    assert_eq!(
        lab.say("RCPT TO:<b@y>\r\n"),
        "503 5.5.1 bad sequence of commands|"
    );
}

#[test]
fn rule_s3_rset_never_closes_and_quit_does_within_a_transaction_too() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n");
    for _ in 0..3 {
        assert_eq!(lab.say("RSET\r\n"), "250 2.0.0 ok|");
    }
    assert_eq!(lab.passed(), "RSET|", "one is enough");
    lab.hear("250 ok\r\n");
    assert_eq!(lab.effects()[1], Effect::Release(Fate::Keep));
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("250 ok\r\n");
    assert_eq!(lab.say("QUIT\r\n"), "221 2.0.0 lb.example closing|");
    assert!(lab.session.is_closing());
}

#[test]
fn rule_e2_each_ehlo_is_told_what_is_announced_then_and_held_to_it() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.announced.keywords.insert(Keyword::Dsn);
    assert!(
        lab.say("MAIL FROM:<a@x> RET=FULL\r\n")
            .starts_with("555 5.5.4 ")
    );
    assert!(lab.say("EHLO client.example\r\n").contains("DSN"));
    lab.announced.keywords.remove(Keyword::Dsn);
    assert_eq!(lab.say("MAIL FROM:<a@x> RET=FULL\r\n"), "");
    let [Effect::Lease { needed, .. }] = lab.effects()[..] else {
        panic!("a backend is looked for");
    };
    assert!(
        needed.keywords.has(Keyword::Dsn),
        "rule E3: one that has it"
    );
}

#[test]
fn rule_p2_replies_do_not_depend_on_how_commands_come() {
    let dialogue =
        "EHLO c\r\nNOOP\r\nXYZZY\r\nMAIL FROM:<a@x> X=1\r\nRCPT TO:<b@y>\r\nRSET\r\nQUIT\r\n";
    let mut at_once = Lab::new();
    let told = at_once.say(dialogue);
    assert_eq!(told.matches('|').count(), 9, "{told}");
    let mut by_octet = Lab::new();
    let mut pieces = String::new();
    let mut held = String::new();
    for octet in dialogue.split_inclusive("") {
        held += octet;
        held.drain(..by_octet.feed(&held.clone()));
        // What can be answered is: nothing waits for more.
        pieces += &by_octet.told();
    }
    assert_eq!(pieces, told);
}

#[test]
fn rule_p2_a_thousand_recipients_in_one_segment_are_answered_in_order() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let recipients = (0..1_000).map(|n| format!("RCPT TO:<r{n}@y>\r\n"));
    let group = recipients.collect::<Vec<_>>().concat();
    let group = format!("MAIL FROM:<a@x>\r\n{group}DATA\r\n");
    assert_eq!(lab.feed(&group), group.len());
    lab.lease();
    assert_eq!(
        lab.passed(),
        group.replace("\r\n", "|"),
        "rule P8: in one flight"
    );
    let answers = (0..1_000).map(|n| format!("250 r{n}\r\n"));
    let answers = answers.collect::<Vec<_>>().concat();
    let answers = format!("250 ok\r\n{answers}354 go on\r\n");
    assert_eq!(lab.hear(&answers), answers.replace("\r\n", "|"));
}

#[test]
fn rule_p4_what_stands_behind_the_end_of_a_group_is_taken_in_order() {
    let mut lab = Lab::new();
    let told = lab.say("EHLO c\r\nNOOP\r\nVRFY x\r\nEHLO c\r\nMAIL FROM:<a@x>\r\n");
    let codes = told
        .split('|')
        .filter(|line| line.as_bytes().get(3) == Some(&b' '));
    let codes: Vec<_> = codes.map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "252", "250"]);
    assert!(matches!(lab.effects()[..], [Effect::Lease { .. }]));
}

#[test]
fn rules_p1_and_p6_nothing_follows_data_in_its_flight() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let group = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n";
    assert_eq!(
        lab.feed(&format!("{group}text\r\n.\r\nQUIT\r\n")),
        group.len()
    );
    lab.lease();
    assert_eq!(lab.passed(), group.replace("\r\n", "|"));
    lab.hear("250 ok\r\n250 ok\r\n");
    assert_eq!(lab.passed(), "", "the 354 comes first");
}

#[test]
fn rule_p10_a_reply_of_ours_takes_its_place_behind_those_of_the_backend() {
    let mut lab = Lab::greeted(MailPolicy::default());
    let said = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y> X=1\r\nRCPT TO:<d@y>\r\n";
    let used = lab.feed(said);
    assert_eq!(&said[used..], "RCPT TO:<c@y> X=1\r\nRCPT TO:<d@y>\r\n");
    lab.lease();
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n"), "250 ok|");
    assert_eq!(lab.feed(&said[used..]), 0, "one is unanswered");
    assert_eq!(lab.hear("250 b\r\n"), "250 b|");
    assert!(lab.say(&said[used..]).starts_with("555 5.5.4 "));
    lab.passed();
    assert_eq!(lab.hear("250 d\r\n"), "250 d|");
}

#[test]
fn rule_b3_a_client_of_another_protocol_is_sent_away_at_its_first_line() {
    for line in ["GET / HTTP/1.1\r\n", "Subject: hello\r\n"] {
        let mut lab = Lab::new();
        let told = lab.say(line);
        assert!(told.starts_with("421 4.7.0 lb.example "), "{told}");
        assert!(lab.session.is_closing());
    }
}

#[test]
fn rule_f2_a_message_without_its_end_is_left_by_a_reset() {
    type Leaves = fn(&mut MailSession);
    let ways: [Leaves; 3] = [
        MailSession::client_lost,
        MailSession::client_ended,
        |session| {
            let due = session.deadline().expect("it waits for the client");
            session.timeout(due);
        },
    ];
    for leaves in ways {
        let mut lab = Lab::up_to_data(MailPolicy::default());
        lab.feed("half a message\r\n");
        lab.passed();
        leaves(&mut lab.session);
        assert_eq!(lab.effects()[0], Effect::Release(Fate::Abort), "rule K4");
    }
}

#[test]
fn rule_n2_a_connection_with_more_to_say_is_not_kept() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("text\r\n.\r\n");
    lab.passed();
    let told = lab.hear("250 2.0.0 queued\r\n250 and what else?\r\n");
    assert_eq!(told, "250 2.0.0 queued|", "it answers nothing");
    assert_eq!(lab.effects()[0], Effect::Release(Fate::Retire));
}

#[test]
fn rule_s13_a_new_transaction_forgets_why_the_last_one_failed() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    for _ in 0..=MOVES_MAX {
        lab.session.backend_lost(lab.now);
        lab.session.leased(&able(), Kept::No, lab.now);
        lab.passed();
    }
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    assert_eq!(lab.hear("550 5.7.1 no\r\n"), "550 5.7.1 no|");
    assert_eq!(lab.say("DATA\r\n"), "503 5.5.1 bad sequence of commands|");
}

#[test]
fn rule_k1_a_backend_that_does_not_take_bdat_is_left_in_its_own_time() {
    let mut lab = Lab::up_to_chunks(MailPolicy::default());
    lab.feed("BDAT 100000\r\n");
    let block = lab.now + Duration::from_mins(3);
    lab.now += Duration::from_mins(1);
    // The client goes on.
    lab.feed(&"x".repeat(90_000));
    assert_eq!(lab.session.deadline(), Some(block));
    lab.session.timeout(block);
    assert_eq!(
        lab.effects()[0],
        Effect::Strike(Trouble::Silent, Step::Content)
    );
    assert!(lab.told().is_empty());
}

#[test]
fn rule_e3_a_message_moves_to_a_backend_that_has_room_for_what_has_come() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("..a line of 22 octets\r\n");
    lab.session.backend_lost(lab.now);
    let size = lab.effects().into_iter().find_map(|effect| match effect {
        Effect::Lease { needed, .. } => needed.size,
        _ => None,
    });
    assert_eq!(size, Some(22));
}

const TARPIT: Duration = Duration::from_secs(3);

impl Lab {
    /// Behind EHLO, with half of the error points spent: where the next mistakes are held back.
    fn tarpitted() -> Self {
        let mut lab = Self::greeted(MailPolicy {
            tarpit_delay: TARPIT,
            ..MailPolicy::default()
        });
        for _ in 0..5 {
            assert_eq!(lab.say("XYZZY\r\n"), "500 5.5.2 command not recognized|");
        }
        assert_eq!(lab.effects(), []);
        lab
    }

    fn tarpit(&self) -> &Arc<Tarpit> {
        &self.session.policy.tarpit
    }

    /// Lets so much time pass.
    fn after(&mut self, time: Duration) -> String {
        self.now += time;
        if self.session.deadline().is_some_and(|due| due <= self.now) {
            self.session.timeout(self.now);
        }
        self.told()
    }
}

#[test]
fn rule_b5_behind_half_of_the_error_points_a_mistake_is_answered_later() {
    let mut lab = Lab::tarpitted();
    let said = "NOOP\r\nXYZZY\r\nNOOP\r\n";
    let used = lab.feed(said);
    assert_eq!(used, "NOOP\r\nXYZZY\r\n".len(), "what follows waits");
    assert_eq!(lab.told(), "250 2.0.0 ok|", "what came before does not");
    assert!(!lab.session.reads_client() && lab.session.is_holding_back());
    assert_eq!(lab.feed(&said[used..]), 0);
    assert_eq!(lab.session.deadline(), Some(lab.now + TARPIT));
    assert_eq!(lab.after(TARPIT / 2), "");
    assert_eq!(lab.tarpit().taken(), 1);
    assert_eq!(lab.after(TARPIT / 2), "500 5.5.2 command not recognized|");
    assert_eq!(lab.tarpit().taken(), 0);
    assert_eq!(lab.effects(), [Effect::Tarpitted]);
    // What is no mistake is answered at once, and the client has its whole time again (rule K2).
    assert_eq!(lab.say(&said[used..]), "250 2.0.0 ok|");
    assert_eq!(
        lab.say("VRFY x\r\n"),
        "252 2.5.2 cannot verify, send mail and see|"
    );
    lab.feed("XYZZY\r\n");
    lab.after(TARPIT);
    let command_time = MailPolicy::default().command_time;
    assert_eq!(lab.session.deadline(), Some(lab.now + command_time));
}

#[test]
fn rule_b5_who_is_sent_away_hears_it_later_too() {
    let mut lab = Lab::tarpitted();
    for _ in 0..4 {
        lab.feed("XYZZY\r\n");
        assert_eq!(lab.after(TARPIT), "500 5.5.2 command not recognized|");
    }
    lab.feed("XYZZY\r\n");
    assert_eq!(lab.told(), "");
    assert!(!lab.session.is_closing(), "its last reply is still held");
    assert!(!lab.session.reads_client());
    assert_eq!(lab.after(TARPIT), "421 4.7.0 lb.example too many errors|");
    assert!(lab.session.is_closing());
}

#[test]
fn rule_b5_refusals_of_a_backend_wait_for_each_other() {
    let mut lab = Lab::tarpitted();
    let group = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nRCPT TO:<d@y>\r\n";
    lab.feed(group);
    lab.lease();
    lab.passed();
    let no = "550 5.1.1 no|";
    let replies = "250 ok\r\n550 5.1.1 no\r\n550 5.1.1 no\r\n250 ok\r\n";
    assert_eq!(lab.hear(replies), "250 ok|");
    assert_eq!(lab.session.deadline(), Some(lab.now + 2 * TARPIT));
    assert_eq!(lab.after(TARPIT), "");
    assert_eq!(lab.after(TARPIT), [no, no, "250 ok|"].concat());
    // The message is not held up by what is past, and its delivery forgives.
    assert_eq!(lab.feed("DATA\r\n"), 6);
    lab.passed();
    assert_eq!(lab.hear("354 go on\r\n"), "354 go on|");
    lab.feed("text\r\n.\r\n");
    lab.passed();
    assert_eq!(lab.hear("250 2.0.0 queued\r\n"), "250 2.0.0 queued|");
    assert_eq!(lab.say("XYZZY\r\n"), "500 5.5.2 command not recognized|");
}

#[test]
fn rule_b5_a_drain_does_not_wait_for_it_and_who_leaves_gives_the_place_back() {
    let mut lab = Lab::tarpitted();
    lab.feed("XYZZY\r\n");
    lab.session.drain();
    let told = lab.told();
    assert_eq!(
        told,
        "500 5.5.2 command not recognized|421 4.3.2 lb.example shutting down|"
    );
    assert_eq!(lab.tarpit().taken(), 0);
    let mut lab = Lab::tarpitted();
    lab.feed("XYZZY\r\n");
    lab.session.client_lost();
    assert!(lab.session.is_closing() && lab.session.to_client().is_empty());
    assert_eq!(lab.tarpit().taken(), 0);
    // To end one's direction is no way around it (rule K3).
    let mut lab = Lab::tarpitted();
    lab.feed("XYZZY\r\n");
    lab.session.client_ended();
    assert_eq!(lab.told(), "");
    assert!(!lab.session.is_closing());
    assert_eq!(lab.after(TARPIT), "500 5.5.2 command not recognized|");
    assert!(lab.session.is_closing());
    let mut lab = Lab::tarpitted();
    let tarpit = Arc::clone(lab.tarpit());
    lab.feed("XYZZY\r\n");
    assert_eq!(tarpit.taken(), 1);
    drop(lab);
    assert_eq!(tarpit.taken(), 0);
}

#[test]
fn rule_b5_beyond_so_many_sessions_nobody_is_held_back() {
    let mut lab = Lab::tarpitted();
    let places: Vec<_> = std::iter::from_fn(|| lab.tarpit().enter()).collect();
    assert_eq!(places.len(), super::super::TARPITTED_MAX as usize);
    assert_eq!(lab.say("XYZZY\r\n"), "500 5.5.2 command not recognized|");
    assert_eq!(lab.effects(), []);
    drop(places);
    lab.feed("XYZZY\r\n");
    assert_eq!(lab.told(), "");
}

#[test]
fn each_refusal_of_ours_is_told_with_the_command_that_it_answers() {
    let mut lab = Lab::with(MailPolicy {
        recipients_max: 1,
        ..MailPolicy::default()
    });
    lab.say("AGpvZQBwYXNzd29yZA==\r\nRCPT TO:<a@x>\r\n");
    lab.say("EHLO client.example\r\nMAIL FROM:<raid @x>\r\nAUTH PLAIN AGpv\r\n");
    let before = [
        ("unknown", "unknown_command"),
        ("rcpt", "bad_sequence"),
        ("mail", "bad_sender"),
        ("auth", "not_offered"),
    ];
    assert_eq!(lab.refused(), before);
    lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n");
    lab.lease();
    lab.passed();
    assert_eq!(lab.hear("250 ok\r\n250 ok\r\n"), "250 ok|250 ok|");
    lab.say("RCPT TO:<c@y>\r\n");
    assert_eq!(lab.refused(), [("rcpt", "too_many_recipients")]);
    lab.feed("DATA\r\n");
    lab.passed();
    lab.hear("354 go on\r\n");
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.session.backend_lost(lab.now);
    assert!(lab.told().starts_with("451 4.4.2"));
    assert_eq!(lab.refused(), [("end-of-data", "in_doubt")]);
}

#[test]
fn a_group_without_a_backend_is_refused_command_by_command() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n");
    lab.session.not_leased(OwnReply::NO_BACKEND);
    let group = [
        ("mail", "no_backend"),
        ("rcpt", "bad_sequence"),
        ("data", "bad_sequence"),
    ];
    assert_eq!(lab.refused(), group);
}

#[test]
fn what_a_backend_refuses_is_no_refusal_of_ours_and_a_timeout_names_the_last_command() {
    let mut lab = Lab::greeted(MailPolicy::default());
    lab.feed("MAIL FROM:<a@x>\r\n");
    lab.lease();
    lab.passed();
    lab.hear("550 5.7.1 not you\r\n");
    assert_eq!(lab.refused(), []);
    lab.now += Duration::from_secs(301);
    lab.session.timeout(lab.now);
    assert!(lab.told().starts_with("421 4.4.2"));
    assert_eq!(lab.refused(), [("mail", "timeout")]);
}

#[test]
fn what_nobody_hears_any_more_is_not_refused() {
    let mut lab = Lab::up_to_data(MailPolicy::default());
    lab.feed("text\r\n.\r\n");
    lab.passed();
    lab.session.client_lost();
    lab.session.backend_lost(lab.now);
    assert_eq!(lab.refused(), []);
}
