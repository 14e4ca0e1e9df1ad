//! Confirmed publishing: what callers see of it.
//!
//! Does not talk to the broker; the actor behind it does (see `pipeline.rs`). **Invariant:** every
//! publish is answered exactly once, and with success only after the broker confirmed it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc, oneshot};

use super::connection::{Connection, lock};
use super::error::Error;
use super::pipeline::Pipeline;
use crate::protocol::Message;

/// Jobs that wait for the actor; more of them make callers wait.
const JOBS_MAX: usize = 1024;

/// One message and its address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publish {
    /// The exchange; empty is the default exchange, which routes to the queue named by the key.
    pub exchange: Cow<'static, str>,
    /// The routing key.
    pub routing_key: String,
    /// Properties and body, sent as they are.
    pub message: Message,
    /// What to do when the connection is lost before the confirm.
    pub when_unknown: WhenUnknown,
    /// What to do when the exchange does not exist or has no queue for it.
    pub when_unroutable: WhenUnroutable,
}

impl Publish {
    /// A publish that is repeated until it is confirmed.
    pub fn new(
        exchange: impl Into<Cow<'static, str>>,
        routing_key: impl Into<String>,
        message: Message,
    ) -> Self {
        Self {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            message,
            when_unknown: WhenUnknown::Resend,
            when_unroutable: WhenUnroutable::Report,
        }
    }
}

/// What becomes of a publish whose confirm was lost with the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnknown {
    /// Publish it again: it arrives at least once.
    #[default]
    Resend,
    /// End it as [`PublishError::Unknown`]: it arrived at most once.
    Report,
}

/// What becomes of a publish whose exchange is gone, or has no queue for its routing key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnroutable {
    /// End it as [`PublishError::Returned`] or [`PublishError::Refused`].
    #[default]
    Report,
    /// Publish it once more, straight to the queue that has the routing key as its name.
    ToQueue,
}

/// Why a publish was not confirmed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No queue was bound for it; nothing has been stored.
    #[error("{}", unroutable(exchange, routing_key))]
    Returned {
        /// The exchange it was published to.
        exchange: String,
        /// Its routing key.
        routing_key: String,
        /// The broker's code: 312 is no route.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// A queue refused it (a length limit) or failed to store it.
    #[error("the broker refused to store the message")]
    Nacked,
    /// The connection was lost after it was sent and before it was confirmed.
    #[error("the connection was lost before the message was confirmed")]
    Unknown {
        /// How it was lost.
        source: Arc<Error>,
    },
    /// The broker closed the channel or connection because of this message, for example for an
    /// exchange that does not exist.
    #[error("{code} {text}")]
    Refused {
        /// AMQP reply code.
        code: u16,
        /// AMQP reply text.
        text: String,
    },
    /// The body, or the properties with the headers, exceed a limit. Nothing has been sent.
    #[error("the message has {size} bytes where {max} are allowed")]
    TooLarge {
        /// Bytes of the part that is too large.
        size: usize,
        /// Bytes allowed for it.
        max: usize,
    },
    /// A name is longer than AMQP allows. Nothing has been sent.
    #[error(transparent)]
    Invalid(Error),
    /// The publisher or its connection was closed before the message was sent.
    #[error("the publisher is closed")]
    Closed,
    /// The connection was given up before the message was sent.
    #[error("the connection to the broker has failed for good")]
    Failed(#[source] Arc<Error>),
}

impl PublishError {
    /// Whether no queue was bound for the message.
    pub fn is_returned(&self) -> bool {
        matches!(self, Self::Returned { .. })
    }

    /// Whether there is no such queue, or no such exchange.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.is_returned() || matches!(self, Self::Refused { code: 404, .. })
    }

    /// Whether the message may have been stored all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether the message itself is at fault, so that sending it again would end the same way.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TooLarge { .. } | Self::Invalid(_))
    }
}

