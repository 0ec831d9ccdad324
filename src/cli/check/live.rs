//! What the backends say: each is dialled as the balancer would dial it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::probe::{failure_text, with_code};
use crate::config::model::{
    AddressFamily, Backend, BackendAddress, Config, Depth, GreetingMode, Identity, Listener, Mode,
    Pool, ProxyIn,
};
use crate::control::probe::{
    Header, NamedClient, Opening, Plan, ProbeResult, ProbeTls, ProxyVerdict, Starttls, Target,
    probe_once,
};
use crate::smtp::RelayTest;
use crate::types::in_words;

/// Backends that are dialled at once.
const AT_ONCE: usize = 32;
/// How long the lookup of a name may take.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// A certificate with fewer days left is a finding worth colour.
pub(super) const CERTIFICATE_DAYS_LOW: i64 = 14;

/// Addresses of documentation (RFC 3849): nobody's client, nobody's listener.
const IPV6_CLIENT: SocketAddr = documentation(25, 50_025);
const IPV6_LISTENER: SocketAddr = documentation(1, 25);

const fn documentation(host: u16, port: u16) -> SocketAddr {
    let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host);
    SocketAddr::new(IpAddr::V6(ip), port)
}

/// What one address of one backend said.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// The pool.
    pub(super) pool: String,
    /// The backend.
    pub(super) backend: String,
    /// The address, or the name if it has none.
    pub(super) address: String,
    /// Whether it can take mail as configured: greeted with 220, EHLO answered, PROXY understood.
    pub(super) usable: bool,
    /// Why not: step, code and text.
    pub(super) failure: Option<String>,
    /// It takes mail, but says it is full; its words.
    pub(super) full: Option<String>,
    /// From connected to greeted, in seconds.
    pub(super) greeting_seconds: Option<f64>,
    /// The greeting's text.
    pub(super) greeting: Option<String>,
    /// EHLO keywords with parameters.
    pub(super) keywords: Vec<String>,
    /// not sent, accepted, mismatch or unknown.
    pub(super) proxy: &'static str,
    /// Clients that come by IPv6, as a PROXY header names one: not tried, accepted, refused or
    /// unknown.
    pub(super) ipv6_clients: &'static str,
    /// What it said to one, if it did not accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ipv6_failure: Option<String>,
    /// absent, offered, works, failed or unknown.
    pub(super) starttls: &'static str,
    /// Days until its certificate ends.
    pub(super) certificate_days: Option<i64>,
    /// refused, open or unknown.
    pub(super) relay: &'static str,
    /// Whether the pool tells backends who the client is: then `relay` is about us, not clients.
    pub(super) identity_carried: bool,
    /// Listeners that lead to it and let anybody come.
    pub(super) open_listeners: Vec<String>,
    /// What the operator can do if it is an open relay.
    #[serde(skip)]
    pub(super) relay_remedy: RelayRemedy,
}

/// How a backend that relays for us is kept from relaying for anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelayRemedy {
    /// It can be told who the client is.
    Identity,
    /// A listener in mode "smtp" leads to it, which tells it nothing: say who may come.
    Allow,
}

impl Finding {
    /// Nothing an operator must act on.
    pub(super) fn is_good(&self) -> bool {
        let takes_mail = self.usable || self.full.is_some();
        takes_mail && !self.is_open_relay() && self.ipv6_clients != "refused"
    }

    /// Whether strangers can relay through it, coming through us.
    pub(super) fn is_open_relay(&self) -> bool {
        self.relay == "open" && !self.identity_carried && !self.open_listeners.is_empty()
    }
}

impl Finding {
    /// What a client by IPv6 met. A refusal that is about the client says nothing of others: the
    /// address that was named is one of documentation.
    fn note_ipv6(&mut self, result: &ProbeResult) {
        if result.is_good() {
            self.ipv6_clients = "accepted";
            return;
        }
        let text = result.text.as_deref().unwrap_or_default();
        let of_policy = result.code.is_some_and(|code| code >= 500)
            || text.starts_with("4.7.")
            || text.starts_with("421 4.7.");
        self.ipv6_clients = if of_policy { "unknown" } else { "refused" };
        self.ipv6_failure = Some(failure_text(result));
    }
}

