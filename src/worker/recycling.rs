//! When a worker has done enough and is to be replaced by a fresh process.
//!
//! It stops warmly then, and says so; replacing it is the duty of whoever started the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing::info;

use super::running::{Crew, Stop, WorkerHandle};

/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a message may be given back because its worker has done enough; well below the limit
/// of deliveries of a quorum queue.
const GIVEN_BACK_MAX: u32 = 10;

/// What is left of a worker's life.
#[derive(Debug, Default)]
pub(super) struct Recycling {
    /// `None` for any number.
    tasks_left: Option<AtomicUsize>,
    memory_max_kib: Option<usize>,
}

impl Recycling {
    pub(super) fn new(tasks_max: Option<usize>, memory_max_kib: Option<usize>) -> Self {
        Self { tasks_left: tasks_max.map(AtomicUsize::new), memory_max_kib }
    }

    /// The prefetch of a worker whose slots are so many. What is prefetched and not run in this
    /// life goes back, which counts as a delivery: nothing may go back until it is given up. How
    /// many tasks fit into the memory nobody knows, but those that have slots do run.
    pub(super) fn prefetch(&self, wanted: u32, slots: u32) -> u32 {
        let wanted = if self.memory_max_kib.is_some() { wanted.min(slots) } else { wanted };
        let Some(left) = &self.tasks_left else { return wanted };
        let tasks = u32::try_from(left.load(Ordering::Acquire)).unwrap_or(u32::MAX).max(1);
        wanted.min(tasks.max(slots)).min(tasks.saturating_mul(GIVEN_BACK_MAX))
    }

    /// Counts a task that has ended after it was started.
    pub(super) fn task_ended(&self, stop: &Stop) {
        let Some(left) = &self.tasks_left else { return };
        let one_less = |left: usize| left.checked_sub(1);
        // Tasks that were running when the last one was counted end afterwards.
        if left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) == Ok(1) {
            info!("worker: has run its number of tasks, stopping to be replaced");
            WorkerHandle(stop.clone()).recycle();
        }
    }

    /// Watches the memory until the worker stops.
    pub(super) fn watch_memory(crew: &Crew) {
        let Some(max) = crew.recycling.memory_max_kib else { return };
        let stop = crew.stop.clone();
        tokio::spawn(async move {
            while stop.warm.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
                if let Some(kib) = resident_kib().filter(|kib| *kib > max) {
                    info!(kib, max, "worker: is too large, stopping to be replaced");
                    WorkerHandle(stop.clone()).recycle();
                }
            }
        });
    }
}

/// This process's memory in RAM, where that can be found out.
fn resident_kib() -> Option<usize> {
    #[cfg(unix)]
    return crate::process::resident_kib(std::process::id()).and_then(|kib| kib.try_into().ok());
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_task_stops_the_worker_once() {
        let (stop, recycling) = (Stop::default(), Recycling::new(Some(3), None));
        for asked in [false, false, true, true] {
            recycling.task_ended(&stop);
            assert_eq!(stop.is_asked(), asked);
            assert_eq!(stop.is_recycled(), asked);
        }
    }

    #[test]
    fn a_worker_takes_no_more_than_it_can_run_in_a_few_lives() {
        let prefetch = |tasks| Recycling::new(tasks, None).prefetch(408, 102);
        assert_eq!(prefetch(None), 408);
        assert_eq!(prefetch(Some(1000)), 408);
        assert_eq!(prefetch(Some(200)), 200);
        assert_eq!(prefetch(Some(50)), 102);
        assert_eq!(prefetch(Some(4)), 40);
        assert_eq!(prefetch(Some(1)), 10);
        assert_eq!(Recycling::new(Some(100), None).prefetch(8, 2), 8);
        let memory = |tasks| Recycling::new(tasks, Some(1000)).prefetch(408, 102);
        assert_eq!((memory(None), memory(Some(200)), memory(Some(4))), (102, 102, 40));
    }

    #[test]
    fn without_a_limit_it_goes_on() {
        let stop = Stop::default();
        Recycling::default().task_ended(&stop);
        assert!(!stop.is_asked());
    }
}
