//! `posthouse probe`: one graded conversation, as a Nagios plugin says it.
//!
//! One line, a bar, performance data; 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::address::HostPort;
use super::{Exit, term};
use crate::balance::{FailureKind, Stage};
use crate::config::model::Depth;
use crate::control::probe::{
    Header, Opening, Plan, ProbeResult, ProbeTls, ProxyVerdict, Starttls, Target, Trust, probe_once,
};
use crate::lab::read_duration;
use crate::types::in_words;

/// How long a step may take, unless it is said.
const STEP_MAX: Duration = Duration::from_secs(5);
/// How long a greeting may take, unless it is said (rule H6).
const GREETING_MAX: Duration = Duration::from_secs(8);

/// `posthouse probe`.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP)]
pub(super) struct Args {
    /// The mail server: HOST:PORT (port 25 if none is named)
    #[arg(value_name = "HOST:PORT")]
    server: HostPort,
    /// How far to go
    #[arg(long, short, value_enum, default_value_t = DepthWord::Ehlo)]
    depth: DepthWord,
    /// Send a PROXY header first, as a balancer's probe (v2: LOCAL)
    #[arg(long, value_enum)]
    proxy: Option<ProxyWord>,
    /// How long any step may take [default: 5s, and 8s for the greeting: postscreen waits 6s]
    #[arg(long, value_parser = time, value_name = "TIME")]
    timeout: Option<Duration>,
    /// How long the greeting may take [default: --timeout]
    #[arg(long, value_parser = time, value_name = "TIME")]
    greeting_timeout: Option<Duration>,
    /// WARNING when the whole conversation takes longer
    #[arg(long, short, value_parser = time, value_name = "TIME")]
    warn: Option<Duration>,
    /// CRITICAL when the whole conversation takes longer
    #[arg(long, short, value_parser = time, value_name = "TIME")]
    crit: Option<Duration>,
    /// WARNING when the certificate has fewer days left
    #[arg(long, default_value_t = 14, value_name = "DAYS")]
    cert_days: i64,
    /// The name in EHLO
    #[arg(long, default_value = "posthouse.probe", value_name = "NAME")]
    ehlo: String,
    /// The recipient of --depth mail; nothing is ever sent to it
    #[arg(
        long,
        visible_alias = "rcpt",
        value_name = "MAILBOX",
        required_if_eq("depth", "mail")
    )]
    recipient: Option<String>,
    /// The certificate must be valid for the host name
    #[arg(long)]
    tls_verify: bool,
    /// The port begins with TLS (465)
    #[arg(long)]
    implicit_tls: bool,
}

const AFTER_HELP: &str = "\
Exit codes (those of a Nagios plugin):
  0  OK
  1  WARNING   it takes mail, but: says it is full, slow (--warn), certificate about to end
  2  CRITICAL  it does not take mail, or not in time (--crit)
  3  UNKNOWN   wrong usage, or the name cannot be looked up";

const AFTER_LONG_HELP: &str = "\
Examples:
  posthouse probe mx1.example
  posthouse probe mx1.example:25 --depth starttls --cert-days 21
  posthouse probe 10.0.0.11:25 --proxy v2 --warn 500ms --crit 3s

Exit codes (those of a Nagios plugin):
  0  OK
  1  WARNING   it takes mail, but: says it is full, slow (--warn), certificate about to end
  2  CRITICAL  it does not take mail, or not in time (--crit)
  3  UNKNOWN   wrong usage, or the name cannot be looked up";

/// How far to go; each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DepthWord {
    /// TCP connect only
    Connect,
    /// A 220 greeting
    Banner,
    /// EHLO answered 250
    Ehlo,
    /// STARTTLS, a handshake, EHLO again
    Starttls,
    /// MAIL and RCPT to --recipient, then RSET; never DATA
    Mail,
}

/// The version of the PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProxyWord {
    /// Version 1, with the socket's own addresses
    V1,
    /// Version 2 LOCAL
    V2,
}

