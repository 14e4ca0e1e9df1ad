//! Going through one parking queue.
//!
//! Messages that are kept stay unacked until the end, spread over channels of some hundred each,
//! because the broker pays for every ack with the number of older unacked deliveries of a channel;
//! who acks none takes far more of them on each. Their bodies are forgotten at once.
//! **Invariants:** no more messages are looked at than were there at the beginning, so that a
//! message which comes back at once is not handled twice. A message that is sent again is acked
//! after the confirm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Parked;
use crate::amqp::{
    self, Connection, Publish, PublishError, Session, SessionDelivery, SessionEvent, SessionOptions,
};

/// Messages that are held on one channel.
const LANE_MAX: u16 = 500;

/// The same if none of them is settled.
const LOOK_LANE_MAX: u16 = 10_000;

/// How long a queue may deliver nothing before it is asked whether it is empty.
const IDLE: Duration = Duration::from_millis(300);

/// How often it may be asked in vain: others may hold what is missing.
const IDLES_MAX: u32 = 20;

/// How often in a row it has to say that it is empty: one that is busy may say so, too.
const EMPTY_MAX: u32 = 3;

/// How long a command waits at its end for the queue to have back what it held: the broker gives
/// it back in its own time, and the next command should find it.
const RETURN: Duration = Duration::from_secs(10);

/// What is to become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes back at the end, or is settled by its [`Place`].
    Keep,
    /// It is sent to this queue, as [`Parked::revived`] has it.
    Requeue(String),
    /// It is gone.
    Drop,
    /// It goes back, and so does all behind it.
    Stop,
}

/// A message that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    lane: usize,
    tag: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were looked at.
    pub seen: u64,
    /// Messages that were sent to their queues and confirmed.
    pub requeued: u64,
    /// Messages that were dropped; they are gone if [`Parking::close`] succeeds.
    pub dropped: u64,
    /// Messages that could not be sent, and are still there.
    pub failed: u64,
    /// Messages that were there at the beginning and were not looked at, although nobody said
    /// [`Fate::Stop`]: others hold them or have settled them, or no more could be held.
    pub unseen: u64,
    /// As many are held as is possible, so that going through the queue ended there.
    pub is_full: bool,
}

/// One parking queue that is being looked at. Dropping it gives everything back.
#[derive(Debug)]
pub struct Parking {
    connection: Connection,
    /// Channels that may still be used, by all queues.
    channels: Arc<Semaphore>,
    queue: String,
    total: u64,
    /// Messages on each lane.
    lane_max: u16,
    lanes: Vec<Lane>,
    tally: Tally,
}

#[derive(Debug)]
struct Lane {
    session: Session,
    /// Messages that go back at the end.
    kept: u16,
    /// Messages that are being sent, by the number of their publish.
    sending: HashMap<u64, u64>,
    _channel: OwnedSemaphorePermit,
}

impl Parking {
    pub(super) async fn open(
        connection: &Connection,
        channels: &Arc<Semaphore>,
        queue: &str,
    ) -> Result<Option<Self>, amqp::Error> {
        let Some(mut depth) = connection.queue_depth(queue).await? else { return Ok(None) };
        if depth == 0 {
            // A queue that is busy may say so.
            tokio::time::sleep(IDLE).await;
            depth = connection.queue_depth(queue).await?.unwrap_or(0);
        }
        Ok(Some(Self {
            connection: connection.clone(),
            channels: Arc::clone(channels),
            queue: queue.to_owned(),
            total: depth.into(),
            lane_max: LANE_MAX,
            lanes: Vec::new(),
            tally: Tally::default(),
        }))
    }

    /// For those who keep every message: far more of them can be held. Settling some all the same
    /// costs the broker more.
    #[must_use]
    pub fn only_look(mut self) -> Self {
        self.lane_max = LOOK_LANE_MAX;
        self
    }

    /// The name of the queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// How many messages were there at the beginning, without those that others look at.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Shows each message to `judge`, which decides, and tells `failed` of each that could not be
    /// sent.
    ///
    /// # Errors
    /// When the connection is lost; what was not confirmed as sent then goes back.
    pub async fn go_through(
        &mut self,
        mut judge: impl FnMut(&Parked, Place, &Tally) -> Fate,
        mut failed: impl FnMut(&PublishError),
    ) -> Result<Tally, amqp::Error> {
        let (mut idles, mut empty, mut stopped, mut events) = (0, 0, false, Vec::new());
        while self.tally.seen < self.total && !stopped && idles < IDLES_MAX {
            // Nothing is being sent on a channel that is full of what is kept.
            if self.lanes.last().is_none_or(|lane| lane.kept >= self.lane_max) {
                let Ok(channel) = Arc::clone(&self.channels).try_acquire_owned() else {
                    self.tally.is_full = true;
                    break;
                };
                self.add_lane(channel).await?;
            }
            let Some(lane) = self.lanes.last_mut() else { break };
            match tokio::time::timeout(IDLE, lane.session.next(&mut events)).await {
                Ok(next) => {
                    next?;
                    (idles, empty) = (0, 0);
                }
                // The prefetch is used up until the broker confirms.
                Err(_) if !lane.sending.is_empty() => {}
                Err(_) if self.connection.queue_depth(&self.queue).await? == Some(0) => {
                    empty += 1;
                    if empty >= EMPTY_MAX {
                        break;
                    }
                }
                Err(_) => idles += 1,
            }
            for event in events.drain(..) {
                match event {
                    SessionEvent::Delivered(_) if stopped || self.tally.seen >= self.total => {}
                    SessionEvent::Delivered(it) => stopped |= self.deliver(it, &mut judge),
                    other => self.settle(&other, &mut failed),
                }
            }
        }
        self.finish(&mut failed).await?;
        self.tally.unseen = if stopped { 0 } else { self.total.saturating_sub(self.tally.seen) };
        Ok(self.tally)
    }

