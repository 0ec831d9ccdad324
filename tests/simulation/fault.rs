//! What a backend of the world does to those who dial it, from one moment to the next.

use std::sync::Arc;
use std::time::Duration;

use posthouse::balance::{FailureKind, Observation, PickMode, ProbeReport, Stage};
use posthouse::types::{ClientKey, Rng};

/// How a backend behaves for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Greets after so many milliseconds.
    Good(u32),
    /// RST.
    Dead,
    /// Accepts and never greets.
    Silent,
    /// Greets, but late.
    Slow(u32),
    /// 421 at once.
    Refuses,
    /// 554 to every client, policy or not unknown.
    Denies,
    /// Greets, and tells probes that it is full.
    Full,
    /// Every other dial is refused.
    Flapping,
}

/// What one dial comes to, and when.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) after: Duration,
    pub(crate) seen: Observation,
}

impl Nature {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        match rng.below(16) {
            0 => Self::Dead,
            1 => Self::Silent,
            2 => Self::Slow(1200 + rng.below(8000)),
            3 => Self::Refuses,
            4 => Self::Denies,
            5 => Self::Full,
            6 => Self::Flapping,
            _ => Self::Good(1 + rng.below(300)),
        }
    }

    /// What a session that dials now will see.
    pub(crate) fn fate(self, mode: PickMode, client: ClientKey, rng: &mut Rng) -> Fate {
        let patience = match mode {
            PickMode::Normal => Duration::from_secs(8),
            PickMode::LastResort => Duration::from_secs(3),
        };
        let millis = |count: u32| Duration::from_millis(u64::from(count));
        let strike = |stage, kind, code, after| Fate {
            after,
            seen: Observation::Strike {
                stage,
                kind,
                code,
                text: None,
                after,
            },
        };
        let greeted = |after| Fate {
            after,
            seen: Observation::Greeted { after },
        };
        let dead = strike(Stage::Connect, FailureKind::Refused, None, millis(1));
        match self {
            Self::Good(after) => greeted(millis(after)),
            Self::Full => greeted(millis(30)),
            Self::Slow(after) if millis(after) < patience => greeted(millis(after)),
            Self::Slow(_) | Self::Silent => {
                strike(Stage::Greeting, FailureKind::Timeout, None, patience)
            }
            Self::Dead => dead,
            Self::Refuses => strike(
                Stage::Greeting,
                FailureKind::Temporary,
                Some(421),
                millis(2),
            ),
            Self::Denies => Fate {
                after: millis(2),
                seen: Observation::RefusedClient {
                    client,
                    code: 554,
                    text: Some(Arc::from("no")),
                },
            },
            Self::Flapping if rng.below(2) == 0 => dead,
            Self::Flapping => greeted(millis(5)),
        }
    }

    /// What a probe that ends now reports.
    pub(crate) fn probe(self, rng: &mut Rng) -> ProbeReport {
        let bad = |stage, kind, code| (stage, Some(kind), code, false);
        let good = (Stage::Ehlo, None, Some(250), false);
        let (stage, failure, code, full) = match self {
            Self::Good(_) => good,
            Self::Slow(_) | Self::Flapping if rng.below(2) == 0 => good,
            Self::Full => (
                Stage::Greeting,
                Some(FailureKind::Temporary),
                Some(421),
                true,
            ),
            Self::Dead | Self::Flapping => bad(Stage::Connect, FailureKind::Refused, None),
            Self::Silent | Self::Slow(_) => bad(Stage::Greeting, FailureKind::Timeout, None),
            Self::Refuses => bad(Stage::Greeting, FailureKind::Temporary, Some(421)),
            Self::Denies => bad(Stage::Greeting, FailureKind::Permanent, Some(554)),
        };
        ProbeReport {
            stage,
            failure,
            code,
            text: None,
            duration: Duration::from_millis(20),
            greeting: None,
            full,
            keywords: Arc::from([]),
            certificate_days: None,
        }
    }
}
