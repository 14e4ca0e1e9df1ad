//! The record `open`: everything about a chord, written once before its first part is sent.
//!
//! ```text
//! {"v": 1, "route": "join.3", "size": 2, "mode": "fail_fast", "body": {signature}, "errbacks": [],
//!  "parent": null, "reply_to": null, "root": "...", "stack": [], "created": 1790000000000,
//!  "expires": 1790086400000, "revoke_rest": false}
//! ```

use super::link::{chord_id, flag, index, place, route, stack, text, texts};
use super::place::Place;
use crate::protocol::{Error, Map, Serializer, Signature, Value, fields, msgpack};

/// When a chord ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// At the first part that fails, or when all have succeeded.
    #[default]
    FailFast,
    /// When all parts have ended; the body gets values and errors.
    Collect,
}

/// The part of another chord that a chord stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parent {
    /// Routing key of the outer chord's shard.
    pub route: String,
    /// Id of the outer chord.
    pub chord: String,
    /// Place in the outer chord.
    pub index: Place,
}

/// A chord that has begun.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open {
    /// Id of the chord.
    pub chord: String,
    /// Routing key of its shard.
    pub route: String,
    /// Number of parts.
    pub size: u32,
    /// When it ends.
    pub mode: Mode,
    /// What is called with the list of results. Without it, the list itself is the outcome, for
    /// the parent or for `reply_to`.
    pub body: Option<Signature>,
    /// What is called when the chord fails.
    pub errbacks: Vec<Signature>,
    /// The part of an outer chord that this chord stands for.
    pub parent: Option<Parent>,
    /// Where the caller waits for the outcome.
    pub reply_to: Option<String>,
    /// Id of the first task of the workflow.
    pub root: Option<String>,
    /// Ids of the chords around this one, outermost first.
    pub stack: Vec<String>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it is given up, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Whether the parts that have not begun are to be revoked once the chord has failed.
    pub revoke_rest: bool,
    /// That large values of parts are parked, and how long their queue outlives its last use, in
    /// milliseconds. Then the record is of version 2, which older joiners leave to others.
    pub park_ms: Option<u64>,
}

/// The version of the protocol.
const VERSION: i64 = 1;

/// The version in which values may be parked.
const VERSION_PARKING: i64 = 2;

/// The option that says how a call is written.
const SERIALIZER: &str = "serializer";

/// Errbacks of one chord, at most.
pub(crate) const ERRBACKS_MAX: usize = 256;

impl Mode {
    /// `fail_fast` or `collect`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailFast => "fail_fast",
            Self::Collect => "collect",
        }
    }

    fn from_name(name: &str) -> Result<Self, Error> {
        match name {
            "fail_fast" => Ok(Self::FailFast),
            "collect" => Ok(Self::Collect),
            other => Err(Error::malformed("a mode of chords", other)),
        }
    }
}

impl Open {
    /// Reads the map that is the body of an `open` record, for the chord that the headers name.
    pub fn from_value(chord: String, value: Value) -> Result<Self, Error> {
        let mut map = match value {
            Value::Map(map) => map,
            other => return Err(fields::wrong("open", "a dict", &other)),
        };
        version(&map)?;
        let mode = text("mode", &map)?;
        let errbacks = Signature::list_from_value("errbacks", take("errbacks", &mut map))?;
        let errbacks = errbacks.unwrap_or_default();
        if errbacks.len() > ERRBACKS_MAX {
            return Err(Error::Limit { what: "errbacks", max: ERRBACKS_MAX });
        }
        Ok(Self {
            chord,
            route: route("route", &map)?,
            size: index("size", &map)?,
            mode: mode.as_deref().map(Mode::from_name).transpose()?.unwrap_or_default(),
            body: optional(take("body", &mut map)).map(Signature::from_value).transpose()?,
            errbacks,
            parent: optional(take("parent", &mut map))
                .map(|it| Parent::from_value(&it))
                .transpose()?,
            reply_to: short_text("reply_to", &map)?,
            root: text("root", &map)?,
            stack: stack(&map)?,
            created_ms: moment("created", &map)?,
            expires_ms: moment("expires", &map)?,
            revoke_rest: flag("revoke_rest", &map)?.unwrap_or(false),
            park_ms: map.get("park").map(|_| moment("park", &map)).transpose()?,
        })
    }

    /// Has the body, and reports about it, written in `serializer`, unless the body says otherwise:
    /// the caller may read nothing else, and the joiner has not seen the caller's message.
    pub(crate) fn write_in(&mut self, serializer: Serializer) {
        if let Some(body) = &mut self.body
            && body.options.get(SERIALIZER).is_none_or(Value::is_null)
        {
            body.options.insert(SERIALIZER, serializer.name());
        }
    }

    /// The bytes of the body, if they are more than `max`; the record has `len` bytes in all.
    pub(crate) fn large_body(&self, len: usize, max: usize) -> Option<usize> {
        let body = self.body.as_ref().filter(|_| len > max)?;
        let mut written = Vec::new();
        msgpack::encode(&body.to_value(), &mut written).ok()?;
        Some(written.len()).filter(|size| *size > max)
    }

    /// What the body and reports about it are written in.
    pub(crate) fn serializer(&self) -> Serializer {
        let said = self.body.as_ref().and_then(|body| body.options.get(SERIALIZER)?.as_str());
        said.and_then(Serializer::from_content_type).unwrap_or_default()
    }