/// What keeps a message from being published before it is.
impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused { code, text } => Self::Refused { code, text },
            error @ Error::NameTooLong { .. } => Self::Invalid(error),
            error => Self::Failed(Arc::new(error)),
        }
    }
}

fn unroutable(exchange: &str, routing_key: &str) -> String {
    match exchange {
        "" => format!("there is no queue '{routing_key}'"),
        _ => format!("exchange '{exchange}' has no queue for routing key '{routing_key}'"),
    }
}

/// The largest body that any broker takes unless told otherwise: RabbitMQ before 4.0.
const BROKERS_MAX: usize = 128 << 20;

/// Limits of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct PublisherOptions {
    /// Largest body in bytes: 16 MiB unless said otherwise. The broker has a limit of its own,
    /// which is that, or before 4.0 128 MiB.
    pub message_max: usize,
    /// Messages that may wait for their confirm at the same time.
    pub in_flight_max: usize,
    /// Bytes of bodies that may; one message may always.
    pub in_flight_bytes_max: usize,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { message_max: 16 << 20, in_flight_max: 4096, in_flight_bytes_max: 64 << 20 }
    }
}

/// Publishes on a channel of its own, in bursts. Clones share the channel.
///
/// Messages of one publisher are sent in the order in which they were handed over, but for the
/// ones that are sent again.
#[derive(Clone, Debug)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    message_max: usize,
}

impl Publisher {
    /// A publisher on `connection`, with the usual limits.
    pub fn new(connection: &Connection) -> Self {
        Self::with_options(connection, PublisherOptions::default())
    }

    /// A publisher on `connection`.
    pub fn with_options(connection: &Connection, options: PublisherOptions) -> Self {
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        tokio::spawn(Pipeline::new(connection.clone(), options, inbox).run());
        Self { jobs, message_max: options.message_max }
    }

    /// The same publisher, for what comes from elsewhere: a message that the broker has taken once
    /// is handed on, given back or parked however small the limit of this program is.
    pub(crate) fn relaying(&self) -> Self {
        Self { jobs: self.jobs.clone(), message_max: self.message_max.max(BROKERS_MAX) }
    }

    /// Publishes one message and waits for its confirm, also while the connection is lost.
    ///
    /// Dropping the future does not take the message back.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, publish: Publish) -> Result<(), PublishError> {
        self.check(&publish)?;
        let (reply, answer) = oneshot::channel();
        let parcel = Parcel::new(publish, Reply(Some(To::One(reply))));
        self.jobs.send(Job::One(parcel)).await.map_err(|_| PublishError::Closed)?;
        answer.await.unwrap_or(Err(PublishError::Closed))
    }

    /// Publishes a burst and waits until every message of it has ended; the results stand in the
    /// order of the messages.
    ///
    /// A publish that is kept in an [`Arc`] can be published again without a copy.
    pub async fn publish_all<P: Into<Arc<Publish>>>(
        &self,
        publishes: Vec<P>,
    ) -> Vec<Result<(), PublishError>> {
        self.hand_over(publishes).await.outcomes().await
    }

    /// Begins to publish a burst; what becomes of each message can be asked for while others wait.
    pub(crate) async fn hand_over<P: Into<Arc<Publish>>>(&self, publishes: Vec<P>) -> Burst {
        let batch = Arc::new(Batch::new(publishes.len()));
        let mut parcels = Vec::with_capacity(publishes.len());
        for (at, publish) in publishes.into_iter().enumerate() {
            let publish = publish.into();
            let reply = Reply(Some(To::Slot(batch.clone(), at)));
            match self.check(&publish) {
                Ok(()) => parcels.push(Parcel::new(publish, reply)),
                Err(error) => reply.send(Err(error)),
            }
        }
        if !parcels.is_empty() {
            // If the actor is gone, the dropped parcels answer for themselves.
            let _ = self.jobs.send(Job::Many(parcels)).await;
        }
        Burst(batch)
    }

    /// Waits until nothing that was handed over is without its answer.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Flush(reply)).await.is_ok() {
            // An actor that is gone has answered everything.
            let _ = answer.await;
        }
    }

    /// Takes no more messages, waits for the answers of all that were handed over, and closes
    /// the channel. Clones are closed too.
    pub async fn close(&self) {
        if self.jobs.send(Job::Close).await.is_ok() {
            self.jobs.closed().await;
        }
    }

    /// Refuses what is larger than the limit; for who has to know before the first of several.
    pub(crate) fn check(&self, publish: &Publish) -> Result<(), PublishError> {
        let (size, max) = (publish.message.body.len(), self.message_max);
        if size > max { Err(PublishError::TooLarge { size, max }) } else { Ok(()) }
    }
}

