//! Behind the commit: a message whose reply is lost is in doubt, and nobody else gets it.

use posthouse::lab::{At, Script};
use posthouse::metrics::{SessionOutcome, TransactionOutcome};
use posthouse::worker::Command;

use super::{BODY, client, good, quit, sink, smtp};
use crate::harness::{Balancer, listener, transactions};

#[tokio::test]
async fn after_the_commit_it_is_in_doubt_and_sent_to_nobody_else_f3_f4() {
    let bad = sink("bad.test", Script::good().close_at(At::Dot));
    let backend = good("good.test");
    let balancer = Balancer::start(smtp(&[&bad, &backend]));
    let mut client = client(&balancer).await;
    client.send(BODY, "451 4.4.2").await;
    bad.script(Script::good());
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!(bad.counts().messages + backend.counts().messages, 1);
}

#[tokio::test]
async fn where_the_operator_asks_a_message_in_doubt_is_sent_again_f7() {
    let bad = sink("bad.test", Script::good().close_at(At::Dot));
    let backend = good("good.test");
    let mut config = smtp(&[&bad, &backend]);
    listener(&mut config).smtp.replay_in_doubt = true;
    let balancer = Balancer::start(config);
    let mut client = client(&balancer).await;
    client.send_message(BODY).await;
    quit(client).await;
    assert_eq!((bad.counts().messages, backend.counts().messages), (0, 1));
}

/// Promise 4: whatever ends a session behind the commit, the message is told to be in doubt.
#[tokio::test]
async fn a_session_cut_behind_the_commit_leaves_a_message_in_doubt_f3() {
    let backend = sink("one.test", Script::good().hold_at(At::Dot));
    let balancer = Balancer::start(smtp(&[&backend]));
    let mut client = client(&balancer).await;
    client.begin_content().await;
    // Long enough that its digest takes several steps.
    let line = format!("{}\r\n", "x".repeat(98));
    client.say(line.repeat(20_000)).await;
    client.say(".\r\n").await;
    backend
        .wait_for(|counts| counts.faults == 1)
        .await
        .expect("the message has come");
    balancer.command(|| Command::Stop);
    balancer.wait_for(SessionOutcome::Cut, 1).await;
    let shared = std::sync::Arc::clone(&balancer.shared);
    // Joins the thread: nothing is counted later.
    drop(balancer);
    assert_eq!(transactions(&shared, TransactionOutcome::InDoubt), 1);
}
