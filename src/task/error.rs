//! What a task's function may fail with, and what the caller gets to read of it.
//!
//! Any `std::error::Error` will do; it travels as Celery's `exc_type`, `exc_module`,
//! `exc_message` and a traceback that lists the sources. What becomes of the message (retry,
//! failure, rejection) is only named here, as [`TaskErrorKind`]; the worker carries it out.

use std::any::{Any, type_name};
use std::error::Error;
use std::fmt;

use super::Retry;
use crate::protocol::{Exception, Signature, Value};

/// The result of a task's function; `TaskResult` alone is what a run hands to the worker.
pub type TaskResult<T = Value> = Result<T, TaskError>;

type BoxError = Box<dyn Error + Send + Sync>;

/// The most sources that a traceback lists; a chain that long is a loop.
const SOURCES_MAX: usize = 64;

/// A failed task.
///
/// `?` turns any error into one, as a retryable error. Say so where it is not:
///
/// ```
/// use celeriac::{TaskError, TaskResult, task};
///
/// #[task(max_retries = 5)]
/// async fn charge(order: String, cents: i64) -> TaskResult<()> {
///     if cents < 0 {
///         return Err(TaskError::permanent("the amount is negative"));
///     }
///     let order: u64 = order.parse()?;
///     # let _ = order;
///     Ok(())
/// }
/// # let _ = charge::NAME;
/// ```
///
/// Like `anyhow::Error` it is not itself a `std::error::Error`, so that `?` can make it.
#[derive(Debug)]
pub struct TaskError {
    kind: TaskErrorKind,
    exception: Exception,
    traceback: Option<String>,
    origin: Origin,
}

/// What an error was made of.
#[derive(Debug, Default)]
enum Origin {
    #[default]
    Nothing,
    /// Only with [`TaskErrorKind::Replace`].
    Replacement(Box<Signature>),
    /// Only with [`TaskErrorKind::Retry`].
    Retry(Box<Retry>),
    /// To be recognised by its type. Boxed twice, so that results stay small.
    Error(Box<BoxError>),
}

/// What is to become of a task that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskErrorKind {
    /// Another try may succeed, if the task's options allow one.
    Retryable,
    /// Another try would fail as well.
    Permanent,
    /// The message is given back to the broker, or parked.
    Reject {
        /// Whether it is to be delivered again; otherwise it is parked and the caller is told.
        requeue: bool,
    },
    /// The message is settled, and no result is stored.
    Ignore,
    /// Another call takes the place of this one: its id, its caller, and all that was to follow.
    Replace,
    /// The task asks to be run again, as its [`Retry`] says.
    Retry,
}

impl TaskError {
    /// A retryable error; the same as [`retryable`](Self::retryable).
    pub fn new<E: Into<BoxError>>(error: E) -> Self {
        Self::from_boxed(error.into(), type_name::<E>())
    }

    /// An error after which another try may succeed.
    pub fn retryable<E: Into<BoxError>>(error: E) -> Self {
        Self::new(error)
    }

    /// An error that another try would meet as well.
    pub fn permanent<E: Into<BoxError>>(error: E) -> Self {
        Self::new(error).with_kind(TaskErrorKind::Permanent)
    }

    /// Rejects the message. With `requeue` it is delivered again and nobody is told. Without, it
    /// is parked in `<queue>.dead` and the caller gets a FAILURE of the class `Reject`, as from
    /// Celery 5.7.
    pub fn reject(reason: impl Into<String>, requeue: bool) -> Self {
        Self::bare(TaskErrorKind::Reject { requeue }, Exception::reject(reason))
    }

    /// Ends the task without a result, as if nobody had asked.
    pub fn ignore() -> Self {
        let mut exception = Exception::new("celery.exceptions", "Ignore", Value::Null);
        exception.exc_message.clear();
        Self::bare(TaskErrorKind::Ignore, exception)
    }

    /// Ends the task in favour of another call; see [`Context::replace`](super::Context::replace).
    pub fn replace(by: Signature) -> Self {
        let exception = Exception::new("celery.exceptions", "Ignore", "Replaced by new task");
        let origin = Origin::Replacement(Box::new(by));
        Self { origin, ..Self::bare(TaskErrorKind::Replace, exception) }
    }

    /// Asks for a retry; see [`Retry`]. The same as [`Context::retry`](super::Context::retry).
    pub fn retry() -> Retry {
        Retry::default()
    }

