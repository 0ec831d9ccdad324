//! The balancers under comparison: one worker, the same listener, the same backends, the same
//! timeouts. A new peer is one more [`Kind`] and one more configuration.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::auth::Auth;
use super::client::{PATIENCE, wait_for_greeting};
use super::process::{Process, pinned};
use super::{callgrind, free_port, loopback, tools};

/// How long a peer may take to serve its first session.
const READY_MAX: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// No balancer: the client speaks to the first backend.
    Direct,
    Haproxy,
    /// `option splice-request` and `splice-response`.
    HaproxySplice,
    Nginx,
    /// The module that ends the client's SMTP until the first RCPT.
    NginxMail,
    Posthouse,
    /// `mode = "smtp"`.
    PosthouseSmtp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    Off,
    /// One line per session, to a file.
    On,
}

/// Whether the peer looks after its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// No probes and nothing noticed: for measuring costs.
    Off,
    /// As an operator would set it: for the failover rows.
    On,
}

/// How the process is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Plain,
    Callgrind,
    /// With a master process (HAProxy, nginx), so that it can be told to reload.
    Reloadable,
}

/// What all peers are told.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) folder: PathBuf,
    pub(crate) posthouse: PathBuf,
    /// Where the mail goes, with a weight each.
    pub(crate) backends: Vec<(SocketAddr, u32)>,
    pub(crate) logs: Logs,
    pub(crate) health: Health,
    pub(crate) run: Run,
    pub(crate) cpu: Option<usize>,
}

/// A running balancer (or none).
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    /// Of the status endpoint (posthouse only).
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) process: Option<Process>,
    /// What nginx's mail module asks.
    pub(super) auth: Option<Auth>,
    pub(super) folder: PathBuf,
    pub(super) setup: Setup,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::NginxMail => "nginx-mail",
            Self::Posthouse => "posthouse",
            Self::PosthouseSmtp => "posthouse-smtp",
        })
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.to_string()
    }
}

impl Kind {
    pub(crate) const PROXIES: [Self; 4] = [
        Self::Haproxy,
        Self::HaproxySplice,
        Self::Nginx,
        Self::Posthouse,
    ];

    /// Those that are compared where whole messages are counted.
    pub(crate) const MAIL: [Self; 3] = [Self::Haproxy, Self::NginxMail, Self::PosthouseSmtp];

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Direct]
            .into_iter()
            .chain(Self::PROXIES)
            .chain(Self::MAIL)
            .find(|kind| kind.to_string() == name)
    }

    /// Whether budgets are for it.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Posthouse | Self::PosthouseSmtp)
    }

    fn file(self) -> &'static str {
        match self {
            Self::Direct => "none",
            Self::Haproxy | Self::HaproxySplice => "haproxy.cfg",
            Self::Nginx | Self::NginxMail => "nginx.conf",
            Self::Posthouse | Self::PosthouseSmtp => "posthouse.toml",
        }
    }
}

