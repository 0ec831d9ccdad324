//! The rows of rule F1 and their neighbours, one by one; the simulation does the rest.

use super::super::reply::{ReplyRead, read_reply};
use super::*;

/// An exchange, and what it asked for.
struct Lab {
    exchange: Exchange,
    now: Instant,
    /// What the client was told.
    told: Vec<String>,
    /// What the backend was said.
    said: String,
    asked: Vec<Output>,
}

const TIMES: BackendTimes = BackendTimes {
    reply: Duration::from_secs(11),
    data: Duration::from_secs(12),
    block: Duration::from_secs(13),
    last: Duration::from_secs(14),
};
const FRESH: Leased = Leased {
    pipelining: true,
    size: true,
    chunking: true,
    reused: false,
    times: TIMES,
    slow_after: None,
    places: None,
};
const KEPT: Leased = Leased {
    pipelining: true,
    size: true,
    chunking: true,
    reused: true,
    times: TIMES,
    slow_after: None,
    places: None,
};
const SERIAL: Leased = Leased {
    pipelining: false,
    size: true,
    chunking: false,
    reused: false,
    times: TIMES,
    slow_after: None,
    places: None,
};

impl Lab {
    fn new() -> Self {
        Self::with(Manners::default())
    }

    fn with(manners: Manners) -> Self {
        Self {
            exchange: Exchange::new(manners),
            now: Instant::now(),
            told: Vec::new(),
            said: String::new(),
            asked: Vec::new(),
        }
    }

    fn collect(&mut self) {
        let flight = self.exchange.flight();
        self.said += std::str::from_utf8(flight).unwrap();
        self.exchange.flown(self.exchange.flight().len());
        while let Some(output) = self.exchange.output() {
            match output {
                Output::Answer(answer, _) => {
                    let octets = match answer {
                        Answer::Backend(octets) => octets,
                        Answer::Own(reply) => {
                            let mut octets = Vec::new();
                            reply.write("lb.example", &mut octets);
                            octets
                        }
                    };
                    self.told.push(String::from_utf8(octets).unwrap());
                }
                other => self.asked.push(other),
            }
        }
    }

    fn say(&mut self, line: &str) {
        let octets = format!("{line}\r\n").into_bytes();
        match &line[..4] {
            "MAIL" => self.exchange.begin(&octets, None, self.now),
            "RCPT" => self.exchange.say(Verb::Rcpt, &octets, self.now),
            _ => self.exchange.say(Verb::Data, &octets, self.now),
        }
        self.collect();
    }

    fn lease(&mut self, leased: Leased) {
        self.exchange.leased(leased, self.now);
        self.collect();
    }

    fn hear(&mut self, text: &str) {
        let text = format!("{text}\r\n");
        let ReplyRead::Complete(reply) = read_reply(text.as_bytes()) else {
            panic!("no reply: {text}");
        };
        self.exchange.reply(&reply, self.now);
        self.collect();
    }

    fn lose(&mut self, partial: &str) {
        self.exchange
            .lost(Trouble::Lost, partial.as_bytes(), self.now);
        self.collect();
    }

    fn told(&mut self) -> Vec<String> {
        let codes = self.told.drain(..).map(|reply| reply.trim_end().to_owned());
        codes.collect()
    }

    fn said(&mut self) -> String {
        std::mem::take(&mut self.said).replace("\r\n", "|")
    }

    fn asked(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.asked)
    }

    /// As far as 354, at a backend of this kind.
    fn up_to_data(leased: Leased) -> Self {
        Self::new().go_to_data(leased)
    }

    fn go_to_data(mut self, leased: Leased) -> Self {
        let lab = &mut self;
        for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
            lab.say(line);
        }
        assert_eq!(lab.asked(), [Output::Lease(Want::Any)]);
        lab.lease(leased);
        lab.hear("250 2.1.0 ok");
        lab.hear("250 2.1.5 ok");
        lab.hear("354 go on");
        assert_eq!(lab.told(), ["250 2.1.0 ok", "250 2.1.5 ok", "354 go on"]);
        assert!(lab.exchange.is_content() && lab.exchange.wants_content());
        lab.said();
        self
    }

    fn up_to_commit(leased: Leased) -> Self {
        Self::up_to_data(leased).go_to_commit()
    }

    fn go_to_commit(mut self) -> Self {
        let lab = &mut self;
        lab.exchange.complete(lab.now);
        assert!(lab.exchange.wants_content());
        lab.exchange.committed(lab.now);
        lab.collect();
        self
    }

    /// Another backend takes everything up to 354.
    fn replay(&mut self) {
        self.lease(FRESH);
        assert_eq!(self.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
        self.hear("250 2.1.0 other");
        self.hear("250 2.1.5 other");
        assert_eq!(self.said(), "DATA|");
        self.hear("354 other");
        assert!(self.told().is_empty(), "the client has heard all that");
    }
}

fn moves(trouble: Trouble) -> [Output; 3] {
    [
        Output::Strike(trouble),
        Output::Release(Fate::Abort),
        Output::Lease(Want::Other),
    ]
}

fn ends(fate: Fate, end: TransactionEnd) -> [Output; 2] {
    [Output::Release(fate), Output::End(end)]
}

#[test]
fn rule_p8_a_group_goes_in_one_flight_where_the_backend_pipelines() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
        lab.say(line);
    }
    lab.lease(FRESH);
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|DATA|");
}

#[test]
fn rule_p5_one_command_at_a_time_where_it_does_not() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
        lab.say(line);
    }
    lab.lease(SERIAL);
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|");
    lab.hear("250 ok");
    assert_eq!(lab.said(), "RCPT TO:<b@y>|");
    lab.hear("550 5.1.1 no");
    assert_eq!(lab.said(), "", "without recipients there is no DATA");
    let told = lab.told();
    assert_eq!(
        told,
        ["250 ok", "550 5.1.1 no", "554 5.5.1 no valid recipients"]
    );
}

