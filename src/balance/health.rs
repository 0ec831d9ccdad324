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
    /// Whether a probe or a session has ever found it well.
    has_answered: bool,
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
            has_answered: false,
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

    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
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
            || !self.has_answered
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
        self.has_answered = true;
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
        self.has_answered = true;
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
        self.has_answered = true;
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

    #[cfg(any(debug_assertions, test))]
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

#[cfg(test)]
mod tests {
    use super::super::testing::{bad_probe, full_probe, good_probe};
    use super::*;

    fn rules() -> Rules {
        Rules::of(&PoolSettings::default())
    }

    fn strike_at(stage: Stage) -> Strike {
        Strike {
            stage,
            kind: FailureKind::Timeout,
            code: None,
            text: None,
            after: None,
        }
    }

    /// A machine with its clock.
    struct Bench {
        machine: Machine,
        rules: Rules,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let mut bench = Self {
                machine: Machine::new(),
                rules: rules(),
                now: Instant::now(),
            };
            bench.good();
            bench
        }

        fn pass(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }

        fn strike(&mut self) -> Option<Cause> {
            let strike = strike_at(Stage::Greeting);
            self.machine
                .struck(&strike, &self.rules, Spare::Other, self.now)
        }

        fn greet(&mut self) -> Option<Cause> {
            self.machine.greeted(&self.rules, Spare::Other, self.now)
        }

        fn good(&mut self) -> Option<Cause> {
            self.machine.probed(&good_probe(), &self.rules, self.now)
        }

        fn bad(&mut self) -> Option<Cause> {
            self.machine.probed(&bad_probe(), &self.rules, self.now)
        }

        fn full(&mut self) -> Option<Cause> {
            self.machine.probed(&full_probe(), &self.rules, self.now)
        }

        fn eject(&mut self) {
            (0..5).for_each(|_| drop(self.strike()));
            assert_eq!(self.machine.state(), HealthState::Ejected);
        }

