//! Which addresses of a name are used: rule M5a for what only a resolver knows, and routes.
//!
//! An address that cannot be a backend (unspecified, multicast, broadcast, one of our own listeners)
//! is left out; if none remains, the last good answer stays in use. So one bad record neither takes a
//! pool down nor holds a reload back. Addresses to which this host has no route are left out as
//! long as there are others. Each finding is said once, not at every look-up.
//!
//! Pure: what is known of the host is handed in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::model::{AddressFamily, BackendAddress, Pool};
use crate::config::{Config, leads_back};
use crate::net::dial::Origin;
use crate::net::route::Route;
use crate::snapshot::{FoundAddresses, Resolved};

/// What one backend uses of the answer for its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vetted {
    host: Arc<str>,
    port: u16,
    family: AddressFamily,
    addresses: Vec<IpAddr>,
    finding: Option<Finding>,
}

/// What is odd about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    text: Arc<str>,
    /// An operator should act: it is more than a family without a route.
    is_warning: bool,
}

/// What is known of this host.
pub(super) struct Host<'h> {
    pub(super) own: &'h [IpAddr],
    /// Where we listen, and who.
    pub(super) binds: &'h [(SocketAddr, String)],
    pub(super) route: &'h dyn Fn(SocketAddr, Origin<'_>) -> Route,
}

/// The latest answer for a name, or why there is none.
pub(super) type Answers<'a> = dyn Fn(&Arc<str>, AddressFamily) -> Result<Vec<IpAddr>, String> + 'a;

/// Every backend of a configuration that is given by name, by pool and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Vetting(BTreeMap<(Arc<str>, Arc<str>), Vetted>);

impl Vetting {
    /// Vets the answers for `config`; `self` is what was in force before.
    pub(super) fn next(&self, config: &Config, answers: &Answers<'_>, host: &Host<'_>) -> Self {
        let mut all = BTreeMap::new();
        for (pool, settings) in &config.pools {
            for (name, backend) in &settings.backends {
                let BackendAddress::Name { host: of, port } = &backend.address else {
                    continue;
                };
                let key = (Arc::clone(pool), Arc::clone(name));
                let asked = Vetted {
                    host: Arc::clone(of),
                    port: *port,
                    family: backend.family,
                    addresses: Vec::new(),
                    finding: None,
                };
                let answer = answers(of, backend.family);
                let before = self.0.get(&key).filter(|before| before.is_same(&asked));
                let vetted = asked.vet(answer, before, settings, host);
                all.insert(key, vetted);
            }
        }
        Self(all)
    }

    /// What a snapshot is built from.
    pub(super) fn resolved(&self) -> Resolved {
        let all = self.0.iter().map(|(named, vetted)| {
            let found = FoundAddresses {
                addresses: vetted.addresses.clone(),
                cause: vetted
                    .finding
                    .as_ref()
                    .map(|finding| Arc::clone(&finding.text)),
            };
            (named.clone(), found)
        });
        Resolved(all.collect())
    }

    /// One sentence for each backend that has other addresses than in `before`.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<String> {
        let changed = self.0.iter().filter_map(|(named, vetted)| {
            let old = before.0.get(named).filter(|old| old.is_same(vetted));
            let old = old.map_or(&[][..], |old| &old.addresses);
            (old != vetted.addresses).then(|| {
                format!(
                    "{}:{} has the addresses {} (before: {})",
                    vetted.host,
                    vetted.port,
                    listed(&vetted.addresses),
                    listed(old)
                )
            })
        });
        let mut sentences: Vec<_> = changed.collect();
        // Backends at one name say the same.
        sentences.sort_unstable();
        sentences.dedup();
        sentences
    }

    /// Logs what was not found in `before`, and what is gone.
    pub(super) fn tell_since(&self, before: &Self) {
        for ((pool, backend), vetted) in &self.0 {
            let old = before.0.get(&(Arc::clone(pool), Arc::clone(backend)));
            let old = old.and_then(|old| old.finding.as_ref());
            let host = &*vetted.host;
            let used = listed(&vetted.addresses);
            match &vetted.finding {
                new if new.as_ref() == old => {}
                None => tracing::info!(%pool, %backend, host, used, "discovery.all_used"),
                Some(Finding { text, is_warning }) if *is_warning => {
                    tracing::warn!(%pool, %backend, host, reason = %text, used, "discovery.left_out");
                }
                Some(Finding { text, .. }) => {
                    tracing::info!(%pool, %backend, host, reason = %text, used, "discovery.left_out");
                }
            }
        }
    }
}

impl Vetted {
    /// Whether both ask for the same name, port and family.
    fn is_same(&self, other: &Self) -> bool {
        (&self.host, self.port, self.family) == (&other.host, other.port, other.family)
    }

