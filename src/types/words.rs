//! Errors of the system in the words that an operator reads.
//!
//! One place, so that a refused connection is called the same on the status page, in the log and on
//! the command line. The system's number is left out: it says nothing that its words do not.

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, ErrorKind};

/// How the number of an error begins in std's text, behind its words.
const NUMBER: &str = " (os error ";
/// What std says before the reason of `getaddrinfo`; who asked says that it was a look-up.
const LOOKUP: &str = "failed to lookup address information: ";

/// An error of input or output in words, without a number: `connection refused`.
pub fn in_words(error: &io::Error) -> Cow<'static, str> {
    if let Some(inner) = error.get_ref() {
        return match inner.downcast_ref::<io::Error>() {
            Some(inner) => in_words(inner),
            None => Cow::Owned(of_inner(&inner.to_string())),
        };
    }
    Cow::Borrowed(match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset",
        ErrorKind::ConnectionAborted => "connection aborted",
        ErrorKind::BrokenPipe => "broken pipe",
        ErrorKind::UnexpectedEof => "connection closed",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::HostUnreachable => "no route to host",
        ErrorKind::NetworkUnreachable => "network unreachable",
        ErrorKind::NetworkDown => "network down",
        _ => return Cow::Owned(uncapitalised(&without_numbers(&error.to_string()))),
    })
}

/// What an error says that is not one of a system call.
fn of_inner(text: &str) -> String {
    match text.strip_prefix(LOOKUP) {
        Some(reason) => uncapitalised(reason),
        None => without_numbers(text).into_owned(),
    }
}

/// An error with all its causes in words.
pub fn chain_in_words(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        match error.downcast_ref::<io::Error>() {
            Some(error) => text.push_str(&in_words(error)),
            None => text.push_str(&without_numbers(&error.to_string())),
        }
        next = error.source();
    }
    text
}

/// The same text without the numbers of the system's errors.
pub fn without_numbers(text: &str) -> Cow<'_, str> {
    let mut rest = text;
    let mut without = String::new();
    while let Some(at) = rest.find(NUMBER) {
        let behind = &rest[at + NUMBER.len()..];
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || !behind[digits..].starts_with(')') {
            break;
        }
        without.push_str(&rest[..at]);
        rest = &behind[digits + 1..];
    }
    if without.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    without.push_str(rest);
    Cow::Owned(without)
}

/// `Permission denied` as part of a sentence; `I/O error` stays.
fn uncapitalised(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            let first = first.to_ascii_lowercase();
            format!("{first}{}", &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_said_without_their_numbers() {
        // Linux: errno(3).
        for (number, words) in [
            (1, "operation not permitted"),
            (2, "no such file or directory"),
            (5, "input/output error"),
            (13, "permission denied"),
            (24, "too many open files"),
            (32, "broken pipe"),
            (98, "address already in use"),
            (99, "cannot assign requested address"),
            (100, "network down"),
            (101, "network unreachable"),
            (104, "connection reset"),
            (110, "timed out"),
            (111, "connection refused"),
            (113, "no route to host"),
        ] {
            assert_eq!(in_words(&io::Error::from_raw_os_error(number)), words);
        }
        for (kind, words) in [
            (ErrorKind::TimedOut, "timed out"),
            (ErrorKind::UnexpectedEof, "connection closed"),
            (ErrorKind::ConnectionRefused, "connection refused"),
        ] {
            assert_eq!(in_words(&kind.into()), words);
        }
    }

    #[test]
    fn an_error_within_an_error_speaks_for_itself() {
        let inner = io::Error::from_raw_os_error(111);
        assert_eq!(in_words(&io::Error::other(inner)), "connection refused");
        let own = io::Error::new(ErrorKind::TimedOut, "no TLS handshake in time");
        assert_eq!(in_words(&own), "no TLS handshake in time");
        let lookup = io::Error::other(format!("{LOOKUP}Name or service not known"));
        assert_eq!(in_words(&lookup), "name or service not known");
    }

    #[test]
    fn all_causes_are_said() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read {0:?}")]
        struct Unreadable(&'static str, #[source] io::Error);
        let error = Unreadable("x", io::Error::from_raw_os_error(2));
        assert_eq!(
            chain_in_words(&error),
            "cannot read \"x\": no such file or directory"
        );
    }

    #[test]
    fn numbers_go_and_what_only_looks_like_one_stays() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a (os error 111)", "a"),
            ("a (os error 1): b (os error 22), c", "a: b, c"),
            ("a (os error ) b", "a (os error ) b"),
            ("a (os error 1", "a (os error 1"),
            (" (os error 7)", ""),
        ] {
            assert_eq!(without_numbers(text), expected, "{text:?}");
        }
    }
}
