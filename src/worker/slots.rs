//! Slots: how many tasks of one kind run at once, which may change at any time.
//!
//! Does not know what runs. **Invariant:** slots that are out, free or owed add up: when slots
//! are taken away while all are in use, they go as they come back, and no task is disturbed.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

/// The most slots that there can be.
const SLOTS_MAX: usize = 1_000_000;

/// The slots for one kind of task.
#[derive(Debug)]
pub(super) struct Slots {
    free: Semaphore,
    /// How many there are to be. The lock is for those who change that.
    size: Mutex<usize>,
    /// Slots that are in use and go when they come back.
    owed: AtomicUsize,
}

impl Slots {
    /// At least one.
    pub(super) fn new(size: usize) -> Arc<Self> {
        let size = size.clamp(1, SLOTS_MAX);
        let free = Semaphore::new(size);
        Arc::new(Self { free, size: Mutex::new(size), owed: AtomicUsize::new(0) })
    }

    /// A slot that is free now and that nobody waits for.
    pub(super) fn try_take(this: &Arc<Self>) -> Option<Slot> {
        this.free.try_acquire().ok()?.forget();
        Some(Slot(Arc::clone(this)))
    }

    /// How many slots there are, not counting those that go when they come back.
    pub(super) fn current(&self) -> usize {
        *self.lock()
    }

    /// How many are in use.
    pub(super) fn busy(&self) -> usize {
        let owed = self.owed.load(Ordering::Acquire);
        (self.current() + owed).saturating_sub(self.free.available_permits())
    }

    /// Adds slots, and gives their new number.
    pub(super) fn grow(&self, more: usize) -> usize {
        let mut size = self.lock();
        let wanted = size.saturating_add(more);
        self.resize(&mut size, wanted)
    }

    /// Takes slots away, and gives their new number; the last one stays.
    pub(super) fn shrink(&self, less: usize) -> usize {
        let mut size = self.lock();
        let wanted = size.saturating_sub(less);
        self.resize(&mut size, wanted)
    }

    /// Makes it `size` slots, at least one, and gives their new number.
    pub(super) fn set(&self, wanted: usize) -> usize {
        let mut size = self.lock();
        self.resize(&mut size, wanted)
    }

    fn resize(&self, size: &mut usize, wanted: usize) -> usize {
        let wanted = wanted.clamp(1, SLOTS_MAX);
        if wanted > *size {
            let more = wanted - *size;
            let paid = self.pay(more);
            self.free.add_permits(more - paid);
        } else {
            let less = *size - wanted;
            let gone = self.free.forget_permits(less);
            self.owed.fetch_add(less - gone, Ordering::AcqRel);
        }
        *size = wanted;
        wanted
    }

    /// Takes up to `count` off what is owed, and says how many.
    fn pay(&self, count: usize) -> usize {
        let paying = |owed: usize| (owed > 0 && count > 0).then(|| owed.saturating_sub(count));
        match self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, paying) {
            Ok(owed) => owed.min(count),
            Err(_) => 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of one task. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Slot {
    /// Whether it is one of these.
    pub(super) fn is_of(&self, slots: &Arc<Slots>) -> bool {
        Arc::ptr_eq(&self.0, slots)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Looking first is cheaper, and nearly always enough.
        if self.0.owed.load(Ordering::Acquire) == 0 || self.0.pay(1) == 0 {
            self.0.free.add_permits(1);
        }
    }
}

/// A place in the queue for a slot.
pub(super) enum Turn {
    Come(Slot),
    Waiting(BoxFuture<'static, Option<Slot>>),
}

impl Turn {
    /// Queues up at once, so that jobs get their slots in the order of the calls.
    pub(super) fn next(slots: &Arc<Slots>) -> Self {
        if let Some(slot) = Slots::try_take(slots) {
            return Self::Come(slot);
        }
        let slots = Arc::clone(slots);
        // The first poll takes the place; tokio's budget must not make it do nothing.
        let acquire = tokio::task::unconstrained(async move {
            slots.free.acquire().await.ok()?.forget();
            Some(Slot(slots))
        });
        let mut waiting = acquire.boxed();
        let mut nobody = Context::from_waker(Waker::noop());
        match Pin::new(&mut waiting).poll(&mut nobody) {
            Poll::Ready(Some(slot)) => Self::Come(slot),
            Poll::Ready(None) | Poll::Pending => Self::Waiting(waiting),
        }
    }

    pub(super) async fn come(self) -> Option<Slot> {
        match self {
            Self::Come(slot) => Some(slot),
            Self::Waiting(waiting) => waiting.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(slots: &Arc<Slots>) -> Option<Slot> {
        Turn::next(slots).come().now_or_never().flatten()
    }

    #[test]
    fn shrinking_waits_for_what_runs() {
        let slots = Slots::new(2);
        let (first, second) = (take(&slots).unwrap(), take(&slots).unwrap());
        assert!(take(&slots).is_none());
        assert_eq!((slots.shrink(1), slots.current()), (1, 1));
        assert_eq!(slots.busy(), 2);
        drop(first);
        assert_eq!(slots.busy(), 1);
        assert!(take(&slots).is_none(), "the slot that came back is gone");
        drop(second);
        let only = take(&slots);
        assert!(only.is_some() && take(&slots).is_none());
    }

    #[test]
    fn growing_takes_back_what_was_to_go() {
        let slots = Slots::new(2);
        let running = [take(&slots), take(&slots)];
        assert_eq!(slots.shrink(1), 1);
        assert_eq!(slots.grow(1), 2);
        drop(running);
        let again = [take(&slots), take(&slots)];
        assert!(again.iter().all(Option::is_some) && take(&slots).is_none());
    }

    #[test]
    fn the_last_slot_stays() {
        let slots = Slots::new(0);
        assert_eq!((slots.current(), slots.shrink(7), slots.set(0)), (1, 1, 1));
        assert_eq!(slots.grow(usize::MAX), SLOTS_MAX);
    }

    #[test]
    fn who_waits_gets_a_new_slot_first() {
        let slots = Slots::new(1);
        let held = take(&slots).unwrap();
        let Turn::Waiting(mut waiting) = Turn::next(&slots) else { panic!("there is one slot") };
        assert!((&mut waiting).now_or_never().is_none());
        slots.grow(1);
        assert!(take(&slots).is_none(), "it belongs to who came first");
        assert!(waiting.now_or_never().flatten().is_some());
        drop(held);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take,
        Return(usize),
        Set(usize),
        Grow(usize),
        Shrink(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Take),
            3 => (0..8_usize).prop_map(Step::Return),
            1 => (1..8_usize).prop_map(Step::Set),
            1 => (0..4_usize).prop_map(Step::Grow),
            1 => (0..4_usize).prop_map(Step::Shrink),
        ]
    }

    proptest! {
        /// A slot is given out exactly when fewer are out than there are.
        #[test]
        fn as_many_run_as_there_are_slots(steps in proptest::collection::vec(step(), 0..100)) {
            let slots = Slots::new(3);
            let (mut size, mut out) = (3, Vec::new());
            for step in steps {
                match step {
                    Step::Take => {
                        let slot = take(&slots);
                        prop_assert_eq!(slot.is_some(), out.len() < size);
                        out.extend(slot);
                    }
                    Step::Return(at) if at < out.len() => drop(out.swap_remove(at)),
                    Step::Return(_) => {}
                    Step::Set(to) => size = slots.set(to),
                    Step::Grow(by) => size = slots.grow(by),
                    Step::Shrink(by) => size = slots.shrink(by),
                }
                prop_assert_eq!(slots.current(), size);
            }
        }
    }
}
