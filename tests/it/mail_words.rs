//! Our replies in the operator's words (rule R2), as clients read them.

use std::io;
use std::path::Path;

use posthouse::config::{Config, parse};
use posthouse::lab::{Script, Sink, SinkPlan};
use posthouse::worker::Command;

use crate::harness::client::{Client, End};
use crate::harness::{Balancer, HOSTNAME};

/// A listener in mode "smtp" with these lines for its replies.
fn worded(backend: std::net::SocketAddr, tables: &str) -> Config {
    let text = format!(
        "listeners.relay.bind = \"127.0.0.1:0\"\n\
         listeners.relay.mode = \"smtp\"\n\
         listeners.relay.pool = \"relay\"\n\
         pools.relay.backends.one.address = \"{backend}\"\n\
         {tables}"
    );
    let nothing = |_: &Path| -> io::Result<String> { Err(io::ErrorKind::NotFound.into()) };
    let loaded = parse(&text, Path::new("test.toml"), HOSTNAME, &nothing);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}

#[tokio::test]
async fn rule_r2_a_listener_says_its_replies_in_the_operator_s_words() {
    let backend = Sink::start(SinkPlan::with(Script::good())).expect("loopback has a port");
    let config = worded(
        backend.address(),
        "[listeners.relay.replies]\n\
         shutting_down = \"421 4.3.2 {hostname} come back at noon\"\n\
         [listeners.relay.smtp.replies]\n\
         greeting = \"220 {hostname} mail of Example Inc\"\n\
         bad_sequence = \"554 5.5.1 one after the other\"\n\
         no_recipients = \"554 5.1.1 whom to?\"\n",
    );
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect("220 lb.test mail of Example Inc").await;
    client.ask("EHLO client.test", "250").await;
    client.ask("DATA", "554 5.5.1 one after the other").await;
    client.ask("NOOP", "250 2.0.0 ok").await;
    balancer.command(|| Command::StopAccepting);
    client.expect("421 4.3.2 lb.test come back at noon").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_until_empty().await;
}

/// What a backend's failure makes us say goes the same way as what a backend says.
#[tokio::test]
async fn rule_r2_what_is_said_in_a_backend_s_place_is_worded_too() {
    let config = worded(
        crate::harness::dead(),
        "[listeners.relay.smtp.replies]\n\
         no_backend_answered = \"450 4.4.1 the fleet sleeps\"\n\
         no_backend = \"450 4.4.1 the fleet sleeps\"\n",
    );
    let balancer = Balancer::start(config);
    let mut client = Client::connect(balancer.address).await;
    client.expect("220").await;
    client.ask("EHLO client.test", "250").await;
    client
        .ask("MAIL FROM:<a@example.org>", "450 4.4.1 the fleet sleeps")
        .await;
    client.ask("QUIT", "221").await;
    assert_eq!(client.expect_end().await, End::Fin);
    balancer.wait_until_empty().await;
}
