//! The one line of a transaction: its facts and how they are written.
//!
//! It joins our session to the backend's queue id, which is in the backend's last reply (rule M6).
//! Sender and recipients are said only where the operator asked for them; a message whose fate is
//! unknown is told by digests of its envelope and content (rule F3). Durations are milliseconds
//! with three decimals; absent facts are absent fields. Nothing here allocates.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::line::Fields;
use super::record::{AttemptRecord, write_failures};
use crate::balance::MailTotals;
use crate::config::model::LogLevel;
use crate::metrics::{MailCounters, TransactionOutcome};
use crate::smtp::{BodyDigest, HelloName};
use crate::types::SessionId;

/// The longest text of a reply in octets; the rest is cut.
const REPLY_OCTETS_MAX: usize = 512;
/// The most octets of recipients on one line; how many more there were is said.
const RECIPIENTS_OCTETS_MAX: usize = 8192;

/// Everything the one line of a transaction says.
#[derive(Debug)]
pub struct TransactionRecord<'a> {
    /// When it ended: the time of the line, whenever that is written.
    pub at: Instant,
    /// The session.
    pub session: SessionId,
    /// Which transaction of the session, from 1.
    pub number: u32,
    /// The listener's name.
    pub listener: &'a str,
    /// The true client: from the PROXY header where there is one.
    pub client: SocketAddr,
    /// The name the client gave in EHLO or HELO.
    pub helo: HelloName<'a>,
    /// Pool, name and address of the last backend that had it.
    pub backend: Option<(&'a str, &'a str, SocketAddr)>,
    /// Connections it was tried on, the last one included.
    pub attempts: u32,
    /// The failed ones.
    pub failures: &'a [AttemptRecord],
    /// Whether the last connection was a kept one.
    pub kept: bool,
    /// Moves to another backend (rule F1).
    pub replayed: u32,
    /// Octets of the message as the client sent it, without the end.
    pub size: u64,
    /// Recipients the backend took.
    pub recipients_accepted: u32,
    /// Recipients that were refused, by the backend or by us.
    pub recipients_refused: u32,
    /// From MAIL to the 354.
    pub mail: Option<Duration>,
    /// From the 354 to the end of the message from the client.
    pub body: Option<Duration>,
    /// From there to the reply.
    pub reply_after: Option<Duration>,
    /// From MAIL to the last reply.
    pub transaction: Duration,
    /// How it ended.
    pub outcome: TransactionOutcome,
    /// Why it was refused or moved, where that is no backend's doing.
    pub reason: Option<TransactionReason>,
    /// The last reply to the client as it was sent, with its line ends (rule M6).
    pub reply: Option<&'a [u8]>,
    /// A backend that may have the message too: it was in doubt there, and said again (rule F7).
    pub doubted: Option<&'a str>,
    /// Whether the client had left before it could be told of the acceptance (rule F1, row 10).
    pub unseen: bool,
    /// Whether the backend's acceptance broke off before its end.
    pub reply_truncated: bool,
    /// What a message in doubt is found by.
    pub in_doubt: Option<InDoubtRecord>,
    /// Only where [`super::WorkerLog::wants_addresses`].
    pub addresses: Option<Addresses<'a>>,
}

/// Why a transaction was refused or moved, where that is no backend's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionReason {
    /// A backend's quota had no room for it, or for one of its recipients.
    Quota,
}

impl TransactionReason {
    fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
        }
    }
}

/// What a message in doubt is found by.
#[derive(Clone, Copy, Debug)]
pub struct InDoubtRecord {
    /// A hash of sender and recipients; shown in hex.
    pub envelope: [u8; 16],
    /// Of the message as far as it was sent.
    pub body: BodyDigest,
}

/// Sender and recipients.
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    /// The reverse-path without angle brackets; empty for a bounce.
    pub sender: &'a [u8],
    /// The forward-paths that were accepted, likewise.
    pub recipients: &'a [&'a [u8]],
}

