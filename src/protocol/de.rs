//! From [`Value`] to any `Deserialize` type, and from any deserializer to `Value`.
//!
//! Lenient where Python is (an integer is a fine float, a byte string is a fine list of numbers),
//! strict where data could be lost: a float is never an integer, and text is never a number.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::value_error::ValueError;
use super::{Map, Tag, Value};

/// Newtype name by which `Value` asks for itself, so that tags and big integers survive.
const VALUE: &str = "$celeriac::Value";

/// Variants in which `Value` hands itself what serde has no words for.
const SPECIAL: &[&str] = &["BigInt", "DateTime", "Date", "Time", "Decimal", "Uuid"];

/// Converts a dynamic value into a Rust one.
///
/// `Null` is `None` or a unit; integers are accepted as floats; tagged values read as text, and
/// byte strings also as sequences of `u8`. Errors say what was expected, what came, and where.
///
/// ```
/// use celeriac::protocol::{from_value, Value};
///
/// assert_eq!(from_value::<f64>(Value::Int(3)).unwrap(), 3.0);
/// let error = from_value::<i64>(Value::Float(3.0)).unwrap_err();
/// assert_eq!(error.to_string(), "expected i64, got float");
/// ```
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ValueError> {
    T::deserialize(value)
}

/// A decimal number beyond 64 bits, by what it is asked to be.
fn visit_big_int<'de, V: Visitor<'de>>(digits: &str, visitor: V) -> Result<V::Value, ValueError> {
    match (digits.parse::<i128>(), digits.parse::<u128>()) {
        (Ok(number), _) => match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => visitor.visit_i64(number),
            (_, Ok(number)) => visitor.visit_u64(number),
            _ => visitor.visit_i128(number),
        },
        (_, Ok(number)) => visitor.visit_u128(number),
        _ => Err(too_large(&visitor)),
    }
}

