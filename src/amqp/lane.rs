//! One lane of a consumer: a channel with its share of the prefetch, opened again when it is lost.
//!
//! Does not decide verdicts (see `settle.rs`) and does not hand out (see `consumer.rs`).
//! **Invariant:** one queue that is gone or refused does not stop the others; it is tried again
//! with growing delays.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use futures::stream::{Stream, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::ahead::Ahead;
use super::channels::Channels;
use super::connection::{Connection, lock};
use super::consumer::{ConsumerOptions, Delivery, Inbox};
use super::convert::{arguments, from_properties, short};
use super::dial::CLOSE_TIMEOUT;
use super::error::Error;
use super::live::Live;
use super::settle::{AckWindow, Frame, SettleToken, Settlements, Verdict};
use crate::backoff::Backoff;
use crate::protocol::Message;

/// Deliveries that are moved before verdicts are looked at.
const BURST_MAX: usize = 256;

/// The delay after a queue or channel was refused.
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30), jitter: true };

/// How long one try to get a lost queue back may take.
const RECONSUME_TIMEOUT: Duration = Duration::from_secs(10);

/// How long verdicts are collected once the consumers are cancelled: many of them then travel in
/// few frames. Nobody waits for that: a lane that is closed sends them at once.
const COLLECT: Duration = Duration::from_millis(200);

/// What a lane is asked to do; it answers when it is done.
#[derive(Debug)]
pub(super) enum Command {
    Cancel(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
    /// Consume one queue more, which exists.
    Add(Arc<str>, oneshot::Sender<Result<(), Error>>),
    /// Consume this queue no more.
    Remove(Arc<str>, oneshot::Sender<()>),
    /// Unsettled deliveries of each consumer from now on.
    Prefetch(u16, oneshot::Sender<()>),
}

pub(super) struct Lane {
    pub(super) connection: Connection,
    pub(super) options: Arc<ConsumerOptions>,
    /// What is consumed; what is changed here holds for the next channel.
    pub(super) queues: Mutex<Vec<Arc<str>>>,
    /// Unsettled deliveries of each consumer; 0 is no limit.
    pub(super) prefetch: AtomicU16,
    pub(super) number: usize,
    /// How many of its queues have a consumer now.
    pub(super) registered: Arc<AtomicUsize>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) channels: Arc<Channels>,
}

/// Where the first success, or the refusal, is told.
pub(super) type Opened = oneshot::Sender<Result<(), Error>>;

/// How a channel ended.
enum End {
    Done,
    Lost(Error),
}

impl Lane {
    /// Consumes until it is closed or the connection ends; `first` hears of the first channel, and
    /// a refusal there is the end. Else a refusal is a reason to try again.
    pub(super) async fn run(self, mut commands: mpsc::Receiver<Command>, first: Option<Opened>) {
        self.keep(&mut commands, first).await;
        self.inbox.leave();
    }

