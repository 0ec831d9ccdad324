//! Probes of scripted backends.

use proptest::prelude::*;

use super::*;

/// What is expected to be sent, and the reply to it.
type Script<'a> = &'a [(&'a str, &'a str)];

const SECOND: Duration = Duration::from_secs(1);

fn plan(depth: u8) -> ProbePlan {
    ProbePlan {
        depth,
        ehlo_name: "lb.example".into(),
        recipient: Some("probe@example.com".into()),
        greeting_timeout: 8 * SECOND,
        timeout: 5 * SECOND,
        proxied: false,
    }
}

/// Plays `script`, a reply per expected command (`""` first, for the greeting), and gives the end.
///
/// `"TLS"` stands for a handshake. A script that ends early ends with the backend closing.
fn play(conversation: &mut Conversation, script: Script<'_>) -> ProbeEnd {
    let mut output = conversation.handle(ProbeInput::Connected);
    for (command, reply) in script {
        match &output {
            ProbeOutput::Exchange { send, .. } => {
                let expected = if command.is_empty() {
                    String::new()
                } else {
                    format!("{command}\r\n")
                };
                assert_eq!(String::from_utf8_lossy(send), expected);
                output = conversation.handle(ProbeInput::Octets(reply.as_bytes()));
            }
            ProbeOutput::StartTls { .. } => {
                assert_eq!(*command, "TLS");
                output = conversation.handle(ProbeInput::TlsDone);
            }
            ProbeOutput::More | ProbeOutput::Done(_) => {
                panic!("{output:?} where {command} was expected")
            }
        }
    }
    match output {
        ProbeOutput::Done(end) => end,
        ProbeOutput::Exchange { .. } | ProbeOutput::More | ProbeOutput::StartTls { .. } => {
            match conversation.handle(ProbeInput::Closed) {
                ProbeOutput::Done(end) => end,
                other => panic!("{other:?} after the close"),
            }
        }
    }
}

fn probe(plan: ProbePlan, script: Script<'_>) -> ProbeEnd {
    play(&mut Conversation::new(plan), script)
}

/// How it ended: stage, failure, code, full.
fn verdict(end: &ProbeEnd) -> (ProbeStage, Option<ProbeFailure>, Option<u16>, bool) {
    (end.stage, end.failure, end.code, end.full)
}

const GREETING: (&str, &str) = ("", "220-mx.example\r\n220 mx.example ESMTP\r\n");
const EHLO: (&str, &str) = (
    "EHLO lb.example",
    "250-mx.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 PIPELINING\r\n",
);
const EHLO_PLAIN: (&str, &str) = ("EHLO lb.example", "250-mx.example\r\n250 8BITMIME\r\n");
const STARTTLS: (&str, &str) = ("STARTTLS", "220 2.0.0 ready\r\n");
const TLS: (&str, &str) = ("TLS", "");
const MAIL: (&str, &str) = ("MAIL FROM:<>", "250 2.1.0 ok\r\n");
const RCPT: (&str, &str) = ("RCPT TO:<probe@example.com>", "250 2.1.5 ok\r\n");
const RSET: (&str, &str) = ("RSET", "250 2.0.0 ok\r\n");
const QUIT: (&str, &str) = ("QUIT", "221 2.0.0 bye\r\n");

