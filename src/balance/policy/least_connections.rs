//! The smallest (in flight + 1) / weight; ties by rotation.

use std::sync::Arc;

use super::super::member::{Heed, Load, Member, Tried};

/// The best of `members`, looking from `start` on and round, so that equals take turns.
pub(in crate::balance) fn choose(
    members: &[Arc<Member>],
    tried: &Tried,
    heed: Heed,
    start: usize,
) -> Option<usize> {
    let start = if start < members.len() { start } else { 0 };
    let (before, after) = members.split_at(start);
    let best = least(after, tried, heed, None);
    let ahead = best.map(|(at, load)| (start + at, load));
    least(before, tried, heed, ahead).map(|(index, _)| index)
}

/// The best of `members` if it is better than `best`.
fn least(
    members: &[Arc<Member>],
    tried: &Tried,
    heed: Heed,
    mut best: Option<(usize, Load)>,
) -> Option<(usize, Load)> {
    for (index, member) in members.iter().enumerate() {
        let Some(load) = member.takes(tried, heed) else {
            continue;
        };
        if best.is_none_or(|(_, least)| load.is_below(least)) {
            best = Some((index, load));
        }
    }
    best
}
