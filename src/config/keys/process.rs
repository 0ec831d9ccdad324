//! Keys of the process: the top of the file, `[log]` and `[admin]`.

use super::{DAY, Default, Key, Kind, Section, count, millis};

pub(super) const TOP: Section = Section {
    path: "",
    about: "The process.",
    keys: &[
        Key {
            name: "workers",
            kind: count(1, 64, "threads"),
            default: Default::Absent {
                example: "2",
                means: "one per core that this process may use",
            },
            at_limit: "More threads than cores only cost memory. A change needs a restart.",
            why: "Each thread carries its sessions alone, without locks between them.",
        },
        Key {
            name: "hostname",
            kind: Kind::Text("a host name"),
            default: Default::Absent {
                example: "\"mx.example.org\"",
                means: "the name of the machine",
            },
            at_limit: "At most 253 octets, or an address literal such as \"[192.0.2.1]\".",
            why: "Our name in the replies we make ourselves and in the EHLO of probes.",
        },
        Key {
            name: "max_sessions",
            kind: count(1, 10_000_000, "sessions"),
            default: Default::Absent {
                example: "20000",
                means: "as many as the limit of file descriptors allows",
            },
            at_limit: "A session more gets the reply `global_limit` and is closed.",
            why: "A session needs two descriptors; a figure that cannot fit is refused at the start. \
                  A refused connection is no session.",
        },
        Key {
            name: "shutdown_timeout",
            kind: millis(0, DAY),
            default: Default::Value("\"11m\""),
            at_limit: "Sessions that are still open are cut; \"0s\" cuts at once.",
            why: "SIGTERM waits so long for sessions to end; 10 minutes is the longest reply to a \
                  final dot (RFC 5321 §4.5.3.2.6).",
        },
        Key {
            name: "drain_timeout",
            kind: millis(0, DAY),
            default: Default::Value("\"10m\""),
            at_limit: "Sessions that are still open are cut; \"0s\" cuts at once.",
            why: "After a reload, sessions of a removed backend or listener may go on so long.",
        },
        Key {
            name: "watch",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "",
            why: "Reload by itself when this file or a backends file changes; SIGHUP works always.",
        },
        Key {
            name: "splice",
            kind: Kind::Flag,
            default: Default::Value("true"),
            at_limit: "A change needs a restart.",
            why: "Move large messages through the kernel without copying them; off only to compare.",
        },
        Key {
            name: "replay_memory",
            kind: Kind::Size {
                min: 0,
                max: 1 << 40,
            },
            default: Default::Value("\"256MiB\""),
            at_limit: "A message that finds no room streams on, and cannot be sent to another \
                       backend if its own fails; 0 keeps none.",
            why: "What all messages that are kept for a replay take together (mode \"smtp\").",
        },
        Key {
            name: "state_file",
            kind: Kind::Text("a path"),
            default: Default::Absent {
                example: "\"/var/lib/posthouse/state\"",
                means: "the counts of quotas begin at zero after a restart",
            },
            at_limit: "A change needs a restart. Relative to the folder of this file. One process \
                       at a time writes it: another one counts for itself until the first ends.",
            why: "Where the counts of quotas are kept over restarts, also those of backends that a \
                  reload removed; the folder must be writable.",
        },
    ],
    tables: &["log", "admin", "listeners", "pools"],
};

pub(super) const LOG: Section = Section {
    path: "log",
    about: "Logs. A slow reader of the log stops nothing: lines are dropped and counted.",
    keys: &[
        Key {
            name: "level",
            kind: Kind::Word(&["error", "warn", "info", "debug", "off"]),
            default: Default::Value("\"info\""),
            at_limit: "",
            why: "A warning asks the operator to act; faults of clients are only at debug.",
        },
        Key {
            name: "format",
            kind: Kind::Word(&["text", "json"]),
            default: Default::Value("\"text\""),
            at_limit: "",
            why: "One line per event; json for machines.",
        },
        Key {
            name: "output",
            kind: Kind::Word(&["stdout", "stderr", "journald"]),
            default: Default::Value("\"stdout\""),
            at_limit: "A change needs a restart.",
            why: "journald keeps the fields apart; stdout suits containers.",
        },
        Key {
            name: "sessions",
            kind: Kind::Flag,
            default: Default::Value("true"),
            at_limit: "",
            why: "One line per session, at info: who, which backend, how long, how it ended.",
        },
        Key {
            name: "transactions",
            kind: Kind::Flag,
            default: Default::Value("true"),
            at_limit: "",
            why: "One line per transaction in mode \"smtp\", at info: backend, size, recipients, \
                  the backend's reply, durations.",
        },
        Key {
            name: "addresses",
            kind: Kind::Flag,
            default: Default::Value("false"),
            at_limit: "",
            why: "Whether those lines hold the addresses of the envelope, which are personal data.",
        },
    ],
    tables: &[],
};

pub(super) const ADMIN: Section = Section {
    path: "admin",
    about: "The HTTP status endpoint: /healthz, /readyz, /status, /metrics and the verbs that \
            change something. It is off without this table.",
    keys: &[
        Key {
            name: "bind",
            kind: Kind::List {
                form: "an address and port, or \"unix:/path\"",
                max: 8,
            },
            default: Default::Required {
                example: "[\"127.0.0.1:8025\", \"unix:/run/posthouse/admin.sock\"]",
            },
            at_limit: "1 to 8. A change needs a restart. The path of a Unix socket has at most 107 \
                       octets; its folder is made if that is allowed.",
            why: "Loopback is for browsers and Prometheus: anybody who reaches it can read every \
                  address and count. The Unix socket is for `posthouse status`, `reload` and \
                  `backend`: anybody who may write to it may change things without a token.",
        },
        Key {
            name: "mode",
            kind: Kind::Text("permission bits in octal"),
            default: Default::Absent {
                example: "\"0600\"",
                means: "\"0660\" for a Unix socket; TCP has no permissions",
            },
            at_limit: "A change needs a restart.",
            why: "Who may write to the Unix socket may change backends without a token.",
        },
        Key {
            name: "group",
            kind: Kind::Text("the name or number of a group"),
            default: Default::Absent {
                example: "\"adm\"",
                means: "the group of the process",
            },
            at_limit: "A change needs a restart. Only root can give the socket to a group that it \
                       is not in itself; under systemd set Group= in the unit instead.",
            why: "Whose members may use the Unix socket.",
        },
        Key {
            name: "token_file",
            kind: Kind::Text("a path"),
            default: Default::Absent {
                example: "\"/etc/posthouse/token\"",
                means: "verbs that change something are refused on TCP; a Unix socket needs no token",
            },
            at_limit: "A regular file of at most 4 KiB. Relative to the folder of this file.",
            why: "Its first line is the bearer token for POST and PUT over TCP.",
        },
        Key {
            name: "hosts",
            kind: Kind::List {
                form: "a host name or an IP address",
                max: 64,
            },
            default: Default::Value("[]"),
            at_limit: "0 to 64, without a port. Asked over TCP for another host, it answers 403; \
                       /healthz and /readyz answer for every host.",
            why: "Names by which clients may ask it, besides localhost, loopback addresses and, where it \
                  listens on another address, any address and `hostname`. So a page of a foreign \
                  site cannot read it through a name that points here.",
        },
    ],
    tables: &[],
};