    fn vet(
        mut self,
        answer: Result<Vec<IpAddr>, String>,
        before: Option<&Self>,
        pool: &Pool,
        host: &Host<'_>,
    ) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // That the look-up failed was said when it did.
                self.finding = Some(Finding {
                    text: Arc::from(format!("{} has no address: {error}", self.host)),
                    is_warning: false,
                });
                return self;
            }
        };
        let judged = |addresses: &[IpAddr]| {
            let judge = |ip: &IpAddr| (*ip, host.judge(SocketAddr::new(*ip, self.port), pool));
            addresses.iter().map(judge).collect::<Vec<_>>()
        };
        let judged_answer = judged(&answer);
        let mut why = Why::default();
        let mut good = why.sort(&judged_answer);
        if good.is_empty() {
            let last = before.map_or(&[][..], |before| &before.addresses);
            good = Why::default().sort(&judged(last));
            if !good.is_empty() {
                why.texts.push("the last good answer is kept".to_owned());
            }
        }
        self.addresses = good;
        self.finding = why.finding();
        self
    }
}

/// The reasons against addresses, as they are collected.
#[derive(Debug, Default)]
struct Why {
    texts: Vec<String>,
    is_warning: bool,
}

impl Why {
    /// The addresses to use: the good ones, or if there are none, those without a route.
    fn sort(&mut self, judged: &[(IpAddr, Verdict)]) -> Vec<IpAddr> {
        for (_, verdict) in judged {
            match verdict {
                Verdict::Good => {}
                Verdict::NoRoute(text) => self.texts.push(text.clone()),
                Verdict::NoBackend(text) => {
                    self.texts.push(text.clone());
                    self.is_warning = true;
                }
            }
        }
        let of = |fits: fn(&Verdict) -> bool| {
            let fitting = judged.iter().filter(|(_, verdict)| fits(verdict));
            fitting.map(|(ip, _)| *ip).collect::<Vec<_>>()
        };
        let good = of(|verdict| matches!(verdict, Verdict::Good));
        if !good.is_empty() {
            return good;
        }
        self.is_warning |= !judged.is_empty();
        of(|verdict| matches!(verdict, Verdict::NoRoute(_)))
    }

    fn finding(self) -> Option<Finding> {
        (!self.texts.is_empty()).then(|| Finding {
            text: Arc::from(self.texts.join("; ")),
            is_warning: self.is_warning,
        })
    }
}

/// The verdict on one address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    NoRoute(String),
    NoBackend(String),
}