    pub(super) fn asking(retry: Retry) -> Self {
        let exception = Exception::new("celery.exceptions", "Retry", "Task can be retried");
        let origin = Origin::Retry(Box::new(retry));
        Self { origin, ..Self::bare(TaskErrorKind::Retry, exception) }
    }

    /// An exception that a Python caller can catch by its class: `python("ValueError",
    /// "builtins", ["kaboom"])` is raised there as `ValueError('kaboom')`.
    pub fn python<V: Into<Value>>(
        class: impl Into<String>,
        module: impl Into<String>,
        args: impl IntoIterator<Item = V>,
    ) -> Self {
        Self::from(Exception {
            exc_type: class.into(),
            exc_module: Some(module.into()),
            exc_message: args.into_iter().map(Into::into).collect(),
        })
    }

    /// Arguments that do not fit the parameters; trying again does not help.
    pub(crate) fn type_error(message: impl Into<String>) -> Self {
        Self::from(Exception::type_error(message)).with_kind(TaskErrorKind::Permanent)
    }

    fn bare(kind: TaskErrorKind, exception: Exception) -> Self {
        Self { kind, exception, traceback: None, origin: Origin::Nothing }
    }

    /// The same error, with another verdict.
    #[must_use]
    pub fn with_kind(mut self, kind: TaskErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same error, with another traceback.
    #[must_use]
    pub fn with_traceback(mut self, traceback: impl Into<String>) -> Self {
        self.traceback = Some(traceback.into());
        self
    }

    /// What is to become of the task.
    pub fn kind(&self) -> TaskErrorKind {
        self.kind
    }

    /// What the caller gets to read.
    pub fn exception(&self) -> &Exception {
        &self.exception
    }

    /// The error with its sources, one line each.
    pub fn traceback(&self) -> Option<&str> {
        self.traceback.as_deref()
    }

    /// Takes the call that takes this one's place, if the task has asked for one.
    pub(crate) fn take_replacement(&mut self) -> Option<Box<Signature>> {
        match std::mem::take(&mut self.origin) {
            Origin::Replacement(by) => Some(by),
            other => {
                self.origin = other;
                None
            }
        }
    }

    /// Takes the retry that the task has asked for.
    pub(crate) fn take_retry(&mut self) -> Option<Box<Retry>> {
        match std::mem::take(&mut self.origin) {
            Origin::Retry(retry) => Some(retry),
            other => {
                self.origin = other;
                None
            }
        }
    }

    /// The error that it was made of, and what caused that.
    pub(super) fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first = match &self.origin {
            Origin::Error(error) => Some(&***error as &(dyn Error + 'static)),
            _ => None,
        };
        std::iter::successors(first, |&error| error.source()).take(SOURCES_MAX)
    }

    /// Takes the error apart, for the result message.
    pub fn into_parts(self) -> (TaskErrorKind, Exception, Option<String>) {
        (self.kind, self.exception, self.traceback)
    }

    /// `path` is the type's path as the compiler tells it; a box has lost it.
    fn from_boxed(error: BoxError, path: &str) -> Self {
        match error.downcast::<Exception>() {
            Ok(exception) => Self::from_exception(*exception),
            Err(error) => {
                let this = Self::from_error(&*error, path);
                Self { origin: Origin::Error(Box::new(error)), ..this }
            }
        }
    }

    fn from_exception(exception: Exception) -> Self {
        let module = exception.exc_module.as_deref().filter(|module| *module != "builtins");
        let dot = if module.is_some() { "." } else { "" };
        let traceback = format!("{}{dot}{exception}", module.unwrap_or_default());
        Self { traceback: Some(traceback), ..Self::bare(TaskErrorKind::Retryable, exception) }
    }

    fn from_error(error: &(dyn Error + 'static), path: &str) -> Self {
        let (module, class) = python_name(path);
        let exception = Exception::new(&module, class, error.to_string());
        let mut this = Self::from_exception(exception);
        let sources = std::iter::successors(error.source(), |&error| error.source());
        for source in sources.take(SOURCES_MAX) {
            let line = format!("\n  caused by: {source}");
            this.traceback.get_or_insert_default().push_str(&line);
        }
        this
    }
}

/// Module and class for the path of a Rust type: `shop::orders::Declined` is the class `Declined`
/// of the module `shop.orders`. Types without a path of their own are plain `Exception`s.
pub(super) fn python_name(path: &str) -> (String, &str) {
    let path = path.split_once('<').map_or(path, |(path, _)| path);
    let is_path = |path: &str| path.chars().all(|c| c.is_alphanumeric() || "_:".contains(c));
    match path.rsplit_once("::") {
        // Text and boxes are how an error without a type of its own is given.
        Some(("alloc::string" | "alloc::boxed", _)) => ("builtins".to_owned(), "Exception"),
        Some((module, class)) if is_path(path) => (module.replace("::", "."), class),
        _ => ("builtins".to_owned(), "Exception"),
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exception.fmt(f)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<Exception>() {
            Some(exception) => Self::from_exception(exception.clone()),
            None => {
                let this = Self::from_error(&error, type_name::<E>());
                Self { origin: Origin::Error(Box::new(Box::new(error))), ..this }
            }
        }
    }
}

/// What the `Err` of a task's function may be: a [`TaskError`], any error, or text.
///
/// Also `anyhow::Error` and `Box<dyn Error + Send + Sync>`, which are not errors themselves.
/// Implement it for an enum of your own, one without `std::error::Error`, to say for each variant
/// whether it is permanent.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error that a task can fail with",
    note = "implement `std::error::Error` for it, or return a `celeriac::TaskError`"
)]
pub trait IntoTaskError {
    /// The error as the worker handles it.
    fn into_task_error(self) -> TaskError;
}

impl IntoTaskError for TaskError {
    fn into_task_error(self) -> TaskError {
        self
    }
}

impl<E: Into<BoxError>> IntoTaskError for E {
    fn into_task_error(self) -> TaskError {
        TaskError::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod shop {
        #[derive(Debug, thiserror::Error)]
        #[error("payment declined")]
        pub(super) struct Declined(#[source] pub(super) std::io::Error);

        #[derive(Debug, thiserror::Error)]
        #[error("cannot charge")]
        pub(super) struct Charge<T: std::fmt::Debug>(#[source] pub(super) Declined, pub(super) T);
    }

    fn declined() -> shop::Declined {
        shop::Declined(std::io::Error::other("connection reset"))
    }

    #[track_caller]
    fn check(error: &TaskError, module: &str, class: &str, traceback: &str) {
        assert_eq!(error.exception().exc_module.as_deref(), Some(module));
        assert_eq!(error.exception().exc_type, class);
        assert_eq!(error.traceback(), Some(traceback));
    }

    #[test]
    fn an_error_is_named_by_its_type_and_traced_by_its_sources() {
        let module = "celeriac.task.error.tests.shop";
        check(
            &shop::Charge(declined(), 1).into(),
            module,
            "Charge",
            &format!(
                "{module}.Charge: cannot charge\n  caused by: payment declined\n  \
                 caused by: connection reset"
            ),
        );
        let boxed = TaskError::permanent(declined());
        let traceback =
            format!("{module}.Declined: payment declined\n  caused by: connection reset");
        check(&boxed, module, "Declined", &traceback);
        assert_eq!(boxed.kind(), TaskErrorKind::Permanent);
    }

    #[test]
    fn text_and_boxed_errors_are_plain_exceptions() {
        check(&TaskError::new("no"), "builtins", "Exception", "Exception: no");
        check(&TaskError::new(String::from("no")), "builtins", "Exception", "Exception: no");
        let boxed: BoxError = Box::new(declined());
        check(
            &boxed.into_task_error(),
            "builtins",
            "Exception",
            "Exception: payment declined\n  caused by: connection reset",
        );
    }

    #[test]
    fn exceptions_keep_their_python_class() {
        let error = TaskError::python("KeyError", "builtins", ["x"]);
        check(&error, "builtins", "KeyError", "KeyError: x");
        let error: TaskError = Exception::new("shop.errors", "Declined", "no").into();
        check(&error, "shop.errors", "Declined", "shop.errors.Declined: no");
        let boxed: BoxError = Box::new(Exception::new("shop.errors", "Declined", "no"));
        check(&TaskError::new(boxed), "shop.errors", "Declined", "shop.errors.Declined: no");
    }

    #[test]
    fn verdicts_are_kept() {
        let reject = TaskError::reject("not mine", true);
        assert_eq!(reject.kind(), TaskErrorKind::Reject { requeue: true });
        assert_eq!(reject.into_task_error().to_string(), "Reject: not mine");
        assert_eq!(TaskError::ignore().kind(), TaskErrorKind::Ignore);
        assert_eq!(TaskError::retryable("later").kind(), TaskErrorKind::Retryable);
        assert_eq!(TaskError::from(declined()).kind(), TaskErrorKind::Retryable);
    }
}
