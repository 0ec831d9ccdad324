//! Papers: the reference configuration, completions, the manual page. All to standard output.

use std::io::{self, Write};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Exit, Typed};
use crate::config;
use crate::types::in_words;

/// The exit codes of all commands here.
const EXIT_CODES: &str = "\
Exit codes:
  0  printed
  2  wrong usage, or standard output cannot be written";

/// Nothing to be typed.
#[derive(Debug, Parser)]
#[command(after_help = EXIT_CODES)]
pub(super) struct NoArgs {}

/// `posthouse completions`.
#[derive(Debug, Parser)]
#[command(after_help = COMPLETIONS_HELP)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

const COMPLETIONS_HELP: &str = "\
Examples:
  posthouse completions bash > /etc/bash_completion.d/posthouse
  posthouse completions zsh > ~/.zfunc/_posthouse

Exit codes:
  0  printed
  2  wrong usage, or standard output cannot be written";

pub(super) fn config_reference() -> Exit {
    print(config::reference().as_bytes())
}

pub(super) fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Typed::command(), "posthouse", &mut script);
    print(&script)
}

pub(super) fn man() -> Exit {
    match manual_page() {
        Ok(page) => print(&page),
        Err(error) => failed(&error),
    }
}

/// One page: the program, then every command as a section of its own.
fn manual_page() -> io::Result<Vec<u8>> {
    let mut program = Typed::command();
    program.build();
    let mut page = Vec::new();
    let man = Man::new(program.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let commands = program.get_subcommands();
    for command in commands.filter(|command| command.get_name() != "help") {
        let name = command.get_name().to_uppercase();
        let about = command.get_about().map(ToString::to_string);
        writeln!(page, ".SH \"POSTHOUSE {name}\"")?;
        writeln!(page, "{}", escape(&about.unwrap_or_default()))?;
        let man = Man::new(command.clone());
        let mut section = Vec::new();
        man.render_synopsis_section(&mut section)?;
        man.render_options_section(&mut section)?;
        man.render_extra_section(&mut section)?;
        // A command's sections stand below the section of the command.
        for line in String::from_utf8_lossy(&section).lines() {
            let line = line
                .replacen(".SH ", ".SS ", 1)
                .replace("\"EXTRA\"", "NOTES");
            writeln!(page, "{}", line.replace(".SS EXTRA", ".SS NOTES"))?;
        }
    }
    man.render_extra_section(&mut page)?;
    Ok(page)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('-', "\\-")
}

fn print(octets: &[u8]) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(octets).and_then(|()| out.flush()) {
        Ok(()) => Exit::Done,
        // `posthouse man | head` is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> Exit {
    let error = in_words(error);
    eprintln!("error: cannot write to standard output: {error}");
    Exit::CannotStart
}
