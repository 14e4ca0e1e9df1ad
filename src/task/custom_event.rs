//! What a task tells monitors by itself, beside the events that its worker sends of it.
//!
//! Says what may be told; sending is the worker's part. **Invariant:** it is bounded, can be
//! written, and cannot be taken for what workers and clients tell.

use super::Request;
use crate::protocol::event::EventKind;
use crate::protocol::{Error, Map, Value, ValueError, json};

/// The longest type, in bytes: it is a routing key.
const TYPE_MAX: usize = 255;

/// How much the fields may be in JSON, in bytes.
const FIELDS_MAX: usize = 64 << 10;

/// What every event has beside its fields.
const OF_ALL: [&str; 7] = ["type", "uuid", "hostname", "pid", "clock", "timestamp", "utcoffset"];

/// An event of a task's own.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomEvent {
    /// Its type.
    name: String,
    fields: Map,
}

/// Sends the events of a task's own.
///
/// The worker's implementation never waits: what the broker does not take in time is dropped.
pub trait SendEvents: Send + Sync {
    /// Sends an event of the call of `request`.
    fn send_event(&self, request: &Request, event: CustomEvent);
}

/// An event that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The type is empty, too long, or one of those that workers and clients send.
    #[error(
        "an event cannot have the type '{0}': give it 1 to 255 bytes of its own, such as \
         'task-progress'; those of workers and clients are theirs"
    )]
    Type(String),
    /// The fields cannot be written as values.
    #[error("failed to serialize the fields of an event")]
    Fields(#[source] ValueError),
    /// The fields are no map.
    #[error("the fields of an event are no map from names to values")]
    NotAMap,
    /// A field has a name that every event uses.
    #[error("an event has a field '{0}' already: choose another name")]
    Reserved(String),
    /// A value has no form in JSON, which is the language of events.
    #[error("an event cannot be written in JSON")]
    Json(#[source] Error),
    /// The fields are too large.
    #[error("the fields of an event take {size} bytes, more than {max}: leave out what is long")]
    TooLarge {
        /// What they take.
        size: usize,
        /// What they may take.
        max: usize,
    },
}

impl CustomEvent {
    /// An event of the type `name`; `fields` is a map, or nothing at all.
    pub(crate) fn new(name: &str, fields: Value) -> Result<Self, EventError> {
        if name.is_empty() || name.len() > TYPE_MAX || EventKind::is_reserved(name) {
            return Err(EventError::Type(name.chars().take(TYPE_MAX).collect()));
        }
        let fields = match fields {
            Value::Map(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(EventError::NotAMap),
        };
        if let Some(taken) = OF_ALL.into_iter().find(|taken| fields.contains_key(taken)) {
            return Err(EventError::Reserved(taken.to_owned()));
        }
        let (fields, mut written) = (Value::Map(fields), Vec::new());
        json::encode(&fields, &mut written).map_err(EventError::Json)?;
        let (size, max) = (written.len(), FIELDS_MAX);
        match fields {
            Value::Map(fields) if size <= max => Ok(Self { name: name.to_owned(), fields }),
            _ => Err(EventError::TooLarge { size, max }),
        }
    }

    /// What monitors are told: the fields behind the id of the call.
    pub(crate) fn into_kind(self, task_id: &str) -> EventKind {
        let mut fields = Map::with_capacity(self.fields.len() + 1);
        fields.push("uuid", task_id);
        for (key, value) in self.fields {
            fields.push(key, value);
        }
        EventKind::Custom { name: self.name, fields }
    }

    /// Its type and its fields.
    pub(crate) fn into_parts(self) -> (String, Map) {
        (self.name, self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<const N: usize>(entries: [(&'static str, Value); N]) -> Value {
        Value::Map(Map::from_iter(entries))
    }

    #[test]
    fn an_event_is_the_id_and_the_fields_in_their_order() {
        let given = fields([("done", 3.into()), ("of", 10.into())]);
        let event = CustomEvent::new("task-progress", given).unwrap();
        let EventKind::Custom { name, fields } = event.into_kind("1") else {
            panic!("a known one")
        };
        assert_eq!(name, "task-progress");
        let fields: Vec<_> = fields.iter().map(|(key, value)| (key, value.clone())).collect();
        assert_eq!(fields, [("uuid", "1".into()), ("done", 3.into()), ("of", 10.into())]);
        let nothing = CustomEvent::new("order-paid", Value::Null).unwrap();
        assert_eq!(nothing.into_parts(), ("order-paid".to_owned(), Map::new()));
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let refused = |name: &str, fields| CustomEvent::new(name, fields).unwrap_err();
        for name in ["", "task-succeeded", "worker-offline", "worker-mine", &"x".repeat(256)] {
            assert!(matches!(refused(name, Value::Null), EventError::Type(_)), "{name}");
        }
        for name in OF_ALL {
            let fields = Value::Map(Map::from_iter([(name, 1)]));
            assert!(
                matches!(refused("mine", fields), EventError::Reserved(taken) if taken == name)
            );
        }
        assert!(matches!(refused("mine", 3.into()), EventError::NotAMap));
        let long = fields([("text", "x".repeat(FIELDS_MAX).into())]);
        assert!(matches!(refused("mine", long), EventError::TooLarge { .. }));
        let fits = fields([("text", "x".repeat(FIELDS_MAX - 20).into())]);
        assert!(CustomEvent::new("mine", fits).is_ok());
    }
}
