//! Rule M5a where the file alone cannot tell: a backend at an address of this host, on a port where
//! we listen on every address.
//!
//! The host's addresses are read here and handed to the configuration's own check, which knows the
//! line of a mistake. A configuration that came by another way than a file is checked here; the
//! addresses of host names are checked when the names are looked up (`vetting`). An address on an
//! interface that is not asked for by name is missed if it comes later; the UNIQUE_ID of a PROXY header
//! finds such a loop at run time.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;

use crate::config::model::{AdminBind, BackendAddress};
use crate::config::{Config, leads_back};
use crate::types::in_words;

/// The addresses of this host's interfaces, sorted; none if they cannot be read.
pub fn own_addresses() -> Vec<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(error = &*in_words(&error.into()), "addresses.unknown");
            return Vec::new();
        }
    };
    let mut own: Vec<IpAddr> = interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
        })
        .collect();
    own.sort_unstable();
    own.dedup();
    own
}

/// Every backend of `config`, given by its address, that is one of its own listeners, in one sentence
/// with the remedy.
pub(super) fn backends_that_are_us(config: &Config, own: &[IpAddr]) -> Vec<String> {
    let binds = binds(config);
    let mut found = Vec::new();
    for (pool, settings) in &config.pools {
        for (name, backend) in &settings.backends {
            let BackendAddress::Literal(address) = backend.address else {
                continue;
            };
            let loops = binds.iter().find(|bind| leads_back(address, bind.0, own));
            if let Some((bind, owner)) = loops {
                found.push(format!(
                    "pools.{pool}.backends.{name}: {address} is this host, where {owner} listens \
                     on {bind}: sessions would go round for ever; give the address and port of \
                     the mail server itself, or bind the addresses that clients use"
                ));
            }
        }
    }
    found
}

/// Where we listen. A socket that is bound to an interface does not hear what this host says to
/// itself.
pub(super) fn binds(config: &Config) -> Vec<(SocketAddr, String)> {
    let listeners = config.listeners.iter().filter(|(_, listener)| {
        listener
            .interface
            .as_deref()
            .is_none_or(|name| name == "lo")
    });
    let mut binds: Vec<_> = listeners
        .flat_map(|(name, listener)| {
            let binds = listener.bind.iter();
            binds.map(move |bind| (*bind, format!("listener {name}")))
        })
        .collect();
    for bind in config.admin.iter().flat_map(|admin| &admin.bind) {
        if let AdminBind::Tcp(bind) = bind {
            binds.push((*bind, "the status endpoint".to_owned()));
        }
    }
    binds
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::model::{Backend, BackendAddress, Listener, Pool};

    fn config(bind: &str, backend: BackendAddress) -> Config {
        let mut config = Config::for_host("mx.example");
        let bind = vec![bind.parse().unwrap()];
        let listener = Listener::new(bind, "mx", "mx.example");
        config.listeners.insert(Arc::from("in"), listener);
        let mut pool = Pool::for_host("mx.example");
        pool.backends.insert(Arc::from("one"), Backend::at(backend));
        config.pools.insert(Arc::from("mx"), pool);
        config
    }

    #[test]
    fn rule_m5_this_host_s_addresses_are_known() {
        let own = own_addresses();
        assert!(own.contains(&IpAddr::from([127, 0, 0, 1])), "{own:?}");
    }

    #[test]
    fn rule_m5_an_address_that_leads_back_to_us_is_found_with_its_remedy() {
        let config = config(
            "0.0.0.0:25",
            BackendAddress::Literal("192.0.2.2:25".parse().unwrap()),
        );
        let found = |own: [u8; 4]| backends_that_are_us(&config, &[IpAddr::from(own)]);
        assert_eq!(found([192, 0, 2, 9]), Vec::<String>::new());
        let mistakes = found([192, 0, 2, 2]);
        assert_eq!(mistakes.len(), 1);
        for part in [
            "pools.mx.backends.one",
            "192.0.2.2:25",
            "0.0.0.0:25",
            "bind the addresses",
        ] {
            assert!(mistakes[0].contains(part), "{mistakes:?}");
        }
    }

    #[test]
    fn rule_m5_a_listener_behind_an_interface_does_not_hear_this_host() {
        let address = BackendAddress::Literal("192.0.2.2:25".parse().unwrap());
        let own = [IpAddr::from([192, 0, 2, 2])];
        let mut config = config("0.0.0.0:25", address);
        let found = |config: &Config| backends_that_are_us(config, &own);
        assert_eq!(found(&config).len(), 1);
        let listener = config.listeners.get_mut("in").unwrap();
        listener.interface = Some(Arc::from("eth0"));
        assert_eq!(found(&config).len(), 0);
    }
}
