//! How much a workflow may grow when what it hands down is copied to its parts.
//!
//! Does not look at what a workflow weighs by itself: that was in a message, or in memory, before.
//! **Invariant:** a message of some size becomes a workflow of a bounded size, however its groups
//! are nested.

use std::cell::Cell;

use super::CanvasError;
use crate::protocol::{Map, Value};

/// Bytes that may be added by copies, in all.
const BYTES_MAX: usize = 512 * 1024 * 1024;
/// What each value takes beside its text.
const VALUE_BYTES: usize = 16;

/// What is left for copies.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Cell::new(BYTES_MAX) }
    }
}

impl Budget {
    /// Pays for giving `bytes` to `receivers`. The first one is free: it takes the original.
    pub(super) fn pay(&self, receivers: usize, bytes: usize) -> Result<(), CanvasError> {
        let size = receivers.saturating_sub(1).saturating_mul(bytes);
        let Some(left) = self.left.get().checked_sub(size) else {
            let what = "number of bytes that parts of a workflow get from those around them";
            return Err(CanvasError::TooLarge { what, size, max: self.left.get() });
        };
        self.left.set(left);
        Ok(())
    }
}

/// Roughly the bytes of a list.
pub(super) fn size_of_list(items: &[Value]) -> usize {
    items.iter().map(size_of).fold(0, usize::saturating_add)
}

/// Roughly the bytes of a map.
pub(super) fn size_of_map(map: &Map) -> usize {
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
