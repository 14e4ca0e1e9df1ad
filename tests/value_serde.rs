//! Rust types become dynamic values and come back, with errors that a Python caller can read.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, HashMap};

use celeriac::protocol::{
    Bytes, DateTime, Decimal, Map, Tag, Uuid, Value, ValueError, from_value, to_value,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Circle(f64),
    Line(i32, i32),
    Box { width: u8, height: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    name: String,
    price: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    items: Vec<Item>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Metres(f64);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

fn map<const N: usize>(entries: [(&'static str, Value); N]) -> Value {
    Value::Map(entries.into_iter().collect())
}

/// `rust` becomes `value`, and `value` becomes `rust` again.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "rows read better without borrows")]
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(rust: T, value: Value) {
    assert_eq!(to_value(&rust).unwrap(), value);
    assert_eq!(from_value::<T>(value).unwrap(), rust);
}

/// Reading `value` as `T` fails with exactly this text.
#[track_caller]
fn refused<T: DeserializeOwned + std::fmt::Debug>(value: impl Into<Value>, text: &str) {
    assert_eq!(from_value::<T>(value.into()).unwrap_err().to_string(), text);
}

#[test]
fn rust_values_become_dynamic_ones_and_come_back() {
    same((), Value::Null);
    same(true, Value::Bool(true));
    same(-3_i8, Value::Int(-3));
    same(300_u16, Value::Int(300));
    same(i64::MIN, Value::Int(i64::MIN));
    same(u64::MAX, Value::UInt(u64::MAX));
    same(7_i128, Value::Int(7));
    same(i128::from(u64::MAX), Value::UInt(u64::MAX));
    same(i128::MIN, Value::BigInt(i128::MIN.to_string()));
    same(u128::MAX, Value::BigInt(u128::MAX.to_string()));
    same(1.5_f64, Value::Float(1.5));
    same(0.25_f32, Value::Float(0.25));
    same('ß', Value::from("ß"));
    same("text".to_owned(), Value::from("text"));
    same(Some(1), Value::Int(1));
    same(None::<i64>, Value::Null);
    same((1, "a".to_owned()), Value::Array(vec![Value::Int(1), Value::from("a")]));
    same([1, 2], Value::Array(vec![Value::Int(1), Value::Int(2)]));
    same(Metres(2.0), Value::Float(2.0));
    same(vec![1_u8, 2], Value::Array(vec![Value::Int(1), Value::Int(2)]));
    same(
        Item { name: "pen".into(), price: 3, note: None },
        map([("name", "pen".into()), ("price", Value::Int(3))]),
    );
}

#[test]
fn enums_are_tagged_externally() {
    same(Colour::Red, Value::from("Red"));
    same(Shape::Empty, Value::from("Empty"));
    same(Shape::Circle(1.5), map([("Circle", Value::Float(1.5))]));
    same(Shape::Line(1, -2), map([("Line", Value::Array(vec![Value::Int(1), Value::Int(-2)]))]));
    same(
        Shape::Box { width: 1, height: 2 },
        map([("Box", map([("width", Value::Int(1)), ("height", Value::Int(2))]))]),
    );
    same(NumberOrText::Number(1), Value::Int(1));
    same(NumberOrText::Text("1".into()), Value::from("1"));
}

#[test]
fn map_keys_that_are_not_text_travel_as_text() {
    same(BTreeMap::from([(1, 2)]), map([("1", Value::Int(2))]));
    same(BTreeMap::from([(true, 2)]), map([("true", Value::Int(2))]));
    same(BTreeMap::from([(Colour::Green, 2)]), map([("Green", Value::Int(2))]));
    let error = to_value(&HashMap::from([((1, 2), 3)])).unwrap_err();
    assert_eq!(error.to_string(), "map keys must be text, got list");
    refused::<HashMap<i64, i64>>(map([("x", Value::Int(2))]), "x: expected i64, got 'x'");
}

#[test]
fn values_pass_through_unchanged() {
    let value = map([
        ("when", Value::Tagged(Tag::DateTime, "2030-01-02T03:04:05".into())),
        ("huge", Value::BigInt("9".repeat(60))),
        ("wide", Value::BigInt(u128::MAX.to_string())),
        ("raw", Value::Bytes(vec![0, 255])),
        (
            "list",
            Value::Array(vec![Value::Null, Value::Float(f64::INFINITY), Value::UInt(u64::MAX)]),
        ),
        ("price", Value::Tagged(Tag::Decimal, "1.10".into())),
    ]);
    same(value.clone(), value.clone());
    same(Some(value.clone()), value);
    let empty = Map::new();
    same(empty.clone(), Value::Map(empty));
}

#[test]
fn flattened_fields_keep_the_rest() {
    let value = map([
        ("items", Value::Array(vec![map([("name", "pen".into()), ("price", Value::Int(3))])])),
        ("note", Value::Array(vec![Value::Null, Value::Bytes(vec![7])])),
    ]);
    let order: Order = from_value(value.clone()).unwrap();
    assert_eq!(order.items[0].name, "pen");
    assert_eq!(to_value(&order).unwrap(), value);
}

#[test]
fn celery_types_have_rust_types() {
    let at = DateTime("2030-01-02T03:04:05.678901Z".parse().unwrap());
    same(at, Value::Tagged(Tag::DateTime, "2030-01-02T03:04:05.678901+00:00".into()));
    assert_eq!(from_value::<DateTime>("2030-01-02T04:04:05.678901+01:00".into()).unwrap(), at);
    assert_eq!(from_value::<DateTime>("2030-01-02T03:04:05.678901".into()).unwrap(), at);
    refused::<DateTime>("soon", "expected a datetime, got 'soon'");

    same(Decimal("1.10".into()), Value::Tagged(Tag::Decimal, "1.10".into()));
    assert_eq!(from_value::<Decimal>(Value::Int(3)).unwrap(), Decimal("3".into()));

    let id = "0123456789abcdef0123456789abcdef";
    same(Uuid(id.parse().unwrap()), Value::Tagged(Tag::Uuid, id.into()));
    let hyphenated = "01234567-89ab-cdef-0123-456789abcdef";
    assert_eq!(from_value::<Uuid>(hyphenated.into()).unwrap().to_string(), hyphenated);
    refused::<Uuid>(Value::Int(3), "expected a UUID, got 3");

    same(Bytes(vec![0, 255]), Value::Bytes(vec![0, 255]));
    assert_eq!(from_value::<Bytes>("ab".into()).unwrap().0, b"ab");
    assert_eq!(from_value::<Vec<u8>>(Value::Bytes(vec![0, 255])).unwrap(), [0, 255]);
    assert_eq!(from_value::<[u8; 2]>(Value::Bytes(vec![0, 255])).unwrap(), [0, 255]);
    let numbers = Value::Array(vec![Value::Int(1)]);
    assert_eq!(from_value::<Bytes>(numbers).unwrap().0, [1]);
}

#[test]
fn integers_read_as_floats_but_floats_never_as_integers() {
    assert_eq!(from_value::<f64>(Value::Int(2)).unwrap(), 2.0);
    assert_eq!(from_value::<f32>(Value::UInt(u64::MAX)).unwrap(), u64::MAX as f32);
    assert_eq!(
        from_value::<f64>(Value::BigInt("1".repeat(40))).unwrap(),
        1.111_111_111_111_111_2e39
    );
    refused::<i64>(2.0, "expected i64, got float");
}

#[test]
fn errors_name_what_was_expected_what_came_and_where() {
    refused::<i64>("x", "expected i64, got str");
    refused::<i64>(Value::Null, "expected i64, got None");
    refused::<i64>(true, "expected i64, got bool");
    refused::<u8>(300_i64, "expected u8, got 300");
    refused::<u64>(-1, "expected u64, got -1");
    refused::<i64>(u64::MAX, "expected i64, got 18446744073709551615");
    refused::<i64>(Value::BigInt("9".repeat(30)), "expected i64, got an int that is too large");
    refused::<String>(1, "expected a string, got int");
    refused::<String>(vec![b'a'], "expected a string, got bytes");
    refused::<Vec<i64>>("x", "expected a sequence, got str");
    refused::<(i64, i64)>(
        Value::Array(vec![Value::Int(1); 3]),
        "expected fewer elements, got 3 elements",
    );
    refused::<(i64, i64)>(
        Value::Array(vec![Value::Int(1)]),
        "expected a tuple of size 2, got 1 elements",
    );
    refused::<Item>(Value::Map(Map::new()), "missing field `name`");
    refused::<Colour>("Blue", "unknown variant `Blue`, expected `Red` or `Green`");
    refused::<Colour>(1, "expected the name of a variant or a dict with one, got int");
    refused::<Shape>(
        map([("Box", map([("width", Value::Int(999)), ("height", Value::Int(1))]))]),
        "Box.width: expected u8, got 999",
    );
    let bad = map([("name", "pen".into()), ("price", "dear".into())]);
    refused::<Vec<Item>>(Value::Array(vec![bad]), "[0].price: expected i64, got str");
}

#[test]
fn nesting_is_bounded() {
    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }
    assert!(to_value(&nested(256)).is_ok());
    let error: ValueError = to_value(&nested(257)).unwrap_err();
    assert_eq!(error.problem(), "nested deeper than 256 levels");
}

#[test]
fn large_maps_are_read_and_written_in_linear_time() {
    let large: HashMap<String, u32> = (0..200_000).map(|n| (n.to_string(), n)).collect();
    let value = to_value(&large).unwrap();
    assert_eq!(from_value::<HashMap<String, u32>>(value).unwrap(), large);
}

#[test]
fn other_formats_see_plain_data() {
    let value = map([
        ("a", Value::Tagged(Tag::Decimal, "1.10".into())),
        ("b", Value::BigInt(u128::MAX.to_string())),
        ("c", Value::Array(vec![Value::Null, Value::Float(0.5)])),
    ]);
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(json, format!(r#"{{"a":"1.10","b":{},"c":[null,0.5]}}"#, u128::MAX));
    let back: Value = serde_json::from_str(r#"{"a":[1,null,"x",0.5]}"#).unwrap();
    assert_eq!(back.as_map().unwrap().get("a").unwrap().as_array().unwrap().len(), 4);
}
