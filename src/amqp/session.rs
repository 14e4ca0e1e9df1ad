//! One channel that consumes one queue, publishes and acks, in the order of the calls.
//!
//! For whoever takes part in a protocol of its own over a queue: closing the channel takes back,
//! at once, everything that the holder could still do. There is no task behind it and no second
//! try: [`Session::next`] does the work, and a session that is closed stays so.
//!
//! ```text
//! publish 1, ack 7, publish 2   on the wire: publish 1, ack 7, publish 2
//! ```
//!
//! The client library sends acks and the close of a channel before publishes that wait to be
//! written, so these are held back here until the earlier publishes were written.
//!
//! **Invariants:** calls reach the broker in their order. The consumer is never cancelled:
//! the channel is closed first, also on drop, so that the broker puts everything back in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt, poll_fn};
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::PublisherConfirm;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions};

use super::ahead::Ahead;
use super::confirms::{Confirming, Confirms};
use super::connection::Connection;
use super::convert::{arguments, from_properties, short};
use super::dial::CLOSE_TIMEOUT;
use super::envelope::{self, Envelope};
use super::error::Error;
use super::flight::Flight;
use super::live::Live;
use super::publisher::{Publish, PublishError};
use super::settle::{AckWindow, Frame, Verdict};
use crate::protocol::{Map, Message};

/// Deliveries that one call of [`Session::next`] hands out at most.
const BURST_MAX: usize = 512;

/// Publishes that wait to be written at the same time.
const UNWRITTEN_MAX: usize = 256;

/// What a session consumes.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The queue, which must exist.
    pub queue: String,
    /// Unacked deliveries that the broker hands out at most; 0 is no limit.
    pub prefetch: u16,
    /// The consumer tag; must be unique on the channel only.
    pub tag: String,
    /// Arguments of the consumer.
    pub arguments: Map,
}

/// One thing that happened in a session.
#[expect(clippy::large_enum_variant, reason = "most events are deliveries")]
#[derive(Debug)]
pub enum SessionEvent {
    /// A message was delivered. It stays unacked until [`Session::ack`] or the end.
    Delivered(SessionDelivery),
    /// The broker has stored this publish.
    Confirmed {
        /// What [`Session::publish`] returned.
        seq: u64,
    },
    /// This publish was not stored.
    Failed {
        /// What [`Session::publish`] returned.
        seq: u64,
        /// Why: [`PublishError::Returned`], [`PublishError::Nacked`], or what is wrong with the
        /// message itself.
        error: PublishError,
    },
}

/// A delivered message.
#[derive(Debug)]
pub struct SessionDelivery {
    /// The delivery tag: 1, 2, 3, … in the order of the queue.
    pub tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Properties and body.
    pub message: Message,
}

/// A channel in confirm mode with one consumer.
pub struct Session {
    link: Arc<Link>,
    consumer: lapin::Consumer,
    live: Live,
    /// What was asked for and not begun.
    outbox: VecDeque<Command>,
    /// Publishes from the call to the confirm.
    flight: Flight<Arc<Publish>>,
    writing: FuturesUnordered<BoxFuture<'static, Written>>,
    /// Of those in `writing`, how many are publishes.
    unwritten: usize,
    confirming: FuturesUnordered<Confirming>,
    confirms: Confirms,
    window: AckWindow,
    frames: Vec<Frame>,
    ahead: Ahead,
    /// Events that wait for the next call of `next`.
    events: Vec<SessionEvent>,
}

#[derive(Debug)]
enum Command {
    Publish(u64, Arc<Publish>),
    Ack(u64),
}

/// What was written to the connection.
enum Written {
    Publish(u64, Result<PublisherConfirm, lapin::Error>),
    Ack(Result<(), lapin::Error>),
}

