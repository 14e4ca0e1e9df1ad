//! Revoking a task through its result.
//!
//! This floor has no way to the workers; the client gives it one.

use std::fmt;

use futures::future::BoxFuture;

/// The way to the workers.
pub(crate) trait Revokes: fmt::Debug + Send + Sync {
    /// Revokes a task; with `terminate`, also if it runs.
    fn revoke(&self, task_id: &str, terminate: bool)
    -> BoxFuture<'static, Result<(), RevokeError>>;
}

/// Why a task was not revoked through its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The result has no client, because the call was made without a wish for its result.
    #[error("task {task_id} was called without a result: revoke it by Client::control")]
    Ignored {
        /// Id of the task.
        task_id: String,
    },
    /// The client has been dropped.
    #[error("the client that called task {task_id} is gone")]
    Closed {
        /// Id of the task.
        task_id: String,
    },
    /// The broker did not take it.
    #[error("failed to revoke task {task_id}")]
    Failed {
        /// Id of the task.
        task_id: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
