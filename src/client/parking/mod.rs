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

use super::client::connection_options;
use super::{Config, ConnectError};
use crate::amqp::topology::{dead_queue, parking_queue};
use crate::amqp::{self, Connection};

/// A connection to look at parked messages with.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    connection: Connection,
}

impl DeadLetters {
    /// Connects; declares nothing.
    ///
    /// # Errors
    /// As [`Client::connect`](super::Client::connect).
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let options = connection_options(config, "celeriac dead letters".to_owned());
        let connection = Connection::open(options).await.map_err(ConnectError::Broker)?;
        Ok(Self { connection })
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
        Parking::open(&self.connection, queue).await
    }

    /// Closes the connection.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}
