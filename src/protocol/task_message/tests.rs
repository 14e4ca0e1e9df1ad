//! Task messages as strangers write them: tolerated, or refused for a reason.

use proptest::prelude::*;

use super::*;
use crate::protocol::{Signature, arbitrary, json};

/// A message with the least that a task needs, and `headers` beside it.
fn message(headers: &str, body: &str) -> Message {
    let headers = match json::decode(headers.as_bytes(), &Limits::default()).unwrap() {
        Value::Map(map) => map,
        other => panic!("{other:?}"),
    };
    let properties = Properties {
        content_type: Some("application/json".to_owned()),
        headers: Some(headers),
        reply_to: Some("replies".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        ..Properties::default()
    };
    Message { properties, body: body.as_bytes().to_vec() }
}

fn decode(message: &Message) -> Result<TaskMessage, DecodeError> {
    TaskMessage::decode(message, &Limits::default())
}

const LEAST: &str = r#"{"task": "t", "id": "1"}"#;

#[test]
fn what_python_workers_tolerate_is_tolerated() {
    let rows = [
        (LEAST, "[[], {}, {}]"),
        (LEAST, "[[], {}, null]"),
        (LEAST, "[[], null, null]"),
        (LEAST, r#"[[], {}, {"callbacks": null, "chain": [], "unknown": 1}]"#),
        (r#"{"task": "t", "id": "1", "lang": "go", "timelimit": null}"#, "[[], {}, {}]"),
        (r#"{"task": "t", "id": "1", "timelimit": [1.5]}"#, "[[], {}, {}]"),
        (r#"{"task": "t", "id": "1", "ignore_result": null}"#, "[[], {}, {}]"),
        (r#"{"task": "t", "id": "1", "retries": null, "stamps": null}"#, "[[], {}, {}]"),
        (r#"{"task": "t", "id": "1", "argsrepr": 5, "shadow": [1]}"#, "[[], {}, {}]"),
    ];
    for (headers, body) in rows {
        let read = decode(&message(headers, body)).unwrap();
        assert_eq!((&*read.headers.task, &*read.headers.id), ("t", "1"), "{headers} {body}");
        assert!(read.encode().is_ok());
    }
}

#[test]
fn every_way_to_be_no_task_has_its_reason() {
    let rows = [
        ("{}", "[[], {}, {}]", "not-a-task", "'task' is missing"),
        ("{}", r#"{"id": "1"}"#, "not-a-task", "'task' is missing"),
        ("{}", r#"{"task": "t"}"#, "no-id", "'id' is missing"),
        ("{}", r#"{"task": "t", "id": "1"}"#, "body", "'args' must be a list, not None"),
        (r#"{"task": "t"}"#, "[[], {}, {}]", "no-id", "'id' is missing"),
        (r#"{"task": "t", "id": null}"#, "[[], {}, {}]", "no-id", "'id' is missing"),
        (r#"{"task": "t", "id": 5}"#, "[]", "headers", "'id' must be text, not int"),
        (
            r#"{"task": "t", "id": "1", "eta": "soon"}"#,
            "[[], {}, {}]",
            "headers",
            "'soon' is not a date in ISO 8601",
        ),
        (
            r#"{"task": "t", "id": "1", "retries": "many"}"#,
            "[[], {}, {}]",
            "headers",
            "'retries' must be an integer, not str",
        ),
        (
            r#"{"task": "t", "id": "1", "compression": "lzma"}"#,
            "[[], {}, {}]",
            "compression",
            "unknown compression 'lzma'",
        ),
        (
            r#"{"task": "t", "id": "1", "compression": "gzip"}"#,
            "[[], {}, {}]",
            "compression",
            "broken gzip data",
        ),
        (LEAST, "", "body", "unexpected end of json"),
        (LEAST, "{}", "body", "'body' must be a list, not dict"),
        (LEAST, "[[], {}]", "body", "'embed' is missing"),
        (LEAST, "[[], {}, {}, 1]", "body", "'body' must be three elements, not more"),
        (LEAST, "[null, {}, {}]", "body", "'args' must be a list, not None"),
        (LEAST, "[[], 5, {}]", "body", "'kwargs' must be a dict, not int"),
        (LEAST, r#"[[], {}, {"chord": {}}]"#, "body", "'task' is missing"),
        (
            LEAST,
            r#"[[], {}, {"chain": "x"}]"#,
            "body",
            "'chain' must be a list of signatures, not str",
        ),
    ];
    for (headers, body, reason, text) in rows {
        let error = decode(&message(headers, body)).unwrap_err();
        let found = (error.reason(), error.error().to_string());
        assert_eq!(found, (reason, text.to_owned()), "{headers} {body}");
        // The caller can be told.
        assert_eq!((error.reply_to(), error.correlation_id()), (Some("replies"), Some("c-1")));
        assert_eq!(error.serializer(), Some(Serializer::Json));
    }
}

#[test]
fn a_content_type_is_needed() {
    for (content_type, text) in [
        (None, "'content_type' is missing"),
        (Some("application/x-yaml"), "content type 'application/x-yaml' is not accepted"),
    ] {
        let mut message = message(LEAST, "[[], {}, {}]");
        message.properties.content_type = content_type.map(str::to_owned);
        let error = decode(&message).unwrap_err();
        let found = (error.reason(), error.error().to_string(), error.serializer());
        assert_eq!(found, ("content-type", text.to_owned(), None));
        assert_eq!(error.headers().map(|it| &*it.id), Some("1"));
    }
}

#[test]
fn the_limit_holds_before_and_after_unpacking() {
    let limits = Limits { bytes_max: 1000, ..Limits::default() };
    let mut task = TaskMessage::default();
    (task.headers.task, task.headers.id) = ("t".to_owned(), "1".to_owned());
    task.body.args = vec![Value::from("x".repeat(1000))];
    let reason = |task: &TaskMessage| {
        let error = TaskMessage::decode(&task.encode().unwrap(), &limits).unwrap_err();
        assert_eq!(error.error(), &Error::Limit { what: "bytes", max: 1000 });
        error.reason()
    };
    assert_eq!(reason(&task), "body");
    task.compression = Some(Compression::Zstd);
    assert_eq!(reason(&task), "compression");
}

#[test]
fn what_would_break_the_connection_is_not_written() {
    let mut task = TaskMessage::default();
    assert_eq!(task.encode(), Err(Error::Missing { field: "task" }));
    task.headers.task = "t".to_owned();
    assert_eq!(task.encode(), Err(Error::Missing { field: "id" }));
    let check = |change: fn(&mut TaskMessage), field| {
        let mut task = task.clone();
        task.headers.id = "x".repeat(255);
        assert!(task.encode().is_ok());
        change(&mut task);
        assert_eq!(task.encode(), Err(Error::TooLong { field, length: 256, max: 255 }));
    };
    check(|task| task.headers.id.push('x'), "id");
    check(|task| task.reply_to = Some("x".repeat(256)), "reply_to");
    check(|task| task.correlation_id = Some("x".repeat(256)), "correlation_id");
    check(|task| task.headers.extra.push("x".repeat(256), 1), "header name");
    check(
        |task| {
            let inner = Map::from_iter([("x".repeat(256), 1)]);
            task.headers.stamps.push("a", vec![Value::Map(inner)]);
        },
        "header name",
    );
}

#[test]
fn the_compression_of_the_message_decides_over_the_header() {
    let mut task = TaskMessage::default();
    (task.headers.task, task.headers.id) = ("t".to_owned(), "1".to_owned());
    task.headers.compression = Some("application/x-bz2".to_owned());
    assert_eq!(task.encode().unwrap().header("compression"), None);
    task.compression = Some(Compression::Zlib);
    let written = task.encode().unwrap();
    assert_eq!(written.header("compression"), Some(&Value::from("application/x-gzip")));
    assert_eq!(decode(&written).unwrap().compression, task.compression);
}

prop_compose! {
    fn signature()(
        task: String,
        args in prop::collection::vec(arbitrary::plain(), 0..3),
        kwargs in arbitrary::map(arbitrary::plain()),
        options in arbitrary::map(arbitrary::plain()),
        immutable: bool,
    ) -> Signature {
        Signature { task, args, kwargs, options, subtask_type: None, immutable }
    }
}

prop_compose! {
    fn task()(
        task in "[a-z.]{1,20}",
        id in ".{1,60}",
        group_index: Option<i64>,
        ignore_result: Option<bool>,
        hard in prop::option::of(0.001..1e6),
        args in prop::collection::vec(arbitrary::plain(), 0..5),
        kwargs in arbitrary::map(arbitrary::plain()),
        chain in prop::option::of(prop::collection::vec(signature(), 0..3)),
        chord in prop::option::of(signature()),
        is_json: bool,
        compression in prop_oneof![
            Just(None),
            Just(Some(Compression::Zlib)),
            Just(Some(Compression::Zstd)),
        ],
        priority: Option<u8>,
        expiration_ms: Option<u64>,
        persistent: bool,
    ) -> TaskMessage {
        let mut headers = TaskHeaders::new(task, id);
        headers.group_index = group_index;
        headers.ignore_result = ignore_result;
        headers.timelimit.hard = hard;
        headers.compression = compression.map(|it| it.content_type().to_owned());
        let mut body = TaskBody { args, kwargs, ..TaskBody::default() };
        body.embed.chain = chain;
        body.embed.chord = chord.map(Box::new);
        let serializer = if is_json { Serializer::Json } else { Serializer::Msgpack };
        let reply_to = Some("r".to_owned());
        TaskMessage {
            headers, body, serializer, compression, priority, expiration_ms, persistent,
            reply_to, correlation_id: None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(task in task()) {
        prop_assert_eq!(decode(&task.encode().unwrap()), Ok(task));
    }

    #[test]
    fn random_headers_and_bodies_never_panic(
        headers in arbitrary::map(arbitrary::rich()),
        body in arbitrary::rich(),
        has_task: bool,
        is_json: bool,
    ) {
        let serializer = if is_json { Serializer::Json } else { Serializer::Msgpack };
        let mut message = Message::default();
        // A BigInt has no form in MessagePack; what was written of it is broken, as wanted.
        let _ = serializer.encode(&body, &mut message.body);
        let mut headers = headers;
        if has_task {
            headers.insert("task", "t");
            headers.insert("id", "1");
        }
        message.properties.headers = Some(headers);
        message.properties.content_type = Some(serializer.name().to_owned());
        let _ = decode(&message);
    }
}
