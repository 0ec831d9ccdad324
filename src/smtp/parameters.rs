//! The parameters of MAIL and RCPT, and whether they may be used (RFC 5321 §4.1.1.11, rule E3).
//!
//! A parameter we announced is checked for its form and passed on as it came; one we never
//! announced is refused with 555; one that we announced and that no backend takes at this moment
//! with 455, so that the client keeps its mail and tries again. What a transaction uses is summed
//! up in [`Needed`]: a backend that lacks any of it is not chosen (rule F8).

use memchr::memchr;

use super::budget::Cost;
use super::extensions::{Extensions, Keyword, Keywords};
use super::replies::OwnReply;

/// The parameters of one command, each of them well formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters<'a>(&'a [u8]);

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Letters, digits and `-`, in any case.
    pub keyword: &'a [u8],
    /// What stands behind the first `=`; maybe nothing.
    pub value: Option<&'a [u8]>,
    /// Both, as they came.
    pub octets: &'a [u8],
}

/// Why a command with parameters is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Its value has the wrong form, or it was said twice.
    #[error("a parameter is malformed or given twice")]
    Malformed,
    /// We never announced it.
    #[error("a parameter was never announced")]
    NeverAnnounced,
    /// We announced it, and no backend can take it now.
    #[error("no backend can take an announced parameter now")]
    NotNow,
    /// SIZE is over the limit (rule D10).
    #[error("the announced message is over the limit")]
    TooBig,
}

impl ParameterError {
    /// What the client is told.
    pub fn reply(self) -> OwnReply {
        match self {
            Self::Malformed => OwnReply::BAD_PARAMETER,
            Self::NeverAnnounced => OwnReply::PARAMETER_UNKNOWN,
            Self::NotNow => OwnReply::PARAMETER_NOT_NOW,
            Self::TooBig => OwnReply::TOO_BIG,
        }
    }

    /// What it costs the client: nothing where it believed what we had announced, or asked first.
    pub fn cost(self) -> Cost {
        match self {
            Self::Malformed | Self::NeverAnnounced => Cost::Error,
            Self::NotNow | Self::TooBig => Cost::Nothing,
        }
    }
}

/// Whether a transaction uses SMTPUTF8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Smtputf8 {
    /// MAIL had the parameter: addresses may be UTF-8.
    Used,
    /// They are ASCII.
    #[default]
    Unused,
}

/// BODY of MAIL (RFC 6152).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// What a backend must have for a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// The extensions whose parameters or commands are used.
    pub keywords: Keywords,
    /// What MAIL said of the size, in octets.
    pub size: Option<u64>,
}

/// What the parameters of MAIL say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailTerms {
    /// The size the client announced, in octets.
    pub size: Option<u64>,
    /// BODY, if it was given.
    pub body: Option<Body>,
    /// Whether SMTPUTF8 was.
    pub smtputf8: Smtputf8,
    /// What a backend must have.
    pub needed: Needed,
}

impl<'a> Parameters<'a> {
    /// Reads what follows a path; `None` if it is not parameters.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let parameters = Self(text);
        let apart = text.first().is_none_or(|&octet| is_blank(octet));
        (apart && parameters.iter().all(Parameter::is_well_formed)).then_some(parameters)
    }

    /// Each in turn.
    pub fn iter(self) -> impl Iterator<Item = Parameter<'a>> {
        let words = self.0.split(|&octet| is_blank(octet));
        words.filter(|word| !word.is_empty()).map(Parameter::of)
    }

    /// Whether there is one with this keyword.
    pub fn has(self, keyword: &str) -> bool {
        self.iter().any(|parameter| parameter.is(keyword))
    }
}

impl<'a> Parameter<'a> {
    fn of(octets: &'a [u8]) -> Self {
        let mut parts = octets.splitn(2, |&octet| octet == b'=');
        Self {
            keyword: parts.next().unwrap_or_default(),
            value: parts.next(),
            octets,
        }
    }

