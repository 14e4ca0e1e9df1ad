//! The delay queues as one program sees them: whether they exist, and which queues they lead to.
//!
//! Declares them when they are needed first, and not again. **Invariant:** nothing is published to
//! them that would not come out again: a queue is bound before anything waits for it. Where the
//! broker does not let us, messages go straight to their queue, and wait in its worker.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{debug, warn};

use crate::amqp::{
    self, Connection, Publish, QueueKind, Topology, WhenUnroutable, layout, topology,
};
use crate::protocol::{Message, delay};

/// Queues that are remembered as bound; with more of them, they are bound again now and then.
const QUEUES_MAX: usize = 10_000;
/// How long the delay queues are left alone after the broker has refused something about them.
const PAUSE: Duration = Duration::from_secs(60);

/// When a message is to arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due {
    /// Not to be run before.
    pub(crate) eta: Option<Timestamp>,
    /// Not to be started after.
    pub(crate) expires: Option<Timestamp>,
}

impl Due {
    /// Whole seconds to wait in the delay queues; `None` to go to its queue at once.
    ///
    /// What expires before it is due arrives when it expires, so that its caller hears of it then.
    pub(crate) fn wait(self, now: Timestamp) -> Option<u32> {
        let eta = self.eta?;
        let due = self.expires.map_or(eta, |expires| expires.min(eta));
        delay::is_far(due, now).then(|| delay::seconds_until(due, now))
    }
}

/// Addresses a message to `queue`, by way of `seconds` in the delay queues.
///
/// A message in a delay queue has no expiration of its own: it would compete with the time of the
/// queue, and the broker would take it off at the first level.
pub(crate) fn delayed(seconds: u32, queue: &str, mut message: Message) -> Publish {
    message.properties.expiration = None;
    let key = delay::routing_key(seconds, queue);
    Publish::new(topology::delay_exchange(delay::first_level(seconds)), key, message)
}

/// Whether a publish goes to the delay queues.
pub(crate) fn is_delayed(publish: &Publish) -> bool {
    topology::is_delay_exchange(&publish.exchange)
}

/// Addresses a delayed publish straight to its queue.
pub(crate) fn straight(publish: &mut Publish) {
    publish.exchange = "".into();
    publish.routing_key = delay::strip(&publish.routing_key).to_owned();
}

/// What is known about the delay queues on one connection.
#[derive(Debug)]
pub(crate) struct Delays {
    connection: Connection,
    kind: QueueKind,
    known: Mutex<Known>,
    /// Held while declaring, so that only one does.
    declaring: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether the delay queues exist.
    declared: bool,
    /// Queues that are bound.
    queues: HashSet<String>,
    /// Until when they count as out of order; in the past, if they were when they were used last.
    broken_until: Option<Instant>,
}

