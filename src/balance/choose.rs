//! The choice: which member takes a session, or why none does.
//!
//! Pure: it reads the members' atomics and what it is given, and reserves nothing. The order is
//! always the same: the policy over the open tiers; then, where these have nothing left for this
//! session, the later tiers; then, where nothing is healthy, the last resort.

use std::sync::Arc;

use super::member::{Fit, Heed, Member, Tried};
use super::policy::{SCAN_MAX, first, least_connections, random_two, round_robin};
use super::roll::Roll;
use super::{Balance, WhenAllDown};
use crate::types::{ClientKey, Rng};

/// Random looks at a large tier before it is read in order.
const LOOKS_MAX: u32 = 32;

/// How a pick should be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickMode {
    /// The backend is believed to serve.
    Normal,
    /// No backend is healthy (`when_all_down = "try"`), or this session tried all that are and this
    /// one is only ejected: connect 1 s, greeting 3 s, one attempt per backend.
    LastResort,
}

/// Why there is no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoBackend {
    /// The pool has no backends (or no name of it could be looked up).
    Empty,
    /// None is healthy.
    AllDown,
    /// The operator keeps all of them out.
    AllDrained,
    /// All that this session could use are at `max_connections`.
    AllFull,
    /// Every eligible one was tried by this session.
    AllTried,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Session,
    /// A hedge stays in the open tiers and never goes to what is not healthy.
    Hedge,
}

/// What a choice depends on, besides the members.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) client: ClientKey,
    pub(super) tried: &'a Tried,
    pub(super) purpose: Purpose,
    /// How many members (a prefix) are in open tiers.
    pub(super) open: usize,
    /// Where scans begin, so that equals take turns.
    pub(super) rotation: usize,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) index: usize,
    pub(super) mode: PickMode,
    /// Round robin: the turn it was chosen for.
    pub(super) turn: Option<u64>,
}

impl Choice {
    fn normal(index: usize) -> Self {
        Self {
            index,
            mode: PickMode::Normal,
            turn: None,
        }
    }
}

/// The choice among all members.
pub(super) fn choose(roll: &Roll, ask: &Ask<'_>, rng: &mut Rng) -> Result<Choice, NoBackend> {
    match by_policy(roll, ask, rng) {
        Some(choice) => Ok(choice),
        None => without_policy(roll, ask, rng),
    }
}

/// The policy's choice in the open tiers.
fn by_policy(roll: &Roll, ask: &Ask<'_>, rng: &mut Rng) -> Option<Choice> {
    let members = &roll.members[..ask.open];
    match roll.settings.balance {
        Balance::LeastConnections => {
            least_connections::choose(members, ask.tried, Heed::Health, ask.rotation)
                .map(Choice::normal)
        }
        Balance::RoundRobin => {
            round_robin::choose(members, ask.tried).map(|(index, turn)| Choice {
                turn: Some(turn),
                ..Choice::normal(index)
            })
        }
        Balance::RandomTwo => roll
            .weights
            .as_ref()
            .and_then(|weights| random_two::choose(members, weights, ask.tried, rng))
            .or_else(|| any(members, ask.tried, Heed::Health, rng))
            .map(Choice::normal),
        Balance::SourceHash => roll
            .table(ask.open)
            .and_then(|table| table.choose(members, ask.client, ask.tried))
            .or_else(|| any(members, ask.tried, Heed::Health, rng))
            .map(Choice::normal),
        Balance::First => first::choose(members, ask.tried).map(Choice::normal),
    }
}

