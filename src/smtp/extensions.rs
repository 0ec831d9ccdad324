//! Service extensions: what a backend announces, and what we may announce (rules E1–E4).
//!
//! The list is of what is allowed: a keyword nobody here knows could change how replies or payload
//! are counted, so it is counted and never passed on. PIPELINING, SIZE, STARTTLS and LIMITS are our
//! own; the others are announced if every backend has them. BINARYMIME, REQUIRETLS, PRDR, the
//! X keywords and all the rest are stripped by not being here.

use std::num::NonZeroU64;

use super::parameters::Needed;
use super::reply::Reply;

/// The most AUTH mechanisms recorded of a backend.
pub const MECHANISMS_MAX: usize = 32;
/// The longest name of an AUTH mechanism (RFC 4422 §3.1), in octets.
const MECHANISM_LENGTH_MAX: usize = 20;

/// An extension we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    /// RFC 2920.
    Pipelining,
    /// RFC 1870.
    Size,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    Smtputf8,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 3461.
    Dsn,
    /// RFC 3030, without BINARYMIME.
    Chunking,
    /// RFC 3207.
    Starttls,
    /// RFC 9422.
    Limits,
    /// RFC 4954.
    Auth,
}

impl Keyword {
    /// All of them, in the order in which they are announced.
    pub const ALL: [Self; 10] = [
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::Smtputf8,
        Self::EnhancedStatusCodes,
        Self::Dsn,
        Self::Chunking,
        Self::Starttls,
        Self::Limits,
        Self::Auth,
    ];

    /// The word of the EHLO reply.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::Smtputf8 => "SMTPUTF8",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::Dsn => "DSN",
            Self::Chunking => "CHUNKING",
            Self::Starttls => "STARTTLS",
            Self::Limits => "LIMITS",
            Self::Auth => "AUTH",
        }
    }

    fn named(word: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|keyword| word.eq_ignore_ascii_case(keyword.name().as_bytes()))
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A set of extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keywords(u16);

impl Keywords {
    /// What may be announced in clear text without a certificate: all but STARTTLS and AUTH.
    pub const CLEAR: Self = Self(0)
        .with(Keyword::Pipelining)
        .with(Keyword::Size)
        .with(Keyword::EightBitMime)
        .with(Keyword::Smtputf8)
        .with(Keyword::EnhancedStatusCodes)
        .with(Keyword::Dsn)
        .with(Keyword::Chunking)
        .with(Keyword::Limits);
    /// Announced whatever the backends have.
    const OWN: Self = Self(0)
        .with(Keyword::Pipelining)
        .with(Keyword::Size)
        .with(Keyword::Starttls)
        .with(Keyword::Limits);

    /// The set with one more.
    #[must_use]
    pub const fn with(self, keyword: Keyword) -> Self {
        Self(self.0 | 1 << keyword as u16)
    }

    /// Adds one.
    pub fn insert(&mut self, keyword: Keyword) {
        self.0 |= keyword.bit();
    }

    /// Takes one out.
    pub fn remove(&mut self, keyword: Keyword) {
        self.0 &= !keyword.bit();
    }

    /// Whether it is there.
    pub fn has(self, keyword: Keyword) -> bool {
        self.0 & keyword.bit() != 0
    }

    /// Whether none is there.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each, in the order of [`Keyword::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Keyword> {
        Keyword::ALL
            .into_iter()
            .filter(move |&keyword| self.has(keyword))
    }
}

/// Limits of a session (RFC 9422 §4): each 1 to 999,999, or unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// RCPTMAX: recipients of a transaction.
    pub rcpt_max: Option<u32>,
    /// MAILMAX: transactions of a session.
    pub mail_max: Option<u32>,
    /// RCPTDOMAINMAX: different domains among the recipients of a transaction.
    pub rcpt_domain_max: Option<u32>,
}

impl SessionLimits {
    /// RFC 9422 §3: names and values, of which unknown or malformed ones say nothing.
    fn read(&mut self, word: &[u8]) {
        let mut parts = word.splitn(2, |&octet| octet == b'=');
        let name = parts.next().unwrap_or_default().to_ascii_uppercase();
        let value = read_limit(parts.next().unwrap_or_default());
        let known = match name.as_slice() {
            b"RCPTMAX" => &mut self.rcpt_max,
            b"MAILMAX" => &mut self.mail_max,
            b"RCPTDOMAINMAX" => &mut self.rcpt_domain_max,
            _ => return,
        };
        *known = smaller(*known, value);
    }

