//! Random values for property tests.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Map, Tag, Value};

/// Values that MessagePack carries unchanged.
pub(super) fn plain() -> impl Strategy<Value = Value> {
    nested(scalar().boxed())
}

/// Values that Celery's JSON carries unchanged.
pub(super) fn rich() -> impl Strategy<Value = Value> {
    let tagged = prop_oneof![
        text().prop_map(|it| Value::Tagged(Tag::DateTime, it)),
        text().prop_map(|it| Value::Tagged(Tag::Date, it)),
        text().prop_map(|it| Value::Tagged(Tag::Time, it)),
        text().prop_map(|it| Value::Tagged(Tag::Decimal, it)),
        "[0-9a-f]{32}".prop_map(|it| Value::Tagged(Tag::Uuid, it)),
        "-?[1-9][0-9]{20,40}".prop_map(Value::BigInt),
    ];
    nested(prop_oneof![4 => scalar(), 1 => tagged].boxed())
}

/// Maps with text keys, each of them once.
pub(super) fn map(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map> {
    vec((text(), value), 0..5).prop_map(|entries| {
        let mut map = Map::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    })
}

fn nested(leaf: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            map(inner).prop_map(Value::Map),
        ]
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-300_i64..70_000).prop_map(Value::Int),
        (i64::MAX as u64 + 1..).prop_map(Value::UInt),
        // A float that is no number differs from itself.
        any::<f64>().prop_filter("NaN", |it| !it.is_nan()).prop_map(Value::Float),
        text().prop_map(Value::String),
        vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[\\x00-\\x7f]{0,40}", "task|args|kwargs|options|celery\\.group|chain",]
}
