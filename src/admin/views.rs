//! What `GET /status` says: the JSON of the status page, apart from the model it is made of.
//!
//! Documented and stable: fields are added, never renamed or given another meaning. Durations and
//! moments name their unit. The same structs read the JSON back in `posthouse status`; readers
//! ignore fields they do not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The whole answer of `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// Our name in replies.
    pub hostname: String,
    /// The process id.
    pub pid: u32,
    /// `serving` or `draining`.
    pub phase: String,
    /// Whether it should be sent mail, as `GET /readyz` says.
    pub ready: bool,
    /// Why not, or what is wrong although it is ready.
    pub reasons: Vec<String>,
    /// When it started, in seconds since 1970.
    pub started_at: u64,
    /// How long it has been running.
    pub uptime_seconds: f64,
    /// The generation of the configuration in force; the first is 1.
    pub generation: u64,
    /// The last reload that was asked for, if any.
    pub last_reload: Option<Reload>,
    /// Changes of the configuration that take effect only after a restart, one sentence each.
    #[serde(default)]
    pub restart_needed: Vec<String>,
    /// Amounts of the whole process and their limits.
    pub limits: Limits,
    /// Listeners by name.
    pub listeners: Vec<Listener>,
    /// Pools by name.
    pub pools: Vec<Pool>,
    /// Backends that no configuration names any more and that still have sessions.
    pub leaving: Vec<Leaving>,
    /// Data threads.
    pub workers: Vec<Worker>,
    /// What the log could not write.
    pub log: Log,
}

/// What a reload did; also the answer of `POST /reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Whether it took effect.
    pub ok: bool,
    /// The generation in force afterwards.
    pub generation: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// What asked: `signal`, `http`, `watch` or `discovery`.
    pub trigger: String,
    /// Every mistake; empty if `ok`.
    pub mistakes: Vec<String>,
    /// What changed, and what needs a restart.
    pub changes: Vec<String>,
}

/// Amounts of the whole process and their limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Sessions now.
    pub sessions: u64,
    /// The most there may be.
    pub sessions_max: u64,
    /// Open descriptors, if they could be counted.
    pub descriptors: Option<u64>,
    /// The descriptor limit.
    pub descriptors_max: u64,
    /// Resident memory, if known.
    pub resident_bytes: Option<u64>,
    /// What copies of messages for replays take now.
    #[serde(default)]
    pub replay_bytes: Option<u64>,
    /// The most that they may take.
    #[serde(default)]
    pub replay_bytes_max: Option<u64>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The name.
    pub name: String,
    /// Its addresses.
    pub bind: Vec<String>,
    /// `passthrough` or `smtp`.
    pub mode: String,
    /// The pool it leads to.
    pub pool: String,
    /// Sessions now.
    pub sessions: u64,
    /// The most there may be; 0 is no limit of its own.
    pub sessions_max: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Ended sessions by outcome; outcomes that never happened are absent.
    pub outcomes: BTreeMap<String, u64>,
    /// Replies of our own that refused something (4yz and 5yz), by name; those that never happened
    /// are absent.
    #[serde(default)]
    pub refusals: BTreeMap<String, u64>,
    /// Bytes from clients to backends.
    pub bytes_to_backend: u64,
    /// Bytes from backends to clients.
    pub bytes_to_client: u64,
    /// Its mail; `null` in mode `passthrough`.
    #[serde(default)]
    pub mail: Option<ListenerMail>,
}

/// The mail of a listener since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerMail {
    /// Ended transactions by outcome; outcomes that never happened are absent.
    pub transactions: BTreeMap<String, u64>,
    /// Recipients that backends took.
    pub recipients_accepted: u64,
    /// Recipients that were refused, by a backend or by us.
    pub recipients_refused: u64,
    /// Bytes of the messages that backends took.
    pub message_bytes: u64,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// The name.
    pub name: String,
    /// The policy.
    pub balance: String,
    /// What backends are told of the client: `none`, `proxy-v1`, `proxy-v2`.
    pub identity: String,
    /// Backends that can take sessions.
    pub usable: u32,
    /// Whether no backend is healthy.
    pub all_down: bool,
    /// Clients in the queue.
    pub waiting: u32,
    /// Clients the queue holds.
    pub waiting_max: u32,
    /// Whether a standby tier serves and `POST /pools/P/failback` would end that.
    pub failback_pending: bool,
    /// Names of backends whose host name has no address that can be used (yet).
    pub unresolved: Vec<String>,
    /// Why, for each of them.
    #[serde(default)]
    pub unresolved_causes: Vec<String>,
    /// Tiers in order.
    pub tiers: Vec<Tier>,
    /// What its backends may be given in a time, and how much of it they were.
    #[serde(default)]
    pub quotas: Vec<Quota>,
}

