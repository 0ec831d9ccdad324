//! The driver of one probe: does what the conversation says, and keeps the time.
//!
//! It decides nothing about SMTP; it knows which step is under way only for the durations.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::wire::{self, Happened, Wire};
use super::{Header, Opening, Plan, ProbeResult, ProbeTls, ProxyVerdict, Starttls, Step, Target};
use crate::balance::{FailureKind, Stage};
use crate::config::model::Depth;
use crate::net::tls::{Certificate, certificate};
use crate::smtp::{
    Conversation, ProbeEnd, ProbeFailure, ProbeOutput, ProbePlan, ProbeStage, RelayTest,
};
use crate::types::in_words;

/// Octets read at once.
const READ_OCTETS: usize = 4096;

/// Probes once.
pub(super) async fn run(target: &Target, plan: &Plan, tls: &ProbeTls) -> ProbeResult {
    let mut probe = Probe::new(target, plan, tls);
    let outcome = match probe.open().await {
        Ok(wire) => probe.converse(wire).await,
        Err((stage, error)) => Outcome::failed(stage, &error),
    };
    probe.finish(outcome)
}

/// How it ended.
struct Outcome {
    stage: Stage,
    failure: Option<FailureKind>,
    code: Option<u16>,
    text: Option<String>,
    full: bool,
    greeting_text: Option<String>,
    keywords: Arc<[Arc<str>]>,
    relay: Option<RelayTest>,
}

/// A probe under way.
struct Probe<'a> {
    target: &'a Target,
    plan: &'a Plan,
    tls: &'a ProbeTls,
    began: Instant,
    connected: Option<Instant>,
    step: Option<(&'static str, Instant)>,
    steps: Vec<Step>,
    certificate: Option<Certificate>,
    tls_error: Option<String>,
    starttls: Starttls,
}

impl<'a> Probe<'a> {
    fn new(target: &'a Target, plan: &'a Plan, tls: &'a ProbeTls) -> Self {
        Self {
            target,
            plan,
            tls,
            began: Instant::now(),
            connected: None,
            step: None,
            steps: Vec::new(),
            certificate: None,
            tls_error: None,
            starttls: Starttls::Unknown,
        }
    }

