//! Consuming: what callers see of it.
//!
//! Does not talk to the broker; one task for each lane does (see `lane.rs`). **Invariant:** what
//! was delivered and neither handed out nor settled goes back to its queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use tokio::sync::{Notify, mpsc, oneshot};

use super::connection::{Connection, lock};
use super::dial::CLOSE_TIMEOUT;
use super::error::Error;
use super::lane::{Command, Lane};
use super::settle::SettleToken;
use super::topology::{QueueSpec, Topology};
use crate::protocol::{Map, Message};

/// Unsettled deliveries on one channel. The broker's cost of each ack grows with the number of
/// older ones, so more of them are spread over more channels.
const LANE_PREFETCH_MAX: u32 = 250;

/// Deliveries that one burst holds at most.
const BURST_MAX: usize = 256;

/// What to consume, and how much of it at a time.
#[derive(Clone, Debug, Default)]
pub struct ConsumerOptions {
    pub(super) queues: Vec<QueueSpec>,
    pub(super) prefetch: u32,
    pub(super) prefetch_queue_min: u32,
    pub(super) tag_prefix: String,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) arguments: Map,
}

impl ConsumerOptions {
    /// Consumes `queues`, which are declared first, as their specification says.
    pub fn new(queues: impl IntoIterator<Item = QueueSpec>) -> Self {
        Self { queues: queues.into_iter().collect(), ..Self::default() }
    }

    /// Unsettled deliveries of all queues together, which get equal shares of at least one.
    /// 0, the default, means no limit.
    #[must_use]
    pub fn prefetch(self, prefetch: u32) -> Self {
        Self { prefetch, ..self }
    }

    /// The least share of one queue, even if the sum exceeds the prefetch; so that one busy queue
    /// can keep the whole worker busy.
    #[must_use]
    pub fn prefetch_queue_min(self, prefetch_queue_min: u32) -> Self {
        Self { prefetch_queue_min, ..self }
    }

    /// What consumer tags begin with; numbers follow.
    #[must_use]
    pub fn tag_prefix(self, tag_prefix: impl Into<String>) -> Self {
        Self { tag_prefix: tag_prefix.into(), ..self }
    }

    /// The broker forgets messages as it delivers them, and there is no back-pressure.
    #[must_use]
    pub fn no_ack(self) -> Self {
        Self { no_ack: true, ..self }
    }

    /// This is to be the only consumer of its queues.
    #[must_use]
    pub fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// Arguments of the consumers, for example `x-priority`.
    #[must_use]
    pub fn arguments(self, arguments: Map) -> Self {
        Self { arguments, ..self }
    }
}

/// One delivered message. It must be settled through its token.
#[derive(Debug)]
pub struct Delivery {
    /// Properties and body.
    pub message: Message,
    /// The exchange it was published to.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The queue it came from.
    pub queue: Arc<str>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// To settle it with.
    pub token: SettleToken,
}

/// Starts consumers; what lives on are [`Deliveries`] and [`ConsumerHandle`].
#[derive(Debug)]
pub struct Consumer;

impl Consumer {
    /// Declares the queues and consumes them, now and again after every loss.
    ///
    /// # Errors
    /// When the broker refuses at the first time, or the connection has ended. Later refusals
    /// are logged, and tried again with growing delays.
    pub async fn start(
        connection: &Connection,
        options: ConsumerOptions,
    ) -> Result<(Deliveries, ConsumerHandle), Error> {
        let queues = options.queues.clone();
        connection.declare(&Topology { queues, ..Topology::default() }).await?;
        let (count, prefetch) = lanes(&options);
        let inbox = Arc::new(Inbox::new(count));
        let options = Arc::new(options);
        let stale = Arc::new(AtomicU64::new(0));
        let mut lanes = Vec::with_capacity(count);
        let mut opened = Vec::with_capacity(count);
        for number in 0..count {
            let (commands, receiver) = mpsc::channel(2);
            let (first, open) = oneshot::channel();
            let lane = Lane {
                connection: connection.clone(),
                options: options.clone(),
                prefetch,
                number,
                inbox: inbox.clone(),
                stale: stale.clone(),
            };
            tokio::spawn(lane.run(receiver, first));
            lanes.push(commands);
            opened.push(open);
        }
        let shared = Arc::new(Shared { lanes, inbox, stale });
        let (deliveries, handle) = (Deliveries(shared.clone()), ConsumerHandle(shared));
        for open in join_all(opened).await {
            if let Err(error) = open.unwrap_or(Err(Error::Closed)) {
                handle.close().await;
                return Err(error);
            }
        }
        Ok((deliveries, handle))
    }
}

