//! What a running task may ask about its call: request facts, cancellation, state, progress.
//!
//! A context does no IO of its own: updates go through [`StateUpdates`], which the worker
//! implements, and calls of other tasks through the client.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{
    CustomEvent, EventError, Registry, Retry, SendEvents, SoftTimeLimitExceeded, State, StateMap,
    TaskDef, TaskError, TaskResult,
};
use crate::client::canvas::{Ready, Step, WorkflowError};
use crate::client::{Client, Lineage, Trail};
use crate::protocol::canvas::Canvas;
use crate::protocol::join::Link;
use crate::protocol::{Map, Serializer, Signature, Value, ValueError, to_value};

/// Facts about one call, as its message and its delivery tell them.
///
/// The fields have the names of Celery's `task.request`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    // The call.
    /// Id of the call.
    pub id: String,
    /// Name of the task.
    pub task: String,
    /// Name to show in logs and monitors instead.
    pub shadow: Option<String>,
    /// The positional arguments as the sender shows them, in Python's notation.
    pub argsrepr: String,
    /// The keyword arguments as the sender shows them.
    pub kwargsrepr: String,
    /// How many times the call was retried before.
    pub retries: u32,
    /// Not to be run before.
    pub eta: Option<Timestamp>,
    /// Not to be started after.
    pub expires: Option<Timestamp>,
    /// Run time after which the task is ended by force.
    pub time_limit: Option<Duration>,
    /// Run time after which the task is asked to end.
    pub soft_time_limit: Option<Duration>,
    /// Whether nobody wants the result.
    pub ignore_result: bool,

    // The workflow that it belongs to.
    /// Id of the first call.
    pub root_id: Option<String>,
    /// Id of the call that sent this one.
    pub parent_id: Option<String>,
    /// Id of the group.
    pub group: Option<String>,
    /// Place in the group.
    pub group_index: Option<i64>,
    /// How often the call was replaced by another one before.
    pub replaced_task_nesting: i64,

    // The message.
    /// Queue to which results go.
    pub reply_to: Option<String>,
    /// Normally the id of the call.
    pub correlation_id: Option<String>,
    /// How the message was written.
    pub serializer: Serializer,
    /// Name of the sender, `1234@host`.
    pub origin: Option<String>,
    /// Headers of the application's own.
    pub headers: Map,
    /// Stamps of the workflow.
    pub stamps: Map,

    // The delivery.
    /// How the message came here.
    pub delivery_info: DeliveryInfo,
    /// Name of this worker.
    pub hostname: String,
}

/// How a message came to the worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryInfo {
    /// Exchange that it was published to.
    pub exchange: String,
    /// Routing key that it was published with.
    pub routing_key: String,
    /// Queue that it was taken from.
    pub queue: String,
    /// Priority of the message.
    pub priority: Option<u8>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
}

/// What the calls in one worker share.
#[derive(Default)]
pub struct Environment {
    /// Values for `State<T>` parameters.
    pub states: StateMap,
    /// Sends calls of other tasks.
    pub client: Option<Client>,
    /// Publishes state updates.
    pub updates: Option<Arc<dyn StateUpdates>>,
    /// Sends events of the task's own; without it, they go nowhere.
    pub events: Option<Arc<dyn SendEvents>>,
    /// The tasks of this worker, which `celery.map` and its like call.
    pub registry: Option<Arc<Registry>>,
    /// Runs the updates of blocking tasks; without one, each of them gets a runtime of its own.
    pub runtime: Option<Handle>,
    /// Makes a client when one is first asked for, where `client` is none.
    pub connect: Option<Connect>,
}

/// Gives a client, or none if the broker cannot be reached. May block for as long as that takes.
pub type Connect = Box<dyn Fn() -> Option<Client> + Send + Sync>;

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("states", &self.states).finish_non_exhaustive()
    }
}

/// Publishes the state of a running task.
///
/// The worker's implementation sends nothing where nobody wants a result.
pub trait StateUpdates: Send + Sync {
    /// Publishes `meta` as the result of `request`, which is now in `state`.
    fn publish(
        &self,
        request: &Request,
        state: &str,
        meta: Value,
    ) -> BoxFuture<'static, Result<(), UpdateError>>;
}