impl TransactionRecord<'_> {
    /// Counts it, once, where it ended: at the listener, and at the last backend that had it.
    pub fn count(&self, listener: &MailCounters, backend: Option<&MailTotals>) {
        listener.outcomes[self.outcome.index()].inc();
        listener
            .recipients_accepted
            .add(u64::from(self.recipients_accepted));
        listener
            .recipients_refused
            .add(u64::from(self.recipients_refused));
        for (histogram, duration) in [
            (&listener.mail, self.mail),
            (&listener.reply, self.reply_after),
            (&listener.transaction, Some(self.transaction)),
        ] {
            if let Some(duration) = duration {
                histogram.observe(duration);
            }
        }
        let accepted = self.outcome == TransactionOutcome::Accepted;
        if accepted {
            listener.octets.add(self.size);
        }
        if let Some(totals) = backend {
            totals.transactions.inc();
            totals.accepted.add(u64::from(accepted));
            // One that was said again was counted where it was in doubt.
            let in_doubt = self.outcome == TransactionOutcome::InDoubt && self.doubted.is_none();
            totals.in_doubt.add(u64::from(in_doubt));
        }
    }

    /// The event's name.
    pub(super) const EVENT: &'static str = "transaction.end";

    /// A message in doubt is something an operator may want to look after.
    pub(super) fn level(outcome: TransactionOutcome) -> LogLevel {
        match outcome {
            TransactionOutcome::InDoubt => LogLevel::Warn,
            TransactionOutcome::Accepted
            | TransactionOutcome::Refused
            | TransactionOutcome::RefusedByUs
            | TransactionOutcome::Abandoned
            | TransactionOutcome::NoBackend
            | TransactionOutcome::Failed
            | TransactionOutcome::Cut => LogLevel::Info,
        }
    }

    /// How lines of it that the storm limit left out are counted, beside those of sessions.
    pub(super) fn left_out_key(outcome: TransactionOutcome) -> &'static str {
        match outcome {
            TransactionOutcome::Accepted => "transactions.accepted",
            TransactionOutcome::Refused => "transactions.refused",
            TransactionOutcome::RefusedByUs => "transactions.refused-by-us",
            TransactionOutcome::Abandoned => "transactions.abandoned",
            TransactionOutcome::NoBackend => "transactions.no-backend",
            TransactionOutcome::Failed => "transactions.failed",
            TransactionOutcome::InDoubt => "transactions.in-doubt",
            TransactionOutcome::Cut => "transactions.cut",
        }
    }

    pub(super) fn write(&self, fields: &mut Fields<'_>) {
        fields.shown("session.id", self.session);
        fields.number("transaction", self.number);
        fields.text("listener", self.listener);
        fields.shown("client.addr", self.client);
        fields.shown("helo", self.helo);
        if let Some((pool, backend, address)) = self.backend {
            fields.text("pool", pool);
            fields.text("backend", backend);
            fields.shown("backend.addr", address);
        }
        fields.text("outcome", self.outcome.name());
        if let Some(reason) = self.reason {
            fields.text("reason", reason.name());
        }
        fields.number("attempts", self.attempts);
        if !self.failures.is_empty() {
            write_failures(self.failures, fields);
        }
        if self.backend.is_some() {
            fields.number("kept", self.kept);
        }
        if self.replayed > 0 {
            fields.number("replayed", self.replayed);
        }
        if let Some(backend) = self.doubted {
            fields.text("in_doubt_at", backend);
        }
        fields.number("size", self.size);
        fields.number("recipients.accepted", self.recipients_accepted);
        fields.number("recipients.refused", self.recipients_refused);
        for (key, duration) in [
            ("mail_ms", self.mail),
            ("body_ms", self.body),
            ("reply_ms", self.reply_after),
            ("transaction_ms", Some(self.transaction)),
        ] {
            if let Some(duration) = duration {
                fields.millis(key, duration);
            }
        }
        if self.unseen {
            fields.number("acked_unseen", true);
        }
        if self.reply_truncated {
            fields.number("reply_truncated", true);
        }
        if let Some(doubt) = &self.in_doubt {
            fields.written("envelope", |out| hex(out, &doubt.envelope));
            fields.written("body", |out| hex(out, &doubt.body.0));
        }
        if let Some(addresses) = &self.addresses {
            addresses.write(fields);
        }
        if let Some(reply) = self.reply {
            write_reply(reply, fields);
        }
    }
}

impl Addresses<'_> {
    fn write(&self, fields: &mut Fields<'_>) {
        fields.text("sender", &String::from_utf8_lossy(self.sender));
        let mut octets = 0;
        let shown = self.recipients.iter().take_while(|recipient| {
            octets += recipient.len();
            octets <= RECIPIENTS_OCTETS_MAX
        });
        let shown = shown.count();
        fields.list("recipients", &self.recipients[..shown]);
        let left_out = self.recipients.len() - shown;
        if left_out > 0 {
            fields.number("recipients.left_out", left_out);
        }
    }
}