impl Host<'_> {
    fn judge(&self, address: SocketAddr, pool: &Pool) -> Verdict {
        let ip = address.ip().to_canonical();
        if ip.is_unspecified() {
            return Verdict::NoBackend(format!("{ip} is not an address of a host"));
        }
        if ip.is_multicast() {
            return Verdict::NoBackend(format!("{ip} is a multicast address"));
        }
        let mut binds = self.binds.iter();
        if let Some((bind, owner)) = binds.find(|(bind, _)| leads_back(address, *bind, self.own)) {
            return Verdict::NoBackend(format!(
                "{address} is this host, where {owner} listens on {bind}"
            ));
        }
        let broadcast = || Verdict::NoBackend(format!("{ip} is a broadcast address"));
        if ip == IpAddr::from([255, 255, 255, 255]) {
            return broadcast();
        }
        let fits = |source: &&IpAddr| source.is_ipv4() == ip.is_ipv4();
        let origin = Origin {
            source: pool.source.iter().find(fits).copied(),
            interface: pool.interface.as_deref(),
            freebind: pool.freebind,
        };
        match (self.route)(SocketAddr::new(ip, address.port()), origin) {
            Route::Found => Verdict::Good,
            Route::None => Verdict::NoRoute(format!("this host has no route to {ip}")),
            Route::Broadcast => broadcast(),
        }
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Backend, Listener};

    const HOST: &str = "mx.example";

    /// A configuration with one backend, at this name.
    fn config(bind: &str) -> Config {
        let mut config = Config::for_host("lb.example");
        let bind = vec![bind.parse().unwrap()];
        let listener = Listener::new(bind, "mx", "lb.example");
        config.listeners.insert(Arc::from("in"), listener);
        let mut pool = Pool::for_host("lb.example");
        let backend = Backend::at(BackendAddress::Name {
            host: Arc::from(HOST),
            port: 25,
        });
        pool.backends.insert(Arc::from("one"), backend);
        config.pools.insert(Arc::from("mx"), pool);
        config
    }

    /// One host, asked again and again.
    struct Bench {
        config: Config,
        vetting: Vetting,
        no_route: fn(&SocketAddr) -> bool,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                config: config("0.0.0.0:25"),
                vetting: Vetting::default(),
                no_route: |_| false,
            }
        }

        fn answer(&mut self, addresses: &[&str]) {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            self.ask(&|_, _| Ok(addresses.clone()));
        }

        fn ask(&mut self, answers: &Answers<'_>) {
            let no_route = self.no_route;
            let route = move |to: SocketAddr, _: Origin<'_>| match to {
                to if no_route(&to) => Route::None,
                to if to.to_string().starts_with("192.0.2.255") => Route::Broadcast,
                _ => Route::Found,
            };
            let host = Host {
                own: &["192.0.2.2".parse().unwrap()],
                binds: &super::super::own::binds(&self.config),
                route: &route,
            };
            self.vetting = self.vetting.next(&self.config, answers, &host);
        }

        fn found(&self) -> (String, String) {
            let resolved = self.vetting.resolved();
            let found = &resolved.0[&(Arc::from("mx"), Arc::from("one"))];
            let cause = found.cause.as_deref().unwrap_or_default();
            (listed(&found.addresses), cause.to_owned())
        }
    }

    #[test]
    fn rule_m5_bad_addresses_are_left_out_and_good_ones_used() {
        for (bad, cause) in [
            (
                "192.0.2.2",
                "192.0.2.2:25 is this host, where listener in listens on 0.0.0.0:25",
            ),
            (
                "127.0.0.1",
                "127.0.0.1:25 is this host, where listener in listens on 0.0.0.0:25",
            ),
            ("0.0.0.0", "0.0.0.0 is not an address of a host"),
            ("::", ":: is not an address of a host"),
            ("224.0.0.1", "224.0.0.1 is a multicast address"),
            ("ff02::1", "ff02::1 is a multicast address"),
            ("255.255.255.255", "255.255.255.255 is a broadcast address"),
            ("192.0.2.255", "192.0.2.255 is a broadcast address"),
        ] {
            let mut bench = Bench::new();
            bench.answer(&[bad]);
            assert_eq!(bench.found(), ("none".to_owned(), cause.to_owned()));
            bench.answer(&[bad, "192.0.2.9"]);
            assert_eq!(bench.found(), ("192.0.2.9".to_owned(), cause.to_owned()));
            bench.answer(&["192.0.2.9"]);
            assert_eq!(bench.found(), ("192.0.2.9".to_owned(), String::new()));
            bench.answer(&[bad]);
            let kept = format!("{cause}; the last good answer is kept");
            assert_eq!(bench.found(), ("192.0.2.9".to_owned(), kept));
        }
    }

    #[test]
    fn what_was_good_is_not_kept_for_another_name_nor_when_it_has_become_us() {
        let mut bench = Bench::new();
        bench.config = config("192.0.2.7:2525");
        bench.answer(&["192.0.2.2"]);
        assert_eq!(bench.found().0, "192.0.2.2");
        bench.config = config("0.0.0.0:25");
        bench.answer(&["0.0.0.0"]);
        assert_eq!(bench.found().0, "none");
        bench.answer(&["192.0.2.9"]);
        let pool = bench.config.pools.get_mut("mx").unwrap();
        pool.backends.get_mut("one").unwrap().family = AddressFamily::Ipv4;
        bench.answer(&["0.0.0.0"]);
        assert_eq!(bench.found().0, "none");
    }

    #[test]
    fn addresses_without_a_route_are_left_out_unless_all_are() {
        let mut bench = Bench::new();
        bench.no_route = SocketAddr::is_ipv6;
        bench.answer(&["192.0.2.9", "2001:db8::9"]);
        let none = "this host has no route to 2001:db8::9";
        assert_eq!(bench.found(), ("192.0.2.9".to_owned(), none.to_owned()));
        bench.answer(&["2001:db8::9"]);
        assert_eq!(bench.found(), ("2001:db8::9".to_owned(), none.to_owned()));
        bench.no_route = |_| false;
        bench.answer(&["192.0.2.9", "2001:db8::9"]);
        let both = "192.0.2.9, 2001:db8::9".to_owned();
        assert_eq!(bench.found(), (both, String::new()));
    }

    #[test]
    fn a_name_without_an_answer_says_why() {
        let mut bench = Bench::new();
        bench.ask(&|_, _| Err("no such name".to_owned()));
        let cause = "mx.example has no address: no such name".to_owned();
        assert_eq!(bench.found(), ("none".to_owned(), cause));
    }

    #[test]
    fn only_other_addresses_are_a_change() {
        let mut bench = Bench::new();
        bench.answer(&["192.0.2.9"]);
        let before = bench.vetting.clone();
        bench.answer(&["192.0.2.255"]);
        assert_eq!(bench.vetting.changes_since(&before), Vec::<String>::new());
        assert_ne!(bench.vetting, before, "what was left out is to be said");
        bench.answer(&["192.0.2.9", "2001:db8::9"]);
        let [change] = &bench.vetting.changes_since(&before)[..] else {
            panic!("one change");
        };
        assert!(change.contains("192.0.2.9, 2001:db8::9"), "{change}");
    }
}
