//! An exception as Celery stores it: class, module and arguments.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Map, Value};

/// What went wrong, in the form that Python clients turn back into an exception.
///
/// On the wire it is the map `{"exc_type", "exc_message", "exc_module"}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Exception {
    /// Class name, for example `ValueError`.
    pub exc_type: String,
    /// Module of the class; a missing module is fine for readers.
    pub exc_module: Option<String>,
    /// The exception's arguments; normally one text.
    pub exc_message: Vec<Value>,
}

impl Exception {
    /// An exception of any class.
    pub fn new(module: &str, class: &str, message: impl Into<Value>) -> Self {
        Self {
            exc_type: class.to_owned(),
            exc_module: Some(module.to_owned()),
            exc_message: vec![message.into()],
        }
    }

    /// A task that the worker does not know.
    pub fn not_registered(task: &str) -> Self {
        Self::new("celery.exceptions", "NotRegistered", task)
    }

    /// A task that was not run on purpose: `revoked`, `terminated` or `expired`.
    pub fn task_revoked(reason: &str) -> Self {
        Self::new("celery.exceptions", "TaskRevokedError", reason)
    }

    /// A task that ran longer than its hard time limit.
    pub fn time_limit_exceeded(seconds: f64) -> Self {
        Self::new("billiard.exceptions", "TimeLimitExceeded", seconds)
    }

    /// A task whose process was lost.
    pub fn worker_lost(message: impl Into<String>) -> Self {
        Self::new("billiard.exceptions", "WorkerLostError", message.into())
    }

    /// Arguments that do not fit the task's parameters.
    pub fn type_error(message: impl Into<String>) -> Self {
        Self::new("builtins", "TypeError", message.into())
    }

    /// A body that could not be decoded.
    pub fn decode_error(message: impl Into<String>) -> Self {
        Self::new("kombu.exceptions", "DecodeError", message.into())
    }

    /// A content type that is not accepted.
    pub fn content_disallowed(message: impl Into<String>) -> Self {
        Self::new("kombu.exceptions", "ContentDisallowed", message.into())
    }

    /// A value that the serializer cannot write.
    pub fn encode_error(message: impl Into<String>) -> Self {
        Self::new("kombu.exceptions", "EncodeError", message.into())
    }

    /// A task that asked for its own rejection.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::new("celery.exceptions", "Reject", reason.into())
    }

    /// The wire form.
    pub fn into_value(self) -> Value {
        let mut map = Map::with_capacity(3);
        map.push("exc_type", self.exc_type);
        map.push("exc_message", Value::Array(self.exc_message));
        map.push("exc_module", self.exc_module);
        Value::Map(map)
    }

    /// Reads the wire form; `None` if `value` is not an exception map.
    ///
    /// A message that is not an array counts as the only argument.
    pub fn from_value(value: &Value) -> Option<Self> {
        let map = value.as_map()?;
        let exc_message = match map.get("exc_message") {
            Some(Value::Array(items)) => items.clone(),
            Some(Value::Null) | None => Vec::new(),
            Some(single) => vec![single.clone()],
        };
        Some(Self {
            exc_type: map.get("exc_type")?.as_str()?.to_owned(),
            exc_module: map.get("exc_module").and_then(Value::as_str).map(str::to_owned),
            exc_message,
        })
    }
}

/// Writes `ValueError: kaboom`, the last line of a Python traceback.
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.exc_type)?;
        for (at, item) in self.exc_message.iter().enumerate() {
            f.write_str(if at == 0 { ": " } else { ", " })?;
            match item {
                Value::String(text) | Value::BigInt(text) | Value::Tagged(_, text) => {
                    f.write_str(text)?;
                }
                Value::Null => f.write_str("None")?,
                Value::Bool(flag) => f.write_str(if *flag { "True" } else { "False" })?,
                Value::Int(number) => write!(f, "{number}")?,
                Value::UInt(number) => write!(f, "{number}")?,
                Value::Float(number) => write!(f, "{number:?}")?,
                Value::Bytes(_) | Value::Array(_) | Value::Map(_) => {
                    write!(f, "<{}>", item.kind())?;
                }
            }
        }
        Ok(())
    }
}

impl std::error::Error for Exception {}

/// As the exception map, so that an errback can take one as an argument.
impl Serialize for Exception {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.clone().into_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Exception {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).ok_or_else(|| D::Error::custom("expected an exception"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_reads_as_it_was_written() {
        let exception = Exception::type_error("add() takes 2 arguments");
        assert_eq!(Exception::from_value(&exception.clone().into_value()), Some(exception));
        let mut bare = Map::from_iter([("exc_type", "ValueError")]);
        let read = Exception::from_value(&Value::Map(bare.clone())).unwrap();
        assert_eq!((read.exc_module, read.exc_message), (None, vec![]));
        bare.push("exc_message", "kaboom");
        let read = Exception::from_value(&Value::Map(bare)).unwrap();
        assert_eq!(read.to_string(), "ValueError: kaboom");
        assert_eq!(Exception::from_value(&Value::from("ValueError")), None);
    }

    #[test]
    fn an_exception_is_shown_as_the_last_line_of_a_traceback() {
        let mut exception = Exception::new("builtins", "KeyError", Value::Null);
        exception.exc_message.extend([true.into(), 1.5.into(), Value::Array(vec![])]);
        assert_eq!(exception.to_string(), "KeyError: None, True, 1.5, <list>");
        exception.exc_message.clear();
        assert_eq!(exception.to_string(), "KeyError");
    }
}
