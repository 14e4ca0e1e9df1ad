//! The times of a supervisor, and the exit codes by which children say what they want.

use std::time::Duration;

use crate::backoff::Backoff;

/// Exit code of a child that wants to be replaced by a fresh one, at once: nothing went wrong.
pub const RECYCLE: u8 = 110;

/// Exit code of a child that is not to be replaced.
pub const RETIRE: u8 = 111;

/// When children are started again and how long a stop may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// A child that lived this long died of something new.
    pub(super) settled_after: Duration,
    /// Delays from the second quick death in a row on; the first is answered at once.
    pub(super) backoff: Backoff,
    /// The longest delay before a child is replaced that asked for it after a short life.
    pub(super) recycled_after: Duration,
    /// After how many quick deaths in a row of every place the end comes, if no child has ever
    /// settled; `None` for never.
    pub(super) give_up_after: Option<u32>,
    /// How long a warm stop may take before it turns cold; `None` for as long as the children want.
    pub(super) cold_after: Option<Duration>,
    /// How long a cold stop may take before children are killed.
    pub(super) kill_after: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        let (base, cap) = (Duration::from_millis(500), Duration::from_secs(30));
        Self {
            settled_after: Duration::from_secs(10),
            backoff: Backoff { base, cap, jitter: false },
            recycled_after: Duration::from_secs(2),
            give_up_after: None,
            cold_after: None,
            kill_after: Duration::from_secs(10),
        }
    }
}

impl Rules {
    /// How long a place stays empty after so many quick deaths in a row.
    pub(super) fn delay(&self, quick_deaths: u32) -> Duration {
        match quick_deaths {
            0 | 1 => Duration::ZERO,
            more => self.backoff.delay_max(more - 2),
        }
    }

    /// The same for a child that wants to be replaced: a short life may be all that it was given.
    pub(super) fn delay_recycled(&self, quick_ends: u32) -> Duration {
        self.delay(quick_ends).min(self.recycled_after)
    }
}
