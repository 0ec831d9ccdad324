//! The first in order that can take the session: fills one backend before it uses the next.

use std::sync::Arc;

use super::super::member::{Heed, Member, Tried};

/// The first of `members` that takes the session. Reads as far as it must: the members before it
/// are full, out or tried.
pub(in crate::balance) fn choose(members: &[Arc<Member>], tried: &Tried) -> Option<usize> {
    members
        .iter()
        .position(|member| member.takes(tried, Heed::Health).is_some())
}
