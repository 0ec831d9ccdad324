//! A plain SMTP client that shows every reply it gets, for what ready-made clients hide.
//!
//! It sends one command at a time and waits for its reply (RFC 5321 §4.1.4), except where a test
//! writes octets itself.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

const EHLO: &str = "EHLO client.test";
const MAIL: &str = "MAIL FROM:<sender@client.test>";
const RCPT: &str = "RCPT TO:<rcpt@example.test>";

/// One reply: its code and its lines, codes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The three digits.
    pub(crate) code: u16,
    /// All lines without CRLF.
    pub(crate) lines: Vec<String>,
}

impl Reply {
    /// The lines in one text.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; nothing is read yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn dial(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Connects and reads a greeting, which must be 220.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::dial(address).expect("a listener accepts");
        let greeting = client.reply().expect("a greeting comes");
        assert_eq!(greeting.code, 220, "{}", greeting.text());
        client
    }

    /// As [`greeted`](Self::greeted), or `None` while nobody listens there.
    pub(crate) fn greeted_if_up(address: SocketAddr) -> Option<Self> {
        let mut client = Self::dial(address).ok()?;
        client
            .reply()
            .ok()
            .filter(|greeting| greeting.code == 220)
            .map(|_| client)
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Reads one line without its CRLF.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed, otherwise what the kernel says.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Reads one reply of any number of lines (RFC 5321 §4.2.1).
    ///
    /// # Errors
    /// As [`line`](Self::line); `InvalidData` when it is no reply.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            let code = line.get(..3).and_then(|digits| digits.parse().ok());
            lines.push(line);
            let code = code.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("no reply: {lines:?}"))
            })?;
            if is_last {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Sends octets as they are.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets)
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub(crate) fn command(&mut self, command: &str) -> io::Result<Reply> {
        self.send(format!("{command}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends one command whose reply must have this code.
    pub(crate) fn expect(&mut self, code: u16, command: &str) -> Reply {
        let reply = self.command(command).unwrap_or_else(|error| {
            super::fail(&format!("no reply to {command:?}: {error}"));
        });
        assert_eq!(
            reply.code,
            code,
            "{command:?} was answered {}",
            reply.text()
        );
        reply
    }

    /// EHLO and a transaction up to the 354.
    pub(crate) fn up_to_data(&mut self) {
        self.expect(250, EHLO);
        self.begin();
    }

    /// A transaction after EHLO, up to the 354.
    pub(crate) fn begin(&mut self) {
        self.expect(250, MAIL);
        self.expect(250, RCPT);
        self.expect(354, "DATA");
    }

    /// A whole message after the greeting; the reply to its final dot.
    ///
    /// # Errors
    /// The first reply that was not as it should be, or what the kernel says.
    pub(crate) fn message(&mut self, body: &str) -> io::Result<Reply> {
        self.steps([(EHLO, 250), (MAIL, 250), (RCPT, 250), ("DATA", 354)])?;
        self.command(&format!("Subject: test\r\n\r\n{body}\r\n."))
    }

    /// Commands whose replies must have these codes.
    fn steps<'a>(&mut self, steps: impl IntoIterator<Item = (&'a str, u16)>) -> io::Result<()> {
        for (command, code) in steps {
            let reply = self.command(command)?;
            if reply.code != code {
                return Err(io::Error::other(format!("{command}: {}", reply.text())));
            }
        }
        Ok(())
    }

    /// Connects, reads the greeting and says EHLO.
    pub(crate) fn ready(address: SocketAddr) -> Self {
        let mut client = Self::greeted(address);
        client.expect(250, EHLO);
        client
    }

    /// One transaction after EHLO; the reply to its final dot. The message has CRLF at the end of
    /// each line, and dots are doubled here (RFC 5321 §4.5.2).
    ///
    /// # Errors
    /// The first reply that was not as it should be, or what the kernel says.
    pub(crate) fn transaction(&mut self, mail: &str, message: &[u8]) -> io::Result<Reply> {
        self.steps([(mail, 250), (RCPT, 250), ("DATA", 354)])?;
        self.send(&dot_stuffed(message))?;
        self.command(".")
    }

    /// A transaction that must be accepted.
    pub(crate) fn accepted(&mut self, message: &[u8]) {
        let reply = self
            .transaction(MAIL, message)
            .unwrap_or_else(|error| super::fail(&format!("not accepted: {error}")));
        assert_eq!(reply.code, 250, "{}", reply.text());
    }

    /// Sends octets and waits until the peer, which must be on this host, has read them: what is
    /// sent afterwards comes to it in another read.
    pub(crate) fn send_apart(&mut self, octets: &[u8]) {
        self.send(octets).expect("the session is open");
        let own = self.socket().local_addr().expect("it is connected").port();
        let peer = self.socket().peer_addr().expect("it is connected").port();
        // Loopback puts them into the peer's queue before `send` returns.
        super::wait_for("the octets to be read", || {
            (super::port::unread_octets(peer, own)? == 0).then_some(())
        });
    }

    /// QUIT, its 221, and the end of the connection.
    pub(crate) fn quit(mut self) {
        self.expect(221, "QUIT");
        assert!(self.is_at_end(), "the connection ends after 221");
    }

    /// Says that nothing more will be sent (FIN), and goes on reading.
    pub(crate) fn finish_sending(&self) {
        self.socket()
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }

    /// Whether the server has closed in order.
    pub(crate) fn is_at_end(&mut self) -> bool {
        matches!(self.line(), Err(error) if error.kind() == io::ErrorKind::UnexpectedEof)
    }
}

/// Doubles each dot at the begin of a line.
pub(crate) fn dot_stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + 16);
    for (place, octet) in message.iter().enumerate() {
        if *octet == b'.' && (place == 0 || message[..place].ends_with(b"\r\n")) {
            wire.push(b'.');
        }
        wire.push(*octet);
    }
    wire
}
