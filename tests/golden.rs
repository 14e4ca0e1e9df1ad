//! Messages of Python Celery, captured from real connections, read and written again.
//!
//! Each file of `tests/vectors` is one message with its meaning beside it; `README.md` there tells
//! the format. Every property is one test over all the files that it concerns, and a file that no
//! test knows fails the first one.

#[path = "golden/vector.rs"]
mod vector;

use celeriac::protocol::{
    DecodeErrorKind, Error, Limits, Map, Message, Properties, ResultMeta, Serializer, TaskMessage,
    TaskState, Value, json, msgpack,
};
use jiff::tz::TimeZone;
use vector::{Kind, Vector, letters, sorted, vectors, without_ids};

/// Runs `check` on all vectors of some kinds and reports all failures together.
fn each(kinds: &[Kind], check: impl Fn(&Vector) -> Result<(), String>) {
    let mut count = 0;
    let mut failures = Vec::new();
    for vector in vectors().iter().filter(|vector| kinds.contains(&vector.kind)) {
        count += 1;
        if let Err(failure) = check(vector) {
            failures.push(format!("{}: {failure}", vector.name));
        }
    }
    assert!(count > 0, "no vector of {kinds:?}");
    assert!(failures.is_empty(), "{} of {count} fail:\n{}", failures.len(), failures.join("\n"));
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}\n  found    {found:?}\n  expected {expected:?}"))
}

fn task(vector: &Vector) -> Result<TaskMessage, String> {
    TaskMessage::decode(&vector.message, &Limits::default())
        .map_err(|error| format!("{error}: {}", error.error()))
}

fn result(vector: &Vector) -> Result<ResultMeta, String> {
    ResultMeta::decode(&vector.message, &Limits::default()).map_err(|error| error.to_string())
}

#[test]
fn every_vector_belongs_to_a_test() {
    let unknown: Vec<_> =
        vectors().into_iter().filter(|it| it.kind == Kind::Unknown).map(|it| it.name).collect();
    assert!(unknown.is_empty(), "classify these vectors: {unknown:?}");
    assert_eq!(vectors().len(), 100, "vectors were added or lost");
}

#[test]
fn bodies_decode_to_what_the_capture_says() {
    each(&[Kind::Task, Kind::Protocol1, Kind::Result], |vector| {
        let body = vector.plain_body()?;
        let value = vector.serializer().decode(&body, &Limits::default());
        let value = value.map_err(|error| error.to_string())?;
        same("body", &sorted(value), &sorted(vector.body.clone()))
    });
}

#[test]
fn bodies_are_written_byte_for_byte_as_python_writes_them() {
    each(&[Kind::Task, Kind::Protocol1, Kind::Result], |vector| {
        let body = vector.plain_body()?;
        let value = vector.serializer().decode(&body, &Limits::default());
        let mut written = Vec::new();
        value
            .and_then(|value| vector.serializer().encode(&value, &mut written))
            .map_err(|error| error.to_string())?;
        same("body", &text(&written), &text(&body))
    });
}

