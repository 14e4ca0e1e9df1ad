//! From any `Serialize` type to [`Value`], and `Value` itself to any serializer.
//!
//! The mapping is that of `serde_json`: structs are maps, enums are externally tagged, units are
//! null, and map keys are text. Types without a counterpart in serde (dates, decimals, integers
//! beyond 128 bits) go through newtype structs whose names only this module gives out.
//!
//! **Invariant:** nesting deeper than [`DEPTH_MAX`] is an error, never an exhausted stack.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser;

use super::value_error::ValueError;
use super::{Map, Tag, Value};

/// Levels of nesting that a serialized value may have; wrappers such as `Some` count as well.
const DEPTH_MAX: u16 = 256;

/// Newtype name under which an integer beyond 128 bits travels as its digits.
pub(super) const BIG_INT: &str = "$celeriac::BigInt";

/// Newtype name under which a tagged text travels.
pub(super) const fn tag_name(tag: Tag) -> &'static str {
    match tag {
        Tag::DateTime => "$celeriac::DateTime",
        Tag::Date => "$celeriac::Date",
        Tag::Time => "$celeriac::Time",
        Tag::Decimal => "$celeriac::Decimal",
        Tag::Uuid => "$celeriac::Uuid",
    }
}

/// Converts a Rust value into a dynamic one.
///
/// Fails where the type's own `Serialize` does, on map keys that are not text, numbers, truth
/// values or unit variants, and beyond 256 levels of nesting.
///
/// ```
/// use celeriac::protocol::{to_value, Value};
///
/// assert_eq!(to_value(&Some(3)).unwrap(), Value::Int(3));
/// assert_eq!(to_value("text").unwrap(), Value::from("text"));
/// ```
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, ValueError> {
    value.serialize(Serializer { depth: 0 })
}