/// Dials every address of every backend.
pub(super) fn check(config: &Config, recipient: &str) -> anyhow::Result<Vec<Finding>> {
    let tls = Rc::new(ProbeTls::new().context("cannot make TLS connections here")?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .context("cannot start the runtime")?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    runtime.block_on(async {
        let mut dials = JoinSet::new();
        let mut order = 0;
        for (pool_name, pool) in &config.pools {
            let opening = opening(config, pool_name);
            let clients = Clients::of(config, pool_name);
            let client_by_ipv6 = client_by_ipv6(config, pool_name);
            for (name, backend) in &pool.backends {
                let label = (pool_name.to_string(), name.to_string());
                let dial = Dial {
                    pool: pool.clone(),
                    opening,
                    clients: clients.clone(),
                    client_by_ipv6,
                    label,
                    recipient: recipient.to_owned(),
                    tls: Rc::clone(&tls),
                };
                let backend = backend.clone();
                let place = Arc::clone(&places);
                dials.spawn_local(async move {
                    let _place = place.acquire_owned().await;
                    (order, dial.all(&backend).await)
                });
                order += 1;
            }
        }
        let mut findings = Vec::new();
        while let Some(done) = dials.join_next().await {
            findings.push(done.context("a probe failed by a fault of ours")?);
        }
        findings.sort_by_key(|(order, _)| *order);
        Ok(findings.into_iter().flat_map(|(_, list)| list).collect())
    })
}

/// The listeners that lead to a pool.
fn leading_to<'a>(config: &'a Config, pool: &str) -> impl Iterator<Item = (&'a str, &'a Listener)> {
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|(name, listener)| (&**name, listener));
    listeners.filter(move |(_, listener)| &*listener.pool == pool)
}

/// A client that could come by IPv6, if one can: to a listener of that family, or from a balancer in
/// front. In mode "smtp" backends are not told of clients.
fn client_by_ipv6(config: &Config, pool: &str) -> Option<NamedClient> {
    let mut listeners = leading_to(config, pool)
        .filter(|(_, listener)| listener.mode == Mode::Passthrough)
        .map(|(_, listener)| listener);
    listeners.find_map(|listener| {
        let bind = listener.bind.iter().find(|bind| bind.is_ipv6());
        let from_balancer = listener.proxy_protocol == ProxyIn::Required;
        let to = match bind {
            Some(bind) if !bind.ip().is_unspecified() => *bind,
            Some(_) => IPV6_LISTENER,
            None if from_balancer => IPV6_LISTENER,
            None => return None,
        };
        Some(NamedClient {
            from: IPV6_CLIENT,
            to,
        })
    })
}

/// Ports that begin with TLS are those whose listeners do not wait for a greeting.
fn opening(config: &Config, pool: &str) -> Opening {
    let mut listeners = leading_to(config, pool).peekable();
    let tls_first = listeners.peek().is_some()
        && listeners.all(|(_, listener)| listener.greeting == GreetingMode::None);
    if tls_first {
        Opening::Tls
    } else {
        Opening::Smtp
    }
}

/// Who may come to the backends of a pool.
#[derive(Clone)]
struct Clients {
    open_listeners: Vec<String>,
    remedy: RelayRemedy,
}

impl Clients {
    fn of(config: &Config, pool: &str) -> Self {
        let open = leading_to(config, pool).filter(|(_, listener)| lets_anybody_come(listener));
        let mut all = leading_to(config, pool);
        Self {
            open_listeners: open.map(|(name, _)| name.to_owned()).collect(),
            remedy: if all.any(|(_, listener)| listener.mode == Mode::Smtp) {
                RelayRemedy::Allow
            } else {
                RelayRemedy::Identity
            },
        }
    }
}

/// Whether strangers are among its clients.
///
/// A relay for the applications of this host listens on loopback in mode "smtp". In front of a
/// listener in mode "passthrough" there is something that carries others, as there is where the
/// client is named in a PROXY header.
fn lets_anybody_come(listener: &Listener) -> bool {
    let everybody = listener
        .allow
        .iter()
        .any(|network| network.prefix_len() == 0);
    let of_this_host = listener.mode == Mode::Smtp
        && listener.proxy_protocol == ProxyIn::Off
        && listener.bind.iter().all(|bind| bind.ip().is_loopback());
    (listener.allow.is_empty() || everybody) && !of_this_host
}

/// One backend, to be dialled.
struct Dial {
    pool: Pool,
    opening: Opening,
    clients: Clients,
    client_by_ipv6: Option<NamedClient>,
    label: (String, String),
    recipient: String,
    tls: Rc<ProbeTls>,
}