impl Peer {
    /// Starts it and waits until it has relayed a greeting.
    pub(crate) fn start(kind: Kind, setup: &Setup) -> Result<Self> {
        let mut last = None;
        // Another process may take the port between our look and the bind.
        for _ in 0..3 {
            match Self::start_once(kind, setup) {
                Ok(peer) => return Ok(peer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("three tries were made")?)
    }

    fn start_once(kind: Kind, setup: &Setup) -> Result<Self> {
        let port = match kind {
            Kind::Direct => setup.backends.first().context("no backend")?.0.port(),
            _ => free_port()?,
        };
        let folder = setup.folder.join(format!("{kind}-{port}"));
        fs::create_dir_all(&folder)?;
        let admin = match kind {
            Kind::Posthouse | Kind::PosthouseSmtp => Some(loopback(1, free_port()?)),
            _ => None,
        };
        let auth = match kind {
            Kind::NginxMail => {
                let backends = setup.backends.iter().map(|(at, _)| *at).collect();
                Some(Auth::start(backends, setup.cpu.map(|_| 0))?)
            }
            _ => None,
        };
        let mut peer = Self {
            kind,
            port,
            admin,
            process: None,
            auth,
            folder,
            setup: setup.clone(),
        };
        if kind != Kind::Direct {
            peer.write_configuration(&setup.backends)?;
            peer.process = Some(peer.spawn()?);
            peer.await_greeting()?;
        }
        Ok(peer)
    }

    /// Where clients connect. Any number gives the same balancer at another loopback address.
    pub(crate) fn address(&self, number: u16) -> SocketAddr {
        match self.kind {
            Kind::Direct => {
                let (at, _) = self.setup.backends[usize::from(number) % self.setup.backends.len()];
                at
            }
            _ => loopback(number.max(1), self.port),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The running process.
    pub(crate) fn running(&self) -> Result<&Process> {
        self.process
            .as_ref()
            .context("no process without a balancer")
    }

    pub(crate) fn cpu_ns(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::cpu_ns)
    }

    /// Writes the configuration anew, for a reload.
    pub(crate) fn write_configuration(&self, backends: &[(SocketAddr, u32)]) -> Result<()> {
        let Some(text) = self.configuration(backends) else {
            return Ok(());
        };
        // Written aside and renamed, so that no reload reads half a file.
        let path = self.folder.join(self.kind.file());
        let aside = self.folder.join("aside");
        fs::write(&aside, text)?;
        Ok(fs::rename(aside, path)?)
    }

    /// Tells it to take the configuration anew; does not wait.
    pub(crate) fn reload(&self) -> Result<()> {
        match self.kind {
            Kind::Direct => Ok(()),
            Kind::Haproxy | Kind::HaproxySplice => self.running()?.signal(Signal::USR2),
            Kind::Nginx | Kind::NginxMail | Kind::Posthouse | Kind::PosthouseSmtp => {
                self.running()?.signal(Signal::HUP)
            }
        }
    }

    /// Ends it in good order: under callgrind the counts are written then.
    pub(crate) fn stop(mut self) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.end_with(Signal::TERM)?;
        }
        Ok(())
    }

    /// The body of an admin endpoint's answer.
    pub(crate) fn admin_get(&self, path: &str) -> Result<String> {
        let admin = self.admin.context("no status endpoint")?;
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default())
    }

    fn spawn(&self) -> Result<Process> {
        let program = match self.kind {
            Kind::Direct => bail!("no program"),
            Kind::Haproxy | Kind::HaproxySplice => tools::HAPROXY.ensure()?,
            Kind::Nginx => tools::NGINX.ensure()?,
            Kind::NginxMail => tools::NGINX_MAIL.ensure()?,
            Kind::Posthouse | Kind::PosthouseSmtp => self.setup.posthouse.clone(),
        };
        let mut command = match self.setup.run {
            Run::Callgrind => callgrind::command(&program, &self.folder)?,
            Run::Plain | Run::Reloadable => pinned(self.setup.cpu, &program),
        };
        let file = self.folder.join(self.kind.file());
        match self.kind {
            Kind::Direct => {}
            Kind::Haproxy | Kind::HaproxySplice => {
                let mode = if self.setup.run == Run::Reloadable {
                    "-Ws"
                } else {
                    "-db"
                };
                command.arg(mode).arg("-f").arg(&file);
            }
            Kind::Nginx | Kind::NginxMail => {
                command.arg("-p").arg(&self.folder).arg("-c").arg(&file);
            }
            Kind::Posthouse | Kind::PosthouseSmtp => {
                command.arg("run").arg("-c").arg(&file);
            }
        }
        let log = File::create(self.folder.join("output.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Process::spawn(&mut command)
    }

    fn await_greeting(&mut self) -> Result<()> {
        let address = self.address(1);
        let ready = wait_for_greeting(address, READY_MAX, || match self.process.as_mut() {
            Some(process) => match process.ended() {
                Some(status) => bail!("it ended ({status})"),
                None => Ok(()),
            },
            None => Ok(()),
        });
        ready.with_context(|| format!("{}: {}", self.kind, self.output()))
    }

    fn output(&self) -> String {
        let text = fs::read_to_string(self.folder.join("output.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// smtp-sink on every loopback address of a port, as all peers' backend.
pub(crate) fn start_smtp_sink(cpu: Option<usize>) -> Result<(Process, u16)> {
    let program = tools::SMTP_SINK.ensure()?;
    let port = free_port()?;
    let mut command: Command = pinned(cpu, &program);
    command
        .args(["-u", "postfix", "-h", "sink.example", "-m", "8000"])
        .arg(format!("0.0.0.0:{port}"))
        .arg("4096")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = Process::spawn(&mut command)?;
    wait_for_greeting(loopback(1, port), PATIENCE, || Ok(()))?;
    Ok((process, port))
}
