//! What was probably meant by a value that cannot be read: the forms of other programs and of habit,
//! rewritten as this file format has them. Only advice is made here; nothing of it is ever used.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Subnets};

use super::{Wrong, duration_text, host_name, shown};

/// The port of SMTP, where none is written.
const SMTP: u16 = 25;
/// Networks that an advice names, at most.
const NETWORKS_MAX: usize = 8;

/// Ports by their names in services(5).
const SERVICES: [(&str, u16); 5] = [
    ("smtp", SMTP),
    ("submission", 587),
    ("submissions", 465),
    ("smtps", 465),
    ("ssmtp", 465),
];

/// Units of time by every name they go by.
const UNITS: [(&[&str], &str, u64); 6] = [
    (
        &[
            "ms",
            "msec",
            "msecs",
            "millis",
            "millisecond",
            "milliseconds",
        ],
        "ms",
        1,
    ),
    (&["s", "sec", "secs", "second", "seconds"], "s", 1_000),
    (&["m", "min", "mins", "minute", "minutes"], "m", 60_000),
    (&["h", "hr", "hrs", "hour", "hours"], "h", 3_600_000),
    (&["d", "day", "days"], "d", 86_400_000),
    (&["w", "week", "weeks"], "7d", 604_800_000),
];

/// `30 s`, `5min`, `1.5s`, `1h 30m`: the same as one number and one unit.
pub(super) fn duration(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let mut rest = lower.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number = prefix(rest, |c| c.is_ascii_digit() || c == '.');
        let after = rest[number.len()..].trim_start();
        let unit = prefix(after, |c| c.is_ascii_alphabetic());
        let (_, _, millis) = unit_named(unit)?;
        let amount: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(amount * *millis as f64 / 1e3).ok()?;
        total = total.checked_add(part)?;
        rest = after[unit.len()..].trim_start();
    }
    let is_exact = total.subsec_nanos().is_multiple_of(1_000_000);
    (is_exact && !text.trim().is_empty()).then(|| duration_text(total))
}

/// `100 per minute`, `10/sec`: events per time.
pub(super) fn rate(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let (count, period) = lower
        .split_once('/')
        .or_else(|| lower.split_once(" per "))?;
    let count: u64 = count.trim().parse().ok()?;
    let period = period.trim();
    let period = match unit_named(period) {
        Some((_, unit, _)) => (*unit).to_owned(),
        None => duration(period)?,
    };
    Some(format!("{count}/{period}"))
}

fn unit_named(name: &str) -> Option<&'static (&'static [&'static str], &'static str, u64)> {
    UNITS.iter().find(|(names, _, _)| names.contains(&name))
}

fn prefix(text: &str, of: impl Fn(char) -> bool) -> &str {
    &text[..text.len() - text.trim_start_matches(of).len()]
}

/// A backend's address in another form.
pub(super) fn backend(text: &str) -> Option<Wrong> {
    let bare = text.trim();
    if bare.starts_with("unix:") || bare.starts_with('/') {
        return Some(Wrong::new(
            format!(
                "{:?} is a Unix socket, and backends are reached by TCP",
                shown(text)
            ),
            "let the mail server listen on a port too, and write \"127.0.0.1:25\"",
        ));
    }
    let (bare, port) = without_scheme(bare);
    let meant = host_and_port(bare, port)?;
    let message = format!("{:?} is not an address and port", shown(text));
    Some(Wrong::new(message, format!("write {meant}")))
}

/// Whether an IPv6 address without brackets may as well be a shorter one and a port: `::1:25`.
pub(super) fn may_end_in_port(text: &str) -> bool {
    split_port(text).is_some_and(|(host, _)| host.parse::<Ipv6Addr>().is_ok())
}

/// An address to listen on in another form.
pub(super) fn bind(text: &str) -> Option<String> {
    let bare = text.trim();
    if bare.starts_with("unix:") || bare.starts_with('/') {
        return Some("clients connect by TCP: write an IP address and a port".to_owned());
    }
    let (bare, port) = without_scheme(bare);
    // As netstat shows it.
    let bare = match bare.strip_prefix(":::") {
        Some(port) => &format!("[::]:{port}")[..],
        None => bare,
    };
    if let Some((host, port)) = split_port(bare) {
        if host.eq_ignore_ascii_case("localhost") {
            return Some(format!("write [\"127.0.0.1:{port}\", \"[::1]:{port}\"]"));
        }
        if matches!(host, "*" | "") {
            return Some(format!(
                "write [\"0.0.0.0:{port}\", \"[::]:{port}\"] for all addresses"
            ));
        }
        if host_name(host).is_ok() {
            return Some(format!(
                "write the address that {host} has on this machine, such as \"192.0.2.1:{port}\""
            ));
        }
    }
    if host_name(bare).is_ok() {
        return None;
    }
    let meant = host_and_port(bare, port)?;
    Some(format!("write {meant}"))
}