#[test]
fn tasks_keep_their_headers_with_their_types() {
    each(&[Kind::Task, Kind::Malformed], |vector| {
        let written = task(vector)?.encode().map_err(|error| error.to_string())?;
        let headers = written.properties.headers.unwrap_or_default();
        let mut expected = vector.message.properties.headers.clone().unwrap_or_default();
        let mut expected_letters = vector.header_types.clone();
        // What the broker adds on the way belongs to one delivery, and is not sent on.
        let of_the_broker =
            ["x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
        for name in of_the_broker {
            expected.remove(name);
            vector::remove(&mut expected_letters, name);
        }
        // Byte strings that are not UTF-8 go on as a byte array, and not as broken text.
        vector::replace(&mut expected_letters, "x-bytes", "x");
        let found = Value::Map(headers);
        same("types", &letters(&found), &expected_letters)?;
        same("headers", &sorted(found), &sorted(Value::Map(expected)))
    });
}

#[test]
fn tasks_keep_their_properties() {
    each(&[Kind::Task, Kind::Malformed], |vector| {
        let written = task(vector)?.encode().map_err(|error| error.to_string())?;
        let expected = Properties {
            headers: None,
            // These have no meaning for a task, and are not kept.
            message_id: None,
            timestamp: None,
            kind: None,
            user_id: None,
            app_id: None,
            ..vector.message.properties.clone()
        };
        same("properties", &Properties { headers: None, ..written.properties }, &expected)
    });
}

#[test]
fn tasks_keep_their_bodies_byte_for_byte() {
    each(&[Kind::Task], |vector| {
        let read = task(vector)?;
        let mut written = Vec::new();
        read.body.encode(read.serializer, &mut written).map_err(|error| error.to_string())?;
        same("body", &text(&written), &text(&vector.plain_body()?))
    });
}

#[test]
fn tasks_that_were_written_again_mean_the_same() {
    each(&[Kind::Task, Kind::Protocol1, Kind::Malformed], |vector| {
        let read = task(vector)?;
        let written = read.encode().map_err(|error| error.to_string())?;
        let again = TaskMessage::decode(&written, &Limits::default());
        // Debug texts, since a float that is no number differs from itself.
        same("task", &format!("{again:?}"), &format!("{:?}", Ok::<_, ()>(read)))
    });
}

#[test]
fn dates_resolve_to_the_time_that_the_caller_meant() {
    // A naive date is read in the receiver's zone, here two hours east of Greenwich.
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let rows = [
        ("task-eta-json", "2030-01-02T03:04:05.678901Z"),
        ("task-eta-naive-json", "2030-01-02T01:04:05.678901Z"),
        ("task-eta-offset-json", "2030-01-02T03:04:05.678901Z"),
    ];
    let vectors = vectors();
    for (name, expected) in rows {
        let vector = vectors.iter().find(|it| it.name == name).expect(name);
        let eta = task(vector).map(|it| it.headers.eta.map(|eta| eta.timestamp(&zone).to_string()));
        assert_eq!(eta, Ok(Some(expected.to_owned())), "{name}");
    }
}

#[test]
fn protocol_1_reads_as_the_same_call() {
    each(&[Kind::Protocol1], |vector| {
        let read = task(vector)?;
        let key = |name| vector.body.as_map().and_then(|map| map.get(name)).cloned();
        same("task", &Some(Value::from(&*read.headers.task)), &key("task"))?;
        same("id", &Some(Value::from(&*read.headers.id)), &key("id"))?;
        same("args", &Some(Value::Array(read.body.args)), &key("args"))?;
        let eta = read.headers.eta.map(|eta| eta.as_str().to_owned());
        same("eta", &Some(Value::from(eta)), &key("eta"))?;
        let callbacks = read.body.embed.callbacks.unwrap_or_default();
        let callbacks = callbacks.into_iter().map(|callback| callback.into_value()).collect();
        let expected = key("callbacks").map(sorted);
        same("callbacks", &Some(sorted(Value::Array(callbacks))), &expected)?;
        same("argsrepr", &&*read.headers.argsrepr, &"(2, 3)")
    });
}

#[test]
fn malformed_groups_mean_what_their_json_twins_say() {
    each(&[Kind::Malformed], |vector| {
        let twin = vector.name.replace("-msgpack-MALFORMED", "-json");
        let twin = vectors().into_iter().find(|it| it.name == twin).ok_or("no twin")?;
        let (read, expected) = (task(vector)?, task(&twin)?);
        let embed = |message: TaskMessage| {
            let mut body = Vec::new();
            message.body.encode(Serializer::Json, &mut body).map_err(|error| error.to_string())?;
            Ok::<_, String>(without_ids(&body))
        };
        same("body", &embed(read)?, &embed(expected)?)
    });
}

#[test]
fn results_keep_every_field() {
    each(&[Kind::Result], |vector| {
        let read = result(vector)?;
        let correlation_id = vector.message.properties.correlation_id.clone().unwrap_or_default();
        let written = read
            .encode(vector.serializer(), &correlation_id, false)
            .map_err(|error| error.to_string())?;
        same("properties", &written.properties, &vector.message.properties)?;
        if vector.name == "result-success-celery54-json" {
            // Older releases put the id first and leave the date out; nobody relies on either.
            let mut expected = vector.body.clone();
            if let Value::Map(map) = &mut expected {
                map.push("date_done", Value::Null);
            }
            let found = json::decode(&written.body, &Limits::default());
            return same("body", &found.map(sorted), &Ok(sorted(expected)));
        }
        same("body", &text(&written.body), &text(&vector.message.body))
    });
}

#[test]
fn results_have_the_state_that_their_name_says() {
    let rows = [
        ("result-success-json", TaskState::Success),
        ("result-failure-msgpack", TaskState::Failure),
        ("result-started-msgpack", TaskState::Started),
        ("result-revoked-msgpack", TaskState::Revoked),
        ("result-retry-then-success-msgpack", TaskState::Retry),
        ("result-progress-msgpack", TaskState::Custom("PROGRESS".to_owned())),
    ];
    for (name, expected) in rows {
        let vectors = vectors();
        let vector = vectors.iter().find(|it| it.name == name).expect(name);
        assert_eq!(result(vector).map(|it| it.status), Ok(expected), "{name}");
    }
}

#[test]
fn what_is_not_spoken_is_refused_for_a_precise_reason() {
    let rows = [
        (
            "task-serializer-pickle-json",
            DecodeErrorKind::ContentType,
            "content-type",
            Error::ContentType("application/x-python-serialize".to_owned()),
        ),
        (
            "task-compression-bzip2-msgpack",
            DecodeErrorKind::Compression,
            "compression",
            Error::UnknownCompression("application/x-bz2".to_owned()),
        ),
    ];
    let refused: Vec<_> = vectors().into_iter().filter(|it| it.kind == Kind::Refused).collect();
    assert_eq!(refused.len(), rows.len());
    for (name, kind, reason, source) in rows {
        let vector = refused.iter().find(|it| it.name == name).expect(name);
        let error = TaskMessage::decode(&vector.message, &Limits::default()).expect_err(name);
        assert_eq!((error.kind(), error.reason(), error.error()), (kind, reason, &source));
        // The caller can be told nevertheless.
        let header = |key| vector.message.header(key).and_then(Value::as_str);
        assert_eq!(error.id(), header("id"), "{name}");
        assert_eq!(error.task(), header("task"), "{name}");
        assert_eq!(error.reply_to(), vector.message.properties.reply_to.as_deref(), "{name}");
        assert!(error.correlation_id().is_some() && error.headers().is_some(), "{name}");
    }
}

#[test]
fn every_prefix_of_a_body_is_an_error_and_no_panic() {
    each(&[Kind::Task, Kind::Result, Kind::Malformed], |vector| {
        let body = vector.plain_body()?;
        for length in 0..body.len() {
            let cut = body.get(..length).unwrap_or_default();
            if vector.serializer().decode(cut, &Limits::default()).is_ok() {
                return Err(format!("the first {length} bytes decode"));
            }
        }
        Ok(())
    });
}

#[test]
fn every_changed_byte_decodes_or_fails_within_bounds() {
    each(&[Kind::Task, Kind::Result, Kind::Malformed], |vector| {
        let mut message: Message = vector.message.clone();
        for at in 0..message.body.len() {
            for flip in [0x01, 0x80, 0xff] {
                if let Some(byte) = message.body.get_mut(at) {
                    *byte ^= flip;
                }
                let _ = TaskMessage::decode(&message, &Limits::default());
                let _ = ResultMeta::decode(&message, &Limits::default());
                if let Some(byte) = message.body.get_mut(at) {
                    *byte ^= flip;
                }
            }
        }
        same("restored", &message, &vector.message)
    });
}

#[test]
fn both_serializers_carry_the_meaning_of_every_body() {
    each(&[Kind::Task, Kind::Result, Kind::Malformed], |vector| {
        let body = vector.plain_body()?;
        let value = vector.serializer().decode(&body, &Limits::default());
        let value = value.map_err(|error| error.to_string())?;
        let mut written = Vec::new();
        json::encode(&value, &mut written).map_err(|error| error.to_string())?;
        same("json", &json::decode(&written, &Limits::default()), &Ok(value.clone()))?;
        written.clear();
        msgpack::encode(&value, &mut written).map_err(|error| error.to_string())?;
        let again = msgpack::decode(&written, &Limits::default());
        same("msgpack", &again, &Ok(vector::untagged(value)))
    });
}

/// A body for people: text, with everything else escaped.
fn text(body: &[u8]) -> String {
    body.escape_ascii().to_string()
}

#[test]
fn an_absent_header_table_is_not_a_task() {
    for headers in [None, Some(Map::new())] {
        let properties = Properties {
            content_type: Some("application/json".to_owned()),
            headers,
            ..Properties::default()
        };
        let message = Message { properties, body: b"[]".to_vec() };
        let error = TaskMessage::decode(&message, &Limits::default()).expect_err("no task");
        assert_eq!(error.reason(), "not-a-task");
    }
}
