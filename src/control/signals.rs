//! The signals of the process: what each means, and that none ends it by accident.
//!
//! Most signals end a process that does not catch them, and every mail session with it: SIGUSR1 of a
//! logrotate script, SIGALRM of a wrapper, SIGXFSZ when a log file is full. All of those are caught
//! here from the first moment of `posthouse run`, before the configuration is read. Four have a
//! meaning, the rest leaves a line in the log. Not caught are KILL, the job control of a terminal,
//! and those by which the kernel reports a fault of the program itself (SEGV, BUS, ILL, FPE, ABRT,
//! TRAP, SYS). The standard library ignores PIPE.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::libc;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The pause between two log lines of one signal: SIGXFSZ may be caused by that very line.
const NOTE_PAUSE: Duration = Duration::from_mins(1);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Read the configuration again.
    Reload,
    /// Drain; the second time end at once.
    End,
    /// Drain; another one changes nothing.
    Drain,
    /// Nothing; why not is said in the log.
    Nothing(&'static str),
}

const TIMERS: &str = "no timer of ours sends it";
const NO_MEANING: &str = "it has no meaning here";

/// Every signal that is caught, but for those of real time.
const CAUGHT: [(libc::c_int, &str, Meaning); 14] = [
    (libc::SIGHUP, "SIGHUP", Meaning::Reload),
    (libc::SIGTERM, "SIGTERM", Meaning::End),
    (libc::SIGINT, "SIGINT", Meaning::End),
    (libc::SIGQUIT, "SIGQUIT", Meaning::Drain),
    (
        libc::SIGUSR1,
        "SIGUSR1",
        Meaning::Nothing(
            "there is no log file to reopen: the program that reads the output rotates the log",
        ),
    ),
    (
        libc::SIGUSR2,
        "SIGUSR2",
        Meaning::Nothing("to reload the configuration send SIGHUP"),
    ),
    (libc::SIGALRM, "SIGALRM", Meaning::Nothing(TIMERS)),
    (libc::SIGVTALRM, "SIGVTALRM", Meaning::Nothing(TIMERS)),
    (libc::SIGPROF, "SIGPROF", Meaning::Nothing(TIMERS)),
    (libc::SIGIO, "SIGIO", Meaning::Nothing(NO_MEANING)),
    (libc::SIGPWR, "SIGPWR", Meaning::Nothing(NO_MEANING)),
    (libc::SIGSTKFLT, "SIGSTKFLT", Meaning::Nothing(NO_MEANING)),
    (
        libc::SIGXCPU,
        "SIGXCPU",
        Meaning::Nothing(
            "the limit of CPU time is reached and will end the process: raise LimitCPU",
        ),
    ),
    (
        libc::SIGXFSZ,
        "SIGXFSZ",
        Meaning::Nothing("a file may not grow any more: raise LimitFSIZE, or rotate the log"),
    ),
];

