//! What a session was refused with replies of ours: counted each time, and kept for its line.

use std::sync::Arc;

use super::record::Session;
use crate::smtp::{CommandName, OwnRefusal, OwnReply};
use crate::telemetry::RefusalRecord;

/// As many refusals as a session's line tells: the last ones.
pub(super) const REFUSALS_TOLD: usize = 3;

/// What a session was refused so far. Only one that was refused something has it.
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
    /// What was said, where that is not for the words of mode smtp to say.
    line: Option<Arc<str>>,
}

impl Session {
    /// It was refused something, in the words of its listener.
    pub(super) fn was_refused(&mut self, refusal: OwnRefusal) {
        self.was_told(refusal, None);
    }

    /// It was refused something with this line, which has no CRLF.
    pub(super) fn was_told(&mut self, refusal: OwnRefusal, line: Option<Arc<str>>) {
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

    /// How often it was refused something, and the last of it as the log tells it.
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
