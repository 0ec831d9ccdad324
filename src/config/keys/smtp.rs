//! Keys of the tables that only mode "smtp" has.

use crate::smtp::{OwnReply, Wording};

use super::{DAY, Default, HOUR, Key, Kind, MINUTE, SECOND, Section, count, millis};

const MIB: u64 = 1 << 20;

pub(super) const LISTENER: Section = Section {
    path: "listeners.NAME.smtp",
    about: "A listener in mode \"smtp\": what clients may do, and what is kept so that a message \
            survives its backend. In mode \"passthrough\" it must not be there.",
    keys: &[
        Key {
            name: "client_quirks",
            kind: Kind::Word(&["accept", "reject"]),
            default: Default::Value("\"accept\""),
            at_limit: "reject answers 500 5.5.2 to LF and closes; 501 to the others.",
            why: "Whether commands that devices, scripts and old software get wrong are taken, as \
                  Postfix and Exim take them: LF for CRLF, `MAIL FROM: <a@b>`, `MAIL FROM:< a@b >`, \
                  `MAIL FROM:a@b`, EHLO with a name that is not ASCII. Backends get them in the form \
                  of RFC 5321. STARTTLS, BDAT, AUTH and the end of a message need CRLF all the same.",
        },
        Key {
            name: "line_endings",
            kind: Kind::Word(&["normalize", "reject"]),
            default: Default::Value("\"normalize\""),
            at_limit: "reject answers 550 5.5.2, or 550 5.6.0 for NUL, at the end of the message.",
            why: "What is done about CR or LF alone and NUL in a message, so that no backend can see \
                  an end that the client did not send: normalize makes CRLF of LF and a space of CR \
                  and of NUL.",
        },
        Key {
            name: "max_message_size",
            kind: Kind::Size {
                min: 0,
                max: 1 << 40,
            },
            default: Default::Value("0"),
            at_limit: "552 5.3.4 at MAIL if the client says the size, else at the end of the \
                       message; 0 is no limit of our own.",
            why: "Announced with SIZE if it is smaller than what the backends announce.",
        },
        Key {
            name: "max_recipients",
            kind: count(1, 100_000, "recipients"),
            default: Default::Value("1000"),
            at_limit: "One more gets 452 4.5.3: the client sends the rest in another transaction.",
            why: "Of one transaction; announced with LIMITS RCPTMAX. RFC 5321 §4.5.3.1.8 asks for 100 \
                  at least: fewer are for providers that take no more.",
        },
        Key {
            name: "command_timeout",
            kind: millis(10, DAY),
            default: Default::Value("\"5m\""),
            at_limit: "The client gets 421 4.4.2 and is closed.",
            why: "How long the next command may take (RFC 5321 §4.5.3.2.7: 5 minutes at least).",
        },
        Key {
            name: "data_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"3m\""),
            at_limit: "The client gets 421 4.4.2 and is closed; no backend takes the message.",
            why: "How long the next octets of a message may take.",
        },
        Key {
            name: "greet_delay",
            kind: millis(0, MINUTE),
            default: Default::Value("\"0s\""),
            at_limit: "\"0s\" greets at once.",
            why: "Holds the greeting back: spam bots talk before it, and `early_talker` says what \
                  to do then.",
        },
        Key {
            name: "tarpit",
            kind: millis(0, 5 * SECOND),
            default: Default::Value("\"0s\""),
            at_limit: "\"0s\" answers at once; so does a session that drains, and so do others while \
                       1,024 sessions are held back.",
            why: "Holds the reply to each further mistake back once a session has used half of its \
                  error points: who guesses recipients learns slowly.",
        },
        Key {
            name: "announce",
            kind: Kind::List {
                form: "an SMTP keyword",
                max: 8,
            },
            default: Default::Absent {
                example: "[\"PIPELINING\", \"SIZE\", \"8BITMIME\"]",
                means: "PIPELINING, SIZE, LIMITS, and what every backend has of the others",
            },
            at_limit: "Any of PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, DSN, CHUNKING \
                       and LIMITS; [] announces none. LIMITS is there all the same where \
                       `max_recipients` is below 100.",
            why: "Pins what EHLO announces: a backend that lacks some of it gets no transaction \
                  that needs it.",
        },
        Key {
            name: "replay_max",
            kind: Kind::Size {
                min: 0,
                max: 1024 * MIB,
            },
            default: Default::Value("\"32MiB\""),
            at_limit: "A larger message streams on and is lost to its backend's failure: the client \
                       gets 451 and sends it again.",
            why: "So much of a message is kept in memory until a backend has taken it, to be sent \
                  to another if that one fails.",
        },
        Key {
            name: "replay_in_doubt",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "Once per message; it may then arrive twice.",
            why: "Whether a message is sent again if its backend failed after the last octet and \
                  before its reply. Off, the client gets 451 4.4.2 and decides.",
        },
        Key {
            name: "buffer_first",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "What a backend says to DATA then comes as the reply to the message.",
            why: "Answer DATA with 354 ourselves, so that a slow backend does not hold up a client \
                  that is ready to send.",
        },
    ],
    tables: &["replies"],
};