    /// Connects, sends the header, and shakes hands where the port begins with TLS.
    async fn open(&mut self) -> Result<Wire, (Stage, io::Error)> {
        self.begin("connect");
        let connect = timeout(self.plan.connect_timeout, wire::connect(self.target));
        let mut stream = connect
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| (Stage::Connect, error))?;
        self.connected = Some(Instant::now());
        let header =
            wire::header(self.target, &stream).map_err(|error| (Stage::Identity, error))?;
        if !header.is_empty() {
            // One write, and nothing behind it until the backend has spoken (rule X10).
            let write = timeout(self.plan.timeout, wire::write(&mut stream, &header));
            write
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| (Stage::Identity, error))?;
        }
        if self.target.opening == Opening::Smtp || self.plan.depth == Depth::Connect {
            return Ok(Wire::Clear(stream));
        }
        self.begin("tls");
        match self.shake_hands(stream, self.plan.timeout).await {
            Ok(stream) => Ok(Wire::Tls(stream)),
            Err(error) => {
                self.tls_error = Some(in_words(&error).into_owned());
                Err((Stage::Starttls, error))
            }
        }
    }

    async fn converse(&mut self, mut wire: Wire) -> Outcome {
        let mut conversation = Conversation::new(self.conversation_plan());
        if let Some(recipient) = &self.plan.relay_test {
            conversation = conversation.with_relay_test(recipient.to_string());
        }
        let mut buffer = vec![0; READ_OCTETS];
        let mut happened = Happened::Connected;
        let mut deadline = Instant::now();
        loop {
            match conversation.handle(happened.input(&buffer)) {
                ProbeOutput::Exchange { send, wait } => {
                    self.begin(step_name(&send));
                    deadline = Instant::now() + wait;
                    happened = match wire.send(&send, deadline).await {
                        Ok(()) => wire.read(&mut buffer, deadline).await,
                        Err(failure) => failure,
                    };
                }
                ProbeOutput::More => happened = wire.read(&mut buffer, deadline).await,
                ProbeOutput::StartTls { wait } => {
                    self.begin("tls");
                    happened = self.upgrade(&mut wire, wait).await;
                }
                ProbeOutput::Done(end) => {
                    self.end_step();
                    wire.close().await;
                    return Outcome::of(end);
                }
            }
        }
    }

    async fn upgrade(&mut self, wire: &mut Wire, wait: Duration) -> Happened {
        let Wire::Clear(stream) = std::mem::replace(wire, Wire::Lost) else {
            return Happened::TlsFailed;
        };
        match self.shake_hands(stream, wait).await {
            Ok(stream) => {
                *wire = Wire::Tls(stream);
                self.starttls = Starttls::Works;
                Happened::TlsDone
            }
            Err(error) => {
                self.tls_error = Some(in_words(&error).into_owned());
                self.starttls = Starttls::Failed;
                Happened::TlsFailed
            }
        }
    }

    async fn shake_hands(
        &mut self,
        stream: TcpStream,
        wait: Duration,
    ) -> io::Result<Box<TlsStream<TcpStream>>> {
        let client = self.tls.client(self.plan.trust).await?;
        let host = self.target.host.as_deref();
        let shake = client.connect(stream, host, self.target.address.ip());
        let stream = timeout(wait, shake)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
        self.certificate = certificate(&stream);
        Ok(Box::new(stream))
    }

    fn conversation_plan(&self) -> ProbePlan {
        let within_tls = self.target.opening == Opening::Tls;
        let depth = match self.plan.depth {
            Depth::Connect => 0,
            Depth::Banner => 1,
            Depth::Ehlo => 2,
            // Within TLS there is no STARTTLS (RFC 8314 §3.3).
            Depth::Starttls if within_tls => 2,
            Depth::Starttls => 3,
            Depth::Mail => 4,
        };
        ProbePlan {
            depth,
            ehlo_name: self.plan.ehlo_name.to_string(),
            recipient: self.plan.recipient.as_deref().map(str::to_owned),
            greeting_timeout: self.plan.greeting_timeout,
            timeout: self.plan.timeout,
            proxied: self.target.header != Header::None,
        }
    }

    fn begin(&mut self, name: &'static str) {
        self.end_step();
        self.step = Some((name, Instant::now()));
    }

    fn end_step(&mut self) {
        if let Some((name, since)) = self.step.take() {
            self.steps.push(Step {
                name,
                duration: since.elapsed(),
            });
        }
    }

    fn finish(mut self, outcome: Outcome) -> ProbeResult {
        self.end_step();
        let seen = outcome.greeting_text.is_some();
        let greeting = self.steps.iter().find(|step| step.name == "greeting");
        let connect = self.connected.map(|at| at - self.began);
        ProbeResult {
            proxy: self.proxy_verdict(&outcome),
            starttls: self.starttls_verdict(&outcome),
            connect,
            greeting: greeting.filter(|_| seen).map(|step| step.duration),
            stage: outcome.stage,
            failure: outcome.failure,
            code: outcome.code,
            text: outcome.text.or(self.tls_error),
            full: outcome.full,
            greeting_text: outcome.greeting_text,
            keywords: outcome.keywords,
            certificate: self.certificate,
            relay: outcome.relay,
            steps: self.steps,
            duration: self.began.elapsed(),
        }
    }

    fn proxy_verdict(&self, outcome: &Outcome) -> ProxyVerdict {
        match outcome.failure {
            _ if self.target.header == Header::None => ProxyVerdict::NotSent,
            Some(FailureKind::ProxyMismatch) => ProxyVerdict::Mismatch,
            Some(_) if outcome.stage <= Stage::Ehlo => ProxyVerdict::Unknown,
            None if self.plan.depth < Depth::Ehlo => ProxyVerdict::Unknown,
            Some(_) | None => ProxyVerdict::Accepted,
        }
    }

    fn starttls_verdict(&self, outcome: &Outcome) -> Starttls {
        let offered = || {
            let is_it = |word: &Arc<str>| word.eq_ignore_ascii_case("STARTTLS");
            outcome.keywords.iter().any(is_it)
        };
        if self.starttls != Starttls::Unknown {
            self.starttls
        } else if outcome.stage == Stage::Starttls && outcome.failure.is_some() && offered() {
            Starttls::Failed
        } else if self.target.opening == Opening::Tls || outcome.keywords.is_empty() {
            Starttls::Unknown
        } else if offered() {
            Starttls::Offered
        } else {
            Starttls::Absent
        }
    }
}

