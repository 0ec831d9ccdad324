//! The command line: what was typed, what is meant, and how the process ends.
//!
//! Two stages: clap gives what was typed ([`Typed`]); each command's module turns its arguments
//! into what is meant and does it. Errors are printed here, once, with their whole chain, and end in
//! a documented exit code. Nothing below this layer prints. How a balancer is put together is the
//! composition root's knowledge: it hands in a [`Start`].

mod address;
mod backend;
mod check;
mod demo;
mod endpoint;
mod exit;
mod file;
mod papers;
mod probe;
mod reload;
mod run;
mod signals;
mod sink;
mod status;
mod term;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub use exit::Exit;

use crate::config::Config;
use crate::control::{Running, Signals, StartError};
use crate::types::chain_in_words;

/// Starts a balancer; given by the composition root.
pub type Start = fn(StartPlan) -> Result<Running, StartError>;

/// What is to be started.
#[derive(Debug)]
pub struct StartPlan {
    /// The configuration.
    pub config: Config,
    /// The file that a reload reads; without it reloads are refused.
    pub config_path: Option<PathBuf>,
    /// Whether the process's signals are the balancer's.
    pub signals: Signals,
    /// Where its log goes.
    pub log: LogChoice,
}

/// Where the log of a balancer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogChoice {
    /// Where its configuration says.
    AsConfigured,
    /// Nowhere: the terminal is for something else.
    None,
}

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "posthouse",
    version = version::line(),
    about = "An SMTP-aware load balancer: no client ever meets a dead backend",
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub struct Typed {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance mail: the program itself
    Run(run::Args),
    /// Check a configuration and show every mistake at once; --live dials every backend
    Check(check::Args),
    /// Have one graded conversation with a mail server (a Nagios plugin)
    Probe(probe::Args),
    /// Show what the running process does
    #[command(after_help = STATUS_HELP)]
    Status(status::StatusArgs),
    /// Drain a backend of the running process, bring it back, set its weight
    #[command(after_help = BACKEND_HELP)]
    Backend(backend::BackendArgs),
    /// Let the running process read its configuration again
    #[command(after_help = RELOAD_HELP)]
    Reload(reload::ReloadArgs),
    /// Be a small test MTA with scripted faults
    Sink(sink::Args),
    /// See it all in a terminal: three backends, traffic, one that dies and comes back
    Demo(demo::Args),
    /// Print a commented configuration with every key, its default and why
    ConfigReference(papers::NoArgs),
    /// Print completions for a shell
    Completions(papers::CompletionsArgs),
    /// Print the manual page (read it with: posthouse man | man -l -)
    Man(papers::NoArgs),
    /// Print release and commit
    Version(papers::NoArgs),
}

const LONG_ABOUT: &str = "\
Posthouse stands in front of a fleet of mail servers. It reads a backend's greeting before the \
client sees anything: a backend that refuses, resets, stays silent or greets badly is replaced, \
and the client never knows. In mode \"passthrough\" it then passes octets unchanged; in mode \
\"smtp\" it speaks SMTP itself and places each message on a kept-alive connection: a backend that \
fails before it could have taken the message is replaced as well.";

const EXAMPLES: &str = "\
Examples:
  posthouse demo                               see it work, nothing to set up
  posthouse config-reference > posthouse.toml  begin a configuration
  posthouse check posthouse.toml --live        what is wrong with it, and with the backends
  posthouse run -c posthouse.toml              balance
  posthouse status -c posthouse.toml           what the process that runs with it does
  posthouse probe mx1.example:25               one conversation, graded

Environment:
  POSTHOUSE_CONFIG  the configuration file where -c FILE is not given; without either it is
                    /etc/posthouse/posthouse.toml
  POSTHOUSE_TOKEN   the token for changes over TCP; the Unix socket of [admin] needs none

Exit codes (each command's --help has its own list):
  0  done, all is well
  1  a mistake in the configuration, or a finding
  2  wrong usage, or this machine does not let it start (port, file, permission)
  3  run: sessions were cut when the shutdown deadline came
  4  a fault of Posthouse itself";

const STATUS_HELP: &str = "\
Exit codes:
  0  some pool can take mail
  1  none can
  2  wrong usage, or no answer from the running process";

const BACKEND_HELP: &str = "\
Examples:
  posthouse backend mx/mx1 drain      no new sessions; those it has go on
  posthouse backend mx/mx1 ready
  posthouse backend mx/mx1 weight 3

Exit codes:
  0  done
  2  wrong usage, no such backend, not allowed, or no answer from the running process";

const RELOAD_HELP: &str = "\
Exit codes:
  0  the new configuration is in force
  1  it has mistakes, which are shown; nothing changed
  2  wrong usage, not allowed, or no answer from the running process";

/// Reads arguments, does what is meant, and says how the process ends.
pub fn main(arguments: impl IntoIterator<Item = OsString>, start: Start) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let typed = match Typed::try_parse_from(&arguments) {
        Ok(typed) => typed,
        Err(error) => return usage(&error, &arguments),
    };
    match typed.command {
        Command::Run(args) => run::run(&args, start),
        Command::Check(args) => check::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Status(args) => asked(status::run(&args)),
        Command::Backend(args) => asked(backend::run(&args)),
        Command::Reload(args) => asked(reload::run(&args)),
        Command::Sink(args) => sink::run(&args),
        Command::Demo(args) => demo::run(&args, start),
        Command::ConfigReference(_) => papers::config_reference(),
        Command::Completions(args) => papers::completions(&args),
        Command::Man(_) => papers::man(),
        Command::Version(_) => version::run(),
    }
}

/// Help and version are answers; anything else is wrong usage, which a Nagios plugin reports as
/// UNKNOWN.
fn usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    // A closed pipe takes nothing; there is nobody left to tell.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ if arguments.get(1).is_some_and(|command| command == "probe") => Exit::Unknown,
        _ => Exit::CannotStart,
    }
}

/// How a command ends that asked the running process.
fn asked(answer: anyhow::Result<Exit>) -> Exit {
    answer.unwrap_or_else(|error| {
        complain(&error);
        Exit::CannotStart
    })
}

/// Prints an error with all its causes.
fn complain(error: &anyhow::Error) {
    let paint = term::Paint::for_stderr();
    eprintln!("{} {}", paint.bad("error:"), chain_in_words(error.as_ref()));
}