/// What the operator asks for by a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SignalOrder {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT, by its name.
    End(&'static str),
    /// SIGQUIT.
    Drain(&'static str),
}

/// Whether the process's signals are ours.
#[derive(Debug)]
pub enum Signals {
    /// As [`ProcessSignals`] says.
    Handled(ProcessSignals),
    /// They are somebody else's: tests, embedding.
    Ignored,
}

/// The signals of this process, caught.
#[derive(Debug)]
pub struct ProcessSignals {
    caught: Vec<Caught>,
    /// A reload that was asked for before anything could be reloaded.
    reload_waits: bool,
}

#[derive(Debug)]
struct Caught {
    signal: Signal,
    name: Name,
    meaning: Meaning,
    noted: Option<Instant>,
}

/// The name of a signal; those of real time have numbers.
#[derive(Clone, Copy, Debug)]
enum Name {
    Known(&'static str),
    RealTime(libc::c_int),
}

impl ProcessSignals {
    /// Catches them, for the rest of the process's life. What arrives before the control thread
    /// looks waits for it.
    ///
    /// Signals of real time that the machine keeps for itself (valgrind does) are left alone.
    ///
    /// # Errors
    /// The kernel refuses a handler for one of the others.
    pub fn catch() -> io::Result<Self> {
        // A handler and what it has caught outlive the runtime within which it was made.
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let _within = runtime.enter();
        let known = CAUGHT
            .into_iter()
            .map(|(number, name, meaning)| Caught::new(number, Name::Known(name), meaning));
        let mut caught = known.collect::<io::Result<Vec<_>>>()?;
        let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).filter_map(|number| {
            let name = Name::RealTime(number - libc::SIGRTMIN());
            Caught::new(number, name, Meaning::Nothing(NO_MEANING)).ok()
        });
        caught.extend(real_time);
        Ok(Self {
            caught,
            reload_waits: false,
        })
    }

    async fn next(&mut self) -> SignalOrder {
        if std::mem::take(&mut self.reload_waits) {
            return SignalOrder::Reload;
        }
        self.newest().await
    }

    async fn end(&mut self) -> &'static str {
        loop {
            match self.newest().await {
                SignalOrder::Reload => self.reload_waits = true,
                SignalOrder::End(name) | SignalOrder::Drain(name) => return name,
            }
        }
    }

    async fn newest(&mut self) -> SignalOrder {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<SignalOrder> {
        for caught in &mut self.caught {
            while caught.signal.poll_recv(context).is_ready() {
                if let Some(asked) = caught.asks() {
                    return Poll::Ready(asked);
                }
            }
        }
        Poll::Pending
    }
}

impl Signals {
    /// The next one that means something; the others are noted. Never, if they are not ours.
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> SignalOrder {
        match self {
            Self::Handled(signals) => signals.next().await,
            Self::Ignored => std::future::pending().await,
        }
    }

    /// The next one that asks for the end, by its name; a reload is kept for later. Cancel-safe.
    pub(super) async fn end(&mut self) -> &'static str {
        match self {
            Self::Handled(signals) => signals.end().await,
            Self::Ignored => std::future::pending().await,
        }
    }
}

impl Caught {
    fn new(number: libc::c_int, name: Name, meaning: Meaning) -> io::Result<Self> {
        Ok(Self {
            signal: signal(SignalKind::from_raw(number))?,
            name,
            meaning,
            noted: None,
        })
    }

    fn asks(&mut self) -> Option<SignalOrder> {
        let name = match self.name {
            Name::Known(name) => name,
            Name::RealTime(_) => "",
        };
        match self.meaning {
            Meaning::Reload => Some(SignalOrder::Reload),
            Meaning::End => Some(SignalOrder::End(name)),
            Meaning::Drain => Some(SignalOrder::Drain(name)),
            Meaning::Nothing(why) => {
                self.note(why);
                None
            }
        }
    }

    fn note(&mut self, why: &str) {
        let now = Instant::now();
        let is_again = |at: Instant| now.duration_since(at) < NOTE_PAUSE;
        if self.noted.is_some_and(is_again) {
            return;
        }
        self.noted = Some(now);
        ignored(&self.name, why);
    }
}

/// A signal that changes nothing leaves a line.
pub(super) fn ignored(name: &impl std::fmt::Display, why: &str) {
    tracing::info!(signal = %name, why, "signal.ignored");
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(name) => f.write_str(name),
            Self::RealTime(number) => write!(f, "SIGRTMIN+{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};
    use tokio::runtime::LocalOptions;

    use super::*;

    #[test]
    fn a_signal_before_anybody_looks_is_kept_and_a_reload_waits_for_the_start() {
        let mut signals = Signals::Handled(ProcessSignals::catch().unwrap());
        // All of these end a process that does not catch them.
        for signal in [Signal::USR1, Signal::XFSZ, Signal::HUP, Signal::TERM] {
            kill_process(getpid(), signal).unwrap();
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            assert_eq!(signals.end().await, "SIGTERM");
            assert_eq!(signals.next().await, SignalOrder::Reload);
            kill_process(getpid(), Signal::QUIT).unwrap();
            assert_eq!(signals.next().await, SignalOrder::Drain("SIGQUIT"));
        });
    }
}
