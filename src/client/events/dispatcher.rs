//! Sending events: a bounded queue, and one task that empties it in bursts.
//!
//! **Invariant:** whoever tells something never waits: what the broker does not take in time is
//! dropped, counted, and told once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::writer::{Happening, Writer};
use crate::amqp::{Connection, Emitter, Publish, PublishError, layout};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::protocol::Error;
use crate::protocol::event::EventKind;

/// Events that wait to be sent; later ones are dropped.
const QUEUE_MAX: usize = 4096;

/// Events that are taken from the queue at once.
const BURST_MAX: usize = 256;

/// Until the channel is opened again after a failure.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30), jitter: true };

/// Failures that are further apart have nothing to do with each other.
const LATELY: Duration = Duration::from_secs(120);

/// What is left in the queue is sent within this time once the sender stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Sends the events of one program. Dropping it sends what is left, for a while.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    queue: mpsc::Sender<Happening>,
    clock: Arc<Clock>,
    counts: Arc<Counts>,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// What has become of the events so far.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Dispatcher {
    /// Tells in the name of `hostname`, through the exchange `exchange`.
    pub(crate) fn start(
        connection: Connection,
        exchange: &str,
        hostname: &str,
        clock: Arc<Clock>,
    ) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let counts = Arc::<Counts>::default();
        let sending = Sending {
            inbox,
            emitter: Emitter::new(connection, layout::telling(exchange)),
            writer: Writer { exchange: exchange.to_owned(), hostname: hostname.to_owned() },
            counts: Arc::clone(&counts),
            stop: stop.clone(),
            failures: 0,
            failed: None,
        };
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            sending.run().await;
            drop(guard);
        });
        Self { queue, clock, counts, stop, ended }
    }

    /// Tells that something has happened just now.
    pub(crate) fn send(&self, kind: EventKind) {
        let timestamp = Timestamp::now().as_microsecond() as f64 / 1e6;
        let happening = Happening { clock: self.clock.tick(), timestamp, kind };
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(happening)
            && self.counts.dropped.fetch_add(1, Ordering::Relaxed) == 0
        {
            warn!("events are dropped: there are more of them than the broker takes");
        }
    }

    /// How many events were sent, and how many were dropped.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.counts.sent), count(&self.counts.dropped))
    }

    /// Sends what was told so far, as far as that takes no long time.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Sending {
    inbox: mpsc::Receiver<Happening>,
    emitter: Emitter,
    writer: Writer,
    counts: Arc<Counts>,
    stop: CancellationToken,
    /// How often sending has failed lately.
    failures: u32,
    /// When that was last. A failure may show only after a message that seemed to be sent.
    failed: Option<Instant>,
}

impl Sending {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let farewell = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            () = self.send_all() => {}
            () = farewell => debug!("events that could not be sent in time are dropped"),
        }
    }

    async fn send_all(&mut self) {
        let mut burst = Vec::with_capacity(BURST_MAX);
        let mut is_open = true;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if is_open => {
                    is_open = false;
                    self.inbox.close();
                }
                taken = self.inbox.recv_many(&mut burst, BURST_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    for (publish, count) in self.writer.messages(burst.drain(..)) {
                        if !self.emit(publish, count).await {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Publishes one message with `count` events; false when there will be no connection any more.
    async fn emit(&mut self, publish: Result<Publish, Error>, count: u64) -> bool {
        let failed = match publish {
            Ok(publish) => self.emitter.emit(&publish).await,
            Err(error) => {
                debug!(%error, "an event cannot be written");
                self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                return true;
            }
        };
        let Err(failed) = failed else {
            self.counts.sent.fetch_add(count, Ordering::Relaxed);
            return true;
        };
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        let PublishError::Failed(error) = &failed else {
            debug!(%failed, "an event cannot be sent");
            return true;
        };
        if error.is_permanent() {
            return false;
        }
        if self.failed.replace(Instant::now()).is_none_or(|last| last.elapsed() > LATELY) {
            self.failures = 0;
        }
        if self.failures == 0 && !error.is_connection() {
            let exchange = &*self.writer.exchange;
            warn!(%error, exchange, "events cannot be sent, and are dropped");
        }
        let pause = RETRY.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        // A connection that is gone is waited for by who emits next.
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let (queue, mut inbox) = mpsc::channel(2);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (clock, counts) = (Arc::default(), Arc::default());
        let dispatcher = Dispatcher { queue, clock, counts, stop, ended };
        for number in 0..5 {
            dispatcher.send(EventKind::TaskStarted { uuid: number.to_string() });
        }
        assert_eq!(dispatcher.counts(), (0, 3));
        let kept = inbox.try_recv().unwrap();
        assert_eq!(kept.kind, EventKind::TaskStarted { uuid: "0".to_owned() });
        assert!(kept.clock == 1 && kept.timestamp > 1e9);
        dispatcher.send(EventKind::TaskStarted { uuid: "later".to_owned() });
        assert_eq!(dispatcher.counts(), (0, 3), "there is room again");
        assert_eq!(inbox.try_recv().unwrap().clock, 2);
        assert_eq!(inbox.try_recv().unwrap().clock, 6, "what was dropped has had its time");
    }
}
