//! Time limits: how long a call may run, by its message, by its task, and by what was said since.
//!
//! Keeps no time itself (see `attempt`). **Invariant:** a soft limit that is not below the hard
//! one is none: it could never be told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::task::{Request, TaskOptions};

/// How long one call may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// When it is asked to end.
    pub(super) soft: Option<Duration>,
    /// When it is ended.
    pub(super) hard: Option<Duration>,
}

/// The limits of a worker's tasks.
#[derive(Debug, Default)]
pub(super) struct TimeLimits {
    /// What holds for tasks without limits of their own.
    default: Limits,
    /// What was set while the worker runs, by the name of the task.
    set: Mutex<HashMap<String, Limits>>,
    any: AtomicBool,
}

impl TimeLimits {
    pub(super) fn new(default: Limits) -> Self {
        Self { default, ..Self::default() }
    }

    /// From now on, these limits hold instead of the task's own. The caller has seen to it that
    /// the task exists: limits are kept for as long as the worker lives.
    pub(super) fn set(&self, task: &str, limits: Limits) {
        self.lock().insert(task.to_owned(), limits);
        self.any.store(true, Ordering::Release);
    }

    /// The limits of one call: those of its message, else what was set, else the task's own, else
    /// those of the worker.
    pub(super) fn of(&self, request: &Request, options: &TaskOptions) -> Limits {
        let own = Limits { soft: options.soft_time_limit, hard: options.time_limit };
        let set = match self.any.load(Ordering::Acquire) {
            true => self.lock().get(&request.task).copied(),
            false => None,
        };
        // Senders that know the task write its own limits into the message, which are not what
        // somebody has asked for this call.
        let asked = |asked: Option<Duration>, own: Option<Duration>| {
            asked.filter(|_| set.is_none() || asked != own)
        };
        let task = set.unwrap_or(own);
        let soft = asked(request.soft_time_limit, own.soft).or(task.soft).or(self.default.soft);
        let hard = asked(request.time_limit, own.hard).or(task.hard).or(self.default.hard);
        // As in Celery, zero is no limit.
        let hard = hard.filter(|hard| !hard.is_zero());
        let is_told = |soft: &Duration| !soft.is_zero() && hard.is_none_or(|hard| *soft < hard);
        Limits { soft: soft.filter(is_told), hard }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Limits>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(soft: u64, hard: u64) -> Limits {
        let seconds = |it: u64| (it > 0).then(|| Duration::from_secs(it));
        Limits { soft: seconds(soft), hard: seconds(hard) }
    }

    fn call(asked: Limits) -> Request {
        let Limits { soft: soft_time_limit, hard: time_limit } = asked;
        Request { task: "t".to_owned(), soft_time_limit, time_limit, ..Request::default() }
    }

    fn task(own: Limits) -> TaskOptions {
        let Limits { soft: soft_time_limit, hard: time_limit } = own;
        TaskOptions { soft_time_limit, time_limit, ..TaskOptions::DEFAULT }
    }

    #[test]
    fn the_nearest_limit_counts() {
        let worker = TimeLimits::new(limits(50, 60));
        let of = |asked, own| worker.of(&call(asked), &task(own));
        assert_eq!(of(limits(0, 0), limits(0, 0)), limits(50, 60));
        assert_eq!(of(limits(0, 0), limits(30, 40)), limits(30, 40));
        assert_eq!(of(limits(10, 20), limits(30, 40)), limits(10, 20));
        assert_eq!(of(limits(0, 20), limits(10, 40)), limits(10, 20), "each by itself");
        worker.set("other", limits(1, 1));
        assert_eq!(of(limits(0, 0), limits(30, 40)), limits(30, 40));
    }

    #[test]
    fn what_is_set_later_replaces_the_tasks_own_and_not_what_a_call_asks_for() {
        let worker = TimeLimits::new(limits(0, 0));
        worker.set("t", limits(5, 6));
        let of = |asked, own| worker.of(&call(asked), &task(own));
        assert_eq!(of(limits(0, 0), limits(30, 40)), limits(5, 6));
        assert_eq!(of(limits(30, 40), limits(30, 40)), limits(5, 6), "sent along by the sender");
        assert_eq!(of(limits(10, 20), limits(30, 40)), limits(10, 20));
        worker.set("t", limits(0, 0));
        assert_eq!(of(limits(0, 0), limits(30, 40)), limits(0, 0), "none any more");
    }

    #[test]
    fn a_soft_limit_that_comes_too_late_is_none() {
        let worker = TimeLimits::new(limits(0, 0));
        let of = |asked| worker.of(&call(asked), &TaskOptions::DEFAULT);
        assert_eq!(of(limits(20, 10)), limits(0, 10));
        assert_eq!(of(limits(10, 10)), limits(0, 10));
        let zero = Limits { soft: Some(Duration::ZERO), hard: Some(Duration::ZERO) };
        assert_eq!(of(zero), limits(0, 0), "zero is no limit");
    }
}
