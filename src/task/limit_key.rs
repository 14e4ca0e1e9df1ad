//! What a limit of the whole fleet is counted by, other than the task: a text with places for
//! arguments and headers of the call. Pure.
//!
//! **Invariants:** a key is short, whatever a message says: of what is long, its hash stands there.
//! Different values in the places of one text make different keys, but for those that look alike.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::protocol::{Map, Value, json};

/// The longest value, in bytes, that stands in a key as it is.
const VALUE_MAX: usize = 100;

/// Stands between two places that have no text between them.
const BETWEEN: char = '|';

/// Begins a hash, and what stands for a sign that would be misread.
const HASH: char = '#';
const ESCAPE: char = '%';

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
        let mut after_value = false;
        for part in self.0 {
            let value = match part {
                KeyPart::Text(text) => {
                    key.push_str(text);
                    after_value = false;
                    continue;
                }
                KeyPart::Param { at, name } => args.get(*at).or_else(|| kwargs.get(name)),
                KeyPart::Header(name) => headers.get(name),
            };
            if after_value {
                key.push(BETWEEN);
            }
            self.push(&mut key, value);
            after_value = true;
        }
        key
    }

    fn push(self, key: &mut String, value: Option<&Value>) {
        match value {
            None | Some(Value::Null) => {}
            Some(Value::Bool(flag)) => self.push_short(key, &flag.to_string()),
            Some(Value::Int(number)) => self.push_short(key, &number.to_string()),
            Some(Value::UInt(number)) => self.push_short(key, &number.to_string()),
            Some(Value::String(text) | Value::BigInt(text) | Value::Tagged(_, text)) => {
                self.push_short(key, text);
            }
            Some(value @ (Value::Float(_) | Value::Bytes(_))) => self.push_json(key, value),
            // The order of a map is its sender's.
            Some(value @ (Value::Array(_) | Value::Map(_))) => {
                self.push_json(key, &value.clone().sorted());
            }
        }
    }

    fn push_json(self, key: &mut String, value: &Value) {
        let mut bytes = Vec::new();
        // What JSON cannot carry came in MessagePack, and all of it has the same key.
        let _ = json::encode(value, &mut bytes);
        self.push_short(key, &String::from_utf8_lossy(&bytes));
    }

    /// Adds a value in which nothing can be taken for the text behind it, nor for a hash.
    fn push_short(self, key: &mut String, text: &str) {
        if text.len() > VALUE_MAX {
            let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
            // To write to a text cannot fail.
            let _ = write!(key, "{HASH}{}", hash.simple());
            return;
        }
        for (at, sign) in text.char_indices() {
            if sign == ESCAPE || (at == 0 && sign == HASH) || self.ends_value(sign) {
                for byte in sign.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(key, "{ESCAPE}{byte:02X}");
                }
            } else {
                key.push(sign);
            }
        }
    }

    /// Whether a value of this key that has this sign could end there: it is the first one between
    /// two places.
    fn ends_value(self, sign: char) -> bool {
        let begins = |part: &KeyPart| match part {
            KeyPart::Text(text) => text.chars().next(),
            KeyPart::Param { .. } | KeyPart::Header(_) => Some(BETWEEN),
        };
        let is_place = |part: &KeyPart| !matches!(part, KeyPart::Text(_));
        let mut left = self.0;
        while let [place, rest @ ..] = left {
            left = rest;
            let is_between = is_place(place) && rest.iter().any(is_place);
            if is_between && rest.first().and_then(begins) == Some(sign) {
                return true;
            }
        }
        false
    }
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
    fn no_value_can_be_taken_for_two() {
        let headers = |tenant: &str| Map::from_iter([("tenant", tenant)]);
        let of =
            |one: &str, other: &str| key(&[Value::Null, one.into()], &Map::new(), &headers(other));
        assert_eq!(of("x/y", "z"), "bank x%2Fy/z");
        assert_ne!(of("x/y", "z"), of("x", "y/z"));
        assert_ne!(of("x%2Fy", ""), of("x/y", ""));
        let long = "x".repeat(101);
        let hash = of(&long, "").trim_end_matches('/').trim_start_matches("bank ").to_owned();
        assert_ne!(of(&hash, ""), of(&long, ""), "nobody can write a hash");
        let name = |name| KeyPart::Header(name);
        let parts: &'static [KeyPart] = Box::leak(Box::new([name("a"), name("b")]));
        let of = |a: &str, b: &str| {
            LimitKey::new(parts).of(&[], &Map::new(), &Map::from_iter([("a", a), ("b", b)]))
        };
        assert_eq!(of("1", "2"), "1|2");
        assert_ne!(of("12", ""), of("1", "2"));
        assert_ne!(of("1|", "2"), of("1", "|2"));
        let only = LimitKey::new(const { &[KeyPart::Header("a"), KeyPart::Text("/")] });
        assert_eq!(only.of(&[], &Map::new(), &Map::from_iter([("a", "1/2")])), "1/2/");
    }

    #[test]
    fn the_order_of_a_map_makes_no_other_key() {
        let of = |value: Value| key(&[Value::Null, value], &Map::new(), &Map::new());
        let map = |entries: [(&'static str, i64); 2]| Value::Map(Map::from_iter(entries));
        let inside = |map: Value| Value::Map(Map::from_iter([("in", Value::Array(vec![map]))]));
        assert_eq!(of(map([("a", 1), ("b", 2)])), of(map([("b", 2), ("a", 1)])));
        assert_eq!(of(inside(map([("a", 1), ("b", 2)]))), of(inside(map([("b", 2), ("a", 1)]))));
        assert_ne!(of(map([("a", 1), ("b", 2)])), of(map([("a", 2), ("b", 1)])));
    }

    #[test]
    fn a_key_is_short_whatever_a_message_says() {
        let of = |text: String| key(&[Value::Null, text.into()], &Map::new(), &Map::new());
        let (one, other) = (of("x".repeat(1 << 20)), of("y".repeat(1 << 20)));
        assert_ne!(one, other);
        assert!(one.len() < 50, "{one}");
    }
}
