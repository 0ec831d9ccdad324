//! Who holds a port: from `/proc/net/tcp{,6}` to a process, as far as we may look.
//!
//! Only for the text of an error and to recognise our own sockets; it costs a walk through `/proc`
//! and is never used while sessions wait for it.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::OwnSockets;

/// The TCP state "listening" in `/proc/net/tcp`.
const LISTENING: &str = "0A";
/// The most processes looked at for one error.
const PROCESSES_MAX: usize = 65_536;

/// The process that holds a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its id, if we may see its descriptors.
    pub pid: Option<u32>,
    /// Its name.
    pub name: Option<String>,
    /// The user it runs as.
    pub uid: Option<u32>,
}

/// One line of `/proc/net/tcp`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

impl Holder {
    /// Who listens on `address` or on a wildcard over it.
    pub fn find(address: SocketAddr) -> Self {
        let Some(entry) = listening_on(address).into_iter().next() else {
            return Self::default();
        };
        let pid = process_of(entry.inode);
        Self {
            pid,
            name: pid.and_then(|pid| name_of(pid).ok()),
            uid: Some(entry.uid),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.name, self.uid) {
            (Some(pid), _, _) if pid == std::process::id() => {
                write!(f, "this very process (pid {pid}: is it listed twice?)")
            }
            (Some(pid), Some(name), _) => write!(f, "{name} (pid {pid})"),
            (Some(pid), None, _) => write!(f, "pid {pid}"),
            (None, _, Some(uid)) => write!(
                f,
                "a process of user id {uid} (`ss -ltnp` as root names it)"
            ),
            (None, _, None) => write!(f, "another process (`ss -ltnp` as root names it)"),
        }
    }
}

/// Whether somebody listens on `address` and all who do are sockets of our own.
pub(super) fn only_ours(address: SocketAddr, own: &OwnSockets) -> bool {
    let entries = listening_on(address);
    !entries.is_empty() && entries.iter().all(|entry| own.contains(entry.inode))
}

/// Listening sockets that meet `address`; an IPv6 wildcard counts for IPv4 only where no IPv4
/// socket does (it might be IPv6-only).
fn listening_on(address: SocketAddr) -> Vec<Entry> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut entries = Vec::new();
    if address.is_ipv4() {
        entries = overlapping(&read("/proc/net/tcp"), address);
    }
    if entries.is_empty() {
        entries = overlapping(&read("/proc/net/tcp6"), address);
    }
    entries
}

fn overlapping(table: &str, address: SocketAddr) -> Vec<Entry> {
    table
        .lines()
        .skip(1)
        .filter_map(parse_entry)
        .filter(|entry| meets(entry.address, address))
        .collect()
}

fn meets(held: SocketAddr, wanted: SocketAddr) -> bool {
    let (held_ip, wanted_ip) = (held.ip().to_canonical(), wanted.ip().to_canonical());
    held.port() == wanted.port()
        && (held_ip == wanted_ip || held_ip.is_unspecified() || wanted_ip.is_unspecified())
}

/// `sl local remote state queues timer retransmits uid timeout inode …`, if it is listening.
fn parse_entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTENING {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Entry {
        address: parse_address(local)?,
        uid,
        inode,
    })
}

/// The kernel prints an address as 32-bit words in its own byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        octets.extend_from_slice(&word.to_ne_bytes());
    }
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(octets.as_slice()) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        IpAddr::V6(Ipv6Addr::from(
            <[u8; 16]>::try_from(octets.as_slice()).ok()?,
        ))
    };
    Some(SocketAddr::new(ip, port))
}

fn process_of(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc")
        .ok()?
        .take(PROCESSES_MAX)
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds(*pid, &wanted))
}

fn holds(pid: u32, wanted: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .filter_map(Result::ok)
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.as_os_str() == wanted)
}

fn name_of(pid: u32) -> std::io::Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/comm"))?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_net_tcp_is_read() {
        let line = "   1: 0100007F:278E 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                    101        0 40773 1 0000000089363ee6 100 0 0 10 0";
        let entry = parse_entry(line).unwrap();
        assert_eq!((entry.uid, entry.inode), (101, 40773));
        if cfg!(target_endian = "little") {
            assert_eq!(entry.address, "127.0.0.1:10126".parse().unwrap());
        }
    }

    #[test]
    fn a_connection_is_not_a_listener() {
        let line = "   1: 0100007F:278E 0100007F:9999 01 00000000:00000000 00:00000000 00000000  \
                    101        0 40773 1 0000000089363ee6 100 0 0 10 0";
        assert_eq!(parse_entry(line), None);
    }

    #[test]
    fn wildcards_meet_every_address_of_their_port() {
        let met = |held: &str, wanted: &str| meets(held.parse().unwrap(), wanted.parse().unwrap());
        assert!(met("0.0.0.0:25", "10.0.0.1:25"));
        assert!(met("10.0.0.1:25", "0.0.0.0:25"));
        assert!(met("[::]:25", "10.0.0.1:25"));
        assert!(met("[::ffff:10.0.0.1]:25", "10.0.0.1:25"));
        assert!(!met("10.0.0.1:25", "10.0.0.2:25"));
        assert!(!met("0.0.0.0:25", "10.0.0.1:26"));
    }

    #[test]
    fn the_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = Holder::find(listener.local_addr().unwrap());
        assert_eq!(holder.pid, Some(std::process::id()));
    }
}
