//! How one call ended: a closed list, which the worker matches without a wildcard.

use std::borrow::Cow;
use std::time::Duration;

use super::{NewArguments, TaskError, TaskErrorKind, TaskResult};
use crate::protocol::{Exception, Signature, Value};

/// The end of one call.
#[derive(Debug)]
pub enum Outcome {
    /// The function returned this value.
    Success(Value),
    /// The function failed, for good.
    Failure(TaskError),
    /// The function failed, and the call is to be made again.
    Retry {
        /// What it failed with this time.
        error: TaskError,
        /// Time until the next try.
        after: Duration,
        /// Its arguments, where they are not those of this one.
        changed: Option<Box<NewArguments>>,
    },
    /// The function gave its message back.
    Reject {
        /// Why.
        reason: String,
        /// Whether the broker is to deliver the message again; otherwise it is dead-lettered.
        requeue: bool,
    },
    /// The function wants no result to be stored.
    Ignore,
    /// The function has put another call in the place of its own.
    Replaced {
        /// That call.
        by: Box<Signature>,
    },
    /// The function was not run, or not to its end, on purpose.
    Revoked {
        /// `revoked`, `terminated` or `expired`.
        reason: Cow<'static, str>,
    },
    /// The function ran for too long and was ended.
    TimedOut {
        /// The limit that it passed.
        limit: Duration,
        /// Whether the soft limit ended it.
        soft: bool,
    },
    /// The function panicked.
    Panicked {
        /// The panic's message.
        message: String,
        /// Where it happened.
        backtrace: Option<String>,
    },
    /// What ran the function went away before it ended.
    Lost {
        /// What is known about it.
        reason: String,
    },
}

impl Outcome {
    /// Word for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Success(_) => "success",
            Self::Failure(_) => "failure",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Ignore => "ignore",
            Self::Replaced { .. } => "replaced",
            Self::Revoked { .. } => "revoked",
            Self::TimedOut { .. } => "timed-out",
            Self::Panicked { .. } => "panicked",
            Self::Lost { .. } => "lost",
        }
    }

    /// The state that the result has in Celery; `None` where no result is stored.
    pub const fn state(&self) -> Option<&'static str> {
        match self {
            Self::Success(_) => Some("SUCCESS"),
            Self::Retry { .. } => Some("RETRY"),
            Self::Revoked { .. } => Some("REVOKED"),
            Self::Failure(_)
            | Self::TimedOut { .. }
            | Self::Panicked { .. }
            | Self::Lost { .. } => Some("FAILURE"),
            Self::Reject { .. } | Self::Ignore | Self::Replaced { .. } => None,
        }
    }

    /// The exception and its traceback, if the call has failed for good: then errbacks are called.
    pub fn failure(&self) -> Option<(Exception, Option<String>)> {
        match self {
            Self::Success(_)
            | Self::Retry { .. }
            | Self::Reject { requeue: true, .. }
            | Self::Ignore
            | Self::Replaced { .. }
            | Self::Revoked { .. } => None,
            Self::Reject { requeue: false, reason } => {
                Some((Exception::reject(reason.as_str()), None))
            }
            Self::Failure(error) => {
                Some((error.exception().clone(), error.traceback().map(str::to_owned)))
            }
            Self::TimedOut { limit, soft } => Some((timed_out(*limit, *soft), None)),
            Self::Panicked { message, backtrace } => {
                Some((Exception::new("celeriac", "Panic", message.as_str()), backtrace.clone()))
            }
            Self::Lost { reason } => Some((billiard("WorkerLostError", reason.as_str()), None)),
        }
    }

    /// The exception that the caller gets, with its traceback; `None` if there is none.
    pub fn into_exception(self) -> Option<(Exception, Option<String>)> {
        match self {
            Self::Success(_) | Self::Reject { .. } | Self::Ignore | Self::Replaced { .. } => None,
            Self::Failure(error) | Self::Retry { error, .. } => {
                let (_, exception, traceback) = error.into_parts();
                Some((exception, traceback))
            }
            Self::Revoked { reason } => Some((Exception::task_revoked(&reason), None)),
            Self::TimedOut { limit, soft } => Some((timed_out(limit, soft), None)),
            Self::Panicked { message, backtrace } => {
                Some((Exception::new("celeriac", "Panic", message), backtrace))
            }
            Self::Lost { reason } => Some((billiard("WorkerLostError", reason), None)),
        }
    }
}

