//! How the process ends: one number for each way, the same in every command.

use std::process::ExitCode;

use crate::control::StartError;

/// The ways a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, all is well.
    Done,
    /// 1: a mistake in the configuration, or a finding (a bad backend, a lost session).
    Mistakes,
    /// 2: wrong usage, or this machine does not let it start.
    CannotStart,
    /// 3: sessions were cut at the shutdown deadline.
    Cut,
    /// 4: a fault of ours.
    Fault,
    /// 1 of a Nagios plugin.
    Warning,
    /// 2 of a Nagios plugin.
    Critical,
    /// 3 of a Nagios plugin.
    Unknown,
}

impl Exit {
    /// Why a balancer was not started.
    pub(super) fn of_start(error: &StartError) -> Self {
        match error.exit_code() {
            0 => Self::Done,
            1 => Self::Mistakes,
            _ => Self::CannotStart,
        }
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Mistakes | Self::Warning => 1,
            Self::CannotStart | Self::Critical => 2,
            Self::Cut | Self::Unknown => 3,
            Self::Fault => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