/// What a plugin says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grade {
    exit: Exit,
    words: String,
}

fn time(text: &str) -> Result<Duration, String> {
    read_duration(text).ok_or_else(|| "write a number with ms, s or m, for example 5s".to_owned())
}

pub(super) fn run(args: &Args) -> Exit {
    let (grade, data) = match converse(args) {
        Ok(result) => (grade(args, &result), performance(args, &result)),
        Err(words) => {
            let exit = Exit::Unknown;
            (Grade { exit, words }, String::new())
        }
    };
    let word = match grade.exit {
        Exit::Done => "OK",
        Exit::Warning => "WARNING",
        Exit::Critical => "CRITICAL",
        _ => "UNKNOWN",
    };
    // The bar separates words from data: no other may stand in the line.
    let mut line = format!("SMTP {word} - {}", grade.words.replace('|', "/"));
    if !data.is_empty() {
        line = format!("{line} | {data}");
    }
    term::say(&(line + "\n"));
    grade.exit
}

fn converse(args: &Args) -> Result<ProbeResult, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| format!("cannot start the runtime: {}", in_words(&error)))?;
    runtime.block_on(async {
        let address = look_up(args).await?;
        let tls = ProbeTls::new().map_err(|error| format!("no TLS here: {}", in_words(&error)))?;
        Ok(probe_once(&target(args, address), &plan(args), &tls).await)
    })
}

async fn look_up(args: &Args) -> Result<SocketAddr, String> {
    let HostPort { host, port } = &args.server;
    match timeout(
        args.timeout.unwrap_or(STEP_MAX),
        lookup_host((host.as_str(), *port)),
    )
    .await
    {
        Ok(Ok(mut addresses)) => addresses
            .next()
            .ok_or_else(|| format!("{host} has no address")),
        Ok(Err(error)) => Err(format!("cannot look up {host}: {}", in_words(&error))),
        Err(_) => Err(format!("cannot look up {host}: no answer in time")),
    }
}

fn target(args: &Args, address: SocketAddr) -> Target {
    let host = &args.server.host;
    let is_name = host.parse::<std::net::IpAddr>().is_err();
    Target {
        address,
        host: is_name.then(|| Arc::from(host.as_str())),
        opening: if args.implicit_tls {
            Opening::Tls
        } else {
            Opening::Smtp
        },
        header: match args.proxy {
            None => Header::None,
            Some(ProxyWord::V1) => Header::V1,
            Some(ProxyWord::V2) => Header::V2,
        },
        source: None,
        interface: None,
        freebind: false,
    }
}

fn plan(args: &Args) -> Plan {
    let step = args.timeout.unwrap_or(STEP_MAX);
    let greeting = args.greeting_timeout.or(args.timeout);
    Plan {
        depth: match args.depth {
            DepthWord::Connect => Depth::Connect,
            DepthWord::Banner => Depth::Banner,
            DepthWord::Ehlo => Depth::Ehlo,
            DepthWord::Starttls => Depth::Starttls,
            DepthWord::Mail => Depth::Mail,
        },
        ehlo_name: Arc::from(args.ehlo.as_str()),
        recipient: args.recipient.as_deref().map(Arc::from),
        connect_timeout: step,
        greeting_timeout: greeting.unwrap_or(GREETING_MAX),
        timeout: step,
        trust: if args.tls_verify {
            Trust::SystemRoots
        } else {
            Trust::Any
        },
        relay_test: None,
    }
}