/// One quota of one backend; all addresses of its name share it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// The name of the backend.
    pub backend: String,
    /// What is counted: `messages` or `recipients`.
    pub unit: String,
    /// How many it was given within the last period.
    pub used: u64,
    /// How many it may be given.
    pub limit: u64,
    /// The length of the period.
    pub period_seconds: u64,
}

/// A tier of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tier {
    /// The rank, from 1.
    pub tier: u8,
    /// Whether it serves.
    pub open: bool,
    /// Its backends, one for each address.
    pub backends: Vec<Backend>,
}

/// One address of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// The name.
    pub name: String,
    /// The address.
    pub address: String,
    /// One word: `drain` or `maint` if the operator set that, `full` where it is in service and its
    /// quota is used up, else as `health`.
    pub state: String,
    /// What the operator set: `ready`, `drain`, `maint`.
    pub admin: String,
    /// Who set that at run time; `null` where it is what the configuration says.
    #[serde(default)]
    pub admin_mark: Option<Mark>,
    /// What was found: `unknown`, `up`, `degraded`, `down`, `ejected`.
    pub health: String,
    /// Why it is in this state.
    pub cause: Cause,
    /// When this state began, in seconds since 1970.
    pub since: u64,
    /// How long this state has lasted.
    pub since_seconds: f64,
    /// How long an ejection still lasts at most.
    pub ejected_for_seconds: Option<f64>,
    /// Ejections that count towards the length of the next one.
    pub ejections: u32,
    /// Failed attempts since the last greeting.
    pub consecutive_strikes: u32,
    /// The weight of the configuration.
    pub weight_configured: u16,
    /// The operator's weight, if another one than the configured is set at run time.
    pub weight_override: Option<u16>,
    /// Who set it; `null` where it is what the configuration says.
    #[serde(default)]
    pub weight_mark: Option<Mark>,
    /// The weight as balancing sees it now (slow start).
    pub weight_effective: f64,
    /// Open connections.
    pub open: u32,
    /// The most there may be; 0 is no limit.
    pub open_max: u32,
    /// Sessions now.
    pub in_flight: u32,
    /// Counts since the start.
    pub totals: Totals,
    /// The usual time from dial to greeting.
    pub usual_greeting_ms: Option<f64>,
    /// The last probe.
    pub probe: Option<Probe>,
    /// Its mail; `null` where no listener in mode `smtp` leads to it.
    #[serde(default)]
    pub mail: Option<BackendMail>,
}

/// The mail of one address of a backend; all but `kept_idle` since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendMail {
    /// Kept connections that wait for a transaction.
    pub kept_idle: u64,
    /// Transactions that ended here.
    pub transactions: u64,
    /// Messages it took.
    pub accepted: u64,
    /// Messages it was sent whole and did not answer; each may have been taken.
    pub in_doubt: u64,
    /// Connections that were dialled for a transaction.
    pub dialled: u64,
    /// Kept connections that were given a transaction.
    pub reused: u64,
    /// Kept connections that were closed, by cause: `idle`, `age`, `messages`, `backend`,
    /// `drained`, `shed`; absent where it never happened.
    pub kept_closed: BTreeMap<String, u64>,
    /// Transactions moved to another backend, by cause: `lost`, `silent`, `closing`, `desync`,
    /// `unwell`, `quota`; absent where it never happened.
    pub moved: BTreeMap<String, u64>,
}

/// Who set something at run time, and when; while the configuration says something else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// An address, or `uid` and a number.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// How long ago.
    pub seconds: f64,
}

/// Why a backend is in its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// All of it in a few words, for people.
    #[serde(default)]
    pub words: String,
    /// `probe`, `session`, `operator`, `timer`, `reload` or `start`; `quota` of the state `full`.
    pub origin: String,
    /// The step that failed.
    pub stage: Option<String>,
    /// How it failed.
    pub kind: Option<String>,
    /// The reply code.
    pub code: Option<u16>,
    /// The reply's text or the error.
    pub text: Option<String>,
    /// How long the step took.
    pub duration_ms: Option<f64>,
    /// Who, where it was an operator.
    pub who: Option<String>,
}

