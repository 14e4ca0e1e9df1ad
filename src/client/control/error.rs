//! Why a command did not reach the workers.

use std::sync::Arc;

use crate::amqp::{self, PublishError};
use crate::protocol;

/// Why a command did not reach the workers, or their replies not us.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// An argument has no form in the serializer of the settings.
    #[error("the arguments of '{method}' cannot be written")]
    Arguments {
        /// The command.
        method: String,
        /// What is wrong with them.
        source: protocol::Error,
    },
    /// The exchange or the queue of the replies could not be declared or read.
    #[error("failed to prepare a command to the workers")]
    Declare(#[source] Arc<amqp::Error>),
    /// The broker did not take the command.
    #[error("failed to send a command to the workers")]
    Publish(#[source] Box<PublishError>),
    /// The broker did not answer in time: it may have blocked the connection.
    #[error("the broker has not taken the command within {after:?}")]
    Timeout {
        /// How long it was waited for.
        after: std::time::Duration,
    },
    /// The broker did not keep a revocation, and nobody runs who is known to have heard it.
    #[error("nothing is revoked: the broker does not keep it, and no worker has heard it")]
    NotKept(#[source] Box<ControlError>),
}

impl ControlError {
    pub(super) fn declare(error: amqp::Error) -> Self {
        Self::Declare(Arc::new(error))
    }

    /// Whether the broker could not be reached.
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Declare(error) => error.is_connection() || error.is_permanent(),
            Self::Publish(error) => {
                matches!(**error, PublishError::Closed | PublishError::Failed(_))
            }
            Self::Timeout { .. } => true,
            Self::NotKept(error) => error.is_connection(),
            Self::Arguments { .. } => false,
        }
    }
}
