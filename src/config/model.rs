//! What a configuration means: nothing optional that has a default, every value within its range.
//!
//! The reader of the file makes a [`Config`]; tests make one from the defaults. What the user typed
//! (spans, units, absent keys) does not survive into this model.

mod smtp;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::smtp::{ListenerSmtp, PoolSmtp, RECIPIENTS_EXPECTED, Sticky};
pub use crate::balance::{
    AdminState, Balance, Eject, Failback, Hedge, QUOTA_PERIOD_MAX, QUOTA_PERIOD_MIN, Quota,
    QuotaUnit, WhenAllDown,
};
use crate::types::{Networks, Percent, Rate, Tier, Weight};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Data threads, 1 to 64; `None` is one per core. A change needs a restart.
    pub workers: Option<u8>,
    /// Our name in greetings and replies (RFC 5321 §4.1.3); the machine's name if absent.
    pub hostname: Arc<str>,
    /// Sessions of the whole process at once; `None` is what the descriptor limit allows.
    pub max_sessions: Option<u32>,
    /// How long SIGTERM waits for sessions to end by themselves.
    pub shutdown_timeout: Duration,
    /// How long sessions of a removed backend or listener may go on after a reload.
    pub drain_timeout: Duration,
    /// Reload when the configuration file or a backends file changes.
    pub watch: bool,
    /// Move bulk with splice(2).
    pub splice: bool,
    /// Octets that all messages kept for a replay may take together (rule F1); 0 keeps none.
    pub replay_memory: u64,
    /// Where the counts of quotas are kept over restarts; absent, they begin at zero.
    pub state_file: Option<PathBuf>,
    /// Logs.
    pub log: Log,
    /// The HTTP status endpoint; `None` is off.
    pub admin: Option<Admin>,
    /// Listeners by name.
    pub listeners: BTreeMap<Arc<str>, Listener>,
    /// Pools by name.
    pub pools: BTreeMap<Arc<str>, Pool>,
    /// Every file that was read, for `watch`.
    pub files: Vec<PathBuf>,
}

/// Where logs go and how they look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is written.
    pub level: LogLevel,
    /// Text or JSON.
    pub format: LogFormat,
    /// Where to.
    pub output: LogOutput,
    /// One line per session.
    pub sessions: bool,
    /// One line per transaction (mode "smtp").
    pub transactions: bool,
    /// Whether the lines of transactions hold the addresses of the envelope.
    pub addresses: bool,
}

/// Importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Off,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `time level event key=value …`
    Text,
    /// One JSON object per line.
    Json,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// systemd's journal, by its native socket.
    Journald,
}

/// The HTTP status endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens, at least one.
    pub bind: Vec<AdminBind>,
    /// A file whose first line is the bearer token that changing verbs need over TCP. Without it
    /// they are refused there. On a Unix socket its permissions decide.
    pub token_file: Option<PathBuf>,
    /// Names and addresses by which it is asked besides its own, in lower case.
    pub hosts: Vec<Arc<str>>,
}

/// Where the status endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket with its permission bits.
    Unix {
        /// The path.
        path: PathBuf,
        /// Permission bits, for example `0o660`.
        mode: u32,
        /// The group it is given to; `None` is that of the process.
        group: Option<Arc<str>>,
    },
}

