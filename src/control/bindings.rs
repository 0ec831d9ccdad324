//! Which addresses are bound for which listener, and what a new configuration changes of that.
//!
//! An address that stays is never touched: its sockets live as long as the process, and what they
//! lead to changes with the snapshot. So a reload cannot lose a connection in an accept queue.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::Config;
use crate::net::listen::{BindError, BoundGroup, ListenAddress, OwnSockets};
use crate::snapshot::Snapshot;
use crate::worker::{Command, Worker};

/// An address of a listener, as configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    listener: Arc<str>,
    address: SocketAddr,
}

/// A bound address.
#[derive(Clone, Debug)]
struct Held {
    /// The stable index of its listener.
    index: usize,
    /// Where it listens, with the port the kernel chose.
    local: SocketAddr,
}

/// What is bound now.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    held: BTreeMap<Place, Held>,
    own: OwnSockets,
}

/// Groups that are bound for a new configuration and do not listen yet.
#[derive(Debug)]
pub(super) struct Prepared {
    groups: Vec<(Place, BoundGroup)>,
}

/// Groups that listen but that no worker has yet.
#[derive(Debug)]
pub(super) struct Listening {
    groups: Vec<(Place, SocketAddr, Vec<TcpListener>)>,
    own: OwnSockets,
}

impl Bindings {
    /// Binds what `config` wants and we do not have. Blocking: it reads `/proc` on failure.
    ///
    /// # Errors
    /// Every address that cannot be bound. Nothing stays bound and nothing has listened.
    pub(super) fn prepare(
        &self,
        config: &Config,
        workers: usize,
    ) -> Result<Prepared, Vec<BindError>> {
        let mut groups = Vec::new();
        let mut errors = Vec::new();
        for (place, wanted) in wanted(config) {
            if self.held.contains_key(&place) || self.moving(&place, config).is_some() {
                continue;
            }
            match BoundGroup::bind(&wanted, workers, &self.own) {
                Ok(group) => groups.push((place, group)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Prepared { groups })
        } else {
            Err(errors)
        }
    }

    /// Gives the new sockets to the workers, says which lead to another listener now, and takes
    /// away what `snapshot` no longer names.
    pub(super) fn apply(&mut self, listening: Listening, snapshot: &Snapshot, workers: &[Worker]) {
        self.lead(snapshot, workers);
        self.add(listening, snapshot, workers);
        self.remove(snapshot, workers);
    }

    /// The place whose sockets `config` gives to `place`: the same address, which its listener no
    /// longer names. Closing them would lose the connections in their queues.
    fn moving(&self, place: &Place, config: &Config) -> Option<Place> {
        let (address, listeners) = (place.address, &config.listeners);
        let names = |name: &Arc<str>| {
            let listener = listeners.get(name);
            listener.is_some_and(|listener| listener.bind.contains(&address))
        };
        let free = |held: &&Place| held.address == address && !names(&held.listener);
        self.held
            .keys()
            .filter(|_| address.port() != 0)
            .find(free)
            .cloned()
    }

    fn lead(&mut self, snapshot: &Snapshot, workers: &[Worker]) {
        for (place, _) in wanted(&snapshot.config) {
            if self.held.contains_key(&place) {
                continue;
            }
            let Some(from) = self.moving(&place, &snapshot.config) else {
                continue;
            };
            let (Some(to), Some(held)) = (index(snapshot, &place), self.held.remove(&from)) else {
                continue;
            };
            for worker in workers {
                worker.send(Command::Move {
                    local: held.local,
                    from: held.index,
                    to,
                });
            }
            self.held.insert(place, Held { index: to, ..held });
        }
    }

    fn add(&mut self, listening: Listening, snapshot: &Snapshot, workers: &[Worker]) {
        self.own = listening.own;
        for (place, local, sockets) in listening.groups {
            let Some(index) = index(snapshot, &place) else {
                continue;
            };
            let Some(view) = snapshot.listener(index) else {
                continue;
            };
            for (worker, socket) in workers.iter().zip(sockets) {
                worker.send(Command::Bind {
                    view: Arc::clone(view),
                    hostname: Arc::clone(&snapshot.config.hostname),
                    socket,
                });
            }
            self.held.insert(place, Held { index, local });
        }
    }

    fn remove(&mut self, snapshot: &Snapshot, workers: &[Worker]) {
        let named: BTreeMap<Place, ListenAddress> = wanted(&snapshot.config).collect();
        let gone = self
            .held
            .extract_if(.., |place, _| !named.contains_key(place));
        let touched: BTreeMap<usize, Arc<str>> = gone
            .map(|(place, held)| (held.index, place.listener))
            .collect();
        for (listener, name) in touched {
            let keep: Vec<SocketAddr> = self.of(&name).map(|held| held.local).collect();
            for worker in workers {
                worker.send(Command::Unbind {
                    listener,
                    keep: keep.clone(),
                });
            }
        }
    }

    /// Where each listener listens.
    pub(super) fn listening(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.held
            .iter()
            .map(|(place, held)| (Arc::clone(&place.listener), held.local))
            .collect()
    }

    fn of<'a>(&'a self, listener: &'a str) -> impl Iterator<Item = &'a Held> {
        self.held
            .iter()
            .filter(move |(place, _)| &*place.listener == listener)
            .map(|(_, held)| held)
    }
}

impl Prepared {
    /// Begins to listen everywhere.
    ///
    /// # Errors
    /// The first address where another process was faster; then nothing listens.
    pub(super) fn listen(self, bindings: &Bindings) -> Result<Listening, BindError> {
        let mut own = bindings.own.clone();
        let mut groups = Vec::with_capacity(self.groups.len());
        for (place, group) in self.groups {
            own.add(&group);
            let local = group.address();
            groups.push((place, local, group.listen()?));
        }
        Ok(Listening { groups, own })
    }
}

/// The stable index of the listener of a place.
fn index(snapshot: &Snapshot, place: &Place) -> Option<usize> {
    let mut listeners = snapshot.listeners();
    let view = listeners.find(|listener| listener.name == place.listener)?;
    Some(view.state.index)
}

fn wanted(config: &Config) -> impl Iterator<Item = (Place, ListenAddress)> {
    config.listeners.iter().flat_map(|(name, listener)| {
        listener.bind.iter().map(|address| {
            let place = Place {
                listener: Arc::clone(name),
                address: *address,
            };
            let wanted = ListenAddress {
                address: *address,
                backlog: listener.backlog,
                freebind: listener.freebind,
                interface: listener.interface.clone(),
            };
            (place, wanted)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::config::model::Listener;

    fn config(listeners: &[(&str, &[SocketAddr])]) -> Config {
        let mut config = Config::for_host("mx.example");
        for (name, bind) in listeners {
            let listener = Listener::new(bind.to_vec(), "mx", "mx.example");
            config.listeners.insert(Arc::from(*name), listener);
        }
        config
    }

    fn free_address() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[test]
    fn one_bad_address_leaves_nothing_listening() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (good, bad) = (free_address(), taken.local_addr().unwrap());
        let config = config(&[("a", &[good]), ("b", &[bad])]);
        let errors = Bindings::default().prepare(&config, 2).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains(&bad.to_string()));
        assert!(TcpStream::connect(good).is_err());
    }

    #[test]
    fn every_address_that_cannot_be_bound_is_reported() {
        let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = taken.each_ref().map(|t| t.local_addr().unwrap());
        let config = config(&[("a", &addresses)]);
        let errors = Bindings::default().prepare(&config, 1).unwrap_err();
        assert_eq!(errors.len(), 2);
    }
}