#[test]
fn a_message_that_is_taken_leaves_its_connection_for_the_next() {
    let mut lab = Lab::up_to_commit(FRESH);
    lab.hear("250 2.0.0 queued as 4711");
    assert_eq!(lab.told(), ["250 2.0.0 queued as 4711"]);
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Accepted));
}

#[test]
fn rule_f1_row_2_an_unanswered_command_moves_and_the_client_sees_nothing() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(FRESH);
    lab.hear("250 2.1.0 ok");
    lab.say("RCPT TO:<b@y>");
    lab.asked();
    lab.lose("");
    assert_eq!(lab.asked(), moves(Trouble::Lost));
    lab.said();
    lab.lease(FRESH);
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
    lab.hear("250 2.1.0 other");
    lab.hear("250 2.1.5 other");
    assert_eq!(lab.told(), ["250 2.1.0 ok", "250 2.1.5 other"]);
}

#[test]
fn rule_s13_a_421_inside_a_transaction_is_never_relayed() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.hear("421 4.3.2 going down");
    assert_eq!(lab.asked(), moves(Trouble::Closing));
    lab.replay();
}

#[test]
fn rule_f1_row_4_half_a_message_moves_with_its_copy() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.lose("");
    assert_eq!(lab.asked(), moves(Trouble::Lost));
    lab.replay();
    assert!(lab.exchange.wants_content());
    lab.exchange.complete(lab.now);
    lab.exchange.committed(lab.now);
    lab.hear("250 2.0.0 queued");
    assert_eq!(lab.told(), ["250 2.0.0 queued"]);
}

#[test]
fn rule_f1_row_4_without_a_copy_the_client_is_told_at_its_end() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.exchange.copy_lost();
    lab.lose("");
    let asked = [Output::Strike(Trouble::Lost), Output::Release(Fate::Abort)];
    assert_eq!(lab.asked(), asked);
    assert!(lab.told().is_empty() && lab.exchange.is_content());
    lab.exchange.complete(lab.now);
    lab.collect();
    assert_eq!(
        lab.told(),
        ["451 4.4.2 connection to the mail server lost, try again"]
    );
    assert_eq!(lab.asked(), [Output::End(TransactionEnd::Failed)]);
}

#[test]
fn rule_f1_row_5_after_the_commit_octet_nothing_is_replayed() {
    for partial in ["", "2", "250"] {
        let mut lab = Lab::up_to_commit(FRESH);
        lab.lose(partial);
        assert!(lab.told()[0].starts_with("451 4.4.2 "), "{partial}");
        let asked = lab.asked();
        assert_eq!(asked[1..], ends(Fate::Retire, TransactionEnd::InDoubt));
    }
}

#[test]
fn rule_f1_row_6_the_beginning_of_a_2yz_is_an_acceptance() {
    for (partial, told) in [
        ("250 ", "250 2.0.0 ok"),
        ("250-", "250 2.0.0 ok"),
        ("250-2.0.0 que", "250 2.0.0 que"),
        ("250-2.0.0 one\r\n250-2.0.0 tw", "250 2.0.0 one"),
    ] {
        let mut lab = Lab::up_to_commit(FRESH);
        lab.lose(partial);
        assert_eq!(lab.told(), [told]);
        assert!(lab.exchange.is_truncated());
        assert_eq!(lab.asked(), ends(Fate::Retire, TransactionEnd::Accepted));
    }
}

#[test]
fn rule_f1_row_8_only_an_unwell_backend_is_exchanged_after_its_refusal() {
    for (reply, is_moved) in [
        ("452 4.3.1 disk full", true),
        ("452 too busy", true),
        ("421 4.3.2 going down", true),
        ("451 4.7.1 greylisted", false),
        ("450 4.2.0 mailbox", false),
        ("451 4.4.3 dns", false),
        ("451 4.5.0 content", false),
        ("451 local error", false),
        ("554 5.7.1 spam", false),
    ] {
        let mut lab = Lab::up_to_commit(FRESH);
        lab.hear(reply);
        assert_eq!(lab.told().is_empty(), is_moved, "{reply}");
        let asked = lab.asked();
        assert_eq!(
            asked.contains(&Output::Lease(Want::Other)),
            is_moved,
            "{reply}"
        );
    }
}

#[test]
fn an_unwell_backend_s_own_words_are_the_answer_where_there_is_no_other() {
    let mut lab = Lab::up_to_commit(FRESH);
    lab.hear("452 4.3.1 disk full");
    lab.exchange.not_leased(OwnReply::NO_BACKEND);
    lab.collect();
    assert_eq!(lab.told(), ["452 4.3.1 disk full"]);
}

#[test]
fn rule_f8_a_recipient_that_is_refused_elsewhere_fails_the_transaction() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.lose("");
    lab.asked();
    lab.lease(FRESH);
    lab.hear("250 ok");
    lab.hear("550 5.1.1 unknown here");
    lab.exchange.complete(lab.now);
    lab.collect();
    assert_eq!(
        lab.told(),
        ["451 4.4.2 connection to the mail server lost, try again"]
    );
    let asked = [
        Output::Release(Fate::Abort),
        Output::End(TransactionEnd::Failed),
    ];
    assert_eq!(lab.asked(), asked);
}

#[test]
fn rule_f8_a_refused_recipient_is_not_said_again() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(FRESH);
    lab.hear("250 ok");
    for (line, reply) in [
        ("RCPT TO:<no@y>", "550 5.1.1 no"),
        ("RCPT TO:<b@y>", "250 ok"),
    ] {
        lab.say(line);
        lab.hear(reply);
    }
    lab.said();
    lab.lose("");
    lab.lease(FRESH);
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
}

