//! Consuming: what callers see of it.
//!
//! Does not talk to the broker; one task for each lane does (see `lane.rs`). **Invariant:** what
//! was delivered and neither handed out nor settled goes back to its queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc, oneshot};

use super::channels::Channels;
use super::connection::{Connection, lock};
use super::dial::CLOSE_TIMEOUT;
use super::error::Error;
use super::lane::{Command, Lane, Opened};
use super::settle::SettleToken;
use super::topology::{QueueSpec, Topology};
use crate::protocol::{Map, Message};

/// Unsettled deliveries on one channel, up to [`LANES_MAX`] channels. The broker's cost of each ack
/// grows with the number of older ones, so more of them are spread over more channels.
const LANE_PREFETCH_MAX: u32 = 250;

/// Channels of one consumer. Those of a connection are few (2047 by default), and other consumers
/// need some, too.
const LANES_MAX: u32 = 64;

/// How long lanes may take to change what they consume.
const STEER_TIMEOUT: Duration = Duration::from_secs(30);

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
        let (count, prefetch) = lanes(&options, options.queues.len());
        let shared = Arc::new(Shared {
            connection: connection.clone(),
            lanes: Mutex::default(),
            registered: Mutex::default(),
            queues: Mutex::new(options.queues.clone()),
            options: Arc::new(options),
            inbox: Arc::new(Inbox::default()),
            channels: Arc::default(),
            steering: tokio::sync::Mutex::default(),
        });
        let mut opened = Vec::with_capacity(count);
        for _ in 0..count {
            let (first, open) = oneshot::channel();
            shared.open_lane(prefetch, Some(first));
            opened.push(open);
        }
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
fn lanes(options: &ConsumerOptions, queues: usize) -> (usize, u16) {
    let queues = u32::try_from(queues).unwrap_or(u32::MAX).max(1);
    if options.prefetch == 0 || options.no_ack {
        return (1, 0);
    }
    let share = share(options, queues);
    let lanes = share.saturating_mul(queues).div_ceil(LANE_PREFETCH_MAX).min(share).min(LANES_MAX);
    let prefetch = share.div_ceil(lanes).min(u32::from(u16::MAX));
    (lanes as usize, prefetch as u16)
}

/// The share of one queue in the prefetch.
fn share(options: &ConsumerOptions, queues: u32) -> u32 {
    options.prefetch.div_ceil(queues).max(options.prefetch_queue_min).max(1)
}

/// The ways to the lanes.
#[derive(Debug, Default)]
struct Lanes {
    commands: Vec<mpsc::Sender<Command>>,
    /// All were told to end, and none may be opened any more: what it got would go back at once,
    /// and come again.
    stopped: bool,
}

/// What the handle, the deliveries and the lanes share.
#[derive(Debug)]
struct Shared {
    connection: Connection,
    options: Arc<ConsumerOptions>,
    lanes: Mutex<Lanes>,
    /// How many consumers each of them has.
    registered: Mutex<Vec<Arc<AtomicUsize>>>,
    /// What is consumed now.
    queues: Mutex<Vec<QueueSpec>>,
    inbox: Arc<Inbox>,
    channels: Arc<Channels>,
    /// Held while it is changed what is consumed.
    steering: tokio::sync::Mutex<()>,
}

impl Shared {
    /// Starts one lane more, unless all were told to end. It ends if it cannot open, which `first`
    /// hears; without anybody to hear it, it tries again.
    fn open_lane(&self, prefetch: u16, first: Option<Opened>) {
        let (commands, receiver) = mpsc::channel(2);
        let names = lock(&self.queues).iter().map(|queue| queue.name.as_str().into()).collect();
        let mut lanes = lock(&self.lanes);
        if lanes.stopped {
            return;
        }
        self.inbox.enter();
        let registered = Arc::<AtomicUsize>::default();
        lock(&self.registered).push(Arc::clone(&registered));
        let lane = Lane {
            registered,
            connection: self.connection.clone(),
            options: Arc::clone(&self.options),
            queues: Mutex::new(names),
            prefetch: AtomicU16::new(prefetch),
            number: lanes.commands.len(),
            inbox: Arc::clone(&self.inbox),
            channels: Arc::clone(&self.channels),
        };
        lanes.commands.push(commands);
        drop(lanes);
        tokio::spawn(lane.run(receiver, first));
    }

