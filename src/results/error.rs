//! Why a result could not be had.

use std::time::Duration;

use crate::protocol::{Exception, TaskState, ValueError};

/// A task that ended without a value: what its worker reported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("task {task_id} ended as {state}: {exception}")]
#[non_exhaustive]
pub struct TaskFailure {
    /// Id of the task.
    pub task_id: String,
    /// `FAILURE` or `REVOKED`.
    pub state: TaskState,
    /// The exception, of whatever language.
    pub exception: Exception,
    /// Where it was raised, as text; Python's traceback or the chain of a Rust error's sources.
    pub traceback: Option<String>,
}

impl TaskFailure {
    /// Whether the exception's class is `exc_type`, for example `ValueError`.
    pub fn is(&self, exc_type: &str) -> bool {
        self.exception.exc_type == exc_type
    }
}

/// Why [`AsyncResult::get`](super::AsyncResult::get) gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// The task failed or was revoked.
    #[error(transparent)]
    Failed(Box<TaskFailure>),
    /// Nothing came within the time; the task may still be waiting or running.
    #[error("no result of task {task_id} within {} s", waited.as_secs_f64())]
    Timeout {
        /// Id of the task.
        task_id: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The call was sent with `ignore_result`, so that no result will ever come.
    #[error("task {task_id} was sent with ignore_result: there is no result to wait for")]
    Ignored {
        /// Id of the task.
        task_id: String,
    },
    /// The value is not of the type that was asked for.
    #[error("failed to read the result of task {task_id}")]
    Mismatch {
        /// Id of the task.
        task_id: String,
        /// What was expected and found.
        source: ValueError,
    },
    /// The client was closed, or its connection was lost for good.
    #[error("the client was closed before task {task_id} ended")]
    Closed {
        /// Id of the task.
        task_id: String,
    },
}

impl ResultError {
    /// The failure that the worker reported, if there is one.
    pub fn failure(&self) -> Option<&TaskFailure> {
        if let Self::Failed(failure) = self { Some(failure) } else { None }
    }

    /// Whether the time ran out, so that asking again makes sense.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}