impl Known {
    fn is_broken(&self) -> bool {
        self.broken_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Delays {
    pub(crate) fn new(connection: Connection, kind: QueueKind) -> Self {
        Self { connection, kind, known: Mutex::default(), declaring: tokio::sync::Mutex::default() }
    }

    /// Whether a message for `queue` may be given to the delay queues, as far as is known.
    pub(crate) fn serve(&self, queue: &str) -> bool {
        delay::can_wait_for(queue) && !self.known().is_broken()
    }

    /// Makes sure that a delayed publish comes out at its queue; if it would not, it is addressed
    /// to the queue itself. Does nothing to others.
    pub(crate) async fn prepare(&self, publish: &mut Publish) {
        if !is_delayed(publish) {
            // What was declared otherwise may drop what has expired, and nobody would know.
            if publish.message.properties.expiration.is_some()
                && self.connection.differs(&publish.routing_key)
            {
                publish.message.properties.expiration = None;
            }
            return;
        }
        // A queue that does not exist is reported when the message comes back from there.
        if !self.reach(delay::strip(&publish.routing_key)).await {
            straight(publish);
        }
    }

    /// Declares what is missing, so that delayed messages reach `queue`; false if they cannot.
    pub(crate) async fn reach(&self, queue: &str) -> bool {
        if self.known().queues.contains(queue) {
            return true;
        }
        self.lead_to(queue, false).await
    }

    /// The same, also while they are left alone because of a refusal.
    pub(crate) async fn reach_at_once(&self, queue: &str) -> bool {
        self.lead_to(queue, true).await
    }

    async fn lead_to(&self, queue: &str, although_broken: bool) -> bool {
        if !delay::can_wait_for(queue) {
            return false;
        }
        let _alone = self.declaring.lock().await;
        let declared = {
            let known = self.known();
            if known.queues.contains(queue) {
                return true;
            }
            if known.is_broken() && !although_broken {
                return false;
            }
            known.declared
        };
        if !declared {
            if !self.declare(queue, &layout::delaying(self.kind)).await {
                return false;
            }
            let mut known = self.known();
            (known.declared, known.broken_until) = (true, None);
        }
        if !self.declare(queue, &layout::delayed_for([queue])).await {
            return false;
        }
        let mut known = self.known();
        if known.queues.len() >= QUEUES_MAX {
            known.queues.clear();
        }
        known.queues.insert(queue.to_owned());
        true
    }

    /// For now, because all of it is durable: a reconnect need not declare it again.
    async fn declare(&self, queue: &str, topology: &Topology) -> bool {
        let declared = self.connection.declare_for_now(topology).await;
        declared.inspect_err(|error| self.refused(queue, error)).is_ok()
    }

    fn refused(&self, queue: &str, error: &amqp::Error) {
        let text: &dyn std::error::Error = error;
        if !error.is_refused() || error.is_not_found() {
            // The program ends, or there is no such queue.
            debug!(queue, error = text, "not bound to the delay queues");
            return;
        }
        if self.known().broken_until.is_none() {
            warn!(
                queue,
                error = text,
                "the delay queues cannot be declared: delayed tasks wait in the workers"
            );
        }
        self.pause();
    }

    /// The broker did not take a message for the delay queues: they are left alone for a while.
    pub(crate) fn pause(&self) {
        let mut known = self.known();
        *known = Known { broken_until: Some(Instant::now() + PAUSE), ..Known::default() };
    }

    /// Something that was declared is gone: it is declared again when it is needed next.
    pub(crate) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's own publishes, which have nobody behind them to mend what fails: if the delay
/// queues are gone, they go to the queue of the task.
pub(super) fn or_straight(publish: Publish) -> Publish {
    Publish { when_unroutable: WhenUnroutable::ToQueue, ..publish }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expires_first_waits_until_it_has_expired() {
        let at = |second: f64| Timestamp::from_microsecond((second * 1e6) as i64).unwrap();
        let wait = |eta: Option<f64>, expires: Option<f64>| {
            Due { eta: eta.map(at), expires: expires.map(at) }.wait(at(1000.0))
        };
        assert_eq!(wait(None, None), None);
        assert_eq!(wait(Some(900.0), Some(1100.0)), None);
        assert_eq!(wait(Some(1002.0), None), None, "the worker holds it");
        assert_eq!(wait(Some(1002.5), None), Some(2));
        assert_eq!(wait(Some(1009.9), Some(1010.0)), Some(9));
        assert_eq!(wait(Some(2000.0), Some(1010.5)), Some(10));
        assert_eq!(wait(Some(2000.0), Some(1001.0)), None);
        assert_eq!(wait(Some(2000.0), Some(900.0)), None, "it has expired already");
    }

    #[test]
    fn a_delayed_message_loses_its_expiration_and_finds_its_queue() {
        let mut message = Message::default();
        message.properties.expiration = Some("5000".to_owned());
        let mut publish = delayed(5, "a.b", message);
        assert_eq!(publish.exchange, "celery_delayed_2", "four seconds and one");
        assert!(is_delayed(&publish));
        assert_eq!(publish.message.properties.expiration, None);
        straight(&mut publish);
        assert!(!is_delayed(&publish));
        assert_eq!((&*publish.exchange, &*publish.routing_key), ("", "a.b"));
    }
}
