//! What the fuzzers of commands, content, sessions, replies, greetings and dialogues check; the unit tests
//! replay their corpora.

mod commands;
mod data;
mod session;

use std::time::Duration;

use memchr::memchr_iter;

pub use commands::fuzz_commands;
pub use data::fuzz_data;
pub use session::fuzz_session;

use super::{
    CLOSING_COMMANDS_MAX, ClosingDialogue, Conversation, Greeting, GreetingJudgement, GreetingRule,
    IdentityCarried, Next, ProbeEnd, ProbeInput, ProbeOutput, ProbePlan, ProbeStage,
    REPLY_LINE_MAX, REPLY_LINES_MAX, REPLY_MAX, Readiness, ReplyRead, SHORT_TEXT_MAX,
    judge_greeting, read_greeting, read_reply,
};

/// Flights of the longest probe: greeting, EHLO, STARTTLS, EHLO, two times MAIL, RCPT and RSET,
/// QUIT.
const FLIGHTS_MAX: usize = 11;

/// Any octets: the same verdict for any chunking, and every verdict can be judged and shown.
///
/// # Panics
/// When a reader is wrong.
pub fn fuzz_greeting(data: &[u8]) {
    let reply = read_reply(data);
    let greeting = read_greeting(data);
    let line_ends = data
        .iter()
        .enumerate()
        .filter(|&(_, &octet)| octet == b'\n');
    let around = line_ends.take(160).flat_map(|(at, _)| [at, at + 1]);
    let ends = (0..data.len().min(256))
        .chain(around)
        .chain(data.len().checked_sub(1));
    for part in ends.map(|end| &data[..end]) {
        let read = read_reply(part);
        assert!(
            read == ReplyRead::Incomplete || read == reply,
            "{read:?} then {reply:?}"
        );
        let read = read_greeting(part);
        assert!(
            read == Greeting::Incomplete || read == greeting,
            "{read:?} then {greeting:?}"
        );
    }
    if data.len() >= REPLY_MAX {
        assert!(reply != ReplyRead::Incomplete && greeting != Greeting::Incomplete);
    }
    if let ReplyRead::Complete(reply) = &reply {
        assert!(data.starts_with(reply.octets) && reply.octets.ends_with(b"\n"));
        assert!((1..=REPLY_LINES_MAX).contains(&reply.lines().count()));
        assert!(reply.lines().all(|line| !line.contains(&b'\n')));
        check_grammar(reply.octets);
        let text = reply.short_text();
        assert!(
            text.len() <= SHORT_TEXT_MAX && text.bytes().all(|octet| (32..127).contains(&octet))
        );
        assert!((200..600).contains(&reply.code.value()));
        assert_eq!(reply.code.value() == 220, greeting == Greeting::Good);
    }
    if let Greeting::Bad(reply) = &greeting {
        for rule in [GreetingRule::Auto, GreetingRule::Next, GreetingRule::Relay] {
            let hidden = judge_greeting(reply, IdentityCarried::No, rule);
            let known = judge_greeting(reply, IdentityCarried::Yes, rule);
            assert!(rule == GreetingRule::Auto || hidden == known);
            assert!(known == GreetingJudgement::Next || reply.code.class() >= 4);
        }
    }
}

/// Rule G5, said a second time: slowly, and of a whole reply only.
fn check_grammar(octets: &[u8]) {
    let lines: Vec<_> = octets.split_inclusive(|&octet| octet == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        assert!(line.len() <= REPLY_LINE_MAX && line[..3] == octets[..3]);
        let last = index + 1 == lines.len();
        let end_of_code = line[3] == b' ' || line[3..] == *b"\r\n" || line[3..] == *b"\n";
        assert!(
            if last { end_of_code } else { line[3] == b'-' },
            "{}",
            line.escape_ascii()
        );
    }
}

/// Any octets, read as a plan and what happens to it: a probe keeps its rules and ends; or as what
/// a client says to us: a closing dialogue keeps its bounds.
///
/// # Panics
/// When a machine is wrong.
pub fn fuzz_dialogues(data: &[u8]) {
    match data.split_first() {
        None => {}
        Some((&first, rest)) if first >= 0xf0 => close(first, rest),
        Some((&first, rest)) => probe(first, rest),
    }
}

fn probe(first: u8, rest: &[u8]) {
    let plan = ProbePlan {
        depth: first % 5,
        ehlo_name: "lb.example".into(),
        recipient: (first & 32 == 0).then(|| "probe@example.com".into()),
        greeting_timeout: Duration::from_secs(8),
        timeout: Duration::from_secs(5),
        proxied: first & 64 == 0,
    };
    let mut conversation = Conversation::new(plan);
    if first & 16 == 0 {
        conversation = conversation.with_relay_test("postmaster@foreign.example".into());
    }
    let mut flights = 0;
    let mut output = conversation.handle(ProbeInput::Connected);
    let mut rest = rest;
    loop {
        let (input, behind) = next_input(rest);
        rest = behind;
        match &output {
            ProbeOutput::Exchange { send, .. } => {
                flights += 1;
                assert!(flights <= FLIGHTS_MAX, "a probe without end");
                check_flight(send, flights);
            }
            ProbeOutput::More | ProbeOutput::StartTls { .. } => {}
            ProbeOutput::Done(end) => {
                check_end(end);
                assert_eq!(conversation.handle(input), output, "the result is final");
                return;
            }
        }
        output = conversation.handle(input);
    }
}

