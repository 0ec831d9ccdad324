//! Weighted turns, evenly interleaved: every member has the virtual time of its next turn, and the
//! earliest goes next.
//!
//! A turn moves a member on by 1 / weight. The first one is due after half of that, so that turns
//! of heavy members spread around those of light ones (as in nginx's smooth weighted round robin).
//! A member that was out does not catch up: its next turn starts from the pool's virtual time.

use std::sync::Arc;

use super::super::member::{Heed, Member, Tried};

/// Virtual time of one turn at weight 1/256.
const SCALE: u64 = 1 << 32;

/// The virtual time a turn takes at this weight (in 1/256 of a unit, at least 1).
pub(in crate::balance) fn step(weight_256: u32) -> u64 {
    SCALE / u64::from(weight_256.max(1))
}

/// The virtual time of the first turn of a member that comes in at `now`.
pub(in crate::balance) fn first_turn(now: u64, weight_256: u32) -> u64 {
    now + step(weight_256) / 2
}

/// Where the next turn lies after the weight changed: the wait that is left changes with it.
pub(in crate::balance) fn rescaled(turn: u64, now: u64, before_256: u32, after_256: u32) -> u64 {
    if turn <= now || before_256 == 0 || before_256 == after_256 {
        return turn;
    }
    let left = u128::from(turn - now) * u128::from(before_256) / u128::from(after_256.max(1));
    now + u64::try_from(left).unwrap_or(u64::MAX >> 1)
}

/// The one whose turn is the earliest, and that turn.
pub(in crate::balance) fn choose(members: &[Arc<Member>], tried: &Tried) -> Option<(usize, u64)> {
    let mut best: Option<(usize, u64)> = None;
    for (index, member) in members.iter().enumerate() {
        if member.takes(tried, Heed::Health).is_none() {
            continue;
        }
        let turn = member.state().turn();
        if best.is_none_or(|(_, earliest)| turn < earliest) {
            best = Some((index, turn));
        }
    }
    best
}