    async fn keep(&self, commands: &mut mpsc::Receiver<Command>, mut first: Option<Opened>) {
        let mut failures: u32 = 0;
        let mut careful = false;
        loop {
            let opened = tokio::select! {
                biased;
                command = commands.recv() => match self.note(command) {
                    true => continue,
                    false => return,
                },
                opened = Open::open(self, careful) => opened,
            };
            let since = Instant::now();
            let error = match opened {
                Ok(mut open) => {
                    if let Some(first) = first.take() {
                        // Whoever started this may have lost interest; then a command follows.
                        let _ = first.send(Ok(()));
                    }
                    let end = open.serve(self, commands).await;
                    self.registered.store(0, Ordering::Relaxed);
                    if let Some(prefetch) = open.wanted {
                        // A new channel has nothing to wait for.
                        self.prefetch.store(prefetch, Ordering::Relaxed);
                    }
                    open.settlements.close();
                    match end {
                        End::Done => return,
                        End::Lost(_) if open.cancelled => return,
                        End::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            if error.is_permanent() || (first.is_some() && !error.is_connection()) {
                if let Some(first) = first.take() {
                    // As above.
                    let _ = first.send(Err(error));
                }
                return;
            }
            careful = !error.is_connection();
            if careful {
                warn!(%error, lane = self.number, "the broker closed a consumer's channel");
            } else {
                debug!(%error, lane = self.number, "lane lost its connection");
            }
            failures = if since.elapsed() > RETRY.cap { 0 } else { failures.saturating_add(1) };
            let retry = Instant::now() + RETRY.delay(failures.saturating_sub(1));
            loop {
                tokio::select! {
                    command = commands.recv() => {
                        if !self.note(command) {
                            return;
                        }
                    }
                    () = tokio::time::sleep_until(retry) => break,
                }
            }
        }
    }

    /// Carries out a command while there is no channel; false if it ends the lane, because then
    /// there is nothing to cancel or to close.
    fn note(&self, command: Option<Command>) -> bool {
        match command {
            None | Some(Command::Cancel(_) | Command::Close(_)) => return false,
            Some(Command::Add(queue, done)) => {
                self.add(queue);
                // Whoever asked may have run out of patience, here and below.
                let _ = done.send(Ok(()));
            }
            Some(Command::Remove(queue, done)) => {
                self.remove(&queue);
                let _ = done.send(());
            }
            Some(Command::Prefetch(prefetch, done)) => {
                self.prefetch.store(prefetch, Ordering::Relaxed);
                let _ = done.send(());
            }
        }
        true
    }

    fn add(&self, queue: Arc<str>) {
        lock(&self.queues).push(queue);
    }

    fn remove(&self, queue: &str) {
        lock(&self.queues).retain(|it| **it != *queue);
    }

    fn prefetch(&self) -> u16 {
        self.prefetch.load(Ordering::Relaxed)
    }
}

/// A queue and its consumer; `None` where the broker has ended it.
struct Slot {
    queue: Arc<str>,
    consumer: Option<lapin::Consumer>,
}

/// An open channel and everything that ends with it.
struct Open {
    live: Live,
    channel: lapin::Channel,
    /// One for each queue of the lane.
    slots: Vec<Slot>,
    settlements: Arc<Settlements>,
    window: AckWindow,
    frames: Vec<Frame>,
    burst: Vec<Delivery>,
    /// When to try again to consume the queues that are missing, and how often that failed.
    retry: Option<(Instant, u32)>,
    tags: u64,
    turn: usize,
    cancelled: bool,
    /// Deliveries so far, which is the highest delivery tag.
    delivered: u64,
    /// What it was when the prefetch was last changed.
    changed: u64,
    /// The prefetch to change to.
    wanted: Option<u16>,
    /// When the verdicts that are collected are sent.
    collected: Option<Instant>,
    ahead: Ahead,
}

impl Open {
    /// Opens a channel and consumes all queues; if `careful`, without the ones that are not there.
    async fn open(lane: &Lane, careful: bool) -> Result<Self, Error> {
        let live = lane.connection.live(0).await?;
        let channel = live.answer(live.connection.create_channel()).await?;
        if lane.prefetch() > 0 {
            let options = BasicQosOptions { global: false };
            live.answer(channel.basic_qos(lane.prefetch(), options)).await?;
        }
        let queues = lock(&lane.queues).clone();
        let settlements = Settlements::new(lane.channels.clone(), live.epoch);
        let mut this = Self {
            live,
            channel,
            slots: queues.into_iter().map(|queue| Slot { queue, consumer: None }).collect(),
            settlements: Arc::new(settlements),
            window: AckWindow::default(),
            frames: Vec::new(),
            burst: Vec::new(),
            retry: None,
            tags: 0,
            turn: 0,
            cancelled: false,
            delivered: 0,
            changed: 0,
            wanted: None,
            collected: None,
            ahead: Ahead::default(),
        };
        for at in 0..this.slots.len() {
            let queue = this.queue(at);
            if careful && let Err(error) = lane.connection.redeclare_queue(&queue).await {
                if !error.is_refused() {
                    return Err(error);
                }
                warn!(%error, %queue, "a queue cannot be consumed for now");
                this.schedule(0);
                continue;
            }
            this.consume(lane, at).await?;
        }
        Ok(this)
    }

    fn queue(&self, at: usize) -> Arc<str> {
        self.slots.get(at).map(|slot| Arc::clone(&slot.queue)).unwrap_or_default()
    }

    async fn consume(&mut self, lane: &Lane, at: usize) -> Result<(), Error> {
        let options = &lane.options;
        let prefix = match options.tag_prefix.as_str() {
            "" => "celeriac",
            prefix => prefix,
        };
        self.tags += 1;
        let tag = short("a consumer tag", &format!("{prefix}.{}.{}", lane.number, self.tags))?;
        let queue = short("a queue's name", &self.queue(at))?;
        let how = BasicConsumeOptions {
            no_ack: options.no_ack,
            exclusive: options.exclusive,
            ..BasicConsumeOptions::default()
        };
        let arguments = arguments(&options.arguments)?;
        let consume = self.channel.basic_consume(queue, tag, how, arguments);
        let consumer = self.live.answer(consume).await?;
        if let Some(slot) = self.slots.get_mut(at) {
            slot.consumer = Some(consumer);
        }
        Ok(())
    }

    /// Consumes one queue more. A refusal closes the channel, and is the asker's; the lane then
    /// goes on without that queue.
    async fn add(
        &mut self,
        lane: &Lane,
        queue: Arc<str>,
        done: oneshot::Sender<Result<(), Error>>,
    ) -> Result<(), Error> {
        lane.add(Arc::clone(&queue));
        if self.cancelled {
            let _ = done.send(Ok(()));
            return Ok(());
        }
        self.slots.push(Slot { queue: Arc::clone(&queue), consumer: None });
        let added = self.consume(lane, self.slots.len() - 1).await;
        let refused = match &added {
            Err(error) if !error.is_connection() => {
                lane.remove(&queue);
                Err(error.clone())
            }
            // After a lost connection it is consumed with the others.
            _ => Ok(()),
        };
        let _ = done.send(refused);
        added
    }

    /// Consumes a queue no more, and gives back what nobody has seen of it.
    async fn remove(&mut self, lane: &Lane, queue: &str) -> Result<(), Error> {
        lane.remove(queue);
        let Some(at) = self.slots.iter().position(|slot| *slot.queue == *queue) else {
            return Ok(());
        };
        let Slot { consumer, .. } = self.slots.remove(at);
        if let Some(mut consumer) = consumer {
            let cancel = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            self.live.answer(cancel).await?;
            self.give_back(&mut consumer);
        }
        self.flush().await
    }

    /// Consumes all queues with another prefetch, if one is wanted.
    ///
    /// The broker takes it for new consumers only, and what the old ones hold does not count for
    /// the new ones. So the change waits until what was delivered before the last one is settled:
    /// the lane never holds more than twice its prefetch, however often that is changed.
    async fn change_prefetch(&mut self, lane: &Lane) -> Result<(), Error> {
        let due = self.window.base() > self.changed && !self.cancelled;
        let Some(prefetch) = self.wanted.take_if(|_| due) else { return Ok(()) };
        if lane.prefetch.swap(prefetch, Ordering::Relaxed) == prefetch {
            return Ok(());
        }
        let options = BasicQosOptions { global: false };
        self.live.answer(self.channel.basic_qos(prefetch, options)).await?;
        for at in 0..self.slots.len() {
            let queue = self.queue(at);
            let Some(slot) = self.slots.get_mut(at) else { continue };
            let Some(mut consumer) = slot.consumer.take() else { continue };
            let cancel = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            self.live.answer(cancel).await?;
            let settlements = (!lane.options.no_ack).then_some(&self.settlements);
            while let Some(Some(item)) = consumer.next().now_or_never() {
                if let Ok(delivery) = item {
                    self.burst.push(convert(delivery, Arc::clone(&queue), settlements));
                }
            }
            self.put(lane);
            self.changed = self.delivered;
            self.consume(lane, at).await?;
        }
        Ok(())
    }

    fn put(&mut self, lane: &Lane) {
        self.delivered += self.burst.len() as u64;
        lane.inbox.put(&mut self.burst);
    }

    fn schedule(&mut self, failures: u32) {
        self.retry = Some((Instant::now() + RETRY.delay(failures), failures));
    }

    async fn serve(&mut self, lane: &Lane, commands: &mut mpsc::Receiver<Command>) -> End {
        let mut ended = Vec::new();
        let live = self.live.clone();
        let mut gone = pin!(live.gone());
        loop {
            let registered = self.slots.iter().filter(|slot| slot.consumer.is_some()).count();
            lane.registered.store(registered, Ordering::Relaxed);
            let (retry, collected) = (self.retry, self.collected);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Cancel(done)) => {
                        self.cancel().await;
                        // Whoever asked may have run out of patience.
                        let _ = done.send(());
                    }
                    Some(Command::Close(done)) => {
                        self.close().await;
                        let _ = done.send(());
                        return End::Done;
                    }
                    None => {
                        self.close().await;
                        return End::Done;
                    }
                    Some(steer) => {
                        if let Err(error) = self.steer(lane, steer).await {
                            return End::Lost(error);
                        }
                    }
                },
                () = self.settlements.ready(), if !self.cancelled => {
                    if let Err(error) = self.flush().await {
                        return End::Lost(self.cause(error));
                    }
                    if self.wanted.is_some() && let Err(error) = self.change_prefetch(lane).await {
                        return End::Lost(error);
                    }
                }
                () = receive(
                    &mut self.slots, &mut self.burst, &mut ended, &mut self.turn,
                    (!lane.options.no_ack).then_some(&self.settlements),
                ) => {
                    self.put(lane);
                    for (at, error) in ended.drain(..) {
                        if let Some(end) = self.consumer_ended(at, error) {
                            return end;
                        }
                    }
                }
                () = self.settlements.ready(), if self.cancelled && collected.is_none() => {
                    self.collected = Some(Instant::now() + COLLECT);
                }
                () = until(collected), if collected.is_some() => {
                    self.collected = None;
                    if let Err(error) = self.flush().await {
                        return End::Lost(error);
                    }
                }
                () = until(retry.map(|(at, _)| at)), if retry.is_some() => {
                    if let Err(error) = self.reconsume(lane).await {
                        return End::Lost(error);
                    }
                }
                () = &mut gone => return End::Lost(Error::lost()),
            }
        }
    }

