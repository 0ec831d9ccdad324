//! swaks, the operators' test client.

use std::net::SocketAddr;
use std::process::Command;

/// What a run of swaks showed.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// Both directions, with swaks' marks (`<-`, `->`, `<~` under TLS).
    pub(crate) text: String,
    /// 0 when the message was accepted.
    pub(crate) exit_code: Option<i32>,
}

/// Sends one message to `server` with further arguments.
pub(crate) fn swaks(server: SocketAddr, arguments: &[&str]) -> Transcript {
    let output = Command::new("swaks")
        .args([
            "--server",
            &server.ip().to_string(),
            "--port",
            &server.port().to_string(),
        ])
        .args(["--from", "sender@client.test", "--to", "rcpt@example.test"])
        .args(["--helo", "client.test", "--timeout", "30"])
        .args(arguments)
        .output()
        .expect("swaks is installed: run tests/install.sh");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Transcript {
        text,
        exit_code: output.status.code(),
    }
}

/// As [`swaks`], and the message must be accepted.
pub(crate) fn accepted(server: SocketAddr, arguments: &[&str]) -> String {
    let transcript = swaks(server, arguments);
    assert_eq!(
        transcript.exit_code,
        Some(0),
        "swaks {arguments:?}:\n{}",
        transcript.text
    );
    transcript.text
}
