//! What a task did in its child, as a map for the way back.

use crate::protocol::{Exception, Map, Signature, Value};
use crate::task::{Retry, TaskError, TaskErrorKind, TaskResult};
use crate::worker::guard::Panicked;

/// How a function ended that could end.
#[derive(Debug)]
pub(super) enum Verdict {
    Returned(TaskResult),
    Panicked(Panicked),
}

impl Verdict {
    pub(super) fn into_map(self) -> Map {
        let mut map = Map::new();
        match self {
            Self::Returned(Ok(value)) => map.push("value", value),
            Self::Returned(Err(error)) => return error_map(error),
            Self::Panicked(Panicked { message, backtrace }) => {
                map.push("panic", message);
                map.push("backtrace", backtrace);
            }
        }
        map
    }

    pub(super) fn from_map(mut map: Map) -> Option<Self> {
        let text = |map: &Map, key| Some(map.get(key)?.as_str()?.to_owned());
        if let Some(value) = map.remove("value") {
            return Some(Self::Returned(Ok(value)));
        }
        if let Some(message) = text(&map, "panic") {
            let backtrace = text(&map, "backtrace")?;
            return Some(Self::Panicked(Panicked { message, backtrace }));
        }
        error_of(map).map(|error| Self::Returned(Err(error)))
    }
}

fn error_map(mut error: TaskError) -> Map {
    let mut map = Map::new();
    if let Some(by) = error.take_replacement() {
        map.push("replacement", by.into_value());
    }
    if let Some(retry) = error.take_retry() {
        let (retry, because) = retry.into_map();
        map.push("retry", retry);
        map.push("because", because.map(|error| Value::Map(error_map(error))));
    }
    let (kind, exception, traceback) = error.into_parts();
    map.push("error", kind_name(kind));
    map.push("exc_type", exception.exc_type);
    map.push("exc_module", exception.exc_module);
    map.push("exc_message", Value::Array(exception.exc_message));
    map.push("traceback", traceback);
    map
}

fn error_of(mut map: Map) -> Option<TaskError> {
    let text = |map: &Map, key| Some(map.get(key)?.as_str()?.to_owned());
    let kind = kind_of(map.get("error")?.as_str()?)?;
    if let Some(by) = map.remove("replacement") {
        let by = Signature::from_value(by).ok()?;
        return Some(TaskError::replace(by));
    }
    if let Some(Value::Map(retry)) = map.remove("retry") {
        let because = match map.remove("because") {
            Some(Value::Map(error)) => Some(error_of(error)?),
            _ => None,
        };
        return Some(Retry::from_map(retry, because).into());
    }
    let Some(Value::Array(exc_message)) = map.remove("exc_message") else { return None };
    let (exc_type, exc_module) = (text(&map, "exc_type")?, text(&map, "exc_module"));
    let error = TaskError::from(Exception { exc_type, exc_module, exc_message });
    let error = error.with_kind(kind);
    Some(match text(&map, "traceback") {
        Some(traceback) => error.with_traceback(traceback),
        None => error,
    })
}

fn kind_name(kind: TaskErrorKind) -> &'static str {
    match kind {
        TaskErrorKind::Retryable => "retryable",
        TaskErrorKind::Permanent => "permanent",
        TaskErrorKind::Reject { requeue: true } => "requeue",
        TaskErrorKind::Reject { requeue: false } => "reject",
        TaskErrorKind::Ignore => "ignore",
        TaskErrorKind::Replace => "replace",
        TaskErrorKind::Retry => "retry",
    }
}

fn kind_of(name: &str) -> Option<TaskErrorKind> {
    Some(match name {
        "retryable" => TaskErrorKind::Retryable,
        "permanent" => TaskErrorKind::Permanent,
        "requeue" => TaskErrorKind::Reject { requeue: true },
        "reject" => TaskErrorKind::Reject { requeue: false },
        "ignore" => TaskErrorKind::Ignore,
        "replace" => TaskErrorKind::Replace,
        "retry" => TaskErrorKind::Retry,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(verdict: Verdict) -> Verdict {
        Verdict::from_map(verdict.into_map()).unwrap()
    }

    #[test]
    fn a_retry_that_is_asked_for_keeps_what_it_says() {
        let seconds = std::time::Duration::from_millis(1500);
        let because = TaskError::python("ValueError", "builtins", ["kaboom"]);
        let asked = Retry::default().countdown(seconds).max_retries(7).arg(1).because(because);
        let said = format!("{asked:?}");
        let verdict = Verdict::Returned(Err(asked.into()));
        let Verdict::Returned(Err(mut came)) = through(verdict) else { panic!("it was an error") };
        assert_eq!(came.kind(), TaskErrorKind::Retry);
        assert_eq!(format!("{:?}", came.take_retry().unwrap()), said);
    }

    #[test]
    fn an_error_keeps_its_class_its_traceback_and_what_becomes_of_it() {
        let error = || TaskError::python("ValueError", "builtins", ["kaboom"]).with_traceback("at");
        for kind in ["retryable", "permanent", "requeue", "reject", "ignore"] {
            let kind = kind_of(kind).unwrap();
            let Verdict::Returned(Err(came)) =
                through(Verdict::Returned(Err(error().with_kind(kind))))
            else {
                panic!("it was an error");
            };
            assert_eq!(came.kind(), kind);
            assert_eq!(came.exception(), error().exception());
            assert_eq!(came.traceback(), Some("at"));
        }
    }

    #[test]
    fn a_replacement_is_the_same_call() {
        let by = TaskError::replace(Signature::new("other"));
        let Verdict::Returned(Err(mut came)) = through(Verdict::Returned(Err(by))) else {
            panic!("it was an error");
        };
        assert_eq!(came.take_replacement().unwrap().task, "other");
    }

    #[test]
    fn values_and_panics_are_themselves() {
        let Verdict::Returned(Ok(value)) = through(Verdict::Returned(Ok(Value::Null))) else {
            panic!("it was a value");
        };
        assert_eq!(value, Value::Null);
        let panicked = Panicked { message: "lost it".to_owned(), backtrace: "here".to_owned() };
        let Verdict::Panicked(came) = through(Verdict::Panicked(panicked)) else {
            panic!("it was a panic");
        };
        assert_eq!((came.message.as_str(), came.backtrace.as_str()), ("lost it", "here"));
    }
}
