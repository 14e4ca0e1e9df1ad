//! Events of Python Celery, captured from real connections, read and written again.
//!
//! Each file of `tests/vectors/events` is one message; its format is that of `tests/vectors`.

use std::collections::BTreeMap;

use celeriac::protocol::event::{self, Event, EventKind, MULTI};
use celeriac::protocol::{Map, Message, Properties};
use serde_json::Value as Json;

struct Vector {
    name: String,
    routing_key: String,
    body: Json,
    message: Message,
}

fn vectors() -> Vec<Vector> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/events");
    let read = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).expect("the file is readable");
        let file: Json = serde_json::from_str(&text).expect("the file is JSON");
        Vector {
            name: file["name"].as_str().expect("a name").to_owned(),
            routing_key: file["args"]["routing_key"].as_str().expect("a key").to_owned(),
            body: file["body"].clone(),
            message: message(&file),
        }
    };
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| read(&entry.expect("the folder is readable").path())).collect()
}

fn message(file: &Json) -> Message {
    let properties = &file["properties"];
    let text = |key: &str| properties[key].as_str().map(str::to_owned);
    let small = |key: &str| properties[key].as_u64().map(|it| u8::try_from(it).expect("small"));
    assert_eq!(file["header_types"], serde_json::json!({ "hostname": "S" }));
    let hostname = properties["headers"]["hostname"].as_str().expect("a host name");
    let hex = file["body_hex"].as_str().expect("a body");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    Message {
        properties: Properties {
            content_type: text("content_type"),
            content_encoding: text("content_encoding"),
            headers: Some(Map::from_iter([("hostname", hostname)])),
            delivery_mode: small("delivery_mode"),
            priority: small("priority"),
            ..Properties::default()
        },
        body: (0..hex.len()).step_by(2).map(byte).collect(),
    }
}

fn events(vector: &Vector) -> Vec<Event> {
    let events = event::decode(&vector.message).expect(&vector.name);
    events.into_iter().map(|event| event.expect(&vector.name)).collect()
}

/// The event of the capture `event-<name>`.
fn captured(name: &str) -> (Event, Json) {
    let name = format!("event-{name}");
    let vector = vectors().into_iter().find(|it| it.name == name).expect(&name);
    let first = events(&vector).remove(0);
    let body = match &vector.body {
        Json::Array(items) => items[0].clone(),
        one => one.clone(),
    };
    (first, body)
}

#[test]
fn events_are_written_byte_for_byte_as_python_writes_them() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 16, "vectors were added or lost");
    for vector in vectors {
        let read = events(&vector);
        let written = if vector.body.is_array() {
            assert_eq!(vector.routing_key, MULTI);
            event::encode_all(&read[0].hostname, read.clone())
        } else {
            assert_eq!(vector.routing_key, read[0].routing_key(), "{}", vector.name);
            event::encode(read[0].clone())
        };
        let written = written.expect(&vector.name);
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        assert_eq!(text(&written.body), text(&vector.message.body), "{}", vector.name);
        assert_eq!(written.properties, vector.message.properties, "{}", vector.name);
    }
}

#[test]
fn every_event_says_who_and_when() {
    for vector in vectors() {
        let bodies = match &vector.body {
            Json::Array(items) => items.clone(),
            one => vec![one.clone()],
        };
        for (read, body) in events(&vector).into_iter().zip(bodies) {
            assert_eq!(Some(read.name()), body["type"].as_str(), "{}", vector.name);
            assert_eq!(Some(&*read.hostname), body["hostname"].as_str(), "{}", vector.name);
            // To the microsecond: the other reader's numbers differ in their last digit.
            let timestamp = body["timestamp"].as_f64().expect("a number");
            assert!((read.timestamp - timestamp).abs() < 1e-6, "{}", vector.name);
            assert_eq!(read.clock, body["clock"].as_i64(), "{}", vector.name);
            assert_eq!(read.pid, body["pid"].as_i64(), "{}", vector.name);
            assert_eq!(read.utcoffset, body["utcoffset"].as_f64(), "{}", vector.name);
            assert_eq!(read.kind.uuid(), body["uuid"].as_str(), "{}", vector.name);
        }
    }
}

