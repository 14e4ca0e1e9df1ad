//! Notices async tasks that keep their thread: those that do not await for long.
//!
//! Such a task cannot be stopped, and holds up all others of its thread. Every poll of a task is
//! noted in a place of its thread, at the cost of two stores; a thread of the watchdog's own looks
//! at these places once a second, since the runtime may be what is stuck.
//!
//! **Invariant:** a task is reported once for each poll that takes too long.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tracing::{debug, warn};

use super::active::Active;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A poll that was seen in so many looks running takes too long.
const LOOKS_MAX: u32 = 5;

/// Small, since it does nothing but look and log.
const STACK_BYTES: usize = 256 << 10;

/// What one thread polls.
#[derive(Debug, Default)]
struct Place {
    /// The number of the job; 0 is none.
    job: AtomicU64,
    /// Counts the polls.
    polls: AtomicU64,
}

/// The places of all threads of the process; those of threads that have ended are forgotten.
static PLACES: Mutex<Vec<Weak<Place>>> = Mutex::new(Vec::new());

thread_local! {
    static PLACE: OnceCell<Arc<Place>> = const { OnceCell::new() };
}

fn places() -> MutexGuard<'static, Vec<Weak<Place>>> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register() -> Arc<Place> {
    let place = Arc::new(Place::default());
    let mut places = places();
    places.retain(|place| place.strong_count() > 0);
    places.push(Arc::downgrade(&place));
    place
}

/// Notes that this thread polls a job, until it is dropped.
#[derive(Debug)]
pub(super) struct Polling;

/// Begins to poll the job of this number.
pub(super) fn polling(job: u64) -> Polling {
    PLACE.with(|place| {
        let Place { job: polled, polls } = &**place.get_or_init(register);
        polls.store(polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        polled.store(job, Ordering::Release);
    });
    Polling
}

impl Drop for Polling {
    fn drop(&mut self) {
        // A thread that ends has no place left.
        let _ = PLACE.try_with(|place| {
            if let Some(place) = place.get() {
                place.job.store(0, Ordering::Release);
            }
        });
    }
}

/// Watches the jobs of one worker for as long as `alive` is.
pub(super) fn watch<T: Send + Sync + 'static>(active: Active, alive: Weak<T>) {
    let watching = move || {
        let mut looks = Looks::default();
        while alive.strong_count() > 0 {
            looks.look(|job| report(&active, job));
            std::thread::sleep(LOOK_INTERVAL);
        }
    };
    let builder = std::thread::Builder::new().name("watchdog".into()).stack_size(STACK_BYTES);
    // Without it, a worker works as well.
    if let Err(error) = builder.spawn(watching) {
        debug!(%error, "no thread to look after tasks that never await");
    }
}

/// Whether the job is of this worker, and was reported.
fn report(active: &Active, job: u64) -> bool {
    let Some(request) = active.numbered(job) else { return false };
    let seconds = LOOK_INTERVAL.as_secs() * u64::from(LOOKS_MAX);
    let (id, name) = (request.id.as_str(), request.task.as_str());
    warn!(
        task_id = id,
        task_name = name,
        "Task {name}[{id}] has kept its thread for {seconds}s without awaiting: other tasks wait, \
         and no time limit can stop it; make it a plain fn, which runs on a thread of its own"
    );
    true
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Looks(Vec<Seen>);

#[derive(Debug)]
struct Seen {
    place: Weak<Place>,
    polls: u64,
    looks: u32,
}

impl Looks {
    /// Looks once, and calls `report` for each poll that has come to take too long.
    fn look(&mut self, report: impl Fn(u64) -> bool) {
        self.0.retain(|seen| seen.place.strong_count() > 0);
        let known = std::mem::take(&mut *places());
        for place in &known {
            if !self.0.iter().any(|seen| seen.place.ptr_eq(place)) {
                self.0.push(Seen { place: place.clone(), polls: 0, looks: 0 });
            }
        }
        places().extend(known);
        for seen in &mut self.0 {
            let Some(place) = seen.place.upgrade() else { continue };
            let (job, polls) =
                (place.job.load(Ordering::Acquire), place.polls.load(Ordering::Relaxed));
            if job == 0 || polls != seen.polls {
                (seen.polls, seen.looks) = (polls, 0);
            }
            seen.looks = seen.looks.saturating_add(u32::from(job != 0));
            // The first look finds it, and so many intervals have passed after as many more.
            if seen.looks == LOOKS_MAX + 1 {
                report(job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A number that no other test has.
    const JOB: u64 = u64::MAX - 7;

    fn looks(looks: &mut Looks, count: u32) -> usize {
        let reported = RefCell::new(0);
        for _ in 0..count {
            looks.look(|job| {
                *reported.borrow_mut() += usize::from(job == JOB);
                true
            });
        }
        reported.into_inner()
    }

    #[test]
    fn a_poll_that_does_not_end_is_reported_once() {
        let mut seen = Looks::default();
        let polling = polling(JOB);
        assert_eq!(looks(&mut seen, LOOKS_MAX), 0);
        assert_eq!(looks(&mut seen, 100), 1);
        drop(polling);
        assert_eq!(looks(&mut seen, 100), 0);
    }

    #[test]
    fn many_short_polls_are_none_that_is_long() {
        let mut seen = Looks::default();
        for _ in 0..100 {
            let _polling = polling(JOB - 1);
            seen.look(|job| {
                assert_ne!(job, JOB - 1);
                true
            });
        }
    }
}
