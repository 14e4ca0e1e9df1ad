//! Typed reading of single headers and keys. Null reads as absent everywhere, as in Celery.

use super::{Error, Map, Value};

/// Text, or `None` for null.
pub(super) fn text(field: &'static str, value: Value) -> Result<Option<String>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) | Value::Tagged(_, text) => Ok(Some(text)),
        other => Err(wrong(field, "text", &other)),
    }
}

/// An integer, or `None` for null. A float without a fraction counts.
pub(super) fn integer(field: &'static str, value: &Value) -> Result<Option<i64>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Int(number) => Ok(Some(*number)),
        Value::Bool(flag) => Ok(Some((*flag).into())),
        // The bounds are exact in a double, and what lies between them fits.
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
            Ok(Some(*number as i64))
        }
        other => Err(wrong(field, "an integer", other)),
    }
}

/// A number, or `None` for null.
pub(super) fn number(field: &'static str, value: &Value) -> Result<Option<f64>, Error> {
    match value {
        Value::Null => Ok(None),
        other => other.as_f64().map(Some).ok_or_else(|| wrong(field, "a number", other)),
    }
}

/// A truth value, or `None` for null. Numbers count, as they do in Python.
pub(super) fn flag(field: &'static str, value: &Value) -> Result<Option<bool>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(*flag)),
        Value::Int(number) => Ok(Some(*number != 0)),
        other => Err(wrong(field, "a bool", other)),
    }
}

/// An array, or `None` for null.
pub(super) fn array(field: &'static str, value: Value) -> Result<Option<Vec<Value>>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Array(items) => Ok(Some(items)),
        other => Err(wrong(field, "a list", &other)),
    }
}

/// A map, empty for null.
pub(super) fn map(field: &'static str, value: Value) -> Result<Map, Error> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Map(map) => Ok(map),
        other => Err(wrong(field, "a dict", &other)),
    }
}

/// The error for a value of another type.
pub(super) fn wrong(field: &'static str, expected: &'static str, found: &Value) -> Error {
    Error::Field { field, expected, found: found.kind() }
}

/// The longest text that fits an AMQP short string, in bytes.
const SHORT_TEXT_MAX: usize = 255;

/// Refuses a text that AMQP has no room for: properties and header names are short strings.
pub(super) fn short(field: &'static str, text: &str) -> Result<(), Error> {
    if text.len() > SHORT_TEXT_MAX {
        return Err(Error::TooLong { field, length: text.len(), max: SHORT_TEXT_MAX });
    }
    Ok(())
}