/// What the actor is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    One(Parcel),
    Many(Vec<Parcel>),
    Flush(oneshot::Sender<()>),
    Close,
}

/// One publish on its way, with whom to answer.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) publish: Arc<Publish>,
    pub(super) reply: Reply,
    /// Whether it has been handed to the connection before, so that it may have arrived.
    pub(super) sent: bool,
    /// Whether it was in flight when the broker refused a message, and is now sent alone.
    pub(super) suspect: bool,
}

impl Parcel {
    pub(super) fn new(publish: impl Into<Arc<Publish>>, reply: Reply) -> Self {
        Self { publish: publish.into(), reply, sent: false, suspect: false }
    }
}

/// Whom to answer; answers by itself when it is dropped.
#[derive(Debug)]
pub(super) struct Reply(Option<To>);

#[derive(Debug)]
enum To {
    One(oneshot::Sender<Result<(), PublishError>>),
    Slot(Arc<Batch>, usize),
}

impl Reply {
    pub(super) fn send(mut self, result: Result<(), PublishError>) {
        self.answer(result);
    }

    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    fn answer(&mut self, result: Result<(), PublishError>) {
        match self.0.take() {
            Some(To::One(reply)) => {
                // The caller may have gone.
                let _ = reply.send(result);
            }
            Some(To::Slot(batch, at)) => batch.answer(at, result),
            None => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(PublishError::Closed));
    }
}

/// Messages that were handed over together, by their places in the burst.
#[derive(Clone, Debug)]
pub(crate) struct Burst(Arc<Batch>);

impl Burst {
    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        while !self.has_ended() {
            self.0.done.notified().await;
        }
    }

    /// Waits until all have ended, and tells how, in their order.
    pub(crate) async fn outcomes(&self) -> Vec<Result<(), PublishError>> {
        self.ended().await;
        let mut outcomes = vec![Ok(()); self.0.ended.len()];
        for (at, error) in self.failed() {
            if let Some(outcome) = outcomes.get_mut(at) {
                *outcome = Err(error);
            }
        }
        outcomes
    }

    /// Whether all have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.left.load(Ordering::Acquire) == 0
    }

    /// Whether this one has ended.
    pub(crate) fn has_ended_at(&self, at: usize) -> bool {
        self.0.ended.get(at).is_none_or(|ended| ended.load(Ordering::Acquire))
    }

    /// Those that have failed so far.
    pub(crate) fn failed(&self) -> Vec<(usize, PublishError)> {
        lock(&self.0.failed).clone()
    }
}

/// The answers to one burst, the last of which wakes the caller.
#[derive(Debug)]
struct Batch {
    failed: Mutex<Vec<(usize, PublishError)>>,
    ended: Vec<AtomicBool>,
    left: AtomicUsize,
    done: Notify,
}

impl Batch {
    fn new(len: usize) -> Self {
        Self {
            failed: Mutex::default(),
            ended: (0..len).map(|_| AtomicBool::new(false)).collect(),
            left: AtomicUsize::new(len),
            done: Notify::new(),
        }
    }

    fn answer(&self, at: usize, result: Result<(), PublishError>) {
        if let Err(error) = result {
            lock(&self.failed).push((at, error));
        }
        if let Some(ended) = self.ended.get(at) {
            ended.store(true, Ordering::Release);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}
