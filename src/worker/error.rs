//! Why a worker did not start, or stopped by itself.

use std::sync::Arc;
use std::time::Duration;

use crate::amqp;
use crate::client::ConnectError;
use crate::task::RegistryError;

/// Why a worker did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No tasks, two tasks of one name, or a missing state.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No broker answered, or it refused.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The queues could not be declared or consumed.
    #[error("failed to consume from the queues")]
    Consume(#[source] amqp::Error),
    /// The connection was lost and did not come back within the limits of the settings.
    #[error("lost the broker for good")]
    Lost(#[source] Arc<amqp::Error>),
    /// The worker was not healthy for as long as `worker_recovery_limit` allows.
    #[error("not recovered within {} s: no consumers, or no answers of the broker", .0.as_secs())]
    Unhealthy(Duration),
    /// The settings contradict each other.
    #[error("invalid worker settings: {0}")]
    Settings(String),
}

impl Error {
    /// Whether the broker could not be reached, as opposed to a fault of the program.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Consume(_) | Self::Lost(_) | Self::Unhealthy(_))
    }
}
