//! Backends given by host name: all their addresses, looked up again when their TTL has passed.
//!
//! Names are resolved by the system's configuration (`/etc/hosts`, `/etc/resolv.conf`), in the
//! families that are wanted, off the data path. A failed look-up keeps the last good answer, for as
//! long as it takes; an answer is vetted (`vetting`), and what is used of it changes a pool by the
//! path of a reload.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep_until, timeout};

use super::handle::{ReloadFrom, ReloadRequest};
use super::lookup_error::lookup_words;
use super::own;
use super::vetting::{self, Vetting};
use crate::config::Config;
use crate::config::model::{AddressFamily, BackendAddress};
use crate::net::route::route;

/// The shortest time until a name is looked up again.
const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest.
const TTL_MAX: Duration = Duration::from_mins(5);
/// After a failed look-up.
const RETRY: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups at once; more wait.
const LOOKUPS_MAX: usize = 32;
/// Addresses of one name that are used; the rest is left out, in the order of addresses.
const ADDRESSES_MAX: usize = 64;
/// While no name is configured.
const IDLE: Duration = Duration::from_hours(1);

/// The answer to a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

/// A name, and the families that are asked for.
type Question = (Arc<str>, AddressFamily);

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    addresses: Vec<IpAddr>,
    due: Instant,
    /// Why the last look-up failed, if it did.
    failing: Option<String>,
}

/// The names of the configuration and their addresses.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: RefCell<BTreeMap<Question, Known>>,
    /// What is used of it by the configuration in force.
    in_force: RefCell<Vetting>,
    resolver: RefCell<Option<(Sources, Resolvers)>>,
    changed: Notify,
}

/// A resolver for each choice of families.
#[derive(Clone)]
struct Resolvers {
    any: TokioResolver,
    ipv4: TokioResolver,
    ipv6: TokioResolver,
}

/// The state of the files the resolver was made from.
type Sources = [Option<(u64, i64, i64)>; 2];

impl Names {
    /// Looks up the names of `config` that are not known yet. Takes [`LOOKUP_TIMEOUT`] at most for
    /// every [`LOOKUPS_MAX`] names; what fails is tried again later.
    pub(super) async fn learn(self: &Rc<Self>, config: &Config) {
        let missing: Vec<_> = names(config)
            .into_iter()
            .filter(|name| !self.known.borrow().contains_key(name))
            .collect();
        self.look_up(missing).await;
        self.changed.notify_one();
    }

    /// What of the answers `config` would use now, on this host as it is.
    pub(super) async fn vet(&self, config: &Arc<Config>) -> Vetting {
        let known = self.known.borrow().clone();
        let in_force = self.in_force.borrow().clone();
        let config = Arc::clone(config);
        let vet = move || {
            let answers = |host: &Arc<str>, family| {
                let known = known.get(&(Arc::clone(host), family));
                let known = known.ok_or("it was not looked up yet")?;
                match &known.failing {
                    Some(error) if known.addresses.is_empty() => Err(error.clone()),
                    _ => Ok(known.addresses.clone()),
                }
            };
            let host = vetting::Host {
                own: &own::own_addresses(),
                binds: &own::binds(&config),
                route: &route,
            };
            in_force.next(&config, &answers, &host)
        };
        // A panic within would be ours; then everything stays.
        spawn_blocking(vet)
            .await
            .unwrap_or_else(|_| self.in_force.borrow().clone())
    }

    /// `config` is in force, with what `vetting` found; forgets the names of others.
    pub(super) fn adopt(&self, vetting: Vetting, config: &Config) {
        let wanted = names(config);
        self.known
            .borrow_mut()
            .retain(|name, _| wanted.contains(name));
        self.tell(vetting);
        self.changed.notify_one();
    }

    fn tell(&self, vetting: Vetting) {
        let before = self.in_force.replace(vetting);
        self.in_force.borrow().tell_since(&before);
    }

