//! May this connection come in? What the peer's address can decide is decided before anything is
//! read; where a PROXY header names the client, the rest is decided behind the header.
//!
//! A refused client takes nothing from those that are served: its networks and limits are checked
//! before it takes a place or counts for the accept rate, and a refusal gives back what it took.

use super::closing::Refusal;
use super::record::Session;
use crate::balance::{ClientRefusal, ClientRules};
use crate::config::model::ProxyIn;
use crate::metrics::SessionPhase;
use crate::snapshot::RunPhase;

/// Judges what the peer's address can decide. `Ok`: the connection is a session and has its place.
pub(super) fn at_accept(session: &mut Session) -> Result<(), Refusal> {
    if session.cx.shared.phase() == RunPhase::Draining {
        return Err(Refusal::ShuttingDown);
    }
    let settings = &session.listener.view.settings;
    match settings.proxy_protocol {
        ProxyIn::Off => {
            of_client(session)?;
            let admitted = of_process(session).and_then(|()| of_rate(session));
            if admitted.is_err() {
                refund(session);
            }
            admitted
        }
        ProxyIn::Required => {
            if !settings.trusted_proxies.contains(session.peer.ip()) {
                session.phase = SessionPhase::ProxyHeader;
                return Err(Refusal::ProxyHeader);
            }
            // The header is waited for in the session's place.
            of_process(session)
        }
    }
}

/// Judges the client that a PROXY header has named; nothing is left to judge where none is required.
pub(super) fn behind_header(session: &mut Session) -> Result<(), Refusal> {
    if session.listener.view.settings.proxy_protocol == ProxyIn::Off {
        return Ok(());
    }
    of_client(session)?;
    let admitted = of_rate(session);
    if admitted.is_err() {
        refund(session);
    }
    admitted
}

/// Networks and limits of the true client.
fn of_client(session: &mut Session) -> Result<(), Refusal> {
    let view = &session.listener.view;
    let settings = &view.settings;
    let address = session.client().ip();
    if !settings.monitor_networks.is_empty() && settings.monitor_networks.contains(address) {
        return Err(Refusal::Monitor);
    }
    let allowed = settings.allow.is_empty() || settings.allow.contains(address);
    if !allowed || settings.deny.contains(address) {
        return Err(Refusal::Denied);
    }
    let admitted = view
        .state
        .clients
        .admit(session.client_key(), rules(session), session.accepted);
    match admitted {
        Ok(permit) => session.permit = permit.map(Box::new),
        Err(ClientRefusal::TooManySessions | ClientRefusal::TooFast) => {
            return Err(Refusal::ClientLimit);
        }
        Err(ClientRefusal::TableFull) => return Err(Refusal::GlobalLimit),
    }
    Ok(())
}

fn rules(session: &Session) -> ClientRules {
    let settings = &session.listener.view.settings;
    ClientRules {
        max_sessions: settings.max_sessions_per_client,
        rate: settings.rate_per_client,
    }
}

/// The limits of process and listener.
fn of_process(session: &mut Session) -> Result<(), Refusal> {
    if session.take_place() {
        Ok(())
    } else {
        Err(Refusal::GlobalLimit)
    }
}

/// The rate at which the listener takes sessions.
fn of_rate(session: &Session) -> Result<(), Refusal> {
    let view = &session.listener.view;
    match view.settings.accept_rate {
        Some(rate) if !view.state.accept_rate.admit(rate, session.accepted) => {
            Err(Refusal::GlobalLimit)
        }
        Some(_) | None => Ok(()),
    }
}

/// Gives back what the client's own rate was charged: it is refused for what others do.
fn refund(session: &mut Session) {
    let rules = rules(session);
    if let Some(permit) = session.permit.take() {
        permit.refund(rules);
    }
}