fn grade(args: &Args, result: &ProbeResult) -> Grade {
    let days = result.certificate.as_ref().map(|one| one.days_left);
    let late = |limit: Option<Duration>| limit.is_some_and(|limit| result.duration > limit);
    let took = seconds_text(result.duration);
    let (exit, words) = if !result.is_good() {
        (Exit::Critical, failure_words(args, result))
    } else if days.is_some_and(|days| days < 0) {
        (Exit::Critical, "the certificate has ended".to_owned())
    } else if late(args.crit) {
        (Exit::Critical, format!("slow: {took} in all"))
    } else if result.full {
        let text = result.text.as_deref().unwrap_or("it says it is full");
        (Exit::Warning, with_code(result.code, text))
    } else if let Some(days) = days.filter(|days| *days < args.cert_days) {
        let words = format!("the certificate ends in {days} days");
        (Exit::Warning, words)
    } else if late(args.warn) {
        (Exit::Warning, format!("slow: {took} in all"))
    } else {
        (Exit::Done, good_words(result, &took))
    };
    Grade { exit, words }
}

/// The failure, and what it may come from.
fn failure_words(args: &Args, result: &ProbeResult) -> String {
    let words = failure_text(result);
    let at_the_door = matches!(
        result.stage,
        Stage::Identity | Stage::Greeting | Stage::Ehlo
    );
    let refused = result.code.is_some_and(|code| code >= 500);
    match args.proxy {
        Some(_) if result.proxy == ProxyVerdict::Mismatch => {
            format!("{words} (it took the PROXY header for commands)")
        }
        Some(_) if at_the_door && refused => {
            format!("{words} (perhaps it expects no PROXY header)")
        }
        None if at_the_door && result.failure == Some(FailureKind::ProxyMismatch) => {
            format!("{words} (it expects a PROXY header: --proxy)")
        }
        _ => words,
    }
}

fn good_words(result: &ProbeResult, took: &str) -> String {
    let mut words = match (&result.greeting_text, result.greeting) {
        (Some(text), Some(time)) => {
            vec![text.clone(), format!("greeted in {}", seconds_text(time))]
        }
        _ => vec!["connected".to_owned()],
    };
    if !result.keywords.is_empty() {
        words.push(format!("{} keywords", result.keywords.len()));
    }
    if result.starttls == Starttls::Works {
        words.push("STARTTLS works".to_owned());
    }
    if let Some(certificate) = &result.certificate {
        words.push(format!("certificate {} days", certificate.days_left));
    }
    words.push(format!("{took} in all"));
    words.join(", ")
}

/// Step, code and words of a probe that failed.
pub(super) fn failure_text(result: &ProbeResult) -> String {
    let kind = result.failure.map_or("failed", |kind| kind.name());
    let text = result.text.as_deref().unwrap_or("");
    let words = if text.is_empty() {
        kind.to_owned()
    } else if result.code.is_some() {
        with_code(result.code, text)
    } else if text.to_lowercase().contains(kind) {
        text.to_lowercase()
    } else {
        format!("{kind}: {text}")
    };
    format!("{}: {words}", result.stage.name())
}

/// The reply with its code in front, once.
pub(super) fn with_code(code: Option<u16>, text: &str) -> String {
    match code {
        Some(code) if !text.starts_with(&code.to_string()) => format!("{code} {text}"),
        _ => text.to_owned(),
    }
}

fn seconds_text(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// `'label'=value[unit];warn;crit;min;max` by the Monitoring Plugins guidelines.
fn performance(args: &Args, result: &ProbeResult) -> String {
    let limit = |limit: Option<Duration>| {
        limit.map_or_else(String::new, |limit| limit.as_secs_f64().to_string())
    };
    let mut data = vec![format!(
        "time={:.6}s;{};{};0",
        result.duration.as_secs_f64(),
        limit(args.warn),
        limit(args.crit)
    )];
    if let Some(time) = result.connect {
        data.push(format!("connect={:.6}s;;;0", time.as_secs_f64()));
    }
    if let Some(time) = result.greeting {
        data.push(format!("greeting={:.6}s;;;0", time.as_secs_f64()));
    }
    if let Some(certificate) = &result.certificate {
        let (days, low) = (certificate.days_left, args.cert_days);
        data.push(format!("certificate_days={days};{low}:;0:"));
    }
    data.join(" ")
}
