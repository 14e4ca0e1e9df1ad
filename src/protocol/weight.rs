//! How much memory values take, roughly, without writing them. Pure.

use super::{Map, Value};

/// What each value takes beside its text.
const VALUE_BYTES: usize = 16;

/// Roughly the bytes of a list.
pub(in crate::protocol) fn size_of_list(items: &[Value]) -> usize {
    items.iter().map(size_of).fold(0, usize::saturating_add)
}

/// Roughly the bytes of a map.
pub(in crate::protocol) fn size_of_map(map: &Map) -> usize {
    let sizes = map.iter().map(|(key, value)| VALUE_BYTES + key.len() + size_of(value));
    sizes.fold(0, usize::saturating_add)
}

fn size_of(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::String(text) | Value::BigInt(text) | Value::Tagged(_, text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Array(items) => size_of_list(items),
            Value::Map(map) => size_of_map(map),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 0,
        }
}
