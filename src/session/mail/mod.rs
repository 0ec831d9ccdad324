//! A session that holds mail transactions: the driver of [`MailSession`].
//!
//! It reads, writes and finds connections; every decision is the core's. One poll does what can be
//! done and then writes all replies at once, so that a pipelined group is answered in one segment
//! (rule P3). What the client says ahead of what can be answered now is held, at most
//! [`AHEAD_MAX`] octets of it.
//!
//! Dropped while it runs (a cut, a panic) it resets the connection to the backend, so that an
//! unfinished message is never taken for a whole one (rule K4).

mod account;
mod lease;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use self::account::Account;
use self::lease::Line;
use super::closing;
use super::record::Session;
use crate::balance::{Spent, Tried};
use crate::metrics::{EndedBy, ListenerCounters, SessionOutcome, SessionPhase};
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::{Due, Timer};
use crate::smtp::{
    Effect, Elsewhere, Extensions, MailSession, OwnReply, TransactionEnd, TransactionFacts,
};

/// What a client may say ahead of our replies (rule P3).
const AHEAD_MAX: usize = 64 * 1024;
/// Rounds of reading and writing in one poll, before others have their turn.
const ROUNDS_MAX: u32 = 32;
/// Keepalive is set on the client's socket when a session lasts so long.
const LASTING: Duration = Duration::from_secs(10);
/// Between looks whether the backend of an open transaction is still in service.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a client may take to read the last reply.
const LAST_REPLY_TIME: Duration = Duration::from_secs(10);

/// Runs the session to its end.
pub(super) async fn run(session: &mut Session, client: &Stream, timer: &mut Timer) {
    session.phase = SessionPhase::Relay;
    let mut mail = Box::new(Mail::begin(session, client));
    poll_fn(|task| mail.poll(task, timer)).await;
    let end = mail.end;
    drop(mail);
    if end == End::Said {
        closing::linger(session, client, timer).await;
    }
}

/// How the client's connection is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It goes on.
    NotYet,
    /// The last reply was written: the client is to read it (rule K5).
    Said,
    /// It is gone.
    Gone,
}

/// Whether a step has moved anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Moved,
    Still,
}

impl Step {
    fn of(moved: bool) -> Self {
        if moved { Self::Moved } else { Self::Still }
    }
}

/// How much of the client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    /// It may say more.
    More,
    /// It has ended its direction,
    Ended,
    /// and the core knows.
    Told,
}

struct Mail<'a> {
    session: &'a mut Session,
    client: &'a Stream,
    core: MailSession,
    line: Line,
    /// What the client has said ahead.
    ahead: Vec<u8>,
    hears: Hears,
    /// Backends that failed the open transaction.
    tried: Tried,
    /// It moves for want of room for more recipients.
    seeks_room: bool,
    /// Its backend was slow to answer MAIL, and another is to be asked.
    gives_up_slow: bool,
    account: Option<Account>,
    transactions: u32,
    /// A message of it was accepted.
    has_delivered: bool,
    /// What the transaction has taken of the backend's quotas.
    spent: Option<Spent>,
    announced: Rc<Extensions>,
    lasts: Option<Instant>,
    /// The client is given up then.
    gives_up: Option<Instant>,
    end: End,
}

impl<'a> Mail<'a> {
    fn begin(session: &'a mut Session, client: &'a Stream) -> Self {
        let now = clock::now();
        session.is_mail();
        let policy = std::sync::Arc::clone(&session.listener.mail);
        let memory = std::sync::Arc::clone(&session.cx.shared.replay_memory);
        let lasts = Some(session.accepted + LASTING);
        Self {
            core: MailSession::new(policy, memory, now),
            line: Line::None,
            ahead: Vec::new(),
            hears: Hears::More,
            tried: Tried::default(),
            seeks_room: false,
            gives_up_slow: false,
            account: None,
            transactions: 0,
            has_delivered: false,
            spent: None,
            announced: Rc::default(),
            lasts,
            gives_up: None,
            end: End::NotYet,
            session,
            client,
        }
    }

