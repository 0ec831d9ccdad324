//! The test MTA itself: what it says, what it counts, how it fails on demand.

use std::net::SocketAddr;
use std::time::Duration;

use posthouse::lab::{
    Act, At, ClientSession, Letter, Piece, Script, SendFault, SendStage, Sink, SinkHandle,
    SinkPlan, WhenFull, body_hash,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

struct Peer(TcpStream);

/// How a read ended that gave no octet.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Peer {
    async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn write(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what came ends with `text`.
    async fn reads(&mut self, text: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(text.as_bytes()) {
            let mut octet = [0; 1];
            let read = timeout(LIMIT, self.0.read(&mut octet)).await;
            let count = read.unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&got)));
            let came = String::from_utf8_lossy(&got);
            assert_ne!(count.unwrap(), 0, "ended after {came:?}");
            got.push(octet[0]);
        }
        String::from_utf8(got).unwrap()
    }

    async fn end(&mut self) -> End {
        let mut rest = Vec::new();
        match timeout(LIMIT, self.0.read_to_end(&mut rest)).await.unwrap() {
            Ok(_) => {
                assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
                End::Closed
            }
            Err(_) => End::Reset,
        }
    }
}

fn sink(script: Script) -> SinkHandle {
    Sink::start(SinkPlan::with(script).keeping(65_536)).unwrap()
}

const TO_DATA: &str = "EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n";

#[tokio::test]
async fn a_good_sink_takes_a_message_and_records_it() {
    let sink = sink(Script::good());
    let letter = Letter::numbered(7);
    let sent = letter.send(sink.address()).await.unwrap();
    assert_eq!(sent.greeted_by, "sink.test");
    let counts = sink.wait_for(|counts| counts.open == 0).await.unwrap();
    assert_eq!(counts.connections, 1);
    assert_eq!(counts.greetings, 1);
    assert_eq!(counts.ehlos, 1);
    assert_eq!(counts.recipients, 1);
    assert_eq!(counts.messages, 1);
    assert_eq!(counts.octets, letter.content.len() as u64);
    assert_eq!(counts.quits, 1);
    assert_eq!((counts.lost, counts.resets, counts.faults), (0, 0, 0));
    let [message] = &sink.messages()[..] else {
        panic!("one message")
    };
    assert!(sent.reply.contains(&message.queue_id), "{sent:?}");
    assert_eq!(message.message_id.as_deref(), Some("<7@client.test>"));
    assert_eq!(message.content, letter.content);
    assert_eq!(message.hash, body_hash(&letter.content));
    assert_eq!(message.from, "sender@client.test");
    assert_eq!(message.to, ["reader@example.test"]);
    assert_eq!(message.subject.as_deref(), Some("letter 7"));
}

#[tokio::test]
async fn pipelined_groups_are_answered_in_order() {
    let sink = sink(Script::good());
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("220 sink.test ESMTP Posthouse sink\r\n").await;
    peer.write("EHLO me\r\n").await;
    let ehlo = peer.reads("250 SMTPUTF8\r\n").await;
    assert!(ehlo.contains("250-PIPELINING\r\n"), "{ehlo}");
    // RFC 2920: RSET, MAIL, RCPT and the end of a message may be followed at once.
    peer.write("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n")
        .await;
    peer.reads("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n354 go ahead\r\n")
        .await;
    peer.write("hello\r\n.\r\nRSET\r\nNOOP\r\nVRFY x\r\nQUIT\r\n")
        .await;
    let rest = peer.reads("221 2.0.0 sink.test bye\r\n").await;
    let codes: Vec<&str> = rest.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "252", "221"]);
    assert_eq!(peer.end().await, End::Closed);
    assert_eq!(sink.counts().recipients, 2);
}