/// Counts of a backend since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Dials for sessions.
    pub attempts: u64,
    /// Sessions it greeted.
    pub sessions: u64,
    /// Failed attempts that were its fault.
    pub strikes: u64,
    /// Dials because another backend was slow.
    pub hedges: u64,
    /// Bytes from clients.
    pub bytes_to_backend: u64,
    /// Bytes to clients.
    pub bytes_to_client: u64,
}

/// The last probe of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Whether it was good.
    pub ok: bool,
    /// The last step it reached.
    pub stage: String,
    /// How it failed.
    pub kind: Option<String>,
    /// The reply code that decided.
    pub code: Option<u16>,
    /// The reply's text or the error.
    pub text: Option<String>,
    /// How long ago it ended.
    pub age_seconds: f64,
    /// How long it took.
    pub duration_ms: f64,
    /// From connect to the greeting.
    pub greeting_ms: Option<f64>,
    /// It takes mail but says that it is full.
    pub full: bool,
    /// EHLO keywords with their parameters.
    pub keywords: Vec<String>,
    /// Days until its certificate ends, where TLS was reached.
    pub certificate_days: Option<i64>,
}

/// A backend that no configuration names any more and that still has sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The pool it was in.
    pub pool: String,
    /// The name it had.
    pub name: String,
    /// The address.
    pub address: String,
    /// Open connections.
    pub open: u32,
}

/// A data thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// The index, from 0.
    pub worker: u32,
    /// Sessions now.
    pub sessions: u64,
    /// Since it last showed that it is alive.
    pub heartbeat_age_seconds: f64,
    /// Turns of its loop over 20 ms.
    pub loop_stalls: u64,
    /// Sessions ended by a fault of ours.
    pub panics: u64,
    /// accept(2) failures for want of descriptors or memory.
    pub accept_failures: u64,
    /// Kept connections to backends that wait for a transaction.
    #[serde(default)]
    pub kept_idle: u64,
    /// Connections to backends that transactions hold now.
    #[serde(default)]
    pub leased: u64,
}

/// What the log could not write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Lines dropped because the writer was behind.
    pub dropped: u64,
    /// Lines left out by the storm limit.
    pub suppressed: u64,
}

/// The body of `PUT /pools/P/backends/B`: at least one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPut {
    /// `ready`, `drain` or `maint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// 1 to 1,000; `null` returns to the configured weight.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub weight: Option<Option<u16>>,
}

/// The answer of `PUT /pools/P/backends/B`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendChanged {
    /// The pool.
    pub pool: String,
    /// The backend with each of its addresses, as they are now.
    pub backends: Vec<Backend>,
}

/// The body of every refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
    /// What to do about it.
    pub remedy: String,
}

impl ListenerMail {
    /// How many transactions ended in one of these ways.
    pub fn transactions(&self, outcomes: &[&str]) -> u64 {
        let counts = outcomes
            .iter()
            .filter_map(|name| self.transactions.get(*name));
        counts.sum()
    }
}

impl Pool {
    /// Whether some backend has to do with mail transactions.
    pub fn has_mail(&self) -> bool {
        let mut backends = self.tiers.iter().flat_map(|tier| &tier.backends);
        backends.any(|backend| backend.mail.is_some())
    }
}

/// The origin of a cause that is a used-up quota.
pub const QUOTA_CAUSE: &str = "quota";

impl Backend {
    /// The state in a word or two, for people: `full (quota)`.
    pub fn state_words(&self) -> String {
        if self.cause.origin == QUOTA_CAUSE {
            format!("{} ({QUOTA_CAUSE})", self.state)
        } else {
            self.state.clone()
        }
    }
}

#[expect(
    clippy::option_option,
    reason = "absent and null mean different things"
)]
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<u16>>, D::Error> {
    Option::<u16>::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_weight_is_not_a_null_weight() {
        let put = |text: &str| serde_json::from_str::<BackendPut>(text);
        assert_eq!(put("{}").expect("valid").weight, None);
        assert_eq!(put(r#"{"weight":null}"#).expect("valid").weight, Some(None));
        assert_eq!(put(r#"{"weight":7}"#).expect("valid").weight, Some(Some(7)));
        assert!(put(r#"{"wieght":7}"#).is_err());
        assert!(put(r#"{"weight":70000}"#).is_err());
        let back = serde_json::to_string(&BackendPut {
            state: None,
            weight: Some(None),
        });
        assert_eq!(back.expect("plain"), r#"{"weight":null}"#);
    }
}
