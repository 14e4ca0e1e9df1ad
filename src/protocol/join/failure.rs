//! Why a part of a chord failed: the body of an `err` record.
//!
//! ```text
//! {"type": "ValueError", "module": "builtins", "message": "kaboom", "traceback": null,
//!  "task": "proj.add", "task_id": "..."}
//! ```

use super::link::text;
use crate::protocol::{Error, Exception, Limits, Map, Value, fields, msgpack};

/// How a part of a chord failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The exception. On the wire its module is optional, and its only argument stands alone.
    pub exc: Exception,
    /// Where it was raised.
    pub traceback: Option<String>,
    /// Name of the task.
    pub task: Option<String>,
    /// Id of the task.
    pub task_id: String,
}

impl Failure {
    /// A failure of the task `task_id` without a traceback.
    pub fn new(exc: Exception, task: impl Into<String>, task_id: impl Into<String>) -> Self {
        Self { exc, traceback: None, task: Some(task.into()), task_id: task_id.into() }
    }

    /// Reads the body of an `err` record.
    pub fn decode(body: &[u8], limits: &Limits) -> Result<Self, Error> {
        let value = msgpack::decode(body, limits)?;
        let map = value.as_map().ok_or_else(|| fields::wrong("err", "a dict", &value))?;
        let exc_message = match map.get("message") {
            Some(Value::Array(items)) => items.clone(),
            Some(Value::Null) | None => Vec::new(),
            Some(single) => vec![single.clone()],
        };
        let exc_type = text("type", map)?.ok_or(Error::Missing { field: "type" })?;
        let exc = Exception { exc_type, exc_module: text("module", map)?, exc_message };
        let task_id = text("task_id", map)?.unwrap_or_default();
        fields::short("task_id", &task_id)?;
        Ok(Self { exc, traceback: text("traceback", map)?, task: text("task", map)?, task_id })
    }

    /// The body of an `err` record. Arguments of the exception that MessagePack has no form for
    /// become one text: a failure can always be told.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::with_capacity(128);
        let message = match self.exc.exc_message.as_slice() {
            [single @ Value::String(_)] => single.clone(),
            items => Value::Array(items.to_vec()),
        };
        if msgpack::encode(&self.to_value(message), &mut body).is_err() {
            body.clear();
            msgpack::encode(&self.to_value(self.exc.to_string().into()), &mut body)?;
        }
        Ok(body)
    }

    fn to_value(&self, message: Value) -> Value {
        let mut map = Map::with_capacity(6);
        map.push("type", &*self.exc.exc_type);
        map.push("module", self.exc.exc_module.as_deref());
        map.push("message", message);
        map.push("traceback", self.traceback.as_deref());
        map.push("task", self.task.as_deref());
        map.push("task_id", &*self.task_id);
        Value::Map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_it_was_written() {
        let mut failure = Failure::new(Exception::type_error("add() takes 2"), "add", "1");
        let read =
            |failure: &Failure| Failure::decode(&failure.encode().unwrap(), &Limits::default());
        assert_eq!(read(&failure), Ok(failure.clone()));
        failure.exc.exc_message.push(Value::Int(5));
        failure.traceback = Some("Traceback".to_owned());
        assert_eq!(read(&failure), Ok(failure.clone()));
        failure.exc.exc_message = vec![Value::Array(vec![])];
        assert_eq!(read(&failure), Ok(failure));
    }

    #[test]
    fn what_messagepack_cannot_carry_becomes_text() {
        let exc = Exception::new("builtins", "OverflowError", Value::BigInt("9".repeat(30)));
        let body = Failure::new(exc, "add", "1").encode().unwrap();
        let read = Failure::decode(&body, &Limits::default()).unwrap();
        let expected = format!("OverflowError: {}", "9".repeat(30));
        assert_eq!(read.exc.exc_message, [Value::String(expected)]);
    }

    #[test]
    fn only_the_type_is_needed() {
        let mut body = Vec::new();
        let map = Map::from_iter([("type", "KeyError"), ("message", "x")]);
        msgpack::encode(&Value::Map(map), &mut body).unwrap();
        let read = Failure::decode(&body, &Limits::default()).unwrap();
        assert_eq!((read.exc.to_string(), read.task_id), ("KeyError: x".to_owned(), String::new()));
        assert!(Failure::decode(b"\x80", &Limits::default()).is_err());
        assert!(Failure::decode(b"\xc0", &Limits::default()).is_err());
    }
}
