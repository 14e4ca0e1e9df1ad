//! References to values that are parked: in records, in packs, and in the list that a body gets.
//!
//! ```text
//! body of a record   {"x": "<execution>", "bytes": 204800}
//! list of a body     [[value], ["<execution>", 204800], ["<execution>", 204800, true], ...]
//! ```
//!
//! Each element of the list is a list of its own: of one, a value; of more, a reference, whose
//! third element says that the value goes into an entry `{"ok": value}`. So no value of anybody's
//! can be taken for a reference.
//!
//! **Invariant:** what is read here is bounded by what was read before, and never panics.

use super::link::text;
use crate::protocol::{Error, Limits, Map, Value, fields, msgpack};

/// A value that is parked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Id of the run of the task that has parked it.
    pub execution: String,
    /// Its bytes in MessagePack.
    pub bytes: u64,
}

/// A list with places that are to be filled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// The values, and null in the places of those that are parked.
    pub list: Vec<Value>,
    /// What is parked.
    pub parked: Vec<Hole>,
}

/// A place of a list whose value is parked.
#[derive(Clone, Debug, PartialEq)]
pub struct Hole {
    /// The place, from 0.
    pub at: usize,
    /// What goes there.
    pub reference: Reference,
    /// Whether it goes there as an entry `{"ok": value}`.
    pub is_entry: bool,
}

impl Reference {
    /// Reads the body of the record.
    pub(crate) fn decode(body: &[u8], limits: &Limits) -> Result<Self, Error> {
        let map = fields::map("ref", msgpack::decode(body, limits)?)?;
        let execution = text("x", &map)?.ok_or(Error::Missing { field: "x" })?;
        Self::checked(execution, map.get("bytes").unwrap_or(&Value::Null))
    }

    /// The body of the record.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut map = Map::with_capacity(2);
        map.push("x", &*self.execution);
        map.push("bytes", self.bytes);
        let mut body = Vec::with_capacity(self.execution.len() + 16);
        msgpack::encode(&Value::Map(map), &mut body)?;
        Ok(body)
    }

    /// The element of a list that stands for the value.
    pub(crate) fn to_element(&self, is_entry: bool) -> Value {
        let mut element = vec![Value::from(&*self.execution), self.bytes.into()];
        element.extend(is_entry.then_some(Value::Bool(true)));
        Value::Array(element)
    }

    fn checked(execution: String, bytes: &Value) -> Result<Self, Error> {
        if execution.is_empty() {
            return Err(Error::Missing { field: "x" });
        }
        fields::short("x", &execution)?;
        let number = fields::integer("bytes", bytes)?.ok_or(Error::Missing { field: "bytes" })?;
        let bytes =
            u64::try_from(number).map_err(|_| fields::wrong("bytes", "a number from 0", bytes))?;
        Ok(Self { execution, bytes })
    }
}

impl Manifest {
    /// Reads the first argument of a body that was called with references.
    pub fn from_value(list: Value) -> Result<Self, Error> {
        let Value::Array(elements) = list else {
            return Err(fields::wrong("list of results", "a list", &list));
        };
        let mut manifest = Self { list: Vec::with_capacity(elements.len()), parked: Vec::new() };
        for (at, element) in elements.into_iter().enumerate() {
            let (value, hole) = read(at, element)?;
            manifest.list.push(value);
            manifest.parked.extend(hole);
        }
        Ok(manifest)
    }

    /// Bytes of everything that is parked.
    pub fn bytes(&self) -> u64 {
        self.parked.iter().fold(0, |sum, hole| sum.saturating_add(hole.reference.bytes))
    }

    /// Puts a value in its place.
    pub fn fill(&mut self, hole: &Hole, value: Value) {
        let value = match hole.is_entry {
            true => Value::Map(Map::from_iter([("ok", value)])),
            false => value,
        };
        if let Some(place) = self.list.get_mut(hole.at) {
            *place = value;
        }
    }
}

fn read(at: usize, element: Value) -> Result<(Value, Option<Hole>), Error> {
    let mut items = fields::array("element of a list", element)?.unwrap_or_default().into_iter();
    let (first, second, third) = (items.next(), items.next(), items.next());
    let hole = |execution, bytes: &Value, is_entry| {
        let reference = Reference::checked(execution, bytes)?;
        Ok((Value::Null, Some(Hole { at, reference, is_entry })))
    };
    match (first, second, third, items.next()) {
        (Some(value), None, None, None) => Ok((value, None)),
        (Some(Value::String(x)), Some(bytes), None, None) => hole(x, &bytes, false),
        (Some(Value::String(x)), Some(bytes), Some(Value::Bool(true)), None) => {
            hole(x, &bytes, true)
        }
        _ => Err(Error::malformed("an element of a list with references", "what was sent")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::arbitrary;

    fn reference(execution: &str, bytes: u64) -> Reference {
        Reference { execution: execution.to_owned(), bytes }
    }

    #[test]
    fn a_list_is_read_with_its_holes_and_filled() {
        let list = vec![
            Value::Array(vec![Value::Array(vec!["x".into(), 5.into()])]),
            reference("x", 3).to_element(false),
            reference("y", 4).to_element(true),
        ];
        let mut manifest = Manifest::from_value(Value::Array(list)).unwrap();
        assert_eq!((manifest.bytes(), manifest.parked.len()), (7, 2));
        for hole in manifest.parked.clone() {
            manifest.fill(&hole, Value::Int(9));
        }
        let entry = Value::Map(Map::from_iter([("ok", 9)]));
        let inline = Value::Array(vec!["x".into(), 5.into()]);
        assert_eq!(manifest.list, [inline, Value::Int(9), entry]);
    }

    #[test]
    fn what_is_no_element_is_refused() {
        let flag = |it: bool| Value::Array(vec!["x".into(), 5.into(), it.into()]);
        let rows = [
            Value::Int(1),
            Value::Array(Vec::new()),
            Value::Array(vec![1.into(), 2.into()]),
            Value::Array(vec!["".into(), 2.into()]),
            Value::Array(vec!["x".repeat(256).into(), 2.into()]),
            Value::Array(vec!["x".into(), Value::Int(-1)]),
            flag(false),
            Value::Array(vec!["x".into(), 5.into(), true.into(), true.into()]),
        ];
        for row in rows {
            let read = Manifest::from_value(Value::Array(vec![row.clone()]));
            assert!(read.is_err(), "{row:?}");
        }
        assert!(Manifest::from_value(Value::Null).is_err());
    }

    proptest! {
        #[test]
        fn no_list_makes_the_reader_panic_and_no_value_is_taken_for_a_reference(
            value in arbitrary::plain(),
        ) {
            let _ = Manifest::from_value(value.clone());
            let wrapped = Value::Array(vec![Value::Array(vec![value.clone()])]);
            let manifest = Manifest::from_value(wrapped).unwrap();
            prop_assert_eq!((manifest.list, manifest.parked.len()), (vec![value], 0));
        }
    }
}
