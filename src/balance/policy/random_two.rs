//! Two draws by weight; the one with less in flight for its weight.
//!
//! Draws come from a tree of weights (`weights.rs`) that holds exactly the usable members of the
//! open tiers; full and tried ones are drawn again, a bounded number of times.

use std::sync::Arc;

use super::super::member::{Heed, Load, Member, Tried};
use super::super::weights::Weights;
use crate::types::Rng;

/// Draws until two different members are found, or one has to do.
const DRAWS_MAX: usize = 16;

/// The better of two draws; `None` when no draw found one, which does not prove that there is none.
pub(in crate::balance) fn choose(
    members: &[Arc<Member>],
    weights: &Weights,
    tried: &Tried,
    rng: &mut Rng,
) -> Option<usize> {
    let mut first: Option<(usize, Load)> = None;
    for _ in 0..DRAWS_MAX {
        let index = weights.draw(rng)?;
        let Some(load) = members
            .get(index)
            .and_then(|member| member.takes(tried, Heed::Health))
        else {
            continue;
        };
        match first {
            None => first = Some((index, load)),
            Some((other, _)) if other == index => {}
            // Equally idle: the first draw, which keeps shares by weight.
            Some((other, least)) => {
                return Some(if load.is_idler(least) { index } else { other });
            }
        }
    }
    first.map(|(index, _)| index)
}
