//! How the tests write workflows down, and how they look at what becomes of them.

use celeriac::protocol::canvas::{Call, Canvas, Lowered, lower};
use celeriac::protocol::{CallOptions, Limits, Map, Signature, Value, json};

/// A value from its JSON text.
pub(crate) fn value(text: &str) -> Value {
    json::decode(text.as_bytes(), &Limits::default()).expect("JSON")
}

/// `name(args…)` with options, as the text of a signature.
pub(crate) fn call(task: &str, args: &str, options: &str) -> String {
    format!(r#"{{"task": "{task}", "args": [{args}], "options": {{{options}}}}}"#)
}

pub(crate) fn chain(steps: &[String]) -> String {
    let steps = steps.join(", ");
    format!(
        r#"{{"task": "celery.chain", "subtask_type": "chain", "kwargs": {{"tasks": [{steps}]}}}}"#
    )
}

pub(crate) fn group(members: &[String]) -> String {
    let members = members.join(", ");
    format!(
        r#"{{"task": "celery.group", "subtask_type": "group", "kwargs": {{"tasks": [{members}]}}}}"#
    )
}

pub(crate) fn chord(header: &[String], body: &str) -> String {
    let header = header.join(", ");
    format!(
        r#"{{"task": "celery.chord", "subtask_type": "chord",
            "kwargs": {{"header": [{header}], "body": {body}, "kwargs": {{}}}}}}"#
    )
}

pub(crate) fn canvas(text: &str) -> Canvas {
    Canvas::from_signature(Signature::from_value(value(text)).expect("a signature")).expect(text)
}

/// Lowers a workflow for a caller that waits at `reply_to`.
pub(crate) fn lowered(text: &str, reply_to: &str) -> Lowered {
    lowered_with(
        text,
        CallOptions { reply_to: Some(reply_to.to_owned()), ..CallOptions::default() },
    )
}

pub(crate) fn lowered_with(text: &str, options: CallOptions) -> Lowered {
    lower(canvas(text), Call { options, ..Call::default() }).expect(text)
}

pub(crate) fn options(call: &Signature) -> CallOptions {
    CallOptions::from_map(call.options.clone()).expect("options")
}

/// The body of the message of a call.
pub(crate) fn body(call: &Signature) -> Value {
    let CallOptions { link, link_error, chain, chord, .. } = options(call);
    let list = |list: Vec<Signature>| -> Value {
        list.into_iter().map(Signature::into_value).collect::<Vec<_>>().into()
    };
    let some = |it: Vec<Signature>| if it.is_empty() { Value::Null } else { list(it) };
    let embed = Map::from_iter([
        ("callbacks", some(link)),
        ("errbacks", some(link_error)),
        ("chain", chain.map_or(Value::Null, list)),
        ("chord", chord.map_or(Value::Null, |chord| chord.into_value())),
    ]);
    Value::Array(vec![call.args.clone().into(), call.kwargs.clone().into(), embed.into()])
}

/// The headers that place a call among others: `[task, id, group, group_index, stamps]`.
pub(crate) fn place(call: &Signature) -> Value {
    let it = options(call);
    let index = it.group_index.map_or(Value::Null, Value::Int);
    Value::Array(vec![
        call.task.clone().into(),
        it.task_id.into(),
        it.group_id.into(),
        index,
        it.stamps.into(),
    ])
}

/// A value with the ids numbered in the order of their appearance, without options that are null,
/// and with sorted maps, so that two that mean the same are equal.
pub(crate) fn canonical(value: Value, ids: &mut Vec<String>) -> Value {
    match value {
        Value::String(text) if uuid::Uuid::try_parse(&text).is_ok() => {
            let at = ids.iter().position(|id| *id == text).unwrap_or_else(|| {
                ids.push(text);
                ids.len() - 1
            });
            Value::String(format!("#{at}"))
        }
        Value::Array(items) => {
            items.into_iter().map(|it| canonical(it, ids)).collect::<Vec<_>>().into()
        }
        Value::Map(map) => {
            let mut entries: Vec<_> = map.into_iter().filter(|(_, it)| !it.is_null()).collect();
            entries.sort_by(|left, right| left.0.cmp(&right.0));
            let entries = entries.into_iter().map(|(key, it)| (key, canonical(it, ids)));
            Value::Map(entries.collect())
        }
        other => other,
    }
}

pub(crate) fn text(value: &Value) -> String {
    let mut text = Vec::new();
    json::encode(value, &mut text).expect("JSON");
    String::from_utf8(text).expect("text")
}