#[tokio::test]
async fn commands_out_of_order_are_refused_and_change_nothing() {
    let sink = sink(Script::good());
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("\r\n").await;
    let table = [
        ("MAIL FROM:<a@x>", "503"),
        ("RCPT TO:<b@y>", "503"),
        ("EHLO", "501"),
        ("HELO me", "250"),
        ("DATA", "554"),
        ("MAIL FROM:<a@x>", "250"),
        ("MAIL FROM:<a@x>", "503"),
        ("DATA", "554"),
        ("MAIL FROM:<> SIZE=1", "503"),
        ("RSET", "250"),
        ("MAIL FROM:<> SIZE=99999999", "552"),
        ("XCLIENT ADDR=1.2.3.4", "500"),
    ];
    for (command, code) in table {
        peer.write(&format!("{command}\r\n")).await;
        let reply = peer.reads("\r\n").await;
        assert!(reply.starts_with(code), "{command}: {reply}");
    }
    assert_eq!(sink.counts().messages, 0);
}

#[tokio::test]
async fn chunks_make_a_message_and_refused_chunks_stay_in_sync() {
    let sink = sink(Script::good());
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("\r\n").await;
    // Rule C2: the octets of a refused chunk are never read as commands.
    peer.write("HELO me\r\nBDAT 6\r\nQUIT\r\n").await;
    peer.reads("503 5.5.1 need RCPT before BDAT\r\n").await;
    peer.write("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 4\r\n.\r\nxBDAT 3 LAST\r\n\r\n.")
        .await;
    peer.reads("250 2.0.0 chunk taken\r\n250 2.0.0 Ok: queued as 00000001, 7 octets taken\r\n")
        .await;
    assert_eq!(sink.messages()[0].content, b".\r\nx\r\n.");
    peer.write("BDAT soon\r\n").await;
    peer.reads("501 5.5.4 bad chunk size\r\n").await;
    assert_eq!(peer.end().await, End::Closed);
}

#[tokio::test]
async fn a_sink_closes_or_resets_at_every_stage() {
    // Everything a client says, stage by stage; the fault decides where it ends.
    let said = [
        (At::Connect, ""),
        (At::Greeting, ""),
        (At::Ehlo, "EHLO me\r\n"),
        (At::Mail, "EHLO me\r\nMAIL FROM:<a@x>\r\n"),
        (At::Rcpt, "EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"),
        (At::Data, TO_DATA),
        (At::MidData, &format!("{TO_DATA}half")),
        (At::Dot, &format!("{TO_DATA}whole\r\n.\r\n")),
        (At::Rset, "RSET\r\n"),
        (At::Quit, "QUIT\r\n"),
    ];
    for (at, text) in said {
        for (act, end) in [(Act::Close, End::Closed), (Act::Reset, End::Reset)] {
            let sink = sink(Script::good().act(at, act.clone()));
            let mut peer = Peer::to(sink.address()).await;
            peer.write(text).await;
            let mut got = Vec::new();
            let read = timeout(LIMIT, peer.0.read_to_end(&mut got)).await.unwrap();
            let ended = if read.is_ok() {
                End::Closed
            } else {
                End::Reset
            };
            assert_eq!(ended, end, "{at:?} {act:?}");
            if at > At::Greeting && end == End::Closed {
                assert!(got.starts_with(b"220 "), "{at:?}");
            }
            if at <= At::Greeting {
                assert!(got.is_empty(), "{at:?} {act:?}");
            }
            drop(peer);
            let counts = sink.wait_for(|counts| counts.open == 0).await.unwrap();
            assert_eq!((counts.messages, counts.faults), (0, 1), "{at:?} {act:?}");
        }
    }
}

#[tokio::test]
async fn greetings_refuse_as_the_rfc_says() {
    let sink = sink(Script::greeting("421-4.3.2 sink.test\n421 4.3.2 busy"));
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("421-4.3.2 sink.test\r\n421 4.3.2 busy\r\n")
        .await;
    assert_eq!(peer.end().await, End::Closed);
    // RFC 5321 §3.1: after 554 the connection stays, with 503 to everything until QUIT.
    sink.script(Script::greeting("554 5.7.1 no"));
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("554 5.7.1 no\r\n").await;
    peer.write("EHLO me\r\n").await;
    peer.reads("503 5.5.1 no service here\r\n").await;
    peer.write("QUIT\r\n").await;
    peer.reads("221 2.0.0 sink.test bye\r\n").await;
    assert_eq!(sink.counts().greetings, 0);
}

