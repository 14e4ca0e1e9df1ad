//! The reply queue of a client, and who waits for what arrives there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::revoke::Revokes;
use super::slot::Slot;
use crate::amqp::layout;
use crate::amqp::{
    Connection, Consumer, ConsumerHandle, ConsumerOptions, Deliveries, Delivery, Error, Topology,
};
use crate::protocol::{Exception, Limits, ResultMeta};

/// Unacked results that the broker may have under way to us.
const PREFETCH: u32 = 250;

/// The least time from one declaration of what may be missing to the next.
const REPAIR_INTERVAL: Duration = Duration::from_secs(30);

/// How a reply queue is made.
#[derive(Clone, Debug)]
pub(crate) struct InboxOptions {
    /// How long the queue outlives its last consumer.
    pub(crate) expires: Duration,
    /// Bounds for decoding results.
    pub(crate) limits: Limits,
    /// How results revoke their tasks.
    pub(crate) revoker: Option<Arc<dyn Revokes>>,
}

/// The reply queue with the registry of who waits.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: String,
    waiting: Arc<Waiting>,
    connection: Connection,
    reading: Arc<Reading>,
}

/// Keeps the reply queue being read; ends with the inbox and the last registration.
#[derive(Debug)]
struct Reading {
    handle: ConsumerHandle,
    revoker: Option<Arc<dyn Revokes>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        // The reader holds the deliveries, and would keep the connection for ever.
        self.handle.stop();
    }
}

type Slots = HashMap<Arc<str>, Weak<Slot>>;

/// Task ids and the slots of those who wait for them.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Slots>);

impl Inbox {
    /// Declares the reply queue `queue` and reads from it until [`Inbox::close`].
    pub(crate) async fn open(
        connection: Connection,
        queue: String,
        options: InboxOptions,
    ) -> Result<Self, Error> {
        connection.declare(&layout::reply(&queue, options.expires)).await?;
        let consumer = ConsumerOptions::new([layout::reply_spec(&queue, options.expires)])
            .prefetch(PREFETCH)
            .tag_prefix("celeriac-reply");
        let (deliveries, handle) = Consumer::start(&connection, consumer).await?;
        let waiting = Arc::new(Waiting::default());
        let repairs = Repairs {
            topology: layout::reply(&queue, options.expires),
            connection: connection.clone(),
            last: None,
        };
        tokio::spawn(read(deliveries, Arc::clone(&waiting), options.limits, repairs));
        let reading = Arc::new(Reading { handle, revoker: options.revoker });
        Ok(Self { queue, waiting, connection, reading })
    }

    /// The `reply_to` of this client's calls.
    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    /// Waits for reports on `task_id` from now on, for as long as the registration lives.
    pub(crate) fn register(&self, task_id: &Arc<str>) -> Arc<Registration> {
        self.waiting.register(task_id, Some(Arc::clone(&self.reading)))
    }

    /// Stops reading and deletes the reply queue: no result can come any more.
    pub(crate) async fn close(&self) {
        self.reading.handle.close().await;
        if let Err(error) = self.connection.delete_queue(&self.queue).await {
            debug!(queue = self.queue, %error, "reply queue is left to expire");
        }
        self.connection.close().await;
    }
}

impl Waiting {
    fn register(
        self: &Arc<Self>,
        task_id: &Arc<str>,
        reading: Option<Arc<Reading>>,
    ) -> Arc<Registration> {
        let mut slots = self.slots();
        // A second handle for an id, made while the first lives, shares its slot.
        let slot = slots.get(task_id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let slot = Arc::<Slot>::default();
            slots.insert(Arc::clone(task_id), Arc::downgrade(&slot));
            slot
        });
        drop(slots);
        Arc::new(Registration {
            task_id: Arc::clone(task_id),
            slot: Some(slot),
            waiting: Arc::downgrade(self),
            reading,
        })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a burst of reports to those who wait, under one lock.
    fn report(&self, burst: impl Iterator<Item = ResultMeta>) {
        let slots = self.slots();
        for meta in burst {
            match slots.get(meta.task_id.as_str()).and_then(Weak::upgrade) {
                Some(slot) => slot.report(meta),
                None => debug!(task_id = meta.task_id, "result that nobody waits for"),
            }
        }
    }

    fn close(&self) {
        for slot in self.slots().values().filter_map(Weak::upgrade) {
            slot.close();
        }
    }
}

