//! Transactions over kept-alive connections, end to end: what a client meets while backends fail.

mod choice;
mod clients;
mod delivery;
mod doubt;
mod failover;
mod guard;
mod kept;
mod sessions;

use posthouse::balance::BackendState;
use posthouse::config::Config;
use posthouse::config::model::Mode;
use posthouse::lab::SinkHandle;

use crate::harness::client::{Client, End};
use crate::harness::{Balancer, config, listener};
pub(crate) use crate::harness::{good, sink};

/// What most messages hold.
pub(crate) const BODY: &str = "Subject: x\r\n\r\n..stuffed\r\nline\r\n";

/// A configuration whose listener speaks SMTP, for these backends.
pub(crate) fn smtp(backends: &[&SinkHandle]) -> Config {
    let addresses: Vec<_> = backends.iter().map(|sink| sink.address()).collect();
    let mut config = config(&addresses);
    listener(&mut config).mode = Mode::Smtp;
    config
}

/// A client that has said EHLO.
pub(crate) async fn client(balancer: &Balancer) -> Client {
    Client::introduced(balancer.address).await
}

pub(crate) async fn quit(mut client: Client) {
    client.ask("QUIT", "221 2.0.0 lb.test").await;
    assert_eq!(client.expect_end().await, End::Fin);
}

/// Everything of the reply to EHLO that a client is offered.
async fn offered(balancer: &Balancer) -> Vec<String> {
    let mut client = client(balancer).await;
    client.say("EHLO client.test\r\n").await;
    let mut lines = Vec::new();
    loop {
        let line = client.line().await;
        lines.push(line[4..].to_owned());
        if line.as_bytes()[3] == b' ' {
            quit(client).await;
            return lines;
        }
    }
}

/// As a probe would find it.
fn announces(backend: &BackendState, keywords: &[&str]) {
    backend.announces(&keywords.iter().map(|&keyword| keyword.into()).collect());
}
