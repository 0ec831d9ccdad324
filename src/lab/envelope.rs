//! One transaction of a sink: who, to whom, and what is kept of the content.

use super::counts::BodyHash;

/// How much of a message is searched for Subject and Received.
const HEAD_MAX: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Envelope {
    pub(super) from: Option<String>,
    pub(super) to: Vec<String>,
    pub(super) content: Content,
    pub(super) chunked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) hash: BodyHash,
    pub(super) head: Vec<u8>,
    pub(super) kept: Vec<u8>,
}

impl Content {
    pub(super) fn add(&mut self, part: &[u8], keep: usize) {
        self.size += part.len() as u64;
        self.hash.add(part);
        let head = HEAD_MAX.saturating_sub(self.head.len()).min(part.len());
        self.head.extend_from_slice(&part[..head]);
        let kept = keep.saturating_sub(self.kept.len()).min(part.len());
        self.kept.extend_from_slice(&part[..kept]);
    }
}

/// The first header field of this name, unfolded, at most 500 characters (RFC 5322 §2.2.3).
pub(super) fn field(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text
        .split('\n')
        .map(|line| line.trim_end_matches('\r'))
        .take_while(|line| !line.is_empty())
        .peekable();
    while let Some(line) = lines.next() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if !field.eq_ignore_ascii_case(name) {
            continue;
        }
        let mut value = value.trim().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
            value.push(' ');
            value.push_str(more.trim());
        }
        return Some(value.chars().take(500).collect());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_field_of_a_name_is_found_and_unfolded() {
        let head =
            b"Received: from a\r\n\tby b; now\r\nreceived: x\r\nSubject: hi\r\n\r\nSubject: no";
        assert_eq!(field(head, "received").unwrap(), "from a by b; now");
        assert_eq!(field(head, "subject").unwrap(), "hi");
        assert_eq!(field(head, "to"), None);
        assert_eq!(field(b"\r\nSubject: body", "subject"), None);
    }
}
