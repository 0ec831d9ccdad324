//! The replies we make ourselves, and a backend's reply as the client gets it (rules G9–G11, R).
//!
//! Each reply of ours is a constant with its code, its enhanced code (RFC 3463, RFC 2034 §4), its
//! words, and whether the connection ends behind it; 220, 221 and 421 name the host first. What a
//! backend says is written anew: octet by octet clean, no line over 512 octets, CRLF at each end,
//! so that nothing in it can pass for another reply.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memchr;

use super::closing::Next;
use super::reply::{EnhancedCode, Reply, ReplyCode};

/// The longest line written, line end included (RFC 5321 §4.5.3.1.5).
pub const WRITTEN_LINE_MAX: usize = 512;
/// Code, separator and CRLF.
const FRAME_LENGTH: usize = 6;

/// A reply of ours, one line long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnReply {
    code: ReplyCode,
    enhanced: &'static str,
    text: &'static str,
    next: Next,
    /// Its place in [`OwnReply::ALL`].
    place: u8,
}

/// A reply of ours and its words.
#[derive(Clone, Copy, Debug)]
pub struct Wording {
    /// The key by which a listener in mode "smtp" chooses others (rule R2).
    pub key: Option<&'static str>,
    /// Its name in logs and metrics: the key, or the key in the listener's `replies`, where there is
    /// one.
    pub name: &'static str,
    /// What is said.
    pub reply: OwnReply,
    /// The line it has otherwise, without CRLF, as a TOML string; `{hostname}` stands for our name.
    pub default: &'static str,
    /// When it is said.
    pub when: &'static str,
}

/// The line of a reply as a TOML string: the host stands behind 220, 221 and 421 (rule G10).
macro_rules! template {
    (220 "" $text:literal) => {
        concat!("\"220 {hostname} ", $text, "\"")
    };
    (221 $enhanced:literal $text:literal) => {
        concat!("\"221 ", $enhanced, " {hostname} ", $text, "\"")
    };
    (421 $enhanced:literal $text:literal) => {
        concat!("\"421 ", $enhanced, " {hostname} ", $text, "\"")
    };
    ($code:tt "" $text:literal) => {
        concat!("\"", $code, " ", $text, "\"")
    };
    ($code:tt $enhanced:literal $text:literal) => {
        concat!("\"", $code, " ", $enhanced, " ", $text, "\"")
    };
}

/// Declares the constants, those that have a key for other words with `as` and the others with
/// `named`, and the list of all.
macro_rules! own_replies {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident $(as $key:ident)? $(named $word:ident)?:
            $next:ident $code:tt $enhanced:tt $text:tt;
    )+) => {
        /// Their places in [`OwnReply::ALL`].
        #[expect(
            non_camel_case_types,
            clippy::upper_case_acronyms,
            reason = "they are named as the constants are"
        )]
        enum ReplyPlace { $($name),+ }

        impl OwnReply {
            $(
                $(#[doc = $doc])+
                pub const $name: Self = Self {
                    code: ReplyCode::known($code),
                    enhanced: $enhanced,
                    text: $text,
                    next: Next::$next,
                    place: ReplyPlace::$name as u8,
                };
            )+

            /// All of them.
            pub const ALL: &[Wording] = &[$(Wording {
                key: [$(stringify!($key))?].as_slice().first().copied(),
                name: [$(stringify!($key),)? $(stringify!($word),)?][0],
                reply: Self::$name,
                default: template!($code $enhanced $text),
                when: concat!($($doc),+).trim_ascii(),
            }),+];
        }
    };
}

