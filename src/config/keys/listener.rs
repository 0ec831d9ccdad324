//! Keys of `[listeners.NAME]` and its replies.

use super::{DAY, Default, HOUR, Key, Kind, MINUTE, Section, count, millis};

pub(super) const LISTENER: Section = Section {
    path: "listeners.NAME",
    about: "A listener: addresses where clients connect, and what they meet. Any number, each with \
            a name of 1 to 64 letters, digits, `.`, `_`, `-`.",
    keys: &[
        Key {
            name: "bind",
            kind: Kind::List {
                form: "an address and port",
                max: 64,
            },
            default: Default::Required {
                example: "[\"0.0.0.0:25\", \"[::]:25\"]",
            },
            at_limit: "1 to 64 addresses. [::] is IPv6 only: name 0.0.0.0 too for both.",
            why: "Bound once for the life of the process; a reload changes only what is behind it.",
        },
        Key {
            name: "mode",
            kind: Kind::Word(&["passthrough", "smtp"]),
            default: Default::Value("\"passthrough\""),
            at_limit: "",
            why: "passthrough hands octets on unchanged once a backend has greeted: STARTTLS is end \
                  to end. smtp speaks SMTP itself, places each message on a kept-alive connection, \
                  and sends it to another backend if that one fails.",
        },
        Key {
            name: "pool",
            kind: Kind::Text("the name of a pool"),
            default: Default::Required { example: "\"mx\"" },
            at_limit: "",
            why: "Where the sessions go.",
        },
        Key {
            name: "greeting",
            kind: Kind::Word(&["smtp", "none"]),
            default: Default::Value("\"smtp\""),
            at_limit: "With \"none\" failover ends at the connect.",
            why: "\"none\" is for port 465, where the client speaks first (TLS) and no greeting can \
                  be awaited.",
        },
        Key {
            name: "proxy_protocol",
            kind: Kind::Word(&["off", "required"]),
            default: Default::Value("\"off\""),
            at_limit: "Required and absent: the connection is closed without a reply.",
            why: "Never guessed: a port that takes a PROXY header from anyone lets anyone be anyone.",
        },
        Key {
            name: "trusted_proxies",
            kind: Kind::List {
                form: "a network",
                max: 10_000,
            },
            default: Default::Value("[]"),
            at_limit: "Anyone else is closed at once.",
            why: "Who may send a PROXY header: the addresses of the balancers in front.",
        },
        Key {
            name: "allow",
            kind: Kind::List {
                form: "a network",
                max: 10_000,
            },
            default: Default::Value("[]"),
            at_limit: "Empty allows everyone; others get the reply `denied`.",
            why: "Judged by the true client's address, after the PROXY header.",
        },
        Key {
            name: "deny",
            kind: Kind::List {
                form: "a network",
                max: 10_000,
            },
            default: Default::Value("[]"),
            at_limit: "They get the reply `denied`, then 503 until QUIT, for 5 s or 5 commands; they \
                       are no sessions.",
            why: "Goes before `allow`.",
        },
        Key {
            name: "monitor_networks",
            kind: Kind::List {
                form: "a network",
                max: 10_000,
            },
            default: Default::Value("[]"),
            at_limit: "They get 220 or 421 by readiness, and never reach a backend; they are no \
                       sessions, and are logged at level debug.",
            why: "The checks of balancers in front cost the fleet nothing.",
        },
        Key {
            name: "early_talker",
            kind: Kind::Word(&["pass", "log", "reject"]),
            default: Default::Value("\"pass\""),
            at_limit: "",
            why: "A client that talks before the greeting is usually a spam bot; postscreen behind \
                  us can judge that itself.",
        },
        Key {
            name: "max_sessions",
            kind: count(0, 10_000_000, "sessions"),
            default: Default::Value("0"),
            at_limit: "A session more gets the reply `global_limit`; 0 is no limit of its own.",
            why: "Keeps one listener from using up what all share.",
        },
        Key {
            name: "max_sessions_per_client",
            kind: count(0, 1_000_000, "sessions"),
            default: Default::Value("0"),
            at_limit: "A session more gets the reply `client_limit`; 0 is no limit.",
            why: "A client is an IPv4 address or an IPv6 /64.",
        },
        Key {
            name: "rate_per_client",
            kind: Kind::Text("a rate such as \"100/60s\""),
            default: Default::Absent {
                example: "\"100/60s\"",
                means: "no limit",
            },
            at_limit: "1 to 1000000 sessions per 1ms to 24h; one more gets the reply \
                       `client_limit`.",
            why: "Bursts up to the count are allowed, then the count per period.",
        },
        Key {
            name: "accept_rate",
            kind: Kind::Text("a rate such as \"500/s\""),
            default: Default::Absent {
                example: "\"500/s\"",
                means: "no limit",
            },
            at_limit: "1 to 1000000 sessions per 1ms to 24h; one more gets the reply \
                       `global_limit`.",
            why: "The most new sessions of all clients together.",
        },
        Key {
            name: "backlog",
            kind: count(1, 65_535, "connections"),
            default: Default::Value("4096"),
            at_limit: "The kernel cuts it to net.core.somaxconn; beyond it clients wait for their SYN.",
            why: "Connections that may wait to be accepted, per worker.",
        },
        Key {
            name: "freebind",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "",
            why: "Bind to an address this host does not have yet, such as one that keepalived moves.",
        },
        Key {
            name: "interface",
            kind: Kind::Text("the name of a network interface"),
            default: Default::Absent {
                example: "\"eth0\"",
                means: "all interfaces",
            },
            at_limit: "1 to 15 characters.",
            why: "Accept only what comes in there (SO_BINDTODEVICE).",
        },
        Key {
            name: "source",
            kind: Kind::List {
                form: "an IP address",
                max: 256,
            },
            default: Default::Value("[]"),
            at_limit: "At most 256; empty takes those of the pool.",
            why: "The addresses from which backends are dialled, used in turn.",
        },
        Key {
            name: "proxy_header_timeout",
            kind: millis(10, MINUTE),
            default: Default::Value("\"5s\""),
            at_limit: "The connection is closed without a reply.",
            why: "A balancer in front sends the header in its first packet.",
        },
        Key {
            name: "idle_timeout",
            kind: millis(10, DAY),
            default: Default::Value("\"11m\""),
            at_limit: "The session is closed on both sides.",
            why: "Longer than the 10 minutes a client waits for the reply to its final dot \
                  (RFC 5321 §4.5.3.2.6).",
        },
        Key {
            name: "half_close_timeout",
            kind: millis(10, HOUR),
            default: Default::Value("\"1m\""),
            at_limit: "The session is closed on both sides.",
            why: "How long one direction may stay open after the other ended.",
        },
    ],
    tables: &["replies", "smtp"],
};

