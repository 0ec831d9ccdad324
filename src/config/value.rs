//! What may stand in quotes: durations, rates, percentages, addresses, networks, names, replies.
//!
//! Each reader takes the text of one string and returns the value or what is [`Wrong`] with it,
//! always with a remedy where there is one. They know neither files nor spans.

mod meant;
mod smtp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub(super) use self::smtp::{keyword, quota, quota_text, size, size_text};
use super::model::BackendAddress;
use super::near;
use crate::smtp::OwnReply;
use crate::types::{Percent, Rate};

/// The longest name of a listener, pool or backend, in octets.
const NAME_LENGTH_MAX: usize = 64;
/// The longest host name, in octets (RFC 1035 §2.3.4, without the root's dot).
const HOST_LENGTH_MAX: usize = 253;
/// The longest label of a host name, in octets (RFC 1035 §2.3.4).
const LABEL_LENGTH_MAX: usize = 63;
/// The longest name of a network interface, in octets (IFNAMSIZ − 1).
const INTERFACE_LENGTH_MAX: usize = 15;
/// The longest reply, in octets without CRLF (RFC 5321 §4.5.3.1.5).
const REPLY_LENGTH_MAX: usize = 510;
/// The longest path of a Unix socket, in octets (sun_path − 1).
const SOCKET_PATH_MAX: usize = 107;
/// The longest name of a group, in octets (LOGIN_NAME_MAX of useradd(8)).
const GROUP_LENGTH_MAX: usize = 32;
/// The longest path of a mailbox, in octets (RFC 5321 §4.5.3.1.3).
const MAILBOX_LENGTH_MAX: usize = 254;
/// The largest count in a rate.
const RATE_COUNT_MAX: u32 = 1_000_000;
/// The longest period of a rate.
const RATE_PERIOD_MAX: Duration = Duration::from_hours(24);

/// What is wrong with a text, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

/// `250ms`, `5s`, `10m`, `1h`, `1d`: one whole number, one unit.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shape = || {
        let forms =
            "write one whole number and one unit: \"250ms\", \"5s\", \"10m\", \"1h\" or \"1d\"";
        let help = meant::duration(text).map(|meant| format!("write {meant:?}"));
        Wrong::new(
            format!("{:?} is not a duration", shown(text)),
            help.unwrap_or_else(|| forms.to_owned()),
        )
    };
    if number.is_empty() {
        return Err(shape());
    }
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => {
            return Err(Wrong::new(
                format!("{text:?} has no unit"),
                format!("write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"),
            ));
        }
        _ => return Err(shape()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| Wrong::new(format!("{text:?} is too long"), "the longest is \"365d\""))
}

/// A duration as this file format writes it, in the largest unit that is exact.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1_000 == 0 => format!("{}s", m / 1_000),
        m => format!("{m}ms"),
    }
}

/// `100/60s`, `10/s`: events per period.
pub(super) fn rate(text: &str) -> Result<Rate, Wrong> {
    let shape = || {
        let help = meant::rate(text).map(|meant| format!("write {meant:?}"));
        Wrong::new(
            format!("{:?} is not a rate", shown(text)),
            help.unwrap_or_else(|| {
                "write events per time: \"10/s\", \"100/60s\" or \"5000/h\"".to_owned()
            }),
        )
    };
    let (count, period) = text.split_once('/').ok_or_else(shape)?;
    let count: u32 = count.trim().parse().map_err(|_| shape())?;
    let period = period.trim();
    let period = if matches!(period, "ms" | "s" | "m" | "h" | "d") {
        duration(&format!("1{period}"))?
    } else {
        duration(period).map_err(|_| shape())?
    };
    if !(1..=RATE_COUNT_MAX).contains(&count) {
        return Err(Wrong::new(
            format!("{count} is outside 1 to {RATE_COUNT_MAX} events"),
            "leave the key out for no limit",
        ));
    }
    if period.is_zero() || period > RATE_PERIOD_MAX {
        return Err(Wrong::new(
            format!("the period {} is outside 1ms to 24h", duration_text(period)),
            "give a period such as \"60s\"",
        ));
    }
    Ok(Rate { count, period })
}