/// A listener: addresses where clients connect, and what they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Addresses, at least one. `[::]` binds IPv6 only.
    pub bind: Vec<SocketAddr>,
    /// What we do with a session.
    pub mode: Mode,
    /// The name of the pool.
    pub pool: Arc<str>,
    /// Who speaks first.
    pub greeting: GreetingMode,
    /// Whether a PROXY header must come first.
    pub proxy_protocol: ProxyIn,
    /// Who may send a PROXY header.
    pub trusted_proxies: Networks,
    /// If not empty, only these clients.
    pub allow: Networks,
    /// Never these clients.
    pub deny: Networks,
    /// Other balancers' checks, answered locally without dialling.
    pub monitor_networks: Networks,
    /// What to do with octets that come before the greeting.
    pub early_talker: EarlyTalker,
    /// Sessions at once; 0 is no limit of its own.
    pub max_sessions: u32,
    /// Sessions at once of one client (IPv4 /32, IPv6 /64); 0 is no limit.
    pub max_sessions_per_client: u32,
    /// New sessions of one client.
    pub rate_per_client: Option<Rate>,
    /// New sessions of all clients.
    pub accept_rate: Option<Rate>,
    /// The length of the accept queue.
    pub backlog: u32,
    /// Bind to an address this host does not have yet (IP_FREEBIND).
    pub freebind: bool,
    /// Only this network interface (SO_BINDTODEVICE).
    pub interface: Option<Arc<str>>,
    /// Source addresses towards backends, used in turn; empty: those of the pool.
    pub source: Vec<IpAddr>,
    /// How long a required PROXY header may take.
    pub proxy_header_timeout: Duration,
    /// How long a session may be without an octet in either direction.
    pub idle_timeout: Duration,
    /// How long one direction may stay open after the other ended.
    pub half_close_timeout: Duration,
    /// Our own replies.
    pub replies: Replies,
    /// Mode "smtp" only.
    pub smtp: ListenerSmtp,
}

/// What a listener does with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Layer 4: octets pass unchanged once a backend has greeted.
    Passthrough,
    /// Layer 7: the client's SMTP ends here, and each transaction is placed by itself.
    Smtp,
}

/// Who speaks first on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingMode {
    /// The backend, with a 220 in clear text (ports 25, 587, 2525).
    Smtp,
    /// The client (port 465: TLS from the first octet). Failover then ends at the connect.
    None,
}

/// Whether a PROXY header comes before anything else; never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyIn {
    /// No header.
    Off,
    /// A valid v1 or v2 header from a trusted network, or the connection is closed.
    Required,
}

/// What to do with a client that sends before the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyTalker {
    /// Nothing: the octets are delivered after the greeting.
    Pass,
    /// The same, and it is logged and counted.
    Log,
    /// `554 5.5.0` and close.
    Reject,
}

/// Texts of the replies we make ourselves, without CRLF; `{hostname}` is already put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    /// No backend can take the session; class 4.
    pub unavailable: Arc<str>,
    /// The client is denied; class 5.
    pub denied: Arc<str>,
    /// This client has too many sessions or comes too often; class 4.
    pub client_limit: Arc<str>,
    /// We have too many sessions; class 4.
    pub global_limit: Arc<str>,
    /// The client talked before the greeting; class 5.
    pub early_talker: Arc<str>,
    /// We are shutting down; class 4.
    pub shutting_down: Arc<str>,
}

/// A pool: backends and how to choose among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The policy.
    pub balance: Balance,
    /// What we tell a backend of the client.
    pub identity: Identity,
    /// The longest PROXY header, in octets.
    pub proxy_header_max: u16,
    /// Whose fault a bad greeting is.
    pub greeting_verdicts: GreetingVerdicts,
    /// Distinct backends tried for one session.
    pub max_attempts: u8,
    /// How long all attempts and the queue may take together.
    pub failover_timeout: Duration,
    /// How long one connect may take.
    pub connect_timeout: Duration,
    /// How long a backend may take to greet after the connect.
    pub greeting_timeout: Duration,
    /// Whether a second backend is dialled when the first is slow.
    pub hedge: Hedge,
    /// Clients that may wait when every backend is full; 0 is no queue.
    pub queue_max: u32,
    /// How long a client may wait.
    pub queue_timeout: Duration,
    /// What to do when no backend is healthy.
    pub when_all_down: WhenAllDown,
    /// The next tier opens when less than this share of the configured weight is usable.
    pub open_standby_below: Percent,
    /// How an opened tier closes again.
    pub failback: Failback,
    /// How long the tiers before must have been well before a tier closes.
    pub failback_after: Duration,
    /// Whether full (rather than failed) tiers open the next one.
    pub spill_when_full: bool,
    /// How long a returning backend's share grows to its weight; zero is at once.
    pub slow_start: Duration,
    /// Source addresses towards backends, used in turn.
    pub source: Vec<IpAddr>,
    /// The network interface towards backends (SO_BINDTODEVICE).
    pub interface: Option<Arc<str>>,
    /// Sources this host does not have yet are allowed (IP_FREEBIND).
    pub freebind: bool,
    /// Active probes.
    pub health: Health,
    /// Passive ejection.
    pub eject: Eject,
    /// For listeners in mode "smtp".
    pub smtp: PoolSmtp,
    /// The file the backends were read from, if not the configuration itself.
    pub backends_file: Option<PathBuf>,
    /// Backends by name.
    pub backends: BTreeMap<Arc<str>, Backend>,
}