/// `smtp://host`, `inet:host`: the rest, and the port that the scheme means.
fn without_scheme(text: &str) -> (&str, u16) {
    let words = ["inet:", "tcp:", "smtp:", "lmtp:"];
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest.split('/').next().unwrap_or(rest)),
        None => match words.iter().find(|word| text.starts_with(**word)) {
            // `smtp:25` would be a host of that name.
            Some(word) if text[word.len()..].contains([':', '.']) => {
                ("", text[word.len()..].trim_start_matches("inet:"))
            }
            Some(_) | None => ("", text),
        },
    };
    let port = SERVICES.iter().find(|(name, _)| *name == scheme);
    (rest, port.map_or(SMTP, |(_, port)| *port))
}

/// What to write for a host and a port that stand together in any way, in quotes.
fn host_and_port(text: &str, default: u16) -> Option<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(format!("\"{address}\""));
    }
    let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = unbracketed.parse::<IpAddr>() {
        let whole = SocketAddr::new(ip, default);
        return Some(match (ip, split_port(text)) {
            // `::1:25` is an address as well.
            (IpAddr::V6(_), Some((host, port))) if host.parse::<Ipv6Addr>().is_ok() => {
                format!("\"[{host}]:{port}\", or \"{whole}\" if all of it is the address")
            }
            _ => format!("\"{whole}\""),
        });
    }
    let (host, port) = split_port(text).unwrap_or((text, default));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(format!("\"{}\"", SocketAddr::new(ip, port)));
    }
    let is_name = host_name(host).is_ok();
    is_name.then(|| format!("\"{}:{port}\"", host.trim_end_matches('.')))
}

/// The last part as a port: a number or the name of a service, behind a colon or a blank.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once([':', ' ', ','])?;
    let service = SERVICES.iter().find(|(name, _)| *name == port);
    let port = service.map_or_else(|| port.parse().ok(), |(_, port)| Some(*port));
    Some((host.trim_end(), port.filter(|port| *port != 0)?))
}

/// Networks in another form: a range, a mask, a wildcard.
pub(super) fn networks(text: &str) -> Option<String> {
    let bare = text.trim();
    if matches!(bare.to_lowercase().as_str(), "all" | "any" | "*") {
        return Some("write \"0.0.0.0/0\" and \"::/0\"".to_owned());
    }
    if bare.eq_ignore_ascii_case("localhost") {
        return Some("write \"127.0.0.0/8\" and \"::1\"".to_owned());
    }
    let meant = range(bare)
        .or_else(|| masked(bare))
        .or_else(|| wildcard(bare))
        .or_else(|| {
            // As Postfix writes IPv6 networks, or with a port behind it.
            let unbracketed = bare.replace(['[', ']'], "");
            let network = unbracketed.parse::<IpNet>();
            let address = unbracketed.parse::<IpAddr>().or_else(|error| {
                bare.parse::<SocketAddr>()
                    .map(|address| address.ip())
                    .map_err(|_| error)
            });
            network
                .or(address.map(IpNet::from))
                .ok()
                .map(|one| vec![one])
        })?;
    let mut help = String::from("write ");
    for (index, network) in meant.iter().take(NETWORKS_MAX).enumerate() {
        let between = if index == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(help, "{between}\"{}\"", network_text(network));
    }
    if meant.len() > NETWORKS_MAX {
        let _ = write!(help, " and {} more", meant.len() - NETWORKS_MAX);
    }
    Some(help)
}

/// `10.0.0.1-10.0.0.9` or `10.0.0.1-9`: the fewest networks that hold exactly these addresses.
fn range(text: &str) -> Option<Vec<IpNet>> {
    let (first, last) = text.split_once('-')?;
    let first: IpAddr = first.trim().parse().ok()?;
    let last = last.trim();
    let last = last.parse().ok().or_else(|| match first {
        IpAddr::V4(first) => {
            let [a, b, c, _] = first.octets();
            last.parse().ok().map(|d: u8| IpAddr::from([a, b, c, d]))
        }
        IpAddr::V6(_) => None,
    })?;
    // One network more than is shown says that there are more; a range of IPv6 may need 254.
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Some(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        _ => None,
    }
}

/// `10.0.0.0/255.255.255.0`, or with a blank.
fn masked(text: &str) -> Option<Vec<IpNet>> {
    let (address, mask) = text.split_once(['/', ' '])?;
    let address: Ipv4Addr = address.trim().parse().ok()?;
    let mask: Ipv4Addr = mask.trim().parse().ok()?;
    let network = Ipv4Net::with_netmask(address, mask).ok()?;
    Some(vec![IpNet::V4(network.trunc())])
}

/// `10.0.*.*`, `10.0.`, `10.0/16`: the octets that are there.
fn wildcard(text: &str) -> Option<Vec<IpNet>> {
    let text = text.split('/').next().unwrap_or(text);
    let known = text.trim_end_matches(['.', '*', 'x']);
    if known.is_empty() || known.len() == text.len() && known.contains(':') {
        return None;
    }
    let mut octets = [0; 4];
    let mut count = 0;
    for part in known.split('.') {
        *octets.get_mut(count)? = part.parse().ok()?;
        count += 1;
    }
    let bits = u8::try_from(count).ok()? * 8;
    let network = Ipv4Net::new(Ipv4Addr::from(octets), bits).ok()?;
    (count < 4).then(|| vec![IpNet::V4(network)])
}