own_replies! {
    /// The greeting.
    GREETING as greeting: Continue 220 "" "ESMTP";
    /// To QUIT.
    GOODBYE as goodbye: Close 221 "2.0.0" "closing";
    /// To RSET and NOOP, and to whatever else simply succeeds.
    OK as ok: Continue 250 "2.0.0" "ok";
    /// To HELP.
    HELP as help: Continue 214 "2.0.0" "see RFC 5321";
    /// To VRFY.
    CANNOT_VERIFY as cannot_verify: Continue 252 "2.5.2" "cannot verify, send mail and see"; // rule B2
    /// To DATA, where the message is taken before a backend is asked.
    SEND_DATA as send_data: Continue 354 "" "end with <CRLF>.<CRLF>"; // rule F9

    /// No backend at connect.
    NOT_AVAILABLE named unavailable: Close 421 "4.3.2" "service not available, try again later";
    /// Draining, at the next command boundary.
    SHUTTING_DOWN named shutting_down: Close 421 "4.3.2" "shutting down";
    /// The client's own limit of connections.
    CLIENT_LIMIT named client_limit: Close 421 "4.7.0" "too many connections";
    /// Our limit of connections.
    GLOBAL_LIMIT named global_limit: Close 421 "4.3.2" "too many connections";
    /// Too many connections in a time.
    CONNECT_RATE named connect_rate: Close 421 "4.7.0" "too many connections in a short time";
    /// The error budget is used up.
    TOO_MANY_ERRORS as too_many_errors: Close 421 "4.7.0" "too many errors"; // rule B4
    /// No command for too long.
    TIMEOUT as timeout: Close 421 "4.4.2" "timeout exceeded";
    /// The message stalled, or came too slowly.
    DATA_TIMEOUT as data_timeout: Close 421 "4.4.2" "timeout";
    /// A session bound to one backend lost it.
    PINNED_BACKEND_LOST named pinned_backend_lost: Close 421 "4.4.2" "connection to the mail server lost";
    /// Another protocol than SMTP.
    NOT_SMTP as not_smtp: Close 421 "4.7.0" "this is SMTP"; // rule B3

    /// Too many messages or recipients in a time, at MAIL or RCPT.
    MAIL_RATE named mail_rate: Continue 450 "4.7.1" "too much mail in a short time, try again later";
    /// No backend is eligible for this transaction.
    NO_BACKEND as no_backend: Continue 451 "4.3.2" "service not available, try again later";
    /// Backends are eligible and none answered.
    NO_BACKEND_ANSWERED as no_backend_answered: Continue 451 "4.4.1" "no mail server answered, try again later";
    /// The backend of the transaction was lost and nothing can be replayed.
    BACKEND_LOST as backend_lost: Continue 451 "4.4.2" "connection to the mail server lost, try again";
    /// Lost behind the commit octet: nobody knows whether the message was taken.
    IN_DOUBT as in_doubt: Continue 451 "4.4.2" "no answer to the message, try again"; // rules F3, F4
    /// The backend did not answer in time.
    BACKEND_TIMEOUT as backend_timeout: Continue 451 "4.4.2" "the mail server did not answer in time, try again";
    /// The backend broke the protocol.
    BACKEND_PROTOCOL as backend_protocol: Continue 451 "4.5.0" "protocol error of the mail server, try again"; // rules G5, G8, D7
    /// A mistake of ours.
    INTERNAL as internal: Continue 451 "4.3.0" "local error, try again later";
    /// No memory, within our limits.
    NO_MEMORY as no_memory: Continue 452 "4.3.1" "out of memory, try again later";
    /// One RCPT more than can be taken.
    TOO_MANY_RECIPIENTS as too_many_recipients: Continue 452 "4.5.3" "too many recipients"; // rule S5
    /// No backend for AUTH (rule A7).
    AUTH_NOT_AVAILABLE named auth_not_available: Continue 454 "4.7.0" "temporary authentication failure";
    /// STARTTLS cannot be had now (rule T4).
    TLS_NOT_AVAILABLE named tls_not_available: Continue 454 "4.7.0" "TLS not available";
    /// A parameter we announced and no backend can take now.
    PARAMETER_NOT_NOW as parameter_not_now: Continue 455 "4.3.3" "parameter cannot be accommodated now"; // RFC 5321 §4.1.1.11, rule E3

    /// No command we know.
    UNKNOWN_COMMAND as unknown_command: Continue 500 "5.5.2" "command not recognized"; // rule G14
    /// Over the limit of a command line.
    LINE_TOO_LONG as line_too_long: Continue 500 "5.5.2" "line too long"; // rule G2
    /// A line without end.
    ENDLESS_LINE as endless_line: Close 500 "5.5.2" "line too long";
    /// Over the limit of a line within AUTH (RFC 4954 §4, rule G3).
    AUTH_LINE_TOO_LONG named auth_line_too_long: Continue 500 "5.5.6" "authentication exchange line is too long";
    /// A bare CR in a command, or LF where it does not end one.
    BARE_LINE_END as bare_line_end: Close 500 "5.5.2" "bare <CR> or <LF> in a command"; // rule G12
    /// Not UTF-8.
    NOT_UTF8 as not_utf8: Continue 500 "5.5.2" "command is not valid UTF-8"; // rule G13
    /// NUL or another control octet.
    CONTROL_OCTETS as control_octets: Continue 501 "5.5.2" "control characters are not allowed"; // rule G13
    /// EHLO or HELO without a name, or with one that is no name.
    BAD_HELLO as bad_hello: Continue 501 "5.5.4" "syntax: EHLO hostname";
    /// An argument where none belongs.
    NO_ARGUMENT as no_argument: Continue 501 "5.5.4" "no argument allowed"; // rule G14
    /// VRFY without argument.
    VRFY_SYNTAX as vrfy_syntax: Continue 501 "5.5.4" "syntax: VRFY address";
    /// AUTH without a mechanism, or with more than an initial response.
    AUTH_SYNTAX named auth_syntax: Continue 501 "5.5.4" "syntax: AUTH mechanism [initial-response]";
    /// MAIL without FROM:, or without an address behind it.
    MAIL_SYNTAX as mail_syntax: Continue 501 "5.5.4" "syntax: MAIL FROM:<address>";
    /// RCPT without TO:, or without an address behind it.
    RCPT_SYNTAX as rcpt_syntax: Continue 501 "5.5.4" "syntax: RCPT TO:<address>";
    /// No address between the brackets of MAIL.
    BAD_SENDER as bad_sender: Continue 501 "5.1.7" "bad sender address syntax";
    /// No address between the brackets of RCPT.
    BAD_RECIPIENT as bad_recipient: Continue 501 "5.1.3" "bad recipient address syntax";
    /// A parameter that is malformed or said twice.
    BAD_PARAMETER as bad_parameter: Continue 501 "5.5.4" "bad parameter";
    /// BDAT without a readable length: where its chunk ends is unknown.
    BAD_CHUNK as bad_chunk: Close 501 "5.5.4" "syntax: BDAT length [LAST]"; // rule C3
    /// Known and not done here.
    NOT_OFFERED as not_offered: Continue 502 "5.5.1" "command not implemented"; // rule B1
    /// A command in the wrong order.
    BAD_SEQUENCE as bad_sequence: Continue 503 "5.5.1" "bad sequence of commands"; // rule S1
    /// TLS first (rule T5).
    TLS_REQUIRED named tls_required: Continue 530 "5.7.0" "STARTTLS first";
    /// AUTH first (rule A1).
    AUTH_REQUIRED named auth_required: Continue 530 "5.7.0" "authentication required";
    /// Bare CR or LF in the message, where they are refused.
    BARE_IN_MESSAGE as bare_in_message: Continue 550 "5.5.2" "bare <CR> or <LF> in the message"; // rule D5
    /// NUL in the message, where it is refused.
    NUL_IN_MESSAGE as nul_in_message: Continue 550 "5.6.0" "NUL in the message"; // rule D8
    /// REQUIRETLS cannot be kept (RFC 8689).
    REQUIRETLS_UNMET named requiretls_unmet: Continue 550 "5.7.30" "REQUIRETLS needed";
    /// The message, or what SIZE says of it, is over the limit.
    TOO_BIG as too_big: Continue 552 "5.3.4" "message too big"; // RFC 1870 §6, rule D10
    /// The same, and too much of it to read on.
    FAR_TOO_BIG as far_too_big: Close 552 "5.3.4" "message too big"; // rules C2, D10
    /// Non-ASCII in MAIL or RCPT without SMTPUTF8.
    UTF8_UNMET as utf8_unmet: Continue 553 "5.6.7" "non-ASCII address without SMTPUTF8"; // RFC 6531 §3.5, rule G13
    /// Octets before the greeting, or behind STARTTLS (rules S14, T1).
    SYNCHRONIZATION named early_talker: Close 554 "5.5.0" "protocol synchronization";
    /// A client that is not allowed to connect, instead of the greeting.
    DENIED named denied: Continue 554 "5.7.1" "access denied"; // rule S6
    /// Whatever such a client says before QUIT.
    ACCESS_DENIED named access_denied: Continue 503 "5.5.1" "access denied"; // rule S6
    /// What a monitor's check may not say.
    MONITOR_ONLY named monitor_only: Continue 502 "5.5.1" "not available to monitors";
    /// DATA when every RCPT was refused.
    NO_RECIPIENTS as no_recipients: Continue 554 "5.5.1" "no valid recipients"; // rule S1
    /// Too many Received fields (rule M5).
    LOOP named loop: Continue 554 "5.4.6" "too many hops";
    /// A message that cannot be turned from BDAT into DATA (rule C6).
    NOT_CONVERTIBLE named not_convertible: Continue 554 "5.6.3" "message cannot be converted";
    /// A parameter that was never announced.
    PARAMETER_UNKNOWN as parameter_unknown: Continue 555 "5.5.4" "parameter not recognized"; // rule G14
}

