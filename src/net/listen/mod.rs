//! Binding listening sockets: one group of `SO_REUSEPORT` sockets per address, one per worker.
//!
//! A bind comes in two steps, so that a start or a reload that fails leaves nothing listening:
//! [`BoundGroup::bind`] for every address, then [`BoundGroup::listen`] for all of them. Before a
//! group is bound, a trial bind *without* `SO_REUSEPORT` finds another process on that port, which
//! the kernel would otherwise let share it silently. Options that accepted sockets inherit are set
//! here, once, and not per session. Never `TCP_DEFER_ACCEPT`: the server speaks first.

mod holder;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

pub use holder::Holder;

use crate::types::in_words;

/// Silence before the first keepalive probe (rule K6).
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
/// Between keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered keepalive probes that end a connection.
const KEEPALIVE_RETRIES: u32 = 6;
/// How long sent octets may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_mins(2);

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address; port 0 lets the kernel choose. `[::]` means IPv6 only.
    pub address: SocketAddr,
    /// The length of each accept queue; the kernel's `somaxconn` bounds it.
    pub backlog: u32,
    /// Bind to an address this host does not have yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// Accept only what comes through this interface (`SO_BINDTODEVICE`).
    pub interface: Option<Arc<str>>,
}

/// The inodes of listening sockets that are ours: sharing a port with ourselves is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnSockets(BTreeSet<u64>);

/// Bound sockets of one address that do not listen yet. Dropping it frees the address.
#[derive(Debug)]
pub struct BoundGroup {
    address: SocketAddr,
    backlog: u32,
    sockets: Vec<Socket>,
}

/// Why an address cannot be had, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Another socket has it.
    #[error(
        "cannot listen on {address}: the port is in use by {holder}; stop that process or choose \
         another port"
    )]
    InUse {
        /// Where.
        address: SocketAddr,
        /// Who, as far as we may see.
        holder: Holder,
    },
    /// A port that needs a privilege.
    #[error(
        "cannot listen on {address}: ports below {first_free} need a privilege; under systemd set \
         AmbientCapabilities=CAP_NET_BIND_SERVICE, or run `setcap cap_net_bind_service=+ep` on the \
         program, or `sysctl net.ipv4.ip_unprivileged_port_start={}`", address.port()
    )]
    Privileged {
        /// Where.
        address: SocketAddr,
        /// `net.ipv4.ip_unprivileged_port_start`.
        first_free: u16,
    },
    /// The host does not have the address.
    #[error(
        "cannot listen on {address}: this host has no such address; correct it, or set `freebind = \
         true` for an address that moves between hosts"
    )]
    NotAvailable {
        /// Where.
        address: SocketAddr,
    },
    /// The network interface cannot be used.
    #[error("cannot listen on {address} through interface {interface:?}: {reason}")]
    Interface {
        /// Where.
        address: SocketAddr,
        /// The interface.
        interface: Arc<str>,
        /// The kernel's words.
        reason: String,
    },
    /// Out of descriptors.
    #[error(
        "cannot listen on {address}: too many open files; raise the limit (LimitNOFILE= under \
         systemd, `ulimit -n` in a shell)"
    )]
    Descriptors {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {step}: {reason}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// The system call.
        step: &'static str,
        /// The kernel's words.
        reason: String,
    },
}

impl OwnSockets {
    /// Adds the sockets of a group.
    pub fn add(&mut self, group: &BoundGroup) {
        self.0.extend(group.inodes());
    }

    fn contains(&self, inode: u64) -> bool {
        self.0.contains(&inode)
    }
}

impl BoundGroup {
    /// Binds `count` sockets to one address. None of them listens.
    ///
    /// # Errors
    /// [`BindError`], with the remedy in its text. Nothing stays bound.
    pub fn bind(wanted: &ListenAddress, count: usize, own: &OwnSockets) -> Result<Self, BindError> {
        if wanted.address.port() != 0 {
            trial(wanted, own)?;
        }
        let mut address = wanted.address;
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count.max(1) {
            let socket = open(wanted, Sharing::Workers)
                .map_err(|(step, error)| failure(wanted, step, &error))?;
            socket
                .bind(&SockAddr::from(address))
                .map_err(|error| failure(wanted, "bind", &error))?;
            if address.port() == 0 {
                address = local_address(&socket)
                    .map_err(|error| failure(wanted, "getsockname", &error))?;
            }
            sockets.push(socket);
        }
        let backlog = wanted.backlog.min(somaxconn());
        Ok(Self {
            address,
            backlog,
            sockets,
        })
    }