#[test]
fn every_type_of_event_is_read_as_what_it_is() {
    let known = BTreeMap::from([
        ("task-sent", "TaskSent"),
        ("task-received", "TaskReceived"),
        ("task-started", "TaskStarted"),
        ("task-succeeded", "TaskSucceeded"),
        ("task-failed", "TaskFailed"),
        ("task-retried", "TaskRetried"),
        ("task-rejected", "TaskRejected"),
        ("task-revoked", "TaskRevoked"),
        ("worker-online", "WorkerOnline"),
        ("worker-heartbeat", "WorkerHeartbeat"),
        ("worker-offline", "WorkerOffline"),
        ("task-custom-thing", "Custom"),
        ("worker-elect", "Custom"),
        ("worker-elect-ack", "Custom"),
    ]);
    for (name, variant) in known {
        let (event, _) = captured(name);
        let debug = format!("{:?}", event.kind);
        assert!(debug.starts_with(variant), "{name}: {debug}");
    }
}

#[test]
fn the_fields_of_tasks_are_those_of_the_capture() {
    let text = |body: &Json, key: &str| body[key].as_str().map(str::to_owned);
    for name in ["task-sent", "task-received"] {
        let (event, body) = captured(name);
        let task = event.kind.task().expect(name);
        assert_eq!(task.name, text(&body, "name"));
        assert_eq!(task.args, text(&body, "args"));
        assert_eq!(task.kwargs, text(&body, "kwargs"));
        assert_eq!(task.root_id, text(&body, "root_id"));
        assert_eq!(task.parent_id, None);
        assert_eq!((&task.eta, &task.expires, task.retries), (&None, &None, 0));
    }
    let (sent, body) = captured("task-sent");
    let EventKind::TaskSent(sent) = sent.kind else { panic!("{sent:?}") };
    assert_eq!(sent.queue, text(&body, "queue"));
    assert_eq!((sent.exchange.as_deref(), sent.routing_key.as_deref()), (Some(""), Some("celery")));
    let (event, body) = captured("task-succeeded");
    let EventKind::TaskSucceeded { result, runtime, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!((result, runtime), (text(&body, "result"), body["runtime"].as_f64()));
    let (event, body) = captured("task-failed");
    let EventKind::TaskFailed { exception, traceback, .. } = event.kind else {
        panic!("{event:?}")
    };
    assert_eq!((exception, traceback), (text(&body, "exception"), text(&body, "traceback")));
    let (event, body) = captured("task-retried");
    let EventKind::TaskRetried { exception, traceback, .. } = event.kind else {
        panic!("{event:?}")
    };
    assert_eq!((exception, traceback), (text(&body, "exception"), text(&body, "traceback")));
    let (event, _) = captured("task-rejected");
    assert!(matches!(event.kind, EventKind::TaskRejected { requeue: true, .. }), "{event:?}");
    let (event, _) = captured("task-revoked");
    let EventKind::TaskRevoked { terminated, signum, expired, .. } = event.kind else {
        panic!("{event:?}")
    };
    assert_eq!((terminated, signum, expired), (true, Some(15), false));
}

#[test]
fn the_fields_of_workers_are_those_of_the_capture() {
    for name in ["worker-online", "worker-heartbeat", "worker-offline"] {
        let (event, body) = captured(name);
        let (EventKind::WorkerOnline(facts)
        | EventKind::WorkerHeartbeat(facts)
        | EventKind::WorkerOffline(facts)) = event.kind
        else {
            panic!("{event:?}")
        };
        assert_eq!(facts.freq, body["freq"].as_f64());
        assert_eq!(facts.active, body["active"].as_i64());
        assert_eq!(facts.processed, body["processed"].as_i64());
        let load = facts.loadavg.map(|load| load.map(Json::from).to_vec());
        assert_eq!(load.as_ref(), body["loadavg"].as_array());
        assert_eq!(facts.sw_ident.as_deref(), Some("py-celery"));
        assert_eq!(facts.sw_ver.as_deref(), body["sw_ver"].as_str());
        assert_eq!(facts.sw_sys.as_deref(), body["sw_sys"].as_str());
    }
}

#[test]
fn every_prefix_and_every_changed_byte_is_read_within_bounds() {
    for vector in vectors() {
        let mut message = vector.message.clone();
        let whole = message.body.clone();
        for length in 0..whole.len() {
            message.body.truncate(0);
            message.body.extend_from_slice(&whole[..length]);
            assert!(event::decode(&message).is_err(), "{}: {length} bytes", vector.name);
        }
        message.body.clone_from(&whole);
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                message.body[at] ^= flip;
                for event in event::decode(&message).into_iter().flatten().flatten() {
                    let _ = event::encode(event);
                }
                message.body[at] ^= flip;
            }
        }
    }
}