/// What is left when the open tiers have nothing: later tiers, last resort, or the reason.
pub(super) fn without_policy(
    roll: &Roll,
    ask: &Ask<'_>,
    rng: &mut Rng,
) -> Result<Choice, NoBackend> {
    let seen = Survey::of(&roll.members, ask);
    match ask.purpose {
        Purpose::Hedge => return Err(seen.reason()),
        Purpose::Session => {}
    }
    // A session whose open tiers are tried out goes on to the next tier even though that is closed
    // to others: another backend is usable (promise 4).
    if !seen.open_full || roll.settings.spill_when_full {
        for tier in roll.tiers_after(ask.open) {
            if let Some(index) = any(&roll.members[tier.clone()], ask.tried, Heed::Health, rng) {
                return Ok(Choice::normal(tier.start + index));
            }
        }
    }
    if roll.settings.when_all_down == WhenAllDown::Try && !seen.open_full && !seen.later_full {
        let found = if seen.usable {
            ejected(roll, ask.tried)
        } else {
            last_resort(roll, ask.tried, rng)
        };
        if let Some(index) = found {
            return Ok(Choice {
                mode: PickMode::LastResort,
                ..Choice::normal(index)
            });
        }
        if !seen.usable && seen.ready {
            return Err(if resort_is_full(&roll.members, ask.tried) {
                NoBackend::AllFull
            } else {
                NoBackend::AllTried
            });
        }
    }
    Err(seen.reason())
}

/// Ignores health, never the operator: tiers in order.
fn last_resort(roll: &Roll, tried: &Tried, rng: &mut Rng) -> Option<usize> {
    roll.tiers_after(0).find_map(|tier| {
        any(&roll.members[tier.clone()], tried, Heed::Admin, rng).map(|at| tier.start + at)
    })
}

/// Every usable backend was tried by this session. One that is only ejected may have recovered, and
/// shows it before the client sees anything; one that probes found down is left alone: it may greet
/// and then refuse for good (rule H2).
fn ejected(roll: &Roll, tried: &Tried) -> Option<usize> {
    roll.members.iter().position(|member| {
        member.state().is_ejected() && member.takes(tried, Heed::Admin).is_some()
    })
}

fn resort_is_full(members: &[Arc<Member>], tried: &Tried) -> bool {
    members
        .iter()
        .any(|member| member.fit(tried, Heed::Admin) == Fit::Full)
}

/// Some member that takes the session; the least loaded one of a small set.
pub(super) fn any(
    members: &[Arc<Member>],
    tried: &Tried,
    heed: Heed,
    rng: &mut Rng,
) -> Option<usize> {
    let count = u32::try_from(members.len()).expect("members are counted in 32 bits");
    let start = rng.below(count) as usize;
    if members.len() <= SCAN_MAX {
        return least_connections::choose(members, tried, heed, start);
    }
    (0..LOOKS_MAX)
        .map(|_| rng.below(count) as usize)
        .find(|index| members[*index].takes(tried, heed).is_some())
        .or_else(|| {
            (start..members.len())
                .chain(0..start)
                .find(|index| members[*index].takes(tried, heed).is_some())
        })
}

/// What a look at every member showed.
#[derive(Clone, Copy, Debug, Default)]
struct Survey {
    any: bool,
    ready: bool,
    usable: bool,
    open_full: bool,
    later_full: bool,
}

impl Survey {
    fn of(members: &[Arc<Member>], ask: &Ask<'_>) -> Self {
        let mut seen = Self::default();
        for (index, member) in members.iter().enumerate() {
            seen.any = true;
            match member.fit(ask.tried, Heed::Health) {
                Fit::Drained => {}
                Fit::Unwell => seen.ready = true,
                Fit::Tried | Fit::Takes(_) => seen.usable = true,
                Fit::Full => {
                    seen.usable = true;
                    if index < ask.open {
                        seen.open_full = true;
                    } else {
                        seen.later_full = true;
                    }
                }
            }
        }
        seen
    }

    fn reason(self) -> NoBackend {
        if self.open_full || self.later_full {
            NoBackend::AllFull
        } else if self.usable {
            NoBackend::AllTried
        } else if self.ready {
            NoBackend::AllDown
        } else if self.any {
            NoBackend::AllDrained
        } else {
            NoBackend::Empty
        }
    }
}
