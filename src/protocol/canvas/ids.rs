//! Where the ids of tasks, groups and chords come from that nobody has named yet.

use crate::protocol::join;

/// A source of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// Random UUIDs: for programs that call tasks.
    #[default]
    Random,
    /// UUIDs derived from one id, in order: for what a task calls, so that a task that runs again
    /// makes the same workflow again, and whoever has seen it recognises it.
    Derived {
        /// Id of the task.
        seed: String,
        /// How many ids were taken.
        next: u32,
    },
}

impl Ids {
    /// The ids that follow from the task `seed`.
    pub fn derived(seed: impl Into<String>) -> Self {
        Self::Derived { seed: seed.into(), next: 0 }
    }

    /// Takes an id.
    ///
    /// ```
    /// use celeriac::protocol::canvas::Ids;
    ///
    /// let (mut once, mut again) = (Ids::derived("task-1"), Ids::derived("task-1"));
    /// assert_eq!(once.take(), again.take());
    /// assert_ne!(once.take(), Ids::Random.take());
    /// ```
    pub fn take(&mut self) -> String {
        match self {
            Self::Random => uuid::Uuid::new_v4().to_string(),
            Self::Derived { seed, next } => {
                let id = join::derived_id(seed, &next.to_string());
                *next = next.wrapping_add(1);
                id
            }
        }
    }
}
