//! Refusals of our own and the commands that they answer, for the log and the counters.
//!
//! A command is named by a word of the list here and never by what the client wrote: a line that is
//! out of place may be a password or a piece of a message.

use super::command::Command;
use super::exchange::Verb;
use super::replies::OwnReply;

/// A reply of ours that refuses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnRefusal {
    /// The command that it answers. A reply that answers none, as at a timeout, names the last
    /// command that the client gave.
    pub command: CommandName,
    /// What is said: a 4yz or a 5yz.
    pub reply: OwnReply,
}

/// Declares the commands with their names: words in lower case, equal to the verbs where there is
/// one.
macro_rules! command_names {
    ($($(#[doc = $doc:literal])* $command:ident $name:literal,)+) => {
        /// Which command was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are those of the RFCs")]
        pub enum CommandName {
            $($(#[doc = $doc])* $command,)+
        }

        impl CommandName {
            const ALL: &[Self] = &[$(Self::$command),+];

            /// Its name in logs.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$command => $name,)+
                }
            }
        }
    };
}

command_names! {
    /// None yet: the client has only connected.
    Connect "connect",
    Ehlo "ehlo",
    Helo "helo",
    Mail "mail",
    Rcpt "rcpt",
    Data "data",
    /// The end of the message behind DATA.
    EndOfData "end-of-data",
    /// BDAT, or the end of its chunk.
    Bdat "bdat",
    Rset "rset",
    Noop "noop",
    Quit "quit",
    Vrfy "vrfy",
    Expn "expn",
    Help "help",
    Starttls "starttls",
    Auth "auth",
    Etrn "etrn",
    Atrn "atrn",
    Turn "turn",
    Send "send",
    Soml "soml",
    Saml "saml",
    Burl "burl",
    /// Whatever else was said, of which nothing is shown.
    Unknown "unknown",
}

impl CommandName {
    /// The verb that a line begins with, in any case.
    pub(super) fn of_line(line: &[u8]) -> Self {
        let is_letter = |octet: &&u8| octet.is_ascii_alphabetic();
        let letters = line.iter().take_while(is_letter).count();
        let (word, rest) = line.split_at(letters);
        let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
        let is_verb = |command: &&Self| {
            !matches!(command, Self::Connect | Self::Unknown)
                && command.name().as_bytes().eq_ignore_ascii_case(word)
        };
        let mut all = Self::ALL.iter();
        let known = all.find(|command| ends && is_verb(command));
        known.copied().unwrap_or(Self::Unknown)
    }

    pub(super) fn of_command(command: &Command<'_>) -> Self {
        match command {
            Command::Ehlo(_) => Self::Ehlo,
            Command::Helo(_) => Self::Helo,
            Command::Mail(_) => Self::Mail,
            Command::Rcpt(_) => Self::Rcpt,
            Command::Data => Self::Data,
            Command::Bdat { .. } => Self::Bdat,
            Command::Rset => Self::Rset,
            Command::Noop => Self::Noop,
            Command::Quit => Self::Quit,
            Command::Vrfy(_) => Self::Vrfy,
            Command::Help => Self::Help,
            Command::Starttls => Self::Starttls,
            Command::Auth { .. } => Self::Auth,
        }
    }

    pub(super) fn of_verb(verb: Verb) -> Self {
        match verb {
            Verb::Mail => Self::Mail,
            Verb::Rcpt => Self::Rcpt,
            Verb::Data => Self::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_the_list_name_a_command() {
        for (line, name) in [
            ("MAIL FROM:<raid @example.com>", "mail"),
            ("mail", "mail"),
            ("Rcpt\tTO:<a@x>", "rcpt"),
            ("DATA\r\n", "data"),
            ("STARTTLS", "starttls"),
            ("EXPN staff", "expn"),
            ("AUTH PLAIN AGpvZQBwYXNzd29yZA==", "auth"),
            ("AGpvZQBwYXNzd29yZA==", "unknown"),
            ("hunter2", "unknown"),
            ("MAILFROM:<a@x>", "unknown"),
            ("MAIL:", "unknown"),
            ("connect x:443", "unknown"),
            ("", "unknown"),
        ] {
            let command = CommandName::of_line(line.as_bytes());
            assert_eq!(command.name(), name, "{line}");
        }
    }
}
