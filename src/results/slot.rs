//! What is known of one task: its latest state, and a bell for who waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::protocol::ResultMeta;

/// Reports before the latest one that are kept for followers.
const EARLIER_MAX: usize = 32;

/// The latest report on one task. Later reports replace earlier ones; a final one stays.
#[derive(Debug, Default)]
pub(super) struct Slot {
    known: Mutex<Known>,
    changed: Notify,
}

/// The part of a slot behind the lock.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The latest report.
    pub(super) latest: Option<ResultMeta>,
    /// Those before it, oldest first. Empty for tasks that report only their end.
    earlier: VecDeque<ResultMeta>,
    /// How many reports were taken; a follower counts along.
    version: u64,
    /// No report can come any more.
    pub(super) closed: bool,
}

impl Known {
    /// The first report after the first `seen` ones that is still kept, and its number.
    pub(super) fn after(&self, seen: u64) -> Option<(u64, &ResultMeta)> {
        let oldest = self.version - self.earlier.len() as u64;
        let number = (seen + 1).max(oldest);
        if number >= self.version {
            return self
                .latest
                .as_ref()
                .filter(|_| seen < self.version)
                .map(|it| (self.version, it));
        }
        let at = usize::try_from(number - oldest).ok()?;
        self.earlier.get(at).map(|report| (number, report))
    }
}

impl Slot {
    /// Takes a report, unless a final one is there: the first end of a task wins, because a
    /// redelivered task may end twice and the same result may be sent twice.
    pub(super) fn report(&self, meta: ResultMeta) {
        let mut known = self.known();
        if known.latest.as_ref().is_some_and(|latest| latest.status.is_ready()) {
            return;
        }
        if let Some(earlier) = known.latest.replace(meta) {
            if known.earlier.len() == EARLIER_MAX {
                known.earlier.pop_front();
            }
            known.earlier.push_back(earlier);
        }
        known.version += 1;
        drop(known);
        self.changed.notify_waiters();
    }

    /// Tells all who wait that nothing more will come.
    pub(super) fn close(&self) {
        self.known().closed = true;
        self.changed.notify_waiters();
    }

    /// Waits until `look` finds what it looks for.
    pub(super) async fn wait_for<T>(&self, mut look: impl FnMut(&Known) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before looking, so that a report between the two is not missed.
            changed.as_mut().enable();
            if let Some(found) = look(&self.known()) {
                return found;
            }
            changed.await;
        }
    }

    /// Looks at what is known now.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{TaskState, Value};

    fn progress(step: i64) -> ResultMeta {
        ResultMeta::new("1", TaskState::from("PROGRESS"), Value::Int(step))
    }

    /// What a follower that has seen the first `seen` reports gets to see.
    fn follow(slot: &Slot, mut seen: u64) -> Vec<i64> {
        let known = slot.known();
        let mut found = Vec::new();
        while let Some((number, report)) = known.after(seen) {
            seen = number;
            found.extend(report.result.as_i64());
        }
        found
    }

    #[test]
    fn a_follower_sees_every_report_in_order() {
        let slot = Slot::default();
        assert!(follow(&slot, 0).is_empty());
        slot.report(progress(1));
        assert_eq!(follow(&slot, 0), [1]);
        slot.report(progress(2));
        slot.report(ResultMeta::success("1", Value::Int(3)));
        assert_eq!(follow(&slot, 0), [1, 2, 3]);
        assert_eq!(follow(&slot, 1), [2, 3]);
        assert!(follow(&slot, 3).is_empty());
    }

    #[test]
    fn a_chatty_task_costs_a_bounded_memory() {
        let slot = Slot::default();
        (1..=100).for_each(|step| slot.report(progress(step)));
        assert_eq!(follow(&slot, 0), (68..=100).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_follows_the_end() {
        let slot = Slot::default();
        slot.report(ResultMeta::success("1", Value::Int(1)));
        slot.report(progress(2));
        assert_eq!(follow(&slot, 0), [1]);
    }
}