    /// Carries out a command that changes what is consumed; an error ends the channel.
    async fn steer(&mut self, lane: &Lane, command: Command) -> Result<(), Error> {
        match command {
            Command::Add(queue, done) => self.add(lane, queue, done).await,
            Command::Remove(queue, done) => {
                let removed = self.remove(lane, &queue).await;
                let _ = done.send(());
                removed
            }
            Command::Prefetch(prefetch, done) => {
                self.wanted = Some(prefetch);
                let changed = self.change_prefetch(lane).await;
                let _ = done.send(());
                changed
            }
            // Those that end the lane are not for here.
            Command::Cancel(_) | Command::Close(_) => Ok(()),
        }
    }

    /// Sends all verdicts that were given.
    async fn flush(&mut self) -> Result<(), Error> {
        self.settlements.take(&mut self.window);
        self.window.flush(&mut self.frames);
        self.ahead.send(self.frames.len(), Instant::now());
        let channel = &self.channel;
        let mut sends: Vec<_> =
            self.frames.drain(..).map(|frame| Box::pin(send(channel, frame))).collect();
        let mut result = Ok(());
        // The first poll hands a frame over, so this keeps their order, and lets them share one
        // wake-up of the client library's thread.
        let sent = poll_fn(|cx| {
            sends.retain_mut(|send| match send.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(error)) => {
                    result = Err(error);
                    false
                }
                Poll::Pending => true,
            });
            if sends.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            () = sent => {}
            () = self.live.gone() => return Err(Error::lost()),
        }
        Ok(result?)
    }

    /// The reason for which the channel is gone, which only the consumers are told.
    fn cause(&mut self, error: Error) -> Error {
        for consumer in self.slots.iter_mut().filter_map(|slot| slot.consumer.as_mut()) {
            while let Some(Some(item)) = consumer.next().now_or_never() {
                if let Err(cause) = item {
                    return cause.into();
                }
            }
        }
        error
    }

    fn consumer_ended(&mut self, at: usize, error: Option<lapin::Error>) -> Option<End> {
        match error {
            Some(error) => Some(End::Lost(error.into())),
            None if self.channel.status().connected() => {
                let queue = self.queue(at);
                warn!(%queue, "the broker cancelled a consumer: its queue is gone");
                if let Some(slot) = self.slots.get_mut(at) {
                    slot.consumer = None;
                }
                self.schedule(0);
                None
            }
            None => {
                let state = lapin::ChannelState::Closed;
                let error = lapin::ErrorKind::InvalidChannelState(state, "consumer ended");
                Some(End::Lost(lapin::Error::from(error).into()))
            }
        }
    }

    /// Tries to get back the queues whose consumers have ended.
    async fn reconsume(&mut self, lane: &Lane) -> Result<(), Error> {
        let failures = self.retry.take().map_or(0, |(_, failures)| failures);
        for at in 0..self.slots.len() {
            if self.slots.get(at).is_none_or(|slot| slot.consumer.is_some()) {
                continue;
            }
            let queue = self.queue(at);
            let declared = lane.connection.redeclare_queue(&queue);
            // Refusals come on other channels than this one, so that it survives them.
            match tokio::time::timeout(RECONSUME_TIMEOUT, declared).await {
                Ok(Ok(())) => {
                    self.consume(lane, at).await?;
                    info!(%queue, "consuming again");
                }
                Ok(Err(error)) => {
                    warn!(%error, %queue, "a queue cannot be consumed for now");
                    self.schedule(failures.saturating_add(1));
                }
                Err(_) => self.schedule(failures.saturating_add(1)),
            }
        }
        Ok(())
    }

    /// Ends the consumers and collects what they had delivered and nobody has seen.
    async fn cancel(&mut self) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        self.retry = None;
        if let Err(error) = self.flush().await {
            debug!(%error, "the channel was gone before all was settled");
        }
        let mut consumers: Vec<_> =
            self.slots.iter_mut().filter_map(|slot| slot.consumer.take()).collect();
        let options = BasicCancelOptions::default();
        let cancels =
            consumers.iter().map(|consumer| self.channel.basic_cancel(consumer.tag(), options));
        // A channel that is gone has no consumers either.
        let _ = self.live.answer(join_all(cancels).map(Ok)).await;
        // A queue answers when it has taken in all that was sent before.
        self.ahead.clear();
        for consumer in &mut consumers {
            self.give_back(consumer);
        }
        self.collected = Some(Instant::now() + COLLECT);
    }

    /// Gives back what a cancelled consumer had delivered and nobody has seen.
    fn give_back(&mut self, consumer: &mut lapin::Consumer) {
        while let Some(Some(item)) = consumer.next().now_or_never() {
            if let Ok(delivery) = item {
                self.delivered += 1;
                self.window.settle(delivery.delivery_tag, Verdict::Requeue);
            }
        }
    }

    /// Cancels, sends what is left, and waits until the broker has seen all of it.
    async fn close(&mut self) {
        let closing = async {
            self.cancel().await;
            self.flush().await?;
            self.settlements.close();
            self.ahead.linger().await;
            // The answer comes after everything that was sent before has been processed.
            self.channel.close(200, "bye".into()).await?;
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the channel was gone before it was closed"),
            Err(_) => debug!("the broker did not answer the close in time"),
        }
    }
}