/// What the function returned, where no retry is left.
impl From<TaskResult> for Outcome {
    fn from(result: TaskResult) -> Self {
        let mut error = match result {
            Ok(value) => return Self::Success(value),
            Err(error) => error,
        };
        if let Some(by) = error.take_replacement() {
            return Self::Replaced { by };
        }
        match error.kind() {
            // A replacement without a call is a mistake that only `with_kind` can make.
            TaskErrorKind::Retryable
            | TaskErrorKind::Permanent
            | TaskErrorKind::Replace
            | TaskErrorKind::Retry => Self::Failure(error),
            TaskErrorKind::Reject { requeue } => {
                let reason = error.exception().exc_message.first().and_then(Value::as_str);
                Self::Reject { reason: reason.unwrap_or_default().to_owned(), requeue }
            }
            TaskErrorKind::Ignore => Self::Ignore,
        }
    }
}

/// An exception of the process pool, where Celery's limits live.
fn billiard(class: &str, argument: impl Into<Value>) -> Exception {
    Exception::new("billiard.exceptions", class, argument)
}

fn timed_out(limit: Duration, soft: bool) -> Exception {
    if !soft {
        return billiard("TimeLimitExceeded", seconds(limit));
    }
    let mut exception = billiard("SoftTimeLimitExceeded", Value::Null);
    exception.exc_message.clear();
    exception
}

/// Seconds as Celery writes limits: whole ones as integers.
fn seconds(limit: Duration) -> Value {
    match i64::try_from(limit.as_secs()) {
        Ok(whole) if limit.subsec_nanos() == 0 => Value::Int(whole),
        _ => Value::Float(limit.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_outcomes_by_the_verdict_of_the_error() {
        #[track_caller]
        fn check(result: TaskResult, name: &str, state: Option<&str>) {
            let outcome = Outcome::from(result);
            assert_eq!((outcome.name(), outcome.state()), (name, state));
        }
        check(Ok(Value::Int(1)), "success", Some("SUCCESS"));
        check(Err(TaskError::new("x")), "failure", Some("FAILURE"));
        check(Err(TaskError::permanent("x")), "failure", Some("FAILURE"));
        check(Err(TaskError::reject("x", true)), "reject", None);
        check(Err(TaskError::ignore()), "ignore", None);
        check(Err(TaskError::replace(Signature::new("other"))), "replaced", None);
        let empty = TaskError::new("x").with_kind(TaskErrorKind::Replace);
        check(Err(empty), "failure", Some("FAILURE"));
    }

    #[test]
    fn ends_that_the_worker_makes_have_the_exceptions_of_celery() {
        #[track_caller]
        fn check(outcome: Outcome, state: &str, text: &str) {
            assert_eq!(outcome.state(), Some(state));
            let failure = outcome.failure().map(|(exception, _)| exception.to_string());
            assert_eq!(failure, (state == "FAILURE").then(|| text.to_owned()));
            assert_eq!(outcome.into_exception().unwrap().0.to_string(), text);
        }
        let revoked = Outcome::Revoked { reason: "expired".into() };
        check(revoked, "REVOKED", "TaskRevokedError: expired");
        let limit = Duration::from_secs(3);
        let soft = Outcome::TimedOut { limit, soft: true };
        check(soft, "FAILURE", "SoftTimeLimitExceeded");
        let hard = Outcome::TimedOut { limit, soft: false };
        check(hard, "FAILURE", "TimeLimitExceeded: 3");
        let panicked = Outcome::Panicked { message: "oh".into(), backtrace: None };
        check(panicked, "FAILURE", "Panic: oh");
        let lost = Outcome::Lost { reason: "killed".into() };
        check(lost, "FAILURE", "WorkerLostError: killed");
    }
}
