//! The host that a question is for, and which hosts are ours.
//!
//! A foreign site can make its own name point to our address (DNS rebinding). A page of it then reads
//! and changes through an operator's browser whatever that operator may. The Host header has the name
//! of the site, so it is read strictly as `host [ ":" port ]` (RFC 9110 §7.2): what only looks like one
//! of our hosts (`[::1].evil`, `127.0.0.1.evil`, `127.1`, `me@localhost`) is not one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hyper::header::{HOST, HeaderMap};
use hyper::{Uri, Version};

/// The longest name of a host (RFC 1035 §2.3.4).
const NAME_OCTETS_MAX: usize = 255;

/// The host that a question is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedHost {
    name: Name,
    /// As it was written, with the port.
    written: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Address(IpAddr),
    Host(Box<str>),
}

/// Why a question names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    /// HTTP/1.0 has no Host header.
    #[error("the question has no Host header")]
    Absent,
    /// RFC 9112 §3.2: HTTP/1.1 has one.
    #[error("the question has no Host header, which HTTP/1.1 demands")]
    Missing,
    /// RFC 9112 §3.2.
    #[error("the question has more than one Host header")]
    Several,
    /// It is not `host [ ":" port ]`, or target and header differ.
    #[error("the question's host is not valid")]
    Invalid,
}

impl AskedHost {
    /// For which host these headers and this target ask.
    ///
    /// # Errors
    /// [`HostError`]
    pub(super) fn of(
        headers: &HeaderMap,
        target: &Uri,
        version: Version,
    ) -> Result<Self, HostError> {
        let mut written = headers.get_all(HOST).iter();
        let first = written.next();
        if written.next().is_some() {
            return Err(HostError::Several);
        }
        // RFC 9112 §3.2.2: an absolute target names the host itself. Both must name the same one.
        let target = target.authority().map(hyper::http::uri::Authority::as_str);
        let Some(first) = first else {
            return Err(match (target, version) {
                (None, Version::HTTP_10 | Version::HTTP_09) => HostError::Absent,
                _ => HostError::Missing,
            });
        };
        let first = first.to_str().map_err(|_| HostError::Invalid)?;
        if target.is_some_and(|target| !target.eq_ignore_ascii_case(first)) {
            return Err(HostError::Invalid);
        }
        let name = parse(first).ok_or(HostError::Invalid)?;
        Ok(Self {
            name,
            written: Arc::from(first),
        })
    }

    /// Whether it was written like this.
    pub(super) fn is_written(&self, text: &str) -> bool {
        self.written.eq_ignore_ascii_case(text)
    }
}

impl fmt::Display for AskedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Name::Address(address) => address.fmt(f),
            Name::Host(host) => f.write_str(host),
        }
    }
}

/// The host of `host [ ":" port ]`.
fn parse(text: &str) -> Option<Name> {
    if let Some(inside) = text.strip_prefix('[') {
        let (address, behind) = inside.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        is_port_or_nothing(behind).then_some(())?;
        return Some(Name::Address(IpAddr::V6(address).to_canonical()));
    }
    let end = text.find(':').unwrap_or(text.len());
    let (host, behind) = text.split_at(end);
    is_port_or_nothing(behind).then_some(())?;
    if let Ok(address) = host.parse() {
        return Some(Name::Address(address));
    }
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    let valid = (1..=NAME_OCTETS_MAX).contains(&host.len()) && host.bytes().all(allowed);
    valid.then(|| Name::Host(host.to_ascii_lowercase().into_boxed_str()))
}

fn is_port_or_nothing(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => {
            port.bytes().all(|octet| octet.is_ascii_digit()) && port.parse::<u16>().is_ok()
        }
        None => text.is_empty(),
    }
}

/// Which hosts are ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct OurHosts<'a> {
    /// Where the endpoint listens; `None` for a Unix socket.
    pub(super) bound: Option<IpAddr>,
    /// The configured `hostname`.
    pub(super) hostname: &'a str,
    /// `[admin] hosts`.
    pub(super) hosts: &'a [Arc<str>],
}