    /// Gives every lane a command and collects what they answer in time.
    async fn steer<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let lanes = lock(&self.lanes).commands.clone();
        let answers = lanes.iter().map(|lane| {
            let (done, wait) = oneshot::channel();
            let command = command(done);
            let asking = async move {
                lane.send(command).await.ok()?;
                wait.await.ok()
            };
            async { tokio::time::timeout(STEER_TIMEOUT, asking).await.ok().flatten() }
        });
        join_all(answers).await.into_iter().flatten().collect()
    }

    /// Gives every lane a command that ends it, and waits until they have carried it out, within
    /// limits: a connection that is blocked or gone must not hold up a shutdown.
    async fn end(&self, command: impl Fn(oneshot::Sender<()>) -> Command) {
        let lanes = {
            let mut lanes = lock(&self.lanes);
            lanes.stopped = true;
            lanes.commands.clone()
        };
        let waits = lanes.iter().map(|lane| {
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

    /// Stops deliveries and gives back all that were not handed out yet, within a fraction of a
    /// second.
    ///
    /// Tokens that are out can still be settled until [`close`](Self::close).
    pub async fn cancel(&self) {
        self.0.inbox.stop();
        self.0.end(Command::Cancel).await;
        // Only now: while the consumers live, the broker would deliver them here again.
        self.0.inbox.drain();
    }

    /// Cancels, sends every verdict that was given, waits until the broker has processed them,
    /// and closes the channels. What is unsettled then goes back to its queue.
    pub async fn close(&self) {
        self.0.inbox.stop();
        self.0.end(Command::Close).await;
        self.0.inbox.drain();
    }

    /// The names of the queues that are consumed.
    pub fn queues(&self) -> Vec<String> {
        lock(&self.0.queues).iter().map(|queue| queue.name.clone()).collect()
    }

    /// Whether the queue `name` is consumed.
    pub(crate) fn consumes(&self, name: &str) -> bool {
        lock(&self.0.queues).iter().any(|queue| queue.name == name)
    }

    /// Declares what else belongs to the queue `name`, now and again after every loss, for as long
    /// as it is consumed. False if it is not.
    ///
    /// # Errors
    /// When the broker refuses, or the connection has ended; then nothing is remembered.
    pub(crate) async fn declare_with(
        &self,
        name: &str,
        topology: &Topology,
    ) -> Result<bool, Error> {
        // So that it is not cancelled meanwhile, and remembered all the same.
        let _steering = self.0.steering.lock().await;
        if !self.consumes(name) {
            return Ok(false);
        }
        self.0.connection.declare(topology).await.map(|()| true)
    }

    /// Declares one queue more and consumes it, now and again after every loss. False if it is
    /// consumed already.
    ///
    /// It gets as large a share of the prefetch as the others have, in addition to theirs.
    ///
    /// # Errors
    /// When the broker refuses, or the connection has ended; then nothing has changed.
    pub async fn add_queue(&self, queue: QueueSpec) -> Result<bool, Error> {
        let shared = &*self.0;
        let _steering = shared.steering.lock().await;
        if lock(&shared.queues).iter().any(|it| it.name == queue.name) {
            return Ok(false);
        }
        let queues = vec![queue.clone()];
        shared.connection.declare(&Topology { queues, ..Topology::default() }).await?;
        let name: Arc<str> = queue.name.as_str().into();
        lock(&shared.queues).push(queue);
        let answers = shared.steer(|done| Command::Add(Arc::clone(&name), done)).await;
        if let Some(refused) = answers.into_iter().find_map(Result::err) {
            self.forget(&name).await;
            return Err(refused);
        }
        Ok(true)
    }

    /// Consumes a queue no more, also not after a loss, and gives back what nobody has seen of
    /// it. False if it was not consumed. Tokens that are out can still be settled.
    pub async fn cancel_queue(&self, name: &str) -> bool {
        let _steering = self.0.steering.lock().await;
        let known = lock(&self.0.queues).iter().any(|queue| queue.name == name);
        if known {
            self.forget(name).await;
        }
        known
    }

    async fn forget(&self, name: &str) {
        let shared = &*self.0;
        lock(&shared.queues).retain(|queue| queue.name != name);
        shared.connection.forget_queue(name);
        shared.steer(|done| Command::Remove(name.into(), done)).await;
        // Only now: while the consumers live, the broker would deliver them here again.
        shared.inbox.drain_queue(name);
    }

    /// Changes the prefetch and the least share of one queue, as [`ConsumerOptions`] has them.
    ///
    /// What was delivered stays, and does not count for the new prefetch. A second change waits
    /// until all that was delivered before the first one is settled.
    pub async fn set_prefetch(&self, prefetch: u32, prefetch_queue_min: u32) {
        let shared = &*self.0;
        let _steering = shared.steering.lock().await;
        let queues = lock(&shared.queues).len().max(1);
        let options =
            ConsumerOptions { prefetch, prefetch_queue_min, ..ConsumerOptions::default() };
        let (wanted, mut prefetch) = lanes(&options, queues);
        let existing = lock(&shared.lanes).commands.len();
        if existing > wanted && prefetch > 0 {
            // Lanes that are too many stay, each with less.
            let share = share(&options, u32::try_from(queues).unwrap_or(u32::MAX));
            let each = share.div_ceil(u32::try_from(existing).unwrap_or(u32::MAX));
            prefetch = each.min(u32::from(u16::MAX)) as u16;
        }
        for _ in existing..wanted {
            shared.open_lane(prefetch, None);
        }
        shared.steer(|done| Command::Prefetch(prefetch, done)).await;
    }

    /// Whether the broker knows a consumer of every queue on every channel, as far as is known.
    pub fn is_registered(&self) -> bool {
        let queues = lock(&self.0.queues).len();
        lock(&self.0.registered).iter().all(|lane| lane.load(Ordering::Relaxed) >= queues)
    }

    /// How many tokens were settled too late: their channel was gone, and the broker had taken
    /// the message back.
    pub fn stale_total(&self) -> u64 {
        self.0.channels.stale_total()
    }
}

/// Deliveries on their way from the lanes to the caller. Bounded by the prefetch.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Delivery>,
    /// Nothing is handed out any more.
    stopped: bool,
    /// What comes now goes back at once.
    drained: bool,
    lanes: usize,
}

impl Inbox {
    /// A lane has begun.
    fn enter(&self) {
        lock(&self.state).lanes += 1;
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

    /// Gives back what was not handed out of one queue.
    fn drain_queue(&self, name: &str) {
        let mut state = lock(&self.state);
        let all = std::mem::take(&mut state.queue);
        let (undelivered, kept) =
            all.into_iter().partition::<VecDeque<_>, _>(|it| *it.queue == *name);
        state.queue = kept;
        drop(state);
        drop(undelivered);
    }

    async fn take(&self, into: &mut Vec<Delivery>) -> bool {
        loop {
            let (ready, is_empty, ended) = {
                let mut state = lock(&self.state);
                if state.stopped {
                    return false;
                }
                let count = state.queue.len().min(BURST_MAX);
                let ready: Vec<Delivery> = state.queue.drain(..count).collect();
                let is_empty = state.queue.is_empty();
                (ready, is_empty, is_empty && state.lanes == 0)
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
            // Whoever puts more into a queue that is not empty wakes nobody.
            if is_empty {
                self.wake.notified().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::settle::Settlements;
    use super::*;

    fn plan(queues: usize, prefetch: u32, prefetch_queue_min: u32) -> (usize, u16) {
        let options = ConsumerOptions::default();
        lanes(&options.prefetch(prefetch).prefetch_queue_min(prefetch_queue_min), queues)
    }

    #[test]
    fn prefetch_is_spread_over_lanes_and_queues() {
        assert_eq!(plan(1, 4, 0), (1, 4), "few deliveries need one lane");
        assert_eq!(plan(1, 250, 0), (1, 250));
        assert_eq!(plan(1, 1000, 0), (4, 250));
        assert_eq!(plan(1, 400_000, 0), (64, 6250), "channels are few");
        assert_eq!(plan(1, u32::MAX, 0), (64, u16::MAX));
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
        let inbox = Inbox::default();
        inbox.enter();
        inbox.enter();
        inbox.put(&mut vec![delivery()]);
        inbox.leave();
        inbox.leave();
        let mut burst = Vec::new();
        assert!(inbox.take(&mut burst).await);
        assert_eq!(burst.len(), 1);
        assert!(!inbox.take(&mut burst).await);
    }

    /// Deliveries of a channel that is gone.
    fn stale(count: u64) -> Vec<Delivery> {
        let settlements = Arc::new(Settlements::new(Arc::default(), 1));
        settlements.close();
        let token = |tag| SettleToken::new(Arc::clone(&settlements), tag);
        (1..=count).map(|tag| Delivery { token: token(tag), ..delivery() }).collect()
    }

    #[test]
    fn what_came_after_a_lost_channel_is_handed_out_however_much_of_it_was_left() {
        let inbox = Inbox::default();
        inbox.enter();
        inbox.put(&mut stale(1000));
        inbox.put(&mut vec![delivery()]);
        let mut burst = Vec::new();
        assert_eq!(inbox.take(&mut burst).now_or_never(), Some(true));
        assert_eq!(burst.len(), 1);
        inbox.put(&mut stale(1000));
        inbox.leave();
        assert_eq!(inbox.take(&mut burst).now_or_never(), Some(false), "the stream has ended");
    }

    #[tokio::test]
    async fn nothing_is_handed_out_after_the_stop() {
        let inbox = Inbox::default();
        inbox.enter();
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
