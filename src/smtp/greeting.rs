//! A backend's greeting, and whose fault a bad one is (rules S6, S8, S9).
//!
//! A session commits to a backend at the first complete line of a `220`: it does not wait for the
//! last line, or postscreen's teaser would lose its purpose and the client its time. Everything
//! else must be a complete reply before it is judged. Nothing here allocates.

use super::reply::{LineRead, Reply, ReplyCode, ReplyError, ReplyRead, read_line, read_reply};

/// Texts, in lower case, by which a backend without enhanced codes says that the limit it applies
/// is one of this client's: Postfix and its kin, Exim's `smtp_accept_max_per_host`.
const PER_CLIENT_TEXTS: [&[u8]; 2] = [
    b"too many connections from",
    b"connections from this ip address",
];

/// What the octets a backend has sent so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting<'a> {
    /// The beginning of a greeting.
    Incomplete,
    /// The first line is complete and is a valid `220`: commit now, with everything that was read.
    Good,
    /// A complete reply that is not 220.
    Bad(Reply<'a>),
    /// No SMTP, whatever follows.
    Garbage(ReplyError),
}

/// Reads the greeting from all octets received so far. Stateless: call it again with more.
///
/// Needs at most [`REPLY_MAX`](super::REPLY_MAX) octets for any verdict.
pub fn read_greeting(octets: &[u8]) -> Greeting<'_> {
    match read_line(octets, 0, None) {
        LineRead::Incomplete => return Greeting::Incomplete,
        LineRead::Invalid(error) => return Greeting::Garbage(error),
        LineRead::Complete(line) if line.code == ReplyCode::READY => return Greeting::Good,
        LineRead::Complete(_) => {}
    }
    match read_reply(octets) {
        ReplyRead::Incomplete => Greeting::Incomplete,
        ReplyRead::Complete(reply) => Greeting::Bad(reply),
        ReplyRead::Invalid(error) => Greeting::Garbage(error),
    }
}

/// Whether the backend knows who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityCarried {
    /// A PROXY header (or XCLIENT) told it.
    Yes,
    /// It sees our address only.
    No,
}

/// `greeting_verdicts` of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingRule {
    /// By the table of [`judge_greeting`].
    Auto,
    /// Every bad greeting is the backend's fault.
    Next,
    /// Every bad greeting is about the client.
    Relay,
}

/// What to do with a bad greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreetingJudgement {
    /// The backend's fault: a strike, and the next backend.
    Next,
    /// About this client: relay it, no strike.
    Relay,
    /// Relay it, and tell the balancer (`Observation::RefusedClient`).
    RelayAndCount,
}

/// Says whose fault a bad greeting is.
///
/// | identity | reply | verdict |
/// |---|---|---|
/// | not carried | any | next |
/// | carried | 4yz or 5yz with x.7.x | relay |
/// | carried | 4yz or 5yz without enhanced code, with a per-client text | relay |
/// | carried | any other 4yz | next |
/// | carried | any other 5yz | relay and count |
/// | any | 2yz but 220, 3yz | next: a backend that talks like this cannot be relayed |
///
/// `Next` and `Relay` as `rule` decide for every 4yz and 5yz.
pub fn judge_greeting(
    reply: &Reply<'_>,
    identity: IdentityCarried,
    rule: GreetingRule,
) -> GreetingJudgement {
    let class = reply.code.class();
    if class < 4 {
        return GreetingJudgement::Next;
    }
    match (rule, identity) {
        (GreetingRule::Next, _) | (GreetingRule::Auto, IdentityCarried::No) => {
            GreetingJudgement::Next
        }
        (GreetingRule::Relay, _) => GreetingJudgement::Relay,
        (GreetingRule::Auto, IdentityCarried::Yes) if is_about_the_client(reply) => {
            GreetingJudgement::Relay
        }
        (GreetingRule::Auto, IdentityCarried::Yes) if class == 4 => GreetingJudgement::Next,
        (GreetingRule::Auto, IdentityCarried::Yes) => GreetingJudgement::RelayAndCount,
    }
}

/// Whether a refusal names policy, or a limit of this one client.
fn is_about_the_client(reply: &Reply<'_>) -> bool {
    match reply.enhanced {
        Some(enhanced) => enhanced.subject == 7,
        None => reply
            .lines()
            .any(|line| PER_CLIENT_TEXTS.iter().any(|text| contains(line, text))),
    }
}