/// A state update that did not reach the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The metadata cannot be written as a value.
    #[error("failed to serialize the metadata of a state update")]
    Meta(#[source] ValueError),
    /// The update could not be published.
    #[error("failed to publish a state update")]
    Publish(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The call that is running, as a parameter of a task. It is not on the wire.
///
/// ```
/// use celeriac::{Context, TaskResult, task};
///
/// #[task]
/// async fn import(cx: Context, rows: u64) -> TaskResult<u64> {
///     for row in 0..rows {
///         if cx.is_cancelled() {
///             return Ok(row);
///         }
///         cx.progress(row, rows).await?;
///     }
///     Ok(rows)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// assert_eq!(import(Context::for_test(), 3).await.unwrap(), 3);
/// # }
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    request: Arc<Request>,
    environment: Arc<Environment>,
    /// What the call has called; made by the first call.
    trail: OnceLock<Arc<Trail>>,
    /// What the call has added to the chord that it is a part of.
    added: Mutex<Vec<Signature>>,
    /// Of all calls. Shared, because a token's own clones take a lock.
    cancelled: Arc<CancellationToken>,
    /// Of this call; made when somebody wants to see it.
    own: OnceLock<CancellationToken>,
    /// Why this call is asked to end: nothing, or some of these.
    asked: AtomicU8,
}

/// This call is asked to end.
const ASKED: u8 = 1;
/// Its soft time limit has passed.
const OUT_OF_TIME: u8 = 2;

impl Context {
    /// The context of one call.
    pub fn new(
        request: Arc<Request>,
        environment: Arc<Environment>,
        cancelled: Arc<CancellationToken>,
    ) -> Self {
        Self(Arc::new(Inner {
            request,
            environment,
            trail: OnceLock::new(),
            added: Mutex::default(),
            cancelled,
            own: OnceLock::new(),
            asked: AtomicU8::new(0),
        }))
    }

    /// A context to call a task's function with in a test: updates go nowhere.
    pub fn for_test() -> Self {
        let request = Request { id: "test".to_owned(), ..Request::default() };
        Self::new(Arc::new(request), Arc::default(), Arc::default())
    }

    /// Everything that is known about the call.
    pub fn request(&self) -> &Request {
        &self.0.request
    }

    /// Id of the call.
    pub fn id(&self) -> &str {
        &self.0.request.id
    }

    /// How many times the call was retried before.
    pub fn retries(&self) -> u32 {
        self.0.request.retries
    }

    /// Whether the task is asked to end: it was revoked, is out of time, or the worker stops.
    pub fn is_cancelled(&self) -> bool {
        let token = self.0.own.get().unwrap_or(&self.0.cancelled);
        self.0.asked.load(Ordering::Acquire) != 0 || token.is_cancelled()
    }

    /// Completes when the task is asked to end.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.cancellation().cancelled()
    }

    /// The token behind [`cancelled`](Self::cancelled), to hand to work that the task starts.
    pub fn cancellation(&self) -> &CancellationToken {
        let token = self.0.own.get_or_init(|| self.0.cancelled.child_token());
        // Whoever asked may have found no token yet.
        if self.0.asked.load(Ordering::SeqCst) != 0 {
            token.cancel();
        }
        token
    }

    /// Completes when the soft time limit of this call has passed. The task may then clean up, and
    /// return what it has, or this as its error; it has until its hard limit, if there is one.
    ///
    /// ```
    /// use celeriac::{Context, TaskResult, task};
    ///
    /// #[task(soft_time_limit = "25s", time_limit = "30s")]
    /// async fn crawl(cx: Context, pages: Vec<String>) -> TaskResult<usize> {
    ///     for (done, page) in pages.iter().enumerate() {
    ///         tokio::select! {
    ///             _ = fetch(page) => {}
    ///             _ = cx.soft_time_limit_exceeded() => return Ok(done),
    ///         }
    ///     }
    ///     Ok(pages.len())
    /// }
    /// # async fn fetch(_: &str) {}
    /// # let _ = crawl::NAME;
    /// ```
    pub async fn soft_time_limit_exceeded(&self) -> SoftTimeLimitExceeded {
        self.cancelled().await;
        match self.check_soft_time_limit() {
            Err(exceeded) => exceeded,
            // It is asked to end for another reason.
            Ok(()) => std::future::pending().await,
        }
    }

    /// For tasks that do not await: `cx.check_soft_time_limit()?` in a loop ends them in time.
    ///
    /// # Errors
    /// When the soft time limit of this call has passed.
    pub fn check_soft_time_limit(&self) -> Result<(), SoftTimeLimitExceeded> {
        match self.0.asked.load(Ordering::Acquire) & OUT_OF_TIME {
            0 => Ok(()),
            _ => Err(SoftTimeLimitExceeded),
        }
    }

    /// Asks this call to end; `out_of_time` if its soft time limit has passed.
    pub(crate) fn ask_to_end(&self, out_of_time: bool) {
        let why = if out_of_time { ASKED | OUT_OF_TIME } else { ASKED };
        self.0.asked.fetch_or(why, Ordering::SeqCst);
        if let Some(token) = self.0.own.get() {
            token.cancel();
        }
    }

    /// Publishes a state of the task's own, with metadata that callers read as its result.
    pub async fn update_state(&self, state: &str, meta: impl Serialize) -> Result<(), UpdateError> {
        match self.update(state, to_value(&meta))? {
            Some(sent) => sent.await,
            None => Ok(()),
        }
    }

    /// As [`update_state`](Self::update_state), for tasks that are no `async fn`.
    ///
    /// Blocks the thread until the update is out; must not be called from async code.
    pub fn update_state_blocking(
        &self,
        state: &str,
        meta: impl Serialize,
    ) -> Result<(), UpdateError> {
        let Some(sent) = self.update(state, to_value(&meta))? else { return Ok(()) };
        if let Some(runtime) = &self.0.environment.runtime {
            return runtime.block_on(sent);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.map_err(|error| UpdateError::Publish(error.into()))?.block_on(sent)
    }

    /// Publishes the state `PROGRESS` with `{"current": done, "total": total}`.
    pub async fn progress(&self, done: u64, total: u64) -> Result<(), UpdateError> {
        self.update_state("PROGRESS", progress(done, total)).await
    }

    /// As [`progress`](Self::progress), for tasks that are no `async fn`.
    pub fn progress_blocking(&self, done: u64, total: u64) -> Result<(), UpdateError> {
        self.update_state_blocking("PROGRESS", progress(done, total))
    }

    /// Tells monitors something that only this task knows, as Celery's `self.send_event` does: an
    /// event of this type with these fields, a map, beside the id of the call.
    ///
    /// It is sent whether or not the worker sends the events of its tasks (`-E`). It never waits,
    /// and may be lost: what somebody relies on is a result. At most 64 KiB of JSON; types that
    /// begin with `worker-` and those that workers and clients use are refused.
    ///
    /// ```
    /// use celeriac::protocol::Map;
    /// use celeriac::{Context, TaskResult, task};
    ///
    /// #[task]
    /// async fn import(cx: Context, rows: u64) -> TaskResult<()> {
    ///     cx.send_event("task-progress", Map::from_iter([("rows", rows)]))?;
    ///     Ok(())
    /// }
    /// # let _ = import::NAME;
    /// ```
    ///
    /// # Errors
    /// When the type or a field cannot be told; see [`EventError`]. Not when nobody gets it.
    pub fn send_event(&self, event_type: &str, fields: impl Serialize) -> Result<(), EventError> {
        let fields = to_value(&fields).map_err(EventError::Fields)?;
        let event = CustomEvent::new(event_type, fields)?;
        if let Some(events) = &self.0.environment.events {
            events.send_event(&self.0.request, event);
        }
        Ok(())
    }

    /// A client whose calls are made on behalf of this one: they carry its id as `parent_id`, its
    /// `root_id`, and its priority unless they have one of their own; the result of this one names
    /// them as its `children`.
    ///
    /// Their ids are derived from this one's, from their task and their arguments: if this call is
    /// delivered again and makes the same calls again, they have the same ids again.
    ///
    /// In a task with `isolate = process` the first call makes a connection of the child's own and
    /// blocks until it is there.
    ///
    /// # Panics
    /// In a context that was made without a client, which workers never do; and in an isolated
    /// task, if the broker cannot be reached.
    pub fn client(&self) -> Client {
        let Inner { request, environment, trail, .. } = &*self.0;
        let client = environment.client.clone();
        let client = client.or_else(|| environment.connect.as_ref().and_then(|connect| connect()));
        // A retry is another run, whose calls are others.
        let trail = trail.get_or_init(|| Arc::new(Trail::new(&request.id, request.retries)));
        client.expect("this context has no client: workers give one, tests may").on_behalf_of(
            Lineage {
                task_id: request.id.as_str().into(),
                root_id: request.root_id.as_deref().unwrap_or(&request.id).into(),
                priority: request.delivery_info.priority,
                trail: Arc::clone(trail),
            },
        )
    }

    /// Takes the references of the results of what the call has called.
    pub(crate) fn take_children(&self) -> Vec<Value> {
        self.0.trail.get().map_or_else(Vec::new, |trail| trail.take())
    }

    /// Adds such references, where another process has made the calls.
    pub(crate) fn add_children(&self, references: Vec<Value>) {
        if references.is_empty() {
            return;
        }
        let Inner { request, trail, .. } = &*self.0;
        let trail = trail.get_or_init(|| Arc::new(Trail::new(&request.id, request.retries)));
        references.into_iter().for_each(|reference| trail.add(reference));
    }

    /// Ends this call in favour of another one, which may be a whole workflow.
    ///
    /// It gets this call's id, its caller, its place in a group or chord, and everything that was
    /// to follow it; this call itself reports nothing. Return what this returns:
    ///
    /// ```
    /// use celeriac::{Context, Signature, TaskResult, task};
    ///
    /// #[task]
    /// async fn total(cx: Context, prices: Vec<i64>) -> TaskResult<i64> {
    ///     if prices.len() > 1000 {
    ///         return cx.replace(Signature::<i64>::new("shop.total_of_many").arg(prices));
    ///     }
    ///     Ok(prices.iter().sum())
    /// }
    /// # let _ = total::NAME;
    /// ```
    ///
    /// A group gives the list of its results.
    ///
    /// # Errors
    /// Always: that is how a task ends early. With a [`TaskError`] of another kind, if the
    /// arguments of the replacement cannot be serialized.
    pub fn replace<T>(&self, by: impl Replacement<T>) -> TaskResult<T> {
        Err(by.into_replacement().map_or_else(TaskError::permanent, TaskError::replace))
    }

    /// Adds a part to the chord that this call is a part of: a signature, or a whole workflow.
    ///
    /// The chord waits for it, too. Its result comes behind those of the header in the list that
    /// the body gets; what several parts have added is in the order of the parts, and what one has
    /// added in the order of its calls. A part that was added may add further ones.
    ///
    /// The parts are sent when this call has succeeded. If it fails, is retried or replaces itself,
    /// nothing is added. Should it run twice, the parts of one of its runs count, and those of the
    /// other do not, or have the same ids.
    ///
    /// ```
    /// use celeriac::{Context, Signature, TaskResult, task};
    ///
    /// #[task]
    /// async fn size_of(cx: Context, entries: Vec<String>) -> TaskResult<usize> {
    ///     for folder in entries.iter().filter(|entry| entry.ends_with('/')) {
    ///         cx.add_to_chord(Signature::<usize>::new("tree.size_of_folder").arg(folder))?;
    ///     }
    ///     Ok(entries.len())
    /// }
    /// # let _ = size_of::NAME;
    /// ```
    ///
    /// # Errors
    /// When this call is no part of a chord, or a step of a chain that is one and not its last;
    /// when the workflow cannot be built; beyond 65,535 parts, or eight parts that have added one
    /// another.
    pub fn add_to_chord<S: Step<In: Ready>>(&self, part: S) -> Result<(), TaskError> {
        let refused = |text: &str| Err(TaskError::permanent(text.to_owned()));
        let link = self.0.request.headers.get(Link::HEADER).map(Link::from_value);
        let Some(Ok(link)) = link else {
            return refused("only a part of a chord can add to it, and this call is none");
        };
        if !link.is_final {
            return refused("only the last step of a chain adds to the chord that it is a part of");
        }
        let part = part.into_canvas().map_err(TaskError::permanent)?.into_signature();
        let mut added = self.0.added.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(added.len()).unwrap_or(u32::MAX).saturating_add(1);
        if link.index.added(next).is_none() {
            return refused("a part adds at most 65,535 others, eight levels deep");
        }
        added.push(part);
        Ok(())
    }

    /// Takes what the call has added to its chord.
    pub(crate) fn take_added(&self) -> Vec<Signature> {
        std::mem::take(&mut *self.0.added.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds parts that were added in another process. What is no signature was not added by one.
    pub(crate) fn put_added(&self, parts: Vec<Value>) {
        let mut added = self.0.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.extend(parts.into_iter().filter_map(|part| Signature::from_value(part).ok()));
    }

    /// Asks for another run of this call; return what it gives as an error. See [`Retry`].
    pub fn retry(&self) -> Retry {
        Retry::default()
    }

    /// The task of this name, if this worker has it.
    pub(super) fn task(&self, name: &str) -> Option<&'static TaskDef> {
        self.0.environment.registry.as_ref()?.task(name)
    }

    /// Shared state by its type, as a `State<T>` parameter gets it.
    pub fn state<T: ?Sized + Send + Sync + 'static>(&self) -> Result<State<T>, TaskError> {
        self.0.environment.states.state().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            TaskError::permanent(format!("the worker has no state of type {name}"))
        })
    }

    fn update(
        &self,
        state: &str,
        meta: Result<Value, ValueError>,
    ) -> Result<Option<BoxFuture<'static, Result<(), UpdateError>>>, UpdateError> {
        let meta = meta.map_err(UpdateError::Meta)?;
        let updates = self.0.environment.updates.as_ref();
        Ok(updates.map(|updates| updates.publish(&self.0.request, state, meta)))
    }
}