    fn named(self) -> [(&'static str, Option<u32>); 3] {
        [
            ("RCPTMAX", self.rcpt_max),
            ("MAILMAX", self.mail_max),
            ("RCPTDOMAINMAX", self.rcpt_domain_max),
        ]
    }
}

/// The extensions of one side: what a backend announced, or what we announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Those we know.
    pub keywords: Keywords,
    /// The value of SIZE in octets; none if it has no value or says 0, which is no fixed limit.
    pub size_max: Option<NonZeroU64>,
    /// The values of LIMITS.
    pub limits: SessionLimits,
    /// The mechanisms of AUTH, in upper case, at most [`MECHANISMS_MAX`]. Of a backend only.
    pub mechanisms: Vec<Box<str>>,
    /// How many other keywords were there. Of a backend only.
    pub unknown: u16,
}

/// What we would announce ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnExtensions {
    /// Nothing else is announced. STARTTLS is in it if there is a certificate and no TLS yet.
    pub allowed: Keywords,
    /// Our own limit of a message, in octets.
    pub size_max: Option<NonZeroU64>,
    /// Our own limits of a session.
    pub limits: SessionLimits,
}

impl Extensions {
    /// Reads a backend's reply to EHLO, whose code the caller has found to be 250.
    ///
    /// What is malformed is read as the keyword without a value.
    pub fn read(reply: &Reply<'_>) -> Self {
        Self::of_lines(reply.lines().skip(1))
    }

    /// Reads the lines of such a reply behind its first, without their codes, as a probe keeps them
    /// ([`ProbeEnd::keywords`](super::ProbeEnd)).
    pub fn of_lines<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut extensions = Self::default();
        for line in lines {
            let mut words = line
                .split(|&octet| matches!(octet, b' ' | b'\t'))
                .filter(|word| !word.is_empty());
            match words.next().map(Keyword::named) {
                Some(Some(keyword)) => extensions.add(keyword, words),
                Some(None) => extensions.unknown = extensions.unknown.saturating_add(1),
                None => {}
            }
        }
        extensions
    }

    fn add<'a>(&mut self, keyword: Keyword, mut words: impl Iterator<Item = &'a [u8]>) {
        self.keywords.insert(keyword);
        match keyword {
            Keyword::Size => {
                self.size_max = smaller(self.size_max, words.next().and_then(read_size_max));
            }
            Keyword::Limits => words.for_each(|word| self.limits.read(word)),
            Keyword::Auth => words.for_each(|word| self.add_mechanism(word)),
            Keyword::Pipelining
            | Keyword::EightBitMime
            | Keyword::Smtputf8
            | Keyword::EnhancedStatusCodes
            | Keyword::Dsn
            | Keyword::Chunking
            | Keyword::Starttls => {}
        }
    }

    fn add_mechanism(&mut self, word: &[u8]) {
        let name = std::str::from_utf8(word).unwrap_or_default();
        let fine = is_mechanism(word) && self.mechanisms.len() < MECHANISMS_MAX;
        let name = name.to_ascii_uppercase();
        if fine && !self.mechanisms.iter().any(|known| **known == *name) {
            self.mechanisms.push(name.into());
        }
    }

    /// What may be announced in front of these backends (rule E3).
    ///
    /// A backend whose extensions are not known yet is given as `Extensions::default()`. Then, and
    /// without any backend, only our own are left. AUTH is never among them.
    pub fn announced<'a>(
        own: &OwnExtensions,
        backends: impl IntoIterator<Item = &'a Self>,
    ) -> Self {
        let mut shared = None;
        let mut size_max = own.size_max;
        let mut limits = own.limits;
        for backend in backends {
            let so_far = shared.unwrap_or(backend.keywords);
            shared = Some(so_far.intersection(backend.keywords));
            size_max = smaller(size_max, backend.size_max);
            limits.rcpt_max = smaller(limits.rcpt_max, backend.limits.rcpt_max);
            limits.rcpt_domain_max =
                smaller(limits.rcpt_domain_max, backend.limits.rcpt_domain_max);
            // How many transactions a kept-alive connection carries is between us and the backend.
        }
        let mut keywords = Keywords::OWN.union(shared.unwrap_or_default());
        keywords = keywords.intersection(own.allowed);
        keywords.remove(Keyword::Auth);
        if !keywords.has(Keyword::EightBitMime) {
            keywords.remove(Keyword::Smtputf8);
        }
        if limits == SessionLimits::default() {
            keywords.remove(Keyword::Limits);
        }
        Self {
            keywords,
            size_max,
            limits,
            ..Self::default()
        }
    }

    /// What a transaction needs and this backend does not have (rules E3, F8): nothing if it may
    /// be chosen. `Size` is in it if the message is over the backend's limit.
    pub fn lacks(&self, needed: Needed) -> Keywords {
        let mut lacking = needed.keywords.without(self.keywords);
        let over = |max: NonZeroU64| needed.size.is_some_and(|size| size > max.get());
        if self.size_max.is_some_and(over) {
            lacking.insert(Keyword::Size);
        }
        lacking
    }

    /// Appends the reply to EHLO: our name, then a line for each extension (rule E4).
    pub fn write_ehlo(&self, host: &str, out: &mut Vec<u8>) {
        let mut last_line = out.len();
        out.extend_from_slice(b"250-");
        out.extend_from_slice(host.as_bytes());
        out.extend_from_slice(b"\r\n");
        for keyword in self.keywords.iter() {
            last_line = out.len();
            out.extend_from_slice(b"250-");
            out.extend_from_slice(keyword.name().as_bytes());
            self.write_values(keyword, out);
            out.extend_from_slice(b"\r\n");
        }
        out[last_line + 3] = b' ';
    }

    fn write_values(&self, keyword: Keyword, out: &mut Vec<u8>) {
        match keyword {
            Keyword::Size => {
                if let Some(max) = self.size_max {
                    out.extend_from_slice(format!(" {max}").as_bytes());
                }
            }
            Keyword::Limits => {
                for (name, value) in self.limits.named() {
                    if let Some(value) = value {
                        out.extend_from_slice(format!(" {name}={value}").as_bytes());
                    }
                }
            }
            Keyword::Auth => {
                for mechanism in &self.mechanisms {
                    out.push(b' ');
                    out.extend_from_slice(mechanism.as_bytes());
                }
            }
            Keyword::Pipelining
            | Keyword::EightBitMime
            | Keyword::Smtputf8
            | Keyword::EnhancedStatusCodes
            | Keyword::Dsn
            | Keyword::Chunking
            | Keyword::Starttls => {}
        }
    }
}

