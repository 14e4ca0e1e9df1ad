//! What `#[task]` knows about a function: name, place, options, parameters, and how to run it.
//!
//! Definitions are constants. They say nothing about one call; that is [`Invocation`]'s part.

use std::any::TypeId;
use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Context, TaskResult};
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

    // Used by the worker.
    /// When the message is acknowledged.
    pub acks: Option<Acks>,
    /// Run time after which the task is ended by force.
    pub time_limit: Option<Duration>,
    /// Run time after which the task is asked to end.
    pub soft_time_limit: Option<Duration>,
    /// How many times a retryable error runs the task again.
    pub max_retries: Option<u32>,
    /// Time before the first of them.
    pub retry_delay: Option<Duration>,
    /// Whether the state STARTED is published.
    pub track_started: Option<bool>,
}

impl TaskOptions {
    /// No option set.
    pub const DEFAULT: Self = Self {
        queue: None,
        priority: None,
        serializer: None,
        ignore_result: None,
        acks: None,
        time_limit: None,
        soft_time_limit: None,
        max_retries: None,
        retry_delay: None,
        track_started: None,
    };
}

impl TaskOptions {
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

/// When a task's message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// After the task has run and its result is stored: a killed worker loses nothing.
    Late,
    /// Before the task runs: it never runs twice, and is lost with its worker.
    Early,
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
