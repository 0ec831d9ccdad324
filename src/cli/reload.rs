//! `posthouse reload`: asks the running process to read its configuration again.
//!
//! Exit code 0 when it took effect, 1 when the file has mistakes (nothing changed then).

use anyhow::Context as _;
use hyper::{Method, StatusCode};

use super::Exit;
use super::endpoint::{AdminArgs, runtime, shown};
use crate::admin::views::Reload;

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// Where the running process is asked.
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

/// Reloads and says what changed, or every mistake.
///
/// # Errors
/// There was no answer, or a refusal.
#[expect(clippy::print_stdout, reason = "a command's answer")]
pub(super) fn run(args: &ReloadArgs) -> anyhow::Result<Exit> {
    let endpoint = args.admin.endpoint()?;
    let answered = runtime()?.block_on(endpoint.ask(Method::POST, "/reload", None))?;
    let answer = &answered.answer;
    if !answer.status.is_success() && answer.status != StatusCode::UNPROCESSABLE_ENTITY {
        return Err(answered.refusal());
    }
    let report: Reload =
        serde_json::from_slice(&answer.body).context("the answer is no report of a reload")?;
    print!("{}", render(&report));
    Ok(if report.ok {
        Exit::Done
    } else {
        Exit::Mistakes
    })
}

fn render(report: &Reload) -> String {
    let mut out = String::new();
    let mut say = |line: &str| {
        for part in line.lines() {
            out.push_str(&shown(part));
            out.push('\n');
        }
    };
    if report.ok {
        say(&format!("reloaded: generation {}", report.generation));
        if report.changes.is_empty() {
            say("nothing changed");
        }
        for change in &report.changes {
            say(&format!("  {change}"));
        }
    } else {
        say(&format!(
            "not reloaded: generation {} goes on; correct the file and reload again",
            report.generation
        ));
        for mistake in &report.mistakes {
            say(mistake);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reload_shows_every_mistake_without_escapes() {
        let text = render(&Reload {
            ok: false,
            generation: 3,
            mistakes: vec!["first\n  line\u{1b}[2J".to_owned(), "second".to_owned()],
            ..Reload::default()
        });
        assert!(text.starts_with("not reloaded: generation 3 goes on"));
        assert!(text.ends_with("first\n  line\u{fffd}[2J\nsecond\n"));
    }

    #[test]
    fn a_reload_says_what_changed() {
        let report = Reload {
            ok: true,
            generation: 4,
            ..Reload::default()
        };
        assert_eq!(render(&report), "reloaded: generation 4\nnothing changed\n");
        let report = Reload {
            changes: vec!["pool mx: backend mx3 added".to_owned()],
            ..report
        };
        assert_eq!(
            render(&report),
            "reloaded: generation 4\n  pool mx: backend mx3 added\n"
        );
    }
}
