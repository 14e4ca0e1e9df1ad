//! JSON as Celery speaks it: what Python's `json.dumps` writes, with Celery's type markers.
//!
//! ```text
//! [[2, "caf\u00e9"], {"at": {"__type__": "datetime", "__value__": "2030-01-02T03:04:05"}}, {...}]
//! ```
//!
//! Reading is total: any bytes give a value or an error, within the [`Limits`].
//!
//! - `NaN`, `Infinity` and `-Infinity` are floats, integers of any length are integers.
//! - A map of exactly `__type__` and `__value__` is the value that it marks; an unknown type is an
//!   error, as it is in Python.
//! - A repeated key keeps its last value.
//! - Half a surrogate pair is an error: Rust's text cannot hold it, and a replacement character
//!   would silently name another file than the sender meant.

mod decode;
mod encode;

use super::{Error, Limits, Map, Value};

pub(super) use encode::{encode_body, encode_entries};

const FORMAT: &str = "json";

/// Reads exactly one value; anything but white space after it is an error.
///
/// ```
/// use celeriac::protocol::{Limits, Tag, Value, json};
///
/// let body = br#"{"__type__": "decimal", "__value__": "1.50"}"#;
/// let value = json::decode(body, &Limits::default())?;
/// assert_eq!(value, Value::Tagged(Tag::Decimal, "1.50".to_owned()));
/// # Ok::<(), celeriac::protocol::Error>(())
/// ```
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    decode::decode(bytes, limits)
}

/// Appends `value` to `out` as Python writes it; after an error, `out` holds a part of it.
///
/// Separators are `", "` and `": "`, everything beyond ASCII is escaped, and byte strings are
/// marked as text or base64.
///
/// ```
/// use celeriac::protocol::{Value, json};
///
/// let mut out = Vec::new();
/// json::encode(&Value::Array(vec!["é".into(), 1e16.into()]), &mut out)?;
/// assert_eq!(out, br#"["\u00e9", 1e+16]"#);
/// # Ok::<(), celeriac::protocol::Error>(())
/// ```
pub fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    encode::encode(value, out)
}

#[cfg(test)]
mod tests;
