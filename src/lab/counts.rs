//! What a sink has seen: counts, and bounded records of messages and PROXY headers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::Notify;
use tokio::time::timeout;

/// The longest [`super::SinkHandle::wait_for`] waits.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What a sink has seen since it was started, restarts included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkCounts {
    /// Accepted connections.
    pub connections: u64,
    /// Connections now.
    pub open: u64,
    /// Greetings sent with 220.
    pub greetings: u64,
    /// EHLO and HELO answered 250.
    pub ehlos: u64,
    /// MAIL answered 250.
    pub mails: u64,
    /// RCPT answered 250.
    pub recipients: u64,
    /// Messages answered 250 after the final dot.
    pub messages: u64,
    /// Complete messages refused after the final dot.
    pub messages_refused: u64,
    /// Octets of complete messages, without dot-stuffing.
    pub octets: u64,
    /// RSET commands.
    pub rsets: u64,
    /// Sessions ended by QUIT.
    pub quits: u64,
    /// Sessions the peer closed without QUIT.
    pub lost: u64,
    /// Of those, by a reset.
    pub resets: u64,
    /// Sessions that sent no octet at all.
    pub wordless: u64,
    /// Valid PROXY headers (LOCAL ones included).
    pub proxy_headers: u64,
    /// Connections closed because a required PROXY header was missing or bad.
    pub proxy_refused: u64,
    /// Sessions in which the client talked before the greeting.
    pub early_talkers: u64,
    /// Sessions ended because of pipelining that was not announced.
    pub pipelining_refused: u64,
    /// Steps at which the script differed from a good MTA.
    pub faults: u64,
    /// Times that the script let the whole sink die.
    pub deaths: u64,
}

/// One accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageRecord {
    /// The peer of the connection.
    pub peer: SocketAddr,
    /// The client a PROXY header named, if any.
    pub client: Option<SocketAddr>,
    /// The argument of EHLO or HELO.
    pub helo: String,
    /// The reverse path, without angle brackets.
    pub from: String,
    /// The accepted forward paths, without angle brackets.
    pub to: Vec<String>,
    /// Octets of the content, without dot-stuffing.
    pub size: u64,
    /// [`body_hash`] of the content; 16 hexadecimal digits in JSON.
    #[serde(serialize_with = "as_hex")]
    pub hash: u64,
    /// What the reply to the final dot called it.
    pub queue_id: String,
    /// The first Message-ID field with its angle brackets, if within the first 8 KiB.
    pub message_id: Option<String>,
    /// The first Subject field, if within the first 8 KiB.
    pub subject: Option<String>,
    /// The first Received field, if within the first 8 KiB.
    pub received: Option<String>,
    /// The first octets of the content, up to the plan's `keep_octets`.
    #[serde(skip)]
    pub content: Vec<u8>,
}

/// One PROXY header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProxyRecord {
    /// 1 or 2.
    pub version: u8,
    /// Octets of the header.
    pub length: usize,
    /// The client it names; `None` for LOCAL and UNKNOWN.
    pub source: Option<SocketAddr>,
    /// The address the client came to.
    pub destination: Option<SocketAddr>,
    /// The UNIQUE_ID TLV.
    pub unique_id: Option<Vec<u8>>,
}

/// The condition did not come true within 10 seconds; the counts at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not seen within 10 seconds; the sink counted {0:?}")]
pub struct WaitedInVain(pub SinkCounts);

/// The hash by which [`MessageRecord`]s tell contents apart: FNV-1a, 64 bits.
///
/// Not for adversaries; stable, so that a report can be compared with another program's.
pub fn body_hash(content: &[u8]) -> u64 {
    let mut hash = BodyHash::default();
    hash.add(content);
    hash.0
}

/// JSON readers know no whole numbers above 2⁵³.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape serde wants")]
fn as_hex<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

/// [`body_hash`] in steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyHash(pub(super) u64);

impl Default for BodyHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl BodyHash {
    pub(super) fn add(&mut self, content: &[u8]) {
        for octet in content {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The sink's memory, shared by its sessions and its handle.
#[derive(Debug)]
pub(super) struct Tally {
    seen: Mutex<Seen>,
    changed: Notify,
    keep_records: usize,
    queue_ids: AtomicU64,
}

#[derive(Debug, Default)]
struct Seen {
    counts: SinkCounts,
    messages: VecDeque<MessageRecord>,
    headers: VecDeque<ProxyRecord>,
}

impl Tally {
    /// Keeps the last `keep_records` messages and as many PROXY headers.
    pub(super) fn new(keep_records: usize) -> Self {
        Self {
            seen: Mutex::default(),
            changed: Notify::new(),
            keep_records,
            queue_ids: AtomicU64::new(0),
        }
    }

    /// A name for the next message, as an MTA has for a file of its queue.
    pub(super) fn queue_id(&self) -> String {
        let number = self.queue_ids.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{number:08X}")
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut SinkCounts)) {
        change(&mut self.lock().counts);
        self.changed.notify_waiters();
    }

    pub(super) fn message(&self, record: MessageRecord) {
        let mut seen = self.lock();
        seen.counts.messages += 1;
        seen.counts.octets += record.size;
        push_bounded(&mut seen.messages, record, self.keep_records);
        drop(seen);
        self.changed.notify_waiters();
    }

    pub(super) fn proxy_header(&self, record: ProxyRecord) {
        let mut seen = self.lock();
        seen.counts.proxy_headers += 1;
        push_bounded(&mut seen.headers, record, self.keep_records);
        drop(seen);
        self.changed.notify_waiters();
    }

    pub(super) fn counts(&self) -> SinkCounts {
        self.lock().counts
    }

    pub(super) fn messages(&self) -> Vec<MessageRecord> {
        self.lock().messages.iter().cloned().collect()
    }

    pub(super) fn take_messages(&self) -> Vec<MessageRecord> {
        self.lock().messages.drain(..).collect()
    }

    pub(super) fn headers(&self) -> Vec<ProxyRecord> {
        self.lock().headers.iter().cloned().collect()
    }

    pub(super) async fn wait_for(
        &self,
        holds: impl Fn(&SinkCounts) -> bool,
    ) -> Result<SinkCounts, WaitedInVain> {
        let wait = async {
            loop {
                // Made before the look, so that no change between look and wait is missed.
                let changed = self.changed.notified();
                let counts = self.counts();
                if holds(&counts) {
                    return counts;
                }
                changed.await;
            }
        };
        timeout(WAIT_MAX, wait)
            .await
            .map_err(|_| WaitedInVain(self.counts()))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .expect("no code panics while it holds the tally")
    }
}

fn push_bounded<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if most == 0 {
        return;
    }
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_for_any_chunking() {
        // Published FNV-1a test vectors.
        assert_eq!(body_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(body_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(body_hash(b"foobar"), 0x8594_4171_f739_67e8);
        let mut steps = BodyHash::default();
        steps.add(b"foo");
        steps.add(b"bar");
        assert_eq!(steps.0, body_hash(b"foobar"));
    }

    #[test]
    fn records_are_bounded_and_the_oldest_goes_first() {
        let mut list = VecDeque::new();
        for number in 0..5 {
            push_bounded(&mut list, number, 2);
        }
        assert_eq!(list, [3, 4]);
        push_bounded(&mut list, 9, 0);
        assert_eq!(list, [3, 4]);
    }
}
