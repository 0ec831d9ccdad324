//! Keys of `[pools.NAME]` and the tables inside it.

use super::{DAY, Default, HOUR, Key, Kind, MINUTE, Section, count, millis};

pub(super) const POOL: Section = Section {
    path: "pools.NAME",
    about: "A pool: backends that can stand in for each other, and how to choose among them.",
    keys: &[
        Key {
            name: "balance",
            kind: Kind::Word(&[
                "least-connections",
                "round-robin",
                "random-two",
                "source-hash",
                "first",
            ]),
            default: Default::Value("\"least-connections\""),
            at_limit: "",
            why: "Sessions differ in length by orders of magnitude, so what counts is what is open.",
        },
        Key {
            name: "identity",
            kind: Kind::Word(&["none", "proxy-v1", "proxy-v2"]),
            default: Default::Value("\"none\""),
            at_limit: "",
            why: "With none, backends see our address as the client's: set proxy-v2 if they judge \
                  clients, and set them to expect it.",
        },
        Key {
            name: "proxy_header_max",
            kind: count(107, 536, "octets"),
            default: Default::Value("232"),
            at_limit: "TLVs are left out in a fixed order rather than exceed it.",
            why: "Exim takes no PROXY header longer than 232 octets; Postfix takes 536.",
        },
        Key {
            name: "greeting_verdicts",
            kind: Kind::Word(&["auto", "next", "relay"]),
            default: Default::Value("\"auto\""),
            at_limit: "",
            why: "Whose fault a bad greeting is: auto goes by code and text, next always tries \
                  another backend, relay always hands it to the client.",
        },
        Key {
            name: "max_attempts",
            kind: count(1, 16, "backends"),
            default: Default::Value("3"),
            at_limit: "The client gets the reply `unavailable`; 1 is no failover.",
            why: "Distinct backends tried for one session.",
        },
        Key {
            name: "failover_timeout",
            kind: millis(10, 5 * MINUTE),
            default: Default::Value("\"20s\""),
            at_limit: "The client gets the reply `unavailable`.",
            why: "All attempts and the queue together; clients wait 5 minutes for a greeting \
                  (RFC 5321 §4.5.3.2.1), but many only 30 s.",
        },
        Key {
            name: "connect_timeout",
            kind: millis(10, MINUTE),
            default: Default::Value("\"3s\""),
            at_limit: "The attempt failed: a strike, and the next backend.",
            why: "One lost SYN costs 1 s; two cost 3 s.",
        },
        Key {
            name: "greeting_timeout",
            kind: millis(10, 5 * MINUTE),
            default: Default::Value("\"8s\""),
            at_limit: "The attempt failed: a strike, and the next backend.",
            why: "Postscreen waits 6 s before it greets.",
        },
        Key {
            name: "queue_max",
            kind: count(0, 1_000_000, "clients"),
            default: Default::Value("1024"),
            at_limit: "A client more gets the reply `unavailable`; 0 is no queue.",
            why: "Clients that wait, without a greeting, while every backend is full.",
        },
        Key {
            name: "queue_timeout",
            kind: millis(10, 5 * MINUTE),
            default: Default::Value("\"15s\""),
            at_limit: "The client gets the reply `unavailable`.",
            why: "Counted inside `failover_timeout`, so keep it shorter.",
        },
        Key {
            name: "when_all_down",
            kind: Kind::Word(&["try", "refuse"]),
            default: Default::Value("\"try\""),
            at_limit: "",
            why: "A health check can be wrong about all at once: try dials anyway (never one in \
                  drain), refuse answers `unavailable` at once.",
        },
        Key {
            name: "open_standby_below",
            kind: Kind::Percent { min: 0 },
            default: Default::Value("\"1%\""),
            at_limit: "\"1%\": when nothing is left; \"100%\": when anything is missing; \"0%\": \
                       never.",
            why: "The next tier opens when less than this share of the weight before it is usable. \
                  Of a name, addresses that never answered do not count while another has; a \
                  backend that never answered at all counts as lost.",
        },
        Key {
            name: "failback",
            kind: Kind::Word(&["auto", "manual"]),
            default: Default::Value("\"auto\""),
            at_limit: "",
            why: "manual keeps the standby tier open until the operator ends it.",
        },
        Key {
            name: "failback_after",
            kind: millis(0, DAY),
            default: Default::Value("\"30s\""),
            at_limit: "",
            why: "How long the tiers before must have been well before a standby tier closes.",
        },
        Key {
            name: "spill_when_full",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "",
            why: "Whether tiers that are full, not failed, open the next one too.",
        },
        Key {
            name: "slow_start",
            kind: millis(0, HOUR),
            default: Default::Value("\"30s\""),
            at_limit: "\"0s\" gives the whole share at once.",
            why: "A returning backend has cold caches: its share grows to its weight in this time.",
        },
        Key {
            name: "source",
            kind: Kind::List {
                form: "an IP address",
                max: 256,
            },
            default: Default::Value("[]"),
            at_limit: "At most 256; empty lets the kernel choose.",
            why: "The addresses from which backends are dialled, used in turn: each gives about \
                  28,000 connections to one backend.",
        },
        Key {
            name: "interface",
            kind: Kind::Text("the name of a network interface"),
            default: Default::Absent {
                example: "\"eth1\"",
                means: "by the routes of the kernel",
            },
            at_limit: "1 to 15 characters.",
            why: "Dial backends only through it (SO_BINDTODEVICE).",
        },
        Key {
            name: "freebind",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "",
            why: "Allow a `source` this host does not have yet.",
        },
        Key {
            name: "backends_file",
            kind: Kind::Text("a path"),
            default: Default::Absent {
                example: "\"mx-backends.toml\"",
                means: "only the backends in this file",
            },
            at_limit: "A regular file of at most 16 MiB. Relative to the folder of this file.",
            why: "More backends, in a file that other tools write: `mx1 = { address = \"…\" }`.",
        },
    ],
    tables: &["hedge", "health", "eject", "smtp", "backends"],
};