/// Keeps a task id in the inbox; dropping the last one forgets it.
#[derive(Debug)]
pub(crate) struct Registration {
    task_id: Arc<str>,
    /// `None` only while dropping.
    slot: Option<Arc<Slot>>,
    waiting: Weak<Waiting>,
    /// `None` only in tests.
    reading: Option<Arc<Reading>>,
}

impl Registration {
    /// How the task is revoked.
    pub(super) fn revoker(&self) -> Option<&Arc<dyn Revokes>> {
        self.reading.as_ref()?.revoker.as_ref()
    }

    pub(super) fn slot(&self) -> &Slot {
        self.slot.as_ref().expect("the slot is taken only by drop")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let Some(waiting) = self.waiting.upgrade() else { return };
        let mut slots = waiting.slots();
        // Released under the lock, so that nobody shares a slot which is about to be removed.
        self.slot = None;
        if slots.get(&self.task_id).is_some_and(|slot| slot.strong_count() == 0) {
            slots.remove(&self.task_id);
        }
    }
}

/// Reads results until the consumer ends.
async fn read(
    mut deliveries: Deliveries,
    waiting: Arc<Waiting>,
    limits: Limits,
    mut repairs: Repairs,
) {
    let mut burst = Vec::new();
    while deliveries.next_burst(&mut burst).await {
        if burst.iter().any(|delivery| delivery.exchange.is_empty()) {
            repairs.begin();
        }
        let mut tokens = Vec::with_capacity(burst.len());
        let metas = burst.drain(..).filter_map(|delivery| {
            let meta = decode(&delivery, &limits);
            tokens.push(delivery.token);
            meta
        });
        waiting.report(metas);
        // What cannot be read is acked as well: it has one reader, who could not do more with it.
        for token in tokens {
            token.ack();
        }
    }
    waiting.close();
}

/// Puts the exchange of results and its binding back after somebody has deleted them.
struct Repairs {
    topology: Topology,
    connection: Connection,
    /// When the last one began.
    last: Option<Instant>,
}

impl Repairs {
    /// Declares everything again, in the background; not too often, because Python workers send
    /// past the exchange by habit, and workers of ours only if it does not route here.
    fn begin(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() < REPAIR_INTERVAL) {
            return;
        }
        self.last = Some(Instant::now());
        let (connection, topology) = (self.connection.clone(), self.topology.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.declare(&topology).await {
                // Results still come, past the exchange.
                debug!(%error, "failed to declare the reply queue again");
            }
        });
    }
}

fn decode(delivery: &Delivery, limits: &Limits) -> Option<ResultMeta> {
    match ResultMeta::decode(&delivery.message, limits) {
        Ok(meta) => Some(meta),
        Err(error) => {
            let correlation_id = delivery.message.properties.correlation_id.as_deref();
            warn!(correlation_id, error = &error as &dyn std::error::Error, "unreadable result");
            // The caller learns of it: waiting for ever would be worse than a failure.
            correlation_id.map(|task_id| {
                ResultMeta::failure(task_id, Exception::decode_error(error.to_string()))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;

    fn success(task_id: &str, value: i64) -> ResultMeta {
        ResultMeta::success(task_id, Value::Int(value))
    }

    #[test]
    fn a_forgotten_id_leaves_nothing_behind() {
        let waiting = Arc::new(Waiting::default());
        let first = waiting.register(&"a".into(), None);
        let second = waiting.register(&"a".into(), None);
        drop(first);
        assert_eq!(waiting.slots().len(), 1);
        drop(second);
        assert_eq!(waiting.slots().len(), 0);
        waiting.report([success("a", 1)].into_iter());
        assert_eq!(waiting.slots().len(), 0);
    }

    #[test]
    fn the_first_final_report_wins() {
        let waiting = Arc::new(Waiting::default());
        let registration = waiting.register(&"a".into(), None);
        waiting.report([success("a", 1), success("a", 2)].into_iter());
        let known = registration.slot().known();
        assert_eq!(known.latest.as_ref().map(|meta| &meta.result), Some(&Value::Int(1)));
    }

    #[tokio::test]
    async fn closing_wakes_who_waits() {
        let waiting = Arc::new(Waiting::default());
        let registration = waiting.register(&"a".into(), None);
        let wait = registration.slot().wait_for(|known| known.closed.then_some(()));
        waiting.close();
        wait.await;
    }
}
