//! Slots that follow the load: more as soon as all are taken, fewer when some were free for long.
//!
//! [`Scale`] decides and is pure; the loop beside it looks at the slots once a second. The prefetch
//! is that of the most slots from the start, and changes with the bounds only: a channel takes a
//! change when all that it holds is settled, and a long task would keep it from growing.
//! **Invariant:** the slots stay between the bounds, and what runs is never
//! disturbed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

use super::lost_threads::LostThreads;
use super::prefetch::Prefetch;
use super::running::Crew;
use crate::amqp::ConsumerHandle;

/// How often the load is looked at; as often as Celery does.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long slots stay that nobody needs; Celery's `AUTOSCALE_KEEPALIVE`.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The bounds of a worker's slots of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) max: usize,
    pub(super) min: usize,
}

impl Bounds {
    /// `None` if the least is more than the most. There is always one slot.
    pub(super) fn new(max: usize, min: usize) -> Option<Self> {
        (min <= max && max > 0).then(|| Self { max, min: min.max(1) })
    }

    /// The most slots.
    pub(super) fn max(self) -> usize {
        self.max
    }

    /// The fewest slots.
    pub(super) fn min(self) -> usize {
        self.min
    }
}

/// The bounds that hold now; `None` while slots stay as they are.
#[derive(Debug, Default)]
pub(super) struct Autoscale(Mutex<Option<Bounds>>);

impl Autoscale {
    pub(super) fn new(bounds: Option<Bounds>) -> Self {
        Self(Mutex::new(bounds))
    }

    pub(super) fn bounds(&self) -> Option<Bounds> {
        *self.lock()
    }

    /// Other bounds from now on, if slots follow the load at all; tells whether they do.
    pub(super) fn set(&self, bounds: Bounds) -> bool {
        let mut held = self.lock();
        let is_enabled = held.is_some();
        *held = held.map(|_| bounds);
        is_enabled
    }

    fn lock(&self) -> MutexGuard<'_, Option<Bounds>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the load until the worker stops, if the slots are to change.
    pub(super) fn start(crew: &Arc<Crew>, consumer: ConsumerHandle) {
        if crew.autoscale.bounds().is_none() {
            return;
        }
        let crew = Arc::clone(crew);
        tokio::spawn(async move {
            let warm = crew.stop.warm.clone();
            let mut scales = [Scale::new(Instant::now()), Scale::new(Instant::now())];
            let mut max = crew.autoscale.bounds().map_or(0, Bounds::max);
            while warm.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
                let Some(bounds) = crew.autoscale.bounds() else { break };
                follow(&crew, bounds, &mut scales);
                if bounds.max != max {
                    max = bounds.max;
                    let blocking = of_threads(bounds, &crew.lost_threads).max;
                    let slots = max.saturating_add(blocking);
                    Prefetch::of(&crew, slots).apply(&crew, &consumer).await;
                }
            }
        });
    }
}

fn follow(crew: &Crew, bounds: Bounds, scales: &mut [Scale; 2]) {
    let blocking = of_threads(bounds, &crew.lost_threads);
    let kinds = [("async", &crew.slots, bounds), ("blocking", &crew.blocking_slots, blocking)];
    for (scale, (kind, slots, bounds)) in scales.iter_mut().zip(kinds) {
        let (current, busy) = (slots.current(), slots.busy());
        if let Some(wanted) = scale.judge(bounds, current, busy, Instant::now()) {
            let now = slots.set(wanted);
            info!(kind, busy, from = current, to = now, "autoscale: the slots follow the load");
        }
    }
}

/// The bounds of the slots that need threads: a process has threads for as many as it was started
/// for, and for those that replace lost ones.
fn of_threads(bounds: Bounds, threads: &LostThreads) -> Bounds {
    let slots = threads.slots();
    Bounds { max: bounds.max.min(slots), min: bounds.min.min(slots) }
}

/// What was seen of the slots of one kind.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Since when fewer than all were taken.
    since: Instant,
    /// How many were taken at most since then.
    peak: usize,
}