    /// Whether it has this keyword, in any case.
    pub fn is(self, keyword: &str) -> bool {
        self.keyword.eq_ignore_ascii_case(keyword.as_bytes())
    }

    fn is_well_formed(self) -> bool {
        let mut letters = self.keyword.iter();
        let first = letters.next().is_some_and(u8::is_ascii_alphanumeric);
        let keyword = first && letters.all(|&octet| octet.is_ascii_alphanumeric() || octet == b'-');
        let value = self.value.unwrap_or_default();
        keyword && value.iter().all(|&octet| octet > b' ' && octet != 0x7f)
    }

    /// The value, which must not be empty.
    fn needs_value(self) -> Result<&'a [u8], ParameterError> {
        let value = self.value.filter(|value| !value.is_empty());
        value.ok_or(ParameterError::Malformed)
    }

    fn needs_no_value(self) -> Result<(), ParameterError> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(ParameterError::Malformed),
        }
    }
}

/// Space and tab, which separate the words of a command.
pub(super) fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&octet| !is_blank(octet));
    &text[start.unwrap_or(text.len())..]
}

/// Judges the parameters of MAIL against what this client was `announced` at its EHLO; `None` if it
/// said HELO, which allows none (rule E4).
///
/// # Errors
/// The reply for the first parameter that cannot be used.
pub fn judge_mail(
    parameters: Parameters<'_>,
    announced: Option<&Extensions>,
) -> Result<MailTerms, ParameterError> {
    let mut terms = MailTerms::default();
    let mut seen = Seen::default();
    for parameter in parameters.iter() {
        let known = MailParameter::of(parameter).ok_or(ParameterError::NeverAnnounced)?;
        let announced = announced_to(announced, known.extension())?;
        seen.first_time(known as u8)?;
        match known {
            MailParameter::Size => {
                let size = read_size(parameter.needs_value()?)?;
                if announced.size_max.is_some_and(|max| size > max.get()) {
                    return Err(ParameterError::TooBig);
                }
                terms.size = Some(size);
                terms.needed.size = Some(size);
                // The word itself is left out towards a backend that does not know it.
                continue;
            }
            MailParameter::Body => terms.body = Some(read_body(parameter.needs_value()?)?),
            MailParameter::Smtputf8 => {
                parameter.needs_no_value()?;
                terms.smtputf8 = Smtputf8::Used;
            }
            MailParameter::Ret => check_ret(parameter.needs_value()?)?,
            MailParameter::Envid => drop(parameter.needs_value()?),
        }
        terms.needed.keywords.insert(known.extension());
    }
    Ok(terms)
}

/// Judges the parameters of RCPT, as [`judge_mail`] does those of MAIL, and says what a backend
/// must have for them.
///
/// # Errors
/// The reply for the first parameter that cannot be used.
pub fn judge_rcpt(
    parameters: Parameters<'_>,
    announced: Option<&Extensions>,
) -> Result<Keywords, ParameterError> {
    let mut needed = Keywords::default();
    let mut seen = Seen::default();
    for parameter in parameters.iter() {
        let known = RcptParameter::of(parameter).ok_or(ParameterError::NeverAnnounced)?;
        announced_to(announced, Keyword::Dsn)?;
        seen.first_time(known as u8)?;
        let value = parameter.needs_value()?;
        match known {
            RcptParameter::Notify => check_notify(value)?,
            RcptParameter::Orcpt => check_orcpt(value)?,
        }
        needed.insert(Keyword::Dsn);
    }
    Ok(needed)
}

/// Whether any of the backends that can be chosen now has all that is `needed`.
///
/// # Errors
/// [`ParameterError::NotNow`] if none has. That there is no backend at all is another reply.
pub fn judge_backends<'a>(
    needed: Needed,
    backends: impl IntoIterator<Item = &'a Extensions>,
) -> Result<(), ParameterError> {
    let mut backends = backends.into_iter();
    if backends.any(|backend| backend.lacks(needed).is_empty()) {
        Ok(())
    } else {
        Err(ParameterError::NotNow)
    }
}