#[test]
fn rule_h1_each_depth_says_one_command_per_flight_and_quits() {
    let scripts: [(u8, ProbeStage, Script<'_>); 6] = [
        (0, ProbeStage::Connect, &[]),
        (1, ProbeStage::Greeting, &[GREETING, QUIT]),
        (2, ProbeStage::Ehlo, &[GREETING, EHLO, QUIT]),
        (
            3,
            ProbeStage::Starttls,
            &[GREETING, EHLO, STARTTLS, TLS, EHLO_PLAIN, QUIT],
        ),
        (
            4,
            ProbeStage::Mail,
            &[GREETING, EHLO_PLAIN, MAIL, RCPT, RSET, QUIT],
        ),
        (
            4,
            ProbeStage::Mail,
            &[
                GREETING, EHLO, STARTTLS, TLS, EHLO_PLAIN, MAIL, RCPT, RSET, QUIT,
            ],
        ),
    ];
    for (depth, stage, script) in scripts {
        let end = probe(plan(depth), script);
        assert_eq!(
            (end.stage, end.failure, end.full),
            (stage, None, false),
            "depth {depth}"
        );
    }
}

#[test]
fn what_a_backend_announces_is_recorded_and_forgotten_at_tls() {
    let end = probe(plan(2), &[GREETING, EHLO, QUIT]);
    assert_eq!(end.keywords, ["SIZE 1000", "STARTTLS", "PIPELINING"]);
    assert_eq!(end.greeting_text.as_deref(), Some("mx.example"));
    let end = probe(plan(3), &[GREETING, EHLO, STARTTLS, TLS, EHLO_PLAIN, QUIT]);
    assert_eq!(end.keywords, ["8BITMIME"]);
    // Rule T3: a session that broke off in between has none.
    let end = probe(plan(3), &[GREETING, EHLO, STARTTLS, TLS]);
    assert!(end.keywords.is_empty());
}

#[test]
fn rule_h6_nothing_is_said_before_the_last_line_of_the_greeting() {
    let mut conversation = Conversation::new(plan(2));
    let first = conversation.handle(ProbeInput::Connected);
    assert_eq!(
        first,
        ProbeOutput::Exchange {
            send: Vec::new(),
            wait: 8 * SECOND
        }
    );
    let teaser = conversation.handle(ProbeInput::Octets(b"220-mx.example ESMTP\r\n"));
    assert_eq!(teaser, ProbeOutput::More);
    let whole = conversation.handle(ProbeInput::Octets(b"220 mx.example ESMTP\r\n"));
    let send = b"EHLO lb.example\r\n".to_vec();
    assert_eq!(
        whole,
        ProbeOutput::Exchange {
            send,
            wait: 5 * SECOND
        }
    );
}

#[test]
fn rule_h5_a_missing_221_fails_no_probe() {
    for ending in [ProbeInput::Closed, ProbeInput::Reset, ProbeInput::TimedOut] {
        let mut conversation = Conversation::new(plan(1));
        conversation.handle(ProbeInput::Connected);
        let quit = conversation.handle(ProbeInput::Octets(b"220 mx\r\n"));
        assert_eq!(
            quit,
            ProbeOutput::Exchange {
                send: b"QUIT\r\n".to_vec(),
                wait: QUIT_WAIT
            }
        );
        let ProbeOutput::Done(end) = conversation.handle(ending) else {
            panic!("the probe is over");
        };
        assert_eq!(
            verdict(&end),
            (ProbeStage::Greeting, None, Some(220), false)
        );
    }
}

#[test]
fn after_quit_only_the_221_and_the_bound_count() {
    let mut conversation = Conversation::new(plan(1));
    conversation.handle(ProbeInput::Connected);
    conversation.handle(ProbeInput::Octets(b"220 mx\r\n"));
    let more = conversation.handle(ProbeInput::Octets(b"500 what\r\n500 was"));
    assert_eq!(more, ProbeOutput::More);
    let mut steps = 0;
    while conversation.handle(ProbeInput::Octets(b" that\r\n500 was")) == ProbeOutput::More {
        steps += 1;
    }
    assert!(
        steps * 14 < QUIT_OCTETS_MAX && steps * 16 > QUIT_OCTETS_MAX - 100,
        "{steps}"
    );
}

#[test]
fn rule_h4_refusals_are_told_from_being_full() {
    use ProbeFailure::{Garbage, Permanent, Temporary};
    let greetings = [
        ("421 4.3.2 All server ports are busy", None, true),
        (
            "421 4.7.0 mx Error: too many connections from 192.0.2.4",
            None,
            true,
        ),
        ("421 4.3.1 insufficient storage", None, true),
        (
            "421 mx: Too many concurrent SMTP connections; please try again later",
            None,
            true,
        ),
        ("421 4.3.0 mx Server local error", Some(Temporary), false),
        ("421 4.7.1 go away", Some(Temporary), false),
        ("421 mx closing", Some(Temporary), false),
        ("421 4.4.2 mx timeout", Some(Temporary), false),
        (
            "450 4.3.2 Service currently unavailable",
            Some(Temporary),
            false,
        ),
        ("554 5.3.2 no service", Some(Permanent), false),
        ("250 2.0.0 hello", Some(Garbage), false),
        ("354 go on", Some(Garbage), false),
    ];
    for (greeting, failure, full) in greetings {
        let end = probe(plan(2), &[("", &format!("{greeting}\r\n"))]);
        let code = greeting[..3].parse().ok();
        assert_eq!(
            verdict(&end),
            (ProbeStage::Greeting, failure, code, full),
            "{greeting}"
        );
        assert_eq!(end.text.as_deref(), Some(&greeting[4..]));
        assert_eq!(end.greeting_text, None);
    }
}

#[test]
fn rule_s6_a_refusing_backend_is_left_with_quit_and_a_closing_one_without() {
    let end = probe(plan(2), &[("", "554 no service\r\n"), QUIT]);
    assert_eq!(end.failure, Some(ProbeFailure::Permanent));
    let mut conversation = Conversation::new(plan(2));
    conversation.handle(ProbeInput::Connected);
    let output = conversation.handle(ProbeInput::Octets(b"421 closing\r\n"));
    assert!(matches!(output, ProbeOutput::Done(_)));
}

#[test]
fn a_backend_that_ends_or_is_silent_is_down_at_the_stage_it_had_reached() {
    let scripts: [(ProbeStage, Script<'_>); 4] = [
        (ProbeStage::Greeting, &[]),
        (ProbeStage::Ehlo, &[GREETING]),
        (ProbeStage::Starttls, &[GREETING, EHLO]),
        (ProbeStage::Mail, &[GREETING, EHLO_PLAIN, MAIL]),
    ];
    for (stage, script) in scripts {
        let depth = if stage == ProbeStage::Mail { 4 } else { 3 };
        let end = probe(plan(depth), script);
        assert_eq!(
            verdict(&end),
            (stage, Some(ProbeFailure::Closed), None, false)
        );
    }
    let endings = [
        (ProbeInput::TimedOut, ProbeFailure::Timeout),
        (ProbeInput::Reset, ProbeFailure::Reset),
        (ProbeInput::Closed, ProbeFailure::Closed),
    ];
    for (input, failure) in endings {
        let mut conversation = Conversation::new(plan(2));
        let ProbeOutput::Done(end) = conversation.handle(input) else {
            panic!("there is no connection");
        };
        assert_eq!(
            (end.stage, end.failure),
            (ProbeStage::Connect, Some(failure))
        );
    }
}

#[test]
fn garbage_is_named() {
    let end = probe(plan(2), &[("", "SSH-2.0-OpenSSH\r\n")]);
    assert_eq!(
        (end.stage, end.failure),
        (ProbeStage::Greeting, Some(ProbeFailure::Garbage))
    );
    assert_eq!(end.text.as_deref(), Some("not a reply: SSH-2.0-OpenSSH??"));
    let end = probe(plan(2), &[("", "220 a\r\n220 b\r\n")]);
    assert_eq!(end.text.as_deref(), Some("more replies than commands"));
}

#[test]
fn rule_x13_a_header_read_as_commands_is_a_mismatch() {
    let proxied = ProbePlan {
        proxied: true,
        ..plan(2)
    };
    let mismatch = |end: &ProbeEnd, code| {
        let expected = (
            ProbeStage::Ehlo,
            Some(ProbeFailure::ProxyMismatch),
            Some(code),
            false,
        );
        assert_eq!(verdict(end), expected);
    };
    for code in MISMATCH_CODES {
        let reply = format!("{code} what?\r\n");
        let script = [
            ("", "220 mx\r\n"),
            ("EHLO lb.example", reply.as_str()),
            ("QUIT", "250 mx\r\n"),
        ];
        mismatch(&probe(proxied.clone(), &script), code);
        // The answer to the header came together with the greeting, in whole or in part.
        let together = format!("220 mx\r\n{reply}");
        mismatch(&probe(proxied.clone(), &[("", &together)]), code);
        let (begun, rest) = reply.split_at(2);
        let script = [
            ("", &*format!("220 mx\r\n{begun}")),
            ("EHLO lb.example", rest),
        ];
        mismatch(&probe(proxied.clone(), &script), code);
    }
    // Postfix to a v2 header it does not expect: the signature holds a QUIT.
    let burst = "220 mx\r\n500 5.5.2 Error\r\n500 5.5.2 Error\r\n500 5.5.2 Error\r\n221 Bye\r\n";
    mismatch(&probe(proxied.clone(), &[("", burst)]), 500);
    // The same burst, when the greeting came alone and we had asked already.
    let late = "500 5.5.2 Error\r\n500 5.5.2 Error\r\n500 5.5.2 Error\r\n221 Bye\r\n";
    let script = [("", "220 mx\r\n"), ("EHLO lb.example", late)];
    mismatch(&probe(proxied.clone(), &script), 500);
    // Postfix 3.9, which calls the header a client that does not wait for its greeting.
    let early = "554 5.5.0 Error: SMTP protocol synchronization\r\n";
    let end = probe(proxied.clone(), &[("", early)]);
    assert_eq!(end.stage, ProbeStage::Greeting);
    assert_eq!(end.failure, Some(ProbeFailure::ProxyMismatch));
    let end = probe(plan(2), &[("", early)]);
    assert_eq!(end.failure, Some(ProbeFailure::Permanent));
    // Other refusals are what they are.
    let end = probe(proxied.clone(), &[("", "554 5.7.1 not you\r\n")]);
    assert_eq!(end.failure, Some(ProbeFailure::Permanent));
    let refused = [
        ("", "220 mx\r\n"),
        ("EHLO lb.example", "550 5.7.1 no\r\n"),
        QUIT,
    ];
    assert_eq!(
        probe(proxied.clone(), &refused).failure,
        Some(ProbeFailure::Permanent)
    );
    let good = probe(proxied, &[GREETING, EHLO, QUIT]);
    assert_eq!(verdict(&good), (ProbeStage::Ehlo, None, Some(250), false));
}

#[test]
fn rule_x13_a_header_that_is_missed_is_a_mismatch() {
    let exim = "503 Invalid greeting, required Proxy negotiation failed\r\n";
    let end = probe(
        plan(2),
        &[("", "220 mx\r\n"), ("EHLO lb.example", exim), QUIT],
    );
    assert_eq!(end.failure, Some(ProbeFailure::ProxyMismatch));
    let end = probe(
        plan(2),
        &[("", "220 mx\r\n"), ("EHLO lb.example", "503 no\r\n"), QUIT],
    );
    assert_eq!(end.failure, Some(ProbeFailure::Permanent));
    let other = "500 Proxy?\r\n";
    let end = probe(
        plan(2),
        &[("", "220 mx\r\n"), ("EHLO lb.example", other), QUIT],
    );
    assert_eq!(end.failure, Some(ProbeFailure::Permanent));
}

#[test]
fn starttls_must_be_there_and_work() {
    use ProbeFailure::{Permanent, Temporary, Timeout, Tls};
    let end = probe(plan(3), &[GREETING, EHLO_PLAIN, QUIT]);
    assert_eq!(
        verdict(&end),
        (ProbeStage::Starttls, Some(Tls), None, false)
    );
    for (reply, failure) in [
        ("454 4.7.0 no key\r\n", Temporary),
        ("502 no\r\n", Permanent),
    ] {
        let end = probe(plan(3), &[GREETING, EHLO, ("STARTTLS", reply), QUIT]);
        assert_eq!(
            (end.stage, end.failure),
            (ProbeStage::Starttls, Some(failure))
        );
    }
    for (input, failure) in [
        (ProbeInput::TlsFailed, Tls),
        (ProbeInput::TimedOut, Timeout),
    ] {
        let mut conversation = Conversation::new(plan(3));
        conversation.handle(ProbeInput::Connected);
        for reply in [GREETING.1, EHLO.1, STARTTLS.1] {
            conversation.handle(ProbeInput::Octets(reply.as_bytes()));
        }
        let ProbeOutput::Done(end) = conversation.handle(input) else {
            panic!("the handshake failed");
        };
        assert_eq!(
            verdict(&end),
            (ProbeStage::Starttls, Some(failure), None, false)
        );
    }
}

#[test]
fn rule_t2_octets_behind_the_220_to_starttls_end_the_probe() {
    let injected = ("STARTTLS", "220 ready\r\n250 injected\r\n");
    let end = probe(plan(3), &[GREETING, EHLO, injected]);
    assert_eq!(
        (end.stage, end.failure),
        (ProbeStage::Starttls, Some(ProbeFailure::Garbage))
    );
    let partly = ("STARTTLS", "220 ready\r\n\x16");
    let end = probe(plan(3), &[GREETING, EHLO, partly]);
    assert_eq!(
        end.text.as_deref(),
        Some("octets behind the 220 to STARTTLS")
    );
}

#[test]
fn rule_h4_greylisting_is_not_down() {
    let replies = [
        ("450 4.2.0 greylisted, see you later", None),
        ("450 4.7.1 try again", None),
        ("451 4.7.1 try again", None),
        ("450 you are greylisted", None),
        ("450 4.1.1 unverified", Some(ProbeFailure::Temporary)),
        ("452 4.3.1 no space", Some(ProbeFailure::Temporary)),
        ("451 later", Some(ProbeFailure::Temporary)),
        ("550 5.1.1 unknown", Some(ProbeFailure::Permanent)),
    ];
    for (reply, failure) in replies {
        let rcpt = (RCPT.0, &*format!("{reply}\r\n"));
        let last: Script<'_> = if failure.is_none() {
            &[RSET, QUIT]
        } else {
            &[QUIT]
        };
        let script = [&[GREETING, EHLO_PLAIN, MAIL, rcpt], last].concat();
        let end = probe(plan(4), &script);
        assert_eq!(
            (end.stage, end.failure),
            (ProbeStage::Mail, failure),
            "{reply}"
        );
    }
}

#[test]
fn a_backend_that_closes_at_rset_is_refusing_and_any_other_answer_is_good() {
    let start = [GREETING, EHLO_PLAIN, MAIL, RCPT];
    let closing = [&start[..], &[("RSET", "421 4.4.2 closing\r\n")]].concat();
    assert_eq!(
        probe(plan(4), &closing).failure,
        Some(ProbeFailure::Temporary)
    );
    let odd = [&start[..], &[("RSET", "502 what\r\n"), QUIT]].concat();
    let end = probe(plan(4), &odd);
    // The reply to RCPT is the one that decides.
    assert_eq!(verdict(&end), (ProbeStage::Mail, None, Some(250), false));
    assert_eq!(end.text.as_deref(), Some("2.1.5 ok"));
}

#[test]
fn without_recipient_mail_is_taken_back_at_once() {
    let plan = ProbePlan {
        recipient: None,
        ..plan(4)
    };
    let end = probe(plan, &[GREETING, EHLO_PLAIN, MAIL, RSET, QUIT]);
    assert_eq!((end.stage, end.failure), (ProbeStage::Mail, None));
}

#[test]
fn rule_d11_the_relay_test_records_the_answer_and_fails_nothing() {
    let foreign = "RCPT TO:<postmaster@foreign.example>";
    let tested = |depth, script: Script<'_>| {
        let conversation = Conversation::new(plan(depth));
        play(
            &mut conversation.with_relay_test("postmaster@foreign.example".into()),
            script,
        )
    };
    let answers = [
        ("250 2.1.5 ok\r\n", RelayTest::Accepted),
        ("554 5.7.1 relay access denied\r\n", RelayTest::Refused),
        ("450 4.7.1 greylisted\r\n", RelayTest::Refused),
    ];
    for (answer, relay) in answers {
        let end = tested(
            2,
            &[GREETING, EHLO_PLAIN, MAIL, (foreign, answer), RSET, QUIT],
        );
        assert_eq!(
            (end.relay, verdict(&end)),
            (Some(relay), (ProbeStage::Ehlo, None, Some(250), false))
        );
        let script = [
            GREETING,
            EHLO_PLAIN,
            MAIL,
            RCPT,
            RSET,
            MAIL,
            (foreign, answer),
            RSET,
            QUIT,
        ];
        let end = tested(4, &script);
        assert_eq!(
            (end.relay, end.stage, end.failure),
            (Some(relay), ProbeStage::Mail, None)
        );
    }
    let refused = (MAIL.0, "530 5.7.0 authenticate first\r\n");
    let end = tested(2, &[GREETING, EHLO_PLAIN, refused, QUIT]);
    assert_eq!((end.relay, end.failure), (None, None));
    let closing = (foreign, "421 4.7.0 go away\r\n");
    let end = tested(2, &[GREETING, EHLO_PLAIN, MAIL, closing]);
    assert_eq!(
        (end.relay, end.failure, end.full),
        (Some(RelayTest::Refused), None, false)
    );
    // The backend hangs up on the test: nothing is known, nothing failed.
    let end = tested(2, &[GREETING, EHLO_PLAIN, MAIL]);
    assert_eq!((end.relay, end.failure), (None, None));
}

