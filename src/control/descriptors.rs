//! File descriptors: raise the limit, and how many sessions fit under it.
//!
//! A session takes two descriptors, one for each side. What is not for sessions is set aside first,
//! so that probes, the status endpoint and reloads still work when sessions have taken all of theirs
//! and a crowd is being refused.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::config::model::{Listener, Mode};
use crate::session::{ClosingBounds, KEPT_MAX};

/// Descriptors of one session: its client and its backend.
const PER_SESSION: u64 = 2;
/// Standard streams, epoll and event descriptors, the log, the resolver, files being read.
const RESERVE_BASE: u64 = 64;
/// For each worker: its epoll and event descriptors, and those of connections that are accepted and
/// not yet judged.
const RESERVE_PER_WORKER: u64 = 24;
/// Pooled pipes for splice(2), two descriptors each: of one worker, and of all together.
const RESERVE_PIPES: (u64, u64) = (64, 200);
/// Connections to one address of the status endpoint at once; for one more a silent one gives way.
pub const ADMIN_CONNECTIONS_MAX: usize = 128;
/// Each address of the status endpoint: its connections, one that is just accepted, and files that
/// are read for it.
const RESERVE_ADMIN: u64 = ADMIN_CONNECTIONS_MAX as u64 + 1 + 15;
/// Fewer sessions than this are no service.
const SESSIONS_MIN: u64 = 16;
/// More sessions than this are not promised, whatever the descriptor limit.
const SESSIONS_MAX: u64 = 1_000_000;

/// A configuration that cannot fit under the descriptor limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// `max_sessions` asks for more than there is.
    #[error(
        "max_sessions = {wanted} needs {needed} file descriptors ({reserved} of them for listeners, \
         probes, refused connections and the rest) and the limit is {limit}: raise the limit \
         (LimitNOFILE={needed} under systemd, `ulimit -n {needed}` in a shell) or set max_sessions \
         to at most {possible}"
    )]
    TooManySessions {
        /// `max_sessions`.
        wanted: u64,
        /// Descriptors that it needs.
        needed: u64,
        /// Of these, not for sessions.
        reserved: u64,
        /// The limit in force.
        limit: u64,
        /// What would fit.
        possible: u64,
    },
    /// Hardly anything is left for sessions.
    #[error(
        "the limit of {limit} file descriptors leaves room for {possible} sessions ({reserved} are \
         for listeners, probes, refused connections and the rest): raise it (LimitNOFILE={} under \
         systemd, `ulimit -n` in a shell)", .reserved + 65_536
    )]
    NoRoom {
        /// The limit in force.
        limit: u64,
        /// Not for sessions.
        reserved: u64,
        /// What would fit.
        possible: u64,
    },
}

/// Raises the soft limit to the hard one; the limit in force afterwards.
///
/// # Errors
/// The kernel does not tell its limits.
pub(super) fn raise() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        return Ok(hard);
    }
    Ok(soft)
}

/// The most sessions at once under `limit` descriptors, with this configuration.
///
/// # Errors
/// [`DescriptorError`] if `max_sessions` does not fit, or nothing does.
pub(super) fn session_limit(
    config: &Config,
    workers: usize,
    probes_max: usize,
    limit: u64,
) -> Result<u32, DescriptorError> {
    let reserved = reserve(config, workers, probes_max, limit);
    let possible = (limit.saturating_sub(reserved) / PER_SESSION).min(SESSIONS_MAX);
    let chosen = match config.max_sessions.map(u64::from) {
        Some(wanted) if wanted > possible => {
            let (reserved, needed) = needed(config, workers, probes_max, wanted);
            return Err(DescriptorError::TooManySessions {
                wanted,
                needed,
                reserved,
                limit,
                possible,
            });
        }
        Some(wanted) => wanted,
        None if possible < SESSIONS_MIN => {
            return Err(DescriptorError::NoRoom {
                limit,
                reserved,
                possible,
            });
        }
        None => possible,
    };
    Ok(u32::try_from(chosen).expect("at most a million"))
}

/// What is set aside where `wanted` sessions fit, and the smallest limit under which they do.
fn needed(config: &Config, workers: usize, probes_max: usize, wanted: u64) -> (u64, u64) {
    let mut limit = wanted * PER_SESSION;
    // A higher limit sets more aside, for one more descriptor in some dozens: this soon comes to rest.
    loop {
        let reserved = reserve(config, workers, probes_max, limit);
        let needed = reserved + wanted * PER_SESSION;
        if needed <= limit {
            return (reserved, limit);
        }
        limit = needed;
    }
}

fn reserve(config: &Config, workers: usize, probes_max: usize, limit: u64) -> u64 {
    let closing = u64::from(ClosingBounds::of(limit, workers).total());
    let workers = workers as u64;
    let addresses: u64 = config.listeners.values().map(|l| l.bind.len() as u64).sum();
    let backends: u64 = config
        .pools
        .values()
        .filter(|pool| pool.health.probe)
        .map(|pool| pool.backends.len() as u64)
        .sum();
    let pipes = if config.splice {
        2 * (RESERVE_PIPES.0 * workers).min(RESERVE_PIPES.1)
    } else {
        0
    };
    let doors = config.admin.iter().map(|admin| admin.bind.len() as u64);
    let doors: u64 = doors.sum();
    let has_mail = |listener: &Listener| listener.mode == Mode::Smtp;
    let kept = if config.listeners.values().any(has_mail) {
        u64::from(KEPT_MAX)
    } else {
        0
    };
    RESERVE_BASE
        + kept
        + (RESERVE_PER_WORKER + closing) * workers
        + addresses * workers
        + backends.min(probes_max as u64)
        + pipes
        + RESERVE_ADMIN * doors.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_sessions: Option<u32>) -> Config {
        let mut config = Config::for_host("mx.example");
        config.max_sessions = max_sessions;
        config
    }

    #[test]
    fn without_max_sessions_the_limit_decides() {
        let sessions = session_limit(&config(None), 2, 256, 65_536).unwrap();
        let reserved = reserve(&config(None), 2, 256, 65_536);
        assert_eq!(u64::from(sessions), (65_536 - reserved) / 2);
    }

    #[test]
    fn a_max_sessions_that_cannot_fit_is_refused_with_numbers_and_remedy() {
        let error = session_limit(&config(Some(50_000)), 2, 256, 4096).unwrap_err();
        let DescriptorError::TooManySessions {
            needed, possible, ..
        } = error
        else {
            panic!("{error}");
        };
        let text = error.to_string();
        assert!(text.contains(&format!("LimitNOFILE={needed}")), "{text}");
        // The remedy is true: what it names fits, and one more does not.
        let fits = u32::try_from(possible).unwrap();
        assert_eq!(
            session_limit(&config(Some(fits)), 2, 256, 4096),
            Ok(fits),
            "{text}"
        );
        assert!(session_limit(&config(Some(fits + 1)), 2, 256, 4096).is_err());
        assert_eq!(
            session_limit(&config(Some(50_000)), 2, 256, needed),
            Ok(50_000)
        );
    }

    #[test]
    fn a_tiny_limit_is_refused_rather_than_served_badly() {
        assert!(matches!(
            session_limit(&config(None), 2, 256, 256),
            Err(DescriptorError::NoRoom { .. })
        ));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((limit, soft), (hard, hard));
    }
}