impl Serialize for Value {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::UInt(number) => serializer.serialize_u64(*number),
            Self::BigInt(digits) => match (digits.parse::<i128>(), digits.parse::<u128>()) {
                (Ok(number), _) => serializer.serialize_i128(number),
                (_, Ok(number)) => serializer.serialize_u128(number),
                _ => serializer.serialize_newtype_struct(BIG_INT, digits),
            },
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Array(items) => items.serialize(serializer),
            Self::Map(map) => map.serialize(serializer),
            Self::Tagged(tag, text) => serializer.serialize_newtype_struct(tag_name(*tag), text),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[derive(Clone, Copy)]
struct Serializer {
    depth: u16,
}

impl Serializer {
    /// The serializer of what is inside the current value.
    fn inside(self) -> Result<Self, ValueError> {
        if self.depth >= DEPTH_MAX {
            return Err(ValueError::new(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

/// `{variant: value}`, serde's external tag.
fn tagged(variant: &'static str, value: Value) -> Value {
    let mut map = Map::with_capacity(1);
    map.push(variant, value);
    Value::Map(map)
}

macro_rules! serialize_into {
    ($($method:ident: $from:ty;)*) => {$(
        fn $method(self, value: $from) -> Result<Value, ValueError> {
            Ok(Value::from(value))
        }
    )*};
}

impl ser::Serializer for Serializer {
    type Ok = Value;
    type Error = ValueError;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    serialize_into! {
        serialize_bool: bool;
        serialize_i32: i32;
        serialize_i64: i64;
        serialize_u32: u32;
        serialize_u64: u64;
        serialize_f64: f64;
        serialize_str: &str;
    }

    fn serialize_i8(self, value: i8) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_u8(self, value: u8) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<Value, ValueError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i128(self, value: i128) -> Result<Value, ValueError> {
        Ok(match (i64::try_from(value), u64::try_from(value)) {
            (Ok(number), _) => Value::Int(number),
            (_, Ok(number)) => Value::UInt(number),
            _ => Value::BigInt(value.to_string()),
        })
    }

    fn serialize_u128(self, value: u128) -> Result<Value, ValueError> {
        Ok(u64::try_from(value).map_or_else(|_| Value::BigInt(value.to_string()), Value::from))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, ValueError> {
        Ok(Value::Float(value.into()))
    }

    fn serialize_char(self, value: char) -> Result<Value, ValueError> {
        Ok(Value::String(value.into()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, ValueError> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn serialize_none(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ValueError> {
        value.serialize(self.inside()?)
    }

    fn serialize_unit(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, ValueError> {
        Ok(Value::from(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        let value = value.serialize(self.inside()?)?;
        let special = name.starts_with("$celeriac::");
        let Value::String(text) = value else { return Ok(value) };
        if !special {
            return Ok(Value::String(text));
        }
        let tags = [Tag::DateTime, Tag::Date, Tag::Time, Tag::Decimal, Tag::Uuid];
        Ok(match tags.into_iter().find(|tag| tag_name(*tag) == name) {
            Some(tag) => Value::Tagged(tag, text),
            None if name == BIG_INT => Value::BigInt(text),
            None => Value::String(text),
        })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        let value = value.serialize(self.inside()?).map_err(|error| error.in_key(variant))?;
        Ok(tagged(variant, value))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items, ValueError> {
        Items::start(self, None, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Items, ValueError> {
        Items::start(self, None, Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items, ValueError> {
        Items::start(self, None, Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items, ValueError> {
        Items::start(self, Some(variant), Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Entries, ValueError> {
        Entries::start(self, None, len)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Entries, ValueError> {
        Entries::start(self, None, Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Entries, ValueError> {
        Entries::start(self, Some(variant), Some(len))
    }
}

/// The most elements that room is made for before they come.
const CAPACITY_MAX: usize = 1024;

/// An array under construction.
struct Items {
    inside: Serializer,
    variant: Option<&'static str>,
    items: Vec<Value>,
}

impl Items {
    fn start(
        outside: Serializer,
        variant: Option<&'static str>,
        len: Option<usize>,
    ) -> Result<Self, ValueError> {
        let items = Vec::with_capacity(len.unwrap_or(0).min(CAPACITY_MAX));
        Ok(Self { inside: outside.inside()?, variant, items })
    }

    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        let at = self.items.len();
        self.items.push(value.serialize(self.inside).map_err(|error| error.in_item(at))?);
        Ok(())
    }

    fn finish(self) -> Value {
        let array = Value::Array(self.items);
        match self.variant {
            Some(variant) => tagged(variant, array),
            None => array,
        }
    }
}

macro_rules! items {
    ($($trait:ident $method:ident;)*) => {$(
        impl ser::$trait for Items {
            type Ok = Value;
            type Error = ValueError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
                self.add(value)
            }

            fn end(self) -> Result<Value, ValueError> {
                Ok(self.finish())
            }
        }
    )*};
}

items! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

/// A map under construction.
struct Entries {
    inside: Serializer,
    variant: Option<&'static str>,
    map: Map,
    /// The key whose value comes next; only `serialize_map` separates the two.
    key: Cow<'static, str>,
}

impl Entries {
    fn start(
        outside: Serializer,
        variant: Option<&'static str>,
        len: Option<usize>,
    ) -> Result<Self, ValueError> {
        let map = Map::with_capacity(len.unwrap_or(0).min(CAPACITY_MAX));
        Ok(Self { inside: outside.inside()?, variant, map, key: Cow::Borrowed("") })
    }

    fn add<T: Serialize + ?Sized>(
        &mut self,
        key: Cow<'static, str>,
        value: &T,
    ) -> Result<(), ValueError> {
        match value.serialize(self.inside) {
            Ok(value) => self.map.push(key, value),
            Err(error) => return Err(error.in_key(key)),
        }
        Ok(())
    }

    fn finish(self) -> Value {
        match self.variant {
            Some(variant) => tagged(variant, Value::Map(self.map)),
            None => Value::Map(self.map),
        }
    }
}

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueError> {
        self.key = match key.serialize(self.inside)? {
            Value::String(text) | Value::BigInt(text) | Value::Tagged(_, text) => text.into(),
            Value::Int(number) => number.to_string().into(),
            Value::UInt(number) => number.to_string().into(),
            Value::Bool(flag) => if flag { "true" } else { "false" }.into(),
            other => {
                let kind = other.kind();
                return Err(ValueError::new(format!("map keys must be text, got {kind}")));
            }
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        let key = std::mem::take(&mut self.key);
        self.add(key, value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(self.finish())
    }
}

macro_rules! fields {
    ($($trait:ident;)*) => {$(
        impl ser::$trait for Entries {
            type Ok = Value;
            type Error = ValueError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), ValueError> {
                self.add(key.into(), value)
            }

            fn end(self) -> Result<Value, ValueError> {
                Ok(self.finish())
            }
        }
    )*};
}

fields! {
    SerializeStruct;
    SerializeStructVariant;
}