pub(super) const HEDGE: Section = Section {
    path: "pools.NAME.hedge",
    about: "Hedging: a second backend is dialled when the first is slow; the client sees the winner.",
    keys: &[
        Key {
            name: "enabled",
            kind: Kind::Flag,
            default: Default::Value("true"),
            at_limit: "",
            why: "Off if a backend must never see a connection that is given up.",
        },
        Key {
            name: "connect_after",
            kind: millis(1, MINUTE),
            default: Default::Value("\"250ms\""),
            at_limit: "",
            why: "A connect slower than this; within one site it takes a millisecond.",
        },
        Key {
            name: "greeting_after",
            kind: millis(1, 5 * MINUTE),
            default: Default::Absent {
                example: "\"1s\"",
                means: "three times what this backend usually takes, at least 1s",
            },
            at_limit: "",
            why: "A greeting slower than this, from a backend that greeted no one else meanwhile.",
        },
        Key {
            name: "budget",
            kind: Kind::Percent { min: 0 },
            default: Default::Value("\"10%\""),
            at_limit: "No hedge beyond it; the session goes on with its first dial.",
            why: "Hedges per hundred sessions, so that a slow fleet is not made slower.",
        },
        Key {
            name: "burst",
            kind: count(0, 1000, "hedges"),
            default: Default::Value("16"),
            at_limit: "",
            why: "Hedges on top of the budget, for the first moments of a fault.",
        },
    ],
    tables: &[],
};

pub(super) const HEALTH: Section = Section {
    path: "pools.NAME.health",
    about: "Active probes: a short SMTP conversation with each backend, never a message.",
    keys: &[
        Key {
            name: "probe",
            kind: Kind::Flag,
            default: Default::Value("true"),
            at_limit: "",
            why: "Without probes only sessions themselves find a dead backend.",
        },
        Key {
            name: "depth",
            kind: Kind::Word(&["connect", "banner", "ehlo", "starttls", "mail"]),
            default: Default::Value("\"ehlo\""),
            at_limit: "",
            why: "A port that accepts is no proof of a mail server; ehlo is the cheapest that is.",
        },
        Key {
            name: "interval",
            kind: millis(100, HOUR),
            default: Default::Value("\"5s\""),
            at_limit: "Spread by ± 20 %.",
            why: "Between probes; a good session counts as one.",
        },
        Key {
            name: "fast_interval",
            kind: millis(100, HOUR),
            default: Default::Value("\"1s\""),
            at_limit: "",
            why: "Between probes while a backend is changing its state.",
        },
        Key {
            name: "rise",
            kind: count(1, 100, "probes"),
            default: Default::Value("2"),
            at_limit: "",
            why: "Good probes in a row until a backend is up.",
        },
        Key {
            name: "fall",
            kind: count(1, 100, "probes"),
            default: Default::Value("3"),
            at_limit: "",
            why: "Bad probes in a row until a backend is down.",
        },
        Key {
            name: "greeting_timeout",
            kind: millis(10, 5 * MINUTE),
            default: Default::Value("\"8s\""),
            at_limit: "The probe failed.",
            why: "Postscreen waits 6 s before it greets.",
        },
        Key {
            name: "timeout",
            kind: millis(10, MINUTE),
            default: Default::Value("\"5s\""),
            at_limit: "The probe failed.",
            why: "For every other step of a probe.",
        },
        Key {
            name: "ehlo_name",
            kind: Kind::Text("a host name"),
            default: Default::Absent {
                example: "\"mx.example.org\"",
                means: "`hostname`",
            },
            at_limit: "At most 253 octets, or an address literal.",
            why: "Our name in the EHLO of a probe; some servers refuse names they cannot look up.",
        },
        Key {
            name: "probe_recipient",
            kind: Kind::Text("a mailbox"),
            default: Default::Absent {
                example: "\"postmaster@example.org\"",
                means: "no RCPT; needed for depth \"mail\"",
            },
            at_limit: "At most 254 octets.",
            why: "Asked with RCPT TO and then RSET: nothing is ever delivered.",
        },
        Key {
            name: "tls_verify",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "",
            why: "Whether a probe's STARTTLS must show a valid certificate for the backend's name; \
                  clients of MX hosts do not check it.",
        },
    ],
    tables: &[],
};

