//! Clients of every kind through mode "smtp" into real servers: each message arrives, and once.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::lab::backend::Backend;
use crate::lab::exim::{Exim, Sender};
use crate::lab::postfix::Postfix;
use crate::lab::posthouse::{NO_PROBES, Posthouse, QUICK_PROBES};
use crate::lab::{Client, smtp_source, swaks, unpacked, wait_for};

/// Two servers that keep what they take, and Posthouse in front.
struct Site {
    servers: [Postfix; 2],
    posthouse: Posthouse,
}

impl Site {
    fn start(pool: &str) -> Self {
        let servers = [Postfix::keeping(&[]), Postfix::keeping(&[])];
        let addresses = servers.each_ref().map(Backend::address);
        Self {
            posthouse: Posthouse::smtp(&addresses, pool),
            servers,
        }
    }

    fn address(&self) -> SocketAddr {
        self.posthouse.address()
    }

    /// Waits for so many messages; there may be no more of them, and no two alike.
    fn has_taken_once(&self, messages: usize) {
        let count = || -> usize { self.servers.iter().map(Backend::taken).sum() };
        wait_for(&format!("{messages} messages"), || {
            (count() >= messages).then_some(())
        });
        let kept: Vec<_> = self.servers.iter().flat_map(Backend::kept).collect();
        let ids: BTreeSet<_> = kept.iter().map(|message| message_id(message)).collect();
        assert_eq!((kept.len(), ids.len()), (messages, messages), "{ids:?}");
    }
}

/// The field that a client, or the server that it handed its mail to, gave a message of its own.
fn message_id(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let field = text
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("message-id:"));
    field
        .unwrap_or_else(|| crate::lab::fail(&format!("no Message-ID in {text}")))
        .to_owned()
}

#[test]
fn a_sending_postfix_empties_its_queue_through_us() {
    const MESSAGES: usize = 40;
    let site = Site::start(NO_PROBES);
    let sender = Postfix::relaying_to(site.address());
    smtp_source::send(sender.address(0), MESSAGES as u32, 4);
    wait_for("the queue to be sent", || {
        (sender.messages_sent() == MESSAGES).then_some(())
    });
    site.has_taken_once(MESSAGES);
    let log = sender.log();
    assert!(!log.contains("status=deferred"), "{log}");
}

#[test]
fn a_sending_exim_empties_its_queue_through_us() {
    const MESSAGES: usize = 20;
    // It uses CHUNKING where that is offered, and hands a connection from message to message.
    let site = Site::start(QUICK_PROBES);
    let exim = Exim::start();
    let mut client = Client::ready(exim.plain());
    for number in 0..MESSAGES {
        let message =
            format!("Subject: {number}\r\nMessage-ID: <{number}@client.test>\r\n\r\n.\r\n");
        client.accepted(message.as_bytes());
    }
    client.quit();
    let sender = Sender::of(&exim, site.address());
    sender.run_queue();
    site.has_taken_once(MESSAGES);
    let log = exim.log();
    assert_eq!(log.matches(" Completed").count(), MESSAGES, "{log}");
}

#[test]
fn swaks_pipelines_through_us_p2() {
    let site = Site::start(NO_PROBES);
    let transcript = swaks::accepted(site.address(), &["--pipeline"]);
    let one_flight =
        "-> MAIL FROM:<sender@client.test>\n -> RCPT TO:<rcpt@example.test>\n -> DATA\n";
    assert!(
        transcript.contains(one_flight),
        "it did not pipeline:\n{transcript}"
    );
    site.has_taken_once(1);
}

#[test]
fn smtplib_sends_through_us() {
    const PROGRAM: &str = "\
import smtplib, sys
with smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=30) as smtp:
    for number in range(5):
        text = f'Subject: x\\r\\nMessage-ID: <{number}@smtplib.test>\\r\\n\\r\\n.\\r\\n'
        refused = smtp.sendmail('sender@client.test',
            ['rcpt@example.test', 'refused@example.test'], text)
        assert list(refused) == ['refused@example.test'], refused
    try:
        smtp.sendmail('sender@client.test', ['refused@example.test'], text)
        raise AssertionError('taken')
    except smtplib.SMTPRecipientsRefused:
        pass
    assert smtp.noop()[0] == 250