impl Session {
    /// Opens a channel on `connection` and consumes.
    ///
    /// # Errors
    /// When the queue does not exist, the broker refuses, or the connection has ended. Waits
    /// while the connection is lost.
    pub async fn open(connection: &Connection, options: &SessionOptions) -> Result<Self, Error> {
        let live = connection.live(0).await?;
        let channel = live.answer(live.connection.create_channel()).await?;
        live.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let qos = BasicQosOptions { global: false };
        live.answer(channel.basic_qos(options.prefetch, qos)).await?;
        let queue = short("a queue's name", &options.queue)?;
        let tag = short("a consumer tag", &options.tag)?;
        let arguments = arguments(&options.arguments)?;
        let how = BasicConsumeOptions::default();
        let consumer = live.answer(channel.basic_consume(queue, tag, how, arguments)).await?;
        Ok(Self {
            link: Arc::new(Link { channel, _consumer: consumer.clone() }),
            consumer,
            live,
            outbox: VecDeque::new(),
            flight: Flight::default(),
            writing: FuturesUnordered::new(),
            unwritten: 0,
            confirming: FuturesUnordered::new(),
            confirms: Confirms::default(),
            window: AckWindow::default(),
            frames: Vec::new(),
            ahead: Ahead::default(),
            events: Vec::new(),
        })
    }

    /// Publishes, mandatory; the number comes back in exactly one event, unless the session ends.
    ///
    /// Nothing is sent before the next call of [`next`](Self::next). How much is under way is
    /// for the caller to bound.
    pub fn publish(&mut self, publish: impl Into<Arc<Publish>>) -> u64 {
        let publish = publish.into();
        let seq = self.flight.push(Arc::clone(&publish));
        self.outbox.push_back(Command::Publish(seq, publish));
        seq
    }

    /// Acks one delivery; sent as [`publish`](Self::publish) is. A second time changes nothing.
    pub fn ack(&mut self, tag: u64) {
        self.outbox.push_back(Command::Ack(tag));
    }

    /// How many publishes have no confirm yet.
    pub fn unconfirmed(&self) -> usize {
        self.flight.len()
    }

    /// Waits until something has happened and appends all of it. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// When the channel or the connection is gone, or the broker has cancelled the consumer; the
    /// session is then of no more use. Whether publishes without an event were stored is unknown.
    pub async fn next(&mut self, events: &mut Vec<SessionEvent>) -> Result<(), Error> {
        let live = self.live.clone();
        tokio::select! {
            biased;
            done = poll_fn(|cx| self.poll(cx)) => done?,
            () = live.gone() => return Err(Error::lost()),
        }
        events.append(&mut self.events);
        Ok(())
    }

    /// Sends what was asked for, closes the channel, and waits until the broker has seen it:
    /// everything unacked is back in its queue then, in its order.
    ///
    /// Gives up after some seconds; dropping is enough where nobody waits for the broker.
    ///
    /// # Errors
    /// When the broker has not confirmed the end in that time, or the channel or the connection
    /// was gone before: what was asked for last may not have been done.
    pub async fn close(mut self) -> Result<(), Error> {
        let closing = async {
            poll_fn(|cx| self.poll_written(cx)).await?;
            self.ahead.linger().await;
            self.link.channel.close(200, "bye".into()).await?;
            Ok(())
        };
        tokio::time::timeout(CLOSE_TIMEOUT, closing).await.unwrap_or_else(|_| Err(Error::lost()))
    }

