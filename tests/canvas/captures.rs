//! What Celery sends for a workflow, and what is sent here for the same one, are the same but for
//! the ids.

use celeriac::protocol::{CallOptions, Limits, Map, Value, json};

use super::shapes::{
    body, call, canonical, chain, group, lowered_with, options, place, text, value,
};

struct Capture {
    place: Value,
    body: Value,
    reply_to: String,
    root_id: Value,
    headers: serde_json::Value,
}

fn capture(name: &str) -> Capture {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect(&path)).expect("JSON");
    let read = |json: &serde_json::Value| -> Value {
        let bytes = serde_json::to_vec(json).expect("JSON");
        json::decode(&bytes, &Limits::default()).expect("JSON")
    };
    let headers = &file["properties"]["headers"];
    let place = ["task", "id", "group", "group_index", "stamps"].map(|key| read(&headers[key]));
    Capture {
        place: Value::Array(place.into()),
        body: read(&file["body"]),
        reply_to: file["properties"]["reply_to"].as_str().unwrap_or_default().to_owned(),
        root_id: read(&headers["root_id"]),
        headers: headers.clone(),
    }
}

/// Compares the first call of `workflow` with a captured one.
fn check(name: &str, workflow: &str, call_options: CallOptions) -> Capture {
    let captured = capture(name);
    let call_options = CallOptions { reply_to: Some(captured.reply_to.clone()), ..call_options };
    let lowered = lowered_with(workflow, call_options);
    assert!(lowered.opens.is_empty(), "{name}");
    let first = &lowered.calls[0];
    assert_eq!(options(first).reply_to.as_ref(), Some(&captured.reply_to), "{name}");
    let seen = |place: Value, body: Value| {
        let mut ids = vec![captured.reply_to.clone()];
        let place = canonical(place, &mut ids);
        (text(&place), text(&canonical(body, &mut ids)))
    };
    let expected = seen(captured.place.clone(), captured.body.clone());
    assert_eq!(seen(place(first), body(first)), expected, "{name}");
    captured
}

fn same(name: &str, workflow: &str) {
    check(name, workflow, CallOptions::default());
}

fn add() -> String {
    call("proj.add", "2, 2", "")
}

fn mul(by: u8) -> String {
    call("proj.mul", &by.to_string(), "")
}

#[test]
fn chains() {
    let steps = [add(), call("proj.add", "4", ""), mul(10)];
    same("chain-3-json", &chain(&steps));
    same("chain-3-msgpack", &chain(&steps));
    let [first, second, third] = steps;
    same("chain-3-json", &chain(&[first, chain(&[second, third])]));
    let fixed = r#"{"task": "proj.ident", "args": ["fixed"], "immutable": true}"#;
    same("chain-immutable-json", &chain(&[add(), fixed.to_owned()]));
    same("chain-then-group-json", &chain(&[add(), group(&[mul(2), mul(3)])]));
}

#[test]
fn options_of_a_chain_reach_the_steps_that_celery_gives_them_to() {
    let workflow = chain(&[add(), call("proj.add", "4", ""), mul(10)]);
    let errback = value(&call("proj.on_err_old", "", ""));
    let errback = celeriac::protocol::Signature::from_value(errback).unwrap();
    let call_options = CallOptions {
        priority: Some(4),
        countdown: Some(std::time::Duration::from_secs(2)),
        link_error: vec![errback],
        ..CallOptions::default()
    };
    check("chain-options-json", &workflow, call_options.clone());
    let first = options(&lowered_with(&workflow, call_options).calls[0]);
    assert_eq!((first.priority, first.countdown.map(|it| it.as_secs())), (Some(4), Some(2)));
}

#[test]
fn groups() {
    let members: Vec<_> = (0..3).map(|i| call("proj.add", &format!("{i}, {i}"), "")).collect();
    same("group-member-0-json", &group(&members));
    let chains = [(1, 2), (2, 3)]
        .map(|(i, by)| chain(&[call("proj.add", &format!("{i}, {i}"), ""), mul(by)]));
    same("group-of-chains-json", &group(&chains));
}

