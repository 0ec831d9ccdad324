//! What we find of one backend: a pure machine fed by probes, sessions and time.
//!
//! Probes count in streaks (`rise` good ones bring a backend up, `fall` bad ones take it down);
//! sessions eject it for a while (DESIGN §7: passive). The machine knows one backend only: whether
//! an ejection would take the pool's last usable backend is told by [`Spare`]. It takes no lock and
//! reads no clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Eject, FailureKind, PoolSettings, ProbeReport, Stage};
use crate::types::ClientKey;

/// Distinct clients that must meet the same 5yz before it counts as the backend's fault.
pub(super) const REFUSED_CLIENTS: usize = 3;

/// What we found of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// Not known yet: treated as up until the first verdict (a probe, or a session's greeting).
    Unknown,
    /// Serves.
    Up,
    /// Up, but says it is full or partly broken: half its weight.
    Degraded,
    /// `fall` probes failed.
    Down,
    /// Sessions failed: out for a while.
    Ejected,
}

impl HealthState {
    /// Whether sessions may go there.
    pub fn is_usable(self) -> bool {
        match self {
            Self::Unknown | Self::Up | Self::Degraded => true,
            Self::Down | Self::Ejected => false,
        }
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }
}

/// Why a state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// probe | session | operator | timer | reload | start
    pub origin: &'static str,
    /// How far the deciding attempt or probe had got.
    pub stage: Option<Stage>,
    /// How it failed.
    pub kind: Option<FailureKind>,
    /// The reply code, if there was a reply.
    pub code: Option<u16>,
    /// The reply's text or the error, shortened.
    pub text: Option<Arc<str>>,
    /// How long the attempt or probe took.
    pub duration: Option<Duration>,
    /// Who, for the operator's changes.
    pub who: Option<Arc<str>>,
}

impl Cause {
    /// A cause that says only where it comes from.
    pub(super) fn of(origin: &'static str) -> Self {
        Self {
            origin,
            stage: None,
            kind: None,
            code: None,
            text: None,
            duration: None,
            who: None,
        }
    }

    fn probe(report: &ProbeReport) -> Self {
        Self {
            stage: Some(report.stage),
            kind: report.failure,
            code: report.code,
            text: report.text.clone(),
            duration: Some(report.duration),
            ..Self::of("probe")
        }
    }
}

/// The settings of the pool that the machine needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) rise: u8,
    pub(super) fall: u8,
    pub(super) eject: Eject,
}

impl Rules {
    pub(super) fn of(settings: &PoolSettings) -> Self {
        Self {
            rise: settings.rise.max(1),
            fall: settings.fall.max(1),
            eject: settings.eject,
        }
    }
}

/// Whether the pool has another usable backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// Another backend is usable, or this one is not counted as usable anyway.
    Other,
    /// None: this one must not be ejected.
    None,
}

/// A failed attempt that counts.
#[derive(Clone, Debug)]
pub(super) struct Strike {
    pub(super) stage: Stage,
    pub(super) kind: FailureKind,
    pub(super) code: Option<u16>,
    pub(super) text: Option<Arc<str>>,
    pub(super) after: Option<Duration>,
}

impl Strike {
    fn cause(&self) -> Cause {
        Cause {
            stage: Some(self.stage),
            kind: Some(self.kind),
            code: self.code,
            text: self.text.clone(),
            duration: self.after,
            ..Cause::of("session")
        }
    }
}

/// Attempts since the first strike, for at most [`Eject::window`].
#[derive(Clone, Debug)]
struct Window {
    opened: Instant,
    attempts: u32,
    failures: u32,
    /// The latest, to say why if a success completes the count.
    last: Strike,
}

#[derive(Clone, Debug)]
struct Ejection {
    until: Instant,
    /// The stage that failed: a probe that did not reach it proves nothing.
    stage: Stage,
    /// Good probes in a row that reached it.
    good: u8,
}

