//! `posthouse run`: the program itself.

use std::time::Duration;

use clap::Parser;

use super::file::ConfigArg;
use super::{Exit, LogChoice, Start, StartPlan, complain, term};
use crate::config;
use crate::control::{Ended, ProcessSignals, Signals, StartError, own_addresses};

/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// `posthouse run`.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The configuration file.
    #[command(flatten)]
    config: ConfigArg,
}

const AFTER_HELP: &str = "\
Signals:
  HUP        reload the configuration; an invalid file changes nothing
  TERM, INT  stop accepting, let sessions end, at most shutdown_timeout; a second one ends at once
  QUIT       the same, but another QUIT changes nothing
  others     USR1, USR2, ALRM and the like leave a line in the log and change nothing

Exit codes:
  0  ended by a signal, every session had ended by itself
  1  the configuration has mistakes
  2  wrong usage, or this machine does not let it start (port in use, no permission)
  3  ended by a signal, sessions were cut at the deadline
  4  a fault of Posthouse itself";

pub(super) fn run(args: &Args, start: Start) -> Exit {
    let paint = term::Paint::for_stderr();
    // First of all: from now on no signal but KILL ends the process by accident.
    let signals = match ProcessSignals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&anyhow::Error::new(error).context("cannot catch signals"));
            return Exit::CannotStart;
        }
    };
    let file = args.config.file();
    let loaded = match config::load_on(&file.path, &own_addresses()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            eprint!(
                "{}",
                mistakes.render_within(paint.for_config(), term::columns_of_stderr())
            );
            if let Some(hint) = file.hint() {
                eprintln!("{hint}");
            }
            return Exit::Mistakes;
        }
    };
    if !loaded.warnings.is_empty() {
        eprint!(
            "{}",
            loaded
                .warnings
                .render_within(paint.for_config(), term::columns_of_stderr())
        );
    }
    let plan = StartPlan {
        config: loaded.config,
        config_path: Some(file.path),
        signals: Signals::Handled(signals),
        log: LogChoice::AsConfigured,
    };
    match start(plan) {
        Ok(running) => {
            let telemetry = running.handle().shared().telemetry.clone();
            let ended = running.wait();
            telemetry.flush(LAST_LINES);
            how_it_ended(ended)
        }
        Err(StartError::Ended(_)) => Exit::Done,
        Err(error) => {
            let exit = Exit::of_start(&error);
            complain(&error.into());
            exit
        }
    }
}

fn how_it_ended(ended: Ended) -> Exit {
    match ended {
        Ended::Clean => Exit::Done,
        Ended::Cut { .. } => Exit::Cut,
        Ended::Failed => Exit::Fault,
    }
}
