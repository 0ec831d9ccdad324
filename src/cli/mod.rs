//! The command line: what was typed, what is meant, and how the process ends.
//!
//! Two stages: clap gives what was typed ([`Typed`]); each command's module turns its arguments
//! into what is meant and does it. Errors are printed here, once, with their whole chain, and end in
//! a documented exit code. Nothing below this layer prints.

mod address;
mod exit;
mod papers;
mod signals;
mod sink;
mod term;
mod version;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub use exit::Exit;

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
    subcommand_required = true,
    disable_help_subcommand = true
)]
pub struct Typed {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be a small test MTA with scripted faults
    Sink(sink::Args),
    /// Print completions for a shell
    Completions(papers::CompletionsArgs),
    /// Print the manual page (read it with: posthouse man | man -l -)
    Man(papers::NoArgs),
}

const LONG_ABOUT: &str = "\
Posthouse stands in front of a fleet of mail servers. It reads a backend's greeting before the \
client sees anything: a backend that refuses, resets, stays silent or greets badly is replaced, \
and the client never knows. After a good greeting it passes octets unchanged.";

const EXAMPLES: &str = "\
Exit codes (each command's --help has its own list):
  0  done, all is well
  1  a mistake in the configuration, or a finding
  2  wrong usage, or this machine does not let it start (port, file, permission)
  3  run: sessions were cut when the shutdown deadline came
  4  a fault of Posthouse itself";

/// Reads arguments, does what is meant, and says how the process ends.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let typed = match Typed::try_parse_from(&arguments) {
        Ok(typed) => typed,
        Err(error) => return usage(&error, &arguments),
    };
    match typed.command {
        Command::Sink(args) => sink::run(&args),
        Command::Completions(args) => papers::completions(&args),
        Command::Man(_) => papers::man(),
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

/// Prints an error with all its causes.
fn complain(error: &anyhow::Error) {
    let paint = term::Paint::for_stderr();
    eprintln!("{} {error:#}", paint.bad("error:"));
}