/// What can take the place of a call whose result is a `T`: a signature or workflow that yields
/// one, or a [`protocol::Signature`](Signature) that came as an argument, of which nobody knows
/// what it yields.
pub trait Replacement<T> {
    /// The call or workflow as other messages carry it.
    ///
    /// # Errors
    /// The first mistake that was made in building it.
    fn into_replacement(self) -> Result<Signature, WorkflowError>;
}

impl<S: Step<In: Ready>> Replacement<S::Out> for S {
    fn into_replacement(self) -> Result<Signature, WorkflowError> {
        self.into_canvas().map(Canvas::into_signature)
    }
}

impl<T> Replacement<T> for Signature {
    fn into_replacement(self) -> Result<Signature, WorkflowError> {
        Ok(self)
    }
}

fn progress(done: u64, total: u64) -> Map {
    Map::from_iter([("current", done), ("total", total)])
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("request", &self.0.request).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<(String, String, Value)>>);

    impl StateUpdates for Recorded {
        fn publish(
            &self,
            request: &Request,
            state: &str,
            meta: Value,
        ) -> BoxFuture<'static, Result<(), UpdateError>> {
            let update = (request.id.clone(), state.to_owned(), meta);
            self.0.lock().unwrap().push(update);
            Box::pin(async { Ok(()) })
        }
    }

    fn setup() -> (Context, Arc<Recorded>) {
        let recorded = Arc::new(Recorded::default());
        let updates: Arc<dyn StateUpdates> = Arc::clone(&recorded) as _;
        let environment = Environment { updates: Some(updates), ..Environment::default() };
        let request = Request { id: "7".into(), ..Request::default() };
        let context = Context::new(Arc::new(request), Arc::new(environment), Arc::default());
        (context, recorded)
    }

    #[tokio::test]
    async fn updates_are_published_with_the_id_of_the_call() {
        let (context, recorded) = setup();
        context.update_state("COPYING", "a.txt").await.unwrap();
        context.progress(1, 3).await.unwrap();
        let progress = Map::from_iter([("current", 1_i64), ("total", 3)]);
        assert_eq!(
            *recorded.0.lock().unwrap(),
            [
                ("7".into(), "COPYING".into(), "a.txt".into()),
                ("7".into(), "PROGRESS".into(), Value::Map(progress)),
            ]
        );
    }

    #[test]
    fn blocking_tasks_can_publish_too() {
        let (context, recorded) = setup();
        context.progress_blocking(1, 3).unwrap();
        assert_eq!(recorded.0.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn metadata_that_is_not_a_value_is_refused() {
        let (context, recorded) = setup();
        let meta = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(matches!(context.update_state("X", meta).await, Err(UpdateError::Meta(_))));
        assert!(recorded.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn cancellation_reaches_every_clone() {
        let context = Context::for_test();
        let clone = context.clone();
        context.cancellation().cancel();
        clone.cancelled().await;
        assert!(clone.is_cancelled());
    }
}