/// What a backend is told of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Nothing.
    None,
    /// PROXY protocol version 1.
    ProxyV1,
    /// PROXY protocol version 2.
    ProxyV2,
}

/// Whose fault a bad greeting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingVerdicts {
    /// By the table: depends on whether the identity was carried, the code and the text.
    Auto,
    /// Always the backend's: the next one is tried.
    Next,
    /// Always the client's: the greeting is relayed.
    Relay,
}

/// Active probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether backends are probed at all.
    pub probe: bool,
    /// How far a probe goes.
    pub depth: Depth,
    /// Between probes.
    pub interval: Duration,
    /// Between probes while a backend is changing.
    pub fast_interval: Duration,
    /// Good probes until a backend is up.
    pub rise: u8,
    /// Bad probes until a backend is down.
    pub fall: u8,
    /// How long the greeting may take.
    pub greeting_timeout: Duration,
    /// How long any other step may take.
    pub timeout: Duration,
    /// Our name in EHLO.
    pub ehlo_name: Arc<str>,
    /// The recipient of `depth = "mail"` probes.
    pub probe_recipient: Option<Arc<str>>,
    /// Whether a probe's TLS must present a valid certificate for the backend's name.
    pub tls_verify: bool,
}

/// How far a probe goes; each depth includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// TCP connect only.
    Connect,
    /// A 220 greeting.
    Banner,
    /// EHLO answered 250.
    Ehlo,
    /// STARTTLS, a handshake, and EHLO again.
    Starttls,
    /// MAIL FROM:<> and RCPT TO the probe recipient, then RSET. Never DATA.
    Mail,
}

/// A backend as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is.
    pub address: BackendAddress,
    /// Its share.
    pub weight: Weight,
    /// Its rank.
    pub tier: Tier,
    /// Sessions at once; 0 is no limit.
    pub max_connections: u32,
    /// The state it starts in.
    pub state: AdminState,
    /// Which addresses of its name are used.
    pub family: AddressFamily,
    /// What it may be given in a time, for listeners in mode "smtp"; all addresses of a name share
    /// it. At most 8.
    pub quota: Vec<Quota>,
}

/// Which addresses of a name are looked up and used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressFamily {
    /// All of them.
    #[default]
    Any,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl AddressFamily {
    /// Whether this address is of it.
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
        }
    }
}

/// An address as configured: literal, or a name and port whose addresses are looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddress {
    /// An address literal.
    Literal(SocketAddr),
    /// A host name; every address it has is a backend of its own.
    Name {
        /// The name.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl BackendAddress {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Literal(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }
}

/// As the configuration writes it.
impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Replies {
    /// The built-in replies in the name of `hostname`.
    pub fn for_host(hostname: &str) -> Self {
        let text = |reply: &str| Arc::from(reply.replace("{hostname}", hostname));
        Self {
            unavailable: text("421 4.3.2 {hostname} service not available, try again later"),
            denied: text("554 5.7.1 {hostname} access denied"),
            client_limit: text("421 4.7.0 {hostname} too many connections"),
            global_limit: text("421 4.3.2 {hostname} too many connections"),
            early_talker: text("554 5.5.0 {hostname} protocol synchronization"),
            shutting_down: text("421 4.3.2 {hostname} shutting down"),
        }
    }
}

