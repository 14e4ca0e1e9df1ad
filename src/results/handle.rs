//! The caller's handle on one task.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::inbox::Registration;
use super::slot::Known;
use super::{AnyResult, ResultError, RevokeError, TaskFailure};
use crate::protocol::{Exception, ResultMeta, TaskState, Value, from_value};

/// The result of a task that was sent, now or later.
///
/// Cheap to clone. Awaiting it waits without limit; [`get`](Self::get) has a timeout. When the
/// last clone is dropped, the result is forgotten and a report that still arrives is dropped.
pub struct AsyncResult<T = Value> {
    task_id: Arc<str>,
    /// `None` for calls with `ignore_result`.
    registration: Option<Arc<Registration>>,
    parent: Option<Arc<AnyResult>>,
    output: PhantomData<fn() -> T>,
}

impl<T> AsyncResult<T> {
    pub(crate) fn new(task_id: Arc<str>, registration: Option<Arc<Registration>>) -> Self {
        Self { task_id, registration, parent: None, output: PhantomData }
    }

    /// The same result, which follows from `parent`.
    pub(crate) fn after(mut self, parent: Option<Arc<AnyResult>>) -> Self {
        self.parent = parent;
        self
    }

    /// The result that this one follows from: of the step before in a chain, of the header of a
    /// chord. `None` where a workflow begins.
    pub fn parent(&self) -> Option<&AnyResult> {
        self.parent.as_deref()
    }

    /// Id of the task.
    pub fn id(&self) -> &str {
        &self.task_id
    }

    /// Whether the call was made without a wish for its result: then nothing ever arrives here.
    pub fn ignored(&self) -> bool {
        self.registration.is_none()
    }

    /// The latest state that was reported; `PENDING` if there was no report.
    ///
    /// As in Celery, `PENDING` also stands for a task that nobody knows.
    pub fn state(&self) -> TaskState {
        self.look(|meta| meta.status.clone()).unwrap_or(TaskState::Pending)
    }

    /// Whether the task has ended: `SUCCESS`, `FAILURE` or `REVOKED`.
    pub fn ready(&self) -> bool {
        self.look(|meta| meta.status.is_ready()).unwrap_or(false)
    }

    /// The latest report with everything in it.
    pub fn latest(&self) -> Option<ResultMeta> {
        self.look(Clone::clone)
    }

    /// Looks at the latest report where it is: its value may be large.
    fn look<R>(&self, at: impl FnOnce(&ResultMeta) -> R) -> Option<R> {
        self.registration.as_ref()?.slot().known().latest.as_ref().map(at)
    }

    /// Follows the task: every state that is reported from now on, the final one last.
    pub fn updates(&self) -> Updates {
        Updates { registration: self.registration.clone(), seen: 0, ended: false }
    }

    /// Drops interest in the result; what still arrives is discarded.
    pub fn forget(self) {
        drop(self);
    }

    /// Revokes the task: it is not run any more if it has not started, and its result is
    /// `REVOKED`. With `terminate` it is ended even if it runs: an async task at its next await,
    /// one in a process of its own at once.
    ///
    /// Returns when the broker has it, for workers that start later, too. A task that has ended
    /// already keeps its result.
    ///
    /// # Errors
    /// [`RevokeError::Ignored`] for a call without a result, [`RevokeError::Closed`] when its
    /// client is gone, [`RevokeError::Failed`] when the broker does not take it.
    pub async fn revoke(&self, terminate: bool) -> Result<(), RevokeError> {
        let task_id = || self.task_id.to_string();
        let Some(registration) = &self.registration else {
            return Err(RevokeError::Ignored { task_id: task_id() });
        };
        match registration.revoker() {
            Some(revoker) => revoker.revoke(&self.task_id, terminate).await,
            None => Err(RevokeError::Closed { task_id: task_id() }),
        }
    }