    /// The address, with the port the kernel chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen on every socket of the group.
    ///
    /// # Errors
    /// [`BindError`]: another process began to listen between our bind and now.
    pub fn listen(self) -> Result<Vec<TcpListener>, BindError> {
        let backlog = i32::try_from(self.backlog).unwrap_or(i32::MAX);
        for socket in &self.sockets {
            socket.listen(backlog).map_err(|error| {
                let wanted = ListenAddress {
                    address: self.address,
                    backlog: self.backlog,
                    freebind: false,
                    interface: None,
                };
                failure(&wanted, "listen", &error)
            })?;
        }
        Ok(self.sockets.into_iter().map(TcpListener::from).collect())
    }

    fn inodes(&self) -> impl Iterator<Item = u64> {
        self.sockets
            .iter()
            .filter_map(|socket| rustix::fs::fstat(socket).ok())
            .map(|stat| stat.st_ino)
    }
}

/// Whether a socket shares its port with those of the other workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Workers,
    Nobody,
}

fn open(wanted: &ListenAddress, sharing: Sharing) -> Result<Socket, (&'static str, io::Error)> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(
        Domain::for_address(wanted.address),
        kind,
        Some(Protocol::TCP),
    )
    .map_err(|error| ("socket", error))?;
    let set = |step: &'static str, result: io::Result<()>| result.map_err(|error| (step, error));
    // Connections of an earlier process in TIME_WAIT must not keep us from the port.
    set("SO_REUSEADDR", socket.set_reuse_address(true))?;
    if sharing == Sharing::Workers {
        set("SO_REUSEPORT", socket.set_reuse_port(true))?;
        set("TCP_NODELAY", socket.set_tcp_nodelay(true))?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        set("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive))?;
        let timeout = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
        set("TCP_USER_TIMEOUT", timeout)?;
    }
    if wanted.address.is_ipv6() {
        set("IPV6_V6ONLY", socket.set_only_v6(true))?;
    }
    if wanted.freebind {
        let freebind = if wanted.address.is_ipv6() {
            socket.set_freebind_v6(true)
        } else {
            socket.set_freebind_v4(true)
        };
        set("IP_FREEBIND", freebind)?;
    }
    if let Some(interface) = &wanted.interface {
        let device = socket.bind_device(Some(interface.as_bytes()));
        set("SO_BINDTODEVICE", device)?;
    }
    Ok(socket)
}

/// Finds another process on the port, one with `SO_REUSEPORT` included.
fn trial(wanted: &ListenAddress, own: &OwnSockets) -> Result<(), BindError> {
    let socket =
        open(wanted, Sharing::Nobody).map_err(|(step, error)| failure(wanted, step, &error))?;
    match socket.bind(&SockAddr::from(wanted.address)) {
        Ok(()) => Ok(()),
        // A wildcard of ours and an address under it may change places in one reload.
        Err(error) if in_use(&error) && holder::only_ours(wanted.address, own) => Ok(()),
        Err(error) => Err(failure(wanted, "bind", &error)),
    }
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))
}

fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn failure(wanted: &ListenAddress, step: &'static str, error: &io::Error) -> BindError {
    let address = wanted.address;
    let reason = in_words(error).into_owned();
    if let Some(interface) = wanted
        .interface
        .as_ref()
        .filter(|_| step == "SO_BINDTODEVICE")
    {
        return BindError::Interface {
            address,
            interface: Arc::clone(interface),
            reason,
        };
    }
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::InUse {
            address,
            holder: Holder::find(address),
        },
        Some(libc::EACCES) if address.port() < first_free_port() => BindError::Privileged {
            address,
            first_free: first_free_port(),
        },
        Some(libc::EADDRNOTAVAIL) => BindError::NotAvailable { address },
        Some(libc::EMFILE | libc::ENFILE) => BindError::Descriptors { address },
        _ => BindError::Other {
            address,
            step,
            reason,
        },
    }
}

/// Whether this process may listen on a port, as far as its number goes.
pub fn may_use_port(port: u16) -> bool {
    // Port 0 is any free one.
    port == 0
        || port >= first_free_port()
        || fs::read_to_string("/proc/self/status").is_ok_and(|status| may_bind_low_ports(&status))
}

/// Whether `/proc/PID/status` shows `CAP_NET_BIND_SERVICE` among the capabilities in effect.
fn may_bind_low_ports(status: &str) -> bool {
    const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .is_some_and(|effective| effective & CAP_NET_BIND_SERVICE != 0)
}

/// Whether this host has the address of a listener now; the port is left alone.
pub fn is_of_this_host(mut address: SocketAddr) -> bool {
    address.set_port(0);
    !UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn first_free_port() -> u16 {
    sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024)
}

fn somaxconn() -> u32 {
    sysctl("/proc/sys/net/core/somaxconn").unwrap_or(4096)
}