/// Those of our replies that have a key.
const WORDED: usize = {
    let (mut at, mut worded) = (0, 0);
    while at < OwnReply::ALL.len() {
        worded += OwnReply::ALL[at].key.is_some() as usize;
        at += 1;
    }
    worded
};

const fn reply(name: &'static str, wording: &Wording) -> Key {
    Key {
        name,
        kind: Kind::Text("a reply"),
        default: Default::Value(wording.default),
        at_limit: "",
        why: wording.when,
    }
}

const REPLY_KEYS: [Key; WORDED] = {
    let mut keys = [const { reply("", &OwnReply::ALL[0]) }; WORDED];
    let (mut at, mut worded) = (0, 0);
    while at < OwnReply::ALL.len() {
        if let Some(name) = OwnReply::ALL[at].key {
            keys[worded] = reply(name, &OwnReply::ALL[at]);
            worded += 1;
        }
        at += 1;
    }
    keys
};

pub(super) const REPLIES: Section = Section {
    path: "listeners.NAME.smtp.replies",
    about: "What only mode \"smtp\" says itself, in other words; the replies at connect and at the \
            end are in the table `replies` of the listener. One line of at most 510 octets of \
            printable ASCII. The first digit stays, with an enhanced code of its class behind it; \
            a code below 400 and 421 stay whole. {hostname} is our name.",
    keys: &REPLY_KEYS,
    tables: &[],
};

pub(super) const POOL: Section = Section {
    path: "pools.NAME.smtp",
    about: "The connections that listeners in mode \"smtp\" keep to the backends of this pool, and \
            how long a backend may take. The waits end a little before those of RFC 5321 §4.5.3.2, \
            so that the client hears from us first.",
    keys: &[
        Key {
            name: "sticky",
            kind: Kind::Word(&["none", "session", "source"]),
            default: Default::Value("\"none\""),
            at_limit: "A backend that cannot take a transaction is left for another all the same.",
            why: "Each transaction is balanced by itself; session and source keep those of one \
                  connection or of one client on one backend.",
        },
        Key {
            name: "idle_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"10s\""),
            at_limit: "QUIT, and the connection is closed.",
            why: "A connection kept unused; Postfix under stress drops it after 10 s itself.",
        },
        Key {
            name: "max_age",
            kind: millis(10, DAY),
            default: Default::Value("\"5m\""),
            at_limit: "Closed after its transaction.",
            why: "Old connections hide a backend that takes no new ones, and a changed address.",
        },
        Key {
            name: "max_messages",
            kind: count(1, 1_000_000, "messages"),
            default: Default::Value("100"),
            at_limit: "Closed after that message; 1 is no reuse.",
            why: "Servers have such limits too: OpenSMTPD 100, Exim 1000.",
        },
        Key {
            name: "max_idle",
            kind: count(0, 10_000, "connections"),
            default: Default::Value("12"),
            at_limit: "One more is closed after its transaction; 0 keeps none that nobody waits for. \
                       Never more than a quarter of `max_connections`.",
            why: "Of one backend, all workers together: an idle connection occupies a process of \
                  the backend, and Postfix has 100.",
        },
        Key {
            name: "max_opening",
            kind: count(1, 10_000, "connections"),
            default: Default::Value("4"),
            at_limit: "The others wait until it has greeted, or for 100 ms, or for a kept one.",
            why: "Of one backend, opened at a time: the accept queue of OpenSMTPD has 6 places, that \
                  of Exim 21, and what is beyond is dropped and asked again a second later. Raise it \
                  for backends that are far away and have long queues.",
        },
        Key {
            name: "min_idle",
            kind: count(0, 10_000, "connections"),
            default: Default::Value("0"),
            at_limit: "At most `max_idle`; 0 dials when a transaction needs it.",
            why: "Connections of one backend that are kept ready, all workers together, for clients \
                  that come in bursts.",
        },
        Key {
            name: "reply_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"295s\""),
            at_limit: "A strike; the transaction begins again on another backend.",
            why: "For EHLO, MAIL, RCPT and RSET.",
        },
        Key {
            name: "data_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"115s\""),
            at_limit: "A strike; the transaction begins again on another backend.",
            why: "For the 354 that answers DATA.",
        },
        Key {
            name: "block_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"3m\""),
            at_limit: "A strike; the message begins again on another backend if it was kept.",
            why: "How long a backend may go without taking an octet of a message.",
        },
        Key {
            name: "final_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"595s\""),
            at_limit: "The client gets 451 4.4.2, and the message may arrive twice.",
            why: "For the reply to the end of a message: content filters are slow \
                  (RFC 5321 §4.5.3.2.6).",
        },
    ],
    tables: &[],
};
