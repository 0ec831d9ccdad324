//! The demo's clients: small sessions in a loop, and a strict account of every one.
//!
//! A session that was not greeted, or was refused, is lost: that must never happen. One that was
//! cut in the middle because its backend was killed is sent again, as every MTA does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::lab::{Letter, SendError, SendFault, SendStage};
use crate::types::Rng;

/// The domain of senders, by which mail sent by hand is told apart.
pub(super) const SENDER_DOMAIN: &str = "@clients.demo";
/// A message is sent again so often before it counts as lost.
const TRIES_MAX: u32 = 5;

/// What the clients met so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SoFar {
    /// Messages acknowledged with 250.
    pub(super) taken: u64,
    /// Sessions that were not served: not greeted, or refused.
    pub(super) lost: u64,
    /// Sessions cut in the middle.
    pub(super) cut: u64,
    /// Messages that were acknowledged only at a later try.
    pub(super) sent_again: u64,
    /// The longest wait for a greeting.
    pub(super) slowest_greeting: Duration,
    /// The last thing that went wrong with a lost session.
    pub(super) last_loss: Option<String>,
}

/// The running clients.
#[derive(Debug)]
pub(super) struct Traffic {
    clients: JoinSet<()>,
    so_far: Arc<Mutex<SoFar>>,
}

impl Traffic {
    /// Starts so many clients on the current runtime.
    pub(super) fn start(count: u16, to: SocketAddr, stopped: &watch::Receiver<bool>) -> Self {
        let so_far = Arc::new(Mutex::new(SoFar::default()));
        let mut clients = JoinSet::new();
        for number in 0..count {
            let client = Client {
                number,
                to,
                so_far: Arc::clone(&so_far),
                rng: Rng::seeded(u64::from(number) + 1),
            };
            clients.spawn(client.run(stopped.clone()));
        }
        Self { clients, so_far }
    }

    /// The account now.
    pub(super) fn so_far(&self) -> SoFar {
        lock(&self.so_far).clone()
    }

    /// Waits until every client has finished its letter.
    pub(super) async fn finish(mut self) -> SoFar {
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }
}

struct Client {
    number: u16,
    to: SocketAddr,
    so_far: Arc<Mutex<SoFar>>,
    rng: Rng,
}

impl Client {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut letters = 0;
        while !*stopped.borrow_and_update() {
            letters += 1;
            let letter = self.write(letters);
            self.deliver(&letter).await;
            let pause = Duration::from_millis(u64::from(20 + self.rng.below(120)));
            // Both branches are cancel-safe: a timer and a watch.
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopped.changed() => {}
            }
        }
    }

    fn write(&mut self, letters: u64) -> Letter {
        let lines = 4 + self.rng.below(200) as usize;
        let mut content = format!(
            "From: <client{0}{SENDER_DOMAIN}>\r\nTo: <reader@example.com>\r\n\
             Subject: letter {letters} of client {0}\r\n\r\n",
            self.number
        );
        content
            .push_str(&"A line of a letter that travels through the posthouse.\r\n".repeat(lines));
        Letter {
            helo: format!("client{}.demo", self.number),
            from: format!("client{}{SENDER_DOMAIN}", self.number),
            to: vec!["reader@example.com".to_owned()],
            content: content.into_bytes(),
            think: Duration::from_millis(u64::from(2 + self.rng.below(25))),
            limit: Duration::from_secs(30),
        }
    }

    async fn deliver(&self, letter: &Letter) {
        for attempt in 1..=TRIES_MAX {
            match letter.send(self.to).await {
                Ok(sent) => {
                    let mut so_far = lock(&self.so_far);
                    so_far.taken += 1;
                    so_far.sent_again += u64::from(attempt > 1);
                    so_far.slowest_greeting = so_far.slowest_greeting.max(sent.greeted_after);
                    return;
                }
                Err(error) if was_cut(&error) && attempt < TRIES_MAX => {
                    lock(&self.so_far).cut += 1;
                }
                Err(error) => {
                    let mut so_far = lock(&self.so_far);
                    so_far.lost += 1;
                    so_far.last_loss = Some(error.to_string());
                    return;
                }
            }
        }
    }
}

/// Whether the connection broke after the greeting: nobody in front can undo that.
fn was_cut(error: &SendError) -> bool {
    error.stage > SendStage::Greeting && matches!(error.fault, SendFault::Closed | SendFault::Io(_))
}

fn lock(so_far: &Mutex<SoFar>) -> std::sync::MutexGuard<'_, SoFar> {
    so_far
        .lock()
        .expect("no code panics while it holds the account")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_broken_after_the_greeting_may_be_sent_again() {
        let error = |stage, fault| SendError { stage, fault };
        let io = || SendFault::Io("reset".into());
        assert!(was_cut(&error(SendStage::Mail, io())));
        assert!(was_cut(&error(SendStage::Dot, SendFault::Closed)));
        assert!(!was_cut(&error(SendStage::Greeting, SendFault::Closed)));
        assert!(!was_cut(&error(SendStage::Connect, io())));
        let refused = SendFault::Reply("421 4.3.2 no".into());
        assert!(!was_cut(&error(SendStage::Mail, refused)));
    }
}