    /// The same task with its value read as another type.
    pub fn typed<U>(self) -> AsyncResult<U> {
        let Self { task_id, registration, parent, .. } = &self;
        AsyncResult::new(task_id.clone(), registration.clone()).after(parent.clone())
    }

    /// Takes what keeps this result from being dropped at once.
    pub(super) fn take_parent(&mut self) -> Option<Arc<AnyResult>> {
        self.parent.take()
    }

    /// Waits for the value as it came.
    pub(super) async fn value(&self) -> Result<Value, ResultError> {
        value(self.ended().await?)
    }

    /// Waits for the final report.
    pub(super) async fn ended(&self) -> Result<ResultMeta, ResultError> {
        let Some(registration) = &self.registration else {
            return Err(ResultError::Ignored { task_id: self.task_id.to_string() });
        };
        let ended = |known: &Known| match &known.latest {
            Some(meta) if meta.status.is_ready() => Some(Some(meta.clone())),
            _ if known.closed => Some(None),
            _ => None,
        };
        registration
            .slot()
            .wait_for(ended)
            .await
            .ok_or_else(|| ResultError::Closed { task_id: self.task_id.to_string() })
    }
}

impl<T: DeserializeOwned> AsyncResult<T> {
    /// Waits for the value, for at most `timeout`.
    ///
    /// # Errors
    /// [`ResultError::Timeout`] when nothing came in time (ask again if you like),
    /// [`ResultError::Failed`] when the task failed or was revoked, and the other variants of
    /// [`ResultError`].
    pub async fn get(&self, timeout: Duration) -> Result<T, ResultError> {
        match tokio::time::timeout(timeout, self.ended()).await {
            Ok(ended) => read(ended?),
            Err(_) => {
                Err(ResultError::Timeout { task_id: self.task_id.to_string(), waited: timeout })
            }
        }
    }
}

/// Turns a final report into the value or the error.
fn read<T: DeserializeOwned>(meta: ResultMeta) -> Result<T, ResultError> {
    let task_id = meta.task_id.clone();
    from_value(value(meta)?).map_err(|source| ResultError::Mismatch { task_id, source })
}

fn value(meta: ResultMeta) -> Result<Value, ResultError> {
    let ResultMeta { task_id, status, result, traceback, .. } = meta;
    if status == TaskState::Success {
        return Ok(result);
    }
    let exception = Exception::from_value(&result)
        .unwrap_or_else(|| Exception::new("builtins", "Exception", result));
    Err(ResultError::Failed(Box::new(TaskFailure { task_id, state: status, exception, traceback })))
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for AsyncResult<T> {
    type Output = Result<T, ResultError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { read(self.ended().await?) })
    }
}

impl<T> Clone for AsyncResult<T> {
    fn clone(&self) -> Self {
        Self::new(self.task_id.clone(), self.registration.clone()).after(self.parent.clone())
    }
}

impl<T> Drop for AsyncResult<T> {
    fn drop(&mut self) {
        AnyResult::drop_line(self.parent.take());
    }
}

impl<T> std::fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncResult").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The reports on one task, in order of arrival.
///
/// A reader that falls behind by more than 32 reports misses the oldest, so that a chatty task
/// costs a bounded memory.
#[derive(Debug)]
pub struct Updates {
    registration: Option<Arc<Registration>>,
    seen: u64,
    ended: bool,
}

impl Updates {
    /// Waits for the next report; `None` after the final one.
    pub async fn next(&mut self) -> Option<ResultMeta> {
        if self.ended {
            return None;
        }
        let seen = self.seen;
        let newer = |known: &Known| match known.after(seen) {
            Some((number, report)) => Some(Some((number, report.clone()))),
            None if known.closed => Some(None),
            None => None,
        };
        let (number, meta) = self.registration.as_ref()?.slot().wait_for(newer).await?;
        self.seen = number;
        self.ended = meta.status.is_ready();
        Some(meta)
    }
}