/// Whether `line` contains `text`, given in lower case, in any case.
pub(super) fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len())
        .any(|window| window.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::GreetingJudgement::{Next, Relay, RelayAndCount};
    use super::*;

    fn bad(octets: &[u8]) -> Reply<'_> {
        match read_greeting(octets) {
            Greeting::Bad(reply) => reply,
            other => panic!("{other:?} for {}", octets.escape_ascii()),
        }
    }

    #[test]
    fn rule_s8_the_first_whole_line_of_a_220_commits() {
        let teaser = b"220-mx.example ESMTP\r\n";
        for end in 0..teaser.len() {
            assert_eq!(read_greeting(&teaser[..end]), Greeting::Incomplete);
        }
        assert_eq!(read_greeting(teaser), Greeting::Good);
        assert_eq!(read_greeting(b"220-mx\r\n220 mx\r\n"), Greeting::Good);
        assert_eq!(read_greeting(b"220\r\n"), Greeting::Good);
        // What follows the line is relayed and has no say.
        assert_eq!(read_greeting(b"220-mx\r\nrubbish"), Greeting::Good);
    }

    #[test]
    fn rule_s6_any_other_code_needs_the_whole_reply() {
        assert_eq!(read_greeting(b"554-mx\r\n"), Greeting::Incomplete);
        assert_eq!(bad(b"554-mx\r\n554 no service\r\n").code.value(), 554);
        assert_eq!(bad(b"250 hello\r\n").code.value(), 250);
        assert_eq!(bad(b"354 go on\r\n").code.value(), 354);
        let changes = Greeting::Garbage(ReplyError::CodeChanges);
        assert_eq!(read_greeting(b"554-mx\r\n22"), changes);
    }

    #[test]
    fn garbage_is_known_at_its_first_octet() {
        assert_eq!(
            read_greeting(b"H"),
            Greeting::Garbage(ReplyError::NotAReply)
        );
        assert_eq!(
            read_greeting(b"* OK IMAP"),
            Greeting::Garbage(ReplyError::NotAReply)
        );
        assert_eq!(
            read_greeting(b"2200"),
            Greeting::Garbage(ReplyError::NotAReply)
        );
        let endless = [b"220 ".as_slice(), &[b'a'; 5000]].concat();
        assert_eq!(
            read_greeting(&endless),
            Greeting::Garbage(ReplyError::LineTooLong)
        );
    }

    /// Real texts, with the verdict where the backend knows the client.
    const REAL: [(&[u8], GreetingJudgement); 17] = [
        // Postfix smtpd: a limit of this client.
        (
            b"421 4.7.0 mx.example Error: too many connections from 192.0.2.4\r\n",
            Relay,
        ),
        // Postfix smtpd: the PROXY header did not reach it.
        (b"421 4.3.0 mx.example Server local error\r\n", Next),
        (b"421 4.4.2 mx.example Error: timeout exceeded\r\n", Next),
        // postscreen.
        (b"421 4.3.2 All server ports are busy\r\n", Next),
        (b"421 4.3.2 All screening ports are busy\r\n", Next),
        (b"450 4.3.2 Service currently unavailable\r\n", Next),
        (b"521 5.7.0 I can break rules, too. Goodbye.\r\n", Relay),
        (
            b"550 5.7.1 Service unavailable; client [192.0.2.4] blocked using dnsbl\r\n",
            Relay,
        ),
        // Exim: the whole server; this host; no enhanced codes.
        (
            b"421 mx: Too many concurrent SMTP connections; please try again later.\r\n",
            Next,
        ),
        (
            b"421 Too many concurrent SMTP connections from this IP address; try again later\r\n",
            Relay,
        ),
        (
            b"554 mx.example SMTP service not available\r\n",
            RelayAndCount,
        ),
        // Exchange.
        (
            b"421 4.3.2 The maximum number of concurrent connections has exceeded a limit\r\n",
            Next,
        ),
        (b"421 4.3.2 Service not active\r\n", Next),
        // KumoMTA: limits, shedding, shutdown.
        (b"421 4.3.2 mx.example shutting down\r\n", Next),
        // Without enhanced code and without a client in the text.
        (
            b"421 Service not available, closing transmission channel\r\n",
            Next,
        ),
        (
            b"554-mx.example\r\n554 no service for you\r\n",
            RelayAndCount,
        ),
        (
            b"554 5.3.2 System not accepting network messages\r\n",
            RelayAndCount,
        ),
    ];

    #[test]
    fn rule_s9_real_greetings_are_judged_by_the_table() {
        for (octets, judgement) in REAL {
            let reply = bad(octets);
            let judged = |identity, rule| judge_greeting(&reply, identity, rule);
            let text = octets.escape_ascii();
            assert_eq!(
                judged(IdentityCarried::Yes, GreetingRule::Auto),
                judgement,
                "{text}"
            );
            assert_eq!(
                judged(IdentityCarried::No, GreetingRule::Auto),
                Next,
                "{text}"
            );
            assert_eq!(
                judged(IdentityCarried::Yes, GreetingRule::Next),
                Next,
                "{text}"
            );
            assert_eq!(
                judged(IdentityCarried::No, GreetingRule::Relay),
                Relay,
                "{text}"
            );
        }
    }

    #[test]
    fn a_greeting_that_is_no_refusal_is_never_relayed() {
        for octets in [
            b"250 2.7.0 hello\r\n".as_slice(),
            b"354 too many connections from\r\n",
        ] {
            for rule in [GreetingRule::Auto, GreetingRule::Next, GreetingRule::Relay] {
                assert_eq!(
                    judge_greeting(&bad(octets), IdentityCarried::Yes, rule),
                    Next
                );
            }
        }
    }

    #[test]
    fn an_enhanced_code_outweighs_the_text() {
        let reply = bad(b"421 4.3.2 too many connections from 192.0.2.4\r\n");
        assert_eq!(
            judge_greeting(&reply, IdentityCarried::Yes, GreetingRule::Auto),
            Next
        );
    }
}
