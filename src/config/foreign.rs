//! Words of HAProxy, nginx and Postfix, and what is written here instead.
//!
//! A word is looked up here before similar words of ours are suggested. No word of ours is similar to
//! `backup`, and the one that is similar to `check` means something else.

use super::near::plain;

/// Words of other programs, and what to write instead of them.
struct Foreign {
    /// The tables in which it holds; everywhere, if none is named.
    within: &'static [&'static str],
    /// The words, without blanks, hyphens and underscores.
    words: &'static [&'static str],
    help: &'static str,
}

const TOP: &[&str] = &[""];
const LISTENER: &[&str] = &["listeners.NAME"];
const POOL: &[&str] = &["pools.NAME"];
const BACKEND: &[&str] = &["pools.NAME.backends.NAME"];
const HEALTH: &[&str] = &["pools.NAME.health"];
const POOLS: &[&str] = &["pools.NAME", "pools.NAME.backends.NAME"];
const TOP_OR_LISTENER: &[&str] = &["", "listeners.NAME"];
const ANYWHERE: &[&str] = &[];

/// A table of [`Foreign`]: where the words hold, the words, and the help.
macro_rules! foreign {
    ($($within:ident: $($word:ident)+ => $help:literal;)+) => {
        &[$(Foreign { within: $within, words: &[$(stringify!($word)),+], help: $help }),+]
    };
}

/// A table of values: the key, the words of others, and ours.
macro_rules! values {
    ($($key:ident: $($word:ident)+ => $ours:literal;)+) => {
        &[$((stringify!($key), &[$(stringify!($word)),+], $ours)),+]
    };
}

