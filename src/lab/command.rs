//! The sink's own reader of command lines.

/// A command, as far as the sink tells them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Ehlo(String),
    Helo(String),
    Mail { path: String, size: Option<u64> },
    Rcpt(String),
    Data,
    Bdat { length: u64, last: bool },
    Rset,
    Noop,
    Vrfy,
    Quit,
    BadArgument,
    BadChunk,
    Unknown,
}

/// Reads one line, given without its line end.
pub(super) fn read_command(line: &[u8]) -> Command {
    let Ok(text) = std::str::from_utf8(line) else {
        return Command::Unknown;
    };
    let text = text.trim_end();
    let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
    let argument = argument.trim_start();
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" | "HELO" if argument.is_empty() => Command::BadArgument,
        "EHLO" => Command::Ehlo(argument.to_owned()),
        "HELO" => Command::Helo(argument.to_owned()),
        "MAIL" => match path_behind(argument, "FROM:") {
            Some((path, parameters)) => Command::Mail {
                path,
                size: size_of(&parameters),
            },
            None => Command::BadArgument,
        },
        "RCPT" => match path_behind(argument, "TO:") {
            Some((path, _)) if !path.is_empty() => Command::Rcpt(path),
            _ => Command::BadArgument,
        },
        "DATA" if argument.is_empty() => Command::Data,
        "RSET" if argument.is_empty() => Command::Rset,
        "QUIT" if argument.is_empty() => Command::Quit,
        "DATA" | "RSET" | "QUIT" => Command::BadArgument,
        "BDAT" => read_chunk(argument),
        "NOOP" => Command::Noop,
        "VRFY" => Command::Vrfy,
        _ => Command::Unknown,
    }
}

fn path_behind(argument: &str, keyword: &str) -> Option<(String, String)> {
    let head = argument.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = argument[keyword.len()..].trim_start().strip_prefix('<')?;
    let end = rest.find('>')?;
    Some((rest[..end].to_owned(), rest[end + 1..].to_owned()))
}

fn size_of(parameters: &str) -> Option<u64> {
    parameters
        .split_ascii_whitespace()
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(keyword, _)| keyword.eq_ignore_ascii_case("SIZE"))
        .and_then(|(_, value)| value.parse().ok())
}

fn read_chunk(argument: &str) -> Command {
    let mut words = argument.split_ascii_whitespace();
    let length = words.next().and_then(|word| word.parse().ok());
    let last = words.next().map(|word| word.eq_ignore_ascii_case("LAST"));
    match (length, last, words.next()) {
        (Some(length), None, None) => Command::Bdat {
            length,
            last: false,
        },
        (Some(length), Some(true), None) => Command::Bdat { length, last: true },
        _ => Command::BadChunk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_the_rfc_spells_them() {
        let mail = |path: &str, size| Command::Mail {
            path: path.into(),
            size,
        };
        let table: &[(&str, Command)] = &[
            ("ehlo mx.example", Command::Ehlo("mx.example".into())),
            ("HELO  x ", Command::Helo("x".into())),
            ("EHLO", Command::BadArgument),
            ("MAIL FROM:<>", mail("", None)),
            (
                "mail from:<a@b> BODY=8BITMIME size=17",
                mail("a@b", Some(17)),
            ),
            ("MAIL FROM: <a@b>", mail("a@b", None)),
            ("MAIL a@b", Command::BadArgument),
            ("RCPT TO:<c@d> NOTIFY=NEVER", Command::Rcpt("c@d".into())),
            ("RCPT TO:<>", Command::BadArgument),
            ("DATA", Command::Data),
            ("DATA now", Command::BadArgument),
            (
                "BDAT 5",
                Command::Bdat {
                    length: 5,
                    last: false,
                },
            ),
            (
                "bdat 0 last",
                Command::Bdat {
                    length: 0,
                    last: true,
                },
            ),
            ("BDAT x", Command::BadChunk),
            ("BDAT 1 LAST please", Command::BadChunk),
            ("NOOP anything", Command::Noop),
            ("", Command::Unknown),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2", Command::Unknown),
        ];
        for (line, command) in table {
            assert_eq!(read_command(line.as_bytes()), *command, "{line:?}");
        }
        assert_eq!(read_command(b"\xff\xfe"), Command::Unknown);
    }
}
