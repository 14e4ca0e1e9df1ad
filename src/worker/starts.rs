//! Starts: how often calls start in the whole fleet.
//!
//! A start is a message without content in a queue that takes so many of them, refuses more, and
//! drops each after a time. Who gets one in may start. So the broker alone keeps the count: there
//! is nothing to set up, nobody has to give anything back, and a worker that dies with a start has
//! used it. Another limit has another queue, which goes away when nobody has used it for a while.
//!
//! **Invariant:** for each start that was taken there is a message that lives for the whole time;
//! so within that time no more calls get one than the limit allows, unless the broker restarts.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};

use super::rate::Ahead;
use crate::amqp::{self, Connection, Publish, PublishError, Publisher, WhenUnknown};
use crate::amqp::{layout, topology};
use crate::protocol::Message;
use crate::task::{RateLimit, Window};

/// How long a worker waits at least, and at most, before it asks again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Queues that one worker counts with at a time. Each is one in the broker until it expires, so
/// those are remembered for as long; calls that would need another one wait.
const GATES_MAX: usize = 10_000;

/// How often is looked for queues that have expired, and how often the log hears that none have.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
pub(super) const WARN_EVERY: Duration = Duration::from_secs(60);

/// How long is waited for an answer. A start that comes after all is used up for nothing, so a
/// broker that is only slow must not get there.
const ASK_MAX: Duration = Duration::from_secs(10);

/// How many starts of one queue are asked for at a time.
const ASKED_MAX: u32 = 64;

/// The starts that one worker takes.
#[derive(Debug)]
pub(super) struct Starts {
    connection: Connection,
    publisher: Publisher,
    gates: Mutex<Gates>,
}

/// The queues of starts, by name.
#[derive(Debug, Default)]
struct Gates {
    by_queue: HashMap<String, Arc<Gate>>,
    swept: Option<Instant>,
    warned: Option<Instant>,
}

/// One queue of starts, as this worker knows it.
#[derive(Debug)]
pub(super) struct Gate {
    queue: String,
    window: Window,
    interval: Duration,
    /// Who has a slot asks here. Not more than could be given anyway.
    asking: Semaphore,
    /// Held while it is declared.
    declaring: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
    /// Notified when there is no start for a while.
    full: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    declared: Option<Instant>,
    /// Until when it is not asked again.
    full_until: Option<Instant>,
    /// Whether the log knows that the broker does not let us.
    is_refused: bool,
    ahead: Ahead,
}

impl Starts {
    /// `publisher` takes the starts, and `connection` declares their queues.
    pub(super) fn new(connection: Connection, publisher: Publisher) -> Self {
        Self { connection, publisher, gates: Mutex::default() }
    }

    /// Where the starts of what has the name `limited` are counted; `None` if this worker counts
    /// too many already.
    pub(super) fn gate(&self, limited: &str, limit: RateLimit) -> Option<Arc<Gate>> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.get(limited, limit, Instant::now())
    }

    /// Takes a start; an error is the time after which to ask again. It is to be used at once.
    pub(super) async fn take(&self, gate: &Gate) -> Result<(), Duration> {
        gate.take(|| self.ask(gate)).await
    }

    /// Whether the broker gives a start. Who asks keeps a slot, so it does not wait for a broker
    /// that cannot answer.
    async fn ask(&self, gate: &Gate) -> Result<bool, AskError> {
        if !self.connection.state().borrow().is_connected() {
            return Err(AskError::Away);
        }
        let mut declared = gate.declared();
        if !declared.is_some_and(|since| gate.is_fresh(since)) {
            declared = self.declare(gate, declared).await?;
        }
        let mut published = self.publish(&gate.queue).await;
        if published.as_ref().is_err_and(PublishError::is_returned) {
            self.declare(gate, declared).await?;
            published = self.publish(&gate.queue).await;
        }
        match published {
            Ok(()) => {
                gate.seen().is_refused = false;
                Ok(true)
            }
            Err(PublishError::Nacked) => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Declares the queue, unless another one has done so after it was declared `before`. Gives
    /// the time.
    async fn declare(
        &self,
        gate: &Gate,
        before: Option<Instant>,
    ) -> Result<Option<Instant>, amqp::Error> {
        let _declaring = gate.declaring.lock().await;
        let declared = gate.declared();
        if declared != before {
            return Ok(declared);
        }
        let (Window { count, period }, now) = (gate.window, Some(Instant::now()));
        self.connection.declare_exactly(&layout::starts(&gate.queue, count, period)).await?;
        gate.seen().declared = now;
        Ok(now)
    }

    async fn publish(&self, queue: &str) -> Result<(), PublishError> {
        let mut start = Publish::new("", queue, Message::default());
        // Whether it arrived, when that is unknown, does not matter: no call has it.
        start.when_unknown = WhenUnknown::Report;
        self.publisher.publish(start).await
    }
}

impl Gates {
    fn get(&mut self, limited: &str, limit: RateLimit, now: Instant) -> Option<Arc<Gate>> {
        let queue = queue(limited, limit.window());
        if let Some(gate) = self.by_queue.get(&queue) {
            return Some(Arc::clone(gate));
        }
        if self.by_queue.len() >= GATES_MAX {
            self.sweep(now);
        }
        if self.by_queue.len() >= GATES_MAX {
            if is_due(&mut self.warned, WARN_EVERY, now) {
                let max = GATES_MAX;
                warn!(limited, max, "too many keys have starts, calls with others wait");
            }
            return None;
        }
        let gate = Arc::new(Gate::new(queue.clone(), limit));
        self.by_queue.insert(queue, Arc::clone(&gate));
        Some(gate)
    }

    /// Forgets what nobody uses and has no queue any more.
    fn sweep(&mut self, now: Instant) {
        if is_due(&mut self.swept, SWEEP_EVERY, now) {
            let is_used = |gate: &Arc<Gate>| Arc::strong_count(gate) > 1;
            self.by_queue.retain(|_, gate| is_used(gate) || gate.has_queue(now));
        }
    }
}

/// Whether it is time for what was done `last`.
pub(super) fn is_due(last: &mut Option<Instant>, every: Duration, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= every);
    if is_due {
        *last = Some(now);
    }
    is_due
}

