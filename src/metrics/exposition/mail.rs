//! Metrics of mail, the third part of the page: what listeners in smtp mode and their backends do.
//!
//! Listeners and backends that have nothing to do with that mode have no samples here, and causes
//! only where they happened: ten thousand passthrough backends cost nothing.

use super::families::{Family, Kind, Scope, family, with};
use crate::metrics::TransactionOutcome;
use crate::metrics::sample::{
    BackendSample, ListenerSample, MailSample, PoolSample, QuotaSample, WorkerSample,
};
use crate::types::HistogramTotals;

use super::Samples;

fn durations(
    listener: &ListenerSample,
    out: &mut Samples<'_>,
    which: fn(&MailSample) -> &HistogramTotals,
) {
    if let Some(mail) = &listener.mail {
        out.histogram(&[("listener", &listener.name)], which(mail));
    }
}

fn quota_labels<'a>(pool: &'a PoolSample, quota: &'a QuotaSample) -> [(&'static str, &'a str); 4] {
    [
        ("pool", &pool.name),
        ("backend", &quota.backend),
        ("unit", quota.unit),
        ("window", &quota.window),
    ]
}

/// In the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    family!(
        "posthouse_replay_memory_bytes",
        Gauge,
        Process,
        "What copies of messages for replays take now.",
        |s, o| if let Some((used, _)) = s.process.replay_memory {
            o.value(&[], used);
        }
    ),
    family!(
        "posthouse_replay_memory_limit_bytes",
        Gauge,
        Process,
        "The most that copies of messages for replays may take.",
        |s, o| if let Some((_, most)) = s.process.replay_memory {
            o.value(&[], most);
        }
    ),
    family!(
        "posthouse_transactions_total",
        Counter,
        Listener,
        "Ended mail transactions by outcome.",
        |s, o| if let Some(mail) = &s.mail {
            for outcome in TransactionOutcome::ALL {
                o.value(
                    &[("listener", &s.name), ("outcome", outcome.name())],
                    mail.outcomes[outcome.index()],
                );
            }
        }
    ),
    family!(
        "posthouse_recipients_total",
        Counter,
        Listener,
        "Recipients by result: taken by a backend, or refused by it or by us.",
        |s, o| if let Some(mail) = &s.mail {
            let (accepted, refused) = mail.recipients;
            for (result, count) in [("accepted", accepted), ("refused", refused)] {
                o.value(&[("listener", &s.name), ("result", result)], count);
            }
        }
    ),
    family!(
        "posthouse_message_bytes_total",
        Counter,
        Listener,
        "Bytes of the messages that backends took.",
        |s, o| if let Some(mail) = &s.mail {
            o.value(&[("listener", &s.name)], mail.octets);
        }
    ),
    family!(
        "posthouse_transaction_mail_seconds",
        Histogram,
        Listener,
        "From MAIL to the 354.",
        |s, o| durations(s, o, |mail| &mail.mail)
    ),
    family!(
        "posthouse_transaction_reply_seconds",
        Histogram,
        Listener,
        "From the end of a message to the reply.",
        |s, o| durations(s, o, |mail| &mail.reply)
    ),
    family!(
        "posthouse_transaction_seconds",
        Histogram,
        Listener,
        "From MAIL to the last reply.",
        |s, o| durations(s, o, |mail| &mail.transaction)
    ),
    family!(
        "posthouse_backend_transactions_total",
        Counter,
        Backend,
        "Mail transactions that ended at the backend.",
        |s, o| if let Some(mail) = &s.mail {
            o.value(&s.labels(), mail.transactions);
        }
    ),
    family!(
        "posthouse_backend_messages_total",
        Counter,
        Backend,
        "Messages the backend took.",
        |s, o| if let Some(mail) = &s.mail {
            o.value(&s.labels(), mail.accepted);
        }
    ),
    family!(
        "posthouse_backend_in_doubt_total",
        Counter,
        Backend,
        "Messages the backend was sent whole and did not answer; each may have been taken.",
        |s, o| if let Some(mail) = &s.mail {
            o.value(&s.labels(), mail.in_doubt);
        }
    ),
    family!(
        "posthouse_backend_moves_total",
        Counter,
        Backend,
        "Transactions moved from the backend to another, by cause; only those that happened.",
        |s, o| for (cause, count) in s.mail.iter().flat_map(|mail| &mail.moves) {
            o.value(&with(s.labels(), [("cause", cause.name())]), count);
        }
    ),
    family!(
        "posthouse_backend_kept_idle",
        Gauge,
        Backend,
        "Kept connections that wait for a transaction.",
        |s, o| if let Some(mail) = &s.mail {
            o.value(&s.labels(), mail.idle);
        }
    ),
    family!(
        "posthouse_backend_mail_connections_total",
        Counter,
        Backend,
        "Connections that transactions were given: dialled for them, or kept from others.",
        |s, o| if let Some(mail) = &s.mail {
            let (dialled, kept) = mail.connections;
            for (word, count) in [("dialled", dialled), ("kept", kept)] {
                o.value(&with(s.labels(), [("connection", word)]), count);
            }
        }
    ),
    family!(
        "posthouse_backend_kept_closed_total",
        Counter,
        Backend,
        "Kept connections that were closed, by cause; only those that happened.",
        |s, o| for (cause, count) in s.mail.iter().flat_map(|mail| &mail.closed) {
            o.value(&with(s.labels(), [("cause", cause.name())]), count);
        }
    ),
    family!(
        "posthouse_backend_quota_used",
        Gauge,
        Pool,
        "What was used of the backend's quota within its window, mail in flight included.",
        |s, o| for quota in &s.quotas {
            o.value(&quota_labels(s, quota), quota.used);
        }
    ),
    family!(
        "posthouse_backend_quota_limit",
        Gauge,
        Pool,
        "The backend's quota.",
        |s, o| for quota in &s.quotas {
            o.value(&quota_labels(s, quota), quota.limit);
        }
    ),
    family!(
        "posthouse_worker_kept_idle",
        Gauge,
        Worker,
        "Kept connections to backends that wait for a transaction.",
        |s, o| o.value(&[("worker", &s.name)], s.kept_idle)
    ),
    family!(
        "posthouse_worker_leased",
        Gauge,
        Worker,
        "Connections to backends that transactions hold now.",
        |s, o| o.value(&[("worker", &s.name)], s.leased)
    ),
    family!(
        "posthouse_worker_mail_hedges_total",
        Counter,
        Worker,
        "Transactions begun again elsewhere because a backend was slow to answer MAIL.",
        |s, o| o.value(&[("worker", &s.name)], s.mail_hedges)
    ),
    family!(
        "posthouse_worker_not_replayable_total",
        Counter,
        Worker,
        "Messages that were not kept for a replay, by cause.",
        |s, o| {
            let (limit, memory) = s.not_replayable;
            for (cause, count) in [("message-limit", limit), ("memory", memory)] {
                o.value(&[("worker", &s.name), ("cause", cause)], count);
            }
        }
    ),
    family!(
        "posthouse_worker_early_replies_total",
        Counter,
        Worker,
        "Messages that a backend answered before their end.",
        |s, o| o.value(&[("worker", &s.name)], s.early_replies)
    ),
];