    /// Drops a message that was kept.
    pub fn drop_kept(&mut self, place: Place) {
        if let Some(lane) = self.lanes.get_mut(place.lane) {
            lane.session.ack(place.tag);
            self.tally.dropped += 1;
        }
    }

    /// Gives back what was kept, and waits until the broker has everything; tells what was done.
    ///
    /// # Errors
    /// When the connection was lost before: then any message that was dropped may still be there.
    pub async fn close(self) -> Result<Tally, amqp::Error> {
        let mut closed = Ok(self.tally);
        let Tally { seen, requeued, dropped, .. } = self.tally;
        let held = seen.saturating_sub(requeued).saturating_sub(dropped);
        for lane in self.lanes {
            if let Err(error) = lane.session.close().await {
                closed = Err(error);
            }
        }
        if closed.is_ok() {
            // It is back, or others have taken it by now.
            let back = is_back(&self.connection, &self.queue, held);
            let _ = tokio::time::timeout(RETURN, back).await;
        }
        closed
    }

    async fn add_lane(&mut self, channel: OwnedSemaphorePermit) -> Result<(), amqp::Error> {
        let options = SessionOptions {
            queue: self.queue.clone(),
            prefetch: self.lane_max,
            tag: "dlq".to_owned(),
            ..SessionOptions::default()
        };
        let session = Session::open(&self.connection, &options).await?;
        self.lanes.push(Lane { session, kept: 0, sending: HashMap::new(), _channel: channel });
        Ok(())
    }

    /// Whether this was the last one that is wanted.
    fn deliver(
        &mut self,
        delivery: SessionDelivery,
        judge: &mut impl FnMut(&Parked, Place, &Tally) -> Fate,
    ) -> bool {
        let SessionDelivery { tag, message, .. } = delivery;
        let Some(last) = self.lanes.len().checked_sub(1) else { return true };
        let Some(lane) = self.lanes.get_mut(last) else { return true };
        let parked = Parked::new(self.queue.as_str(), message);
        self.tally.seen += 1;
        match judge(&parked, Place { lane: last, tag }, &self.tally) {
            Fate::Keep => lane.kept = lane.kept.saturating_add(1),
            Fate::Requeue(queue) => {
                let seq = lane.session.publish(Publish::new("", queue, parked.revived()));
                lane.sending.insert(seq, tag);
            }
            Fate::Drop => {
                lane.session.ack(tag);
                self.tally.dropped += 1;
            }
            Fate::Stop => return true,
        }
        false
    }

    /// A message was sent, or not.
    fn settle(&mut self, event: &SessionEvent, failed: &mut impl FnMut(&PublishError)) {
        let Some(lane) = self.lanes.last_mut() else { return };
        match event {
            SessionEvent::Confirmed { seq } => {
                if let Some(tag) = lane.sending.remove(seq) {
                    lane.session.ack(tag);
                    self.tally.requeued += 1;
                }
            }
            SessionEvent::Failed { seq, error } => {
                lane.sending.remove(seq);
                lane.kept = lane.kept.saturating_add(1);
                self.tally.failed += 1;
                failed(error);
            }
            SessionEvent::Delivered(_) => {}
        }
    }

    /// Waits for the confirms of the newest channel; the older ones have none to wait for. What is
    /// delivered meanwhile is more than was wanted, and goes back at the end.
    async fn finish(&mut self, failed: &mut impl FnMut(&PublishError)) -> Result<(), amqp::Error> {
        let mut events = Vec::new();
        while let Some(lane) = self.lanes.last_mut()
            && !lane.sending.is_empty()
        {
            lane.session.next(&mut events).await?;
            for event in events.drain(..) {
                self.settle(&event, failed);
            }
        }
        Ok(())
    }
}

/// Waits until at least `held` messages wait in `queue`.
async fn is_back(connection: &Connection, queue: &str, held: u64) {
    while let Ok(Some(depth)) = connection.queue_depth(queue).await
        && u64::from(depth) < held
    {
        tokio::time::sleep(IDLE / 3).await;
    }
}
