//! A signature: a call that is not made yet, as one map inside of bodies and options.
//!
//! ```text
//! {"task": "proj.add", "args": [2], "kwargs": {}, "options": {"task_id": ...},
//!  "subtask_type": null, "immutable": false}
//! ```

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Error, Map, Value, fields};

/// A call in the form in which workflows carry it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// Task name; `celery.chain`, `celery.group`, `celery.chord` and so on for workflows.
    pub task: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map,
    /// Call options under Celery's names; see [`CallOptions`](super::CallOptions).
    pub options: Map,
    /// `chain`, `group`, `chord` and so on, or `None` for a plain call.
    pub subtask_type: Option<String>,
    /// Whether results of earlier tasks are not to be prepended to the arguments.
    pub immutable: bool,
}

impl Signature {
    /// A plain call without arguments.
    pub fn new(task: impl Into<String>) -> Self {
        Self { task: task.into(), ..Self::default() }
    }

    /// Reads a signature map; only `task` is needed, and the order of keys does not matter.
    ///
    /// ```
    /// use celeriac::protocol::{Limits, Signature, json};
    ///
    /// let body = br#"{"task": "proj.add", "args": [2]}"#;
    /// let signature = Signature::from_value(json::decode(body, &Limits::default())?)?;
    /// assert_eq!(signature.task, "proj.add");
    /// assert!(signature.options.is_empty() && !signature.immutable);
    /// # Ok::<(), celeriac::protocol::Error>(())
    /// ```
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let map = match value {
            Value::Map(map) => map,
            other => return Err(fields::wrong("signature", "a dict", &other)),
        };
        let mut read = Self::default();
        let mut task = None;
        for (key, value) in map {
            match &*key {
                "task" => task = fields::text("task", value)?,
                "args" => read.args = fields::array("args", value)?.unwrap_or_default(),
                "kwargs" => read.kwargs = fields::map("kwargs", value)?,
                "options" => read.options = fields::map("options", value)?,
                "subtask_type" => read.subtask_type = fields::text("subtask_type", value)?,
                "immutable" => {
                    read.immutable = fields::flag("immutable", &value)?.unwrap_or(false);
                }
                // Older releases have keys of their own, which no reader needs.
                _ => {}
            }
        }
        read.task = task.ok_or(Error::Missing { field: "task" })?;
        Ok(read)
    }

    /// Reads an array of signatures, or one that stands alone; null is none.
    pub(super) fn list_from_value(
        field: &'static str,
        value: Value,
    ) -> Result<Option<Vec<Self>>, Error> {
        match value {
            Value::Null => Ok(None),
            Value::Array(items) => {
                items.into_iter().map(Self::from_value).collect::<Result<_, _>>().map(Some)
            }
            single @ Value::Map(_) => Self::from_value(single).map(|single| Some(vec![single])),
            other => Err(fields::wrong(field, "a list of signatures", &other)),
        }
    }

    /// The signature map, with its six keys in Celery's order.
    pub fn into_value(self) -> Value {
        let mut map = Map::with_capacity(6);
        map.push("task", self.task);
        map.push("args", self.args);
        map.push("kwargs", self.kwargs);
        map.push("options", self.options);
        map.push("subtask_type", self.subtask_type);
        map.push("immutable", self.immutable);
        Value::Map(map)
    }

    /// The signature map of a signature that is still needed.
    pub fn to_value(&self) -> Value {
        self.clone().into_value()
    }
}

/// As the signature map, so that a task can take a signature as an argument or return one.
impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        Value::Map(entries.into_iter().collect())
    }

    #[test]
    fn only_the_task_is_needed() {
        let read = Signature::from_value(map([("immutable", true.into()), ("task", "t".into())]));
        assert_eq!(read, Ok(Signature { immutable: true, ..Signature::new("t") }));
        let nulls = ["args", "kwargs", "options", "subtask_type", "immutable"];
        let nulls = nulls.into_iter().map(|key| (key, Value::Null));
        let read = Signature::from_value(map(nulls.chain([("task", "t".into())])));
        assert_eq!(read, Ok(Signature::new("t")));
        assert_eq!(Signature::from_value(map([])), Err(Error::Missing { field: "task" }));
    }

    #[test]
    fn a_signature_is_an_argument_like_any_other() {
        let signature = Signature { args: vec![1.into()], ..Signature::new("t") };
        let value = crate::protocol::to_value(&signature).unwrap();
        assert_eq!(value, signature.to_value());
        assert_eq!(crate::protocol::from_value::<Signature>(value), Ok(signature));
        let error = crate::protocol::from_value::<Signature>(map([])).unwrap_err();
        assert_eq!(error.to_string(), "'task' is missing");
    }

    #[test]
    fn one_signature_stands_for_a_list_of_one() {
        let list = |value| Signature::list_from_value("link", value);
        let one = Signature::new("t");
        assert_eq!(list(one.to_value()), Ok(Some(vec![one.clone()])));
        assert_eq!(list(Value::Array(vec![one.to_value()])), Ok(Some(vec![one])));
        assert_eq!(list(Value::Null), Ok(None));
        assert!(list(Value::from("t")).is_err());
    }
}
