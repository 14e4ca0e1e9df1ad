//! Binds the worker's queues to the delay queues, and goes on trying until they are bound.
//!
//! Python programs send what is delayed to the delay queues and bind nothing: without the worker
//! it would wait there for ever. One task of each worker does this, in the background, because it
//! is many declarations for the first queue. What is bound, the consuming connection binds again
//! after each loss, and when the queue was deleted.
//!
//! **Invariant:** a queue that is consumed is bound, or will be tried again; only a name that the
//! delay queues cannot lead to is left alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::debug;

use super::running::Crew;
use crate::amqp::{ConsumerHandle, layout};
use crate::backoff::Backoff;
use crate::protocol::delay;

/// The time before another try. Long in the end: where the broker never allows it, each try costs
/// it a refusal for each level.
const AGAIN: Backoff =
    Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(600), jitter: true };

/// Says which queues are to be bound.
#[derive(Clone, Debug)]
pub(super) struct Binder(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Queues that are not bound yet.
    wanted: Mutex<BTreeSet<String>>,
    wake: Notify,
}

impl Binder {
    /// Begins with the queues of the worker; goes on until it stops.
    pub(super) fn start(crew: &Arc<Crew>, consumer: &ConsumerHandle) -> Self {
        let this = Self(Arc::default());
        this.0.lock().extend(crew.info.queues.iter().cloned());
        let (shared, crew, consumer) = (Arc::clone(&this.0), Arc::clone(crew), consumer.clone());
        let stop = crew.stop.clone();
        let binding = async move { shared.keep_binding(&crew, &consumer).await };
        tokio::spawn(async move { stop.warm.run_until_cancelled(binding).await });
        this
    }

    /// Binds one queue more, which is consumed already.
    pub(super) fn bind(&self, queue: &str) {
        self.0.lock().insert(queue.to_owned());
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_binding(&self, crew: &Crew, consumer: &ConsumerHandle) {
        let mut failures = 0;
        loop {
            // What is asked for while these are bound is looked at again.
            let wanted = std::mem::take(&mut *self.lock());
            let mut failed = Vec::new();
            for queue in wanted {
                if !bind(&queue, crew, consumer).await {
                    failed.push(queue);
                }
            }
            let pause = (!failed.is_empty()).then(|| AGAIN.delay(failures));
            self.lock().extend(failed);
            tokio::select! {
                () = self.wake.notified() => failures = 0,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    failures = failures.saturating_add(1);
                }
            }
        }
    }
}

/// Binds one queue; false if it is to be tried again.
async fn bind(queue: &str, crew: &Crew, consumer: &ConsumerHandle) -> bool {
    if !delay::can_wait_for(queue) || !consumer.consumes(queue) {
        return true;
    }
    if !crew.client.delays().reach_at_once(queue).await {
        debug!(queue, "not bound to the delay queues, it is tried again");
        return false;
    }
    match consumer.declare_with(queue, &layout::delayed_for([queue])).await {
        Ok(_) => true,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            debug!(queue, error, "not bound to the delay queues, it is tried again");
            false
        }
    }
}
