//! smtp-source, Postfix's load generator; it gives up at the first thing that goes wrong.

use std::net::SocketAddr;
use std::process::Command;

/// Sends `messages` messages over `parallel` connections at a time, each in its own session, and
/// fails unless all were accepted.
pub(crate) fn send(server: SocketAddr, messages: u32, parallel: u32) {
    let output = Command::new("smtp-source")
        .args([
            "-s",
            &parallel.to_string(),
            "-m",
            &messages.to_string(),
            "-l",
            "4096",
        ])
        .args([
            "-f",
            "sender@client.test",
            "-t",
            "rcpt@example.test",
            "-M",
            "client.test",
        ])
        .arg(format!("inet:{}:{}", server.ip(), server.port()))
        .output()
        .expect("smtp-source is installed: run tests/install.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "smtp-source: {}: {said}",
        output.status
    );
}
