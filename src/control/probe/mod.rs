//! One probe: connect, header, conversation, and everything that was seen on the way.
//!
//! The words are those of [`crate::smtp::Conversation`], which owns every decision; this file owns
//! the socket, the clock and TLS. Used by the prober, by `posthouse probe` and by `check --live`.
//! Every wait has a limit from the [`Plan`]; nothing is logged and no backend state is touched.

mod run;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::balance::{FailureKind, ProbeReport, Stage};
use crate::config::model::{Depth, Identity, Pool};
use crate::net::tls::TlsClient;
pub use crate::net::tls::{Certificate, Trust};
pub use crate::smtp::RelayTest;

/// Whom to probe, and from where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The address.
    pub address: SocketAddr,
    /// Its host name, if it was given by one: for SNI and the certificate.
    pub host: Option<Arc<str>>,
    /// What the port speaks first.
    pub opening: Opening,
    /// The PROXY header it wants.
    pub header: Header,
    /// The source address.
    pub source: Option<IpAddr>,
    /// The network interface.
    pub interface: Option<Arc<str>>,
    /// A source this host does not have is allowed.
    pub freebind: bool,
}

/// What a port speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// A greeting in clear text.
    Smtp,
    /// TLS, and the greeting within (RFC 8314).
    Tls,
}

/// The PROXY header of a probe: v2 LOCAL, or v1 with the socket's own addresses (rule X12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Header {
    None,
    V1,
    V2,
    /// v1 that names this client, to see whether the backend takes such clients.
    V1Of(NamedClient),
    /// v2 that names this client.
    V2Of(NamedClient),
}

/// A client as a PROXY header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedClient {
    /// Its own address.
    pub from: SocketAddr,
    /// Where it connected.
    pub to: SocketAddr,
}

/// How far to go and how long to wait.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plan {
    /// The last step.
    pub depth: Depth,
    /// Our name.
    pub ehlo_name: Arc<str>,
    /// The recipient of [`Depth::Mail`].
    pub recipient: Option<Arc<str>>,
    /// How long the connect may take.
    pub connect_timeout: Duration,
    /// How long the greeting may take (rule H6: postscreen needs 8 s).
    pub greeting_timeout: Duration,
    /// How long any other step may take.
    pub timeout: Duration,
    /// Whose certificates are taken.
    pub trust: Trust,
    /// A recipient of a domain that is not the backend's, to see whether it is an open relay
    /// through us (rules D11, H7). Asked for with RCPT at depth `ehlo` and above, never sent to.
    pub relay_test: Option<Arc<str>>,
}

impl From<Identity> for Header {
    fn from(identity: Identity) -> Self {
        match identity {
            Identity::None => Self::None,
            Identity::ProxyV1 => Self::V1,
            Identity::ProxyV2 => Self::V2,
        }
    }
}

impl Plan {
    /// What the probes of a pool do.
    pub fn of(pool: &Pool) -> Self {
        let health = &pool.health;
        Self {
            depth: health.depth,
            ehlo_name: Arc::clone(&health.ehlo_name),
            recipient: health.probe_recipient.clone(),
            connect_timeout: pool.connect_timeout,
            greeting_timeout: health.greeting_timeout,
            timeout: health.timeout,
            trust: if health.tls_verify {
                Trust::SystemRoots
            } else {
                Trust::Any
            },
            relay_test: None,
        }
    }
}

/// TLS for probes; make one and keep it.
#[derive(Debug)]
pub struct ProbeTls {
    any: TlsClient,
    roots: OnceCell<TlsClient>,
}

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// The last stage reached; for a good probe the last of its depth.
    pub stage: Stage,
    /// `None` is good.
    pub failure: Option<FailureKind>,
    /// The reply code that decided, if any.
    pub code: Option<u16>,
    /// The reply's text or the error, shortened.
    pub text: Option<String>,
    /// It takes mail but says it is full.
    pub full: bool,
    /// From dial to connected.
    pub connect: Option<Duration>,
    /// From connected to the greeting.
    pub greeting: Option<Duration>,
    /// The greeting's text.
    pub greeting_text: Option<String>,
    /// EHLO keywords with their parameters: those within TLS, if it was reached.
    pub keywords: Arc<[Arc<str>]>,
    /// What became of the PROXY header.
    pub proxy: ProxyVerdict,
    /// What became of STARTTLS.
    pub starttls: Starttls,
    /// The certificate, where TLS was reached.
    pub certificate: Option<Certificate>,
    /// The answer to [`Plan::relay_test`], if it was reached.
    pub relay: Option<RelayTest>,
    /// Every step with its duration, in order.
    pub steps: Vec<Step>,
    /// How long it all took.
    pub duration: Duration,
}

/// A step of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// `connect`, `tls`, `greeting`, or a verb in lower case.
    pub name: &'static str,
    /// How long it took.
    pub duration: Duration,
}

/// What became of the PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVerdict {
    /// None was sent.
    NotSent,
    /// The conversation after it was as it should be.
    Accepted,
    /// The backend took it for commands (rule X13).
    Mismatch,
    /// The probe did not get far enough to know.
    Unknown,
}

/// What became of STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starttls {
    /// EHLO was not reached, or the port is TLS from the start.
    Unknown,
    /// Not announced.
    Absent,
    /// Announced; the probe did not go so far.
    Offered,
    /// It works.
    Works,
    /// Announced or asked for, and it did not work.
    Failed,
}

impl ProbeTls {
    /// Without roots yet: they are read when first needed.
    ///
    /// # Errors
    /// The TLS library does not work here.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            any: TlsClient::new(Trust::Any)?,
            roots: OnceCell::new(),
        })
    }

    async fn client(&self, trust: Trust) -> io::Result<&TlsClient> {
        match trust {
            Trust::Any => Ok(&self.any),
            Trust::SystemRoots => {
                let read = || async {
                    spawn_blocking(|| TlsClient::new(Trust::SystemRoots))
                        .await
                        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
                };
                self.roots.get_or_try_init(read).await
            }
        }
    }
}

impl ProbeResult {
    /// Whether the backend can serve, as far as the plan went.
    pub fn is_good(&self) -> bool {
        self.failure.is_none()
    }

    /// As the balancing core wants it.
    pub fn report(&self) -> ProbeReport {
        ProbeReport {
            stage: self.stage,
            failure: self.failure,
            code: self.code,
            text: self.text.as_deref().map(Arc::from),
            duration: self.duration,
            greeting: self.greeting,
            full: self.full,
            keywords: Arc::clone(&self.keywords),
            certificate_days: self.certificate.as_ref().map(|one| one.days_left),
        }
    }
}

/// Probes once.
pub async fn probe_once(target: &Target, plan: &Plan, tls: &ProbeTls) -> ProbeResult {
    run::run(target, plan, tls).await
}
