//! Rate limits: when the next call of a task may start in this worker.
//!
//! Judges; waiting and handing on is the executor's part. **Invariants:** in any span of time, a
//! task starts at most once more than its limit allows; without limits, a call costs one look.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::task::RateLimit;

/// The longest wait in the worker. Who would wait longer makes room for others.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(2);

/// How far ahead calls are handed on at most, so that a limit that is raised is soon felt.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// The longest time between two who come back.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// When a call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// At once.
    Now,
    /// After this time, which is reserved for it.
    Wait(Duration),
    /// Not soon; it should ask again after this time. Nothing is reserved for it.
    Later(Duration),
}

/// Limits of the tasks of one worker, by name.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: Mutex<HashMap<String, Bucket>>,
    /// Whether there is a limit at all.
    any: AtomicBool,
}

impl Rates {
    /// Begins with the limits that tasks have by themselves.
    pub(super) fn new<'a>(limits: impl IntoIterator<Item = (&'a str, RateLimit)>) -> Self {
        let rates = Self::default();
        for (task, limit) in limits {
            rates.set(task, Some(limit));
        }
        rates
    }

    /// Limits a task from now on, or no longer. The caller has seen to it that the task exists:
    /// limits are kept for as long as the worker lives.
    pub(super) fn set(&self, task: &str, limit: Option<RateLimit>) {
        let mut buckets = self.lock();
        match limit {
            Some(limit) => {
                let bucket = buckets.entry(task.to_owned()).or_insert_with(|| Bucket::new(limit));
                bucket.change(limit, Instant::now());
            }
            None => {
                buckets.remove(task);
            }
        }
        self.any.store(!buckets.is_empty(), Ordering::Release);
    }

    /// The limit that a task has now.
    pub(super) fn get(&self, task: &str) -> Option<RateLimit> {
        self.lock().get(task).map(|bucket| bucket.limit)
    }

    /// Takes the next start of `task`, if it is not too far away.
    pub(super) fn pace(&self, task: &str) -> Pace {
        self.of(task, |bucket| bucket.take(Instant::now())).unwrap_or(Pace::Now)
    }

    /// How long there is no start of `task`. Takes none.
    pub(super) fn wait(&self, task: &str) -> Option<Duration> {
        self.of(task, |bucket| bucket.wait(Instant::now())).filter(|wait| !wait.is_zero())
    }

    /// Takes a start of `task` that may be used at once; an error is how long there is none.
    pub(super) fn take(&self, task: &str) -> Result<Taken, Duration> {
        self.of(task, |bucket| bucket.take_now(Instant::now())).unwrap_or(Ok(Taken(None)))
    }

    /// Gives back a start that was not used.
    pub(super) fn give_back(&self, task: &str, taken: &Taken) {
        self.of(task, |bucket| bucket.give_back(taken));
    }

    /// When a call of `task` that is not to wait here any more should come back, if there is no
    /// start now.
    pub(super) fn ahead(&self, task: &str) -> Option<Duration> {
        let now = Instant::now();
        self.of(task, |bucket| {
            let (wait, interval) = (bucket.wait(now), bucket.limit.interval());
            (!wait.is_zero()).then(|| bucket.ahead.next(now, wait, interval))
        })?
    }

    /// Without limits, one look.
    fn of<T>(&self, task: &str, what: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.lock().get_mut(task).map(what)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token bucket that holds one token, as Celery's does: what counts is when it is full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    limit: RateLimit,
    /// The first start that nobody has.
    next: Option<Instant>,
    ahead: Ahead,
}

/// A start that was taken at once; nothing, where there is no limit.
#[derive(Debug)]
pub(super) struct Taken(Option<TakenOf>);

/// What a bucket was before and after.
#[derive(Clone, Copy, Debug)]
struct TakenOf {
    before: Option<Instant>,
    after: Instant,
}

/// When those who are handed on come back: spread in time, if it may be, as their starts will be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ahead {
    /// The first time that nobody was told.
    next: Option<Instant>,
}

impl Ahead {
    /// The time for the next one: `interval` after the one before, and not before `wait` is over.
    pub(super) fn next(&mut self, now: Instant, wait: Duration, interval: Duration) -> Duration {
        let first = now + wait.min(AHEAD_MAX / 2);
        let mut at = self.next.map_or(first, |next| next.max(first));
        if at > now + AHEAD_MAX {
            at = first;
        }
        self.next = Some(at + interval.min(SPREAD_MAX));
        at - now
    }
}

impl Bucket {
    const fn new(limit: RateLimit) -> Self {
        Self { limit, next: None, ahead: Ahead { next: None } }
    }

    fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    fn take_now(&mut self, now: Instant) -> Result<Taken, Duration> {
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let (before, after) = (self.next, now + self.limit.interval());
        self.next = Some(after);
        Ok(Taken(Some(TakenOf { before, after })))
    }

    /// Who has come after it has waited for it; then it is used up after all.
    fn give_back(&mut self, taken: &Taken) {
        if let Some(TakenOf { before, after }) = taken.0
            && self.next == Some(after)
        {
            self.next = before;
        }
    }

    fn take(&mut self, now: Instant) -> Pace {
        let interval = self.limit.interval();
        let wait = self.wait(now);
        let next = now + wait;
        if wait > WAIT_MAX {
            return Pace::Later(self.ahead.next(now, wait, interval));
        }
        self.next = Some(next + interval);
        if wait.is_zero() { Pace::Now } else { Pace::Wait(wait) }
    }

