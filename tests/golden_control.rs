//! Remote control of Python Celery, captured from real connections, read and written again.
//!
//! Each file of `tests/vectors/control` holds requests with the replies to each.

use celeriac::protocol::control::{Reply, Request};
use celeriac::protocol::{Map, Message, Properties, Serializer, Value, json};
use serde_json::Value as Json;

struct Case {
    name: String,
    request: Json,
    replies: Vec<Json>,
}

fn cases() -> Vec<Case> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/control");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder is readable").path();
        let text = std::fs::read_to_string(&path).expect("the file is readable");
        let file: Json = serde_json::from_str(&text).expect("the file is JSON");
        for case in file["cases"].as_array().expect("cases") {
            cases.push(Case {
                name: format!("{} {}", file["name"], case["case"]),
                request: case["request"].clone(),
                replies: case["replies"].as_array().expect("replies").clone(),
            });
        }
    }
    assert!(cases.len() > 40, "captures were lost");
    cases
}

/// The message, with the headers that remote control uses.
fn message(captured: &Json) -> Message {
    let properties = &captured["properties"];
    let text = |key: &str| properties[key].as_str().map(str::to_owned);
    let small = |key: &str| properties[key].as_u64().map(|it| u8::try_from(it).expect("small"));
    let mut headers = Map::new();
    for (key, value) in properties["headers"].as_object().expect("headers") {
        let letter = captured["header_types"][key].as_str().expect("a letter");
        let value = match letter {
            "S" => Value::from(value.as_str().expect("text")),
            "I" => Value::from(value.as_i64().expect("a number")),
            "d" => Value::from(value.as_f64().expect("a number")),
            other => panic!("letter {other}"),
        };
        headers.push(key.clone(), value);
    }
    let hex = captured["body_hex"].as_str().expect("a body");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    Message {
        properties: Properties {
            content_type: text("content_type"),
            content_encoding: text("content_encoding"),
            headers: Some(headers),
            delivery_mode: small("delivery_mode"),
            priority: small("priority"),
            ..Properties::default()
        },
        body: (0..hex.len()).step_by(2).map(byte).collect(),
    }
}

fn header(message: &Message, key: &str) -> Value {
    message.header(key).cloned().expect("the header is there")
}

#[test]
fn requests_are_written_byte_for_byte_as_python_writes_them() {
    for Case { name, request, .. } in cases() {
        let captured = message(&request);
        let (read, serializer) = Request::decode(&captured).expect(&name);
        let expires = match header(&captured, "expires") {
            Value::Float(expires) => expires,
            other => panic!("{name}: expires is {other:?}"),
        };
        let clock = header(&captured, "clock").as_i64().expect("a number");
        let written = read.encode(serializer, clock, expires).expect(&name);
        assert_eq!(text(&written), text(&captured), "{name}");
        assert_eq!(written, captured, "{name}");
    }
}

#[test]
fn replies_are_written_byte_for_byte_as_python_writes_them() {
    for Case { name, replies, request } in cases() {
        let (asked, serializer) = Request::decode(&message(&request)).expect(&name);
        for reply in replies {
            let captured = message(&reply);
            let read = Reply::decode(&captured).expect(&name);
            assert_eq!(read.ticket, asked.ticket, "{name}");
            let clock = header(&captured, "clock").as_i64().expect("a number");
            let written = read.encode(serializer, clock).expect(&name);
            assert_eq!(text(&written), text(&captured), "{name}");
            assert_eq!(written, captured, "{name}");
        }
    }
}

#[test]
fn those_have_answered_whom_the_request_concerns() {
    for Case { name, request, replies } in cases() {
        let (asked, _) = Request::decode(&message(&request)).expect(&name);
        for reply in replies {
            let reply = Reply::decode(&message(&reply)).expect(&name);
            for (hostname, _) in reply.answers.iter() {
                assert!(asked.concerns(hostname).expect(&name), "{name}: {hostname}");
            }
        }
        if !asked.destination.is_empty() || asked.matcher.is_some() {
            assert!(!asked.concerns("nobody@nowhere").expect(&name), "{name}");
        }
    }
}

fn text(message: &Message) -> String {
    let content_type = message.properties.content_type.as_deref().unwrap_or_default();
    if Serializer::from_content_type(content_type) == Some(Serializer::Json) {
        return String::from_utf8_lossy(&message.body).into_owned();
    }
    let mut out = Vec::new();
    let limits = celeriac::protocol::Limits::default();
    let value = Serializer::Msgpack.decode(&message.body, &limits).expect("MessagePack");
    json::encode(&value, &mut out).expect("JSON");
    String::from_utf8_lossy(&out).into_owned()
}
