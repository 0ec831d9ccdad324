//! What the commands that ask a running process have in common: where it is, and the token.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::admin::client::{Address, Client, DEFAULT_ADDRESS};
use crate::admin::read_token;

/// The environment variable that may hold the token.
const TOKEN_VARIABLE: &str = "POSTHOUSE_TOKEN";

/// Where the running process is asked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Status endpoint of the running process: HOST:PORT, http://HOST:PORT or unix:/PATH
    #[arg(long, global = true, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    pub(super) admin: Address,
    /// File whose first line is the token for changes (or the variable POSTHOUSE_TOKEN)
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

impl AdminArgs {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let token = match &self.token_file {
            Some(path) => Some(read_token(path)?),
            None => std::env::var(TOKEN_VARIABLE)
                .ok()
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
        };
        Ok(Client {
            address: self.admin.clone(),
            token,
        })
    }
}

/// A small runtime for one question.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")
}

/// Text from elsewhere without what a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}
