//! The header `chord` of a task message: which part of which chord the task is.
//!
//! ```text
//! chord: {id: S, route: S, i: I/A[I...], final: t, stack: A[S...], root: S/V, park: I}
//! ```
//!
//! Not the key `chord` of the body's embed, which is Celery's own and stays null.

use super::ids;
use super::place::Place;
use crate::protocol::{Error, Map, Value, fields};

/// What a part of a chord has to know to deliver its result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Id of the chord.
    pub chord: String,
    /// Routing key of the chord's shard, on the exchange for results.
    pub route: String,
    /// Place of the part.
    pub index: Place,
    /// Whether this task's result is the part's: false in all but the last task of a chain.
    pub is_final: bool,
    /// Ids of the chords around this one, outermost first.
    pub stack: Vec<String>,
    /// Id of the first task of the workflow.
    pub root: Option<String>,
    /// Above how many bytes in MessagePack the part's value is parked; never if it is not said.
    pub park_above: Option<u64>,
}

/// Chords inside one another, at most.
pub(super) const STACK_MAX: usize = 256;

impl Link {
    /// Name of the header.
    pub const HEADER: &str = "chord";

    /// Reads the header's value.
    ///
    /// ```
    /// use celeriac::protocol::{Limits, join::Link, json};
    ///
    /// let header = br#"{"id": "c", "route": "join.3", "i": 1, "final": true}"#;
    /// let link = Link::from_value(&json::decode(header, &Limits::default())?)?;
    /// assert!(link.is_final && link.chord == "c");
    /// # Ok::<(), celeriac::protocol::Error>(())
    /// ```
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        let map = value.as_map().ok_or_else(|| fields::wrong("chord", "a dict", value))?;
        Ok(Self {
            chord: chord_id("id", map)?,
            route: route("route", map)?,
            index: place("i", map)?,
            is_final: flag("final", map)?.ok_or(Error::Missing { field: "final" })?,
            stack: stack(map)?,
            root: text("root", map)?,
            park_above: park_above(map)?,
        })
    }

    /// The ids of the chord and of those around it, as the header's value has them; none if it is
    /// not a link's.
    pub(crate) fn chords(value: &Value) -> impl Iterator<Item = &str> {
        let map = value.as_map();
        let stack = map.and_then(|map| map.get("stack")).and_then(Value::as_array);
        let id = map.and_then(|map| map.get("id"));
        id.into_iter().chain(stack.unwrap_or_default()).filter_map(Value::as_str)
    }

    /// The header's value.
    pub fn into_value(self) -> Value {
        let mut map = Map::with_capacity(7);
        map.push("id", self.chord);
        map.push("route", self.route);
        map.push("i", self.index.to_value());
        map.push("final", self.is_final);
        map.push("stack", texts(self.stack));
        map.push("root", self.root);
        if let Some(above) = self.park_above {
            map.push("park", above);
        }
        Value::Map(map)
    }
}

/// A chord's id: text that fits an AMQP property.
pub(super) fn chord_id(field: &'static str, map: &Map) -> Result<String, Error> {
    let id = text(field, map)?.filter(|id| !id.is_empty()).ok_or(Error::Missing { field })?;
    fields::short(field, &id)?;
    Ok(id)
}

/// The routing key of a shard. No other key is accepted, since records are published to it.
pub(super) fn route(field: &'static str, map: &Map) -> Result<String, Error> {
    let route = text(field, map)?.ok_or(Error::Missing { field })?;
    if !ids::is_route(&route) {
        return Err(Error::malformed("the route of a join shard", &route));
    }
    Ok(route)
}

/// The place of a part.
pub(super) fn place(field: &'static str, map: &Map) -> Result<Place, Error> {
    Place::from_value(field, map.get(field).unwrap_or(&Value::Null))
}

/// From which size on values are parked.
fn park_above(map: &Map) -> Result<Option<u64>, Error> {
    let Some(value) = map.get("park") else { return Ok(None) };
    let number = fields::integer("park", value)?;
    let wrong = |_| fields::wrong("park", "a number of bytes", value);
    number.map(u64::try_from).transpose().map_err(wrong)
}

/// A number of parts.
pub(super) fn index(field: &'static str, map: &Map) -> Result<u32, Error> {
    let value = map.get(field).unwrap_or(&Value::Null);
    let number = fields::integer(field, value)?.ok_or(Error::Missing { field })?;
    u32::try_from(number).map_err(|_| fields::wrong(field, "a number from 0 to 2^32-1", value))
}

/// The ids of the chords around one.
pub(super) fn stack(map: &Map) -> Result<Vec<String>, Error> {
    let items = match map.get("stack") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(fields::wrong("stack", "a list", other)),
    };
    if items.len() > STACK_MAX {
        return Err(Error::Limit { what: "chords inside one another", max: STACK_MAX });
    }
    let id = |item: &Value| match item.as_str() {
        Some(id) => fields::short("stack", id).map(|()| id.to_owned()),
        None => Err(fields::wrong("stack", "a list of text", item)),
    };
    items.iter().map(id).collect()
}

pub(super) fn text(field: &'static str, map: &Map) -> Result<Option<String>, Error> {
    map.get(field).map_or(Ok(None), |value| fields::text(field, value.clone()))
}

pub(super) fn flag(field: &'static str, map: &Map) -> Result<Option<bool>, Error> {
    map.get(field).map_or(Ok(None), |value| fields::flag(field, value))
}

pub(super) fn texts(list: Vec<String>) -> Value {
    Value::Array(list.into_iter().map(Value::String).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Limits, json};

    #[test]
    fn a_link_reads_as_it_was_written() {
        let link = Link {
            chord: "c".to_owned(),
            route: "join.7".to_owned(),
            index: u32::MAX.into(),
            is_final: false,
            stack: vec!["outer".to_owned()],
            root: Some("r".to_owned()),
            park_above: None,
        };
        let parking = Link { park_above: Some(65_536), ..link.clone() };
        assert_eq!(Link::from_value(&parking.clone().into_value()), Ok(parking));
        for index in [link.index.clone(), Place::from(3).added(1).unwrap()] {
            let link = Link { index, ..link.clone() };
            assert_eq!(Link::from_value(&link.clone().into_value()), Ok(link));
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_an_error() {
        let rows = [
            (r#"[]"#, "'chord' must be a dict, not list"),
            (r#"{"route": "join.1", "i": 0, "final": true}"#, "'id' is missing"),
            (r#"{"id": "", "route": "join.1", "i": 0, "final": true}"#, "'id' is missing"),
            (r#"{"id": "c", "i": 0, "final": true}"#, "'route' is missing"),
            (
                r#"{"id": "c", "route": "celeriac.reply.1", "i": 0, "final": true}"#,
                "'celeriac.reply.1' is not the route of a join shard",
            ),
            (r#"{"id": "c", "route": "join.1", "final": true}"#, "'i' is missing"),
            (
                r#"{"id": "c", "route": "join.1", "i": -1, "final": true}"#,
                "'i' must be a number from 0 to 2^32-1, not int",
            ),
            (r#"{"id": "c", "route": "join.1", "i": 0}"#, "'final' is missing"),
            (
                r#"{"id": "c", "route": "join.1", "i": 0, "final": true, "stack": [1]}"#,
                "'stack' must be a list of text, not int",
            ),
        ];
        for (text, expected) in rows {
            let value = json::decode(text.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(Link::from_value(&value).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
