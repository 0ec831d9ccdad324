//! What clients do beside the grammar of commands, and whether it is taken (rules G12, G13).
//!
//! Devices, scripts and old software end commands with LF, leave out the brackets of a path or put
//! blanks inside them, and say names in EHLO that are not ASCII. Postfix and Exim take all of that.
//! What is taken here has one meaning only and goes on in the form of RFC 5321; nothing of it is
//! taken where the end of a line or of a path could be disputed, nor within a message.

/// Whether the habits of clients that RFC 5321 does not allow are taken.
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
