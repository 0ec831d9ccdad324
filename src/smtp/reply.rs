//! STUB: replies (RFC 5321 §4.2, rules G5–G7).
#![expect(missing_docs, clippy::todo, unused_variables, reason = "stub")]

/// A three-digit code, first digit 2 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyCode(u16);

/// RFC 3463.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnhancedCode {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

/// A complete reply, borrowed from the octets it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    pub code: ReplyCode,
    pub enhanced: Option<EnhancedCode>,
    /// The octets of the whole reply with its line ends.
    pub octets: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("not a reply")]
    NotAReply,
    #[error("the code changes within the reply")]
    CodeChanges,
    #[error("a line of the reply is longer than 4,096 octets")]
    LineTooLong,
    #[error("the reply has more than 128 lines or 65,536 octets")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyRead<'a> {
    Incomplete,
    Complete(Reply<'a>),
    Invalid(ReplyError),
}

/// Reads one reply from the beginning of `octets`.
pub fn read_reply(octets: &[u8]) -> ReplyRead<'_> {
    todo!()
}

impl ReplyCode {
    pub fn value(self) -> u16 {
        self.0
    }
}

impl Reply<'_> {
    /// The text of each line without code, separator and line end.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }
    /// The first line's text, printable ASCII, at most 200 characters: for logs.
    pub fn short_text(&self) -> String {
        todo!()
    }
}
