//! A scripted SMTP client: says lines, expects replies, in order.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

/// A command that begins a transaction,
pub(crate) const MAIL: &str = "MAIL FROM:<a@example.org>";
/// and one that names its only recipient.
pub(crate) const RCPT: &str = "RCPT TO:<b@example.net>";

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .expect("in time");
        Self {
            stream: BufReader::new(stream.expect("it accepts")),
        }
    }

    /// From another address of loopback.
    pub(crate) async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a descriptor is free");
        let source = SocketAddr::from((source, 0));
        socket.bind(source).expect("all of 127.0.0.0/8 is ours");
        let stream = timeout(PATIENCE, socket.connect(address))
            .await
            .expect("in time");
        Self {
            stream: BufReader::new(stream.expect("it accepts")),
        }
    }

    /// A client of mode "smtp" that has said EHLO.
    pub(crate) async fn introduced(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.expect("220").await;
        client.ask("EHLO client.test", "250").await;
        client
    }

    pub(crate) async fn say(&mut self, octets: impl AsRef<[u8]>) {
        self.stream
            .get_mut()
            .write_all(octets.as_ref())
            .await
            .expect("the peer is there");
    }

    /// The next line without its CRLF; empty at the end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_until(b'\n', &mut line)).await;
        read.expect("a line in time").expect("no reset");
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// A whole reply, which must begin so; its last line.
    pub(crate) async fn expect(&mut self, start: &str) -> String {
        loop {
            let line = self.line().await;
            assert!(line.starts_with(start), "expected {start:?}, got {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// A whole reply, whatever it says; its last line.
    pub(crate) async fn reply(&mut self) -> String {
        self.expect("").await
    }

    /// Says a line and expects a reply.
    pub(crate) async fn ask(&mut self, line: &str, start: &str) -> String {
        self.say(format!("{line}\r\n")).await;
        self.expect(start).await
    }

    /// A transaction up to where DATA may follow.
    pub(crate) async fn begin_transaction(&mut self) {
        self.ask(MAIL, "250").await;
        self.ask(RCPT, "250").await;
    }

    /// A transaction up to where the content follows.
    pub(crate) async fn begin_content(&mut self) {
        self.begin_transaction().await;
        self.ask("DATA", "354").await;
    }

    /// One message, whose end is answered so.
    pub(crate) async fn send(&mut self, body: &str, reply: &str) -> String {
        self.begin_transaction().await;
        self.finish_transaction(body, reply).await
    }

    /// One message, which is taken.
    pub(crate) async fn send_message(&mut self, body: &str) {
        self.send(body, "250").await;
    }

    /// The rest of a transaction that has begun; its end is answered so.
    pub(crate) async fn finish_transaction(&mut self, body: &str, reply: &str) -> String {
        self.ask("DATA", "354").await;
        self.say(body).await;
        self.ask(".", reply).await
    }

    /// Expects the end without another octet; tells FIN from RST.
    pub(crate) async fn expect_end(&mut self) -> End {
        let mut rest = Vec::new();
        match timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("an end in time")
        {
            Ok(_) => {
                assert!(
                    rest.is_empty(),
                    "unexpected: {:?}",
                    String::from_utf8_lossy(&rest)
                );
                End::Fin
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                End::Rst
            }
        }
    }

    /// Whether octets are waiting, without waiting for them.
    pub(crate) fn heard_something(&self) -> bool {
        let mut octet = [0];
        !self.stream.buffer().is_empty()
            || self
                .stream
                .get_ref()
                .try_read(&mut octet)
                .is_ok_and(|n| n > 0)
    }

    pub(crate) async fn end(&mut self) {
        self.stream
            .get_mut()
            .shutdown()
            .await
            .expect("the peer is there");
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().expect("it is connected")
    }

    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("a socket option");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Rst,
}
