//! May this connection come in? Limits of the process and the listener first, before anything is
//! read; those of the client after its true address is known.

use super::closing::Refusal;
use super::record::Session;
use crate::balance::{ClientRefusal, ClientRules};
use crate::snapshot::RunPhase;

/// The limits of process and listener.
pub(super) fn of_listener(session: &mut Session) -> Result<(), Refusal> {
    let view = &session.listener.view;
    let settings = &view.settings;
    if session.cx.shared.phase() == RunPhase::Draining {
        return Err(Refusal::ShuttingDown);
    }
    if !session.cx.has_room() {
        return Err(Refusal::GlobalLimit);
    }
    if settings.max_sessions > 0 {
        let active = view.state.counters.sum(|counters| counters.active.value());
        if active > u64::from(settings.max_sessions) {
            return Err(Refusal::GlobalLimit);
        }
    }
    if let Some(rate) = settings.accept_rate
        && !view.state.accept_rate.admit(rate, session.accepted)
    {
        return Err(Refusal::GlobalLimit);
    }
    Ok(())
}

/// Networks and limits of the true client.
pub(super) fn of_client(session: &mut Session) -> Result<(), Refusal> {
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
    let rules = ClientRules {
        max_sessions: settings.max_sessions_per_client,
        rate: settings.rate_per_client,
    };
    let admitted = view
        .state
        .clients
        .admit(session.client_key(), rules, session.accepted);
    match admitted {
        Ok(permit) => session.permit = permit.map(Box::new),
        Err(ClientRefusal::TooManySessions | ClientRefusal::TooFast) => {
            return Err(Refusal::ClientLimit);
        }
        Err(ClientRefusal::TableFull) => return Err(Refusal::GlobalLimit),
    }
    Ok(())
}