/// Of several entries that fit, the first one counts.
const KEYS: &[Foreign] = foreign! {
    // The top of the file.
    TOP: upstream upstreams backend backends farm cluster =>
        "known here as a pool: write [pools.NAME] and its table [pools.NAME.backends]";
    TOP: frontend frontends listen stream server =>
        "known here as a listener: write [listeners.NAME] with `bind` and `pool`";
    TOP: global defaults events http mail =>
        "known here as the keys at the top of the file, above every [table]";
    TOP: stats status metrics prometheus api =>
        "known here as the status endpoint: write [admin] with `bind`";
    TOP: nbthread nbproc workerprocesses threads =>
        "known here as `workers`";
    TOP: maxconn workerconnections ulimitn =>
        "known here as `max_sessions`";
    TOP: accesslog errorlog syslog logging logs =>
        "known here as the table [log]";
    TOP: user group chroot daemon pid pidfile uid gid =>
        "the service manager does that: see config/posthouse.service";
    TOP: include =>
        "known here as `backends_file` in [pools.NAME]";
    // Listeners.
    LISTENER: listen address addresses addr port ip host =>
        "known here as `bind`: write `bind = [\"0.0.0.0:25\", \"[::]:25\"]`";
    LISTENER: maxconn limitconn maxconnections maxconns =>
        "known here as `max_sessions`, and for one client `max_sessions_per_client`";
    LISTENER: backend backends upstream server =>
        "known here as `pool`: write `pool = \"NAME\"` and a table [pools.NAME.backends]";
    // Pools and backends.
    BACKEND: host hostname ip addr server port =>
        "known here as `address`: write `address = \"10.0.0.11:25\"`";
    BACKEND: maxconn maxconns maxsessions =>
        "known here as `max_connections`";
    BACKEND: priority order =>
        "known here as a tier: 1 serves first, `tier = 2` stands by";
    POOL: server servers backend member members target targets nodes =>
        "known here as a backend: write `mx1 = { address = \"10.0.0.11:25\" }` in \
         [pools.NAME.backends]";
    POOL: maxconn fullconn maxconnections maxconns =>
        "known here as `max_connections` of each backend";
    POOLS: proxyprotocol proxy =>
        "known here as an identity: write `identity = \"proxy-v2\"` in [pools.NAME]";
    HEALTH: type check method protocol =>
        "known here as `depth`: write `depth = \"ehlo\"`";
    // Anywhere.
    ANYWHERE: backup standby =>
        "known here as a tier: write `tier = 2` at the backend";
    ANYWHERE: sendproxyv2 sendproxyv2ssl sendproxyv2sslcn =>
        "known here as an identity: write `identity = \"proxy-v2\"` in [pools.NAME]";
    ANYWHERE: sendproxy =>
        "known here as an identity: write `identity = \"proxy-v1\"` in [pools.NAME]";
    ANYWHERE: acceptproxy setrealipfrom upstreamproxyprotocol =>
        "known here as a required header: write `proxy_protocol = \"required\"` and \
         `trusted_proxies` in [listeners.NAME]";
    ANYWHERE: maxconn =>
        "known here as `max_connections` of a backend, and `max_sessions` of a listener or, at \
         the top, of the process";
    ANYWHERE: timeoutclient clienttimeout timeouttunnel proxytimeout =>
        "known here as `idle_timeout` in [listeners.NAME]";
    TOP_OR_LISTENER: timeout timeouts =>
        "known here by what is waited for: `idle_timeout` in [listeners.NAME], for a session without \
         traffic; `connect_timeout` and `greeting_timeout` in [pools.NAME], for a backend";
    POOLS: timeout timeouts =>
        "known here by what is waited for, in [pools.NAME]: `connect_timeout`, `greeting_timeout`, \
         `queue_timeout`; of a probe it is `timeout` in [pools.NAME.health]";
    ANYWHERE: timeoutclientfin timeoutserverfin =>
        "known here as `half_close_timeout` in [listeners.NAME]";
    ANYWHERE: timeoutserver servertimeout =>
        "known here as `idle_timeout` in [listeners.NAME]; of the greeting `greeting_timeout` \
         in [pools.NAME]";
    ANYWHERE: timeoutconnect proxyconnecttimeout =>
        "known here as `connect_timeout` in [pools.NAME]";
    ANYWHERE: timeoutqueue =>
        "known here as `queue_timeout` in [pools.NAME]";
    ANYWHERE: timeoutcheck =>
        "known here as `timeout` in [pools.NAME.health]";
    ANYWHERE: maxqueue =>
        "known here as `queue_max` in [pools.NAME]";
    ANYWHERE: check healthcheck optionsmtpchk smtpchk optiontcpcheck tcpcheck =>
        "known here as probes, which are on: see [pools.NAME.health]";
    ANYWHERE: nocheck =>
        "known here as `probe = false` in [pools.NAME.health]";
    ANYWHERE: inter =>
        "known here as `interval` in [pools.NAME.health]";
    ANYWHERE: fastinter downinter =>
        "known here as `fast_interval` in [pools.NAME.health]";
    ANYWHERE: maxfails onerror errorlimit =>
        "known here as `strikes` in [pools.NAME.eject], and of probes `fall` in \
         [pools.NAME.health]";
    ANYWHERE: failtimeout =>
        "known here as `time` in [pools.NAME.eject]";
    ANYWHERE: retries redispatch optionredispatch proxynextupstream =>
        "known here as `max_attempts` in [pools.NAME]";
    ANYWHERE: down disabled disable =>
        "known here as a state: write `state = \"maint\"` at the backend";
    ANYWHERE: drain =>
        "known here as a state: write `state = \"drain\"` at the backend";
    ANYWHERE: leastconn =>
        "known here as a policy: write `balance = \"least-connections\"` in [pools.NAME]";
    ANYWHERE: roundrobin =>
        "known here as a policy: write `balance = \"round-robin\"` in [pools.NAME]";
    ANYWHERE: iphash hash stick sticktable stickon persist =>
        "known here as a policy: write `balance = \"source-hash\"` in [pools.NAME]";
    ANYWHERE: algorithm method policy lbmethod lbalgorithm lbpolicy =>
        "known here as `balance` in [pools.NAME]";
    ANYWHERE: defaultbackend usebackend proxypass =>
        "known here as `pool`: write `pool = \"NAME\"` in [listeners.NAME]";
    ANYWHERE: acl tcprequest httprequest mynetworks =>
        "known here as the networks `allow` and `deny` in [listeners.NAME]";
    ANYWHERE: ssl tls starttls crt sslcertificate =>
        "this version ends no TLS: mode \"passthrough\" hands it on to the backends";
    ANYWHERE: proxybind =>
        "known here as `source` in [pools.NAME]";
    ANYWHERE: resolvers resolver resolve =>
        "names are looked up again by their TTL without a key for it";
    ANYWHERE: frontend listen =>
        "known here as a listener: write [listeners.NAME] with `bind` and `pool`";
    ANYWHERE: upstream backend =>
        "known here as a pool: write [pools.NAME] and its table [pools.NAME.backends]";
    ANYWHERE: server =>
        "known here as a backend: write `mx1 = { address = \"10.0.0.11:25\" }` in \
         [pools.NAME.backends]";
};

/// Words for values: the key, words of others, ours.
const VALUES: &[(&str, &[&str], &str)] = values! {
    balance: leastconn leastconnection => "least-connections";
    balance: rr wrr staticrr => "round-robin";
    balance: source iphash hash sh maglev sticky => "source-hash";
    balance: random p2c poweroftwo => "random-two";
    balance: failover activepassive priority => "first";
    mode: tcp l4 stream raw => "passthrough";
    mode: l7 mail lmtp => "smtp";
    identity: sendproxy v1 haproxyv1 proxyprotocolv1 => "proxy-v1";
    identity: sendproxyv2 v2 haproxy proxy proxyprotocol proxyprotocolv2 => "proxy-v2";
    identity: off => "none";
    state: down disabled off maintenance => "maint";
    state: up enabled on active => "ready";
    proxy_protocol: on yes acceptproxy v1 v2 haproxy => "required";
    proxy_protocol: no none => "off";
    depth: tcp l4 => "connect";
    depth: greeting => "banner";
    depth: smtp smtpchk helo => "ehlo";
    depth: tls ssl => "starttls";
    depth: rcpt => "mail";
    output: syslog journal systemd => "journald";
    output: console => "stdout";
    level: warning => "warn";
    level: notice informational => "info";
    level: trace verbose => "debug";
    level: err crit fatal => "error";
    format: logfmt plain => "text";
};