pub(super) const EJECT: Section = Section {
    path: "pools.NAME.eject",
    about: "Passive ejection: sessions that fail take a backend out for a while, never the last \
            usable one.",
    keys: &[
        Key {
            name: "strikes",
            kind: count(0, 1000, "failed attempts"),
            default: Default::Value("5"),
            at_limit: "0 turns this rule off.",
            why: "So many failures in a row eject, whatever the share.",
        },
        Key {
            name: "ratio",
            kind: Kind::Percent { min: 1 },
            default: Default::Value("\"50%\""),
            at_limit: "\"100%\": only when every attempt failed.",
            why: "This share of failed attempts within `window` ejects.",
        },
        Key {
            name: "min_attempts",
            kind: count(1, 10_000, "attempts"),
            default: Default::Value("10"),
            at_limit: "",
            why: "With fewer attempts within `window` a share says nothing.",
        },
        Key {
            name: "window",
            kind: millis(100, 10 * MINUTE),
            default: Default::Value("\"10s\""),
            at_limit: "",
            why: "The time that `ratio` looks back.",
        },
        Key {
            name: "time",
            kind: millis(100, HOUR),
            default: Default::Value("\"30s\""),
            at_limit: "",
            why: "The first ejection; the n-th in a row lasts n times as long.",
        },
        Key {
            name: "max_time",
            kind: millis(100, DAY),
            default: Default::Value("\"5m\""),
            at_limit: "",
            why: "The longest ejection.",
        },
    ],
    tables: &[],
};

pub(super) const BACKEND: Section = Section {
    path: "pools.NAME.backends.NAME",
    about: "A backend. Usually written on one line in [pools.NAME.backends]: \
            mx1 = { address = \"10.0.0.11:25\", weight = 2 }",
    keys: &[
        Key {
            name: "address",
            kind: Kind::Text("an address and port"),
            default: Default::Required {
                example: "\"10.0.0.11:25\"",
            },
            at_limit: "A name stands for every address it has, looked up again by its TTL. Addresses \
                       that are our own or no host's are left out; if none remains, the last good \
                       answer is kept.",
            why: "Where it is: \"10.0.0.11:25\", \"[2001:db8::1]:25\" or \"mx.example:25\".",
        },
        Key {
            name: "weight",
            kind: count(1, 1000, ""),
            default: Default::Value("1"),
            at_limit: "For no traffic set state = \"drain\".",
            why: "Its share among the backends of the open tiers.",
        },
        Key {
            name: "tier",
            kind: count(1, 16, ""),
            default: Default::Value("1"),
            at_limit: "",
            why: "Its rank: tier 2 stands by for tier 1, and so on.",
        },
        Key {
            name: "max_connections",
            kind: count(0, 1_000_000, "sessions"),
            default: Default::Value("0"),
            at_limit: "It gets no session until one ends; 0 is no limit.",
            why: "Keep it below the backend's own process limit, which refuses with 421.",
        },
        Key {
            name: "state",
            kind: Kind::Word(&["ready", "drain", "maint"]),
            default: Default::Value("\"ready\""),
            at_limit: "A reload that changes this key also replaces what an operator has set at run \
                       time; a reload that does not leaves that as it is.",
            why: "drain keeps its sessions and gets no new ones; maint is not probed either.",
        },
        Key {
            name: "family",
            kind: Kind::Word(&["any", "ipv4", "ipv6"]),
            default: Default::Value("\"any\""),
            at_limit: "Addresses to which this host has no route are left out, as long as there are \
                       others.",
            why: "Which addresses of a name are looked up and used.",
        },
        Key {
            name: "quota",
            kind: Kind::List {
                form: "a quota such as \"100/s\" or \"20000/24h recipients\"",
                max: 8,
            },
            default: Default::Value("[]"),
            at_limit: "At most 8, each 1 to 1000000000 messages or recipients per 1s to 31d. A \
                       message more goes to other backends; without one it waits in the queue, \
                       then 451. Recipients more of a message are told 452 4.5.3, and the client \
                       sends them in another transaction.",
            why: "What a provider allows, counted in mode \"smtp\" within any span of the time; all \
                  addresses of a name share it.",
        },
    ],
    tables: &[],
};