pub(super) const REPLIES: Section = Section {
    path: "listeners.NAME.replies",
    about: "The replies we make ourselves: one line of at most 510 octets of printable ASCII, with \
            an enhanced code (RFC 3463). {hostname} is our name.",
    keys: &[
        Key {
            name: "unavailable",
            kind: Kind::Text("a reply"),
            default: Default::Value(
                "\"421 4.3.2 {hostname} service not available, try again later\"",
            ),
            at_limit: "Must be 4yz.",
            why: "No backend can take the session.",
        },
        Key {
            name: "denied",
            kind: Kind::Text("a reply"),
            default: Default::Value("\"554 5.7.1 {hostname} access denied\""),
            at_limit: "Must be 5yz.",
            why: "The client is not in `allow`, or in `deny`.",
        },
        Key {
            name: "client_limit",
            kind: Kind::Text("a reply"),
            default: Default::Value("\"421 4.7.0 {hostname} too many connections\""),
            at_limit: "Must be 4yz.",
            why: "This client has too many sessions or comes too often.",
        },
        Key {
            name: "global_limit",
            kind: Kind::Text("a reply"),
            default: Default::Value("\"421 4.3.2 {hostname} too many connections\""),
            at_limit: "Must be 4yz.",
            why: "All clients together have too many sessions or come too often.",
        },
        Key {
            name: "early_talker",
            kind: Kind::Text("a reply"),
            default: Default::Value("\"554 5.5.0 {hostname} protocol synchronization\""),
            at_limit: "Must be 5yz.",
            why: "The client talked before the greeting and `early_talker` is \"reject\".",
        },
        Key {
            name: "shutting_down",
            kind: Kind::Text("a reply"),
            default: Default::Value("\"421 4.3.2 {hostname} shutting down\""),
            at_limit: "Must be 4yz.",
            why: "We are stopping and take no new session.",
        },
    ],
    tables: &[],
};