#[tokio::test]
async fn a_silent_sink_says_nothing_and_sees_who_leaves() {
    let sink = sink(Script::silent());
    let peer = Peer::to(sink.address()).await;
    sink.wait_for(|counts| counts.faults == 1).await.unwrap();
    drop(peer);
    let counts = sink.wait_for(|counts| counts.open == 0).await.unwrap();
    assert_eq!((counts.lost, counts.wordless, counts.greetings), (1, 1, 0));
}

#[tokio::test]
async fn a_held_sink_goes_on_when_it_is_released() {
    let sink = sink(Script::good().hold_at(At::Greeting));
    let mut peer = Peer::to(sink.address()).await;
    sink.wait_for(|counts| counts.faults == 1).await.unwrap();
    peer.write("EHLO early\r\n").await;
    assert_eq!(sink.counts().greetings, 0);
    sink.release();
    peer.reads("250 SMTPUTF8\r\n").await;
    assert_eq!(sink.counts().early_talkers, 1);
}

#[tokio::test]
async fn a_teaser_greets_in_two_pieces() {
    let pieces = ["220-first\r\n", "220 last\r\n"].map(|text| Piece {
        after: Duration::from_millis(20),
        octets: text.into(),
    });
    let sink = sink(Script::good().act(At::Greeting, Act::Pieces(pieces.to_vec())));
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("220-first\r\n").await;
    assert_eq!(sink.counts().greetings, 0);
    peer.reads("220 last\r\n").await;
    peer.write("NOOP\r\n").await;
    peer.reads("250 2.0.0 Ok\r\n").await;
    assert_eq!(sink.counts().greetings, 1);
}

#[tokio::test]
async fn pipelining_that_was_not_announced_ends_the_session() {
    let sink = sink(Script::good().no_pipelining());
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("\r\n").await;
    peer.write("EHLO me\r\n").await;
    let ehlo = peer.reads("250 SMTPUTF8\r\n").await;
    assert!(!ehlo.contains("PIPELINING"), "{ehlo}");
    peer.write("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n").await;
    peer.reads("500 5.5.1 Invalid command: Pipelining not supported\r\n")
        .await;
    assert_eq!(peer.end().await, End::Closed);
}

#[tokio::test]
async fn one_more_than_the_limit_waits_or_is_refused() {
    let sink = sink(Script::good().max_connections(1, WhenFull::Wait));
    let mut first = Peer::to(sink.address()).await;
    first.reads("\r\n").await;
    let mut second = Peer::to(sink.address()).await;
    sink.wait_for(|counts| counts.open == 2).await.unwrap();
    assert_eq!(sink.counts().greetings, 1);
    first.write("QUIT\r\n").await;
    first.reads("bye\r\n").await;
    drop(first);
    second.reads("220 sink.test ESMTP Posthouse sink\r\n").await;

    let refuse = WhenFull::Refuse("421 4.7.0 too many connections".into());
    sink.script(Script::good().max_connections(1, refuse));
    let mut third = Peer::to(sink.address()).await;
    third.reads("421 4.7.0 too many connections\r\n").await;
    assert_eq!(third.end().await, End::Closed);
}

#[tokio::test]
async fn a_stopped_sink_resets_and_comes_back_on_the_same_port() {
    let sink = sink(Script::good());
    let mut peer = Peer::to(sink.address()).await;
    peer.reads("\r\n").await;
    sink.stop().await;
    assert_eq!(peer.end().await, End::Reset);
    let refused = TcpStream::connect(sink.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    sink.restart().await.unwrap();
    Letter::numbered(1).send(sink.address()).await.unwrap();
    assert_eq!(sink.counts().connections, 2);
}

#[tokio::test]
async fn a_sink_on_its_own_thread_serves_every_address() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let plan = SinkPlan::default().on([any, any]);
    let sink = Sink::spawn_thread(plan).unwrap();
    assert_eq!(sink.addresses().len(), 2);
    for address in sink.addresses() {
        Letter::numbered(1).send(*address).await.unwrap();
    }
    assert_eq!(sink.counts().messages, 2);
}