impl Gate {
    fn new(queue: String, limit: RateLimit) -> Self {
        let window = limit.window();
        Self {
            queue,
            window,
            interval: limit.interval(),
            asking: Semaphore::new(window.count.clamp(1, ASKED_MAX) as usize),
            declaring: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
            full: Notify::new(),
        }
    }

    /// How long there is surely no start, as far as is known.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let until = self.seen().full_until?;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Completes when there is no start for a while, and says for how long.
    pub(super) async fn filled(&self) -> Duration {
        loop {
            let mut filled = pin!(self.full.notified());
            filled.as_mut().enable();
            if let Some(wait) = self.wait(Instant::now()) {
                return wait;
            }
            filled.await;
        }
    }

    /// When a call that is not to wait here any more should come back.
    pub(super) fn ahead(&self) -> Duration {
        // No sooner than the delay queues can tell.
        let wait = self.interval.max(Duration::from_secs(1));
        self.seen().ahead.next(Instant::now(), wait, self.interval)
    }

    async fn take(
        &self,
        ask: impl AsyncFnOnce() -> Result<bool, AskError>,
    ) -> Result<(), Duration> {
        // It is never closed.
        let _asking = self.asking.acquire().await;
        if let Some(wait) = self.wait(Instant::now()) {
            return Err(wait);
        }
        let asked = tokio::time::timeout(ASK_MAX, ask()).await.unwrap_or(Err(AskError::Silent));
        let pause = match asked {
            Ok(true) => return Ok(()),
            Ok(false) => pause(self.window),
            Err(error) => {
                let (queue, text): (_, &dyn std::error::Error) = (&self.queue, &error);
                if std::mem::replace(&mut self.seen().is_refused, true) {
                    debug!(queue, error = text, "starts cannot be taken");
                } else {
                    warn!(queue, error = text, "starts cannot be taken, calls wait");
                }
                PAUSE_MAX
            }
        };
        self.seen().full_until = Some(Instant::now() + pause);
        self.full.notify_waiters();
        Err(pause)
    }

    fn declared(&self) -> Option<Instant> {
        self.seen().declared
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is put in now lives for its time, though it was declared `since` then: that
    /// counts as a use, and nothing else does.
    fn is_fresh(&self, since: Instant) -> bool {
        since.elapsed() < layout::starts_lifetime(self.window.period) / 4
    }

    /// Whether the broker may have its queue.
    fn has_queue(&self, now: Instant) -> bool {
        let lifetime = layout::starts_lifetime(self.window.period);
        self.declared().is_some_and(|since| now.saturating_duration_since(since) < lifetime)
    }
}

/// Why nobody knows whether there is a start.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Declare(#[from] amqp::Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the client's connection is lost, or blocked by the broker")]
    Away,
    #[error("the broker has not answered within {ASK_MAX:?}")]
    Silent,
}

