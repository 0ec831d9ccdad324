//! What the commands that ask a running process have in common: where it is, and the token.
//!
//! `--admin` names the place. Without it the process is where its configuration file says: first at
//! the Unix sockets, which need no token, then at the TCP addresses. Only `[admin]` of that file is
//! read, so a file with mistakes elsewhere does not hide the process whose configuration it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use hyper::{Method, StatusCode};

use super::file::{ConfigArg, ConfigFile, NamedBy};
use crate::admin::client::{Address, Answer, Client, ClientError, DEFAULT_ADDRESSES};
use crate::admin::read_token;
use crate::config;
use crate::config::model::{Admin, AdminBind};

/// The environment variable that may hold the token.
const TOKEN_VARIABLE: &str = "POSTHOUSE_TOKEN";

/// Where the running process is asked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The configuration file, whose `[admin]` says where to ask.
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// Status endpoint of the running process, if not the one of the configuration file:
    /// HOST:PORT, http://HOST:PORT or unix:/PATH
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(super) admin: Option<Address>,
    /// File whose first line is the token for changes over TCP (or the variable POSTHOUSE_TOKEN)
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// Where to ask.
    ///
    /// # Errors
    /// The file that was named cannot be read, or has no status endpoint.
    pub(super) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let given = self.given_token()?;
        if let Some(address) = &self.admin {
            return Ok(Endpoint {
                clients: vec![Client {
                    address: address.clone(),
                    token: given,
                }],
                file: None,
            });
        }
        let file = self.config.file();
        let (addresses, token) = if let Some(admin) = admin_of(&file)? {
            // A token that we may not read is missed only where one is needed, and said there.
            let own = admin.token_file.as_deref();
            let own = own.and_then(|path| read_token(path).ok());
            (addresses(&admin), own)
        } else {
            let usual = DEFAULT_ADDRESSES.map(|text| text.parse().expect("an address"));
            (usual.to_vec(), None)
        };
        if addresses.is_empty() {
            bail!(
                "[admin] bind of {} has port 0: give the address with --admin",
                file.path.display()
            );
        }
        let token = given.or(token);
        let client = |address| Client {
            address,
            token: token.clone(),
        };
        Ok(Endpoint {
            clients: addresses.into_iter().map(client).collect(),
            file: Some(file),
        })
    }

    fn given_token(&self) -> anyhow::Result<Option<String>> {
        Ok(match &self.token_file {
            Some(path) => Some(read_token(path)?),
            None => std::env::var(TOKEN_VARIABLE)
                .ok()
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
        })
    }
}

/// `[admin]` of the file; `None` if no file was named and the usual one cannot be read.
fn admin_of(file: &ConfigFile) -> anyhow::Result<Option<Admin>> {
    match (config::admin_of(&file.path), file.named_by) {
        (Ok(Some(admin)), _) => Ok(Some(admin)),
        (Ok(None), _) => Err(anyhow!(
            "{} has no status endpoint: add a table [admin] with bind = [\"127.0.0.1:8025\", \
             \"unix:/run/posthouse/admin.sock\"] and restart posthouse, name the file it runs with \
             (-c FILE), or say where to ask with --admin",
            file.path.display()
        )),
        (Err(_), NamedBy::Nobody) => Ok(None),
        (Err(error), NamedBy::Operator) => {
            Err(error).with_context(|| format!("cannot read {}", file.path.display()))
        }
    }
}

/// Where an endpoint that listens there is reached from this host, Unix sockets first.
fn addresses(admin: &Admin) -> Vec<Address> {
    let sockets = admin.bind.iter().filter_map(|bind| match bind {
        AdminBind::Unix { path, .. } => Some(Address::Unix(path.clone())),
        AdminBind::Tcp(_) => None,
    });
    let addresses = admin.bind.iter().filter_map(|bind| match bind {
        AdminBind::Unix { .. } => None,
        AdminBind::Tcp(address) => reached_at(*address),
    });
    let addresses = addresses.map(|address| Address::Tcp(address.to_string()));
    sockets.chain(addresses).collect()
}

/// Where a listener is reached from this host: one on every address by loopback. `None` if the kernel
/// chose the port.
fn reached_at(bind: SocketAddr) -> Option<SocketAddr> {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    (bind.port() != 0).then(|| SocketAddr::new(ip, bind.port()))
}

/// The addresses at which a running process may be asked, best first.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    clients: Vec<Client>,
    /// The file that named them.
    file: Option<ConfigFile>,
}

/// An answer, and what else is worth saying if it is a refusal.
pub(super) struct Answered<'e> {
    pub(super) answer: Answer,
    by: &'e Client,
    /// Why the addresses before it did not take the connection.
    failed: Vec<ClientError>,
}