";
    let site = Site::start(NO_PROBES);
    let port = site.address().port().to_string();
    run(Command::new("python3").args(["-c", PROGRAM, &port]), "");
    site.has_taken_once(5);
}

#[test]
fn nodemailer_sends_through_us_from_a_pool() {
    const PROGRAM: &str = "\
const nodemailer = require('nodemailer')
const transport = nodemailer.createTransport({
    host: '127.0.0.1', port: Number(process.env.PORT), pool: true,
    maxConnections: 3, maxMessages: 4, name: 'nodemailer.test',
})
const send = (number) => transport.sendMail({
    from: 'sender@client.test', to: 'rcpt@example.test', subject: `Größe ${number}`,
    messageId: `<${number}@nodemailer.test>`, text: '.\\n..\\nÄ\\n',
})
Promise.all(Array.from({ length: 20 }, (_, number) => send(number)))
    .then(() => transport.close())
    .catch((error) => { console.error(error); process.exit(1) })
";
    let site = Site::start(NO_PROBES);
    run(
        Command::new("node")
            .args(["--eval", PROGRAM])
            .current_dir(unpacked("node-mail"))
            .env("PORT", site.address().port().to_string()),
        "",
    );
    site.has_taken_once(20);
}

#[test]
fn msmtp_sends_through_us() {
    let site = Site::start(NO_PROBES);
    let port = format!("--port={}", site.address().port());
    for number in 0..3 {
        run(
            Command::new("msmtp").args([
                "--file=/dev/null",
                "--host=127.0.0.1",
                &port,
                "--from=sender@client.test",
                "--domain=client.test",
                "rcpt@example.test",
            ]),
            &format!("Subject: x\nMessage-ID: <{number}@msmtp.test>\n\n.\n"),
        );
    }
    site.has_taken_once(3);
}

#[test]
fn curl_sends_through_us() {
    let site = Site::start(NO_PROBES);
    let url = format!("smtp://{}/client.test", site.address());
    for number in 0..3 {
        run(
            Command::new("curl").args([
                "--silent",
                "--show-error",
                "--max-time",
                "30",
                "--mail-from",
                "sender@client.test",
                "--mail-rcpt",
                "rcpt@example.test",
                "--upload-file",
                "-",
                &url,
            ]),
            &format!("Subject: x\r\nMessage-ID: <{number}@curl.test>\r\n\r\n.\r\n"),
        );
    }
    site.has_taken_once(3);
}

/// Runs a client with this input; it must say that all went well.
fn run(client: &mut Command, input: &str) {
    let mut child = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            crate::lab::fail(&format!("{client:?}: {error}: run tests/install.sh"))
        });
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin
        .write_all(input.as_bytes())
        .expect("a client reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("it was started");
    assert!(output.status.success(), "{client:?}: {output:?}");
}

/// As Postfix itself takes it, and as it comes to it: a shell script, a device.
#[test]
fn clients_that_postfix_takes_are_taken_by_us_g12_g13() {
    let site = Site::start(NO_PROBES);
    let postfix = site.servers[0].address(0);
    // Straight to Postfix first: nothing is asked of us that it does not do.
    for (number, address) in [postfix, site.address()].into_iter().enumerate() {
        for (name, path) in [
            ("raid", "<sender@client.test>"),
            ("raid", " <sender@client.test>"),
            ("raid", "< sender@client.test >"),
            ("b\u{fc}ro", "sender@client.test"),
        ] {
            let mut client = Client::greeted(address);
            let message = path.len();
            for (line, code) in [
                (format!("EHLO {name}\n"), 250),
                (format!("MAIL FROM:{path}\n"), 250),
                (
                    format!(
                        "RCPT TO:{}\n",
                        path.replace("sender@client", "rcpt@example")
                    ),
                    250,
                ),
                ("DATA\n".to_owned(), 354),
                (
                    format!("Message-ID: <{number}.{message}@lf.test>\r\n\r\nx\r\n.\r\n"),
                    250,
                ),
                ("QUIT\n".to_owned(), 221),
            ] {
                client.send(line.as_bytes()).expect("the session is open");
                let reply = client.reply().expect("it is answered");
                assert_eq!(reply.code, code, "{line:?}: {}", reply.text());
            }
        }
    }
    site.has_taken_once(8);
}