    /// Looks names up when they are due and asks for a reload when other addresses are to be used,
    /// until the process ends.
    pub(super) async fn run(
        self: Rc<Self>,
        config_in_force: impl Fn() -> Arc<Config>,
        reloads: mpsc::Sender<ReloadRequest>,
    ) {
        loop {
            let now = Instant::now();
            let next = self.known.borrow().values().map(|known| known.due).min();
            let next = next.unwrap_or(now + IDLE);
            tokio::select! {
                () = sleep_until(next.into()) => {}
                () = self.changed.notified() => continue,
            }
            let now = Instant::now();
            let is_due = |(question, known): (&Question, &Known)| {
                (known.due <= now).then(|| question.clone())
            };
            let due = self.known.borrow().iter().filter_map(is_due).collect();
            self.look_up(due).await;
            let vetting = self.vet(&config_in_force()).await;
            let changes = vetting.changes_since(&self.in_force.borrow());
            if changes.is_empty() {
                self.tell(vetting);
                continue;
            }
            // Whether the reload is done or refused, the next look-up tells what is left to change.
            let (reply, done) = oneshot::channel();
            let request = ReloadRequest {
                trigger: "discovery",
                from: ReloadFrom::Names(changes),
                reply: Some(reply),
            };
            if reloads.send(request).await.is_err() {
                return;
            }
            let _ = done.await;
        }
    }

    async fn look_up(self: &Rc<Self>, names: Vec<Question>) {
        if names.is_empty() {
            return;
        }
        let resolvers = self.resolver().await;
        let mut names = names.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < LOOKUPS_MAX
                && let Some(question) = names.next()
            {
                let resolver = resolvers.of(question.1).clone();
                running.spawn_local(async move {
                    let answer = ask(&resolver, &question.0).await;
                    (question, answer)
                });
            }
            match running.join_next().await {
                None => return,
                // A panic within the resolver: the name stays as it was and is due again at once.
                Some(Err(error)) => {
                    tracing::error!(%error, "discovery.failed");
                }
                Some(Ok((question, answer))) => {
                    self.learned(question, answer, Instant::now());
                }
            }
        }
    }

    fn learned(&self, question: Question, answer: Result<Answer, String>, now: Instant) {
        let mut all = self.known.borrow_mut();
        let name = Arc::clone(&question.0);
        let known = all.entry(question).or_insert_with(|| Known {
            addresses: Vec::new(),
            due: now,
            failing: None,
        });
        known.update(&name, answer, now);
    }

    /// The resolver of the system's configuration; made anew when that changes.
    async fn resolver(&self) -> Resolvers {
        let sources = spawn_blocking(sources).await.unwrap_or_default();
        if let Some((made_from, resolvers)) = &*self.resolver.borrow()
            && *made_from == sources
        {
            return resolvers.clone();
        }
        let resolvers = Resolvers::made(system_builder);
        *self.resolver.borrow_mut() = Some((sources, resolvers.clone()));
        resolvers
    }
}

impl Resolvers {
    fn made(make: impl Fn() -> ResolverBuilder<TokioRuntimeProvider>) -> Self {
        Self {
            any: build(make(), LookupIpStrategy::Ipv4AndIpv6),
            ipv4: build(make(), LookupIpStrategy::Ipv4Only),
            ipv6: build(make(), LookupIpStrategy::Ipv6Only),
        }
    }

    fn of(&self, family: AddressFamily) -> &TokioResolver {
        match family {
            AddressFamily::Any => &self.any,
            AddressFamily::Ipv4 => &self.ipv4,
            AddressFamily::Ipv6 => &self.ipv6,
        }
    }
}

impl fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolvers").finish_non_exhaustive()
    }
}

impl Known {
    fn update(&mut self, name: &str, answer: Result<Answer, String>, now: Instant) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if self.failing.is_none() {
                    let kept = self.addresses.len();
                    tracing::warn!(host = name, error, kept, "discovery.failed");
                }
                self.failing = Some(error);
                self.due = now + RETRY;
                return;
            }
        };
        if self.failing.take().is_some() {
            tracing::info!(host = name, "discovery.recovered");
        }
        self.due = now + answer.ttl.clamp(TTL_MIN, TTL_MAX);
        self.addresses = answer.addresses;
    }
}