/// The health of one backend.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    state: HealthState,
    good: u8,
    bad: u8,
    /// The last word of the probes: full or not.
    full: bool,
    strikes: u32,
    window: Option<Window>,
    refused: [Option<ClientKey>; REFUSED_CLIENTS],
    ejection: Option<Ejection>,
    ejections: u32,
    /// When the last ejection ended: the count decays from here.
    ejection_ended: Option<Instant>,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            state: HealthState::Unknown,
            good: 0,
            bad: 0,
            full: false,
            strikes: 0,
            window: None,
            refused: [None; REFUSED_CLIENTS],
            ejection: None,
            ejections: 0,
            ejection_ended: None,
        }
    }

    pub(super) fn state(&self) -> HealthState {
        self.state
    }

    pub(super) fn consecutive_strikes(&self) -> u32 {
        self.strikes
    }

    pub(super) fn ejected_until(&self) -> Option<Instant> {
        self.ejection.as_ref().map(|ejection| ejection.until)
    }

    /// Whether a success changes anything: if not, the hot path skips the lock.
    pub(super) fn wants_successes(&self) -> bool {
        self.state == HealthState::Unknown
            || self.strikes > 0
            || self.window.is_some()
            || self.refused[0].is_some()
    }

    /// On its way between two states: the next probe should come soon.
    pub(super) fn is_changing(&self) -> bool {
        match self.state {
            HealthState::Unknown => true,
            HealthState::Up | HealthState::Degraded => self.bad > 0,
            HealthState::Down => self.good > 0,
            HealthState::Ejected => {
                self.bad > 0 || self.ejection.as_ref().is_some_and(|e| e.good > 0)
            }
        }
    }

    /// Ejections that still count towards the length of the next one: one is forgotten for every
    /// [`Eject::max_time`] without a new one.
    pub(super) fn ejections(&self, eject: &Eject, now: Instant) -> u32 {
        let Some(ended) = self.ejection_ended.filter(|_| self.ejection.is_none()) else {
            return self.ejections;
        };
        let well = now.saturating_duration_since(ended).as_millis();
        let forgotten = well.checked_div(eject.max_time.as_millis()).unwrap_or(0);
        self.ejections
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    /// A session was greeted.
    pub(super) fn greeted(&mut self, rules: &Rules, spare: Spare, now: Instant) -> Option<Cause> {
        self.strikes = 0;
        self.refused = [None; REFUSED_CLIENTS];
        if self.state == HealthState::Unknown {
            self.state = HealthState::Up;
            return Some(Cause::of("session"));
        }
        let window = self.open_window(&rules.eject, now)?;
        window.attempts = window.attempts.saturating_add(1);
        let last = window.last.clone();
        self.eject_if_due(&last, rules, spare, now)
    }

    /// A session failed by the backend's fault.
    pub(super) fn struck(
        &mut self,
        strike: &Strike,
        rules: &Rules,
        spare: Spare,
        now: Instant,
    ) -> Option<Cause> {
        // Our own want of descriptors says nothing of the backend, and what sessions find of a
        // backend that is out already changes nothing: they dialled before it was.
        if strike.kind == FailureKind::Local || !self.state.is_usable() {
            return None;
        }
        self.strikes = self.strikes.saturating_add(1);
        if let Some(window) = self.open_window(&rules.eject, now) {
            window.attempts = window.attempts.saturating_add(1);
            window.failures = window.failures.saturating_add(1);
            window.last = strike.clone();
        } else {
            self.window = Some(Window {
                opened: now,
                attempts: 1,
                failures: 1,
                last: strike.clone(),
            });
        }
        self.eject_if_due(strike, rules, spare, now)
    }

    /// A session's client was refused with 5yz: a strike once [`REFUSED_CLIENTS`] distinct clients
    /// were, with no greeting in between (DESIGN §5).
    pub(super) fn refused(
        &mut self,
        client: ClientKey,
        strike: &Strike,
        rules: &Rules,
        spare: Spare,
        now: Instant,
    ) -> Option<Cause> {
        if !self.refused.contains(&Some(client))
            && let Some(free) = self.refused.iter_mut().find(|place| place.is_none())
        {
            *free = Some(client);
        }
        if self.refused.iter().any(Option::is_none) {
            return None;
        }
        self.struck(strike, rules, spare, now)
    }

    /// A probe ended.
    pub(super) fn probed(
        &mut self,
        report: &ProbeReport,
        rules: &Rules,
        now: Instant,
    ) -> Option<Cause> {
        if report.failure == Some(FailureKind::Local) {
            return None;
        }
        let before = self.state;
        if report.full {
            self.probed_full(rules);
        } else if report.failure.is_none() {
            self.probed_good(report.stage, rules, now);
        } else {
            self.probed_bad(rules, now);
        }
        (self.state != before).then(|| Cause::probe(report))
    }

    /// Time passed: ends an ejection whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Cause> {
        if self.ejection.as_ref()?.until > now {
            return None;
        }
        self.end_ejection(now);
        self.come_up();
        Some(Cause::of("timer"))
    }

    /// Probes were switched off: what only probes could find or mend is forgotten.
    pub(super) fn forget_probes(&mut self) -> Option<Cause> {
        self.good = 0;
        self.bad = 0;
        self.full = false;
        match self.state {
            HealthState::Down | HealthState::Degraded => {
                self.state = HealthState::Unknown;
                Some(Cause::of("reload"))
            }
            HealthState::Unknown | HealthState::Up | HealthState::Ejected => None,
        }
    }

    fn probed_good(&mut self, stage: Stage, rules: &Rules, now: Instant) {
        self.bad = 0;
        self.full = false;
        self.good = self.good.saturating_add(1);
        match self.state {
            HealthState::Up => {}
            HealthState::Unknown | HealthState::Degraded => self.state = HealthState::Up,
            HealthState::Down => {
                if self.good >= rules.rise {
                    self.come_up();
                }
            }
            HealthState::Ejected => {
                let ejection = self
                    .ejection
                    .as_mut()
                    .expect("an ejected backend has an ejection");
                if stage >= ejection.stage {
                    ejection.good = ejection.good.saturating_add(1);
                    if ejection.good >= rules.rise {
                        self.end_ejection(now);
                        self.come_up();
                    }
                }
            }
        }
    }

    /// Rule H4: full is degraded, never down, and no proof that an ejection was for nothing.
    fn probed_full(&mut self, rules: &Rules) {
        self.bad = 0;
        self.full = true;
        self.good = self.good.saturating_add(1);
        match self.state {
            HealthState::Unknown | HealthState::Up => self.state = HealthState::Degraded,
            HealthState::Down => {
                if self.good >= rules.rise {
                    self.come_up();
                }
            }
            HealthState::Degraded | HealthState::Ejected => {}
        }
    }

    fn probed_bad(&mut self, rules: &Rules, now: Instant) {
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        match self.state {
            HealthState::Down => {}
            HealthState::Unknown => self.state = HealthState::Down,
            HealthState::Up | HealthState::Degraded => {
                if self.bad >= rules.fall {
                    self.state = HealthState::Down;
                }
            }
            HealthState::Ejected => {
                if let Some(ejection) = &mut self.ejection {
                    ejection.good = 0;
                }
                if self.bad >= rules.fall {
                    self.end_ejection(now);
                    self.state = HealthState::Down;
                }
            }
        }
    }

    fn come_up(&mut self) {
        self.state = if self.full {
            HealthState::Degraded
        } else {
            HealthState::Up
        };
        self.good = 0;
        self.strikes = 0;
        self.window = None;
        self.refused = [None; REFUSED_CLIENTS];
    }

    /// The window, unless it is closed; closes it when its time is over.
    fn open_window(&mut self, eject: &Eject, now: Instant) -> Option<&mut Window> {
        self.window = self
            .window
            .take()
            .filter(|window| now.saturating_duration_since(window.opened) <= eject.window);
        self.window.as_mut()
    }

    fn eject_if_due(
        &mut self,
        strike: &Strike,
        rules: &Rules,
        spare: Spare,
        now: Instant,
    ) -> Option<Cause> {
        let eject = &rules.eject;
        let in_a_row = eject.strikes > 0 && self.strikes >= u32::from(eject.strikes);
        let by_share = self.window.as_ref().is_some_and(|window| {
            window.attempts >= u32::from(eject.min_attempts.max(1))
                && u64::from(window.failures) * 100
                    >= u64::from(window.attempts) * u64::from(eject.ratio.value())
                && window.failures > 0
        });
        if !(in_a_row || by_share) || spare == Spare::None || !self.state.is_usable() {
            return None;
        }
        self.ejections = self.ejections(eject, now).saturating_add(1);
        let time = eject
            .time
            .saturating_mul(self.ejections)
            .min(eject.max_time);
        self.ejection = Some(Ejection {
            until: now + time,
            stage: strike.stage,
            good: 0,
        });
        self.state = HealthState::Ejected;
        self.bad = 0;
        self.window = None;
        Some(strike.cause())
    }

    fn end_ejection(&mut self, now: Instant) {
        self.ejection = None;
        self.ejection_ended = Some(now);
        self.strikes = 0;
    }

    #[cfg(debug_assertions)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(
            self.state == HealthState::Ejected,
            self.ejection.is_some(),
            "ejected and an ejection go together"
        );
        if let Some(window) = &self.window {
            assert!(window.failures > 0 && window.failures <= window.attempts);
        }
    }
}