/// `1%`.
pub(super) fn percent(text: &str) -> Result<Percent, Wrong> {
    text.strip_suffix('%')
        .and_then(|number| number.trim_end().parse::<u8>().ok())
        .and_then(Percent::new)
        .ok_or_else(|| {
            let number = text.trim().parse::<u8>().ok().and_then(Percent::new);
            Wrong::new(
                format!("{:?} is not a percentage", shown(text)),
                number.map_or_else(
                    || "write a whole number from \"0%\" to \"100%\"".to_owned(),
                    |number| format!("write \"{}%\"", number.value()),
                ),
            )
        })
}

/// The name of a listener, pool or backend: 1 to 64 of letters, digits, `.`, `_`, `-`.
pub(super) fn name(text: &str) -> Result<Arc<str>, Wrong> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(Arc::from(text));
    }
    Err(Wrong::new(
        format!("{:?} is not a name", shown(text)),
        format!("names are 1 to {NAME_LENGTH_MAX} of the letters A-Z a-z, digits, `.`, `_`, `-`"),
    ))
}

/// An address to listen on: `0.0.0.0:25`, `[::]:25`.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return check_bind(address);
    }
    Err(Wrong::new(
        format!("{:?} is not an address and port", shown(text)),
        bind_help(text),
    ))
}

fn check_bind(address: SocketAddr) -> Result<SocketAddr, Wrong> {
    let ip = address.ip();
    if ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        return Err(Wrong::new(
            format!("{ip} is not an address of a host"),
            "give an address of this host, or 0.0.0.0 or [::] for all",
        ));
    }
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(Wrong::new(
            format!("{ip} is an IPv4 address in IPv6 form"),
            format!("write \"{v4}:{}\"", address.port()),
        ));
    }
    Ok(address)
}

fn bind_help(text: &str) -> String {
    if text.parse::<u16>().is_ok() {
        return format!("write [\"0.0.0.0:{text}\", \"[::]:{text}\"] for all addresses");
    }
    let ip = text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    if let Some(ip) = ip.filter(|_| !meant::may_end_in_port(text)) {
        return format!("add the port: \"{}\"", SocketAddr::new(ip, 25));
    }
    if let Some(help) = meant::bind(text) {
        return help;
    }
    "write an IP address and a port: \"192.0.2.1:25\", \"[2001:db8::1]:25\", or \"0.0.0.0:25\" \
     and \"[::]:25\" for all"
        .to_owned()
}

/// Where a backend is: `10.0.0.11:25`, `[2001:db8::1]:25`, `mx.example:25`.
pub(super) fn backend_address(text: &str) -> Result<BackendAddress, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return literal(address);
    }
    let named = text.rsplit_once(':').map(|(host, port)| {
        let port = port.parse::<u16>().ok().filter(|port| *port != 0);
        (host_name(host), port)
    });
    if let Some((Ok(host), Some(port))) = named {
        return Ok(BackendAddress::Name { host, port });
    }
    if text.trim_matches(['[', ']']).parse::<Ipv4Addr>().is_ok() || host_name(text).is_ok() {
        return Err(Wrong::new(
            format!("{text:?} has no port"),
            format!("write \"{}:25\"", text.trim_matches(['[', ']'])),
        ));
    }
    if let Some(wrong) = meant::backend(text) {
        return Err(wrong);
    }
    Err(match named {
        Some((Err(wrong), _)) => wrong,
        Some((Ok(_), _)) => Wrong::new(
            format!("{:?} has no port from 1 to 65535", shown(text)),
            "write it as \"mx.example:25\"",
        ),
        None => Wrong::new(
            format!("{:?} has no port", shown(text)),
            "write \"10.0.0.11:25\", \"[2001:db8::1]:25\" or \"mx.example:25\"",
        ),
    })
}

fn literal(address: SocketAddr) -> Result<BackendAddress, Wrong> {
    let ip = address.ip();
    if address.port() == 0 {
        return Err(Wrong::new("0 is not a port", "ports are 1 to 65535"));
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]) {
        return Err(Wrong::new(
            format!("{ip} is not an address of a host"),
            "give the address of the mail server",
        ));
    }
    // A mapped address would be dialled over an IPv6 socket and never be equal to its IPv4 self.
    Ok(BackendAddress::Literal(SocketAddr::new(
        ip.to_canonical(),
        address.port(),
    )))
}