async fn ask(resolver: &TokioResolver, name: &str) -> Result<Answer, String> {
    let lookup = timeout(LOOKUP_TIMEOUT, resolver.lookup_ip(name))
        .await
        .map_err(|_| format!("no name server answered within {LOOKUP_TIMEOUT:?}"))?
        .map_err(|error| lookup_words(&error).into_owned())?;
    let mut addresses: Vec<IpAddr> = lookup.iter().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() {
        return Err("the name has no address".to_owned());
    }
    let ttl = lookup
        .valid_until()
        .saturating_duration_since(Instant::now());
    Ok(Answer { addresses, ttl })
}

fn names(config: &Config) -> BTreeSet<Question> {
    config
        .pools
        .values()
        .flat_map(|pool| pool.backends.values())
        .filter_map(|backend| match &backend.address {
            BackendAddress::Name { host, .. } => Some((Arc::clone(host), backend.family)),
            BackendAddress::Literal(_) => None,
        })
        .collect()
}

fn sources() -> Sources {
    ["/etc/hosts", "/etc/resolv.conf"].map(|path| {
        let data = fs::metadata(path).ok()?;
        Some((data.ino(), data.mtime(), data.mtime_nsec()))
    })
}

fn system_builder() -> ResolverBuilder<TokioRuntimeProvider> {
    TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // Names of /etc/hosts work without a name server.
        tracing::warn!(error = &*lookup_words(&error), "discovery.no_resolver");
        let none = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        TokioResolver::builder_with_config(none, TokioRuntimeProvider::default())
    })
}