fn too_large(expected: &dyn de::Expected) -> ValueError {
    de::Error::invalid_value(Unexpected::Other("an int that is too large"), expected)
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self {
                // The visitor's own refusal of 128 bits would name serde's types.
                Value::BigInt(digits) => match digits.parse::<i64>() {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => match digits.parse::<u64>() {
                        Ok(number) => visitor.visit_u64(number),
                        Err(_) => Err(too_large(&visitor)),
                    },
                },
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

macro_rules! floats {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self {
                Value::BigInt(digits) => match digits.parse::<f64>() {
                    Ok(number) => visitor.visit_f64(number),
                    Err(_) => Err(too_large(&visitor)),
                },
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self {
                Value::Bytes(bytes) => {
                    Err(de::Error::invalid_type(Unexpected::Bytes(&bytes), &visitor))
                }
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

macro_rules! bytes_as_items {
    ($($method:ident($($arg:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $(_: $arg,)*
            visitor: V,
        ) -> Result<V::Value, ValueError> {
            match self {
                Value::Bytes(bytes) => visitor.visit_seq(Items::new(bytes)),
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(flag) => visitor.visit_bool(flag),
            Self::Int(number) => visitor.visit_i64(number),
            Self::UInt(number) => visitor.visit_u64(number),
            Self::BigInt(digits) => visit_big_int(&digits, visitor),
            Self::Float(number) => visitor.visit_f64(number),
            Self::String(text) | Self::Tagged(_, text) => visitor.visit_string(text),
            Self::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Self::Array(items) => {
                let length = items.len();
                let mut items = Items::new(items);
                let value = visitor.visit_seq(&mut items)?;
                if items.rest.len() == 0 {
                    Ok(value)
                } else {
                    Err(de::Error::invalid_length(length, &"fewer elements"))
                }
            }
            Self::Map(map) => visitor.visit_map(Entries::new(map)),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    floats! { deserialize_f32 deserialize_f64 }

    texts! { deserialize_char deserialize_str deserialize_string deserialize_identifier }

    bytes_as_items! {
        deserialize_seq()
        deserialize_tuple(usize)
        deserialize_tuple_struct(&'static str, usize)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        if name != VALUE {
            return visitor.visit_newtype_struct(self);
        }
        match self {
            Self::BigInt(digits) => visitor.visit_enum(Special("BigInt", digits)),
            Self::Tagged(tag, text) => visitor.visit_enum(Special(tag_variant(tag), text)),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self {
            Self::String(variant) => visitor.visit_enum(variant.into_deserializer()),
            Self::Map(map) => {
                let count = map.len();
                let mut entries = map.into_iter();
                match (entries.next(), count) {
                    (Some((variant, value)), 1) => visitor.visit_enum(Variant { variant, value }),
                    _ => {
                        let expected = "one variant as the only key of a dict";
                        Err(de::Error::invalid_length(count, &expected))
                    }
                }
            }
            other => Err(ValueError::new(format!(
                "expected the name of a variant or a dict with one, got {}",
                other.kind(),
            ))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i128 u128 bytes byte_buf unit unit_struct map struct
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The elements of an array, or of a byte string.
struct Items<T> {
    rest: std::vec::IntoIter<T>,
    at: usize,
}

impl<T> Items<T> {
    fn new(items: Vec<T>) -> Self {
        Self { rest: items.into_iter(), at: 0 }
    }
}

impl<'de, T: IntoDeserializer<'de, ValueError>> de::SeqAccess<'de> for Items<T> {
    type Error = ValueError;

    fn next_element_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ValueError> {
        let Some(item) = self.rest.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(item.into_deserializer()).map(Some).map_err(|error| error.in_item(at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The entries of a map.
struct Entries {
    rest: std::vec::IntoIter<(Cow<'static, str>, Value)>,
    /// The entry whose key has been read, with its value until that is read too.
    current: (Cow<'static, str>, Option<Value>),
}

impl Entries {
    fn new(map: Map) -> Self {
        Self { rest: map.into_iter(), current: (Cow::Borrowed(""), None) }
    }
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = ValueError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        let result = seed.deserialize(Key(&key));
        match result {
            Ok(read) => {
                self.current = (key, Some(value));
                Ok(Some(read))
            }
            Err(error) => Err(error.in_key(key)),
        }
    }

    fn next_value_seed<S: de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, ValueError> {
        let (key, value) = std::mem::take(&mut self.current);
        let Some(value) = value else { return Err(ValueError::new("value read before its key")) };
        seed.deserialize(value).map_err(|error| error.in_key(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// A map key: text, which also reads as the number, truth value or variant that it spells.
struct Key<'a>(&'a str);

macro_rules! parsed_keys {
    ($($method:ident $visit:ident: $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self.0.parse::<$type>() {
                Ok(key) => visitor.$visit(key),
                Err(_) => Err(de::Error::invalid_value(Unexpected::Str(self.0), &visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'_> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_str(self.0)
    }

    parsed_keys! {
        deserialize_bool visit_bool: bool;
        deserialize_i8 visit_i8: i8;
        deserialize_i16 visit_i16: i16;
        deserialize_i32 visit_i32: i32;
        deserialize_i64 visit_i64: i64;
        deserialize_i128 visit_i128: i128;
        deserialize_u8 visit_u8: u8;
        deserialize_u16 visit_u16: u16;
        deserialize_u32 visit_u32: u32;
        deserialize_u64 visit_u64: u64;
        deserialize_u128 visit_u128: u128;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An externally tagged variant: `{variant: value}`.
struct Variant {
    variant: Cow<'static, str>,
    value: Value,
}

impl<'de> de::EnumAccess<'de> for Variant {
    type Error = ValueError;
    type Variant = Self;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), ValueError> {
        let variant = seed.deserialize(Key(&self.variant))?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        <()>::deserialize(self.value).map_err(|error| error.in_key(self.variant))
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, ValueError> {
        seed.deserialize(self.value).map_err(|error| error.in_key(self.variant))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let read = self.value.deserialize_tuple(length, visitor);
        read.map_err(|error| error.in_key(self.variant))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let read = self.value.deserialize_struct("", fields, visitor);
        read.map_err(|error| error.in_key(self.variant))
    }
}

/// A tagged text or big integer on its way from one `Value` to another.
struct Special(&'static str, String);

impl<'de> de::EnumAccess<'de> for Special {
    type Error = ValueError;
    type Variant = Variant;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Variant), ValueError> {
        let variant = seed.deserialize(Key(self.0))?;
        Ok((variant, Variant { variant: self.0.into(), value: Value::String(self.1) }))
    }
}

const fn tag_variant(tag: Tag) -> &'static str {
    match tag {
        Tag::DateTime => "DateTime",
        Tag::Date => "Date",
        Tag::Time => "Time",
        Tag::Decimal => "Decimal",
        Tag::Uuid => "Uuid",
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE, ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;

        impl<'de> Visitor<'de> for MapVisitor {
            type Value = Map;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a dict")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Map, A::Error> {
                let mut map = Map::with_capacity(entries.size_hint().unwrap_or(0).min(1024));
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    map.push(key, value);
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(MapVisitor)
    }
}

struct ValueVisitor;

macro_rules! visit_into {
    ($($method:ident: $from:ty;)*) => {$(
        fn $method<E: de::Error>(self, value: $from) -> Result<Value, E> {
            Ok(Value::from(value))
        }
    )*};
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    visit_into! {
        visit_bool: bool;
        visit_i64: i64;
        visit_u64: u64;
        visit_f64: f64;
        visit_str: &str;
        visit_string: String;
        visit_byte_buf: Vec<u8>;
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::BigInt(number.to_string()), Value::Int))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Value, E> {
        Ok(Value::BigInt(number.to_string()))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::with_capacity(items.size_hint().unwrap_or(0).min(1024));
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        Map::deserialize(de::value::MapAccessDeserializer::new(entries)).map(Value::Map)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        use serde::de::VariantAccess;

        let (name, inner) = access.variant::<String>()?;
        let text = inner.newtype_variant::<String>()?;
        Ok(match name.as_str() {
            "BigInt" => Value::BigInt(text),
            "DateTime" => Value::Tagged(Tag::DateTime, text),
            "Date" => Value::Tagged(Tag::Date, text),
            "Time" => Value::Tagged(Tag::Time, text),
            "Decimal" => Value::Tagged(Tag::Decimal, text),
            "Uuid" => Value::Tagged(Tag::Uuid, text),
            other => return Err(de::Error::unknown_variant(other, SPECIAL)),
        })
    }
}
