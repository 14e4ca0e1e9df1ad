//! The body of a task message: `[args, kwargs, embed]`, or one map in protocol version 1.
//!
//! ```text
//! [[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]
//! ```

use super::{Error, Map, Serializer, Signature, Value, fields, json, msgpack};

/// What a call carries: its arguments, and what is to follow it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskBody {
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Map,
    /// What is to follow.
    pub embed: Embed,
}

/// What is to follow a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embed {
    /// Published with the result when the task succeeds (`link`).
    pub callbacks: Option<Vec<Signature>>,
    /// Published when the task fails (`link_error`).
    pub errbacks: Option<Vec<Signature>>,
    /// The rest of the chain, **last task first**: the next one is popped from the end.
    pub chain: Option<Vec<Signature>>,
    /// The body of the chord that this task is a header member of.
    pub chord: Option<Box<Signature>>,
    /// Keys that are not known here.
    pub extra: Map,
}

impl TaskBody {
    /// Reads a body of protocol version 2.
    ///
    /// A null or empty embed and null keyword arguments are empty ones; null arguments are an
    /// error, which Python reports as a `TypeError` of the task.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let parts = match value {
            Value::Array(parts) => <[Value; 3]>::try_from(parts),
            other => return Err(fields::wrong("body", "a list", &other)),
        };
        let [args, kwargs, embed] = parts.map_err(|parts| match parts.len() {
            0 => Error::Missing { field: "args" },
            1 => Error::Missing { field: "kwargs" },
            2 => Error::Missing { field: "embed" },
            _ => Error::Field { field: "body", expected: "three elements", found: "more" },
        })?;
        Ok(Self {
            args: required_args(args)?,
            kwargs: fields::map("kwargs", kwargs)?,
            embed: Embed::from_value(embed)?,
        })
    }

    /// Appends the encoded body to `out`.
    pub fn encode(&self, serializer: Serializer, out: &mut Vec<u8>) -> Result<(), Error> {
        let embed = self.embed.to_map();
        match serializer {
            Serializer::Msgpack => msgpack::encode_body(&self.args, &self.kwargs, &embed, out),
            Serializer::Json => json::encode_body(&self.args, &self.kwargs, &embed, out),
        }
    }
}

/// Positional arguments, which Python insists on.
pub(super) fn required_args(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(args) => Ok(args),
        other => Err(fields::wrong("args", "a list", &other)),
    }
}

impl Embed {
    /// Reads the third element of a body.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let mut read = Self::default();
        for (key, value) in fields::map("embed", value)? {
            match &*key {
                "callbacks" => read.callbacks = Signature::list_from_value("callbacks", value)?,
                "errbacks" => read.errbacks = Signature::list_from_value("errbacks", value)?,
                "chain" => read.chain = Signature::list_from_value("chain", value)?,
                "chord" if value.is_null() => {}
                "chord" => read.chord = Some(Box::new(Signature::from_value(value)?)),
                _ => read.extra.push(key, value),
            }
        }
        Ok(read)
    }

    /// The wire form: the four keys in Celery's order, then the others.
    fn to_map(&self) -> Map {
        let list = |list: &Option<Vec<Signature>>| {
            list.as_ref().map(|list| list.iter().map(Signature::to_value).collect::<Vec<_>>())
        };
        let mut map = Map::with_capacity(4 + self.extra.len());
        map.push("callbacks", list(&self.callbacks));
        map.push("errbacks", list(&self.errbacks));
        map.push("chain", list(&self.chain));
        map.push("chord", self.chord.as_deref().map(Signature::to_value));
        for (key, value) in self.extra.iter() {
            map.push(key.to_owned(), value.clone());
        }
        map
    }
}