fn build(
    mut builder: ResolverBuilder<TokioRuntimeProvider>,
    families: LookupIpStrategy,
) -> TokioResolver {
    let options = builder.options_mut();
    options.ip_strategy = families;
    // Every look-up is made because the last answer's time is over.
    options.cache_size = 0;
    builder
        .build()
        .expect("a resolver without TLS has nothing that can fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Backend, Pool};

    fn answer(addresses: &[&str], ttl: u64) -> Answer {
        Answer {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
        }
    }

    fn question() -> Question {
        (Arc::from("mx.example"), AddressFamily::Any)
    }

    fn learned(names: &Names, answer: Result<Answer, String>, now: Instant) {
        names.learned(question(), answer, now);
    }

    fn due(names: &Names, now: Instant) -> Duration {
        let due = names.known.borrow()[&question()].due;
        due.saturating_duration_since(now)
    }

    /// The addresses that the one backend of [`naming`] would use now.
    async fn used(names: &Names, config: &Arc<Config>) -> Vec<IpAddr> {
        let resolved = names.vet(config).await.resolved();
        let found = &resolved.0[&(Arc::from("mx"), Arc::from("a"))];
        found.addresses.clone()
    }

    #[test]
    fn the_ttl_is_honoured_between_one_second_and_five_minutes() {
        let (names, now) = (Names::default(), Instant::now());
        for (ttl, wait) in [(0, 1), (60, 60), (86_400, 300)] {
            learned(&names, Ok(answer(&["192.0.2.1"], ttl)), now);
            assert_eq!(due(&names, now), Duration::from_secs(wait), "TTL {ttl}");
        }
    }

    #[test]
    fn the_last_good_answer_outlives_failures() {
        let (names, now) = (Names::default(), Instant::now());
        learned(&names, Ok(answer(&["192.0.2.1"], 60)), now);
        learned(&names, Err("SERVFAIL".into()), now);
        assert_eq!(due(&names, now), RETRY);
        let config = naming(&question().0);
        let addresses = runtime().block_on(used(&names, &config));
        assert_eq!(addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    fn runtime() -> tokio::runtime::LocalRuntime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap()
    }

    /// A configuration with one backend, at this name.
    fn naming(host: &Arc<str>) -> Arc<Config> {
        let mut config = Config::for_host("mx.example");
        let mut pool = Pool::for_host("mx.example");
        let address = BackendAddress::Name {
            host: Arc::clone(host),
            port: 25,
        };
        pool.backends.insert(Arc::from("a"), Backend::at(address));
        config.pools.insert(Arc::from("mx"), pool);
        Arc::new(config)
    }

    #[test]
    fn localhost_is_resolved_and_forgotten_names_are_dropped() {
        let (runtime, host) = (runtime(), Arc::<str>::from("localhost"));
        let config = naming(&host);
        let names = Rc::new(Names::default());
        runtime.block_on(async {
            names.learn(&config).await;
            let addresses = used(&names, &config).await;
            assert!(
                addresses.contains(&"127.0.0.1".parse().unwrap()),
                "{addresses:?}"
            );
            names.adopt(Vetting::default(), &Config::for_host("mx.example"));
            assert_eq!(used(&names, &config).await, Vec::<IpAddr>::new());
        });
    }

    /// Answers A with one address after the other, always for one second, and AAAA with nothing.
    fn name_server(answers: &'static [[u8; 4]]) -> std::net::SocketAddr {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut answers = answers
                .iter()
                .chain(std::iter::repeat(answers.last().unwrap()));
            let mut query = [0; 512];
            while let Ok((_, peer)) = socket.recv_from(&mut query) {
                // The question is labels up to an empty one, a type and a class (RFC 1035 §4.1.2).
                let labels = query[12..].iter().position(|octet| *octet == 0).unwrap();
                let question = &query[12..12 + labels + 5];
                let is_a = question[labels + 1..labels + 3] == [0, 1];
                let mut reply = query[..2].to_vec();
                reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
                reply.extend(question);
                if is_a {
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                    reply.extend(answers.next().unwrap());
                }
                let _ = socket.send_to(&reply, peer);
            }
        });
        address
    }

    fn resolvers_at(server: std::net::SocketAddr) -> Resolvers {
        use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Resolvers::made(|| {
            TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
        })
    }

    /// Answers every question with this code (RFC 1035 §4.1.1) and nothing else.
    fn refusing(code: u8) -> std::net::SocketAddr {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut query) {
                let mut reply = query[..length].to_vec();
                reply[2..4].copy_from_slice(&[0x81, 0x80 | code]);
                let _ = socket.send_to(&reply, peer);
            }
        });
        address
    }

    #[test]
    fn why_a_name_has_no_address_is_said_in_words() {
        for (code, words) in [
            (0, "the name has no address"),
            (3, "there is no such name"),
            (5, "the name server says: Query Refused"),
        ] {
            let resolvers = resolvers_at(refusing(code));
            let answer = runtime().block_on(async { ask(&resolvers.any, "mx.example.").await });
            assert_eq!(answer.expect_err("no address"), words);
        }
    }

    #[test]
    fn addresses_that_change_when_their_ttl_has_passed_ask_for_a_reload() {
        let server = name_server(&[[192, 0, 2, 1], [192, 0, 2, 1], [192, 0, 2, 7]]);
        let (runtime, host) = (runtime(), Arc::<str>::from("moves.example."));
        let config = naming(&host);
        let names = Rc::new(Names::default());
        let request = runtime.block_on(async {
            *names.resolver.borrow_mut() = Some((sources(), resolvers_at(server)));
            names.learn(&config).await;
            let vetting = names.vet(&config).await;
            names.adopt(vetting, &config);
            let first: IpAddr = [192, 0, 2, 1].into();
            assert_eq!(used(&names, &config).await, [first]);
            let (sender, mut receiver) = mpsc::channel(1);
            let in_force = Arc::clone(&config);
            let config_in_force = move || Arc::clone(&in_force);
            tokio::task::spawn_local(Rc::clone(&names).run(config_in_force, sender));
            receiver.recv().await.unwrap()
        });
        assert_eq!(request.trigger, "discovery");
        let ReloadFrom::Names(changes) = request.from else {
            panic!("the file is not read for this");
        };
        assert!(changes[0].contains("192.0.2.7"), "{changes:?}");
        let second: IpAddr = [192, 0, 2, 7].into();
        assert_eq!(runtime.block_on(used(&names, &config)), [second]);
    }
}