impl Scale {
    fn new(now: Instant) -> Self {
        Self { since: now, peak: 0 }
    }

    /// The number that there is to be, if it is another one. Doubles while all slots are taken,
    /// because nobody can see how many jobs wait at the broker.
    fn judge(&mut self, bounds: Bounds, slots: usize, busy: usize, now: Instant) -> Option<usize> {
        self.peak = self.peak.max(busy);
        let wanted = if busy >= slots {
            *self = Self::new(now);
            slots.saturating_mul(2)
        } else if now.saturating_duration_since(self.since) >= KEEPALIVE {
            let peak = self.peak;
            *self = Self::new(now);
            peak.min(slots)
        } else {
            slots
        };
        let wanted = wanted.clamp(bounds.min, bounds.max);
        (wanted != slots).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bounds_are_the_right_way_round() {
        assert_eq!(Bounds::new(2, 3), None);
        assert_eq!(Bounds::new(0, 0), None);
        assert_eq!(Bounds::new(3, 0), Bounds::new(3, 1));
    }

    #[test]
    fn it_grows_at_once_and_shrinks_to_what_was_needed_in_half_a_minute() {
        let bounds = Bounds::new(10, 2).unwrap();
        let start = Instant::now();
        let mut scale = Scale::new(start);
        let mut judge =
            |slots, busy, seconds| scale.judge(bounds, slots, busy, start + SECOND * seconds);
        assert_eq!(judge(2, 1, 1), None);
        assert_eq!(judge(2, 2, 2), Some(4));
        assert_eq!(judge(4, 4, 3), Some(8));
        assert_eq!(judge(8, 8, 4), Some(10));
        assert_eq!(judge(10, 10, 5), None, "that is the most");
        assert_eq!(judge(10, 5, 20), None);
        assert_eq!(judge(10, 3, 34), None);
        assert_eq!(judge(10, 0, 35), Some(5), "so many were needed at once");
        assert_eq!(judge(5, 0, 64), None);
        assert_eq!(judge(5, 0, 65), Some(2));
        assert_eq!(judge(2, 0, 1000), None, "that is the least");
    }

    #[test]
    fn bounds_change_only_where_there_are_some() {
        let (before, after) = (Bounds::new(10, 2), Bounds::new(5, 1));
        let enabled = Autoscale::new(before);
        assert!(enabled.set(after.unwrap()));
        assert_eq!(enabled.bounds(), after);
        let disabled = Autoscale::default();
        assert!(!disabled.set(after.unwrap()));
        assert_eq!(disabled.bounds(), None);
    }

    #[test]
    fn blocking_slots_do_not_outgrow_the_threads_of_the_process() {
        let threads = LostThreads::new(10);
        let of = |max, min| of_threads(Bounds::new(max, min).unwrap(), &threads);
        assert_eq!(of(8, 2), Bounds { max: 8, min: 2 });
        assert_eq!(of(1000, 2), Bounds { max: 10, min: 2 });
        assert_eq!(of(1000, 100), Bounds { max: 10, min: 10 });
    }

    #[test]
    fn slots_outside_the_bounds_come_back_into_them() {
        let (bounds, now) = (Bounds::new(10, 2).unwrap(), Instant::now());
        assert_eq!(Scale::new(now).judge(bounds, 40, 3, now), Some(10));
        assert_eq!(Scale::new(now).judge(bounds, 1, 0, now), Some(2));
    }

    proptest! {
        #[test]
        fn any_load_is_followed_within_the_bounds(
            loads in proptest::collection::vec((0_usize..50, 0_u32..60), 1..60),
        ) {
            let (bounds, mut now) = (Bounds::new(20, 3).unwrap(), Instant::now());
            let (mut scale, mut slots) = (Scale::new(now), 3);
            for (load, seconds) in loads {
                now += SECOND * seconds;
                slots = scale.judge(bounds, slots, load.min(slots), now).unwrap_or(slots);
                prop_assert!((3..=20).contains(&slots));
            }
        }
    }
}