impl OurHosts<'_> {
    /// Whether `host` is one of them. A name that an attacker may give an address is none.
    pub(super) fn has(&self, host: &AskedHost) -> bool {
        match &host.name {
            // An address cannot be made to point elsewhere. But a client that asks an endpoint on
            // loopback by another address came through something in between.
            Name::Address(address) => {
                address.is_loopback() || self.is_public() || self.is_listed(&address.to_string())
            }
            Name::Host(name) => {
                &**name == "localhost"
                    || (self.is_public() && name.eq_ignore_ascii_case(self.hostname))
                    || self.is_listed(name)
            }
        }
    }

    /// By which hosts it may be asked, for a remedy.
    pub(super) fn in_words(&self) -> &'static str {
        if self.is_public() {
            "by IP address, localhost or the configured hostname"
        } else {
            "by 127.0.0.1, [::1] or localhost"
        }
    }

    fn is_public(&self) -> bool {
        self.bound
            .is_some_and(|bound| !bound.to_canonical().is_loopback())
    }

    fn is_listed(&self, name: &str) -> bool {
        self.hosts
            .iter()
            .any(|host| host.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn asked(hosts: &[&str], target: &str, version: Version) -> Result<AskedHost, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).expect("a header value"));
        }
        AskedHost::of(&headers, &target.parse().expect("a target"), version)
    }

    fn asked_as(host: &str) -> Result<AskedHost, HostError> {
        asked(&[host], "/", Version::HTTP_11)
    }

    /// What an endpoint on loopback and one on every address say.
    fn verdicts(host: &str) -> [bool; 2] {
        let listed: [Arc<str>; 2] = [Arc::from("mon.example"), Arc::from("192.0.2.7")];
        ["127.0.0.1", "::"].map(|bound| {
            let ours = OurHosts {
                bound: Some(bound.parse().expect("an address")),
                hostname: "lb.example",
                hosts: &listed,
            };
            asked_as(host).is_ok_and(|host| ours.has(&host))
        })
    }

    #[test]
    fn only_hosts_of_ours_are_ours() {
        for (host, expected) in [
            ("127.0.0.1", [true, true]),
            ("127.0.0.1:8025", [true, true]),
            ("127.9.9.9:1", [true, true]),
            ("[::1]", [true, true]),
            ("[::1]:8025", [true, true]),
            ("[::ffff:127.0.0.1]:8025", [true, true]),
            ("localhost", [true, true]),
            ("LocalHost:8025", [true, true]),
            ("mon.example:443", [true, true]),
            ("MON.example", [true, true]),
            ("192.0.2.7:8025", [true, true]),
            // An address cannot be rebound, but loopback is not reached by it.
            ("192.0.2.8:8025", [false, true]),
            ("[2001:db8::1]:8025", [false, true]),
            ("lb.example", [false, true]),
            ("LB.example:8025", [false, true]),
            ("evil.example", [false, false]),
            ("localhost.evil.example", [false, false]),
            ("localhost.evil", [false, false]),
            ("127.0.0.1.evil", [false, false]),
            ("mon.example.evil", [false, false]),
            ("notmon.example", [false, false]),
            // What a resolver takes for an address and a parser does not.
            ("127.1", [false, false]),
            ("0x7f.0.0.1", [false, false]),
            ("2130706433", [false, false]),
            ("127.000.0.1", [false, false]),
        ] {
            assert_eq!(verdicts(host), expected, "{host}");
        }
    }

    #[test]
    fn text_that_only_looks_like_a_host_is_invalid() {
        for host in [
            "",
            "[::1].evil",
            "[::1]evil:8025",
            "[::1",
            "::1",
            "::1:8025",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "[localhost]",
            "me@localhost",
            "localhost@evil.example",
            "localhost:8025@evil.example",
            "localhost:port",
            "localhost:",
            "localhost:+80",
            "localhost:99999",
            "localhost:80:80",
            "localhost/evil",
            "localhost evil",
            "localhost,evil",
            "http://localhost",
            "*",
        ] {
            assert_eq!(asked_as(host), Err(HostError::Invalid), "{host:?}");
        }
        let long = "a".repeat(NAME_OCTETS_MAX + 1);
        assert_eq!(asked_as(&long), Err(HostError::Invalid));
    }

    #[test]
    fn there_is_one_host_and_an_absolute_target_names_the_same() {
        let twice = ["localhost", "localhost"];
        let both = [Version::HTTP_10, Version::HTTP_11];
        for version in both {
            assert_eq!(asked(&twice, "/", version), Err(HostError::Several));
        }
        let none = both.map(|version| asked(&[], "/", version));
        assert_eq!(none, [Err(HostError::Absent), Err(HostError::Missing)]);
        for (host, target, expected) in [
            (&["localhost:1"][..], "http://localhost:1/status", Ok(())),
            (
                &["localhost"],
                "http://evil/status",
                Err(HostError::Invalid),
            ),
            (
                &["evil"],
                "http://localhost/status",
                Err(HostError::Invalid),
            ),
            (
                &["localhost"],
                "http://me@localhost/",
                Err(HostError::Invalid),
            ),
            (&[], "http://localhost/status", Err(HostError::Missing)),
        ] {
            let found = asked(host, target, Version::HTTP_11);
            assert_eq!(found.map(drop), expected, "{host:?} {target}");
        }
        let without = asked(&[], "http://localhost/", Version::HTTP_10);
        assert_eq!(without, Err(HostError::Missing));
    }
}