/// A host name to be looked up; underscores are tolerated as Postfix tolerates them.
pub(super) fn host_name(text: &str) -> Result<Arc<str>, Wrong> {
    let host = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=LABEL_LENGTH_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    let digits_last = host
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|c| c.is_ascii_digit()));
    if digits_last {
        return Err(Wrong::new(
            format!("{:?} is neither a host name nor an IP address", shown(text)),
            "the numbers of an IPv4 address are 0 to 255, four of them",
        ));
    }
    if host.len() > HOST_LENGTH_MAX || !host.split('.').all(label) {
        return Err(Wrong::new(
            format!("{:?} is not a host name", shown(text)),
            "host names are labels of letters, digits and hyphens, joined by dots; IPv6 addresses \
             stand in brackets: \"[2001:db8::1]:25\"",
        ));
    }
    Ok(Arc::from(host))
}

/// Our own name: a host name or an address literal (RFC 5321 §4.1.2, §4.1.3).
pub(super) fn own_name(text: &str) -> Result<Arc<str>, Wrong> {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        let valid = match inner.strip_prefix("IPv6:") {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => inner.parse::<Ipv4Addr>().is_ok(),
        };
        return if valid {
            Ok(Arc::from(text))
        } else {
            Err(Wrong::new(
                format!("{:?} is not an address literal", shown(text)),
                "write \"[192.0.2.1]\" or \"[IPv6:2001:db8::1]\" (RFC 5321 §4.1.3)",
            ))
        };
    }
    host_name(text).map_err(|_| {
        Wrong::new(
            format!("{:?} is not a host name", shown(text)),
            "give the name that other mail servers know this host by, such as \"mx.example.org\"",
        )
    })
}

/// A network, `10.0.0.0/8`, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network = text.parse::<IpNet>().map_err(|_| {
        Wrong::new(
            format!("{:?} is not a network", shown(text)),
            meant::networks(text).unwrap_or_else(|| {
                "write \"10.0.0.0/8\", \"2001:db8::/32\" or one address".to_owned()
            }),
        )
    })?;
    if network.trunc() != network {
        return Err(Wrong::new(
            format!("{text} names a host inside a network"),
            format!(
                "write \"{}\" for the network or \"{}\" for the host",
                network.trunc(),
                network.addr()
            ),
        ));
    }
    Ok(network)
}

/// A host by which the status endpoint is asked: a name or an address, in lower case, no port.
pub(super) fn asked_host(text: &str) -> Result<Arc<str>, Wrong> {
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Ok(ip) = inside.unwrap_or(text).parse::<IpAddr>() {
        return Ok(Arc::from(ip.to_canonical().to_string()));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return Err(Wrong::new(
            format!("{:?} has a port", shown(text)),
            format!(
                "write it without the port, which does not matter: {:?}",
                shown(host)
            ),
        ));
    }
    host_name(text).map(|host| Arc::from(host.to_ascii_lowercase()))
}

/// An address to send from.
pub(super) fn source(text: &str) -> Result<IpAddr, Wrong> {
    let ip: IpAddr = text.parse().map_err(|_| {
        Wrong::new(
            format!("{:?} is not an IP address", shown(text)),
            "write an address of this host without a port: \"192.0.2.10\"",
        )
    })?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(Wrong::new(
            format!("{ip} is not an address to send from"),
            "leave the key out to let the kernel choose",
        ));
    }
    Ok(ip.to_canonical())
}

/// The name of a network interface.
pub(super) fn interface(text: &str) -> Result<Arc<str>, Wrong> {
    let allowed = |c: u8| c.is_ascii_graphic() && !matches!(c, b'/' | b':');
    if (1..=INTERFACE_LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(Arc::from(text));
    }
    Err(Wrong::new(
        format!("{:?} is not the name of a network interface", shown(text)),
        format!("1 to {INTERFACE_LENGTH_MAX} printable characters, as `ip link` shows them"),
    ))
}