#[test]
fn rule_f10_a_transaction_moves_twice_at_most() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    for _ in 0..MOVES_MAX {
        lab.lease(FRESH);
        lab.lose("");
    }
    assert!(lab.told().is_empty());
    lab.lease(FRESH);
    lab.lose("");
    assert_eq!(
        lab.told(),
        ["451 4.4.2 connection to the mail server lost, try again"]
    );
}

#[test]
fn rule_n3_a_kept_connection_that_was_dead_costs_nobody_anything() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(KEPT);
    lab.asked();
    lab.lose("");
    let asked = [Output::Release(Fate::Retire), Output::Lease(Want::New)];
    assert_eq!(lab.asked(), asked, "neither a strike nor a move");
    lab.lease(FRESH);
    lab.hear("250 ok");
    assert_eq!(lab.told(), ["250 ok"]);
}

#[test]
fn rule_n4_a_kept_connection_that_has_had_its_share_is_recycled() {
    for reply in ["421 4.7.0 too many messages", "452 4.3.2 too many mails"] {
        let mut lab = Lab::new();
        lab.say("MAIL FROM:<a@x>");
        lab.lease(KEPT);
        lab.asked();
        lab.hear(reply);
        assert!(lab.told().is_empty());
        assert_eq!(lab.asked().last(), Some(&Output::Lease(Want::New)));
        // From a new connection the same words mean that the backend is unwell.
        lab.lease(FRESH);
        lab.hear("452 4.3.1 disk full");
        assert!(lab.told().is_empty());
        assert_eq!(lab.asked(), moves(Trouble::Unwell));
    }
}

#[test]
fn a_backend_that_is_unwell_at_mail_or_data_is_left_and_one_recipient_s_refusal_is_told() {
    for (reply, is_moved) in [
        ("452 4.3.1 disk full", true),
        ("452 too busy", true),
        ("451 4.3.0 queue file write error", true),
        ("450 4.7.1 slow down", false),
        ("451 4.4.3 dns", false),
        ("552 5.3.4 too big", false),
    ] {
        let mut at_mail = Lab::new();
        at_mail.say("MAIL FROM:<a@x>");
        at_mail.lease(FRESH);
        at_mail.asked();
        at_mail.hear(reply);
        let mut at_data = Lab::new();
        for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
            at_data.say(line);
        }
        at_data.lease(FRESH);
        at_data.asked();
        at_data.hear("250 ok");
        at_data.hear("250 ok");
        at_data.told();
        at_data.hear(reply);
        for mut lab in [at_mail, at_data] {
            assert_eq!(lab.told().is_empty(), is_moved, "{reply}");
            let asked = lab.asked();
            assert_eq!(asked == moves(Trouble::Unwell), is_moved, "{reply}");
            if is_moved {
                // Where there is no other, it has said why.
                lab.exchange.not_leased(OwnReply::NO_BACKEND);
                lab.collect();
                assert_eq!(lab.told(), [reply]);
            }
        }
        let mut at_rcpt = Lab::new();
        at_rcpt.say("MAIL FROM:<a@x>");
        at_rcpt.say("RCPT TO:<b@y>");
        at_rcpt.lease(FRESH);
        at_rcpt.hear("250 ok");
        at_rcpt.hear(reply);
        assert_eq!(at_rcpt.told()[1], reply);
    }
}

#[test]
fn rule_p9_a_354_for_nobody_is_answered_with_a_lone_dot() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
        lab.say(line);
    }
    lab.lease(FRESH);
    lab.said();
    lab.asked();
    lab.hear("250 ok");
    lab.hear("550 5.1.1 no");
    lab.hear("354 go on");
    assert_eq!(lab.said(), ".|");
    assert_eq!(lab.told()[2], "554 5.5.1 no valid recipients");
    lab.hear("554 5.5.1 nobody");
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Refused));
}

#[test]
fn rule_d7_an_early_refusal_is_told_at_the_client_s_end() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.hear("552 5.3.4 too big");
    let asked = [Output::Early, Output::Release(Fate::Abort)];
    assert_eq!(lab.asked(), asked);
    assert!(lab.told().is_empty() && lab.exchange.is_content());
    lab.exchange.complete(lab.now);
    lab.collect();
    assert_eq!(lab.told(), ["552 5.3.4 too big"]);
    assert_eq!(lab.asked(), [Output::End(TransactionEnd::Refused)]);
}

#[test]
fn rule_d7_an_acceptance_before_the_end_is_an_alarm_and_no_replay() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.hear("250 2.0.0 queued what?");
    lab.exchange.complete(lab.now);
    lab.collect();
    assert_eq!(
        lab.told(),
        ["451 4.5.0 protocol error of the mail server, try again"]
    );
    assert!(!lab.asked().contains(&Output::Lease(Want::Other)));
}

#[test]
fn rule_g8_a_reply_to_nothing_loses_the_connection() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(FRESH);
    lab.hear("250 ok");
    lab.asked();
    lab.hear("250 what?");
    assert_eq!(lab.asked(), moves(Trouble::Desync));
}

#[test]
fn rule_n2_a_transaction_taken_back_is_reset_before_its_connection_is_kept() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(FRESH);
    lab.hear("250 ok");
    lab.said();
    lab.asked();
    lab.exchange.abandon(lab.now);
    lab.collect();
    assert_eq!(lab.said(), "RSET|");
    assert!(lab.asked().is_empty());
    lab.hear("250 2.0.0 ok");
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Abandoned));
}

