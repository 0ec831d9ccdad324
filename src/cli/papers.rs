//! Papers: the reference configuration, completions, the manual page. All to standard output.

use std::io::{self, Write};

use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Exit, Typed};
use crate::config;
use crate::types::{VERSION, in_words};

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
    // The version alone: the line with commit and platform is too long for the foot of a page.
    let man = Man::new(program.clone()).source(format!("posthouse {VERSION}"));
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
        // A command's sections stand below the section of the command.
        for line in String::from_utf8_lossy(&section).lines() {
            writeln!(page, "{}", line.replacen(".SH ", ".SS ", 1))?;
        }
        subcommands(command, &mut page)?;
        notes(".SS", command, &mut page)?;
    }
    notes(".SH", &program, &mut page)?;
    Ok(page)
}

/// What stands under a command, each with its arguments.
fn subcommands(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let below = command.get_subcommands();
    let mut below = below.filter(|below| below.get_name() != "help").peekable();
    if below.peek().is_some() {
        writeln!(page, ".SS COMMANDS")?;
    }
    for below in below {
        let arguments = below
            .get_positionals()
            .map(|argument| format!(" {argument}"));
        let about = below.get_about().map(ToString::to_string);
        writeln!(
            page,
            ".TP\n\\fB{}\\fR{}",
            below.get_name(),
            escape(&arguments.collect::<String>())
        )?;
        writeln!(page, "{}", escape(&about.unwrap_or_default()))?;
    }
    Ok(())
}

/// What is below the options in `--help`: tables, whose lines stay as they are.
fn notes(heading: &str, command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(notes) = command.get_after_long_help().or(command.get_after_help()) else {
        return Ok(());
    };
    writeln!(page, "{heading} NOTES\n.nf")?;
    for line in notes.to_string().lines() {
        // A line that begins with a dot or a quote would be an order to the formatter.
        let guard = if line.starts_with(['.', '\'']) {
            "\\&"
        } else {
            ""
        };
        writeln!(page, "{guard}{}", escape(line))?;
    }
    writeln!(page, ".fi")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_keeps_tables_and_names_the_commands_below_commands() {
        let page = String::from_utf8(manual_page().expect("memory")).expect("UTF-8");
        let title = page
            .lines()
            .find(|line| line.starts_with(".TH"))
            .expect("a title");
        assert!(
            title.contains(&format!("\"posthouse {VERSION}\"")),
            "{title}"
        );
        let backend = page
            .split(".SH \"POSTHOUSE BACKEND\"")
            .nth(1)
            .expect("a section");
        let backend = backend.split(".SH ").next().expect("its text");
        for (text, why) in [
            (
                ".SS COMMANDS\n.TP\n\\fBready\\fR\nServe again\n",
                "the first command",
            ),
            ("\\fBweight\\fR <N|auto>\n", "an argument"),
            (".SS NOTES\n.nf\nExamples:\n", "a table"),
            ("\n.fi\n", "its end"),
        ] {
            assert!(backend.contains(text), "{why} in\n{backend}");
        }
        assert_eq!(
            page.matches("\n.nf\n").count(),
            page.matches("\n.fi\n").count()
        );
    }
}
