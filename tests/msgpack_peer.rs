//! Our MessagePack against rmp-serde, a reader and writer that others wrote.

use celeriac::protocol::{Limits, Map, Value, msgpack};
use proptest::prelude::*;

/// Values that serde's data model can carry in MessagePack.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("NaN is not equal to itself", |it| !it.is_nan())
            .prop_map(Value::Float),
        ".*".prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let key = "[a-z]{1,8}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map(key, inner, 0..8)
                .prop_map(|map| Value::Map(Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn rmp_serde_reads_what_we_write(value in value()) {
        let mut bytes = Vec::new();
        msgpack::encode(&value, &mut bytes).expect("every such value can be written");
        let read: Value = rmp_serde::from_slice(&bytes).expect("it is MessagePack");
        prop_assert_eq!(read, value);
    }

    #[test]
    fn we_read_what_rmp_serde_writes(value in value()) {
        let bytes = rmp_serde::to_vec_named(&value).expect("every such value can be written");
        let read = msgpack::decode(&bytes, &Limits::default()).expect("it is MessagePack");
        prop_assert_eq!(read, value);
    }
}