    /// One round of everything; ready with at least one event, or with the end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sent = self.poll_write(cx).and_then(|()| self.poll_confirms(cx));
        match (sent, self.poll_deliveries(cx)) {
            // Often only the consumer is told why a channel was closed.
            (_, Err(error)) if error.is_refused() => Poll::Ready(Err(error)),
            (Err(error), _) | (Ok(()), Err(error)) => Poll::Ready(Err(error)),
            (Ok(()), Ok(())) if self.events.is_empty() => Poll::Pending,
            (Ok(()), Ok(())) => Poll::Ready(Ok(())),
        }
    }

    /// Ready when everything that was asked for has been written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Err(error) = self.poll_write(cx) {
            return Poll::Ready(Err(error));
        }
        let idle = self.outbox.is_empty() && self.writing.is_empty();
        if idle { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Hands over what may be handed over, until nothing moves.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            self.hand_over();
            let mut moved = false;
            while let Poll::Ready(Some(written)) = self.writing.poll_next_unpin(cx) {
                moved = true;
                match written {
                    Written::Publish(seq, confirm) => {
                        self.unwritten -= 1;
                        self.confirming.push(Confirming { number: seq, confirm: confirm? });
                    }
                    Written::Ack(done) => done?,
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Begins as many commands as the order allows.
    fn hand_over(&mut self) {
        while let Some(command) = self.outbox.front() {
            match command {
                Command::Publish(..) if self.unwritten >= UNWRITTEN_MAX => return,
                // An ack would overtake them.
                Command::Ack(_) if self.unwritten > 0 => return,
                Command::Publish(..) | Command::Ack(_) => {}
            }
            match self.outbox.pop_front() {
                Some(Command::Publish(seq, publish)) => self.begin_publish(seq, &publish),
                Some(Command::Ack(tag)) => self.begin_acks(tag),
                None => return,
            }
        }
    }

    fn begin_publish(&mut self, seq: u64, publish: &Arc<Publish>) {
        match Envelope::of(publish, self.live.frame_max()) {
            Ok(envelope) => {
                self.unwritten += 1;
                let (channel, publish) = (self.link.channel.clone(), Arc::clone(publish));
                self.writing.push(write(channel, seq, publish, envelope).boxed());
            }
            Err(error) => {
                self.flight.take(seq);
                self.events.push(SessionEvent::Failed { seq, error });
            }
        }
    }

    /// Sends `first` and all acks right behind it in as few frames as it may.
    fn begin_acks(&mut self, first: u64) {
        self.window.settle(first, Verdict::Ack);
        while let Some(Command::Ack(tag)) = self.outbox.front() {
            self.window.settle(*tag, Verdict::Ack);
            self.outbox.pop_front();
        }
        self.window.flush(&mut self.frames);
        self.ahead.send(self.frames.len(), tokio::time::Instant::now());
        for frame in self.frames.drain(..) {
            // Only acks were settled.
            let Frame { tag, multiple, .. } = frame;
            let channel = self.link.channel.clone();
            let ack = async move {
                Written::Ack(channel.basic_ack(tag, BasicAckOptions { multiple }).await)
            };
            self.writing.push(ack.boxed());
        }
    }

    /// Turns confirms into events.
    fn poll_confirms(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            let (pending, flight) = (&mut self.confirming, &mut self.flight);
            let (mut ripe, broken) =
                self.confirms.ripen(None, pending, &self.link.channel, flight, cx);
            if let Some(error) = broken {
                return Err(error);
            }
            if ripe.is_empty() {
                return Ok(());
            }
            for (seq, outcome) in ripe.drain(..) {
                if let Ok(confirmed) = outcome
                    && let Some((publish, returned)) = self.flight.take(seq)
                {
                    self.events.push(match envelope::verdict(&publish, returned, &confirmed) {
                        Ok(()) => SessionEvent::Confirmed { seq },
                        Err(error) => SessionEvent::Failed { seq, error },
                    });
                }
            }
            self.confirms.recycle(ripe);
        }
    }

    fn poll_deliveries(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        for _ in 0..BURST_MAX {
            match self.consumer.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(delivery))) => {
                    let lapin::message::Delivery {
                        delivery_tag: tag,
                        redelivered,
                        properties,
                        data,
                        ..
                    } = delivery;
                    let message = Message { properties: from_properties(&properties), body: data };
                    let delivery = SessionDelivery { tag, redelivered, message };
                    self.events.push(SessionEvent::Delivered(delivery));
                }
                Poll::Ready(Some(Err(error))) => return Err(error.into()),
                Poll::Ready(None) if self.link.channel.status().connected() => {
                    return Err(Error::Cancelled);
                }
                Poll::Ready(None) => return Err(Error::lost()),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Frames that follow the close of their channel would end the whole connection. Writing
        // takes no time, unless the connection is stuck, and then it is about to be lost.
        if self.unwritten > 0
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (writing, link) = (std::mem::take(&mut self.writing), Arc::clone(&self.link));
            runtime.spawn(async move {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, writing.collect::<Vec<_>>()).await;
                drop(link);
            });
        }
    }
}

/// The channel, closed when the last user of it goes.
struct Link {
    channel: lapin::Channel,
    /// The last clone: dropping it would cancel the consumer of an open channel.
    _consumer: lapin::Consumer,
}

impl Drop for Link {
    fn drop(&mut self) {
        // The first poll sends the close and marks the consumer as one that needs no cancel.
        let _ = self.channel.close(200, "bye".into()).now_or_never();
    }
}

async fn write(
    channel: lapin::Channel,
    seq: u64,
    publish: Arc<Publish>,
    envelope: Envelope,
) -> Written {
    let confirm = envelope.send(&channel, &publish.message.body).await;
    Written::Publish(seq, confirm)
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("queue", &self.consumer.queue().as_str())
            .field("unconfirmed", &self.flight.len())
            .finish_non_exhaustive()
    }
}