/// How many lanes, and the prefetch of each consumer on each lane.
fn lanes(options: &ConsumerOptions) -> (usize, u16) {
    let queues = u32::try_from(options.queues.len()).unwrap_or(u32::MAX).max(1);
    if options.prefetch == 0 || options.no_ack {
        return (1, 0);
    }
    let share = options.prefetch.div_ceil(queues).max(options.prefetch_queue_min).max(1);
    let lanes = share.saturating_mul(queues).div_ceil(LANE_PREFETCH_MAX).min(share);
    let prefetch = share.div_ceil(lanes).min(u32::from(u16::MAX));
    (lanes as usize, prefetch as u16)
}

/// What the handle, the deliveries and the lanes share.
#[derive(Debug)]
struct Shared {
    lanes: Vec<mpsc::Sender<Command>>,
    inbox: Arc<Inbox>,
    stale: Arc<AtomicU64>,
}

impl Shared {
    /// Gives every lane a command and waits until they have carried it out, within limits: a
    /// connection that is blocked or gone must not hold up a shutdown.
    async fn command(&self, command: impl Fn(oneshot::Sender<()>) -> Command) {
        let waits = self.lanes.iter().map(|lane| {
            let (done, wait) = oneshot::channel();
            let command = command(done);
            async move {
                if lane.send(command).await.is_ok() {
                    // A lane that ended in the meantime has nothing left to do.
                    let _ = wait.await;
                }
            }
        });
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, join_all(waits)).await;
    }
}

/// The stream of deliveries, in bursts.
#[derive(Debug)]
pub struct Deliveries(Arc<Shared>);

impl Deliveries {
    /// Waits for deliveries and appends all that are ready, up to a burst of 256.
    ///
    /// False when consuming has been cancelled or the connection has ended; then it stays so.
    /// Dropping the future loses nothing.
    pub async fn next_burst(&mut self, into: &mut Vec<Delivery>) -> bool {
        self.0.inbox.take(into).await
    }
}

/// Stops a consumer. When the handle and the [`Deliveries`] are both dropped, it is closed.
#[derive(Clone, Debug)]
pub struct ConsumerHandle(Arc<Shared>);

impl ConsumerHandle {
    /// Ends the stream of deliveries at once, without waiting for the broker.
    pub(crate) fn stop(&self) {
        self.0.inbox.stop();
    }

    /// Stops deliveries and gives back all that were not handed out yet.
    ///
    /// Tokens that are out can still be settled until [`close`](Self::close).
    pub async fn cancel(&self) {
        self.0.inbox.stop();
        self.0.command(Command::Cancel).await;
        // Only now: while the consumers live, the broker would deliver them here again.
        self.0.inbox.drain();
    }

    /// Cancels, sends every verdict that was given, waits until the broker has processed them,
    /// and closes the channels. What is unsettled then goes back to its queue.
    pub async fn close(&self) {
        self.0.inbox.stop();
        self.0.command(Command::Close).await;
        self.0.inbox.drain();
    }

    /// How many tokens were settled too late: their channel was gone, and the broker had taken
    /// the message back.
    pub fn stale_total(&self) -> u64 {
        self.0.stale.load(Ordering::Relaxed)
    }
}

/// Deliveries on their way from the lanes to the caller. Bounded by the prefetch.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Delivery>,
    /// Nothing is handed out any more.
    stopped: bool,
    /// What comes now goes back at once.
    drained: bool,
    lanes: usize,
}

