//! What `#[task]` knows about a function: name, place, options, parameters, and how to run it.
//!
//! Definitions are constants. They say nothing about one call; that is [`Invocation`]'s part.

use std::any::TypeId;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Context, ErrorClass, LimitKey, RateLimit, TaskResult};
use crate::protocol::{Map, Serializer, Value};

/// One task, as the registry keeps it.
///
/// Written by `#[task]`; programs get it from the task's `def()`.
#[derive(Debug)]
pub struct TaskDef {
    /// Name on the wire: by default the path of the function with dots, `shop.orders.charge`.
    pub name: &'static str,
    /// Source file of the function.
    pub file: &'static str,
    /// Line in that file.
    pub line: u32,
    /// Options from the attribute.
    pub options: TaskOptions,
    /// Parameters that are on the wire, in order.
    pub params: &'static [Param],
    /// Whether there is a [`Context`] parameter; what Celery calls a bound task.
    pub bound: bool,
    /// Types of the `State<T>` parameters.
    pub states: &'static [StateType],
    /// Runs the function.
    pub run: Run,
}

/// A [`TaskDef`] that registers itself, without a central list.
#[doc(hidden)]
#[derive(Debug)]
pub struct Submitted(pub &'static TaskDef);

inventory::collect!(Submitted);

/// Options of the `#[task]` attribute; `None` leaves the choice to the caller or the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskOptions {
    // Used by the sender.
    /// Queue to send to, unless the call or a route says otherwise.
    pub queue: Option<&'static str>,
    /// Priority of the message, 0 to 255.
    pub priority: Option<u8>,
    /// How arguments are written, and results unless the caller asks otherwise.
    pub serializer: Option<Serializer>,
    /// Whether nobody wants the result.
    pub ignore_result: Option<bool>,
    /// For how long a call with the same arguments is not sent again; not for steps of workflows.
    pub unique: Option<Duration>,

    // Used by the worker.
    /// How many calls of the task run at once in the whole fleet.
    pub global_concurrency: Option<NonZeroU32>,
    /// What these are counted by instead of the task: calls with the same key share the limit,
    /// also those of other tasks.
    pub concurrency_key: Option<LimitKey>,
    /// How often the task may start in the whole fleet: from once in ten days to 10,000 times a
    /// second.
    pub global_rate_limit: Option<RateLimit>,
    /// What these starts are counted by instead of the task.
    pub rate_key: Option<LimitKey>,
    /// When the message is acknowledged.
    pub acks: Option<Acks>,
    /// Run time after which the task is ended by force.
    pub time_limit: Option<Duration>,
    /// Run time after which the task is asked to end.
    pub soft_time_limit: Option<Duration>,
    /// How many times a retryable error runs the task again. With this or another option about
    /// retries it does by itself; the default is then 3.
    pub max_retries: Option<u32>,
    /// Time before each of them; the default is 3 minutes, as in Celery.
    pub retry_delay: Option<Duration>,
    /// Time before the first of them, doubled for each that follows.
    pub retry_backoff: Option<Duration>,
    /// The longest of these times; the default is 10 minutes.
    pub retry_backoff_max: Option<Duration>,
    /// Whether these times are random, between nothing and what they would be; the default is yes.
    pub retry_jitter: Option<bool>,
    /// The errors after which the task is run again; with none named, after all.
    pub retry_for: &'static [ErrorClass],
    /// The errors after which it is not.
    pub dont_retry_for: &'static [ErrorClass],
    /// Whether the state STARTED is published.
    pub track_started: Option<bool>,
    /// Whether it runs apart from the worker.
    pub isolate: Option<Isolate>,
    /// Whether the message is delivered again when the process that ran an isolated task went
    /// away; otherwise the task has failed. The delivery limit of the queue bounds it.
    pub reject_on_worker_lost: Option<bool>,
    /// How often the task may start in one worker.
    pub rate_limit: Option<RateLimit>,
    /// What becomes of a running task whose message the broker has taken back.
    pub on_connection_loss: Option<OnConnectionLoss>,
}

