//! What the demo knows at a moment: sampled from the balancer, the sinks and the clients.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ledger::{Account, Heard, Ledger, LetterId};
use super::places::Places;
use super::story::Scene;
use super::traffic::{SENDER_DOMAIN, SoFar};
use super::{Mode, NAMES};
use crate::balance::{AdminState, BackendTotals, BackendView, Cause, HealthState};
use crate::lab::{MessageRecord, SinkHandle};
use crate::snapshot::Shared;
use crate::types::Counter;

/// Events that are kept.
const EVENTS_MAX: usize = 200;
/// Columns of history, and how long each is.
pub(super) const HISTORY: usize = 24;
const COLUMN: Duration = Duration::from_millis(500);

/// Who says an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// The demo did something to a backend.
    Demo,
    /// Posthouse found something out.
    Posthouse,
    /// Somebody sent a message by hand.
    You,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Since the begin.
    pub(super) at: Duration,
    /// Who says it.
    pub(super) voice: Voice,
    /// The backend.
    pub(super) backend: &'static str,
    /// What.
    pub(super) text: String,
}

/// How a backend looks from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// Not known yet.
    #[default]
    Unknown,
    /// Serving.
    Well,
    /// Serving, but with a smaller share: warming up, or full.
    Weak,
    /// Not serving.
    Out,
}

/// One backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// Messages it took.
    pub(super) messages: u64,
    /// Sessions now.
    pub(super) now: u32,
    /// A word for its state.
    pub(super) state: String,
    /// How that looks.
    pub(super) mood: Mood,
    /// Kept connections now, in smtp mode.
    pub(super) kept: u64,
    /// Its usual time to greet.
    pub(super) greeting: Option<Duration>,
    /// Messages by half second, oldest first.
    pub(super) history: VecDeque<u64>,
    at_column: u64,
    health: Option<HealthState>,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) places: Places,
    pub(super) rows: [Row; 3],
    pub(super) events: VecDeque<Event>,
    /// Events ever, to know which are new.
    pub(super) events_ever: usize,
    pub(super) clients: u16,
    pub(super) failovers: u64,
    /// What is true of smtp mode alone.
    pub(super) smtp: Option<Smtp>,
    pub(super) elapsed: Duration,
    /// Whether clients were still waiting at the end.
    pub(super) unfinished: bool,
    began: Instant,
    column_began: Instant,
    traffic: SoFar,
}

/// What is true of smtp mode alone.
#[derive(Debug, Default)]
pub(super) struct Smtp {
    /// Acknowledged against taken.
    pub(super) account: Account,
    /// Transactions that were moved to another backend.
    pub(super) moved: u64,
    /// Connections that were dialled for transactions, and those that were used again.
    pub(super) connections: (u64, u64),
    ledger: Ledger,
}

impl Board {
    pub(super) fn new(mode: Mode, places: &Places, began: Instant, clients: u16) -> Self {
        Self {
            places: places.clone(),
            rows: Default::default(),
            events: VecDeque::new(),
            events_ever: 0,
            clients,
            failovers: 0,
            smtp: match mode {
                Mode::Passthrough => None,
                Mode::Smtp => Some(Smtp::default()),
            },
            elapsed: Duration::ZERO,
            unfinished: false,
            began,
            column_began: began,
            traffic: SoFar::default(),
        }
    }

    /// The clients' account.
    pub(super) fn traffic(&self) -> &SoFar {
        &self.traffic
    }

    /// Messages in all sinks.
    pub(super) fn messages(&self) -> u64 {
        self.rows.iter().map(|row| row.messages).sum()
    }

    /// Messages in the last whole second.
    pub(super) fn per_second(&self) -> u64 {
        let last = |row: &Row| row.history.iter().rev().take(2).sum::<u64>();
        self.rows.iter().map(last).sum()
    }

    /// Whether every session was served and every acknowledged message is in a sink; in smtp mode
    /// in exactly one.
    pub(super) fn is_clean(&self) -> bool {
        let smtp = self.smtp.as_ref();
        let books = smtp.is_none_or(|smtp| {
            smtp.account.is_clean() && smtp.account.acknowledged == self.traffic.taken
        });
        let all_there = self.messages() >= self.traffic.taken;
        self.traffic.lost == 0 && !self.unfinished && all_there && books
    }

    /// A scene is about to be played.
    pub(super) fn note_scene(&mut self, scene: Scene) {
        self.note(Voice::Demo, scene.index(), scene.words().to_owned());
    }

    /// The end: nothing is sampled any more.
    pub(super) fn close(&mut self, unfinished: bool) {
        self.unfinished = unfinished;
    }

