//! Threads of blocking tasks that were given up: they cannot be stopped, only counted.
//!
//! Does not decide when one is given up (see `attempt`). **Invariant:** a thread's slot is free
//! again once its task has ended, or at once if the thread is given up and not too many were; so
//! there are never more threads than slots and the bound. Its permit of the fleet is free when the
//! function has returned, and not before: what the limit protects is still in use.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{error, info};

use super::permits::Permit;
use super::slots::Slot;
use crate::task::Request;

/// How many threads are replaced for each blocking slot.
pub(crate) const REPLACED_PER_SLOT: usize = 4;

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const RETURNED: u8 = 2;
const LOST: u8 = 3;

/// The threads of one worker that were given up and have not returned.
#[derive(Debug)]
pub(super) struct LostThreads {
    count: AtomicUsize,
    /// The most blocking slots, for which there are threads.
    slots: usize,
    /// How many lost threads are replaced.
    max: usize,
}

impl LostThreads {
    /// For a worker that will have at most so many blocking slots.
    pub(super) fn new(slots: usize) -> Arc<Self> {
        let max = slots.saturating_mul(REPLACED_PER_SLOT);
        Arc::new(Self { count: AtomicUsize::new(0), slots, max })
    }

    /// The most blocking slots that there may be.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// How many slots their threads keep.
    pub(super) fn slots_kept(&self) -> usize {
        self.count().saturating_sub(self.max)
    }
}

/// The thread of one blocking task.
#[derive(Debug)]
pub(super) struct Lease {
    threads: Arc<LostThreads>,
    state: AtomicU8,
    kept: Mutex<Kept>,
}

/// What a lost thread keeps until it returns.
type Kept = (Option<Slot>, Option<Permit>);

impl Lease {
    pub(super) fn new(threads: &Arc<LostThreads>) -> Arc<Self> {
        let threads = Arc::clone(threads);
        Arc::new(Self { threads, state: AtomicU8::new(WAITING), kept: Mutex::default() })
    }

    /// What the thread holds while it runs.
    pub(super) fn thread(self: &Arc<Self>) -> Thread {
        Thread(Arc::clone(self))
    }

    /// Gives the thread up. Takes `permit`, and `slot` if too many were given up before. A task
    /// that waits for its thread does not begin any more.
    pub(super) fn give_up(
        &self,
        slot: &mut Option<Slot>,
        permit: &mut Option<Permit>,
        request: &Request,
    ) {
        if self.change(WAITING, RETURNED) {
            return;
        }
        let LostThreads { count, max, .. } = &*self.threads;
        let lost = count.fetch_add(1, Ordering::AcqRel) + 1;
        let slot = if lost > *max { slot.take() } else { None };
        *self.kept() = (slot, permit.take());
        if !self.change(RUNNING, LOST) {
            // It has just returned.
            count.fetch_sub(1, Ordering::AcqRel);
            self.let_go();
            return;
        }
        let (task_id, task_name) = (request.id.as_str(), request.task.as_str());
        error!(task_id, task_name, lost, max, "a thread that cannot be stopped was given up");
        if lost > *max {
            error!(
                lost,
                max,
                "too many threads were given up: they keep their slots, and when no slot is left, \
                 blocking tasks are not run any more; restart this worker, and run such tasks in \
                 processes of their own"
            );
        }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn let_go(&self) {
        let kept = std::mem::take(&mut *self.kept());
        // Not under the lock: others get it at once.
        drop(kept);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that runs a blocking task; it has returned when this is dropped.
#[derive(Debug)]
pub(super) struct Thread(Arc<Lease>);

impl Thread {
    /// Whether the task may begin, now that there is a thread for it.
    pub(super) fn begin(&self) -> bool {
        self.0.change(WAITING, RUNNING)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Lease { threads, state, .. } = &*self.0;
        if state.swap(RETURNED, Ordering::AcqRel) == LOST {
            let lost = threads.count.fetch_sub(1, Ordering::AcqRel) - 1;
            self.0.let_go();
            info!(lost, "a thread that was given up has returned");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::super::slots::{Slots, Turn};
    use super::*;

    fn take(slots: &Arc<Slots>) -> Option<Slot> {
        Turn::next(slots).come().now_or_never().flatten()
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Start,
        GiveUp(usize),
        Return(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Start),
            2 => (0..12_usize).prop_map(Step::GiveUp),
            2 => (0..12_usize).prop_map(Step::Return),
        ]
    }

    proptest! {
        /// However threads are given up and return, there are never more than slots and bound,
        /// and once all have returned, all slots are free.
        #[test]
        fn threads_are_bounded(steps in proptest::collection::vec(step(), 0..120)) {
            const SLOTS: usize = 2;
            let slots = Slots::new(SLOTS);
            let threads = LostThreads::new(SLOTS);
            let mut running: Vec<(Arc<Lease>, Thread, Option<Slot>)> = Vec::new();
            let mut lost: Vec<Thread> = Vec::new();
            for step in steps {
                match step {
                    Step::Start => {
                        if let Some(slot) = take(&slots) {
                            let lease = Lease::new(&threads);
                            let thread = lease.thread();
                            prop_assert!(thread.begin());
                            running.push((lease, thread, Some(slot)));
                        }
                    }
                    Step::GiveUp(at) if at < running.len() => {
                        let (lease, thread, mut slot) = running.swap_remove(at);
                        lease.give_up(&mut slot, &mut None, &Request::default());
                        lost.push(thread);
                    }
                    Step::Return(at) if at < lost.len() => drop(lost.swap_remove(at)),
                    Step::Return(at) if at - lost.len() < running.len() => {
                        drop(running.swap_remove(at - lost.len()));
                    }
                    Step::GiveUp(_) | Step::Return(_) => {}
                }
                prop_assert_eq!(threads.count(), lost.len());
                prop_assert!(running.len() + lost.len() <= SLOTS * (1 + REPLACED_PER_SLOT));
            }
            drop((running, lost));
            prop_assert_eq!(threads.count(), 0);
            let free: Vec<_> = std::iter::from_fn(|| take(&slots)).collect();
            prop_assert_eq!(free.len(), SLOTS);
        }
    }

    #[test]
    fn a_task_that_is_given_up_before_it_has_a_thread_does_not_begin() {
        let (slots, threads) = (Slots::new(1), LostThreads::new(0));
        let lease = Lease::new(&threads);
        let (thread, mut slot) = (lease.thread(), take(&slots));
        lease.give_up(&mut slot, &mut None, &Request::default());
        assert_eq!(threads.count(), 0);
        assert!(slot.is_some(), "no thread keeps it");
        assert!(!thread.begin());
        drop(thread);
        assert_eq!(threads.count(), 0);
    }

    #[test]
    fn who_returns_while_being_given_up_was_not_lost() {
        let (slots, threads) = (Slots::new(1), LostThreads::new(0));
        let lease = Lease::new(&threads);
        let mut slot = take(&slots);
        drop(lease.thread());
        lease.give_up(&mut slot, &mut None, &Request::default());
        assert_eq!(threads.count(), 0);
        drop(slot);
        assert!(take(&slots).is_some());
    }
}