/// A sender cannot tell these from each other: the message is here, or it is not (rule F3).
#[tokio::test]
async fn a_message_is_counted_if_it_was_taken_before_the_connection_broke_f1() {
    let table = [
        (Script::good().close_at(At::Dot), "", 0),
        (Script::good().torn_at(At::Dot, "25"), "25", 0),
        (Script::good().close_at(At::Taken), "", 1),
        (Script::good().reset_at(At::Taken), "", 1),
        (Script::good().torn_at(At::Taken, "250 2."), "250 2.", 1),
        (Script::good().die_at(At::Taken), "", 1),
    ];
    for (script, heard, taken) in table {
        let sink = sink(script.clone());
        let mut peer = Peer::to(sink.address()).await;
        peer.write(&format!("{TO_DATA}whole\r\n.\r\n")).await;
        peer.reads("354 go ahead\r\n").await;
        let mut got = Vec::new();
        // A reset may take the last words with it; an end does not.
        let _ = timeout(LIMIT, peer.0.read_to_end(&mut got)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&got), heard, "{script:?}");
        assert_eq!(sink.counts().messages, taken, "{script:?}");
        assert_eq!(sink.messages().len() as u64, taken, "{script:?}");
    }
}

#[tokio::test]
async fn a_sink_that_dies_takes_every_connection_with_it_and_can_be_started_again() {
    let script = Script::good().die_at(At::MidData);
    for content in ["DATA\r\nhalf", "BDAT 9\r\nhalf"] {
        let sink = sink(script.clone());
        let mut bystander = Peer::to(sink.address()).await;
        bystander.reads("\r\n").await;
        let mut peer = Peer::to(sink.address()).await;
        let envelope = "EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n";
        peer.write(&format!("{envelope}{content}")).await;
        sink.wait_for(|counts| counts.deaths == 1).await.unwrap();
        assert_eq!(bystander.end().await, End::Reset);
        TcpStream::connect(sink.address()).await.unwrap_err();
        assert_eq!((sink.counts().messages, sink.counts().open), (0, 0));
        sink.script(Script::good());
        sink.restart().await.unwrap();
        Letter::numbered(1).send(sink.address()).await.unwrap();
    }
}

#[tokio::test]
async fn a_script_for_all_reaches_connections_that_are_open() {
    let sink = sink(Script::good());
    let letter = Letter::numbered(1);
    let mut session = ClientSession::open(&letter, sink.address()).await.unwrap();
    session.deliver(&letter).await.unwrap();
    sink.script(Script::good().reply(At::Mail, "450 4.3.0 only new ones"));
    session.deliver(&letter).await.unwrap();
    sink.script_for_all(Script::good().reply(At::Rcpt, "450 4.3.0 all of you"));
    let error = session.deliver(&letter).await.unwrap_err();
    assert_eq!(error.stage, SendStage::Rcpt);
    assert_eq!(error.fault, SendFault::Reply("450 4.3.0 all of you".into()));
    let error = letter.send(sink.address()).await.unwrap_err();
    assert_eq!(error.stage, SendStage::Rcpt, "new ones as well");
    sink.script_for_all(Script::good());
    session.deliver(&letter).await.unwrap();
    session.quit(LIMIT).await.unwrap();
    let counts = sink.counts();
    assert_eq!((counts.messages, counts.rsets), (3, 1));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let sink = sink(Script::good());
    let error = Sink::start(SinkPlan::default().on([sink.address()])).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(
        error.to_string().contains(&sink.address().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn the_client_says_how_far_it_got() {
    let sink = sink(Script::greeting("421 4.3.2 busy"));
    let error = Letter::numbered(1).send(sink.address()).await.unwrap_err();
    assert_eq!(error.stage, SendStage::Greeting);
    assert_eq!(error.fault, SendFault::Reply("421 4.3.2 busy".into()));
    sink.script(Script::good().close_at(At::Dot));
    let error = Letter::numbered(1).send(sink.address()).await.unwrap_err();
    assert_eq!(
        (error.stage, error.fault),
        (SendStage::Dot, SendFault::Closed)
    );
    sink.stop().await;
    let error = Letter::numbered(1).send(sink.address()).await.unwrap_err();
    assert_eq!(error.stage, SendStage::Connect);
}
