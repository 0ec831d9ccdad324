//! The demo's clients: small sessions in a loop, and a strict account of every one.
//!
//! A session that was not greeted, or was refused, is lost: that must never happen. In passthrough
//! mode one that was cut in the middle because its backend was killed is sent again, as every MTA
//! does. In smtp mode a session holds many messages and is never cut; a message is sent again only
//! if its fate was said to be unknown.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Mode;
use super::ledger::{Heard, LetterId};
use crate::lab::{ClientSession, Letter, SendError, SendFault, SendStage};
use crate::types::Rng;

/// The domain of senders, by which mail sent by hand is told apart.
pub(super) const SENDER_DOMAIN: &str = "@clients.demo";
/// A message is sent again so often before it counts as lost.
const TRIES_MAX: u32 = 5;
/// Waits in milliseconds: the least, and what chance adds.
const BETWEEN_SESSIONS: (u32, u32) = (20, 120);
const BETWEEN_LETTERS: (u32, u32) = (5, 40);
/// The most letters of one session in smtp mode.
const LETTERS_MAX: u32 = 20;

/// What the clients met so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SoFar {
    /// Messages acknowledged with 250.
    pub(super) taken: u64,
    /// Sessions that were not served: not greeted, or refused.
    pub(super) lost: u64,
    /// Sessions cut after the greeting: not lost, because the client sends its message again.
    pub(super) cut: u64,
    /// Messages that were acknowledged only at a later try.
    pub(super) sent_again: u64,
    /// The longest wait for a greeting.
    pub(super) slowest_greeting: Duration,
    /// The longest wait from MAIL to the reply to the end of a message, in smtp mode.
    pub(super) slowest_message: Duration,
    /// The last thing that went wrong with a lost session.
    pub(super) last_loss: Option<String>,
}

/// The running clients.
#[derive(Debug)]
pub(super) struct Traffic {
    clients: JoinSet<()>,
    account: Arc<Mutex<Told>>,
}

/// What the clients tell.
#[derive(Debug, Default)]
struct Told {
    so_far: SoFar,
    heard: Heard,
}

impl Traffic {
    /// Starts so many clients on the current runtime.
    pub(super) fn start(
        mode: Mode,
        count: u16,
        to: SocketAddr,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let account = Arc::new(Mutex::new(Told::default()));
        let mut clients = JoinSet::new();
        for number in 0..count {
            let client = Client {
                number,
                to,
                account: Arc::clone(&account),
                rng: Rng::seeded(u64::from(number) + 1),
                letters: 0,
                stopped: stopped.clone(),
            };
            match mode {
                Mode::Passthrough => clients.spawn(client.send_letters()),
                Mode::Smtp => clients.spawn(client.hold_sessions()),
            };
        }
        Self { clients, account }
    }

    /// The account now, and what was heard since the last time.
    pub(super) fn so_far(&self) -> (SoFar, Heard) {
        let mut told = lock(&self.account);
        (told.so_far.clone(), std::mem::take(&mut told.heard))
    }

    /// Waits until every client has finished its letter.
    pub(super) async fn finish(&mut self) {
        while self.clients.join_next().await.is_some() {}
    }
}

struct Client {
    number: u16,
    to: SocketAddr,
    account: Arc<Mutex<Told>>,
    rng: Rng,
    letters: u64,
    stopped: watch::Receiver<bool>,
}

impl Client {
    /// One session for each letter.
    async fn send_letters(mut self) {
        while !*self.stopped.borrow_and_update() {
            let (_, letter) = self.write();
            self.deliver(&letter).await;
            self.pause(BETWEEN_SESSIONS).await;
        }
    }

    /// Sessions of several letters each.
    async fn hold_sessions(mut self) {
        while !*self.stopped.borrow_and_update() {
            let letters = 1 + self.rng.below(LETTERS_MAX);
            if let Err(error) = self.hold_session(letters).await {
                self.lose(error.to_string());
            }
            self.pause(BETWEEN_SESSIONS).await;
        }
    }

    async fn hold_session(&mut self, letters: u32) -> Result<(), SendError> {
        let (mut id, mut letter) = self.write();
        let mut session = ClientSession::open(&letter, self.to).await?;
        self.note(|told| {
            let slowest = &mut told.so_far.slowest_greeting;
            *slowest = (*slowest).max(session.greeted_after());
        });
        for _ in 0..letters {
            self.place(&mut session, id, &letter).await?;
            self.pause(BETWEEN_LETTERS).await;
            if *self.stopped.borrow() {
                break;
            }
            (id, letter) = self.write();
        }
        let limit = Duration::from_secs(5);
        session.quit(limit).await.map_err(|fault| SendError {
            stage: SendStage::Dot,
            fault,
        })
    }