impl Config {
    /// The defaults, in the name of `hostname`, without listeners and pools.
    pub fn for_host(hostname: &str) -> Self {
        Self {
            workers: None,
            hostname: Arc::from(hostname),
            max_sessions: None,
            shutdown_timeout: Duration::from_mins(11),
            drain_timeout: Duration::from_mins(10),
            watch: false,
            splice: true,
            replay_memory: 256 << 20,
            state_file: None,
            log: Log::default(),
            admin: None,
            listeners: BTreeMap::new(),
            pools: BTreeMap::new(),
            files: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            output: LogOutput::Stdout,
            sessions: true,
            transactions: true,
            addresses: false,
        }
    }
}

impl Listener {
    /// The defaults of a listener on `bind` for `pool`, in the name of `hostname`.
    pub fn new(bind: Vec<SocketAddr>, pool: &str, hostname: &str) -> Self {
        Self {
            bind,
            mode: Mode::Passthrough,
            pool: Arc::from(pool),
            greeting: GreetingMode::Smtp,
            proxy_protocol: ProxyIn::Off,
            trusted_proxies: Networks::default(),
            allow: Networks::default(),
            deny: Networks::default(),
            monitor_networks: Networks::default(),
            early_talker: EarlyTalker::Pass,
            max_sessions: 0,
            max_sessions_per_client: 0,
            rate_per_client: None,
            accept_rate: None,
            backlog: 4096,
            freebind: false,
            interface: None,
            source: Vec::new(),
            proxy_header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_mins(11),
            half_close_timeout: Duration::from_mins(1),
            replies: Replies::for_host(hostname),
            smtp: ListenerSmtp::default(),
        }
    }
}

impl Pool {
    /// The defaults of a pool, in the name of `hostname`, without backends.
    pub fn for_host(hostname: &str) -> Self {
        Self {
            balance: Balance::LeastConnections,
            identity: Identity::None,
            proxy_header_max: 232,
            greeting_verdicts: GreetingVerdicts::Auto,
            max_attempts: 3,
            failover_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(3),
            greeting_timeout: Duration::from_secs(8),
            hedge: Hedge::default(),
            queue_max: 1024,
            queue_timeout: Duration::from_secs(15),
            when_all_down: WhenAllDown::Try,
            open_standby_below: Percent::new(1).expect("1 is a percentage"),
            failback: Failback::Auto,
            failback_after: Duration::from_secs(30),
            spill_when_full: false,
            slow_start: Duration::from_secs(30),
            source: Vec::new(),
            interface: None,
            freebind: false,
            health: Health::for_host(hostname),
            eject: Eject::default(),
            smtp: PoolSmtp::default(),
            backends_file: None,
            backends: BTreeMap::new(),
        }
    }
}

impl Health {
    /// The defaults of probes, in the name of `hostname`.
    pub fn for_host(hostname: &str) -> Self {
        Self {
            probe: true,
            depth: Depth::Ehlo,
            interval: Duration::from_secs(5),
            fast_interval: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            greeting_timeout: Duration::from_secs(8),
            timeout: Duration::from_secs(5),
            ehlo_name: Arc::from(hostname),
            probe_recipient: None,
            tls_verify: false,
        }
    }
}

impl Backend {
    /// The defaults of a backend at `address`.
    pub fn at(address: BackendAddress) -> Self {
        Self {
            address,
            weight: Weight::ONE,
            tier: Tier::FIRST,
            max_connections: 0,
            state: AdminState::Ready,
            family: AddressFamily::Any,
            quota: Vec::new(),
        }
    }
}