impl Outcome {
    fn of(end: ProbeEnd) -> Self {
        Self {
            stage: stage(end.stage),
            failure: end.failure.map(failure),
            code: end.code,
            text: end.text,
            full: end.full,
            greeting_text: end.greeting_text,
            keywords: end.keywords.into_iter().map(Arc::from).collect(),
            relay: end.relay,
        }
    }

    /// The end of a probe that never came to talk.
    fn failed(stage: Stage, error: &io::Error) -> Self {
        Self {
            stage,
            failure: Some(kind_of(stage, error)),
            code: None,
            text: Some(in_words(error).into_owned()),
            full: false,
            greeting_text: None,
            keywords: Arc::default(),
            relay: None,
        }
    }
}

fn stage(stage: ProbeStage) -> Stage {
    match stage {
        ProbeStage::Connect => Stage::Connect,
        ProbeStage::Identity => Stage::Identity,
        ProbeStage::Greeting => Stage::Greeting,
        ProbeStage::Ehlo => Stage::Ehlo,
        ProbeStage::Starttls => Stage::Starttls,
        ProbeStage::Mail => Stage::Mail,
        ProbeStage::Quit => Stage::Quit,
    }
}

fn failure(failure: ProbeFailure) -> FailureKind {
    match failure {
        ProbeFailure::Timeout => FailureKind::Timeout,
        ProbeFailure::Closed => FailureKind::Closed,
        ProbeFailure::Reset => FailureKind::Reset,
        ProbeFailure::Garbage => FailureKind::Garbage,
        ProbeFailure::Temporary => FailureKind::Temporary,
        ProbeFailure::Permanent => FailureKind::Permanent,
        ProbeFailure::Tls => FailureKind::Tls,
        ProbeFailure::ProxyMismatch => FailureKind::ProxyMismatch,
    }
}

fn kind_of(stage: Stage, error: &io::Error) -> FailureKind {
    use io::ErrorKind;
    if stage == Stage::Starttls && error.kind() != ErrorKind::TimedOut {
        return FailureKind::Tls;
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => FailureKind::Refused,
        ErrorKind::TimedOut => FailureKind::Timeout,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => FailureKind::Reset,
        ErrorKind::UnexpectedEof => FailureKind::Closed,
        _ => match error.raw_os_error() {
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT,
            ) => FailureKind::Unreachable,
            // No descriptor, no port, no such source address or interface, no permission.
            _ => FailureKind::Local,
        },
    }
}

/// The name of the step that sends these octets.
fn step_name(send: &[u8]) -> &'static str {
    const NAMES: [(&[u8], &str); 7] = [
        (b"EHLO", "ehlo"),
        (b"STARTTLS", "starttls"),
        (b"MAIL", "mail"),
        (b"RCPT", "rcpt"),
        (b"RSET", "rset"),
        (b"QUIT", "quit"),
        (b"HELO", "helo"),
    ];
    if send.is_empty() {
        return "greeting";
    }
    NAMES
        .iter()
        .find(|(verb, _)| {
            send.get(..verb.len())
                .is_some_and(|s| s.eq_ignore_ascii_case(verb))
        })
        .map_or("command", |(_, name)| name)
}
