//! The replies of ours that refused a client something: counted, and the last kept for the log.

use std::sync::Arc;

use super::record::Session;
use crate::smtp::{CommandName, OwnRefusal, OwnReply};
use crate::telemetry::RefusalRecord;

/// Refusals that a session's line tells; the last ones.
pub(super) const REFUSALS_TOLD: usize = 3;

/// The refusals of one session so far; made at the first of them.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// How many there were.
    count: u32,
    /// The last of them, in order.
    last: Vec<Refused>,
}

#[derive(Debug)]
struct Refused {
    command: CommandName,
    reply: OwnReply,
    /// What was said, where it is not one of the replies of mode smtp.
    line: Option<Arc<str>>,
}

impl Session {
    /// Counts a refusal and keeps it for the log; it was said in the words of the listener.
    pub(super) fn was_refused(&mut self, refusal: OwnRefusal) {
        self.was_refused_with(refusal, None);
    }

    /// The same for one that was said by this line, which has no CRLF.
    pub(super) fn was_refused_with(&mut self, refusal: OwnRefusal, line: Option<Arc<str>>) {
        let OwnRefusal { command, reply } = refusal;
        let worker = self.cx.worker.index();
        let counters = self.listener.view.state.counters.of(worker);
        counters.refusals[reply.index()].inc();
        tracing::debug!(session.id = %self.id,
            command = command.name(),
            reply = reply.name(),
            code = reply.code().value(), "session.refused");
        let refusals = self.refusals.get_or_insert_default();
        refusals.count = refusals.count.saturating_add(1);
        if refusals.last.len() == REFUSALS_TOLD {
            refusals.last.remove(0);
        }
        refusals.last.push(Refused {
            command,
            reply,
            line,
        });
    }

    /// How many refusals there were, and the last of them as the log tells them.
    pub(super) fn refusal_records(&self) -> (u32, Vec<RefusalRecord>) {
        let Some(refusals) = &self.refusals else {
            return (0, Vec::new());
        };
        let policy = &self.listener.mail;
        let records = refusals.last.iter().map(|refused| {
            let mut octets = Vec::new();
            match &refused.line {
                Some(line) => octets.extend_from_slice(line.as_bytes()),
                None => policy.words.write(refused.reply, &policy.host, &mut octets),
            }
            let said = String::from_utf8_lossy(octets.trim_ascii_end());
            let (code, text) = said.split_once(' ').unwrap_or((&said, ""));
            RefusalRecord {
                command: refused.command.name(),
                code: code.parse().unwrap_or(refused.reply.code().value()),
                text: text.to_owned(),
            }
        });
        (refusals.count, records.collect())
    }
}