#[test]
fn rule_f11_a_client_that_leaves_aborts_but_for_the_committed() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.exchange.client_lost();
    lab.collect();
    assert_eq!(lab.asked(), ends(Fate::Abort, TransactionEnd::Abandoned));
    let mut lab = Lab::up_to_commit(FRESH);
    lab.exchange.client_lost();
    lab.collect();
    assert!(lab.asked().is_empty());
    lab.hear("250 2.0.0 queued");
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Accepted));
}

#[test]
fn a_refused_mail_ends_the_transaction_and_the_rest_of_the_group_is_answered() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
        lab.say(line);
    }
    lab.lease(SERIAL);
    lab.asked();
    lab.hear("550 5.7.1 not you");
    let told = lab.told();
    assert_eq!(told[0], "550 5.7.1 not you");
    assert!(told[1].starts_with("503 ") && told[2].starts_with("503 "));
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Refused));
}

#[test]
fn without_any_backend_each_command_gets_one_answer() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
        lab.say(line);
    }
    lab.exchange.not_leased(OwnReply::NO_BACKEND);
    lab.collect();
    let told = lab.told();
    assert!(told[0].starts_with("451 4.3.2 "));
    assert!(told[1..].iter().all(|told| told.starts_with("503 5.5.1 ")));
    assert_eq!(told.len(), 3);
    assert!(lab.exchange.is_over());
}

#[test]
fn rule_k1_times_are_the_pool_s_and_follow_what_is_awaited() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    assert_eq!(lab.exchange.deadline(), None);
    lab.lease(FRESH);
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.reply));
    lab.hear("250 ok");
    assert_eq!(lab.exchange.deadline(), None, "the client's turn");
    lab.say("RCPT TO:<b@y>");
    lab.hear("250 ok");
    lab.say("DATA");
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.data));
    let lab = Lab::up_to_data(FRESH);
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.block));
    let lab = Lab::up_to_commit(FRESH);
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.last));
    let mut lab = Lab::up_to_chunks(FRESH);
    lab.chunk(1, ChunkPlace::More);
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.block));
    lab.chunk_left();
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.last));
    lab.hear("250 ok");
    lab.exchange.abandon(lab.now);
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.reply));
}

#[test]
fn rule_k1_without_a_pool_s_word_a_backend_has_a_little_less_than_its_client() {
    let times = BackendTimes::default();
    let seconds = [times.reply, times.data, times.block, times.last].map(|time| time.as_secs());
    assert_eq!(seconds, [295, 115, 180, 595]);
}

/// A backend whose MAIL is slow after two seconds.
const WATCHED: Leased = Leased {
    slow_after: Some(Duration::from_secs(2)),
    ..FRESH
};

#[test]
fn a_slow_mail_is_said_to_another_backend_where_that_is_granted() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>", "DATA"] {
        lab.say(line);
    }
    lab.lease(WATCHED);
    lab.asked();
    lab.said();
    lab.now += Duration::from_secs(2);
    assert_eq!(lab.exchange.deadline(), Some(lab.now));
    assert!(!lab.exchange.hedge(lab.now), "it was not asked for");
    lab.exchange.timeout(lab.now);
    lab.collect();
    assert_eq!(lab.asked(), [Output::Slow]);
    let again = Some(lab.now + HEDGE_AGAIN);
    assert_eq!(lab.exchange.deadline(), again, "and then again");
    assert!(lab.exchange.hedge(lab.now));
    lab.collect();
    assert_eq!(lab.asked(), moves(Trouble::Silent), "and counts as a move");
    lab.lease(WATCHED);
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|DATA|");
}

#[test]
fn a_slow_mail_that_is_not_granted_another_backend_has_the_rfc_s_patience() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(WATCHED);
    lab.asked();
    lab.now += Duration::from_secs(3);
    lab.exchange.timeout(lab.now);
    lab.hear("250 ok");
    assert_eq!(lab.told(), ["250 ok"]);
    assert!(!lab.exchange.hedge(lab.now), "the answer came first");
    assert_eq!(lab.asked(), [Output::Slow]);
}

#[test]
fn what_a_backend_has_begun_to_answer_is_not_hedged() {
    let mut lab = Lab::new();
    for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>"] {
        lab.say(line);
    }
    lab.lease(WATCHED);
    lab.hear("250 ok");
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.reply));
    let mut lab = Lab::up_to_commit(FRESH);
    lab.lose("250 ");
    assert!(!lab.exchange.hedge(lab.now));
    // Nor is a third move granted.
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    for _ in 0..MOVES_MAX {
        lab.lease(WATCHED);
        lab.lose("");
    }
    lab.lease(WATCHED);
    assert_eq!(lab.exchange.deadline(), Some(lab.now + TIMES.reply));
}

#[test]
fn a_replay_is_hedged_too_while_its_mail_is_unanswered() {
    let mut lab = Lab::up_to_data(FRESH);
    lab.lose("");
    lab.lease(WATCHED);
    lab.asked();
    lab.now += Duration::from_secs(2);
    lab.exchange.timeout(lab.now);
    assert!(lab.exchange.hedge(lab.now));
    lab.collect();
    lab.said();
    lab.asked();
    lab.replay();
}

#[test]
fn a_message_is_not_moved_a_minute_after_its_end() {
    let mut lab = Lab::up_to_commit(FRESH);
    lab.now += REPLAY_TIME;
    lab.hear("452 4.3.1 disk full");
    assert_eq!(lab.told(), ["452 4.3.1 disk full"]);
}