    /// The map of the record's body; the chord's id is in the headers.
    pub fn to_value(&self) -> Value {
        let mut map = Map::with_capacity(14);
        map.push("v", if self.park_ms.is_some() { VERSION_PARKING } else { VERSION });
        map.push("route", &*self.route);
        map.push("size", self.size);
        map.push("mode", self.mode.as_str());
        map.push("body", self.body.as_ref().map(Signature::to_value));
        let errbacks = self.errbacks.iter().map(Signature::to_value);
        map.push("errbacks", errbacks.collect::<Vec<_>>());
        map.push("parent", self.parent.as_ref().map(Parent::to_value));
        map.push("reply_to", self.reply_to.as_deref());
        map.push("root", self.root.as_deref());
        map.push("stack", texts(self.stack.clone()));
        map.push("created", self.created_ms);
        map.push("expires", self.expires_ms);
        map.push("revoke_rest", self.revoke_rest);
        if let Some(lease) = self.park_ms {
            map.push("park", lease);
        }
        Value::Map(map)
    }
}

impl Parent {
    pub(super) fn from_value(value: &Value) -> Result<Self, Error> {
        let map = value.as_map().ok_or_else(|| fields::wrong("parent", "a dict", value))?;
        Ok(Self {
            route: route("route", map)?,
            chord: chord_id("chord", map)?,
            index: place("index", map)?,
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::with_capacity(3);
        map.push("route", &*self.route);
        map.push("chord", &*self.chord);
        map.push("index", self.index.to_value());
        Value::Map(map)
    }
}

fn version(map: &Map) -> Result<(), Error> {
    match map.get("v") {
        Some(Value::Int(VERSION | VERSION_PARKING)) => Ok(()),
        Some(Value::Int(other)) => Err(Error::JoinVersion(*other)),
        Some(other) => Err(fields::wrong("v", "an integer", other)),
        None => Err(Error::Missing { field: "v" }),
    }
}

fn take(field: &str, map: &mut Map) -> Value {
    map.remove(field).unwrap_or_default()
}

fn optional(value: Value) -> Option<Value> {
    Some(value).filter(|value| !value.is_null())
}

fn short_text(field: &'static str, map: &Map) -> Result<Option<String>, Error> {
    let found = text(field, map)?;
    found.as_deref().map_or(Ok(()), |found| fields::short(field, found))?;
    Ok(found)
}

/// What a number of milliseconds is.
fn unit(field: &str) -> &'static str {
    if field == "park" { "milliseconds" } else { "milliseconds since 1970" }
}

/// Milliseconds, since the Unix epoch if it is a moment.
fn moment(field: &'static str, map: &Map) -> Result<u64, Error> {
    let value = map.get(field).unwrap_or(&Value::Null);
    let number = fields::integer(field, value)?.ok_or(Error::Missing { field })?;
    u64::try_from(number).map_err(|_| fields::wrong(field, unit(field), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::protocol::join) fn example() -> Open {
        Open {
            chord: "c".to_owned(),
            route: "join.3".to_owned(),
            size: 2,
            mode: Mode::Collect,
            body: Some(Signature::new("sum")),
            errbacks: vec![Signature::new("tell")],
            parent: Some(Parent {
                route: "join.1".to_owned(),
                chord: "o".to_owned(),
                index: 4.into(),
            }),
            reply_to: Some("reply".to_owned()),
            root: Some("r".to_owned()),
            stack: vec!["o".to_owned()],
            created_ms: 1_790_000_000_000,
            expires_ms: 1_790_086_400_000,
            revoke_rest: true,
            park_ms: None,
        }
    }

    #[test]
    fn a_chord_reads_as_it_was_written() {
        let bare = Open { body: None, parent: None, reply_to: None, ..example() };
        let parking = Open { park_ms: Some(5), ..example() };
        for open in [example(), bare, parking] {
            assert_eq!(Open::from_value("c".to_owned(), open.to_value()), Ok(open));
        }
    }

    #[test]
    fn a_chord_that_cannot_be_joined_is_an_error() {
        let check = |key: &'static str, value: Value, expected: &str| {
            let Value::Map(mut map) = example().to_value() else { panic!("a map") };
            map.insert(key, value);
            let error = Open::from_value("c".to_owned(), Value::Map(map)).unwrap_err();
            assert_eq!(error.to_string(), expected, "{key}");
        };
        let version = "version 3 of the join protocol is not spoken here, only versions 1 and 2";
        check("v", Value::Int(3), version);
        check("park", Value::Int(-1), "'park' must be milliseconds, not int");
        check("v", Value::Null, "'v' must be an integer, not None");
        check("size", Value::Int(-1), "'size' must be a number from 0 to 2^32-1, not int");
        check("size", Value::Null, "'size' is missing");
        check("mode", Value::from("any"), "'any' is not a mode of chords");
        check("body", Value::Int(1), "'signature' must be a dict, not int");
        check("route", Value::from("elsewhere"), "'elsewhere' is not the route of a join shard");
        check("expires", Value::Null, "'expires' is missing");
        check("created", Value::Int(-5), "'created' must be milliseconds since 1970, not int");
        check("parent", Value::Map(Map::new()), "'route' is missing");
        let errbacks = vec![Signature::new("t").into_value(); ERRBACKS_MAX + 1];
        check("errbacks", Value::Array(errbacks), "more errbacks than the limit of 256");
        let stack = vec![Value::from("o"); 257];
        check("stack", Value::Array(stack), "more chords inside one another than the limit of 256");
    }
}