/// Takes what happens next from the fuzzer's octets; at their end the backend closes.
fn next_input(data: &[u8]) -> (ProbeInput<'_>, &[u8]) {
    let Some((&kind, rest)) = data.split_first() else {
        return (ProbeInput::Closed, data);
    };
    match kind {
        0xff => (ProbeInput::TlsDone, rest),
        0xfe => (ProbeInput::TlsFailed, rest),
        0xfd => (ProbeInput::TimedOut, rest),
        0xfc => (ProbeInput::Reset, rest),
        0xfb => (ProbeInput::Closed, rest),
        0xfa => (ProbeInput::Connected, rest),
        length => {
            let (octets, rest) = rest.split_at(rest.len().min(usize::from(length)));
            (ProbeInput::Octets(octets), rest)
        }
    }
}

/// Rules H1 and P6: one command per flight, none of them DATA.
fn check_flight(send: &[u8], flights: usize) {
    let line = send.strip_suffix(b"\r\n").unwrap_or(send);
    assert!(
        !line.iter().any(u8::is_ascii_control),
        "{}",
        send.escape_ascii()
    );
    assert_eq!(
        send.is_empty(),
        flights == 1,
        "only the greeting comes unasked"
    );
    assert!(!line.starts_with(b"DATA") && !line.starts_with(b"BDAT"));
}

fn check_end(end: &ProbeEnd) {
    assert!(!end.full || end.failure.is_none(), "full is not down");
    assert!(!end.full || end.code == Some(421));
    assert_ne!(end.stage, ProbeStage::Quit, "QUIT decides nothing");
    assert!(end.keywords.len() < REPLY_LINES_MAX);
    let texts = end
        .text
        .iter()
        .chain(&end.greeting_text)
        .chain(&end.keywords);
    for text in texts {
        assert!(text.len() <= SHORT_TEXT_MAX, "{text}");
        assert!(
            text.bytes().all(|octet| (32..127).contains(&octet)),
            "{text}"
        );
    }
}

fn close(first: u8, rest: &[u8]) {
    let dialogue = || match first & 3 {
        0 | 1 => ClosingDialogue::denied("mx.example"),
        2 => ClosingDialogue::monitor("mx.example", Readiness::Ready),
        _ => ClosingDialogue::monitor("mx.example", Readiness::NotReady),
    };
    let mut at_once = (dialogue(), Vec::new());
    at_once.0.handle(rest, &mut at_once.1);
    let mut by_octet = (dialogue(), Vec::new());
    for octet in rest.chunks(1) {
        by_octet.0.handle(octet, &mut by_octet.1);
    }
    assert_eq!(at_once.1, by_octet.1);
    assert_eq!(at_once.0.next(), by_octet.0.next());
    let replies = memchr_iter(b'\n', &at_once.1).count();
    assert!(replies <= usize::from(CLOSING_COMMANDS_MAX) && at_once.1.len() <= 80 * replies);
    let commands = memchr_iter(b'\n', rest).count();
    assert!(replies == commands || at_once.0.next() == Next::Close);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn replay(corpus: &str, check: fn(&[u8])) {
        let corpus = format!("{}/fuzz/corpus/{corpus}", env!("CARGO_MANIFEST_DIR"));
        let mut entries = 0;
        for entry in std::fs::read_dir(&corpus).expect("the corpus is part of the house") {
            let path = entry.expect("the corpus can be listed").path();
            check(&std::fs::read(path).expect("an entry can be read"));
            entries += 1;
        }
        assert!(entries > 20, "{entries} entries in {corpus}");
    }

    #[test]
    fn the_corpora_are_handled() {
        replay("command", fuzz_commands);
        replay("greeting", fuzz_greeting);
        replay("probe", fuzz_dialogues);
        replay("session", |data| fuzz_session(Instant::now(), data));
    }

    /// Octets that are often nearly commands, or nearly a reply to EHLO.
    fn nearly_commands() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            "MAIL FROM:",
            "RCPT TO:",
            "EHLO ",
            "BDAT ",
            "AUTH PLAIN ",
            "DATA",
            "LAST",
            "GET ",
            "<",
            ">",
            "<>",
            "<a@b>",
            "a@b",
            "< a@b >",
            "STARTTLS",
            "\"",
            "\\",
            "@",
            ":",
            ".",
            ",",
            " ",
            "\t",
            "=",
            "+3D",
            "é",
            " SIZE=",
            "10",
            " BODY=8BITMIME",
            " SMTPUTF8",
            " RET=FULL",
            " ENVID=x",
            " NOTIFY=NEVER",
            " ORCPT=rfc822;x",
            "\r\n",
            "\r\n",
            "\r",
            "\n",
            "250-",
            "250 ",
            "8BITMIME",
            "SIZE ",
            "PIPELINING",
            "LIMITS RCPTMAX=5",
            "AUTH LOGIN",
            "4.7.0 ",
        ]);
        let piece = prop_oneof![
            9 => word.prop_map(|word| word.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
            1 => (480..2100_usize).prop_map(|length| vec![b'x'; length]),
        ];
        let pieces = prop::collection::vec(piece, 0..16);
        (any::<u8>(), pieces).prop_map(|(first, pieces)| {
            let mut octets = vec![first];
            octets.extend(pieces.concat());
            octets
        })
    }

    proptest! {
        #[test]
        fn sessions_keep_their_promises_whatever_happens(
            octets in prop::collection::vec(any::<u8>(), 2..400),
        ) {
            fuzz_session(Instant::now(), &octets);
        }

        #[test]
        fn commands_and_extensions_keep_their_laws(octets in nearly_commands()) {
            fuzz_commands(&octets);
        }
    }
}