/// Waits until some consumer has deliveries or has ended, and takes what is ready.
async fn receive(
    slots: &mut [Slot],
    burst: &mut Vec<Delivery>,
    ended: &mut Vec<(usize, Option<lapin::Error>)>,
    turn: &mut usize,
    settlements: Option<&Arc<Settlements>>,
) {
    // Another one begins each time, so that a busy queue cannot starve the others.
    *turn = turn.wrapping_add(1);
    let count = slots.len().max(1);
    poll_fn(|cx| {
        for step in 0..count {
            let at = turn.wrapping_add(step) % count;
            let Some(Slot { queue, consumer: Some(consumer) }) = slots.get_mut(at) else {
                continue;
            };
            while burst.len() < BURST_MAX {
                match Pin::new(&mut *consumer).poll_next(cx) {
                    Poll::Ready(Some(Ok(delivery))) => {
                        burst.push(convert(delivery, Arc::clone(queue), settlements));
                    }
                    Poll::Ready(Some(Err(error))) => {
                        ended.push((at, Some(error)));
                        break;
                    }
                    Poll::Ready(None) => {
                        ended.push((at, None));
                        break;
                    }
                    Poll::Pending => break,
                }
            }
        }
        if burst.is_empty() && ended.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

fn convert(
    delivery: lapin::message::Delivery,
    queue: Arc<str>,
    settlements: Option<&Arc<Settlements>>,
) -> Delivery {
    let tag = delivery.delivery_tag;
    Delivery {
        message: Message { properties: from_properties(&delivery.properties), body: delivery.data },
        exchange: delivery.exchange.into(),
        routing_key: delivery.routing_key.into(),
        queue,
        redelivered: delivery.redelivered,
        token: match settlements {
            Some(settlements) => SettleToken::new(settlements.clone(), tag),
            None => SettleToken::inert(),
        },
    }
}

async fn send(channel: &lapin::Channel, frame: Frame) -> Result<(), lapin::Error> {
    let Frame { verdict, tag, multiple } = frame;
    let requeue = match verdict {
        Verdict::Ack => return channel.basic_ack(tag, BasicAckOptions { multiple }).await,
        Verdict::Requeue => true,
        Verdict::Reject => false,
    };
    channel.basic_nack(tag, BasicNackOptions { multiple, requeue }).await
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