impl OwnReply {
    /// The code.
    pub fn code(self) -> ReplyCode {
        self.code
    }

    /// Its place in tables of counts, and in [`OwnReply::ALL`].
    pub fn index(self) -> usize {
        usize::from(self.place)
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        Self::ALL[self.index()].name
    }

    /// Whether it refuses something: 4yz and 5yz.
    pub fn refuses(self) -> bool {
        self.code.class() >= 4
    }

    /// Whether the connection ends behind it (rule R1).
    pub fn next(self) -> Next {
        self.next
    }

    /// Appends the line with its CRLF. `host` is the listener's name, ASCII of at most 255 octets.
    pub fn write(self, host: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.code.digits());
        let host = if matches!(self.code.value(), 220 | 221 | 421) {
            host
        } else {
            ""
        };
        for word in [self.enhanced, host, self.text] {
            if !word.is_empty() {
                out.push(b' ');
                out.extend_from_slice(word.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The words of our replies: ours, but where the operator has chosen others (rule R2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<(OwnReply, Arc<str>)>);

impl Words {
    /// From now on `reply` is said with this line, which has no CRLF.
    pub fn put(&mut self, reply: OwnReply, line: Arc<str>) {
        self.0.retain(|(said, _)| *said != reply);
        self.0.push((reply, line));
    }

    /// The line chosen for a reply, without CRLF.
    pub fn chosen(&self, reply: OwnReply) -> Option<&Arc<str>> {
        let mut chosen = self.0.iter();
        chosen.find_map(|(said, line)| (*said == reply).then_some(line))
    }

    /// Appends the line of a reply with its CRLF. `host` is the listener's name.
    pub fn write(&self, reply: OwnReply, host: &str, out: &mut Vec<u8>) {
        match self.chosen(reply) {
            Some(line) => {
                out.extend_from_slice(line.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            None => reply.write(host, out),
        }
    }
}

/// Which octets a client may be sent in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyText {
    /// HT and printable ASCII.
    Ascii,
    /// UTF-8 as well, for a client that used SMTPUTF8 (RFC 6531 §3.7.4).
    Utf8,
}

/// Appends a backend's reply as the client is to get it (rule G11).
///
/// Octets the client may not be sent become `?`; a line over [`WRITTEN_LINE_MAX`] becomes several,
/// each with the enhanced code of the first (RFC 2034 §4). No line of a reply that was read makes
/// more than nine.
pub fn write_reply(reply: &Reply<'_>, allowed: ReplyText, out: &mut Vec<u8>) {
    let mut last_line = out.len();
    out.reserve(reply.octets.len());
    for line in reply.lines() {
        last_line = write_line(reply.code, &clean(line, allowed), out);
    }
    if let Some(separator) = out.get_mut(last_line + 3) {
        *separator = b' ';
    }
}

/// Appends one line of a backend's reply, as lines behind which more follow, and says where the
/// last of them begins.
fn write_line(code: ReplyCode, text: &[u8], out: &mut Vec<u8>) -> usize {
    let mut lead: &[u8] = b"";
    let mut rest = text;
    loop {
        let start = out.len();
        let room = WRITTEN_LINE_MAX - FRAME_LENGTH - lead.len();
        let (part, behind) = rest.split_at(whole_characters(rest, room));
        out.extend_from_slice(&code.digits());
        out.push(b'-');
        out.extend_from_slice(lead);
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
        if behind.is_empty() {
            return start;
        }
        rest = behind;
        lead = enhanced_word(text);
    }
}

/// As many octets, at most `room`, as end with a whole character.
fn whole_characters(text: &[u8], room: usize) -> usize {
    let inside = |end: usize| matches!(text.get(end), Some(0x80..=0xbf));
    let mut end = room.min(text.len());
    while end > 0 && inside(end) {
        end -= 1;
    }
    end
}

/// The enhanced code a line begins with, and the space behind it.
fn enhanced_word(text: &[u8]) -> &[u8] {
    match memchr(b' ', text) {
        Some(end) if EnhancedCode::read(text).is_some() => &text[..=end],
        Some(_) | None => b"",
    }
}

/// `line` with `?` for each octet that is not allowed.
fn clean(line: &[u8], allowed: ReplyText) -> Cow<'_, [u8]> {
    let plain = |octet: &u8| matches!(octet, b'\t' | b' '..=b'~');
    if line.iter().all(plain) {
        return Cow::Borrowed(line);
    }
    let mut cleaned = Vec::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        let valid = chunk.valid().bytes().map(|octet| match (octet, allowed) {
            (0x80.., ReplyText::Utf8) => octet,
            _ if plain(&octet) => octet,
            _ => b'?',
        });
        cleaned.extend(valid);
        cleaned.extend(chunk.invalid().iter().map(|_| b'?'));
    }
    Cow::Owned(cleaned)
}

#[cfg(test)]
mod tests {
    use super::super::reply::{ReplyRead, read_reply};
    use super::*;

    fn reply(octets: &[u8]) -> Reply<'_> {
        match read_reply(octets) {
            ReplyRead::Complete(reply) => reply,
            other => panic!("{other:?} for {}", octets.escape_ascii()),
        }
    }

    fn written(reply: OwnReply) -> String {
        let mut out = Vec::new();
        reply.write("mx.example", &mut out);
        String::from_utf8(out).expect("we speak ASCII")
    }

    #[test]
    fn rule_g9_each_of_our_replies_has_an_enhanced_code_of_its_class() {
        for Wording { reply: own, .. } in OwnReply::ALL.iter().copied() {
            let text = written(own);
            let reply = reply(text.as_bytes());
            assert_eq!(reply.code, own.code());
            assert_eq!(reply.octets.len(), text.len());
            let class = reply.enhanced.map(|enhanced| u16::from(enhanced.class));
            let plain = matches!(reply.code.value(), 220 | 354);
            assert_eq!(class, (!plain).then_some(reply.code.class()), "{text}");
        }
    }

    #[test]
    fn rule_g10_the_host_is_the_first_word_of_220_221_and_421() {
        for Wording { reply: own, .. } in OwnReply::ALL.iter().copied() {
            let text = written(own);
            let mut words = text.split(' ').skip(1).filter(|word| {
                let mut letters = word.bytes();
                !letters.all(|octet| octet.is_ascii_digit() || octet == b'.')
            });
            let named = words.next() == Some("mx.example");
            let expected = matches!(own.code().value(), 220 | 221 | 421);
            assert_eq!(named, expected, "{text}");
        }
    }

    #[test]
    fn the_lines_that_operators_are_shown_are_those_that_are_said_r2() {
        for wording in OwnReply::ALL {
            let line = wording.default.replace("{hostname}", "mx.example");
            assert_eq!(line, format!("\"{}\"", written(wording.reply).trim_end()));
            assert!(wording.when.ends_with('.'), "{}", wording.when);
        }
    }

    #[test]
    fn each_reply_has_a_name_of_its_own_and_finds_its_place() {
        let mut names = std::collections::BTreeSet::new();
        for (place, wording) in OwnReply::ALL.iter().enumerate() {
            let own = wording.reply;
            assert_eq!((own.index(), own.name()), (place, wording.name));
            assert!(wording.key.is_none_or(|key| key == wording.name));
            assert!(names.insert(wording.name), "{} twice", wording.name);
            assert_eq!(own.refuses(), own.code().value() >= 400);
        }
    }

    #[test]
    fn rule_r2_words_are_the_operator_s_where_chosen() {
        let mut words = Words::default();
        words.put(OwnReply::TIMEOUT, "421 4.4.2 first".into());
        words.put(OwnReply::TIMEOUT, "421 4.4.2 mx.example bye".into());
        let mut out = Vec::new();
        words.write(OwnReply::TIMEOUT, "mx.example", &mut out);
        words.write(OwnReply::OK, "mx.example", &mut out);
        assert_eq!(out, b"421 4.4.2 mx.example bye\r\n250 2.0.0 ok\r\n");
    }

    #[test]
    fn rule_r1_421_and_221_close_and_the_rest_where_framing_is_lost() {
        let also = [
            OwnReply::BARE_LINE_END,
            OwnReply::ENDLESS_LINE,
            OwnReply::BAD_CHUNK,
            OwnReply::FAR_TOO_BIG,
            OwnReply::SYNCHRONIZATION,
        ];
        for Wording { reply: own, .. } in OwnReply::ALL.iter().copied() {
            let closes = matches!(own.code().value(), 221 | 421) || also.contains(&own);
            assert_eq!(own.next() == Next::Close, closes, "{}", written(own));
        }
    }

    #[test]
    fn no_reply_of_ours_is_too_long_for_the_longest_host() {
        for Wording { reply: own, .. } in OwnReply::ALL {
            let mut out = Vec::new();
            own.write(&"h".repeat(255), &mut out);
            assert!(out.len() <= WRITTEN_LINE_MAX);
        }
    }

    #[test]
    fn replies_of_ours_read_as_in_the_table() {
        let table = [
            (OwnReply::GREETING, "220 mx.example ESMTP\r\n"),
            (OwnReply::GOODBYE, "221 2.0.0 mx.example closing\r\n"),
            (
                OwnReply::SHUTTING_DOWN,
                "421 4.3.2 mx.example shutting down\r\n",
            ),
            (
                OwnReply::TOO_MANY_ERRORS,
                "421 4.7.0 mx.example too many errors\r\n",
            ),
            (OwnReply::TOO_BIG, "552 5.3.4 message too big\r\n"),
            (OwnReply::SEND_DATA, "354 end with <CRLF>.<CRLF>\r\n"),
        ];
        for (own, text) in table {
            assert_eq!(written(own), text);
        }
    }

    fn relayed(octets: &[u8], allowed: ReplyText) -> Vec<u8> {
        let mut out = b"before\r\n".to_vec();
        write_reply(&reply(octets), allowed, &mut out);
        out.split_off(8)
    }

    #[test]
    fn rule_g11_a_clean_reply_is_relayed_as_it_is() {
        for octets in [
            "250 2.0.0 Ok: queued as 4Xyz\r\n",
            "250-2.1.5 one\r\n250-2.1.5 two\r\n250 2.1.5 three\r\n",
            "550-5.7.1 tab\there\r\n550 5.7.1 end\r\n",
        ] {
            let out = relayed(octets.as_bytes(), ReplyText::Ascii);
            assert_eq!(out, octets.as_bytes());
        }
    }

    #[test]
    fn rule_g11_no_octet_passes_that_could_be_another_line() {
        let cases: [(&[u8], &str, &str); 6] = [
            (b"250\r\n", "250 \r\n", "250 \r\n"),
            (
                b"250-a\n250 b\n",
                "250-a\r\n250 b\r\n",
                "250-a\r\n250 b\r\n",
            ),
            (
                b"550 a\rb\0c\x1b[2Jd\x7f\r\n",
                "550 a?b?c?[2Jd?\r\n",
                "550 a?b?c?[2Jd?\r\n",
            ),
            (b"550 a\r\r\n", "550 a?\r\n", "550 a?\r\n"),
            ("550 né\r\n".as_bytes(), "550 n??\r\n", "550 né\r\n"),
            (
                b"550 n\xe9 \xc3\xa9\xff\r\n",
                "550 n? ???\r\n",
                "550 n? \u{e9}?\r\n",
            ),
        ];
        for (octets, ascii, utf8) in cases {
            let text = |allowed| String::from_utf8(relayed(octets, allowed)).expect("UTF-8");
            assert_eq!(text(ReplyText::Ascii), ascii);
            assert_eq!(text(ReplyText::Utf8), utf8);
        }
    }

    #[test]
    fn rule_g11_long_lines_are_split_behind_whole_characters() {
        let long = format!("550-5.7.1 x{}\r\n550 5.7.1 end\r\n", "é".repeat(1000));
        let out = relayed(long.as_bytes(), ReplyText::Utf8);
        let text = String::from_utf8(out).expect("characters are whole");
        let lines: Vec<_> = text.split_inclusive("\r\n").collect();
        assert_eq!(lines.len(), 6);
        let (last, more) = lines.split_last().expect("there are lines");
        assert_eq!(*last, "550 5.7.1 end\r\n");
        assert!(more.iter().all(|line| line.starts_with("550-5.7.1 ")));
        assert!(lines.iter().all(|line| line.len() <= WRITTEN_LINE_MAX));
        assert_eq!(text.matches('é').count(), 1000);

        let at_limit = format!("250 {}\r\n", "x".repeat(506));
        assert_eq!(
            relayed(at_limit.as_bytes(), ReplyText::Ascii),
            at_limit.as_bytes()
        );
        let over = format!("250 {}\r\n", "x".repeat(507));
        let split = format!("250-{}\r\n250 x\r\n", "x".repeat(506));
        assert_eq!(relayed(over.as_bytes(), ReplyText::Ascii), split.as_bytes());
    }
}
