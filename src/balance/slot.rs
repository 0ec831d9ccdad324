//! A reserved place at a backend, given back by `Drop`, whatever happens to the session.

use std::sync::Arc;

use super::choose::PickMode;
use super::member::Member;

/// A reserved place at a backend: counts in `open` and `in_flight` until dropped; a drop hands the
/// place to the first waiter instead, if there is one.
#[derive(Debug)]
pub struct Slot {
    member: Arc<Member>,
    mode: PickMode,
}

impl Slot {
    /// The place was reserved by the caller.
    pub(super) fn reserved(member: Arc<Member>, mode: PickMode) -> Self {
        Self { member, mode }
    }

    /// The place comes from another slot, which is forgotten.
    pub(super) fn handed(member: Arc<Member>) -> Self {
        Self {
            member,
            mode: PickMode::Normal,
        }
    }

    /// The backend.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// How it should be used.
    pub fn mode(&self) -> PickMode {
        self.mode
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let shared = &self.member.shared;
        if shared.waiting() > 0 && shared.hand_over(self) {
            return;
        }
        self.member.state().release();
        shared.place_came_free(&self.member);
        if shared.waiting() > 0 {
            shared.dispatch();
        }
    }
}
