//! A call that is not made yet: task, arguments and options, with the type of its result.
//!
//! Building one is pure. Arguments that cannot be serialized are remembered as an error, which
//! the send reports, so that builder chains need no `?`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::canvas::{Complete, Fits, Immutable, Ready, Step, Takes, WorkflowError};
use super::unique::Unique;
use super::{Client, SendError};
use crate::protocol::{
    self, CallOptions, Compression, Expires, Map, Serializer, Value, ValueError, to_value,
};
use crate::results::AsyncResult;

/// A call of a task whose result is an `Out`.
///
/// `#[task]` functions make typed ones (`add::s(2, 2)`); [`Signature::new`] names any task, also
/// one that lives in a Python program. The builder methods are Celery's options of `apply_async`.
///
/// ```
/// use std::time::Duration;
/// use celeriac::Signature;
///
/// let call = Signature::<i64>::new("proj.add")
///     .arg(2)
///     .kwarg("y", 3)
///     .queue("sums")
///     .countdown(Duration::from_secs(10));
/// assert_eq!(call.task(), "proj.add");
/// ```
///
/// `In` says how the signature begins as a step of a workflow: [`Complete`] ones have all their
/// arguments, [`Takes<T>`] ones wait for the result of the step before, and [`Immutable`] ones
/// ignore it.
#[must_use = "a signature does nothing until it is sent"]
pub struct Signature<Out = Value, In = Complete> {
    pub(crate) task: Cow<'static, str>,
    pub(crate) args: Vec<Value>,
    pub(crate) kwargs: Map,
    pub(crate) options: CallOptions,
    pub(crate) immutable: bool,
    /// Whether, and for how long, it is to be the only one of its kind.
    pub(crate) unique: Option<Unique>,
    /// The first argument that could not be serialized.
    pub(crate) error: Option<ValueError>,
    types: PhantomData<fn(In) -> Out>,
}

impl<Out> Signature<Out> {
    /// A call of the task `name` without arguments.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            task: name.into(),
            args: Vec::new(),
            kwargs: Map::new(),
            options: CallOptions::default(),
            immutable: false,
            unique: None,
            error: None,
            types: PhantomData,
        }
    }

    /// Leaves the first argument to the result of the step before, in a workflow.
    ///
    /// For calls by name; `#[task]` functions have a `partial` of their own.
    ///
    /// ```
    /// use celeriac::{Signature, chain};
    ///
    /// let sum = Signature::<i64>::new("proj.add").arg(2).arg(2);
    /// let times = Signature::<i64>::new("proj.mul").arg(10).partial();
    /// let workflow = sum | times;
    /// # let _ = workflow;
    /// ```
    pub fn partial<T>(self) -> Signature<Out, Takes<T>> {
        self.beginning()
    }

    /// Ignores the result of the step before, in a workflow.
    pub fn si(self) -> Signature<Out, Immutable> {
        self.immutable(true).beginning()
    }
}

impl<Out> Signature<Out, Takes<Value>> {
    /// The same for the result of a step that yields a `T`: what takes any value takes that, too.
    ///
    /// ```
    /// use celeriac::{Value, task};
    ///
    /// #[task]
    /// async fn show(value: Value) -> String {
    ///     format!("{value:?}")
    /// }
    ///
    /// #[task]
    /// async fn add(x: i64, y: i64) -> i64 {
    ///     x + y
    /// }
    ///
    /// let workflow = add::s(2, 2) | show::partial().taking();
    /// # let _ = workflow;
    /// ```
    pub fn taking<T>(self) -> Signature<Out, Takes<T>> {
        self.beginning()
    }
}

impl<Out, In> Signature<Out, In> {
    /// The same call with another type of beginning.
    pub(super) fn beginning<To>(self) -> Signature<Out, To> {
        let Self { task, args, kwargs, options, immutable, unique, error, .. } = self;
        Signature { task, args, kwargs, options, immutable, unique, error, types: PhantomData }
    }

    /// The same call with its result read as another type.
    pub fn typed<To>(self) -> Signature<To, In> {
        let Self { task, args, kwargs, options, immutable, unique, error, .. } = self;
        Signature { task, args, kwargs, options, immutable, unique, error, types: PhantomData }
    }

    /// Name of the task.
    pub fn task(&self) -> &str {
        &self.task
    }

    /// The options that are set so far.
    pub fn options(&self) -> &CallOptions {
        &self.options
    }

    /// Adds a positional argument.
    pub fn arg(mut self, value: impl Serialize) -> Self {
        match to_value(&value) {
            Ok(value) => self.args.push(value),
            Err(error) => {
                let at = self.args.len();
                self.fail(error.in_item(at).in_key("args"));
            }
        }
        self
    }

