//! Retries: which failures run a task again, when, and how often. Pure but for the jitter.
//!
//! Publishes nothing; the worker does (see `worker/retry.rs`). **Invariant:** a task that is out of
//! retries ends with the error that it failed with, never with one that hides it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::error::python_name;
use super::{IntoTaskError, Outcome, Request, TaskError, TaskErrorKind, TaskOptions};
use crate::backoff::Backoff;
use crate::protocol::{Exception, Map, Value, ValueError, repr, to_value};

/// Retries of a task that does not say how many: Celery's `max_retries`.
const MAX_RETRIES: u32 = 3;
/// Time before each of them, if the task does not say: Celery's `default_retry_delay`.
const RETRY_DELAY: Duration = Duration::from_secs(180);
/// The longest delay with `retry_backoff`: Celery's `retry_backoff_max`.
const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Errors as the options `retry_for` and `dont_retry_for` name them: by Rust type, or by the class
/// that callers see.
#[derive(Clone, Copy)]
pub struct ErrorClass(Class);

#[derive(Clone, Copy)]
enum Class {
    Named(&'static str),
    Type { path: fn() -> &'static str, is: fn(&(dyn Error + 'static)) -> bool },
}

impl ErrorClass {
    /// Errors of the type `T`, or caused by one.
    pub const fn of<T: Error + 'static>() -> Self {
        Self(Class::Type { path: std::any::type_name::<T>, is: |error| error.is::<T>() })
    }

    /// Errors of this class, with its module or without: `ValueError`, `shop.errors.Declined`.
    pub const fn named(name: &'static str) -> Self {
        Self(Class::Named(name))
    }

    /// The class, or the path of the type.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Class::Named(name) => name,
            Class::Type { path, .. } => path(),
        }
    }

    fn matches(&self, error: &TaskError) -> bool {
        let Exception { exc_type, exc_module, .. } = error.exception();
        let module = exc_module.as_deref().unwrap_or_default();
        match self.0 {
            Class::Named(name) => match name.rsplit_once('.') {
                Some((in_module, class)) => class == exc_type && in_module == module,
                None => name == exc_type,
            },
            Class::Type { path, is } => {
                let (in_module, class) = python_name(path());
                error.causes().any(is) || (class == exc_type && in_module == module)
            }
        }
    }
}

impl fmt::Debug for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ErrorClass").field(&self.name()).finish()
    }
}

impl PartialEq for ErrorClass {
    fn eq(&self, other: &Self) -> bool {
        let is_type = |class: &Self| matches!(class.0, Class::Type { .. });
        (self.name(), is_type(self)) == (other.name(), is_type(other))
    }
}

impl Eq for ErrorClass {}

/// A retry that a task asks for by returning it as its error.
///
/// It is the same call again: the same id, caller, place in a workflow, headers, priority and
/// limits. What is not said here is as the task's options say.
///
/// ```
/// use std::time::Duration;
/// use celeriac::{Context, TaskResult, task};
/// # async fn get(url: &str) -> Result<String, std::io::Error> { Ok(url.into()) }
///
/// #[task]
/// async fn fetch(cx: Context, url: String) -> TaskResult<String> {
///     match get(&url).await {
///         Ok(page) => Ok(page),
///         Err(error) => {
///             let wait = Duration::from_secs(10 * (1 + u64::from(cx.retries())));
///             Err(cx.retry().countdown(wait).max_retries(5).because(error))?
///         }
///     }
/// }
/// # let _ = fetch::NAME;
/// ```
///
/// After the last one the task fails with the error of [`because`](Self::because), or with Celery's
/// `MaxRetriesExceededError`.
#[derive(Debug, Default)]
#[must_use = "a retry is asked for by returning it as an error"]
pub struct Retry {
    when: Option<When>,
    max_retries: Option<u32>,
    changed: Option<Box<NewArguments>>,
    because: Option<Box<TaskError>>,
    mistake: Option<ValueError>,
}

#[derive(Clone, Copy, Debug)]
enum When {
    In(Duration),
    At(Timestamp),
}

/// The arguments of a retry, where they are not those of the call; `None` leaves them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewArguments {
    /// Positional arguments.
    pub args: Option<Vec<Value>>,
    /// Keyword arguments.
    pub kwargs: Option<Map>,
}

impl Retry {
    /// Runs the task again not before this time from now on.
    pub fn countdown(self, delay: Duration) -> Self {
        Self { when: Some(When::In(delay)), ..self }
    }