#[test]
fn size_is_not_said_to_a_backend_that_does_not_know_it() {
    let mut lab = Lab::new();
    let now = lab.now;
    let (line, plain) = (b"MAIL FROM:<a@x> SIZE=7\r\n", b"MAIL FROM:<a@x>\r\n");
    lab.exchange.begin(line, Some(plain), now);
    lab.lease(FRESH);
    assert_eq!(lab.said(), "MAIL FROM:<a@x> SIZE=7|");
    lab.lose("");
    lab.lease(Leased {
        size: false,
        ..FRESH
    });
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|");
}

impl Lab {
    /// BDAT of so many octets, complete at once.
    fn chunk(&mut self, octets: u64, place: ChunkPlace) {
        self.exchange.chunk(Chunk { octets, place }, self.now);
        self.exchange.complete(self.now);
        self.collect();
    }

    /// All of the chunk has left.
    fn chunk_left(&mut self) {
        assert!(self.exchange.wants_content());
        self.exchange.committed(self.now);
        self.collect();
    }

    /// With one recipient that was accepted.
    fn up_to_chunks(leased: Leased) -> Self {
        let mut lab = Self::new();
        for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>"] {
            lab.say(line);
        }
        assert!(
            !lab.exchange.takes_chunks(),
            "BDAT waits for the recipients"
        );
        lab.lease(leased);
        lab.hear("250 2.1.0 ok");
        lab.hear("250 2.1.5 ok");
        assert!(lab.exchange.takes_chunks());
        lab.told();
        lab.said();
        lab.asked();
        lab
    }

    /// Another backend takes MAIL and RCPT.
    fn replay_recipients(&mut self) {
        self.lease(FRESH);
        assert_eq!(self.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
        self.hear("250 2.1.0 other");
        assert_eq!(self.said(), "", "nothing is sent before the last recipient");
        self.hear("250 2.1.5 other");
        assert!(self.told().is_empty());
    }
}

#[test]
fn rule_c1_chunks_are_said_one_by_one_and_answered_one_by_one() {
    let mut lab = Lab::up_to_chunks(FRESH);
    lab.chunk(10, ChunkPlace::More);
    assert_eq!(lab.said(), "BDAT 10|");
    lab.chunk_left();
    assert!(lab.exchange.is_awaited() && !lab.exchange.takes_chunks());
    lab.hear("250 2.0.0 10 octets");
    assert_eq!(lab.told(), ["250 2.0.0 10 octets"]);
    assert!(!lab.exchange.takes_commands(), "rule C4");
    lab.chunk(5, ChunkPlace::Last);
    assert_eq!(lab.said(), "BDAT 5 LAST|");
    lab.chunk_left();
    lab.hear("250 2.0.0 queued");
    assert_eq!(lab.told(), ["250 2.0.0 queued"]);
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Accepted));
}

#[test]
fn rule_f5_the_last_octet_of_the_last_chunk_is_the_commit() {
    let mut lab = Lab::up_to_chunks(FRESH);
    lab.chunk(10, ChunkPlace::More);
    lab.chunk_left();
    lab.said();
    lab.lose("");
    assert_eq!(lab.asked(), moves(Trouble::Lost), "no LAST, no message");
    lab.replay_recipients();
    assert_eq!(lab.said(), "BDAT 10|");
    lab.chunk_left();
    lab.hear("250 ok");
    lab.chunk(0, ChunkPlace::Last);
    assert_eq!(lab.said(), "BDAT 0 LAST|");
    lab.chunk_left();
    lab.told();
    lab.asked();
    lab.lose("25");
    assert!(lab.told()[0].starts_with("451 4.4.2 "));
    assert_eq!(
        lab.asked()[1..],
        ends(Fate::Retire, TransactionEnd::InDoubt)
    );
}

#[test]
fn rule_f8_a_replay_says_the_chunks_before_with_the_open_one_and_tells_nobody_twice() {
    let mut lab = Lab::up_to_chunks(FRESH);
    for octets in [10, 20] {
        lab.chunk(octets, ChunkPlace::More);
        lab.chunk_left();
        lab.hear("250 ok");
    }
    assert_eq!(lab.told(), ["250 ok", "250 ok"]);
    lab.asked();
    lab.said();
    lab.lose("");
    assert_eq!(lab.asked(), moves(Trouble::Lost));
    // Between two chunks: the new backend hears of the message when there is more of it.
    lab.replay_recipients();
    assert_eq!(lab.said(), "");
    lab.chunk(7, ChunkPlace::Last);
    assert_eq!(lab.said(), "BDAT 37 LAST|");
    lab.chunk_left();
    lab.hear("250 2.0.0 queued");
    assert_eq!(lab.told(), ["250 2.0.0 queued"]);
}

#[test]
fn rule_f1_row_4_chunks_without_a_copy_do_not_move() {
    let mut lab = Lab::up_to_chunks(FRESH);
    lab.chunk(10, ChunkPlace::More);
    lab.chunk_left();
    lab.hear("250 ok");
    lab.told();
    lab.asked();
    lab.exchange.copy_lost();
    lab.lose("");
    assert!(lab.told().is_empty(), "nobody waits");
    assert_eq!(lab.exchange.failure(), Some(OwnReply::BACKEND_LOST));
    assert_eq!(
        lab.asked().last(),
        Some(&Output::End(TransactionEnd::Failed))
    );
}

#[test]
fn rule_c4_a_refused_chunk_ends_the_transaction_and_rset_keeps_its_connection() {
    for place in [ChunkPlace::More, ChunkPlace::Last] {
        let mut lab = Lab::up_to_chunks(FRESH);
        lab.chunk(10, place);
        lab.chunk_left();
        lab.said();
        lab.hear("552 5.3.4 too big");
        assert_eq!(lab.told(), ["552 5.3.4 too big"]);
        assert_eq!(lab.said(), "RSET|");
        assert!(!lab.exchange.takes_chunks() && lab.exchange.is_put_away());
        lab.hear("250 2.0.0 ok");
        assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Refused));
    }
}

