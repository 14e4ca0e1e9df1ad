//! Arguments of commands, with the errors that Python's functions have for wrong ones.

use std::time::Duration;

use crate::protocol::control::Reply;
use crate::protocol::excerpt;
use crate::protocol::{Map, Value, repr};

/// Why a command was not carried out, as the caller is told.
#[derive(Debug)]
pub(super) struct Fault(Value);

impl Fault {
    /// In words of its own.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(Reply::error(text.into()))
    }

    /// As a Python exception.
    pub(super) fn exception(kind: &str, text: &str) -> Self {
        Self(Reply::exception(kind, text))
    }

    fn wrong(name: &str, expected: &str, found: &Value) -> Self {
        let text = format!("{name} must be {expected}, not {}", excerpt(&repr::value(found)));
        Self::exception("ValueError", &text)
    }

    pub(super) fn into_value(self) -> Value {
        self.0
    }
}

/// The keyword arguments of one command.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    pub(super) method: &'a str,
    pub(super) values: &'a Map,
}

impl<'a> Arguments<'a> {
    /// The argument `name`, if it was given and is not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// The argument `name`, which must be there.
    pub(super) fn required(&self, name: &str) -> Result<&'a Value, Fault> {
        self.values.get(name).ok_or_else(|| {
            let method = self.method;
            let text = format!("{method}() missing 1 required positional argument: '{name}'");
            Fault::exception("TypeError", &text)
        })
    }

    /// Refuses every argument.
    pub(super) fn none(&self) -> Result<(), Fault> {
        let Some((name, _)) = self.values.iter().next() else { return Ok(()) };
        let name = excerpt(name);
        let text = format!("{}() got an unexpected keyword argument '{name}'", self.method);
        Err(Fault::exception("TypeError", &text))
    }

    /// Text that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, Fault> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| Fault::wrong(name, "text", value))
    }

    /// Text, if it was given.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| Fault::wrong(name, "text", value))
    }

    /// A list of texts; one text is a list of one. Absent is an empty list.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Fault> {
        let one = |value: &Value| match value {
            Value::String(text) | Value::Tagged(_, text) => Ok(text.clone()),
            other => Err(Fault::wrong(name, "text or a list of texts", other)),
        };
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(one).collect(),
            Some(value) => Ok(vec![one(value)?]),
        }
    }

    /// Whether the argument is true in Python's sense.
    pub(super) fn truthy(&self, name: &str) -> bool {
        match self.get(name) {
            None | Some(Value::Bool(false) | Value::Int(0)) => false,
            Some(Value::Float(number)) => *number != 0.0,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Map(map)) => !map.is_empty(),
            Some(_) => true,
        }
    }

    /// A number of something, from `min` to `max`.
    pub(super) fn count(&self, name: &str, min: usize, max: usize) -> Result<Option<usize>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            // `celery control` gives what was typed.
            Value::String(text) => text.trim().parse().ok(),
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        let number = number.filter(|number| (min..=max).contains(number));
        let expected = || format!("a number from {min} to {max}");
        number.map(Some).ok_or_else(|| Fault::wrong(name, &expected(), value))
    }

    /// A time in seconds.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<Duration>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        let time = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
        let time = time.filter(|time| !time.is_zero());
        time.map(Some).ok_or_else(|| Fault::wrong(name, "a number of seconds above 0", value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fault: Fault) -> String {
        let value = fault.into_value();
        let text = value.as_map().and_then(|map| map.get("error")).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    }

    #[test]
    fn wrong_arguments_are_told_as_python_tells_them() {
        let values = Map::from_iter([("n", Value::from(-1)), ("s", "x".into())]);
        let arguments = Arguments { method: "pool_grow", values: &values };
        assert_eq!(
            shown(arguments.required("x").unwrap_err()),
            "TypeError(\"pool_grow() missing 1 required positional argument: 'x'\")",
        );
        assert_eq!(
            shown(arguments.none().unwrap_err()),
            "TypeError(\"pool_grow() got an unexpected keyword argument 'n'\")",
        );
        assert_eq!(
            shown(arguments.count("n", 1, 9).unwrap_err()),
            "ValueError('n must be a number from 1 to 9, not -1')",
        );
        for (name, value) in [("n", Value::from(0)), ("s", "nan".into()), ("t", 1e300.into())] {
            let values = Map::from_iter([(name, value)]);
            let arguments = Arguments { method: "time_limit", values: &values };
            assert!(arguments.seconds(name).is_err(), "{name}");
        }
        assert!(arguments.texts("n").is_err());
        assert_eq!(arguments.texts("s").unwrap(), ["x"]);
        assert_eq!(arguments.texts("absent").unwrap(), Vec::<String>::new());
    }
}