/// The parameters of MAIL that belong to extensions we may announce.
#[derive(Clone, Copy)]
enum MailParameter {
    Size,
    Body,
    Smtputf8,
    Ret,
    Envid,
}

impl MailParameter {
    fn of(parameter: Parameter<'_>) -> Option<Self> {
        let names = [
            ("SIZE", Self::Size),
            ("BODY", Self::Body),
            ("SMTPUTF8", Self::Smtputf8),
            ("RET", Self::Ret),
            ("ENVID", Self::Envid),
        ];
        // BINARYMIME belongs to an extension of its own, which is never announced (rule E3).
        let binary = |value: &[u8]| value.eq_ignore_ascii_case(b"BINARYMIME");
        if parameter.is("BODY") && parameter.value.is_some_and(binary) {
            return None;
        }
        let named = names.into_iter().find(|(name, _)| parameter.is(name));
        named.map(|(_, known)| known)
    }

    fn extension(self) -> Keyword {
        match self {
            Self::Size => Keyword::Size,
            Self::Body => Keyword::EightBitMime,
            Self::Smtputf8 => Keyword::Smtputf8,
            Self::Ret | Self::Envid => Keyword::Dsn,
        }
    }
}

/// The parameters of RCPT that belong to an extension we may announce, which is DSN.
#[derive(Clone, Copy)]
enum RcptParameter {
    Notify,
    Orcpt,
}

impl RcptParameter {
    fn of(parameter: Parameter<'_>) -> Option<Self> {
        let names = [("NOTIFY", Self::Notify), ("ORCPT", Self::Orcpt)];
        let named = names.into_iter().find(|(name, _)| parameter.is(name));
        named.map(|(_, known)| known)
    }
}

/// Which parameters a command has had, a bit for each.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn first_time(&mut self, parameter: u8) -> Result<(), ParameterError> {
        let bit = 1 << parameter;
        if self.0 & bit != 0 {
            return Err(ParameterError::Malformed);
        }
        self.0 |= bit;
        Ok(())
    }
}

/// What the client was announced, if `extension` was in it.
fn announced_to(
    announced: Option<&Extensions>,
    extension: Keyword,
) -> Result<&Extensions, ParameterError> {
    let announced = announced.filter(|announced| announced.keywords.has(extension));
    announced.ok_or(ParameterError::NeverAnnounced)
}

/// One to twenty digits (RFC 1870 §3). What no `u64` holds is more than any limit.
fn read_size(digits: &[u8]) -> Result<u64, ParameterError> {
    if digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ParameterError::Malformed);
    }
    let add = |sum: u64, digit: &u8| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    };
    Ok(digits.iter().fold(0, add))
}

fn read_body(value: &[u8]) -> Result<Body, ParameterError> {
    match value.to_ascii_uppercase().as_slice() {
        b"7BIT" => Ok(Body::SevenBit),
        b"8BITMIME" => Ok(Body::EightBitMime),
        _ => Err(ParameterError::Malformed),
    }
}

/// FULL or HDRS (RFC 3461 §4.3).
fn check_ret(value: &[u8]) -> Result<(), ParameterError> {
    let known = [b"FULL", b"HDRS"];
    let known = known.iter().any(|word| value.eq_ignore_ascii_case(*word));
    known.then_some(()).ok_or(ParameterError::Malformed)
}

/// NEVER alone, or a list of others (RFC 3461 §4.1).
fn check_notify(value: &[u8]) -> Result<(), ParameterError> {
    let known = [b"SUCCESS".as_slice(), b"FAILURE", b"DELAY"];
    let is_known = |word: &[u8]| known.iter().any(|known| word.eq_ignore_ascii_case(known));
    let fine =
        value.eq_ignore_ascii_case(b"NEVER") || value.split(|&octet| octet == b',').all(is_known);
    fine.then_some(()).ok_or(ParameterError::Malformed)
}