#[test]
fn a_name_cannot_smuggle_a_command() {
    let plan = ProbePlan {
        ehlo_name: "lb\r\nDATA".into(),
        ..plan(2)
    };
    let end = probe(plan, &[GREETING, ("EHLO lbDATA", EHLO.1), QUIT]);
    assert_eq!(end.failure, None);
}

#[test]
fn the_result_is_final() {
    let mut conversation = Conversation::new(plan(0));
    let end = conversation.handle(ProbeInput::Connected);
    assert_eq!(
        conversation.handle(ProbeInput::Octets(b"421 late\r\n")),
        end
    );
    assert_eq!(conversation.handle(ProbeInput::Reset), end);
}

proptest! {
    #[test]
    fn chunks_make_no_difference(size in 1_usize..9) {
        let mut conversation = Conversation::new(plan(4));
        conversation.handle(ProbeInput::Connected);
        let mut last = ProbeOutput::More;
        for reply in [GREETING.1, EHLO_PLAIN.1, MAIL.1, RCPT.1, RSET.1, QUIT.1] {
            for chunk in reply.as_bytes().chunks(size) {
                last = conversation.handle(ProbeInput::Octets(chunk));
            }
        }
        let expected = probe(plan(4), &[GREETING, EHLO_PLAIN, MAIL, RCPT, RSET, QUIT]);
        prop_assert_eq!(last, ProbeOutput::Done(expected));
    }
}