#[test]
fn rule_f1_row_8_a_chunk_refused_by_an_unwell_backend_moves() {
    for place in [ChunkPlace::More, ChunkPlace::Last] {
        let mut lab = Lab::up_to_chunks(FRESH);
        lab.chunk(10, place);
        lab.chunk_left();
        lab.said();
        lab.hear("452 4.3.1 disk full");
        assert!(lab.told().is_empty());
        assert_eq!(lab.asked().last(), Some(&Output::Lease(Want::Other)));
        lab.replay_recipients();
        assert!(lab.said().starts_with("BDAT 10"));
    }
}

#[test]
fn rule_s13_a_421_to_a_chunk_is_never_relayed() {
    let mut lab = Lab::up_to_chunks(FRESH);
    lab.chunk(10, ChunkPlace::More);
    lab.chunk_left();
    lab.hear("421 4.3.2 going down");
    assert!(lab.told().is_empty());
    assert_eq!(lab.asked(), moves(Trouble::Closing));
}

#[test]
fn rule_d7_a_reply_before_the_end_of_a_chunk_is_early() {
    let mut lab = Lab::up_to_chunks(FRESH);
    let chunk = Chunk {
        octets: 10,
        place: ChunkPlace::More,
    };
    lab.exchange.chunk(chunk, lab.now);
    lab.collect();
    lab.hear("552 5.3.4 too big");
    let asked = [Output::Early, Output::Release(Fate::Abort)];
    assert_eq!(lab.asked(), asked);
    assert!(
        lab.told().is_empty() && lab.exchange.is_content(),
        "rule C2"
    );
    lab.exchange.complete(lab.now);
    lab.collect();
    assert_eq!(lab.told(), ["552 5.3.4 too big"]);
    assert_eq!(lab.asked(), [Output::End(TransactionEnd::Refused)]);
}

#[test]
fn rule_e3_a_backend_that_lost_chunking_is_left_without_a_strike() {
    let mut lab = Lab::up_to_chunks(SERIAL);
    lab.chunk(10, ChunkPlace::Last);
    let asked = [Output::Release(Fate::Abort), Output::Lease(Want::Other)];
    assert_eq!(lab.asked(), asked);
    lab.replay_recipients();
    assert_eq!(lab.said(), "BDAT 10 LAST|");
}

#[test]
fn rule_s13_behind_a_loss_each_recipient_is_told_451_and_none_503() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(FRESH);
    lab.hear("250 ok");
    for line in ["RCPT TO:<b@y>", "RCPT TO:<c@y>", "DATA"] {
        lab.say(line);
    }
    for _ in 0..MOVES_MAX {
        lab.lose("");
        lab.lease(FRESH);
    }
    lab.told();
    lab.lose("");
    let told = lab.told();
    assert_eq!(told.len(), 3);
    assert!(
        told.iter().all(|told| told.starts_with("451 4.4.2 ")),
        "{told:?}"
    );
    assert_eq!(lab.exchange.failure(), Some(OwnReply::BACKEND_LOST));
}

const REPLAYING: Manners = Manners {
    in_doubt: InDoubt::Replay,
    first_354: First354::Backends,
};

#[test]
fn rule_f7_a_message_in_doubt_is_said_again_once_where_asked() {
    let mut lab = Lab::with(REPLAYING).go_to_data(FRESH).go_to_commit();
    lab.lose("250");
    let asked = [
        Output::Strike(Trouble::Lost),
        Output::ReplayInDoubt,
        Output::Release(Fate::Abort),
        Output::Lease(Want::Other),
    ];
    assert_eq!(lab.asked(), asked);
    assert!(lab.told().is_empty());
    lab.replay();
    lab.exchange.committed(lab.now);
    lab.hear("250 2.0.0 queued");
    assert_eq!(lab.told(), ["250 2.0.0 queued"]);
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Accepted));
    // The second time it is told.
    let mut lab = Lab::with(REPLAYING).go_to_data(FRESH).go_to_commit();
    lab.lose("");
    lab.asked();
    lab.replay();
    lab.exchange.committed(lab.now);
    lab.lose("");
    assert!(lab.told()[0].starts_with("451 4.4.2 "));
    assert_eq!(
        lab.asked()[1..],
        ends(Fate::Retire, TransactionEnd::InDoubt)
    );
}

#[test]
fn rule_f7_what_was_in_doubt_once_is_never_told_to_be_refused() {
    let mut lab = Lab::with(REPLAYING).go_to_data(FRESH).go_to_commit();
    lab.lose("");
    lab.asked();
    lab.replay();
    lab.exchange.committed(lab.now);
    lab.hear("554 5.6.0 no");
    assert!(
        lab.told()[0].starts_with("451 4.4.2 no answer"),
        "a 5yz would bounce a message that may be there"
    );
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::InDoubt));
    let mut lab = Lab::with(REPLAYING).go_to_data(FRESH).go_to_commit();
    lab.lose("");
    lab.asked();
    lab.exchange.not_leased(OwnReply::NO_BACKEND);
    lab.collect();
    assert!(lab.told()[0].starts_with("451 4.4.2 "));
    assert_eq!(lab.asked(), [Output::End(TransactionEnd::InDoubt)]);
}

#[test]
fn rule_f7_nobody_s_message_is_said_again_in_doubt() {
    let mut lab = Lab::with(REPLAYING).go_to_data(FRESH).go_to_commit();
    lab.exchange.client_lost();
    lab.lose("");
    assert_eq!(
        lab.asked()[1..],
        ends(Fate::Retire, TransactionEnd::InDoubt)
    );
    let mut lab = Lab::with(REPLAYING).go_to_data(FRESH).go_to_commit();
    lab.exchange.copy_lost();
    lab.lose("");
    assert_eq!(
        lab.asked()[1..],
        ends(Fate::Retire, TransactionEnd::InDoubt)
    );
}