    /// Runs the task again not before this moment.
    pub fn eta(self, at: Timestamp) -> Self {
        Self { when: Some(When::At(at)), ..self }
    }

    /// How many retries there may be in all, instead of the task's `max_retries`.
    pub fn max_retries(self, count: u32) -> Self {
        Self { max_retries: Some(count), ..self }
    }

    /// The error because of which: what callers see of the state RETRY, and how the task ends after
    /// the last retry.
    pub fn because(self, error: impl IntoTaskError) -> Self {
        Self { because: Some(Box::new(error.into_task_error())), ..self }
    }

    /// Adds a positional argument. The first one takes the place of all that the call has.
    pub fn arg(mut self, value: impl Serialize) -> Self {
        match to_value(&value) {
            Ok(value) => self.changed().args.get_or_insert_default().push(value),
            Err(error) => self.mistake = self.mistake.or(Some(error)),
        }
        self
    }

    /// The positional arguments, as values.
    pub fn args(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.changed().args = Some(values.into_iter().collect());
        self
    }

    /// The keyword arguments, instead of all that the call has.
    pub fn kwargs(mut self, values: Map) -> Self {
        self.changed().kwargs = Some(values);
        self
    }

    /// What it says, for another process, and the error that it is because of.
    pub(crate) fn into_map(self) -> (Map, Option<TaskError>) {
        let mut map = Map::new();
        match self.when {
            Some(When::In(delay)) => map.push("in", delay.as_secs_f64()),
            Some(When::At(at)) => map.push("at", at.to_string()),
            None => {}
        }
        map.push("max_retries", self.max_retries);
        if let Some(changed) = self.changed {
            map.push("args", changed.args);
            map.push("kwargs", changed.kwargs);
        }
        (map, self.because.map(|error| *error))
    }

    /// The reverse of [`into_map`](Self::into_map).
    pub(crate) fn from_map(mut map: Map, because: Option<TaskError>) -> Self {
        let after = map.get("in").and_then(Value::as_f64);
        let after = after.and_then(|it| Duration::try_from_secs_f64(it).ok()).map(When::In);
        let at = map.get("at").and_then(Value::as_str).and_then(|it| it.parse().ok());
        let max_retries = map.get("max_retries").and_then(Value::as_i64);
        let mut this = Self {
            when: after.or_else(|| at.map(When::At)),
            max_retries: max_retries.and_then(|it| u32::try_from(it).ok()),
            because: because.map(Box::new),
            ..Self::default()
        };
        if let Some(Value::Array(args)) = map.remove("args") {
            this.changed().args = Some(args);
        }
        if let Some(Value::Map(kwargs)) = map.remove("kwargs") {
            this.changed().kwargs = Some(kwargs);
        }
        this
    }

    fn changed(&mut self) -> &mut NewArguments {
        self.changed.get_or_insert_default()
    }

    fn after(&self, options: &TaskOptions, retries: u32) -> Duration {
        match self.when {
            Some(When::In(delay)) => delay,
            Some(When::At(at)) => {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
            }
            None => delay(options, retries),
        }
    }
}

impl From<Retry> for TaskError {
    fn from(mut retry: Retry) -> Self {
        match retry.mistake.take() {
            Some(mistake) => Self::permanent(mistake),
            None => Self::asking(retry),
        }
    }
}

impl IntoTaskError for Retry {
    fn into_task_error(self) -> TaskError {
        self.into()
    }
}

/// Makes a retry of a failure, where the task asks for one or its options want one and there is
/// one left.
pub(crate) fn judge(outcome: Outcome, options: &TaskOptions, request: &Request) -> Outcome {
    let mut error = match outcome {
        Outcome::Failure(error) => error,
        other => return other,
    };
    if let Some(asked) = error.take_retry() {
        let after = asked.after(options, request.retries);
        let max = asked.max_retries.or(options.max_retries).unwrap_or(MAX_RETRIES);
        let is_left = request.retries < max;
        let error = match asked.because {
            Some(because) => because.with_kind(TaskErrorKind::Permanent),
            None if is_left => error,
            None => exceeded(request),
        };
        return match is_left {
            true => Outcome::Retry { error, after, changed: asked.changed },
            false => Outcome::Failure(error),
        };
    }
    let is_left = || request.retries < options.max_retries.unwrap_or(MAX_RETRIES);
    if error.kind() == TaskErrorKind::Retryable && wants(options, &error) && is_left() {
        let after = delay(options, request.retries);
        return Outcome::Retry { error, after, changed: None };
    }
    Outcome::Failure(error)
}