/// Appends the reply to HELO: our name alone (rule E4).
pub fn write_helo(host: &str, out: &mut Vec<u8>) {
    Extensions::default().write_ehlo(host, out);
}

/// Whether octets are the name of a SASL mechanism (RFC 4422 §3.1), in any case.
pub(super) fn is_mechanism(name: &[u8]) -> bool {
    let letter = |&octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=MECHANISM_LENGTH_MAX).contains(&name.len()) && name.iter().all(letter)
}

/// One to twenty digits (RFC 1870 §4); 0, and what no `u64` holds, is no limit.
fn read_size_max(digits: &[u8]) -> Option<NonZeroU64> {
    number(digits, 20).and_then(NonZeroU64::new)
}

/// One to six digits, not 0 (RFC 9422 §4).
fn read_limit(digits: &[u8]) -> Option<u32> {
    number(digits, 6)
        .and_then(|value| u32::try_from(value).ok())
        .filter(|&value| value > 0)
}

fn number(digits: &[u8], length_max: usize) -> Option<u64> {
    let digits = (digits.len() <= length_max && digits.iter().all(u8::is_ascii_digit))
        .then(|| std::str::from_utf8(digits).ok())?;
    digits?.parse().ok()
}

/// The smaller of what is known.
fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (known, None) | (None, known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::{ReplyRead, read_reply};
    use super::*;

    fn read(text: &str) -> Extensions {
        match read_reply(text.as_bytes()) {
            ReplyRead::Complete(reply) => Extensions::read(&reply),
            other => panic!("{other:?} for {text}"),
        }
    }

    fn set(keywords: &[Keyword]) -> Keywords {
        keywords
            .iter()
            .copied()
            .fold(Keywords::default(), Keywords::with)
    }

    fn own() -> OwnExtensions {
        OwnExtensions {
            allowed: Keywords::CLEAR,
            size_max: None,
            limits: SessionLimits::default(),
        }
    }

    fn written(extensions: &Extensions) -> String {
        let mut out = b"before\r\n".to_vec();
        extensions.write_ehlo("lb.example", &mut out);
        String::from_utf8(out.split_off(8)).expect("we speak ASCII")
    }

    const POSTFIX: &str = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n\
        250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n\
        250-AUTH=PLAIN LOGIN\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n\
        250-SMTPUTF8\r\n250 CHUNKING\r\n";
    const EXIM: &str = "250-mx Hello lb [192.0.2.9]\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n\
        250-PIPELINING\r\n250-PIPECONNECT\r\n250-CHUNKING\r\n250-PRDR\r\n250 HELP\r\n";
    const OPENSMTPD: &str = "250-os.test Hello lb [192.0.2.9], pleased to meet you\r\n\
        250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SIZE 36700160\r\n250-DSN\r\n\
        250 HELP\r\n";

    #[test]
    fn what_real_servers_announce_is_read() {
        use Keyword::{
            Auth, Chunking, Dsn, EightBitMime, EnhancedStatusCodes, Pipelining, Size, Smtputf8,
            Starttls,
        };
        let postfix = read(POSTFIX);
        let keywords = [
            Pipelining,
            Size,
            Starttls,
            Auth,
            EnhancedStatusCodes,
            EightBitMime,
            Dsn,
            Smtputf8,
            Chunking,
        ];
        assert_eq!(postfix.keywords, set(&keywords));
        assert_eq!(postfix.size_max, NonZeroU64::new(10_240_000));
        assert_eq!(postfix.mechanisms, ["PLAIN".into(), "LOGIN".into()]);
        // VRFY, ETRN and the AUTH= of old clients.
        assert_eq!(postfix.unknown, 3);

        let exim = read(EXIM);
        assert_eq!(
            exim.keywords,
            set(&[Size, EightBitMime, Pipelining, Chunking])
        );
        assert_eq!(exim.unknown, 3);
        let opensmtpd = read(OPENSMTPD);
        let keywords = [EightBitMime, EnhancedStatusCodes, Size, Dsn];
        assert_eq!(opensmtpd.keywords, set(&keywords));

        let limits =
            read("250-mx\r\n250-limits rcptmax=20 MAILMAX=5 X=1 RCPTDOMAINMAX=0\r\n250 x\r\n");
        assert_eq!(limits.limits.rcpt_max, Some(20));
        assert_eq!(limits.limits.mail_max, Some(5));
        assert_eq!(limits.limits.rcpt_domain_max, None);
        assert_eq!(limits.keywords, set(&[Keyword::Limits]));
    }

    #[test]
    fn what_is_malformed_is_read_without_its_value() {
        for value in ["", " ", " 0", " x", " 99999999999999999999999", " -5"] {
            let extensions = read(&format!("250-mx\r\n250 SIZE{value}\r\n"));
            assert_eq!(extensions.keywords, set(&[Keyword::Size]), "{value:?}");
            assert_eq!(extensions.size_max, None, "{value:?}");
        }
        for value in [
            "RCPTMAX",
            "RCPTMAX=",
            "RCPTMAX=0",
            "RCPTMAX=1000000",
            "RCPTMAX=+1",
        ] {
            let extensions = read(&format!("250-mx\r\n250 LIMITS {value}\r\n"));
            assert_eq!(extensions.limits, SessionLimits::default(), "{value:?}");
        }
        let lines = [b"SIZE 5".as_slice(), b"dsn"];
        let read_lines = Extensions::of_lines(lines);
        assert_eq!(read_lines, read("250-mx\r\n250-SIZE 5\r\n250 DSN\r\n"));
        // The first line is a name, whatever it says.
        assert_eq!(read("250 PIPELINING\r\n"), Extensions::default());
        assert_eq!(read("250-mx\r\n250 \r\n"), Extensions::default());
        let many: Vec<_> = (0..100).map(|number| format!("M{number}")).collect();
        let many = many.join(" ");
        let extensions = read(&format!("250-mx\r\n250 AUTH (bad) plain PLAIN {many}\r\n"));
        assert_eq!(extensions.mechanisms.len(), MECHANISMS_MAX);
        assert_eq!(*extensions.mechanisms[0], *"PLAIN");
    }

    #[test]
    fn rule_e3_what_is_announced_is_what_every_backend_has() {
        let backends = [read(POSTFIX), read(EXIM), read(OPENSMTPD)];
        let announced = Extensions::announced(&own(), &backends);
        let expected = "250-lb.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n\
            250 8BITMIME\r\n";
        assert_eq!(written(&announced), expected);

        let announced = Extensions::announced(&own(), &backends[..1]);
        let expected = "250-lb.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n\
            250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n\
            250 CHUNKING\r\n";
        assert_eq!(written(&announced), expected);
    }

    #[test]
    fn rule_e3_our_own_are_announced_whatever_the_backends_have() {
        let alone = "250-lb.example\r\n250-PIPELINING\r\n250 SIZE\r\n";
        let none: [Extensions; 0] = [];
        assert_eq!(written(&Extensions::announced(&own(), &none)), alone);
        let unknown = [read(POSTFIX), Extensions::default()];
        let announced = Extensions::announced(&own(), &unknown);
        let expected = "250-lb.example\r\n250-PIPELINING\r\n250 SIZE 10240000\r\n";
        assert_eq!(written(&announced), expected);
        let own = OwnExtensions {
            allowed: Keywords::CLEAR.with(Keyword::Starttls),
            size_max: NonZeroU64::new(5000),
            limits: SessionLimits {
                mail_max: Some(100),
                rcpt_max: Some(1000),
                rcpt_domain_max: None,
            },
        };
        let limited = read("250-mx\r\n250 LIMITS RCPTMAX=50 MAILMAX=2 RCPTDOMAINMAX=3\r\n");
        let announced = Extensions::announced(&own, &[limited, read(POSTFIX)]);
        let expected = "250-lb.example\r\n250-PIPELINING\r\n250-SIZE 5000\r\n\
            250-STARTTLS\r\n250 LIMITS RCPTMAX=50 MAILMAX=100 RCPTDOMAINMAX=3\r\n";
        assert_eq!(written(&announced), expected);
    }

    #[test]
    fn rule_e3_smtputf8_needs_8bitmime() {
        let odd = read("250-mx\r\n250 SMTPUTF8\r\n");
        let announced = Extensions::announced(&own(), [&odd]);
        assert!(!announced.keywords.has(Keyword::Smtputf8));
    }

    #[test]
    fn rule_e1_nothing_is_announced_that_is_not_on_the_list() {
        let odd = "250-mx\r\n250-BINARYMIME\r\n250-REQUIRETLS\r\n250-XCLIENT ADDR\r\n\
            250-X-EXPS\r\n250-DELIVERBY\r\n250-BURL\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n";
        let allowed = OwnExtensions {
            allowed: set(&Keyword::ALL).without(set(&[Keyword::Starttls])),
            ..own()
        };
        let announced = Extensions::announced(&allowed, [&read(odd)]);
        let expected = "250-lb.example\r\n250-PIPELINING\r\n250 SIZE\r\n";
        assert_eq!(written(&announced), expected);
        // And what the operator does not allow is not announced either.
        let pinned = OwnExtensions {
            allowed: set(&[Keyword::EightBitMime]),
            ..own()
        };
        let announced = Extensions::announced(&pinned, [&read(POSTFIX)]);
        assert_eq!(written(&announced), "250-lb.example\r\n250 8BITMIME\r\n");
    }

    #[test]
    fn rule_e4_helo_is_answered_with_our_name_alone() {
        let mut out = Vec::new();
        write_helo("lb.example", &mut out);
        assert_eq!(out, b"250 lb.example\r\n");
    }

    #[test]
    fn rule_f8_a_backend_that_lacks_what_is_needed_is_told() {
        let needed = |keywords: &[Keyword], size| Needed {
            keywords: set(keywords),
            size,
        };
        let exim = read(EXIM);
        let fits = needed(
            &[Keyword::EightBitMime, Keyword::Chunking],
            Some(52_428_800),
        );
        assert!(exim.lacks(fits).is_empty());
        let more = needed(&[Keyword::Dsn, Keyword::EightBitMime], Some(52_428_801));
        assert_eq!(exim.lacks(more), set(&[Keyword::Dsn, Keyword::Size]));
        assert!(exim.lacks(Needed::default()).is_empty());
        // Without a limit any size fits, and SIZE itself is not needed.
        let none = Extensions::default();
        assert!(none.lacks(needed(&[], Some(u64::MAX))).is_empty());
    }
}