/// What to write for a key or table of another program, in the table `path`.
pub(super) fn key(word: &str, path: &str) -> Option<&'static str> {
    let word = plain(word);
    let fits = |foreign: &&Foreign| {
        (foreign.within.is_empty() || foreign.within.contains(&path))
            && foreign.words.contains(&&*word)
    };
    KEYS.iter().find(fits).map(|foreign| foreign.help)
}

/// What to write for a word of another program as the value of `key`.
pub(super) fn value(key: &str, word: &str) -> Option<&'static str> {
    let word = plain(word);
    let fits = |(of, words, _): &&(&str, &[&str], &str)| *of == key && words.contains(&&*word);
    VALUES.iter().find(fits).map(|(_, _, ours)| *ours)
}

/// What to write for a whole line in the syntax of another program: `server mx1 10.0.0.1:25 check`.
pub(super) fn line(line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    let mut words = line.split([' ', '\t', ';', '{']);
    let first = words.next().filter(|word| !word.is_empty())?;
    let both = words.next().map(|second| format!("{first}{second}"));
    // A key of ours is not a word of others, whatever is wrong behind it.
    if line.contains('=') {
        return None;
    }
    let anywhere = |word: &str| key(word, "a table that is not named above");
    both.as_deref()
        .and_then(anywhere)
        .or_else(|| anywhere(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{Kind, SECTIONS};

    #[test]
    fn words_of_others_are_known_where_they_are_written() {
        for (word, path, ours) in [
            ("backup", "pools.NAME.backends.NAME", "tier = 2"),
            ("send-proxy-v2", "pools.NAME", "\"proxy-v2\""),
            ("send_proxy", "pools.NAME.backends.NAME", "\"proxy-v1\""),
            ("maxconn", "", "`max_sessions`"),
            ("maxconn", "listeners.NAME", "`max_sessions`"),
            ("maxconn", "pools.NAME.backends.NAME", "`max_connections`"),
            ("timeout client", "listeners.NAME", "`idle_timeout`"),
            ("timeout_connect", "pools.NAME", "`connect_timeout`"),
            ("timeout", "listeners.NAME", "`idle_timeout`"),
            ("timeout", "pools.NAME", "`greeting_timeout`"),
            ("check", "pools.NAME.backends.NAME", "[pools.NAME.health]"),
            ("upstream", "", "[pools.NAME]"),
            ("frontend", "", "[listeners.NAME]"),
            ("server", "pools.NAME", "address = "),
            ("proxy_protocol", "pools.NAME", "identity"),
        ] {
            let help = key(word, path).unwrap_or_else(|| panic!("{word} in {path}"));
            assert!(help.contains(ours), "{word} in {path}: {help}");
        }
        assert_eq!(key("nonsense", "pools.NAME"), None);
    }

    #[test]
    fn lines_of_others_are_known_by_their_first_words() {
        for (text, ours) in [
            ("server mx1 10.0.0.1:25 check", "address = "),
            ("    timeout client 30s", "idle_timeout"),
            ("option smtpchk EHLO lb", "[pools.NAME.health]"),
            ("upstream mx {", "[pools.NAME]"),
            ("proxy_pass mx;", "pool = "),
        ] {
            let help = line(text).unwrap_or_else(|| panic!("{text}"));
            assert!(help.contains(ours), "{text}: {help}");
        }
        for text in ["", "# server", "nonsense", "server = ["] {
            assert_eq!(line(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_word_is_plain_and_everything_advised_exists() {
        for foreign in KEYS {
            for word in foreign.words {
                assert_eq!(plain(word), *word);
                for path in foreign.within {
                    let section = SECTIONS.iter().find(|section| section.path == *path);
                    let section = section.unwrap_or_else(|| panic!("{path}"));
                    let own = section.keys.iter().any(|key| plain(key.name) == *word);
                    assert!(!own, "{word} is a key of [{path}]");
                }
            }
            for quoted in foreign.help.split('`').skip(1).step_by(2) {
                let name = quoted.split(' ').next().unwrap_or_default();
                let mut keys = SECTIONS.iter().flat_map(|section| section.keys);
                let exists = name == "mx1" || keys.any(|key| key.name == name);
                assert!(exists, "{name}: {}", foreign.help);
            }
        }
        for (name, words, ours) in VALUES {
            let mut keys = SECTIONS.iter().flat_map(|section| section.keys);
            let is_word = |kind: &Kind| match kind {
                Kind::Word(known) => {
                    known.contains(ours) && words.iter().all(|word| !known.contains(word))
                }
                _ => false,
            };
            let found = keys.any(|key| key.name == *name && is_word(&key.kind));
            assert!(found, "{name} = {ours:?}");
            assert!(words.iter().all(|word| plain(word) == **word), "{words:?}");
        }
    }
}
