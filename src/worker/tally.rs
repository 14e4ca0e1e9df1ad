//! How many calls of each task were started, for `stats`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by the names of the tasks.
#[derive(Debug)]
pub(super) struct Tally(HashMap<&'static str, AtomicU64>);

impl Tally {
    /// Counts calls of these tasks.
    pub(super) fn new(tasks: impl IntoIterator<Item = &'static str>) -> Self {
        Self(tasks.into_iter().map(|name| (name, AtomicU64::new(0))).collect())
    }

    /// One call more.
    pub(super) fn count(&self, task: &str) {
        if let Some(count) = self.0.get(task) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All calls.
    pub(super) fn total(&self) -> u64 {
        self.0.values().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The tasks that were called, by name.
    pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|(name, count)| (*name, count.load(Ordering::Relaxed)));
        let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        counts.sort_unstable();
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_that_were_called_are_told() {
        let tally = Tally::new(["a", "b", "c"]);
        ["b", "a", "b", "unknown"].into_iter().for_each(|task| tally.count(task));
        assert_eq!(tally.counts(), [("a", 1), ("b", 2)]);
        assert_eq!(tally.total(), 3);
    }
}
