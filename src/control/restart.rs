//! Keys that a reload changed and that wait for a restart, for as long as they wait.
//!
//! A reload says them once; the status page says them until the process is started anew or the file
//! is changed back to what runs. For each key the configuration is kept that it still runs by.

use std::sync::Arc;

use crate::config::{self, Config};

/// What waits for a restart.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<(String, Arc<Config>)>);

impl Waiting {
    /// A reload from `old` to `new` took effect, and changed these keys without effect.
    pub(super) fn note(&mut self, old: &Arc<Config>, changed: &[String]) {
        for key in changed.iter().map(|change| key(change)) {
            if !self.0.iter().any(|(waits, _)| waits == key) {
                self.0.push((key.to_owned(), Arc::clone(old)));
            }
        }
    }

    /// What differs between what runs and `new`, one sentence for each key; the rest is forgotten.
    pub(super) fn sentences(&mut self, new: &Config) -> Vec<String> {
        let mut sentences = Vec::new();
        self.0.retain(|(waits, runs)| {
            let before = sentences.len();
            let changes = config::diff(runs, new).restart;
            sentences.extend(changes.into_iter().filter(|change| key(change) == waits));
            sentences.len() > before
        });
        sentences
    }
}

/// What a change is about: everything about the status endpoint is one thing, because its table may
/// come and go.
fn key(change: &str) -> &str {
    if change.contains("[admin]") || change.starts_with("admin.") {
        return "admin";
    }
    change.split_once(": ").map_or(change, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::model::{Admin, AdminBind};

    fn config(workers: u8, admin: Option<u16>) -> Arc<Config> {
        let mut config = Config::for_host("mx.example");
        config.workers = Some(workers);
        config.admin = admin.map(|port| Admin {
            bind: vec![AdminBind::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))],
            token_file: None,
            hosts: Vec::new(),
        });
        Arc::new(config)
    }

    /// What waits after these configurations came into force one after the other.
    fn after(configs: &[Arc<Config>]) -> Vec<String> {
        let mut waiting = Waiting::default();
        let mut sentences = Vec::new();
        for pair in configs.windows(2) {
            waiting.note(&pair[0], &config::diff(&pair[0], &pair[1]).restart);
            sentences = waiting.sentences(&pair[1]);
        }
        sentences
    }

    #[test]
    fn a_key_waits_until_the_file_says_again_what_runs() {
        let [one, two, three] = [1, 2, 3].map(|workers| config(workers, None));
        let all = |configs: &[&Arc<Config>]| -> Vec<_> {
            configs.iter().map(|config| Arc::clone(config)).collect()
        };
        assert_eq!(after(&all(&[&one, &two])), ["workers: 1 → 2"]);
        assert_eq!(after(&all(&[&one, &two, &two])), ["workers: 1 → 2"]);
        assert_eq!(after(&all(&[&one, &two, &three])), ["workers: 1 → 3"]);
        assert_eq!(after(&all(&[&one, &two, &one])), Vec::<String>::new());
    }

    #[test]
    fn the_status_endpoint_is_one_thing() {
        let none = config(1, None);
        let [here, there] = [1, 2].map(|port| config(1, Some(port)));
        let added = after(&[Arc::clone(&none), here, Arc::clone(&there)]);
        assert_eq!(added, ["the table [admin] was added"]);
        assert_eq!(
            after(&[Arc::clone(&none), there, none]),
            Vec::<String>::new()
        );
    }
}
