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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::rate::Ahead;
use crate::amqp::{self, Connection, Publish, PublishError, Publisher, WhenUnknown};
use crate::amqp::{layout, topology};
use crate::protocol::Message;
use crate::task::{RateLimit, Window};

/// How long a worker waits at least, and at most, before it asks again.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Queues that are remembered; with more of them, they are declared again now and then.
const GATES_MAX: usize = 10_000;

/// The starts that one worker takes.
#[derive(Debug)]
pub(super) struct Starts {
    connection: Connection,
    publisher: Publisher,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
}

/// One queue of starts, as this worker knows it.
#[derive(Debug, Default)]
struct Gate {
    /// Held while one is asked for, so that of many calls only one is refused.
    asking: tokio::sync::Mutex<Asking>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Asking {
    declared: Option<Instant>,
    /// Whether the log knows that the broker does not let us.
    is_refused: bool,
}

#[derive(Debug, Default)]
struct Seen {
    /// Until when it is not asked again.
    full_until: Option<Instant>,
    ahead: Ahead,
}

impl Starts {
    /// `publisher` takes the starts, and `connection` declares their queues.
    pub(super) fn new(connection: Connection, publisher: Publisher) -> Self {
        Self { connection, publisher, gates: Mutex::default() }
    }

    /// How long there is surely none for what has the name `limited`, as far as is known.
    pub(super) fn wait(&self, limited: &str, limit: RateLimit) -> Option<Duration> {
        self.gate(&queue(limited, limit.window())).wait(Instant::now())
    }

    /// Takes a start; an error is the time after which to ask again. It is to be used at once.
    pub(super) async fn take(&self, limited: &str, limit: RateLimit) -> Result<(), Duration> {
        let window = limit.window();
        let queue = queue(limited, window);
        let gate = self.gate(&queue);
        let mut asking = gate.asking.lock().await;
        if let Some(wait) = gate.wait(Instant::now()) {
            return Err(wait);
        }
        let taken = self.ask(&queue, window, &mut asking).await;
        match taken {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                let text: &dyn std::error::Error = &error;
                if std::mem::replace(&mut asking.is_refused, true) {
                    debug!(queue, error = text, "starts cannot be taken");
                } else {
                    warn!(queue, error = text, "starts cannot be taken, calls wait");
                }
            }
        }
        let pause = pause(window);
        gate.seen().full_until = Some(Instant::now() + pause);
        Err(pause)
    }

    /// When a call that is not to wait here any more should come back.
    pub(super) fn ahead(&self, limited: &str, limit: RateLimit) -> Duration {
        let gate = self.gate(&queue(limited, limit.window()));
        let interval = limit.interval();
        // No sooner than the delay queues can tell.
        let wait = interval.max(Duration::from_secs(1));
        gate.seen().ahead.next(Instant::now(), wait, interval)
    }

    fn gate(&self, queue: &str) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(queue) {
            return Arc::clone(gate);
        }
        if gates.len() >= GATES_MAX {
            gates.clear();
        }
        Arc::clone(gates.entry(queue.to_owned()).or_default())
    }

    /// Whether the broker gives a start.
    async fn ask(
        &self,
        queue: &str,
        window: Window,
        asking: &mut Asking,
    ) -> Result<bool, AskError> {
        // It counts as used when it is declared, and must outlive what was put in.
        let fresh = layout::starts_lifetime(window.period) / 4;
        if asking.declared.is_none_or(|since| since.elapsed() >= fresh) {
            self.declare(queue, window, asking).await?;
        }
        let mut published = self.publish(queue).await;
        if published.as_ref().is_err_and(PublishError::is_returned) {
            self.declare(queue, window, asking).await?;
            published = self.publish(queue).await;
        }
        match published {
            Ok(()) => {
                asking.is_refused = false;
                Ok(true)
            }
            Err(PublishError::Nacked) => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn declare(
        &self,
        queue: &str,
        window: Window,
        asking: &mut Asking,
    ) -> Result<(), amqp::Error> {
        let now = Instant::now();
        self.connection
            .declare_exactly(&layout::starts(queue, window.count, window.period))
            .await?;
        asking.declared = Some(now);
        Ok(())
    }

    async fn publish(&self, queue: &str) -> Result<(), PublishError> {
        let mut start = Publish::new("", queue, Message::default());
        // Whether it arrived, when that is unknown, does not matter: no call has it.
        start.when_unknown = WhenUnknown::Report;
        self.publisher.publish(start).await
    }
}

impl Gate {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let until = self.seen().full_until?;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

/// Why nobody knows whether there is a start.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Declare(#[from] amqp::Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
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

    #[test]
    fn a_gate_that_is_full_is_left_alone_for_its_time() {
        let (gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.wait(now), None);
        gate.seen().full_until = Some(now + PAUSE_MAX);
        assert_eq!(gate.wait(now), Some(PAUSE_MAX));
        assert_eq!(gate.wait(now + PAUSE_MAX), None);
    }
}