#[test]
fn maps_and_chunks() {
    let over = |kind: &str, task: &str, more: &str| {
        let task = canonical_order(&call(task, "", ""));
        format!(
            r#"{{"task": "celery.{kind}", "subtask_type": "x{kind}", "immutable": true,
                "kwargs": {{"task": {task}, {more}}}}}"#
        )
    };
    same("map-json", &over("map", "proj.ident", r#""it": [1, 2, 3]"#));
    same("starmap-msgpack", &over("starmap", "proj.add", r#""it": [[1, 1], [2, 2]]"#));
    let chunks = over("chunks", "proj.add", r#""it": [[1, 1], [2, 2], [3, 3]], "n": 2"#);
    same("chunks-json", &chunks.replace("xchunks", "chunks"));
}

#[test]
fn links() {
    let pair = |args: &str| call("proj.add", "2, 3", args);
    same("task-link-msgpack", &pair(&format!(r#""link": [{}]"#, mul(10))));
    let nested = call(
        "proj.mul",
        "10",
        &format!(
            r#""link": [{}], "link_error": [{}]"#,
            call("proj.ident", "", ""),
            call("proj.on_err_old", "", "")
        ),
    );
    let nested = canonical_order(&nested);
    same("task-link-nested-msgpack", &pair(&format!(r#""link": {nested}"#)));
    let errback = canonical_order(&call("proj.on_err_old", "", ""));
    same(
        "task-link-error-json",
        &call("proj.boom", r#""m""#, &format!(r#""link_error": {errback}"#)),
    );
}

/// The text with the keys that a signature leaves out, which nobody adds within options.
fn canonical_order(text: &str) -> String {
    fn full(it: Value) -> Value {
        match it {
            Value::Map(map) if map.contains_key("task") => {
                let mut signature = celeriac::protocol::Signature::from_value(Value::Map(map))
                    .expect("a signature");
                signature.options =
                    signature.options.into_iter().map(|(key, it)| (key, full(it))).collect();
                signature.into_value()
            }
            Value::Array(items) => Value::Array(items.into_iter().map(full).collect()),
            other => other,
        }
    }
    super::shapes::text(&full(value(text)))
}

#[test]
fn stamps_pass_through() {
    let stamped = r#""stamped_headers": ["monitoring_id"], "monitoring_id": "mon-1""#;
    let steps = [call("proj.add", "2, 2", stamped), call("proj.mul", "3", stamped)];
    same("stamped-chain-msgpack", &chain(&steps));
    // The same stamps, given with the call.
    let call_options = CallOptions {
        stamped_headers: Some(vec!["monitoring_id".into()]),
        stamps: Map::from_iter([("monitoring_id", "mon-1")]),
        ..CallOptions::default()
    };
    let unstamped = chain(&[add(), mul(3)]);
    check("stamped-chain-msgpack", &unstamped, call_options);
    let both = r#""stamped_headers": ["job", "tenant"], "tenant": "acme", "job": ["a", "b"]"#;
    same("stamped-json", &call("proj.add", "2, 3", both));
}

#[test]
fn a_task_without_lineage_is_its_own_root() {
    // What Celery writes at once is left to composing: neither root nor parent is said.
    let captured = check(
        "chain-3-json",
        &chain(&[add(), call("proj.add", "4", ""), mul(10)]),
        CallOptions::default(),
    );
    assert_eq!(captured.headers["id"].as_str(), captured.root_id.as_str());
    let first = options(&lowered_with(&chain(&[add(), mul(2)]), CallOptions::default()).calls[0]);
    assert_eq!((first.root_id, first.parent_id), (None, None));
}

/// A worker that comes to the next step sends what Celery's worker sends.
#[test]
fn the_next_step_carries_lineage_rest_and_result() {
    let sent = capture("chain-3-msgpack");
    let Value::Array(parts) = &sent.body else { panic!("a body") };
    let rest = parts[2].as_map().unwrap().get("chain").unwrap().as_array().unwrap();
    let mut rest: Vec<_> = rest
        .iter()
        .map(|it| celeriac::protocol::Signature::from_value(it.clone()).unwrap())
        .collect();
    let mut id = sent.headers["id"].as_str().unwrap().to_owned();
    let root = id.clone();
    for (step, result) in [("chain-3-step2-msgpack", 4), ("chain-3-step3-msgpack", 8)] {
        let next = rest.pop().unwrap();
        let call_options = CallOptions {
            chain: Some(rest.clone()),
            root_id: Some(root.clone()),
            parent_id: Some(id.clone()),
            ..CallOptions::default()
        };
        let call = celeriac::protocol::canvas::Call {
            args: vec![Value::Int(result)],
            options: call_options,
            ids: celeriac::protocol::canvas::Ids::derived(&*id),
            ..Default::default()
        };
        let canvas = celeriac::protocol::canvas::Canvas::from_signature(next).unwrap();
        let lowered = celeriac::protocol::canvas::lower(canvas, call).unwrap();
        let first = &lowered.calls[0];
        let captured = capture(step);
        // Captured in another run, so the ids are others throughout.
        let expected = text(&canonical(captured.body.clone(), &mut Vec::new()));
        assert_eq!(text(&canonical(body(first), &mut Vec::new())), expected, "{step}");
        let it = options(first);
        assert_eq!((it.root_id.as_ref(), it.parent_id.as_ref()), (Some(&root), Some(&id)));
        id = it.task_id.unwrap();
    }
}