fn network_text(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        return network.addr().to_string();
    }
    network.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(of: impl Fn(&str) -> Option<String>, rows: &[(&str, Option<&str>)]) {
        for (text, meant) in rows {
            assert_eq!(of(text).as_deref(), *meant, "{text:?}");
        }
    }

    #[test]
    fn times_in_words_and_with_blanks_are_one_number_and_one_unit() {
        table(
            duration,
            &[
                ("30 s", Some("30s")),
                ("30sec", Some("30s")),
                ("5 Minutes", Some("5m")),
                ("1.5s", Some("1500ms")),
                ("1h 30m", Some("90m")),
                ("1w", Some("168h")),
                ("1.0001ms", None),
                ("2x", None),
                ("s", None),
                ("-5s", None),
                ("", None),
                (" ", None),
                ("1e99d", None),
                ("99999999999999999999999999 days", None),
            ],
        );
        table(
            rate,
            &[
                ("10 per second", Some("10/s")),
                ("100/min", Some("100/m")),
                ("100 / 5 min", Some("100/5m")),
                ("10", None),
                ("ten/s", None),
            ],
        );
    }

    #[test]
    fn addresses_of_backends_in_other_forms_are_rewritten() {
        table(
            |text| backend(text).and_then(|wrong| wrong.help),
            &[
                (
                    "::1:25",
                    Some("write \"[::1]:25\", or \"[::1:25]:25\" if all of it is the address"),
                ),
                (
                    "2001:db8:0:0:0:0:0:1:25",
                    Some("write \"[2001:db8::1]:25\""),
                ),
                ("smtp://mx.example:2525", Some("write \"mx.example:2525\"")),
                ("smtp://mx.example/", Some("write \"mx.example:25\"")),
                ("smtps://mx.example", Some("write \"mx.example:465\"")),
                ("tcp://[::1]:26", Some("write \"[::1]:26\"")),
                ("inet:mx.example:24", Some("write \"mx.example:24\"")),
                ("lmtp:inet:10.0.0.1:24", Some("write \"10.0.0.1:24\"")),
                ("[mx.example]:25", Some("write \"mx.example:25\"")),
                ("[mx.example]", Some("write \"mx.example:25\"")),
                ("10.0.0.1 25", Some("write \"10.0.0.1:25\"")),
                ("mx.example:smtp", Some("write \"mx.example:25\"")),
                ("mx.example:submission", Some("write \"mx.example:587\"")),
                (" 10.0.0.1:25", Some("write \"10.0.0.1:25\"")),
                ("mx example", None),
                ("mx.example:99999", None),
            ],
        );
        for socket in ["unix:/run/lmtp", "/var/run/dovecot/lmtp"] {
            let wrong = backend(socket).expect("advice");
            assert!(wrong.message.contains("reached by TCP"), "{wrong:?}");
        }
    }

    #[test]
    fn addresses_to_listen_on_in_other_forms_are_rewritten() {
        table(
            bind,
            &[
                (
                    "localhost:25",
                    Some("write [\"127.0.0.1:25\", \"[::1]:25\"]"),
                ),
                (
                    "*:smtp",
                    Some("write [\"0.0.0.0:25\", \"[::]:25\"] for all addresses"),
                ),
                (":::25", Some("write \"[::]:25\"")),
                ("tcp://0.0.0.0:25", Some("write \"0.0.0.0:25\"")),
                ("0.0.0.0:smtp", Some("write \"0.0.0.0:25\"")),
                ("nonsense", None),
            ],
        );
    }

    #[test]
    fn ranges_masks_and_wildcards_are_networks() {
        table(
            networks,
            &[
                (
                    "10.0.0.1-10.0.0.9",
                    Some("write \"10.0.0.1\", \"10.0.0.2/31\", \"10.0.0.4/30\", \"10.0.0.8/31\""),
                ),
                ("10.0.0.0 - 255", Some("write \"10.0.0.0/24\"")),
                (
                    "2001:db8::-2001:db8::ffff",
                    Some("write \"2001:db8::/112\""),
                ),
                ("10.0.0.9-10.0.0.1", None),
                ("10.0.0.0/255.255.255.0", Some("write \"10.0.0.0/24\"")),
                ("10.1.2.3 255.255.0.0", Some("write \"10.1.0.0/16\"")),
                ("10.0.*.*", Some("write \"10.0.0.0/16\"")),
                ("192.168.", Some("write \"192.168.0.0/16\"")),
                ("192.168/16", Some("write \"192.168.0.0/16\"")),
                ("[2001:db8::]/32", Some("write \"2001:db8::/32\"")),
                ("10.0.0.1:25", Some("write \"10.0.0.1\"")),
                ("any", Some("write \"0.0.0.0/0\" and \"::/0\"")),
                ("10.0.0.0/40", None),
                ("*.example", None),
                ("300.*", None),
            ],
        );
        let many = networks("::1-ffff::").expect("advice");
        assert!(many.ends_with(" more") && many.len() < 300, "{many}");
    }
}
