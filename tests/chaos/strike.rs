//! What one strike of a fault did, told by the marks of the tasks: who was struck, when they
//! worked again, and why a task ran again.
//!
//! **Invariant:** every further run of a task has its explanation, or the test fails: its message
//! was with somebody who was struck, of whom each can hold [`worker::PREFETCH`]; or the producer
//! had sent it twice, because the strike took the confirm.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::marks::{Mark, Moment};
use crate::worker::PREFETCH;

/// A process that was struck.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck {
    /// The process that may have held messages.
    pub(crate) held: Option<u32>,
    /// The process that is to work again: the same one, or what was started in its place.
    pub(crate) again: u32,
}

/// One strike.
#[derive(Debug)]
pub(crate) struct Strike {
    pub(crate) begun: Moment,
    /// When what was held was lost. Until then work may have gone on.
    pub(crate) lost: Moment,
    /// When nothing stood in the way any more.
    pub(crate) ended: Moment,
    pub(crate) struck: Vec<Struck>,
}

/// How often tasks ran again, by what had become of the run before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reruns {
    /// It ran when its message was lost.
    pub(crate) running: usize,
    /// It had ended; its message was not acked yet.
    pub(crate) ended: usize,
    /// It began afterwards, in a process that still had the message.
    pub(crate) later: usize,
    /// Its message was sent twice.
    pub(crate) sent_twice: usize,
}

impl Reruns {
    pub(crate) fn all(&self) -> usize {
        self.by_strikes() + self.sent_twice
    }

    /// Those of messages that were delivered again.
    pub(crate) fn by_strikes(&self) -> usize {
        self.running + self.ended + self.later
    }
}

impl Strike {
    /// When the last of those who were struck worked again; `None` if not all of them do.
    pub(crate) fn recovered(&self, marks: &[Mark]) -> Option<Moment> {
        let moments: Option<Vec<_>> =
            self.struck.iter().map(|struck| self.works_again(struck, marks)).collect();
        moments?.into_iter().max()
    }

    /// From its beginning and from its end until all who were struck worked again.
    pub(crate) fn recovery(&self, marks: &[Mark]) -> Option<(Duration, Duration)> {
        let recovered = self.recovered(marks)?;
        Some((recovered.saturating_sub(self.begun), recovered.saturating_sub(self.ended)))
    }

    /// The beginning of the first task that the process cannot have held when it was struck: what
    /// it held it may begin without a broker.
    fn works_again(&self, struck: &Struck, marks: &[Mark]) -> Option<Moment> {
        let held = if struck.held == Some(struck.again) { PREFETCH } else { 0 };
        let begins = |mark: &&Mark| mark.begins && mark.pid == struck.again && mark.at > self.lost;
        marks.iter().filter(begins).nth(held).map(|mark| mark.at)
    }

    /// Whether the message of the run that began with `first` may have been delivered again,
    /// to begin at `second`, because of this strike.
    fn explains(&self, first: &Mark, second: &Mark, marks: &[Mark]) -> bool {
        let Some(struck) = self.struck.iter().find(|struck| struck.held == Some(first.pid)) else {
            return false;
        };
        let works_again = || self.works_again(struck, marks);
        let lives = struck.again == first.pid;
        let was_held =
            first.at <= self.lost || !lives || works_again().is_none_or(|it| first.at < it);
        was_held && second.at >= self.begun
    }
}

/// Explains every further run of every task; `sent_twice` are the numbers of which two messages
/// may be on their way.
pub(crate) fn explain(marks: &[Mark], strikes: &[Strike], sent_twice: &HashSet<u64>) -> Reruns {
    let mut runs: HashMap<u64, Vec<&Mark>> = HashMap::new();
    for mark in marks.iter().filter(|mark| mark.begins) {
        runs.entry(mark.number).or_default().push(mark);
    }
    let mut reruns = Reruns::default();
    let mut held: HashMap<(usize, u32), usize> = HashMap::new();
    for (number, runs) in &mut runs {
        runs.sort_by_key(|mark| mark.at);
        for pair in runs.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if sent_twice.contains(number) && !second.redelivered {
                reruns.sent_twice += 1;
                continue;
            }
            let by = strikes.iter().position(|strike| strike.explains(first, second, marks));
            let Some(by) = by else {
                assert!(
                    sent_twice.contains(number),
                    "nothing explains why {number} ran again: {first:?}, {second:?}; {strikes:?}"
                );
                reruns.sent_twice += 1;
                continue;
            };
            *held.entry((by, first.pid)).or_default() += 1;
            let lost = strikes[by].lost;
            let its_end = |mark: &&Mark| {
                !mark.begins && mark.number == *number && mark.pid == first.pid && mark.at <= lost
            };
            match first.at > lost {
                true => reruns.later += 1,
                false if marks.iter().any(|mark| its_end(&mark)) => reruns.ended += 1,
                false => reruns.running += 1,
            }
        }
    }
    for ((by, pid), held) in held {
        assert!(
            held <= PREFETCH,
            "{held} tasks ran again because {pid} was struck: {:?}",
            strikes[by]
        );
    }
    reruns
}
