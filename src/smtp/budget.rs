//! How much a client may do wrong before it is sent away (rule B4).
//!
//! Mistakes cost error points, commands that lead nowhere cost junk points. The command that spends
//! the last point of either is answered [`OwnReply::TOO_MANY_ERRORS`](super::OwnReply), whatever
//! its own answer was, and the session ends. A message that was delivered gives everything back, as
//! with Postfix: a client that sends a thousand to many refused recipients is none that guesses.

use super::closing::Next;

/// Error points of a session: half of the hard limit of Postfix.
pub const ERROR_POINTS_MAX: u16 = 10;
/// Junk points of a session, as with Postfix.
pub const JUNK_POINTS_MAX: u16 = 100;

/// What a command costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing: it did what it should, or the fault is not the client's.
    Nothing,
    /// One junk point: NOOP, HELP, VRFY, RSET without a transaction, EHLO again.
    Junk,
    /// Half an error point: a RCPT that was refused.
    RefusedRcpt,
    /// One error point: wrong syntax, wrong order, unknown.
    Error,
    /// Two error points: an AUTH that failed.
    FailedAuth,
}

impl Cost {
    /// Whether it is paid in error points.
    pub fn is_error(self) -> bool {
        match self {
            Self::Nothing | Self::Junk => false,
            Self::RefusedRcpt | Self::Error | Self::FailedAuth => true,
        }
    }
}

/// What a session has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Error points times two.
    error_halves: u16,
    junk: u16,
}

impl Default for Budget {
    /// [`ERROR_POINTS_MAX`] and [`JUNK_POINTS_MAX`].
    fn default() -> Self {
        Self {
            error_halves: 2 * ERROR_POINTS_MAX,
            junk: JUNK_POINTS_MAX,
        }
    }
}

impl Budget {
    /// Whether no more than half of the error points are left (rule B5).
    pub fn is_half_spent(self) -> bool {
        self.error_halves <= ERROR_POINTS_MAX
    }

    /// Charges a command, and says whether the session goes on.
    pub fn charge(&mut self, cost: Cost) -> Next {
        let (error_halves, junk) = match cost {
            Cost::Nothing => (0, 0),
            Cost::Junk => (0, 1),
            Cost::RefusedRcpt => (1, 0),
            Cost::Error => (2, 0),
            Cost::FailedAuth => (4, 0),
        };
        self.error_halves = self.error_halves.saturating_sub(error_halves);
        self.junk = self.junk.saturating_sub(junk);
        if self.error_halves == 0 || self.junk == 0 {
            Next::Close
        } else {
            Next::Continue
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many commands of one cost are answered before the one that ends the session.
    fn answered(cost: Cost) -> usize {
        let mut budget = Budget::default();
        (0..1000)
            .take_while(|_| budget.charge(cost) == Next::Continue)
            .count()
    }

    #[test]
    fn rule_b4_the_budget_ends_at_the_point() {
        assert_eq!(answered(Cost::Error), 9);
        assert_eq!(answered(Cost::RefusedRcpt), 19);
        assert_eq!(answered(Cost::FailedAuth), 4);
        assert_eq!(answered(Cost::Junk), 99);
        assert_eq!(answered(Cost::Nothing), 1000);
    }

    #[test]
    fn rule_b5_half_of_the_error_points_is_five() {
        let mut budget = Budget::default();
        let mut spend = |cost: Cost, times: usize| {
            (0..times).for_each(|_| {
                budget.charge(cost);
            });
            budget.is_half_spent()
        };
        assert!(!spend(Cost::Junk, 90));
        assert!(!spend(Cost::RefusedRcpt, 9));
        assert!(spend(Cost::RefusedRcpt, 1));
    }

    #[test]
    fn rule_b4_errors_add_up_and_junk_is_apart() {
        let mut budget = Budget::default();
        let costs = [Cost::Junk, Cost::RefusedRcpt, Cost::FailedAuth, Cost::Error];
        let ends = (1..100)
            .find(|_| costs.iter().any(|&cost| budget.charge(cost) == Next::Close))
            .expect("it ends");
        assert_eq!(ends, 3);
        // What is spent stays spent.
        assert_eq!(budget.charge(Cost::Nothing), Next::Close);
    }
}