        fn ejected_for(&self) -> u64 {
            let until = self.machine.ejected_until().expect("it is ejected");
            (until - self.now).as_secs()
        }
    }

    #[test]
    fn the_first_probe_is_the_first_verdict() {
        for (report, then) in [
            (good_probe(), HealthState::Up),
            (full_probe(), HealthState::Degraded),
            (bad_probe(), HealthState::Down),
        ] {
            let mut machine = Machine::new();
            assert!(machine.is_changing());
            let cause = machine.probed(&report, &rules(), Instant::now());
            assert_eq!(machine.state(), then);
            assert_eq!(cause.expect("a change has a cause").origin, "probe");
        }
    }

    #[test]
    fn the_first_greeting_is_a_verdict_too() {
        let mut machine = Machine::new();
        let cause = machine.greeted(&rules(), Spare::None, Instant::now());
        assert_eq!(cause, Some(Cause::of("session")));
        assert_eq!(machine.state(), HealthState::Up);
        assert!(!machine.wants_successes());
    }

    #[test]
    fn three_bad_probes_take_it_down_and_two_good_ones_bring_it_up() {
        let mut bench = Bench::new();
        assert_eq!((bench.bad(), bench.bad()), (None, None));
        assert!(bench.machine.is_changing());
        assert!(bench.good().is_none(), "a good one starts the count anew");
        assert_eq!((bench.bad(), bench.bad()), (None, None));
        let cause = bench.bad().expect("the third in a row");
        assert_eq!(
            (cause.stage, cause.kind),
            (Some(Stage::Connect), Some(FailureKind::Refused))
        );
        assert_eq!(bench.machine.state(), HealthState::Down);
        assert!(bench.good().is_none());
        assert!(bench.bad().is_none());
        assert!(bench.good().is_none());
        assert!(bench.good().is_some());
        assert_eq!(bench.machine.state(), HealthState::Up);
    }

    #[test]
    fn a_full_backend_is_degraded_and_never_down() {
        let mut bench = Bench::new();
        assert!(bench.full().is_some());
        assert_eq!(bench.machine.state(), HealthState::Degraded);
        (0..20).for_each(|_| assert!(bench.full().is_none()));
        assert_eq!(bench.machine.state(), HealthState::Degraded);
        assert!(bench.good().is_some());
        assert_eq!(bench.machine.state(), HealthState::Up);
    }

    #[test]
    fn our_own_want_of_descriptors_is_no_verdict() {
        let mut bench = Bench::new();
        let local = ProbeReport {
            failure: Some(FailureKind::Local),
            ..bad_probe()
        };
        for _ in 0..10 {
            assert!(
                bench
                    .machine
                    .probed(&local, &bench.rules, bench.now)
                    .is_none()
            );
            let strike = Strike {
                kind: FailureKind::Local,
                ..strike_at(Stage::Connect)
            };
            let now = bench.now;
            assert!(
                bench
                    .machine
                    .struck(&strike, &rules(), Spare::Other, now)
                    .is_none()
            );
        }
        assert_eq!(bench.machine.state(), HealthState::Up);
        assert_eq!(bench.machine.consecutive_strikes(), 0);
    }

    #[test]
    fn five_strikes_in_a_row_eject_and_a_greeting_starts_the_count_anew() {
        let mut bench = Bench::new();
        for _ in 0..2 {
            (0..4).for_each(|_| assert!(bench.pass(11).strike().is_none()));
            assert!(bench.pass(11).greet().is_none());
        }
        (0..4).for_each(|_| assert!(bench.pass(11).strike().is_none()));
        let cause = bench.strike().expect("the fifth");
        assert_eq!(
            (cause.origin, cause.stage),
            ("session", Some(Stage::Greeting))
        );
        assert_eq!(bench.machine.state(), HealthState::Ejected);
        assert_eq!(bench.ejected_for(), 30);
    }

    #[test]
    fn half_of_ten_attempts_within_ten_seconds_eject() {
        let mut bench = Bench::new();
        for _ in 0..4 {
            assert!(bench.strike().is_none());
            assert!(bench.greet().is_none());
        }
        assert!(bench.strike().is_none(), "nine attempts are too few");
        assert!(bench.greet().is_some(), "5 of 10");
        assert_eq!(bench.machine.state(), HealthState::Ejected);
    }

    #[test]
    fn less_than_half_does_not_eject() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            assert!(bench.strike().is_none());
            assert!(bench.greet().is_none());
            assert!(bench.greet().is_none());
        }
    }

    #[test]
    fn attempts_of_an_old_window_do_not_count() {
        let mut bench = Bench::new();
        for _ in 0..20 {
            assert!(bench.strike().is_none());
            assert!(bench.greet().is_none());
            assert!(bench.strike().is_none());
            assert!(bench.greet().is_none());
            bench.pass(11);
        }
        assert!(bench.greet().is_none());
        assert!(!bench.machine.wants_successes(), "the window is closed");
    }

    #[test]
    fn ejections_grow_to_five_minutes_and_shrink_when_it_is_well() {
        let mut bench = Bench::new();
        for n in 1..=12 {
            bench.eject();
            assert_eq!(bench.ejected_for(), (30 * n).min(300));
            bench.now = bench.machine.ejected_until().expect("it is ejected");
            assert_eq!(bench.machine.expire(bench.now), Some(Cause::of("timer")));
            assert_eq!(bench.machine.state(), HealthState::Up);
        }
        bench.pass(300 * 10);
        assert_eq!(bench.machine.ejections(&bench.rules.eject, bench.now), 2);
        bench.eject();
        assert_eq!(bench.ejected_for(), 90);
    }

    #[test]
    fn an_ejection_does_not_end_before_its_time() {
        let mut bench = Bench::new();
        bench.eject();
        bench.pass(29);
        assert!(bench.machine.expire(bench.now).is_none());
        assert!(bench.strike().is_none(), "old sessions do not prolong it");
        assert_eq!(bench.ejected_for(), 1);
        assert!(bench.greet().is_none(), "nor end it");
        bench.pass(1);
        assert!(bench.machine.expire(bench.now).is_some());
    }

    #[test]
    fn probes_that_reach_the_failed_stage_end_an_ejection() {
        let mut bench = Bench::new();
        bench.eject();
        let shallow = ProbeReport {
            stage: Stage::Connect,
            ..good_probe()
        };
        for _ in 0..5 {
            assert!(
                bench
                    .machine
                    .probed(&shallow, &bench.rules, bench.now)
                    .is_none()
            );
        }
        assert!(bench.good().is_none());
        assert!(bench.bad().is_none(), "a bad one starts the count anew");
        assert!(bench.good().is_none());
        assert!(bench.good().is_some());
        assert_eq!(bench.machine.state(), HealthState::Up);
        assert_eq!(bench.machine.ejected_until(), None);
    }

    #[test]
    fn a_full_probe_does_not_end_an_ejection() {
        let mut bench = Bench::new();
        bench.eject();
        (0..5).for_each(|_| assert!(bench.full().is_none()));
        assert_eq!(bench.machine.state(), HealthState::Ejected);
        bench.pass(30);
        assert!(bench.machine.expire(bench.now).is_some());
        assert_eq!(bench.machine.state(), HealthState::Degraded);
    }

    #[test]
    fn bad_probes_take_an_ejected_backend_down() {
        let mut bench = Bench::new();
        bench.eject();
        assert_eq!((bench.bad(), bench.bad()), (None, None));
        assert!(bench.bad().is_some());
        assert_eq!(bench.machine.state(), HealthState::Down);
        bench.pass(1000);
        assert!(
            bench.machine.expire(bench.now).is_none(),
            "probes bring it up, not time"
        );
        assert_eq!(bench.machine.state(), HealthState::Down);
    }

    #[test]
    fn the_last_usable_backend_is_not_ejected_until_another_returns() {
        let mut bench = Bench::new();
        let strike = strike_at(Stage::Connect);
        for _ in 0..50 {
            let now = bench.now;
            assert!(
                bench
                    .machine
                    .struck(&strike, &rules(), Spare::None, now)
                    .is_none()
            );
        }
        assert_eq!(bench.machine.state(), HealthState::Up);
        assert!(
            bench.strike().is_some(),
            "the next strike finds a spare one"
        );
    }

    #[test]
    fn a_refusal_counts_once_three_distinct_clients_met_it() {
        let mut bench = Bench::new();
        let strike = strike_at(Stage::Greeting);
        let refuse = |bench: &mut Bench, client| {
            let now = bench.now;
            let refused =
                bench
                    .machine
                    .refused(ClientKey(client), &strike, &rules(), Spare::Other, now);
            (refused.is_some(), bench.machine.consecutive_strikes())
        };
        for _ in 0..10 {
            assert_eq!(refuse(&mut bench, 1), (false, 0));
            assert_eq!(refuse(&mut bench, 2), (false, 0));
        }
        assert!(bench.machine.wants_successes());
        bench.greet();
        assert_eq!(refuse(&mut bench, 3), (false, 0));
        assert_eq!(refuse(&mut bench, 1), (false, 0));
        for strikes in 1..5 {
            assert_eq!(refuse(&mut bench, 2), (false, strikes));
        }
        assert_eq!(refuse(&mut bench, 2), (true, 5));
    }

    #[test]
    fn without_probes_nothing_stays_down() {
        let mut bench = Bench::new();
        (0..3).for_each(|_| drop(bench.bad()));
        assert_eq!(bench.machine.forget_probes(), Some(Cause::of("reload")));
        assert_eq!(bench.machine.state(), HealthState::Unknown);
        assert!(bench.machine.forget_probes().is_none());
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        Good,
        Bad,
        Full,
        Greet,
        Strike,
        Wait,
    }

    const EVENTS: [Event; 6] = [
        Event::Good,
        Event::Bad,
        Event::Full,
        Event::Greet,
        Event::Strike,
        Event::Wait,
    ];

    /// Every sequence of six events, judged by what must be true of its history.
    #[test]
    fn every_short_history_obeys_the_rules() {
        let mut rules = rules();
        rules.eject.strikes = 2;
        for spare in [Spare::Other, Spare::None] {
            for sequence in 0..EVENTS.len().pow(6) {
                play(sequence, &rules, spare);
            }
        }
    }

    fn play(mut sequence: usize, rules: &Rules, spare: Spare) {
        let mut now = Instant::now();
        let mut machine = Machine::new();
        let mut history = Vec::new();
        for _ in 0..6 {
            let event = EVENTS[sequence % EVENTS.len()];
            sequence /= EVENTS.len();
            history.push(event);
            let before = machine.state();
            now += Duration::from_millis(10);
            let cause = match event {
                Event::Good => machine.probed(&good_probe(), rules, now),
                Event::Bad => machine.probed(&bad_probe(), rules, now),
                Event::Full => machine.probed(&full_probe(), rules, now),
                Event::Greet => machine.greeted(rules, spare, now),
                Event::Strike => machine.struck(&strike_at(Stage::Greeting), rules, spare, now),
                Event::Wait => {
                    now += Duration::from_secs(30);
                    machine.expire(now)
                }
            };
            machine.check_invariants();
            let after = machine.state();
            assert_eq!(cause.is_some(), before != after, "{history:?}");
            judge(&history, before, after, spare);
        }
    }

    fn judge(history: &[Event], before: HealthState, after: HealthState, spare: Spare) {
        use HealthState::{Degraded, Down, Ejected, Unknown, Up};
        let tail = |kind: &dyn Fn(Event) -> bool, of: &dyn Fn(Event) -> bool| {
            let relevant = history.iter().rev().filter(|event| of(**event));
            relevant.take_while(|event| kind(**event)).count()
        };
        let probe = |event| matches!(event, Event::Good | Event::Bad | Event::Full);
        let session = |event| matches!(event, Event::Greet | Event::Strike);
        let bad = tail(&|event| event == Event::Bad, &probe);
        let well = tail(&|event| event != Event::Bad, &probe);
        let strikes = tail(&|event| event == Event::Strike, &session);
        let last = history[history.len() - 1];
        match (before, after) {
            (from, to) if from == to => {}
            (Unknown, Down) => assert_eq!(last, Event::Bad, "{history:?}"),
            (Unknown, Up) => assert!(matches!(last, Event::Good | Event::Greet)),
            (Unknown | Up, Degraded) => assert_eq!(last, Event::Full, "{history:?}"),
            (Up | Degraded | Ejected, Down) => {
                assert!(bad >= 3 && last == Event::Bad, "{history:?}");
            }
            (Down, Up) => assert!(well >= 2 && last == Event::Good, "{history:?}"),
            (Down, Degraded) => assert!(well >= 2 && last == Event::Full, "{history:?}"),
            (Degraded, Up) => assert_eq!(last, Event::Good, "{history:?}"),
            (Ejected, Up | Degraded) => {
                let probed = last == Event::Good && well >= 2;
                assert!(probed || last == Event::Wait, "{history:?}");
            }
            (Unknown | Up | Degraded, Ejected) => {
                assert!(strikes >= 2 && last == Event::Strike, "{history:?}");
                assert_eq!(spare, Spare::Other, "{history:?}");
            }
            (from, to) => unreachable!("{from:?} never becomes {to:?}: {history:?}"),
        }
    }
}