    /// A limit that was raised counts at once, and one that was lowered as well: as if the last
    /// start had been taken by it. Starts that somebody may wait for stay taken.
    fn change(&mut self, limit: RateLimit, now: Instant) {
        let before = std::mem::replace(&mut self.limit, limit).interval();
        self.next = self.next.map(|next| {
            let by_the_last = (next + limit.interval()).checked_sub(before).unwrap_or(next);
            by_the_last.max(next.min(now + WAIT_MAX))
        });
        self.ahead = Ahead::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(text: &str) -> Bucket {
        Bucket::new(RateLimit::parse(text).unwrap().unwrap())
    }

    #[test]
    fn starts_are_spread_evenly() {
        let (mut bucket, now) = (bucket("1/s"), Instant::now());
        assert_eq!(bucket.take(now), Pace::Now);
        assert_eq!(bucket.take(now), Pace::Wait(SECOND));
        assert_eq!(bucket.take(now), Pace::Wait(2 * SECOND));
        assert_eq!(bucket.take(now), Pace::Later(3 * SECOND));
        assert_eq!(bucket.take(now), Pace::Later(4 * SECOND), "not all at once");
        assert_eq!(bucket.take(now + 3 * SECOND), Pace::Now, "nobody was given that start");
    }

    #[test]
    fn who_is_handed_on_comes_back_within_a_minute() {
        let (mut fast, now) = (bucket("10/s"), Instant::now());
        for _ in 0..10_000 {
            if let Pace::Later(after) = fast.take(now) {
                assert!(after <= AHEAD_MAX && after > WAIT_MAX, "{after:?}");
            }
        }
        let mut slow = bucket("1/h");
        assert_eq!(slow.take(now), Pace::Now);
        assert_eq!(slow.take(now), Pace::Later(AHEAD_MAX / 2));
        assert_eq!(slow.take(now), Pace::Later(AHEAD_MAX / 2 + SPREAD_MAX));
    }

    #[test]
    fn limits_come_and_go() {
        let rates = Rates::new([("slow", RateLimit::every(SECOND))]);
        assert_eq!(rates.pace("slow"), Pace::Now);
        assert!(matches!(rates.pace("slow"), Pace::Wait(_)));
        assert_eq!(rates.pace("other"), Pace::Now);
        let hourly = RateLimit::every(3600 * SECOND);
        rates.set("slow", Some(hourly));
        assert_eq!(rates.get("slow"), Some(hourly));
        rates.set("slow", None);
        assert_eq!((rates.get("slow"), rates.pace("slow")), (None, Pace::Now));
        assert!(!rates.any.load(Ordering::Acquire));
    }

    #[test]
    fn a_start_that_was_not_used_is_there_for_the_next_one() {
        let (mut bucket, now) = (bucket("1/h"), Instant::now());
        let taken = bucket.take_now(now).unwrap();
        assert_eq!(bucket.take_now(now + SECOND).unwrap_err(), 3599 * SECOND);
        bucket.give_back(&taken);
        let used = bucket.take_now(now + SECOND).unwrap();
        assert_eq!(bucket.take(now + 3600 * SECOND), Pace::Wait(SECOND));
        bucket.give_back(&used);
        assert_eq!(bucket.wait(now + 3601 * SECOND), 3600 * SECOND, "somebody has the next one");
    }

    #[test]
    fn a_raised_limit_counts_at_once() {
        let (mut bucket, now) = (bucket("1/h"), Instant::now());
        assert_eq!(bucket.take(now), Pace::Now);
        bucket.change(RateLimit::every(SECOND), now);
        assert_eq!(bucket.take(now), Pace::Wait(WAIT_MAX));
    }

    #[test]
    fn a_limit_that_is_set_again_or_lowered_gives_no_start() {
        let (mut bucket, now) = (bucket("1/h"), Instant::now());
        assert_eq!(bucket.take(now), Pace::Now);
        for (hours, wait) in [(1, 1), (2, 2), (1, 1), (3, 3), (2, 2), (1, 1)] {
            bucket.change(RateLimit::every(hours * 3600 * SECOND), now + 10 * SECOND);
            assert_eq!(bucket.wait(now), wait * 3600 * SECOND, "the start before counts");
        }
    }

    #[test]
    fn a_limit_that_is_raised_does_not_take_away_what_somebody_waits_for() {
        let (mut bucket, now) = (bucket("1/s"), Instant::now());
        assert_eq!(bucket.take(now), Pace::Now);
        assert_eq!(bucket.take(now), Pace::Wait(SECOND));
        assert_eq!(bucket.take(now), Pace::Wait(2 * SECOND));
        bucket.change(RateLimit::every(SECOND / 10), now);
        assert_eq!(bucket.wait(now), 2 * SECOND + SECOND / 10);
    }

    proptest! {
        /// No span of time has more starts than the limit allows, and one.
        #[test]
        fn no_more_starts_than_allowed(
            interval in 1..3000_u64,
            arrivals in proptest::collection::vec(0..2500_u64, 1..200),
        ) {
            let interval = Duration::from_millis(interval);
            let mut bucket = Bucket::new(RateLimit::every(interval));
            let (mut now, mut starts) = (Instant::now(), Vec::new());
            for pause in arrivals {
                now += Duration::from_millis(pause);
                match bucket.take(now) {
                    Pace::Now => starts.push(now),
                    Pace::Wait(wait) => starts.push(now + wait),
                    Pace::Later(after) => prop_assert!(after > WAIT_MAX),
                }
            }
            for pair in starts.windows(2) {
                prop_assert!(pair[1] - pair[0] >= interval, "{starts:?}");
            }
        }
    }
}