    /// Adds positional arguments that are values already.
    pub fn args(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.args.extend(values);
        self
    }

    /// Adds keyword arguments that are values already.
    pub fn kwargs(mut self, values: Map) -> Self {
        for (name, value) in values {
            self.kwargs.insert(name, value);
        }
        self
    }

    /// Sets a keyword argument.
    pub fn kwarg(mut self, name: impl Into<Cow<'static, str>>, value: impl Serialize) -> Self {
        let name = name.into();
        match to_value(&value) {
            Ok(value) => self.kwargs.insert(name, value),
            Err(error) => self.fail(error.in_key(name)),
        }
        self
    }

    /// Whether results of earlier tasks of a chain are kept out of the arguments.
    pub fn immutable(mut self, immutable: bool) -> Self {
        self.immutable = immutable;
        self
    }

    /// Sets the id of the call; by default it is a random UUID.
    pub fn task_id(mut self, id: impl Into<String>) -> Self {
        self.options.task_id = Some(id.into());
        self
    }

    /// Runs the task not before this time from the send on.
    pub fn countdown(mut self, delay: Duration) -> Self {
        self.options.countdown = Some(delay);
        self
    }

    /// Runs the task not before this moment.
    pub fn eta(mut self, at: Timestamp) -> Self {
        self.options.eta = Some(at);
        self
    }

    /// Gives the call up if it has not been started by then.
    pub fn expires(mut self, expires: impl Into<Expires>) -> Self {
        self.options.expires = Some(expires.into());
        self
    }

    /// Sends to this queue, whatever the routes say.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.options.queue = Some(queue.into());
        self
    }

    /// Sends through this exchange.
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.options.exchange = Some(exchange.into());
        self
    }

    /// Sends with this routing key.
    pub fn routing_key(mut self, key: impl Into<String>) -> Self {
        self.options.routing_key = Some(key.into());
        self
    }

    /// Sets the priority, 0 to 255; higher first, where the queue knows priorities.
    pub fn priority(mut self, priority: u8) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// Sets a message header of the application's own.
    pub fn header(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.options.headers.insert(key, value);
        self
    }

    /// Chooses how the arguments are written.
    pub fn serializer(mut self, serializer: Serializer) -> Self {
        self.options.serializer = Some(serializer);
        self
    }

    /// Compresses the body.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.options.compression = Some(compression);
        self
    }

    /// Asks the worker to keep the result to itself.
    pub fn ignore_result(mut self, ignore: bool) -> Self {
        self.options.ignore_result = Some(ignore);
        self
    }

    /// Shows the call under another name in logs and monitors.
    pub fn shadow(mut self, name: impl Into<String>) -> Self {
        self.options.shadow = Some(name.into());
        self
    }

    /// Sends the result to this queue instead of the client's own. The handle that the send
    /// returns then sees nothing.
    pub fn reply_to(mut self, queue: impl Into<String>) -> Self {
        self.options.reply_to = Some(queue.into());
        self
    }

    /// Ends the task by force after this run time.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = Some(limit);
        self
    }

    /// Asks the task to end after this run time.
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.options.soft_time_limit = Some(limit);
        self
    }

    /// Calls another task or workflow with the result, once this one has succeeded.
    pub fn link<S: Step>(mut self, callback: S) -> Self
    where
        S::In: Fits<Out>,
    {
        match callback.into_canvas() {
            Ok(callback) => self.options.link.push(callback.into_signature()),
            Err(error) => self.fail_in("link", error),
        }
        self
    }

    /// Calls another task or workflow once this one has failed, with the id of this call.
    pub fn link_error<S: Step>(mut self, errback: S) -> Self {
        match errback.into_canvas() {
            Ok(errback) => self.options.link_error.push(errback.into_signature()),
            Err(error) => self.fail_in("link_error", error),
        }
        self
    }

    /// The same as [`link_error`](Self::link_error).
    pub fn on_error<S: Step>(self, errback: S) -> Self {
        self.link_error(errback)
    }

    /// Replaces all options, for those that have no method here.
    pub fn with_options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }

    /// Sends the call only if no other one of this task with the same arguments was sent within
    /// this time before; else the send ends as [`SendError::Duplicate`] with the first one's id.
    ///
    /// The broker alone keeps this, so it holds among all programs, and survives their crashes and
    /// restarts of the broker, after which the time begins anew. When the task ends does not
    /// matter. A program that dies between the lock and the task leaves the lock for its time; a
    /// second send with the same [`task_id`](Self::task_id) passes it. Arguments are compared as
    /// they are written: by position and by name are two different calls.
    ///
    /// For calls that are sent by themselves; a step of a workflow cannot be unique. At most 49
    /// days.
    ///
    /// ```
    /// use std::time::Duration;
    /// use celeriac::Signature;
    ///
    /// let call = Signature::<()>::new("proj.report").arg(2030).unique(Duration::from_secs(600));
    /// # let _ = call;
    /// ```
    pub fn unique(mut self, window: Duration) -> Self {
        let unique = self.unique.get_or_insert_default();
        unique.window = Some(window);
        unique.by_task = false;
        self
    }

    /// Takes calls of this task with the same key for the same, whatever their arguments; together
    /// with [`unique`](Self::unique).
    pub fn unique_key(mut self, key: impl Into<String>) -> Self {
        let unique = self.unique.get_or_insert_default();
        unique.key = Some(key.into());
        unique.by_task = false;
        self
    }

    /// Lets a call that is not sent because of [`unique`](Self::unique) stand for the first one:
    /// the send gives a result with that one's id. Its value comes to whoever sent the first one;
    /// to wait for it here as well, that must be the same client.
    pub fn or_first(mut self) -> Self {
        self.unique.get_or_insert_default().joins_first = true;
        self
    }

    /// As the task's definition says.
    pub(crate) fn unique_by_task(mut self, window: Duration) -> Self {
        let unique = Unique { window: Some(window), by_task: true, ..Unique::default() };
        self.unique = Some(unique);
        self
    }

    /// Sends the call; the same as [`Client::send`].
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn apply_async(self, client: &Client) -> Result<AsyncResult<Out>, SendError>
    where
        In: Ready,
    {
        client.send(self).await
    }

    /// The call as other messages carry it.
    ///
    /// # Errors
    /// The first argument that could not be serialized; or the call is unique.
    pub fn into_data(self) -> Result<protocol::Signature, ValueError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.unique.is_some_and(|unique| !unique.by_task) {
            let problem = "a unique call cannot be part of another one: send it by itself";
            return Err(ValueError::new(problem));
        }
        Ok(protocol::Signature {
            task: self.task.into_owned(),
            args: self.args,
            kwargs: self.kwargs,
            options: self.options.into_map(),
            subtask_type: None,
            immutable: self.immutable,
        })
    }

    /// The same call, with a mistake that is reported when it is sent.
    pub(super) fn failed(mut self, error: ValueError) -> Self {
        self.fail(error);
        self
    }

    fn fail(&mut self, error: ValueError) {
        self.error.get_or_insert(error);
    }

    fn fail_in(&mut self, option: &'static str, error: WorkflowError) {
        let error = match error {
            WorkflowError::Arguments { source, .. } => source,
            WorkflowError::Canvas(error) => ValueError::new(error.to_string()),
        };
        self.fail(error.in_key(option));
    }
}