const BUFFERING: Manners = Manners {
    in_doubt: InDoubt::Tell,
    first_354: First354::Ours,
};

impl Lab {
    /// Our 354 has been said, the backend's not.
    fn buffering() -> Self {
        let mut lab = Self::with(BUFFERING);
        for line in ["MAIL FROM:<a@x>", "RCPT TO:<b@y>"] {
            lab.say(line);
        }
        lab.lease(FRESH);
        lab.hear("250 ok");
        lab.hear("250 ok");
        lab.told();
        lab.said();
        lab.asked();
        lab.say("DATA");
        assert_eq!(lab.told(), ["354 end with <CRLF>.<CRLF>"]);
        assert_eq!(lab.said(), "DATA|", "it is asked while the message comes");
        assert!(lab.exchange.is_content() && !lab.exchange.wants_content());
        lab
    }
}

#[test]
fn rule_f9_where_asked_we_say_354_ourselves() {
    let mut lab = Lab::buffering();
    lab.exchange.complete(lab.now);
    lab.hear("354 go on");
    assert!(lab.told().is_empty() && lab.exchange.wants_content());
    lab.exchange.committed(lab.now);
    lab.hear("250 2.0.0 queued");
    assert_eq!(lab.told(), ["250 2.0.0 queued"]);
}

#[test]
fn rule_f9_a_refusal_of_data_is_the_reply_to_the_message() {
    let mut lab = Lab::buffering();
    lab.hear("554 5.7.1 no");
    assert!(lab.told().is_empty() && !lab.exchange.wants_message());
    assert_eq!(lab.said(), "RSET|");
    lab.exchange.complete(lab.now);
    lab.collect();
    assert_eq!(lab.told(), ["554 5.7.1 no"]);
    lab.hear("250 ok");
    assert_eq!(lab.asked(), ends(Fate::Keep, TransactionEnd::Refused));
    // From a backend that is unwell it is none.
    let mut lab = Lab::buffering();
    lab.hear("452 4.3.1 full");
    assert_eq!(lab.asked(), moves(Trouble::Unwell));
    lab.replay();
}

/// Nobody logged such a transaction, nor counted it.
#[test]
fn rule_f9_a_client_that_leaves_while_a_refusal_waits_for_it_ends_the_transaction() {
    let mut lab = Lab::buffering();
    lab.hear("554 5.7.1 no");
    assert_eq!(lab.said(), "RSET|");
    lab.exchange.client_lost();
    lab.collect();
    assert_eq!(lab.asked(), ends(Fate::Abort, TransactionEnd::Refused));
    let mut lab = Lab::buffering();
    lab.hear("554 5.7.1 no");
    lab.hear("250 reset");
    assert_eq!(lab.asked(), [Output::Release(Fate::Keep)]);
    lab.exchange.client_lost();
    lab.collect();
    assert_eq!(lab.asked(), [Output::End(TransactionEnd::Refused)]);
}

#[test]
fn rule_f9_without_a_recipient_nobody_is_told_354() {
    let mut lab = Lab::with(BUFFERING);
    lab.say("MAIL FROM:<a@x>");
    lab.say("RCPT TO:<b@y>");
    lab.lease(FRESH);
    lab.hear("250 ok");
    lab.hear("550 5.1.1 no");
    lab.told();
    lab.said();
    lab.say("DATA");
    assert_eq!(lab.told(), ["554 5.5.1 no valid recipients"]);
    assert_eq!(lab.said(), "");
}

/// A backend whose provider counts recipients: one place came with the connection.
const COUNTED: Leased = Leased {
    places: Some(1),
    ..FRESH
};
const NO_PLACE: &str = "452 4.5.3 too many recipients";

impl Lab {
    fn grant(&mut self, places: u32) {
        self.exchange.reserved(places, Elsewhere::None, self.now);
        self.collect();
    }
}

#[test]
fn a_group_is_said_as_far_as_there_are_places_and_the_rest_is_told_452() {
    let mut lab = Lab::new();
    for line in [
        "MAIL FROM:<a@x>",
        "RCPT TO:<b@y>",
        "RCPT TO:<c@y>",
        "RCPT TO:<d@y>",
        "DATA",
    ] {
        lab.say(line);
    }
    lab.lease(COUNTED);
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
    assert_eq!(lab.asked(), [Output::Lease(Want::Any), Output::Reserve(2)]);
    lab.grant(1);
    assert_eq!(lab.said(), "RCPT TO:<c@y>|");
    assert_eq!(lab.asked(), [Output::Reserve(1)]);
    lab.grant(0);
    assert_eq!((lab.said(), lab.asked()), (String::new(), vec![]));
    lab.hear("250 ok");
    lab.hear("250 first");
    assert_eq!(lab.told(), ["250 ok", "250 first"]);
    assert_eq!(lab.asked(), [], "one that is not answered may be refused");
    lab.hear("250 second");
    assert_eq!(lab.asked(), [Output::Reserve(1)]);
    lab.grant(0);
    assert_eq!(lab.told(), ["250 second", NO_PLACE]);
    assert_eq!(lab.said(), "DATA|");
    lab.hear("354 go on");
    assert_eq!(lab.exchange.recipients_accepted().count(), 2);
    assert_eq!(lab.exchange.recipients_refused(), 1);
}