fn queue(limited: &str, Window { count, period }: Window) -> String {
    topology::starts_queue(limited, count, period)
}

/// Often enough that not much of the rate is lost.
fn pause(Window { count, period }: Window) -> Duration {
    (period / count.saturating_mul(2).max(1)).clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_as_often_as_starts_come_back() {
        let of = |text: &str| pause(RateLimit::parse(text).unwrap().unwrap().window());
        assert_eq!(of("10/s"), Duration::from_millis(50));
        assert_eq!(of("10000/s"), PAUSE_MIN);
        assert_eq!(of("1/h"), PAUSE_MAX);
    }

    #[test]
    fn the_queue_of_a_limit_is_its_own() {
        let of = |text: &str| queue("shop.mail", RateLimit::parse(text).unwrap().unwrap().window());
        assert_eq!(of("10/s"), "celeriac.starts.shop.mail.10.1000");
        assert_eq!(of("100/m"), "celeriac.starts.shop.mail.2.1200");
        assert_ne!(of("10/s"), of("11/s"));
    }

    fn gate(text: &str) -> Gate {
        Gate::new("starts".to_owned(), RateLimit::parse(text).unwrap().unwrap())
    }

    #[test]
    fn a_gate_that_is_full_is_left_alone_for_its_time() {
        let (gate, now) = (gate("1/h"), Instant::now());
        assert_eq!(gate.wait(now), None);
        gate.seen().full_until = Some(now + PAUSE_MAX);
        assert_eq!(gate.wait(now), Some(PAUSE_MAX));
        assert_eq!(gate.wait(now + PAUSE_MAX), None);
    }

    /// Each has a slot, and would keep it for as many round trips as there are before it.
    #[tokio::test]
    async fn starts_are_asked_for_side_by_side() {
        let (gate, all) = (gate("1000/s"), tokio::sync::Barrier::new(8));
        let ask = async || {
            all.wait().await;
            Ok(true)
        };
        let taken = futures::future::join_all((0..8).map(|_| gate.take(ask)));
        let taken = tokio::time::timeout(Duration::from_secs(120), taken).await.unwrap();
        assert!(taken.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn of_many_who_ask_few_are_refused_and_the_others_are_told() {
        let (gate, asked) = (gate("2/s"), std::cell::Cell::new(0));
        let ask = async || {
            asked.set(asked.get() + 1);
            tokio::task::yield_now().await;
            Ok(false)
        };
        let (taken, waits) = futures::join!(
            futures::future::join_all((0..100).map(|_| gate.take(ask))),
            gate.filled(),
        );
        assert!(taken.iter().all(Result::is_err) && !waits.is_zero());
        assert_eq!(asked.get(), 2, "as many as could have been given");
    }

    #[test]
    fn the_log_is_told_at_once_and_then_once_in_a_while() {
        let (mut last, now) = (None, Instant::now());
        let mut told = |after| is_due(&mut last, WARN_EVERY, now + after);
        assert!(told(Duration::ZERO));
        assert!(!told(WARN_EVERY / 2));
        assert!(told(WARN_EVERY));
        assert!(!told(WARN_EVERY));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_answer_is_not_waited_for_without_end() {
        let gate = gate("100/s");
        let silent = async || std::future::pending().await;
        assert_eq!(gate.take(silent).await, Err(PAUSE_MAX));
        assert!(gate.seen().full_until.is_some(), "others do not ask at once");
        gate.seen().full_until = None;
        assert_eq!(gate.take(async || Err(AskError::Away)).await, Err(PAUSE_MAX));
        gate.seen().full_until = None;
        assert_eq!(gate.take(async || Ok(true)).await, Ok(()));
    }

    #[test]
    fn there_are_so_many_queues_of_a_worker_and_no_more() {
        let hourly = RateLimit::parse("1/h").unwrap().unwrap();
        let (mut gates, begin) = (Gates::default(), Instant::now());
        for key in 0..GATES_MAX {
            let gate = gates.get(&format!("key:{key}"), hourly, begin).unwrap();
            gate.seen().declared = Some(begin);
        }
        assert!(gates.get("key:one more", hourly, begin).is_none());
        assert!(gates.get("key:7", hourly, begin).is_some(), "what is counted goes on");
        let held = gates.get("key:8", hourly, begin).unwrap();
        let later = begin + layout::starts_lifetime(hourly.window().period);
        assert!(gates.get("key:one more", hourly, later).is_some(), "the others have expired");
        assert_eq!(gates.by_queue.len(), 2, "but for what is in use");
        drop(held);
    }
}
