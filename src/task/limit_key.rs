//! What a limit of the whole fleet is counted by, other than the task: a text with places for
//! arguments and headers of the call. Pure.
//!
//! **Invariant:** a key is short, whatever a message says: of what is long, its hash stands there.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::protocol::{Map, Value, json};

/// The longest value, in bytes, that stands in a key as it is.
const VALUE_MAX: usize = 100;

/// The key of the options `concurrency_key` and `rate_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitKey(&'static [KeyPart]);

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// This text.
    Text(&'static str),
    /// The argument of a parameter.
    Param {
        /// The place of the parameter.
        at: usize,
        /// Its name.
        name: &'static str,
    },
    /// The header of this name that the sender has given to the call.
    Header(&'static str),
}

impl LimitKey {
    /// A key of these parts.
    pub const fn new(parts: &'static [KeyPart]) -> Self {
        Self(parts)
    }

    /// The key of one call. What it does not give, or gives as null, is empty; defaults of
    /// parameters are not known before the task runs.
    pub(crate) fn of(self, args: &[Value], kwargs: &Map, headers: &Map) -> String {
        let mut key = String::new();
        for part in self.0 {
            match part {
                KeyPart::Text(text) => key.push_str(text),
                KeyPart::Param { at, name } => {
                    push(&mut key, args.get(*at).or_else(|| kwargs.get(name)));
                }
                KeyPart::Header(name) => push(&mut key, headers.get(name)),
            }
        }
        key
    }
}

fn push(key: &mut String, value: Option<&Value>) {
    match value {
        None | Some(Value::Null) => {}
        Some(Value::Bool(flag)) => push_short(key, &flag.to_string()),
        Some(Value::Int(number)) => push_short(key, &number.to_string()),
        Some(Value::UInt(number)) => push_short(key, &number.to_string()),
        Some(Value::String(text) | Value::BigInt(text) | Value::Tagged(_, text)) => {
            push_short(key, text);
        }
        Some(value @ (Value::Float(_) | Value::Bytes(_) | Value::Array(_) | Value::Map(_))) => {
            let mut bytes = Vec::new();
            // What JSON cannot carry came in MessagePack, and all of it has the same key.
            let _ = json::encode(value, &mut bytes);
            push_short(key, &String::from_utf8_lossy(&bytes));
        }
    }
}

fn push_short(key: &mut String, text: &str) {
    if text.len() <= VALUE_MAX {
        key.push_str(text);
        return;
    }
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
    // To write to a text cannot fail.
    let _ = write!(key, "#{}", hash.simple());
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LimitKey = LimitKey::new(&[
        KeyPart::Text("bank "),
        KeyPart::Param { at: 1, name: "account" },
        KeyPart::Text("/"),
        KeyPart::Header("tenant"),
    ]);

    fn key(args: &[Value], kwargs: &Map, headers: &Map) -> String {
        KEY.of(args, kwargs, headers)
    }

    #[test]
    fn arguments_and_headers_stand_in_their_places() {
        let tenant = || Map::from_iter([("tenant", "acme")]);
        let by_place = key(&[1.into(), 7.into()], &Map::new(), &tenant());
        assert_eq!(by_place, "bank 7/acme");
        let by_name = key(&[1.into()], &Map::from_iter([("account", 7)]), &tenant());
        assert_eq!(by_name, by_place);
        assert_eq!(key(&[], &Map::new(), &Map::new()), "bank /", "what is not given is empty");
        let null = key(&[Value::Null, Value::Null], &Map::new(), &Map::new());
        assert_eq!(null, "bank /");
    }

    #[test]
    fn values_of_all_types_have_a_text() {
        let of = |value: Value| key(&[Value::Null, value], &Map::new(), &Map::new());
        assert_eq!(of(true.into()), "bank true/");
        assert_eq!(of(u64::MAX.into()), "bank 18446744073709551615/");
        assert_eq!(of(Value::Float(1.5)), "bank 1.5/");
        assert_eq!(of(vec![Value::from(1), "a".into()].into()), "bank [1, \"a\"]/");
        assert_ne!(of(Value::Bytes(vec![1])), of(Value::Bytes(vec![2])));
        assert!(of(Value::Float(f64::NAN)).starts_with("bank "));
    }

    #[test]
    fn a_key_is_short_whatever_a_message_says() {
        let of = |text: String| key(&[Value::Null, text.into()], &Map::new(), &Map::new());
        let (one, other) = (of("x".repeat(1 << 20)), of("y".repeat(1 << 20)));
        assert_ne!(one, other);
        assert!(one.len() < 50, "{one}");
    }
}
