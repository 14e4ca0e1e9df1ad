//! How many messages a worker takes ahead, for as many slots as it has.
//!
//! **Invariant:** whenever slots change, everything that is sized by the prefetch follows: the
//! consumer, and the places for jobs that are held until they are due.

use super::recycling::Recycling;
use super::running::Crew;
use crate::amqp::ConsumerHandle;

/// The prefetch for some number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefetch {
    /// For all queues together.
    pub(super) all: u32,
    /// The least for one queue: a busy one alone must be able to fill every slot.
    pub(super) each: u32,
}

impl Prefetch {
    /// For so many slots of both kinds, `multiplier` messages for each, within what is left of the
    /// worker's life.
    pub(super) fn new(slots: usize, multiplier: u32, recycling: &Recycling) -> Self {
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let wanted = slots.saturating_mul(multiplier.max(1));
        Self { all: recycling.prefetch(wanted, slots), each: recycling.prefetch(slots, slots) }
    }

    /// For so many slots of a worker that runs.
    pub(super) fn of(crew: &Crew, slots: usize) -> Self {
        let multiplier = crew.client.config().worker_prefetch_multiplier;
        Self::new(slots, multiplier, &crew.recycling)
    }

    /// Lets the worker follow.
    pub(super) async fn apply(self, crew: &Crew, consumer: &ConsumerHandle) {
        crew.hold.fit(self.all);
        consumer.set_prefetch(self.all, self.each).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefetch_follows_the_slots() {
        let any = Recycling::default();
        assert_eq!(Prefetch::new(102, 4, &any), Prefetch { all: 408, each: 102 });
        assert_eq!(Prefetch::new(202, 4, &any), Prefetch { all: 808, each: 202 });
        assert_eq!(Prefetch::new(10, 0, &any), Prefetch { all: 10, each: 10 });
        let most = Prefetch::new(usize::MAX, 4, &any);
        assert_eq!(most, Prefetch { all: u32::MAX, each: u32::MAX });
    }

    #[test]
    fn more_slots_do_not_take_more_than_is_left_to_run() {
        let few = Recycling::new(Some(5), None);
        assert_eq!(Prefetch::new(12, 4, &few), Prefetch { all: 12, each: 12 });
        assert_eq!(Prefetch::new(1000, 4, &few), Prefetch { all: 50, each: 50 });
    }
}
