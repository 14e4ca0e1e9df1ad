//! The caller's handle on a group of tasks.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, try_join_all};
use futures::stream::FuturesUnordered;
use serde::de::DeserializeOwned;

use super::{AnyResult, AsyncResult, ResultError};
use crate::protocol::{TaskState, Value, from_value};

/// The results of a group, now or later; their order is the order of the members.
///
/// `Out` is what the values are read as: a `Vec`, or a tuple for members of different types. Cheap
/// to clone. When the last clone is dropped, the results are forgotten.
pub struct GroupResult<Out = Vec<Value>> {
    id: Arc<str>,
    members: Arc<[AnyResult]>,
    parent: Option<Arc<AnyResult>>,
    output: PhantomData<fn() -> Out>,
}

impl<Out> GroupResult<Out> {
    pub(super) fn new(
        id: Arc<str>,
        members: Vec<AnyResult>,
        parent: Option<Arc<AnyResult>>,
    ) -> Self {
        Self { id, members: members.into(), parent, output: PhantomData }
    }

    /// Id of the group.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.id)
    }

    /// The results of the members, in order.
    pub fn results(&self) -> &[AnyResult] {
        &self.members
    }

    /// The result that the group follows from.
    pub fn parent(&self) -> Option<&AnyResult> {
        self.parent.as_deref()
    }

    pub(super) fn take_parent(&mut self) -> Option<Arc<AnyResult>> {
        self.parent.take()
    }

    /// Whether no task of the group reports to this client, so that nothing is ever known here of
    /// how far the group is: it is the header of a chord that was not asked for `header_results`.
    /// [`Client::chord_progress`](crate::Client::chord_progress) with the [`id`](Self::id) of the
    /// group asks the joiner instead.
    pub fn ignored(&self) -> bool {
        let mut tasks = Vec::new();
        leaves(&self.members, &mut tasks);
        !tasks.is_empty() && tasks.iter().all(AsyncResult::ignored)
    }

    /// How many tasks have succeeded. Of tasks that do not [report](Self::ignored), none has.
    pub fn completed_count(&self) -> usize {
        self.count(&|state| *state == TaskState::Success)
    }

    /// Whether all tasks have ended.
    pub fn ready(&self) -> bool {
        self.count(&|state| !state.is_ready()) == 0
    }

    /// Whether all tasks have succeeded.
    pub fn successful(&self) -> bool {
        self.count(&|state| *state != TaskState::Success) == 0
    }

    /// Whether a task has failed or was revoked.
    pub fn failed(&self) -> bool {
        self.count(&|state| state.is_ready() && *state != TaskState::Success) > 0
    }

    /// Whether a task has not ended.
    pub fn waiting(&self) -> bool {
        !self.ready()
    }

    /// How many tasks there are, those of groups within the group included.
    pub fn len(&self) -> usize {
        self.count(&|_| true)
    }

    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Follows how many tasks have ended, of those that [report](Self::ignored).
    ///
    /// ```no_run
    /// # async fn example(group: celeriac::GroupResult) {
    /// let total = group.len();
    /// let mut progress = group.progress();
    /// while let Some(ended) = progress.next().await {
    ///     println!("{ended} of {total}");
    /// }
    /// # }
    /// ```
    pub fn progress(&self) -> GroupProgress {
        let mut tasks = Vec::new();
        leaves(&self.members, &mut tasks);
        tasks.retain(|task| !task.ignored());
        let wait = |task: AsyncResult| -> BoxFuture<'static, bool> {
            Box::pin(async move { !matches!(task.ended().await, Err(ResultError::Closed { .. })) })
        };
        GroupProgress { waiting: tasks.into_iter().map(wait).collect(), ended: 0 }
    }

    /// Drops interest in the results; what still arrives is discarded.
    pub fn forget(self) {
        drop(self);
    }

    /// The same group with its values read as another type.
    pub fn typed<U>(&self) -> GroupResult<U> {
        GroupResult {
            id: Arc::clone(&self.id),
            members: Arc::clone(&self.members),
            parent: self.parent.clone(),
            output: PhantomData,
        }
    }

    fn count(&self, counts: &dyn Fn(&TaskState) -> bool) -> usize {
        let each = |member: &AnyResult| match member {
            AnyResult::Task(task) => usize::from(counts(&task.state())),
            AnyResult::Group(group) => group.count(counts),
        };
        self.members.iter().map(each).sum()
    }
}

impl<Out: DeserializeOwned> GroupResult<Out> {
    /// Waits for all values, for at most `timeout`.
    ///
    /// # Errors
    /// As [`AsyncResult::get`]; the first task that fails ends the wait.
    pub async fn get(&self, timeout: Duration) -> Result<Out, ResultError> {
        match tokio::time::timeout(timeout, values(&self.members)).await {
            Ok(values) => self.read(values?),
            Err(_) => Err(ResultError::Timeout { task_id: self.id.to_string(), waited: timeout }),
        }
    }

    fn read(&self, values: Vec<Value>) -> Result<Out, ResultError> {
        from_value(Value::Array(values))
            .map_err(|source| ResultError::Mismatch { task_id: self.id.to_string(), source })
    }
}

impl<Out: DeserializeOwned + Send + 'static> IntoFuture for GroupResult<Out> {
    type Output = Result<Out, ResultError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.read(values(&self.members).await?) })
    }
}

/// The values of all members; groups among them give lists.
fn values(members: &[AnyResult]) -> BoxFuture<'_, Result<Vec<Value>, ResultError>> {
    Box::pin(try_join_all(members.iter().map(value)))
}

async fn value(member: &AnyResult) -> Result<Value, ResultError> {
    match member {
        AnyResult::Task(task) => task.value().await,
        AnyResult::Group(group) => values(&group.members).await.map(Value::Array),
    }
}

fn leaves(members: &[AnyResult], into: &mut Vec<AsyncResult>) {
    for member in members {
        match member {
            AnyResult::Task(task) => into.push(task.clone()),
            AnyResult::Group(group) => leaves(&group.members, into),
        }
    }
}

impl<Out> Clone for GroupResult<Out> {
    fn clone(&self) -> Self {
        self.typed()
    }
}

impl<Out> Drop for GroupResult<Out> {
    fn drop(&mut self) {
        AnyResult::drop_line(self.parent.take());
    }
}

impl<Out> std::fmt::Debug for GroupResult<Out> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupResult")
            .field("id", &self.id())
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

/// How many tasks of a group have ended, each time that one does.
pub struct GroupProgress {
    /// Give false when no report can come any more.
    waiting: FuturesUnordered<BoxFuture<'static, bool>>,
    ended: usize,
}

impl GroupProgress {
    /// Waits for the next task to end, and says how many have; `None` after the last one, or when
    /// the client is closed.
    pub async fn next(&mut self) -> Option<usize> {
        if !self.waiting.next().await? {
            return None;
        }
        self.ended += 1;
        Some(self.ended)
    }
}

impl std::fmt::Debug for GroupProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupProgress").field("ended", &self.ended).finish_non_exhaustive()
    }
}