impl Inbox {
    fn new(lanes: usize) -> Self {
        let state = State { queue: VecDeque::new(), stopped: false, drained: false, lanes };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }

    /// Takes a burst from a lane.
    pub(super) fn put(&self, burst: &mut Vec<Delivery>) {
        let mut state = lock(&self.state);
        if state.drained {
            drop(state);
            burst.clear();
            return;
        }
        let wake = state.queue.is_empty();
        state.queue.extend(burst.drain(..));
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// A lane has ended; the last one ends the stream.
    pub(super) fn leave(&self) {
        let mut state = lock(&self.state);
        state.lanes = state.lanes.saturating_sub(1);
        drop(state);
        self.wake.notify_one();
    }

    /// Hands out nothing any more.
    fn stop(&self) {
        lock(&self.state).stopped = true;
        self.wake.notify_one();
    }

    /// Gives back what was not handed out.
    fn drain(&self) {
        let mut state = lock(&self.state);
        state.drained = true;
        let undelivered = std::mem::take(&mut state.queue);
        // Their tokens take another lock.
        drop(state);
        drop(undelivered);
    }

    async fn take(&self, into: &mut Vec<Delivery>) -> bool {
        loop {
            let (ready, ended) = {
                let mut state = lock(&self.state);
                if state.stopped {
                    return false;
                }
                let count = state.queue.len().min(BURST_MAX);
                let ready: Vec<Delivery> = state.queue.drain(..count).collect();
                (ready, state.queue.is_empty() && state.lanes == 0)
            };
            let before = into.len();
            // The others come again on the next channel.
            into.extend(ready.into_iter().filter(|delivery| delivery.token.is_live()));
            if into.len() > before {
                return true;
            }
            if ended {
                return false;
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(queues: usize, prefetch: u32, prefetch_queue_min: u32) -> (usize, u16) {
        let queues = (0..queues).map(|n| QueueSpec::classic(n.to_string()));
        let options = ConsumerOptions::new(queues);
        lanes(&options.prefetch(prefetch).prefetch_queue_min(prefetch_queue_min))
    }

    #[test]
    fn prefetch_is_spread_over_lanes_and_queues() {
        assert_eq!(plan(1, 4, 0), (1, 4), "few deliveries need one lane");
        assert_eq!(plan(1, 250, 0), (1, 250));
        assert_eq!(plan(1, 1000, 0), (4, 250));
        assert_eq!(plan(4, 16, 0), (1, 4), "queues share");
        assert_eq!(plan(4, 1, 0), (1, 1), "each queue gets at least one");
        assert_eq!(plan(4, 16, 8), (1, 8), "and as much as is asked for");
        assert_eq!(plan(300, 1, 0), (1, 1), "no lane without a share");
        assert_eq!(plan(1, 0, 0), (1, 0), "no limit");
    }

    fn delivery() -> Delivery {
        Delivery {
            message: Message::default(),
            exchange: String::new(),
            routing_key: String::new(),
            queue: "q".into(),
            redelivered: false,
            token: SettleToken::inert(),
        }
    }

    #[tokio::test]
    async fn the_stream_ends_when_all_lanes_have_ended_and_all_is_handed_out() {
        let inbox = Inbox::new(2);
        inbox.put(&mut vec![delivery()]);
        inbox.leave();
        inbox.leave();
        let mut burst = Vec::new();
        assert!(inbox.take(&mut burst).await);
        assert_eq!(burst.len(), 1);
        assert!(!inbox.take(&mut burst).await);
    }

    #[tokio::test]
    async fn nothing_is_handed_out_after_the_stop() {
        let inbox = Inbox::new(1);
        inbox.put(&mut vec![delivery()]);
        inbox.stop();
        inbox.put(&mut vec![delivery()]);
        let mut burst = Vec::new();
        assert!(!inbox.take(&mut burst).await);
        assert!(burst.is_empty());
        assert_eq!(lock(&inbox.state).queue.len(), 2, "given back only when the consumers ended");
        inbox.drain();
        inbox.put(&mut vec![delivery()]);
        assert_eq!(lock(&inbox.state).queue.len(), 0);
    }
}
