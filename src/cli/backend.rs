//! `posthouse backend POOL/NAME …`: drains a backend, brings it back, sets its weight.
//!
//! The change is made in the running process, survives reloads, and says on the status page who
//! made it. It is gone after a restart: what shall stay belongs into the file.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use hyper::Method;

use super::Exit;
use super::endpoint::{AdminArgs, runtime, shown};
use crate::admin::client::escaped;
use crate::admin::views::{BackendChanged, BackendPut};
use crate::types::Weight;

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BackendArgs {
    /// The backend: POOL/NAME (for failback: POOL)
    #[arg(value_name = "POOL/NAME")]
    pub(super) backend: String,
    /// What to do with it.
    #[command(subcommand)]
    pub(super) action: Action,
    /// Where the running process is asked.
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

/// What to do with a backend.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Action {
    /// Serve again
    Ready,
    /// Keep its sessions, get no new ones
    Drain,
    /// As drain, and do not probe it
    Maint,
    /// Its share of the sessions, until the next restart
    Weight {
        /// 1 to 1000, or auto for the weight of the configuration
        #[arg(value_name = "N|auto", value_parser = weight)]
        value: NewWeight,
    },
    /// Let the first tier take over again (pools with failback = "manual")
    Failback,
}

/// A weight as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewWeight {
    /// That of the configuration.
    Auto,
    /// This one.
    Fixed(Weight),
}

fn weight(text: &str) -> Result<NewWeight, String> {
    if text == "auto" {
        return Ok(NewWeight::Auto);
    }
    text.parse()
        .ok()
        .and_then(Weight::new)
        .map(NewWeight::Fixed)
        .ok_or_else(|| "a weight is 1 to 1000, or auto; to send it nothing use drain".to_owned())
}

/// Makes the change and says what is so now.
///
/// # Errors
/// There was no answer, or a refusal.
#[expect(clippy::print_stdout, reason = "a command's answer")]
pub(super) fn run(args: &BackendArgs) -> anyhow::Result<Exit> {
    let endpoint = args.admin.endpoint()?;
    let Some(put) = put(&args.action) else {
        if args.backend.contains('/') {
            bail!("failback is for a whole pool: posthouse backend POOL failback");
        }
        let path = format!("/pools/{}/failback", escaped(&args.backend));
        runtime()?.block_on(endpoint.ask_for(Method::POST, &path, None))?;
        println!("pool {}: tiers fail back", shown(&args.backend));
        return Ok(Exit::Done);
    };
    let (pool, name) = named(&args.backend)?;
    let path = format!("/pools/{}/backends/{}", escaped(pool), escaped(name));
    let body = serde_json::to_vec(&put).context("the change cannot be written as JSON")?;
    let answer = runtime()?.block_on(endpoint.ask_for(Method::PUT, &path, Some(body)))?;
    let changed: BackendChanged =
        serde_json::from_slice(&answer.body).context("the answer is not what is expected")?;
    print!("{}", render(&changed));
    Ok(Exit::Done)
}

fn named(text: &str) -> anyhow::Result<(&str, &str)> {
    text.split_once('/')
        .filter(|(pool, name)| !pool.is_empty() && !name.is_empty())
        .with_context(|| {
            format!("{text:?} names no backend: use POOL/NAME, as posthouse status does")
        })
}

/// The body of the change; `None` for failback.
fn put(action: &Action) -> Option<BackendPut> {
    let state = |state: &str| BackendPut {
        state: Some(state.to_owned()),
        weight: None,
    };
    Some(match action {
        Action::Ready => state("ready"),
        Action::Drain => state("drain"),
        Action::Maint => state("maint"),
        Action::Weight { value } => BackendPut {
            state: None,
            weight: Some(match value {
                NewWeight::Auto => None,
                NewWeight::Fixed(weight) => Some(weight.value()),
            }),
        },
        Action::Failback => return None,
    })
}

fn render(changed: &BackendChanged) -> String {
    let mut out = String::new();
    for backend in &changed.backends {
        let weight = match backend.weight_override {
            Some(weight) => format!("{weight} (configured {})", backend.weight_configured),
            None => backend.weight_configured.to_string(),
        };
        let line = format!(
            "{}/{} at {}: {}, weight {weight}, {} open, {} in flight",
            changed.pool,
            backend.name,
            backend.address,
            backend.state_words(),
            backend.open,
            backend.in_flight
        );
        out.push_str(&shown(&line));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: BackendArgs,
    }

    fn action(words: &[&str]) -> Result<Action, String> {
        Typed::try_parse_from(["backend"].iter().chain(words))
            .map(|typed| typed.args.action)
            .map_err(|error| error.to_string())
    }

    fn body(words: &[&str]) -> String {
        let action = action(words).expect("valid words");
        serde_json::to_string(&put(&action)).expect("plain")
    }

    #[test]
    fn words_become_the_change_that_was_meant() {
        assert_eq!(body(&["mx/a", "drain"]), r#"{"state":"drain"}"#);
        assert_eq!(body(&["mx/a", "weight", "7"]), r#"{"weight":7}"#);
        assert_eq!(body(&["mx/a", "weight", "auto"]), r#"{"weight":null}"#);
        assert_eq!(action(&["mx", "failback"]), Ok(Action::Failback));
        let error = action(&["mx/a", "weight", "0"]).expect_err("out of range");
        assert!(error.contains("use drain"), "{error}");
        action(&["mx/a", "up"]).expect_err("no such state");
        action(&["mx/a"]).expect_err("no action");
    }

    #[test]
    fn options_may_come_last() {
        action(&["mx/a", "drain", "--admin", "127.0.0.1:1"]).expect("as typed by hand");
        action(&["--token-file", "t", "mx/a", "weight", "7"]).expect("as typed in a script");
    }

    #[test]
    fn a_backend_is_pool_and_name() {
        assert_eq!(named("mx/a").expect("valid"), ("mx", "a"));
        for wrong in ["mx", "/a", "mx/", "/"] {
            let error = named(wrong).expect_err(wrong).to_string();
            assert!(error.contains("POOL/NAME"), "{error}");
        }
    }
}
