//! Sending events: a bounded queue, and one task that empties it in bursts.
//!
//! **Invariant:** whoever tells something never waits: what the broker does not take in time is
//! dropped, counted, and told once a minute. What waits is bounded in number and in bytes, and
//! events of tasks do not take the places of those that tell that a worker is there.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::writer::{Happening, TEXT_MAX, Writer};
use crate::amqp::{Connection, Emitter, Publish, PublishError, layout};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::protocol::Error;
use crate::protocol::event::EventKind;

/// Events that wait to be sent; later ones are dropped.
const QUEUE_MAX: usize = 4096;

/// Places among them that events of tasks do not take: a worker of which nobody hears for a few
/// seconds is dead to monitors.
const KEPT_FREE: usize = 64;

/// How long the texts of events are together that wait or are being sent, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// Events that are taken from the queue at once.
const BURST_MAX: usize = 256;

/// Until the channel is opened again after a failure.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30), jitter: true };

/// Failures that are further apart have nothing to do with each other.
const LATELY: Duration = Duration::from_secs(120);

/// The log says at most so often that events are dropped.
const WARNING_EVERY: Duration = Duration::from_secs(60);

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
    /// The bytes of those that wait or are being sent.
    bytes: AtomicUsize,
    /// When it was last told that some are dropped.
    warned: Mutex<Option<Instant>>,
}

impl Counts {
    /// Counts one that is dropped; whether that is to be told.
    fn drop_one(&self, now: Instant) -> bool {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = warned.is_none_or(|last| now.duration_since(last) >= WARNING_EVERY);
        if is_due {
            *warned = Some(now);
        }
        is_due
    }
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
    pub(crate) fn send(&self, mut kind: EventKind) {
        let timestamp = Timestamp::now().as_microsecond() as f64 / 1e6;
        let (clock, size) = (self.clock.tick(), kind.shorten(TEXT_MAX));
        let is_sent = self.has_room(&kind, size) && {
            // Before it can be taken, so that the sum never falls below what waits.
            self.counts.bytes.fetch_add(size, Ordering::Relaxed);
            match self.queue.try_send(Happening { clock, timestamp, size, kind }) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.counts.bytes.fetch_sub(size, Ordering::Relaxed);
                    false
                }
            }
        };
        if !is_sent && self.counts.drop_one(Instant::now()) {
            let (_, dropped) = self.counts();
            warn!(dropped, "events are dropped: there are more of them than the broker takes");
        }
    }

    /// Whether the event may wait. Those of workers are few and small.
    fn has_room(&self, kind: &EventKind, size: usize) -> bool {
        if kind.is_of_worker() {
            return true;
        }
        let bytes = self.counts.bytes.load(Ordering::Relaxed);
        self.queue.capacity() > KEPT_FREE && bytes.saturating_add(size) <= BYTES_MAX
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
                    let bytes = burst.iter().map(|it: &Happening| it.size).sum();
                    for (publish, count) in self.writer.messages(burst.drain(..)) {
                        if !self.emit(publish, count).await {
                            return;
                        }
                    }
                    self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
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
    use crate::protocol::Map;

    fn dispatcher(places: usize) -> (Dispatcher, mpsc::Receiver<Happening>) {
        let (queue, inbox) = mpsc::channel(places);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (clock, counts) = (Arc::default(), Arc::default());
        (Dispatcher { queue, clock, counts, stop, ended }, inbox)
    }

    fn started(uuid: &str) -> EventKind {
        EventKind::TaskStarted { uuid: uuid.to_owned() }
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let (dispatcher, mut inbox) = dispatcher(KEPT_FREE + 2);
        for number in 0..5 {
            dispatcher.send(started(&number.to_string()));
        }
        assert_eq!(dispatcher.counts(), (0, 3));
        let kept = inbox.try_recv().unwrap();
        assert_eq!(kept.kind, started("0"));
        assert!(kept.clock == 1 && kept.timestamp > 1e9);
        dispatcher.send(started("later"));
        assert_eq!(dispatcher.counts(), (0, 3), "there is room again");
        assert_eq!(inbox.try_recv().unwrap().clock, 2);
        assert_eq!(inbox.try_recv().unwrap().clock, 6, "what was dropped has had its time");
    }

    #[test]
    fn it_is_told_once_a_minute_that_events_are_dropped() {
        let (counts, start) = (Counts::default(), Instant::now());
        let told: Vec<u64> = (0..200)
            .filter(|second| counts.drop_one(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(told, [0, 60, 120, 180]);
    }

    #[test]
    fn heartbeats_have_places_that_tasks_do_not_take() {
        let (dispatcher, mut inbox) = dispatcher(KEPT_FREE + 2);
        for _ in 0..KEPT_FREE + 2 {
            dispatcher.send(started("1"));
        }
        let dropped = KEPT_FREE as u64;
        assert_eq!(dispatcher.counts(), (0, dropped));
        for _ in 0..KEPT_FREE {
            dispatcher.send(EventKind::WorkerHeartbeat(Default::default()));
        }
        assert_eq!(dispatcher.counts(), (0, dropped), "there is a place for each");
        dispatcher.send(EventKind::WorkerOffline(Default::default()));
        assert_eq!(dispatcher.counts(), (0, dropped + 1), "they are bounded, too");
        let kept = std::iter::from_fn(|| inbox.try_recv().ok());
        assert_eq!(kept.filter(|it| !it.kind.is_of_task()).count(), KEPT_FREE);
    }

    #[test]
    fn what_tasks_tell_by_themselves_takes_places_and_bytes_as_their_other_events_do() {
        let custom = |name: &str, text: &str| {
            let fields = Map::from_iter([("text", text)]);
            EventKind::Custom { name: name.to_owned(), fields }
        };
        let (few, _inbox) = dispatcher(KEPT_FREE + 1);
        few.send(custom("paid", ""));
        few.send(custom("paid", ""));
        assert_eq!(few.counts(), (0, 1), "the other places are kept free");
        let (many, _inbox) = dispatcher(QUEUE_MAX);
        let text = "x".repeat(BYTES_MAX / 4);
        for _ in 0..4 {
            many.send(custom("task-progress", &text));
        }
        assert_eq!(many.counts(), (0, 1), "and there are other things in an event than its texts");
    }

    #[test]
    fn texts_are_cut_before_they_wait_and_their_sum_is_bounded() {
        let (dispatcher, mut inbox) = dispatcher(QUEUE_MAX);
        let long = || EventKind::TaskFailed {
            uuid: String::new(),
            exception: None,
            traceback: Some("x".repeat(10 * TEXT_MAX)),
        };
        let fit = BYTES_MAX / TEXT_MAX;
        for _ in 0..fit + 3 {
            dispatcher.send(long());
        }
        assert_eq!(dispatcher.counts(), (0, 3));
        dispatcher.send(EventKind::WorkerHeartbeat(Default::default()));
        assert_eq!(dispatcher.counts(), (0, 3), "it is not held up by tasks");
        let mut waiting = Vec::new();
        waiting.extend(std::iter::from_fn(|| inbox.try_recv().ok()));
        assert_eq!(waiting.len(), fit + 1);
        assert_eq!(waiting.iter().map(|it| it.size).sum::<usize>(), BYTES_MAX);
        assert!(matches!(
            &waiting[0].kind,
            EventKind::TaskFailed { traceback: Some(text), .. }
                if text.len() == TEXT_MAX && text.capacity() < 2 * TEXT_MAX
        ));
    }
}