    /// Sends it until it is acknowledged, again only where its fate was said to be unknown.
    async fn place(
        &self,
        session: &mut ClientSession,
        id: LetterId,
        letter: &Letter,
    ) -> Result<(), SendError> {
        for attempt in 1.. {
            let began = Instant::now();
            let Err(error) = session.deliver(letter).await else {
                self.note(|told| {
                    told.so_far.taken += 1;
                    told.so_far.sent_again += u64::from(attempt > 1);
                    let slowest = &mut told.so_far.slowest_message;
                    *slowest = (*slowest).max(began.elapsed());
                    told.heard.acknowledged.push(id);
                });
                return Ok(());
            };
            if attempt == TRIES_MAX || !is_in_doubt(&error) {
                return Err(error);
            }
            self.note(|told| told.heard.doubted.push(id));
        }
        Ok(())
    }

    async fn pause(&mut self, (least, spread): (u32, u32)) {
        let pause = Duration::from_millis(u64::from(least + self.rng.below(spread)));
        // Both branches are cancel-safe: a timer and a watch.
        tokio::select! {
            () = sleep(pause) => {}
            _ = self.stopped.changed() => {}
        }
    }

    fn note(&self, what: impl FnOnce(&mut Told)) {
        what(&mut lock(&self.account));
    }

    fn lose(&self, why: String) {
        self.note(|told| {
            told.so_far.lost += 1;
            told.so_far.last_loss = Some(why);
        });
    }

    /// The next letter.
    fn write(&mut self) -> (LetterId, Letter) {
        self.letters += 1;
        let id = LetterId {
            client: self.number,
            number: self.letters,
        };
        let lines = 4 + self.rng.below(200) as usize;
        let mut content = format!(
            "From: <client{0}{SENDER_DOMAIN}>\r\nTo: <reader@example.com>\r\n\
             Message-ID: {1}\r\nSubject: letter {2} of client {0}\r\n\r\n",
            self.number,
            id.message_id(),
            self.letters
        );
        content
            .push_str(&"A line of a letter that travels through the posthouse.\r\n".repeat(lines));
        let letter = Letter {
            helo: format!("client{}.demo", self.number),
            from: format!("client{}{SENDER_DOMAIN}", self.number),
            to: vec!["reader@example.com".to_owned()],
            content: content.into_bytes(),
            think: Duration::from_millis(u64::from(2 + self.rng.below(25))),
            limit: Duration::from_secs(30),
        };
        (id, letter)
    }

    /// Sends it in a session of its own, again if that was cut.
    async fn deliver(&self, letter: &Letter) {
        for attempt in 1..=TRIES_MAX {
            match letter.send(self.to).await {
                Ok(sent) => {
                    self.note(|told| {
                        let so_far = &mut told.so_far;
                        so_far.taken += 1;
                        so_far.sent_again += u64::from(attempt > 1);
                        so_far.slowest_greeting = so_far.slowest_greeting.max(sent.greeted_after);
                    });
                    return;
                }
                Err(error) if was_cut(&error) && attempt < TRIES_MAX => {
                    self.note(|told| told.so_far.cut += 1);
                }
                Err(error) => return self.lose(error.to_string()),
            }
        }
    }
}

/// Whether we were told that the message may or may not have been taken (rule F4).
fn is_in_doubt(error: &SendError) -> bool {
    let said_so = |reply: &str| reply.starts_with("451 4.4.2");
    error.stage == SendStage::Dot
        && matches!(&error.fault, SendFault::Reply(reply) if said_so(reply))
}

/// Whether the connection broke after the greeting: nobody in front can undo that.
fn was_cut(error: &SendError) -> bool {
    error.stage > SendStage::Greeting && matches!(error.fault, SendFault::Closed | SendFault::Io(_))
}

fn lock(account: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    account
        .lock()
        .expect("no code panics while it holds the account")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fate_that_is_said_to_be_unknown_is_a_reason_to_send_again_in_a_session() {
        let error = |stage, reply: &str| SendError {
            stage,
            fault: SendFault::Reply(reply.into()),
        };
        assert!(is_in_doubt(&error(SendStage::Dot, "451 4.4.2 lost")));
        assert!(!is_in_doubt(&error(SendStage::Mail, "451 4.4.2 lost")));
        assert!(!is_in_doubt(&error(SendStage::Dot, "451 4.3.2 none")));
        assert!(!is_in_doubt(&SendError {
            stage: SendStage::Dot,
            fault: SendFault::Closed,
        }));
    }

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
