//! `posthouse check`: every mistake at once, and with `--live` what the backends say.

mod extensions;
mod live;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Serialize;

use super::file::ConfigArg;
use super::{Exit, complain, term};
use crate::config::model::Mode;
use crate::config::{self, Config, ConfigErrors, ListenChecks, Loaded, Mistake, Obstacle};
use crate::control::own_addresses;
use crate::net::listen::{self, Holder};

/// `posthouse check`.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The same as -c FILE
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The configuration file.
    #[command(flatten)]
    config: ConfigArg,
    /// Look at the file alone, not at what this machine would not let run do (token and state files,
    /// socket, ports in use): for a file that is meant for another machine
    #[arg(long, conflicts_with = "live")]
    file_only: bool,
    /// Dial every backend too: usable, greeting, PROXY, STARTTLS, certificate, relay, keywords;
    /// in smtp mode also what will be announced to clients, and who keeps more from being it
    #[arg(long)]
    live: bool,
    /// The foreign recipient that no backend should accept from here (asked with RCPT, then RSET)
    #[arg(long, value_name = "MAILBOX", default_value = "relay-test@example.com")]
    relay_recipient: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Nothing is changed and nothing listens. --live opens up to four connections to each backend and
never sends a message.

Exit codes:
  0  no mistakes (there may be warnings); with --live every backend can take mail
  1  mistakes; with --live also: a backend cannot take mail, or relays for anybody
  2  wrong usage, or the probes cannot be made here";

/// What `--json` prints; what backends say only with `--live`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    mistakes: &'a [Mistake],
    #[serde(skip_serializing_if = "Option::is_none")]
    backends: Option<Vec<live::Finding>>,
    /// Of listeners in smtp mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<Vec<extensions::Offer>>,
}

pub(super) fn run(args: &Args) -> Exit {
    let paint = term::Paint::for_stderr();
    let named = args.file.clone().or_else(|| args.config.config.clone());
    let file = ConfigArg { config: named }.file();
    let loaded = match load(args, &file.path) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            if args.json {
                print_json(false, &mistakes, None, None);
            } else {
                eprint!(
                    "{}",
                    mistakes.render_within(paint.for_config(), term::columns_of_stderr())
                );
                if let Some(hint) = file.hint() {
                    eprintln!("{hint}");
                }
            }
            return Exit::Mistakes;
        }
    };
    if !args.json && !loaded.warnings.is_empty() {
        eprint!(
            "{}",
            loaded
                .warnings
                .render_within(paint.for_config(), term::columns_of_stderr())
        );
    }
    if !args.json {
        term::say(&format!(
            "{}: {}\n",
            file.path.display(),
            summary(&loaded.config)
        ));
    }
    if !args.live {
        if args.json {
            print_json(true, &loaded.warnings, None, None);
        }
        return Exit::Done;
    }
    let findings = match live::check(&loaded.config, &args.relay_recipient) {
        Ok(findings) => findings,
        Err(error) => {
            complain(&error);
            return Exit::CannotStart;
        }
    };
    let good = findings.iter().all(live::Finding::is_good);
    let offers = extensions::offers(&loaded.config, &findings);
    if args.json {
        print_json(good, &loaded.warnings, Some(findings), Some(offers));
    } else {
        let paint = term::Paint::for_stdout();
        term::say("\n");
        term::say(&table::draw(&findings, paint));
        term::say(&extensions::draw(&offers, paint));
    }
    if good { Exit::Done } else { Exit::Mistakes }
}

fn load(args: &Args, path: &Path) -> Result<Loaded, ConfigErrors> {
    let own = own_addresses();
    if args.file_only {
        return config::load_on(path, &own);
    }
    let here = ListenChecks {
        holder: &holder,
        obstacle: &obstacle,
    };
    config::load_here(path, &own, &here)
}

/// Who listens on `address`, unless nobody does or it is a posthouse.
fn holder(address: SocketAddr) -> Option<String> {
    let holder = Holder::find(address);
    let is_ours = holder.name.as_deref() == Some("posthouse");
    (holder.uid.is_some() && !is_ours).then(|| holder.to_string())
}

/// What `run` would be refused there as this user; nothing is bound on the port.
fn obstacle(address: SocketAddr) -> Option<Obstacle> {
    if !listen::is_of_this_host(address) {
        return Some(Obstacle::NoSuchAddress);
    }
    (!listen::may_use_port(address.port())).then_some(Obstacle::Privilege)
}

fn print_json(
    ok: bool,
    mistakes: &ConfigErrors,
    backends: Option<Vec<live::Finding>>,
    extensions: Option<Vec<extensions::Offer>>,
) {
    let report = Report {
        ok,
        mistakes: mistakes.mistakes(),
        backends,
        extensions,
    };
    let text = serde_json::to_string_pretty(&report).expect("a report has only string keys");
    term::say(&(text + "\n"));
}

fn summary(config: &Config) -> String {
    let backends: usize = config.pools.values().map(|pool| pool.backends.len()).sum();
    let count = |n: usize, word: &str| match n {
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    };
    let listeners = config.listeners.values();
    let smtp = listeners.filter(|listener| listener.mode == Mode::Smtp);
    let modes = match smtp.count() {
        0 => String::new(),
        n if n == config.listeners.len() => " in mode \"smtp\"".to_owned(),
        n => format!(" ({n} in mode \"smtp\")"),
    };
    format!(
        "no mistakes: {}{modes}, {}, {}",
        count(config.listeners.len(), "listener"),
        count(config.pools.len(), "pool"),
        count(backends, "backend")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Listener;

    #[test]
    fn the_summary_says_how_many_listeners_end_smtp_themselves() {
        let mut config = Config::for_host("mx.example");
        for (name, mode, said) in [
            ("a", Mode::Smtp, "1 listener in mode \"smtp\","),
            ("b", Mode::Smtp, "2 listeners in mode \"smtp\","),
            ("c", Mode::Passthrough, "3 listeners (2 in mode \"smtp\"),"),
        ] {
            let mut listener = Listener::new(Vec::new(), "mx", "mx.example");
            listener.mode = mode;
            config.listeners.insert(name.into(), listener);
            let summary = summary(&config);
            assert!(summary.contains(said), "{summary}");
        }
        config.listeners.retain(|name, _| &**name == "c");
        assert_eq!(
            summary(&config),
            "no mistakes: 1 listener, 0 pools, 0 backends"
        );
    }
}