#[test]
fn the_place_of_a_refused_recipient_is_the_next_one_s_or_given_back() {
    let mut lab = Lab::new();
    for line in [
        "MAIL FROM:<a@x>",
        "RCPT TO:<b@y>",
        "RCPT TO:<c@y>",
        "RCPT TO:<d@y>",
    ] {
        lab.say(line);
    }
    lab.lease(COUNTED);
    lab.grant(1);
    lab.grant(0);
    lab.asked();
    lab.said();
    for reply in ["250 ok", "550 5.1.1 unknown", "250 second"] {
        lab.hear(reply);
    }
    assert_eq!(lab.said(), "RCPT TO:<d@y>|");
    assert_eq!(lab.asked(), []);
    lab.hear("550 5.1.1 unknown");
    assert_eq!(lab.asked(), [Output::GiveBack(1)]);
    assert_eq!(lab.told().len(), 4);
}

#[test]
fn the_first_place_stays_as_long_as_the_connection() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(COUNTED);
    lab.hear("250 ok");
    lab.asked();
    for _ in 0..3 {
        lab.say("RCPT TO:<b@y>");
        assert_eq!(lab.asked(), []);
        lab.hear("550 5.1.1 unknown");
    }
    assert_eq!(lab.asked(), [], "so that a later one need not move");
}

#[test]
fn where_commands_go_one_by_one_places_are_asked_for_one_by_one() {
    let mut lab = Lab::new();
    for line in [
        "MAIL FROM:<a@x>",
        "RCPT TO:<b@y>",
        "RCPT TO:<c@y>",
        "RCPT TO:<d@y>",
    ] {
        lab.say(line);
    }
    lab.lease(Leased {
        places: Some(1),
        ..SERIAL
    });
    lab.hear("250 ok");
    assert_eq!(lab.said(), "MAIL FROM:<a@x>|RCPT TO:<b@y>|");
    lab.asked();
    lab.hear("250 first");
    assert_eq!(lab.asked(), [Output::Reserve(1)]);
    lab.say("DATA");
    assert_eq!(lab.asked(), [], "asked is asked");
    lab.grant(1);
    assert_eq!(lab.said(), "RCPT TO:<c@y>|");
    lab.hear("250 second");
    lab.grant(0);
    assert_eq!(lab.said(), "DATA|");
    assert_eq!(lab.told(), ["250 ok", "250 first", "250 second", NO_PLACE]);
}

#[test]
fn another_backend_has_places_for_all_that_were_accepted_f8() {
    let mut lab = Lab::new();
    for line in [
        "MAIL FROM:<a@x>",
        "RCPT TO:<b@y>",
        "RCPT TO:<c@y>",
        "RCPT TO:<d@y>",
    ] {
        lab.say(line);
    }
    lab.lease(COUNTED);
    lab.grant(1);
    lab.grant(0);
    for reply in ["250 ok", "250 first", "250 second"] {
        lab.hear(reply);
    }
    lab.asked();
    lab.said();
    lab.lose("");
    assert_eq!(lab.asked(), moves(Trouble::Lost));
    lab.grant(1);
    assert_eq!(
        lab.said(),
        "",
        "what was got for the lost one is not its successor's"
    );
    lab.lease(Leased {
        places: Some(2),
        ..FRESH
    });
    let group = "MAIL FROM:<a@x>|RCPT TO:<b@y>|RCPT TO:<c@y>|";
    assert_eq!(
        (lab.said(), lab.asked()),
        (group.to_owned(), vec![Output::Reserve(1)])
    );
    lab.grant(1);
    assert_eq!(lab.said(), "RCPT TO:<d@y>|");
    lab.told();
    for reply in ["250 ok", "250 first", "250 second", "250 third"] {
        lab.hear(reply);
    }
    assert_eq!(lab.told(), ["250 third"]);
}

#[test]
fn without_a_place_for_the_first_recipient_it_moves_and_nobody_is_struck() {
    let none = Leased {
        places: Some(0),
        ..FRESH
    };
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.lease(none);
    lab.hear("250 ok");
    lab.asked();
    for _ in 0..MOVES_MAX {
        if lab.exchange.recipients() == 0 {
            lab.say("RCPT TO:<b@y>");
        }
        assert_eq!(lab.asked(), [Output::Reserve(1)]);
        lab.grant(0);
        let moves = [Output::Release(Fate::Abort), Output::Lease(Want::Other)];
        assert_eq!(lab.asked(), moves);
        lab.lease(none);
        lab.hear("250 ok");
    }
    lab.told();
    lab.grant(0);
    assert_eq!(
        lab.told(),
        ["451 4.3.2 service not available, try again later"]
    );
}

#[test]
fn a_transaction_moves_to_where_there_is_room_for_all_its_recipients() {
    let mut lab = Lab::new();
    lab.say("MAIL FROM:<a@x>");
    lab.say("RCPT TO:<b@y>");
    lab.lease(COUNTED);
    lab.hear("250 ok");
    lab.hear("250 ok");
    lab.told();
    lab.asked();
    lab.say("RCPT TO:<c@y>");
    assert_eq!(lab.asked(), [Output::Reserve(1)]);
    lab.exchange.reserved(0, Elsewhere::Room, lab.now);
    lab.collect();
    assert!(lab.told().is_empty());
    let asked = [Output::Release(Fate::Abort), Output::Lease(Want::Other)];
    assert_eq!(lab.asked(), asked, "nobody is to blame");
    lab.said();
    lab.lease(Leased {
        places: Some(2),
        ..FRESH
    });
    assert!(lab.said().starts_with("MAIL FROM:<a@x>|RCPT TO:<b@y>|"));
    lab.hear("250 ok");
    lab.hear("250 ok");
    lab.hear("250 2.1.5 this one too");
    assert_eq!(lab.told(), ["250 2.1.5 this one too"]);
}
