//! MessagePack as Celery speaks it: text is `str`, byte strings are `bin`, no extension types.
//!
//! A plain call without arguments but `(2, 3)`, 41 bytes:
//!
//! ```text
//! 93                 array of 3
//!    92 02 03        args
//!    80              kwargs
//!    84              embed
//!       a9 callbacks c0  a8 errbacks c0  a5 chain c0  a5 chord c0
//! ```
//!
//! Reading is total: any bytes give a value or an error, within the [`Limits`].
//!
//! - Python announces a wrong length for every embedded `celery.group` signature, namely the
//!   number of the group's tasks instead of six; such maps are repaired.
//! - Text that is not UTF-8 (the format before `bin`) reads as bytes.
//! - The timestamp extension reads as a [`Tag::DateTime`](super::Tag::DateTime); others are errors.
//! - Map keys are text, or byte strings that are UTF-8; a repeated key keeps its last value.

mod decode;
mod encode;

use super::{Error, Limits, Map, Value};

pub(super) use encode::{encode_body, encode_entries};

/// Reads exactly one value; bytes after it are an error.
///
/// ```
/// use celeriac::protocol::{Limits, Value, msgpack};
///
/// let value = msgpack::decode(b"\x92\x02\x03", &Limits::default())?;
/// assert_eq!(value, Value::Array(vec![Value::Int(2), Value::Int(3)]));
/// # Ok::<(), celeriac::protocol::Error>(())
/// ```
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    decode::decode(bytes, limits)
}

/// Appends `value` to `out`; after an error, `out` holds a part of it.
///
/// Integers take their shortest form, floats are doubles, and tagged values are plain text. An
/// integer beyond 64 bits is an error, as it is in Python.
///
/// ```
/// use celeriac::protocol::{Value, msgpack};
///
/// let mut out = Vec::new();
/// msgpack::encode(&Value::from("hi"), &mut out)?;
/// assert_eq!(out, b"\xa2hi");
/// # Ok::<(), celeriac::protocol::Error>(())
/// ```
pub fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    encode::encode(value, out)
}

#[cfg(test)]
mod tests;
