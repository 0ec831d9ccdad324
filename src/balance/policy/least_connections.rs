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
    let mut best: Option<(usize, Load)> = None;
    let start = if start < members.len() { start } else { 0 };
    for index in (start..members.len()).chain(0..start) {
        let Some(load) = members[index].takes(tried, heed) else {
            continue;
        };
        if best.is_none_or(|(_, least)| load.is_below(least)) {
            best = Some((index, load));
        }
    }
    best.map(|(index, _)| index)
}