impl TaskOptions {
    /// No option set.
    pub const DEFAULT: Self = Self {
        queue: None,
        priority: None,
        serializer: None,
        ignore_result: None,
        unique: None,
        global_concurrency: None,
        concurrency_key: None,
        global_rate_limit: None,
        rate_key: None,
        acks: None,
        time_limit: None,
        soft_time_limit: None,
        max_retries: None,
        retry_delay: None,
        retry_backoff: None,
        retry_backoff_max: None,
        retry_jitter: None,
        retry_for: &[],
        dont_retry_for: &[],
        track_started: None,
        isolate: None,
        reject_on_worker_lost: None,
        rate_limit: None,
        on_connection_loss: None,
    };
}

impl TaskOptions {
    /// Whether a retryable error runs the task again although it does not ask for that.
    pub(crate) fn retries_by_itself(&self) -> bool {
        let Self { max_retries, retry_delay, retry_backoff, retry_for, dont_retry_for, .. } = self;
        max_retries.is_some()
            || retry_delay.is_some()
            || retry_backoff.is_some()
            || !retry_for.is_empty()
            || !dont_retry_for.is_empty()
    }

    /// Adds to the options of a call what the sender decides and the call leaves open.
    pub(crate) fn complete(&self, call: &mut Map) {
        let mut set = |key: &'static str, value: Option<Value>| {
            if let Some(value) = value
                && call.get(key).is_none_or(Value::is_null)
            {
                call.insert(key, value);
            }
        };
        set("priority", self.priority.map(|it| u32::from(it).into()));
        set("ignore_result", self.ignore_result.map(Value::from));
        set("time_limit", self.time_limit.map(|it| it.as_secs_f64().into()));
        set("soft_time_limit", self.soft_time_limit.map(|it| it.as_secs_f64().into()));
        let addressed = ["queue", "exchange", "routing_key"].into_iter();
        if addressed.filter_map(|key| call.get(key)).all(Value::is_null)
            && let Some(queue) = self.queue
        {
            call.insert("queue", queue);
        }
    }
}

/// What a task is kept apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolate {
    /// It runs in a child process, which is killed when the task must end.
    Process,
}

/// When a task's message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// After the task has run and its result is stored: a killed worker loses nothing.
    Late,
    /// Before the task runs: it never runs twice, and is lost with its worker.
    Early,
}

/// What becomes of a task that acks late and runs while the connection of its message is lost.
///
/// The broker then delivers the message again, to this worker or to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConnectionLoss {
    /// It goes on. If the message comes back to this worker, it is not run again: it waits for
    /// the end of the one that runs, and is acked with it. The default.
    Recognise,
    /// It goes on, its result is published, and the message runs once more wherever it comes.
    Finish,
    /// It is stopped at its next await; a task that blocks its thread sees that it is cancelled.
    Cancel,
}

/// A parameter that is read from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name, as keyword arguments use it.
    pub name: &'static str,
    /// Whether callers may leave it out.
    pub has_default: bool,
}

/// A type that a task wants as `State<T>`.
#[derive(Clone, Copy)]
pub struct StateType {
    id: fn() -> TypeId,
    name: fn() -> &'static str,
}

impl StateType {
    /// The type `T`.
    pub const fn of<T: ?Sized + 'static>() -> Self {
        Self { id: TypeId::of::<T>, name: std::any::type_name::<T> }
    }

    /// Identity of the type.
    pub fn id(&self) -> TypeId {
        (self.id)()
    }

    /// Path of the type, for messages.
    pub fn name(&self) -> &'static str {
        (self.name)()
    }
}

impl fmt::Debug for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StateType").field(&self.name()).finish()
    }
}

/// How a task's function is run.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// An `async fn`; the future does nothing before it is polled.
    Async(fn(Invocation) -> BoxFuture<'static, TaskResult>),
    /// A plain `fn`, to be called on a thread that may block.
    Blocking(fn(Invocation) -> TaskResult),
}

/// One call of a task: its arguments, and what its function may ask about it.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map,
    /// Request facts, state and cancellation.
    pub context: Context,
}