// Written out because derives would ask `Out` and `In` for the same traits.
impl<Out, In> Clone for Signature<Out, In> {
    fn clone(&self) -> Self {
        Self {
            task: self.task.clone(),
            args: self.args.clone(),
            kwargs: self.kwargs.clone(),
            options: self.options.clone(),
            immutable: self.immutable,
            unique: self.unique.clone(),
            error: self.error.clone(),
            types: PhantomData,
        }
    }
}

impl<Out, In> fmt::Debug for Signature<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("task", &self.task)
            .field("args", &self.args)
            .field("kwargs", &self.kwargs)
            .field("options", &self.options)
            .field("immutable", &self.immutable)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_call_becomes_data_with_its_links() {
        let callback = Signature::<()>::new("notify").si();
        let call = Signature::<i64>::new("add").arg(1).kwarg("y", 2).queue("sums").link(callback);
        let data = call.into_data().unwrap();
        assert_eq!((data.task.as_str(), data.args.as_slice()), ("add", &[Value::Int(1)][..]));
        assert_eq!(data.kwargs.get("y"), Some(&Value::Int(2)));
        assert_eq!(data.options.get("queue"), Some(&Value::from("sums")));
        let options = CallOptions::from_map(data.options).unwrap();
        assert_eq!(options.link[0].task, "notify");
        assert!(options.link[0].immutable);
    }

    #[test]
    fn the_first_argument_that_is_no_value_is_remembered_with_its_place() {
        let no_value = || HashMap::from([((1, 2), 3)]);
        let call = Signature::<()>::new("add").arg(1).arg(no_value()).kwarg("y", no_value());
        let link = Signature::<()>::new("sum").link(call.clone().partial());
        for (call, place) in [(call, "args[1]"), (link, "link.args[1]")] {
            let text = format!("{place}: map keys must be text, got list");
            assert_eq!(call.into_data().unwrap_err().to_string(), text);
        }
    }
}