impl Dial {
    /// Every address of the backend that may be used.
    async fn all(&self, backend: &Backend) -> Vec<Finding> {
        let (host, addresses) = match &backend.address {
            BackendAddress::Literal(address) => (None, Ok(vec![*address])),
            BackendAddress::Name { host, port } => {
                (Some(host), look_up(host, *port, backend.family).await)
            }
        };
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(reason) => {
                let name = host.map_or_else(String::new, ToString::to_string);
                return vec![self.unreachable(name, format!("lookup: {reason}"))];
            }
        };
        let mut findings = Vec::with_capacity(addresses.len());
        for address in addresses {
            findings.push(self.one(address, host.cloned()).await);
        }
        findings
    }

    async fn one(&self, address: SocketAddr, host: Option<Arc<str>>) -> Finding {
        let target = self.target(address, host);
        let plan = self.plan();
        let mut result = probe_once(&target, &plan, &self.tls).await;
        if result.is_good() && result.starttls == Starttls::Offered {
            let deeper = Plan {
                depth: Depth::Starttls,
                relay_test: None,
                ..plan.clone()
            };
            let second = probe_once(&target, &deeper, &self.tls).await;
            result.starttls = second.starttls;
            result.certificate = second.certificate;
        }
        let mut finding = self.finding(address.to_string(), &result);
        if finding.usable
            && let Some(header) = self.header_of_ipv6()
        {
            let target = Target { header, ..target };
            let plan = Plan {
                depth: Depth::Ehlo,
                relay_test: None,
                ..plan
            };
            finding.note_ipv6(&probe_once(&target, &plan, &self.tls).await);
        }
        finding
    }

    /// The header of a client that came by IPv6, where there can be one.
    fn header_of_ipv6(&self) -> Option<Header> {
        let client = self.client_by_ipv6?;
        match self.pool.identity {
            Identity::None => None,
            Identity::ProxyV1 => Some(Header::V1Of(client)),
            Identity::ProxyV2 => Some(Header::V2Of(client)),
        }
    }

    fn target(&self, address: SocketAddr, host: Option<Arc<str>>) -> Target {
        let same_family = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
        Target {
            address,
            host,
            opening: self.opening,
            header: self.pool.identity.into(),
            source: self.pool.source.iter().find(same_family).copied(),
            interface: self.pool.interface.clone(),
            freebind: self.pool.freebind,
        }
    }

    fn plan(&self) -> Plan {
        let plan = Plan::of(&self.pool);
        Plan {
            depth: plan.depth.max(Depth::Ehlo),
            relay_test: Some(Arc::from(self.recipient.as_str())),
            ..plan
        }
    }

    fn unreachable(&self, address: String, failure: String) -> Finding {
        Finding {
            pool: self.label.0.clone(),
            backend: self.label.1.clone(),
            address,
            usable: false,
            failure: Some(failure),
            full: None,
            greeting_seconds: None,
            greeting: None,
            keywords: Vec::new(),
            proxy: "unknown",
            ipv6_clients: "not tried",
            ipv6_failure: None,
            starttls: "unknown",
            certificate_days: None,
            relay: "unknown",
            identity_carried: self.pool.identity != Identity::None,
            open_listeners: self.clients.open_listeners.clone(),
            relay_remedy: self.clients.remedy,
        }
    }

    fn finding(&self, address: String, result: &ProbeResult) -> Finding {
        let failure = (!result.is_good()).then(|| failure_text(result));
        let relay = match result.relay {
            Some(RelayTest::Refused) => "refused",
            Some(RelayTest::Accepted) => "open",
            None => "unknown",
        };
        Finding {
            usable: result.is_good() && !result.full,
            failure,
            full: result.full.then(|| {
                let text = result.text.as_deref().unwrap_or("no words");
                with_code(result.code, text)
            }),
            greeting_seconds: result.greeting.map(|time| time.as_secs_f64()),
            greeting: result.greeting_text.clone(),
            keywords: result.keywords.iter().map(ToString::to_string).collect(),
            proxy: match result.proxy {
                ProxyVerdict::NotSent => "not sent",
                ProxyVerdict::Accepted => "accepted",
                ProxyVerdict::Mismatch => "mismatch",
                ProxyVerdict::Unknown => "unknown",
            },
            starttls: match result.starttls {
                Starttls::Unknown => "unknown",
                Starttls::Absent => "absent",
                Starttls::Offered => "offered",
                Starttls::Works => "works",
                Starttls::Failed => "failed",
            },
            certificate_days: result.certificate.as_ref().map(|one| one.days_left),
            relay,
            ..self.unreachable(address, String::new())
        }
    }
}

async fn look_up(host: &str, port: u16, family: AddressFamily) -> Result<Vec<SocketAddr>, String> {
    match timeout(LOOKUP_MAX, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => {
            let addresses = addresses.filter(|address| family.has(address.ip()));
            let addresses: Vec<SocketAddr> = addresses.collect();
            if addresses.is_empty() {
                return Err(match family {
                    AddressFamily::Any => "the name has no address".to_owned(),
                    AddressFamily::Ipv4 => "the name has no IPv4 address".to_owned(),
                    AddressFamily::Ipv6 => "the name has no IPv6 address".to_owned(),
                });
            }
            Ok(addresses)
        }
        Ok(Err(error)) => Err(in_words(&error).into_owned()),
        Err(_) => Err("no answer within 10 s".to_owned()),
    }
}
