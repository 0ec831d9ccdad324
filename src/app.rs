//! The composition root: the one place where the parts meet.
//!
//! configuration → log → control, which binds and starts the data threads → status endpoint.
//! The command line is given [`start`] and knows none of the parts. Whatever fails on the way is
//! an error whose text says what to do.

use std::time::Duration;

use crate::admin;
use crate::cli::{self, Exit, LogChoice, StartPlan};
use crate::config::model;
use crate::control::{self, LocalTask, OnControl, Running, StartError, StartOptions};
use crate::telemetry;
use crate::types::{chain_in_words, in_words};

/// How long the log of a start that failed may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The whole program: from the arguments of the process to how it ends.
pub fn main() -> Exit {
    cli::main(std::env::args_os(), start)
}

/// Starts a balancer: when it returns, every address listens.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub fn start(plan: StartPlan) -> Result<Running, StartError> {
    let telemetry = match plan.log {
        LogChoice::AsConfigured => telemetry::start(plan.config.log),
        LogChoice::None => telemetry::silent(),
    };
    let options = StartOptions {
        config_path: plan.config_path,
        signals: plan.signals,
        on_control: plan.config.admin.clone().map(status_endpoint),
    };
    let log = telemetry.clone();
    control::start(options, plan.config, telemetry).inspect_err(|_| log.flush(LAST_LINES))
}

/// The status endpoint, to be served by the control thread.
fn status_endpoint(settings: model::Admin) -> OnControl {
    Box::new(move |handle| {
        let endpoint = admin::start(&settings, handle).map_err(|error| chain_in_words(&error))?;
        let task = async move {
            if let Err(error) = endpoint.await {
                tracing::error!(name: "admin.stopped", error = &*in_words(&error));
            }
        };
        Ok(Box::pin(task) as LocalTask)
    })
}
