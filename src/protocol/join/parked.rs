//! Values beside the log: the message in which one is parked, and the header of the call that
//! brings them back.
//!
//! ```text
//! parked value   type value, headers {c: <chord>, x: <execution>}, body <value>
//! call           headers {task: "celeriac:gather", celeriac_args_ref: {task: S, chord: S},
//!                ...}
//! ```
//!
//! The call has another name than its task, so that a worker which knows nothing of references
//! refuses it instead of running the task with holes in its list.
//!
//! **Invariant:** the header names a chord, never a queue: whoever may send calls cannot have
//! other queues read or deleted.

use super::link::{chord_id, text};
use super::record::decode_value;
use crate::protocol::{Error, Limits, Map, Message, Properties, Serializer, Value, fields};

/// The name of a call whose list has to be gathered first.
pub const GATHER: &str = "celeriac:gather";

/// What a call with references is in truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgsRef {
    /// Name of the task.
    pub task: String,
    /// The chord whose values are parked.
    pub chord: String,
}

/// A value on its way to the queue of its chord.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedValue {
    /// Id of the chord.
    pub chord: String,
    /// Id of the run of the task that has returned it.
    pub execution: String,
    /// The value in MessagePack.
    pub value: Vec<u8>,
}

impl ArgsRef {
    /// Name of the header.
    pub const HEADER: &str = "celeriac_args_ref";

    /// Reads the header's value.
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        let map = value.as_map().ok_or_else(|| fields::wrong("args_ref", "a dict", value))?;
        let task = text("task", map)?.filter(|task| !task.is_empty());
        let task = task.ok_or(Error::Missing { field: "task" })?;
        Ok(Self { task, chord: chord_id("chord", map)? })
    }

    /// The header's value.
    pub fn into_value(self) -> Value {
        Value::Map(Map::from_iter([("task", self.task), ("chord", self.chord)]))
    }
}

impl ParkedValue {
    const KIND: &str = "value";

    /// Writes the message: persistent.
    pub fn encode(self) -> Result<Message, Error> {
        fields::short("x", &self.execution)?;
        let headers = Map::from_iter([("c", self.chord), ("x", self.execution)]);
        let properties = Properties {
            content_type: Some(Serializer::Msgpack.content_type().to_owned()),
            content_encoding: Some(Serializer::Msgpack.content_encoding().to_owned()),
            headers: Some(headers),
            delivery_mode: Some(Properties::PERSISTENT),
            kind: Some(Self::KIND.to_owned()),
            ..Properties::default()
        };
        Ok(Message { properties, body: self.value })
    }

    /// Which run has parked the value of `message`; `None` if it is no such message.
    pub fn execution(message: &Message) -> Option<&str> {
        let is_value = message.properties.kind.as_deref() == Some(Self::KIND);
        message.header("x").and_then(Value::as_str).filter(|_| is_value)
    }

    /// Reads the value of `message`.
    pub fn value(message: &Message, limits: &Limits) -> Result<Value, Error> {
        if message.body.len() > limits.bytes_max {
            return Err(Error::Limit { what: "bytes", max: limits.bytes_max });
        }
        decode_value(&message.body, limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_as_it_was_parked() {
        let parked = |execution: &str| ParkedValue {
            chord: "c".to_owned(),
            execution: execution.to_owned(),
            value: vec![0x2a],
        };
        let message = parked("x").encode().unwrap();
        assert_eq!(ParkedValue::execution(&message), Some("x"));
        assert_eq!(ParkedValue::value(&message, &Limits::default()), Ok(Value::Int(42)));
        assert!(parked(&"x".repeat(256)).encode().is_err());
        assert_eq!(ParkedValue::execution(&Message::default()), None);
        for body in [&b""[..], b"\x01\x02", b"\x92\x01"] {
            let message = Message { body: body.to_vec(), ..Message::default() };
            assert!(ParkedValue::value(&message, &Limits::default()).is_err());
        }
    }

    #[test]
    fn a_header_that_names_no_task_or_chord_is_an_error() {
        let header = ArgsRef { task: "t".to_owned(), chord: "c".to_owned() };
        assert_eq!(ArgsRef::from_value(&header.clone().into_value()), Ok(header));
        let named = |task: &str, chord: &str| {
            Value::Map(Map::from_iter([("task", task), ("chord", chord)]))
        };
        for value in [named("", "c"), named("t", ""), named("t", &"c".repeat(256)), Value::Null] {
            assert!(ArgsRef::from_value(&value).is_err(), "{value:?}");
        }
    }
}
