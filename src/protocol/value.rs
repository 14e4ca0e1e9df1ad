//! The one dynamic value of the wire: what an argument, a result or a header can hold.
//!
//! Both serializers decode into it and encode from it, so that the rest of the library never asks
//! which of them a message used.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// A value as Celery programs exchange it.
///
/// Equality is structural; `Int(1)` and `Float(1.0)` differ, as they do on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `None`, JSON `null`, AMQP void.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// Any integer that fits a signed 64-bit number. Decoders choose this variant whenever it fits.
    Int(i64),
    /// An integer above `i64::MAX` that fits an unsigned 64-bit number.
    UInt(u64),
    /// An integer beyond 64 bits, in decimal digits. Only JSON can carry it.
    BigInt(String),
    /// A double, also infinite or not a number.
    Float(f64),
    /// Text.
    String(String),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A list or tuple.
    Array(Vec<Value>),
    /// A dict with text keys, in order of insertion.
    Map(Map),
    /// A value that Celery's JSON marks with `__type__`; plain text in MessagePack.
    Tagged(Tag, String),
}

/// The types that Celery's JSON marks with `__type__`, apart from byte strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// ISO 8601 date and time, with or without offset.
    DateTime,
    /// ISO 8601 date.
    Date,
    /// ISO 8601 time of day.
    Time,
    /// Decimal number as text.
    Decimal,
    /// UUID as 32 hexadecimal digits.
    Uuid,
}

/// A map with text keys that keeps the order of insertion.
///
/// Look-ups walk the entries from the last to the first, so a repeated key reads as its last
/// value, as in Python. Maps on the wire are small; a large one should be deserialized into a
/// `HashMap` before it is searched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(Cow<'static, str>, Value)>);

impl Map {
    /// An empty map; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty map with room for `capacity` entries.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`, if the map has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether the map has `key`.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets `key`, replacing an earlier value in place.
    pub fn insert(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().rev().find(|(name, _)| *name == key) {
            Some(entry) => entry.1 = value,
            None => self.0.push((key, value)),
        }
    }

    /// Adds an entry without looking whether the key is there already.
    pub fn push(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.0.push((key.into(), value.into()));
    }

    /// The value of `key`, to be changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Takes `key` out of the map.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().rposition(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> + ExactSizeIterator {
        self.0.iter().map(|(key, value)| (&**key, value))
    }
}

impl Map {
    /// Drops the entries whose key `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(key, _)| keep(key));
    }

    /// Keeps the entries at the places that `keep` chooses.
    pub(super) fn retain_at(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut at = 0;
        self.0.retain(|_| {
            at += 1;
            keep(at - 1)
        });
    }

    /// Leaves the last value of each repeated key, at the place of its first one.
    ///
    /// Decoders call this once for each map, since looking at every insertion would make a large
    /// map cost the square of its size.
    pub(super) fn keep_last(&mut self) {
        const SMALL_MAX: usize = 16;
        let repeated = if self.0.len() <= SMALL_MAX {
            self.0
                .iter()
                .enumerate()
                .any(|(at, (key, _))| self.0.iter().skip(at + 1).any(|(other, _)| other == key))
        } else {
            let mut seen = HashSet::with_capacity(self.0.len());
            !self.0.iter().all(|(key, _)| seen.insert(&**key))
        };
        if !repeated {
            return;
        }
        let mut places = HashMap::with_capacity(self.0.len());
        let mut kept: Vec<(Cow<'static, str>, Value)> = Vec::with_capacity(self.0.len());
        for (key, value) in std::mem::take(&mut self.0) {
            let place = *places.entry(key.clone()).or_insert(kept.len());
            match kept.get_mut(place) {
                Some(entry) => entry.1 = value,
                None => kept.push((key, value)),
            }
        }
        self.0 = kept;
    }
}

impl Extend<(Cow<'static, str>, Value)> for Map {
    fn extend<I: IntoIterator<Item = (Cow<'static, str>, Value)>>(&mut self, entries: I) {
        self.0.extend(entries);
    }
}

impl IntoIterator for Map {
    type Item = (Cow<'static, str>, Value);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Value {
    /// The same with the entries of all maps in the order of their keys, so that equal values make
    /// equal bytes.
    pub(crate) fn sorted(self) -> Self {
        match self {
            Self::Array(items) => Self::Array(items.into_iter().map(Self::sorted).collect()),
            Self::Map(map) => {
                let sorted = |(key, value): (_, Self)| (key, value.sorted());
                let mut entries: Vec<_> = map.into_iter().map(sorted).collect();
                entries.sort_by(|one, other| one.0.cmp(&other.0));
                Self::Map(entries.into_iter().collect())
            }
            other => other,
        }
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number, if this is an integer within `i64`.
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The number, if this is an integer or a float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::UInt(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The map, if this is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// Whether this is `Null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// What kind of value this is, in Python's words: `int`, `str`, `list`, …
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::UInt(_) | Self::BigInt(_) => "int",
            Self::Float(_) => "float",
            Self::String(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "list",
            Self::Map(_) => "dict",
            Self::Tagged(Tag::DateTime, _) => "datetime",
            Self::Tagged(Tag::Date, _) => "date",
            Self::Tagged(Tag::Time, _) => "time",
            Self::Tagged(Tag::Decimal, _) => "Decimal",
            Self::Tagged(Tag::Uuid, _) => "UUID",
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$it:ident| $into:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($it: $from) -> Self {
                $into
            }
        }
    )*};
}

value_from! {
    bool => |it| Self::Bool(it);
    i32 => |it| Self::Int(it.into());
    u32 => |it| Self::Int(it.into());
    i64 => |it| Self::Int(it);
    u64 => |it| i64::try_from(it).map_or(Self::UInt(it), Self::Int);
    f64 => |it| Self::Float(it);
    String => |it| Self::String(it);
    &str => |it| Self::String(it.to_owned());
    Vec<u8> => |it| Self::Bytes(it);
    Vec<Value> => |it| Self::Array(it);
    Map => |it| Self::Map(it);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(it: Option<T>) -> Self {
        it.map_or(Self::Null, Into::into)
    }
}