fn sysctl<T: std::str::FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn at(address: &str) -> ListenAddress {
        ListenAddress {
            address: address.parse().unwrap(),
            backlog: 128,
            freebind: false,
            interface: None,
        }
    }

    fn bind(address: &str, count: usize) -> Result<BoundGroup, BindError> {
        BoundGroup::bind(&at(address), count, &OwnSockets::default())
    }

    #[test]
    fn a_group_listens_on_one_port_for_every_worker() {
        let group = bind("127.0.0.1:0", 3).unwrap();
        let address = group.address();
        assert_ne!(address.port(), 0);
        let listeners = group.listen().unwrap();
        assert_eq!(listeners.len(), 3);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), address);
        }
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn nothing_listens_before_listen_is_called() {
        let group = bind("127.0.0.1:0", 2).unwrap();
        let refused = TcpStream::connect(group.address()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_reuseport_socket_of_somebody_else_is_found_and_named() {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        other.set_reuse_port(true).unwrap();
        other.set_reuse_address(true).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        other.bind(&SockAddr::from(any)).unwrap();
        other.listen(8).unwrap();
        let address = local_address(&other).unwrap();
        let error = bind(&address.to_string(), 2).unwrap_err();
        // The trial runs in the same process, so the holder is this very program.
        let BindError::InUse { holder, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(
            holder.pid,
            Some(std::process::id()),
            "{error}: who holds the port is named"
        );
        assert!(error.to_string().contains("choose another port"), "{error}");
    }

    #[test]
    fn a_port_of_our_own_may_be_bound_again_beside_a_wildcard() {
        let first = bind("0.0.0.0:0", 1).unwrap();
        let port = first.address().port();
        let mut own = OwnSockets::default();
        own.add(&first);
        let _listening = first.listen().unwrap();
        let narrow = at(&format!("127.0.0.1:{port}"));
        assert!(matches!(
            BoundGroup::bind(&narrow, 1, &OwnSockets::default()),
            Err(BindError::InUse { .. })
        ));
        BoundGroup::bind(&narrow, 1, &own).unwrap();
    }

    #[test]
    fn ipv6_and_ipv4_wildcards_of_one_port_do_not_meet() {
        let Ok(six) = bind("[::]:0", 1) else {
            return; // A host without IPv6.
        };
        let port = six.address().port();
        let _six = six.listen().unwrap();
        bind(&format!("0.0.0.0:{port}"), 1)
            .unwrap()
            .listen()
            .unwrap();
    }

    #[test]
    fn accepted_sockets_inherit_nodelay_keepalive_and_the_user_timeout() {
        let group = bind("127.0.0.1:0", 1).unwrap();
        let address = group.address();
        let listener = group.listen().unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = Socket::from(accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        // The server speaks first: no octet of the client was needed to be accepted.
        let mut greeting = TcpStream::from(accepted);
        greeting.write_all(b"220 ").unwrap();
        let mut octets = [0; 4];
        client.read_exact(&mut octets).unwrap();
        assert_eq!(&octets, b"220 ");
    }

    #[test]
    fn an_address_of_another_host_says_freebind() {
        let error = bind("192.0.2.1:2525", 1).unwrap_err();
        assert!(error.to_string().contains("freebind = true"), "{error}");
        let mut moving = at("192.0.2.1:2525");
        moving.freebind = true;
        BoundGroup::bind(&moving, 1, &OwnSockets::default()).unwrap();
    }

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        let mut wanted = at("127.0.0.1:0");
        wanted.interface = Some(Arc::from("nosuch0"));
        let error = BoundGroup::bind(&wanted, 1, &OwnSockets::default()).unwrap_err();
        assert!(error.to_string().contains("nosuch0"), "{error}");
    }

    #[test]
    fn a_low_port_is_allowed_by_the_capability_in_effect() {
        for (status, expected) in [
            (
                "Name:\tx\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\n",
                true,
            ),
            ("CapEff:\t000001ffffffffff\n", true),
            (
                "CapPrm:\t0000000000000400\nCapEff:\t0000000000000000\n",
                false,
            ),
            ("CapEff:\tfffffffffffffbff\n", false),
            ("CapEff:\t?\n", false),
            ("", false),
        ] {
            assert_eq!(may_bind_low_ports(status), expected, "{status:?}");
        }
        assert!(may_use_port(0) && may_use_port(u16::MAX));
    }

    #[test]
    fn an_address_of_another_host_is_known_without_its_port() {
        for (address, expected) in [
            ("127.0.0.1:25", true),
            ("0.0.0.0:25", true),
            ("203.0.113.1:25", false),
        ] {
            assert_eq!(
                is_of_this_host(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn a_privileged_port_says_which_three_ways_there_are() {
        let error = failure(
            &at("127.0.0.1:25"),
            "bind",
            &io::Error::from_raw_os_error(libc::EACCES),
        );
        if first_free_port() > 25 {
            let text = error.to_string();
            for remedy in [
                "AmbientCapabilities",
                "setcap",
                "ip_unprivileged_port_start",
            ] {
                assert!(text.contains(remedy), "{text}");
            }
        }
    }
}