/// Whether the options of a task want it to be run again after this error.
fn wants(options: &TaskOptions, error: &TaskError) -> bool {
    let among = |classes: &[ErrorClass]| classes.iter().any(|class| class.matches(error));
    options.retries_by_itself()
        && !among(options.dont_retry_for)
        && (options.retry_for.is_empty() || among(options.retry_for))
}

/// The time before the retry that follows `retries` others.
fn delay(options: &TaskOptions, retries: u32) -> Duration {
    let Some(base) = options.retry_backoff else {
        return options.retry_delay.unwrap_or(RETRY_DELAY);
    };
    let cap = options.retry_backoff_max.unwrap_or(RETRY_BACKOFF_MAX);
    Backoff { base, cap, jitter: options.retry_jitter.unwrap_or(true) }.delay(retries)
}

/// What Celery raises where no other error is known.
fn exceeded(request: &Request) -> TaskError {
    let Request { task, id, argsrepr, kwargsrepr, .. } = request;
    let text = format!("Can't retry {task}[{id}] args:{argsrepr} kwargs:{kwargsrepr}");
    let exception = Exception::new("celery.exceptions", "MaxRetriesExceededError", text);
    TaskError::from(exception).with_kind(TaskErrorKind::Permanent)
}

/// The traceback that callers see of a retry: that of the error, and the line that Celery adds.
pub(crate) fn traceback(error: &TaskError, after: Duration) -> String {
    let retry = format!("celery.exceptions.Retry: Retry in {}s", after.as_secs_f64());
    match error.kind() {
        // It was asked for without an error.
        TaskErrorKind::Retry => retry,
        _ => {
            let exception = repr::exception(error.exception());
            format!("{}\n\n{retry}: {exception}", error.traceback().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Down(#[source] std::io::Error);

    fn down() -> Down {
        Down(std::io::Error::other("reset"))
    }

    const TWICE: TaskOptions = TaskOptions { max_retries: Some(2), ..TaskOptions::DEFAULT };

    fn run(error: TaskError, options: &TaskOptions, retries: u32) -> Outcome {
        let request = Request {
            task: "t".into(),
            id: "1".into(),
            argsrepr: "()".into(),
            kwargsrepr: "{}".into(),
            retries,
            ..Request::default()
        };
        judge(Outcome::from(Err(error)), options, &request)
    }

    /// The delay of the retry, or the failure.
    fn ends(error: impl Into<TaskError>, options: &TaskOptions, retries: u32) -> String {
        match run(error.into(), options, retries) {
            Outcome::Retry { error, after, .. } => format!("{after:?} {}", error.exception()),
            Outcome::Failure(error) => error.exception().to_string(),
            other => other.name().to_owned(),
        }
    }

    #[test]
    fn only_a_task_that_says_something_about_retries_is_retried_by_itself() {
        assert_eq!(ends(down(), &TaskOptions::DEFAULT, 0), "Down: cannot connect");
        assert_eq!(ends(down(), &TWICE, 0), "180s Down: cannot connect");
        assert_eq!(ends(down(), &TWICE, 1), "180s Down: cannot connect");
        assert_eq!(ends(down(), &TWICE, 2), "Down: cannot connect", "the error itself");
        assert_eq!(ends(TaskError::permanent(down()), &TWICE, 0), "Down: cannot connect");
        assert_eq!(ends(TaskError::reject("no", false), &TWICE, 0), "reject");
        let often =
            TaskOptions { retry_delay: Some(Duration::from_secs(7)), ..TaskOptions::DEFAULT };
        assert_eq!(ends(down(), &often, 2), "7s Down: cannot connect");
        assert_eq!(ends(down(), &often, 3), "Down: cannot connect", "three, as in Celery");
        let never = TaskOptions { max_retries: Some(0), ..TaskOptions::DEFAULT };
        assert_eq!(ends(down(), &never, 0), "Down: cannot connect");
    }

    #[test]
    fn delays_grow_up_to_their_longest() {
        let options = TaskOptions {
            max_retries: Some(99),
            retry_backoff: Some(Duration::from_secs(2)),
            retry_jitter: Some(false),
            ..TaskOptions::DEFAULT
        };
        for (retries, seconds) in [(0, 2), (1, 4), (5, 64), (9, 600), (98, 600)] {
            assert_eq!(delay(&options, retries), Duration::from_secs(seconds));
        }
        let capped = TaskOptions { retry_backoff_max: Some(Duration::from_secs(5)), ..options };
        assert_eq!(delay(&capped, 9), Duration::from_secs(5));
        let jittered = TaskOptions { retry_jitter: None, ..capped };
        assert!((0..100).all(|_| delay(&jittered, 9) <= Duration::from_secs(5)));
    }

    #[test]
    fn errors_are_chosen_by_type_cause_or_class() {
        let check = |retry_for, dont_retry_for, error: TaskError, retried: bool| {
            let options = TaskOptions { retry_for, dont_retry_for, ..TaskOptions::DEFAULT };
            let outcome = run(error, &options, 0);
            assert_eq!(outcome.name() == "retry", retried, "{options:?}");
        };
        const IO: &[ErrorClass] = &[ErrorClass::of::<std::io::Error>()];
        const DOWN: &[ErrorClass] = &[ErrorClass::of::<Down>()];
        const VALUE: &[ErrorClass] =
            &[ErrorClass::named("ValueError"), ErrorClass::named("shop.errors.Declined")];
        let value = || TaskError::python("ValueError", "builtins", ["x"]);
        let declined = || TaskError::python("Declined", "shop.errors", ["x"]);
        check(IO, &[], down().into(), true);
        check(IO, &[], value(), false);
        check(VALUE, &[], value(), true);
        check(VALUE, &[], declined(), true);
        check(VALUE, &[], TaskError::python("Declined", "other", ["x"]), false);
        check(&[], VALUE, value(), false);
        check(&[], VALUE, down().into(), true);
        check(DOWN, IO, down().into(), false);
        let boxed: Box<dyn Error + Send + Sync> = Box::new(down());
        check(DOWN, &[], TaskError::new(boxed), true);
        // As it comes from a child process, where only the class is left of it.
        let class = TaskError::from(down()).exception().clone();
        check(DOWN, &[], class.into(), true);
    }

    #[test]
    fn a_task_may_ask_for_a_retry_of_its_own() {
        let options = &TaskOptions::DEFAULT;
        let ask = || Retry::default().countdown(Duration::from_secs(5));
        assert_eq!(ends(ask(), options, 2), "5s Retry: Task can be retried");
        let text = "MaxRetriesExceededError: Can't retry t[1] args:() kwargs:{}";
        assert_eq!(ends(ask(), options, 3), text);
        assert_eq!(ends(ask().because(down()), options, 2), "5s Down: cannot connect");
        assert_eq!(ends(ask().because(down()), options, 3), "Down: cannot connect");
        assert_eq!(ends(ask().max_retries(9), options, 8), "5s Retry: Task can be retried");
        assert_eq!(ends(Retry::default(), &TWICE, 0), "180s Retry: Task can be retried");
        assert_eq!(ends(Retry::default().max_retries(0), &TWICE, 0), text);
        let past = Retry::default().eta(Timestamp::UNIX_EPOCH);
        assert_eq!(ends(past, options, 0), "0ns Retry: Task can be retried");
        let kwargs = Map::from_iter([("x", 1)]);
        let changed = Retry::default().arg(1).arg("a").kwargs(kwargs.clone());
        let Outcome::Retry { changed, .. } = run(changed.into(), options, 0) else { panic!() };
        let args = Some(vec![Value::Int(1), "a".into()]);
        assert_eq!(*changed.unwrap(), NewArguments { args, kwargs: Some(kwargs) });
        let wrong = Retry::default().arg(std::collections::HashMap::from([((1, 2), 3)]));
        assert!(ends(wrong, options, 0).contains("map keys must be text"));
    }

    #[test]
    fn the_traceback_of_a_retry_ends_as_celery_s() {
        let second = Duration::from_secs(1);
        let error = TaskError::python("ConnectionError", "builtins", ["try 0"]);
        let text = "ConnectionError: try 0\n\n\
                    celery.exceptions.Retry: Retry in 1s: ConnectionError('try 0')";
        assert_eq!(traceback(&error, second), text);
        let bare = TaskError::from(Retry::default());
        assert_eq!(traceback(&bare, second), "celery.exceptions.Retry: Retry in 1s");
    }
}
