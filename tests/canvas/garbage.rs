//! Signatures that nobody would write: lowered or refused, and never a panic.

use celeriac::protocol::canvas::{Call, Canvas, Ids, failed_with, lower};
use celeriac::protocol::{Map, Signature, Value};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::tree::{canvas, trees};

/// What stands where something else should.
fn garbage() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(""),
        Just("chord"),
        Just("celery.chain"),
        Just("celery.group"),
        Just("x"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let key = prop_oneof![
            Just("task"),
            Just("tasks"),
            Just("options"),
            Just("chord"),
            Just("task_id"),
            Just("link"),
            Just("chain"),
            Just("headers"),
            Just("join"),
            Just("kwargs"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..3)
                .prop_map(|entries| { Value::Map(entries.into_iter().collect()) }),
        ]
    })
}

/// An option of a signature, well known or not.
fn option() -> impl Strategy<Value = (&'static str, Value)> {
    let key = prop::sample::select(vec![
        "task_id",
        "link",
        "link_error",
        "chain",
        "chord",
        "headers",
        "join",
        "group_id",
        "group_index",
        "reply_to",
        "stamped_headers",
        "root_id",
        "countdown",
        "expires",
        "x",
    ]);
    (key, garbage())
}

/// Puts `more` into the place number `at` of all the maps in `value`.
fn spoil(value: &mut Value, at: &mut usize, more: &(&'static str, Value)) {
    match value {
        Value::Map(map) => {
            if *at == 0 {
                map.insert(more.0, more.1.clone());
            }
            *at = at.wrapping_sub(1);
            let entries = std::mem::take(map).into_iter();
            *map = entries
                .map(|(key, mut inner)| {
                    spoil(&mut inner, at, more);
                    (key, inner)
                })
                .collect::<Map>();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, at, more)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(500) })]

    #[test]
    fn a_spoilt_workflow_is_lowered_or_refused(
        tree in trees(),
        spoilt in prop::collection::vec((0..80_usize, option()), 1..4),
    ) {
        let mut value = canvas(&tree).into_signature().into_value();
        for (mut at, more) in spoilt {
            spoil(&mut value, &mut at, &more);
        }
        let Ok(signature) = Signature::from_value(value) else { return Ok(()) };
        failed_with(std::slice::from_ref(&signature));
        let Ok(canvas) = Canvas::from_signature(signature) else { return Ok(()) };
        let call = Call { ids: Ids::derived("task"), ..Call::default() };
        if let Ok(lowered) = lower(canvas, call) {
            // Nothing that goes out is without an id.
            for call in lowered.calls {
                prop_assert!(call.options.get("task_id").and_then(Value::as_str).is_some());
            }
        }
    }
}
