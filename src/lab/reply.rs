//! Replies as text: what a sink sends, and the code that decides what follows.

/// Appends the lines of a reply with their line ends.
pub(super) fn write_lines(out: &mut Vec<u8>, lines: &[String]) {
    for line in lines {
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The code of the last line, 0 if it has none.
pub(super) fn last_code(octets: &[u8]) -> u16 {
    let text = octets.strip_suffix(b"\r\n").unwrap_or(octets);
    let line = text.rsplit(|octet| *octet == b'\n').next().unwrap_or(text);
    match line {
        [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_decides() {
        assert_eq!(last_code(b"220 hello\r\n"), 220);
        assert_eq!(last_code(b"220-hello\r\n421 no\r\n"), 421);
        assert_eq!(last_code(b"hello\r\n"), 0);
        assert_eq!(last_code(b""), 0);
    }
}
