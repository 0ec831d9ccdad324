//! Second messages that hide in a first: every way to write something like the end of the data, at
//! every policy, into every kind of server (rules D1 to D8).
//!
//! Whatever a server takes for an end, it must never count another number of messages than the
//! client was told about.

use crate::lab::backend::Backend;
use crate::lab::dropping::Dropping;
use crate::lab::exim::Exim;
use crate::lab::haraka::Haraka;
use crate::lab::opensmtpd::OpenSmtpd;
use crate::lab::postfix::Postfix;
use crate::lab::posthouse::{NO_PROBES, Setup};
use crate::lab::smtp_server::SmtpServer;
use crate::lab::{Client, wait_for};

/// All pairs of line ends around a dot but the right one, and NUL where a server may drop it.
const ALMOST_ENDS: [&[u8]; 21] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\n",
    b"\n\0.\n",
    b"\r\n\0.\0\r\n",
    b"\r\n\0.\n",
    b"\n\0.\0\n",
    b"\n.\0\n",
    b"\0\n\0.\0\r\n",
    b"\r\0\n\0.\r\0\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
];

/// What a server that took an end there would take for commands.
const SMUGGLED: &[u8] = b"MAIL FROM:<smuggled@client.test>\r\n\
    RCPT TO:<rcpt@example.test>\r\n\
    DATA\r\n\
    Subject: smuggled\r\n\
    \r\n\
    second\r\n";

macro_rules! into {
    ($($name:ident = $start:expr;)*) => {$(
        #[test]
        fn $name() {
            no_second_message_comes_through(&$start);
        }
    )*};
}

into! {
    no_message_is_smuggled_into_postfix_as_it_comes_d3 = Postfix::keeping(&[]);
    no_message_is_smuggled_into_postfix_that_normalizes_d3 =
        Postfix::keeping(&["smtpd_forbid_bare_newline=normalize"]);
    no_message_is_smuggled_into_postfix_that_rejects_d3 =
        Postfix::keeping(&["smtpd_forbid_bare_newline=reject"]);
    no_message_is_smuggled_into_postfix_behind_what_drops_nul_d8 =
        Dropping::before(Postfix::keeping(&[]), b"\0");
    no_message_is_smuggled_into_a_strict_postfix_behind_what_drops_nul_d8 =
        Dropping::before(Postfix::keeping(&["smtpd_forbid_bare_newline=normalize"]), b"\0");
    no_message_is_smuggled_into_postfix_behind_what_drops_nul_and_cr_d8 =
        Dropping::before(Postfix::keeping(&[]), b"\0\r");
    no_message_is_smuggled_into_exim_behind_what_drops_nul_d8 =
        Dropping::before(Exim::start(), b"\0");
    no_message_is_smuggled_into_exim_d3 = Exim::start();
    no_message_is_smuggled_into_opensmtpd_d3 = OpenSmtpd::start();
    no_message_is_smuggled_into_haraka_d3 = Haraka::plain();
    no_message_is_smuggled_into_smtp_server_d3 = SmtpServer::start();
}

fn no_second_message_comes_through(backend: &impl Backend) {
    let posthouse = Setup::new()
        .listener("mode = \"smtp\"\n")
        .listener("mode = \"smtp\"\n[listeners.l1.smtp]\nline_endings = \"reject\"\n")
        .pool(NO_PROBES, &[backend.address()])
        .start();
    let (normalize, reject) = (posthouse.listener(0), posthouse.listener(1));
    let mut told = 0;
    for almost in ALMOST_ENDS {
        let (mut normal, mut strict) = (Client::ready(normalize), Client::ready(reject));
        for cut in 0..almost.len() {
            let codes = [&mut normal, &mut strict].map(|client| told_of(client, almost, cut));
            assert_eq!(codes, [250, 550], "{almost:?} at {cut}");
            told += 1;
        }
        normal.quit();
        strict.quit();
    }
    // Whatever came behind the last of them would have come before this one.
    for listener in [normalize, reject] {
        let mut client = Client::ready(listener);
        client.accepted(b"Subject: last\r\n\r\nlast\r\n");
        client.quit();
        told += 1;
    }
    wait_for(&format!("{told} messages"), || {
        (backend.taken() >= told).then_some(())
    });
    assert_eq!(backend.taken(), told, "as many as the client was told of");
}

/// The one reply to a message with an almost end in it, which comes in two reads; everything that the
/// client says afterwards has one reply too.
fn told_of(client: &mut Client, almost: &[u8], cut: usize) -> u16 {
    client.begin();
    let (before, behind) = almost.split_at(cut);
    client.send_apart(&[b"Subject: first\r\n\r\nfirst", before].concat());
    let rest = [behind, SMUGGLED, b".\r\n"].concat();
    client.send(&rest).expect("the session is open");
    let code = client.reply().expect("the message is answered").code;
    let reply = client.expect(250, "NOOP");
    assert!(reply.text().starts_with("250 2.0.0"), "{}", reply.text());
    code
}
