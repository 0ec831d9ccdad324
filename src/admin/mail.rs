//! What a status page and a scrape say of mail: listeners in smtp mode and the backends behind them.
//!
//! Nothing is said where that mode is not and never was in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::views;
use crate::balance::{
    AdminState, BackendState, BackendTotals, BackendView, KeptClosed, MailTotals, Member,
    MoveCause, QuotaUse,
};
use crate::config::duration_text;
use crate::config::model::Mode;
use crate::metrics::sample::{BackendMailSample, MailSample, QuotaSample};
use crate::metrics::{ListenerCounters, MailCounters, TransactionOutcome};
use crate::snapshot::{PoolView, Snapshot};
use crate::types::Shards;

/// Whether smtp mode is configured for a listener or a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MailUse {
    /// It is.
    Configured,
    /// Not now; counts of an earlier generation are shown all the same.
    No,
}

impl MailUse {
    fn of(is_configured: bool) -> Self {
        if is_configured {
            Self::Configured
        } else {
            Self::No
        }
    }

    /// Of the listener with this stable index.
    pub(super) fn of_listener(snapshot: &Snapshot, index: usize) -> Self {
        let listener = snapshot.listener(index);
        Self::of(listener.is_some_and(|view| view.settings.mode != Mode::Passthrough))
    }

    /// Of a pool: whether such a listener leads to it.
    pub(super) fn of_pool(snapshot: &Snapshot, pool: &PoolView) -> Self {
        let mut listeners = snapshot.listeners();
        Self::of(listeners.any(|l| l.pool == pool.index && l.settings.mode != Mode::Passthrough))
    }
}

/// The mail of a listener.
pub(super) fn of_listener(
    counters: &Shards<ListenerCounters>,
    mail_use: MailUse,
) -> Option<Box<MailSample>> {
    let sum = |count: fn(&MailCounters) -> u64| counters.sum(|of| count(&of.mail));
    let mut sample = MailSample {
        recipients: (
            sum(|of| of.recipients_accepted.value()),
            sum(|of| of.recipients_refused.value()),
        ),
        octets: sum(|of| of.octets.value()),
        ..MailSample::default()
    };
    for outcome in TransactionOutcome::ALL {
        let at = outcome.index();
        sample.outcomes[at] = counters.sum(|of| of.mail.outcomes[at].value());
    }
    for of in counters.iter() {
        of.mail.mail.add_to(&mut sample.mail);
        of.mail.reply.add_to(&mut sample.reply);
        of.mail.transaction.add_to(&mut sample.transaction);
    }
    let met = sample.outcomes.iter().any(|count| *count > 0);
    (met || mail_use == MailUse::Configured).then(|| Box::new(sample))
}

/// The mail of a backend.
pub(super) fn of_backend(
    state: &BackendState,
    mail_use: MailUse,
) -> Option<Box<BackendMailSample>> {
    let sum = |count: fn(&MailTotals) -> u64| state.totals.sum(|of| count(&of.mail));
    let happened = |count: u64| (count > 0).then_some(count);
    let closed = KeptClosed::ALL.into_iter().filter_map(|cause| {
        let count = |of: &BackendTotals| of.mail.closed[cause.index()].value();
        Some((cause, happened(state.totals.sum(count))?))
    });
    let moves = MoveCause::ALL.into_iter().filter_map(|cause| {
        let count = |of: &BackendTotals| of.mail.moves[cause.index()].value();
        Some((cause, happened(state.totals.sum(count))?))
    });
    let sample = BackendMailSample {
        idle: sum(|of| of.idle.value()),
        transactions: sum(|of| of.transactions.value()),
        accepted: sum(|of| of.accepted.value()),
        in_doubt: sum(|of| of.in_doubt.value()),
        connections: (sum(|of| of.dialled.value()), sum(|of| of.reused.value())),
        closed: closed.collect(),
        moves: moves.collect(),
    };
    let met = sample.connections != (0, 0) || sample.idle > 0;
    (met || mail_use == MailUse::Configured).then(|| Box::new(sample))
}

/// The mail of a listener as the status says it.
pub(super) fn listener_view(sample: &MailSample) -> views::ListenerMail {
    let outcomes = TransactionOutcome::ALL.into_iter().filter_map(|outcome| {
        let count = sample.outcomes[outcome.index()];
        (count > 0).then(|| (outcome.name().to_owned(), count))
    });
    views::ListenerMail {
        transactions: outcomes.collect(),
        recipients_accepted: sample.recipients.0,
        recipients_refused: sample.recipients.1,
        message_bytes: sample.octets,
    }
}

/// The mail of a backend as the status says it.
pub(super) fn backend_view(sample: &BackendMailSample) -> views::BackendMail {
    let closed = sample.closed.iter();
    let moves = sample.moves.iter();
    views::BackendMail {
        kept_idle: sample.idle,
        transactions: sample.transactions,
        accepted: sample.accepted,
        in_doubt: sample.in_doubt,
        dialled: sample.connections.0,
        reused: sample.connections.1,
        kept_closed: closed
            .map(|(cause, count)| (cause.name().to_owned(), *count))
            .collect::<BTreeMap<_, _>>(),
        moved: moves
            .map(|(cause, count)| (cause.name().to_owned(), *count))
            .collect(),
    }
}

/// What the pool's backends have used up of their quotas, by name: all addresses of a name share
/// them.
fn quota_uses(pool: &PoolView, now: Instant) -> Vec<(Arc<str>, QuotaUse)> {
    let mut names = BTreeSet::new();
    let mut uses = Vec::new();
    for member in pool.pool.members() {
        let name = &member.settings.name;
        if let Some(limited) = &member.settings.quota
            && names.insert(Arc::clone(name))
        {
            let of = limited.usage(now).into_iter();
            uses.extend(of.map(|of| (Arc::clone(name), of)));
        }
    }
    uses
}

/// The quotas as the status says them.
pub(super) fn quotas(pool: &PoolView, now: Instant) -> Vec<views::Quota> {
    let view = |(name, of): (Arc<str>, QuotaUse)| views::Quota {
        backend: name.to_string(),
        unit: of.quota.unit.name().to_owned(),
        used: of.used,
        limit: of.quota.count,
        period_seconds: of.quota.period.as_secs(),
    };
    quota_uses(pool, now).into_iter().map(view).collect()
}

/// The quotas as a scrape shows them.
pub(super) fn quota_samples(pool: &PoolView, now: Instant) -> Vec<QuotaSample> {
    let sample = |(name, of): (Arc<str>, QuotaUse)| QuotaSample {
        backend: name.to_string(),
        unit: of.quota.unit.name(),
        window: duration_text(of.quota.period),
        used: of.used,
        limit: of.quota.count,
    };
    quota_uses(pool, now).into_iter().map(sample).collect()
}

/// The quota that keeps mail from a backend that is in service otherwise: of several the one that
/// has been used up for longest.
pub(super) fn used_up(member: &Member, view: &BackendView, now: Instant) -> Option<QuotaUse> {
    let serves = view.admin == AdminState::Ready && view.health.is_usable();
    let limited = member.settings.quota.as_ref().filter(|_| serves)?;
    let uses = limited.usage(now).into_iter();
    let used_up = uses.filter(|of| of.used_up_for.is_some());
    used_up.max_by_key(|of| of.used_up_for)
}