impl Endpoint {
    /// Asks at the first address that takes the connection; any status is an answer.
    ///
    /// # Errors
    /// No address took the connection, or the one that did gave no answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Answered<'_>> {
        let mut failed = Vec::new();
        for by in &self.clients {
            match by.ask(method.clone(), path, body.clone()).await {
                Ok(answer) => return Ok(Answered { answer, by, failed }),
                Err(error @ (ClientError::Refused(_) | ClientError::Permission(_))) => {
                    failed.push(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.unreachable(&failed))
    }

    /// The same, and takes anything but a 2xx for a refusal.
    ///
    /// # Errors
    /// There was no answer, or it was a refusal.
    pub(super) async fn ask_for(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Answer> {
        let answered = self.ask(method, path, body).await?;
        if answered.answer.status.is_success() {
            Ok(answered.answer)
        } else {
            Err(answered.refusal())
        }
    }

    fn unreachable(&self, failed: &[ClientError]) -> anyhow::Error {
        let reasons: Vec<String> = failed.iter().map(ToString::to_string).collect();
        let advice = match &self.file {
            None => "is posthouse running, and is this in its [admin] bind?".to_owned(),
            Some(file) if file.named_by == NamedBy::Nobody && !file.path.exists() => {
                "is posthouse running? Name its configuration file with -c FILE or \
                 POSTHOUSE_CONFIG, or say where to ask with --admin"
                    .to_owned()
            }
            Some(file) => format!(
                "is posthouse running with {}? Name another file with -c FILE, or say where to ask \
                 with --admin",
                file.path.display()
            ),
        };
        anyhow!("{}; {advice}", reasons.join("; "))
    }
}

impl Answered<'_> {
    /// The refusal in the answer; with it, that we may not use a socket that was tried before.
    pub(super) fn refusal(&self) -> anyhow::Error {
        let refused = self.by.denied(&self.answer);
        let mut failed = self.failed.iter();
        let barred = failed.find(|error| matches!(error, ClientError::Permission(_)));
        match (barred, refused) {
            (None, refused) => refused.into(),
            // Its remedy is a socket: the one that is there and did not open.
            (
                Some(barred),
                ClientError::Denied {
                    status: StatusCode::FORBIDDEN,
                    error,
                    ..
                },
            ) => anyhow!("{barred}; {} says: {error}", self.by.address),
            (Some(barred), refused) => anyhow::Error::new(refused).context(barred.to_string()),
        }
    }
}

/// A small runtime for one question.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")
}

/// Text from elsewhere without what a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &str) -> (tempfile::TempDir, AdminArgs) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("posthouse.toml");
        std::fs::write(&file, config).expect("write");
        let args = AdminArgs {
            config: ConfigArg { config: Some(file) },
            admin: None,
            token_file: None,
        };
        (folder, args)
    }

    fn asked_at(config: &str) -> Result<Vec<String>, String> {
        let (_folder, args) = args(config);
        let endpoint = args.endpoint().map_err(|error| format!("{error:#}"))?;
        let clients = endpoint.clients.iter();
        Ok(clients.map(|client| client.address.to_string()).collect())
    }

    #[test]
    fn the_process_is_asked_where_its_file_says_and_first_at_its_socket() {
        let both = "[admin]\nbind = [\"0.0.0.0:8025\", \"[::]:8026\", \"unix:/run/a.sock\"]\n";
        let expected = ["unix:/run/a.sock", "127.0.0.1:8025", "[::1]:8026"];
        assert_eq!(asked_at(both).expect("addresses"), expected);
        // Whatever else is wrong with the file, even its syntax.
        let broken = format!("nonsense = \n[pools.mx]\nbalance = 7\n{both}foo = 1\n");
        assert_eq!(asked_at(&broken).expect("addresses"), expected);
    }

    #[test]
    fn a_file_without_an_endpoint_is_said_with_the_remedy() {
        let error = asked_at("workers = 1\n").expect_err("no [admin]");
        assert!(error.contains("add a table [admin]"), "{error}");
        let error = asked_at("[admin]\nbind = \"127.0.0.1:0\"\n").expect_err("no port");
        assert!(error.contains("--admin"), "{error}");
        let (_folder, mut missing) = args("");
        missing.config.config = Some(PathBuf::from("/nowhere/posthouse.toml"));
        let error = format!("{:#}", missing.endpoint().expect_err("no file"));
        assert!(error.contains("/nowhere/posthouse.toml"), "{error}");
    }

    #[test]
    fn a_socket_that_is_barred_is_not_recommended() {
        let refusal = |status, failed| {
            let body = br#"{"error": "a token is needed", "remedy": "use a Unix socket"}"#;
            let by = Client {
                address: "127.0.0.1:1".parse().expect("an address"),
                token: None,
            };
            let answered = Answered {
                answer: Answer {
                    status,
                    body: body.as_slice().into(),
                },
                by: &by,
                failed,
            };
            format!("{:#}", answered.refusal())
        };
        let barred = || vec![ClientError::Permission(Address::Unix("/run/a".into()))];
        let said = refusal(StatusCode::FORBIDDEN, barred());
        assert_eq!(
            said,
            "no permission for unix:/run/a: ask as root or as a member of the socket's group; \
             127.0.0.1:1 says: a token is needed"
        );
        for (status, failed) in [
            (StatusCode::FORBIDDEN, Vec::new()),
            (StatusCode::NOT_FOUND, barred()),
        ] {
            let said = refusal(status, failed);
            assert!(said.ends_with("; use a Unix socket"), "{said}");
        }
    }

    #[test]
    fn the_token_of_the_file_is_used_unless_another_is_given() {
        let (folder, mut args) = args("[admin]\nbind = \"127.0.0.1:1\"\ntoken_file = \"token\"\n");
        let token = |args: &AdminArgs| {
            args.endpoint().expect("an address").clients[0]
                .token
                .clone()
        };
        assert_eq!(token(&args), None, "it is not there");
        std::fs::write(folder.path().join("token"), "of-the-file\n").expect("write");
        assert_eq!(token(&args).as_deref(), Some("of-the-file"));
        let other = folder.path().join("other");
        std::fs::write(&other, "given\n").expect("write");
        args.token_file = Some(other);
        assert_eq!(token(&args).as_deref(), Some("given"));
        // A token of this host is not sent to wherever --admin points.
        args.token_file = None;
        args.admin = Some("192.0.2.1:8025".parse().expect("an address"));
        assert_eq!(token(&args), None);
    }
}