/// The path of a Unix socket, after `unix:`.
pub(super) fn socket_path(text: &str) -> Result<std::path::PathBuf, Wrong> {
    if !text.starts_with('/') || text.contains('\0') {
        return Err(Wrong::new(
            format!("{:?} is not an absolute path", shown(text)),
            "write \"unix:/run/posthouse/admin.sock\"",
        ));
    }
    if text.len() > SOCKET_PATH_MAX {
        return Err(Wrong::new(
            format!(
                "the path has {} octets, more than {SOCKET_PATH_MAX}",
                text.len()
            ),
            "the kernel takes no longer path for a Unix socket",
        ));
    }
    Ok(text.into())
}

/// A group of this host: a name or a number.
pub(super) fn group(text: &str) -> Result<Arc<str>, Wrong> {
    let allowed = |c: u8| c.is_ascii_graphic() && !matches!(c, b':' | b'/' | b',');
    if (1..=GROUP_LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(Arc::from(text));
    }
    Err(Wrong::new(
        format!("{:?} is not the name of a group", shown(text)),
        format!("1 to {GROUP_LENGTH_MAX} printable characters, as `getent group` shows them"),
    ))
}

/// Permission bits: `0660`.
pub(super) fn permissions(text: &str) -> Result<u32, Wrong> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|c| (b'0'..=b'7').contains(&c));
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| octal && *mode <= 0o777)
        .ok_or_else(|| {
            Wrong::new(
                format!("{:?} is not a set of permission bits", shown(text)),
                "write them in octal as for chmod: \"0660\"",
            )
        })
}

/// A mailbox without angle brackets, for probes (RFC 5321 §4.1.2).
pub(super) fn mailbox(text: &str) -> Result<Arc<str>, Wrong> {
    let graphic = text
        .bytes()
        .all(|c| c.is_ascii_graphic() && !matches!(c, b'<' | b'>'));
    let parts = text.rsplit_once('@');
    let valid = parts.is_some_and(|(local, domain)| {
        !local.is_empty() && local.len() <= 64 && own_name(domain).is_ok()
    });
    if graphic && valid && text.len() <= MAILBOX_LENGTH_MAX {
        return Ok(Arc::from(text));
    }
    Err(Wrong::new(
        format!("{:?} is not a mailbox", shown(text)),
        "write it without angle brackets: \"postmaster@example.org\"",
    ))
}

/// The first digit that a reply must have: what it tells the client to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// 2yz: done.
    Success,
    /// 4yz: try again later.
    Temporary,
    /// 5yz: do not try again.
    Permanent,
}

impl Class {
    fn digit(self) -> char {
        match self {
            Self::Success => '2',
            Self::Temporary => '4',
            Self::Permanent => '5',
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Success => "it is done",
            Self::Temporary => "the client must try again later",
            Self::Permanent => "the client must not try again",
        }
    }
}

/// One of our own replies: code, enhanced code, text (RFC 5321 §4.2, RFC 3463); `{hostname}` is
/// put in.
pub(super) fn reply(text: &str, class: Class, hostname: &str) -> Result<Arc<str>, Wrong> {
    check_octets(text)?;
    check_codes(text, class)?;
    worded(text, hostname)
}

/// A reply of ours in other words: its class stays, and 421, 220 and what is not a failure stay the
/// code they are (rules R1, R2, G9, G10).
pub(super) fn own_reply(text: &str, own: OwnReply, hostname: &str) -> Result<Arc<str>, Wrong> {
    check_octets(text)?;
    let code = own.code().value();
    let is_fixed = code == 421 || code < 400;
    if is_fixed && !text.starts_with(&format!("{code} ")) {
        return Err(Wrong::new(
            format!("this reply is {code}, whatever its words"),
            format!("begin it with \"{code} \""),
        ));
    }
    let names_host = |line: &str| line.split(' ').nth(1) == Some("{hostname}");
    match code {
        220 if !names_host(text) => {
            return Err(Wrong::new(
                "a greeting names its host first (RFC 5321 §4.2)",
                "begin it with \"220 {hostname} \"",
            ));
        }
        220 | 354 => {}
        200..=399 => check_codes(text, Class::Success)?,
        400..=499 => check_codes(text, Class::Temporary)?,
        _ => check_codes(text, Class::Permanent)?,
    }
    if !is_fixed && text.starts_with("421 ") {
        return Err(Wrong::new(
            "421 ends the session, and this reply does not",
            format!("begin it with \"{code} \""),
        ));
    }
    worded(text, hostname)
}