    fn poll(&mut self, task: &mut Context<'_>, timer: &mut Timer) -> Poll<()> {
        let mut rounds = 0;
        loop {
            let now = clock::now();
            let orders = self.session.orders();
            if orders.drains {
                self.core.drain();
            }
            if orders.leaves && matches!(self.line, Line::Held(_)) {
                self.core.backend_lost(now);
            }
            if self.round(task, now) == Step::Moved {
                rounds += 1;
                if rounds == ROUNDS_MAX {
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            if self.flush(task) == Step::Moved {
                continue;
            }
            if self.is_over() {
                self.finish();
                return Poll::Ready(());
            }
            if self.gives_up.is_none() && self.core.is_closing() {
                self.gives_up = Some(now + LAST_REPLY_TIME);
            }
            match self.next_deadline() {
                Some(deadline) if timer.arm(deadline, now, task) == Due::Now => self.on_time(now),
                _ => return Poll::Pending,
            }
        }
    }

    /// Does once what can be done without waiting. The backend is heard before it is spoken to, so
    /// that a commit is never written to one that has said its last (rule F6).
    fn round(&mut self, task: &mut Context<'_>, now: Instant) -> Step {
        let mut moved = self.effects(now);
        moved |= self.hear_backend(task, now);
        moved |= self.find(task, now);
        if self.spent.is_some() {
            // Places for recipients are asked for, so that a group leaves in one flight.
            moved |= self.effects(now);
        }
        moved |= self.speak_to_backend(task, now);
        moved |= self.hear_client(task, now);
        Step::of(moved)
    }

    /// Follows what the core asks for.
    fn effects(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(effect) = self.core.effect() {
            any = true;
            match effect {
                Effect::Lease { want, needed } => self.lease(want, needed, now),
                Effect::Release(fate) => self.release(fate, now),
                Effect::Strike(trouble, step) => self.strike(trouble, step, now),
                Effect::Slow => self.hedge(now),
                Effect::EarlyTalker => self.early_talker(),
                Effect::Refused(refusal) => {
                    if let Some(account) = &mut self.account {
                        account.note_refusal(refusal.reply);
                    }
                    self.session.was_refused(refusal);
                }
                Effect::Tarpitted => self.listener_counters().tarpitted.inc(),
                Effect::Reserve(recipients) => self.reserve(recipients, now),
                Effect::GiveBack(recipients) => {
                    if let Some(spent) = &mut self.spent {
                        spent.give_back(recipients);
                    }
                }
                Effect::ReplayInDoubt => self.doubted(now),
                Effect::EarlyReply => self.session.cx.counters().early_replies.inc(),
                Effect::NotReplayable(loss) => self.session.cx.counters().not_replayable(loss),
                Effect::Ended(end) => {
                    let facts = self.core.facts();
                    self.settle_quota(Some(end), facts.as_ref(), now);
                    self.has_delivered |= end == TransactionEnd::Accepted;
                    // A connection that was asked for is not needed any more.
                    if matches!(self.line, Line::Wanted(_)) {
                        self.line = Line::None;
                    }
                    self.tried = Tried::default();
                    if let Some(account) = self.account.take() {
                        account.end(self.session, Some(end), facts, now);
                    }
                }
            }
        }
        if matches!(self.line, Line::Left(_)) {
            // Nothing has asked for it.
            self.line = Line::None;
        }
        any
    }

    fn listener_counters(&self) -> &ListenerCounters {
        let session = &*self.session;
        let worker = session.cx.worker.index();
        session.listener.view.state.counters.of(worker)
    }

    /// The client talked before it was greeted (rule S14).
    fn early_talker(&self) {
        let session = &*self.session;
        self.listener_counters().early_talkers.inc();
        if !self.core.is_closing() {
            tracing::info!(session.id = %session.id,
                client.addr = %session.client(),
                listener = &*session.listener.view.name, "session.early-talker");
        }
    }

    /// Asks the backend's quotas for places for more recipients.
    fn reserve(&mut self, recipients: u32, now: Instant) {
        let granted = match &mut self.spent {
            Some(spent) => spent.reserve(recipients, now),
            // Nothing limits them any more.
            None => recipients,
        };
        if let Some(account) = &mut self.account {
            account.note_places(granted);
        }
        let elsewhere = if granted == 0 {
            self.elsewhere(now)
        } else {
            Elsewhere::None
        };
        self.core.reserved(granted, elsewhere, now);
    }

    /// Keeps what the transaction has taken of a quota, or gives it back.
    fn settle_quota(
        &mut self,
        end: Option<TransactionEnd>,
        facts: Option<&TransactionFacts>,
        now: Instant,
    ) {
        let Some(spent) = self.spent.take() else {
            return;
        };
        let may_be_taken = [TransactionEnd::Accepted, TransactionEnd::InDoubt];
        if end.is_some_and(|end| may_be_taken.contains(&end)) {
            let recipients = facts.map_or(1, TransactionFacts::recipients_accepted);
            spent.keep(recipients, now);
        }
    }

    fn hear_backend(&mut self, task: &mut Context<'_>, now: Instant) -> bool {
        if !self.core.reads_backend() {
            return false;
        }
        let Line::Held(held) = &mut self.line else {
            return false;
        };
        let cx = Rc::clone(&self.session.cx);
        let mut scratch = cx.scratch.borrow_mut();
        match held.kept.stream.poll_recv(task, &mut scratch) {
            Poll::Ready(Ok(0) | Err(_)) => self.core.backend_lost(now),
            Poll::Ready(Ok(n)) => {
                self.session.octets_to_client += n as u64;
                held.heard += n as u64;
                self.core.backend(&scratch[..n], now);
            }
            Poll::Pending => return false,
        }
        true
    }

    fn speak_to_backend(&mut self, task: &mut Context<'_>, now: Instant) -> bool {
        let Line::Held(held) = &mut self.line else {
            return false;
        };
        let outgoing = self.core.to_backend();
        let (octets, end) = (outgoing.octets, outgoing.end);
        if octets.is_empty() && end.is_empty() {
            return false;
        }
        if !end.is_empty() && self.client.is_reset() {
            // Nobody would hear that it was taken (rule F6).
            self.client_is_gone();
            return true;
        }
        let sent = match (octets.is_empty(), end.is_empty()) {
            (false, true) => held.kept.stream.poll_send(task, octets),
            (true, false) => held.kept.stream.poll_send(task, end),
            _ => held.kept.stream.poll_send_both(task, octets, end),
        };
        match sent {
            Poll::Ready(Ok(n)) => {
                self.session.octets_to_backend += n as u64;
                held.said += n as u64;
                self.core.sent_to_backend(n, now);
            }
            Poll::Ready(Err(_)) => {
                // What it said before it went is heard first.
                if !self.hear_backend(task, now) {
                    self.core.backend_lost(now);
                }
            }
            Poll::Pending => return false,
        }
        true
    }

    fn hear_client(&mut self, task: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        if !self.ahead.is_empty() {
            self.refresh_announced();
            let used = self.core.client(&self.ahead, &self.announced, now);
            self.ahead.drain(..used);
            if self.ahead.is_empty() {
                // An idle session holds no buffer.
                self.ahead = Vec::new();
            }
            moved = used > 0;
        }
        // Whose reply is held back has more to say behind it.
        let is_owed = self.core.is_awaited() || self.core.is_holding_back();
        if self.hears == Hears::Ended && (self.ahead.is_empty() || !is_owed) && !moved {
            self.hears = Hears::Told;
            self.core.client_ended();
            return true;
        }
        let room = self.ahead.len() < AHEAD_MAX;
        if moved || self.hears != Hears::More || !room || !self.core.reads_client() {
            return moved;
        }
        let cx = Rc::clone(&self.session.cx);
        let mut scratch = cx.scratch.borrow_mut();
        let most = (AHEAD_MAX - self.ahead.len()).min(scratch.len());
        match self.client.poll_recv(task, &mut scratch[..most]) {
            Poll::Ready(Ok(0)) => self.hears = Hears::Ended,
            Poll::Ready(Ok(n)) => self.take(&scratch[..n], now),
            Poll::Ready(Err(_)) => self.client_is_gone(),
            Poll::Pending => return false,
        }
        true
    }

    /// Gives the core what has come, behind what it has left.
    fn take(&mut self, octets: &[u8], now: Instant) {
        if !self.ahead.is_empty() {
            self.ahead.extend_from_slice(octets);
            return;
        }
        self.refresh_announced();
        let used = self.core.client(octets, &self.announced, now);
        self.ahead.extend_from_slice(&octets[used..]);
    }

    fn refresh_announced(&mut self) {
        let cx = &self.session.cx;
        let snapshot = cx.shared.current.load();
        if let Some(pool) = super::connect::pool_now(&snapshot, self.session) {
            let (generation, listener) = (snapshot.generation, &self.session.listener.view);
            self.announced = cx.capabilities.announced(generation, listener, pool);
        }
    }

    /// Writes what the client is to be told; the last of it together with the end of our direction,
    /// which saves a segment and whoever waits for it a waking.
    fn flush(&mut self, task: &mut Context<'_>) -> Step {
        let octets = self.core.to_client();
        if octets.is_empty() || self.end == End::Gone {
            return Step::Still;
        }
        let is_last = self.core.is_closing() && !self.core.is_in_transaction();
        let sent = if is_last {
            self.client.poll_send_last(task, octets)
        } else {
            self.client.poll_send(task, octets)
        };
        match sent {
            Poll::Ready(Ok(n)) => {
                self.core.sent_to_client(n);
                Step::Moved
            }
            Poll::Ready(Err(_)) => {
                self.client_is_gone();
                Step::Moved
            }
            Poll::Pending => Step::Still,
        }
    }

    /// Whether nothing is left to be said or heard.
    fn is_over(&self) -> bool {
        let said = self.core.to_client().is_empty() || self.end == End::Gone;
        said && self.core.is_closing() && !self.core.is_in_transaction()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let finding = match &self.line {
            Line::Wanted(wanted) => Some(wanted.connecting.deadline()),
            Line::Held(held) => Some(held.looked + LOOK_EVERY),
            Line::None | Line::Left(_) => None,
        };
        // A transaction that was committed is waited for, whoever has left (rule F11).
        let gives_up = self.gives_up.filter(|_| self.is_held_up());
        [self.core.deadline(), finding, self.lasts, gives_up]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_time(&mut self, now: Instant) {
        if self.lasts.is_some_and(|lasts| lasts <= now) {
            self.lasts = None;
            self.client.keep_alive();
        }
        if self.is_held_up() && self.gives_up.is_some_and(|late| late <= now) {
            self.client_is_gone();
        }
        if self.core.deadline().is_some_and(|late| late <= now) {
            self.core.timeout(now);
        }
        if let Line::Held(held) = &mut self.line
            && held.looked + LOOK_EVERY <= now
        {
            held.looked = now;
            if held.has_fallen() {
                self.core.leave_backend(now);
            }
        }
    }

    /// Whether a session that closes waits for a client that does not read, or for a backend that
    /// nobody needs an answer of any more.
    fn is_held_up(&self) -> bool {
        let unread = !self.core.to_client().is_empty();
        let put_away = self.core.is_in_transaction() && !self.core.is_awaited();
        self.end != End::Gone && (unread || put_away)
    }

    fn client_is_gone(&mut self) {
        self.hears = Hears::Told;
        self.end = End::Gone;
        self.core.client_lost();
    }

    fn finish(&mut self) {
        let phase = SessionPhase::Relay;
        let (outcome, by) = match self.core.closes_with() {
            _ if self.end == End::Gone => (SessionOutcome::ClientReset, EndedBy::Client),
            None | Some(OwnReply::GOODBYE)
                if self.session.refusals.is_some() && !self.has_delivered =>
            {
                (SessionOutcome::RefusedByUs, EndedBy::Client)
            }
            None | Some(OwnReply::GOODBYE) => (SessionOutcome::Completed, EndedBy::Client),
            Some(OwnReply::SHUTTING_DOWN) => (SessionOutcome::ShuttingDown, EndedBy::Us),
            Some(OwnReply::TIMEOUT | OwnReply::DATA_TIMEOUT) => {
                (SessionOutcome::IdleTimeout, EndedBy::Us)
            }
            Some(OwnReply::SYNCHRONIZATION) => (SessionOutcome::EarlyTalker, EndedBy::Us),
            Some(_) => (SessionOutcome::ClientErrors, EndedBy::Us),
        };
        if self.end == End::NotYet {
            self.end = End::Said;
        }
        self.session.end(outcome, by, phase);
    }
}

impl Drop for Mail<'_> {
    fn drop(&mut self) {
        if let Line::Held(held) = &self.line {
            held.kept.stream.reset_on_close();
            held.count(self.session.cx.worker);
            self.session.cx.counters().leased.sub(1);
        }
        let now = clock::now();
        let end = self.core.is_committed().then_some(TransactionEnd::InDoubt);
        let facts = self.core.cut();
        self.settle_quota(end, facts.as_ref(), now);
        if let Some(account) = self.account.take() {
            account.end(self.session, end, facts, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        let octets = size_of::<Mail<'_>>();
        assert!(octets <= 840, "a session of mail has {octets} octets");
    }
}