/// `type;address` (RFC 3461 §4.2); what the type makes of the address is the backend's to say.
fn check_orcpt(value: &[u8]) -> Result<(), ParameterError> {
    let inner = memchr(b';', value).is_some_and(|at| at > 0 && at + 1 < value.len());
    inner.then_some(()).ok_or(ParameterError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn with(keywords: &[Keyword]) -> Extensions {
        Extensions {
            keywords: keywords
                .iter()
                .copied()
                .fold(Keywords::default(), Keywords::with),
            size_max: NonZeroU64::new(1000),
            ..Extensions::default()
        }
    }

    fn all() -> Extensions {
        with(&Keyword::ALL)
    }

    fn parameters(text: &str) -> Parameters<'_> {
        Parameters::read(text.as_bytes()).expect(text)
    }

    fn judged_mail(text: &str) -> Result<MailTerms, ParameterError> {
        judge_mail(parameters(text), Some(&all()))
    }

    fn judged_rcpt(text: &str) -> Result<Keywords, ParameterError> {
        judge_rcpt(parameters(text), Some(&all()))
    }

    #[test]
    fn what_was_announced_may_be_used_and_is_summed_up() {
        let terms = judged_mail(" size=1000 BODY=8BitMime smtputf8 RET=hdrs ENVID=a+3Db=c");
        let terms = terms.expect("all of them are announced");
        assert_eq!(terms.size, Some(1000));
        assert_eq!(terms.body, Some(Body::EightBitMime));
        assert_eq!(terms.smtputf8, Smtputf8::Used);
        let needed = [Keyword::EightBitMime, Keyword::Smtputf8, Keyword::Dsn];
        assert_eq!(terms.needed.keywords, with(&needed).keywords);
        assert_eq!(terms.needed.size, Some(1000));

        assert_eq!(judged_mail(""), Ok(MailTerms::default()));
        let body = judged_mail(" BODY=7BIT").expect("it is announced").body;
        assert_eq!(body, Some(Body::SevenBit));
        let needed = judged_rcpt(" NOTIFY=SUCCESS,failure,DELAY ORCPT=rfc822;a@b");
        assert_eq!(needed, Ok(with(&[Keyword::Dsn]).keywords));
        assert_eq!(judged_rcpt(" notify=never"), needed);
        assert_eq!(judged_rcpt(""), Ok(Keywords::default()));
    }

    #[test]
    fn rule_e3_a_parameter_never_announced_is_555() {
        let unknown = Err(ParameterError::NeverAnnounced);
        for text in [
            " X=1",
            " REQUIRETLS",
            " BODY=BINARYMIME",
            " AUTH=<>",
            " BY=1;R",
            " NOTIFY=NEVER",
            " SIZ=1",
        ] {
            assert_eq!(judged_mail(text), unknown, "{text}");
        }
        for text in [" SIZE=1", " BODY=8BITMIME", " RRVS=x"] {
            assert_eq!(judged_rcpt(text), Err(ParameterError::NeverAnnounced));
        }
        let own = with(&[Keyword::Pipelining, Keyword::Size]);
        for text in [" BODY=7BIT", " SMTPUTF8", " RET=FULL", " ENVID=x"] {
            assert_eq!(judge_mail(parameters(text), Some(&own)), unknown, "{text}");
        }
        let codes = ParameterError::NeverAnnounced.reply();
        assert_eq!(codes, OwnReply::PARAMETER_UNKNOWN);
        assert_eq!(codes.code().value(), 555);
    }

    #[test]
    fn rule_e4_after_helo_there_are_no_parameters() {
        let unknown = Err(ParameterError::NeverAnnounced);
        assert_eq!(judge_mail(parameters(" SIZE=1"), None), unknown);
        let refused = judge_rcpt(parameters(" NOTIFY=NEVER"), None);
        assert_eq!(refused, Err(ParameterError::NeverAnnounced));
        assert!(judge_mail(Parameters::default(), None).is_ok());
        assert!(judge_rcpt(Parameters::default(), None).is_ok());
    }

    #[test]
    fn rule_e3_what_no_backend_can_take_now_is_455() {
        let terms = judged_mail(" SMTPUTF8 BODY=8BITMIME").expect("it was announced");
        let able = all();
        let unable = with(&[Keyword::EightBitMime]);
        assert_eq!(judge_backends(terms.needed, [&unable, &able]), Ok(()));
        let not_now = Err(ParameterError::NotNow);
        assert_eq!(judge_backends(terms.needed, [&unable, &unable]), not_now);
        let reply = ParameterError::NotNow.reply();
        assert_eq!(reply, OwnReply::PARAMETER_NOT_NOW);
        assert_eq!(reply.code().value(), 455);
        assert_eq!(ParameterError::NotNow.cost(), Cost::Nothing);
        // A message that has become too large for each of them is not refused for good either.
        let large = judged_mail(" SIZE=900").expect("it is below what was announced");
        let small = Extensions {
            size_max: NonZeroU64::new(899),
            ..Extensions::default()
        };
        assert_eq!(judge_backends(large.needed, [&small]), not_now);
    }

    #[test]
    fn rule_d10_a_size_over_the_limit_is_552_at_once() {
        for text in [" SIZE=1001", " SIZE=99999999999999999999"] {
            assert_eq!(judged_mail(text), Err(ParameterError::TooBig));
        }
        let boundless = Extensions {
            size_max: None,
            ..all()
        };
        let terms = judge_mail(parameters(" SIZE=99999999999999999999"), Some(&boundless));
        assert_eq!(terms.expect("nothing is too much").size, Some(u64::MAX));
        let reply = ParameterError::TooBig.reply();
        assert_eq!(reply, OwnReply::TOO_BIG);
        assert_eq!(reply.code().value(), 552);
    }

    #[test]
    fn rule_g14_malformed_or_repeated_parameters_are_501() {
        for text in [
            " SIZE",
            " SIZE=",
            " SIZE=x",
            " SIZE=-1",
            " SIZE=1.5",
            " SIZE=000000000000000000001",
            " SIZE=1 size=1",
            " BODY",
            " BODY=9BIT",
            " BODY=8BITMIME BODY=8BITMIME",
            " SMTPUTF8=1",
            " SMTPUTF8 SMTPUTF8",
            " RET=ALL",
            " ENVID=",
        ] {
            let malformed = Err(ParameterError::Malformed);
            assert_eq!(judged_mail(text), malformed, "{text}");
        }
        for text in [
            " NOTIFY",
            " NOTIFY=NEVER,DELAY",
            " NOTIFY=SUCCESS,",
            " NOTIFY=DELAY NOTIFY=DELAY",
            " ORCPT=a@b",
            " ORCPT=;",
            " ORCPT",
        ] {
            let malformed = Err(ParameterError::Malformed);
            assert_eq!(judged_rcpt(text), malformed, "{text}");
        }
        let reply = ParameterError::Malformed.reply();
        assert_eq!(reply, OwnReply::BAD_PARAMETER);
        assert_eq!(reply.code().value(), 501);
        assert_eq!(ParameterError::Malformed.cost(), Cost::Error);
    }

    #[test]
    fn parameters_are_words_behind_a_blank() {
        for text in [
            "SIZE=1",
            "> SIZE=1",
            " =1",
            " -A",
            " A_B",
            " a@b",
            " A=\u{7f}",
            " \u{e9}",
        ] {
            assert_eq!(Parameters::read(text.as_bytes()), None, "{text:?}");
        }
        let words = parameters("  A=b=c\t\td  E-1=\u{e9}");
        let words: Vec<_> = words
            .iter()
            .map(|word| (word.keyword, word.value))
            .collect();
        let expected: [(&[u8], Option<&[u8]>); 3] = [
            (b"A", Some(b"b=c")),
            (b"d", None),
            (b"E-1", Some("\u{e9}".as_bytes())),
        ];
        assert_eq!(words, expected);
    }
}