fn check_octets(text: &str) -> Result<(), Wrong> {
    if text.bytes().any(|c| matches!(c, b'\r' | b'\n')) {
        return Err(Wrong::new(
            "a reply is one line: CR and LF cannot be part of it",
            "remove the line breaks; Posthouse adds the one at the end",
        ));
    }
    if let Some(c) = text.chars().find(|c| !matches!(c, '\t' | ' '..='~')) {
        return Err(Wrong::new(
            format!("{c:?} cannot be part of a reply"),
            "use printable ASCII only (RFC 5321 §4.2)",
        ));
    }
    Ok(())
}

/// The line with our name in it.
fn worded(text: &str, hostname: &str) -> Result<Arc<str>, Wrong> {
    check_placeholders(text)?;
    let reply = text.replace("{hostname}", hostname);
    if reply.len() > REPLY_LENGTH_MAX {
        return Err(Wrong::new(
            format!(
                "the reply has {} octets, more than {REPLY_LENGTH_MAX}",
                reply.len()
            ),
            "shorten it: a line has at most 512 octets with CRLF (RFC 5321 §4.5.3.1.5)",
        ));
    }
    Ok(Arc::from(reply))
}

fn check_codes(text: &str, class: Class) -> Result<(), Wrong> {
    let digit = class.digit();
    let example = match class {
        Class::Success => "250 2.0.0 ok",
        Class::Temporary => "421 4.3.2 {hostname} try again later",
        Class::Permanent => "554 5.7.1 {hostname} access denied",
    };
    let mut words = text.splitn(3, ' ');
    let (code, enhanced) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let is_code = matches!(code.as_bytes(), [b'2'..=b'5', b'0'..=b'5', b'0'..=b'9']);
    if !is_code {
        return Err(Wrong::new(
            "a reply begins with a code of three digits and a space",
            format!("for example \"{example}\""),
        ));
    }
    if !code.starts_with(digit) {
        return Err(Wrong::new(
            format!("{code} has the wrong class here: it must begin with {digit}"),
            format!("{digit}yz says that {}", class.meaning()),
        ));
    }
    if !is_enhanced(enhanced) {
        return Err(Wrong::new(
            "an enhanced code must follow the code",
            format!("for example \"{example}\" (RFC 3463)"),
        ));
    }
    if !enhanced.starts_with(digit) {
        return Err(Wrong::new(
            format!("the enhanced code {enhanced} does not agree with {code}"),
            format!("write \"{digit}{}\"", &enhanced[1..]),
        ));
    }
    Ok(())
}

/// `class "." subject "." detail` (RFC 3463 §2).
fn is_enhanced(text: &str) -> bool {
    let mut parts = text.split('.');
    let class = parts
        .next()
        .is_some_and(|class| matches!(class, "2" | "4" | "5"));
    let mut number = || {
        parts
            .next()
            .is_some_and(|n| (1..=3).contains(&n.len()) && n.bytes().all(|c| c.is_ascii_digit()))
    };
    class && number() && number() && parts.next().is_none()
}

fn check_placeholders(text: &str) -> Result<(), Wrong> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((word, next)) = after.split_once('}') else {
            return Ok(());
        };
        let is_word = !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
        if is_word && word != "hostname" {
            return Err(Wrong {
                message: format!("{{{word}}} stands for nothing"),
                help: near::help(word, &["hostname"]),
            });
        }
        rest = next;
    }
    Ok(())
}

/// The beginning of a text of any length, for a message.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    if text.chars().nth(SHOWN_MAX).is_none() {
        return text.to_owned();
    }
    text.chars().take(SHOWN_MAX).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests;
