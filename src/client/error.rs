//! Why a call was not sent, or a client could not connect.

use std::sync::Arc;

use super::canvas::WorkflowError;
use crate::amqp::{self, PublishError};
use crate::protocol::canvas::CanvasError;
use crate::protocol::{self, ValueError};

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No broker answered, or it refused.
    #[error("failed to connect to the broker")]
    Broker(#[source] amqp::Error),
    /// The queues of the settings could not be declared.
    #[error("failed to declare the queues")]
    Declare(#[source] amqp::Error),
    /// The runtime of a blocking client could not be started.
    #[error("failed to start the client's runtime")]
    Runtime(#[source] std::io::Error),
}

/// Why one call was not sent. In every case but [`SendError::Publish`] with an unknown outcome
/// nothing has reached a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// An argument could not be turned into a value of the wire.
    #[error("failed to serialize the arguments of {task}")]
    Arguments {
        /// Name of the task.
        task: String,
        /// Which value, and why.
        source: ValueError,
    },
    /// The message could not be encoded.
    #[error("failed to encode the call of {task}")]
    Encode {
        /// Name of the task.
        task: String,
        /// What the encoder says.
        source: protocol::Error,
    },
    /// Two options of the call contradict each other, or a date is out of range.
    #[error("invalid option of the call of {task}: {reason}")]
    Option {
        /// Name of the task.
        task: String,
        /// Which option, and why.
        reason: String,
    },
    /// The broker did not take the message, or nobody knows whether it did.
    #[error("failed to send {task}[{task_id}]{}", hint(source))]
    Publish {
        /// Name of the task.
        task: String,
        /// Id of the call.
        task_id: String,
        /// What became of the message.
        source: Box<PublishError>,
    },
    /// A call that is to be unique was not sent: the same one was sent a short time ago.
    #[error("{task} was not sent: {} was sent within the time in which it is unique", first(id))]
    Duplicate {
        /// Name of the task.
        task: String,
        /// Id of the call that was sent first, if the broker has told it.
        id: Option<String>,
    },
    /// It could not be found out whether a call is unique.
    #[error("failed to find out whether the call of {task} is unique")]
    Unique {
        /// Name of the task.
        task: String,
        /// What the broker says.
        source: Arc<amqp::Error>,
    },
    /// The reply queue could not be opened.
    #[error("failed to open the reply queue")]
    ReplyQueue(#[source] Arc<amqp::Error>),
    /// The workflow cannot be run.
    #[error(transparent)]
    Workflow(#[from] CanvasError),
    /// The body of a chord alone is larger than what may follow from a chord. Nothing was sent.
    #[error(
        "the body of the chord {chord} has {size} bytes without the list of results, where \
         join_max_message and broker_max_message_size allow {max}: give it less"
    )]
    LargeBody {
        /// Id of the chord.
        chord: String,
        /// Bytes of the body.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The queues of the join shards could not be declared.
    #[error("failed to declare the queues that the chord {chord} is joined in")]
    Join {
        /// Id of the chord.
        chord: String,
        /// What the broker says.
        source: Arc<amqp::Error>,
    },
}

impl From<WorkflowError> for SendError {
    fn from(error: WorkflowError) -> Self {
        match error {
            WorkflowError::Arguments { task, source } => Self::Arguments { task, source },
            WorkflowError::Canvas(error) => Self::Workflow(error),
        }
    }
}

impl SendError {
    /// Whether no queue takes messages of this address.
    pub fn is_unroutable(&self) -> bool {
        matches!(self, Self::Publish { source, .. } if source.is_returned())
    }
}

fn first(id: &Option<String>) -> String {
    id.as_ref().map_or_else(|| "the same call".to_owned(), |id| format!("the same call, {id},"))
}

/// What to do about it, where that is not obvious.
fn hint(error: &PublishError) -> &'static str {
    if matches!(error, PublishError::Returned { .. }) {
        " (start a worker with that queue, or list the queue in task_queues)"
    } else {
        ""
    }
}
