//! Lamport's clock, which Celery's programs carry in events and in remote control.
//!
//! It orders what several programs have told; it has nothing to do with the time of day.
//! **Invariant:** it never goes back.

use std::sync::atomic::{AtomicI64, Ordering};

/// The clock of one program.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicI64);

impl Clock {
    /// Takes the clock of a message into account.
    pub(crate) fn adjust(&self, other: i64) {
        // A clock that has nearly run out would be the end of ours.
        if other < i64::MAX / 2 {
            self.0.fetch_max(other, Ordering::Relaxed);
        }
        self.tick();
    }

    /// The time of the next event.
    pub(crate) fn tick(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The time of the last event.
    pub(crate) fn now(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_always_later_than_all_that_was_heard_of() {
        let clock = Clock::default();
        assert_eq!((clock.tick(), clock.tick()), (1, 2));
        clock.adjust(10);
        assert_eq!(clock.tick(), 12);
        clock.adjust(3);
        clock.adjust(i64::MAX);
        assert_eq!(clock.now(), 14);
    }
}