    /// Looks at everything once.
    pub(super) fn sample(
        &mut self,
        shared: &Shared,
        sinks: &[SinkHandle],
        (traffic, heard): (SoFar, Heard),
    ) {
        let now = Instant::now();
        self.elapsed = now.duration_since(self.began);
        self.traffic = traffic;
        if let Some(smtp) = &mut self.smtp {
            smtp.ledger.heard(heard, self.elapsed);
        }
        self.failovers = shared.workers.iter().map(|one| one.failovers.value()).sum();
        self.look_at_backends(shared, now);
        for (index, sink) in sinks.iter().enumerate() {
            self.rows[index].messages = sink.counts().messages;
            for message in sink.take_messages() {
                let id = message.message_id.as_deref().and_then(LetterId::read);
                match (&mut self.smtp, id) {
                    (Some(smtp), Some(id)) => smtp.ledger.taken(id),
                    _ => self.note_by_hand(index, &message),
                }
            }
        }
        if let Some(smtp) = &mut self.smtp {
            smtp.ledger.close(self.elapsed);
            smtp.account = smtp.ledger.account();
        }
        if now.duration_since(self.column_began) >= COLUMN {
            self.column_began = now;
            self.rows.iter_mut().for_each(Row::next_column);
        }
    }

    fn look_at_backends(&mut self, shared: &Shared, now: Instant) {
        let snapshot = shared.current.load();
        let Some(pool) = snapshot.pool_named("mx") else {
            return;
        };
        let mut moved = 0;
        let mut connections = (0, 0);
        for member in pool.pool.members() {
            let totals = &member.settings.state.totals;
            let moves = |of: &BackendTotals| of.mail.moves.iter().map(Counter::value).sum();
            moved += totals.sum(moves);
            connections.0 += totals.sum(|of| of.mail.dialled.value());
            connections.1 += totals.sum(|of| of.mail.reused.value());
            let Some(index) = NAMES
                .iter()
                .position(|name| *name == &*member.settings.name)
            else {
                continue;
            };
            let view = member.settings.state.view(now);
            let whole = u32::from(member.settings.weight.value()) * 256;
            let row = &mut self.rows[index];
            row.now = view.in_flight;
            row.kept = totals.sum(|of| of.mail.idle.value());
            let serves = matches!(view.health, HealthState::Up | HealthState::Degraded);
            row.greeting = view.usual_greeting.filter(|_| serves);
            (row.mood, row.state) = state(&view, whole, now);
            let before = row.health.replace(view.health);
            let news = |before| before != view.health && before != HealthState::Unknown;
            if before.is_some_and(news) {
                let text = format!("{}{}", health_word(view.health), because(&view.cause));
                self.note(Voice::Posthouse, index, text);
            }
        }
        if let Some(smtp) = &mut self.smtp {
            smtp.moved = moved;
            smtp.connections = connections;
        }
    }

    fn note_by_hand(&mut self, index: usize, message: &MessageRecord) {
        if message.from.ends_with(SENDER_DOMAIN) {
            return;
        }
        let subject = message.subject.as_deref().unwrap_or("(no subject)");
        let short: String = subject.chars().take(40).collect();
        let text = format!("your message arrived here: {short}");
        self.note(Voice::You, index, text);
    }

    fn note(&mut self, voice: Voice, index: usize, text: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events_ever += 1;
        self.events.push_back(Event {
            at: self.began.elapsed(),
            voice,
            backend: NAMES[index],
            text,
        });
    }
}

impl Row {
    fn next_column(&mut self) {
        let new = self.messages - self.at_column;
        self.at_column = self.messages;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(new);
    }
}

fn state(view: &BackendView, whole: u32, now: Instant) -> (Mood, String) {
    let word = |mood, text: &str| (mood, text.to_owned());
    match (view.admin, view.health) {
        (AdminState::Drain, _) => word(Mood::Weak, "drain"),
        (AdminState::Maint, _) => word(Mood::Out, "maint"),
        (AdminState::Ready, HealthState::Unknown) => word(Mood::Unknown, "not known yet"),
        (AdminState::Ready, HealthState::Up) if view.effective_weight_256 < whole => {
            let percent = view.effective_weight_256 * 100 / whole.max(1);
            (Mood::Weak, format!("up, warming {percent} %"))
        }
        (AdminState::Ready, HealthState::Up) => word(Mood::Well, "up"),
        (AdminState::Ready, HealthState::Degraded) => word(Mood::Weak, "up, but full"),
        (AdminState::Ready, HealthState::Down) => word(Mood::Out, "down"),
        (AdminState::Ready, HealthState::Ejected) => {
            let left = view
                .ejected_until
                .map(|end| end.saturating_duration_since(now).as_secs_f64());
            let text = left.map_or("ejected".to_owned(), |left| format!("ejected {left:.1} s"));
            (Mood::Out, text)
        }
    }
}

fn health_word(health: HealthState) -> &'static str {
    match health {
        HealthState::Unknown => "not known",
        HealthState::Up => "up again",
        HealthState::Degraded => "up, but full",
        HealthState::Down => "down",
        HealthState::Ejected => "ejected",
    }
}

/// The cause, as it follows a state.
fn because(cause: &Cause) -> String {
    if cause.kind.is_some() {
        format!(": {cause}")
    } else {
        format!(" ({cause})")
    }
}
