//! The log of changes that clients of the status endpoint ask for: who asked for what, by which right,
//! and with what result. Never the token.
//!
//! `admin.changed` at info, `admin.refused` at warn. The storm limit of the log cuts both.

use hyper::StatusCode;

use super::guard::Right;
use super::reply::{Reply, refused};
use super::routes::Who;
use crate::control::BackendChange;
use crate::types::Weight;

/// A change that is asked for, as the log names it.
#[derive(Clone, Debug)]
pub(super) struct AskedChange<'a> {
    what: &'static str,
    pool: Option<&'a str>,
    backend: Option<&'a str>,
    state: Option<&'static str>,
    weight: Option<String>,
}

impl<'a> AskedChange<'a> {
    /// A change of the whole process.
    pub(super) fn of(what: &'static str) -> Self {
        Self {
            what,
            pool: None,
            backend: None,
            state: None,
            weight: None,
        }
    }

    /// A change of this pool.
    pub(super) fn of_pool(what: &'static str, pool: &'a str) -> Self {
        Self {
            pool: Some(pool),
            ..Self::of(what)
        }
    }

    /// A change of this backend.
    pub(super) fn of_backend(what: &'static str, pool: &'a str, backend: &'a str) -> Self {
        Self {
            backend: Some(backend),
            ..Self::of_pool(what, pool)
        }
    }

    /// Adds what the body asks for.
    pub(super) fn wants(&mut self, change: &BackendChange) {
        self.state = change.state.map(super::gather::admin_name);
        self.weight = change.weight.map(|weight| match weight.map(Weight::value) {
            Some(weight) => weight.to_string(),
            None => "configured".to_owned(),
        });
    }

    /// Logs the result. `right` is `None` if the client had none.
    pub(super) fn log(&self, who: &Who, right: Option<Right>, reply: &Reply) {
        let Self {
            what,
            pool,
            backend,
            state,
            weight,
        } = self;
        let by = right.map(Right::name);
        let weight = weight.as_deref();
        let status = reply.status();
        if status.is_success() {
            tracing::info!(name: "admin.changed",
                %who, by, change = what, pool, backend, state, weight);
        } else {
            let status = status.as_u16();
            let error = error(reply);
            tracing::warn!(name: "admin.refused",
                %who, by, change = what, pool, backend, state, weight, status, error);
        }
    }
}

/// Logs a page that was refused because it was asked of a host that is not ours.
pub(super) fn log_foreign(who: &Who, path: &str, reply: &Reply) {
    let (status, error) = (reply.status().as_u16(), error(reply));
    let remedy = refused(reply).map(|refusal| refusal.remedy.as_str());
    tracing::warn!(name: "admin.refused", %who, path, status, error, remedy);
}

fn error(reply: &Reply) -> &str {
    match refused(reply) {
        Some(refusal) => &refusal.error,
        None if reply.status() == StatusCode::UNPROCESSABLE_ENTITY => "the file has mistakes",
        None => "",
    }
}
