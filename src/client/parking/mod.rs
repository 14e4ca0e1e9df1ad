//! The messages in `<queue>.dead`: looking at them, sending them again, dropping them.
//!
//! What is parked there could not be run; workers say why in its headers
//! ([`protocol::dead`](crate::protocol::dead)). Does not park anything itself.
//!
//! **Invariant:** a message leaves its parking queue only when somebody drops it, or after the
//! broker has confirmed it where it was sent. Whoever looks at it holds it alone, so that of two
//! people who work on one queue only one gets each message; what is only looked at goes back.

mod filter;
mod parked;
mod parking_queue;

pub use filter::Filter;
pub use parked::Parked;
pub use parking_queue::{Fate, Parking, Place, Tally};

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::client::connection_options;
use super::{Config, ConnectError};
use crate::amqp::topology::{dead_queue, parking_queue};
use crate::amqp::{self, Connection};

/// Channels that are left for other things than messages that are held.
const CHANNELS_LEFT: u16 = 16;

/// Channels that are used at most, whatever the broker allows: each costs it some memory.
const CHANNELS_MAX: u16 = 2031;

/// A connection to look at parked messages with.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    connection: Connection,
    /// Channels that may still be used.
    channels: Arc<Semaphore>,
}

impl DeadLetters {
    /// Connects; declares nothing.
    ///
    /// # Errors
    /// As [`Client::connect`](super::Client::connect).
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let options = connection_options(config, "celeriac dead letters".to_owned());
        let connection = Connection::open(options).await.map_err(ConnectError::Broker)?;
        let max = connection.channels_max().await.map_err(ConnectError::Broker)?;
        let max = max.saturating_sub(CHANNELS_LEFT).clamp(1, CHANNELS_MAX);
        Ok(Self { connection, channels: Arc::new(Semaphore::new(max.into())) })
    }

    /// Uses at most so many channels; by default as many as the broker allows, which are 2,031
    /// unless it was told otherwise. Each holds 500 messages that are kept, or 10,000
    /// ([`Parking::only_look`]).
    #[must_use]
    pub fn channels(mut self, max: usize) -> Self {
        self.channels = Arc::new(Semaphore::new(max.clamp(1, self.channels.available_permits())));
        self
    }

    /// The parking queues of the queues in `config`, and the one for what has no queue. Not all of
    /// them need exist.
    pub fn usual_queues(config: &Config) -> Vec<String> {
        let known = config.known_queues();
        let names = known.iter().map(|queue| queue.name.as_str()).chain([dead_queue()]);
        names.map(Self::parking_queue_of).collect()
    }

    /// The parking queue of `queue`, which may be one itself.
    pub fn parking_queue_of(queue: &str) -> String {
        if queue.ends_with(".dead") { queue.to_owned() } else { parking_queue(queue) }
    }

    /// Begins to look at the parking queue `queue`; `None` if it does not exist.
    ///
    /// # Errors
    /// When the broker refuses or the connection is lost.
    pub async fn open(&self, queue: &str) -> Result<Option<Parking>, amqp::Error> {
        Parking::open(&self.connection, &self.channels, queue).await
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}