/// A reply on one line: the code once, the texts of its lines with ` / ` between them.
fn write_reply(reply: &[u8], fields: &mut Fields<'_>) {
    let mut shown = [0; REPLY_OCTETS_MAX];
    let mut rest = &mut shown[..];
    for (index, line) in reply.split(|&octet| octet == b'\n').enumerate() {
        let line = line.trim_ascii_end();
        let parts: [&[u8]; 2] = match line.get(4..) {
            _ if index == 0 => [line, b""],
            Some(text) => [b" / ", text],
            None => continue,
        };
        for part in parts {
            // What has no room is cut.
            let _ = rest.write_all(part);
        }
    }
    let length = REPLY_OCTETS_MAX - rest.len();
    if shown[..length].get(3) == Some(&b'-') {
        shown[3] = b' ';
    }
    fields.text(
        "reply",
        String::from_utf8_lossy(&shown[..length]).trim_end(),
    );
}

fn hex(out: &mut Vec<u8>, octets: &[u8]) {
    for octet in octets {
        let _ = write!(out, "{octet:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::{Form, Head, line};
    use super::*;
    use crate::balance::{FailureKind, Stage};
    use std::sync::Arc;

    fn failures() -> Vec<AttemptRecord> {
        vec![AttemptRecord {
            backend: Arc::from("mx1"),
            stage: Stage::Mail,
            kind: FailureKind::Closed,
            code: None,
            after: Duration::from_micros(301),
        }]
    }

    fn record<'a>(
        outcome: TransactionOutcome,
        failures: &'a [AttemptRecord],
        reply: &'a [u8],
    ) -> TransactionRecord<'a> {
        TransactionRecord {
            at: Instant::now(),
            session: SessionId(0x2a),
            number: 3,
            listener: "mx",
            client: "192.0.2.7:4242".parse().expect("an address"),
            helo: HelloName::of("client.example"),
            backend: Some(("pool", "mx3", "10.0.0.13:25".parse().expect("an address"))),
            attempts: 2,
            failures,
            kept: true,
            replayed: 1,
            size: 4_096,
            recipients_accepted: 2,
            recipients_refused: 1,
            mail: Some(Duration::from_millis(2)),
            body: Some(Duration::from_micros(1_500)),
            reply_after: Some(Duration::from_millis(12)),
            transaction: Duration::from_micros(15_501),
            outcome,
            reason: None,
            reply: Some(reply),
            doubted: None,
            unseen: false,
            reply_truncated: false,
            in_doubt: None,
            addresses: None,
        }
    }

    fn written(form: Form, record: &TransactionRecord<'_>) -> String {
        let mut out = Vec::new();
        let head = Head {
            time: *b"2026-11-22T02:55:47.123456Z",
            level: TransactionRecord::level(record.outcome),
            event: TransactionRecord::EVENT,
        };
        line(&mut out, form, head, |fields| record.write(fields));
        String::from_utf8(out).expect("lines are UTF-8")
    }

    #[test]
    fn rule_g13_a_name_outside_ascii_is_logged_escaped() {
        let mut record = record(TransactionOutcome::Accepted, &[], b"250 ok\r\n");
        record.helo = HelloName::of("b\u{fc}ro \u{202e}pc");
        for (form, expected) in [
            (Form::Text, r#" helo="b\\xc3\\xbcro \\xe2\\x80\\xaepc" "#),
            (Form::Json, r#""helo":"b\\xc3\\xbcro \\xe2\\x80\\xaepc","#),
        ] {
            let line = written(form, &record);
            assert!(line.contains(expected), "{line}");
            assert!(line.is_ascii());
        }
    }

    #[test]
    fn m6_the_line_joins_the_session_to_the_queue_id() {
        let failures = failures();
        let record = record(
            TransactionOutcome::Accepted,
            &failures,
            b"250 2.0.0 Ok: queued as 4F2A\r\n",
        );
        assert_eq!(
            &written(Form::Text, &record)[27..],
            " info transaction.end session.id=000000000000002a transaction=3 listener=mx \
             client.addr=192.0.2.7:4242 helo=client.example pool=pool backend=mx3 \
             backend.addr=10.0.0.13:25 outcome=accepted attempts=2 \
             failures=mx1/mail/closed/0.301 kept=true replayed=1 size=4096 \
             recipients.accepted=2 recipients.refused=1 mail_ms=2.000 body_ms=1.500 \
             reply_ms=12.000 transaction_ms=15.501 reply=\"250 2.0.0 Ok: queued as 4F2A\"\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&written(Form::Json, &record)).expect("one JSON object");
        assert_eq!(json["transaction"], 3);
        assert_eq!(json["kept"], true);
        assert_eq!(json["failures"][0]["stage"], "mail");
        assert_eq!(json["reply"], "250 2.0.0 Ok: queued as 4F2A");
        assert_eq!(json.get("sender"), None);
        assert_eq!(json.get("envelope"), None);
        assert_eq!(json.get("acked_unseen"), None);
        let unseen = TransactionRecord {
            unseen: true,
            ..record
        };
        let json: serde_json::Value =
            serde_json::from_str(&written(Form::Json, &unseen)).expect("one JSON object");
        assert_eq!(json["acked_unseen"], true);
    }

    #[test]
    fn each_transaction_is_counted_once_and_only_accepted_octets_are() {
        let (listener, backend) = (MailCounters::default(), MailTotals::default());
        record(TransactionOutcome::Accepted, &[], b"").count(&listener, Some(&backend));
        record(TransactionOutcome::InDoubt, &[], b"").count(&listener, Some(&backend));
        let mut refused = record(TransactionOutcome::RefusedByUs, &[], b"");
        refused.mail = None;
        refused.count(&listener, None);
        for outcome in TransactionOutcome::ALL {
            let expected = u64::from(matches!(
                outcome,
                TransactionOutcome::Accepted
                    | TransactionOutcome::InDoubt
                    | TransactionOutcome::RefusedByUs
            ));
            assert_eq!(listener.outcomes[outcome.index()].value(), expected);
        }
        assert_eq!(listener.octets.value(), 4_096);
        assert_eq!(listener.recipients_accepted.value(), 6);
        assert_eq!(listener.recipients_refused.value(), 3);
        let observed = |histogram: &crate::types::Histogram| {
            let mut totals = crate::types::HistogramTotals::default();
            histogram.add_to(&mut totals);
            totals.buckets.iter().sum::<u64>()
        };
        assert_eq!(observed(&listener.mail), 2);
        assert_eq!(observed(&listener.reply), 3);
        assert_eq!(observed(&listener.transaction), 3);
        assert_eq!(
            [
                backend.transactions.value(),
                backend.accepted.value(),
                backend.in_doubt.value()
            ],
            [2, 1, 1]
        );
    }

    #[test]
    fn f3_a_message_in_doubt_is_a_warning_that_names_it_by_its_digests() {
        let mut record = record(TransactionOutcome::InDoubt, &[], b"451 4.4.2 lost\r\n");
        record.in_doubt = Some(InDoubtRecord {
            envelope: [0xab; 16],
            body: BodyDigest([0x01; 16]),
        });
        let line = written(Form::Text, &record);
        assert!(line.contains(" warn transaction.end "), "{line}");
        assert!(line.contains(&format!(
            " envelope={} body={} ",
            "ab".repeat(16),
            "01".repeat(16)
        )));
    }

    #[test]
    fn a_reply_of_many_lines_is_one_text_and_bounded() {
        let reply = |octets: &[u8]| {
            let line = written(
                Form::Json,
                &record(TransactionOutcome::Refused, &[], octets),
            );
            let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            json["reply"].as_str().expect("a text").to_owned()
        };
        assert_eq!(
            reply(b"550-5.7.1 we do\r\n550-5.7.1 not\r\n550 5.7.1 like you\r\n"),
            "550 5.7.1 we do / 5.7.1 not / 5.7.1 like you"
        );
        assert_eq!(reply(b"250\r\n"), "250");
        assert_eq!(reply(b"250-a\n250\n"), "250 a");
        assert_eq!(reply(b"250 \xff\x1b[2J\r\n"), "250 \u{fffd}\u{1b}[2J");
        let long = [b"250 ".as_slice(), &[b'x'; 4000], b"\r\n"].concat();
        assert_eq!(reply(&long).len(), REPLY_OCTETS_MAX);
    }

    #[test]
    fn addresses_are_said_only_if_given_and_bounded() {
        let many = vec![b"someone.with.a.name@example.net".as_slice(); 1_000];
        let mut record = record(TransactionOutcome::Accepted, &[], b"250 ok\r\n");
        record.addresses = Some(Addresses {
            sender: b"",
            recipients: &[b"a@example.net", b"\"b, c\"@example.net"],
        });
        let text = written(Form::Text, &record);
        assert!(
            text.contains(" sender=\"\" recipients=\"a@example.net,\\\"b, c\\\"@example.net\" "),
            "{text}"
        );
        let json: serde_json::Value =
            serde_json::from_str(&written(Form::Json, &record)).expect("JSON");
        assert_eq!(json["recipients"][1], "\"b, c\"@example.net");
        record.addresses = Some(Addresses {
            sender: b"x@example.net",
            recipients: &many,
        });
        for form in [Form::Text, Form::Json] {
            let line = written(form, &record);
            assert!(line.len() < 2 * RECIPIENTS_OCTETS_MAX, "{}", line.len());
            assert!(line.contains("left_out"), "{line}");
        }
    }
}
