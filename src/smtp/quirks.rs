//! Habits of clients that the grammar of commands does not allow, and whether they are accepted
//! (rules G12, G13).
//!
//! Devices, scripts and old software end commands with LF, leave out the brackets of a path or put
//! blanks inside them, and send names in EHLO that are not ASCII. Postfix and Exim accept all of that.
//! Here a habit is accepted only where it has one meaning, and a backend gets the form of RFC 5321.
//! None is accepted where servers could disagree on the end of a line or of a path, nor in a message.

/// Whether habits of clients that RFC 5321 does not allow are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientQuirks {
    /// LF ends a command as CRLF does, unless it is STARTTLS, BDAT or AUTH; blanks behind the colon
    /// of MAIL and RCPT and just inside the brackets are dropped; a path without brackets is one
    /// word of letters, digits, the signs of an atom, dots and one `@`; a name in EHLO and HELO may
    /// be UTF-8.
    #[default]
    Accept,
    /// Each of these is a mistake.
    Reject,
}
