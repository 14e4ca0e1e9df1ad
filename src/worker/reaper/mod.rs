//! Reaps what the broker has dead-lettered: tells the caller and the chord, calls errbacks, and
//! parks the message where people look.
//!
//! Every worker consumes the queue of dead letters, on a channel of its own and a few at a time,
//! so that no task waits for it. What follows from a dead letter is planned and settled like the
//! end of a task (`plan`, `settle`); which end it was is found by `letter.rs`.
//!
//! **Invariants:** a dead letter is acked after all that follows from it was confirmed. Nothing
//! loops: one that cannot be reaped after some attempts is parked as it is, and one that cannot
//! even be parked is moved on by the broker.

mod letter;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::error;

use super::errback;
use super::guard;
use super::running::Crew;
use super::settle;
use super::unsettled::Finished;
use crate::amqp::{
    self, Connection, Consumer, ConsumerHandle, ConsumerOptions, Deliveries, layout,
};
use crate::backoff::Backoff;

/// Dead letters that are reaped at the same time.
const PREFETCH: u32 = 16;

/// The delay before a reaper that has failed is started anew.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(30), jitter: true };

/// The reaper of a worker. Dropping it ends it at once; what is not settled goes back.
#[derive(Debug)]
pub(super) struct Reaper {
    handle: ConsumerHandle,
    reaping: JoinHandle<()>,
}

impl Reaper {
    /// Begins to reap.
    pub(super) async fn start(
        connection: &Connection,
        crew: &Arc<Crew>,
    ) -> Result<Self, amqp::Error> {
        guard::install();
        let queue = layout::dead_letter_queue();
        let options = ConsumerOptions::new([queue])
            .prefetch(PREFETCH)
            .tag_prefix(format!("{}.reaper", crew.info.hostname));
        let (deliveries, handle) = Consumer::start(connection, options).await?;
        let reaping = tokio::spawn(run(deliveries, Arc::clone(crew)));
        Ok(Self { handle, reaping })
    }

    /// Finishes what is being reaped, and gives back the rest.
    pub(super) async fn stop(mut self) {
        self.handle.cancel().await;
        // A reaper that has failed has said so.
        let _ = (&mut self.reaping).await;
        self.handle.close().await;
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.reaping.abort();
    }
}

/// Reaps until the consumer ends, whatever a dead letter brings with it.
async fn run(mut deliveries: Deliveries, crew: Arc<Crew>) {
    let mut failures: u32 = 0;
    loop {
        let (finished, settling) = mpsc::channel(PREFETCH as usize);
        let mut settling = JoinSet::from_iter([settle::run(settling, Arc::clone(&crew))]);
        let ended = tokio::select! {
            () = reap(&mut deliveries, finished, &crew) => settling.join_next().await,
            ended = settling.join_next() => ended,
        };
        // What it held has gone back, and was counted.
        let Some(Err(failed)) = ended else { return };
        error!(error = %failed, "the reaper of dead letters has failed, it is started anew");
        tokio::time::sleep(RETRY.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Reads dead letters and hands them to the settling, until the consumer ends.
async fn reap(deliveries: &mut Deliveries, finished: mpsc::Sender<Finished>, crew: &Arc<Crew>) {
    let mut burst = Vec::new();
    let mut calling = JoinSet::new();
    while deliveries.next_burst(&mut burst).await {
        for delivery in burst.drain(..) {
            let Ok(mut dead) = guard::catch(|| letter::read(delivery, crew)) else {
                error!("a dead letter cannot be read, it goes back");
                continue;
            };
            let failure = dead.ending.failure();
            let errbacks = match failure {
                Some(_) => errback::take(&mut dead.unsettled, &crew.registry),
                None => Vec::new(),
            };
            let (Some(failure), false) = (failure, errbacks.is_empty()) else {
                let _ = finished.send(*dead).await;
                continue;
            };
            // They take their time; the prefetch bounds how many there are.
            let (finished, crew) = (finished.clone(), Arc::clone(crew));
            calling.spawn(async move {
                let request = &dead.unsettled.request;
                errback::call(errbacks, request, failure, &crew, &mut None).await;
                let _ = finished.send(*dead).await;
            });
        }
        while calling.try_join_next().is_some() {}
    }
    while calling.join_next().await.is_some() {}
}
